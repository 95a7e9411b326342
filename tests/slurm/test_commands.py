"""The argument lists are exact, and of sbatch's answers only clear ones count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import BatchRequest, SlurmJobId
from slurm.commands import parse_submitted, sacct, sbatch, scancel, squeue

REQUEST = BatchRequest(
    name="bf-here-1", script="/opt/b/slurm/job.sh", arguments=["/opt/b", "a b"], chdir="/opt/b", output="/jobs/1.log",
    cpus=6, memory_mb=16000, minutes=90, warn_seconds=300,
)  # fmt: skip
PLAIN = [
    "sbatch", "--parsable", "--job-name=bf-here-1", "--dependency=singleton", "--no-requeue", "--nodes=1", "--ntasks=1",
    "--cpus-per-task=6", "--mem=16000M", "--time=90", "--signal=B:USR1@300", "--chdir=/opt/b", "--output=/jobs/1.log",
    "--open-mode=append", "--input=/dev/null",
]  # fmt: skip
SCRIPT = ["/opt/b/slurm/job.sh", "/opt/b", "a b"]


def test_a_plain_submission() -> None:
    assert sbatch(REQUEST, account=None, partition=None, extra=()) == PLAIN + SCRIPT


def test_a_submission_with_everything() -> None:
    request = replace(REQUEST, gres="gpu:v100l:1", email="a@example.org")

    argv = sbatch(request, "group", "fast", ["--qos=short", "--constraint=a&b"])

    assert argv == [
        "sbatch", "--qos=short", "--constraint=a&b", *PLAIN[1:], "--gres=gpu:v100l:1", "--mail-user=a@example.org",
        "--mail-type=BEGIN,END,FAIL", "--account=group", "--partition=fast", *SCRIPT,
    ]  # fmt: skip


def test_where_jobs_may_not_ask_for_memory_they_do_not() -> None:
    argv = sbatch(replace(REQUEST, memory_mb=None), None, None, ())

    assert argv == [word for word in PLAIN if word != "--mem=16000M"] + SCRIPT


def test_a_percent_sign_in_the_path_of_the_log_is_no_pattern() -> None:
    argv = sbatch(replace(REQUEST, output="/jobs/100%j/%%.log"), None, None, ())

    assert "--output=/jobs/100%%j/%%%%.log" in argv


def test_one_squeue_asks_for_all_jobs_in_every_state() -> None:
    assert squeue() == [
        "squeue", "--me", "--states=all", "--array", "--noheader", "--format=%i|%T|%e|%r|%N|%j",
    ]  # fmt: skip


def test_sacct_asks_by_name() -> None:
    assert sacct(["bf-a-1", "bf-a-2"], 7200) == [
        "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,ExitCode,End,NodeList,JobName",
        "--starttime=now-7200seconds", "--endtime=now", "--state=BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO",
        "--name=bf-a-1,bf-a-2",
    ]  # fmt: skip


def test_more_names_than_fit_into_an_argument_are_left_out() -> None:
    names = [f"bf-abcdef123456-20240101000000-{n:06x}" for n in range(1001)]

    assert len(",".join(names[:1000])) < 128 * 1024
    assert any(option.startswith("--name=") for option in sacct(names[:1000], 60))
    assert not any(option.startswith("--name") for option in sacct(names, 60))


def test_scancel_takes_all_ids_and_may_spare_what_runs() -> None:
    ids = [SlurmJobId("7"), SlurmJobId("8_1")]

    assert scancel(ids, only_waiting=False) == ["scancel", "--quiet", "7", "8_1"]
    assert scancel(ids, only_waiting=True) == ["scancel", "--quiet", "--state=PENDING", "7", "8_1"]


@pytest.mark.parametrize(("stdout", "slurm_id"), [
    ("123\n", "123"),
    ("123", "123"),
    ("123;cedar\n", "123"),
    ("\n  123  \n\n", "123"),
    ("Your project has 12 core years left.\n\n123\n", "123"),
    ("lua: account 7 is fine\nplease read the news\n123;cedar\n", "123"),
])  # fmt: skip
def test_the_id_is_the_last_line_of_the_answer(stdout: str, slurm_id: str) -> None:
    assert parse_submitted(stdout) == slurm_id


@pytest.mark.parametrize("stdout", [
    "", "\n", "Submitted batch job 123\n", "123\nsee https://example.org\n", "12 3\n", "123_4\n", "-1\n", "job 123",
])  # fmt: skip
def test_what_is_no_id_is_not_taken_for_one(stdout: str) -> None:
    assert parse_submitted(stdout) is None
