"""How much memory something takes, measured in a process of its own: in that of the tests, their servers are at work too."""

from __future__ import annotations

import subprocess
import sys
from typing import Callable

from tests.installation import ROOT

_MEASURED = """
import importlib, sys, tracemalloc

function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
tracemalloc.start()
function(*sys.argv[3:])
print(tracemalloc.get_traced_memory()[1])
"""


def most_memory(function: Callable[..., object], *arguments: str) -> int:
    """Bytes at the most, while `function` runs, which stands in a module by its name."""
    told = subprocess.run(
        [sys.executable, "-c", _MEASURED, function.__module__, function.__name__, *arguments], cwd=ROOT,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return int(told.stdout.split()[-1])
