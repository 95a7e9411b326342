"""What really happened, written down by those who did it, and the promises held against it.

Nothing here asks the product: answers are read from the broker's file, runs are told by the workload, ends by the scheduler.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

Attempt = tuple[str, int]
"""(job id, number)"""


class Broken(AssertionError):
    """A promise was broken."""


def promise(kept: object, words: str) -> None:
    if not kept:
        raise Broken(words)


@dataclass(frozen=True)
class Sent:
    """A message as the requester sent it. `tag`: its place in the broker's file."""

    tag: int
    body: bytes
    reply_to: Optional[str]
    correlation_id: Optional[str]
    expiration: Optional[int]
    """In milliseconds."""
    at: float


@dataclass(frozen=True)
class Answer:
    """A reply as it lies in the reply queue."""

    body: bytes
    properties: str

    @property
    def known(self) -> dict[str, Any]:
        known: dict[str, Any] = json.loads(self.properties)
        return known

    @property
    def headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = json.loads(base64.b64decode(self.known["headers"]["base64"]))
        return headers

    @property
    def attempt(self) -> Attempt:
        return self.headers["job_id"], self.headers["attempt"]


class Books:
    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answers: dict[str, Answer] = {}
        """By message_id."""
        self.copies: dict[str, int] = defaultdict(int)
        self.began: dict[Attempt, int] = defaultdict(int)
        self.ended_well: dict[Attempt, bytes] = {}
        """With the output that was made."""
        self.evidence: dict[Attempt, set[str]] = defaultdict(set)
        """What an attempt may truly be said to have come to."""
        self.first_away = float("inf")
        """Since when something of the site was away, or an sbatch unclear, for the first time. A pass that notes a fault may
        be the last one for days, and the next one finds nothing but the note."""
        self.first_declined = float("inf")
        """Since when Slurm declined something, for the first time."""
        self.lost_from: dict[Attempt, float] = {}
        """When an attempt may be given up that the scheduler did not know in its last answers, two or more."""
        self.cancel_asked: set[str] = set()
        """Jobs that an operator wanted to end."""
        self._outcomes: dict[str, bytes] = {}
        self._read_up_to = 0
        self._found: set[int] = set()

    # --- the promises

    def check(self, broker: Path, jobs: Path, now: float) -> None:
        """Everything that holds at any time."""
        with sqlite3.connect(broker) as db:
            self._read_answers(db, now)
            waiting = {tag for (tag,) in db.execute("SELECT id FROM messages WHERE queue = 'jobs'")}
        db.close()
        self._check_taken(waiting, jobs, now)
        self.note_outcomes(jobs)
        self._check_attempts(jobs)
        for answer in self.answers.values():
            promise(
                answer.headers["outcome"] != "rejected" or not self.began.get(answer.attempt),
                f"{answer.attempt} is said to be rejected, and it began",
            )
        for attempt, times in self.began.items():
            promise(times <= 1, f"the workload ran {times} times in attempt {attempt}")
        for answer in self.answers.values():
            withdrawn = answer.headers["outcome"] in ("expired", "rejected")
            promise(not withdrawn or not self.began[answer.attempt], f"{answer.attempt} was withdrawn, and ran")

    def check_end(self, jobs: Path) -> None:
        """What holds when everything has been healthy for long enough."""
        promise(not list((jobs / "active").iterdir()), "a job is still active")
        promise(not list(jobs.rglob("token")), "a token is left")
        promise(not list((jobs / "groups").iterdir()), "a group is left")
        left = [path.name for path in jobs.rglob(".*.????????")]
        promise(not left, f"half-written files are left: {left}")
        wanted = [sent for sent in self.sent if sent.reply_to]
        for sent in wanted:
            if sent.correlation_id is not None and not self._may_have_expired(sent):
                answers = self.to(sent.correlation_id)
                promise(len(answers) == 1, f"{len(answers)} answers to {sent.correlation_id}")
        nameless = sum(sent.correlation_id is None for sent in wanted)
        promise(len(self.to(None)) == nameless, f"{len(self.to(None))} answers to {nameless} messages without ids")

    def to(self, correlation_id: Optional[str]) -> list[Answer]:
        return [answer for answer in self.answers.values() if answer.known["correlation_id"] == correlation_id]

    def _may_have_expired(self, sent: Sent) -> bool:
        """In the queue, before it was taken: then nobody answers."""
        return sent.expiration is not None and sent.tag not in self._found

    # --- answers

    def _read_answers(self, db: sqlite3.Connection, now: float) -> None:
        rows = db.execute(
            "SELECT id, body, properties FROM messages WHERE queue = 'answers' AND id > ? ORDER BY id",
            (self._read_up_to,),
        ).fetchall()
        for row, body, properties in rows:
            self._read_up_to = row
            self._check_answer(Answer(bytes(body), properties), now)

    def _check_answer(self, answer: Answer, now: float) -> None:
        name = answer.known["message_id"]
        self.copies[name] += 1
        promise(name == answer.headers["job_id"], f"the answer of {answer.headers['job_id']} is named {name}")
        before = self.answers.setdefault(name, answer)
        promise(before == answer, f"two different answers of {name}: {before} and {answer}")
        correlation_id = answer.known["correlation_id"]
        promise(correlation_id is None or len(self.to(correlation_id)) == 1, f"two jobs answered {correlation_id}")
        self._check_truth(answer, now)

    def _check_truth(self, answer: Answer, now: float) -> None:
        outcome = answer.headers["outcome"]
        if outcome == "succeeded":
            made = self.ended_well.get(answer.attempt)
            promise(made is not None, f"{answer.attempt} is said to have succeeded")
            promise(json.loads(answer.body) == {"Copy": base64.b64encode(made or b"").decode()}, "not what was made")
            return
        allowed = self.evidence[answer.attempt] | self._of_message(answer, now)
        if "lost" in allowed:
            allowed |= {"cancelled"}  # Slurm forgets one element of an array only where somebody cancelled it
        allowed |= {"cancelled"} if answer.attempt[0] in self.cancel_asked else set()
        promise(
            outcome in allowed, f"{answer.attempt} is said to be {outcome}; known is {sorted(allowed)}: {answer.body!r}"
        )

    def _of_message(self, answer: Answer, now: float) -> set[str]:
        """What follows from the message and the site, whatever the attempts did."""
        away = now - self.first_away if b"could not be started" in answer.body else 0
        words = {"failed"} if away >= 3600 else set()
        declined = now - self.first_declined if b"does not accept" in answer.body else 0
        words |= {"rejected"} if declined >= 86400 else set()
        words |= {"lost"} if now >= self.lost_from.get(answer.attempt, float("inf")) else set()
        for sent in self.sent:
            if sent.correlation_id == answer.known["correlation_id"]:
                words |= {"rejected"} if b'"Page"' not in sent.body else set()
                deadline = 7 * 86400.0 if sent.expiration is None else sent.expiration / 1000
                words |= {"expired"} if now >= sent.at + deadline else set()
        return words

    # --- files

    def _check_taken(self, waiting: set[int], jobs: Path, now: float) -> None:
        """What the broker no longer has is on disk."""
        gone = [sent for sent in self.sent if sent.tag not in waiting and sent.tag not in self._found]
        if not gone:
            return
        kept = [json.loads(file.read_text()) for file in messages_on_disk(jobs)]
        for sent in gone:
            if any(_is(message, sent) for message in kept):
                self._found.add(sent.tag)
            else:
                expired = sent.expiration is not None and now >= sent.at + sent.expiration / 1000
                promise(expired, f"acked and nowhere on disk: {sent}")
        nameless = sum(sent.correlation_id is None and sent.tag in self._found for sent in self.sent)
        found = sum("correlation_id" not in message["properties"] for message in kept)
        promise(found >= nameless, f"{nameless} messages without ids were acked, {found} are on disk")

    def note_outcomes(self, jobs: Path) -> None:
        """None ever changes."""
        for file in messages_on_disk(jobs):
            outcome = file.with_name("outcome.json")
            if outcome.exists():
                now = outcome.read_bytes()
                before = self._outcomes.setdefault(file.parent.name, now)
                promise(before == now, f"the outcome of {file.parent.name} has changed: {before!r} to {now!r}")

    def _check_attempts(self, jobs: Path) -> None:
        """What is said to have never begun did not, and what has begun runs again only where its site asks for that."""
        for file in jobs.glob("active/*/attempts/*/result.json"):
            attempt = (file.parents[2].name, int(file.parent.name))
            verdict = file.with_name("verdict.json")
            result = json.loads((verdict if verdict.exists() else file).read_text())
            if result["outcome"] == "failed" and result["step"] == "start":
                promise(not self.began.get(attempt), f"{attempt} is said to have never begun, and it had")
            if result["outcome"] == "failed" and result["step"] == "run":
                again = file.parent.with_name(str(attempt[1] + 1)) / "intent.json"
                promise(not again.exists(), f"{attempt} had begun and left nothing, and is tried again")

    def note_declined(self, now: float) -> None:
        """It may be all that Slurm declines: then the site is away."""
        self.first_declined = min(self.first_declined, now)
        self.note_away(now)

    def note_away(self, now: float) -> None:
        self.first_away = min(self.first_away, now)


def messages_on_disk(jobs: Path) -> list[Path]:
    """Of all jobs, wherever they are now."""
    places: Sequence[str] = ("active/*", "rejected/*", "undelivered/*", "done/*/*")
    return [file for place in places for file in jobs.glob(f"{place}/message.json")]


def _is(message: Mapping[str, Any], sent: Sent) -> bool:
    body = message["body"]
    same = body.encode() == sent.body if isinstance(body, str) else base64.b64decode(body["base64"]) == sent.body
    return bool(same and message["properties"].get("correlation_id") == sent.correlation_id)
