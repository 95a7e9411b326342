"""How many Slurm commands may be used: the bucket between passes, and what waits when it is empty."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from scheduler import SlurmJobId
from tests.worker.examples import config_for
from worker.build import open_scheduler
from worker.folder.jobs import JobsFolder
from worker.login.budget import Budget, Spent, budget_of
from worker.login.notices import Notices
from worker.login.questions import Cancels, Questions
from worker.login.quiet import Quiet
from worker.settings import SlurmSettings


def bucket(folder: Path, rate: float = 0.0, burst: int = 3) -> Budget:
    """As each pass makes one."""
    return Budget(folder / "slurm_budget.json", rate, burst)


def test_the_bucket_is_full_at_first_and_shared_between_passes(tmp_path: Path) -> None:
    bucket(tmp_path).take("squeue")
    bucket(tmp_path).take("sbatch")

    assert bucket(tmp_path).left() == 1


def test_an_empty_bucket_lets_no_command_through(tmp_path: Path) -> None:
    budget = bucket(tmp_path, burst=1)
    budget.take("squeue")

    with pytest.raises(Spent):
        budget.take("sbatch")

    assert dict(budget.used) == {"squeue": 1}


def test_it_fills_with_time_and_never_beyond_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm_budget.json").write_text(json.dumps({"tokens": 0, "at": 1000.0}))
    monkeypatch.setattr(time, "time", lambda: 1002.1)

    assert bucket(tmp_path, rate=1.0).left() == 2
    assert bucket(tmp_path, rate=100.0).left() == 3


def test_a_clock_that_was_set_back_does_not_empty_it(tmp_path: Path) -> None:
    (tmp_path / "slurm_budget.json").write_text(json.dumps({"tokens": 2, "at": time.time() + 86400}))

    assert bucket(tmp_path, rate=1.0).left() == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": "x", "at": 1}'])
def test_a_file_that_can_not_be_read_is_a_full_bucket(tmp_path: Path, content: str) -> None:
    (tmp_path / "slurm_budget.json").write_text(content)

    assert bucket(tmp_path).left() == 3


@pytest.mark.parametrize(("left", "used"), [(3, 2), (2, 2), (1, 0)])
def test_a_cancel_that_takes_two_commands_counts_two_and_waits_for_two(tmp_path: Path, left: int, used: int) -> None:
    scancel = tmp_path / "bin" / "scancel"
    scancel.parent.mkdir()
    scancel.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/saw"\n')
    scancel.chmod(0o755)
    slurm = SlurmSettings(bin_dir=str(scancel.parent), commands_per_second=0.0001, commands_at_once=3)
    jobs = JobsFolder(tmp_path / "jobs")
    jobs.prepare()
    site = config_for(tmp_path, changes={"slurm": slurm}).site
    budget = budget_of(site, jobs)
    for _ in range(3 - left):
        budget.take("squeue")
    budget.used.clear()
    questions = Questions(slurm, budget, Quiet(jobs.standing), Notices(), lambda: open_scheduler(site, budget.spent_on))
    cancels = Cancels(questions, budget)
    cancels.add([*(SlurmJobId(f"7_{element}") for element in range(499)), SlurmJobId("8")])

    cancels.send()

    ran = (tmp_path / "saw").read_text().splitlines() if used else []
    assert budget.used["scancel"] == len(ran) == used
    assert budget.left() == left - used
