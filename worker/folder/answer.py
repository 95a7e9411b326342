"""How a result becomes the job's one answer: result -> outcome -> reply -> delivered. Both sides use it.

The order is the promise. A reply is on disk before `outcome.json` names it, and `outcome.json` exists before anything is
sent; so whatever is interrupted, the next pass finds exactly one outcome and sends exactly those bytes.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Callable, Optional, Union

from ..deliveries import Delivery, matches
from ..errors import Damaged, TooLarge, Unroutable
from ..job import sentences
from ..job.facts import Delivered, LargestAnswer, Message, NotTaken, Outcome, Undeliverable
from ..job.outcome import Reply, Result, failure_body, headers
from ..job.sentences import duration, outputs_too_large
from ..settings import Replies, Site, Timing
from . import paths
from .facts import AttemptFolder, JobFolder, largest_answer_of, read_reply, read_result, write_reply
from .jobs import JobsFolder
from .paths import write_bytes

log = logging.getLogger(__name__)

_BELIEVED = 86400.0
"""Seconds for which what the broker said of its largest message is believed; then it is asked by an answer again."""
_LONGEST_WAIT = 3600.0
"""Seconds between two tries to send an answer that the broker does not take."""


def record(attempt: AttemptFolder, result: Result) -> Result:
    """Makes `result` the attempt's result, unless it has one; returns the one that counts.

    A result that comes late is kept beside it, for people to read, and is never sent.
    """
    if attempt.result.claim(result):
        return result
    first = read_result(attempt)
    if first is None:
        raise Damaged(f"{attempt.result.name} exists and can't be read")
    if first != result:  # else it was written by us, and an error hid that
        attempt.late_result.write(result)
    return first


def conclude(
    job: JobFolder, attempt: AttemptFolder, result: Result, replies: Replies, by: str, now: float,
    message: Optional[Message] = None, reason: str = "",
) -> Outcome:  # fmt: skip
    """Makes `result` the job's outcome, unless it has one; returns the one that counts. `message`: for who has read it;
    `reason`: where this is not what the attempt itself came to."""
    return concluded(job, attempt, result, replies, by, now, message, reason=reason)[0]


def concluded(
    job: JobFolder, attempt: AttemptFolder, result: Result, replies: Replies, by: str, now: float,
    message: Optional[Message] = None, listed: Optional[Collection[str]] = None, reason: str = "",
) -> tuple[Outcome, Optional[Reply]]:  # fmt: skip
    """The same, and the stored reply without its body where this call has stored it. `listed`: what is in the job's folder,
    for who knows."""
    message = message or job.message.read()
    if message is None:
        raise Damaged("message.json is missing")
    earlier = _earlier(job, attempt.number)
    stem = f"reply-{secrets.token_hex(4)}"
    if result.outcome == "succeeded":
        if not result.body:
            raise Damaged(f"{attempt.result} is not what was written there (a success without a reply)")
        stem = result.body
    else:
        write_bytes(attempt.reply_body(stem), failure_body(result, earlier))
    origin = job.origin.read() if listed is None or job.origin.name in listed else None
    # Its body lies there already.
    reply = reply_of(message, job.id, result, earlier, b"", replies, now, origin.of if origin else "")
    stored = reply if write_reply(attempt, stem, reply) else None
    ours = Outcome(outcome=result.outcome, attempt=attempt.number, reply=stem, by=by, at=now, reason=reason)
    if job.outcome.claim(ours):
        log.info(
            "outcome job=%s outcome=%s attempt=%d reason=%r", job.id, result.outcome, attempt.number, result.reason
        )
        return ours, stored
    theirs = job.outcome.read()
    if theirs is None:
        raise Damaged("outcome.json exists and can't be read")
    return theirs, None


def deliver(
    job: JobFolder, outcome: Outcome, delivery_of: Callable[[str], Delivery], site: Site, now: Callable[[], float],
    message: Optional[Message] = None, stored: Optional[Reply] = None,
) -> None:  # fmt: skip
    """Sends the stored reply and notes the confirm. `delivery_of`: how answers go to a message's source; `message`, and
    `stored`, the reply without its body: for who has them. Raises Transient.

    A reply that can never arrive ends as `undeliverable.json`; one whose queue is gone is kept until the site's limit.
    """
    message = message or job.message.read()
    if message is None:
        raise Damaged("message.json is missing")
    reply = read_reply(job.attempt(outcome.attempt), outcome.reply, stored)
    # Only what a requester wrote is doubtful; another source makes the address itself.
    refusal = None if message.source else refused_reply_to(message.properties.get("reply_to"), site)
    if not reply.routing_key:
        job.delivered.write(Delivered(to="", at=now(), note="the message asked for no reply"))
    elif refusal:
        _give_up(job, refusal, now())
    else:
        _send(job, outcome, reply, delivery_of(message.source), site, now)


def refused_reply_to(name: Union[str, bytes, int, None], site: Site) -> Optional[str]:
    """Why no answer may go to this queue; None where it may, and where no answer is wanted."""
    if not name:
        return None
    if not isinstance(name, str):
        return "reply_to is not UTF-8"
    if any(name == queue.name for queue in site.queues):
        return "reply_to is a jobs queue: the answer would come back as a job"
    return None if matches(name, site.replies.patterns) else "reply_to is not among replies.patterns of the site file"


def _send(
    job: JobFolder, outcome: Outcome, reply: Reply, delivery: Delivery, site: Site, now: Callable[[], float]
) -> None:
    try:
        try:
            _publish(job, reply, delivery, now(), "")
        except TooLarge as error:
            log.error("answer too large for the broker job=%s bytes=%d: ask for a larger max_message_size (%s)",
                      job.id, len(reply.body), error)  # fmt: skip
            if outcome.outcome != "succeeded":
                raise
            _remember(site, error.most, now())
            instead = _fail_instead(job, outcome, reply, error.most, site.timing)
            _publish(job, instead, delivery, now(), "too large for the broker; an error was sent in its place")
    except (Unroutable, TooLarge) as error:
        _note_unroutable(job, str(error), site.replies, now())


def largest_answer(site: Site, now: float) -> int:
    """In bytes: what the site file says, or what the broker has said within a day, if that is less."""
    try:
        told = largest_answer_of(JobsFolder(site.jobs_dir)).read()
    except (Damaged, OSError):
        told = None
    if told is None or told.max_bytes <= 0 or not 0 <= now - told.at < _BELIEVED:
        return site.replies.max_bytes
    return min(site.replies.max_bytes, told.max_bytes)


def _remember(site: Site, most: int, now: float) -> None:
    if most > 0:
        with contextlib.suppress(OSError):
            largest_answer_of(JobsFolder(site.jobs_dir)).write(LargestAnswer(most, now))


def _publish(job: JobFolder, reply: Reply, delivery: Delivery, now: float, note: str) -> None:
    """Once the broker has confirmed, nothing may fail any more for want of space: it would be sent again."""
    with job.delivered.prepared(Delivered(to=reply.routing_key, at=now, note=note)) as note_delivered:
        paths.crash_point("before publish")
        delivery.send(reply)
        paths.crash_point("after publish")
        note_delivered()
    log.info("delivered job=%s to=%s bytes=%d", job.id, reply.routing_key, len(reply.body))


def kept_until(now: float, timing: Timing) -> str:
    """The last day on which outputs are still here that no answer could carry, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now + min(timing.keep_outputs, timing.keep_done)))


