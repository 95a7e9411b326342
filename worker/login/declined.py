"""Jobs that Slurm declines, in a pass: which are tried, held or answered, and what is learned from a submission.

What is decided stands in shapes.py. One job is tried for all of its shape; the others are held meanwhile, and take no place.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Optional

from scheduler import Unavailable

from ..folder import fence, paths
from ..folder.batches import PILOT
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job import sentences
from ..job.facts import Cancel, Shape
from ..job.judge import Submit
from ..job.spec import Resources
from ..settings import Config
from . import shapes
from .away import SiteAway, disk_away
from .budget import Budget, Spent
from .known_shapes import Shapes
from .notices import Notices
from .pass_state import PassState, Ready
from .questions import Questions
from .settle import Settler
from .submit import smallest

log = logging.getLogger(__name__)

_NO_NEW_JOBS = "the cluster did not take new jobs"


class Declines:
    def __init__(
        self, config: Config, jobs: JobsFolder, questions: Questions, budget: Budget, settler: Settler, notices: Notices,
        state: PassState,
    ) -> None:  # fmt: skip
        self._config, self._timing, self._jobs = config, config.site.timing, jobs
        self._questions, self._budget, self._settler = questions, budget, settler
        self._notices, self._state = notices, state

    @cached_property
    def _shapes(self) -> Shapes:
        """Looked for only where something is to be submitted."""
        return Shapes(self._jobs, self._config.site.slurm)

    def most(self, step: Submit) -> int:
        """How many jobs like it may be submitted together; 0 for any number."""
        timing, shape = self._timing, self._shapes.of(step.resources)
        next_step = shapes.next_step(shape, timing, time.time(), len(self._state.in_slurm))
        most = next_step.most if isinstance(next_step, shapes.Try) else 1
        left = None if shapes.goes_first(shape) else self._left()
        return most if left is None else max(1, min(most or left, left))

    def may_try(self, asked: Resources) -> bool:
        """Whether one more of this shape may be submitted now."""
        may = isinstance(
            shapes.next_step(self._shapes.of(asked), self._timing, time.time(), len(self._state.in_slurm)), shapes.Try
        )
        if not may:
            self._state.shapes.append(asked)
        return may and self._left() != 0

    def _left(self) -> Optional[int]:
        """How many jobs may be submitted while room is kept for a shape that waits for it; None for any number."""
        if not self._shapes:
            return None
        waiting = {
            self._shapes.of(asked)
            for asked in [*self._state.declined, *(step.resources for _, step in self._state.ready)]
        }
        most_there = shapes.most_there(waiting, self._timing, time.time())
        return None if most_there is None else max(0, most_there - len(self._state.in_slurm))

    def blames_the_job(self, asked: Resources) -> bool:
        """Whether Slurm takes other jobs, and not a single one of this shape."""
        shape = self._shapes.of(asked)
        return shape is not None and shape.since > 0 and shape.asked_at > 0 and not shape.objection

    def sort_out(self) -> None:
        """Leaves among the ready ones those that may be tried now; the others are held, or answered."""
        if self._state.ready and self._shapes:
            timing, now = self._timing, time.time()
            with _disk_may_be_away():
                self._shapes.forget(lambda shape: shapes.forgotten(shape, timing, now))
        ready, self._state.ready = self._state.ready, []
        for job, step in ready:
            if step.declined is not None and step.declined.final:
                self._answer(job, step, Cancel("rejected", sentences.refused(step.declined.words), time.time()))
                continue
            next_step = self._next_step(step)
            if isinstance(next_step, shapes.Try):
                self._state.ready.append((job, step))
            elif step.workload.startswith(PILOT):
                self._state.shapes.append(step.resources)  # the next pass removes one without an intent
            elif isinstance(next_step, shapes.GiveUp):
                self._answer(job, step, self._reason(step, next_step))
            else:
                self._state.hold_shape(job.id, step.queue, step.resources)
        self._state.ready.sort(key=lambda each: not self._goes_first(each))
        if self._left() == 0:
            others = [each for each in self._state.ready if not self._goes_first(each)]
            self._state.ready = self._state.ready[: len(self._state.ready) - len(others)]
            self._state.full = "room is kept for jobs that slurm declines while it has so many others of ours"

    def _goes_first(self, ready: Ready) -> bool:
        return shapes.goes_first(self._shapes.of(ready[1].resources))

    def learn(self, batch: Sequence[Ready], said: Optional[str], by_itself: bool = False) -> None:
        """From what came of a submission: None for nothing, empty where it was taken, else Slurm's words."""
        if said is None or not (said or self._shapes):
            return
        asked, timing, now = batch[0][1].resources, self._timing, time.time()
        before = self._shapes.of(asked)
        if not said:
            self._taken(asked, before)
        else:
            shape = shapes.after_decline(
                before, asked, len(batch), said, timing, now, len(self._state.in_slurm), by_itself
            )
            self._note(asked, shape)
            log.warning("declined by slurm jobs=%d tries=%d %s", len(batch), shape.tries, shapes.sentence(shape, now))
            if shapes.is_worth_asking(shape, timing, now):
                self._ask(asked, shape)
        self.sort_out()

    def raise_if_away(self) -> None:
        """Raises SiteAway where Slurm takes nothing, and has nothing of ours that will make room."""
        for asked in self._state.shapes:
            shape = self._shapes.of(asked)
            if shape is not None and shape.objection:
                self._state.full = shape.objection
                if not shape.full:
                    raise SiteAway("slurm", f"it declines any job: {shape.objection}")
        if self._state.full:
            log.log(self._notices.each_pass, "slurm takes no more jobs for now, no message is taken held=%d why=%r",
                    len(self._state.places.held), self._state.full)  # fmt: skip

    def is_doubtful(self) -> bool:
        """Whether Slurm took nothing when it was asked last: then at most one message is taken, to see."""
        return bool(self._away())

    def may_take(self) -> bool:
        """Not before a site that takes nothing would be tried again."""
        timing, now = self._timing, time.time()
        return not any(isinstance(shapes.next_step(shape, timing, now, 0), shapes.Hold) for shape in self._away())

    def _away(self) -> list[Shape]:
        """Those for which Slurm said that it takes nothing at all, and had nothing of ours that will make room."""
        return [shape for shape in self._shapes.all() if shape.objection and not shape.full]

    def _next_step(self, step: Submit) -> shapes.Step:
        """Where it has to be asked who is at fault, it is asked."""
        timing, asked = self._timing, step.resources
        declined_at = step.declined.at if step.declined is not None else 0

        def decided() -> shapes.Step:
            shape, now = self._shapes.of(asked), time.time()
            return shapes.next_step(shape, timing, now, len(self._state.in_slurm), declined_at, step.claimed_at)

        next_step, shape = decided(), self._shapes.of(asked)
        if shape is None:
            return next_step
        wanted = isinstance(next_step, shapes.Ask) or shapes.is_worth_asking(shape, timing, time.time())
        if wanted:
            self._ask(asked, shape)
            next_step = decided()
        return next_step

    def _ask(self, asked: Resources, shape: Shape) -> None:
        """Would the smallest job be taken? Without an answer nothing is known, and it is asked in a later pass."""
        if self._shapes.silent:
            return
        try:
            self._budget.begin("try", 1)
            objection = self._questions.scheduler.objection(smallest(self._config, asked))
        except (Spent, Unavailable) as error:
            self._shapes.silent = True
            log.info("slurm was not asked about the smallest job why=%r", str(error))
            return
        timing, now = self._timing, time.time()
        self._note(asked, shapes.after_answer(shape, objection, timing, now, len(self._state.in_slurm)))
        log.info(
            "slurm was asked about the smallest job, it would %s",
            f"decline it: {objection}" if objection else "take it",
        )

    def _note(self, asked: Resources, shape: Optional[Shape]) -> None:
        with _disk_may_be_away():
            self._shapes.note(asked, shape)

    def _taken(self, asked: Resources, before: Optional[Shape]) -> None:
        """The site is not away, whatever was said before of other shapes."""
        if before is not None:
            timing = self._timing
            self._note(asked, shapes.after_taken(before, timing, time.time(), len(self._state.in_slurm)))
        for shape in self._shapes.all():
            if shape.objection and not shape.full:
                self._note(shape.resources, shapes.without_objection(shape, time.time()))

    def _reason(self, step: Submit, end: shapes.GiveUp) -> Cancel:
        shape, now = self._shapes.of(step.resources), time.time()
        assert shape is not None
        if end.job_at_fault:
            return Cancel("rejected", sentences.declined(shape.words), now)
        return Cancel("failed", sentences.site_away(_NO_NEW_JOBS, now - shape.since), now, step="submit")

    def _answer(self, job: JobFolder, step: Submit, reason: Cancel) -> None:
        """Nothing of it can begin once the attempt is closed; where something has, the next pass sees it."""
        attempt = job.attempt(step.attempt)
        with self._state.faults.left_alone_if_bad(job):
            if not fence.close(attempt, reason, time.time()):
                log.info("declined, and began all the same job=%s attempt=%d", job.id, step.attempt)
                return
            paths.remove(attempt.token)
            log.info(
                "given up job=%s attempt=%d outcome=%s why=%r", job.id, step.attempt, reason.outcome, reason.reason
            )
        self._settler.settle(job)


@contextlib.contextmanager
def _disk_may_be_away() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_away(error) from None
