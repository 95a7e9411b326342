"""`check.py doctor`: its help, its arguments, and what it calls."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .packages import MODULES, missing

SUMMARY = "check everything, and say how to fix what is wrong"
HELP = """\
Checks everything that Batchferry needs: Python and packages, both files, the jobs folder, the broker and its queues,
the API, Slurm, clocks, cron. Prints a line per check, with what to do if something is wrong; docs/doctor.md lists them.
All checks run side by side, each with a time-out; nothing is taken from a queue, and nothing is left in one.

"""
EXIT_CODES = {
    0: "nothing has to be fixed; there may be warnings (!)",
    73: "the support archive can't be written (one that exists is not overwritten)",
    78: "something has to be fixed: at least one line has a ✗",
}
EXAMPLES = """\
examples:
  ./check.py doctor                              check everything from here
  ./check.py doctor --quiet                      whether all is well, since when, and only what is not
  ./check.py doctor --input /uploads/page.png    also open one input, as a job would
  ./check.py doctor --from-node                  also from a compute node, in a job of two minutes at the most
  ./check.py doctor --bundle support.tar.gz      also write an archive for whoever helps you; it holds no secret
  ./check.py doctor --json                       the same as JSON (docs/json/doctor.schema.json)
"""


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--from-node", action="store_true", help="also run the checks in a small job on a compute node")
    verb.add_argument(
        "--wait",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="wait this long for that job (default: %(default)d)",
    )
    verb.add_argument(
        "--quiet", action="store_true", help="first one line, then one per group, and only what is not well"
    )
    verb.add_argument("--bundle", type=Path, metavar="FILE", help="write a support archive (.tar.gz) without secrets")
    verb.add_argument("--on-node", type=Path, help=argparse.SUPPRESS)
    verb.add_argument("--input", default="", metavar="PATH", help="a path or URL of the API that must be readable")


def run(root: Path, options: argparse.Namespace) -> int:
    """Raises ModuleNotFoundError where packages are missing here and the checkout's own python may have them."""
    absent = missing()
    if absent and os.access(root / ".venv" / "bin" / "python", os.X_OK) and "again" not in sys._xoptions:
        raise ModuleNotFoundError(name=MODULES[absent[0]])
    from .examine import Wishes, answer_on_node, doctor

    files = (root, options.site.resolve(), options.credentials.resolve())
    if options.on_node:
        return answer_on_node(*files, options.input, options.on_node)
    wishes = Wishes(options.input, options.json, options.from_node, options.wait, options.bundle, options.quiet)
    return doctor(*files, wishes)
