"""Says what a service needs that this machine lacks; nothing here starts anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Optional

# Daemons live in sbin, which is not on the PATH of every account.
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class ServiceMissing(Exception):
    """A service can't be had on this machine; the text says why and what to install or to do."""


def find(program: str) -> Optional[str]:
    """The absolute path of a program, or None."""
    return shutil.which(program, path=_SEARCH)


def require(service: str, packages: Mapping[str, str]) -> dict[str, str]:
    """Program -> its path, for all of `packages` (program -> Debian package); ServiceMissing if one is absent."""
    found = {program: find(program) for program in packages}
    absent = [program for program, path in found.items() if path is None]
    if absent:
        wanted = " ".join(sorted({packages[program] for program in absent}))
        raise ServiceMissing(
            f"{service}: no {', '.join(absent)} on this machine; on Debian or Ubuntu: apt-get install {wanted}"
        )
    return {program: path for program, path in found.items() if path is not None}
