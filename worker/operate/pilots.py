"""`check.py pilots`: the batches of pilots, and the pilots themselves; jobs that failed can be put back to todo."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from .. import as_json
from ..errors import Damaged
from ..folder import batches, closed
from ..folder.batches import Batch, Claimed, Handed, Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.journal import read_progress
from ..folder.paths import remove
from ..folder.snapshot import read_attempt
from ..job.facts import Asked
from ..job.names import JobId
from ..job.stage import BATCH_STATES, ENDED, ERROR, IN_OPEN_BATCHES, LOCKED, TODO, Mark, stage_of_pilot
from ..login.guard import guarded
from ..settings import Config
from . import asking, screen
from .in_batches import stage_of
from .naming import Ids

log = logging.getLogger(__name__)

SUMMARY = "jobs that share pilots: waiting, taken, done; put failed ones back"
_STATES = "\n".join(f"  {word:7} {meaning}" for word, meaning in BATCH_STATES.items())
HELP = f"""\
For queues in mode "pilot": how many jobs are in which state, and the pilots that work on them.

states:
{_STATES}
  left    went on as a job of its own, with a folder in jobs/: see status and show

--list STATE names the jobs in a state. --put-back makes new jobs, in todo, of those in error; their answers have the header
rerun_of, and the old answers stay as they are. A job is put back only once. While a pass or a watch is running, it is left to
that one.
"""
EXIT_CODES = {
    0: "shown, put back, or left to the pass that is running",
    65: "something can't be read, and is not counted",
    69: "the broker is away",
    73: "the jobs folder can't be used, or is not the one of earlier passes",
    75: "another pass took over the jobs folder meanwhile; look again",
}
EXAMPLES = """\
examples:
  ./check.py pilots
  ./check.py pilots --list error
  ./check.py pilots --put-back --dry-run
  ./check.py pilots --put-back --queue tiny-jobs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", default="", metavar="NAME", help="only this jobs queue")
    parser.add_argument(
        "--list", choices=BATCH_STATES, metavar="STATE", help=f"the jobs in this state: {', '.join(BATCH_STATES)}"
    )
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="list at most this many (default: %(default)s)"
    )
    parser.add_argument("--put-back", action="store_true", help="put jobs in error back to todo, as new jobs")
    parser.add_argument(
        "--dry-run", action="store_true", default=argparse.SUPPRESS, help="with --put-back: only say how many"
    )


@dataclass(frozen=True)
class PilotRow:
    pilot: str
    slurm_id: str
    state: str
    node: str
    since: float
    locked: int
    """Jobs in batches that it has taken."""


@dataclass
class QueueRow:
    queue: str
    todo: int = 0
    locked: int = 0
    ended: int = 0
    error: int = 0
    done: int = 0
    left: int = 0
    unfit: str = ""
    """Why pilots are not used for now."""
    pilots: list[PilotRow] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """What can't be read, and is not counted."""


@dataclass(frozen=True)
class JobRow:
    job: str
    queue: str
    batch: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Told:
    """What --json prints: of these what was asked for, otherwise null."""

    queues: Optional[list[QueueRow]] = None
    jobs: Optional[list[JobRow]] = None
    """With --list."""
    damaged: Optional[list[str]] = None
    """With --list: what can't be read, and is not listed."""
    put_back: Optional[dict[str, int]] = None
    """With --put-back: how many jobs, by queue."""
    dry_run: Optional[bool] = None
    """With --put-back: nothing was done."""
    asked_for: Optional[bool] = None
    """With --put-back: the pass that is running does it."""


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs = JobsFolder(config.site.jobs_dir)
    if options.queue and config.queue(options.queue) is None:
        return as_json.fail(f"there is no queue {options.queue} in the site file", os.EX_USAGE, options.json)
    pools = _pools(config, jobs, options.queue)
    if options.put_back:
        return _ask_to_put_back(config, jobs, pools, options)
    if options.list:
        return _list(pools, options.list, options.limit, options.json)
    queues = queue_rows(config, jobs, options.queue)
    code = os.EX_DATAERR if any(row.damaged for row in queues) else os.EX_OK
    if options.json:
        return as_json.show(Told(queues=queues), code)
    _show_queues(queues)
    return code


