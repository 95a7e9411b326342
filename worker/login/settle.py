"""One step of a job after the other, as the judge says, until it has to wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Optional

from scheduler import SlurmJobId

from ..build import Ends
from ..errors import InvalidSpec, Transient, UnknownWorkload
from ..folder import answer, fence, frozen, paths
from ..folder.facts import JobFolder, read_result
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_attempt, read_facts
from ..installed import Workloads
from ..job import judge
from ..job.facts import Message, Settlement
from ..job.outcome import Result
from ..job.snapshot import JobFacts
from ..job.spec import with_resources
from ..settings import Config
from . import archive, tally
from .hold import hold, let_go
from .known import was_there
from .lease import Lease
from .notices import Notices, Stop
from .pass_state import PassState
from .questions import Cancels
from .quiet import Quiet
from .tally import Uncounted
from .understand import write_spec

if TYPE_CHECKING:
    from .uploads import Uploads

log = logging.getLogger(__name__)


class Settler:
    """`before`: the last pass's of the same process, for uploads have their turn for a part of each minute only."""

    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, ends: Ends, workloads: Workloads, quiet: Quiet,
        cancels: Cancels, seen: Uncounted, notices: Notices, stop: Stop, state: PassState, before: Optional[Settler],
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._lease, self._ends = config, jobs, lease, ends
        self._workloads, self._quiet, self._cancels = workloads, quiet, cancels
        self._seen, self._notices, self._state, self._faults = seen, notices, state, state.faults
        self._stop, self._uploaded_until = stop, before.uploaded_until if before is not None else float("-inf")

    def _conclude(self, job: JobFolder, number: int) -> bool:
        attempt = job.attempt(number)
        result = read_result(attempt)
        assert result is not None
        if result.to_upload:
            if not self._uploads.conclude(job, attempt, result):
                return False
        else:
            answer.conclude(job, attempt, result, self._config.site.replies, "login", time.time())
        self._state.places.in_flight -= 1
        return True

    @cached_property
    def _uploads(self) -> Uploads:
        from .uploads import Uploads

        return Uploads(self._config, self._lease.check, self._rest, self._stop, self._uploaded_until)

    @property
    def uploaded_until(self) -> float:
        return self._uploads.until if "_uploads" in self.__dict__ else self._uploaded_until

    def _rest(self) -> None:
        """A watch keeps its connection, and what it has heard."""
        if not self._notices.watching:
            self._ends.close()

    def settle(self, job: JobFolder, known: Optional[JobFacts] = None) -> None:
        """Takes one step after the other until the job has to wait. One bad job never stops the others. `known`: all its
        facts, where this pass has just made them."""
        self._state.places.release(job.id)
        with self._faults.left_alone_if_bad(job):
            self._settle(job, known)

    def _settle(self, job: JobFolder, known: Optional[JobFacts]) -> None:
        look_anew, in_slurm = 0, self._state.in_slurm
        try:
            while True:
                facts, known = known or read_facts(job, look_anew), None
                if facts is None:
                    return
                (in_slurm.add if any(a.in_slurm for a in facts.attempts) else in_slurm.discard)(job.id)
                timing, server_now = self._config.site.timing, self._lease.server_now
                step = judge.judge(facts, timing, self._max_wait(facts), time.time(), server_now)
                look_anew = step.attempt if isinstance(step, judge.LookAnew) else 0
                if not look_anew and not self._take_step(job, facts, step):
                    return
        except Transient as error:
            if not self._faults.broker_away:
                log.warning("broker away, answers are kept why=%r", str(error))
            self._faults.broker_away = str(error)

    def _max_wait(self, facts: JobFacts) -> float:
        queue = self._config.queue(facts.message.queue)
        return queue.max_wait if queue else float("inf")

    def _take_step(self, job: JobFolder, facts: JobFacts, step: judge.Step) -> bool:
        """Does what the judge says is next; False when nothing more can be done in this pass."""
        site = self._config.site
        if isinstance(step, judge.Submit):
            return self._make_ready(job, facts, step)
        if isinstance(step, judge.Wait):
            self._let_wait(job, facts, step)
            return False
        if isinstance(step, judge.Settle):
            return self.settle_claims(facts.message.queue, [(job, facts.message)])
        if isinstance(step, judge.LeaveToOthers):
            archive.leave_to_others(self._jobs, job)
            self._state.places.in_flight -= 1
            return False
        if isinstance(step, judge.Understand):
            return self._understand(job, facts)
        if isinstance(step, judge.Record):
            return _record(job, step.result)
        elif isinstance(step, judge.GiveVerdict):
            job.attempt(step.result.attempt).verdict.write(step.result)
        elif isinstance(step, judge.Conclude):
            return self._conclude(job, step.attempt)
        elif isinstance(step, judge.Deliver):
            return self._deliver(job)
        elif isinstance(step, judge.Close):
            self._close(job, step)
        elif isinstance(step, judge.CloseProgram):
            begun = not fence.close_program(job.attempt(step.attempt), time.time())
            log.info(
                "ended without a result job=%s attempt=%d begun=%s", job.id, step.attempt, "yes" if begun else "no"
            )
        elif isinstance(step, judge.AskToCancel):
            self._cancel(job, step)
            return False
        else:
            ended = tally.ended(job, facts, time.time())
            archive.archive(self._jobs, job, facts, site, time.time())
            self._seen.jobs.append(ended)
            return False
        return True

    def _make_ready(self, job: JobFolder, facts: JobFacts, step: judge.Submit) -> bool:
        why, site = self._workloads.why_stopped(step.workload), self._config.site
        if why and not frozen.suffices(self._jobs, job, step.workload, site):
            return hold(self._state, job, step.attempt, facts.message.queue, why, site.timing.patience)
        if facts.held:
            let_go(job)
        self._state.ready.append((job, step))
        return False

    def _let_wait(self, job: JobFolder, facts: JobFacts, step: judge.Wait) -> None:
        self._faults.unclear += step.unclear
        if step.held is not None:
            self._state.hold_shape(job.id, facts.message.queue, step.held)
        self._quiet.add(job.id, facts, self._max_wait(facts), self._lease.server_now)
        log.debug("waits job=%s %s", job.id, step.why)
        if facts.not_taken is not None and self._notices.is_new(job.id, facts.not_taken.times):
            log.warning("answer kept: make its queue, or list it in [replies] create job=%s why=%r times=%d",
                        job.id, facts.not_taken.why, facts.not_taken.times)  # fmt: skip

    def settle_claims(self, queue_name: str, claims: Sequence[tuple[JobFolder, Message]]) -> bool:
        """Asks their source whose these are, and notes what it says. False where its queue is no longer known. Raises
        Transient."""
        queue = self._config.queue(queue_name)
        if queue is None:
            return False
        verdicts = self._ends.source(queue).settle([(job.id, message) for job, message in claims])
        for (job, _), whose in zip(claims, verdicts):
            job.settled.claim(Settlement(whose.value, time.time()))
            log.info("settled job=%s whose=%s", job.id, whose.value)
        return True

    def _understand(self, job: JobFolder, facts: JobFacts) -> bool:
        message, config = facts.message, self._config
        queue = config.queue(message.queue)
        if queue is None:
            log.error("left alone: its queue is no longer in the site file job=%s queue=%s", job.id, message.queue)
            self._faults.left_alone += 1
            return False
        body = message.body_bytes
        try:
            origin = job.origin.read()
            if origin is not None and origin.resources:
                body = with_resources(body, origin.resources, config.site.limits)
            write_spec(config, queue, job, message.properties.get("reply_to"), body)
        except UnknownWorkload as error:
            if was_there(self._jobs, error.name):
                end = judge.end_of_unread(facts, queue.max_wait, time.time(), self._lease.server_now)
                if end is not None:
                    return _record(job, end)
                why = f"the workload {error.name} is no longer in site.toml"
                return hold(self._state, job, 1, queue.name, why, config.site.timing.patience)
            return _record(job, Result("rejected", attempt=1, reason=str(error), ended_at=time.time()))
        except InvalidSpec as error:
            return _record(job, Result("rejected", attempt=1, reason=str(error), ended_at=time.time()))
        return True

    def _deliver(self, job: JobFolder) -> bool:
        outcome = job.outcome.read()
        assert outcome is not None
        if self._faults.broker_away:
            return False
        self._lease.check()
        answer.deliver(job, outcome, self._ends.delivery, self._config.site, time.time)
        return job.delivered.is_there() or job.undeliverable.is_there()

    def _close(self, job: JobFolder, step: judge.Close) -> None:
        """What is closed can be answered at once; that Slurm is asked to remove it only tidies up."""
        attempt = job.attempt(step.attempt)
        if fence.close(attempt, step.why, time.time()):
            facts = read_attempt(attempt)
            why = facts.cancel.reason if facts.cancel else "it has ended"
            log.info(
                "closed before it began job=%s attempt=%d slurm=%s why=%r", job.id, step.attempt, facts.slurm_id, why
            )
            if facts.submission is not None and facts.ended is None and facts.absent is None:
                self._cancels.add([SlurmJobId(facts.submission.slurm_id)])
        elif step.why is not None and step.why.outcome != "cancelled":
            log.info("it has begun, and goes on job=%s attempt=%d", job.id, step.attempt)
            attempt.cancel.remove()

    def _cancel(self, job: JobFolder, step: judge.AskToCancel) -> None:
        """The reason is on disk before Slurm is asked, so that the end is told truly whatever happens in between."""
        attempt = job.attempt(step.attempt)
        facts = read_attempt(attempt)
        if facts.cancel is None:
            attempt.cancel.write(step.cancel)
            log.info("cancelling job=%s attempt=%d slurm=%s why=%r",
                     job.id, step.attempt, facts.slurm_id, step.cancel.reason)  # fmt: skip
        if facts.submission is not None:
            self._cancels.add([SlurmJobId(facts.submission.slurm_id)], step.only_waiting)


def _record(job: JobFolder, result: Result) -> bool:
    attempt = job.attempt(result.attempt)
    paths.make_folder(attempt.path)
    answer.record(attempt, result)
    return True
