"""`check.py report`: one HTML file that shows what runs, the last days as charts, and recent jobs. The page is report.html."""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import heapq
import itertools
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from .. import VERSION, as_json
from ..errors import Damaged
from ..folder import batches
from ..folder.batches import Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.paths import remove
from ..folder.snapshot import read_facts
from ..job.facts import Outcome
from ..job.outcome import OUTCOMES, Result
from ..job.snapshot import AttemptFacts, JobFacts
from ..job.stage import REJECTED, UNDELIVERED
from ..settings import Config
from . import history, places, screen, status
from .history import Day, Looked, Past, Try
from .status import Standing
from .timeline import Event, timeline

if TYPE_CHECKING:
    from .charts import Series, Words

SUMMARY = "a page to look at: what runs now, the last days as charts, recent jobs"
HELP = """\
Writes one HTML file that needs nothing else: no server, no script, no network. It shows what runs now, and of the last
days the jobs by outcome, how long they waited, what they asked for and used (with advice), failures by cause and node,
and recent jobs with their timelines. Takes nothing and changes nothing else.

The file is written aside and renamed, so it is never half there; only its owner can read it, unless --mode says more: it
tells workloads, nodes, correlation ids and the reasons of failures, but no address, no setting and no secret.

At most --jobs finished jobs are opened, chosen evenly over the days by their ids, which are random; the page says how
many. Jobs by outcome are of all jobs, as the passes have counted them, those done by pilots among them; everything else
leaves these out, because they have no folders.
"""
EXIT_CODES = {0: "the page is there", 73: "it can't be written"}
EXAMPLES = """\
examples:
  ./check.py report                                      writes report.html into jobs_dir
  ./check.py report --output ~/public_html/jobs.html --mode 644
  ./check.py report --days 30 --jobs 5000
  ./check.py report --json | jq '.looked.usage'
in a crontab, so that it stays fresh:
  */15 * * * * nice /shared/home/me/batchferry/check.py report --offline
"""
_LISTED = 50
_RECENT = 25
_LISTED_AT_ONCE = 10_000
"""Of a folder with more jobs, so many are looked at for the most recent ones."""
_UP_TO_A_YEAR = 366 * 86400
_PLACES = (REJECTED, UNDELIVERED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: jobs_dir/report.html)")
    parser.add_argument(
        "--mode", type=_mode, default=0o600, metavar="MODE", help="who may read it, as chmod has it (default: 600)"
    )
    parser.add_argument(
        "--days", type=_count, default=14, metavar="N", help="the last N days (default: 14, at most 366)"
    )
    parser.add_argument(
        "--jobs", type=_count, default=1000, metavar="N", help="open at most N finished jobs (default: 1000)"
    )
    parser.add_argument("--offline", action="store_true", help="ask neither the broker nor Slurm")


def _mode(text: str) -> int:
    with contextlib.suppress(ValueError):
        mode = int(text, 8)
        if 0o400 <= mode <= 0o777:
            return mode
    raise argparse.ArgumentTypeError("must be a mode such as 600 or 644")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 1 <= int(text) <= 10**6:
            return int(text)
    raise argparse.ArgumentTypeError("must be a whole number of 1 or more")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    report = gather(config, min(options.days, 366), options.jobs, options.offline)
    if options.json:
        return as_json.show(report, os.EX_OK)
    output = options.output or config.site.jobs_dir / "report.html"
    try:
        _write(output, page(report), options.mode)
    except OSError as error:
        print(f"check.py: {output} can't be written: {error.strerror}. Name another with --output.", file=sys.stderr)
        return os.EX_CANTCREAT
    active = screen.counted(len(report.now.jobs), "active job")
    print(f"{output}: {active}, {report.looked.jobs} of {report.looked.kept} ended ones read")
    return os.EX_OK


def _write(output: Path, text: str, mode: int) -> None:
    """Not synced: it can be made again. Raises OSError."""
    aside = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        os.replace(aside, output)
    finally:
        remove(aside)


# --- what is in it, as --json has it


@dataclass(frozen=True)
class Recent:
    """One of the jobs that ended last."""

    past: Past
    place: str
    timeline: list[Event]


@dataclass(frozen=True)
class Report:
    """Times in seconds since 1970; days are UTC's, the first one is the oldest."""

    at: float
    version: str
    now: Standing
    days: list[Day]
    looked: Looked
    recent: list[Recent]


