"""`check.py resume`: ends what `pause` began."""

from __future__ import annotations

import argparse
import os

from ..folder import paths, pause
from ..folder.jobs import JobsFolder
from ..settings import Config
from . import asking
from .pause import can_t, no_folder, tell

SUMMARY = "end a pause: messages are taken again"
HELP = """\
From the next pass on, messages are taken again, and claimed jobs are submitted. Says who had paused this installation,
and since when.

"""
EXIT_CODES = {
    0: "nothing is paused any more, or nothing was",
    73: "the jobs folder is not there, or can't be written; nothing is changed",
}
EXAMPLES = """\
examples:
  ./check.py resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs, by = JobsFolder(config.site.jobs_dir), asking.asker()
    try:
        if not paths.is_folder(jobs.active):
            return no_folder(jobs)
        before = pause.end(jobs)
    except OSError as error:
        return can_t(jobs, error)
    if before is None:
        tell(None, False, "Nothing is paused.", options.json)
        return os.EX_OK
    asking.audit(jobs, "resume", "-", by, f"it was {before.sentence}")
    words = f"From the next pass on messages are taken again. It was {before.sentence}."
    tell(None, True, words, options.json)
    return os.EX_OK
