"""Jobs in error go back to todo under the lease: no pass works on the same batches meanwhile."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from tests.worker.busy import Busy
from worker.folder import batches
from worker.login import lease
from worker.operate import pilots


@pytest.fixture
def busy(tmp_path: Path) -> Busy:
    return Busy(tmp_path / "site")


def put_back(busy: Busy) -> int:
    parser = argparse.ArgumentParser()
    pilots.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(["--put-back"])
    options.dry_run = False
    return pilots.run(busy.config, options)


def again(busy: Busy) -> int:
    """How many jobs of batches in todo repeat others."""
    return sum(
        bool(claimed.rerun_of) for batch in busy.pool.batches(busy.pool.todo) for claimed in batches.read_jobs(batch)
    )


def test_while_nobody_works_they_go_back_at_once(busy: Busy) -> None:
    assert [put_back(busy), put_back(busy)] == [os.EX_OK] * 2

    assert again(busy) == 1


def test_while_a_pass_works_it_is_asked_and_does_it_once(busy: Busy, capsys: pytest.CaptureFixture[str]) -> None:
    (busy.jobs.lease).unlink()
    with lease.hold(busy.jobs.lease, expires=900):
        os.rename(busy.jobs.lease, busy.jobs.path / "held")
        busy.jobs.lease.write_text('{"host": "elsewhere", "pid": 1}')
        assert put_back(busy) == os.EX_OK and again(busy) == 0
        assert not busy.jobs.pilots_idle() and "put-back" in busy.jobs.rung()
        assert "Asked for" in capsys.readouterr().out
        os.rename(busy.jobs.path / "held", busy.jobs.lease)

    for _ in range(2):
        assert busy.guarded_pass() == os.EX_OK

    assert again(busy) == 1 and not busy.pool.put_back_asked.path.exists()
