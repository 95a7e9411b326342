"""How many pilots are wanted while the end of earlier ones is not judged yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, cast

import pytest

from tests.worker.examples import NOW, config_for
from tests.worker.test_batches import claimed
from worker.folder import batches, paths
from worker.folder.batches import Pilot, Pool
from worker.folder.facts import AttemptFolder, JobFolder
from worker.folder.jobs import JobsFolder
from worker.folder.pause import Pause
from worker.installed import Workloads
from worker.job.facts import Ended, Intent, Started, Submission, Unfit, closed_at
from worker.job.spec import Resources
from worker.login.budget import budget_of
from worker.login.declined import Declines
from worker.login.hiring import Hiring
from worker.login.notices import Notices
from worker.login.pass_state import PassState
from worker.settings import Config, PilotRules


class All(Workloads):
    """Of which all can be begun."""

    def why_stopped(self, name: str) -> str:
        return ""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = config_for(tmp_path)
    (queue,) = [replace(each, mode="pilot", pilot=PilotRules(most=2, jobs_per_pilot=2)) for each in config.site.queues]
    jobs = JobsFolder(config.site.jobs_dir)
    jobs.prepare()
    pool = Pool(jobs, queue.name)
    pool.prepare()
    batches.add(pool, [claimed(number) for number in range(8)], NOW)
    return replace(config, site=replace(config.site, queues=(queue,)))


def hired(config: Config, paused: Optional[Pause] = None) -> int:
    """Slurm has declined nothing, and is not asked."""
    jobs, state, nobody = JobsFolder(config.site.jobs_dir), PassState(), cast(Any, None)
    state.paused = paused
    declines = Declines(config, jobs, nobody, budget_of(config.site, jobs), nobody, Notices(), state)
    Hiring(config, jobs, All(config.root, config.site), declines, state).want()
    return len(state.ready)


def pilots(config: Config, *names: str) -> list[AttemptFolder]:
    """They were submitted."""
    found = []
    for name in names:
        crew = JobFolder(batches.crew_of(JobsFolder(config.site.jobs_dir)) / f"pilot-{name}")
        paths.make_folder(crew.attempt(1).path)
        batches.pilot_file(crew).write(Pilot(config.site.queues[0].name))
        crew.attempt(1).intent.write(Intent("g", f"bf-{name}", 0, Resources(1, 1000, 3600), NOW))
        crew.attempt(1).submission.write(Submission("7", NOW))
        found.append(crew.attempt(1))
    return found


def end(attempt: AttemptFolder) -> None:
    attempt.ended.write(Ended("succeeded", "COMPLETED", NOW))


def test_as_many_are_wanted_as_jobs_justify_and_their_places_are_free_when_they_have_worked(config: Config) -> None:
    before = hired(config)
    first, second = pilots(config, "a", "b")
    working = hired(config)
    for each in (first, second):
        each.started.claim(Started("7", 0, "n1", NOW))
    end(first)

    assert (before, working, hired(config)) == (2, 0, 1)


def test_while_the_verdict_on_one_that_is_unfit_waits_none_follows(config: Config) -> None:
    (unfit,) = pilots(config, "a")
    unfit.started.claim(Started("7", 0, "n1", NOW))
    unfit.unfit.write(Unfit("it can't see whether memory ran out", NOW))
    end(unfit)

    assert hired(config) == 0


def test_one_that_ended_before_it_began_keeps_its_place_until_it_is_counted(config: Config) -> None:
    failed, other = pilots(config, "a", "b")
    for each in (failed, other):
        end(each)

    assert hired(config) == 0


def test_one_that_was_closed_because_slurm_declined_it_keeps_none(config: Config) -> None:
    (declined, _) = pilots(config, "a", "b")
    declined.started.claim(closed_at(NOW))
    end(declined)

    assert hired(config) == 1
