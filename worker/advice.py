"""What a site file says that is allowed, and yet hardly meant: for the doctor. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler import Traits

from .errors import Advice
from .fit import default_resources, unfit_for_pilots
from .settings import Queue, Site


def advice(site: Site, traits: Traits) -> Iterator[Advice]:
    """What follows from these values, and what to write instead. `traits`: of the site's scheduler."""
    for queue in site.queues:
        yield from _of_pilots(site, queue)
        yield from _of_gpus(queue)
    slurm, timing = site.slurm, site.timing
    if slurm.poll_fastest > slurm.poll_slowest:
        yield Advice(
            f"poll_fastest is longer than poll_slowest: squeue is asked every {slurm.poll_slowest:g} s, whatever happens",
            "Set poll_fastest in [slurm] of site.toml to less",
        )
    if traits.runs_commands and slurm.command_timeout >= timing.lease_expires:
        yield Advice(
            f"a Slurm command may take {slurm.command_timeout:g} s, and a pass is ended after {timing.lease_expires:g} s",
            "Set command_timeout in [slurm] lower than lease_expires in [timing] of site.toml",
        )
    slow = [name for name, workload in site.workloads.items() if workload.stop_wait >= timing.end_margin > 0]
    if slow:
        yield Advice(
            f"{', '.join(slow)} may take longer to stop (stop_wait) than the {timing.end_margin:g} s before a time limit "
            "in which a job is stopped: it may be killed before it can answer",
            "Set end_margin in [timing] of site.toml higher, or stop_wait lower",
        )


def _of_pilots(site: Site, queue: Queue) -> Iterator[Advice]:
    workload = site.workloads.get(queue.workload)
    mode = workload.mode_in(queue) if workload is not None else queue.mode
    why = unfit_for_pilots(default_resources(queue.resources), queue.pilot, site.timing) if mode == "pilot" else None
    if why:
        yield Advice(
            f'{queue.name} is in mode "pilot", but a job that says nothing {why}: each such job gets a Slurm job of its own',
            f"Let [queues.pilot] of {queue.name} in site.toml have more than its [queues.resources], or ask for less there",
        )


def _of_gpus(queue: Queue) -> Iterator[Advice]:
    rules, most = queue.resources.gpus_by_memory, queue.resources.max_memory_mb
    for before, rule in zip(rules, rules[1:]):
        if rule.up_to_mb <= before.up_to_mb:
            yield Advice(
                f"gpus_by_memory of {queue.name}: no job ever gets {rule.gres}, because the rule before is large enough",
                "Let the rules stand in the order of their memory",
            )
    if rules and max(rule.up_to_mb for rule in rules) < most:
        yield Advice(
            f"gpus_by_memory of {queue.name}: a job that asks for more than {max(rule.up_to_mb for rule in rules)} MB "
            "gets no GPU at all",
            f"Add a rule for up to {most} MB, or set max_memory_mb lower",
        )
