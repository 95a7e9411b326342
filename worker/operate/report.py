"""`check.py report`: gathers what a page tells of the last days, and writes it. The page itself is made by page.py."""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from .. import VERSION, as_json
from ..errors import Damaged
from ..folder import closed
from ..folder.batches import Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.paths import remove
from ..folder.snapshot import read_facts
from ..job.facts import Message
from ..job.outcome import Result
from ..job.snapshot import AttemptFacts, JobFacts
from ..job.stage import REJECTED, UNDELIVERED
from ..settings import Config, ResourceRules
from . import all_well, blame, history, places, screen, sizing, status
from .all_well import Finding
from .history import Day, Looked, Past, Try
from .life import life
from .status import Standing
from .timeline import Event, timeline

SUMMARY = "a page to look at: whether all is well, what failed and whose doing it was, charts, recent jobs"
HELP = """\
Writes one HTML file that needs nothing else: no server, no script, no network. It begins with a sentence that says
whether all is well, or what has been away since when. Then come failures by whose doing they were, what is running now,
and for the last days jobs by outcome, how long they waited, what they asked for and needed (with advice, as lines for
site.toml), and recent jobs with their timelines. Takes nothing and changes nothing else.

The file is written aside and renamed, so it is never half there. Only its owner can read it, unless --mode says
otherwise: it names workloads, nodes, correlation ids and the reasons for failures, but no address, no job's settings
and no secret.

At most --jobs finished jobs are opened, chosen evenly over the days by their ids, which are random; the page says how
many. Jobs by outcome counts all jobs, as the passes have counted them, including those that pilots ran; everything else
leaves the latter out, because they have no folders.
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
        from .page import page

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
    examples: list[Recent] = field(default_factory=list)
    """Jobs that `looked.causes` names and that are not among the recent ones."""
    findings: list[Finding] = field(default_factory=list)
    """What is not well, the gravest first."""
    site_lines: list[str] = field(default_factory=list)
    """Of site.toml, where other defaults would do better."""
    asked: bool = False
    """Whether the broker and Slurm were asked."""


def gather(config: Config, days: int, most: int, offline: bool) -> Report:
    jobs, now = JobsFolder(config.site.jobs_dir), time.time()
    outside = status.ask_outside(config, jobs, offline)
    standing = status.look(config, jobs, places.Wanted(), _LISTED, outside)
    window = [_day(now - 86400 * ago) for ago in reversed(range(days))]
    names = {place: places.names(place) for place in _ended_places(jobs, window)}
    shares = history.shares([len(inside) for inside in names.values()], most)
    chosen = [(place, name) for (place, inside), share in zip(names.items(), shares)
              for name in heapq.nsmallest(share, inside)]  # fmt: skip
    rules = {queue.name: queue.resources for queue in config.site.queues}
    read = [_read(place / name, rules) for place, name in chosen]
    past = [job for job in read if job is not None and job.day in window]
    earlier = len(read) - read.count(None) - len(past)  # rejected and undelivered ones have no folder for each day
    kept = sum(map(len, names.values())) - earlier
    looked = history.looked(past, window, kept, read.count(None), sizing.usage(past))
    recent = list(itertools.islice(_recent(names, window, rules), _RECENT))
    return Report(
        at=now,
        version=VERSION,
        now=standing,
        days=history.by_day(window, standing.outcomes, _kept(config, jobs, standing)),
        looked=looked,
        recent=recent,
        examples=_examples(looked, recent, {name: place / name for place, name in chosen}, rules),
        findings=all_well.findings(standing),
        site_lines=sizing.site_lines(past, rules),
        asked=not offline,
    )


def _examples(
    looked: Looked, recent: Sequence[Recent], paths: Mapping[str, Path], rules: Mapping[str, ResourceRules]
) -> list[Recent]:
    shown = {each.past.job for each in recent}
    named = [job for cause in looked.causes for job in cause.last_jobs if job not in shown and job in paths]
    return [shown_job for job in named if (shown_job := _shown(paths[job], rules)) is not None]


def _shown(path: Path, rules: Mapping[str, ResourceRules]) -> Optional[Recent]:
    """None for one that can't be read."""
    past = _read(path, rules)
    with contextlib.suppress(Damaged, OSError):
        if past is not None:
            return Recent(past, places.put_away_as(path), timeline(JobFolder(path)))
    return None


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _ended_places(jobs: JobsFolder, window: Sequence[str]) -> Iterator[Path]:
    """The last day first."""
    yield from (jobs.path / name for name in _PLACES)
    yield from (jobs.done / day for day in reversed(window))


