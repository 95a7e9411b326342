"""`check.py status`: what is in flight, since when, and what waits."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

from .. import as_json
from ..errors import Damaged
from ..folder import pause
from ..folder.facts import read_progress, read_result, read_started, site_fault_of
from ..folder.jobs import JobsFolder
from ..folder.paths import contents
from ..folder.pause import Pause
from ..installed import Workloads
from ..job.facts import SiteFault
from ..job.stage import BATCH_STATES, DAMAGED, STATES, UNSENT, words_in_help
from ..login import shapes, tally
from ..login.known_shapes import Shapes
from ..settings import Config
from . import health, naming, places, screen, terminal
from .in_batches import InBatch
from .naming import Chosen, Ids
from .pilots import QueueRow, queue_rows
from .places import Found, Wanted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from .outside import Outside

SUMMARY = "what is in flight, since when, and what waits"
HELP = f"""\
Counts jobs by state, lists them, the oldest first, and says what the broker and Slurm report, and whether somebody has paused
this installation. Takes nothing and changes nothing. Filters choose which jobs are listed; the counts are always of all jobs.

{words_in_help()}
"""
EXAMPLES = """\
examples:
  ./check.py status                              everything that is in flight
  ./check.py status --watch                      the same, refreshed in place until Ctrl-C
  ./check.py status --state running --older-than 6h
  ./check.py status --state done --outcome failed --limit 50
  ./check.py status 4f0c                         the jobs whose id begins so
  ./check.py status --json | jq '.active'
  ./check.py status --check                      OK, WARNING or CRITICAL in one line, for a monitor
"""
EXIT_CODES = {
    **health.EXIT_CODES,
    65: "a JOB names no job, or several; everything else is shown",
}
_DEFAULT_EVERY = 5.0
_ASK_EVERY = 30.0
"""Seconds: with --watch, the broker and Slurm are asked less often than the folder is read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    places.add_filters(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="list at most this many (default: 20)")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=_DEFAULT_EVERY, metavar="SECONDS", dest="every",
        help="refresh in place (default: every 5 s)",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true", help="one line and an exit code for a monitor (Nagios, Icinga, ...)"
    )
    parser.add_argument("--offline", action="store_true", help="ask neither the broker nor Slurm")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs, want = JobsFolder(config.site.jobs_dir), places.wanted(options)
    if options.check:
        return _check(config, jobs, options)
    if options.every is not None and not options.json:
        return _watch(config, jobs, want, options)
    standing = look(config, jobs, want, options.limit, ask_outside(config, jobs, options.offline))
    code = os.EX_DATAERR if standing.unknown else os.EX_OK
    if options.json:
        return as_json.show(standing, code)
    screen.console().print(_drawn(jobs, standing))
    return code


def _check(config: Config, jobs: JobsFolder, options: argparse.Namespace) -> int:
    """Of Slurm passes say whether it answers; a monitor uses up none of its commands."""
    try:
        outside = None if options.offline else _ask(config, jobs, slurm=False)
        return health.check(look(config, jobs, Wanted(), 0, outside), options.json)
    except (Damaged, OSError) as error:
        return health.unreadable(error, options.json)


def _watch(config: Config, jobs: JobsFolder, want: Wanted, options: argparse.Namespace) -> int:
    """In place on a terminal; elsewhere one after the other."""
    from rich.live import Live

    terminal.end_with_signals()
    console = screen.console()
    if not sys.stdout.isatty():
        return _again_and_again(config, jobs, want, options, console.print)
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        return _again_and_again(config, jobs, want, options, lambda drawn: live.update(drawn, refresh=True))


def _again_and_again(config: Config, jobs: JobsFolder, want: Wanted, options: argparse.Namespace,
                     show: Callable[[RenderableType], None]) -> int:  # fmt: skip
    outside, asked_at = ask_outside(config, jobs, options.offline), time.monotonic()
    while True:
        show(_drawn(jobs, look(config, jobs, want, options.limit, outside)))
        if not terminal.wait(max(0.5, options.every)):
            return terminal.GONE
        if time.monotonic() - asked_at >= _ASK_EVERY:
            outside, asked_at = ask_outside(config, jobs, options.offline), time.monotonic()


