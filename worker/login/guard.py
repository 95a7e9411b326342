"""Lets one pass at a time in, and sends it home at once where nothing is in flight and nothing waits: most passes are that.

The pass itself, and all that it needs, is imported only when there is something to do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from ..errors import Transient
from ..folder.jobs import JobsFolder
from ..folder.paths import remove
from ..settings import Config
from ..sources import QueueFault
from . import lease
from .known import note_workloads
from .mark import Marked, NotOurs, check_mark, leave_mark, note_place
from .tools import Tools
from .touch import touch_in_flight

log = logging.getLogger(__name__)

_METRICS_EVERY = 300.0
"""Seconds between two writings of the metrics while nothing happens."""


def guarded_pass(config: Config, drain: bool) -> int:
    """One pass, unless another one is running. Returns an exit code."""
    return guarded(config, lambda tools: _pass(tools, drain))


def guarded(config: Config, work: Callable[[Tools], int], instead: Optional[Callable[[], int]] = None) -> int:
    """Anything that only one process at a time may do. `instead`: what is done while another one does something. Returns an
    exit code."""
    jobs = JobsFolder(config.site.jobs_dir)
    try:
        marked = check_mark(config.site_file, jobs)
        jobs.prepare()
        timing = config.site.timing
        with lease.hold(jobs.lease, timing.lease_expires, timing.visible_after, [jobs.shapes]) as held:
            _keep_mark(config, jobs, marked)
            note_workloads(config.site, jobs)
            tools = Tools(config, jobs, held)
            try:
                code = work(tools)
                tell_what_is_new(tools, code)
                return code
            finally:
                tools.close()
                tools.tell_commands()
    except lease.Held as error:
        if instead is not None:
            return instead()
        log.info("another pass is running, nothing done: %s", error)
        return os.EX_TEMPFAIL
    except lease.Lost as error:
        log.warning("stopped: %s", error)
        return os.EX_TEMPFAIL
    except NotOurs as error:
        log.error("jobs folder is not the one of earlier passes, nothing done: %s", error)
        return os.EX_CANTCREAT
    except OSError as error:
        log.error("jobs folder can't be used why=%r", str(error))
        return os.EX_CANTCREAT


def _keep_mark(config: Config, jobs: JobsFolder, marked: Marked) -> None:
    if marked is Marked.NOT_YET:
        leave_mark(config, jobs)
    elif marked is Marked.ELSEWHERE:
        note_place(config, jobs)
        log.info("jobs folder was known by another name, noted jobs_dir=%r", str(jobs.path))
    elif marked is Marked.UNSURE:
        log.warning("jobs folder was elsewhere before, and that place gives no answer; if it is a copy, stop it now; "
                    "docs/copying.md jobs_dir=%r", str(jobs.path))  # fmt: skip


def tell_what_is_new(tools: Tools, code: int) -> None:
    """Counts what was seen and writes the metrics; where nothing was seen, only now and then."""
    file = tools.config.site.metrics_file
    if tools.ended or tools.redelivered or tools.used_slurm or (file and _is_old(tools.config.root / file)):
        from .telling import tell

        tell(tools, code)


def _is_old(file: Path) -> bool:
    try:
        return time.time() - os.stat(file).st_mtime >= _METRICS_EVERY
    except OSError:
        return True


def _pass(tools: Tools, drain: bool) -> int:
    try:
        if _nothing_to_do(tools):
            remove(tools.jobs.site_fault)
            touch_in_flight(tools.jobs, tools.server_now)  # the mark, for one
            return os.EX_OK
    except Transient as error:
        log.warning("broker away why=%r", str(error))
        return os.EX_UNAVAILABLE
    from .one_pass import run_pass

    return run_pass(tools, drain)


def _nothing_to_do(tools: Tools) -> bool:
    """Raises Transient where only the broker could tell. What can't be read, and a workload that is stopped, has to
    be reported."""
    if tools.jobs.active_names():
        return False
    if tools.jobs.pilots.is_dir():
        from .pilots import idle

        if not idle(tools.jobs):
            return False
    if tools.stopped_workloads():
        return False
    try:
        return all(tools.ends.source(queue).waiting(queue) == 0 for queue in tools.config.site.queues)
    except QueueFault:
        return False
