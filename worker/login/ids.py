"""The ids of all jobs that pilots have done, for finding duplicates: sorted files, merged as they become many.

Each id has 16 bytes. A look-up is a binary search in each file; files of about the same size are merged into one, so there
are few of them however many jobs there were. Only the login side writes here, one process at a time.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import Damaged
from ..folder import paths

log = logging.getLogger(__name__)

_BYTES = 16
_LARGEST = 1 << 34
"""Bytes: of a thousand million ids."""
_FAN = 8
"""So many files of one size class become one of the next."""


class Ids:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, _Sorted] = {}
        self.lost = 0
        """Files that were damaged."""

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` (32 hexadecimal digits each) that are in here."""
        self._load()
        return {each for each in ids if any(bytes.fromhex(each) in file for file in self._files.values())}

    def add(self, ids: Iterable[str]) -> None:
        """On disk after the return. Raises OSError."""
        self._load()
        self._write(b"".join(sorted({bytes.fromhex(each) for each in ids})))
        for size_class in range(12):
            alike = [name for name, file in self._files.items() if _class(len(file)) == size_class]
            if len(alike) >= _FAN:
                self._merge(alike)

    def forget_before(self, then: float) -> None:
        """Files whose newest id is older, in seconds since 1970."""
        for path in list(self._path.glob("*.ids")):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < then:
                    paths.remove(path)
                    self._files.pop(path.name, None)

    def _merge(self, names: Sequence[str]) -> None:
        """A crash in between leaves an id in two files, which changes nothing."""
        self._write(b"".join(sorted({each for name in names for each in self._files[name]})))
        for name in names:
            paths.remove(self._path / name)
            del self._files[name]

    def _write(self, data: bytes) -> None:
        if data:
            name = f"{time.strftime('%Y%m%d%H%M%S')}-{secrets.token_hex(4)}.ids"
            paths.write_bytes(self._path / name, data)
            self._files[name] = _Sorted(data)

    def _load(self) -> None:
        """Another process may have written here since."""
        if os.path.lexists(self._path) and not self._path.is_dir():
            log.error("damaged, put aside: jobs are done again if their messages come again what=%r now=%s",
                      f"{self._path} is not a folder", paths.put_aside(self._path))  # fmt: skip
            self.lost += 1
        paths.make_folder(self._path)
        names = {name for name in os.listdir(self._path) if name.endswith(".ids")}
        for gone in set(self._files) - names:
            del self._files[gone]
        for name in names - set(self._files):
            try:
                self._files[name] = _Sorted(_content(self._path / name))
            except Damaged as error:
                log.error("damaged, put aside: its jobs are done again if their messages come again what=%r now=%s",
                          str(error), paths.put_aside(self._path / name))  # fmt: skip
                self.lost += 1


def _content(path: Path) -> bytes:
    data = paths.contents(path, _LARGEST) or b""
    if len(data) % _BYTES:
        raise Damaged(f"{path} was cut off")
    return data


class _Sorted:
    """Sorted ids, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data) // _BYTES

    def __getitem__(self, index: int) -> bytes:
        if index >= len(self):
            raise IndexError(index)
        return self._data[index * _BYTES : (index + 1) * _BYTES]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, wanted: bytes) -> bool:
        place = bisect.bisect_left(self, wanted)
        return place < len(self) and self[place] == wanted


def _class(count: int) -> int:
    """0 for up to 512 ids, 1 for up to 4096, ..."""
    size_class = 0
    while count > 512:
        count, size_class = count // _FAN, size_class + 1
    return size_class
