"""`check.py retry JOB`: the same once more, without waiting, or as a new job where the old one is over."""

from __future__ import annotations

import argparse

from ..folder import acts
from ..folder.acts import NotPossible
from ..folder.jobs import JobsFolder
from ..job.stage import DONE, REJECTED, RETRYING, UNDELIVERED
from ..settings import Config
from . import again, asking
from .asking import Action, Done
from .places import Found

SUMMARY = "try jobs again as they were: the next attempt now, or a failed job once more"
HELP = """\
A job that is waiting for its next attempt gets it in the next pass. A job that ended without success runs again exactly
as it was: as a new job, with a new id, whose answer has the header rerun_of. To change its resources, or to have its
message read again by today's site.toml, see rerun. Without a JOB, a filter or --all: shows what could be tried again.
"""
EXIT_CODES = asking.EXIT_CODES
EXAMPLES = """\
examples:
  ./check.py retry 4f0c
  ./check.py retry --state done --outcome node_failed --newer-than 1d --dry-run
  ./check.py retry --state retrying --yes      what is waiting for its next attempt gets it now
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("--no-reply", action="store_true", help="answer nobody; the outputs stay in its folder")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs, answer = JobsFolder(config.site.jobs_dir), not options.no_reply

    def plan(found: Found) -> str:
        if found.word == RETRYING:
            return "is tried again by the next pass"
        _check_over(found)
        again.same_spec(config, found.job)
        again.check_not_running(jobs, found.job, named=bool(options.job))
        return again.words(found.job, answer)

    def act(found: Found, by: str) -> Done:
        words = plan(found)
        if found.word == RETRYING:
            acts.retry_at_once(jobs, found.job, by)
            return Done(words)
        spec = again.same_spec(config, found.job)
        return Done(words, acts.run_again(jobs, found.job, "retry", by, answer, {}, spec))

    return asking.perform(config, options, Action("retry", (RETRYING, DONE, UNDELIVERED), plan, act))


def _check_over(found: Found) -> None:
    if found.word == REJECTED:
        raise NotPossible("was no valid job; see replay")
    if found.word not in (DONE, UNDELIVERED):
        raise NotPossible(
            f"is {found.word}; only a job that waits for its next attempt, or is over, can be tried again"
        )
    outcome = found.job.outcome.read()
    if outcome is None or outcome.outcome == "succeeded":
        raise NotPossible("succeeded; see rerun")
