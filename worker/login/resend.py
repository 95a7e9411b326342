"""`check.py resend`: answers that no queue took are sent again, at once, also those that were given up."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from .. import as_json
from ..build import open_ends
from ..errors import Damaged
from ..folder import acts, paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..operate import screen
from ..operate.asking import asker, audit
from ..operate.naming import LAST, Ids, newest
from ..operate.places import Found
from ..settings import Config
from .guard import guarded
from .lease import Lease
from .one_pass import Pass
from .passes import Passes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One answer: where it should go, since when (seconds since 1970), what is true of it now, and why."""

    job: str
    to: str
    since: float
    state: str
    why: str


@dataclass(frozen=True)
class Told:
    """What --json prints."""

    answers: list[Row]
    unknown: list[str]
    """What was given as a job's id, and is not that of one job whose answer waits."""
    unclear: list[str]
    """Of each of these why, with the jobs that it may mean."""


def resend(config: Config, chosen: Sequence[str], everything: bool, dry_run: bool, in_json: bool) -> int:
    """Sends the answers of these jobs again. Returns an exit code: 0 if each of them arrived."""
    jobs = JobsFolder(config.site.jobs_dir)
    if dry_run or not (chosen or everything):
        damaged = list[str]()
        told = _find(config, jobs, chosen, damaged)
        code = _show(jobs, told, os.EX_DATAERR if told.unknown or damaged else os.EX_OK, in_json)
        if told.answers and not in_json:
            print("Nothing was sent. To send: ./check.py resend JOB..., or --all")
        return code
    return guarded(
        config,
        lambda _, held: _resend(config, jobs, held, chosen, in_json),
        lambda: _hand_over(config, chosen, in_json),
    )


def _hand_over(config: Config, chosen: Sequence[str], in_json: bool) -> int:
    """A pass is running, a watch for example: it finds these answers due, and sends them."""
    jobs, damaged = JobsFolder(config.site.jobs_dir), list[str]()
    told = _find(config, jobs, chosen, damaged)
    for row in told.answers:
        audit(jobs, "resend", row.job, asker(), f"to {row.to}")
        _make_due(jobs, row)
    why = "the pass that is running sends it, or the next one"
    told = replace(told, answers=[replace(row, state="active", why=why) for row in told.answers])
    return _show(jobs, told, os.EX_DATAERR if told.unknown or damaged else os.EX_OK, in_json)


def _resend(config: Config, jobs: JobsFolder, held: Lease, chosen: Sequence[str], in_json: bool) -> int:
    damaged = list[str]()
    with Passes(config, jobs, held, open_ends(config)) as passes:
        told, one = _find(config, jobs, chosen, damaged), passes.begin()
        told = replace(told, answers=[_send(jobs, one, row) for row in told.answers])
        code = os.EX_OK if all(row.state == "delivered" for row in told.answers) else os.EX_UNAVAILABLE
        code = _show(jobs, told, os.EX_DATAERR if told.unknown or damaged else code, in_json)
        passes.tell(code)
    return code


def _send(jobs: JobsFolder, one: Pass, row: Row) -> Row:
    audit(jobs, "resend", row.job, asker(), f"to {row.to}")
    job = _make_due(jobs, row)
    one.settle(job)
    after = jobs.find(job.id)
    waits = replace(row, state="active", why=one.state.faults.broker_away or "the next pass sends it")
    return (_row(after, after.path.parent != jobs.active) if after is not None else None) or waits


def _make_due(jobs: JobsFolder, row: Row) -> JobFolder:
    job = jobs.find(JobId(row.job))
    assert job is not None
    return acts.send_again(jobs, job)


def _find(config: Config, jobs: JobsFolder, chosen: Sequence[str], damaged: list[str]) -> Told:
    """What could be sent again, of the chosen ones if any; and those of `chosen` that fit none, or several. `damaged` gets
    what can't be read, which is logged: it holds up no other."""
    rows = {row.job: row for row in sorted(_waiting(jobs, damaged), key=lambda row: row.since)}
    if not chosen:
        return Told(list(rows.values()), [], [])
    ids = Ids.of(rows)
    meant = {
        word: [word] if word in rows else [path.name for path in ids.meant(_id(config, jobs, word))] for word in chosen
    }
    found = {found[0]: rows[found[0]] for found in meant.values() if len(found) == 1}
    unclear = {word: _why(ids, word, fitting) for word, fitting in meant.items() if len(fitting) != 1}
    return Told(list(found.values()), list(unclear), list(unclear.values()))


def _why(ids: Ids, word: str, fitting: Sequence[str]) -> str:
    if not fitting:
        return f"{screen.plain(word)}: no answer of a job with this id waits"
    several = ", ".join(map(ids.short, fitting))
    return (
        f"{screen.plain(word)}: answers of {len(fitting)} jobs whose ids begin so wait: {several}. Give more of the id"
    )


def _id(config: Config, jobs: JobsFolder, word: str) -> str:
    found = newest(config, jobs) if word == LAST else None
    return found.job.id if isinstance(found, Found) else word


def _waiting(jobs: JobsFolder, damaged: list[str]) -> Iterator[Row]:
    for place in (jobs.undelivered, jobs.rejected, jobs.active):
        for name in _names(place, damaged):
            with _left_alone(name, damaged):
                row = _row(JobFolder(place / name), place != jobs.active)
                if row is not None and row.state != "delivered":
                    yield row


def _names(place: Path, damaged: list[str]) -> list[str]:
    with _left_alone(place.name, damaged):
        return [name for name in paths.names_in(place) if not name.startswith(".")]
    return []


@contextlib.contextmanager
def _left_alone(name: str, damaged: list[str]) -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        log.error("damaged, left alone; docs/symptoms.md says what to do job=%s what=%r", name, str(error))
        damaged.append(name)


def _row(job: JobFolder, put_away: bool) -> Optional[Row]:
    """None for a job whose answer is on its way. `put_away`: not among the active ones; without a word of what became of its
    answer, it is one whose `resend` was interrupted."""
    delivered, gone = job.delivered.read(), job.undeliverable.read()
    kept = job.unroutable.read()
    message = job.message.read() if delivered or gone or kept or put_away else None
    if message is None:
        return None
    to = str(message.properties.get("reply_to") or "")
    if delivered is not None:
        return Row(job.id, to, delivered.at, "delivered", delivered.note)
    if gone is not None:
        return Row(job.id, to, gone.at, "given up", gone.why)
    if kept is not None:
        return Row(job.id, to, kept.since, "kept", kept.why)
    return Row(job.id, to, message.claimed_at, "given up", "resend was interrupted") if put_away else None


def _show(jobs: JobsFolder, told: Told, code: int, in_json: bool) -> int:
    if in_json:
        return as_json.show(told, code)
    ids = Ids.in_folders(jobs)
    rows = ((ids.short(row.job), row.state, screen.when(row.since), row.to, row.why) for row in told.answers)
    screen.show_table(("job", "state", "since", "to", "why"), rows, whole=("job", "state"))
    for why in told.unclear:
        print(f"{why}.")
    if not told.answers and not told.unknown:
        print("No answer waits for its queue.")
    return code
