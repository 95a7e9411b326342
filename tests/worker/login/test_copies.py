"""Which of the Slurm jobs under one name is whose."""

from __future__ import annotations

import pytest

from tests.worker.login.situations import NAME, seen
from worker.login.reconcile import _indexed, _under


@pytest.mark.parametrize(("element", "ids"), [(0, ["7", "8_0"]), (1, ["8_1"]), (2, [])])
def test_what_is_no_array_belongs_to_the_first_element_alone(element: int, ids: list[str]) -> None:
    shown = _indexed([seen("RUNNING", "7"), seen("PENDING", "8_[0-1]")])

    assert [view.slurm_id for view in _under(NAME, element, shown)] == ids
