"""The text of credentials.env and site.toml, and how a file comes into being without ever replacing one."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..folder.paths import remove, sync_folder


def site_text(example: str, settings: Mapping[tuple[str, str], Any]) -> str:
    """The example with these settings, each in its place: (table, name) -> value. Raises KeyError for one it lacks."""
    lines, table = example.split("\n"), ""
    left = dict(settings)
    for number, line in enumerate(lines):
        header = re.match(r"\[+([\w.]+)\]+", line)
        table = header.group(1) if header else table
        setting = re.match(r"#?(\w+) = ", line)
        if setting and (table, setting.group(1)) in left:
            name = setting.group(1)
            lines[number] = f"{name} = {toml(left.pop((table, name)))}"
    if left:
        raise KeyError(*left)
    return "\n".join(lines)


def toml(value: Any) -> str:
    """A value as TOML has it; a JSON string is one of its basic strings."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml(inner)}' for key, inner in value.items())} }}"
    return json.dumps(value, ensure_ascii=True)


def create(path: Path, text: str) -> bool:
    """False where there is one already, which stays as it is. Afterwards it survives a power failure. Raises OSError."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
        sync_folder(path.parent)
    except FileExistsError:
        return False
    finally:
        remove(aside)
    return True


def put_aside(path: Path) -> Path:
    """Gives the file that is there another name, which it keeps; returns that."""
    kept = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    os.rename(path, kept)
    return kept
