"""Submits what is ready, batch after batch, as far as Slurm takes it; while something of the site is away, it waits."""

from __future__ import annotations

import logging
import os
import time
from typing import Callable, Optional

from ..errors import Damaged
from ..folder import answer, fence
from ..folder.facts import JobFolder, site_fault_of
from ..folder.jobs import JobsFolder
from ..job import sentences
from ..job.facts import Cancel, SiteFault
from ..job.outcome import Result
from ..settings import Timing
from .away import SiteAway
from .declined import Declines
from .lease import Lease
from .notices import Stop
from .pass_state import PassState
from .questions import Questions
from .quiet import Quiet
from .settle import Settler
from .submit import Said, Submitter

log = logging.getLogger(__name__)


_WORDS = {
    "login": "the service's account was refused",
    "api": "the service's own web address could not be reached from the cluster",
    "slurm": "the cluster did not take new jobs",
    "disk": "the cluster's disk could not be written",
}


class Submissions:
    """`rest`: called before what may take longer than the broker's heartbeat."""

    def __init__(
        self, jobs: JobsFolder, timing: Timing, lease: Lease, questions: Questions, quiet: Quiet, submitter: Submitter,
        declines: Declines, settler: Settler, rest: Callable[[], None], stop: Stop, state: PassState,
    ) -> None:  # fmt: skip
        self._fault_file, self._timing, self._lease = site_fault_of(jobs), timing, lease
        self._questions, self._quiet, self._submitter = questions, quiet, submitter
        self._declines, self._settler = declines, settler
        self._rest, self._stop, self._state = rest, stop, state

    def submit_all(self) -> None:
        """Raises SiteAway; what was not submitted then stays ready."""
        state, declines = self._state, self._declines
        if state.submits_nothing:
            return
        fault = self.fault() if state.ready else None
        declines.sort_out()
        while state.ready and not self._stop.asked and self._submitter.may_submit():
            self._questions.check()
            self._rest()
            batch = self._submitter.next_batch(state.ready, declines.most(state.ready[0][1]))
            damaged, said = False, Said(None)
            try:
                # One that may have been submitted before, and that Slurm surely does not have, has waited for long enough.
                said = self._submitter.submit([
                    (job, step) for job, step in batch
                    if not (fault and step.again is not None and self._gives_up(job, step.attempt, fault))
                ])  # fmt: skip
            except Damaged as error:
                log.error(
                    "damaged, left alone; docs/symptoms.md says what to do jobs=%d what=%r", len(batch), str(error)
                )
                state.faults.left_alone += len(batch)
                damaged = True
            self._quiet.changed_at = self._lease.server_now
            done = {job.id for job, _ in batch}
            state.ready = [(job, step) for job, step in state.ready if job.id not in done]
            for job, _ in [] if damaged else batch:
                if job.id not in said.took:  # one that Slurm has just taken waits for it, and that was all
                    self._settler.settle(job)
            declines.learn(batch, said.words, said.by_itself)
        declines.raise_if_away()

    def fault(self) -> Optional[SiteFault]:
        """What was away, when a pass looked last."""
        return self._state.faults.read(self._fault_file)

    def wait(self, away: SiteAway) -> int:
        """Notes since when the site is away, and answers the jobs that have waited for too long. Returns an exit code."""
        state = self._state
        log.error(
            "site away, jobs wait and no message is taken kind=%s waiting=%d why=%r",
            away.kind, len(state.ready), str(away),
        )  # fmt: skip
        try:
            fault = self.fault()
            if fault is None or fault.kind != away.kind or (away.retry_after and time.time() >= fault.not_before):
                # A site that is away now for one reason and now for another has been away all the time.
                not_before = time.time() + away.retry_after if away.retry_after else 0
                fault = SiteFault(away.kind, str(away), fault.since if fault else time.time(), not_before)
                self._fault_file.write(fault)
            ready, state.ready = state.ready, []
            for job, step in ready:
                # One with an intent may be running: Slurm is asked first.
                intended = job.attempt(step.attempt).intent.is_there()
                with state.faults.left_alone_if_bad(job):
                    if not intended and self._gives_up(job, step.attempt, fault):
                        self._settler.settle(job)
        except SiteAway as error:
            log.error("site away too kind=%s why=%r", error.kind, str(error))
        except OSError as error:
            level = logging.DEBUG if away.kind == "disk" else logging.ERROR  # it was said
            log.log(level, "jobs folder can't be written why=%r", error.strerror)
        return os.EX_NOPERM if away.kind == "login" else os.EX_UNAVAILABLE

    def _gives_up(self, job: JobFolder, number: int, fault: SiteFault) -> bool:
        """Only for a job that Slurm surely does not have. True where it has its result now."""
        patience = self._timing.login_patience if fault.kind == "login" else self._timing.patience
        message, attempt = job.message.read(), job.attempt(number)
        waited = time.time() - max(message.claimed_at if message else 0, fault.since)
        if waited < patience:
            return False
        reason = sentences.site_away(_WORDS[fault.kind], waited)
        if not fence.close(attempt, Cancel("failed", reason, time.time(), "submit"), time.time()):
            return False  # it has begun all the same
        answer.record(attempt, Result("failed", number, reason, step="submit", ended_at=time.time()))
        return True
