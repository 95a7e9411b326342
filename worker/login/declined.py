"""Jobs that Slurm declines, in a pass: which are tried, held or answered, and what is learned from a submission.

What is decided stands in shapes.py. One job is tried for all of its shape; the others are held meanwhile, and take no place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Optional

from scheduler import Unavailable

from ..folder import fence, paths
from ..folder.batches import PILOT
from ..folder.facts import JobFolder
from ..job import sentences
from ..job.facts import Cancel, Shape
from ..job.judge import Submit
from ..job.spec import Resources
from . import reconcile, shapes
from .away import SiteAway, disk_away
from .budget import Spent
from .reconcile import Standing
from .submit import Ready, smallest
from .tools import Tools

log = logging.getLogger(__name__)

_NO_NEW_JOBS = "the cluster did not take new jobs"


def most(tools: Tools, standing: Standing, step: Submit) -> int:
    """How many jobs like it may be submitted together; 0 for any number."""
    timing, shape = tools.config.site.timing, tools.shapes.of(step.resources)
    next_step = shapes.next_step(shape, timing, tools.now(), tools.in_slurm)
    most = next_step.most if isinstance(next_step, shapes.Try) else 1
    left = None if shapes.goes_first(shape) else _left(tools, standing)
    return most if left is None else max(1, min(most or left, left))


def may_try(tools: Tools, standing: Standing, asked: Resources) -> bool:
    """Whether one more of this shape may be submitted now."""
    may = isinstance(
        shapes.next_step(tools.shapes.of(asked), tools.config.site.timing, tools.now(), tools.in_slurm), shapes.Try
    )
    if not may:
        standing.shapes.append(asked)
    return may and _left(tools, standing) != 0


def _left(tools: Tools, standing: Standing) -> Optional[int]:
    """How many jobs may be submitted while room is kept for a shape that waits for it; None for any number."""
    if not tools.shapes:
        return None
    waiting = {
        tools.shapes.of(asked) for asked in [*standing.declined, *(step.resources for _, step in standing.ready)]
    }
    most_there = shapes.most_there(waiting, tools.config.site.timing, tools.now())
    return None if most_there is None else max(0, most_there - tools.in_slurm)


def blames_the_job(tools: Tools, asked: Resources) -> bool:
    """Whether Slurm takes other jobs, and not a single one of this shape."""
    shape = tools.shapes.of(asked)
    return shape is not None and shape.since > 0 and shape.asked_at > 0 and not shape.objection


def sort_out(tools: Tools, standing: Standing) -> None:
    """Leaves among the ready ones those that may be tried now; the others are held, or answered."""
    if standing.ready and tools.shapes:
        timing, now = tools.config.site.timing, tools.now()
        with _disk_may_be_away():
            tools.shapes.forget(lambda shape: shapes.forgotten(shape, timing, now))
    ready, standing.ready = standing.ready, []
    for job, step in ready:
        if step.declined is not None and step.declined.final:
            _answer(tools, standing, job, step, Cancel("rejected", sentences.refused(step.declined.words), tools.now()))
            continue
        next_step = _next_step(tools, step)
        if isinstance(next_step, shapes.Try):
            standing.ready.append((job, step))
        elif step.workload.startswith(PILOT):
            standing.shapes.append(step.resources)  # the next pass removes one without an intent
        elif isinstance(next_step, shapes.GiveUp):
            _answer(tools, standing, job, step, _reason(tools, step, next_step))
        else:
            standing.hold_shape(job.id, step.queue, step.resources)
    standing.ready.sort(key=lambda each: not _goes_first(tools, each))
    if _left(tools, standing) == 0:
        others = [each for each in standing.ready if not _goes_first(tools, each)]
        standing.ready = standing.ready[: len(standing.ready) - len(others)]
        standing.full = "room is kept for jobs that slurm declines while it has so many others of ours"


def _goes_first(tools: Tools, ready: Ready) -> bool:
    return shapes.goes_first(tools.shapes.of(ready[1].resources))


def learn(
    tools: Tools, standing: Standing, batch: Sequence[Ready], said: Optional[str], by_itself: bool = False
) -> None:
    """From what came of a submission: None for nothing, empty where it was taken, else Slurm's words."""
    if said is None or not (said or tools.shapes):
        return
    asked, timing, now = batch[0][1].resources, tools.config.site.timing, tools.now()
    before = tools.shapes.of(asked)
    if not said:
        _taken(tools, asked, before)
    else:
        shape = shapes.after_decline(before, asked, len(batch), said, timing, now, tools.in_slurm, by_itself)
        _note(tools, asked, shape)
        log.warning("declined by slurm jobs=%d tries=%d %s", len(batch), shape.tries, shapes.sentence(shape, now))
        if shapes.is_worth_asking(shape, timing, now):
            _ask(tools, asked, shape)
    sort_out(tools, standing)


