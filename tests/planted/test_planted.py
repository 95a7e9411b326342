"""The invented histories find bugs: each of these is planted alone, and found."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.planted.bugs import BUGS
from tests.planted.directed import Directed, SentTwice
from tests.worker.model.books import Broken

SEARCH = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), stateful_step_count=30,
    max_examples=400, report_multiple_bugs=False, phases=[Phase.generate],
)  # fmt: skip


IN = {"a second copy of an answer has a new id": SentTwice}
"""Stories for those that the others would find only after minutes."""


@pytest.mark.slow
@pytest.mark.long(seconds=90)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)

    with pytest.raises(Broken):
        run_state_machine_as_test(IN.get(name, Directed), settings=SEARCH)
