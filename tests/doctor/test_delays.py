"""How late one host sees what another one does is measured, in the file server's time, and held against visible_after."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.services.late_files import LateFiles
from worker.doctor import delays
from worker.doctor.delays import MADE, MOVED, REMOVED, Watch, do_what_is_watched
from worker.doctor.report import OK, WARNING, Finding, Report


def seen(here: Path, there: Path, visible_after: float) -> dict[str, Finding]:
    """By a host that calls the folder `here`, of what one does that calls it `there`."""
    report = Report("compute node")
    with Watch(here) as watch:
        do_what_is_watched(there)
        watch.tell(report, visible_after)
    return {finding.check: finding for finding in report.findings}


def test_on_a_local_disk_all_is_seen_at_once(tmp_path: Path) -> None:
    found = seen(tmp_path, tmp_path, 60)

    assert list(found) == [MADE, REMOVED, MOVED]
    assert {finding.mark for finding in found.values()} == {OK}


def test_what_is_never_seen_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delays, "_PATIENCE", 0)
    found = seen(tmp_path, tmp_path / "no such folder", 0.5)

    assert {finding.mark for finding in found.values()} == {WARNING}
    assert all("was not seen here within 0.5 s" in finding.found for finding in found.values())
    assert all("Set visible_after (now 0.5 s)" in finding.mend for finding in found.values())


@pytest.mark.parametrize(("visible_after", "mark"), [(60, OK), (2, WARNING)])
def test_a_name_that_shows_late_is_timed_by_the_server_s_clock(
    late_files: LateFiles, visible_after: float, mark: str
) -> None:
    for host in (late_files.login, late_files.compute):
        os.stat(host)
    (late_files.login / "place").mkdir()
    late_files.late(login=4)

    found = seen(late_files.login / "place", late_files.compute / "place", visible_after)

    assert (found[MADE].mark, found[REMOVED].mark, found[MOVED].mark) == (mark, OK, OK)
    if mark == OK:
        seconds = float(found[MADE].found.split()[2])
        assert 4 <= round(seconds, 1), "not earlier than it can be seen"


def test_a_folder_that_goes_on_under_its_old_name_is_timed_by_the_server_s_clock(late_files: LateFiles) -> None:
    (late_files.login / "place").mkdir()
    late_files.late(old_names=3)

    found = seen(late_files.login / "place", late_files.compute / "place", 60)

    assert (found[MADE].mark, found[REMOVED].mark, found[MOVED].mark) == (OK, OK, OK)
    assert 3 <= round(float(found[MOVED].found.split()[2]), 1)
