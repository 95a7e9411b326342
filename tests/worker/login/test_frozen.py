"""A further attempt of a job whose workload has left the site file is made with what was frozen with the one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.login.test_passes import Login, answers, begins_and_dies
from worker.folder.facts import group_of
from worker.folder.frozen import of_last_attempt
from worker.job.facts import Group
from worker.settings import RetryPolicy, Seconds


class Leaving(Login):
    """Its one workload leaves the site file while a job of it has failed once."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.use_retry(RetryPolicy(attempts=2, wait=Seconds(0.0)))
        self.broker.ask()
        self.one_pass()
        (self.job,) = self.active()
        self.written = self.config.site_text
        self.run_jobs(begins_and_dies, "node_failed")
        (workload,) = self.config.site.workloads.values()
        queues = tuple(replace(queue, workload="another") for queue in self.config.site.queues)
        site = replace(self.config.site, workloads={"another": workload}, queues=queues)
        self.config = replace(self.config, site=site, site_text="another site file")

    def group(self, attempt: int) -> Group:
        intent = self.job.attempt(attempt).intent.read()
        assert intent is not None
        group = group_of(self.jobs, intent.group).read()
        assert group is not None
        return group


@pytest.fixture
def leaving(tmp_path: Path) -> Leaving:
    return Leaving(tmp_path / "site")


def test_another_attempt_is_made_with_what_was_frozen_where_the_workload_is_gone(leaving: Leaving) -> None:
    for _ in range(2):
        leaving.one_pass()

    assert leaving.written and leaving.group(2).site == leaving.written
    leaving.run_jobs(answers, "succeeded")
    leaving.one_pass()
    assert [reply.headers["outcome"] for reply in leaving.broker.sent] == ["succeeded"]
    assert not list(leaving.jobs.groups.glob("*.json"))


def test_where_the_workload_is_there_the_site_file_of_today_counts(tmp_path: Path) -> None:
    login = Login(tmp_path / "site")
    login.use_retry(RetryPolicy(attempts=2, wait=Seconds(0.0)))
    login.broker.ask()
    login.one_pass()
    login.run_jobs(begins_and_dies, "node_failed")
    login.config = replace(login.config, site_text="the site file of today")

    login.one_pass()
    login.one_pass()

    (job,) = login.active()
    assert job.attempt_numbers() == [1, 2] and of_last_attempt(login.jobs, job) == "the site file of today"


def test_one_of_a_version_that_froze_nothing_waits_for_its_workload(leaving: Leaving) -> None:
    intent = leaving.job.attempt(1).intent.read()
    assert intent is not None
    group_of(leaving.jobs, intent.group).write(replace(leaving.group(1), site=""))

    leaving.one_pass()
    leaving.one_pass()

    assert leaving.job.held.is_there() and not leaving.job.attempt(2).intent.is_there()
