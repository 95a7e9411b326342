"""`check.py pause`: no new message is taken, until `resume`. What runs goes on, and is answered."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import Optional

from .. import as_json
from ..folder import paths, pause
from ..folder.jobs import JobsFolder
from ..folder.pause import Pause
from ..settings import Config
from . import asking, screen

SUMMARY = "take no new messages until `resume`; what is running goes on and is answered"
HELP = """\
From the next pass on, no new message is taken: each waits in its queue. With --submit, claimed jobs are not submitted
either, and no pilot is started. What is in Slurm already goes on and is answered; running pilots go on with the jobs in
their batches. Passes go on too, from cron or a watch, and deadlines and max_wait keep running: a job that is not
submitted in time is answered `expired`. The pause lasts until `./check.py resume`, even through an upgrade.

If the installation is paused already, says by whom. --submit can be added to a pause without it; to take it back,
resume, then pause.

"""
EXIT_CODES = {
    0: "the installation is paused, by this command or by somebody before",
    73: "the jobs folder is not there, or can't be written; nothing is paused",
}
EXAMPLES = """\
examples:
  ./check.py pause --reason "The web service is being upgraded."
  ./check.py pause --submit --reason "Slurm is down on Monday."   submit nothing either
  ./check.py status                                      says who paused it, and since when
  ./check.py resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--submit", action="store_true", help="submit no claimed jobs either")
    parser.add_argument("--reason", default="", metavar="WORDS", help="why, for whoever looks at it later")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs, by = JobsFolder(config.site.jobs_dir), asking.asker()
    try:
        if not paths.is_folder(jobs.active):
            return no_folder(jobs)
        begun = pause.begin(jobs, by, options.submit, screen.plain(options.reason).strip())
        found = pause.look(jobs)
    except OSError as error:
        return can_t(jobs, error)
    if begun and found is not None:
        asking.audit(jobs, "pause", "-", by, f"{found.what}{f': {found.reason}' if found.reason else ''}")
    tell(found, begun, _words(found, begun), options.json)
    return os.EX_OK


def _words(found: Optional[Pause], begun: bool) -> str:
    if found is None:
        return "Somebody has just ended the pause."
    if not begun:
        return f"It was so already: {found.sentence}. Nothing was changed."
    hint = "A job that is not submitted in time is answered expired." if found.submit else (
        "What is claimed is submitted; to keep that from happening too: ./check.py pause --submit."
    )  # fmt: skip
    return (
        f"From the next pass on {found.what}. What runs goes on and is answered; deadlines and max_wait go on. {hint} "
        "To end this: ./check.py resume"
    )


@dataclass(frozen=True)
class Shown:
    """What --json prints."""

    paused: Optional[Pause]
    """null where nothing is."""
    changed: bool
    """Whether this command did it."""


def tell(found: Optional[Pause], changed: bool, words: str, in_json: bool) -> None:
    if in_json:
        as_json.show(Shown(found, changed), os.EX_OK)
    else:
        print(screen.plain(words, 1000))


def no_folder(jobs: JobsFolder) -> int:
    return _refused(f"there is no folder {jobs.active}: the first pass makes it, or its file system is not mounted")


def can_t(jobs: JobsFolder, error: OSError) -> int:
    return _refused(f"{jobs.active} can't be used: {error.strerror}")


def _refused(why: str) -> int:
    asking.log.error("nothing was changed: %s", why)
    return os.EX_CANTCREAT