def _list(pools: list[tuple[str, Pool]], state: str, limit: int, in_json: bool) -> int:
    rows, damaged = list[JobRow](), list[str]()
    for name, pool in pools:
        with _noted(damaged):
            rows += _jobs_in(name, pool, state, damaged)
    code = os.EX_DATAERR if damaged else os.EX_OK
    if in_json:
        return as_json.show(Told(jobs=rows[:limit], damaged=damaged), code)
    _show_jobs(rows[:limit])
    for words in damaged:
        print(f"check.py: damaged, not listed: {screen.plain(words, 1000)}", file=sys.stderr)
    return code


# --- what there is


def queue_rows(config: Config, jobs: JobsFolder, only: str = "") -> list[QueueRow]:
    """Of the queues that have had jobs for pilots."""
    return [_queue_row(jobs, name, pool) for name, pool in _pools(config, jobs, only)]


def _pools(config: Config, jobs: JobsFolder, only: str) -> list[tuple[str, Pool]]:
    names = [each.name for each in config.site.queues if only in ("", each.name)]
    return [(name, pool) for name in names if os.path.lexists((pool := Pool(jobs, name)).path)]


def _queue_row(jobs: JobsFolder, queue: str, pool: Pool) -> QueueRow:
    row = QueueRow(queue)
    for count in (_count_open, _count_closed, _note_unfit):
        with _noted(row.damaged):
            count(row, pool)
    with _noted(row.damaged):
        for each in batches.crew(jobs):
            with _noted(row.damaged):
                row.pilots += _pilot_rows(each, queue, pool)
    return row


@contextlib.contextmanager
def _noted(damaged: list[str]) -> Iterator[None]:
    """What can't be read hides nothing else."""
    try:
        yield
    except (Damaged, OSError) as error:
        damaged.append(str(error))


def _count_open(row: QueueRow, pool: Pool) -> None:
    row.todo, row.locked, row.ended = (
        sum(batch.count for batch in pool.batches(place)) for place in (pool.todo, pool.locked, pool.ended)
    )


def _count_closed(row: QueueRow, pool: Pool) -> None:
    for day in closed.by_day(pool.path).values():
        row.done, row.error, row.left = row.done + day.succeeded, row.error + day.failed, row.left + day.left


def _note_unfit(row: QueueRow, pool: Pool) -> None:
    unfit = pool.unfit.read()
    row.unfit = unfit.why if unfit else ""


def _pilot_rows(folder: JobFolder, queue: str, pool: Pool) -> Iterator[PilotRow]:
    pilot, facts = batches.pilot_file(folder).read(), read_attempt(folder.attempt(1))
    if pilot is None or pilot.queue != queue:
        return
    locked = sum(batch.count for batch in pool.batches(pool.locked) if batch.pilot == folder.id)
    stage = stage_of_pilot(facts, lambda mark: _written_at(folder, mark))
    node = facts.started.node if facts.started else ""
    yield PilotRow(folder.id, facts.slurm_id or "", stage.word, node, stage.since, locked)


def _written_at(folder: JobFolder, mark: Mark) -> float:
    return (folder.attempt(1).started.path if mark == "started" else folder.path).stat().st_mtime


def _jobs_in(queue: str, pool: Pool, state: str, damaged: list[str]) -> Iterator[JobRow]:
    places: dict[str, Path] = {TODO: pool.todo, LOCKED: pool.locked, ENDED: pool.ended}
    over = state not in IN_OPEN_BATCHES
    for batch in pool.closed() if over else pool.batches(places[state]):
        if over and not batches.counts(batch)[state == ERROR]:
            continue
        try:
            progress, everything = read_progress(batch), batches.read_jobs(batch)
        except FileNotFoundError:
            continue  # it has just been moved
        except (Damaged, OSError) as error:
            damaged.append(str(error))
            continue
        for claimed in everything:
            came = progress.came.get(claimed.id)
            if claimed.id in progress.handed or (came is not None) != over:
                continue
            if stage_of(batch, claimed, progress).word == state:
                outcome, reason = (came.result.outcome, came.result.reason) if came else ("", "")
                yield JobRow(claimed.id, queue, batch.id, outcome, reason)


# --- putting back


def _ask_to_put_back(
    config: Config, jobs: JobsFolder, pools: list[tuple[str, Pool]], options: argparse.Namespace
) -> int:
    """Only one process at a time may do it. Where that is a pass, or a watch, it is told so by a file, and does it."""
    if options.dry_run:
        return _put_back_all(config, pools, True, options.json)
    code = guarded(config, lambda *_: _put_back_all(config, pools, False, options.json))
    if code != os.EX_TEMPFAIL:
        return code
    for _, pool in pools:
        pool.put_back_asked.write(Asked(asking.asker(), time.time()))
    jobs.ring(JobId("put-back"))  # a watch may sleep
    if options.json:
        return as_json.show(Told(asked_for=True), os.EX_OK)
    print("Asked for: the pass that is running, or the next one, puts them back.")
    return os.EX_OK


