"""`check.py replay JOB`: a message from jobs/rejected is read anew, once what was wrong with the site file is mended."""

from __future__ import annotations

import argparse

from ..job.stage import REJECTED
from ..settings import Config
from . import asking
from .rerun import run_again

SUMMARY = "read rejected messages again, by today's site.toml"
HELP = """\
Messages that were no valid job are kept in jobs/rejected. If the fault was the site's (a workload missing in site.toml,
or a cap too low), fix it, then replay them: each becomes a new job with a new id, whose answer has the header rerun_of.
One that would be rejected again is named, with the reason, and left alone. Filters and --all skip those that were
replayed before. Without a JOB, a filter or --all: shows what could be replayed.
"""
EXIT_CODES = asking.EXIT_CODES
EXAMPLES = """\
examples:
  ./check.py replay                 what could be replayed now
  ./check.py replay 4f0c
  ./check.py replay --all --newer-than 1d
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("--no-reply", action="store_true", help="answer nobody; the outputs stay in its folder")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    return run_again(config, options, "replay", (REJECTED,), {}, not options.no_reply)
