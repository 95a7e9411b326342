"""Pilots, their runners, the watch and the broker are killed; the books are read from RabbitMQ and from the workload."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.pilot_kills import Round
from tests.services.rabbitmq import RabbitMQ


@pytest.mark.slow
@pytest.mark.long(seconds=150)
@pytest.mark.fault(what="pilots, runners, the watch and the broker are killed", moment="at random times")
def test_whoever_is_killed_each_of_3000_jobs_gets_one_true_answer(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    this = Round(tmp_path, jobs=3000, kills=25, seed=seed)

    faults = this.run()

    assert not faults, f"seed {seed}, killed {dict(this.killed)}: {faults[:10]}"
    assert sum(this.killed.values()) >= 5
