"""What the next pass would do: with the jobs that are claimed, with what waits, and with a message from a file.

Looking costs nothing: no message is got, because one that goes back counts against the delivery limit of a quorum queue
(RabbitMQ 4 drops it at its 21st return), and with read rights alone no queue can be told from a quorum queue.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Union

from slurm import commands

from ..build import open_ends
from ..errors import Damaged, InvalidSpec, Transient
from ..folder import pause
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_facts
from ..job.facts import Intent
from ..job.spec import JobSpec
from ..login.submit import request
from ..login.understand import understand
from ..settings import Config, Queue
from ..sources import QueueFault
from . import places, screen
from .explain import explain


def dry_run(config: Config, drain: bool, as_json: bool) -> int:
    """Prints the messages that wait in each queue, and the next step of each claimed job. Returns an exit code."""
    folder = JobsFolder(config.site.jobs_dir)
    jobs, paused = list(_claimed(config, folder)), pause.seen(folder)
    free = 0 if paused else max(0, config.site.max_in_flight - len(jobs))
    try:
        queues = list(_queues(config, free if drain else min(free, 1)))
        away = "; ".join(each["fault"] for each in queues if each["fault"])
    except Transient as error:
        queues, away = [], str(error)
    if as_json:
        told = {"queues": queues, "jobs": jobs, "away": away, "paused": asdict(paused) if paused else None}
        print(json.dumps(told, indent=1))
    elif not paused and not jobs and not away and not any(each["waiting"] for each in queues):
        print("The queue is empty.")
    else:
        head = [f"{screen.plain(paused.sentence, 1000)}."] if paused else []
        print("\n".join([*head, *map(_queue_line, queues), *(line for job in jobs for line in _job_lines(job))]))
    if away:
        print(f"check.py: {away}", file=sys.stderr)
    return os.EX_UNAVAILABLE if away else os.EX_OK


def dry_run_message(config: Config, file: str, queue_name: str, as_json: bool) -> int:
    """Prints what a message with this body (`-`: from standard input) would become, without asking the broker, the API or
    Slurm. Returns an exit code: EX_DATAERR where it would be rejected."""
    queue = config.queue(queue_name) if queue_name else config.site.queues[0]
    if queue is None:
        print(f"check.py: site.toml has no queue {queue_name!r}", file=sys.stderr)
        return os.EX_USAGE
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        print(f"check.py: {file} can't be read: {error.strerror}", file=sys.stderr)
        return os.EX_NOINPUT
    row = _understood(config, queue, body)
    if as_json:
        print(json.dumps({"queue": queue.name, **row}, indent=1))
    else:
        print(f"{row['would']}: {row.get('why') or shlex.join(row['sbatch'])}")
    return os.EX_DATAERR if row["would"] == "reject" else os.EX_OK


def _queues(config: Config, room: int) -> Iterator[dict[str, Any]]:
    """Raises Transient."""
    ends = open_ends(config)
    try:
        for queue in config.site.queues:
            try:
                waiting, fault = ends.source(queue).waiting(queue, make=False), ""
            except QueueFault as error:
                waiting, fault = 0, str(error)
            yield {"queue": queue.name, "waiting": waiting, "would_take": min(waiting, room), "fault": fault}
    finally:
        ends.close()


def _claimed(config: Config, jobs: JobsFolder) -> Iterator[dict[str, Any]]:
    for found in places.active(jobs):
        row: dict[str, Any] = {"job": found.job.id, "state": found.word}
        row["next"] = " ".join(explain(config, jobs, found, offline=True))
        yield {**row, **_would_submit(config, found)}


def _would_submit(config: Config, found: places.Found) -> dict[str, Any]:
    """For a job that has not been tried yet: the call."""
    try:
        facts = read_facts(found.job)
        queue = config.queue(facts.message.queue) if facts else None
        if facts is None or queue is None or facts.attempts or facts.outcome is not None:
            return {}
        return _understood(config, queue, facts.message.body_bytes, facts.message.properties.get("reply_to"))
    except (Damaged, OSError):
        return {}


def _understood(
    config: Config, queue: Queue, body: bytes, reply_to: Union[str, bytes, int, None] = None
) -> dict[str, Any]:
    try:
        spec = understand(config, queue, reply_to, body)
    except InvalidSpec as error:
        return {"would": "reject", "why": str(error)}
    inputs = {name: source.url for name, source in spec.inputs.items()}
    return {"would": "submit", "workload": spec.workload, "inputs": inputs, "sbatch": _sbatch(config, spec)}


def _sbatch(config: Config, spec: JobSpec) -> list[str]:
    slurm, group = config.site.slurm, "<group>"
    wish = request(config, Intent(group, f"bf-{config.site.installation}-{group}", 0, spec.resources, at=0))
    return commands.sbatch(wish, slurm.account, slurm.partition, slurm.extra_options)


def _queue_line(row: dict[str, Any]) -> str:
    if row["fault"]:
        return f"queue {row['queue']}: can't be read"
    waits = f"{row['waiting']} waiting"
    return f"queue {row['queue']}: {waits}" + (f", the next pass takes {row['would_take']}" if row["waiting"] else "")


def _job_lines(row: dict[str, Any]) -> Iterator[str]:
    yield f"job {row['job']}  {row['state']}: {screen.plain(row['next'], 1000)}"
    if "sbatch" in row:
        yield f"    {shlex.join(row['sbatch'])}"
