"""Which job a word names: its id, a beginning that only it has, or `last`; and short ids, of which each is such a word.

Jobs of one message share the stem of their ids: `4f0c...`, its reruns `4f0c...-r1`, the same message once more
`4f0c...-2`. What stands behind the stem may be given behind a beginning too (`4f0c-r1`); without it the first of them is
meant, so a rerun takes no name away.
"""

from __future__ import annotations

import argparse
import calendar
import os
import re
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from .. import as_json
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..settings import Config
from . import in_batches, places, screen
from .in_batches import InBatch
from .places import Found, Wanted

LAST = "last"
_SHORTEST = 8
"""Characters of a stem that are shown, where no other stem begins so."""
_MOST_TOLD = 10
_BEHIND_THE_STEM = re.compile(r"(-\d+)?(-r\d+)?$")
_A_DAY = 86400


@dataclass(frozen=True)
class NotOne:
    """A word that names no job, or several."""

    word: str
    candidates: Sequence[tuple[str, str]] = ()
    """Their ids, and where they stand."""

    def __str__(self) -> str:
        word = screen.plain(self.word)
        if not self.candidates:
            return "There is no job yet" if self.word == LAST else f"{word}: no job with this id, and none begins so"
        ids = Ids.of(job for job, _ in self.candidates)
        told = [f"{ids.short(job)} ({state})" for job, state in self.candidates[:_MOST_TOLD]]
        more = len(self.candidates) - len(told)
        rest = f" and {more} more" if more > 0 else ""
        return f"{word}: {len(self.candidates)} jobs begin so: {', '.join(told)}{rest}. Give more of the id"

    def tell(self, in_json: bool) -> int:
        """Of a verb that is about one job. Returns the exit code."""
        return as_json.fail(f"{self}.", os.EX_DATAERR, in_json, candidates=[job for job, _ in self.candidates])


@dataclass(frozen=True)
class Chosen:
    """The jobs that are meant, those among them that lie in pilots' batches, and the words that name no single one."""

    jobs: Iterable[Found] = ()
    inside: Sequence[InBatch] = ()
    unclear: Sequence[NotOne] = ()


def add_job(parser: argparse.ArgumentParser) -> None:
    """For a verb that is about one job."""
    parser.add_argument("job", metavar="JOB", help=places.NAMED_BY)


def choose(config: Config, jobs: JobsFolder, want: Wanted, now: float,
           among: Optional[Sequence[Found]] = None) -> Chosen:  # fmt: skip
    """By filters alone the jobs come lazily. `among`: the active ones, where they are known already."""
    if not want.jobs:
        return Chosen(places.filtered(jobs, want, now, among))
    named = [one(config, jobs, word) for word in want.jobs]
    found = {each.job.id: each for each in named if isinstance(each, Found)}
    inside = {each.claimed.id: each for each in named if isinstance(each, InBatch)}
    return Chosen(
        [each for each in found.values() if places.fits(each, want, now)], list(inside.values()),
        [each for each in named if isinstance(each, NotOne)],
    )  # fmt: skip


def one(config: Config, jobs: JobsFolder, word: str) -> Union[Found, InBatch, NotOne]:
    """The job that this word names. One that has a folder comes before one in a pilot's batch."""
    found = _with_folder(jobs, word)
    if len(found) == 1:
        return found[0]
    if not found and word == LAST:
        return newest(config, jobs) or NotOne(word)
    inside = in_batches.find(config, jobs, word) if not found else []
    if len(inside) == 1:
        return inside[0]
    return NotOne(
        word, [*((each.job.id, each.word) for each in found), *((each.claimed.id, each.state) for each in inside)]
    )


def _with_folder(jobs: JobsFolder, word: str) -> list[Found]:
    if not re.fullmatch(r"[A-Za-z0-9-]+", word):
        return []
    exact = jobs.find(JobId(word))
    meant = [exact] if exact is not None else [JobFolder(path) for path in Ids.in_folders(jobs).meant(word)]
    return [met for job in meant if (met := places.met(job, jobs.active)) is not None]


# --- ids, long and short


def split(job_id: str) -> tuple[str, str]:
    """The stem, and what stands behind it."""
    at = _BEHIND_THE_STEM.search(job_id)
    assert at is not None
    return job_id[: at.start()], job_id[at.start() :]


@dataclass(frozen=True)
class Ids:
    """Which ids there are: of each folder, in order."""

    places: Sequence[tuple[Path, Sequence[str]]] = field(default_factory=list)

    @classmethod
    def in_folders(cls, jobs: JobsFolder) -> Ids:
        days = (jobs.done / day for day in places.done_days(jobs))
        folders = (jobs.active, jobs.rejected, jobs.undelivered, jobs.not_ours, *days)
        return cls([(place, names) for place in folders if (names := places.names(place))])

    @classmethod
    def of(cls, ids: Iterable[str]) -> Ids:
        return cls([(Path(), sorted(ids))])

    def meant(self, word: str) -> list[Path]:
        """The one that this word names; none, or several, where it names no single one."""
        stem, behind = split(word)
        found = [
            place / each
            for place, names in self.places
            for each in _beginning(names, stem)
            if each.startswith(word) or split(each)[1] == behind
        ]
        exactly = [path for path in found if split(path.name)[1] == behind]
        return exactly if len({split(path.name)[0] for path in found}) == 1 == len(exactly) else found

    def short(self, job_id: str) -> str:
        """As much of it as names this job and no other."""
        stem, behind = split(job_id)
        shared = max((len(os.path.commonprefix([stem, other])) for other in self._beside(stem)), default=0)
        return stem[: max(_SHORTEST, shared + 1)] + behind

    def _beside(self, stem: str) -> Iterator[str]:
        """Of each folder the last other stem before this one, and the first one behind it."""
        for _, names in self.places:
            at = bisect_left(names, stem)
            if at:
                yield split(names[at - 1])[0]
            while at < len(names) and split(names[at])[0] == stem:
                at += 1
            if at < len(names):
                yield split(names[at])[0]


def _beginning(names: Sequence[str], word: str) -> Iterator[str]:
    for at in range(bisect_left(names, word), len(names)):
        if not names[at].startswith(word):
            return
        yield names[at]


# --- the newest


def newest(config: Config, jobs: JobsFolder) -> Union[Found, InBatch, None]:
    """The one that was claimed last, wherever it is now."""
    folder = max(_latest(jobs), key=lambda found: found.claimed_at, default=None)
    inside = in_batches.newest(config, jobs)
    if folder is None or inside is None:
        return folder or inside
    return folder if folder.claimed_at >= inside.claimed.message.claimed_at else inside


def _latest(jobs: JobsFolder) -> Iterator[Found]:
    """Among these is the newest: whatever was put away on an earlier day was claimed before that day's end."""
    latest = 0.0
    for found in (*places.active(jobs), *places.put_away(jobs, places.NOT_BY_DAY)):
        latest = max(latest, found.claimed_at)
        yield found
    for day in sorted(places.done_days(jobs), reverse=True):
        if calendar.timegm(time.strptime(day, "%Y-%m-%d")) + _A_DAY <= latest:
            return
        for found in places.done_on(jobs, day):
            latest = max(latest, found.claimed_at)
            yield found
