"""A worker whose program has ended waits for a disk that is away, as long as it may, and then for nothing."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.examples import SPEC, config_for
from worker.errors import StepFailed
from worker.folder import paths
from worker.folder.answer import record
from worker.folder.facts import AttemptFolder
from worker.in_job.pack import keep, pack
from worker.in_job.patience import while_the_disk_is_away
from worker.job.outcome import Result

RESULT = Result("succeeded", 1, body="reply-1", ended_at=1.0)


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptFolder:
    made = AttemptFolder(tmp_path / "attempts" / "1", 1)
    paths.make_folder(made.path)
    return made


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    clock = time.monotonic()
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "monotonic", lambda: clock + sum(waits))
    return waits


def fails(patch: pytest.MonkeyPatch, name: str, times: int, code: int, before: bool = True) -> None:
    """So many calls fail, `before` they have done anything or after it."""
    right: Callable[..., Any] = getattr(os, name)
    left = [times]

    def call(*more: Any, **options: Any) -> Any:
        if left[0] == 0:
            return right(*more, **options)
        left[0] -= 1
        if not before:
            right(*more, **options)
        raise OSError(code, os.strerror(code))

    patch.setattr(os, name, call)


def store(attempt: AttemptFolder) -> Result:
    return while_the_disk_is_away("the result", 120, lambda: record(attempt, RESULT))


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("before", [True, False])
def test_a_result_is_stored_once_the_disk_is_back(
    attempt: AttemptFolder, waited: list[float], monkeypatch: pytest.MonkeyPatch, code: int, before: bool
) -> None:
    """Where the link stood and its answer was lost, what is found is our own."""
    fails(monkeypatch, "link", 3 if before else 1, code, before)

    assert store(attempt) == RESULT
    assert len(waited) == (3 if before else 1) and os.listdir(attempt.path) == ["result.json"]


def test_after_its_patience_the_worker_gives_up(
    attempt: AttemptFolder, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "link", 10**6, errno.ENOTCONN)

    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        store(attempt)

    assert sum(waited) == 120


def test_another_error_is_waited_for_by_nobody(
    attempt: AttemptFolder, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "link", 1, errno.EPERM)

    with pytest.raises(PermissionError):
        store(attempt)

    assert waited == []


@pytest.mark.parametrize(("code", "stored"), [(errno.ENOTCONN, True), (errno.ENOSPC, False)])
def test_outputs_wait_for_a_disk_that_is_away_and_not_for_room(
    attempt: AttemptFolder,
    tmp_path: Path,
    waited: list[float],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    stored: bool,
) -> None:
    site = config_for(tmp_path).site
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for name in SPEC.outputs.values():
        (outputs / name).write_bytes(b"made")
    fails(monkeypatch, "fsync", 2, code)

    if stored:
        packed = pack(SPEC, outputs, attempt, site)
        assert os.listdir(attempt.path) == [f"{packed.stem}.bin"] and len(waited) == 2
    else:
        with pytest.raises(StepFailed, match="could not be stored"):
            pack(SPEC, outputs, attempt, site)
        assert os.listdir(attempt.path) == [] and waited == []


@pytest.mark.parametrize("times", [1, 5])
def test_outputs_that_are_kept_wait_for_a_disk_that_is_away_at_each_of_their_steps(
    attempt: AttemptFolder, tmp_path: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for name in SPEC.outputs.values():
        (outputs / name).write_bytes(b"made")
    fails(monkeypatch, "fsync", times, errno.ENOTCONN)

    keep(SPEC, outputs, attempt, config_for(tmp_path).site)

    assert sorted(os.listdir(attempt.outputs)) == sorted(SPEC.outputs.values()) and len(waited) == times
