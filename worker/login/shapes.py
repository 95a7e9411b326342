"""Decides when jobs of a shape that Slurm declined are tried again, how many at a time, and when that ends. Pure.

A shape is all that sbatch is asked for a job. Which words are about too many jobs at a time and which are about the shape
can't be known from the words: what is declined as an array is halved, and what is declined alone is the shape's. It is tried
again alone, one job for all of its shape, after a pause that grows.
Where Slurm had jobs of ours when it declined one, they may be what is in the way: then a try whose pause is over waits for
one of them to end, for one pause more at the most, and goes before jobs of other shapes, which would take the room that
became free. One that needs the place of several is kept that room: after some turns in vain it waits for two of them to
end, then for four, in the end for all, and nothing that would take their places is submitted meanwhile.
Whether the shape is at fault or the site takes nothing at all is asked: would it take the smallest job there is, or not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Optional, Union

from ..job.facts import Shape
from ..job.sentences import counted
from ..job.spec import Resources
from ..settings import Timing

_REMEMBERED = 3600.0
"""Seconds for which it is believed that only so many are taken at a time."""
_IN_VAIN = 3
"""Turns in which the place of a single job was not enough."""


@dataclass(frozen=True)
class Try:
    """So many at a time at the most; 0 for any number."""

    most: int = 0


@dataclass(frozen=True)
class Hold:
    """Not before then, unless jobs of ours end."""

    until: float


@dataclass(frozen=True)
class Ask:
    """Whether the smallest job would be taken: its patience is over, and this decides who was at fault."""


@dataclass(frozen=True)
class GiveUp:
    """`at_fault`: whether it is the job (rejected, with Slurm's words) or the site (failed)."""

    job_at_fault: bool


Step = Union[Try, Hold, Ask, GiveUp]


def next_step(shape: Optional[Shape], timing: Timing, now: float, in_slurm: int, declined_at: float = 0,
              claimed_at: float = 0) -> Step:  # fmt: skip
    """What is to be done with a job of this shape that is ready. `in_slurm`: how many of our jobs Slurm has now;
    `declined_at`: when this one was declined, 0 for one that was not tried. An answer that blames the job is true of every
    job of its shape; one that blames the site is true of those that have waited for as long."""
    if shape is None:
        return Try()
    if 0 < declined_at <= shape.given_up_at or 0 <= now - shape.given_up_at < timing.hopeless_after:
        if not shape.objection or now - max(claimed_at, shape.since) >= timing.patience:
            return GiveUp(job_at_fault=not shape.objection)
    if not shape.since:
        return Try(shape.most if 0 <= now - shape.at < _REMEMBERED else 0)
    room = shape.in_slurm - in_slurm if shape.objection else 0
    if room > 0:
        return Try(room)
    keeps_room, there_is_room = _keeps_room(shape, timing, now), in_slurm <= shape.in_slurm - _room(shape)
    if keeps_room and there_is_room:
        return Try(1)
    if now < shape.again_at <= now + timing.hopeless_after:  # a clock that was set back must not hold them for ever
        return Hold(shape.again_at)
    latest = shape.again_at + _pause(shape, timing)
    if not shape.objection and shape.in_slurm > 0 and not there_is_room and shape.again_at <= now < latest:
        return Hold(latest)
    if is_over(shape, timing, now) and shape.asked_at < shape.again_at:
        return Ask()
    return Try(1)


def most_there(waiting: Iterable[Optional[Shape]], timing: Timing, now: float) -> Optional[int]:
    """How many jobs of ours Slurm may have before another one is submitted, where room is kept for shapes that wait."""
    kept = [shape.in_slurm - _room(shape) for shape in waiting if shape is not None and _keeps_room(shape, timing, now)]
    return min(kept, default=None)


def _keeps_room(shape: Shape, timing: Timing, now: float) -> bool:
    return is_kept_room(shape) and not is_over(shape, timing, now)


def is_kept_room(shape: Shape) -> bool:
    """Not where it can't be jobs of ours that are in its way."""
    return goes_first(shape) and shape.in_slurm > 0 and not shape.alone and shape.tries > _IN_VAIN


def _room(shape: Shape) -> int:
    """How many of our jobs have to end before its turn comes."""
    return min(shape.in_slurm, 2 ** min(shape.tries - _IN_VAIN, 30)) if is_kept_room(shape) else 1


def is_over(shape: Shape, timing: Timing, now: float) -> bool:
    return shape.since > 0 and now - shape.since >= timing.patience


def is_worth_asking(shape: Shape, timing: Timing, now: float) -> bool:
    """Once in `hopeless_after`."""
    return shape.since > 0 and not 0 <= now - shape.asked_at < timing.hopeless_after


def forgotten(shape: Shape, timing: Timing, now: float) -> bool:
    """Nothing was declined for so long that it says nothing about now."""
    return not -timing.patience <= now - shape.at < timing.patience + timing.hopeless_after


def after_decline(before: Optional[Shape], resources: Resources, count: int, words: str, timing: Timing, now: float,
                  in_slurm: int, by_itself: bool = False) -> Shape:  # fmt: skip
    """What is known now that `count` of them were declined together. `by_itself`: whatever else is there."""
    shape = replace(before or Shape(resources, words, now), words=words, at=now)
    if count > 1:
        half = count // 2
        return replace(shape, most=half, in_slurm=min(shape.in_slurm, in_slurm + half))
    tries = shape.tries + 1
    pause = _pause(replace(shape, tries=tries), timing)
    at_fault = is_over(shape, timing, now) and shape.asked_at >= shape.again_at and not shape.objection
    return replace(
        shape, since=shape.since or now, tries=tries, again_at=now + pause, most=1, in_slurm=in_slurm,
        alone=shape.alone or not in_slurm or by_itself,
        given_up_at=now if at_fault else shape.given_up_at,
    )  # fmt: skip


def _pause(shape: Shape, timing: Timing) -> float:
    grown = 1 if shape.objection else 2 ** max(0, min(shape.tries - 1, 30))
    return min(timing.hopeless_after, timing.adopt_after * grown)


def goes_first(shape: Optional[Shape]) -> bool:
    """Of the jobs that may be tried: else those of other shapes would take each place that becomes free, for ever."""
    return shape is not None and shape.since > 0 and not shape.objection


def after_answer(shape: Shape, objection: str, timing: Timing, now: float, in_slurm: int) -> Shape:
    """What is known now that Slurm was asked about the smallest job. While it is full of jobs of ours, time does not count:
    they will end."""
    shape = replace(shape, asked_at=now, objection=objection, full=bool(objection) and in_slurm > 0)
    if objection:  # this may pass at any time, for all jobs
        shape = replace(shape, again_at=min(shape.again_at, now + timing.adopt_after))
    if shape.full:
        return replace(shape, since=now)
    return replace(shape, given_up_at=now) if objection and is_over(shape, timing, now) else shape


def without_objection(shape: Shape, now: float) -> Shape:
    """Slurm took something since it was asked: from now on it is the shape alone that it declines."""
    return replace(shape, objection="", asked_at=0, since=now, given_up_at=0)


def after_taken(shape: Shape, timing: Timing, now: float, in_slurm: int) -> Optional[Shape]:
    """None: nothing is worth remembering. Where Slurm was full, how many of ours fit is; and for a while that only so many
    are taken at a time."""
    if shape.full:
        pause = min(timing.hopeless_after, timing.adopt_after)
        return replace(shape, since=now, tries=1, again_at=now + pause, in_slurm=max(shape.in_slurm, in_slurm))
    return None if shape.since else shape


def sentence(shape: Shape, now: float) -> str:
    """What waits and why, for people."""
    what = f"jobs of {kind(shape.resources)}"
    if not shape.since:
        return f"Slurm declined {what} when they came together ({shape.words}); at most {shape.most} are submitted at a time"
    clock = time.strftime("%H:%M", time.localtime(max(now, shape.again_at)))
    when = f"tried again at {clock}"
    if shape.full:
        has = f"Slurm has {shape.in_slurm} of our jobs and takes no more"
        return f"{has}, {what} wait: {shape.words}; {when}, or when one ends"
    if shape.objection:
        return f"Slurm declines {what}, and any other job too: {shape.words}; {when}"
    ours = "our job there" if shape.in_slurm == 1 else f"one of our {shape.in_slurm} jobs there"
    if is_kept_room(shape):
        left = f"when of our {counted(shape.in_slurm, 'job')} there {shape.in_slurm - _room(shape)} are left"
        when = f"one is tried {left}, and no others are submitted until then"
    elif shape.in_slurm:
        when = f"one is tried after {clock}, before any other job, when {ours} ends"
    return f"Slurm declines {what}: {shape.words}; {when}"


def kind(asked: Resources) -> str:
    return f"{counted(asked.cpus, 'CPU')}, {asked.memory_mb} MB, {asked.minutes} min{f', {asked.gres}' if asked.gres else ''}"
