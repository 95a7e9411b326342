"""No check recognises an error by its prose: with other words in every error, each line has the same mark and the same fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pika import exceptions

from scheduler import Unavailable
from tests.services.upstream import LOGIN_PATHS, Answer, Upstream
from tests.worker.examples import CREDENTIALS, SITE, config_for, write_files
from worker.amqp.trial import Seen, Trial
from worker.doctor import broker, cluster, disk, files, replies, service
from worker.doctor.report import FAULT, WARNING, Finding, Report
from worker.doctor.subject import Subject, read_subject
from worker.errors import Advice, Fault, NotOurs, Transient
from worker.folder.jobs import JobsFolder
from worker.login.mark import Marked, keep_mark
from worker.settings import Pattern, Queue, Replies, SlurmSettings

OTHER = "etwas ganz anderes"
Look = Callable[[Report, Path, pytest.MonkeyPatch], None]


def give_errors_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are made, whoever makes them."""

    def reword(kind: type) -> None:
        made = vars(kind)["__init__"]

        def init(self: object, *given: object, **named: object) -> None:
            made(self, *given, **named)
            object.__setattr__(self, "found", OTHER)
            if isinstance(self, Exception):
                self.args = (OTHER,)

        monkeypatch.setattr(kind, "__init__", init)

    for kind in (Transient, Unavailable, NotOurs, Fault, Advice):
        reword(kind)


def subject_of(folder: Path, api_url: str = "https://api.example.org") -> Subject:
    config = config_for(folder, api_url)
    return Subject(folder, config.site_file, config.credentials_file, config.site, config.credentials)


def both_files(site: str = SITE, credentials: str = CREDENTIALS, mode: int = 0o600) -> Look:
    def look(report: Report, folder: Path, _: pytest.MonkeyPatch) -> None:
        (folder / "slurm").mkdir(exist_ok=True)
        files.look_at_files(report, read_subject(folder, *write_files(folder, site, credentials, mode), ""))

    return look


def no_files(report: Report, folder: Path, _: pytest.MonkeyPatch) -> None:
    files.look_at_files(report, read_subject(folder, folder / "site.toml", folder / "credentials.env", ""))


def api_that_answers(answer: Answer) -> Look:
    def look(report: Report, folder: Path, _: pytest.MonkeyPatch) -> None:
        with Upstream() as upstream:
            for path in LOGIN_PATHS:
                upstream.script(path, answer)
            service.look_at_api(report, subject_of(folder, api_url=upstream.url))

    return look


def broker_that_refuses(error: Exception) -> Look:
    def look(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: object) -> None:
            raise error

        monkeypatch.setattr("pika.BlockingConnection", refuse)
        monkeypatch.setattr(broker, "reach", lambda *_: True)
        broker.look_at_broker(report, subject_of(folder))

    return look


