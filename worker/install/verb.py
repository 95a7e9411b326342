"""`check.py init`: its help, its arguments, and what it calls."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..doctor.packages import MODULES, missing
from .answers import CREDENTIALS, SITE

SUMMARY = "make credentials.env and site.toml, and show or add what starts the passes"
HELP = """\
Makes credentials.env (0600) and site.toml, and shows the crontab line, or adds it with --add. Answers come from flags
and from --answers FILE (lines such as RABBITMQ_HOST=mq.example.org or QUEUE=hpc-jobs). Without such a file it asks on a
terminal, tries the answers at the broker and at the API, and asks again for what they refuse. Passwords come from that
file, which must be yours alone (chmod 600), or from the terminal, never from a flag. Where it can, it proposes answers
(partitions, accounts and limits from Slurm, queues and message size from the broker). If we are to make the jobs queue,
it is made now. A file that exists is never overwritten: it stays, or with --replace it is kept beside the new one. To
change an answer, correct the file, or run this again with --replace.

"""
EXIT_CODES = {
    0: "the files are there",
    64: "answers are missing (all of them are named), or the command line is wrong",
    73: "a file or the crontab can't be written, or a given answer would be lost because a file exists",
}
EXAMPLES = """\
examples:
  ./check.py init                                         ask on the terminal
  ./check.py init --answers answers.env --add             ask nothing, add the crontab line
  ./check.py init --schedule systemd                      show a unit for check.py --watch instead (or: scrontab)
"""
QUESTIONS = [each for each in (*CREDENTIALS, *SITE) if not each.secret]


def add_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--answers", type=Path, metavar="FILE", help="answers, one NAME=VALUE on each line; passwords too"
    )
    for each in QUESTIONS:
        default = f" (default: {each.default})" if each.default else ""
        verb.add_argument(each.flag, metavar=each.name.rpartition("_")[2].upper(), help=f"{each.words}{default}")
    verb.add_argument(
        "--schedule", choices=("crontab", "scrontab", "systemd"), default="crontab", help="what starts the passes"
    )
    verb.add_argument("--add", action="store_true", help="add it to the crontab, or write the unit")
    verb.add_argument(
        "--replace", action="store_true", help="make files that exist anew, and keep the old ones beside them"
    )


def run(root: Path, options: argparse.Namespace) -> int:
    """Raises ModuleNotFoundError where packages are missing: before anything is asked."""
    absent = missing()
    if absent:
        raise ModuleNotFoundError(name=MODULES[absent[0]])
    from .init import Wishes, init

    told = vars(options)
    given = {each.name: told[each.name] for each in QUESTIONS if told[each.name]}
    wishes = Wishes(given, options.answers, options.schedule, options.add, options.replace)
    return init(root, options.site.resolve(), options.credentials.resolve(), wishes)
