"""What the next pass would do: with the jobs that are claimed, with what waits, and with a message from a file.

Looking costs nothing: no message is got, because one that goes back counts against the delivery limit of a quorum queue
(RabbitMQ 4 drops it at its 21st return), and with read rights alone no queue can be told from a quorum queue.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from slurm import commands

from .. import as_json
from ..build import open_ends
from ..errors import Damaged, InvalidSpec, Transient
from ..folder import pause
from ..folder.jobs import JobsFolder
from ..folder.pause import Pause
from ..folder.snapshot import read_facts
from ..job.facts import Intent
from ..job.spec import JobSpec
from ..login.submit import request
from ..login.understand import understand
from ..settings import Config, Queue
from ..sources import QueueFault
from . import places, screen
from .explain import explain
from .naming import Ids


def dry_run(config: Config, drain: bool, in_json: bool) -> int:
    """Prints the messages that wait in each queue, and the next step of each claimed job. Returns an exit code."""
    folder = JobsFolder(config.site.jobs_dir)
    jobs, paused = list(_claimed(config, folder)), pause.seen(folder)
    free = 0 if paused else max(0, config.site.max_in_flight - len(jobs))
    try:
        queues = list(_queues(config, free if drain else min(free, 1)))
        away = "; ".join(each.fault for each in queues if each.fault)
    except Transient as error:
        queues, away = [], str(error)
    code = os.EX_UNAVAILABLE if away else os.EX_OK
    if in_json:
        return as_json.show(Planned(queues, jobs, away, paused), code)
    if not paused and not jobs and not away and not any(each.waiting for each in queues):
        print("The queue is empty.")
    else:
        ids = Ids.in_folders(JobsFolder(config.site.jobs_dir))
        if paused:
            screen.say(f"{screen.plain(paused.sentence, 1000)}.")
        for line in [*map(_queue_line, queues), *(line for job in jobs for line in _job_lines(ids, job))]:
            if line.startswith(" "):
                print(line)  # a command, to be pasted
            else:
                screen.say(line, "    ")
    if away:
        print(f"check.py: {away}", file=sys.stderr)
    return code


def dry_run_message(config: Config, file: str, queue_name: str, in_json: bool) -> int:
    """Prints what a message with this body (`-`: from standard input) would become, without asking the broker, the API or
    Slurm. Returns an exit code: EX_DATAERR where it would be rejected."""
    queue = config.queue(queue_name) if queue_name else config.site.queues[0]
    if queue is None:
        return as_json.fail(f"site.toml has no queue {queue_name!r}", os.EX_USAGE, in_json)
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        return as_json.fail(f"{file} can't be read: {error.strerror}", os.EX_NOINPUT, in_json)
    step = _understood(config, queue, body)
    code = os.EX_DATAERR if step.would == "reject" else os.EX_OK
    if in_json:
        return as_json.show(OfMessage(queue.name, **vars(step)), code)
    print(f"{step.would}: {step.why or shlex.join(step.sbatch)}")
    return code


def _queues(config: Config, room: int) -> Iterator[Waiting]:
    """Raises Transient."""
    ends = open_ends(config)
    try:
        for queue in config.site.queues:
            try:
                waiting, fault = ends.source(queue).waiting(queue, make=False), ""
            except QueueFault as error:
                waiting, fault = 0, str(error)
            yield Waiting(queue.name, waiting, min(waiting, room), fault)
    finally:
        ends.close()


def _claimed(config: Config, jobs: JobsFolder) -> Iterator[Next]:
    for found in places.active(jobs):
        words = " ".join(explain(config, jobs, found, offline=True))
        yield Next(found.job.id, found.word, words, **vars(_would_submit(config, found)))


def _would_submit(config: Config, found: places.Found) -> Step:
    """For a job that has not been tried yet: the call."""
    try:
        facts = read_facts(found.job)
        queue = config.queue(facts.message.queue) if facts else None
        if facts is None or queue is None or facts.attempts or facts.outcome is not None:
            return Step()
        return _understood(config, queue, facts.message.body_bytes, facts.message.properties.get("reply_to"))
    except (Damaged, OSError):
        return Step()


def _understood(config: Config, queue: Queue, body: bytes, reply_to: Union[str, bytes, int, None] = None) -> Step:
    try:
        spec = understand(config, queue, reply_to, body)
    except InvalidSpec as error:
        return Step("reject", str(error))
    inputs = {name: source.url for name, source in spec.inputs.items()}
    return Step("submit", workload=spec.workload, inputs=inputs, sbatch=_sbatch(config, spec))


def _sbatch(config: Config, spec: JobSpec) -> list[str]:
    slurm, group = config.site.slurm, "<group>"
    wish = request(config, Intent(group, f"bf-{config.site.installation}-{group}", 0, spec.resources, at=0))
    return commands.sbatch(wish, slurm.account, slurm.partition, slurm.extra_options)


def _queue_line(row: Waiting) -> str:
    if row.fault:
        return f"queue {row.queue}: can't be read"
    takes = f", the next pass takes {row.would_take}" if row.waiting else ""
    return f"queue {row.queue}: {row.waiting} waiting{takes}"


def _job_lines(ids: Ids, row: Next) -> Iterator[str]:
    yield f"job {ids.short(row.job)}  {row.state}: {screen.plain(row.next, 1000)}"
    if row.sbatch:
        yield f"    {shlex.join(row.sbatch)}"


# --- what --json prints


@dataclass(frozen=True)
class Step:
    """What a message that was not tried yet would become."""

    would: str = ""
    """submit, reject, or nothing for a job that was tried already."""
    why: str = ""
    """Of a rejection: what its requester would read."""
    workload: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    """By name, the URL."""
    sbatch: list[str] = field(default_factory=list)
    """The call."""


@dataclass(frozen=True)
class OfMessage:
    """Of one message: what it would become."""

    queue: str
    would: str
    why: str
    workload: str
    inputs: dict[str, str]
    sbatch: list[str]


@dataclass(frozen=True)
class Next:
    """Of a job that was claimed: what comes next."""

    job: str
    state: str
    next: str
    """In sentences."""
    would: str
    why: str
    workload: str
    inputs: dict[str, str]
    sbatch: list[str]


@dataclass(frozen=True)
class Waiting:
    """Of a queue: how many messages wait, and how many of them the next pass takes."""

    queue: str
    waiting: int
    would_take: int
    fault: str
    """Why it can't be read."""


@dataclass(frozen=True)
class Planned:
    queues: list[Waiting]
    jobs: list[Next]
    away: str
    """Who gives no answer, and why."""
    paused: Optional[Pause]
    """Somebody wants no new message to be taken."""
