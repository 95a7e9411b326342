"""`check.py resend`: its help and arguments; `login/resend.py` does it, because it holds the lease as a pass does."""

from __future__ import annotations

import argparse

from ..settings import Config
from . import places

SUMMARY = "resend answers that no queue took"
HELP = """\
Answers whose queue was gone, or refused them, are kept: first among the active jobs, and after give_up_after in
jobs/undelivered. Fix the cause (make the queue, or list it in [replies] create), then send them again with this. While a pass
is running (a watch, say), they are left to it.
Without a JOB and without --all: shows what could be sent.
"""
EXIT_CODES = {
    0: "each of these answers has arrived, or is left to the pass that is running",
    65: "a job that was named has no answer waiting, or something can't be read; the others were sent",
    69: "an answer was not taken again, or the broker is away",
    73: "the jobs folder can't be used, or is not the one of earlier passes",
    75: "another pass took over the jobs folder meanwhile; look again",
}
EXAMPLES = """\
examples:
  ./check.py resend                 shows which answers are waiting, and why
  ./check.py resend 4f0c
  ./check.py resend --all
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="*", metavar="JOB", help=places.NAMED_BY)
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--dry-run", action="store_true", default=argparse.SUPPRESS, help="only show them")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    from ..login.resend import resend

    return resend(config, options.job, options.all, options.dry_run, options.json)
