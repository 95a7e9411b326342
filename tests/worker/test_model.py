"""Thousands of invented histories of an installation: whatever happens, in whatever order, the promises are kept."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.worker.model.machine import Life

CALM = settings(
    deadline=None, database=None, derandomize=True, print_blob=True, suppress_health_check=list(HealthCheck),
    stateful_step_count=30, max_examples=20,
)  # fmt: skip


@pytest.mark.unhurried
def test_whatever_happens_each_message_gets_one_true_answer() -> None:
    run_state_machine_as_test(Life, settings=CALM)


@pytest.mark.slow
@pytest.mark.long(seconds=300)
@pytest.mark.parametrize("part", range(4))
def test_whatever_happens_in_many_histories_each_message_gets_one_true_answer(part: int) -> None:
    """Each part has histories of its own, the same in each run. To make one of them shorter would take longer than all."""
    many = settings(CALM, max_examples=75, stateful_step_count=50, phases=[Phase.generate])
    life = seed(part)(type(f"Life{part}", (Life,), {}))
    run_state_machine_as_test(life, settings=many)
