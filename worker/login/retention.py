"""What may go of what is over: what is older than `keep_done`, then of each kind the oldest beyond `done_bytes`.

Kinds: jobs that are done, pilots' closed batches, rejected messages, those that were not ours, half-made reruns, and what a
scheduler leaves in our folder. Nothing undelivered ever goes, and where room is made, the newest day stays. Passes that have
anything to do look at all of it once a day, a slice each; how far they are is a note that may be lost: then they begin anew.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ..build import left_by_scheduler
from ..errors import Damaged
from ..folder import done_ids, paths
from ..folder.jobs import JobsFolder
from ..folder.records import Fact
from ..folder.removed import give_up, sweep
from ..settings import Site
from .days import day_of, give_up_a_day
from .kept import HalfMade, Kind, LeftByScheduler, NotOurs, Rejected

log = logging.getLogger(__name__)

_AT_ONCE = 200
"""Folders that a pass looks at."""
_DAYS = "days"
"""What is kept in a folder for each day comes first, under this name."""


@dataclass(frozen=True)
class Round:
    """The round that began on `day`: which kind it is at (none: it is over), and after which name there."""

    day: str = ""
    at: str = ""
    after: str = ""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """Of what stays of this kind, as far as it was looked at, by day."""
    cut: Mapping[str, str] = field(default_factory=dict)
    """By kind: what ended before this day is beyond `done_bytes`, as the round before has found."""


def tidy(jobs: JobsFolder, site: Site, now: float) -> None:
    """A slice of the day's round, where one is due. Never fails: what can't be done is tried again in the next round."""
    try:
        sweep(jobs)
        there = _read(jobs)
        if there.at or there.day != day_of(now):
            begun = there if there.at else replace(there, day=day_of(now), at=_DAYS)
            paths.write_note(jobs.retention, json.dumps(asdict(_go_on(jobs, site, now, begun))))
    except (Damaged, OSError) as error:
        log.warning("what is old is kept for now why=%r", str(error))


def _go_on(jobs: JobsFolder, site: Site, now: float, there: Round) -> Round:
    """One kind after the other, until enough was looked at. A kind that can't be read keeps no other one from it."""
    kinds, left = _kinds(jobs, site), _AT_ONCE
    while there.at and left > 0:
        kind = next((each for each in kinds if each.word == there.at), None)
        try:
            if there.at == _DAYS:
                if give_up_a_day(jobs, site, now):
                    return there
                done_ids.forget_before(jobs, day_of(now - site.timing.keep_ids))
            elif kind is not None:
                names = [name for name in kind.names() if name > there.after]
                there = _walk(jobs, site, now, kind, names[:left], there)
                if len(names) > left:
                    return there
                left -= len(names)
                there = replace(there, cut={**there.cut, kind.word: _cut(there.bytes, site.limits.done_bytes)})
        except Exception as error:  # by a file that somebody else has written, say
            known = isinstance(error, (Damaged, OSError))
            log.warning("what is old is kept for now kind=%s why=%r", there.at, str(error), exc_info=not known)
        there = _next(kinds, there)
    return there


def _kinds(jobs: JobsFolder, site: Site) -> list[Kind]:
    kinds: list[Kind] = [Rejected(jobs), NotOurs(jobs), HalfMade(jobs)]
    left = left_by_scheduler(site)
    return [*kinds, LeftByScheduler(jobs, *left)] if left is not None else kinds


def _next(kinds: Sequence[Kind], there: Round) -> Round:
    """Over, where the scheduler was another one when the round began."""
    words = [_DAYS, *(kind.word for kind in kinds), ""]
    following = dict(zip(words, words[1:]))
    return replace(there, at=following.get(there.at, ""), after="", bytes={})


def _walk(jobs: JobsFolder, site: Site, now: float, kind: Kind, names: Sequence[str], there: Round) -> Round:
    """These of the kind; where the id of what goes has to stay known, that is on disk before."""
    kept, going = dict(there.bytes), dict[str, str]()
    before, cut = now - site.timing.keep_done, there.cut.get(kind.word, "")
    for name in names:
        found = kind.look(name)
        if found is None:
            continue
        ended_at, size = found
        day = day_of(ended_at)
        if (ended_at < before or day < cut) and kind.may_go(name):
            going[name] = day
        else:
            kept[day] = kept.get(day, 0) + size
    for day, some in itertools.groupby(sorted(going, key=going.__getitem__), key=going.__getitem__):
        done_ids.add(jobs, day, {name: outcome for name in some if (outcome := kind.outcome(name))})
    give_up(jobs, [kind.place / name for name in going])
    if going:
        log.info("removed by retention kind=%s count=%d", kind.word, len(going))
    return replace(there, after=names[-1] if names else there.after, bytes=kept)


def _cut(sizes: Mapping[str, int], most_bytes: int) -> str:
    """The oldest day that stays, with all newer ones; the newest stays, however much it has."""
    total, oldest = 0, ""
    for day in sorted(sizes, reverse=True):
        total += sizes[day]
        if total > most_bytes and oldest:
            return oldest
        oldest = day
    return ""


def _read(jobs: JobsFolder) -> Round:
    try:
        return Fact(jobs.retention, Round).read() or Round()
    except Damaged:
        paths.put_aside(jobs.retention)
        return Round()
