"""Where answers go: whether they are lost there, or go round for ever."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

from ..amqp.making import instead_of_transient
from ..amqp.trial import Seen, Trial
from ..deliveries import matches
from ..errors import Damaged
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..settings import Queue, Site
from .report import Report

_SHORT = 3600.0
"""Seconds that an answer may stay unread without a word."""
_MOST_LOOKED_AT = 20


def look_at_replies(report: Report, trial: Trial, site: Site) -> None:
    jobs = JobsFolder(site.jobs_dir)
    wanted = {str(each) for each in site.replies.patterns if not each.endswith("*")} | _asked_for(jobs.active)
    before = {name for day in _last_days(jobs) for name in _asked_for(day)}
    names = sorted(name for name in wanted | before if name and not name.startswith("amq."))[:_MOST_LOOKED_AT]
    seen = {name: trial.look(Queue(name, "", make=False)) for name in names}
    _look_at_results(report, site, seen, wanted)
    _look_at_unread(report, site, [name for name in names if seen[name].state == "there"])
    try_making_reply_queues(report, trial, site)


def _asked_for(folder: Path) -> set[str]:
    """The reply queues of some jobs."""
    names = set[str]()
    with contextlib.suppress(OSError):
        for path in itertools.islice(folder.iterdir(), _MOST_LOOKED_AT):
            with contextlib.suppress(Damaged, OSError):
                message = JobFolder(path).message.read()
                reply_to = message.properties.get("reply_to") if message else None
                names |= {reply_to} if isinstance(reply_to, str) else set()
    return names


def _last_days(jobs: JobsFolder) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted((each for each in jobs.done.iterdir() if not each.name.startswith(".")), reverse=True)[:1]
    return []


def _look_at_results(report: Report, site: Site, seen: dict[str, Seen], wanted: set[str]) -> None:
    """One that only jobs of the past wanted may well be gone."""
    report.begin("results queues")
    lossy = [name for name, each in seen.items() if each.known and not each.durable]
    missing = [
        name for name, each in seen.items()
        if each.state == "missing" and name in wanted and not matches(name, site.replies.create)
    ]  # fmt: skip
    unknown = [name for name, each in seen.items() if each.state == "there" and not each.known]
    if lossy:
        report.warn(f"{', '.join(lossy)}: not durable, so answers in it are gone when the broker restarts",
                    "Ask the service for a durable results queue; one that exists must be deleted while it is empty, and made "
                    "anew by both sides alike.")  # fmt: skip
    if missing:
        report.warn(f"{', '.join(missing)}: not there, so that answers are kept until it is",
                    "Ask the service to make it, or name it in replies.create of site.toml.")  # fmt: skip
    if not seen:
        report.skip("none is known: replies.patterns names none in full, and there was no job lately")
    elif not (lossy or missing):
        more = f"; of {', '.join(unknown)} it can't be seen whether it is durable" if unknown else ""
        report.ok(f"{', '.join(seen)}{more}")


def _look_at_unread(report: Report, site: Site, there: list[str]) -> None:
    """A reply queue that many requests share gives back what is not theirs. What nobody wants goes round there, thousands of
    times a second, until it expires."""
    report.begin("unread answers")
    life = site.replies.expiration
    shared = there if life > _SHORT else []
    if shared:
        names, hours = ", ".join(shared), f"{life / _SHORT:g} h"
        report.warn(f"an answer that nobody wants stays in {names} for {hours}; if requests share it and give back what is "
                    "not theirs, it is redelivered thousands of times a second for so long",
                    'Set expiration = "1h" in [replies] of site.toml, unless answers are read later than that.')  # fmt: skip
    else:
        report.ok(f"an answer that nobody reads is gone after {life / _SHORT:g} h")


def try_making_reply_queues(report: Report, trial: Trial, site: Site) -> None:
    report.begin("queues for answers")
    if site.replies.create and not site.replies.create_durable and not trial.makes_transient():
        instead = instead_of_transient("create_durable")
        report.fault(f"replies.create names queues to be made, and {instead.found}", f"{instead.fix}.")
