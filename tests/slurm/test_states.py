"""Slurm's words become ours; what we do not know says nothing."""

from __future__ import annotations

from typing import Optional

import pytest

from scheduler import JobView, Phase, SlurmJobId, elements
from slurm.states import hopeless, parse_sacct, parse_squeue, passing

WAITING = ["PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"]
RUNNING = ["CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"]
ENDS = {
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
    "NODE_FAIL": "node_failed",
    "BOOT_FAIL": "node_failed",
    "LAUNCH_FAILED": "node_failed",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
}


def in_queue(state: str, end: str = "N/A", reason: str = "None") -> JobView:
    (view,) = parse_squeue(f"7|{state}|{end}|{reason}|n1|bf-a-b\n")
    return view


def in_history(state: str, end: str = "Unknown") -> JobView:
    (view,) = parse_sacct(f"7|{state}|0:0|{end}|n1|bf-a-b\n")
    return view


@pytest.mark.parametrize("word", WAITING)
def test_a_job_that_has_yet_to_start_waits(word: str) -> None:
    assert (in_queue(word).phase, in_queue(word).end) == (Phase.WAITING, None)


@pytest.mark.parametrize("word", RUNNING)
def test_a_job_on_its_node_runs_until_all_of_it_is_over(word: str) -> None:
    assert (in_queue(word).phase, in_queue(word).end) == (Phase.RUNNING, None)


@pytest.mark.parametrize(("word", "end"), ENDS.items())
def test_every_end_has_a_word_of_ours(word: str, end: str) -> None:
    assert (in_queue(word).phase, in_queue(word).end) == (Phase.ENDED, end)
    assert (in_history(word).phase, in_history(word).end) == (Phase.ENDED, end)


@pytest.mark.parametrize("word", ["", "completed", "OUT_OF_ME", "FINISHED", "COMPLETED RUNNING", "REVOKED?"])
def test_an_unknown_word_is_no_end(word: str) -> None:
    assert (in_queue(word).phase, in_queue(word).end) == (Phase.UNKNOWN, None)


def test_a_row_of_squeue_is_read_whole() -> None:
    (view,) = parse_squeue("12_3|TIMEOUT|1700000000|None|n1|bf-here-1\n")

    assert view == JobView(
        slurm_id=view.slurm_id, name="bf-here-1", phase=Phase.ENDED, state="TIMEOUT", end="timed_out", reason="None",
        ended_at=1700000000.0, node="n1",
    )  # fmt: skip
    assert view.slurm_id == "12_3"


def test_a_row_of_sacct_is_read_whole() -> None:
    (view,) = parse_sacct("12|FAILED|3:0|1700000000|n1|bf-here-1\n")

    assert view == JobView(
        slurm_id=view.slurm_id, name="bf-here-1", phase=Phase.ENDED, state="FAILED", end="failed",
        ended_at=1700000000.0, exit_code="3:0", node="n1",
    )  # fmt: skip


@pytest.mark.parametrize(("state", "by"), [("CANCELLED by 1000", "1000"), ("CANCELLED", ""), ("CANCELLED+", "")])
def test_sacct_may_tell_who_cancelled(state: str, by: str) -> None:
    view = in_history(state)

    assert (view.end, view.state, view.by) == ("cancelled", "CANCELLED", by)


@pytest.mark.parametrize("end", ["Unknown", "N/A", "", "None", "2024-01-01T00:00:00"])
def test_an_end_without_a_time_is_an_end(end: str) -> None:
    assert (in_history("FAILED", end).phase, in_history("FAILED", end).ended_at) == (Phase.ENDED, None)


def test_the_expected_end_of_a_running_job_is_not_its_end() -> None:
    assert in_queue("RUNNING", end="1700000000").ended_at is None


def test_a_name_may_hold_the_separator() -> None:
    (view,) = parse_squeue("7|PENDING|N/A|Priority||a|b\n")

    assert (view.name, view.reason, view.node) == ("a|b", "Priority", "")


def test_no_rows_are_an_answer() -> None:
    assert parse_squeue("") == [] and parse_sacct("") == []


@pytest.mark.parametrize("text", ["7|RUNNING|N/A|None|n1|bf", "7|RUNNING|N/A|None|n1|bf-a\n8|COMPL", "x"])
def test_an_answer_that_ends_in_the_middle_of_a_line_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="middle of a line"):
        parse_squeue(text)
    with pytest.raises(ValueError, match="middle of a line"):
        parse_sacct(text)


@pytest.mark.parametrize("reason", [
    "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "DependencyNeverSatisfied",
    "JobHeldAdmin", "JobHeldUser", "AccountNotAllowed", "InvalidAccount", "InvalidQOS", "MaxMemPerLimit",
    "AssocMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "AssocMaxMemPerJob", "AssocMaxGRESPerNode",
    "QOSMaxMemoryPerJob", "QOSMaxWallDurationPerJobLimit", "QOSMaxCpuPerNode", "ReservationDeleted", "ReservationInvalid",
])  # fmt: skip
def test_reasons_that_do_not_pass_have_words(reason: str) -> None:
    words = hopeless(reason)

    assert words and reason not in words


@pytest.mark.parametrize("reason", [
    "None", "", "Resources", "Priority", "Dependency", "BeginTime", "Licenses", "Reservation", "ReqNodeNotAvail",
    "NodeDown", "PartitionDown", "PartitionInactive", "Cleaning", "JobArrayTaskLimit", "AssocMaxJobsLimit",
    "AssocGrpCpuLimit", "AssocGrpMemLimit", "QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit", "QOSGrpCpuLimit",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "NewWord",
    "MaxCpuRunMinsPerAccount", "MaxGRESRunMinsPerUser", "MaxCpuPerAccount",
])  # fmt: skip
def test_reasons_that_pass_as_other_jobs_end_are_waited_for(reason: str) -> None:
    assert hopeless(reason) is None


@pytest.mark.parametrize("what", ["BB", "Billing", "Cpu", "Energy", "GRES", "Node", "License", "Memory", "Unknown"])
def test_limits_on_the_minutes_of_running_jobs_have_words_that_say_whose(what: str) -> None:
    assert "jobs of your account that run now" in str(passing(f"Max{what}RunMinsPerAccount"))
    assert "jobs of yours that run now" in str(passing(f"Max{what}RunMinsPerUser"))
    assert passing(f"Max{what}PerAccount") is None


@pytest.mark.parametrize(("listed", "meant"), [
    ("12", None), ("12_7", {7}), ("12_[0-3,7%2]", {0, 1, 2, 3, 7}), ("12_[0-20:2]", set(range(0, 21, 2))),
    ("12_[1-10:3,20%5]", {1, 4, 7, 10, 20}), ("12_[0-4:0]", {0, 1, 2, 3, 4}), ("12_[0-4:x]", None),
])  # fmt: skip
def test_which_elements_a_row_is_about(listed: str, meant: Optional[set[int]]) -> None:
    assert elements(SlurmJobId(listed)) == meant
