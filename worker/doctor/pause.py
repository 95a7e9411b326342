"""Whether somebody has paused this installation, and forgotten it perhaps."""

from __future__ import annotations

from ..folder import pause
from ..folder.jobs import JobsFolder
from .report import Report
from .subject import Subject


def look_at_pause(report: Report, subject: Subject) -> None:
    report.begin("paused")
    if subject.site is None:
        report.skip("site.toml can't be read")
        return
    found = pause.seen(JobsFolder(subject.site.jobs_dir))
    if found is None:
        report.ok("no, messages are taken")
    elif found.damaged:
        report.fault(found.sentence, "To go on: ./check.py resume. To stay paused: ./check.py pause.")
    else:
        report.warn(found.sentence.removeprefix("paused "), "To end this: ./check.py resume.")
