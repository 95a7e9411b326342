"""Kills on real services: a sample in each run, a thousand when there is time; and proof that the books see faults."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from tests.faults.crashing import AT_RANDOM, FORGOTTEN, STOPPED, Event
from tests.faults.kill_books import ANONYMOUS, EXIT, GOOD, INVALID, SILENT, Asked, Books, Reply, answer_of
from tests.faults.kill_tally import points_in_source
from tests.faults.kills import Kills, new_seed
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster


@pytest.mark.long(seconds=80)
@pytest.mark.fault(what="pass or worker killed", moment="at a sample of all steps and at any moment")
def test_whatever_is_killed_each_message_has_one_true_outcome(
    rabbitmq: Broker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = Kills(tmp_path, rabbitmq, None, kills=100, seed=new_seed(), each=0)

    fine = kills.run()

    show(kills, capfd)
    assert fine, kills.report()
    assert kills.tally.kills >= 100


@pytest.mark.long(seconds=80)
@pytest.mark.fault(what="pass or Slurm job killed", moment="at a sample of all steps and at any moment")
def test_whatever_is_killed_under_slurm_each_message_has_one_true_outcome(
    rabbitmq: Broker, slurm: SlurmCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = Kills(tmp_path, rabbitmq, slurm, kills=15, seed=new_seed(), each=0, local_lanes=0, slurm_lanes=1)

    fine = kills.run()

    show(kills, capfd)
    assert fine, kills.report()
    assert kills.tally.kills >= 15


@pytest.mark.slow
@pytest.mark.long(seconds=600)
@pytest.mark.fault(
    what="pass or worker killed a thousand times", moment="before and after every step, and at any moment"
)
def test_after_a_thousand_kills_each_message_has_one_true_outcome_and_every_step_was_hit(
    rabbitmq: Broker, slurm: SlurmCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = Kills(tmp_path, rabbitmq, slurm, kills=1000, seed=new_seed(), each=1, slurm_lanes=1)

    fine = kills.run()

    show(kills, capfd)
    assert fine, kills.report()
    assert kills.tally.kills >= 1000


def show(kills: Kills, capfd: pytest.CaptureFixture[str]) -> None:
    """The seed and the table of hits belong to the output of every run; of a worker of pytest-xdist, only stderr is shown."""
    with capfd.disabled():
        print(f"\n{kills.report()}", file=sys.stderr)


def test_every_fact_and_every_named_step_is_a_point_to_be_hit() -> None:
    points = points_in_source()

    wanted = {
        "message.json",
        "started.json",
        "outcome.json",
        "token",
        "reply.json",
        "sbatch",
        "publish",
        "move to done",
    }
    assert {f"{when} {step}" for when in ("before", "after") for step in wanted} <= points


# --- the books see what is wrong


KEY, JOB = "m-1", "0123abcd"


def ask(folder: Path, kind: str = GOOD, queue: str = "") -> Asked:
    return Asked(KEY, kind, b"{}", {}, folder / "record", {"repeat": 2}, own_queue=queue)


def record(folder: Path, *words: str, job: str = JOB, attempt: int = 1) -> None:
    with open(folder / "record", "a") as file:
        file.writelines(f"{word} /jobs/active/{job}/attempts/{attempt}/work\n" for word in words)


def reply(asked: Asked, outcome: str = "succeeded", error: str = "", attempt: int = 1, job: str = JOB) -> Reply:
    body = json.dumps({"error": error} if error else answer_of(asked)).encode()
    headers = {"outcome": outcome, "attempt": attempt}
    return Reply("results", body, (("message_id", job),), job, KEY, headers)


def violations(asked: Asked, replies: Sequence[Reply], events: Sequence[Event] = ()) -> str:
    return "\n".join(Books([asked], replies, events).violations())


def test_books_of_a_job_that_ran_once_and_was_answered_once_balance(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended")

    assert violations(asked, [reply(asked)]) == ""


def test_books_see_a_message_without_an_answer(tmp_path: Path) -> None:
    assert "0 answers, not 1" in violations(ask(tmp_path), [])


def test_books_see_a_second_answer_and_a_second_job(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended")

    found = violations(asked, [reply(asked), reply(asked, job="another")])

    assert "2 answers, not 1" in found and "more than one job" in found


def test_books_see_a_copy_that_no_kill_excuses_and_one_that_differs(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended")
    first, kill = reply(asked), Event("login", "after publish")

    assert "1 second copies" in violations(asked, [first, first])
    assert violations(asked, [first, first], [kill]) == ""
    assert "differ" in violations(asked, [first, replace(first, body=first.body + b" ")], [kill])
    assert "differ" in violations(asked, [first, replace(first, properties=())], [kill])


def test_books_see_a_workload_that_ran_twice_in_one_attempt(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended", "began")

    assert "ran 2 times" in violations(asked, [reply(asked)])


def test_books_see_a_success_of_a_workload_that_did_not_come_to_its_end(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began")

    assert "did not run to its end" in violations(asked, [reply(asked)])


def test_books_see_a_wrong_output(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended")

    assert "not what the workload makes" in violations(asked, [reply(replace(asked, settings={"repeat": 3}))])


LOST = "The cluster lost track of the job and its result. Run it again."
KILLED = "The job ended (exit code 137) without leaving a result. Somebody must look into it."


@pytest.mark.parametrize(
    ("outcome", "error", "event"),
    [
        ("failed", KILLED, None),
        ("failed", KILLED, Event("job", AT_RANDOM, "another", 1)),
        ("failed", KILLED, Event("job", AT_RANDOM, JOB, 2)),
        ("failed", KILLED, Event("login", AT_RANDOM)),
        ("failed", KILLED, Event("job", FORGOTTEN, JOB, 1)),
        ("lost", LOST, Event("job", STOPPED, JOB, 1)),
        ("node_failed", LOST, Event("job", STOPPED, JOB, 1)),
    ],
)
def test_books_see_an_untrue_failure(tmp_path: Path, outcome: str, error: str, event: Optional[Event]) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended")

    found = violations(asked, [reply(asked, outcome, error)], [event] if event else [])

    assert f"answered {outcome}" in found


def test_books_take_a_failure_that_a_kill_explains(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began")

    assert violations(asked, [reply(asked, "failed", KILLED)], [Event("job", AT_RANDOM, JOB, 1)]) == ""


def test_books_see_a_second_attempt_without_a_reason(tmp_path: Path) -> None:
    asked = ask(tmp_path)
    record(tmp_path, "began", "ended", attempt=2)

    assert "although attempt 1 suffered nothing" in violations(asked, [reply(asked, attempt=2)])


def test_books_see_a_success_of_what_must_fail(tmp_path: Path) -> None:
    for kind in (EXIT, INVALID):
        asked = ask(tmp_path, kind)
        assert "answered succeeded" in violations(asked, [reply(asked)])


def test_books_see_an_answer_where_none_was_asked_for(tmp_path: Path) -> None:
    asked = ask(tmp_path, SILENT)
    record(tmp_path, "began", "ended")

    assert "1 answers, not 0" in violations(asked, [reply(asked)])


def test_books_tell_a_message_without_ids_by_its_queue(tmp_path: Path) -> None:
    asked = ask(tmp_path, ANONYMOUS, queue="its-own")
    record(tmp_path, "began", "ended")

    assert violations(asked, [replace(reply(asked), queue="its-own", correlation_id="")]) == ""
    assert "nobody asked for" in violations(asked, [replace(reply(asked), queue="results", correlation_id="")])
