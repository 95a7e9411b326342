"""What can be wrong before there is a jobs folder: each is a sentence that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.installation import ROOT
from tests.worker.examples import config_for
from worker.doctor.checkout import look_at_scripts
from worker.doctor.disk import look_at_jobs_folder
from worker.doctor.report import FAULT, OK, Finding, Report
from worker.doctor.subject import Subject
from worker.errors import NotOurs
from worker.folder.jobs import JobsFolder
from worker.install.init import Wishes, init
from worker.login import guard
from worker.login.mark import check_mark


def found(report: Report, check: str) -> Finding:
    return next(each for each in report.findings if each.check == check)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "slurm").mkdir()
    for name in ("check.py", "run_check", "slurm/job.sh", "slurm/doctor.sh", "site.example.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def scripts(checkout: Path) -> Finding:
    report = Report("files")
    look_at_scripts(report, checkout)
    return found(report, "scripts")


def test_a_whole_checkout_is_well(checkout: Path) -> None:
    assert scripts(checkout).mark == OK


def test_a_script_that_is_missing_is_named_with_what_brings_it_back(checkout: Path) -> None:
    (checkout / "slurm" / "job.sh").unlink()

    line = scripts(checkout)

    assert (line.mark, "slurm/job.sh" in line.found) == (FAULT, True)
    assert line.mend.endswith(" checkout -- slurm/job.sh")


def test_a_script_that_may_not_be_run_is_named(checkout: Path) -> None:
    (checkout / "run_check").chmod(0o644)

    line = scripts(checkout)

    assert (line.mark, line.found) == (FAULT, "not executable: run_check") and "chmod u+x run_check" in line.mend


def subject_of(folder: Path) -> Subject:
    config = config_for(folder, "https://api.example.org")
    return Subject(folder, config.site_file, config.credentials_file, config.site, config.credentials)


def test_a_full_disk_is_seen_where_the_jobs_folder_will_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(tmp_path)
    site = replace(subject.known_site, jobs_dir=tmp_path / "new" / "jobs")
    full = SimpleNamespace(f_bavail=0, f_frsize=4096, f_files=1000, f_favail=500)
    monkeypatch.setattr("worker.doctor.disk.os.statvfs", lambda path: full)
    report = Report("jobs folder")

    look_at_jobs_folder(report, replace(subject, site=site))

    line = found(report, "room")
    assert (line.mark, line.found) == (FAULT, "0 MiB free: no message is taken")
    assert line.mend.startswith(f"Make room on the disk of {tmp_path}, or")


@pytest.mark.parametrize(("number", "fix"), [
    (errno.ENOSPC, "Make room there"), (errno.EDQUOT, "Make room there"), (errno.EROFS, "It is mounted read-only"),
    (errno.EACCES, "Set jobs_dir in site.toml to a folder of your own"), (errno.ESTALE, "Is its file system mounted?"),
])  # fmt: skip
def test_a_pass_that_can_not_make_its_folder_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, fix: str
) -> None:
    def refuse(self: JobsFolder) -> None:
        raise OSError(number, os.strerror(number), str(self.path))

    monkeypatch.setattr(JobsFolder, "prepare", refuse)

    assert guard.guarded_pass(config_for(tmp_path, "https://api.example.org"), drain=False) == os.EX_CANTCREAT
    assert f"{os.strerror(number)}: " in caplog.text and f". {fix}" in caplog.text


def test_init_on_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("worker.install.files.os.fsync", refuse)
    given = {name: "x" for name in ("rabbitmq_host", "rabbitmq_user", "rabbitmq_password", "api_url", "api_user")}
    wishes = Wishes({**given, "api_password": "x"}, None, "crontab", False, False)

    assert init(ROOT, tmp_path / "site.toml", tmp_path / "credentials.env", wishes) == os.EX_CANTCREAT
    assert capsys.readouterr().err.startswith(f"check.py: {tmp_path}: No space left on device. Make room there, or ")
    assert list(tmp_path.iterdir()) == []


def test_a_jobs_folder_of_another_user_is_not_to_be_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "installation.json").mkdir()  # what can't be read, whoever asks
    monkeypatch.setattr("worker.login.mark.os.access", lambda path, mode: False)

    with pytest.raises(NotOurs) as error:
        check_mark(tmp_path / "site.toml", JobsFolder(theirs))

    assert error.value.found == f"{theirs} is closed to us" and "Remove" not in error.value.fix
