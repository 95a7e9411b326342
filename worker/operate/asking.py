"""How every verb that changes something goes about it: choose, show, ask on a terminal, do, write down who did it.

What is done is writing facts, which the next pass obeys; so it is safe while a pass runs, and whoever holds the lease.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pwd
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Callable, Optional

from ..errors import Damaged
from ..folder.acts import NotPossible
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..settings import Config
from . import in_batches, places, screen
from .in_batches import InBatch
from .places import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One job, and what was done with it, or would be."""

    job: str
    state: str
    done: bool
    words: str


@dataclass(frozen=True)
class Action:
    """`plan` says what would be done; `act` does it and says so. Both raise NotPossible, Damaged or OSError."""

    verb: str
    states: Sequence[str]
    """Where it looks for jobs when filters, and no ids, say which."""
    plan: Callable[[Found], str]
    act: Callable[[Found, str], str]
    """It is told who asks for it: user@host."""
    in_batch: Optional[Callable[[InBatch, Optional[str]], str]] = None
    """The same for a job that lies in a pilot's batch: told nobody, it only says what would be done."""


@dataclass(frozen=True)
class _Target:
    """`do`: told nobody, it only plans."""

    job: JobId
    word: str
    do: Callable[[Optional[str]], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    places.add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all that it can be done with")
    # Before the verb it means the same; not given here, it must not undo that.
    parser.add_argument(
        "--dry-run", action="store_true", default=argparse.SUPPRESS, help="only show what would be done"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask on a terminal")


def perform(config: Config, options: argparse.Namespace, action: Action) -> int:
    """Returns an exit code: 65 where a job was named that is not there, or that it can't be done with."""
    jobs, want = JobsFolder(config.site.jobs_dir), places.wanted(options)
    if not want.jobs and not want.states:
        want = replace(want, states=tuple(action.states))
    chosen, unknown = places.choose(jobs, want, time.time())
    targets = [_target(found, action) for found in chosen]
    if action.in_batch is not None:
        inside = {name: found for name in unknown if (found := in_batches.find(config, jobs, name)) is not None}
        targets += [_target_in_batch(found, action.in_batch) for found in inside.values()]
        unknown = [name for name in unknown if name not in inside]
    planned = [(target, _try(target, None)) for target in targets]
    if not want.jobs:
        planned = [(target, row) for target, row in planned if row.done]
    rows = [replace(row, done=False) for _, row in planned]
    hint = "" if action.in_batch else " (one that a pilot has can't be chosen here)"
    nothing_said = not (want.jobs or options.all or places.wanted(options).filters)
    possible = [target for target, row in planned if row.done]
    if options.dry_run or nothing_said or not possible:
        _show(rows, unknown, options.json, hint)
        if possible and not options.json:
            print(f"Nothing was done. To do it: ./check.py {action.verb} JOB..., or filters, or --all"
                  if nothing_said else "Nothing was done: --dry-run.")  # fmt: skip
    elif not _agreed(rows, action.verb, options):
        print("Nothing was done.")
        return os.EX_OK
    else:
        rows = [_done(jobs, action.verb, target) if row.done else row for target, row in planned]
        _show(rows, unknown, options.json, hint)
    refused = want.jobs and not all(row.done for _, row in planned)
    return os.EX_DATAERR if unknown or refused or (possible and _failed(rows, options, nothing_said)) else os.EX_OK


def _target(found: Found, action: Action) -> _Target:
    return _Target(
        found.job.id, found.word, lambda by: action.plan(found) if by is None else action.act(found, by)
    )  # fmt: skip


def _target_in_batch(found: InBatch, do: Callable[[InBatch, Optional[str]], str]) -> _Target:
    return _Target(found.claimed.id, found.state, lambda by: do(found, by))


def _failed(rows: Sequence[Row], options: argparse.Namespace, nothing_said: bool) -> bool:
    return not (options.dry_run or nothing_said) and not all(row.done for row in rows)


def _try(target: _Target, by: Optional[str]) -> Row:
    try:
        return Row(target.job, target.word, True, target.do(by))
    except (NotPossible, Damaged) as error:
        return Row(target.job, target.word, False, str(error))
    except FileNotFoundError:
        return Row(target.job, target.word, False, "it has just moved on: look at it again")
    except OSError as error:
        return Row(target.job, target.word, False, f"its folder can't be used: {error.strerror}")


def _done(jobs: JobsFolder, verb: str, target: _Target) -> Row:
    by = asker()
    row = _try(target, by)
    if row.done:
        audit(jobs, verb, row.job, by, row.words)
    return row


def audit(jobs: JobsFolder, verb: str, job: str, by: str, words: str) -> None:
    """One line in jobs/operator.log, which only grows. That it can't be written undoes nothing."""
    log.info("operator verb=%s job=%s by=%s what=%r", verb, job, by, words)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S%z")
    line = f"{stamp} INFO    operator verb={verb} job={job} by={by} what={words!r}\n"
    try:
        descriptor = os.open(jobs.operator_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        log.warning("operator.log can't be written why=%r", error.strerror)


def asker() -> str:
    """Who asks: user@host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _agreed(rows: Sequence[Row], verb: str, options: argparse.Namespace) -> bool:
    """Asked only where somebody can answer; a script means what it says."""
    if options.yes or options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    _show(rows[:20], [], False)
    if len(rows) > 20:
        print(f"... and {len(rows) - 20} more")
    try:
        answer = input(f"{verb.capitalize()} {'this job' if len(rows) == 1 else f'these {len(rows)} jobs'}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _show(rows: Sequence[Row], unknown: Sequence[str], as_json: bool, hint: str = "") -> None:
    if as_json:
        print(json.dumps({"jobs": [asdict(row) for row in rows], "unknown": list(unknown)}, indent=1))
        return
    for row in rows:
        print(f"{row.job}  {row.state:11}  {screen.plain(row.words)}")
    for name in unknown:
        print(places.no_such(name) + hint)
    if not rows and not unknown:
        print("There is no such job.")


def reason(text: Optional[str]) -> str:
    """What a requester may read of an operator's words."""
    words = screen.plain(text or "").strip()
    return words if not words or words[-1] in ".!?" else f"{words}."
