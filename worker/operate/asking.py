"""How every verb that changes something goes about it: choose, show, ask on a terminal, do, write down who did it.

What is done is writing facts, which the next pass obeys; so it is safe while a pass runs, and whoever holds the lease.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import pwd
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Callable, NamedTuple, Optional

from .. import as_json
from ..errors import Damaged
from ..folder.acts import NotPossible
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..settings import Config
from . import naming, places, screen
from .in_batches import InBatch
from .naming import Chosen, Ids
from .places import Found

log = logging.getLogger(__name__)

_MOST_ASKED, _MOST_REASONS, _MOST_NAMED = 20, 20, 3
"""What a person is shown: jobs before the question, reasons, and jobs with the same reason."""
EXIT_CODES = {
    0: "done; or nothing was done, because of --dry-run or because you answered no",
    65: "a job that was named does not exist, or this can't be done with it; or something went wrong with one (see its line)",
}


@dataclass(frozen=True)
class Row:
    """One job, and what was done with it, or would be."""

    job: str
    state: str
    done: bool
    words: str
    new_job: str = ""
    """The id of the one that repeats it."""


@dataclass(frozen=True)
class Told:
    """What --json prints. `matched`: so many jobs fit what was asked for."""

    matched: int
    unknown: list[str]
    """What was given as a job's id, and names none, or several."""
    unclear: list[str]
    """Of each of these why, with the jobs that it may mean."""
    jobs: list[Row]
    """Those that were named, or otherwise those that it can be done with."""
    left_out: list[Row]
    """Those that filters or --all found, and that it can't be done with: why."""
    nothing_done: str = ""
    """Why nothing was done with the others."""


class Done(NamedTuple):
    """What was done, and as which job another one is repeated."""

    words: str
    new_job: str = ""


@dataclass(frozen=True)
class Action:
    """`plan` says what would be done; `act` does it and says so. Both raise NotPossible, Damaged or OSError."""

    verb: str
    states: Sequence[str]
    """Where it looks for jobs when filters, and no ids, say which."""
    plan: Callable[[Found], str]
    act: Callable[[Found, str], Done]
    """It is told who asks for it: user@host."""
    in_batch: Optional[Callable[[InBatch, Optional[str]], str]] = None
    """The same for a job that lies in a pilot's batch: told nobody, it only says what would be done."""


@dataclass(frozen=True)
class _Target:
    """`do`: told nobody, it only plans."""

    job: JobId
    word: str
    do: Callable[[Optional[str]], Done]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    places.add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all jobs that this can be done with")
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
    found = naming.choose(config, jobs, want, time.time())
    targets, unclear = _targets(found, action)
    planned = [(target, _try(target, None)) for target in targets]
    possible = [(target, row) for target, row in planned if row.done]
    told = Told(
        len(planned), list(unclear), list(unclear.values()),
        jobs=[replace(row, done=False) for _, row in (planned if want.jobs else possible)],
        left_out=[row for _, row in planned if not row.done and not want.jobs],
    )  # fmt: skip
    nothing_said = not (want.jobs or options.all or places.wanted(options).filters)
    if options.dry_run or nothing_said or not possible:
        to_do_it = f"Nothing was done. To do it: ./check.py {action.verb} JOB..., or filters, or --all"
        told = replace(
            told, nothing_done=(to_do_it if nothing_said else "Nothing was done: --dry-run.") if possible else ""
        )
    elif not _agreed(jobs, told, len(possible), action.verb, options):
        print("Nothing was done.")
        return os.EX_OK
    else:
        done = [_done(jobs, action.verb, target) if row.done else row for target, row in planned]
        told = replace(told, jobs=done if want.jobs else [each for each, (_, row) in zip(done, planned) if row.done])
    refused = want.jobs and len(possible) < len(planned)
    failed = not told.nothing_done and possible and not all(row.done for row in told.jobs)
    return _tell(jobs, told, os.EX_DATAERR if unclear or refused or failed else os.EX_OK, options.json)


