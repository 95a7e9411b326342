"""How many pilots are wanted while the end of earlier ones is not judged yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.test_batches import claimed
from worker.folder import batches, paths
from worker.folder.batches import Pilot, Pool
from worker.folder.facts import AttemptFolder, JobFolder
from worker.folder.jobs import JobsFolder
from worker.installed import Workloads
from worker.job.facts import Ended, Intent, Started, Submission, Unfit, closed_at
from worker.job.spec import Resources
from worker.login.pilots import want
from worker.login.reconcile import Standing
from worker.login.tools import Tools
from worker.settings import PilotRules


class All(Workloads):
    """Of which all can be begun."""

    def why_stopped(self, name: str) -> str:
        return ""


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    config = config_for(tmp_path)
    (queue,) = [replace(each, mode="pilot", pilot=PilotRules(most=2, jobs_per_pilot=2)) for each in config.site.queues]
    jobs = JobsFolder(config.site.jobs_dir)
    jobs.prepare()
    pool = Pool(jobs, queue.name)
    pool.prepare()
    batches.add(pool, [claimed(number) for number in range(8)], NOW)
    made = Tools(replace(config, site=replace(config.site, queues=(queue,))), jobs)
    made.workloads = All(config.root, config.site)
    return made


def hired(tools: Tools) -> int:
    standing = Standing()
    want(tools, standing)
    return len(standing.ready)


def pilots(tools: Tools, *names: str) -> list[AttemptFolder]:
    """They were submitted."""
    found = []
    for name in names:
        crew = JobFolder(batches.crew_of(tools.jobs) / f"pilot-{name}")
        paths.make_folder(crew.attempt(1).path)
        batches.pilot_file(crew).write(Pilot(tools.config.site.queues[0].name))
        crew.attempt(1).intent.write(Intent("g", f"bf-{name}", 0, Resources(1, 1000, 3600), NOW))
        crew.attempt(1).submission.write(Submission("7", NOW))
        found.append(crew.attempt(1))
    return found


def end(attempt: AttemptFolder) -> None:
    attempt.ended.write(Ended("succeeded", "COMPLETED", NOW))


def test_as_many_are_wanted_as_jobs_justify_and_their_places_are_free_when_they_have_worked(tools: Tools) -> None:
    before = hired(tools)
    first, second = pilots(tools, "a", "b")
    working = hired(tools)
    for each in (first, second):
        each.started.claim(Started("7", 0, "n1", NOW))
    end(first)

    assert (before, working, hired(tools)) == (2, 0, 1)


def test_while_the_verdict_on_one_that_is_unfit_waits_none_follows(tools: Tools) -> None:
    (unfit,) = pilots(tools, "a")
    unfit.started.claim(Started("7", 0, "n1", NOW))
    unfit.unfit.write(Unfit("it can't see whether memory ran out", NOW))
    end(unfit)

    assert hired(tools) == 0


def test_one_that_ended_before_it_began_keeps_its_place_until_it_is_counted(tools: Tools) -> None:
    failed, other = pilots(tools, "a", "b")
    for each in (failed, other):
        end(each)

    assert hired(tools) == 0


def test_one_that_was_closed_because_slurm_declined_it_keeps_none(tools: Tools) -> None:
    (declined, _) = pilots(tools, "a", "b")
    declined.started.claim(closed_at(NOW))
    end(declined)

    assert hired(tools) == 1
