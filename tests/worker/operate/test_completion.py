"""What a shell offers behind check.py is what its parsers take."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import check
from tests.installation import ROOT, Installation
from tests.worker.login.situations import job, submitted
from tests.worker.operate.ground import put
from worker.job.stage import ENDED_STATES, STATES
from worker.operate import completion

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]
BASH = "{script}\nCOMP_WORDS=({words}); COMP_CWORD={last}; _batchferry; printf '%s\\n' \"${{COMPREPLY[@]}}\""
ZSH = """\
compdef() {{ }}; compinit() {{ }}
_describe() {{ print -rl -- ${{${{(P)2}}%%:*}} }}
compadd() {{ shift; print -rl -- $@ }}
_files() {{ print -rl -- *(N) }}
{script}
words=({words}); CURRENT=$(({last} + 1)); _batchferry"""


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    monkeypatch.setattr("sys.argv", ["check.py", "completion", "bash"])
    return check._parser()


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    return completion._script(shell, list(completion._lines(parser)), str(ROOT / "check.py"))


def offered(shell: str, parser: argparse.ArgumentParser, line: str, place: Path) -> set[str]:
    """What it offers at the end of this line. zsh leaves it to its own functions to take what begins so."""
    words = [word or '""' for word in line.split(" ")]
    text = (BASH if shell == "bash" else ZSH).format(
        script=script(shell, parser), words=" ".join(words), last=len(words) - 1
    )
    flags = ["--norc"] if shell == "bash" else ["-f"]
    done = subprocess.run(
        [shell, *flags, "-c", text], cwd=place, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return {word for word in done.stdout.split() if word.startswith(words[-1].strip('"'))}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("line", "expected"), [
    ("./check.py st", {"status"}),
    ("./check.py --dr", {"--drain", "--dry-run"}),
    ("./check.py status --state ", {*STATES, *ENDED_STATES}),
    ("/a/b/check.py --site show status --ou", {"--outcome"}),
    ("./check.py --log-format ", {"text", "json"}),
    ("./check.py rerun --memory-mb ", set()),
    ("./check.py status --watch --off", {"--offline"}),
    ("./check.py completion ", {"bash", "zsh", "jobs", "--help", "--site", "--credentials", "-h"}),
    ("./check.py report --output ", {"page.html"}),
])  # fmt: skip
def test_what_may_stand_there_is_offered(
    shell: str, line: str, expected: set[str], parser: argparse.ArgumentParser, tmp_path: Path
) -> None:
    (tmp_path / "page.html").touch()

    assert offered(shell, parser, line, tmp_path) == expected


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("verb", [*check.EARLY_VERBS, *check.VERBS])
def test_every_option_of_every_verb_is_offered(
    shell: str, verb: str, parser: argparse.ArgumentParser, tmp_path: Path
) -> None:
    inner = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction)).choices[verb]
    options = {name for each in inner._actions if each.help != argparse.SUPPRESS for name in each.option_strings}

    assert offered(shell, parser, f"./check.py {verb} -", tmp_path) == options


def test_both_shells_read_the_whole_script(parser: argparse.ArgumentParser) -> None:
    """The words of a help may hold any quote."""
    for shell in SHELLS:
        assert subprocess.run([shell, "-n"], input=script(shell, parser), text=True, check=False).returncode == 0
    assert "bash" in SHELLS


def test_ids_come_from_the_jobs_folder_and_each_is_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parser: argparse.ArgumentParser
) -> None:
    nobody = SimpleNamespace(host="127.0.0.1", user="u", password="p", vhost="/", port=9)
    made = Installation(tmp_path / "place", nobody, "http://127.0.0.1:9", "u", "p", {}, "jobs")
    made.jobs.prepare()
    for name in ("4f0c" * 8, "5f0c" * 8):
        put(made.jobs, name, job(submitted()))
    files = ["--site", str(made.site_file), "--credentials", str(made.credentials_file)]

    assert completion.run(ROOT, parser.parse_args(["completion", "jobs", *files])) == 0
    assert capsys.readouterr().out.split() == ["4f0c4f0c", "5f0c5f0c", "last"]
    made.site_file.write_text("")
    assert completion.run(ROOT, parser.parse_args(["completion", "jobs", *files])) == 69


def test_the_script_calls_the_check_py_that_made_it(parser: argparse.ArgumentParser) -> None:
    assert f"{shlex.quote(str(ROOT / 'check.py'))} completion jobs" in script("bash", parser)
