"""Small jobs of a batch, and what a pilot writes down when one has ended."""

from __future__ import annotations

from worker.folder.batches import Claimed
from worker.folder.journal import Came, Journal
from worker.job.facts import Message
from worker.job.names import JobId
from worker.job.outcome import Reply, Result
from worker.job.spec import Resources


def claimed(number: int) -> Claimed:
    return Claimed(JobId(f"{number:032x}"), Message(1, "jobs", "{}", 2, {}, 12.5), Resources(1, 100, 60))


def came(job_id: JobId, body: bytes, kept: str = "") -> Came:
    return Came(Result("succeeded", 1), Reply("results", job_id, body, "result", job_id, 1, 2, {}), kept)


def flush(journal: Journal, number: int, body: bytes = b"{}") -> None:
    job_id = claimed(number).id
    kept = journal.keep_body(job_id, body)
    journal.came(job_id, came(job_id, b"" if kept else body, kept))
    journal.sync()
