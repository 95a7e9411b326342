"""Lets one pass at a time in, and sends it home at once where nothing is in flight and nothing waits: most passes are that.

The pass itself, and all that it needs, is imported only when there is something to do.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from ..build import Ends, open_ends
from ..errors import Advice, Damaged, NotOurs, Transient
from ..folder.jobs import JobsFolder, mark_file
from ..folder.paths import contents, remove
from ..installed import Workloads
from ..settings import Config
from ..sources import QueueFault
from . import lease

if TYPE_CHECKING:
    from .mark import Marked

log = logging.getLogger(__name__)

_METRICS_EVERY = 300.0
"""Seconds between two writings of the metrics while nothing happens."""


def guarded_pass(config: Config, drain: bool) -> int:
    """One pass, unless another one is running. Returns an exit code."""
    return guarded(config, lambda jobs, held: _pass(config, jobs, held, drain))


def guarded(
    config: Config, work: Callable[[JobsFolder, lease.Lease], int], instead: Optional[Callable[[], int]] = None
) -> int:
    """Anything that only one process at a time may do. `instead`: what is done while another one does something. Returns an
    exit code."""
    jobs, timing = JobsFolder(config.site.jobs_dir), config.site.timing
    try:
        marked = None if _is_as_before(config, jobs) else _marked(config, jobs)
        jobs.prepare()
        with lease.hold(jobs.lease, timing.lease_expires, timing.visible_after, [jobs.shapes]) as held:
            if marked is not None:
                _note_installation(config, jobs, marked)
            return work(jobs, held)
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
        from ..folder.disk import fix

        log.error("jobs folder can't be used why=%r", str(Advice(str(error), fix(error))))
        return os.EX_CANTCREAT


def _is_as_before(config: Config, jobs: JobsFolder) -> bool:
    """Whether the marks are those of an installation that works here, and all workloads are noted. Looked at by hand, since
    most passes do without the codec; where anything is new or odd, who knows these facts looks again."""
    outside, inside = _said(mark_file(config.site_file)), _said(jobs.mark)
    whole = all(isinstance(word, str) for word in [outside.get("id"), *outside.values(), *inside.values()])
    names = _said(jobs.workloads).get("names")
    noted = isinstance(names, list) and all(name in names for name in config.site.workloads)
    return whole and noted and outside["id"] == inside.get("id") and inside.get("jobs_dir") == str(jobs.path)


def _said(file: Path) -> dict[str, Any]:
    with suppress(Damaged, ValueError, RecursionError):
        said = json.loads(contents(file) or b"{}")
        return said if isinstance(said, dict) else {}
    return {}


def _marked(config: Config, jobs: JobsFolder) -> Marked:
    from .mark import check_mark

    return check_mark(config.site_file, jobs)


def _note_installation(config: Config, jobs: JobsFolder, marked: Marked) -> None:
    from .known import note_workloads
    from .mark import keep_mark

    keep_mark(config, jobs, marked)
    note_workloads(config.site, jobs)


def metrics_are_due(config: Config) -> bool:
    """Whether they were not written for a while."""
    if not config.site.metrics_file:
        return False
    try:
        return time.time() - os.stat(config.root / config.site.metrics_file).st_mtime >= _METRICS_EVERY
    except OSError:
        return True


def _pass(config: Config, jobs: JobsFolder, held: lease.Lease, drain: bool) -> int:
    ends = open_ends(config)
    try:
        code = without_work(config, jobs, ends, held.server_now)
        if code is not None and not metrics_are_due(config):
            return code
        from .passes import Passes

        with Passes(config, jobs, held, ends) as passes:
            if code is None:
                return passes.run(drain)
            passes.tell(code)
            return code
    finally:
        ends.close()


def without_work(config: Config, jobs: JobsFolder, ends: Ends, server_now: float) -> Optional[int]:
    """The exit code of a pass that has nothing to do, or that can't know; None where there is work."""
    names, paused = jobs.active_and_paused()
    try:
        if names or not _nothing_to_do(config, jobs, None if paused else ends):
            return None
    except Transient as error:
        log.warning("broker away why=%r", str(error))
        return os.EX_UNAVAILABLE
    remove(jobs.site_fault)
    if jobs.touch_is_due(server_now):  # the mark, for one
        from .touch import touch_in_flight

        touch_in_flight(jobs, server_now)
    if paused:
        from .paused import report_idle

        return report_idle(jobs)
    return os.EX_OK


def _nothing_to_do(config: Config, jobs: JobsFolder, ends: Optional[Ends]) -> bool:
    """Raises Transient where only the broker could tell. What can't be read, and a workload that is stopped, has to
    be reported. `ends`: None where no message may be taken."""
    if not jobs.pilots_idle():
        return False
    if Workloads(config.root, config.site).stopped():
        return False
    if ends is None:
        return True
    try:
        return all(ends.source(queue).waiting(queue) == 0 for queue in config.site.queues)
    except QueueFault:
        return False
