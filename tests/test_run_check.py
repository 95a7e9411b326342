"""The crontab entry: finds its own folder, keeps a second pass out, prints dated lines, passes the exit code on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT

DATED = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) +"


@pytest.fixture
def checkout(odd_folder: Path) -> Path:
    """A checkout with a check.py that says how it was called, in a folder with an odd name."""
    shutil.copy(ROOT / "run_check", odd_folder)
    (odd_folder / ".venv" / "bin").mkdir(parents=True)
    os.symlink(sys.executable, odd_folder / ".venv" / "bin" / "python")
    write_check(odd_folder, "print(os.getcwd(), sys.argv[1:], sorted(os.environ))")
    return odd_folder


def write_check(checkout: Path, code: str) -> None:
    (checkout / "check.py").write_text(f"import os, sys, time\n{code}\n")


def run(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "run_check"), *arguments], cwd="/", capture_output=True, text=True, timeout=300,
        env={"PATH": "/usr/bin:/bin", "HOME": "/", **environment},
    )  # fmt: skip


def test_it_drains_the_queue_from_its_own_folder_with_the_checkouts_python(checkout: Path) -> None:
    done = run(checkout)

    assert done.returncode == 0
    assert done.stdout.startswith(f"{checkout} ['--drain'] ")


def test_a_link_to_it_works_too(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout / "run_check")

    done = subprocess.run([str(link)], capture_output=True, text=True, timeout=300)

    assert str(checkout) in done.stdout


def test_it_adds_nothing_to_the_environment_but_bash_s_own(checkout: Path) -> None:
    done = run(checkout)

    names = set(re.findall(r"'(\w+)'", done.stdout.partition("] ")[2]))
    assert names <= {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}


@pytest.mark.parametrize("code", [69, 70, 77])
def test_it_passes_the_exit_code_on_and_says_so_in_a_dated_line(checkout: Path, code: int) -> None:
    write_check(checkout, f"sys.exit({code})")

    done = run(checkout)

    assert done.returncode == code
    assert re.fullmatch(DATED + f"pass ended with exit code {code} .*\n", done.stdout)


def waits_for(ready: Path, go: Path) -> str:
    """A pass that says when it has begun, and goes on until it is told to end; another one ends at once."""
    begins = f"if os.path.exists({str(ready)!r}): sys.exit()\nopen({str(ready)!r}, 'w').close()"
    return f"{begins}\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"


def test_a_second_pass_on_this_host_is_kept_out(checkout: Path, tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    write_check(checkout, waits_for(ready, go))

    with subprocess.Popen([str(checkout / "run_check")], stdout=subprocess.DEVNULL) as first:
        while not ready.exists():
            assert first.poll() is None
        second = run(checkout)
        go.touch()

    assert second.returncode == os.EX_TEMPFAIL
    assert re.fullmatch(DATED + "another pass is running on this host, nothing done\n", second.stdout)


@pytest.mark.unhurried
def test_the_lock_ends_with_the_pass_and_not_with_what_the_pass_left_running(checkout: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = ["/bin/sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.1; done', str(go)]
    write_check(checkout, f"import subprocess; subprocess.Popen({waits!r}, stdout=-3, stderr=-3, close_fds=False)")

    codes = [run(checkout).returncode, run(checkout).returncode]
    go.touch()

    assert codes == [0, 0]


def test_its_own_lines_are_json_too_where_that_is_wanted(checkout: Path) -> None:
    write_check(checkout, "sys.exit(69)")

    done = run(checkout, "--log-format", "json")

    line = json.loads(done.stdout)
    assert line["level"] == "WARNING" and line["event"].startswith("pass ended with exit code 69 ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", line["at"])


def test_without_a_venv_it_says_how_to_make_one(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")

    done = run(checkout)

    assert done.returncode == os.EX_CONFIG
    assert re.match(DATED + "no python at .venv/bin/python: run ", done.stdout)


def test_two_checkouts_do_not_lock_each_other_out(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkout, other, symlinks=True)
    ready, go = tmp_path / "ready", tmp_path / "go"
    write_check(checkout, waits_for(ready, go))

    with subprocess.Popen([str(checkout / "run_check")], stdout=subprocess.DEVNULL) as first:
        while not ready.exists():
            assert first.poll() is None
        second = run(other)
        still_there = first.poll() is None
        go.touch()

    assert second.returncode == 0 and still_there


def test_check_py_itself_finds_the_checkouts_packages_under_any_python() -> None:
    done = subprocess.run(
        [str(ROOT / "check.py"), "--site", "nowhere.toml"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == os.EX_CONFIG
    assert "nowhere.toml is not there yet. Run: ./check.py init" in done.stderr


def test_where_packages_are_missing_check_py_begins_with_the_checkout_s_own_python(tmp_path: Path) -> None:
    """Nothing is done before: half of it done here and half there would be asked twice, or counted never."""
    checkout = tmp_path / "check out"
    own = checkout / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    own.chmod(0o700)
    (checkout / "worker").mkdir()
    for name in ("check.py", "worker/__init__.py", "worker/pythons.py"):
        shutil.copy(ROOT / name, checkout / name)

    done = subprocess.run(
        [sys.executable, "-S", str(checkout / "check.py"), "init", "--queue", "a b"], capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == (f"-X|again|{checkout}/check.py|init|--queue|a b|", "")
