"""`check.py show JOB`: everything about one job, as a timeline; its inputs, outputs, what it used, and the end of its log."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from scheduler import SlurmJobId, Unavailable, Usage

from .. import as_json
from ..errors import Damaged
from ..folder.facts import AttemptFolder, JobFolder, read_progress, read_result
from ..folder.jobs import JobsFolder
from ..job import sentences
from ..job.facts import Intent, Message, Progress
from ..job.outcome import Result
from ..job.spec import Resources
from ..job.stage import STATES, words_in_help
from ..settings import Config
from . import in_batches, naming, screen, terminal
from .in_batches import InBatch
from .naming import NotOne
from .places import Found
from .timeline import Event, resources, timeline

SUMMARY = "one job's whole life: timeline, inputs, outputs, usage, log"
HELP = f"""\
Everything about one job. What it used is known from its worker, and from sacct if that answers. Times are in this host's time
zone, and were noted by the clocks of several hosts.

{words_in_help()}
"""
EXIT_CODES = {0: "the job is shown", 65: "no single job has this name, or its folder can't be read"}
EXAMPLES = """\
examples:
  ./check.py show 4f0c                the job whose id begins so
  ./check.py show 4f0c --lines 200    with more of its log
  ./check.py show 4f0c --follow       then its log as it grows, until it has ended; Ctrl-C ends it
  ./check.py show 4f0c --json
"""
_LONGEST_LINE = 2000
_BLOCK = 65536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    naming.add_job(parser)
    parser.add_argument("--follow", action="store_true", help="keep printing its log as it grows")
    parser.add_argument(
        "--lines", type=int, default=10, metavar="N", help="print this many lines of its log (default: 10)"
    )
    parser.add_argument("--offline", action="store_true", help="do not ask Slurm what it used")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs = JobsFolder(config.site.jobs_dir)
    found = naming.one(config, jobs, options.job)
    if isinstance(found, InBatch):
        return _show(_story_inside(found), options.json, follow=False)
    if isinstance(found, NotOne):
        return found.tell(options.json)
    try:
        story = _story(config, jobs, found, options.lines, options.offline)
    except (Damaged, OSError) as error:
        return as_json.fail(f"{found.job.path} can't be read: {error}", os.EX_DATAERR, options.json)
    _show(story, options.json, options.follow)
    if options.follow and found.attempt and not options.json:
        return _follow(jobs, found, options.lines)
    return os.EX_OK


def _show(story: Story, in_json: bool, follow: bool) -> int:
    if in_json:
        return as_json.show(story, os.EX_OK)
    _print(story, follow)
    return os.EX_OK


@dataclass(frozen=True)
class Used:
    """One attempt: what it was given, and what it used; None where nobody knows."""

    attempt: int
    asked_cpus: int
    asked_memory_mb: int
    asked_seconds: int
    seconds: Optional[float] = None
    cpu_seconds: Optional[float] = None
    memory_mb: Optional[float] = None
    memory_of: str = ""
    """"all processes" (accounting), or "its largest process" (the worker)."""


@dataclass(frozen=True)
class Story:
    """What --json prints; times in seconds since 1970, sizes in bytes."""

    job: str
    state: str
    folder: str
    queue: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    workload: str = ""
    asks_for: str = ""
    body: str = ""
    """The message's beginning, where it was no valid job."""
    outcome: str = ""
    reason: str = ""
    progress: Optional[Progress] = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Optional[int]] = field(default_factory=dict)
    """Name -> size; None for one that is not made yet."""
    settings: dict[str, Any] = field(default_factory=dict)
    timeline: list[Event] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)
    slurm_away: str = ""
    log: str = ""
    """The path of the last attempt's log."""
    log_tail: list[str] = field(default_factory=list)


def _story(config: Config, jobs: JobsFolder, found: Found, lines: int, offline: bool) -> Story:
    job = found.job
    message, spec, outcome = job.message.read(), job.spec.read(), job.outcome.read()
    result = read_result(job.attempt(outcome.attempt)) if outcome else None
    last = job.attempt(found.attempt) if found.attempt else None
    used, slurm_away = _used_by_all(config, jobs, job, offline)
    properties = message.properties if message else {}
    sizes = {name: output.size for name, output in result.outputs.items()} if result else {}
    return Story(
        job=job.id,
        state=found.word,
        folder=str(job.path),
        queue=message.queue if message else "",
        correlation_id=screen.plain(properties.get("correlation_id") or ""),
        reply_to=screen.plain(properties.get("reply_to") or ""),
        workload=spec.workload if spec else "",
        body=_body(message) if message and not spec else "",
        asks_for=resources(spec.resources) if spec else "",
        outcome=outcome.outcome if outcome else "",
        reason=outcome.why(result) if outcome else "",
        progress=read_progress(last) if last else None,
        # What follows the question mark may be a signature that lets anybody fetch it.
        inputs={name: each.url.partition("?")[0] for name, each in spec.inputs.items()} if spec else {},
        outputs={name: sizes.get(name) for name in spec.outputs} if spec else {},
        settings=dict(spec.settings) if spec else {},
        timeline=timeline(job),
        used=used,
        slurm_away=slurm_away,
        log=str(last.log) if last else "",
        log_tail=list(_tail(last.log, lines)) if last else [],
    )


