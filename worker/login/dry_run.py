"""What a pass would submit. Takes nothing: messages are looked at and go back to their places in the queue."""

from __future__ import annotations

import json
import os
import shlex

from slurm import commands

from ..broker import Delivery, digest
from ..errors import InvalidSpec, Transient
from ..facts import Intent
from ..folder import JobsFolder
from ..settings import Config, Queue
from .claim import free_id
from .reconcile import understand
from .submit import request
from .tools import Tools


def dry_run(config: Config, drain: bool, as_json: bool) -> int:
    """Prints one row per message. The broker marks a message that it showed as redelivered."""
    tools = Tools(config, JobsFolder(config.site.jobs_dir))
    rows = []
    try:
        for queue in config.site.queues:
            if tools.broker.waiting(queue, make=False) > 0:
                rows += [
                    _row(tools, queue, delivery)
                    for delivery in _peek(tools, queue, config.site.max_in_flight if drain else 1)
                ]
    except Transient as error:
        print(f"check.py: {error}")
        return os.EX_UNAVAILABLE
    finally:
        tools.close()
    print(json.dumps(rows, indent=1) if as_json else "\n".join(map(_line, rows)) or "The queue is empty.")
    return os.EX_OK


def _peek(tools: Tools, queue: Queue, most: int) -> list[Delivery]:
    """Held, never acked: closing the connection gives them back."""
    held: list[Delivery] = []
    while len(held) < most:
        delivery = tools.broker.get(queue.name)
        if delivery is None:
            break
        held.append(delivery)
    return held


def _row(tools: Tools, queue: Queue, delivery: Delivery) -> dict[str, object]:
    config, job_id = tools.config, digest(delivery)
    row: dict[str, object] = {"job": job_id, "queue": queue.name}
    if free_id(tools.jobs, delivery) is None:
        return {**row, "would": "ack", "why": "it was claimed before"}
    try:
        spec = understand(config, queue, delivery.properties.reply_to, delivery.body)
    except InvalidSpec as error:
        return {**row, "would": "reject", "why": str(error)}
    slurm, group = config.site.slurm, "<group>"
    wish = request(config, Intent(group, f"bf-{config.site.installation}-{group}", 0, spec.resources, at=0))
    argv = commands.sbatch(wish, slurm.account, slurm.partition, slurm.extra_options)
    return {
        **row,
        "would": "submit",
        "workload": spec.workload,
        "inputs": {n: i.url for n, i in spec.inputs.items()},
        "sbatch": argv,
    }


def _line(row: dict[str, object]) -> str:
    argv = row.get("sbatch")
    what = shlex.join(argv) if isinstance(argv, list) else row["why"]
    return f"{row['job']}  {row['would']}: {what}"
