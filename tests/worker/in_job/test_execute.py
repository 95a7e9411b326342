"""The workload runs in a session of its own, and nothing of it is left afterwards."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.errors import StepFailed
from worker.in_job.execute import Exit, execute
from worker.in_job.interrupt import Interrupted, Interrupts

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)


def run(folder: Path, *argv: str, seconds: float = 1000, stop_wait: float = 100) -> Exit:
    with Interrupts(seconds) as interrupts:
        return execute(argv, folder, {"PATH": "/usr/bin:/bin", "A": "b"}, folder / "log", interrupts, stop_wait)


def bash(folder: Path, script: str, seconds: float = 1000, stop_wait: float = 100) -> Exit:
    return run(folder, "/bin/bash", "-c", script, seconds=seconds, stop_wait=stop_wait)


def is_gone(pid_file: Path) -> bool:
    """Dead, or dead and not yet buried by init."""
    stat = Path("/proc", pid_file.read_text().strip(), "stat")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_program_that_ends_well(tmp_path: Path) -> None:
    exit = bash(tmp_path, "echo hello; echo there >&2")

    assert (exit.code, exit.signal, exit.signal_name, exit.tail) == (0, 0, "", "")
    assert (tmp_path / "log").read_text() == "hello\nthere\n"


def test_a_program_that_ends_badly(tmp_path: Path) -> None:
    assert (bash(tmp_path, "exit 3").code, bash(tmp_path, "exit 3").signal_name) == (3, "")


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")])
def test_a_program_that_is_ended_by_a_signal(tmp_path: Path, number: int, name: str) -> None:
    exit = bash(tmp_path, f"kill -{number} $$")

    assert (exit.code, exit.signal, exit.signal_name) == (128 + number, number, name)


def test_it_runs_in_its_folder_with_its_environment_and_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_PASSWORD", "canary")

    bash(tmp_path, 'pwd; tr "\\0" "\\n" < /proc/$$/environ | sort; wc -c')

    assert (tmp_path / "log").read_text().splitlines() == [str(tmp_path), "A=b", "PATH=/usr/bin:/bin", "0"]


def test_no_shell_reads_its_words(tmp_path: Path) -> None:
    run(tmp_path, "/bin/echo", "$HOME", "a  b", "'", "; id")

    assert (tmp_path / "log").read_text() == "$HOME a  b ' ; id\n"


def test_the_tail_of_one_that_ends_badly_is_the_end_of_its_own_output(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("said before\n")

    assert bash(tmp_path, "false").tail == ""
    assert bash(tmp_path, "echo short; false").tail == "short\n"
    long = f"head -c 9000 /dev/zero | tr '\\0' x; {sys.executable!r} -c 'print(\"é\")'; false"
    assert bash(tmp_path, long).tail.endswith("xxé\n")
    assert (tmp_path / "log").read_text().startswith("said before\nshort\n")


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    assert bash(tmp_path, "printf '\\377ok'; false").tail == "\ufffdok"


@pytest.mark.parametrize(("argv", "why"), [("/no/such/program", "No such file"), ("/etc/passwd", "Permission denied")])
def test_a_program_that_can_t_be_started_is_its_node_s_fault(tmp_path: Path, argv: str, why: str) -> None:
    with pytest.raises(StepFailed, match=f"could not start the program \\({why}") as failed:
        run(tmp_path, argv)

    assert failed.value.step == "start" and failed.value.may_work_again and argv not in failed.value.reason


def test_a_program_for_another_kind_of_machine_is_its_node_s_fault(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF of no machine")
    (tmp_path / "program").chmod(0o700)

    with pytest.raises(StepFailed, match="Exec format error") as failed:
        run(tmp_path, str(tmp_path / "program"))

    assert failed.value.step == "start" and failed.value.may_work_again


def test_a_program_that_ends_as_a_shell_ends_that_finds_none_has_run(tmp_path: Path) -> None:
    assert bash(tmp_path, "no_such_program").code == 127
    assert bash(tmp_path, "/etc/passwd").code == 126


def test_a_signal_that_we_ignore_is_not_ignored_by_the_program(tmp_path: Path) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    assert bash(tmp_path, "kill -USR1 $$; exit 0").signal_name == "SIGUSR1"


# --- nothing is left


def test_children_that_outlive_it_are_ended(tmp_path: Path) -> None:
    exit = bash(tmp_path, "sleep 300 & echo $! > child; (set -m; sleep 301 & echo $! > own_group); exit 0")

    assert exit.code == 0
    assert is_gone(tmp_path / "child") and is_gone(tmp_path / "own_group")


def test_children_are_ended_after_a_bad_end_too(tmp_path: Path) -> None:
    bash(tmp_path, "(trap '' TERM; sleep 300) & echo $! > child; kill -9 $$")

    assert is_gone(tmp_path / "child")


def test_at_the_time_limit_it_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as interrupted:
        run(tmp_path, "/bin/sleep", "300", seconds=0.3)

    assert interrupted.value.by_clock


STOP_NOW = "kill -TERM $PPID"
"""In a script, once it is ready: whoever runs it is asked to stop then, and no sooner, however slow the machine is."""


def test_a_program_that_is_asked_to_end_may_tidy_up(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        bash(
            tmp_path,
            f"trap 'echo tidy > tidy; exit' TERM; sleep 300 & echo $! > child; {STOP_NOW}; wait",
            stop_wait=100,
        )

    assert (tmp_path / "tidy").read_text() == "tidy\n"
    assert is_gone(tmp_path / "child")


def test_what_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    begun = time.monotonic()

    with pytest.raises(Interrupted):
        bash(tmp_path, f"trap '' TERM; echo $$ > self; {STOP_NOW}; while :; do sleep 0.05; done", stop_wait=0.3)

    assert is_gone(tmp_path / "self")
    assert 0.3 <= time.monotonic() - begun


def test_a_request_to_stop_ends_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as interrupted:
        bash(tmp_path, f"echo $$ > self; {STOP_NOW}; exec sleep 300")

    assert not interrupted.value.by_clock
    assert is_gone(tmp_path / "self")


def test_a_request_that_came_before_it_started_stops_it(tmp_path: Path) -> None:
    with Interrupts(1000) as interrupts, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        execute(["/bin/sleep", "300"], tmp_path, {}, tmp_path / "log", interrupts, 5)
