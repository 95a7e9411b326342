"""Which job a word names: an id, a beginning, `last`; and that a table's short ids name what they stand beside."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.login.situations import job, outcome, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder import batches
from worker.folder.batches import Claimed, Pool
from worker.folder.jobs import JobsFolder
from worker.job.names import JobId
from worker.operate import naming, places
from worker.operate.in_batches import InBatch
from worker.operate.naming import Ids, NotOne
from worker.operate.places import Found
from worker.settings import Config

A, B, C = "4f0c" + "1" * 28, "4f0d" + "2" * 28, "4f0c1111" + "3" * 24


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(tmp_path, changes={"jobs_dir": jobs_in(tmp_path).path})


@pytest.fixture
def jobs(config: Config) -> JobsFolder:
    return JobsFolder(config.site.jobs_dir)


def done(jobs: JobsFolder, name: str, day: str = "2026-11-20") -> None:
    put(jobs, name, job(started(), outcome=outcome("job")), f"done/{day}")


def meant(config: Config, jobs: JobsFolder, word: str) -> str:
    """The job's id; for a word that names no single one, what is said."""
    found = naming.one(config, jobs, word)
    return str(found) if isinstance(found, NotOne) else found.claimed.id if isinstance(found, InBatch) else found.job.id


def test_a_rerun_takes_no_name_away_and_has_one_of_its_own(config: Config, jobs: JobsFolder) -> None:
    done(jobs, A)
    put(jobs, f"{A}-r1", job(submitted()))
    put(jobs, f"{A}-2-r1", job(submitted()))

    assert meant(config, jobs, "4f0c") == A
    assert meant(config, jobs, "4f0c-r1") == f"{A}-r1"
    assert meant(config, jobs, "4f0c-2-r1") == f"{A}-2-r1"


def test_a_rerun_whose_old_job_is_gone_has_its_name(config: Config, jobs: JobsFolder) -> None:
    put(jobs, f"{A}-r1", job(submitted()))

    assert meant(config, jobs, "4f0c") == f"{A}-r1"


def test_one_message_says_that_there_is_none_and_another_which_there_are(config: Config, jobs: JobsFolder) -> None:
    done(jobs, A)
    put(jobs, B, job(submitted()))
    put(jobs, f"{B}-r1", job(started()))

    assert meant(config, jobs, "zz") == "zz: no job with this id, and none begins so"
    several = "4f: 3 jobs begin so: 4f0d2222 (pending), 4f0d2222-r1 (running), 4f0c1111 (done). Give more of the id"
    assert meant(config, jobs, "4f") == several


def test_each_short_id_names_its_own_job(config: Config, jobs: JobsFolder) -> None:
    everything = [A, f"{A}-r1", f"{A}-2", B, C, f"{C}-r1", f"{C}-r2", *(secrets.token_hex(16) for _ in range(20))]
    for number, each in enumerate(everything):
        done(jobs, each, f"2026-11-{10 + number}")
    ids = Ids.in_folders(jobs)

    short = [ids.short(each) for each in everything]

    assert [meant(config, jobs, each) for each in short] == everything
    assert short[:5] == ["4f0c11111", "4f0c11111-r1", "4f0c11111-2", "4f0d2222", "4f0c11113"]
    assert max(map(len, short)) <= len("4f0c11111-r1")


def test_last_is_the_one_that_was_claimed_last_wherever_it_lies(config: Config, jobs: JobsFolder) -> None:
    assert meant(config, jobs, "last") == "There is no job yet"
    ages = [("active", 5), ("rejected", 4), ("done/2026-11-20", 3), ("done/2026-11-21", 2), ("undelivered", 1)]
    for number, (place, age) in enumerate(ages):
        put(jobs, f"a{number}", job(started(), outcome=outcome("job")), place)
        os.utime(jobs.path / place / f"a{number}" / "message.json", (NOW - age, NOW - age))

        assert meant(config, jobs, "last") == f"a{number}"


def test_days_before_the_newest_claim_are_not_looked_at(
    config: Config, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(jobs, A, job(submitted()))
    done(jobs, B, "2001-01-01")
    monkeypatch.setattr(places, "done_on", lambda *_: pytest.fail("looked at"))

    assert meant(config, jobs, "last") == A


def test_an_id_that_is_last_is_that_job(config: Config, jobs: JobsFolder) -> None:
    put(jobs, "last", job(submitted()))
    put(jobs, "newer", job(submitted()))

    assert meant(config, jobs, "last") == "last"


def test_jobs_in_batches_are_named_so_too(config: Config, jobs: JobsFolder) -> None:
    facts = job(submitted())
    assert facts.spec is not None
    pool = Pool(jobs, config.site.queues[0].name)
    pool.prepare()
    claimed = [replace(facts.message, claimed_at=NOW + number) for number in range(2)]
    named = [Claimed(JobId(each), told, facts.spec.resources) for each, told in zip((A, B), claimed)]
    for number, each in enumerate(named):
        batches.add(pool, [each], NOW + number)

    assert meant(config, jobs, "4f0c") == A
    assert meant(config, jobs, "4f") == "4f: 2 jobs begin so: 4f0c1111 (todo), 4f0d2222 (todo). Give more of the id"
    assert meant(config, jobs, "last") == B
    put(jobs, C, job(submitted()))
    assert isinstance(naming.one(config, jobs, "last"), Found)
