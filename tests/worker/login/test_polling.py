"""How often Slurm is asked: often when something changes, seldom when nothing does, and never so often that no command is
left for work."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.scale_ground import end
from tests.worker.examples import NOW, config_for
from tests.worker.login.test_scale import Site, job_id
from tests.worker.model.machine import SHARED_MEMORY
from worker.build import open_scheduler
from worker.embedded import Embedded
from worker.folder.jobs import JobsFolder
from worker.login.budget import budget_of
from worker.login.notices import Notices
from worker.login.questions import Questions
from worker.login.quiet import Quiet
from worker.settings import Replies, Seconds, SlurmSettings
from worker.sources import Properties


class Story:
    """A process that asks Slurm whenever it may, second after second."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch, settings: SlurmSettings) -> None:
        self.now = NOW
        patch.setattr(time, "time", lambda: self.now)
        jobs = JobsFolder(place / "jobs")
        jobs.prepare()
        site = config_for(place, changes={"slurm": settings}).site
        self.budget, self.quiet = budget_of(site, jobs), Quiet(jobs.standing)
        self.questions = Questions(
            settings, self.budget, self.quiet, Notices(watching=True), lambda: open_scheduler(site)
        )
        self.asked: list[float] = []

    def go_on(self, seconds: int, change_every: int = 0, work_every: int = 0) -> None:
        """Raises Spent where there is work and no command is left for it."""
        for second in range(seconds):
            self.now += 1
            if change_every and second % change_every == 0:
                self.quiet.changed_at = self.now
            if work_every and second % work_every == 0:
                self.budget.take("sbatch")
            if not self.questions.just_asked(self.now):
                self.budget.take("squeue")
                self.quiet.asked_at = self.now
                self.asked.append(self.now)

    def pauses(self) -> list[float]:
        return [after - before for before, after in zip(self.asked, self.asked[1:])]


def test_slurm_is_asked_less_and_less_often_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(tmp_path, monkeypatch, SlurmSettings())

    story.go_on(20, change_every=5)
    assert all(pause <= 5 for pause in story.pauses())
    story.go_on(1800)
    assert story.pauses()[-1] in (54, 60) and story.pauses() == sorted(story.pauses())

    story.asked = []
    story.go_on(20, change_every=5)
    assert 3 <= len(story.asked) <= 5, "and at once often again"


def test_where_the_site_allows_few_commands_work_still_finds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 commands at once, then 4 a minute; an sbatch every 40 s, and something changes all the time."""
    few = replace(SlurmSettings(), commands_per_second=4 / 60, commands_at_once=40)
    story = Story(tmp_path, monkeypatch, few)

    story.go_on(2 * 3600, change_every=3, work_every=40)

    assert len(story.asked) >= 2 * 60, "and Slurm is asked at least once a minute all the same"


@pytest.fixture
def site() -> Iterator[Site]:
    """Passes of cron, of which the second comes too early to ask Slurm about jobs of which nothing is new."""
    place = Path(tempfile.mkdtemp(dir=SHARED_MEMORY if SHARED_MEMORY.exists() else None))
    site = Site(place, many=20)
    slurm = replace(site.config.site.slurm, poll_fastest=Seconds(5.0), poll_slowest=Seconds(60.0))
    site.config = replace(site.config, site=replace(site.config.site, slurm=slurm, max_in_flight=100))
    site.one_pass()
    yield site
    shutil.rmtree(place)


def test_a_pass_of_cron_within_the_pause_does_not_ask_slurm_and_says_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    assert site.one_pass()["squeue"] == 0

    (line,) = [each.getMessage() for each in caplog.records if "slurm not asked" in each.message]
    assert "jobs=20" in line and "pause=" in line


def test_a_pass_after_the_pause_asks_slurm(site: Site) -> None:
    kept = json.loads(site.jobs.standing.read_text())
    site.jobs.standing.write_text(json.dumps({**kept, "asked_at": time.time() - 61}))

    assert site.one_pass()["squeue"] == 1


def test_a_time_that_has_not_come_yet_keeps_nobody_from_asking(site: Site) -> None:
    """The file server's clock was set back."""
    kept = json.loads(site.jobs.standing.read_text())
    site.jobs.standing.write_text(json.dumps({**kept, "asked_at": time.time() + 5000}))

    assert site.one_pass()["squeue"] == 1


def test_a_bell_makes_a_pass_ask_slurm_within_the_pause(site: Site) -> None:
    end(site.jobs, job_id(3), time.time())

    assert site.one_pass()["squeue"] == 1


def test_a_message_that_waits_makes_a_pass_ask_slurm_within_the_pause(site: Site) -> None:
    broker = Embedded(site.config.site.broker_file, Replies())
    broker.make_queue("jobs")
    broker.put("jobs", b"{}", Properties(correlation_id="c"))
    broker.close()

    assert site.one_pass()["squeue"] == 1


def test_a_cache_of_another_kind_of_file_is_ignored(tmp_path: Path) -> None:
    for content in ("", "[]", "null", '{"version": 1}', '{"version": 1, "jobs": [], "asked_at": 0, "changed_at": 0}',
                    '{"version": 1, "jobs": {"a": 5}, "asked_at": 0, "changed_at": 0}', "[" * 100_000):  # fmt: skip
        file = tmp_path / "standing.json"
        file.write_text(content)

        assert Quiet(file).rows == {}
