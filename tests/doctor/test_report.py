"""All checks run, whatever one of them does."""

from __future__ import annotations

import time

from worker.doctor.report import Report, run_side_by_side


def hangs(report: Report) -> None:
    report.begin("first")
    report.ok("quick")
    report.begin("second")
    time.sleep(30)


def breaks(report: Report) -> None:
    report.begin("only")
    raise RuntimeError("no one thought of this\nand of two lines")


def works(report: Report) -> None:
    time.sleep(0.2)
    report.begin("only")
    report.warn("odd", "look")


def test_a_check_that_hangs_is_named_and_one_that_breaks_is_told() -> None:
    began = time.monotonic()

    found = list(run_side_by_side({"hangs": hangs, "breaks": breaks, "works": works}, 0.6))

    assert time.monotonic() - began < 5
    assert [[(each.check, each.mark) for each in group] for group in found] == [
        [("first", "ok"), ("second", "fault")], [("only", "fault")], [("only", "warning")],
    ]  # fmt: skip
    assert found[0][1].found == "no answer within 1 s"
    assert found[1][0].found == "unforeseen RuntimeError: no one thought of this and of two lines"
