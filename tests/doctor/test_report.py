"""All checks run, whatever one of them does."""

from __future__ import annotations

import io
import threading

from worker.doctor.report import FAULT, OK, SKIPPED, WARNING, Finding, Report, run_side_by_side
from worker.doctor.shown import show_briefly

OVER = threading.Event()


def hangs(report: Report) -> None:
    report.begin("first")
    report.ok("quick")
    report.begin("second")
    OVER.wait(300)


def breaks(report: Report) -> None:
    report.begin("only")
    raise RuntimeError("no one thought of this\nand of two lines")


def works(report: Report) -> None:
    report.begin("only")
    report.warn("odd", "look")


def test_a_check_that_hangs_is_named_and_one_that_breaks_is_told() -> None:
    found = list(run_side_by_side({"hangs": hangs, "breaks": breaks, "works": works}, 2))

    assert not OVER.is_set(), "it was left behind while it hung"
    OVER.set()
    assert [[(each.check, each.mark) for each in group] for group in found] == [
        [("first", "ok"), ("second", "fault")], [("only", "fault")], [("only", "warning")],
    ]  # fmt: skip
    assert found[0][1].found == "no answer within 2 s"
    assert found[1][0].found == "unforeseen RuntimeError: no one thought of this and of two lines"


def test_quietly_a_group_that_is_well_is_one_tick_and_all_else_is_told_after_the_first_line() -> None:
    found = [
        Finding("python", "version", OK, "3.11"), Finding("python", "packages", OK, "all"),
        Finding("files", "x", SKIPPED, "no"),
        Finding("broker", "login", OK, "in"), Finding("broker", "queue", WARNING, "odd", "Look."),
        Finding("API", "login", FAULT, "refused", "Correct it."), Finding("broker", "clock", OK, "right", node="n1"),
    ]  # fmt: skip
    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)

    show_briefly(found, "The last pass was 9 s ago.", text)

    text.seek(0)
    assert text.read().splitlines() == [
        "Not well: 1 to fix, 1 to know of. The last pass was 9 s ago.", "✓ python: 2 checks", "- files, x: no",
        "! broker, queue: odd. Look.", "✗ API, login: refused. Correct it.", "✓ n1, broker: 1 check",
    ]  # fmt: skip
