"""What became of a service that was to be started: a file that one process writes and others wait for."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fate:
    """`kind`: ready, missing (it can't be had on this machine) or failed (it should have started)."""

    kind: str
    why: str = ""

    def write(self, folder: Path, service: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{service}.new"
        aside.write_text(json.dumps(asdict(self)))
        os.replace(aside, folder / f"{service}.json")


def await_fate(folder: Path, service: str, seconds: float) -> Fate:
    file = folder / f"{service}.json"
    until = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > until:
            return Fate("failed", f"{service} was not ready after {seconds:.0f} s; see {folder}")
        time.sleep(0.05)
    return Fate(**json.loads(file.read_text()))
