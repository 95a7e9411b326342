"""What is killed: check.py or the worker, run as they are but for `crash_point`, which may SIGKILL its own process.

`python -m tests.faults.crashing FOLDER login ARGUMENTS` runs `check.py ARGUMENTS`; `... FOLDER job ARGUMENTS` is the python of
an installation's worker. FOLDER has a plan for each side; it gets a line in `events` for every kill, and one in `passed`
for every process with the points that it passed.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import runpy
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from worker.folder import paths

ROOT = Path(__file__).resolve().parent.parent.parent

AT_RANDOM = "at any moment"
WITH_WORKLOAD = "at any moment, with its workload"
FORGOTTEN = "its watcher, at once"
"""The local scheduler's process that watches over the job: whoever asks is told that there is no such job."""
STOPPED = "asked to stop"
"""SIGTERM, as from a node that is drained: no kill, but it may change what a job comes to."""
AT_POINT = "at a point"
CALM = "calm"

_HOLD_SECONDS = 4.5
_STALL_SECONDS = 8.0


@dataclass(frozen=True)
class Plan:
    """What the next process of one side suffers."""

    seed: str = ""
    points: Mapping[str, float] = field(default_factory=dict)
    """The chance to die at each passing of a point of this name."""
    otherwise: float = 0.0
    """The same for points that are not among them."""
    modes: Mapping[str, float] = field(default_factory=lambda: {AT_POINT: 1.0})
    """Job side: how often each kind of end is chosen, as weights."""
    first: Sequence[str] = ()
    """Job side: the kinds for the first workers of the installation, before any is drawn."""
    within: float = 1.0
    """Job side: a kill at any moment comes in this many seconds."""

    def write(self, folder: Path, side: str) -> None:
        aside = folder / f"plan.{side}.new"
        aside.write_text(json.dumps(asdict(self)))
        os.replace(aside, folder / f"plan.{side}")


@dataclass(frozen=True)
class Event:
    """A kill, or what else was done to a process: at which point, and in which attempt of which job (job side)."""

    side: str
    point: str
    job: str = ""
    attempt: int = 0

    def write(self, folder: Path) -> None:
        append(folder / "events", asdict(self))


