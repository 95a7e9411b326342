"""Which jobs there are, and which of them are meant: by id or its beginning, state, workload, outcome, queue and age.

A million finished jobs are counted by listing their days; what a file says is read only where it was asked for.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
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
from ..job.names import JobId
from ..job.outcome import OUTCOMES
from ..job.stage import DONE, ENDED_STATES, NOT_OURS, REJECTED, STATES, UNDELIVERED, Stage
from . import screen

_MESSAGE = JobFolder(Path("job")).message.name
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
    group.add_argument("job", nargs="*", metavar="JOB", help="a job's id, or its beginning")
    words = [*STATES, *ENDED_STATES]
    group.add_argument("--state", action="append", default=[], choices=words, metavar="STATE", help="in this state")
    group.add_argument("--workload", default="", metavar="NAME", help="of this workload")
    group.add_argument("--outcome", default="", choices=OUTCOMES, metavar="OUTCOME", help="with this outcome")
    group.add_argument("--queue", default="", metavar="NAME", help="from this jobs queue")
    for name, text in (("older", "longer"), ("newer", "less long")):
        group.add_argument(
            f"--{name}-than", type=age, default=0.0, metavar="AGE",
            help=f'claimed {text} ago than this, such as "90s", "15min", "2h" or "7d"',
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
    """Those that are no longer active; of the done ones, the last day first."""
    for word, place in ((REJECTED, jobs.rejected), (UNDELIVERED, jobs.undelivered), (NOT_OURS, jobs.not_ours)):
        if word in words:
            yield from _in(place, word)
    if DONE in words:
        for day in sorted(done_days(jobs), reverse=True):
            yield from _in(jobs.done / day, DONE)


def _in(place: Path, word: str) -> Iterator[Found]:
    for name in names(place):
        found = _put_away(place / name, word)
        if found is not None:
            yield found


def _put_away(path: Path, word: str) -> Optional[Found]:
    stage = stage_put_away(str(path), word)
    try:
        return Found(path, stage, os.stat(path / _MESSAGE).st_mtime) if stage else None
    except OSError:
        return None


def done_days(jobs: JobsFolder) -> list[str]:
    return [name for name in names(jobs.done) if _DAY.fullmatch(name)]


def count(place: Path) -> int:
    return len(names(place))


def names(place: Path) -> list[str]:
    """In order; nothing where something else stands in its place: that is reported by passes and by doctor."""
    try:
        return [name for name in paths.names_in(place) if not name.startswith(".")]
    except Damaged:
        return []


# --- which of them are meant


def choose(
    jobs: JobsFolder, want: Wanted, now: float, among: Optional[Sequence[Found]] = None
) -> tuple[Iterator[Found], list[str]]:
    """The jobs that are meant, lazily; and the names among `want.jobs` that fit none, or several. `among`: the active
    ones, where they are known already."""
    if want.jobs:
        named, unknown = _named(jobs, want.jobs)
        return (found for found in named if fits(found, want, now)), unknown
    return (found for found in _all(jobs, want, among) if fits(found, want, now)), []


def _all(jobs: JobsFolder, want: Wanted, among: Optional[Sequence[Found]]) -> Iterator[Found]:
    ended = [word for word in ENDED_STATES if word in want.states]
    if not want.states and want.outcome:
        ended = list(ENDED_STATES)
    if not want.states or set(want.states) & set(STATES):
        yield from among if among is not None else sorted(active(jobs), key=lambda found: found.claimed_at)
    yield from put_away(jobs, ended)


def _named(jobs: JobsFolder, names: Sequence[str]) -> tuple[list[Found], list[str]]:
    found: dict[JobId, Found] = {}
    unknown = []
    for name in names:
        fitting = list(_fitting(jobs, name))
        if len(fitting) == 1:
            found[JobId(fitting[0].path.name)] = fitting[0]
        else:
            unknown.append(name)
    return list(found.values()), unknown


def _fitting(jobs: JobsFolder, name: str) -> Iterator[Found]:
    """The one with this id, else those whose ids begin so."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        return
    exact = jobs.find(JobId(name))
    if exact is not None:
        met = _met(jobs, exact)
        if met is not None:
            yield met
        return
    places = [
        jobs.active,
        jobs.rejected,
        jobs.undelivered,
        jobs.not_ours,
        *(jobs.done / day for day in done_days(jobs)),
    ]
    for place in places:
        for each in names(place):
            met = _met(jobs, JobFolder(place / each)) if each.startswith(name) else None
            if met is not None:
                yield met


def _met(jobs: JobsFolder, job: JobFolder) -> Optional[Found]:
    if job.path.parent == jobs.active:
        return _found(str(job.path))
    return _put_away(job.path, put_away_as(job.path))


def put_away_as(path: Path) -> str:
    """Which of ENDED_STATES a job has that lies here: the done ones lie in a folder for each day."""
    place = path.parent.name
    return place if place in ENDED_STATES else DONE


def one(jobs: JobsFolder, name: str) -> Optional[Found]:
    """The job with this id or beginning; None where there is none, or several."""
    found, _ = _named(jobs, [name])
    return found[0] if found else None


def tell_no_such(name: str) -> int:
    """Returns the exit code."""
    print(f"check.py: {no_such(name)}", file=sys.stderr)
    return os.EX_DATAERR


def no_such(name: str) -> str:
    return f"{screen.plain(name)}: no job with this id, or several begin so"


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
