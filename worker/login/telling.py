"""After a pass: adds what it has seen to the tally, and writes the metrics. What goes wrong here changes nothing else."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

from . import tally
from .tally import Tally
from .tools import Tools

log = logging.getLogger(__name__)

_AT_MOST_EVERY = 15.0
"""Seconds: the gauges look into every active job's folder, and a collector comes once a minute or so."""


def tell(tools: Tools, code: int) -> None:
    try:
        kept = _count(tools, code)
        if tools.config.site.metrics_file:
            _write_metrics(tools, kept, tools.config.root / tools.config.site.metrics_file, code)
    except OSError as error:
        log.warning("metrics can't be written file=%s why=%r", error.filename, error.strerror)
    except ModuleNotFoundError as error:
        log.warning("no metrics: the package %s is missing; run pip install -r requirements.txt", error.name)


def _count(tools: Tools, code: int) -> Tally:
    before = tally.read(tools.jobs.tally)
    budget = tools.budget if tools.used_slurm else None
    after = tally.add(before, tools.ended, budget.used if budget else {}, budget.seconds if budget else {})
    if tools.ended:
        after = tally.without_old_days(after, _days_kept(tools))
    after = replace(after, redelivered=after.redelivered + tools.redelivered)
    if code == os.EX_OK:
        after = replace(after, last_success=tools.now())
    tally.write(tools.jobs.tally, after)
    tools.ended.clear()
    tools.redelivered = 0
    return after


def _days_kept(tools: Tools) -> list[str]:
    of_pilots = [day.name for day in tools.jobs.pilots.glob("q-*/done/*")]
    return [*os.listdir(tools.jobs.done), *of_pilots]


def _write_metrics(tools: Tools, kept: Tally, file: Path, code: int) -> None:
    try:
        if 0 <= time.time() - file.stat().st_mtime < _AT_MOST_EVERY:
            return
    except FileNotFoundError:
        pass
    from . import metrics

    metrics.write(file, tools.jobs, kept, code, tools.now())