def _kept(config: Config, jobs: JobsFolder, standing: Standing) -> dict[str, int]:
    """Finished jobs by day: those with folders of their own, and those in pilots' batches, as noted when they were closed."""
    kept = dict(standing.done)
    for queue in config.site.queues:
        with contextlib.suppress(Damaged, OSError):  # status, which the page begins with, says so
            for day, total in closed.by_day(Pool(jobs, queue.name).path).items():
                kept[day] = kept.get(day, 0) + total.succeeded + total.failed
    return kept


# --- one job


def _read(path: Path, rules: Mapping[str, ResourceRules]) -> Optional[Past]:
    """None for one that can't be read, or has just moved."""
    try:
        job = JobFolder(path)
        facts = read_facts(job)
        return _past(job, facts, rules) if facts else None
    except (Damaged, OSError):
        return None


def _past(job: JobFolder, facts: JobFacts, rules: Mapping[str, ResourceRules]) -> Past:
    outcome, message = facts.outcome, facts.message
    result = {a.number: a.what_counts for a in facts.attempts}.get(outcome.attempt) if outcome else None
    ended_at = outcome.at if outcome else job.path.stat().st_mtime
    sent = message.properties.get("timestamp")
    queued = message.claimed_at - sent if isinstance(sent, int) else -1.0
    known = 0 <= queued < _UP_TO_A_YEAR  # a sender's clock may say anything
    asked = _asked(message, rules.get(message.queue), job.origin.is_there())
    gone, delivered = job.undeliverable.read(), job.delivered.read()
    cause, whose = _cause(facts, result, asked)
    return Past(
        job=job.id,
        day=job.path.parent.name if job.path.parent.name not in _PLACES else _day(ended_at),
        workload=facts.spec.workload if facts.spec else "",
        outcome=outcome.outcome if outcome else history.UNKNOWN,
        cause=cause if gone is None else blame.UNDELIVERED,
        reason=gone.why if gone else outcome.why(result) if outcome else "",
        claimed_at=message.claimed_at,
        ended_at=ended_at,
        queued=queued if known else None,
        tries=tuple(tried for a in facts.attempts if (tried := _try(a))),
        correlation_id=screen.plain(message.properties.get("correlation_id") or ""),
        queue=message.queue,
        asked=asked,
        whose=whose if gone is None else blame.REQUESTER,
        life=life(facts, message.claimed_at - (queued if known else 0), delivered.at if delivered else None),
    )


def _asked(message: Message, rules: Optional[ResourceRules], again: bool) -> tuple[str, ...]:
    """Which resources do not come from site.toml. `again`: an operator has run it again, and may have said others."""
    both = (sizing.MEMORY.name, sizing.TIME.name)
    try:
        body = json.loads(message.body_bytes)
    except (ValueError, RecursionError):
        return ()
    found = [body.get(name) if isinstance(body, dict) else None for name in ("resources", "settings")]
    own, settings = (each if isinstance(each, dict) else {} for each in found)
    called = rules.names if rules else {}
    return tuple(name for name in both if again or name in own or called.get(name) in settings)


def _cause(facts: JobFacts, result: Optional[Result], asked: tuple[str, ...]) -> tuple[str, str]:
    """In few words, and whose it is; both empty for a success."""
    outcome = facts.outcome
    if outcome is None or result is None:
        word = outcome.outcome if outcome else history.UNKNOWN
        return history.cause_of(word), "" if word == "succeeded" else blame.whose(word, Result(word, 0), asked)
    if outcome.outcome == "succeeded":
        return "", ""
    if outcome.reason:  # the job itself had succeeded
        result = replace(result, step="publish", reason=outcome.reason, exit_code=None, signal=None)
    words = history.cause_of(outcome.outcome, result.step, result.exit_code, result.signal)
    return words, blame.whose(outcome.outcome, result, asked, facts.cancel_asked is not None)


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


def _recent(
    names: Mapping[Path, Sequence[str]], window: Sequence[str], rules: Mapping[str, ResourceRules]
) -> Iterator[Recent]:
    """The last ones first. No earlier day holds a later job."""
    candidates: list[tuple[float, Path]] = []
    for place, inside in names.items():
        if sum(path.parent.name not in _PLACES for _, path in candidates) >= _RECENT:
            break
        for name in inside[:_LISTED_AT_ONCE]:
            with contextlib.suppress(OSError):
                candidates.append(((place / name).stat().st_mtime, place / name))
    for _, path in heapq.nlargest(2 * _RECENT, candidates):
        shown = _shown(path, rules)
        if shown is not None and shown.past.day in window:
            yield shown
