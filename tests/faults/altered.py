"""Runs a Python program whose clock is wrong, or which comes to a halt at a step: what a jump of the clock or a frozen
host does to it.

`altered.py HOW PYTHON PROGRAM ...` or `altered.py HOW PYTHON -m MODULE ...`; HOW is a JSON object:
`shift` seconds are added to the time of day, from the durable step `since` on, if given; at the step `halt` it stops itself
(SIGSTOP), the first time it comes there; `pause` is a step and how many seconds it takes.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any


def main() -> None:
    how, words = json.loads(sys.argv[1]), sys.argv[3:]
    # As python itself begins: with the program's folder, or with the current one.
    sys.path[0] = os.getcwd() if words[0] == "-m" else os.path.dirname(words[0])
    clock = _Clock(how.get("shift", 0.0), "since" not in how)
    if {"since", "halt", "pause"} & how.keys():
        _change_steps(clock, how)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


class _Clock:
    """The time of day, which may be wrong."""

    def __init__(self, shift: float, wrong: bool) -> None:
        self.wrong = wrong
        right = time.time
        time.time = lambda: right() + (shift if self.wrong else 0.0)


def _change_steps(clock: _Clock, how: Mapping[str, Any]) -> None:
    from worker.folder import paths

    slow, seconds = how.get("pause", ("", 0.0))
    to_halt = [how["halt"]] if "halt" in how else []

    def passing(step: str) -> None:
        if step == how.get("since"):
            clock.wrong = True
        if step in to_halt:
            to_halt.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
        if step == slow:
            time.sleep(seconds)

    paths.crash_point = passing


if __name__ == "__main__":
    main()