def obey(pool: Pool, site: str) -> None:
    """What was asked for while a pass was running. The asking is removed last: doing it twice changes nothing."""
    if os.path.lexists(pool.put_back_asked.path):
        count = sum(_put_back(pool, batch, site, False) for batch in pool.closed())
        log.info("put back to todo, as an operator asked pool=%s jobs=%d", pool.path.name, count)
        remove(pool.put_back_asked.path)


def _put_back_all(config: Config, pools: list[tuple[str, Pool]], dry_run: bool, in_json: bool) -> int:
    site, jobs = config.site_text, JobsFolder(config.site.jobs_dir)
    put_back = {queue: sum(_put_back(pool, batch, site, dry_run) for batch in pool.closed()) for queue, pool in pools}
    for queue, count in put_back.items():
        if count and not dry_run:
            asking.audit(jobs, "put-back", f"{count} of {queue}", asking.asker(), "put back to todo, as new jobs")
    if in_json:
        return as_json.show(Told(put_back=put_back, dry_run=dry_run), os.EX_OK)
    for queue, count in put_back.items():
        done = "would be" if dry_run else "was" if count == 1 else "were"
        print(f"{queue}: {screen.counted(count, 'job')} {done} put back to todo")
    return os.EX_OK


def _put_back(pool: Pool, batch: Batch, site: str, dry_run: bool) -> int:
    """The note comes last. Whoever is killed before it puts the same jobs back once more, under the same ids; a batch
    that is there already is left as it is."""
    note = batch.put_back
    if not batches.counts(batch)[1] or note.is_there():
        return 0
    progress, now = read_progress(batch), time.time()
    again = [
        _again(claimed, now)
        for claimed in batches.read_jobs(batch)
        if (came := progress.came.get(claimed.id)) and claimed.id not in progress.handed
        if came.result.outcome != "succeeded"
    ]
    if not dry_run:
        open_ids = pool.open_ids()
        fresh = [each for each in again if each.id not in open_ids]
        if fresh:
            batches.add(pool, fresh, now, site)
        note.write(Handed(tuple(each.id for each in again)))
    return len(again)


def _again(claimed: Claimed, now: float) -> Claimed:
    """A new job: its deadline and the time that it has waited begin anew."""
    new_id = JobId(hashlib.sha256(f"again:{claimed.id}".encode()).hexdigest()[:32])
    kept = {
        name: value for name, value in claimed.message.properties.items() if name not in ("timestamp", "expiration")
    }
    return replace(
        claimed, id=new_id, message=replace(claimed.message, properties=kept, claimed_at=now), rerun_of=claimed.id
    )


# --- showing


def _show_queues(rows: list[QueueRow]) -> None:
    if not rows:
        print('No queue has had jobs for pilots yet (mode = "pilot" in the site file).')
        return
    counted = screen.table("queue", *BATCH_STATES, "left", right=(*BATCH_STATES, "left"))
    for row in rows:
        numbers = (row.todo, row.locked, row.ended, row.error, row.done, row.left)
        counted.add_row(screen.plain(row.queue), *map(str, numbers))
    console = screen.console()
    console.print(counted)
    pilots = screen.table("pilot", "slurm", "state", "node", "since", "locked", right=("locked",))
    for each in (pilot for row in rows for pilot in row.pilots):
        pilots.add_row(each.pilot, each.slurm_id, each.state, each.node, screen.when(each.since), str(each.locked))
    console.print()
    console.print(pilots if pilots.row_count else "No pilot is running or waiting.")
    for words in dict.fromkeys(words for row in rows for words in row.damaged):
        console.print(f"\ndamaged, not counted: {screen.plain(words, 1000)}")
    for row in rows:
        if row.unfit:
            console.print(
                f"\n{screen.plain(row.queue)}: no pilots for now, jobs go one by one: {screen.plain(row.unfit)}"
            )


def _show_jobs(rows: list[JobRow]) -> None:
    ids = Ids.of(row.job for row in rows)
    cells = ((ids.short(row.job), row.queue, row.batch, row.outcome, row.reason) for row in rows)
    screen.show_table(("job", "queue", "batch", "outcome", "reason"), cells, whole=("job", "outcome"))
