"""Runs other programs for the doctor and for init: the only door to them besides Slurm's commands."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Answer:
    code: int
    said: str
    """On stdout."""
    complained: str
    """On stderr."""


def run(
    argv: Sequence[str], given: str = "", seconds: float = 20, environment: Optional[Mapping[str, str]] = None
) -> Optional[Answer]:
    """None where there is no such program, or where it gave no answer in time."""
    try:
        done = subprocess.run(
            argv, input=given, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds, check=False,
            env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Answer(done.returncode, done.stdout, done.stderr)
