"""The door to Slurm's commands, with fake commands behind it: only clear answers come through."""

from __future__ import annotations

import errno
import getpass
import os
import re
import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Optional

import pytest

from scheduler import BatchRequest, Declined, NoHistory, Phase, Refused, SlurmJobId, SpentOn, TooWide, Unavailable
from slurm.cluster import Slurm

REQUEST = BatchRequest(
    name="bf-here-1", script="/opt/job.sh", arguments=["a b", "$HOME", "'"], chdir="/opt", output="/jobs/1.log",
    cpus=1, memory_mb=100, minutes=1, warn_seconds=12,
)  # fmt: skip


class Commands:
    """A folder of fake commands; `saw` is where they may leave what they saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.saw = folder / "saw"

    def add(self, name: str, *lines: str) -> None:
        path = self.folder / name
        path.write_text("\n".join(["#!/bin/bash", f"saw={str(self.saw)!r}", *lines]) + "\n")
        path.chmod(0o755)

    def slurm(self, accounting: bool = True, timeout: float = 10, spent_on: Optional[SpentOn] = None) -> Slurm:
        return Slurm(str(self.folder), "group", "fast", ["--qos=short"], accounting, timeout, spent_on=spent_on)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_a_submission_reaches_sbatch_word_by_word(commands: Commands) -> None:
    commands.add("sbatch", 'printf "%s\\0" "$@" > "$saw"', "echo 123")

    slurm_id = commands.slurm().submit(REQUEST)

    argv = commands.saw.read_text().split("\0")[:-1]
    assert slurm_id == "123"
    assert argv[0] == "--qos=short" and argv[-6:] == [
        "--account=group",
        "--partition=fast",
        "/opt/job.sh",
        "a b",
        "$HOME",
        "'",
    ]


def test_warnings_do_not_make_a_submission_fail(commands: Commands, caplog: pytest.LogCaptureFixture) -> None:
    commands.add("sbatch", "echo 'Memory specification can not be satisfied, or so' >&2", "echo hello", "echo '123;c'")

    assert commands.slurm().submit(REQUEST) == "123"
    assert "sbatch warned slurm=123" in caplog.text


def test_a_submission_that_blames_the_job_is_refused_in_words_for_people(commands: Commands) -> None:
    commands.add("sbatch", "echo 'sbatch: error: Memory specification can not be satisfied' >&2", "exit 1")

    with pytest.raises(Refused, match="^no node of the cluster has the memory it asks for$"):
        commands.slurm().submit(REQUEST)


def test_a_no_in_other_words_is_declined_in_slurms_own_words(commands: Commands) -> None:
    commands.add("sbatch", "echo 'sbatch: error: The centre wants no such jobs' >&2", "exit 1")

    with pytest.raises(Declined, match="^The centre wants no such jobs$"):
        commands.slurm().submit(REQUEST)


def test_an_objection_is_asked_for_without_submitting(commands: Commands) -> None:
    commands.add("sbatch", 'echo "$1 $2" >"$saw"', "echo 'allocation failure: Invalid qos specification' >&2", "exit 1")

    assert commands.slurm().objection(REQUEST) == "Invalid qos specification"
    assert commands.saw.read_text() == "--test-only --qos=short\n"


def test_a_job_that_slurm_would_take_meets_no_objection_and_silence_is_none(commands: Commands) -> None:
    commands.add("sbatch", "echo 'sbatch: Job 2 to start at 2026-01-01T00:00:00' >&2")
    assert commands.slurm().objection(REQUEST) == ""

    commands.add("sbatch", "echo 'allocation failure: Unable to contact slurm controller' >&2", "exit 1")
    with pytest.raises(Unavailable):
        commands.slurm().objection(REQUEST)


def test_an_id_on_stdout_does_not_heal_a_failure(commands: Commands) -> None:
    commands.add("sbatch", "echo 123", "echo 'Socket timed out' >&2", "exit 1")

    with pytest.raises(Unavailable, match="sbatch ended with exit code 1 and said: Socket timed out / 123"):
        commands.slurm().submit(REQUEST)


@pytest.mark.parametrize("said", ["", "Submitted batch job 123"])
def test_success_without_an_id_is_unclear(commands: Commands, said: str) -> None:
    commands.add("sbatch", f"echo '{said}'")

    with pytest.raises(Unavailable, match=f"exit code 0 and said: {said or 'nothing'}"):
        commands.slurm().submit(REQUEST)


@pytest.mark.parametrize("hanging", ["exec sleep 600", "sleep 600 & sleep 600"])
def test_a_command_that_hangs_is_unavailable_in_time(commands: Commands, hanging: str) -> None:
    commands.add("sbatch", hanging)
    begun = time.monotonic()

    with pytest.raises(Unavailable, match="sbatch gave no answer within"):
        commands.slurm(timeout=0.2).submit(REQUEST)

    assert time.monotonic() - begun < 500


def test_a_missing_command_is_unavailable_and_the_text_says_what_to_set(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm.cluster._STANDARD_PATH", "/nowhere")  # this machine may have a Slurm

    with pytest.raises(Unavailable, match="sbatch could not be started: No such file or directory.*bin_dir"):
        commands.slurm().submit(REQUEST)


def test_bytes_that_are_no_text_do_no_harm(commands: Commands) -> None:
    commands.add("sbatch", "printf '\\377\\n' >&2", "echo 123")

    assert commands.slurm().submit(REQUEST) == "123"


def test_the_environment_is_made_from_scratch(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RABBITMQ_PASSWORD", "API_PASSWORD", "SLURM_JOB_ID", "SBATCH_ACCOUNT", "PYTHONPATH", "LC_ALL"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("SLURM_CONF", "/etc/s.conf")
    commands.add("sbatch", 'cat /proc/$$/environ > "$saw"', "echo 123")

    commands.slurm().submit(REQUEST)

    environment = dict(entry.split("=", 1) for entry in commands.saw.read_text().split("\0")[:-1])
    assert set(environment) == {"PATH", "HOME", "USER", "LOGNAME", "LANG", "SLURM_CONF"}
    assert environment["PATH"].split(":")[0] == str(commands.folder)
    assert (environment["USER"], environment["SLURM_CONF"]) == (getpass.getuser(), "/etc/s.conf")
    assert "canary" not in str(environment)


def test_a_question_asks_for_seconds_since_1970(commands: Commands) -> None:
    commands.add("squeue", 'cat /proc/$$/environ > "$saw"', "echo '7|COMPLETED|1700000000|None|n1|bf-a-1'")

    (view,) = commands.slurm().queue()

    assert "SLURM_TIME_FORMAT=%s" in commands.saw.read_text().split("\0")
    assert (view.slurm_id, view.phase, view.ended_at) == ("7", Phase.ENDED, 1700000000.0)


def test_with_accounting_the_cancelled_and_the_preempted_are_left_to_it(commands: Commands) -> None:
    commands.add("squeue", 'for s in CANCELLED PREEMPTED TIMEOUT; do echo "7|$s|1|None|n1|bf"; done')

    with_it, without = commands.slurm(accounting=True).queue(), commands.slurm(accounting=False).queue()

    assert [view.phase for view in with_it] == [Phase.ENDED, Phase.UNKNOWN, Phase.ENDED]
    assert [view.more_in_history for view in with_it] == [True, True, False]
    assert [view.phase for view in without] == [Phase.ENDED, Phase.ENDED, Phase.ENDED]
    assert not any(view.more_in_history for view in without)


@pytest.mark.parametrize("until", [0, 500])
def test_history_is_asked_about_the_time_that_is_meant(commands: Commands, until: int) -> None:
    commands.add("sacct", 'printf "%s\\n" "$@" > "$saw"', "echo '7|CANCELLED by 0|0:15|1700000000||bf-a-1'")
    now = time.time()

    (view,) = commands.slurm().history(["bf-a-1"], now - 1000, now - until)

    ages = {
        name: int(age) for name, age in re.findall(r"--(starttime|endtime)=now-(\d+)seconds", commands.saw.read_text())
    }
    took = time.time() - now
    assert 1000 <= ages["starttime"] <= 1000 + took and until <= ages.get("endtime", 0) <= until + took
    assert (view.end, view.by) == ("cancelled", "root")


def test_a_question_about_too_long_a_time_is_known_as_such(commands: Commands) -> None:
    commands.add("sacct", "echo 'sacct: error: slurmdbd: Too wide of a date range in query' >&2", "exit 1")

    with pytest.raises(TooWide):
        commands.slurm().history(["bf-a-1"], 0)


def test_a_user_without_a_name_keeps_the_number(commands: Commands) -> None:
    commands.add("sacct", "echo '7|CANCELLED by 4000000000|0:15|1700000000||bf-a-1'")

    (view,) = commands.slurm().history(["bf-a-1"], since=0)

    assert view.by == "4000000000"


def test_without_accounting_nobody_asks_sacct(commands: Commands) -> None:
    commands.add("sacct", 'touch "$saw"', "exit 1")

    assert commands.slurm(accounting=False).history(["bf-a-1"], since=0) == []
    assert not commands.saw.exists()


@pytest.mark.parametrize("name", ["squeue", "sacct"])
def test_a_question_that_fails_is_no_empty_answer(commands: Commands, name: str) -> None:
    commands.add(name, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2", "exit 1")
    slurm = commands.slurm()

    with pytest.raises(Unavailable, match="Unable to contact"):
        slurm.queue() if name == "squeue" else slurm.history(["a"], time.time())


@pytest.mark.parametrize("name", ["squeue", "sacct"])
def test_an_answer_that_is_cut_off_is_no_answer(commands: Commands, name: str) -> None:
    commands.add(name, "printf '7|RUNNING|N/A|None|n1|bf-a-1\\n8|COMPLE'")
    slurm = commands.slurm()

    with pytest.raises(Unavailable, match="middle of a line"):
        slurm.queue() if name == "squeue" else slurm.history(["a"], time.time())


def test_cancelling_passes_the_ids_on(commands: Commands) -> None:
    commands.add("scancel", 'echo "$@" > "$saw"')

    commands.slurm().cancel([SlurmJobId("7"), SlurmJobId("8")], only_waiting=True)

    assert commands.saw.read_text() == "--quiet --state=PENDING 7 8\n"


def test_a_waiting_element_of_an_array_is_cancelled_without_the_filter_that_takes_all_of_it(commands: Commands) -> None:
    commands.add("scancel", 'echo "$@" >> "$saw"')

    commands.slurm().cancel([SlurmJobId("7_0"), SlurmJobId("8")], only_waiting=True)

    assert commands.saw.read_text() == "--quiet 7_0\n--quiet --state=PENDING 8\n"


def test_a_command_is_counted_where_it_runs(commands: Commands) -> None:
    for name in ("scancel", "sbatch"):
        commands.add(name, 'echo "$0" >> "$saw"', "echo 7")
    counted: list[str] = []

    def spent_on(command: str) -> AbstractContextManager[None]:
        counted.append(command)
        return nullcontext()

    slurm = commands.slurm(accounting=False, spent_on=spent_on)
    elements = [SlurmJobId(f"7_{number}") for number in range(500)]
    slurm.cancel([*elements, *(SlurmJobId(f"{8 + number}") for number in range(500))])
    slurm.cancel(elements)
    slurm.submit(REQUEST)
    slurm.history(["a"], 0)  # there is none to ask

    ran = [Path(line).name for line in commands.saw.read_text().splitlines()]
    assert counted == ran == ["scancel", "scancel", "scancel", "sbatch"]


@pytest.mark.parametrize("error", [LookupError("none is left"), OSError(errno.ENOSPC, "the count can't be written")])
def test_a_command_that_may_not_be_spent_is_not_run(commands: Commands, error: Exception) -> None:
    commands.add("scancel", 'echo "$@" >> "$saw"')

    def spent_on(command: str) -> AbstractContextManager[None]:
        raise error

    with pytest.raises(type(error)):
        commands.slurm(spent_on=spent_on).cancel([SlurmJobId("7")])
    assert not commands.saw.exists()


def test_cancelling_that_fails_is_told(commands: Commands) -> None:
    commands.add("scancel", "exit 1")

    with pytest.raises(Unavailable, match="scancel ended with exit code 1 and said: nothing"):
        commands.slurm().cancel([SlurmJobId("7")])


def test_our_own_environment_is_left_alone(commands: Commands) -> None:
    before = dict(os.environ)
    commands.add("squeue", "true")

    commands.slurm().queue()

    assert dict(os.environ) == before


@pytest.mark.parametrize(("said", "none_here", "fix"), [
    ("Slurm accounting storage is disabled", True, "set accounting = false"),
    ("sacct: error: Problem talking to the database: Connection refused", False, "(slurmdbd) is away"),
    ("sacct: error: Sending PersistInit msg: Connection refused", False, "(slurmdbd) is away"),
    ("sacct: error: Munge encode failed: Failed to access \"/run/munge\"", False, "Is munge running on this host"),
])  # fmt: skip
def test_accounting_that_is_away_is_not_one_that_there_is_not(
    commands: Commands, said: str, none_here: bool, fix: str
) -> None:
    commands.add("sacct", f"echo {shlex.quote(said)} >&2", "exit 1")

    with pytest.raises(Unavailable) as fault:
        commands.slurm().history(["bf-a-1"], since=0)

    assert isinstance(fault.value, NoHistory) == none_here and fix in fault.value.fix
    assert ("accounting = false" in str(fault.value)) == none_here


@pytest.mark.parametrize(("said", "fix"), [
    ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "(slurmctld) is away"),
    ("fatal: Could not establish a configuration source", "Set SLURM_CONF to the cluster's slurm.conf"),
    ("error: If munged is up, restart with --num-threads=10", "Is munge running"), ("Segmentation fault", "by hand"),
])  # fmt: skip
def test_a_command_that_fails_says_what_to_do(commands: Commands, said: str, fix: str) -> None:
    commands.add("squeue", f"echo {shlex.quote(said)} >&2", "exit 1")

    with pytest.raises(Unavailable) as fault:
        commands.slurm().queue()

    assert fix in fault.value.fix
