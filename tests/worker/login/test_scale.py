"""A pass costs what changed, and not what there is: counted in files opened, folders listed and commands, not in time."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from bench.scale_ground import end, fill_active, fill_done
from scheduler import BatchRequest, JobView, SlurmJobId, Unavailable
from slurm import states
from tests.worker.examples import config_for
from tests.worker.login.process import passes_of
from tests.worker.model.machine import SHARED_MEMORY
from worker.build import open_ends
from worker.folder.jobs import JobsFolder
from worker.job.names import JobId
from worker.login.guard import guarded
from worker.login.lease import Lease
from worker.login.quiet import LOOK_AGAIN
from worker.operate import cancel
from worker.settings import Config, Seconds, SlurmSettings

pytestmark = pytest.mark.unhurried

MANY = 300
STEADY = 30
"""Files that a pass opens when nothing has changed: lease, cache, and no job's."""
PER_JOB = 80
"""Files of a job that comes to its end: read three times, and moved."""


class Cluster:
    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = {row.partition("|")[0]: row for row in rows}
        self.asked: Counter[str] = Counter()
        self.cancelled: list[SlurmJobId] = []
        self.away = False

    def queue(self) -> list[JobView]:
        self.asked["squeue"] += 1
        if self.away:
            raise Unavailable("no answer")
        return states.parse_squeue("".join(self.rows.values()))

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        self.asked["sacct"] += 1
        return []

    def submit(self, request: BatchRequest) -> SlurmJobId:
        raise AssertionError

    def largest_array(self) -> int:
        raise AssertionError

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        self.cancelled += ids


