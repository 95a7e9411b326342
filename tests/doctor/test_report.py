"""All checks run, whatever one of them does."""

from __future__ import annotations

import threading

from worker.doctor.report import Report, run_side_by_side

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
