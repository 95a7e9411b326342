"""While something of the site is away: since when, and which jobs have waited for too long."""

from __future__ import annotations

import logging
import os
import time

from ..folder import answer, fence
from ..folder.facts import JobFolder, site_fault_of
from ..folder.jobs import JobsFolder
from ..job import sentences
from ..job.facts import Cancel, SiteFault
from ..job.outcome import Result
from ..settings import Timing
from .away import SiteAway
from .pass_state import PassState
from .settle import Settler

log = logging.getLogger(__name__)

_WORDS = {
    "login": "the service's account was refused",
    "api": "the service's own web address could not be reached from the cluster",
    "slurm": "the cluster did not take new jobs",
    "disk": "the cluster's disk could not be written",
}


class Patience:
    def __init__(self, jobs: JobsFolder, timing: Timing, settler: Settler, state: PassState) -> None:
        self._fault_file, self._timing, self._settler, self._state = site_fault_of(jobs), timing, settler, state

    def fault(self) -> SiteFault | None:
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
                    if not intended and self.gives_up(job, step.attempt, fault):
                        self._settler.settle(job)
        except SiteAway as error:
            log.error("site away too kind=%s why=%r", error.kind, str(error))
        except OSError as error:
            level = logging.DEBUG if away.kind == "disk" else logging.ERROR  # it was said
            log.log(level, "jobs folder can't be written why=%r", error.strerror)
        return os.EX_NOPERM if away.kind == "login" else os.EX_UNAVAILABLE

    def gives_up(self, job: JobFolder, number: int, fault: SiteFault) -> bool:
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
