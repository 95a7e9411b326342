"""Checks the declared outputs and packs them into the reply's body: `{"<name>": "<base64>", ...}`, straight to disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import StepFailed
from ..folder import disk, paths
from ..folder.answer import largest_answer
from ..folder.facts import AttemptFolder
from ..job.outcome import Output
from ..job.sentences import outputs_too_large
from ..job.spec import JobSpec
from ..settings import Site
from .patience import while_the_disk_is_away

_PIECE = 3 * (1 << 18)
"""Bytes at a time; divisible by three, so that the pieces' base64 can be joined."""

_TAKEN_EVERYWHERE = 1 << 20
"""Bytes that any broker takes, as a rule (RabbitMQ 4: 16 MiB); no file is looked at for smaller answers."""


@dataclass(frozen=True)
class Packed:
    """`stem`: the name under which the reply's body lies in the attempt's folder."""

    stem: str
    outputs: Mapping[str, Output]


def pack(spec: JobSpec, outputs: Path, attempt: AttemptFolder, site: Site) -> Packed:
    """The body survives a power failure where it lies then. A disk that is away is waited for; one that is full is not: that
    is an answer. Raises StepFailed, as `pack_into`."""
    return while_the_disk_is_away(
        "the outputs wait",
        site.timing.publish_patience,
        lambda: _pack(spec, outputs, attempt, site),
        lambda error: isinstance(error, _NotStored) and error.away,
    )


def _pack(spec: JobSpec, outputs: Path, attempt: AttemptFolder, site: Site) -> Packed:
    stem = f"reply-{secrets.token_hex(4)}"
    body = attempt.reply_body(stem)
    try:
        # Not written aside and renamed: its name is in no fact before it is complete and synced.
        with _stored(), open(os.open(body, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as reply:
            packed = pack_into(reply, spec, outputs, site)
            reply.flush()
            os.fsync(reply.fileno())
            paths.sync_folder(body.parent)
    except StepFailed:
        with contextlib.suppress(OSError):
            paths.remove(body)
        raise
    return Packed(stem, packed)


def pack_into(reply: BinaryIO, spec: JobSpec, outputs: Path, site: Site) -> dict[str, Output]:
    """Raises StepFailed for an output that is missing, is no plain file, or is too large."""
    packed: dict[str, Output] = {}
    left = site.limits.output_bytes
    with _stored():
        for index, (name, file) in enumerate(spec.outputs.items()):
            reply.write(b"{" if index == 0 else b", ")
            packed[name] = _append(reply, name, outputs / file, left, site.limits.output_bytes)
            left -= packed[name].size
        reply.write(b"}" if spec.outputs else b"{}")
        size = reply.tell()
        most = site.replies.max_bytes if size <= _TAKEN_EVERYWHERE else largest_answer(site, time.time())
        if size > most:
            raise StepFailed("pack", outputs_too_large(most))
    return packed


@contextlib.contextmanager
def _stored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NotStored(error) from None


class _NotStored(StepFailed):
    def __init__(self, error: OSError) -> None:
        super().__init__("pack", f"The outputs could not be stored ({error.strerror}).", may_work_again=True)
        self.away = error.errno in disk.AWAY - disk.FULL


def _append(reply: BinaryIO, name: str, path: Path, room: int, most: int) -> Output:
    """One output; the number of bytes that is read is the one that was found, also where the file still grows. `room`:
    what is left of the `most` bytes that all outputs may have."""
    digest = hashlib.sha256()
    with _open_plain(name, path) as source:
        size = os.fstat(source.fileno()).st_size
        if size > room:
            raise StepFailed("pack", outputs_too_large(most))
        reply.write(json.dumps(name).encode() + b': "')
        left = size
        while left:
            piece = source.read(min(_PIECE, left))
            if not piece:
                raise StepFailed("pack", f'The output "{name}" shrank while it was read.')
            left -= len(piece)
            digest.update(piece)
            reply.write(base64.b64encode(piece))
        reply.write(b'"')
    return Output(size=size, sha256=digest.hexdigest())


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
