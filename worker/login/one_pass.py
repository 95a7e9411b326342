"""One pass: reconcile, then claim and ack up to the free slots, then authenticate and submit.

While something of the site stops claimed jobs, no new message is taken: the queue is the right place for them to wait.
"""

from __future__ import annotations

import logging
import os
from typing import Optional

from ..errors import Damaged, Transient
from ..folder import answer, disk, fence, paths, pause
from ..folder.facts import JobFolder, site_fault_of
from ..job import sentences
from ..job.facts import Cancel, SiteFault
from ..job.outcome import Result
from . import declined, paused, pilots, reconcile
from .away import SiteAway, disk_away
from .budget import Spent
from .reconcile import Standing
from .submit import Ready, Said, commands_for_one, next_batch, submit
from .take import check_slurm, may_submit, take
from .tools import Tools
from .touch import touch_in_flight

log = logging.getLogger(__name__)


def run_pass(tools: Tools, drain: bool, standing: Optional[Standing] = None) -> int:
    """Returns one of the exit codes that `check.py --help` lists. `standing`: where to note how things stand then."""
    standing = standing or Standing()
    try:
        if tools.rationed:
            tools.budget.begin_pass()
        return _run(tools, standing, drain)
    finally:
        if not tools.watching:
            tools.quiet.save()
        touch_in_flight(tools.jobs, tools.server_now)


def _run(tools: Tools, standing: Standing, drain: bool) -> int:
    try:
        _report_stopped(tools, standing)
        _report_paused(tools, standing)
        reconcile.reconcile(tools, standing, pilots.open_attempts(tools))
        pilots.tend(tools, standing)
        _submit_all(tools, standing)
        if _may_take(tools, standing):
            take(tools, standing, drain and not declined.is_doubtful(tools))
            _submit_all(tools, standing)
        if not standing.unclear:
            paths.remove(tools.jobs.site_fault)
    except SiteAway as away:
        return _wait_for_the_site(tools, standing, away)
    except OSError as error:
        if not disk.is_away(error):
            raise
        return _wait_for_the_site(tools, standing, disk_away(error))
    except Spent:
        log.info("somebody else has used the last slurm command, the next pass goes on")
    except Transient as error:
        log.warning("broker away why=%r", str(error))
        return os.EX_UNAVAILABLE
    standing.well = not (tools.broker_away or tools.slurm_away or tools.accounting_away or standing.unclear)
    if standing.queue_faults or not standing.well:
        return os.EX_UNAVAILABLE
    damaged = standing.left_alone or tools.damaged or (standing.paused and standing.paused.damaged)
    return os.EX_DATAERR if damaged or standing.stopped else os.EX_OK


def _report_stopped(tools: Tools, standing: Standing) -> None:
    """A watch says it once."""
    standing.stopped = tools.workloads.stopped()
    for name, why in standing.stopped.items():
        level = logging.ERROR if tools.is_news(f"workload {name}", why) else logging.DEBUG
        log.log(level, "workload stopped, the others go on workload=%s why=%r", name, why)


def _report_paused(tools: Tools, standing: Standing) -> None:
    """A watch says it once."""
    standing.paused = pause.look(tools.jobs)
    news = tools.is_news("paused", str(standing.paused))
    if standing.paused is not None:
        paused.report(standing.paused, news)


def may_listen(tools: Tools, standing: Standing) -> bool:
    """Whether a message that came now could be taken, and submitted."""
    may = not tools.rationed or tools.budget.could("submit", commands_for_one(tools))
    return may and _may_take(tools, standing)


def _may_take(tools: Tools, standing: Standing) -> bool:
    """Not while an sbatch is unclear, or answers can't leave: the queue is the right place to wait. Nor while somebody
    wants no message to be taken."""
    if standing.paused:
        return False
    if standing.unclear:
        fault = tools.note(site_fault_of(tools.jobs))
        log.warning(
            "an sbatch was unclear, no message is taken until Slurm has told twice jobs=%d why=%r",
            standing.unclear, fault.words if fault else "",
        )  # fmt: skip
    if standing.unclear or standing.ready or standing.full or tools.broker_away:
        return False
    return declined.may_take(tools)


