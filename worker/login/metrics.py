"""Metrics for Prometheus's textfile collector: what the passes have counted, and how things stand now.

The only importer of prometheus_client; it is loaded only by a pass after which there is something to write.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import VERSION
from ..errors import Damaged
from ..folder import pause
from ..folder.batches import Batch, crew
from ..folder.facts import JobFolder, is_running, site_fault_of
from ..folder.jobs import JobsFolder
from ..job.stage import IN_OPEN_BATCHES, STATES, UNSENT
from ..operate import places
from ..operate.places import Found
from .tally import BUCKETS, STEPS, Tally

_SITE_FAULTS = ("login", "api", "slurm", "disk")


def write(path: Path, jobs: JobsFolder, tally: Tally, code: int, now: float) -> None:
    """Written aside and renamed, and readable for the collector. Raises OSError."""
    registry = CollectorRegistry()
    registry.register(_Collected([*_counted(tally), *_standing(jobs, now), *_pass(tally, code, now)]))
    write_to_textfile(str(path), registry)
    path.chmod(0o644)


class _Collected(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _counted(tally: Tally) -> Iterator[Metric]:
    jobs = CounterMetricFamily(
        "batchferry_jobs_ended", "Jobs put away, by what they came to.", labels=("outcome", "workload")
    )
    for key, count in sorted(tally.jobs.items()):
        jobs.add_metric(key.split(" ", 1), count)
    attempts = CounterMetricFamily("batchferry_attempts", "Attempts of the jobs put away.", labels=("workload",))
    for workload, count in sorted(tally.attempts.items()):
        attempts.add_metric((workload,), count)
    sizes = CounterMetricFamily(
        "batchferry_bytes", "Bytes of inputs (in) and outputs (out).", labels=("direction", "workload")
    )
    for key, count in sorted(tally.bytes.items()):
        sizes.add_metric(key.split(" ", 1), count)
    yield from (jobs, attempts, sizes, _steps(tally))
    times = CounterMetricFamily("batchferry_slurm_commands", "Slurm commands used.", labels=("command",))
    seconds = CounterMetricFamily("batchferry_slurm_command_seconds", "Time in Slurm commands.", labels=("command",))
    for name, commands in sorted(tally.commands.items()):
        times.add_metric((name,), commands.count)
        seconds.add_metric((name,), commands.seconds)
    yield from (times, seconds)
    words = "Messages that came again after they had gone back to their queue."
    yield CounterMetricFamily("batchferry_redelivered", words, value=tally.redelivered)


def _steps(tally: Tally) -> Metric:
    steps = HistogramMetricFamily(
        "batchferry_step_seconds", f"Seconds in each step of a job: {', '.join(STEPS)}.", labels=("step", "workload")
    )
    for key, spread in sorted(tally.steps.items()):
        up_to = itertools.accumulate(spread.counts)
        buckets = [(str(end), count) for end, count in zip((*BUCKETS, "+Inf"), up_to)]
        steps.add_metric(key.split(" ", 1), buckets, spread.sum)
    return steps


def _standing(jobs: JobsFolder, now: float) -> Iterator[Metric]:
    """How things stand, from the folders. Every state is there, also with nothing in it."""
    active = list(places.active(jobs))
    counted = Counter(found.word for found in active)
    states = GaugeMetricFamily("batchferry_jobs", "Active jobs by state.", labels=("state",))
    for word in STATES:
        states.add_metric((word,), counted[word])
    yield states
    unsent = [found for found in active if found.word in UNSENT]
    for name, words, value in (
        ("oldest_job_seconds", "Age of the oldest active job.", _oldest(active, now)),
        ("unsent_answers", "Answers not confirmed by the broker yet.", float(len(unsent))),
        ("oldest_unsent_answer_seconds", "How long the oldest of them waits.", _waiting(unsent, now)),
        ("rejected_kept", "Messages in jobs/rejected.", float(places.count(jobs.rejected))),
        ("undelivered_kept", "Answers in jobs/undelivered.", float(places.count(jobs.undelivered))),
    ):
        yield GaugeMetricFamily(f"batchferry_{name}", words, value=value)
    yield from _pilots(jobs)
    yield _site(jobs, now)
    yield _paused(jobs, now)


def _pilots(jobs: JobsFolder) -> Iterator[Metric]:
    """Of all queues together: a batch's name tells how many jobs are open in it."""
    waiting = GaugeMetricFamily("batchferry_pilot_jobs", "Open jobs in batches, by state.", labels=("state",))
    for state in IN_OPEN_BATCHES:
        batches = [Batch(path) for path in jobs.pilots.glob(f"q-*/{state}/*.*")]
        waiting.add_metric((state,), sum(batch.count for batch in batches))
    yield waiting
    attempts = [each.attempt(1) for each in _crew(jobs)]
    running = sum(map(is_running, attempts))
    pending = sum(not a.started.path.exists() and not a.ended.path.exists() for a in attempts)
    pilots = GaugeMetricFamily("batchferry_pilots", "Pilots, by state.", labels=("state",))
    pilots.add_metric(("running",), running)
    pilots.add_metric(("pending",), pending)
    yield pilots


def _crew(jobs: JobsFolder) -> list[JobFolder]:
    with contextlib.suppress(Damaged, OSError):
        return crew(jobs)
    return []


def _oldest(found: Sequence[Found], now: float) -> float:
    return max((max(0.0, now - each.claimed_at) for each in found), default=0.0)


def _waiting(found: Sequence[Found], now: float) -> float:
    return max((max(0.0, now - each.since) for each in found), default=0.0)


def _site(jobs: JobsFolder, now: float) -> Metric:
    fault = None
    with contextlib.suppress(Damaged, OSError):
        fault = site_fault_of(jobs).read()
    site = GaugeMetricFamily(
        "batchferry_site_away_seconds",
        "For how long jobs wait because this is away; 0 while it is not.",
        labels=("kind",),
    )
    for kind in _SITE_FAULTS:
        site.add_metric((kind,), max(1.0, now - fault.since) if fault and fault.kind == kind else 0.0)
    return site


def _paused(jobs: JobsFolder, now: float) -> Metric:
    paused = pause.seen(jobs)
    words = "For how long somebody has wanted this not to be done (./check.py pause); 0 while nobody does."
    gauge = GaugeMetricFamily("batchferry_paused_seconds", words, labels=("what",))
    for what, is_so in (("take", paused), ("submit", paused and paused.submit)):
        gauge.add_metric((what,), max(1.0, now - paused.at) if paused and is_so else 0.0)
    return gauge


def _pass(tally: Tally, code: int, now: float) -> Iterator[Metric]:
    for name, words, value in (
        ("last_pass_timestamp_seconds", "When the last pass ended that wrote this file.", now),
        ("last_success_timestamp_seconds", "When the last pass ended without a fault.", tally.last_success),
        ("last_pass_exit_code", "Its exit code; check.py --help lists them.", float(code)),
    ):
        yield GaugeMetricFamily(f"batchferry_{name}", words, value=value)
    build = GaugeMetricFamily("batchferry_build_info", "The version that runs.", labels=("version",))
    build.add_metric((VERSION,), 1)
    yield build
