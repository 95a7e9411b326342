"""Kills check.py and workers by the thousand, on real RabbitMQ: afterwards every message has its one true outcome.

Each installation (several live side by side) gets messages of all kinds; its passes and workers die by SIGKILL before and
after every durable step, and at any moment. Then normal passes finish the work, and the books are read from RabbitMQ and
from what the workload itself wrote down. The seed fixes the choices, not the timing of the processes.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Callable, Optional

from tests.faults.kill_round import Round
from tests.faults.kill_tally import Tally
from tests.services.broker import start_rabbitmq
from tests.services.slurm import SlurmCluster

_QUOTA = {"local": 60, "slurm": 25}
_ENOUGH_VIOLATIONS = 1000


class Kills:
    """One run. `slurm_share`: how many of the installations that live side by side use Slurm."""

    def __init__(self, folder: Path, rabbitmq: Any, slurm: Optional[SlurmCluster], kills: int, seed: str, each: int = 5,
                 local_lanes: int = 4, slurm_lanes: int = 0, say: Callable[[str], None] = print) -> None:  # fmt: skip
        self.tally = Tally(kills, each, slurm_lanes > 0)
        self.violations: list[str] = []
        self._folder, self._rabbitmq, self._slurm, self._seed, self._say = folder, rabbitmq, slurm, seed, say
        self._most = -(-kills // (local_lanes + slurm_lanes))
        self._lanes = [*[None] * local_lanes, *[slurm] * slurm_lanes]
        self._numbers = count()
        self._lock = threading.Lock()
        self._begun = time.monotonic()

    def run(self) -> bool:
        """Whether the books balance and, if `each` is not 0, every point was hit that often."""
        self._say(f"seed {self._seed}")
        with ThreadPoolExecutor(len(self._lanes)) as pool:
            try:
                list(pool.map(self._lane, range(len(self._lanes))))
            finally:
                # Told to stop, the lanes finish what they have begun, and leave no process behind.
                self.tally.wanted = 0
        if self.tally.each:
            self.violations += [f"not hit {self.tally.each} times: {name}" for name in self.tally.missing()]
        return not self.violations

    def _lane(self, lane: int) -> None:
        slurm = self._lanes[lane]
        # Where every point is to be hit, the first round shows which there are.
        unharmed = self.tally.each > 0 and slurm not in self._lanes[:lane]
        while unharmed or not (self.tally.enough() or len(self.violations) > _ENOUGH_VIOLATIONS):
            self._round(slurm, 0 if unharmed else min(self._most, _QUOTA["slurm" if slurm else "local"]))
            unharmed = False

    def _round(self, slurm: Optional[SlurmCluster], quota: int) -> None:
        with self._lock:
            number = next(self._numbers)
        seed = f"{self._seed}/{number}"
        try:
            found = Round(
                number, self._folder / f"round-{number}", seed, self._rabbitmq, slurm, self.tally, quota
            ).run()
        except Exception:  # noqa: BLE001 - a thread's own failure must be told like any other
            found = [f"round {number} broke: {traceback.format_exc()}"]
        with self._lock:
            self.violations += found
        self._say(f"{time.monotonic() - self._begun:5.0f} s  {self.tally.kills:5} kills  round {number}: "
                  + ("fine" if not found else f"{len(found)} violations"))  # fmt: skip

    def report(self) -> str:
        verdict = "The books balance." if not self.violations else f"{len(self.violations)} violations."
        seconds = time.monotonic() - self._begun
        return "\n".join(
            [f"seed {self._seed}, {seconds:.0f} s", self.tally.table(), *_by_kind(self.violations), verdict]
        )


def _by_kind(violations: Sequence[str]) -> Iterator[str]:
    """One example of each, and how many there are that read alike."""
    kinds: dict[str, list[str]] = {}
    for words in violations:
        kinds.setdefault(re.sub(r"for example .*|[0-9a-f-]*\d[0-9a-f-]*", "", words)[:200], []).append(words)
    for alike in kinds.values():
        yield f"{len(alike)} times, e.g. {alike[0]}" if len(alike) > 1 else alike[0]


def new_seed() -> str:
    return str(random.SystemRandom().randrange(10**9))


@contextlib.contextmanager
def _services(folder: Path, scheduler: str) -> Iterator[tuple[Any, Optional[SlurmCluster]]]:
    with contextlib.ExitStack() as stack:
        rabbitmq = start_rabbitmq(folder / "rabbitmq")
        stack.callback(rabbitmq.stop)
        yield rabbitmq, None if scheduler == "local" else stack.enter_context(SlurmCluster(folder / "slurm"))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at least so many (default: %(default)s)")
    parser.add_argument("--seed", default=new_seed(), help="default: a new one")
    parser.add_argument("--scheduler", choices=("local", "slurm", "both"), default="both", help="default: %(default)s")
    parser.add_argument("--each", type=int, default=5, help="hits of each point (default: %(default)s; 0: do not ask)")
    parser.add_argument("--lanes", type=int, default=4, help="installations side by side (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="what is left of violations stays there (default: a new one)")
    options = parser.parse_args(argv)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    lanes = {"local": (options.lanes, 0), "slurm": (0, options.lanes), "both": (options.lanes, 1)}[options.scheduler]
    print(f"seed {options.seed}; the folder is {folder}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _services(folder, options.scheduler) as (rabbitmq, slurm):
        kills = Kills(folder, rabbitmq, slurm, options.kills, options.seed, options.each, *lanes,
                      say=lambda line: print(line, flush=True))  # fmt: skip
        fine = kills.run()
    print(kills.report())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
