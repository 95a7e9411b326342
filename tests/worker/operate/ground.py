"""Writes the facts of a job into a folder, so that what operators' verbs make of them can be seen."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from worker import folder
from worker.folder import JobFolder, JobId, JobsFolder
from worker.login.snapshot import AttemptFacts, JobFacts


def jobs_in(place: Path) -> JobsFolder:
    jobs = JobsFolder(place / "jobs")
    jobs.prepare()
    return jobs


def put(jobs: JobsFolder, name: str, facts: JobFacts, place: str = "active", *more: tuple[str, object]) -> JobFolder:
    """`more`: files of the job and the facts in them."""
    job = JobFolder(jobs.path / place / JobId(name))
    folder.make_folder(job.attempts if facts.attempts else job.path)
    for attempt in facts.attempts:
        _put_attempt(job, attempt)
    known: dict[Path, object] = {job.spec: facts.spec, job.outcome: facts.outcome, job.unroutable: facts.not_taken}
    for path, each in known.items():
        if each is not None:
            folder.write(path, each)
    for file, fact in more:
        folder.write(job.path / file, fact)
    folder.write(job.message, facts.message)
    return job


def _put_attempt(job: JobFolder, facts: AttemptFacts) -> None:
    attempt = job.attempt(facts.number)
    folder.make_folder(attempt.path)
    for each in fields(facts):
        value = getattr(facts, each.name)
        if hasattr(value, "__dataclass_fields__"):
            folder.write(attempt.path / f"{each.name}.json", value)
