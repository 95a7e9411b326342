"""One job of those that share a pilot is cancelled, wherever it stands; the others don't notice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.upstream import Upstream
from tests.test_alone import wait_until
from tests.test_pilots_alone import Piloted, runs

pytestmark = pytest.mark.unhurried

REASON = "The scan was uploaded upside down."
SAID = f"The job was cancelled by those who run the service: {REASON}"


@pytest.fixture
def piloted(odd_folder: Path, upstream: Upstream) -> Iterator[Piloted]:
    """Of two batches of five a pilot has three jobs at work at the most; a third batch has to wait for it."""
    made = Piloted(odd_folder / "installation", upstream)
    yield made
    made.broker.close()


class Held:
    """Jobs that run until they are let go."""

    def __init__(self, piloted: Piloted, folder: Path, count: int) -> None:
        self._gate = folder / "gate"
        wait = f"import os, time\nwhile not os.path.exists({str(self._gate)!r}): time.sleep(0.05)"
        self.records = [folder / str(number) for number in range(count)]
        self.asked = [piloted.ask(before=wait, record=str(record)) for record in self.records]

    def let_go(self) -> None:
        self._gate.touch()


def standing(piloted: Piloted, state: str) -> list[dict[str, Any]]:
    """The stories of the jobs in this state, in the order in which they were claimed."""
    said = json.loads(piloted.installation.check("pilots", "--list", state, "--json"))["jobs"]
    return [piloted.say("show", row["job"]) for row in said]


def test_one_job_of_a_batch_is_cancelled_wherever_it_stands_and_the_others_go_on(
    piloted: Piloted, tmp_path: Path
) -> None:
    held = Held(piloted, tmp_path, 15)
    piloted.installation.check("--drain")
    wait_until(lambda: sum(map(runs, held.records)) == 2 and len(standing(piloted, "locked")) == 10, 60)
    locked, todo = standing(piloted, "locked"), standing(piloted, "todo")
    running = next(each for each in locked if len(each["timeline"]) == 2)
    waiting, untaken = locked[-1], todo[2]
    doomed = [running, waiting, untaken]

    ids = [each["job"] for each in doomed]
    said = piloted.installation.check("cancel", *ids, "--reason", REASON)
    explained = piloted.say("explain", untaken["job"])["sentences"]
    again = piloted.installation.check("cancel", ids[2], expect=65)
    piloted.installation.passes_until(lambda: sum(map(runs, held.records)) == 3)
    held.let_go()
    answers = piloted.answers(held.asked)

    ends = [len(re.findall(rf"will be cancelled by {who} *\n", said)) for who in ("its pilot", "the next pass")]
    assert ends == [2, 1]
    assert "is asked to end already" in again
    assert any("asked at" in each and "to cancel it" in each for each in explained)
    for correlation_id, record in zip(held.asked, held.records):
        body, headers = answers[correlation_id]
        if correlation_id in [each["correlation_id"] for each in doomed]:
            assert (body, headers["outcome"]) == ({"error": SAID}, "cancelled")
            assert runs(record) == (correlation_id == running["correlation_id"])
        else:
            assert (headers["outcome"], headers["attempt"], runs(record)) == ("succeeded", 1, 1)
    assert len({headers["slurm_job_id"] for _, headers in answers.values() if headers["outcome"] == "succeeded"}) == 1
    assert not list(piloted.pool.cancel.iterdir())


def test_what_a_pilot_had_begun_when_it_was_killed_is_not_tried_again_once_it_is_to_be_cancelled(
    piloted: Piloted, tmp_path: Path
) -> None:
    held = Held(piloted, tmp_path, 1)
    piloted.installation.check("--drain")
    wait_until(lambda: runs(held.records[0]) == 1 and len(standing(piloted, "locked")) == 1, 60)
    piloted.pilot_process().kill()

    piloted.installation.check("cancel", standing(piloted, "locked")[0]["job"], "--reason", REASON)
    answers = piloted.answers(held.asked)

    body, headers = answers[held.asked[0]]
    assert body["error"].startswith(SAID) and headers["outcome"] == "cancelled"
    assert runs(held.records[0]) == 1 and not list(piloted.pool.cancel.iterdir())
