"""What goes on showing things ends with whoever looks: a closed terminal, a reader, a signal; and says nothing of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from tests.installation import ROOT, Installation
from tests.worker.login.situations import job, started
from tests.worker.operate.ground import put
from worker.job.facts import Progress

LONG = 60.0
"""Seconds in which even a busy machine ends a process that has nothing more to do."""
WATCH = ["status", "--watch", "600", "--offline"]
FOLLOW = ["show", "a", "--follow", "--offline"]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """With a job that is running and says nothing."""
    nobody = SimpleNamespace(host="127.0.0.1", user="u", password="p", vhost="/", port=9)
    made = Installation(tmp_path / "place", nobody, "http://127.0.0.1:9", "u", "p", {}, "jobs")
    made.jobs.prepare()
    attempt = put(made.jobs, "a", job(started())).attempt(1)
    attempt.progress.write(Progress(0.5, "half", 1))
    attempt.log.write_text("the first line\n")
    return made


@contextlib.contextmanager
def begun(installation: Installation, words: list[str], stdout: int, before: str = "",
          stderr: Optional[int] = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """`before`: what the shell that starts it does first."""
    argv = [sys.executable, str(ROOT / "check.py"), *words, "--site", str(installation.site_file), "--credentials",
            str(installation.credentials_file)]  # fmt: skip
    process = subprocess.Popen(
        ["sh", "-c", f'{before}\nexec "$@"', "sh", *argv], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        env={**os.environ, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(descriptor: int, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        seen += os.read(descriptor, 65536)
    return seen


@pytest.mark.parametrize(("words", "shown"), [(WATCH, b"of at most"), (FOLLOW, b"the first line")])
def test_it_ends_when_its_terminal_is_closed_also_where_that_signal_is_ignored(
    words: list[str], shown: bytes, installation: Installation
) -> None:
    mine, its = os.openpty()
    with begun(installation, words, its, before="trap '' HUP") as process:
        os.close(its)
        read_until(mine, shown)
        os.close(mine)

        assert process.wait(LONG) == 128 + signal.SIGPIPE
        assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.parametrize(("words", "shown"), [(WATCH, b"of at most"), (FOLLOW, b"the first line")])
def test_it_ends_when_the_reader_of_its_pipe_ends(words: list[str], shown: bytes, installation: Installation) -> None:
    mine, its = os.pipe()
    with begun(installation, words, its) as process:
        os.close(its)
        read_until(mine, shown)
        os.close(mine)

        assert process.wait(LONG) == 128 + signal.SIGPIPE
        assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_it_and_the_terminal_gets_its_screen_back(number: int, installation: Installation) -> None:
    mine, its = os.openpty()
    with begun(installation, WATCH, its) as process:
        os.close(its)
        read_until(mine, b"of at most")
        process.send_signal(number)

        assert process.wait(LONG) == 128 + number
        read_until(mine, b"\x1b[?1049l")
    os.close(mine)


@pytest.mark.parametrize(
    "words", [["status", "--offline"], ["show", "a", "--offline"], ["status", "--json", "--offline"]]
)
def test_a_verb_whose_reader_is_gone_says_nothing_of_it(words: list[str], installation: Installation) -> None:
    mine, its = os.pipe()
    os.close(mine)
    with begun(installation, words, its) as process:
        os.close(its)

        assert process.wait(LONG) == 128 + signal.SIGPIPE
        assert process.stderr is not None and process.stderr.read() == b""


@pytest.mark.parametrize(("words", "code"), [(["status", "--offline"], 0), (WATCH, 128 + signal.SIGPIPE)])
def test_where_standard_output_was_closed_from_the_start_nothing_is_shown_and_nothing_goes_on(
    words: list[str], code: int, installation: Installation
) -> None:
    with begun(installation, words, subprocess.DEVNULL, before="exec >&-") as process:
        assert process.wait(LONG) == code
        assert process.stderr is not None and process.stderr.read() == b""


def test_an_error_of_the_disk_is_not_taken_for_a_reader_that_is_gone() -> None:
    from worker.operate import terminal

    def fails() -> Any:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        terminal.until_nobody_looks(fails)
