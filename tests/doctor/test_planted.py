"""Planted faults that need no service to be seen: each is one line that says what to do."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pika import exceptions

from tests.doctor.test_environment import crontab, environment, jobs, starts, subject
from tests.worker.examples import CREDENTIALS, SITE, config_for, write_files
from worker.amqp.causes import not_opened
from worker.doctor import disk, files, schedule
from worker.doctor.report import FAULT, OK, WARNING, Finding, Report
from worker.doctor.subject import Subject, read_subject
from worker.folder.jobs import JobsFolder

__all__ = ["jobs", "subject"]


def line_of(look: Callable[[Report, Subject], None], subject: Subject, check: str) -> Finding:
    report = Report("group")
    look(report, subject)
    (found,) = [each for each in report.findings if each.check == check]
    return found


def test_what_a_pass_as_root_left_in_the_jobs_folder_is_told(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = line_of(disk.look_at_jobs_folder, subject, "owners")
    theirs = jobs.path / "done"
    os.chown(theirs, os.getuid() + 1, -1)

    found = line_of(disk.look_at_jobs_folder, subject, "owners")

    assert ours.mark == OK and found.mark == FAULT and str(theirs) in found.found
    assert found.mend.startswith(f"Ask them to run: chown -R {os.getuid()} ")


def test_answers_that_were_given_up_are_told(subject: Subject, jobs: JobsFolder) -> None:
    (jobs.undelivered / "a").mkdir()

    found = line_of(disk.look_at_jobs_folder, subject, "answers not sent")

    assert found.mark == WARNING and found.found.startswith("1 in jobs/undelivered") and "resend" in found.mend


@pytest.mark.parametrize(("full", "mark"), [(True, FAULT), (False, OK)])
def test_a_full_disk_is_told_before_there_is_a_jobs_folder(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, full: bool, mark: str
) -> None:
    real = os.statvfs(subject.root)
    changed = list(real)
    changed[4] = 0 if full else 1 << 40  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(changed))

    assert line_of(disk.look_at_jobs_folder, subject, "room").mark == mark


@pytest.mark.parametrize(
    ("setting", "value"), [("metrics_file", "/nowhere/x.prom"), ("broker_file", Path("/nowhere/b"))]
)
def test_a_file_that_passes_could_not_write_is_told(subject: Subject, setting: str, value: object) -> None:
    assert subject.site is not None
    changed = replace(subject, site=replace(subject.site, broker="embedded", **{setting: value}))  # type: ignore[arg-type]

    found = line_of(files.look_at_files, changed, setting)

    assert found.mark == FAULT and "/nowhere is not there" in found.found and f"correct {setting}" in found.mend


@pytest.mark.parametrize(("credentials", "fix"), [
    (CREDENTIALS.replace("API_URL=", "API_URL=https://x.org/path/"), "credentials.env.example explains each line"),
    (CREDENTIALS + "RABBITMQ_PORT=many\n", "credentials.env.example explains each line"),
])  # fmt: skip
def test_a_fault_of_credentials_env_leads_to_the_file_that_explains_it(
    tmp_path: Path, credentials: str, fix: str
) -> None:
    (tmp_path / "slurm").mkdir()
    read = read_subject(tmp_path, *write_files(tmp_path, SITE, credentials), "")

    found = line_of(files.look_at_files, read, "credentials.env")

    assert found.mark == FAULT and fix in found.mend


def test_a_log_that_is_not_ours_is_told(subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (subject.root / "logs" / "x.log").touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("x.log") and access(path, mode))

    found = starts(subject, monkeypatch, crontab(subject, "SLURM_CONF=/etc/ours.conf"))

    assert (
        found.mark == FAULT and "which we may not; no pass starts" in found.found and found.mend.startswith("Run, as")
    )


@pytest.mark.parametrize("shell", ["/bin/csh", "/nowhere/sh"])
def test_a_shell_of_the_crontab_that_can_not_run_the_line_is_told(subject: Subject, shell: str) -> None:
    found = environment(subject, crontab(subject, "SLURM_CONF=/etc/ours.conf", f"SHELL={shell}"))

    assert found.mark == FAULT and shell in found.found and "SHELL=/bin/sh" in found.mend


def test_a_lease_that_another_host_s_pass_left_is_told(subject: Subject, jobs: JobsFolder) -> None:
    jobs.lease.write_text(json.dumps({"host": "login2", "pid": 7, "began": ""}))
    os.utime(jobs.lease, (time.time() - 300,) * 2)

    left = line_of(schedule.look_at_schedule, subject, "last pass")
    jobs.lease.chmod(0o400)
    ended = line_of(schedule.look_at_schedule, subject, "last pass")

    assert (
        socket.gethostname() != "login2" and left.mark == WARNING and "a pass on login2 holds the lease" in left.found
    )
    assert "900 s after its last sign of life" in left.mend and ended.mark == OK


def test_a_broker_s_guest_is_told_why_it_is_refused(tmp_path: Path) -> None:
    credentials = replace(config_for(tmp_path).credentials, rabbitmq_user="guest", rabbitmq_tls=False)

    cause = not_opened(credentials, None, exceptions.ProbableAuthenticationError(403, "ACCESS_REFUSED"))

    assert "from its own host alone" in cause.fix
