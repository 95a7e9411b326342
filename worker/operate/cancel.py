"""`check.py cancel JOB`: ends jobs, wherever they stand, and has them answered `cancelled`."""

from __future__ import annotations

import argparse
from typing import Optional

from ..folder import acts
from ..folder.acts import NotPossible
from ..folder.batches import Pool
from ..folder.jobs import JobsFolder
from ..job.stage import DAMAGED, ENDED_STATES, LOCKED, STATES
from ..settings import Config
from . import asking
from .asking import Action, Done
from .in_batches import InBatch
from .places import Found

SUMMARY = "end jobs and have them answered `cancelled`"
HELP = """\
Notes that a job is to end; the next pass takes it out of Slurm, however far it is, and its requester gets the answer
`cancelled`. If a job shares a pilot with others, it alone is ended, within seconds. A job that ends on its own before
that keeps its own outcome. Without a JOB, a filter or --all: shows what could be cancelled; filters and --all leave out
jobs in pilots' batches.
"""
EXIT_CODES = asking.EXIT_CODES
EXAMPLES = """\
examples:
  ./check.py cancel 4f0c --reason "The scan was uploaded upside down."
  ./check.py cancel --state pending --older-than 2d --dry-run
  ./check.py cancel --workload train --yes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("--reason", metavar="TEXT", help="a sentence for the requester")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    said, jobs = asking.reason(options.reason), JobsFolder(config.site.jobs_dir)

    def act(found: Found, by: str) -> Done:
        words = _plan(found)
        acts.cancel(jobs, found.job, by, said)
        return Done(words)

    def in_batch(found: InBatch, by: Optional[str]) -> str:
        if found.result is not None:
            raise NotPossible("has come to its end already")
        pool = Pool(jobs, found.queue)
        if by is None:
            acts.check_cancel_in_batch(pool, found.claimed.id)
        else:
            acts.cancel_in_batch(pool, found.claimed.id, by, said)
        return f"will be cancelled by {'its pilot' if found.state == LOCKED else 'the next pass'}"

    return asking.perform(config, options, Action("cancel", tuple(STATES), _plan, act, in_batch))


def _plan(found: Found) -> str:
    if found.word in ENDED_STATES:
        raise NotPossible("is over already")
    if found.word == DAMAGED:
        raise NotPossible("is damaged; mend its folder first (explain says which file)")
    acts.check_cancel(found.job)
    return "will be cancelled by the next pass"
