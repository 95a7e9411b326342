"""What can be found out about this site: partitions, accounts and limits from Slurm, the queue from the broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from scheduler import Unavailable
from slurm.survey import Partition, Survey

from ..errors import Transient
from ..job.sentences import counted
from ..settings import Credentials, PilotRules, Queue, ResourceRules

_SECONDS = 20.0
_MOST_BYTES = 17 * 2**20
_MOST_SHOWN = 30
_Settings = dict[tuple[str, str], Any]
"""(table, name) -> value, of site.toml."""


@dataclass(frozen=True)
class Proposals:
    """`answers` to questions, `settings` of site.toml that are no question, and `notes` for the operator."""

    answers: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ask_slurm(bin_dir: str, partition: str) -> Proposals:
    """Proposes a partition where the cluster has no default, and caps that the chosen one can hold."""
    slurm = Survey(bin_dir, timeout=_SECONDS)
    try:
        partitions, settings = slurm.partitions(), slurm.settings()
    except Unavailable as error:
        return Proposals(notes=(f"Slurm could not be asked: {error}",))
    notes = [f"Partitions: {', '.join(map(_describe, partitions))}."]
    chosen = _choose(partitions, partition)
    if chosen is None:
        notes.append(f"There is no partition {partition}." if partition else "There is no default partition.")
    answers = {} if chosen is None or chosen.is_default else {"partition": chosen.name}
    found = _caps(chosen) if chosen else {}
    largest = int(settings.get("MaxArraySize", "0") or 0) - 1
    found.update({("slurm", "array_size"): max(1, largest)} if 0 <= largest < 1000 else {})
    found.update(_accounting(slurm, notes))
    return Proposals(answers, found, tuple(notes))


def _describe(partition: Partition) -> str:
    limit = f"{partition.max_minutes} min" if partition.max_minutes is not None else "no time limit"
    return (
        f"{partition.name}{' (default)' if partition.is_default else ''} "
        f"({counted(partition.nodes, 'node')}, {counted(partition.cpus, 'CPU')}, {partition.memory_mb} MB, {limit})"
    )


def _choose(partitions: list[Partition], wanted: str) -> Optional[Partition]:
    if wanted:
        return next((each for each in partitions if each.name == wanted), None)
    default = next((each for each in partitions if each.is_default), None)
    return default or (partitions[0] if len(partitions) == 1 else None)


def _caps(partition: Partition) -> _Settings:
    """No more than a node of it has, where that is less than the defaults."""
    caps: _Settings = {}
    usual, limit = ResourceRules(), partition.max_minutes
    if 0 < partition.cpus < usual.max_cpus:
        caps["queues.resources", "max_cpus"] = partition.cpus
    if 0 < partition.memory_mb < usual.max_memory_mb:
        caps["queues.resources", "max_memory_mb"] = partition.memory_mb
        if partition.memory_mb < usual.memory_mb:
            caps["queues.resources", "memory_mb"] = partition.memory_mb
    if limit is not None and limit * 60 < usual.max_time:
        caps["queues.resources", "max_time"] = f"{limit}min"
        if limit * 60 < usual.time:
            caps["queues.resources", "time"] = f"{limit}min"
        if limit * 60 < PilotRules().time:
            caps["queues.pilot", "time"] = f"{limit}min"
    return caps


def _accounting(slurm: Survey, notes: list[str]) -> _Settings:
    try:
        accounts = slurm.accounts()
        notes.append(f"Accounts: {', '.join(accounts) or 'none'}.")
        slurm.ask_accounting()
    except Unavailable:
        notes.append("There is no accounting here (sacct does not answer): accounting = false.")
        return {("slurm", "accounting"): False}
    return {}


def ask_for_queues(credentials: Credentials, ca_file: Optional[str]) -> Proposals:
    """What the broker has, where it tells; proposes the queue if there is one whose name speaks of jobs."""
    from ..amqp.management import Management

    queues = [
        (name, messages)
        for name, messages in Management(credentials, ca_file).queues() or ()
        if not name.startswith("amq.")
    ]
    if not queues:
        return Proposals()
    shown = [f"{name} ({messages} waiting)" for name, messages in sorted(queues)[:_MOST_SHOWN]]
    more = f" and {len(queues) - _MOST_SHOWN} more" if len(queues) > _MOST_SHOWN else ""
    likely = [name for name, _ in queues if "job" in name.lower()]
    return Proposals({"queue": likely[0]} if len(likely) == 1 else {}, {}, (f"Queues: {', '.join(shown)}{more}.",))


def ask_broker(credentials: Credentials, ca_file: Optional[str], queue: str, ours: bool) -> Proposals:
    """Tells whether the queue is there, and the largest answer that the broker takes if that is less than usual. `ours`:
    we are the ones who make it, and so say how."""
    from ..amqp.trial import Trial

    trial = Trial(credentials, ca_file)
    try:
        seen = trial.look(Queue(queue, ""))
        most = trial.largest(_MOST_BYTES) if trial.may_answer() else _MOST_BYTES
    except Transient as error:
        return Proposals(notes=(f"The broker could not be asked: {error}",))
    finally:
        trial.close()
    words = {
        "there": f"is there ({seen.kind}), {counted(seen.messages, 'message')} {'waits' if seen.messages == 1 else 'wait'}",
        "missing": "does not exist yet"
        + ("" if ours else "; the service makes it, and what is published before that is lost"),
    }
    notes = (f"The queue {queue} {words.get(seen.state, 'is not for us: ' + seen.state)}.",)
    settings: _Settings = {("replies", "max_bytes"): most} if 0 < most < _MOST_BYTES else {}
    if ours and seen.known:
        settings["queues", "durable"] = seen.durable
    if ours and seen.known and seen.arguments:
        settings["queues", "arguments"] = dict(seen.arguments)
    return Proposals({}, settings, notes)