def ask_outside(config: Config, jobs: JobsFolder, offline: bool) -> Optional[Outside]:
    return None if offline else _ask(config, jobs, slurm=bool(places.count(jobs.active)))


def _ask(config: Config, jobs: JobsFolder, slurm: bool) -> Outside:
    from .outside import ask

    return ask(config, jobs, slurm=slurm)


# --- what is shown, as --json has it


@dataclass(frozen=True)
class Row:
    """One job; times in seconds since 1970."""

    job: str
    state: str
    since: float
    claimed_at: float
    queue: str = ""
    workload: str = ""
    correlation_id: str = ""
    outcome: str = ""
    why: str = ""
    attempt: int = 0
    attempts: int = 0
    """How many there may be."""
    slurm: str = ""
    slurm_state: str = ""
    slurm_reason: str = ""
    node: str = ""
    progress: Optional[float] = None
    progress_words: str = ""


@dataclass(frozen=True)
class Pass:
    """The last pass, or the one that runs now."""

    host: str
    at: float
    running: bool


@dataclass(frozen=True)
class Standing:
    """Everything that status says."""

    at: float
    installation: str
    max_in_flight: int
    last_pass: Optional[Pass]
    site_fault: Optional[SiteFault]
    waiting: dict[str, int]
    queue_faults: dict[str, str]
    stopped: dict[str, str]
    """Workloads of which nothing can be begun: why."""
    broker_away: str
    slurm_away: str
    active: dict[str, int]
    oldest_claimed_at: Optional[float]
    oldest_unanswered_since: Optional[float]
    done: dict[str, int]
    """Jobs by the day on which they were put away, as they lie there."""
    outcomes: dict[str, dict[str, int]]
    """By day and outcome, as the passes have counted them."""
    rejected: int
    undelivered: int
    pilots: list[QueueRow] = field(default_factory=list)
    """Of queues whose jobs go to pilots; these jobs are not among the active ones."""
    jobs: list[Row] = field(default_factory=list)
    more: bool = False
    """More jobs fit than are listed."""
    unknown: list[str] = field(default_factory=list)
    """What was given as a job's id, and names none, or several."""
    declined: list[str] = field(default_factory=list)
    """Which jobs Slurm declines, in sentences."""
    unclear: list[str] = field(default_factory=list)
    """Of each of the unknown ones why, with the jobs that it may mean."""
    paused: Optional[Pause] = None
    """Somebody wants no new message to be taken."""


def look(config: Config, jobs: JobsFolder, want: Wanted, limit: int, outside: Optional[Outside]) -> Standing:
    now = time.time()
    everything = sorted(places.active(jobs), key=lambda found: found.claimed_at)
    chosen = naming.choose(config, jobs, want, now, everything) if want.jobs or want.filters else Chosen(everything)
    listed = list(itertools.islice(chosen.jobs, limit + 1))
    unsent = [found.since for found in everything if found.word in UNSENT]
    return Standing(
        at=now,
        installation=config.site.installation,
        max_in_flight=config.site.max_in_flight,
        last_pass=_last_pass(jobs),
        site_fault=_site_fault(jobs),
        waiting=dict(outside.waiting) if outside else {},
        stopped=Workloads(config.root, config.site).stopped(),
        queue_faults=dict(outside.queue_faults) if outside else {},
        broker_away=outside.broker_away if outside else "",
        slurm_away=outside.slurm_away if outside else "",
        active=_counted(everything),
        oldest_claimed_at=everything[0].claimed_at if everything else None,
        oldest_unanswered_since=min(unsent, default=None),
        done={day: places.count(jobs.done / day) for day in sorted(places.done_days(jobs), reverse=True)},
        outcomes={day: dict(counts) for day, counts in tally.read(jobs.tally).days.items()},
        rejected=places.count(jobs.rejected),
        undelivered=places.count(jobs.undelivered),
        pilots=queue_rows(config, jobs),
        declined=[shapes.sentence(each, now) for each in Shapes(jobs, config.site.slurm).all()],
        jobs=[*(_row(found, outside) for found in listed[:limit]), *map(_row_inside, chosen.inside)],
        more=len(listed) > limit,
        unknown=[each.word for each in chosen.unclear],
        unclear=[str(each) for each in chosen.unclear],
        paused=pause.seen(jobs),
    )


