"""Makes jobs folders with a past, of the same facts that passes and workers write."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Optional

from tests.worker.examples import SPEC
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.records import to_json
from worker.job.facts import Delivered, Ended, Intent, Message, Outcome, Progress, Started, Submission, Undeliverable
from worker.job.names import JobId
from worker.job.outcome import Result, Used
from worker.job.spec import Resources
from worker.login import tally

DAY = 86400.0


def write(path: Path, fact: Any) -> None:
    """As passes do, but for the syncs."""
    path.write_text(json.dumps(to_json(asdict(fact))))


@dataclass(frozen=True)
class Job:
    """One job of the past; `ago` in seconds, from its end until now."""

    ago: float = 60
    outcome: str = "succeeded"
    workload: str = "binarize"
    reason: str = ""
    step: str = ""
    exit_code: Optional[int] = None
    queued: float = 20
    waited: float = 120
    ran: float = 300
    asked_mb: int = 16000
    asked_seconds: int = 21600
    used_mb: int = 1100
    node: str = "node17"
    correlation_id: str = "3f48a3fc"
    queue: str = "jobs"
    place: str = "done"
    earlier: tuple[str, ...] = ()
    """What the attempts before the last one came to."""
    asks: bool = False
    """Whether its message says what it asks for; else it is site.toml's."""


class Past:
    """A jobs folder that is filled; ids are made up of a count, and look like digests."""

    def __init__(self, jobs: JobsFolder) -> None:
        self.jobs = jobs
        self.now = time.time()
        self._count = 0
        self._days: dict[str, dict[str, int]] = {}
        jobs.prepare()

    def add(self, job: Job) -> JobFolder:
        ended = self.now - job.ago
        day = time.strftime("%Y-%m-%d", time.gmtime(ended))
        place = {"done": self.jobs.done / day, "active": self.jobs.active}.get(job.place, self.jobs.path / job.place)
        folder = self._folder(place)
        claimed = ended - job.ran - job.waited - 5
        self._message(folder, job, claimed)
        if job.outcome != "rejected":
            write(folder.spec.path, replace(SPEC, workload=job.workload))
            for number, outcome in enumerate((*job.earlier, job.outcome), 1):
                self._attempt(folder, number, replace(job, outcome=outcome), ended - job.ran)
        else:
            folder.attempt(1).path.mkdir(parents=True)
            write(folder.attempt(1).result.path, Result("rejected", 1, job.reason, ended_at=ended))
        write(folder.outcome.path, Outcome(job.outcome, len(job.earlier) + 1, "reply-1", "job", ended))
        if job.place == "undelivered":
            write(folder.undeliverable.path, Undeliverable(job.reason, ended))
        else:
            write(folder.delivered.path, Delivered("results", ended + 1))
        for path, at in ((folder.spec.path, claimed), (folder.path, ended + 2)):
            if path.exists():
                os.utime(path, (at, at))
        counts = self._days.setdefault(day, {})
        counts[job.outcome] = counts.get(job.outcome, 0) + 1
        return folder

    def add_active(self, job: Job, started: bool = True, progress: str = "", part: float = 0.4) -> JobFolder:
        folder = self._folder(self.jobs.active)
        begun = self.now - job.ago
        self._message(folder, job, begun - 5)
        write(folder.spec.path, replace(SPEC, workload=job.workload))
        a = folder.attempt(1)
        a.path.mkdir(parents=True)
        write(a.intent.path, Intent("g", "bf-x-g", 0, self._asked(job), begun - 4))
        write(a.submission.path, Submission("812345", begun - 3))
        if started:
            write(a.started.path, Started("812345", 0, job.node, begun))
        if progress:
            write(a.progress.path, Progress(part, progress, self.now))
        for path in (folder.message.path, a.submission.path, a.started.path):
            if path.exists():
                os.utime(path, (begun, begun))
        return folder

    def pass_ended(self, ago: float = 40) -> None:
        """As a pass leaves the lease: read-only."""
        self.jobs.lease.write_text(json.dumps({"host": "login1"}))
        os.utime(self.jobs.lease, (self.now - ago, self.now - ago))
        self.jobs.lease.chmod(0o400)

    def count(self) -> None:
        """What the passes would have counted."""
        tally.write(self.jobs.tally, tally.Tally(days=self._days))

    def _folder(self, place: Path) -> JobFolder:
        self._count += 1
        made = JobFolder(place / JobId(hashlib.sha256(str(self._count).encode()).hexdigest()[:32]))
        made.path.mkdir(parents=True)
        return made

    def _message(self, folder: JobFolder, job: Job, claimed: float) -> None:
        properties: dict[str, Any] = {
            "correlation_id": job.correlation_id, "reply_to": "results", "timestamp": int(claimed - job.queued)
        }  # fmt: skip
        own = {"resources": {"memory_mb": job.asked_mb, "time": "0-06:00"}} if job.asks else {}
        body = json.dumps(own)
        write(folder.message.path, Message(1, job.queue, body, len(body), properties, claimed))

    def _attempt(self, folder: JobFolder, number: int, job: Job, begun: float) -> None:
        a = folder.attempt(number)
        a.path.mkdir(parents=True)
        slurm_id = str(812000 + self._count)
        write(a.intent.path, Intent("g", "bf-x-g", 0, self._asked(job), begun - job.waited))
        write(a.submission.path, Submission(slurm_id, begun - job.waited + 1))
        write(a.started.path, Started(slurm_id, 0, job.node, begun))
        steps = {"fetch": 2.0, "run": job.ran - 4, "pack": 1.0}
        used = Used(steps, 48_000_000, job.ran * 0.9, job.used_mb)
        write(a.result.path, Result(job.outcome, number, job.reason, job.step, exit_code=job.exit_code, node=job.node,
                               slurm_job_id=slurm_id, started_at=begun, ended_at=begun + job.ran, used=used))  # fmt: skip
        write(a.ended.path, Ended(job.outcome, "COMPLETED", float(int(begun + job.ran)), "0:0", job.node))

    def _asked(self, job: Job) -> Resources:
        return Resources(2, job.asked_mb, job.asked_seconds)


