"""Slurm: its commands, what site.toml asks of it, and the settings of its own that Batchferry depends on."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from scheduler import BatchRequest, Unavailable
from slurm.options import value_of
from slurm.survey import Partition, Survey

from ..build import traits
from ..job.sentences import counted
from ..settings import Queue, Site, SlurmSettings
from .report import Report
from .subject import Subject

_SECONDS = 20.0


def look_at_slurm(report: Report, subject: Subject) -> None:
    site = subject.known_site
    report.begin("commands")
    if not traits(site).runs_commands:
        report.ok(f'not needed: scheduler = "{site.scheduler}"')
        return
    slurm = _survey(site.slurm)
    try:
        version = slurm.version()
        if site.slurm.bin_dir and not os.path.isdir(site.slurm.bin_dir):
            report.warn(f"{version}, from elsewhere: bin_dir {site.slurm.bin_dir} is no folder",
                        "Mend bin_dir in [slurm] of site.toml, or take it out.")  # fmt: skip
        else:
            report.ok(version)
        report.begin("controller")
        settings = slurm.settings()
        report.ok(f"cluster {settings.get('ClusterName', '')} answers")
    except Unavailable as error:
        report.failed(error, "Run the command by hand; if it fails there too, ask the cluster's administrators.")
        return
    _look_at_settings(report, site, settings)
    _look_at_accounting(report, slurm, site.slurm)
    _look_at_account(report, slurm, site.slurm, settings)
    partition = _look_at_partition(report, slurm, site.slurm)
    for queue in site.queues:
        if partition is not None:
            _compare_times(report, site, queue, partition)
            _compare_caps(report, queue, partition)
        _try_out(report, slurm, subject, queue)


def _survey(s: SlurmSettings) -> Survey:
    return Survey(
        s.bin_dir,
        s.account,
        s.partition,
        s.extra_options,
        s.accounting,
        min(s.command_timeout, _SECONDS),
        s.array_limit,
    )


def _look_at_settings(report: Report, site: Site, settings: Mapping[str, str]) -> None:
    report.begin("MinJobAge")
    age = _number(settings.get("MinJobAge", ""))
    if not site.slurm.accounting and age is not None and age < 300:
        report.warn(f"{age} s, and no accounting: a job that ended during a pause of cron is answered `lost`",
                    "Use accounting if there is any, or ask for MinJobAge=300.")  # fmt: skip
    else:
        report.ok(f"squeue remembers an ended job for {settings.get('MinJobAge', 'unknown')}")
    report.begin("KillWait")
    wait = _number(settings.get("KillWait", ""))
    slow = [name for name, workload in site.workloads.items() if wait is not None and workload.stop_wait >= wait]
    if slow:
        report.warn(f"{wait} s between SIGTERM and SIGKILL; {', '.join(slow)} may take longer to stop (stop_wait)",
                    f"Set stop_wait below {wait}s, so that a cancelled job can still answer.")  # fmt: skip
    else:
        report.ok(f"{settings.get('KillWait', 'unknown')} between SIGTERM and SIGKILL of a cancelled job")
    report.begin("MaxArraySize")
    largest = _number(settings.get("MaxArraySize", "")) or 0
    if site.slurm.array_size > 1 >= largest - 1:
        report.warn("this cluster has no arrays; each job is submitted by itself", "Set array_size = 1 in site.toml.")
    else:
        report.ok(f"arrays of up to {counted(min(site.slurm.array_size, max(1, largest - 1)), 'job')}")
    report.begin("JobRequeue")
    report.ok(f"{settings.get('JobRequeue', 'unknown')}; our jobs ask for --no-requeue, attempts are counted here")


def _look_at_accounting(report: Report, slurm: Survey, s: SlurmSettings) -> None:
    report.begin("accounting")
    if not s.accounting:
        report.warn("off in site.toml: a job that squeue has forgotten is answered `lost`",
                    "Set accounting = true in [slurm] if `sacct` works here.")  # fmt: skip
        return
    try:
        limited = slurm.ask_accounting()
        report.ok(f"sacct answers{f', {limited}: a pass asks piece by piece' if limited else ''}")
    except Unavailable as error:
        report.failed(error, "If there is no accounting here, set accounting = false in [slurm] of site.toml.")


def _look_at_account(report: Report, slurm: Survey, s: SlurmSettings, settings: Mapping[str, str]) -> None:
    report.begin("account")
    try:
        accounts = slurm.accounts()
    except Unavailable as error:
        report.skip(error.found)
        return
    if not s.account:
        report.ok(f"Slurm's default{f' ({accounts[0]})' if accounts else ''}")
    elif s.account in accounts or not accounts:
        report.ok(s.account)
    else:
        words = f"{s.account} is none of ours"
        mend = f"Set account in [slurm] of site.toml to one of: {', '.join(accounts)}."
        enforced = "associations" in settings.get("AccountingStorageEnforce", "")
        report.fault(words, mend) if enforced else report.warn(f"{words}; this Slurm does not insist on it", mend)


def _look_at_partition(report: Report, slurm: Survey, s: SlurmSettings) -> Optional[Partition]:
    report.begin("partition")
    try:
        partitions = slurm.partitions()
    except Unavailable as error:
        report.skip(error.found)
        return None
    known = ", ".join(each.name for each in partitions)
    wanted = s.partition or value_of("partition", s.extra_options)
    names = wanted.split(",") if wanted else [each.name for each in partitions if each.is_default]
    missing = [name for name in names if name not in [each.name for each in partitions]]
    found = [each for each in partitions if each.name in names]
    if missing or not found:
        words = (
            f"there is no partition {', '.join(missing)}" if missing else "none is set, and the cluster has no default"
        )
        report.fault(words, f"Set partition in [slurm] of site.toml to one of: {known}.")
        return None
    down = [each.name for each in found if not each.is_up]
    if down:
        words = f"{', '.join(down)} is down: jobs wait there"
        mend = f"Wait, or set another partition: {known}."
        report.fault(words, mend) if len(down) == len(found) else report.warn(words, mend)
        return largest_of(found)
    found_words = [
        f"{each.name}: {counted(each.nodes, 'node')} of up to {counted(each.cpus, 'CPU')} and {each.memory_mb} MB, "
        f"{_limit(each)}"
        for each in found
    ]
    report.ok("; ".join(found_words))
    return largest_of(found)


def largest_of(partitions: Sequence[Partition]) -> Partition:
    """What the best of several offers: a job may name several, and waits for the first that can take it."""
    limits = [each.max_minutes for each in partitions if each.max_minutes is not None]
    return replace(
        partitions[0],
        name=" or ".join(each.name for each in partitions),
        max_minutes=max(limits) if len(limits) == len(partitions) else None,
        cpus=max(each.cpus for each in partitions),
        memory_mb=max(each.memory_mb for each in partitions),
    )


def _limit(partition: Partition) -> str:
    return f"{partition.max_minutes} min" if partition.max_minutes is not None else "any time"


def _compare_times(report: Report, site: Site, queue: Queue, partition: Partition) -> None:
    """Slurm takes a job that asks for more than its partition's limit, unless it is told not to, and never starts it."""
    report.begin(f"time of {queue.name}")
    times = {"resources": queue.resources.time}
    if queue.mode == "pilot" or any(each.mode == "pilot" for each in site.workloads.values()):
        times["pilot"] = queue.pilot.time
    longest = partition.max_minutes
    too_long = [table for table, time in times.items() if longest is not None and math.ceil(time / 60) > longest]
    for table in too_long:
        report.fault(f"a {'pilot' if table == 'pilot' else 'job that asks for nothing'} gets {times[table] / 60:g} min, and "
                     f"{partition.name} allows {longest}: it would wait for ever",
                     f'Set time = "{longest}min" or less in [queues.{table}] of {queue.name} in site.toml.')  # fmt: skip
    if not too_long:
        report.ok(f"within what {partition.name} allows")