def _story_inside(job: InBatch) -> Story:
    """Of one in a pilot's batch: no file but its batch's tells of it."""
    message, result = job.claimed.message, job.result
    return Story(
        job=job.claimed.id,
        state=job.state,
        folder=f"{job.batch.path} (job {job.place} of {job.of})",
        queue=message.queue,
        correlation_id=screen.plain(message.properties.get("correlation_id") or ""),
        reply_to=screen.plain(message.properties.get("reply_to") or ""),
        workload=job.claimed.workload,
        asks_for=resources(job.claimed.resources),
        outcome=result.outcome if result else "",
        reason=result.reason if result else "",
        outputs={name: output.size for name, output in result.outputs.items()} if result else {},
        timeline=in_batches.timeline(job),
        used=[_used_inside(job.claimed.resources, result)] if result else [],
    )


def _used_inside(asked: Resources, result: Result) -> Used:
    own = result.used
    known = own is not None and result.started_at is not None and result.ended_at is not None
    return Used(
        1, asked.cpus, asked.memory_mb, asked.time_seconds,
        seconds=result.ended_at - result.started_at if known else None,  # type: ignore[operator]
        cpu_seconds=own.cpu_seconds if own else None,
        memory_mb=float(own.process_mb) or None if own else None,
        memory_of="its largest process" if own and own.process_mb else "",
    )  # fmt: skip


def _body(message: Message) -> str:
    body = message.body if isinstance(message.body, str) else message.body.decode("utf-8", "replace")
    return body[:_LONGEST_LINE]


# --- what it used


def _used_by_all(config: Config, jobs: JobsFolder, job: JobFolder, offline: bool) -> tuple[list[Used], str]:
    """Of each attempt that ended; Slurm is asked until it gives no answer once."""
    rows, away = [], ""
    for number in job.attempt_numbers():
        attempt = job.attempt(number)
        intent, result = attempt.intent.read(), read_result(attempt)
        if intent is None or result is None:
            continue
        usage: Optional[Usage] = None
        if not offline and not away and result.slurm_job_id:
            usage, away = _ask(config, jobs, result.slurm_job_id)
        rows.append(_used(attempt, intent, usage))
    return rows, away


def _ask(config: Config, jobs: JobsFolder, slurm_id: str) -> tuple[Optional[Usage], str]:
    from ..login.budget import Spent, scheduler_for_people

    try:
        return scheduler_for_people(config.site, jobs, 1).usage(SlurmJobId(slurm_id)), ""
    except Unavailable as error:
        return None, str(error)
    except Spent:
        return None, "its commands are used up for now (slurm.commands_per_second)"


def _used(attempt: AttemptFolder, intent: Intent, usage: Optional[Usage]) -> Used:
    result, told = read_result(attempt), usage or Usage()
    own = result.used if result else None
    seconds = told.elapsed_seconds
    if seconds is None and result and result.started_at is not None and result.ended_at is not None:
        seconds = result.ended_at - result.started_at
    memory = [(told.memory_mb or 0.0, "all processes"), (float(own.process_mb) if own else 0.0, "its largest process")]
    most, of = max(memory)  # accounting looks now and then, and misses a peak
    return Used(
        attempt.number, intent.resources.cpus, intent.resources.memory_mb, intent.resources.time_seconds,
        seconds=seconds,
        cpu_seconds=told.cpu_seconds or (own.cpu_seconds if own else None),
        memory_mb=most or None,
        memory_of=of if most else "",
    )  # fmt: skip


def _used_words(u: Used) -> str:
    parts = []
    if u.seconds is not None:
        parts.append(f"{screen.lasted(u.seconds)} of {sentences.duration(u.asked_seconds)}")
    if u.cpu_seconds is not None and u.seconds:
        share = u.cpu_seconds / (u.seconds * u.asked_cpus)
        parts.append(
            f"{screen.lasted(u.cpu_seconds)} of CPU time, {share:.0%} of {screen.counted(u.asked_cpus, 'CPU')}"
        )
    if u.memory_mb is not None:
        share = u.memory_mb / u.asked_memory_mb
        parts.append(f"{u.memory_mb:.0f} MB of {u.asked_memory_mb} MB ({share:.0%}, {u.memory_of})")
    return "; ".join(parts) or "nobody has said"


# --- for people


