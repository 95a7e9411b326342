"""A worker is killed before and after each durable step of an upload: the next pass sends one answer, and it is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import pytest

from tests.services.upstream import Upstream
from tests.worker.in_job.test_upload import BODY, PUT, whole
from tests.worker.in_job.whole import Whole
from worker.folder import paths
from worker.login.uploads import Uploads


class Killed(BaseException):
    """No handler of ours sees it."""


def points(job: Whole, monkeypatch: pytest.MonkeyPatch, die_at: Optional[int] = None) -> list[str]:
    """Those that a worker passes after its result; it dies at the one of this number."""
    passed: list[str] = []

    def crash_point(step: str) -> None:
        if passed or step == "after result.json":
            passed.append(step)
            if len(passed) - 1 == die_at:
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(paths, "crash_point", crash_point)
        try:
            job.run()
        except Killed:
            assert die_at is not None
    return passed


def nameless(step: str) -> str:
    """A reply's name is made by chance."""
    return re.sub("reply-[0-9a-f]{8}", "reply", step)


def next_pass(job: Whole) -> None:
    if job.outcome is None:
        assert Uploads(job.config, lambda: None).conclude(job.job, job.attempt, job.result)
    if not job.job.delivered.is_there():
        job.deliver()


def test_wherever_a_worker_dies_its_outputs_arrive_and_one_true_answer_follows(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.give = lambda asked: {"put": upstream.url + PUT, "get": upstream.url + PUT, "upload": "u-1"}
    (tmp_path / "whole").mkdir()
    passed = points(whole(tmp_path / "whole", upstream), monkeypatch)
    assert {"before transfer.json", "after transfer.json", "before outcome.json", "after publish"} <= set(passed)

    for number, step in enumerate(passed):
        upstream.files.pop(PUT, None)
        (tmp_path / str(number)).mkdir()
        job = whole(tmp_path / str(number), upstream)
        assert nameless(points(job, monkeypatch, number)[-1]) == nameless(step)
        assert job.outcome is None or upstream.files[PUT] == BODY, f"{step}: answered before it has arrived"

        next_pass(job)

        outcome = job.outcome
        assert outcome is not None and outcome.outcome == "succeeded", step
        assert upstream.files[PUT] == BODY and job.body["Model"]["verified"] is True, step
        assert job.kept == {"00_Model.png"} and job.job.delivered.is_there(), step