def _compare_caps(report: Report, queue: Queue, partition: Partition) -> None:
    report.begin(f"caps of {queue.name}")
    beyond = list(_beyond(queue, partition))
    if beyond:
        words = ", ".join(f"{name} is {ours}, {partition.name} has {theirs}" for name, ours, theirs in beyond)
        caps = ", ".join(f"{name} = {theirs}" for name, _, theirs in beyond)
        report.warn(f"{words}: such a job is taken, and then Slurm refuses it",
                    f"Set {caps} in [queues.resources] of site.toml, so that it is refused at once.")  # fmt: skip
    else:
        report.ok(f"a job may ask for no more than a node of {partition.name} has")


def _beyond(queue: Queue, partition: Partition) -> Iterator[tuple[str, str, str]]:
    rules = queue.resources
    if rules.max_cpus > partition.cpus:
        yield "max_cpus", str(rules.max_cpus), str(partition.cpus)
    if rules.max_memory_mb > partition.memory_mb:
        yield "max_memory_mb", str(rules.max_memory_mb), str(partition.memory_mb)
    if partition.max_minutes is not None and rules.max_time > partition.max_minutes * 60:
        yield "max_time", f'"{rules.max_time / 60:.0f}min"', f'"{partition.max_minutes}min"'


def _try_out(report: Report, slurm: Survey, subject: Subject, queue: Queue) -> None:
    """What a message that asks for nothing gets, and each rule for GPUs."""
    rules = queue.resources
    wishes = [(rules.memory_mb, f"gpu:{rules.gpus}" if rules.gpus else None, "a job that asks for nothing")]
    for rule in rules.gpus_by_memory:
        wishes.append((min(rule.up_to_mb, rules.max_memory_mb), rule.gres, f"a job with {rule.gres}"))
    report.begin(f"a job of {queue.name}")
    refused: list[str] = []
    for memory_mb, gres, what in wishes:
        try:
            words = slurm.objection(_request(subject, queue, memory_mb, gres))
        except Unavailable as error:
            report.failed(error, "Run the doctor again; if it stays, ask the cluster's administrators.")
            return
        if words:
            refused.append(f"{what}: {words}")
    _tell_refused(report, queue, refused)


def _tell_refused(report: Report, queue: Queue, refused: Sequence[str]) -> None:
    if refused:
        mend = f"Mend [slurm] (account, partition, extra_options) or the resources of {queue.name} in site.toml."
        report.fault(f"Slurm would not take {'; '.join(refused)}", mend)
    else:
        report.ok("Slurm would take it (sbatch --test-only)")


def _request(subject: Subject, queue: Queue, memory_mb: int, gres: Optional[str]) -> BatchRequest:
    minutes, asks = math.ceil(queue.resources.time / 60), subject.known_site.slurm.ask_memory
    return BatchRequest(
        name="batchferry-doctor", script=str(subject.root / "slurm" / "job.sh"), arguments=[], chdir=str(subject.root),
        output="/dev/null", cpus=queue.resources.cpus, memory_mb=memory_mb if asks else None, minutes=minutes,
        warn_seconds=1, gres=gres,
    )  # fmt: skip


def _number(text: str) -> Optional[int]:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None
