"""The books: what was asked, what came back from RabbitMQ, what the workload wrote down itself; and whether it all agrees.

Nothing here reads what Batchferry believes about a job.
"""

from __future__ import annotations

import base64
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika

from tests.faults.crashing import AT_RANDOM, FORGOTTEN, STOPPED, Event
from tests.requester import Answer
from tests.scene import IMAGE
from tests.workloads.probe import output

PAGE = b"a page of music"

GOOD, EXIT, INVALID, DUPLICATE, ANONYMOUS, SILENT, NOWHERE, DEADLINE = KINDS = (
    "good", "exit", "invalid", "duplicate", "anonymous", "silent", "nowhere", "deadline",
)  # fmt: skip
_WEIGHTS = (8, 3, 2, 2, 2, 1, 2, 3)
_INVALID = (
    b"no job at all",
    b"\xff\xfe",
    b'{"inputs": {}, "settings": {}}',
    b'{"inputs": {"Something": "/else"}, "settings": {}}',
    b'{"inputs": {"Image": "http://elsewhere.invalid/x"}, "settings": {}}',
)

Attempt = tuple[str, int]
"""(job id, number)"""


@dataclass(frozen=True)
class Asked:
    """One message as it was published, `copies` times."""

    key: str
    kind: str
    body: bytes
    properties: Mapping[str, Any]
    record: Path
    settings: Mapping[str, Any]
    copies: int = 1
    own_queue: str = ""
    """Where its answer is told from others by the queue alone."""


@dataclass(frozen=True)
class Reply:
    """One message of a results queue, complete."""

    queue: str
    body: bytes
    properties: tuple[tuple[str, str], ...]
    message_id: str
    correlation_id: str
    headers: Mapping[str, Any] = field(compare=False)


PROVOKED_BY = {
    "acked.json": ANONYMOUS, "cancel.json": DEADLINE, "unroutable.json": NOWHERE, "undeliverable.json": NOWHERE,
    "move to undelivered": NOWHERE, "move to rejected": INVALID,
}  # fmt: skip
"""Steps that only one kind of message leads to."""


def draw(key: str, results: str, folder: Path, dice: random.Random, kind: str = "") -> Asked:
    kind = kind or dice.choices(KINDS, _WEIGHTS)[0]
    record = folder / f"record.{key}"
    settings: dict[str, Any] = {"books": str(record), "repeat": dice.randint(1, 9), "sleep": dice.choice([0, 0.2, 0.6])}
    if kind == EXIT:
        settings["exit"] = 3
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": settings}).encode()
    properties: dict[str, Any] = {"reply_to": results, "correlation_id": key}
    own_queue = ""
    if kind == INVALID:
        body = dice.choice(_INVALID)
    elif kind == ANONYMOUS:
        own_queue = f"{results}-{key}"
        properties = {"reply_to": own_queue}
    elif kind == SILENT:
        properties = {"correlation_id": key}
    elif kind == NOWHERE:
        properties["reply_to"] = f"{results}-is-not-there"
    elif kind == DEADLINE:
        # Sent an hour ago, so that the deadline is near, and still the broker does not drop the message itself.
        properties.update(timestamp=int(time.time()) - 3600, expiration="3603000")
    elif kind == DUPLICATE:
        properties["message_id"] = f"m-{key}"
    copies = dice.randint(2, 3) if kind == DUPLICATE else 1
    return Asked(key, kind, body, properties, record, settings, copies, own_queue)


def recorded(asked: Asked, word: str) -> Counter[Attempt]:
    """From what the workload wrote: how often it began, or came to its end, in each attempt."""
    lines = asked.record.read_text().splitlines() if asked.record.exists() else []
    paths = [Path(line.partition(" ")[2]).parts for line in lines if line.startswith(word)]
    return Counter((parts[-4], int(parts[-2])) for parts in paths)


class Consumer:
    """Reads the results queues over a connection of its own."""

    def __init__(self, rabbitmq: Any, results: str) -> None:
        login = pika.PlainCredentials(rabbitmq.user, rabbitmq.password)
        self._parameters = pika.ConnectionParameters(rabbitmq.host, rabbitmq.port, rabbitmq.vhost, login)
        self._connection = pika.BlockingConnection(self._parameters)
        self._channel = self._connection.channel()
        self.queues: list[str] = []
        self.replies: list[Reply] = []
        self.watch(results)

    def watch(self, queue: str) -> None:
        self._channel.queue_declare(queue, durable=False, exclusive=False, auto_delete=False)
        self.queues.append(queue)

    def collect(self) -> list[Reply]:
        for queue in self.queues:
            while True:
                method, properties, body = self._channel.basic_get(queue, auto_ack=True)
                if method is None:
                    break
                self.replies.append(_reply(queue, properties, body))
        return self.replies

    def close(self) -> None:
        for queue in self.queues:
            self._channel.queue_delete(queue)
        self._connection.close()


def _reply(queue: str, properties: Any, body: bytes) -> Reply:
    headers = Answer(properties.correlation_id, {}, properties).headers
    shown = {**vars(properties), "headers": sorted(headers.items())}
    return Reply(
        queue, body, tuple(sorted((name, repr(value)) for name, value in shown.items())), properties.message_id,
        properties.correlation_id or "", headers,
    )  # fmt: skip


# --- do they agree?