def _print(story: Story, follow: bool) -> None:
    from rich.text import Text

    console, head = screen.console(), screen.table("", "")
    head.show_header = False
    for name, words in _head(story):
        head.add_row(Text(name, style="bold"), Text(screen.plain(words, _LONGEST_LINE)))
    console.print(head)
    console.print()
    made = screen.table("when", "attempt", "what", "", right=("attempt",))
    for event in story.timeline:
        made.add_row(
            *map(
                Text,
                (screen.when(event.at), str(event.attempt or ""), screen.plain(event.what), screen.plain(event.words)),
            )
        )
    console.print(made)
    if story.log and not follow:
        console.print(Text(f"\n{story.log}", style="bold"))
        for line in story.log_tail:
            console.print(Text(f"  {line}"), soft_wrap=True)


def _head(story: Story) -> Iterator[tuple[str, str]]:
    yield "job", story.job
    yield "state", f"{story.state}: {STATES[story.state]}" if story.state in STATES else story.state
    if story.outcome:
        yield "outcome", f"{story.outcome}{f': {screen.plain(story.reason)}' if story.reason else ''}"
    if story.progress is not None:
        p = story.progress
        yield "progress", f"{p.fraction:.0%} {p.words} ({screen.lasted(time.time() - p.at)} ago)"
    yield "folder", story.folder
    yield "message", f"from {screen.plain(story.queue)}, correlation_id {story.correlation_id!r}, to {story.reply_to!r}"
    if story.body:
        yield "body", screen.plain(story.body)
    if story.workload:
        yield "workload", f"{screen.plain(story.workload)}, asks for {story.asks_for}"
    for name, url in story.inputs.items():
        yield "input", f"{screen.plain(name)}: {screen.plain(url)}"
    for name, length in story.outputs.items():
        yield "output", f"{screen.plain(name)}{f': {screen.size(length)}' if length is not None else ''}"
    if story.settings:
        yield "settings", screen.plain(json.dumps(story.settings))
    for used in story.used:
        yield "used", f"{f'attempt {used.attempt}: ' if len(story.used) > 1 else ''}{_used_words(used)}"
    if story.slurm_away:
        yield "slurm", f"gives no answer: {screen.plain(story.slurm_away)}"


# --- its log


@dataclass(frozen=True)
class _End:
    """The end of a log: its last whole lines, the beginning of one that is not complete yet, and where the file is read
    on."""

    whole: Sequence[str] = ()
    rest: str = ""
    position: int = 0


def _end_of(path: Path, lines: int) -> _End:
    """Only the end of a large log is read. What is written while it is read comes after `position`."""
    try:
        with open(path, "rb") as file:
            begin = max(0, os.fstat(file.fileno()).st_size - lines * 400 - 4096)
            file.seek(begin)
            content = file.read()
    except FileNotFoundError:
        return _End()
    *whole, rest = content.decode("utf-8", "replace").split("\n")
    return _End(whole[-lines:] if lines > 0 else (), rest, begin + len(content))


def _tail(path: Path, lines: int) -> Iterator[str]:
    """The last lines, as plain text."""
    end = _end_of(path, lines)
    for line in deque([*end.whole, *([end.rest] if end.rest else [])], maxlen=max(0, lines)):
        yield screen.plain(line, _LONGEST_LINE)


def _follow(jobs: JobsFolder, found: Found, lines: int) -> int:
    """The last attempt's log, until the job has its outcome, or nobody looks any more; a later attempt's log is gone on with.
    Returns an exit code."""
    number, position, rest = found.attempt, None, ""
    job: JobFolder = found.job
    while True:
        job = jobs.find(job.id) or job
        over = job.outcome.path.exists() and job.path.parent != jobs.active
        log = job.attempt(number).log
        if position is None:
            end = _end_of(log, lines)
            position, rest = end.position, end.rest[:_LONGEST_LINE]
            for line in end.whole:
                print(screen.plain(line, _LONGEST_LINE))
            sys.stdout.flush()  # into a pipe, it would come with the 8,192nd byte
        position, rest = _print_new(log, position, rest)
        latest = max(job.attempt_numbers(), default=number)
        if latest > number:
            print(f"--- attempt {latest}", flush=True)
            number, position, rest = latest, 0, ""
        elif over or (job.outcome.path.exists() and not _alive(job, number)):
            if rest:
                print(screen.plain(rest, _LONGEST_LINE))
            return os.EX_OK
        elif not terminal.wait(0.5):
            return terminal.GONE


def _alive(job: JobFolder, number: int) -> bool:
    """Whether its worker may still have something to say."""
    return not (
        job.delivered.path.exists() or job.undeliverable.path.exists() or job.attempt(number).ended.path.exists()
    )


def _print_new(log: Path, position: int, rest: str) -> tuple[int, str]:
    """Whole lines only; returns where to go on, and the beginning of a line that is not complete yet."""
    try:
        with open(log, "rb") as file:
            file.seek(position)
            while block := file.read(_BLOCK):
                position += len(block)
                *whole, rest = (rest + block.decode("utf-8", "replace")).split("\n")
                for line in whole:
                    print(screen.plain(line, _LONGEST_LINE), flush=True)
                rest = rest[:_LONGEST_LINE]
    except FileNotFoundError:
        pass
    return position, rest
