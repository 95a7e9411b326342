"""An installation with something of everything: jobs in each state, batches, a pilot, groups, notes, jobs that are done."""

from __future__ import annotations

import copy
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Optional

from tests.both import ends_of
from tests.worker.login.process import passes_of
from tests.worker.login.test_passes import Login, dies, starts_and_dies
from worker.folder import batches, paths
from worker.folder.answer import conclude, record
from worker.folder.batches import Claimed, Handed, Pilot, Pool
from worker.folder.facts import JobFolder, cluster_of, group_of, site_fault_of
from worker.folder.jobs import JobsFolder
from worker.folder.journal import Came, Journal
from worker.job.facts import (
    Absent,
    Acked,
    Asked,
    Cancel,
    Cluster,
    Delivered,
    Ended,
    Group,
    Intent,
    Message,
    NotTaken,
    Origin,
    Progress,
    SiteFault,
    Started,
    Stuck,
    Submission,
    Undeliverable,
    Unfit,
)
from worker.job.names import JobId
from worker.job.outcome import Reply, Result
from worker.job.spec import Resources
from worker.login import guard, tally
from worker.login.ids import Ids
from worker.login.lease import Lease
from worker.settings import PilotRules

SMALL = Resources(1, 1000, 60)
PILOT = "pilot-20260101000000-aabbcc"


