"""A folder of outputs as one file: a zip of all that is in it, which every platform can open.

Facts: PKWARE's APPNOTE.TXT 6.3.10: names have forward slashes (4.4.17), times begin in 1980 (4.4.6), and a file of 4 GiB or
more needs ZIP64 (4.3.9.2).
"""

from __future__ import annotations

import os
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import StepFailed
from ..folder import paths

_PIECE = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)
_PACKED_ALREADY = (".png", ".jpg", ".jpeg", ".jp2", ".webp", ".gz", ".xz", ".zst", ".zip", ".bz2", ".mp4", ".npz")


class Folder:
    """`size`: bytes of all files in it."""

    def __init__(self, name: str, path: Path) -> None:
        """Raises StepFailed for one that is missing, or holds what is neither a plain file nor a folder; and OSError."""
        self.name, self.path = name, path
        try:
            if path.parent.is_symlink() or not stat.S_ISDIR(os.lstat(path).st_mode):
                raise StepFailed("pack", f'The output "{name}" is not a folder.')
        except FileNotFoundError:
            raise StepFailed("pack", f'The program did not make the output "{name}".') from None
        self._inside = paths.names_of_files(path.parent)
        self.size = sum(status.st_size for _, status in self._entries() if stat.S_ISREG(status.st_mode))

    def pack(self, target: Path) -> None:
        """Each file as long as it was when it was opened. Raises StepFailed, and OSError."""
        names: set[str] = set()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=1) as packed:
            for path, status in self._entries():
                name = _free_name(os.path.relpath(path, self.path), names)
                if stat.S_ISDIR(status.st_mode):
                    packed.writestr(_info(f"{name}/", status), b"")
                else:
                    self._add(packed, _info(name, status), path)

    def _add(self, packed: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as source, packed.open(info, "w", force_zip64=True) as target:
            found = os.fstat(descriptor)
            self._look_at(path, found)
            left = found.st_size
            while left:
                piece = source.read(min(_PIECE, left))
                if not piece:
                    raise StepFailed("pack", f'The output "{self.name}" shrank while it was read.')
                target.write(piece)
                left -= len(piece)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """In the order of their names, each folder before what is in it."""
        left = [str(self.path)]
        while left:
            with os.scandir(left.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                self._look_at(entry.path, status)
                yield entry.path, status
            left += [entry.path for entry in reversed(found) if entry.is_dir(follow_symlinks=False)]

    def _look_at(self, path: str, status: os.stat_result) -> None:
        """Neither a link, symbolic or hard (it could lead to any file of this user), nor a device, nor a fifo."""
        if stat.S_ISDIR(status.st_mode):
            return
        if not stat.S_ISREG(status.st_mode):
            raise StepFailed("pack", f'The output "{self.name}" holds {_shown(path)}, which is not a plain file.')
        if status.st_nlink > self._inside[status.st_dev, status.st_ino]:
            words = f"holds {_shown(path)}, a hard link to a file outside of the outputs. The program must copy it."
            raise StepFailed("pack", f'The output "{self.name}" {words}')


def _info(name: str, status: os.stat_result) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, min(max(time.gmtime(max(0, status.st_mtime))[:6], _EARLIEST), _LATEST))
    info.external_attr = (status.st_mode & 0xFFFF) << 16 | (0x10 if name.endswith("/") else 0)
    info.compress_type = zipfile.ZIP_STORED if name.lower().endswith(_PACKED_ALREADY) else zipfile.ZIP_DEFLATED
    return info


def _free_name(name: str, taken: set[str]) -> str:
    """One that each platform can write: nobody's path leads elsewhere by it, and none is there twice."""
    parts = ["".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in part) for part in name.split("/")]
    free = wanted = "/".join(parts)
    number = 2
    while free in taken:
        free, number = f"{wanted}~{number}", number + 1
    taken.add(free)
    return free


def _shown(path: str) -> str:
    name = os.path.basename(path)
    return '"' + "".join(c if c.isprintable() else "?" for c in name[:80]) + '"'