def gather(config: Config, days: int, most: int, offline: bool) -> Report:
    jobs, now = JobsFolder(config.site.jobs_dir), time.time()
    outside = status.ask_outside(config, jobs, offline)
    standing = status.look(config, jobs, places.Wanted(), _LISTED, outside)
    window = [_day(now - 86400 * ago) for ago in reversed(range(days))]
    names = {place: places.names(place) for place in _ended_places(jobs, window)}
    shares = history.shares([len(inside) for inside in names.values()], most)
    chosen = [(place, name) for (place, inside), share in zip(names.items(), shares)
              for name in heapq.nsmallest(share, inside)]  # fmt: skip
    read = [_read(place / name) for place, name in chosen]
    past = [job for job in read if job is not None and job.day in window]
    earlier = len(read) - read.count(None) - len(past)  # rejected and undelivered ones have no folder for each day
    kept = sum(map(len, names.values())) - earlier
    return Report(
        at=now,
        version=VERSION,
        now=standing,
        days=history.by_day(window, standing.outcomes, _kept(config, jobs, standing)),
        looked=history.looked(past, window, kept, read.count(None)),
        recent=list(itertools.islice(_recent(names, window), _RECENT)),
    )


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _ended_places(jobs: JobsFolder, window: Sequence[str]) -> Iterator[Path]:
    """The last day first."""
    yield from (jobs.path / name for name in _PLACES)
    yield from (jobs.done / day for day in reversed(window))


def _kept(config: Config, jobs: JobsFolder, standing: Standing) -> dict[str, int]:
    """Finished jobs by day: those with folders of their own, and those in pilots' batches, as their names have it."""
    kept = dict(standing.done)
    for queue in config.site.queues:
        with contextlib.suppress(Damaged, OSError):  # status, which the page begins with, says so
            for batch in Pool(jobs, queue.name).closed():
                day = batch.path.parent.name
                kept[day] = kept.get(day, 0) + sum(batches.counts(batch)[:2])
    return kept


# --- one job


def _read(path: Path) -> Optional[Past]:
    """None for one that can't be read, or has just moved."""
    try:
        job = JobFolder(path)
        facts = read_facts(job)
        return _past(job, facts) if facts else None
    except (Damaged, OSError):
        return None


def _past(job: JobFolder, facts: JobFacts) -> Past:
    outcome, message = facts.outcome, facts.message
    results = {a.number: a.what_counts for a in facts.attempts}
    result = results.get(outcome.attempt) if outcome else None
    ended_at = outcome.at if outcome else job.path.stat().st_mtime
    sent = message.properties.get("timestamp")
    queued = message.claimed_at - sent if isinstance(sent, int) else -1.0
    word = outcome.outcome if outcome else "unknown"
    return Past(
        job=job.id,
        day=job.path.parent.name if job.path.parent.name not in _PLACES else _day(ended_at),
        workload=facts.spec.workload if facts.spec else "",
        outcome=word,
        cause=_cause(outcome, result),
        reason=outcome.why(result) if outcome else "",
        claimed_at=message.claimed_at,
        ended_at=ended_at,
        queued=queued if 0 <= queued < _UP_TO_A_YEAR else None,  # a sender's clock may say anything
        tries=tuple(tried for a in facts.attempts if (tried := _try(a))),
        correlation_id=screen.plain(message.properties.get("correlation_id") or ""),
    )


def _cause(outcome: Optional[Outcome], result: Optional[Result]) -> str:
    if outcome is None or result is None:
        return history.cause_of(outcome.outcome if outcome else "unknown")
    step = "publish" if outcome.reason else result.step  # the job itself had succeeded
    return history.cause_of(outcome.outcome, step, result.exit_code, result.signal)


def _try(a: AttemptFacts) -> Optional[Try]:
    """None for one that never came to Slurm."""
    result, started, intent = a.what_counts, a.started, a.intent
    if intent is None:
        return None
    begin = started.at if started else None
    end = result.ended_at if result else None
    used = result.used if result else None
    return Try(
        outcome=result.outcome if result else "",
        node=started.node if started else result.node if result else "",
        asked_memory_mb=intent.resources.memory_mb,
        asked_seconds=intent.resources.time_seconds,
        waited=max(0.0, begin - intent.at) if begin is not None else None,
        seconds=max(0.0, end - begin) if begin is not None and end is not None else None,
        memory_mb=float(used.process_mb) if used and used.process_mb else None,
    )


