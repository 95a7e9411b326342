"""Which points there are, how often each was hit, and which are to be hit next. All rounds share one tally."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.faults.crashing import ROOT, STOPPED, Event, point
from worker.folder.facts import AttemptFolder, JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.records import Fact
from worker.job.names import JobId

Where = tuple[str, str]
"""(side, point)"""
SIDES = ("login", "job")
_AIM = 5
"""Hits of each point that are aimed at, whether or not they are asked for."""
_CHOICE = 4
_RAREST, _CHOSEN, _OTHER, _EVENLY = 0.7, 0.4, 0.005, 0.02
_NO_FACT = {"slurm_budget.json", "standing.json", "tally.json", "retention.json"}
"""What may be lost: it is made anew."""
_OF_OTHERS = {
    *("progress.json", "cancel_asked.json", "retry_asked.json", "origin.json", "unfit.json"),
    *("held.json", "history.json", "turns.json", "kept.json", "largest_answer.json", "settled.json", ".paused.json"),
    *("removal", "transfer.json"),
}
"""Written by workloads, by operators' verbs (tests/worker/operate/test_again.py, tests/worker/login/test_paused.py), for
pilots (pilot_kills.py), and where a workload is stopped, accounting takes short questions only, there are several queues, a
job's files were lost, a claim may be somebody else's (tests/worker/sources/test_settling.py), results are uploaded
(tests/worker/in_job/test_upload_kills.py), the broker takes no large answer, or what is over is old
(tests/worker/login/test_retention.py)."""
_ONLY_WITH_SLURM = {f"{when} {step}" for when in ("before", "after") for step in ("stuck.json",)}


class Tally:
    """How often each point was passed and hit, over all installations."""

    def __init__(self, wanted: int, each: int, with_slurm: bool) -> None:
        self.wanted, self.each = wanted, each
        self.hits: Counter[Where] = Counter()
        self.passed: Counter[Where] = Counter()
        self.sequences: set[tuple[Where, Where]] = set()
        self.stops = self.messages = self.copies = 0
        self._in_source = sorted(points_in_source() - (set() if with_slurm else _ONLY_WITH_SLURM))
        self._lock = threading.Lock()

    @property
    def kills(self) -> int:
        return sum(self.hits.values())

    def add(self, events: Iterable[Event], passed: Iterable[tuple[str, Counter[str]]], last: Where) -> Where:
        """`last`: where the same installation was hit before; returns where it was hit now."""
        with self._lock:
            for event in events:
                if event.point == STOPPED:
                    self.stops += 1
                    continue
                here = (event.side, event.point)
                self.hits[here] += 1
                self.sequences.add((last, here))
                last = here
            for side, counts in passed:
                self.passed.update({(side, name): count for name, count in counts.items()})
        return last

    def add_books(self, messages: int, copies: int) -> None:
        with self._lock:
            self.messages += messages
            self.copies += copies

    def targets(self, side: str, dice: random.Random) -> tuple[dict[str, float], float]:
        """The chances to die at the points of this side: high at some of those that lack hits, and low at all others.

        Not at all of those, or early ones would keep the others from being passed; but always at the rarest.
        """
        with self._lock:
            of_a_side = {name for _, name in self.passed}
            known = sorted({name for s, name in self.passed if s == side} | (set(self._in_source) - of_a_side))
            lacking = [name for name in known if self.hits[side, name] < max(self.each, _AIM)]
            by_rarity = sorted(lacking, key=lambda name: self.passed[side, name])
        if dice.random() < 0.2:
            return {}, _EVENLY
        others = by_rarity[_CHOICE:] if lacking else known
        chosen = dice.sample(others, min(_CHOICE, len(others)))
        return {**dict.fromkeys(chosen, _CHOSEN), **dict.fromkeys(by_rarity[:_CHOICE], _RAREST)}, _OTHER

    def lacks(self, step: str) -> bool:
        """Whether a step on the login side, or else on the job side, was not hit often enough yet."""
        with self._lock:
            return any(
                max(self.hits[s, f"{when} {step}"] for s in SIDES) < max(self.each, _AIM)
                for when in ("before", "after")
            )

    def missing(self) -> list[str]:
        """What has not been hit often enough: each name of the source on one side, and on a side that passes it often."""
        with self._lock:
            seen, hits = Counter(self.passed), Counter(self.hits)
        lacking = [f"{name}: no process passed it" for name in self._in_source if not any(seen[s, name] for s in SIDES)]
        for (side, name), times in sorted(seen.items()):
            often = times >= 4 * self.each or times == max(seen[s, name] for s in SIDES)
            if often and hits[side, name] < self.each and name.partition(" ")[2] not in _OF_OTHERS:
                lacking.append(f"{side} {name}: hit {hits[side, name]} times, passed {times} times")
        return lacking

    def enough(self) -> bool:
        return self.kills >= self.wanted and (self.kills >= 1.5 * self.wanted or self.each == 0 or not self.missing())

    def table(self) -> str:
        names = {re.sub("^(before|after) ", "", name) for _, name in {*self.hits, *self.passed}}
        in_pairs = sorted(n for n in names if f"before {n}" in self._all_names() or f"after {n}" in self._all_names())
        rows = [f"{'':32}{'login: before':>14}{'after':>7}{'job: before':>14}{'after':>7}"]
        for name in in_pairs:
            cells = [self._cell(side, f"{when} {name}") for side in SIDES for when in ("before", "after")]
            rows.append(f"{name:32}{cells[0]:>14}{cells[1]:>7}{cells[2]:>14}{cells[3]:>7}")
        for side, name in sorted(w for w in self.hits if not w[1].startswith(("before ", "after "))):
            rows.append(f"{side + ', ' + name:50} {self.hits[side, name]}")
        login = sum(count for (side, _), count in self.hits.items() if side == "login")
        rows.append(
            f"kills: {self.kills} (login {login}, job {self.kills - login}); orders of two in sequence: {len(self.sequences)}"
        )
        rows.append(
            f"messages: {self.messages}; second copies of answers: {self.copies}; workers asked to stop: {self.stops}"
        )
        return "\n".join(rows)

    def _all_names(self) -> set[str]:
        return {name for _, name in {*self.hits, *self.passed}}

    def _cell(self, side: str, name: str) -> str:
        return str(self.hits[side, name]) if self.passed[side, name] or self.hits[side, name] else "-"


def points_in_source() -> set[str]:
    """Every step that the source names, so that a new fact or a new `crash_point` in it has to be hit."""
    facts = {path.name for path in _facts()} - _NO_FACT - _OF_OTHERS
    moves = {f"move to {place}" for place in ("active", "done", "rejected", "undelivered")}
    steps = {*facts, *moves, "reply.json", "reply.bin", "group.json"}
    return {f"{when} {step}" for when in ("before", "after") for step in steps} | _literals()


def _facts() -> Iterator[Path]:
    jobs = JobsFolder(Path("jobs"))
    job = jobs.job(JobId("job"))
    for holder in (jobs, job, job.attempt(1)):
        assert isinstance(holder, (JobsFolder, JobFolder, AttemptFolder))
        for name in {*vars(holder), *dir(type(holder))}:
            value = getattr(holder, name)
            path = value.path if isinstance(value, Fact) else value
            if isinstance(path, Path) and (path.suffix == ".json" or path.name == "token"):
                yield path


def _literals() -> set[str]:
    """Names given to `crash_point` as they are; those made of a file's name belong to the facts."""
    found = set()
    rooms = (ROOT / "worker", ROOT / "scheduler", ROOT / "slurm")
    for file in (*(path for room in rooms for path in room.rglob("*.py")), ROOT / "check.py"):
        for step in re.findall(r'\bcrash_point\(\s*"([^"]+)"', file.read_text(encoding="utf-8")):
            found.add(point(step))
    return {step for step in found if step.partition(" ")[2] not in _OF_OTHERS}
