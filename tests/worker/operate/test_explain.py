"""What is explained to an operator is what the judge will do, for every situation a job can be in."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler import JobView, Outlook, Phase, SlurmJobId, Stock
from tests.worker.examples import COPY, SPEC, config_for
from tests.worker.login.situations import NAME, ended, intended, job, message, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from tests.worker.test_stage import AGAIN, SITUATIONS
from worker.folder import pause
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job import judge
from worker.job.facts import Absent, Cancel, Delivered, Held, NotTaken, SiteFault, Stuck, Undeliverable
from worker.job.snapshot import JobFacts
from worker.operate import explain, naming, outside
from worker.operate.outside import Outside
from worker.operate.places import Found

NOW = time.time()


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    made = jobs_in(tmp_path)
    made.lease.write_text("{}")
    return made


def told(
    tmp_path: Path, jobs: JobsFolder, facts: JobFacts, place: str = "active", *more: tuple[str, object],
    stopped: bool = False,
) -> str:  # fmt: skip
    put(jobs, "a", facts, place, *more)
    config = config_for(tmp_path)
    queue = replace(config.site.queues[0], name="jobs")
    workloads = {} if stopped else {**config.site.workloads, "copy": COPY}
    config = replace(config, site=replace(config.site, queues=(queue,), jobs_dir=jobs.path, workloads=workloads))
    found = naming.one(config, jobs, "a")
    assert isinstance(found, Found)
    return "\n".join(explain.explain(config, jobs, found, offline=False))


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Slurm answers; nothing is asked of a real one."""
    answers: dict[str, object] = {"views": {}, "outlook": None}
    monkeypatch.setattr(outside, "ask", lambda *_, **__: Outside(views=answers["views"]))  # type: ignore[arg-type]
    monkeypatch.setattr(explain, "_outlook", lambda *_: answers["outlook"])
    return answers


def recent(facts: JobFacts) -> JobFacts:
    return replace(facts, message=message(NOW - 60), claimed_at=NOW - 60)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_is_explained_and_ends_with_what_is_next(
    situation: str, tmp_path: Path, jobs: JobsFolder
) -> None:
    text = told(tmp_path, jobs, recent(SITUATIONS[situation][1]))

    lines = text.splitlines()
    assert lines[0].startswith("Claimed ") and len(lines) >= 2
    assert any(line.startswith(("The next pass ", "It waits ")) for line in lines), text
    assert "None" not in text


