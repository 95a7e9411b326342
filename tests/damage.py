"""What may stand in a file's place after a crash, a purge, a restore or a slip of the hand."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Callable


def _instead(path: Path) -> Path:
    """Nothing stands there any more."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path


def _cut(path: Path) -> None:
    os.truncate(path, max(1, path.stat().st_size // 2))


def _with(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _folder(path: Path) -> None:
    _instead(path).mkdir()
    (path / "in it").write_text("")


def _socket(path: Path) -> None:
    _instead(path)
    here = os.getcwd()
    os.chdir(path.parent)  # its name may be longer than that of a socket may
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _enormous(path: Path) -> None:
    """Sparse: it takes no room, but whoever reads it into memory dies."""
    os.truncate(path, 1 << 42)


def _unreadable(path: Path) -> None:
    path.chmod(0)


OF_A_FILE: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "empty": _with(b""),
    "zeros": _with(b"\0" * 4096),
    "binary": _with(bytes(range(256)) * 16),
    "not UTF-8": _with(b'{"since": "\xff\xfe"}'),
    "null": _with(b"null"),
    "a list": _with(b"[1, 2]"),
    "an empty object": _with(b"{}"),
    "a number": _with(b"1e999"),
    "NaN": _with(b'{"at": NaN, "since": NaN, "pid": NaN}'),
    "huge numbers": _with(b'{"at": 1e300, "since": %d, "format": %d}' % (10**400, 2**80)),
    "nested deeply": _with(b"[" * 100_000),
    "a folder": _folder,
    "a dangling link": lambda path: _instead(path).symlink_to("nowhere"),
    "a link to itself": lambda path: _instead(path).symlink_to(path.name),
    "a link to a device": lambda path: _instead(path).symlink_to("/dev/zero"),
    "a fifo": lambda path: os.mkfifo(_instead(path)),
    "a socket": _socket,
    "enormous": _enormous,
}
"""By name: what makes it so. The file is there before."""
OF_A_FOLDER: dict[str, Callable[[Path], None]] = {
    "a file": lambda path: _instead(path).touch(),
    "a dangling link": lambda path: _instead(path).symlink_to("nowhere"),
    "a link to itself": lambda path: _instead(path).symlink_to(path.name),
    "a fifo": lambda path: os.mkfifo(_instead(path)),
}
OF_A_NAME: dict[str, str] = {
    "a path upwards": "../../../elsewhere",
    "a path from the root": "/nowhere/elsewhere",
    "nothing": "",
    "a NUL": "x\0elsewhere",
    "far too long": "x" * 4096,
    "an option": "--elsewhere",
    "a dot": ".",
    "a line of its own": "x\nelsewhere",
}
"""What may stand, in a fact that is JSON as it was, where a name did."""
UNREADABLE = _unreadable
"""Means nothing to root."""
