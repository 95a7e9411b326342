"""`check.py resend`: answers that no queue took are sent again, at once, also those that were given up."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

from ..build import open_ends
from ..errors import Damaged
from ..folder import acts, paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..operate.asking import asker, audit
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


def resend(config: Config, chosen: Sequence[str], everything: bool, dry_run: bool, as_json: bool) -> int:
    """Sends the answers of these jobs again. Returns an exit code: 0 if each of them arrived."""
    jobs = JobsFolder(config.site.jobs_dir)
    if dry_run or not (chosen or everything):
        damaged = list[str]()
        rows, unknown = _find(jobs, chosen, damaged)
        _show(rows, unknown, as_json)
        if rows and not as_json:
            print("Nothing was sent. To send: ./check.py resend JOB..., or --all")
        return os.EX_DATAERR if unknown or damaged else os.EX_OK
    return guarded(
        config, lambda _, held: _resend(config, jobs, held, chosen, as_json), lambda: _hand_over(jobs, chosen, as_json)
    )


def _hand_over(jobs: JobsFolder, chosen: Sequence[str], as_json: bool) -> int:
    """A pass is running, a watch for example: it finds these answers due, and sends them."""
    damaged = list[str]()
    waiting, unknown = _find(jobs, chosen, damaged)
    for row in waiting:
        audit(jobs, "resend", row.job, asker(), f"to {row.to}")
        _make_due(jobs, row)
    rows = [replace(row, state="active", why="the pass that is running sends it, or the next one") for row in waiting]
    _show(rows, unknown, as_json)
    return os.EX_DATAERR if unknown or damaged else os.EX_OK


def _resend(config: Config, jobs: JobsFolder, held: Lease, chosen: Sequence[str], as_json: bool) -> int:
    damaged = list[str]()
    with Passes(config, jobs, held, open_ends(config)) as passes:
        waiting, unknown = _find(jobs, chosen, damaged)
        one = passes.begin()
        rows = [_send(jobs, one, row) for row in waiting]
        _show(rows, unknown, as_json)
        code = os.EX_OK if all(row.state == "delivered" for row in rows) else os.EX_UNAVAILABLE
        code = os.EX_DATAERR if unknown or damaged else code
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


def _find(jobs: JobsFolder, chosen: Sequence[str], damaged: list[str]) -> tuple[list[Row], list[str]]:
    """What could be sent again, of the chosen ones if any; and those of `chosen` that fit none, or several. `damaged` gets
    what can't be read, which is logged: it holds up no other."""
    rows = sorted(_waiting(jobs, damaged), key=lambda row: row.since)
    if not chosen:
        return rows, []
    fitting = {name: [row for row in rows if row.job.startswith(name)] for name in chosen}
    exact = {name: [row for row in found if row.job == name] or found for name, found in fitting.items()}
    found = {each.job: each for several in exact.values() for each in several if len(several) == 1}
    return list(found.values()), [name for name, several in exact.items() if len(several) != 1]


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


def _show(rows: Sequence[Row], unknown: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"answers": [asdict(row) for row in rows], "unknown": list(unknown)}, indent=1))
        return
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.since))
        print(f"{row.job}  {row.state:9}  {when}  to {row.to!r}{f': {row.why}' if row.why else ''}")
    for name in unknown:
        print(f"{name}: no answer of a job with this id waits, or several ids begin so")
    if not rows and not unknown:
        print("No answer waits for its queue.")
