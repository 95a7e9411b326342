"""The page of `check.py report`: report.html filled in. Whatever a message, a program or a node's name said is text in it."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..job.outcome import OUTCOMES
from . import all_well, blame, charts, history, screen, sizing
from .life import STEPS, Stretch

if TYPE_CHECKING:
    from .charts import Series
    from .history import Cause, Day, Fit
    from .report import Report

CHARTED = ("succeeded", "failed", "out_of_memory", "timed_out", "rejected")
"""Outcomes with a colour and a pattern of their own; the others share one. report.css counts on this order."""
OTHERS = "others"
_LONGEST = 600
"""Characters of any one text."""


def page(report: Report) -> str:
    """The whole HTML file."""
    here = Path(__file__).parent
    css = (here / "report.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _plain(value),
    )  # fmt: skip
    environment.filters.update(
        lasted=screen.lasted, megabytes=sizing.megabytes, day=_day, second=_second, iso=_iso, numbered=enumerate,
        words=lambda word: word.replace("_", " "), strip=_strip, bar=_bar, needed=_needed, total=_total,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        report=report,
        css=Markup(css),
        # What a browser needs to know of the style sheet, to take no other.
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        headline=all_well.headline(report.findings, report.asked),
        groups=[(who, about, _causes_of(report.looked.causes, who)) for who, about in blame.WHO.items()],
        advice=list(sizing.advice(report.looked.usage)),
        zone=time.strftime("%Z", time.localtime(report.at)),
        outcomes=_outcomes_that_occur(report.days),
        ended=_ended(report.days),
        charted=[*CHARTED, OTHERS],
        steps=STEPS,
        charts={name: Markup(svg) for name, svg in _charts(report).items()},
    )


def _plain(value: Any) -> Any:
    return screen.plain(value, _LONGEST) if isinstance(value, str) else "" if value is None else value


def _day(at: float) -> str:
    return time.strftime("%d %b %H:%M", time.localtime(at)).lstrip("0")


def _second(at: float) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(at)).lstrip("0")


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _outcomes_that_occur(days: Sequence[Day]) -> list[str]:
    found = {word for day in days for word in day.outcomes}
    return [word for word in (*OUTCOMES, history.UNKNOWN) if word in found]


def _ended(days: Sequence[Day]) -> Mapping[str, int]:
    """All jobs, and those that succeeded, as the passes have counted them."""
    return {
        "jobs": sum(day.total for day in days),
        "succeeded": sum(day.outcomes.get("succeeded", 0) for day in days),
    }


def _causes_of(causes: Sequence[Cause], who: str) -> Sequence[tuple[Cause, float]]:
    """With the part that each has of the most frequent one of all."""
    most = max((each.jobs for each in causes), default=1)
    return [(each, each.jobs / most) for each in causes if each.whose == who]


# --- shapes


def _strip(life: Sequence[Stretch]) -> Markup:
    return Markup(
        charts.strip([(STEPS.index(s.step), s.seconds, f"{s.step} {screen.lasted(s.seconds)}") for s in life])
    )


def _total(life: Sequence[Stretch]) -> float:
    return math.fsum(each.seconds for each in life)


def _bar(part: float) -> Markup:
    return Markup(charts.bar(part))


def _needed(fit: Fit) -> Markup:
    """Of what was asked for."""
    return Markup(charts.bar(fit.needed / fit.asked if fit.needed is not None and fit.asked else 1.0))


def _charts(report: Report) -> dict[str, str]:
    """Those that have something to show."""
    made = {}
    days = [_short(day.day) for day in report.days]
    totals = [day.total for day in report.days]
    if any(totals):
        axis = charts.of_counts(max(totals))
        made["outcomes"] = charts.stacked(days, _by_outcome(report.days), axis, "{:g}".format)
    for name in ("queue", "slurm"):
        spreads = [getattr(waits, name) for waits in report.looked.waits]
        if any(spreads):
            series: Series = [
                (words, [getattr(each, what) if each else None for each in spreads])
                for words, what in (("median", "median"), ("nine in ten", "p90"))
            ]
            axis = charts.of_times(max(each.p90 for each in spreads if each))
            made[name] = charts.side_by_side(days, series, axis, screen.lasted)
    return made


def _short(day: str) -> str:
    """ "2026-11-05" is "5 Nov"."""
    return time.strftime("%d %b", time.strptime(day, "%Y-%m-%d")).lstrip("0")


def _by_outcome(days: Sequence[Day]) -> Series:
    def count(day: Day, word: str) -> float:
        if word == OTHERS:
            return sum(n for each, n in day.outcomes.items() if each not in CHARTED)
        return day.outcomes.get(word, 0)

    return [(word.replace("_", " "), [count(day, word) for day in days]) for word in (*CHARTED, OTHERS)]