def broker_without(queue: Queue) -> Look:
    def look(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        subject = subject_of(folder)
        assert subject.credentials is not None
        monkeypatch.setattr(Trial, "makes_transient", lambda _: False)
        trial = Trial(subject.credentials, None)
        report.begin("queue")
        broker._tell_queue(report, trial, queue, Seen("missing"))
        rules = Replies(create=(Pattern("*"),))
        replies.try_making_reply_queues(report, trial, replace(subject.known_site, replies=rules))

    return look


def slurm_whose_commands_are(script: str) -> Look:
    def look(report: Report, folder: Path, _: pytest.MonkeyPatch) -> None:
        for name in ("sbatch", "scontrol", "sacct", "sacctmgr", "sinfo"):
            (folder / name).write_text(script)
            (folder / name).chmod(0o700)
        subject = subject_of(folder)
        site = replace(subject.known_site, slurm=SlurmSettings(bin_dir=str(folder)))
        cluster.look_at_slurm(report, replace(subject, site=site))

    return look


def folder_of_another(report: Report, folder: Path, _: pytest.MonkeyPatch) -> None:
    subject = subject_of(folder)
    assert subject.site is not None and subject.credentials is not None
    subject.site.jobs_dir.mkdir(exist_ok=True)
    jobs = JobsFolder(subject.site.jobs_dir)
    keep_mark(subject.config(subject.credentials), jobs, Marked.NOT_YET)
    jobs.mark.unlink()
    disk.look_at_jobs_folder(report, subject)


ACCOUNTING = """#!/bin/sh
case "$0 $*" in
*{}*) echo {} >&2; exit 1 ;;
*scontrol*) echo "MaxArraySize = 1001"; echo "PartitionName=main Default=YES State=UP MaxTime=UNLIMITED" ;;
*sinfo*) echo "main|64|257000|gpu:4" ;;
esac
"""
SITUATIONS: dict[str, Look] = {
    "files that are not there": no_files,
    "files of others": both_files(mode=0o640),
    "a fault with its line, and one without": both_files(SITE.replace("cpus = 2", "cpus = 49"), "API_URL=x y\n"),
    "a home that nobody knows": both_files(f'jobs_dir = "~nobody-of-this-name/jobs"\n{SITE}'),
    "rules of which one is in vain": both_files(SITE.replace("up_to_mb = 192000", "up_to_mb = 100000")),
    "login refused": api_that_answers(Answer(status=401)),
    "no such login": api_that_answers(Answer(status=404)),
    "login elsewhere": api_that_answers(Answer(status=301, headers={"Location": "https://elsewhere.example.org/"})),
    "no token": api_that_answers(Answer(status=200, body=b"<html>")),
    "API broken": api_that_answers(Answer(status=500)),
    "broker: password": broker_that_refuses(exceptions.ProbableAuthenticationError(403, "ACCESS_REFUSED")),
    "broker: virtual host": broker_that_refuses(exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost")),
    "broker: access": broker_that_refuses(exceptions.ProbableAccessDeniedError(530, "access refused")),
    "broker: alarm": broker_that_refuses(exceptions.ConnectionBlockedTimeout()),
    "broker: else": broker_that_refuses(exceptions.StreamLostError("eof")),
    "queue of the service's": broker_without(Queue("jobs", "w", make=False)),
    "queue of which nobody says how": broker_without(Queue("jobs", "w", make=True)),
    "queue of which nothing is said": broker_without(Queue("jobs", "w")),
    "no sbatch": slurm_whose_commands_are("#!/nowhere\n"),
    "no slurm.conf": slurm_whose_commands_are("#!/bin/sh\necho 'fatal: no configuration source' >&2; exit 1\n"),
    "no controller": slurm_whose_commands_are("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n"),
    "no accounting": slurm_whose_commands_are(ACCOUNTING.format("sacct ", "Slurm accounting storage is disabled")),
    "little accounting": slurm_whose_commands_are(ACCOUNTING.format("now-604800", "Too wide of a date range in query")),
    "not the folder of earlier passes": folder_of_another,
}
SILENT = {"little accounting"}
"""Where what goes wrong is no fault."""


def found_in(situation: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    folder.mkdir(exist_ok=True)
    report = Report("group")
    SITUATIONS[situation](report, folder, monkeypatch)
    return report.findings


def without_words(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(re.sub(r"^port \d+", "port", each.check), each.mark, each.mend) for each in findings]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_with_other_words_in_each_error_marks_and_fixes_are_the_same(
    situation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is = found_in(situation, tmp_path / "here", monkeypatch)
    give_errors_other_words(monkeypatch)
    reworded = found_in(situation, tmp_path / "here", monkeypatch)

    told = [each for each in as_it_is if each.mark in (FAULT, WARNING)]
    assert bool(told) == (situation not in SILENT) and all(each.mend for each in told)
    assert without_words(reworded) == without_words(as_it_is)
    assert any(OTHER in each.found for each in reworded) == (situation not in SILENT)
    assert not any(OTHER in each.found for each in as_it_is)
