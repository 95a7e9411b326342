"""What an sbatch that failed means: it blames the job, it is unclear, or it declines. Its words alone are looked at."""

from __future__ import annotations

import pytest

from slurm.answers import blame, is_about_one_job, is_unclear, words_of

FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(("stderr", "words"), [
    ("sbatch: error: Batch job submission failed: Requested node configuration is not available\n", "no node"),
    ("sbatch: error: Memory specification can not be satisfied\n", "memory"),
    ("sbatch: error: Memory specification cannot be satisfied\n", "memory"),
    ("sbatch: error: CPU count per node can not be satisfied\n", "CPUs"),
    ("sbatch: error: Batch job submission failed: More processors requested than permitted\n", "CPUs"),
    ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)\n",
     "time"),
    ("sbatch: error: Invalid generic resource (gres) specification\n", "GPUs"),
    ("sbatch: error: Batch job submission failed: Node count specification invalid\n", "nodes"),
    ("welcome\nsbatch: error: Memory specification can not be satisfied\nsbatch: error: bye\n", "memory"),
])  # fmt: skip
def test_errors_that_blame_the_job(stderr: str, words: str) -> None:
    assert words in (blame(stderr) or "")


@pytest.mark.parametrize("said", [
    f"{FAILED}Socket timed out on send/recv operation",
    f"{FAILED}Unable to contact slurm controller (connect failure)",
    f"{FAILED}Unable to contact slurm controller (shutdown failure)",
    f"{FAILED}Zero Bytes were transmitted or received",
    f"{FAILED}Message receive failure",
    f"{FAILED}Message send failure",
    f"{FAILED}Communication connection failure",
    f"{FAILED}Unexpected message received",
    f"{FAILED}Insane message length",
    f"{FAILED}Header lengths are longer than data received",
    f"{FAILED}Protocol authentication error",
    f"{FAILED}Invalid authentication credential",
    f"{FAILED}Rate limit exceeded, please retry momentarily",
    f"{FAILED}Slurm backup controller in standby mode",
    f"{FAILED}Connection timed out reading",
    f"{FAILED}Connection refused",
    f"{FAILED}Connection reset by peer",
    f"{FAILED}Broken pipe",
    f"{FAILED}Resource temporarily unavailable",
    f"{FAILED}Interrupted system call",
    f"{FAILED}Unable to create job record, try again",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "sbatch: error: Slurm job queue full, sleeping and retrying.",
    "sbatch: Job creation temporarily disabled, retrying",
    "sbatch: fatal: Could not establish a configuration source",
    "sbatch: error: slurm_receive_msg: Socket timed out on send/recv operation",
    "wrapper: sbatch failed, retrying in 10 s",
    "ssh: connect to host login2 port 22: No route to host",
])  # fmt: skip
def test_words_of_a_connection_or_of_a_retry_are_unclear(said: str) -> None:
    assert is_unclear(1, said)


@pytest.mark.parametrize("last", [
    "Requested node configuration is not available",
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
])  # fmt: skip
@pytest.mark.parametrize("first", [
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "sbatch: error: slurm_receive_msg: Socket timed out on send/recv operation",
])  # fmt: skip
def test_a_no_after_a_retry_is_unclear_whatever_it_says(first: str, last: str) -> None:
    assert is_unclear(1, f"{first}\n{FAILED}{last}\n")


@pytest.mark.parametrize(("exit_code", "said"), [
    (1, ""), (1, " \n"), (-9, "sbatch: error: Invalid qos specification"), (127, "sbatch: command not found"),
    (126, "sbatch: Permission denied"), (137, "Killed"), (255, "Permission denied (publickey)."),
])  # fmt: skip
def test_no_words_and_exit_codes_that_are_not_of_sbatch_are_unclear(exit_code: int, said: str) -> None:
    assert is_unclear(exit_code, said)


@pytest.mark.parametrize(("exit_code", "said"), [
    (1, f"sbatch: error: QOSMaxCpuPerJobLimit\n{FAILED}Job violates accounting/QOS policy (job submit limit, user's size "
        "and/or time limits)\n"),
    (1, f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}Job violates accounting/QOS policy\n"),
    (1, f"sbatch: error: Please ask for at least 2 GB.\n{FAILED}Unspecified error\n"),
    (1, f"{FAILED}Invalid account or account/partition combination specified\n"),
    (1, f"sbatch: error: invalid partition specified: fast\n{FAILED}Invalid partition name specified\n"),
    (1, f"{FAILED}Required partition not available (inactive or drain)\n"),
    (1, f"{FAILED}Invalid job array specification\n"),
    (1, f"{FAILED}Access/permission denied\n"),
    (1, "sbatch: error: Unable to open file /opt/b/slurm/job.sh\n"),
    (255, "sbatch: unrecognized option '--frobnicate'\n"),
])  # fmt: skip
def test_every_other_no_is_clear_and_blames_nobody(exit_code: int, said: str) -> None:
    assert not is_unclear(exit_code, said)
    assert blame(said) is None


@pytest.mark.parametrize(("said", "of_one"), [
    ("QOSMaxCpuPerJobLimit", True), ("AssocMaxMemPerJob", True), ("QOSMaxSubmitJobPerUserLimit", False), ("", False),
])  # fmt: skip
def test_a_limit_on_one_job_is_told_from_one_on_many(said: str, of_one: bool) -> None:
    assert is_about_one_job(f"sbatch: error: {said}\n{FAILED}Job violates accounting/QOS policy\n") == of_one


def test_slurms_own_words_are_one_line_without_what_sbatch_puts_before_them() -> None:
    said = f"sbatch: error: QOSMaxCpuPerJobLimit\n{FAILED}Job violates\x1b policy\n{FAILED}Job violates\x1b policy\n"

    assert words_of(said) == "QOSMaxCpuPerJobLimit / Job violates policy"
    assert words_of("allocation failure: Unspecified error\n") == "Unspecified error"
    assert len(words_of("x" * 5000)) < 500
