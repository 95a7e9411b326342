"""Outputs that are too large for an answer: how large, what is allowed, and until when they are kept, if they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.services.upstream import Upstream
from tests.worker.in_job.whole import Whole
from worker.settings import Limits, Replies, Seconds, Timing

MAKES_2000 = "open(outputs['Model'], 'wb').write(bytes(2000))"
TOO_LARGE = "The outputs are too large to be sent back: they make 2000 bytes, and at most 1024 are allowed."


def in_days(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400))


@pytest.mark.parametrize(("limits", "replies", "words"), [
    (Limits(output_bytes=1024), Replies(), TOO_LARGE),
    (Limits(), Replies(max_bytes=2048),
     "The outputs are too large to be sent back: they make 2681 bytes, and at most 2048 are allowed."),
])  # fmt: skip
def test_outputs_that_are_too_large_are_kept_and_the_answer_says_until_when(
    tmp_path: Path, upstream: Upstream, limits: Limits, replies: Replies, words: str
) -> None:
    timing = Timing(keep_outputs=Seconds(3 * 86400))
    whole = Whole(tmp_path, upstream, MAKES_2000, limits=limits, replies=replies, timing=timing).run()

    assert whole.body == {"error": f"{words} They are kept on the cluster, until {in_days(3)} at the latest."}
    assert (whole.result.outcome, whole.result.step) == ("failed", "pack") and whole.job.delivered.is_there()
    assert (whole.attempt.outputs / "00_Model.png").stat().st_size == 2000


def test_nobody_is_promised_what_could_not_be_kept(tmp_path: Path, upstream: Upstream) -> None:
    limits = Limits(output_bytes=1024, kept_bytes=1999)
    whole = Whole(tmp_path, upstream, MAKES_2000, limits=limits).run()

    assert whole.body == {"error": TOO_LARGE} and whole.kept == set()


def test_they_are_not_kept_for_longer_than_their_job(tmp_path: Path, upstream: Upstream) -> None:
    timing = Timing(keep_outputs=Seconds(30 * 86400), keep_done=Seconds(86400))
    whole = Whole(tmp_path, upstream, MAKES_2000, limits=Limits(output_bytes=1024), timing=timing).run()

    assert f"until {in_days(1)} at the latest" in whole.body["error"]


def test_outputs_on_a_disk_of_the_node_are_kept_too(tmp_path: Path, upstream: Upstream) -> None:
    limits = Limits(output_bytes=1024)
    whole = Whole(tmp_path, upstream, MAKES_2000, limits=limits, scratch="/dev/shm").run()  # noqa: S108

    assert whole.kept == {"00_Model.png"} and "They are kept" in whole.body["error"]