def _fail_instead(job: JobFolder, outcome: Outcome, reply: Reply, most: int, timing: Timing) -> Reply:
    """Of a success that no message can carry, everything says the same from here on: outcome, reply, and who reads them. Its
    outputs lie in the body that was not taken."""
    until = kept_until(reply.timestamp, replace(timing, keep_outputs=timing.keep_done))
    reason = outputs_too_large(most, len(reply.body)) + sentences.kept_until(until)
    instead = _instead(reply, reason)
    attempt, stem = job.attempt(outcome.attempt), f"{outcome.reply}-instead"
    write_bytes(attempt.reply_body(stem), instead.body)
    write_reply(attempt, stem, instead)
    job.outcome.write(replace(outcome, outcome="failed", reply=stem, reason=reason))
    log.info("outcome job=%s outcome=failed attempt=%d reason=%r", job.id, outcome.attempt, reason)
    return instead


def _instead(reply: Reply, reason: str) -> Reply:
    """Made of the reply alone, so a second copy is equal."""
    failed = Result(outcome="failed", attempt=0, step="publish", reason=reason)
    facts = {name: value for name, value in reply.headers.items() if not name.startswith("outputs")}
    return Reply(
        routing_key=reply.routing_key,
        correlation_id=reply.correlation_id,
        body=failure_body(failed),
        type="error",
        message_id=reply.message_id,
        timestamp=reply.timestamp,
        expiration_ms=reply.expiration_ms,
        headers={**facts, "outcome": "failed"},
    )


def _note_unroutable(job: JobFolder, why: str, replies: Replies, now: float) -> None:
    before = job.unroutable.read()
    since, times = (before.since, before.times + 1) if before else (now, 1)
    given_up_at = since + replies.give_up_after
    if now >= given_up_at:
        _give_up(job, f"{why}, for longer than {duration(replies.give_up_after)}", now)
        return
    wait = min(replies.retry_wait * float(2 ** (times - 1)), _LONGEST_WAIT)
    job.unroutable.write(NotTaken(since, why, times, min(now + wait, given_up_at)))
    log.warning("answer not taken, kept and sent again job=%s in=%.0f s why=%r", job.id, wait, why)


def _give_up(job: JobFolder, why: str, now: float) -> None:
    log.error("answer given up job=%s why=%r", job.id, why)
    job.undeliverable.write(Undeliverable(why=why, at=now))


def _earlier(job: JobFolder, number: int) -> list[Result]:
    """What the attempts before this one came to."""
    return [result for n in range(1, number) if (result := read_result(job.attempt(n)))]


def reply_of(
    message: Message,
    job_id: str,
    result: Result,
    earlier: Sequence[Result],
    body: bytes,
    replies: Replies,
    now: float,
    origin: str = "",
) -> Reply:
    """The answer that tells `result`. `earlier`: what the attempts before came to; `origin`: the job that this one repeats."""
    reply_to, correlation_id = message.properties.get("reply_to"), message.properties.get("correlation_id")
    assert not isinstance(reply_to, int) and not isinstance(correlation_id, int)
    return Reply(
        routing_key=reply_to if isinstance(reply_to, str) else (reply_to or b"").decode("utf-8", "replace"),
        correlation_id=correlation_id,
        body=body,
        type="result" if result.outcome == "succeeded" else "error",
        message_id=job_id,
        timestamp=int(now),
        expiration_ms=int(replies.expiration * 1000),
        headers=headers(result, job_id, earlier, origin),
    )
