"""From a message to its answer: one job after the other, each asked when the one before was answered."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import Any

from bench.ground import ENVIRONMENT, prepared
from bench.scale.ours import Requester, installed, pilots_of, watching


def watched(mode: str, count: int) -> dict[str, Any]:
    with prepared(None, "") as ground, installed(ground, mode), watching(ground) as watch:
        requester = Requester(ground)
        requester.ask(1)
        requester.read(1)
        seconds = [_one(requester) for _ in range(count)]
        for each in pilots_of(ground):
            if each.pid != watch.pid:
                each.terminate()
        requester.close()
    return _told(f"watch, mode = {mode}", seconds)


def by_passes(count: int) -> dict[str, Any]:
    """A pass for each message, begun at once: cron adds up to a minute."""
    with prepared(None, "") as ground, installed(ground, "job"):
        requester = Requester(ground)
        seconds = []
        for _ in range(count):
            begun = time.perf_counter()
            requester.ask(1)
            subprocess.run(ground.check("--drain"), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
            seconds.append(requester.read(1) - begun)
        requester.close()
    return _told("a pass at once (cron adds up to 60 s)", seconds)


def _one(requester: Requester) -> float:
    begun = time.perf_counter()
    requester.ask(1)
    return requester.read(1) - begun


def _told(how: str, seconds: list[float]) -> dict[str, Any]:
    return {"how": how, **percentiles(seconds)}


def percentiles(seconds: list[float]) -> dict[str, float]:
    in_order = sorted(seconds)
    return {"p50": statistics.median(seconds), "p99": in_order[min(len(seconds) - 1, int(len(seconds) * 0.99))]}
