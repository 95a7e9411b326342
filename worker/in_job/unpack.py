"""An archive that a job brings along becomes files, or a sentence: nothing in it is trusted.

Only plain files and folders are taken, each at a path of its own below the target. What is written is counted as it is
written, whatever the archive says of itself.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InvalidSpec, StepFailed
from ..job.own_code import path_of

_PIECE = 1 << 20
_LONGEST_HEADER = 8 << 20
"""Bytes that are read at once where the archive says how many: of a long name, or of a directory of names."""
_IN_PIECES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What zipfile unpacks a piece at a time. Of bzip2 and LZMA it unpacks all that a piece holds: of 1 MiB, gigabytes."""
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError,
           NotImplementedError, RuntimeError, KeyError, OverflowError, UnicodeError)  # fmt: skip
"""What the libraries raise for one that is damaged, encrypted, or packed in a way that they don't know."""


def unpack(archive: Path, name: str, target: Path, most_bytes: int, most_files: int) -> None:
    """`name`: the end of its address, which says what it is. Raises StepFailed with a sentence for the requester, and
    OSError."""
    files = _Files(target, most_bytes, most_files)
    try:
        with open(archive, "rb") as file:
            if name.lower().endswith(".zip"):
                _unzip(_Careful(file), files)
            else:
                _untar(file, name.lower(), archive.with_name("archive.tar"), files)
    except _BROKEN:
        raise _refused(f"is no archive that can be read, or is damaged ({_what_it_is(archive)})") from None
    if not files.count:
        raise _refused("holds no file")


def _refused(words: str) -> StepFailed:
    return StepFailed("fetch", f"The archive of the code {words}.")


def _what_it_is(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    return "it is a web page" if head.startswith((b"<!doctype html", b"<html")) else f"{path.stat().st_size} bytes"


class _Careful(io.BufferedIOBase):
    """A file of which nobody reads so much at once that it would fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > _LONGEST_HEADER:
            size = _LONGEST_HEADER + 1
            data = self._file.read(size)
            if len(data) == size:
                raise ValueError("a header is too long")
            return data
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Raises io.UnsupportedOperation for a place that no file has: an OSError, which zipfile looks out for, and a
        ValueError, because the archive is at fault and not the disk."""
        try:
            return self._file.seek(offset, whence)
        except OSError:
            raise io.UnsupportedOperation("it points to a place outside of itself") from None

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Files:
    """What was written so far."""

    def __init__(self, target: Path, most_bytes: int, most_files: int) -> None:
        self._target, self.most_bytes, self.most_files = target, most_bytes, most_files
        self._left, self._seen, self._folders = most_bytes, set[str](), {""}
        self.count = 0

    def folder(self, name: str) -> None:
        path = self._path(name.rstrip("/"))
        if path not in self._folders:
            self._make(path)

    def file(self, name: str, source: IO[bytes], executable: bool) -> None:
        path = self._path(name)
        if path in self._seen or path in self._folders:
            raise _refused(f'holds "{_shown(path)}" twice')
        self._make(path.rpartition("/")[0])
        self._count(path)
        self.count += 1
        mode = 0o700 if executable else 0o600
        with open(
            os.open(self._target / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb"
        ) as file:
            while piece := source.read(_PIECE):
                self.take(len(piece))
                file.write(piece)

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self.too_large()

    def too_large(self) -> StepFailed:
        return _refused(f"unpacks to more than the {self.most_bytes} bytes that are allowed")

    def _path(self, name: str) -> str:
        try:
            return path_of(name, "file")
        except InvalidSpec:
            words = f'holds "{_shown(name)}", which no file of it may be called'
            raise _refused(words) from None

    def _make(self, path: str) -> None:
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder in self._seen:
                raise _refused(f'holds "{_shown(folder)}" as a file and as a folder')
            if folder not in self._folders:
                self._folders.add(folder)
                self._count(folder)
                os.mkdir(self._target / folder, 0o700)

    def _count(self, path: str) -> None:
        if path not in self._folders:
            self._seen.add(path)
        if len(self._seen) + len(self._folders) > self.most_files:
            raise _refused(f"holds more than the {self.most_files} files that are allowed")


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:80])


def _unzip(file: _Careful, files: _Files) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                files.folder(member.filename)
                continue
            if member.compress_type not in _IN_PIECES:
                raise _refused(f'holds "{_shown(member.filename)}", packed in a way that is not taken here')
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or mode & (stat.S_ISUID | stat.S_ISGID):
                raise _refused(f'holds "{_shown(member.filename)}", which is no plain file')
            with archive.open(member) as source:
                files.file(member.filename, source, bool(mode & stat.S_IXUSR))


def _untar(file: IO[bytes], name: str, unpacked: Path, files: _Files) -> None:
    """Unpacked to the disk first: what tarfile reads at once then is bounded by what is there."""
    try:
        with open(unpacked, "wb") as plain, _decompressed(file, name) as source:
            while piece := source.read(_PIECE):
                if plain.tell() + len(piece) > files.most_bytes + 1024 * files.most_files:  # each has a header
                    raise files.too_large()
                plain.write(piece)
        with open(unpacked, "rb") as made, tarfile.open(fileobj=_Careful(made), mode="r:") as archive:
            for member in _members(archive):
                _take_member(archive, member, files)
    finally:
        unpacked.unlink(missing_ok=True)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while member := archive.next():
        archive.members.clear()  # type: ignore[attr-defined]  # else all of them are kept
        yield member


def _take_member(archive: tarfile.TarFile, member: tarfile.TarInfo, files: _Files) -> None:
    if member.isdir():
        if member.name not in (".", "./"):
            files.folder(member.name)
        return
    if not member.isreg() or member.mode & (stat.S_ISUID | stat.S_ISGID):
        raise _refused(f'holds "{_shown(member.name)}", which is no plain file')
    source = archive.extractfile(member)
    assert source is not None
    with source:
        files.file(member.name, source, bool(member.mode & stat.S_IXUSR))


def _decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    if not name.endswith(".tar.zst"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    module: Any
    try:
        from compression import zstd as module  # type: ignore[import-not-found,no-redef,unused-ignore]  # Python 3.14
    except ImportError:
        try:
            import zstandard as module  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            raise StepFailed(
                "fetch", "An archive of the kind .tar.zst can't be unpacked here. Give a .tar.gz or a .zip."
            ) from None
    return module.open(file, "rb")  # type: ignore[no-any-return]