@pytest.mark.parametrize("facts", [job(), job(spec=None)])
def test_a_job_that_is_held_is_explained(facts: JobFacts, tmp_path: Path, jobs: JobsFolder) -> None:
    held = Held("the workload copy is not in site.toml", NOW - 3600)

    text = told(tmp_path, jobs, recent(facts), "active", ("held.json", held), stopped=True)

    assert "its workload can't be begun: the workload copy is not in site.toml. Other workloads go on." in text
    assert "the next pass submits it. If it is not by" in text and "The next pass reads" not in text


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is NOW in all tests, however long after this file was read they run."""
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.mark.parametrize(("facts", "words"), [
    (job(), "The next pass submits it as attempt 1, with 2 CPUs, 16000 MB, 2 h."),
    (job(), "If it has not started at"),
    (job(intended()), "sbatch was called"),
    (job(started()), "has been running on n1 since"),
    (job(started(ended=ended("node_failed"))), "Slurm says that attempt 1 ended (NODE_FAILED)"),
    (job(submitted(absent=Absent(NOW - 60, 1, NOW))), "not shown by Slurm since"),
    (job(submitted(stuck=Stuck("PartitionTimeLimit", NOW - 60))), "the job is cancelled and answered rejected"),
    (job(submitted(cancel=Cancel("expired", "It took too long.", NOW))), "to cancel it: It took too long."),
    (job(started(result=result("node_failed", ended_at=NOW)), spec=AGAIN), "It waits before the next attempt."),
    (job(started(), outcome=outcome("job"), not_taken=NotTaken(NOW, "no queue", 3, NOW + 60)), "resend a` sends it at once"),
])  # fmt: skip
def test_it_says_why(facts: JobFacts, words: str, tmp_path: Path, jobs: JobsFolder) -> None:
    assert words in told(tmp_path, jobs, recent(facts))


def test_a_job_whose_outputs_are_still_on_their_way_says_so(
    tmp_path: Path, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = job(started(result=result(to_upload=True), ended=ended("succeeded")))
    # Its files have been there for long enough.
    monkeypatch.setattr(judge, "judge", lambda *_: judge.Conclude(1))

    assert "go on with the upload of its outputs" in told(tmp_path, jobs, facts)


def test_a_waiting_job_is_told_with_slurm_s_reason_and_what_its_partition_has(
    tmp_path: Path, jobs: JobsFolder, slurm: dict[str, object]
) -> None:
    view = JobView(SlurmJobId("7"), NAME, Phase.WAITING, "PENDING", reason="Resources")
    slurm["views"] = {(NAME, None): view}
    slurm["outlook"] = Outlook(
        "PENDING",
        "Resources",
        "gpus",
        NOW + 3600,
        [Stock("CPUs", 64, 3), Stock("gpu:p100l", 8, 8), Stock("gpu:x", 1, 0)],
    )
    asks = replace(SPEC.resources, gres="gpu:p100l:4")
    waiting = submitted()
    assert waiting.intent is not None
    facts = recent(job(replace(waiting, intent=replace(waiting.intent, resources=asks))))

    text = told(tmp_path, jobs, facts)

    assert "(id 7): Resources, no node has enough of what it asks for free." in text
    assert "gpu:p100l:4; the partition gpus has 64 CPUs, 3 in use; 8 gpu:p100l, all in use." in text
    assert "Slurm's estimate of its start: " in text and "gpu:x" not in text


def test_a_site_that_is_away_is_why_a_claimed_job_waits(tmp_path: Path, jobs: JobsFolder) -> None:
    site_fault_of(jobs).write(SiteFault("login", "the API refuses our login", NOW - 600))

    text = told(tmp_path, jobs, recent(job()))

    assert "(login): the API refuses our login." in text and "the job is answered failed" in text
    assert "The next pass submits it" not in text


def test_passes_that_no_longer_run_are_told(tmp_path: Path, jobs: JobsFolder) -> None:
    import os

    os.utime(jobs.lease, (NOW, NOW - 7200))

    assert "2 h ago: is run_check still in the crontab?" in told(tmp_path, jobs, recent(job()))


def test_a_job_whose_queue_has_left_the_site_file_is_told_so(tmp_path: Path, jobs: JobsFolder) -> None:
    facts = recent(job())

    text = told(tmp_path, jobs, replace(facts, message=replace(facts.message, queue="old")))

    assert "Its queue old is no longer in the site file" in text


def test_a_damaged_job_is_told_with_the_file_that_is_at_fault(tmp_path: Path, jobs: JobsFolder) -> None:
    put(jobs, "a", job(started())).attempt(1).started.path.write_text("{")
    found = naming.one(config_for(tmp_path), jobs, "a")
    assert isinstance(found, Found)

    text = "\n".join(explain.explain(config_for(tmp_path), jobs, found, offline=True))

    assert "1/started.json is not what was written there" in text


@pytest.mark.parametrize(("place", "fact", "words"), [
    ("done/2026-11-21", ("delivered.json", Delivered("answers", NOW)), "delivered"),
    ("undelivered", ("undeliverable.json", Undeliverable("no queue", NOW)), "Mend the cause; then ./check.py resend a"),
])  # fmt: skip
def test_a_job_that_is_over_is_told_with_its_outcome(
    place: str, fact: tuple[str, object], words: str, tmp_path: Path, jobs: JobsFolder
) -> None:
    facts = job(started(result=result("failed", reason="It broke.")), outcome=outcome("job", word="failed"))

    text = told(tmp_path, jobs, facts, place, fact)

    assert "It came to failed" in text and "It broke." in text and words in text


@pytest.mark.parametrize(
    "facts", [JobFacts(message(NOW), NOW), JobFacts(message(NOW), NOW, spec=SPEC)], ids=["new", "read"]
)
@pytest.mark.parametrize("submit", [False, True])
def test_a_job_that_waits_because_somebody_paused_what_is_submitted_says_who(
    tmp_path: Path, jobs: JobsFolder, facts: JobFacts, submit: bool
) -> None:
    pause.begin(jobs, "anna@login1", submit, "new disks")

    text = told(tmp_path, jobs, facts)

    assert ("paused by anna@login1" in text and "(new disks)" in text and "max_wait go on meanwhile" in text) == submit
    assert ("The next pass submits it as" in text or "reads its message and submits it" in text) != submit