class Busy(Login):
    """Its passes hold the lease and look at the mark, as real ones do."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (queue,) = self.config.site.queues
        site = replace(self.config.site, queues=(replace(queue, mode="pilot", pilot=PilotRules(most=2)),))
        self.config = replace(self.config, site=site)
        self.pool = Pool(self.jobs, queue.name)
        _fill(self)
        self._saved = place / "saved"
        shutil.copytree(self.jobs.path, self._saved, symlinks=True)
        self._cluster, self._mark = copy.deepcopy(self.cluster), (place / ".site.toml.installed").read_bytes()

    def restore(self) -> None:
        """As it was before anything was damaged."""
        _make_readable(self.jobs.path)
        shutil.rmtree(self.jobs.path)
        shutil.copytree(self._saved, self.jobs.path, symlinks=True)
        (self.jobs.path.parent / ".site.toml.installed").write_bytes(self._mark)
        self.cluster = copy.deepcopy(self._cluster)
        self.broker.queued, self.broker.sent = [], []

    def restore_one(self, path: Path) -> None:
        """After something was only read."""
        there, saved = self.jobs.path / path, self._saved / path
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        else:
            there.unlink()
        if saved.is_dir():
            shutil.copytree(saved, there, symlinks=True)
        else:
            shutil.copy2(saved, there)

    def guarded_pass(self) -> int:
        def work(jobs: JobsFolder, held: Lease) -> int:
            ends = ends_of(self.config.site, self.broker)
            return passes_of(self.config, jobs, ends, self.cluster, held).run(drain=True)

        try:
            return guard.guarded(self.config, work)
        finally:
            self.broker.close()

    def files(self) -> list[Path]:
        """All that there are, relative to the jobs folder."""
        return sorted(path.relative_to(self.jobs.path) for path in self.jobs.path.rglob("*") if path.is_file())

    def folders(self) -> list[Path]:
        return sorted(path.relative_to(self.jobs.path) for path in self.jobs.path.rglob("*") if path.is_dir())


def _make_readable(path: Path) -> None:
    for parent, names, _ in os.walk(path):
        for name in names:
            os.chmod(os.path.join(parent, name), 0o700)


def _fill(busy: Busy) -> None:
    jobs = busy.jobs
    for number in range(9):
        busy.broker.ask(name=f"c-{number}")
    assert busy.guarded_pass() == 0
    waits, runs, stuck, absent, kept, sent, gone, asked, again = jobs.active_jobs()
    for job in (runs, again):
        job.attempt(1).started.write(Started(_slurm_id(job), 0, "n1", time.time()))
    runs.attempt(1).progress.write(Progress(0.5, "half", 1.0))
    runs.attempt(1).log.write_text("a line\n")
    waits.acked.write(Acked(1.0))
    stuck.attempt(1).stuck.write(Stuck("Priority", time.time()))
    stuck.attempt(1).cancel.write(Cancel("expired", "words", 1.0))
    absent.attempt(1).absent.write(Absent(time.time(), 1))
    asked.cancel_asked.write(Asked("mary@here", 1.0, "why"))
    again.retry_asked.write(Asked("mary@here", 1.0, "why", 7))
    again.origin.write(Origin("a" * 32, "rerun", "mary@here", 1.0))
    for job in (kept, sent, gone):
        record(job.attempt(1), Result("failed", 1, "words", ended_at=1.0))
        job.attempt(1).ended.write(Ended("failed", "FAILED", 1.0))
        conclude(
            job, job.attempt(1), Result("failed", 1, "words", ended_at=1.0), busy.config.site.replies, "login", 1.0
        )
    kept.unroutable.write(NotTaken(1.0, "no queue", 1, time.time() + 1e6))
    sent.delivered.write(Delivered("answers", 1.0))
    gone.undeliverable.write(Undeliverable("why", 1.0))
    for place in (jobs.done / "2026-01-01", jobs.rejected, jobs.undelivered):
        paths.make_folder(place)
        shutil.copytree(sent.path, place / (place.name[:1].replace("2", "d") * 32))
    _fill_pilots(busy)
    site_fault_of(jobs).write(SiteFault("api", "words", time.time()))
    cluster_of(jobs).write(Cluster(1000))
    tally.write(jobs.tally, tally.Tally())
    jobs.budget.write_text('{"tokens": 5, "at": 1}')
    jobs.ring(runs.id)
    jobs.operator_log.write_text("a line\n")


def _slurm_id(job: JobFolder) -> str:
    submission = job.attempt(1).submission.read()
    assert submission is not None
    return submission.slurm_id


def _claimed(number: int) -> Claimed:
    message = Message(1, "hpc-jobs", "{}", 2, {"correlation_id": f"p-{number}"}, time.time())
    return Claimed(JobId(f"{number:032x}"), message, SMALL)


def _fill_pilots(busy: Busy) -> None:
    pool, now = busy.pool, time.time()
    pool.prepare()
    crew = JobFolder(batches.crew_of(busy.jobs) / PILOT)
    paths.make_folder(crew.attempt(1).path)
    batches.pilot_file(crew).write(Pilot("hpc-jobs"))
    crew.attempt(1).intent.write(Intent("p", "bf-here-p", 0, SMALL, now))
    crew.attempt(1).submission.write(Submission("900", now))
    crew.attempt(1).started.write(Started("900", 0, "n1", now))
    group_of(busy.jobs, "p").write(Group({"0": (PILOT, 1)}))
    batches.add(pool, [_claimed(1)], now, busy.config.site_text)
    taken = batches.add(pool, [_claimed(2), _claimed(3)], now, busy.config.site_text)
    _journal(batches.move(taken, pool.locked / f"{taken.path.name}~{PILOT}"), 2)
    paths.make_folder(pool.cancel)
    pool.cancel_asked(_claimed(3).id).write(Asked("mary@here", 1.0, "why"))
    over = batches.add(pool, [_claimed(4), _claimed(5)], now, busy.config.site_text)
    _journal(over, 4)
    _journal(over, 5)
    over.handed(2).write(Handed(()))
    batches.move(over, pool.ended / f"{over.path.name}~")
    closed = batches.add(pool, [_claimed(6)], now, busy.config.site_text)
    _journal(closed, 6)
    day = pool.done / time.strftime("%Y-%m-%d", time.gmtime(now))
    paths.make_folder(day)
    batches.move(closed, day / batches.closed_name(closed, 0, 1, 0))
    Ids(pool.path / "ids").add([_claimed(6).id])
    pool.unfit.write(Unfit("why", now - 10_000))
    (pool.path / "failures").write_text("pilot-1 FAILED\n")


def _journal(batch: batches.Batch, number: int, reply: Optional[Reply] = None) -> None:
    journal, job_id = Journal(batch), _claimed(number).id
    journal.may_start(1)
    journal.started(job_id, 1.0)
    answer = reply or Reply("answers", f"p-{number}", b"{}", "error", job_id, 1, 1000, {})
    journal.came(job_id, Came(Result("failed", 1, "words", ended_at=1.0), answer))
    journal.sync()
    journal.sent([job_id])
    journal.close()


__all__ = ["Busy", "dies", "starts_and_dies"]