def append(file: Path, value: object) -> None:
    """One line at once, also where several processes write."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (json.dumps(value) + "\n").encode())
    os.close(descriptor)


_NAMES = (
    (re.compile(r"reply-[0-9a-f]{8}"), "reply"),
    (re.compile(r"\d{14}-[0-9a-f]{6}"), "group"),
    (re.compile(r"move to \d{4}-\d\d-\d\d"), "move to done"),
    (re.compile(r"\.([\w.]+)\.[0-9a-f]{8}"), r"\1 aside"),
)


def point(step: str) -> str:
    """The name of a step without what differs from one time to the next."""
    for pattern, name in _NAMES:
        step = pattern.sub(name, step)
    return step


class Crasher:
    """Takes the place of `crash_point`."""

    def __init__(self, folder: Path, side: str, plan: Plan, dice: random.Random, who: tuple[str, int]) -> None:
        self._folder, self._side, self._plan, self._dice = folder, side, plan, dice
        self._who = who
        self._passed: Counter[str] = Counter()
        self._first_at: dict[str, Callable[[], None]] = {}
        atexit.register(self._tell)

    def before(self, name: str, do: Callable[[], None]) -> None:
        self._first_at[name] = do

    def __call__(self, step: str) -> None:
        name = point(step)
        self._first_at.pop(name, lambda: None)()
        self._passed[name] += 1
        if self._dice.random() < self._plan.points.get(name, self._plan.otherwise):
            self._tell()
            Event(self._side, name, *self._who).write(self._folder)
            os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self) -> None:
        append(self._folder / "passed", [self._side, self._passed])


def main() -> None:
    folder, side = Path(sys.argv[1]), sys.argv[2]
    plan = Plan(**json.loads((folder / f"plan.{side}").read_text()))
    del sys.argv[1:3]
    (_login if side == "login" else _job)(folder, plan)


def _login(folder: Path, plan: Plan) -> None:
    _replace_crash_point(Crasher(folder, "login", plan, random.Random(plan.seed), ("", 0)))
    sys.argv[0] = str(ROOT / "check.py")
    runpy.run_path(sys.argv[0], run_name="__main__")


def _replace_crash_point(crasher: Crasher) -> None:
    # First, so that it is this one that other modules import by its name.

    paths.crash_point = crasher


# --- the job side


def _job(folder: Path, plan: Plan) -> None:
    del sys.argv[1:3]  # -m worker
    number = _number_of_this_worker(folder)
    dice = random.Random(f"{plan.seed}/{number}")
    group = Path(_argument("--group"))
    job, attempt = json.loads(group.read_text())["members"][_argument("--element")]
    mode = plan.first[number] if number < len(plan.first) else _draw(plan.modes, dice)
    at_points = mode in (AT_POINT, FORGOTTEN, STOPPED)
    crasher = Crasher(folder, "job", plan if at_points else Plan(), dice, (job, attempt))
    place = group.parent.parent / "active" / job
    facts = place / "attempts" / str(attempt)
    if mode in (AT_RANDOM, WITH_WORKLOAD):
        _end_after(dice.uniform(0, plan.within), mode, folder, (job, attempt))
    elif mode == STOPPED:
        _end_after(dice.uniform(0, 0.3), mode, folder, (job, attempt), facts / "started.json")
    elif mode == FORGOTTEN and _kill_watcher():
        Event("job", mode, job, attempt).write(folder)
        crasher.before("before result.json", lambda: _stall_until(facts / "result.json"))
    time.sleep(_late(place / "message.json", dice))
    _replace_crash_point(crasher)
    from worker.__main__ import main as worker_main

    sys.exit(worker_main())


def _argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _number_of_this_worker(folder: Path) -> int:
    number = 0
    while True:
        try:
            os.close(os.open(folder / f"worker.{number}", os.O_CREAT | os.O_EXCL))
            return number
        except FileExistsError:
            number += 1


def _draw(weights: Mapping[str, float], dice: random.Random) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]


def _end_after(seconds: float, mode: str, folder: Path, who: tuple[str, int], since: Optional[Path] = None) -> None:
    """A child does it from outside, unless we end before: then the pipe that only we hold is closed.

    `since`: the seconds begin when this file is there.
    """
    worker = os.getpid()
    ended, held_open = os.pipe()
    if os.fork():
        os.close(ended)
        return
    os.close(held_open)
    while since and not since.exists() and not select.select([ended], [], [], 0.02)[0]:
        continue
    if not select.select([ended], [], [], seconds)[0]:
        _end(worker, mode, folder, who)
    os._exit(0)


def _end(worker: int, mode: str, folder: Path, who: tuple[str, int]) -> None:
    # Stopped, it can't come to its own end while we look.
    _send(worker, signal.SIGSTOP)
    if os.getppid() != worker:
        return
    Event("job", mode, *who).write(folder)
    for child in _children(worker) if mode == WITH_WORKLOAD else ():
        _send(child, signal.SIGKILL)
    _send(worker, signal.SIGTERM if mode == STOPPED else signal.SIGKILL)
    _send(worker, signal.SIGCONT)


def _children(parent: int) -> list[int]:
    try:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in text.split() if int(pid) != os.getpid()]


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def _kill_watcher() -> bool:
    """Only where the parent is one: a job of Slurm has none."""
    parent = os.getppid()
    return b"scheduler.local" in Path(f"/proc/{parent}/cmdline").read_bytes() and _send(parent, signal.SIGKILL)


def _stall_until(file: Path) -> None:
    """As on a node that was cut off: it goes on when others have given it up."""
    end = time.monotonic() + _STALL_SECONDS
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)


def _late(message: Path, dice: random.Random) -> float:
    """How late it starts: some do, and each with a deadline, so that a pass finds the deadline passed by a job that waits."""
    if "expiration" in (_read(message) or {}).get("properties", {}):
        return _HOLD_SECONDS
    return dice.uniform(0.5, 2.5) if dice.random() < 0.15 else 0.0


def _read(file: Path) -> Optional[dict[str, Any]]:
    try:
        value: dict[str, Any] = json.loads(file.read_text())
        return value
    except OSError:
        return None


if __name__ == "__main__":
    main()