def _targets(found: Chosen, action: Action) -> tuple[list[_Target], dict[str, str]]:
    """In the order in which they were claimed, so that they come to their turn so too; and what can't be chosen."""
    here = sorted(found.jobs, key=lambda each: each.claimed_at)
    targets, unclear = [_target(each, action) for each in here], {each.word: str(each) for each in found.unclear}
    for each in found.inside:
        if action.in_batch is not None:
            targets.append(_target_in_batch(each, action.in_batch))
        else:
            unclear[each.claimed.id] = (
                f"{each.claimed.id}: lies in a pilot's batch, and {action.verb} takes none of these"
            )
    return targets, unclear


def _target(found: Found, action: Action) -> _Target:
    return _Target(
        found.job.id, found.word, lambda by: Done(action.plan(found)) if by is None else action.act(found, by)
    )  # fmt: skip


def _target_in_batch(found: InBatch, do: Callable[[InBatch, Optional[str]], str]) -> _Target:
    return _Target(found.claimed.id, found.state, lambda by: Done(do(found, by)))


def _try(target: _Target, by: Optional[str]) -> Row:
    try:
        return Row(target.job, target.word, True, *target.do(by))
    except NotPossible as error:
        return Row(target.job, target.word, False, error.why, error.job)
    except Damaged as error:
        return Row(target.job, target.word, False, str(error))
    except FileNotFoundError:
        return Row(target.job, target.word, False, "it has just moved on: look at it again")
    except OSError as error:
        return Row(target.job, target.word, False, f"its folder can't be used: {error.strerror}")


def _done(jobs: JobsFolder, verb: str, target: _Target) -> Row:
    by = asker()
    row = _try(target, by)
    if row.done:
        audit(jobs, verb, row.job, by, f"{row.words}, as {row.new_job}" if row.new_job else row.words)
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


def _agreed(jobs: JobsFolder, told: Told, count: int, verb: str, options: argparse.Namespace) -> bool:
    """Asked only where somebody can answer; a script means what it says."""
    if options.yes or options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    _show(jobs, told, _MOST_ASKED)
    try:
        answer = input(f"{verb.capitalize()} {'this job' if count == 1 else f'these {count} jobs'}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _tell(jobs: JobsFolder, told: Told, code: int, in_json: bool) -> int:
    if in_json:
        return as_json.show(told, code)
    _show(jobs, told)
    return code


def _show(jobs: JobsFolder, told: Told, most: Optional[int] = None) -> None:
    ids, shown = Ids.in_folders(jobs), told.jobs[:most]
    screen.show_table(("job", "state", "what"), (_cells(ids, row) for row in shown), whole=("job", "state"))
    if len(told.jobs) > len(shown):
        print(f"... and {len(told.jobs) - len(shown)} more")
    for why in told.unclear:
        print(f"{why}.")
    if told.left_out:
        _show_left_out(ids, told)
    elif not told.jobs and not told.unclear:
        print("No job matches.")
    if told.nothing_done:
        print(told.nothing_done)


def _cells(ids: Ids, row: Row) -> tuple[str, ...]:
    return ids.short(row.job), row.state, f"{row.words}, as {ids.short(row.new_job)}" if row.new_job else row.words


def _show_left_out(ids: Ids, told: Told) -> None:
    """How many matched, and why each of the others stays; of many that stay for one reason the first ones are named."""
    print(f"{screen.counted(told.matched, 'job')} matched, {len(told.left_out)} left out:")
    reasons: dict[str, list[str]] = {}
    for row in told.left_out:
        reasons.setdefault(row.words, []).append(ids.short(row.job))
    rows = []
    for words, those in itertools.islice(reasons.items(), _MOST_REASONS):
        more = f", and {len(those) - _MOST_NAMED} more" if len(those) > _MOST_NAMED else ""
        rows.append((len(those), words, f"{', '.join(those[:_MOST_NAMED])}{more}"))
    screen.show_table(("jobs", "why", "which"), rows, right=("jobs",), whole=("jobs",))
    if len(reasons) > _MOST_REASONS:
        print(f"... and {len(reasons) - _MOST_REASONS} more reasons; --json has them all.")


def reason(text: Optional[str]) -> str:
    """What a requester may read of an operator's words."""
    words = screen.plain(text or "").strip()
    return words if not words or words[-1] in ".!?" else f"{words}."