def _counted(everything: Sequence[Found]) -> dict[str, int]:
    """In the order of a job's life."""
    counted = Counter(found.word for found in everything)
    return {word: counted[word] for word in STATES if counted[word]}


def _row(found: Found, outside: Optional[Outside]) -> Row:
    base: dict[str, Any] = {
        "job": found.job.id, "state": found.word, "since": found.since, "claimed_at": found.claimed_at,
        "attempt": found.attempt,
    }  # fmt: skip
    try:
        return Row(**{**base, **_of_the_job(found), **_of_the_attempt(found, outside)})
    except (Damaged, OSError) as error:
        return Row(**{**base, "state": DAMAGED if found.word in STATES else found.word, "why": str(error)})


def _row_inside(job: InBatch) -> Row:
    message, result = job.claimed.message, job.result
    return Row(
        job.claimed.id, job.state, job.since, message.claimed_at, message.queue, job.claimed.workload,
        screen.plain(message.properties.get("correlation_id") or ""), result.outcome if result else "",
        result.reason if result else "",
    )  # fmt: skip


def _of_the_job(found: Found) -> dict[str, Any]:
    job = found.job
    message, spec, outcome = job.message.read(), job.spec.read(), job.outcome.read()
    result = read_result(job.attempt(outcome.attempt)) if outcome else None
    correlation_id = message.properties.get("correlation_id") if message else ""
    return {
        "queue": message.queue if message else "",
        "correlation_id": screen.plain(correlation_id or ""),
        "workload": spec.workload if spec else "",
        "attempts": spec.retry.attempts if spec else 1,
        "outcome": outcome.outcome if outcome else "",
        "why": outcome.why(result) if outcome else "",
    }


def _of_the_attempt(found: Found, outside: Optional[Outside]) -> dict[str, Any]:
    if not found.attempt:
        return {}
    a = found.job.attempt(found.attempt)
    started, submission, progress = read_started(a), a.submission.read(), read_progress(a)
    fact = started or submission
    view = outside.view(a.intent.read()) if outside and found.word in STATES else None
    return {
        "slurm": fact.slurm_id if fact else "",
        "node": started.node if started else "",
        "slurm_state": view.state if view else "",
        "slurm_reason": view.reason if view and view.phase.value == "waiting" else "",
        "progress": progress.fraction if progress else None,
        "progress_words": progress.words if progress else "",
    }


