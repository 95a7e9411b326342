"""`python -m worker ARGUMENTS`, with its time and memory written to a file: `python -m bench.observed FILE ARGUMENTS`.

Outside Slurm a process has no memory limit of its own to watch, and then a success waits for Slurm's verdict; so here it
is told that nothing ran out. Memory is VmHWM of /proc/self/status: getrusage's figure also counts who started us.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any, Callable

_BEGUN = time.monotonic() - time.process_time()  # the interpreter's own start counts too

from worker import __main__ as worker  # noqa: E402
from worker.in_job import memory, run  # noqa: E402

_apart = 0.0
"""Seconds in fetch, run and publish."""


def main() -> int:
    notes, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    counter = notes.with_name("counter")
    counter.write_text("oom_kill 0\n")
    memory._counter_file = lambda *_: counter
    for step in ("fetch", "execute", "publish"):
        setattr(run, step, _timed(getattr(run, step)))
    code = worker.main()
    peak_kb = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak_kb is not None
    own = time.monotonic() - _BEGUN - _apart
    notes.write_text(json.dumps({"peak_mb": int(peak_kb.group(1)) / 1024, "own_seconds": own}))
    return code


def _timed(step: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **more: Any) -> Any:
        global _apart
        begun = time.monotonic()
        try:
            return step(*arguments, **more)
        finally:
            _apart += time.monotonic() - begun

    return timed


if __name__ == "__main__":
    sys.exit(main())
