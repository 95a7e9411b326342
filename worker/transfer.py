"""What a job that succeeded owes its requester before it is answered: its outputs, where they are to be uploaded.

The order: files and digests -> result.json -> the upload -> its receiver's length -> outcome.json -> the reply. Either side
goes on where the other one ended: what an upload's receiver says counts, and transfer.json only says whom to ask.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from dataclasses import replace
from typing import Callable, Optional

from .build import open_uploads
from .deliveries.receiver import Refused
from .deliveries.upload import Parcel
from .errors import Damaged, Transient
from .folder.answer import conclude, kept_until
from .folder.facts import AttemptFolder, JobFolder
from .folder.paths import is_there, look_anew, write_bytes
from .job import sentences
from .job.facts import Message, Outcome, Sent, Transfer
from .job.outcome import Output, Result
from .settings import Config

log = logging.getLogger(__name__)


def upload(
    config: Config, job: JobFolder, attempt: AttemptFolder, result: Result, go_on: Callable[[], None]
) -> Transfer:
    """All that is not there yet; returns what is. Raises Undelivered; Transient, and OSError, after which it goes on from
    there; and what `go_on` raises, which is called all the while."""
    uploads = open_uploads(config)
    transfer = _so_far(attempt, result)
    for name, output in result.outputs.items():
        sent = transfer.outputs.get(name, Sent())
        if sent.arrived:
            continue

        def note(sent: Sent, name: str = name) -> None:
            nonlocal transfer
            before = transfer.outputs.get(name, Sent())
            if sent != before:
                moved = sent.taken > before.taken or sent.arrived
                moved_at = time.time() if moved else transfer.moved_at
                transfer = replace(transfer, outputs={**transfer.outputs, name: sent}, moved_at=moved_at)
                attempt.transfer.write(transfer)

        path = attempt.outputs / output.file
        try:
            uploads.send(Parcel(job.id, attempt.number, name, output, path, note, go_on), sent)
        except Refused as refused:
            raise Undelivered(sentences.not_delivered(name, str(refused))) from None
        except FileNotFoundError:
            look_anew(attempt.outputs)
            if is_there(path):
                raise Transient(f"the output {name!r} was made on another host, and shows late here") from None
            raise Undelivered(sentences.not_delivered(name, "it is no longer there")) from None
        log.info("uploaded job=%s output=%r bytes=%d", job.id, name, output.size)
    return transfer


class Undelivered(Exception):
    """It never will be. The text is a sentence for the requester."""


def moved_at(attempt: AttemptFolder, result: Result) -> float:
    """When something more was taken last, or when there was something to take, or when its turn came."""
    transfer = _so_far(attempt, result)
    return max(transfer.moved_at, transfer.tried_since, result.ended_at or 0)


def note_tried(attempt: AttemptFolder, result: Result) -> None:
    """Its turn has come: for as long as it waited behind others, nobody has refused it. Raises OSError."""
    transfer = _so_far(attempt, result)
    if not transfer.tried_since:
        attempt.transfer.write(replace(transfer, tried_since=time.time()))


def _so_far(attempt: AttemptFolder, result: Result) -> Transfer:
    return _read(attempt) or Transfer({}, result.ended_at or 0)


def answer_delivered(
    config: Config, job: JobFolder, attempt: AttemptFolder, result: Result, transfer: Transfer, by: str,
    message: Optional[Message] = None,
) -> Outcome:  # fmt: skip
    """The job's outcome, once all has arrived."""
    stem = f"reply-{secrets.token_hex(4)}"
    told = {name: _described(output, transfer.outputs[name]) for name, output in result.outputs.items()}
    write_bytes(attempt.reply_body(stem), json.dumps(told).encode())
    delivered = replace(result, body=stem)
    return conclude(job, attempt, delivered, config.site.replies, by, time.time(), message)


def answer_undelivered(
    config: Config, job: JobFolder, attempt: AttemptFolder, result: Result, outcome: str, why: str, by: str,
    message: Optional[Message] = None,
) -> Outcome:  # fmt: skip
    """The job's outcome where its outputs do not arrive: `why` is a sentence."""
    reason = why + sentences.kept_until(kept_until(time.time(), config.site.timing))
    step = "deliver" if outcome == "failed" else ""
    instead = replace(result, outcome=outcome, reason=reason, step=step, outputs={}, exit_code=None, to_upload=False)
    return conclude(job, attempt, instead, config.site.replies, by, time.time(), message, reason)


def _described(output: Output, sent: Sent) -> dict[str, object]:
    return {
        "url": sent.get, "bytes": output.size, "sha256": output.sha256, "type": output.type, "file": output.file,
        "verified": sent.verified,
    }  # fmt: skip


def _read(attempt: AttemptFolder) -> Optional[Transfer]:
    """A hint: where it is lost, what it says is asked for again."""
    try:
        return attempt.transfer.read()
    except Damaged as error:
        log.warning("how far the upload was is lost why=%r", str(error))
        return None