@dataclass(frozen=True)
class Books:
    asked: Sequence[Asked]
    replies: Sequence[Reply]
    events: Sequence[Event]
    held: bool = False
    """Whether passes asked Slurm to hold jobs back, which then are rejected."""

    def violations(self) -> Iterator[str]:
        mine = defaultdict(list)
        for reply in self.replies:
            mine[reply.correlation_id or reply.queue].append(reply)
        for asked in self.asked:
            key = asked.own_queue or asked.key
            yield from (f"{asked.kind} message {asked.key}: {words}" for words in self._of(asked, mine.pop(key, [])))
        yield from (f"an answer that nobody asked for: {replies}" for replies in mine.values())
        yield from self._copies_excused()

    def _of(self, asked: Asked, replies: Sequence[Reply]) -> Iterator[str]:
        jobs: dict[str, list[Reply]] = defaultdict(list)
        for reply in replies:
            jobs[reply.message_id].append(reply)
        wanted = 0 if asked.kind in (SILENT, NOWHERE) else 1
        if len(jobs) != wanted:
            yield f"{len(jobs)} answers, not {wanted}: {[r.body[:200] for r in replies]}"
        began = recorded(asked, "began")
        yield from (f"the workload ran {times} times in attempt {a}" for a, times in began.items() if times > 1)
        ran = {job for job, _ in began}
        if len(ran | set(jobs)) > 1:
            yield f"more than one job was made of it: {sorted(ran | set(jobs))}"
        for same in jobs.values():
            if any(reply != same[0] for reply in same):
                yield f"copies of its answer differ: {same}"
            yield from self._true(asked, same[0])
        if not replies and not ran and not self.held and not self._suffered_unseen():
            yield "it never ran, and nothing happened to its worker"

    def _true(self, asked: Asked, reply: Reply) -> Iterator[str]:
        """Is the answer what it must be, given what happened to the workers?"""
        job, outcome, number = reply.message_id, reply.headers["outcome"], int(reply.headers["attempt"])
        error = json.loads(reply.body).get("error", "")
        suffered = {e.point for e in self.events if e.job == job and e.attempt == number}
        allowed = [*_truth(asked), *_excuses(suffered), *(_HELD if self.held else ())]
        if not any(outcome == allowed_one and re.search(words, error) for allowed_one, words in allowed):
            yield f"answered {outcome} ({error!r}) although its worker suffered only {sorted(suffered)}"
        for before in range(1, number):
            if not any(e.job == job and e.attempt == before for e in self.events):
                yield f"attempt {number} answered, although attempt {before} suffered nothing"
        began, ended = recorded(asked, "began"), recorded(asked, "ended")
        if outcome == "succeeded":
            if (began[job, number], ended[job, number]) != (1, 1):
                yield "it succeeded, but its workload did not run to its end"
            if json.loads(reply.body) != answer_of(asked):
                yield "its output is not what the workload makes of its input"
        if reply.headers.get("exit_code") == 3 and began[job, number] != 1:
            yield "its workload is said to have failed, but never ran"
        if re.search(_NEVER_BEGAN[1], error) and began[job, number]:
            yield "its workload is said to have never begun, but ran"
        # A later attempt may be held back for ever, and rejected, after an earlier one was taken away in its work.
        if outcome == "rejected" and (began[job, number] or (began and not self.held)):
            yield "it was rejected, but ran"

    def _suffered_unseen(self) -> bool:
        """Without an answer there is no job id to go by; but some job suffered that nobody else answers for."""
        answered = {reply.message_id for reply in self.replies}
        return any(event.job and event.job not in answered for event in self.events)

    @property
    def copies(self) -> int:
        return len(self.replies) - len({reply.message_id for reply in self.replies})

    def _copies_excused(self) -> Iterator[str]:
        """Each by a kill of its own job's worker, or by one of a pass."""
        excuses = [e for e in self.events if e.point in _BETWEEN_CONFIRM_AND_NOTE or e.point.startswith(AT_RANDOM)]
        of_workers, of_passes = Counter(e.job for e in excuses if e.job), sum(not e.job for e in excuses)
        replies = Counter(reply.message_id for reply in self.replies)
        beyond = {job: count - 1 - of_workers[job] for job, count in replies.items() if count - 1 > of_workers[job]}
        if sum(beyond.values()) > of_passes:
            yield f"{sum(beyond.values())} second copies of answers, but only {of_passes} kills that excuse one: {beyond}"


_BETWEEN_CONFIRM_AND_NOTE = ("after publish", "before delivered.json")
_WITHOUT_RESULT = ("failed", "without leaving a result")
_NEVER_BEGAN = ("failed", "ended before its program could begin")
_HELD = (("rejected", "The cluster will never start this job"), ("cancelled", "The job was cancelled on the cluster"))


def answer_of(asked: Asked) -> dict[str, str]:
    """What the workload makes of its input, as a reply has it."""
    made = output("Result", {"Image": PAGE}, dict(asked.settings))
    return {"Result": base64.b64encode(made).decode()}


def _truth(asked: Asked) -> Iterable[tuple[str, str]]:
    if asked.kind == INVALID:
        return [("rejected", ".")]
    if asked.kind == EXIT:
        return [("failed", "exit code 3. Its last words: .*the image is empty")]
    more = [("expired", "deadline passed before it could start")] if asked.kind == DEADLINE else []
    return [("succeeded", "^$"), *more]


def _excuses(suffered: set[str]) -> Iterator[tuple[str, str]]:
    """What an attempt may come to after all that happened to its worker."""
    if suffered - {FORGOTTEN}:
        yield _WITHOUT_RESULT
        yield _NEVER_BEGAN
    if FORGOTTEN in suffered:
        yield "lost", "The cluster lost track of the job"
    if STOPPED in suffered:
        yield "node_failed", "The computer that the job ran on failed"