def _submit_all(tools: Tools, standing: Standing) -> None:
    """Raises SiteAway; what was not submitted then stays in `standing.ready`."""
    if standing.submits_nothing:
        return
    fault = tools.note(site_fault_of(tools.jobs)) if standing.ready else None
    declined.sort_out(tools, standing)
    while standing.ready and not tools.stopping and may_submit(tools):
        check_slurm(tools)
        tools.rest()
        batch = next_batch(tools, standing.ready, declined.most(tools, standing, standing.ready[0][1]))
        damaged, said = False, Said(None)
        try:
            said = submit(tools, [each for each in batch if not (fault and _gives_up(tools, each, fault))])
        except Damaged as error:
            log.error("damaged, left alone; docs/symptoms.md says what to do jobs=%d what=%r", len(batch), str(error))
            standing.left_alone += len(batch)
            damaged = True
        tools.quiet.changed_at = tools.server_now
        done = {job.id for job, _ in batch}
        standing.ready = [(job, step) for job, step in standing.ready if job.id not in done]
        for job, _ in [] if damaged else batch:
            if job.id not in said.took:  # one that Slurm has just taken waits for it, and that was all
                reconcile.settle(tools, job, standing)
        declined.learn(tools, standing, batch, said.words, said.by_itself)
    declined.raise_if_away(tools, standing)


def _gives_up(tools: Tools, ready: Ready, fault: SiteFault) -> bool:
    """One that may have been submitted before, and that Slurm surely does not have, has waited for long enough."""
    job, step = ready
    return step.again is not None and _give_up_after_patience(tools, job, step.attempt, fault)


def _wait_for_the_site(tools: Tools, standing: Standing, away: SiteAway) -> int:
    """Notes since when the site is away, and answers the jobs that have waited for too long."""
    log.error(
        "site away, jobs wait and no message is taken kind=%s waiting=%d why=%r",
        away.kind, len(standing.ready), str(away),
    )  # fmt: skip
    try:
        fault = tools.note(site_fault_of(tools.jobs))
        if fault is None or fault.kind != away.kind or (away.retry_after and tools.now() >= fault.not_before):
            # A site that is away now for one reason and now for another has been away all the time.
            not_before = tools.now() + away.retry_after if away.retry_after else 0
            fault = SiteFault(away.kind, str(away), fault.since if fault else tools.now(), not_before)
            site_fault_of(tools.jobs).write(fault)
        ready, standing.ready = standing.ready, []
        for job, step in ready:
            # One with an intent may be running: Slurm is asked first.
            intended = job.attempt(step.attempt).intent.is_there()
            with reconcile.left_alone_if_bad(job, standing):
                if not intended and _give_up_after_patience(tools, job, step.attempt, fault):
                    reconcile.settle(tools, job, standing)
    except SiteAway as error:
        log.error("site away too kind=%s why=%r", error.kind, str(error))
    except OSError as error:
        level = logging.DEBUG if away.kind == "disk" else logging.ERROR  # it was said
        log.log(level, "jobs folder can't be written why=%r", error.strerror)
    return os.EX_NOPERM if away.kind == "login" else os.EX_UNAVAILABLE


_WORDS = {
    "login": "the service's account was refused",
    "api": "the service's own web address could not be reached from the cluster",
    "slurm": "the cluster did not take new jobs",
    "disk": "the cluster's disk could not be written",
}


def _give_up_after_patience(tools: Tools, job: JobFolder, number: int, fault: SiteFault) -> bool:
    """Only for a job that Slurm surely does not have. True where it has its result now."""
    timing = tools.config.site.timing
    patience = timing.login_patience if fault.kind == "login" else timing.patience
    message, attempt = job.message.read(), job.attempt(number)
    waited = tools.now() - max(message.claimed_at if message else 0, fault.since)
    if waited < patience:
        return False
    reason = sentences.site_away(_WORDS[fault.kind], waited)
    if not fence.close(attempt, Cancel("failed", reason, tools.now(), "submit"), tools.now()):
        return False  # it has begun all the same
    answer.record(attempt, Result("failed", number, reason, step="submit", ended_at=tools.now()))
    return True