class Files:
    """Which files are opened and which folders listed below `place`, by this process, while it counts."""

    def __init__(self) -> None:
        self.place, self.seen = "", Counter[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.place and event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.link"):
            if str(arguments[0]).startswith(self.place):
                self.seen[event] += 1


FILES = Files()


class Site:
    """`MANY` jobs in flight; each pass is a new process's."""

    def __init__(self, place: Path, many: int = MANY) -> None:
        fast = replace(SlurmSettings(), poll_fastest=Seconds(0.0), poll_slowest=Seconds(0.0))
        config = config_for(place, changes={"slurm": fast, "broker": "embedded", "broker_file": place / "broker"})
        queue = replace(config.site.queues[0], name="jobs", max_wait=Seconds(9e8))
        workloads = dict.fromkeys(("train", "make"), config.site.workloads["train"])
        site = replace(config.site, queues=(queue,), workloads=workloads, max_in_flight=many)
        self.config: Config = replace(config, site=site)
        self.jobs = JobsFolder(self.config.site.jobs_dir)
        self.jobs.prepare()
        self.jobs.touched.touch()  # today's round for the purges is over
        self.cluster = Cluster(fill_active(self.jobs, many, time.time()))

    def one_pass(self) -> Counter[str]:
        """What it cost."""
        FILES.place, FILES.seen = str(self.jobs.path), Counter()
        self.cluster.asked.clear()
        try:
            guarded(self.config, self._pass)
        finally:
            FILES.place = ""
        return FILES.seen + self.cluster.asked

    def _pass(self, jobs: JobsFolder, held: Lease) -> int:
        with passes_of(self.config, jobs, open_ends(self.config), self.cluster, held) as passes:
            return passes.run(drain=True)

    def quiet(self) -> int:
        return len(json.loads(self.jobs.standing.read_text())["jobs"])

    def slurm_id(self, number: int) -> str:
        return f"{1000 + number // 1000}_{number % 1000}"

    def slurm_says(self, number: int, state: str) -> None:
        slurm_id = self.slurm_id(number)
        fields = self.cluster.rows[slurm_id].split("|")
        self.cluster.rows[slurm_id] = "|".join([fields[0], state, str(int(time.time()) - 500), *fields[3:]])


@pytest.fixture
def site() -> Iterator[Site]:
    place = Path(tempfile.mkdtemp(dir=SHARED_MEMORY if SHARED_MEMORY.exists() else None))
    yield Site(place)
    shutil.rmtree(place)


def job_id(number: int) -> JobId:
    return JobId(f"{number:032x}")


def test_a_pass_in_which_nothing_changed_opens_no_job(site: Site) -> None:
    first = site.one_pass()
    assert first["open"] > MANY and site.quiet() == MANY

    second = site.one_pass()

    assert second["open"] <= STEADY and second["os.listdir"] <= 10, second
    assert (second["squeue"], second["sacct"]) == (1, 0)


def test_three_of_many_jobs_that_changed_cost_three_jobs(site: Site) -> None:
    site.one_pass()
    for number, state in ((4, "COMPLETED"), (7, "RUNNING"), (MANY - 2, "COMPLETING")):
        site.slurm_says(number, state)

    cost = site.one_pass()

    assert cost["open"] <= STEADY + 3 * PER_JOB, cost
    assert cost["squeue"] == 1 and site.jobs.job(job_id(4)).attempt(1).ended.path.exists()
    assert site.quiet() == MANY - 1, "the one that ended waits for its files"


def test_a_job_that_rings_is_looked_at_though_slurm_shows_nothing_new(site: Site) -> None:
    site.one_pass()
    end(site.jobs, job_id(8), time.time())

    cost = site.one_pass()

    assert cost["open"] <= STEADY + PER_JOB and site.quiet() == MANY - 1
    assert not list(site.jobs.news.iterdir()), "the bell is still"


def test_a_quiet_job_that_an_operator_wants_gone_is_cancelled_by_the_next_pass(site: Site) -> None:
    site.one_pass()
    parser = argparse.ArgumentParser()
    cancel.add_arguments(parser)
    parser.set_defaults(json=False, dry_run=False)

    assert cancel.run(site.config, parser.parse_args([job_id(9), "--yes"])) == 0
    cost = site.one_pass()

    assert site.cluster.cancelled == [site.slurm_id(9)] and site.quiet() == MANY - 1
    assert cost["open"] <= STEADY + 2 * PER_JOB, "it is answered in the same pass"


def test_an_answered_job_whose_bell_was_lost_goes_when_slurm_shows_its_end(site: Site) -> None:
    site.one_pass()
    end(site.jobs, job_id(8), time.time())
    site.jobs.hear()
    site.one_pass()
    assert site.quiet() == MANY

    site.slurm_says(8, "COMPLETED")
    site.one_pass()

    assert not site.jobs.job(job_id(8)).path.exists() and list(site.jobs.done.glob(f"*/{job_id(8)}"))


def test_every_job_is_looked_at_again_after_a_while_but_not_all_at_once(site: Site) -> None:
    site.one_pass()
    rows = json.loads(site.jobs.standing.read_text())["jobs"]
    late = [again_at - time.time() for *_, again_at in rows.values()]

    assert 0.75 * LOOK_AGAIN < min(late) < 0.85 * LOOK_AGAIN and 1.15 * LOOK_AGAIN < max(late) < 1.25 * LOOK_AGAIN
    in_a_minute = Counter(int(each // 60) for each in late)
    assert max(in_a_minute.values()) < MANY / 3


@pytest.mark.parametrize("again_in", [-1.0, 1e6])
def test_a_job_is_looked_at_when_its_time_has_come_or_can_not_be_right(site: Site, again_in: float) -> None:
    site.one_pass()
    kept = json.loads(site.jobs.standing.read_text())
    kept["jobs"][job_id(8)][-1] = time.time() + again_in
    site.jobs.standing.write_text(json.dumps(kept))
    end(site.jobs, job_id(8), time.time())
    site.jobs.hear()

    cost = site.one_pass()

    assert site.quiet() == MANY - 1 and cost["open"] <= STEADY + PER_JOB


def test_a_job_with_a_deadline_is_looked_at_then(site: Site) -> None:
    message = site.jobs.job(job_id(1)).message
    told = json.loads(message.path.read_text())
    told["properties"]["expiration"] = "30000"
    message.path.write_text(json.dumps(told))

    site.one_pass()

    rows = json.loads(site.jobs.standing.read_text())["jobs"]
    assert 0 < rows[job_id(1)][-1] - time.time() <= 30 and rows[job_id(3)][-1] - time.time() > 300


@pytest.mark.parametrize("how", ["lost", "another version", "damaged", "no times"])
def test_a_cache_that_can_not_be_used_is_made_anew(site: Site, how: str) -> None:
    site.one_pass()
    kept = json.loads(site.jobs.standing.read_text())
    if how == "lost":
        site.jobs.standing.unlink()
    elif how == "another version":
        site.jobs.standing.write_text(json.dumps({**kept, "version": 99}))
    elif how == "damaged":
        site.jobs.standing.write_text(json.dumps(kept)[:-200])
    else:
        site.jobs.standing.write_text(json.dumps({**kept, "jobs": {job_id(0): ["a", 0, "1", "RUNNING"]}}))

    cost = site.one_pass()

    assert cost["open"] > MANY and site.quiet() == MANY
    assert site.one_pass()["open"] <= STEADY


def test_while_slurm_is_away_quiet_jobs_stay_so(site: Site) -> None:
    site.one_pass()
    site.cluster.away = True

    assert site.one_pass()["open"] <= STEADY and site.quiet() == MANY


def test_jobs_that_are_done_cost_nothing(site: Site) -> None:
    site.one_pass()
    before = site.one_pass()
    fill_done(site.jobs, 500, time.time())

    assert site.one_pass() == before


def test_the_first_job_of_a_day_does_not_look_at_those_of_the_days_before(site: Site) -> None:
    fill_done(site.jobs, 500, time.time())
    yesterday = next(day for day in site.jobs.done.iterdir())
    (yesterday / ".bytes").write_text("100\n" * 500)
    site.one_pass()
    end(site.jobs, job_id(8), time.time())
    site.slurm_says(8, "COMPLETED")

    cost = site.one_pass()

    assert list(site.jobs.done.glob(f"*/{job_id(8)}")) and sum(cost.values()) < STEADY + 2 * PER_JOB


@pytest.mark.slow
def test_three_of_ten_thousand_jobs_cost_three_jobs() -> None:
    place = Path(tempfile.mkdtemp(dir=SHARED_MEMORY if SHARED_MEMORY.exists() else None))
    site = Site(place, 10_000)
    site.one_pass()
    for number in (4, 4710, 9998):
        site.slurm_says(number, "COMPLETED")

    cost = site.one_pass()

    shutil.rmtree(place)
    assert cost["open"] <= STEADY + 3 * PER_JOB and cost["squeue"] == 1, cost
