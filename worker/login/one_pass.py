"""One pass: reconcile, then claim and ack up to the free slots, then authenticate and submit.

While something of the site stops claimed jobs, no new message is taken: the queue is the right place for them to wait.
"""

from __future__ import annotations

import logging
import os
from typing import Callable, Optional

from scheduler import Scheduler

from ..build import Ends
from ..errors import Transient
from ..folder import disk, paths, pause
from ..folder.facts import site_fault_of
from ..folder.jobs import JobsFolder
from ..installed import Workloads, fix_of
from ..settings import Config
from . import paused
from .account import Login
from .away import SiteAway, disk_away
from .budget import Budget, Spent
from .claiming import Claiming
from .declined import Declines
from .hiring import Hiring
from .lease import Lease
from .notices import Notices, Stop
from .pass_state import PassState
from .pilots import Pilots
from .pools import BatchClaims, KnownIds
from .questions import Cancels, Questions
from .quiet import Quiet
from .reconcile import Reconciler
from .reserve import Reserve
from .settle import Settler
from .submissions import Submissions
from .submit import Submitter
from .take import Taking
from .tally import Uncounted
from .touch import touch_in_flight

log = logging.getLogger(__name__)


class Pass:
    """Made anew for each pass, out of what its process keeps. `before`: the last one of the same process: its login and its
    answer of Slurm's are good for a while."""

    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, ends: Ends, open_scheduler: Callable[[], Scheduler],
        authenticate: Callable[[], str], budget: Budget, quiet: Quiet, known: KnownIds, seen: Uncounted,
        notices: Notices, stop: Stop, before: Optional[Pass] = None,
    ) -> None:  # fmt: skip
        self.state = state = PassState()
        self.well = False
        """Whether nothing is away that more than one job, or one queue, needs."""
        self._jobs, self._lease, self._ends, self._budget = jobs, lease, ends, budget
        self._quiet, self._notices = quiet, notices
        site, workloads = config.site, Workloads(config.root, config.site)
        asked_before = before._questions if before is not None else None
        self._questions: Questions = Questions(site.slurm, budget, quiet, notices, open_scheduler, asked_before)
        self._login: Login = Login(authenticate, site_fault_of(jobs), state.faults)
        if before is not None and not before._login.is_old():
            self._login = before._login
        questions, login = self._questions, self._login
        cancels, reserve = Cancels(questions, budget), Reserve(jobs, site.limits.message_bytes)
        self._settler: Settler = Settler(
            config, jobs, lease, ends, workloads, quiet, cancels, seen, notices, stop, state,
            before._settler if before is not None else None,
        )  # fmt: skip
        settler = self._settler
        submitter = Submitter(config, jobs, lease, login, questions, budget, notices, state)
        declines = Declines(config, jobs, questions, budget, settler, notices, state)
        batches = BatchClaims(config, jobs, workloads, known, state.faults)
        claiming = Claiming(config, jobs, ends, reserve, batches, seen, stop)
        self._workloads, self._reserve = workloads, reserve
        self._submitter, self._declines = submitter, declines
        self._reconciler = Reconciler(
            config, jobs, lease, questions, budget, quiet, cancels, settler, notices, stop, state
        )
        self._pilots = Pilots(config, jobs, lease, known, declines, settler, seen, state)
        self._hiring = Hiring(config, jobs, workloads, declines, state)
        self._submissions = Submissions(
            jobs, site.timing, lease, questions, quiet, submitter, declines, settler, self._rest, stop, state
        )
        self._taking = Taking(
            site, jobs.turns, ends, workloads, budget, batches, claiming, settler, submitter, self._try_the_site,
            notices, stop, state,
        )  # fmt: skip
        self.settle, self.places = settler.settle, self._taking.places

    def run(self, drain: bool) -> int:
        """Returns one of the exit codes that `check.py --help` lists."""
        try:
            self._budget.begin_pass()
            return self._run(drain)
        finally:
            if not self._notices.watching:
                self._quiet.save()
            touch_in_flight(self._jobs, self._lease.server_now)

    def _run(self, drain: bool) -> int:
        faults, questions = self.state.faults, self._questions
        try:
            self._report_stopped()
            self._report_paused()
            self._reconciler.reconcile(self._pilots.open_attempts())
            self._pilots.tend()
            self._hiring.want()
            self._submissions.submit_all()
            if self._may_take():
                self._taking.take(drain and not self._declines.is_doubtful())
                self._hiring.want()
                self._submissions.submit_all()
            if not faults.unclear:
                paths.remove(self._jobs.site_fault)
        except SiteAway as away:
            return self._submissions.wait(away)
        except OSError as error:
            if not disk.is_away(error):
                raise
            return self._submissions.wait(disk_away(error))
        except Spent:
            log.info("somebody else has used the last slurm command, the next pass goes on")
        except Transient as error:
            log.warning("broker away why=%r", str(error))
            return os.EX_UNAVAILABLE
        self.well = not (faults.broker_away or questions.away or questions.accounting_away or faults.unclear)
        if faults.queues or not self.well:
            return os.EX_UNAVAILABLE
        unread = self.state.paused is not None and self.state.paused.damaged
        damaged = faults.left_alone or faults.damaged or unread
        return os.EX_DATAERR if damaged or faults.stopped else os.EX_OK

    def _report_stopped(self) -> None:
        """A watch says it once."""
        self.state.faults.stopped = self._workloads.stopped()
        for name, why in self.state.faults.stopped.items():
            level = logging.ERROR if self._notices.is_news(f"workload {name}", why) else logging.DEBUG
            log.log(level, "workload stopped, the others go on workload=%s why=%r fix=%r", name, why, fix_of(name))

    def _report_paused(self) -> None:
        """A watch says it once."""
        found = self.state.paused = pause.look(self._jobs)
        news = self._notices.is_news("paused", str(found))
        if found is not None:
            paused.report(found, news)

    def _may_take(self) -> bool:
        """Not while an sbatch is unclear, or answers can't leave: the queue is the right place to wait. Nor while somebody
        wants no message to be taken."""
        state = self.state
        if state.paused is not None:
            return False
        if state.faults.unclear:
            fault = self._submissions.fault()
            log.warning(
                "an sbatch was unclear, no message is taken until Slurm has told twice jobs=%d why=%r",
                state.faults.unclear, fault.words if fault else "",
            )  # fmt: skip
        if state.faults.unclear or state.ready or state.full or state.faults.broker_away:
            return False
        return self._declines.may_take()

    def _try_the_site(self) -> None:
        """Before messages are taken. Raises SiteAway."""
        self._login.token()
        self._questions.check()
        self._reserve.check()
        self._rest()

    def _rest(self) -> None:
        """What follows may take longer than the broker's heartbeat."""
        if not self._notices.watching:
            self._ends.close()

    # --- what a watch asks after it

    def may_listen(self, try_disk: bool) -> bool:
        """Whether a message that came now could be taken, and submitted. `try_disk`: also writes a file, which costs a
        sync."""
        may = self.well and self._budget.could("submit", self._submitter.commands_for_one()) and self._may_take()
        return may and self._disk_takes_a_claim(try_disk)

    def _disk_takes_a_claim(self, try_it: bool) -> bool:
        try:
            self._reserve.check(whole=try_it)
        except (SiteAway, OSError) as away:
            if self._notices.is_news("disk", str(away)):
                log.warning("messages are not listened for why=%r", str(away))
            return False
        self._notices.is_over("disk")
        return True

    def pause(self) -> float:
        """Seconds until Slurm is asked again, if nothing else happens."""
        pause = self._questions.pause()
        return self._quiet.asked_at + pause - self._lease.server_now if pause else 0.0
