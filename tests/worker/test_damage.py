"""Whatever is damaged, and however: it is left alone and reported with its whole path, and everything else goes on."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.damage import OF_A_FILE, OF_A_FOLDER
from tests.worker.busy import Busy
from worker.doctor import disk
from worker.doctor.report import Report
from worker.doctor.subject import Subject
from worker.login import metrics, tally
from worker.operate import explain, pilots, places, report, show, status

ITSELF = {"installation.json": (os.EX_CANTCREAT,), "lease.json": (os.EX_OK, os.EX_TEMPFAIL)}
"""Files of which no pass may be sure: it does nothing, and says what to do."""
MAY_STOP_ALL = ("active", "done", "rejected", "undelivered", "groups")
"""Folders without which nothing can be claimed."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    return Busy(tmp_path_factory.mktemp("busy") / "site")


def every(busy: Busy, some: list[Path], turn: int, of: int) -> Iterator[Path]:
    """A part of them, another one for each damage; over all damages, each one several times."""
    for number, path in enumerate(some):
        if (number + turn) % of == 0:
            yield path
            busy.restore()


def check_a_pass(busy: Busy, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    busy.broker.ask(name="the next one")
    before = len(busy.cluster.jobs)

    code = busy.guarded_pass()

    assert not [record for record in caplog.records if record.exc_info], f"{path}: {caplog.text}"
    if path.name in ITSELF:
        assert code in ITSELF[path.name], f"{path}: {caplog.text}"
        return
    assert code in (os.EX_OK, os.EX_DATAERR), f"{path}: {code} {caplog.text}"
    waits = (
        path.parts[0] == "pilots" and len(path.parts) < 4 and code == os.EX_DATAERR
    )  # its queue is the place to wait
    assert waits or len(busy.cluster.jobs) > before, f"{path}: the next job was not submitted\n{caplog.text}"
    if code == os.EX_DATAERR:
        told = caplog.text.replace("\\'", "'")
        assert str(busy.jobs.path) in told and path.name in told, f"{path}: {told}"


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_one_damaged_file_stops_no_other_job(busy: Busy, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    busy.restore()
    for path in every(busy, busy.files(), list(OF_A_FILE).index(damage), of=4):
        OF_A_FILE[damage](busy.jobs.path / path)

        check_a_pass(busy, path, caplog)


@pytest.mark.parametrize("damage", OF_A_FOLDER)
def test_something_else_in_a_folder_s_place_stops_no_other_job(
    busy: Busy, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    busy.restore()
    folders = [path for path in busy.folders() if str(path) not in MAY_STOP_ALL]
    for path in every(busy, folders, list(OF_A_FOLDER).index(damage), of=2):
        OF_A_FOLDER[damage](busy.jobs.path / path)

        check_a_pass(busy, path, caplog)


@pytest.mark.parametrize("lost", range(4))
def test_one_lost_file_stops_no_other_job(busy: Busy, caplog: pytest.LogCaptureFixture, lost: int) -> None:
    busy.restore()
    for path in every(busy, [each for each in busy.files() if each.name not in ITSELF], lost, of=4):
        (busy.jobs.path / path).unlink()

        check_a_pass(busy, path, caplog)


def said(verb: object, *words: str) -> Callable[[Busy], int]:
    def run(busy: Busy) -> int:
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser)  # type: ignore[attr-defined]
        for option in ("--json", "--dry-run"):
            with contextlib.suppress(argparse.ArgumentError):
                parser.add_argument(option, action="store_true")
        return int(verb.run(busy.config, parser.parse_args([*words, "--json"])))  # type: ignore[attr-defined]

    return run


def of_each_job(verb: object) -> Callable[[Busy], int]:
    def run(busy: Busy) -> int:
        names = [*places.names(busy.jobs.active), *(f"{number:032x}" for number in range(1, 7))]
        return max(said(verb, name, "--offline")(busy) for name in names)

    return run


def wrote_metrics(busy: Busy) -> int:
    metrics.write(busy.jobs.path.parent / "metrics.prom", busy.jobs, tally.read(busy.jobs.tally), 0, 1.0)
    return 0


def doctor(busy: Busy) -> int:
    files = (busy.config.root, busy.config.site_file, busy.config.credentials_file)
    disk.look_at_jobs_folder(Report("jobs folder"), Subject(*files, site=busy.config.site, credentials=None))
    return 0


VERBS: dict[str, Callable[[Busy], int]] = {
    "status": said(status, "--offline"),
    "status of the done": said(status, "--offline", "--state", "done", "--outcome", "failed"),
    "pilots": said(pilots),
    "pilots, those in error": said(pilots, "--list", "error"),
    "pilots, those locked": said(pilots, "--list", "locked"),
    "pilots, those ended": said(pilots, "--list", "ended"),
    "report": said(report, "--offline"),
    "show": of_each_job(show),
    "explain": of_each_job(explain),
    "metrics": wrote_metrics,
    "doctor": doctor,
}


@pytest.mark.parametrize("part", range(5))
def test_what_people_ask_is_answered_whatever_is_damaged(
    busy: Busy, capsys: pytest.CaptureFixture[str], part: int
) -> None:
    busy.restore()
    damages, others = list(OF_A_FILE.items()), list(OF_A_FOLDER.items())
    kinds = [(path, *damages[number % len(damages)]) for number, path in enumerate(busy.files())]
    kinds += [(path, *others[number % len(others)]) for number, path in enumerate(busy.folders())]
    wrong = []
    for path, name, damage in kinds[part::5]:
        damage(busy.jobs.path / path)
        for verb, run in VERBS.items():
            try:
                code = run(busy)
            except Exception as error:  # noqa: BLE001  # all of them are told
                wrong.append(f"{verb}, {path}, {name}: {error!r}")
            else:
                if code not in (os.EX_OK, os.EX_DATAERR):
                    wrong.append(f"{verb}, {path}, {name}: exit code {code}")
            capsys.readouterr()
        busy.restore_one(path)
    assert not wrong, "\n".join(wrong)
