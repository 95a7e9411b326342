"""What goes home: the declared outputs, each checked before any of them is read. A manifest, and no form of an answer."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Union

from ..errors import OutputsTooLarge, StepFailed
from ..folder import paths
from ..job.outcome import Output
from ..job.sentences import outputs_too_large
from ..job.spec import JobSpec
from .zipped import Folder


@dataclass
class OutputFile:
    """One output, for a delivery to read. `size` in bytes; `type` is a media type (RFC 6838); `sha256`, in hexadecimal, is
    there once it was read to its end."""

    name: str
    path: Path
    size: int
    sha256: str = ""

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def type(self) -> str:
        """By the end of its name, whatever this host has in /etc/mime.types."""
        import mimetypes  # which reads that file all the same

        return mimetypes.MimeTypes().guess_type(self.file)[0] or "application/octet-stream"

    def pieces(self, most: int) -> Iterator[bytes]:
        """Each of `most` bytes but the last one; as many in all as were found, also where the file still grows. Raises
        StepFailed and OSError."""
        digest, left = hashlib.sha256(), self.size
        with _open_plain(self.name, self.path) as source:
            while left:
                piece = source.read(min(most, left))
                if not piece:
                    raise StepFailed("pack", f'The output "{self.name}" shrank while it was read.')
                left -= len(piece)
                digest.update(piece)
                yield piece
        self.sha256 = digest.hexdigest()


def collect(spec: JobSpec, outputs: Path, most: int) -> list[OutputFile]:
    """`most`: bytes that all of them may have together. Raises StepFailed for one that is missing or is no plain file, and
    where they are too large; and OSError."""
    found = _found(spec, outputs)
    size = sum(each.size for each in found)
    if size > most:
        raise OutputsTooLarge(outputs_too_large(most, size))
    return [each if isinstance(each, OutputFile) else _packed(each, outputs.parent / "packed") for each in found]


def size_of(spec: JobSpec, outputs: Path) -> int:
    """In bytes, of all of them. Raises what `collect` raises."""
    return sum(each.size for each in _found(spec, outputs))


def _found(spec: JobSpec, outputs: Path) -> list[Union[OutputFile, Folder]]:
    found: list[Union[OutputFile, Folder]] = []
    for name, file in spec.outputs.items():
        if name in spec.folders:
            found.append(Folder(name, outputs / file))
        else:
            with _open_plain(name, outputs / file) as source:
                found.append(OutputFile(name, outputs / file, os.fstat(source.fileno()).st_size))
    return found


def manifest(collected: list[OutputFile], typed: bool) -> dict[str, Output]:
    """Once all were read. `typed`: whether their requester wants to know their types."""
    return {each.name: Output(each.size, each.sha256, each.type if typed else "") for each in collected}


def _packed(folder: Folder, place: Path) -> OutputFile:
    place.mkdir(mode=0o700, exist_ok=True)
    file = place / f"{folder.path.name}.zip"
    folder.pack(file)
    return OutputFile(folder.name, file, file.stat().st_size)


def _open_plain(name: str, path: Path) -> BinaryIO:
    """Neither a link, symbolic or hard (it could lead to any file of this user), nor a device, nor a fifo that would never
    end. Two outputs may be one file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StepFailed("pack", f'The program did not make the output "{name}".') from None
    except PermissionError:
        raise StepFailed("pack", f'The output "{name}" may not be read.') from None
    except OSError:
        raise StepFailed("pack", f'The output "{name}" is not a plain file.') from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or path.parent.is_symlink():
        os.close(descriptor)
        raise StepFailed("pack", f'The output "{name}" is not a plain file.')
    if status.st_nlink > 1 and status.st_nlink > paths.names_of_files(path.parent)[status.st_dev, status.st_ino]:
        os.close(descriptor)
        raise StepFailed(
            "pack", f'The output "{name}" is a hard link to a file outside of the outputs. The program must copy it.'
        )
    return open(descriptor, "rb")
