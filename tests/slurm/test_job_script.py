"""The batch script, as slurmd runs it: a copy somewhere else, told where everything is, with a fake python behind it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "job.sh"
PYTHON = """\
#!/bin/bash
kill -USR1 $$
printf '%s\\0' "$PWD" "$@"
exit 5
"""


@pytest.fixture
def root(odd_folder: Path) -> Path:
    """An install root whose own name is odd, with a python that tells how it was called and exits with 5."""
    (odd_folder / "python").write_text(PYTHON)
    (odd_folder / "python").chmod(0o755)
    shutil.copy(SCRIPT, odd_folder / "slurm_script")
    return odd_folder


def run(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [str(root), str(root / "python"), "/s ite.toml", "/cred'entials.env", "/group $(x).json"]
    return subprocess.run(
        ["/bin/bash", str(root / "slurm_script"), *words], cwd="/", capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "41", "SLURMD_NODENAME": "n1", **environment},
    )  # fmt: skip


def test_a_single_job_becomes_the_worker(root: Path) -> None:
    done = run(root)

    assert done.stderr == ""
    assert done.stdout.split("\0")[:-1] == [
        str(root), "-m", "worker", "run", "--site", "/s ite.toml", "--credentials", "/cred'entials.env",
        "--group", "/group $(x).json", "--element", "0", "--scheduler-id", "41", "--restarts", "0", "--node", "n1",
        "--confined", "no",
    ]  # fmt: skip


def test_an_element_of_an_array_is_told_its_number_and_its_own_id(root: Path) -> None:
    done = run(root, SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_JOB_ID="40", SLURM_RESTART_COUNT="2")

    words = done.stdout.split("\0")
    told = dict(zip(words[4::2], words[5::2]))
    assert (told["--element"], told["--scheduler-id"], told["--restarts"]) == ("3", "40_3", "2")


def test_the_first_element_of_an_array_is_an_element_too(root: Path) -> None:
    done = run(root, SLURM_ARRAY_TASK_ID="0", SLURM_ARRAY_JOB_ID="40")

    assert "\0--scheduler-id\00040_0\0" in done.stdout


def test_the_exit_code_is_the_worker_s_and_a_warning_does_not_end_it(root: Path) -> None:
    done = run(root)

    assert done.returncode == 5, f"ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""


def test_a_missing_install_root_is_an_error_of_its_own(root: Path) -> None:
    done = subprocess.run(
        ["/bin/bash", str(SCRIPT), str(root / "gone"), str(root / "python"), "s", "c", "g"], capture_output=True,
        text=True, env={**os.environ, "SLURM_JOB_ID": "41"}, check=False,
    )  # fmt: skip

    assert done.returncode == os.EX_OSFILE
    assert done.stdout == ""
