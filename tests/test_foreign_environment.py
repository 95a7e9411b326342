"""What modules set for another python, and a user that no directory knows, do no harm."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.cluster import Slurm
from tests.installation import ROOT
from tests.test_alone import Alone, alone  # noqa: F401  # a fixture
from tests.worker.examples import SITE, read
from worker.errors import Misconfigured
from worker.operate.asking import asker

OTHERS = {
    "PYTHONHOME": "/opt/modules/python", "PYTHONPATH": "{shadow}", "PYTHONSAFEPATH": "1", "PYTHONSTARTUP": "/no/such.py",
    "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONUSERBASE": "/no/such", "PYTHONWARNINGS": "error",
    "PYTHONPLATLIBDIR": "nowhere", "VIRTUAL_ENV": "/no/such",
}  # fmt: skip


@pytest.fixture
def others(tmp_path: Path) -> dict[str, str]:
    """All of them at once; PYTHONPATH brings a package of ours that is none."""
    (tmp_path / "shadow").mkdir()
    for name in ("worker", "requests", "pika"):
        (tmp_path / "shadow" / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    return {name: value.format(shadow=tmp_path / "shadow") for name, value in OTHERS.items()}


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = f"{Path(sys.executable).parent}:{os.defpath}"
    return subprocess.run(
        argv, env={"PATH": paths, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        cwd="/", check=False,
    )  # fmt: skip


def test_check_py_is_not_led_astray(others: dict[str, str], tmp_path: Path) -> None:
    done = run(str(ROOT / "check.py"), "status", "--site", str(tmp_path / "none.toml"), **others)

    assert done.returncode == os.EX_CONFIG and "none.toml is not there yet" in done.stderr


@pytest.mark.parametrize("name", sorted(set(OTHERS) - {"PYTHONHOME", "PYTHONPLATLIBDIR"}))
def test_nor_where_a_python_is_named_that_begins_at_all(others: dict[str, str], tmp_path: Path, name: str) -> None:
    call = (sys.executable, str(ROOT / "check.py"), "status", "--site", str(tmp_path / "none.toml"))

    done = run(*call, **{name: others[name]})

    assert done.returncode == os.EX_CONFIG and "none.toml is not there yet" in done.stderr


def test_a_pass_its_job_and_its_program_see_none_of_it(alone: Alone, others: dict[str, str]) -> None:  # noqa: F811
    asked = alone.ask()
    files = alone.installation
    options = ("--site", str(files.site_file), "--credentials", str(files.credentials_file))

    done = run(
        str(ROOT / "check.py"), "--drain", *options, **{**files.environment, **others, "PATH": os.environ["PATH"]}
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Result" in alone.answer(asked)


def test_run_check_takes_them_away(others: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    os.symlink(sys.executable, tmp_path / ".venv" / "bin" / "python")
    (tmp_path / "run_check").write_text((ROOT / "run_check").read_text())
    (tmp_path / "check.py").write_text("import os\nprint([n for n in os.environ if n.startswith('PYTHON')])\n")

    done = run("/bin/bash", str(tmp_path / "run_check"), HOME="/", **others)

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("script", ["job.sh", "doctor.sh"])
def test_the_scripts_of_a_job_take_them_away(others: dict[str, str], tmp_path: Path, script: str) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/bash\nenv | grep ^PYTHON\nexit 0\n")
    python.chmod(0o755)

    done = run(
        "/bin/bash", str(ROOT / "slurm" / script), str(ROOT), str(python), "s", "c", "g", "", SLURM_JOB_ID="1", **others
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# --- a user without an entry


def nobody(uid: int) -> pwd.struct_passwd:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_a_user_without_an_entry_has_a_number_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", "/home/of/mine")

    environment = Slurm()._environment

    assert (environment["HOME"], environment["USER"]) == ("/home/of/mine", str(os.getuid()))
    assert asker().startswith(f"{os.getuid()}@")


def test_where_no_home_is_known_either_paths_are_written_in_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")

    assert Slurm()._environment["HOME"] == "/"
    assert read(tmp_path).site.jobs_dir == tmp_path / "jobs"
    with pytest.raises(Misconfigured, match=r"jobs_dir: it is not known here which folder ~ is. .*\(line 1\)"):
        read(tmp_path, f'jobs_dir = "~/jobs"\n{SITE}')


def test_a_home_of_somebody_who_is_not_known_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="jobs_dir: it is not known here which folder ~nobody-of-this-name is"):
        read(tmp_path, f'jobs_dir = "~nobody-of-this-name/jobs"\n{SITE}')
