"""After a pass: adds what it has seen to the tally, and writes the metrics. What goes wrong here changes nothing else."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

from ..folder.jobs import JobsFolder
from ..settings import Config
from . import tally
from .budget import Budget
from .tally import Tally, Uncounted

log = logging.getLogger(__name__)

_AT_MOST_EVERY = 15.0
"""Seconds: the gauges look into every active job's folder, and a collector comes once a minute or so."""


def tell(config: Config, jobs: JobsFolder, seen: Uncounted, budget: Budget, code: int) -> None:
    """`seen` is counted then, and empty."""
    try:
        kept = _count(jobs, seen, budget, code)
        if config.site.metrics_file:
            _write_metrics(jobs, kept, config.root / config.site.metrics_file, code)
    except OSError as error:
        log.warning("metrics can't be written file=%s why=%r", error.filename, error.strerror)
    except ModuleNotFoundError as error:
        log.warning("no metrics: the package %s is missing; run pip install -r requirements.txt", error.name)


def _count(jobs: JobsFolder, seen: Uncounted, budget: Budget, code: int) -> Tally:
    after = tally.add(tally.read(jobs.tally), seen.jobs, budget.used, budget.seconds)
    if seen.jobs:
        after = tally.without_old_days(after, _days_kept(jobs))
    after = replace(after, redelivered=after.redelivered + seen.redelivered)
    if code == os.EX_OK:
        after = replace(after, last_success=time.time())
    tally.write(jobs.tally, after)
    seen.jobs.clear()
    seen.redelivered = 0
    return after


def _days_kept(jobs: JobsFolder) -> list[str]:
    of_pilots = [day.name for day in jobs.pilots.glob("q-*/done/*")]
    return [*os.listdir(jobs.done), *of_pilots]


def _write_metrics(jobs: JobsFolder, kept: Tally, file: Path, code: int) -> None:
    try:
        if 0 <= time.time() - file.stat().st_mtime < _AT_MOST_EVERY:
            return
    except FileNotFoundError:
        pass
    from . import metrics

    metrics.write(file, jobs, kept, code, time.time())
