"""Folders full of jobs, made in seconds: what a pass with 10,000 jobs in flight and 1,000,000 done stands on.

.venv/bin/python -m bench.scale_ground jobs --active 10000 --done 1000000
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from scheduler import SlurmJobId
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.records import to_json
from worker.job.facts import FORMAT, Delivered, Group, Intent, Message, Outcome, Started, Submission
from worker.job.names import JobId
from worker.job.outcome import Result
from worker.job.spec import Input, JobSpec, Resources

_GROUP = 1000
"""Elements of an array."""
_A_DAY = 100_000
"""Jobs done in a day."""
_RESOURCES = Resources(cpus=1, memory_mb=100, time_seconds=3600)
_SPEC = JobSpec(
    "make", {"Image": Input("http://localhost/a", "00_Image", with_token=True)}, {"Result": "00.bin"}, {}, _RESOURCES
)


def fill_active(jobs: JobsFolder, count: int, now: float, queue: str = "jobs") -> list[str]:
    """Jobs that were submitted an hour ago, of which every second one runs. Returns squeue's rows for them."""
    rows = []
    for first in range(0, count, _GROUP):
        array, group = 1000 + first // _GROUP, f"20260101000000-{first:06x}"
        ids = [JobId(f"{number:032x}") for number in range(first, min(first + _GROUP, count))]
        members = {str(element): (job_id, 1) for element, job_id in enumerate(ids)}
        _put(jobs.group(group), Group(members))
        for element, job_id in enumerate(ids):
            slurm_id, runs = SlurmJobId(f"{array}_{element}"), element % 2 == 0
            job, name = jobs.job(job_id), f"bf-scale-{group}"
            attempt = job.attempt(1)
            attempt.path.mkdir(parents=True)
            _put_message(job, queue, now)
            _put(attempt.intent.path, Intent(group, name, element, _RESOURCES, now - 3600))
            _put(attempt.submission.path, Submission(slurm_id, now - 3600))
            if runs:
                _put(attempt.started.path, Started(slurm_id, 0, "n1", now - 1800))
            state, reason = ("RUNNING", "None") if runs else ("PENDING", "Priority")
            rows.append(f"{slurm_id}|{state}|N/A|{reason}|n1|{name}\n")
    return rows


def fill_done(jobs: JobsFolder, count: int, now: float, queue: str = "jobs") -> None:
    """Jobs that were answered, up to `_A_DAY` a day, the newest yesterday. With few files each: a million takes long."""
    for first in range(0, count, _A_DAY):
        name = time.strftime("%Y-%m-%d", time.gmtime(now - 86400 * (1 + first // _A_DAY)))
        for number in range(first, min(first + _A_DAY, count)):
            job = JobFolder(jobs.done / name / f"{number:032x}")
            job.attempt(1).path.mkdir(parents=True)
            _put_message(job, queue, now - 86400)
            _put(job.attempt(1).result.path, Result("succeeded", 1))
            _put(job.outcome.path, Outcome("succeeded", 1, "reply-1", "job", now - 86400))
            _put(job.delivered.path, Delivered("answers", now - 86400))


def end(jobs: JobsFolder, job_id: JobId, now: float) -> None:
    """What the job's worker leaves when it has answered."""
    job = jobs.job(job_id)
    _put(job.attempt(1).result.path, Result("succeeded", 1, ended_at=now))
    _put(job.outcome.path, Outcome("succeeded", 1, "reply-1", "job", now))
    _put(job.delivered.path, Delivered("answers", now))
    jobs.ring(job_id)


def _put_message(job: JobFolder, queue: str, now: float) -> None:
    properties = {"reply_to": "answers", "correlation_id": job.id}
    _put(job.message.path, Message(FORMAT, queue, '{"inputs": {"Image": "/a"}}', 27, properties, now - 3600))
    _put(job.spec.path, _SPEC)


def _put(path: Path, fact: object) -> None:
    """As the product writes it, but for the syncs."""
    path.write_text(json.dumps(to_json(asdict(fact)), indent=1) + "\n")  # type: ignore[call-overload]


def main() -> None:
    options = _parser().parse_args()
    jobs = JobsFolder(options.jobs)
    jobs.prepare()
    rows = fill_active(jobs, options.active, time.time(), options.queue)
    (options.jobs / "squeue.txt").write_text("".join(rows))
    fill_done(jobs, options.done, time.time(), options.queue)
    print(f"{options.active} active, {options.done} done; what squeue would say of them: {options.jobs / 'squeue.txt'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.scale_ground", description=__doc__)
    parser.add_argument("jobs", type=Path, help="the folder to fill, which must not exist")
    parser.add_argument("--active", type=int, default=10_000, help="jobs in flight (default: %(default)s)")
    parser.add_argument("--done", type=int, default=0, help="jobs done (default: %(default)s)")
    parser.add_argument("--queue", default="jobs", help="the queue they came from (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