def raise_if_away(tools: Tools, standing: Standing) -> None:
    """Raises SiteAway where Slurm takes nothing, and has nothing of ours that will make room."""
    for asked in standing.shapes:
        shape = tools.shapes.of(asked)
        if shape is not None and shape.objection:
            standing.full = shape.objection
            if not shape.full:
                raise SiteAway("slurm", f"it declines any job: {shape.objection}")
    if standing.full:
        log.log(tools.each_pass, "slurm takes no more jobs for now, no message is taken held=%d why=%r",
                len(standing.held), standing.full)  # fmt: skip


def is_doubtful(tools: Tools) -> bool:
    """Whether Slurm took nothing when it was asked last: then at most one message is taken, to see."""
    return bool(_away(tools))


def may_take(tools: Tools) -> bool:
    """Not before a site that takes nothing would be tried again."""
    timing, now = tools.config.site.timing, tools.now()
    return not any(isinstance(shapes.next_step(shape, timing, now, 0), shapes.Hold) for shape in _away(tools))


def _away(tools: Tools) -> list[Shape]:
    """Those for which Slurm said that it takes nothing at all, and had nothing of ours that will make room."""
    return [shape for shape in tools.shapes.all() if shape.objection and not shape.full]


def _next_step(tools: Tools, step: Submit) -> shapes.Step:
    """Where it has to be asked who is at fault, it is asked."""
    timing, asked = tools.config.site.timing, step.resources
    declined_at = step.declined.at if step.declined is not None else 0

    def decided() -> shapes.Step:
        shape, now = tools.shapes.of(asked), tools.now()
        return shapes.next_step(shape, timing, now, tools.in_slurm, declined_at, step.claimed_at)

    next_step, shape = decided(), tools.shapes.of(asked)
    if shape is None:
        return next_step
    wanted = isinstance(next_step, shapes.Ask) or shapes.is_worth_asking(shape, timing, tools.now())
    if wanted:
        _ask(tools, asked, shape)
        next_step = decided()
    return next_step


def _ask(tools: Tools, asked: Resources, shape: Shape) -> None:
    """Would the smallest job be taken? Without an answer nothing is known, and it is asked in a later pass."""
    if tools.shapes.silent:
        return
    try:
        tools.begin("try", 1)
        objection = tools.scheduler.objection(smallest(tools.config, asked))
    except (Spent, Unavailable) as error:
        tools.shapes.silent = True
        log.info("slurm was not asked about the smallest job why=%r", str(error))
        return
    timing, now = tools.config.site.timing, tools.now()
    _note(tools, asked, shapes.after_answer(shape, objection, timing, now, tools.in_slurm))
    log.info(
        "slurm was asked about the smallest job, it would %s", f"decline it: {objection}" if objection else "take it"
    )


def _note(tools: Tools, asked: Resources, shape: Optional[Shape]) -> None:
    with _disk_may_be_away():
        tools.shapes.note(asked, shape)


@contextlib.contextmanager
def _disk_may_be_away() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_away(error) from None


def _taken(tools: Tools, asked: Resources, before: Optional[Shape]) -> None:
    """The site is not away, whatever was said before of other shapes."""
    if before is not None:
        timing = tools.config.site.timing
        _note(tools, asked, shapes.after_taken(before, timing, tools.now(), tools.in_slurm))
    for shape in tools.shapes.all():
        if shape.objection and not shape.full:
            _note(tools, shape.resources, shapes.without_objection(shape, tools.now()))


def _reason(tools: Tools, step: Submit, end: shapes.GiveUp) -> Cancel:
    shape, now = tools.shapes.of(step.resources), tools.now()
    assert shape is not None
    if end.job_at_fault:
        return Cancel("rejected", sentences.declined(shape.words), now)
    return Cancel("failed", sentences.site_away(_NO_NEW_JOBS, now - shape.since), now, step="submit")


def _answer(tools: Tools, standing: Standing, job: JobFolder, step: Submit, reason: Cancel) -> None:
    """Nothing of it can begin once the attempt is closed; where something has, the next pass sees it."""
    attempt = job.attempt(step.attempt)
    with reconcile.left_alone_if_bad(job, standing):
        if not fence.close(attempt, reason, tools.now()):
            log.info("declined, and began all the same job=%s attempt=%d", job.id, step.attempt)
            return
        paths.remove(attempt.token)
        log.info("given up job=%s attempt=%d outcome=%s why=%r", job.id, step.attempt, reason.outcome, reason.reason)
    reconcile.settle(tools, job, standing)
