"""One job's life from its files, in the order of time: what happened, when, and how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from ..folder.acts import earlier
from ..folder.facts import AttemptFolder, JobFolder, read_result
from ..job import sentences
from ..job.facts import (
    Asked,
    Started,
)
from ..job.outcome import Result, Used
from ..job.spec import Resources
from . import screen


@dataclass(frozen=True)
class Event:
    """`at`: seconds since 1970; `attempt`: 0 for what is about the whole job."""

    at: float
    what: str
    words: str = ""
    attempt: int = 0


def timeline(job: JobFolder) -> list[Event]:
    """Clocks of several hosts are in it, so what belongs together stays together where their times are equal."""
    events = [*_asked(job), *_arrival(job)]
    for number in job.attempt_numbers():
        events += _attempt(job.attempt(number))
    events += _answer(job)
    return sorted(events, key=lambda event: event.at)


def _arrival(job: JobFolder) -> Iterator[Event]:
    message = job.message.read()
    if message is None:
        return
    sent = message.properties.get("timestamp")
    # A sender's clock may say anything; only a time shortly before the claim is one.
    if isinstance(sent, int) and 0 <= message.claimed_at - sent < 366 * 86400:
        yield Event(float(sent), "sent", f"by the requester; {screen.lasted(message.claimed_at - sent)} in the queue")
    yield Event(
        message.claimed_at,
        "claimed",
        f"from {screen.plain(message.queue)}, {screen.size(message.body_size)}; on disk, then acked",
    )
    acked = job.acked.read()
    if acked is not None:
        yield Event(acked.at, "acked", "the broker has forgotten the message")
    elif job.spec.path.exists():
        yield Event(job.spec.path.stat().st_mtime, "understood", "it is a valid job")


def _asked(job: JobFolder) -> Iterator[Event]:
    """What operators asked for."""
    origin = job.origin.read()
    if origin is not None:
        changed = ", ".join(f"{name} {value}" for name, value in origin.resources.items())
        words = f"of {origin.of}, by {screen.plain(origin.by)}{f'; {screen.plain(changed)}' if changed else ''}"
        yield Event(origin.at, origin.verb, words)
    for fact, verb in ((job.cancel_asked, "cancel"), (job.retry_asked, "retry")):
        asked = fact.read()
        if asked is not None:
            yield asked_for(verb, asked)
    for again in earlier(job):
        yield Event(again.at, again.verb, f"as {again.job}, by {screen.plain(again.by)}")


def asked_for(verb: str, asked: Asked) -> Event:
    reason = f": {screen.plain(asked.reason)}" if asked.reason else ""
    return Event(asked.at, verb, f"asked for by {screen.plain(asked.by)}{reason}")


def _declined(a: AttemptFolder) -> Iterator[Event]:
    """Each no of Slurm's, and the submission that followed it."""
    number = 1
    while (no := a.declined(number).read()) is not None:
        yield Event(no.at, "declined", screen.plain(no.words), a.number)
        number += 1
        intent = a.intent_of(number).read()
        if intent is None:
            return
        yield Event(intent.at, "sbatch", f"again, under the name {intent.name}", a.number)


def _attempt(a: AttemptFolder) -> Iterator[Event]:
    intent, submission, started = a.intent.read(), a.submission.read(), a.started.read()
    n = a.number
    if intent is not None:
        yield Event(intent.at, "sbatch", f"asks for {resources(intent.resources)}; name {intent.name}", n)
        yield from _declined(a)
    if submission is not None:
        how = ", found by its name" if submission.adopted else ""
        yield Event(submission.at, "submitted", f"Slurm's id is {screen.plain(submission.slurm_id)}{how}", n)
    closed = started.at if started is not None and started.closed else None
    if started is not None and closed is None:
        waited = f" after {screen.lasted(started.at - intent.at)} in Slurm" if intent else ""
        yield Event(started.at, "started", f"on {screen.plain(started.node)}{waited}", n)
    cancel, ended, result = a.cancel.read(), a.ended.read(), read_result(a)
    if cancel is not None:
        yield Event(cancel.at, "scancel" if closed is None else "withdrawn", screen.plain(cancel.reason), n)
    if closed is not None:
        yield Event(closed, "closed", "nothing of this attempt can begin any more", n)
    if result is not None:
        yield from _steps(a, result, started if closed is None else None)
    if ended is not None:
        words = f"Slurm says {ended.state}{f', exit code {ended.exit_code}' if ended.exit_code else ''}"
        at = ended.at + 0.999 if ended.at.is_integer() else ended.at  # Slurm counts whole seconds
        yield Event(at, "ended", f"{words}{f', by {screen.plain(ended.by)}' if ended.by else ''}", n)


def _steps(a: AttemptFolder, result: Result, started: Optional[Started]) -> Iterator[Event]:
    """The worker measures how long each step took; they follow one another from the start."""
    at = started.at if started else result.started_at
    used = result.used or Used()
    for step in ("fetch", "run", "pack"):
        seconds = used.steps.get(step)
        if at is not None and seconds is not None:
            yield Event(
                at + seconds, step, f"took {screen.lasted(seconds)}{_moved(step, seconds, used, result)}", a.number
            )
            at += seconds
    reason = f": {screen.plain(result.reason)}" if result.reason else ""
    ended_at = result.ended_at if result.ended_at is not None else a.result.path.stat().st_mtime
    yield Event(ended_at, "result", f"{result.outcome}{reason}", a.number)


def _moved(step: str, seconds: float, used: Used, result: Result) -> str:
    if step == "fetch" and used.input_bytes:
        return f", {screen.size(used.input_bytes)}, {screen.rate(used.input_bytes, seconds)}"
    if step == "pack" and result.outputs:
        return f", {screen.size(sum(output.size for output in result.outputs.values()))}"
    return ""


def _answer(job: JobFolder) -> Iterator[Event]:
    outcome = job.outcome.read()
    if outcome is None:
        return
    who = {"job": "its own worker answers", "login": "a pass answers"}.get(outcome.by, "")
    body = job.attempt(outcome.attempt).reply_body(outcome.reply)
    length = f", {screen.size(body.stat().st_size)}" if body.exists() else ""
    why = f": {screen.plain(outcome.reason)}" if outcome.reason else ""
    yield Event(outcome.at, "outcome", f"{outcome.outcome}{why}; {who}{length}")
    kept, delivered = job.unroutable.read(), job.delivered.read()
    gone = job.undeliverable.read()
    if kept is not None:
        yield Event(kept.since, "not taken", f"{screen.plain(kept.why)}; tried {screen.counted(kept.times, 'time')}")
    if delivered is not None:
        to = f"the broker confirmed it for {screen.plain(delivered.to)}" if delivered.to else ""
        took = f" after {screen.lasted(delivered.at - outcome.at)}" if to else ""
        yield Event(delivered.at, "confirmed", f"{to}{took}{' ' if to and delivered.note else ''}{delivered.note}")
    if gone is not None:
        yield Event(gone.at, "given up", screen.plain(gone.why))


def resources(r: Resources) -> str:
    asked = f"{screen.counted(r.cpus, 'CPU')}, {r.memory_mb} MB, {sentences.duration(r.time_seconds)}"
    return f"{asked}{f', {r.gres}' if r.gres else ''}"
