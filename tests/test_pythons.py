"""A `python3` that is too old (RHEL 8 has 3.6) is told so in a sentence, or somebody newer does its work."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installation import ROOT

READ_BY_OLD_ONES = ("check.py", "worker/__init__.py", "worker/pythons.py")
_QUOTED = "'" + sys.executable.replace("'", "'\"'\"'") + "'"
_OLD = f"""\
#!/bin/sh
'exec' {_QUOTED} '-S' "$0" "$@"
import argparse, ast, gc, importlib.util, io, logging, os, pathlib, runpy, shutil, signal, subprocess, sys, typing

class Finder:
    def find_spec(name, path, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and spec.origin and "/worker/" in spec.origin:
            ast.parse(open(spec.origin).read(), feature_version=(3, 6))
        return spec

sys.version_info, sys.executable = (3, 6, 8, "final", 0), sys.argv[0]
words = [word for word in sys.argv[1:] if word != "-E"]
if words[0] == "-c":
    exec(words[1])
else:
    sys.argv, sys.path[0] = words, os.path.dirname(words[0])
    sys.meta_path.insert(0, Finder)
    ast.parse(open(words[0]).read(), feature_version=(3, 6))
    runpy.run_path(words[0], run_name="__main__")
"""
"""Does as Python 3.6.8: it refuses what that would not understand. To Python its second line is a text; a #! line can't name a
program in a folder with a space in its name."""
_NEW = '#!/bin/sh\n[ "$1$2" != -E-c ] && [ "$1" != -c ] && printf "%s|" "${0##*/}" "$@"\nexit 0\n'


@pytest.fixture
def checkout(odd_folder: Path) -> Path:
    for name in (*READ_BY_OLD_ONES, "run_check"):
        (odd_folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, odd_folder / name)
    return odd_folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with the old one first, and little else."""
    for name in ("sh", "bash", "dirname", "readlink"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        os.symlink(shutil.which(name) or "", tmp_path / "bin" / name)
    return program(tmp_path / "bin" / "python3", _OLD).parent


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def run(script: Path, path: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([str(script), *words], env={"PATH": str(path)}, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", READ_BY_OLD_ONES)
def test_what_an_old_python_reads_is_in_its_language(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 5))

    newer = [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr))]
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert newer == [] and "__future__" not in imported


def test_the_checkout_s_own_python_takes_over(checkout: Path, path: Path) -> None:
    program(checkout / ".venv" / "bin" / "python", _NEW)
    program(path / "python3.11", _NEW)

    assert run(checkout / "check.py", path, "status", "--site", "a b") == (
        0, f"python|-E|{checkout}/check.py|status|--site|a b|",
    )  # fmt: skip


def test_without_a_venv_a_newer_one_takes_over_by_its_name(checkout: Path, path: Path) -> None:
    program(path / "python3.9", _NEW)
    program(path / "python3.12", _NEW)

    assert run(checkout / "check.py", path, "doctor") == (0, f"python3.12|-E|{checkout}/check.py|doctor|")


@pytest.mark.parametrize("venv", [False, True])
def test_where_there_is_no_newer_one_it_says_what_it_found_and_what_it_needs(
    checkout: Path, path: Path, venv: bool
) -> None:
    if venv:
        program(checkout / ".venv" / "bin" / "python", _OLD)

    code, said = run(checkout / "check.py", path)

    assert code == os.EX_CONFIG
    assert said.startswith(f"check.py: this is Python 3.6.8 ({path}/python3), and Batchferry needs 3.9 or newer. No ")
    assert "python3.x -m venv" + (" --clear" if venv else "") + " .venv && " in said


def test_packages_are_never_to_be_installed_with_a_python_that_can_not_have_them(checkout: Path, path: Path) -> None:
    program(checkout / ".venv" / "bin" / "python", _OLD)
    program(path / "python3.10", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')

    for room in ("worker", "scheduler", "slurm"):
        shutil.copytree(ROOT / room, checkout / room, dirs_exist_ok=True)

    code, said = run(checkout / "check.py", path, "init")

    assert code == os.EX_CONFIG
    assert f"is missing. Run: cd {shlex.quote(str(checkout))} && python3.10 -m venv --clear .venv && " in said


@pytest.mark.parametrize(("newer", "words"), [
    ("python3.13", "python3.13 -m venv .venv && .venv/bin/pip install -r requirements.txt\n"),
    ("", "python3.x -m venv .venv && .venv/bin/pip install -r requirements.txt  (no Python 3.9 or newer is on PATH here)\n"),
])  # fmt: skip
def test_run_check_names_one_that_can_make_the_venv(checkout: Path, path: Path, newer: str, words: str) -> None:
    if newer:
        program(path / newer, _NEW)

    code, said = run(checkout / "run_check", path)

    assert (code, said.endswith(words)) == (os.EX_CONFIG, True), said


@pytest.mark.parametrize("script", ["run_check", "run_demo", "run_tests"])
def test_each_script_looks_for_newer_ones_by_name(script: str) -> None:
    assert "python3 python3.{14..9}" in (ROOT / script).read_text()
