"""Whether the jobs folder is on space that is purged: told by a setting, by its path, or by a variable of the site's."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.doctor.disk import _look_for_purges, looks_like_scratch
from worker.doctor.report import Report
from worker.settings import Seconds, Site


@pytest.mark.parametrize(("path", "environment", "word"), [
    ("/scratch/me/jobs", {}, "scratch"),
    ("/lustre/scratch4/me/jobs", {}, "scratch4"),
    ("/pscratch/sd/m/me", {}, "pscratch"),
    ("/nfsscratch/me", {}, "nfsscratch"),
    ("/gpfs/scratch-shared/me", {}, "scratch-shared"),
    ("/ptmp/me", {}, "ptmp"),
    ("/lustre/x/me/jobs", {"MYSCRATCH": "/lustre/x/me"}, "$MYSCRATCH"),
    ("/lustre/x/me/jobs", {"SCRATCH": "/", "PSCRATCH": "relative", "WORK": "/lustre/x"}, ""),
    ("/home/me/batchferry/jobs", {"SCRATCH": "/lustre/x/me"}, ""),
])  # fmt: skip
def test_scratch_space_is_known_by_the_names_that_sites_give_it(
    path: str, environment: dict[str, str], word: str
) -> None:
    assert looks_like_scratch(Path(path), environment) == word


def test_a_link_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "jobs").symlink_to("scratch")

    assert looks_like_scratch(tmp_path / "jobs", {}) == "scratch"


@pytest.mark.parametrize(("path", "after", "mark"), [
    ("/home/me/jobs", 0, "ok"), ("/scratch/me/jobs", 0, "warning"), ("/scratch/me/jobs", 30 * 86400, "warning"),
    ("/home/me/jobs", 86400, "fault"),
])  # fmt: skip
def test_the_doctor_warns_of_a_purge_and_one_that_is_too_quick_is_a_fault(
    path: str, after: float, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SCRATCH", "PSCRATCH"):
        monkeypatch.delenv(variable, raising=False)
    report = Report("jobs folder")

    _look_for_purges(report, Site(queues=(), workloads={}, jobs_dir=Path(path), purged_after=Seconds(after)))

    (finding,) = report.findings
    assert finding.mark == mark and (mark == "ok" or finding.mend.startswith(("Set jobs_dir", "Ask the site")))