def _last_pass(jobs: JobsFolder) -> Optional[Pass]:
    """Told by the lease: its holder renews it, and leaves it read-only in the end."""
    try:
        found = jobs.lease.stat()
        holder = json.loads(contents(jobs.lease) or b"")
        return Pass(screen.plain(holder["host"]), found.st_mtime, bool(found.st_mode & stat.S_IWUSR))
    except (Damaged, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _site_fault(jobs: JobsFolder) -> Optional[SiteFault]:
    try:
        return site_fault_of(jobs).read()
    except Damaged:
        return None


# --- for people


def _drawn(jobs: JobsFolder, standing: Standing) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    head = screen.table("", "")
    head.show_header = False
    for name, words in _head(standing):
        head.add_row(Text(name, style="bold"), Text(screen.plain(words, 1000)))
    parts: list[RenderableType] = [head]
    if standing.jobs:
        parts += [Text(""), _table(Ids.in_folders(jobs), standing)]
    if standing.more:
        parts.append(Text("There are more: --limit N lists more, filters list fewer."))
    parts += [Text(f"{why}.") for why in standing.unclear]
    return Group(*parts)


def _head(standing: Standing) -> Iterator[tuple[str, str]]:
    now = standing.at
    yield "batchferry", f"{standing.installation}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}"
    yield "pass", _pass_words(standing.last_pass, now)
    if standing.paused is not None:
        yield "paused", f"{standing.paused.sentence.removeprefix('paused ')}; ./check.py resume ends this"
    fault = standing.site_fault
    if fault is not None:
        yield "site", f"away since {screen.when(fault.since, now)} ({fault.kind}): {screen.plain(fault.words)}"
    for sentence in standing.declined:
        yield "declined", screen.plain(sentence, 1000)
    for queue, waiting in standing.waiting.items():
        yield "queue", f"{queue}: {screen.counted(waiting, 'message')} waiting"
    for name, why in standing.stopped.items():
        yield "workload", f"{screen.plain(name)} is stopped: {screen.plain(why, 1000)}"
    for why in standing.queue_faults.values():
        yield "queue", screen.plain(why, 1000)
    for who, why in (("broker", standing.broker_away), ("slurm", standing.slurm_away)):
        if why:
            yield who, f"gives no answer: {screen.plain(why)}"
    yield "active", _active_words(standing)
    if standing.oldest_unanswered_since is not None:
        yield "answers", f"the oldest unsent one waits for {screen.lasted(now - standing.oldest_unanswered_since)}"
    for row in standing.pilots:
        yield "pilots", f"{screen.plain(row.queue)}: {_pilot_words(row)}"
    yield "done", _done_words(standing)
    if standing.rejected or standing.undelivered:
        yield "kept", f"rejected {standing.rejected}, undelivered {standing.undelivered}"


def _pass_words(last: Optional[Pass], now: float) -> str:
    if last is None:
        return "none yet (is run_check in the crontab?)"
    age = screen.lasted(now - last.at)
    return f"runs on {last.host}, last sign of life {age} ago" if last.running else f"ended {age} ago on {last.host}"


def _active_words(standing: Standing) -> str:
    total = sum(standing.active.values())
    counts = ", ".join(f"{word} {n}" for word, n in standing.active.items())
    oldest = standing.oldest_claimed_at
    age = f"; the oldest was claimed {screen.lasted(standing.at - oldest)} ago" if oldest is not None else ""
    return f"{total} of at most {standing.max_in_flight}{f': {counts}' if counts else ''}{age}"


def _pilot_words(row: QueueRow) -> str:
    counts: dict[str, int] = {word: getattr(row, word) for word in BATCH_STATES}
    crew = Counter(pilot.state for pilot in row.pilots)
    jobs = ", ".join(f"{word} {n}" for word, n in counts.items() if n)
    pilots = ", ".join(f"{n} {state}" for state, n in crew.items())
    return (
        f"{jobs or 'no jobs'}; pilots: {pilots or 'none'}{f'; unfit: {screen.plain(row.unfit)}' if row.unfit else ''}"
    )


def _done_words(standing: Standing) -> str:
    done = standing.done
    if not done:
        return "none kept"
    recent = ", ".join(
        f"{day} {n}{_outcome_words(standing.outcomes.get(day, {}))}" for day, n in itertools.islice(done.items(), 3)
    )
    return f"{sum(done.values())} kept of {screen.counted(len(done), 'day')}; {recent}"


def _outcome_words(counts: dict[str, int]) -> str:
    """Those that did not succeed. Those that were rejected are not among the done."""
    told = ((outcome, n) for outcome, n in sorted(counts.items()) if outcome not in ("succeeded", "rejected") and n)
    words = ", ".join(f"{outcome} {n}" for outcome, n in told)
    return f" ({words})" if words else ""


def _table(ids: Ids, standing: Standing) -> Table:
    from rich.text import Text

    made = screen.table("job", "state", "for", "workload", "attempt", "slurm", "what",
                        whole=("job", "state", "for", "attempt"))  # fmt: skip
    for row in standing.jobs:
        cells = (
            ids.short(row.job), row.state, screen.lasted(standing.at - row.since), screen.plain(row.workload),
            f"{row.attempt}/{row.attempts}" if row.attempt else "", screen.plain(row.slurm), _what(row),
        )  # fmt: skip
        style = _STYLES.get(row.outcome) or _STYLES.get(row.state, "")
        made.add_row(*(Text(cell, style=style if i == 1 else "") for i, cell in enumerate(cells)))
    return made


_STYLES = {
    "running": "cyan", "succeeded": "green", "damaged": "bold red", "unanswered": "bold red", "unclear": "yellow",
    "failed": "red", "rejected": "red", "out_of_memory": "red", "timed_out": "red", "lost": "red", "node_failed": "red",
}  # fmt: skip


def _what(row: Row) -> str:
    progress = f"{row.progress:.0%} {row.progress_words}".strip() if row.progress is not None else ""
    if row.outcome:
        return screen.plain(f"{row.outcome}{f': {row.why}' if row.why else ''}", 160)
    parts = [row.why, row.slurm_state, row.slurm_reason, row.node, progress]
    return screen.plain(" ".join(part for part in parts if part), 160)
