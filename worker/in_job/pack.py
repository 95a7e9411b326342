"""The outputs, collected and stored by the way that their answer goes, so that what is to be sent survives a power failure."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Callable

from ..build import open_store
from ..errors import StepFailed
from ..folder import disk, paths
from ..folder.facts import AttemptFolder
from ..job.outcome import Output
from ..job.spec import JobSpec
from ..settings import Site
from .collect import OutputFile, collect, manifest, size_of
from .patience import while_the_disk_is_away

_PIECE = 1 << 20
"""Bytes in memory at a time."""


@dataclass(frozen=True)
class Packed:
    """`stem`: the name under which the reply's body lies in the attempt's folder; empty where the outputs themselves lie
    there, to be uploaded."""

    stem: str
    outputs: Mapping[str, Output]


def goes_inline(spec: JobSpec, outputs: Path, inline_limit: int) -> bool:
    """Whether the outputs go in the answer. Raises StepFailed, as `pack_into`."""
    if spec.results != "auto":
        return spec.results == "inline"
    with _stored():
        return size_of(spec, outputs) <= inline_limit


def keep(spec: JobSpec, outputs: Path, attempt: AttemptFolder, site: Site) -> Packed:
    """The outputs become files in the attempt's folder that survive a power failure. Raises StepFailed, as `pack_into`."""
    with _stored():
        collected = collect(spec, outputs, site.results.max_bytes)
    for store in (
        functools.partial(_done, paths.make_folder, attempt.outputs),
        *(functools.partial(_kept, each, attempt.outputs / each.file) for each in collected),
        functools.partial(_done, paths.sync_folder, attempt.outputs),
    ):
        while_the_disk_is_away(
            "the outputs wait",
            site.timing.publish_patience,
            store,
            lambda error: isinstance(error, _NotStored) and error.away,
        )
    told = manifest(collected, typed=True)
    return Packed("", {each.name: replace(told[each.name], file=each.file) for each in collected})


def _done(what: Callable[[Path], None], folder: Path) -> None:
    with _stored():
        what(folder)


def _kept(output: OutputFile, target: Path) -> None:
    """May be done again, as far as it ever came."""
    with _stored():
        if output.path != target:
            if paths.is_there(output.path):
                paths.move_file(output.path, target)
            output.path = target
        for _ in output.pieces(_PIECE):
            pass
        paths.sync_file(target)


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
    with _stored():
        collected = collect(spec, outputs, site.limits.output_bytes)
        open_store(site).store(collected, reply)
    return manifest(collected, typed=bool(spec.accept))


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