def _recent(names: Mapping[Path, Sequence[str]], window: Sequence[str]) -> Iterator[Recent]:
    """The last ones first. No earlier day holds a later job."""
    candidates: list[tuple[float, Path]] = []
    for place, inside in names.items():
        if sum(path.parent.name not in _PLACES for _, path in candidates) >= _RECENT:
            break
        for name in inside[:_LISTED_AT_ONCE]:
            with contextlib.suppress(OSError):
                candidates.append(((place / name).stat().st_mtime, place / name))
    for _, path in heapq.nlargest(2 * _RECENT, candidates):
        past = _read(path)
        with contextlib.suppress(Damaged, OSError):
            if past is not None and past.day in window:
                yield Recent(past, places.put_away_as(path), timeline(JobFolder(path)))


# --- the page

CHARTED = ("succeeded", "failed", "out_of_memory", "timed_out", "rejected")
"""Outcomes with a colour and a pattern of their own; the others share one. report.css counts on this order."""
OTHERS = "others"
_MOST_BARS = 8
_LONGEST = 600
"""Characters of any one text."""


def page(report: Report) -> str:
    """The whole HTML file. Whatever a message, a program or a node's name said is text in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    css = (here / "report.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _plain(value),
    )  # fmt: skip
    environment.filters.update(
        lasted=screen.lasted,
        megabytes=history.megabytes,
        when=_when,
        iso=_iso,
        numbered=enumerate,
        words=lambda word: word.replace("_", " "),
    )
    return environment.get_template("report.html").render(
        report=report,
        css=Markup(css),
        # What a browser needs to know of the style sheet, to take no other.
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        advice=list(history.advice(report.looked.usage)),
        zone=time.strftime("%Z", time.localtime(report.at)),
        outcomes=_outcomes_that_occur(report.days),
        charted=[*CHARTED, OTHERS],
        charts={name: Markup(svg) for name, svg in _charts(report).items()},
    )


def _plain(value: Any) -> Any:
    return screen.plain(value, _LONGEST) if isinstance(value, str) else "" if value is None else value


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _outcomes_that_occur(days: Sequence[Day]) -> list[str]:
    found = {word for day in days for word in day.outcomes}
    return [word for word in (*OUTCOMES, history.UNKNOWN) if word in found]


def _charts(report: Report) -> dict[str, str]:
    """Those that have something to show."""
    from . import charts

    made = {}
    labels = [day.day[5:] for day in report.days]
    if any(day.total for day in report.days):
        made["outcomes"] = charts.stacked(labels, _by_outcome(report.days), "{:g}".format)
    for name in ("queue", "slurm"):
        spreads = [getattr(waits, name) for waits in report.looked.waits]
        if any(spreads):
            median, most = ([getattr(each, what) if each else None for each in spreads] for what in ("median", "p90"))
            made[name] = _of_times(charts.side_by_side, labels, [("median", median), ("nine in ten", most)])
    usage = report.looked.usage[:_MOST_BARS]
    workloads = [screen.plain(each.workload) for each in usage]
    if usage:
        memory: Series = [
            ("asked for", [each.asked_memory_mb for each in usage]), ("used", [each.most_memory_mb for each in usage])
        ]  # fmt: skip
        times: Series = [
            ("asked for", [each.asked_seconds for each in usage]), ("used", [each.longest_seconds for each in usage])
        ]  # fmt: skip
        made["memory"] = charts.lying(workloads, memory, history.megabytes)
        made["time"] = _of_times(charts.lying, workloads, times)
    causes, nodes = report.looked.causes[:_MOST_BARS], report.looked.nodes[:_MOST_BARS]
    for name, rows in (
        ("causes", [(each.cause, each.jobs) for each in causes]),
        ("nodes", [(each.node, each.failed) for each in nodes]),
    ):
        if rows:
            labels = [screen.plain(label) for label, _ in rows]
            made[name] = charts.lying(labels, [("failed", [count for _, count in rows])], "{:g}".format)
    return made


def _of_times(draw: Callable[[Sequence[str], Series, Words], str], labels: Sequence[str], series: Series) -> str:
    """In the one unit in which the axis gets round numbers."""
    longest = max((value for _, values in series for value in values if value), default=0.0)
    size, unit = next((size, unit) for size, unit in _UNITS if longest >= 2 * size or size == 1)
    scaled = [(name, [None if value is None else value / size for value in values]) for name, values in series]
    return draw(labels, scaled, lambda value: f"{value:.3g} {unit}")


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def _by_outcome(days: Sequence[Day]) -> list[tuple[str, list[Optional[float]]]]:
    def count(day: Day, word: str) -> float:
        if word == OTHERS:
            return sum(n for each, n in day.outcomes.items() if each not in CHARTED)
        return day.outcomes.get(word, 0)

    return [(word.replace("_", " "), [count(day, word) for day in days]) for word in (*CHARTED, OTHERS)]
