"""A short, plain second name for a folder, for programs that can't bear quotes, spaces or long names (sockets: 108)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def new_alias() -> Path:
    """A name that nothing has. Not under TMPDIR, which may be as long and as odd as the folder itself."""
    return Path("/tmp") / f"bf-{secrets.token_hex(4)}"


def point(alias: Path, folder: Path) -> None:
    if not alias.is_symlink():
        os.symlink(folder, alias)


def remove(alias: Path) -> None:
    if alias.is_symlink():
        alias.unlink()
