"""What cron gives to a pass is looked at, and held against what this shell has; who starts passes is told as it is."""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.examples import config_for
from worker.doctor import schedule
from worker.doctor.crontab import pass_lines
from worker.doctor.environment import look_at_environment
from worker.doctor.report import FAULT, OK, SKIPPED, WARNING, Finding, Report
from worker.doctor.subject import Subject
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import SiteFault
from worker.login import lease
from worker.settings import SlurmSettings

SCONTROL = """#!/bin/sh
case $SLURM_CONF in
/etc/ours.conf) echo "ClusterName = ours" ;;
/etc/theirs.conf) echo "ClusterName = theirs" ;;
*) echo "fatal: Could not establish a configuration source" >&2; exit 1 ;;
esac
"""
EVERY_MINUTE = "* * * * *"


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A shell with a SLURM_CONF of its own, a Slurm that needs it, and a python that begins anywhere."""
    monkeypatch.setenv("SLURM_CONF", "/etc/ours.conf")
    for name in ("SSL_CERT_FILE", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(schedule, "_SYSTEM", tmp_path / "etc" / "crontab")
    monkeypatch.setenv("HOME", str(tmp_path))
    program(tmp_path / "scontrol", SCONTROL)
    program(tmp_path / ".venv" / "bin" / "python", "#!/bin/sh\n")
    program(tmp_path / "run_check", "#!/bin/sh\n")
    (tmp_path / "logs").mkdir()
    config = config_for(tmp_path)
    site = replace(config.site, slurm=SlurmSettings(bin_dir=str(tmp_path)))
    return Subject(tmp_path, config.site_file, config.credentials_file, site, config.credentials)


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o700)


def crontab(subject: Subject, *settings: str, before: str = "", when: str = EVERY_MINUTE) -> str:
    return "\n".join([*settings, f"{when} {before}{command(subject)}", ""])


def command(subject: Subject) -> str:
    run_check, log = (shlex.quote(str(subject.root / each)) for each in ("run_check", "logs/x.log"))
    return f"{run_check} >> {log} 2>&1"


def environment(subject: Subject, text: str) -> Finding:
    report = Report("passes")
    (line,) = pass_lines(text)
    look_at_environment(report, subject, line)
    (found,) = report.findings
    return found


@pytest.mark.parametrize(("settings", "before"), [
    (["SLURM_CONF=/etc/ours.conf"], ""), (["PATH=/bin", 'SLURM_CONF = "/etc/ours.conf"'], ""),
    ([], "SLURM_CONF=/etc/ours.conf "),
    (["SLURM_CONF=/etc/theirs.conf"], "env SLURM_CONF='/etc/ours.conf' "),
])  # fmt: skip
def test_a_line_with_what_the_shell_has_is_well(subject: Subject, settings: Sequence[str], before: str) -> None:
    assert environment(subject, crontab(subject, *settings, before=before)).mark == OK


@pytest.mark.parametrize(("settings", "found", "fix"), [
    ([], "has no SLURM_CONF, unlike this shell, and then scontrol ended with", "Write SLURM_CONF=/etc/ours.conf into the"),
    (["SLURM_CONF=/etc/theirs.conf"], "asks the cluster theirs; this shell asks ours", "Write SLURM_CONF=/etc/ours.conf"),
    (["SLURM_CONF=/etc/gone.conf"], "has SLURM_CONF=/etc/gone.conf, unlike this shell", "Write SLURM_CONF=/etc/ours.conf"),
])  # fmt: skip
def test_a_line_with_another_slurm_than_the_shell_s_is_a_fault(
    subject: Subject, settings: Sequence[str], found: str, fix: str
) -> None:
    line = environment(subject, crontab(subject, *settings))

    assert line.mark == FAULT and found in line.found and fix in line.mend


def test_a_variable_that_stands_below_the_line_is_not_its_own(subject: Subject) -> None:
    assert environment(subject, f"{crontab(subject)}SLURM_CONF=/etc/ours.conf\n").mark == FAULT


@pytest.mark.parametrize("path", ["$HOME/bin:$PATH", "/opt/slurm/bin"])
def test_a_path_by_which_run_check_s_programs_are_not_found_is_a_fault(subject: Subject, path: str) -> None:
    line = environment(subject, crontab(subject, "SLURM_CONF=/etc/ours.conf", f"PATH={path}"))

    assert line.mark == FAULT and "there is no readlink" in line.found and "write it in full" in line.mend
    assert ("cron fills in no variables" in line.found) == ("$" in path)


def test_a_python_that_needs_a_variable_of_the_shell_is_a_fault(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/python/lib")
    needy = '#!/bin/sh\n[ "$LD_LIBRARY_PATH" ] || { echo "libpython3.11.so: cannot open" >&2; exit 127; }\n'
    program(subject.root / ".venv" / "bin" / "python", needy)

    without = environment(subject, crontab(subject, "SLURM_CONF=/etc/ours.conf"))
    given = environment(subject, crontab(subject, "SLURM_CONF=/etc/ours.conf", "LD_LIBRARY_PATH=/opt/python/lib"))

    assert without.mark == FAULT and "libpython3.11.so" in without.found and given.mark == OK
    assert without.mend == "Write LD_LIBRARY_PATH=/opt/python/lib into the crontab."


def test_certificates_that_only_the_shell_names_are_a_fault(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ours.pem")
    assert subject.site is not None
    trusting = replace(subject, site=replace(subject.site, ca_file="/etc/ours.pem"))

    line = environment(trusting, crontab(subject, "SLURM_CONF=/etc/ours.conf"))

    assert line.mark == FAULT and line.mend == 'Write ca_file = "/etc/ours.pem" into site.toml.'


@pytest.mark.parametrize("before", [". /etc/profile; ", "module load slurm && ", "bash -lc "])
def test_a_line_that_sets_up_an_environment_itself_is_left_alone(subject: Subject, before: str) -> None:
    text = crontab(subject, before=before)
    if before.startswith("bash"):
        text = f"{EVERY_MINUTE} bash -lc {shlex.quote(command(subject))}\n"

    assert environment(subject, text).mark == SKIPPED


# --- who starts them


def starts(subject: Subject, monkeypatch: pytest.MonkeyPatch, text: str | None = "") -> Finding:
    monkeypatch.setattr(schedule, "read_crontab", lambda scrontab=False: None if scrontab else text)
    report = Report("passes")
    schedule.look_at_schedule(report, subject)
    (found,) = [each for each in report.findings if each.check == "crontab"]
    return found


@pytest.fixture
def jobs(subject: Subject) -> JobsFolder:
    assert subject.site is not None
    jobs = JobsFolder(subject.site.jobs_dir)
    jobs.prepare()
    return jobs


def test_a_pass_that_was_started_by_hand_is_none_of_another_host(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.lease.write_text(json.dumps({"host": socket.gethostname(), "pid": 1}))
    watched = starts(subject, monkeypatch)
    with lease.hold(jobs.lease, expires=-1):
        pass
    by_hand = starts(subject, monkeypatch)

    assert watched.mark == OK and "is running on this host" in watched.found
    assert (by_hand.mark, by_hand.found) == (FAULT, "no line starts a pass") and "init --add" in by_hand.mend


def test_passes_of_another_host_are_told_with_its_name(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.lease.write_text(json.dumps({"host": "login2", "pid": 7, "began": ""}))

    recent = starts(subject, monkeypatch)
    os.utime(jobs.lease, (time.time() - 7200,) * 2)

    assert socket.gethostname() != "login2" and (recent.mark, recent.found) == (
        OK,
        "no line here; passes run on login2",
    )
    assert starts(subject, monkeypatch).mark == FAULT


def test_the_system_s_crontab_starts_passes_too(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(subject.root / "etc" / "cron.d" / "ferry", f"* * * * * ferry {subject.root}/run_check\n")

    assert starts(subject, monkeypatch).found.endswith("cron.d/ferry")


def test_a_line_of_another_folder_is_told_where_ours_is_missing(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = starts(subject, monkeypatch, "* * * * * /old/place/run_check >> /dev/null\n")

    assert line.mark == FAULT and "line 1 of the crontab starts /old/place/run_check" in line.found


@pytest.mark.parametrize(("when", "mark"), [
    (EVERY_MINUTE, OK), ("*/5 * * * *", OK), ("@daily", WARNING), ("0 3 * * *", WARNING), ("* 3 * * *", WARNING),
])  # fmt: skip
def test_a_line_that_starts_passes_seldom_is_told(
    subject: Subject, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch, when: str, mark: str
) -> None:
    assert starts(subject, monkeypatch, crontab(subject, "SLURM_CONF=/etc/ours.conf", when=when)).mark == mark


def test_since_when_is_what_passes_noted(subject: Subject, jobs: JobsFolder) -> None:
    now = time.time()
    never = schedule.since_when(subject)
    with lease.hold(jobs.lease, 900):
        pass
    well = schedule.since_when(subject)
    site_fault_of(jobs).write(SiteFault("slurm", "sbatch said no", now - 7300))
    away = schedule.since_when(subject)
    os.utime(jobs.lease, (now - 90000,) * 2)

    assert never == "There was no pass yet." and well == "The last pass was 0 s ago."
    assert away.startswith("Jobs wait for 2 h, since ") and away.endswith(": Slurm is away.")
    assert schedule.since_when(subject).startswith("No pass for 1 d, since ")
