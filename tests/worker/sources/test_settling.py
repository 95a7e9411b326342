"""What somebody else may have taken too is neither submitted nor answered before its source has said that it is ours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.both import ends_of
from tests.worker.login.killing import killed_at_each_step
from tests.worker.login.process import passes_of
from tests.worker.login.test_passes import GOOD, Login, answers
from tests.worker.sources.disputed import SOURCE, Disputed, Document, Table
from worker.job.facts import Message
from worker.job.names import JobId
from worker.job.stage import NOT_OURS
from worker.operate import places
from worker.settings import Seconds
from worker.sources import Settled


class Site(Login):
    """All its jobs come from a table that others take from too."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.table = Table()
        self.source = Disputed(self.table)
        queues = tuple(replace(queue, source=SOURCE, folder=str(place)) for queue in self.config.site.queues)
        self.config = replace(self.config, site=replace(self.config.site, queues=queues))

    def one_pass(self, drain: bool = True) -> int:
        ends = ends_of(self.config.site, self.source)
        try:
            return passes_of(self.config, self.jobs, ends, self.cluster).begin().run(drain)
        finally:
            self.source.close()

    def put_away(self) -> list[JobId]:
        return [JobId(path.name) for path in self.jobs.not_ours.glob("*")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


class Faster(Disputed):
    """Somebody else is a little faster with this one."""

    def settle(self, claims: Sequence[tuple[JobId, Message]]) -> list[Settled]:
        for document in self.table.documents.values():
            document.owner = document.owner or "somebody else"
        return super().settle(claims)


class Withdrawn(Disputed):
    """Its sender takes it back."""

    def settle(self, claims: Sequence[tuple[JobId, Message]]) -> list[Settled]:
        self.table.documents.clear()
        return super().settle(claims)


def test_what_is_ours_is_submitted_and_answered_to_where_it_came_from(site: Site) -> None:
    name = site.table.put(GOOD)

    assert site.one_pass() == os.EX_OK and len(site.cluster.jobs) == 1
    site.broker = site.source  # type: ignore[assignment]  # where the worker sends its answer
    site.run_jobs(answers, "succeeded")
    site.one_pass()

    (reply,) = site.table.sent
    assert (reply.routing_key, reply.headers["outcome"]) == (name, "succeeded") and site.active() == []


@pytest.mark.parametrize("body", [GOOD, b"no job"])
@pytest.mark.parametrize("kind", [Faster, Withdrawn])
def test_what_is_not_ours_is_never_submitted_and_never_answered(site: Site, kind: type[Disputed], body: bytes) -> None:
    site.source = kind(site.table)
    site.table.put(body)

    assert site.one_pass() == os.EX_OK

    assert site.cluster.jobs == [] and site.table.sent == [] and site.active() == []
    (found,) = places.put_away(site.jobs)
    assert found.word == NOT_OURS and [found.job.id] == site.put_away()
    assert not list(site.jobs.not_ours.rglob("outcome.json"))


def test_while_its_source_says_nothing_nothing_is_submitted_and_then_it_goes_on(site: Site) -> None:
    site.table.put(GOOD)
    site.table.away = True

    for _ in range(2):
        assert site.one_pass() == os.EX_UNAVAILABLE
        assert site.cluster.jobs == [] and len(site.active()) == 1
    site.table.away = False

    assert site.one_pass() == os.EX_OK and len(site.cluster.jobs) == 1


def test_a_deadline_that_is_over_answers_nothing_that_may_be_somebody_elses(site: Site) -> None:
    site.table.put(GOOD)
    site.table.away = True
    site.one_pass()
    queues = tuple(replace(queue, max_wait=Seconds(0.0)) for queue in site.config.site.queues)
    site.config = replace(site.config, site=replace(site.config.site, queues=queues))
    site.one_pass()
    assert site.table.sent == []

    site.table.away = False
    site.source = Faster(site.table)
    site.one_pass()

    assert site.table.sent == [] and len(site.put_away()) == 1


def test_what_was_left_to_others_is_known_for_as_long_as_done_jobs_are(site: Site) -> None:
    site.source = Faster(site.table)
    name = site.table.put(GOOD)
    site.one_pass()
    site.table.documents[name] = Document(GOOD)  # a list that is behind shows it again
    site.one_pass()
    assert len(site.put_away()) == 1 and site.cluster.jobs == []

    for message in site.jobs.not_ours.glob("*/message.json"):
        os.utime(message, (1.0, 1.0))
    site.jobs.retention.unlink()  # the day's round begins anew
    site.table.documents.clear()
    site.table.put(b"another")
    site.one_pass()

    assert len(site.put_away()) == 1, "the old one is gone, the new one is there"


@pytest.mark.parametrize("whose", [Disputed, Faster, Withdrawn])
def test_wherever_it_is_killed_it_is_submitted_once_if_it_is_ours_and_else_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: type[Disputed]
) -> None:
    def make(step: int) -> Site:
        site = Site(tmp_path / f"site-{step}")
        site.source = whose(site.table)
        site.table.put(GOOD)
        return site

    for killed_at, site in killed_at_each_step(monkeypatch, make, Site.one_pass):
        submitted = len(site.cluster.jobs)
        if submitted:
            assert list(site.jobs.active.glob("*/settled.json")), "what is submitted was settled before"
        for _ in range(3):
            site.one_pass()

        assert len(site.cluster.jobs) == (whose is Disputed), f"killed at step {killed_at}"
        assert len(site.put_away()) == (whose is not Disputed) and site.table.sent == []
    assert killed_at > 8
