"""`check.py rerun JOB`: a job that is over runs again from its message, with other resources if they are given."""

from __future__ import annotations

import argparse

from ..folder import acts
from ..folder.acts import NotPossible
from ..folder.jobs import JobsFolder
from ..job.stage import DONE, REJECTED, UNDELIVERED
from ..settings import Config
from . import again, asking
from .asking import Action, Done
from .places import Found

SUMMARY = "run jobs that are over again, if you like with other resources"
HELP = """\
Reads the message of a job that is over again, by today's site.toml, and makes a new job of it, with a new id. Its
answer goes to the same queue and has the header rerun_of; the old job, its outcome and its answer stay as they are.
Resources given here replace what the message asks for, within the caps of the queue. Without a JOB, a filter or --all:
shows what could run again.
"""
EXIT_CODES = asking.EXIT_CODES
EXAMPLES = """\
examples:
  ./check.py rerun 4f0c --memory-mb 64000 --time 0-12:00
  ./check.py rerun 4f0c --no-reply               nobody is answered; the outputs stay in its folder
  ./check.py rerun --state done --outcome out_of_memory --newer-than 1d --memory-mb 64000 --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_arguments(parser)
    parser.add_argument("--no-reply", action="store_true", help="answer nobody; the outputs stay in its folder")
    group = parser.add_argument_group("resources, instead of what the message asks for")
    group.add_argument("--cpus", type=int, metavar="N")
    group.add_argument("--memory-mb", type=int, metavar="MB")
    group.add_argument("--time", metavar="D-HH:MM")
    group.add_argument("--gpus", type=int, metavar="N")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    given = {name: getattr(options, name) for name in ("cpus", "memory_mb", "time", "gpus")}
    resources = {name: value for name, value in given.items() if value is not None}
    return run_again(config, options, "rerun", (DONE, UNDELIVERED), resources, not options.no_reply)


def run_again(config: Config, options: argparse.Namespace, verb: str, states: tuple[str, ...],
              resources: dict[str, int | str], answer: bool) -> int:  # fmt: skip
    """What rerun and replay share: only where they look differs."""
    jobs = JobsFolder(config.site.jobs_dir)

    def plan(found: Found) -> str:
        if found.word not in states:
            instead = {REJECTED: "was rejected; see replay", DONE: "was a job; see rerun"}
            raise NotPossible(instead.get(found.word, f"is {found.word}; only what is over can run again"))
        again.check(config, jobs, found.job, resources, named=bool(options.job))
        return again.words(found.job, answer)

    def act(found: Found, by: str) -> Done:
        return Done(plan(found), acts.run_again(jobs, found.job, verb, by, answer, resources))

    return asking.perform(config, options, Action(verb, states, plan, act))
