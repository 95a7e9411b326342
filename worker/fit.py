"""Which jobs a queue's pilots can take. Pure."""

from __future__ import annotations

from typing import Optional

from .job.spec import Resources
from .settings import PilotRules, ResourceRules, Timing


def unfit_for_pilots(asked: Resources, rules: PilotRules, timing: Timing) -> Optional[str]:
    """What a job asks for that no pilot of these can give, in words; None for one that fits."""
    time_left = rules.time - timing.margin(rules.time)
    if asked.gres:
        return "asks for GPUs"
    if asked.email:
        return "asks for e-mail"
    if asked.cpus > rules.cpus:
        return f"asks for {asked.cpus} CPUs, a pilot has {rules.cpus}"
    if asked.memory_mb > rules.memory_mb:
        return f"asks for {asked.memory_mb} MB, a pilot has {rules.memory_mb}"
    if asked.time_seconds >= time_left:
        return f"asks for {_minutes(asked.time_seconds)} minutes, a pilot gives a job less than {_minutes(time_left)}"
    return None


def default_resources(rules: ResourceRules) -> Resources:
    """What a job gets whose message asks for nothing."""
    by_memory = (rule.gres for rule in rules.gpus_by_memory if rules.memory_mb <= rule.up_to_mb)
    gres = f"gpu:{rules.gpus}" if rules.gpus else next(by_memory, None)
    return Resources(rules.cpus, rules.memory_mb, int(rules.time), gres)


def _minutes(seconds: float) -> str:
    return f"{round(seconds / 60, 1):g}"
