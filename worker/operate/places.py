"""Which jobs there are, and which of them are meant: by id or its beginning, state, workload, outcome, queue and age.

A million finished jobs are counted by listing their days; what a file says is read only where it was asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..config import parse_duration
from ..errors import Damaged
from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.outline import stage_at, stage_put_away
from ..job.outcome import OUTCOMES
from ..job.stage import DONE, ENDED_STATES, NOT_OURS, REJECTED, STATES, UNDELIVERED, Stage

_MESSAGE = JobFolder(Path("job")).message.name
NAMED_BY = "a job's id, its beginning, or `last` for the newest"
NOT_BY_DAY = (REJECTED, UNDELIVERED, NOT_OURS)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Found:
    """A job that was met: where, where it stands, and when its message was written (seconds since 1970)."""

    path: Path
    stage: Stage
    claimed_at: float

    @property
    def job(self) -> JobFolder:
        return JobFolder(self.path)

    @property
    def word(self) -> str:
        return self.stage.word

    @property
    def since(self) -> float:
        return self.stage.since

    @property
    def attempt(self) -> int:
        return self.stage.attempt


@dataclass(frozen=True)
class Wanted:
    """What the operator named; nothing at all means every active job."""

    jobs: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    workload: str = ""
    outcome: str = ""
    queue: str = ""
    older_than: float = 0
    newer_than: float = 0

    @property
    def filters(self) -> bool:
        return self != Wanted(self.jobs)


def add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which jobs")
    group.add_argument("job", nargs="*", metavar="JOB", help=NAMED_BY)
    words = [*STATES, *ENDED_STATES]
    group.add_argument("--state", action="append", default=[], choices=words, metavar="STATE", help="in this state")
    group.add_argument("--workload", default="", metavar="NAME", help="of this workload")
    group.add_argument("--outcome", default="", choices=OUTCOMES, metavar="OUTCOME", help="with this outcome")
    group.add_argument("--queue", default="", metavar="NAME", help="from this jobs queue")
    for name, text in (("older", "longer ago"), ("newer", "more recently")):
        group.add_argument(
            f"--{name}-than", type=age, default=0.0, metavar="AGE",
            help=f'claimed {text} than this, such as "90s", "15min", "2h" or "7d"',
        )  # fmt: skip


def wanted(options: argparse.Namespace) -> Wanted:
    return Wanted(
        tuple(options.job), tuple(options.state), options.workload, options.outcome, options.queue,
        options.older_than, options.newer_than,
    )  # fmt: skip


def age(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- what there is


def active(jobs: JobsFolder) -> Iterator[Found]:
    place = str(jobs.active)
    for name in names(jobs.active):
        found = _found(f"{place}/{name}")
        if found is not None:
            yield found


def _found(path: str) -> Optional[Found]:
    stage = stage_at(path)
    if stage is None:
        return None
    try:
        claimed_at = os.stat(f"{path}/{_MESSAGE}").st_mtime
    except OSError:
        claimed_at = stage.since
    return Found(Path(path), stage, claimed_at)


def put_away(jobs: JobsFolder, words: Sequence[str] = tuple(ENDED_STATES)) -> Iterator[Found]:
    """Those that are no longer active, in each place the last one first."""
    for word, place in ((REJECTED, jobs.rejected), (UNDELIVERED, jobs.undelivered), (NOT_OURS, jobs.not_ours)):
        if word in words:
            yield from _in(place, word)
    if DONE in words:
        for day in sorted(done_days(jobs), reverse=True):
            yield from done_on(jobs, day)


def done_on(jobs: JobsFolder, day: str) -> Iterator[Found]:
    yield from _in(jobs.done / day, DONE)


def _in(place: Path, word: str) -> Iterator[Found]:
    """The last one first. That a folder was changed is no earlier than that its job was put away, so only as many jobs are
    looked at as somebody wants."""
    waiting: list[tuple[float, str, Found]] = []
    for changed_at, name in sorted(_changed(place), reverse=True):
        while waiting and -waiting[0][0] >= changed_at:
            yield heapq.heappop(waiting)[-1]
        found = _put_away(place / name, word)
        if found is not None:
            heapq.heappush(waiting, (-found.since, name, found))
    while waiting:
        yield heapq.heappop(waiting)[-1]


def _changed(place: Path) -> Iterator[tuple[float, str]]:
    """Each folder's name, and when something was last put into it."""
    for name in names(place):
        with contextlib.suppress(OSError):
            yield os.lstat(f"{place}/{name}").st_mtime, name


def _put_away(path: Path, word: str) -> Optional[Found]:
    stage = stage_put_away(str(path), word)
    try:
        return Found(path, stage, os.stat(path / _MESSAGE).st_mtime) if stage else None
    except OSError:
        return None


def done_days(jobs: JobsFolder) -> list[str]:
    return [name for name in names(jobs.done) if _DAY.fullmatch(name)]


def met(job: JobFolder, active: Path) -> Optional[Found]:
    """`active`: the folder of those that are."""
    if job.path.parent == active:
        return _found(str(job.path))
    return _put_away(job.path, put_away_as(job.path))


def put_away_as(path: Path) -> str:
    """Which of ENDED_STATES a job has that lies here: the done ones lie in a folder for each day."""
    place = path.parent.name
    return place if place in ENDED_STATES else DONE


def count(place: Path) -> int:
    return len(names(place))


def names(place: Path) -> list[str]:
    """In order; nothing where something else stands in its place: that is reported by passes and by doctor."""
    try:
        return [name for name in paths.names_in(place) if not name.startswith(".")]
    except Damaged:
        return []


# --- which of them are meant


def filtered(jobs: JobsFolder, want: Wanted, now: float, among: Optional[Sequence[Found]] = None) -> Iterator[Found]:
    """Those that the filters choose, lazily. `among`: the active ones, where they are known already."""
    ended = [word for word in ENDED_STATES if word in want.states]
    if not want.states and want.outcome:
        ended = list(ENDED_STATES)
    if not want.states or set(want.states) & set(STATES):
        everything = among if among is not None else sorted(active(jobs), key=lambda found: found.claimed_at)
        yield from (found for found in everything if fits(found, want, now))
    yield from (found for found in put_away(jobs, ended) if fits(found, want, now))


def fits(found: Found, want: Wanted, now: float) -> bool:
    """What costs nothing is asked first."""
    age = now - found.claimed_at
    if want.states and found.word not in want.states:
        return False
    if want.older_than and age <= want.older_than or want.newer_than and age >= want.newer_than:
        return False
    try:
        return _fits_inside(found.job, want)
    except (Damaged, OSError):
        return False


def _fits_inside(job: JobFolder, want: Wanted) -> bool:
    if want.outcome:
        outcome = job.outcome.read()
        if outcome is None or outcome.outcome != want.outcome:
            return False
    if want.workload:
        spec = job.spec.read()
        if spec is None or spec.workload != want.workload:
            return False
    if want.queue:
        message = job.message.read()
        return message is not None and message.queue == want.queue
    return True
