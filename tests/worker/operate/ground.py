"""Writes the facts of a job into a folder, so that what operators' verbs make of them can be seen."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from worker.folder import paths
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.records import Fact
from worker.job.names import JobId
from worker.job.snapshot import AttemptFacts, JobFacts


def jobs_in(place: Path) -> JobsFolder:
    jobs = JobsFolder(place / "jobs")
    jobs.prepare()
    return jobs


def put(jobs: JobsFolder, name: str, facts: JobFacts, place: str = "active", *more: tuple[str, object]) -> JobFolder:
    """`more`: files of the job and the facts in them."""
    job = JobFolder(jobs.path / place / JobId(name))
    paths.make_folder(job.attempts if facts.attempts else job.path)
    for attempt in facts.attempts:
        _put_attempt(job, attempt)
    if facts.spec is not None:
        job.spec.write(facts.spec)
    if facts.outcome is not None:
        job.outcome.write(facts.outcome)
    if facts.not_taken is not None:
        job.unroutable.write(facts.not_taken)
    for file, fact in more:
        Fact(job.path / file, object).write(fact)
    job.message.write(facts.message)
    return job


def _put_attempt(job: JobFolder, facts: AttemptFacts) -> None:
    attempt = job.attempt(facts.number)
    paths.make_folder(attempt.path)
    for each in fields(facts):
        value = getattr(facts, each.name)
        if hasattr(value, "__dataclass_fields__"):
            Fact(attempt.path / f"{each.name}.json", object).write(value)
