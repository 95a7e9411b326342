"""A job that needs the place of several of ours comes to its turn all the same, however many others wait to take each place
that becomes free: a scheduler with a limit on our CPUs, and a clock that only these tests move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.worker.login.test_declined import LARGE, SMALL, WORDS, ChoosyLogin
from tests.worker.login.test_passes import LAYERS, answers
from tests.worker.login.test_turns_of_work import Clock, clock, place
from worker.settings import HOUR

pytestmark = pytest.mark.unhurried

__all__ = ["clock", "place"]
WIDE = json.dumps({"inputs": LAYERS, "settings": {}, "resources": {"cpus": 6}}).encode()


class Busy(ChoosyLogin):
    """Eight jobs of one CPU at a time, one of which ends every ten minutes; and always more of them in the queue."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        self.clock, self.limit, self.names = clock, 9, 0
        self.change(50, adopt_after=120, hopeless_after=3600, patience=6 * HOUR)
        self.change_site(max_in_flight=8)
        self.choosy.declines = lambda request: request.cpus + self.cpus > self.limit
        self.choosy.words = "A user has nine CPUs"
        self.least = 8

    @property
    def cpus(self) -> int:
        return sum(request.cpus for slurm_id, request, _ in self.choosy.elements if slurm_id not in self.choosy.ended)

    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            while len(self.broker.queued) < 8:
                self.names += 1
                self.ask(1, SMALL, f"small-{self.names}")
            for _ in range(3):
                self.clock.now += 200
                self.one_pass()
            self.end_the_oldest()
            self.least = min(self.least, self.choosy.alive)

    def end_the_oldest(self) -> None:
        alive = [each for each in self.choosy.elements if each[0] not in self.choosy.ended]
        self.choosy.elements, others = alive[:1], self.choosy.elements
        self.run_jobs(answers, "succeeded")
        self.choosy.elements = others

    def come_to(self, name: str) -> str:
        return self.outcomes().get(f"{name}-0", "")


@pytest.fixture
def login(place: Path, clock: Clock) -> Busy:
    return Busy(place / "site", clock)


def test_a_job_that_needs_the_place_of_several_runs_long_before_its_patience_ends(login: Busy) -> None:
    login.go_on(1)
    login.ask(1, WIDE, "wide")

    login.go_on(30)

    assert login.come_to("wide") == "succeeded"
    assert login.choosy.alive >= 7 and len(login.outcomes()) > 20, "and the others went on"


def test_what_is_declined_for_reasons_of_its_own_holds_the_others_back_once(login: Busy) -> None:
    login.choosy.declines = lambda request: request.cpus > 1
    login.go_on(1)
    login.ask(1, LARGE, "large")

    login.go_on(25)
    assert login.least == 0, "what is in its way could only be found out so"
    login.least = 8
    login.go_on(24)

    assert login.least >= 7 and login.come_to("large") == "rejected"


def test_where_slurms_words_say_that_the_job_is_too_large_by_itself_nothing_is_held_back(login: Busy) -> None:
    login.choosy.declines, login.choosy.words = lambda request: request.cpus > 1, WORDS
    login.go_on(1)
    login.ask(1, LARGE, "large")

    login.go_on(25)

    assert login.least >= 7 and login.active()