def busy_weeks(jobs: JobsFolder, count: int = 400, days: int = 14, seed: int = 1) -> Past:
    """Some hundred jobs with every outcome, a bad node, a workload that asks for too much and one for too little."""
    chance, past = random.Random(seed), Past(jobs)
    usual = Job(queue="hpc-jobs", asked_mb=8000, asked_seconds=7200)  # what site.toml gives
    train = Job(workload="train", asked_mb=32000, used_mb=27000, ran=14000, asks=True)
    kinds = [
        (70, usual),
        (14, train),
        (3, replace(usual, outcome="failed", step="run", exit_code=3, node="node03",
                    reason="The program ended with exit code 3. Its last words: ValueError: the page has no staff lines")),
        (2, replace(usual, outcome="failed", step="fetch", reason='The input "Page" is not there (HTTP 404).')),
        (3, replace(train, outcome="out_of_memory", used_mb=31900,
                    reason="The job used all of the 32000 MB it asked for and was stopped. Ask for more memory.")),
        (2, replace(train, outcome="timed_out", ran=21300, used_mb=20000,
                    reason="The job reached its time limit of 6 h and was stopped. Ask for more time.")),
        (1, replace(usual, outcome="timed_out", ran=7100,
                    reason="The job reached its time limit of 2 h and was stopped. Ask for more time.")),
        (1, replace(usual, outcome="failed", step="pack", reason='The program did not make the output "Report".')),
        (2, Job(outcome="rejected", workload="", reason='There is no workload named "binarise" here.', place="rejected")),
        (1, replace(usual, outcome="cancelled", reason="The job was cancelled on the cluster by anna.")),
        (1, replace(usual, outcome="node_failed", node="node03", earlier=("node_failed", "node_failed"),
                    reason="The computer that the job ran on failed. This was no fault of the job; run it again.")),
        (1, replace(usual, outcome="expired", reason="The job's deadline passed before it could start.")),
        (1, replace(usual, outcome="lost", reason="The cluster lost track of the job and its result. Run it again.")),
    ]  # fmt: skip
    for _ in range(count):
        job = chance.choices([job for _, job in kinds], [weight for weight, _ in kinds])[0]
        past.add(replace(
            job,
            ago=chance.random() ** 1.2 * (days - 1) * DAY,
            queued=chance.expovariate(1 / 90), waited=chance.expovariate(1 / 1500),
            ran=max(5.0, job.ran * chance.uniform(0.4, 1.05)) if job.outcome == "succeeded" else job.ran,
            used_mb=int(job.used_mb * chance.uniform(0.6, 1.0)),
            node=job.node if job.node != "node17" else f"node{chance.randint(10, 24)}",
            correlation_id=f"{chance.getrandbits(64):016x}",
        ))  # fmt: skip
    past.add(Job(place="undelivered", outcome="succeeded", reason="the queue results is gone", ago=2 * DAY))
    for number in range(5):
        active = replace(train, ago=3600 * (number + 1), node=f"node{11 + number}")
        past.add_active(active, progress=f"epoch {3 * number + 2}/15", part=(3 * number + 2) / 15)
    for number in range(3):
        past.add_active(replace(usual, ago=40 * (number + 1)), started=False)
    past.pass_ended()
    past.count()
    return past
