"""Which jobs need no look: only Slurm or their worker can change them, and neither shows that it has.

A cache and no fact. Whatever this file says, or if it is gone, the same things happen to the same jobs; a wrong row only
makes a look come later, by `LOOK_AGAIN` at the most. All times are the file server's, for passes on several login nodes.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from scheduler import JobView, Phase

from ..errors import Damaged
from ..folder.paths import contents, write_note
from ..job.names import JobId
from ..job.snapshot import AttemptFacts, JobFacts
from ..job.spec import deadline_of

LOOK_AGAIN = 600.0
"""Seconds after which a job is looked at though nothing shows that it changed: a fifth sooner or later, so that jobs
that came together are not all looked at together."""
_SPREAD = 0.2
_VERSION = 1
_CALMS_DOWN = 4.0
"""Slurm is asked this many times in as long as nothing has changed."""

Views = Callable[[str, int], Sequence[JobView]]
"""What Slurm shows under a name, of one element."""


@dataclass(frozen=True)
class Row:
    """A quiet job: under which name Slurm has it, what it showed last, and when the job has to be looked at again."""

    name: str
    element: int
    slurm_id: str
    state: str
    again_at: float

    def still(self, views: Sequence[JobView]) -> bool:
        return len(views) == 1 and self.slurm_id == views[0].slurm_id and self.state == _ordinary(views[0])


class Quiet:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: dict[JobId, Row] = {}
        self.asked_at = 0.0
        """When Slurm answered last, and when something changed last."""
        self.changed_at = 0.0
        self._shown: dict[str, float] = {}
        """By Slurm id, of jobs without a row: when Slurm showed them last, and not at an end."""
        self._views: Views = lambda name, element: ()
        self._as_saved = self._content()
        self._load()

    # --- what has to be looked at

    def wake(self, active: Collection[str], called: frozenset[str], now: float) -> list[JobId]:
        """Of the active jobs those that are not quiet, whose bell rang, or whose time has come."""
        names, latest = set(active), now + LOOK_AGAIN * (1 + _SPREAD)
        woken = [
            job_id
            for job_id, row in self.rows.items()
            if job_id not in names or job_id in called or not now < row.again_at <= latest
        ]
        self._wake(woken)
        if called:
            self.changed_at = now
        return [JobId(name) for name in active if name not in self.rows]

    def changed(self, views: Views, now: float) -> list[JobId]:
        """Those of which Slurm shows something else than before: they are quiet no more."""
        woken = [job_id for job_id, row in self.rows.items() if not row.still(views(row.name, row.element))]
        self._wake(woken)
        self._views, self.asked_at = views, now
        if woken:
            self.changed_at = now
        return woken

    def _wake(self, job_ids: Sequence[JobId]) -> None:
        self._shown.update({self.rows.pop(job_id).slurm_id: self.asked_at for job_id in job_ids})

    def last_shown(self, slurm_id: Optional[str], now: float) -> Optional[float]:
        """When Slurm showed it last, and not at its end. A hint: None where nobody knows."""
        at = self._shown.get(slurm_id or "")
        return None if at is None or at > now else at

    def note_shown(self, alive: Collection[str], missing: Collection[str]) -> None:
        """What Slurm shows now, of the jobs without a row; of others than these nobody will ask."""
        kept = {slurm_id: at for slurm_id, at in self._shown.items() if slurm_id in missing}
        self._shown = {**kept, **dict.fromkeys(alive, self.asked_at)}

    def add(self, job_id: JobId, facts: JobFacts, max_wait: float, now: float) -> None:
        """Adds the job, if it is quiet: it waits for Slurm alone, and Slurm has just shown it."""
        a = facts.attempts[-1] if facts.attempts else None
        if a is None or a.intent is None or not _waits_for_slurm(facts, a):
            return
        views = self._views(a.intent.name, a.intent.element)
        state = _ordinary(views[0]) if len(views) == 1 and views[0].slurm_id == a.slurm_id else ""
        if state and (a.started is None or views[0].phase is Phase.RUNNING):
            again_at = min(now + LOOK_AGAIN * _spread(job_id), _latest_start(facts, a, max_wait))
            self.rows[job_id] = Row(a.intent.name, a.intent.element, views[0].slurm_id, state, again_at)
            self._shown.pop(views[0].slurm_id, None)

    def pause(self, fastest: float, slowest: float) -> float:
        """Seconds between two questions to Slurm: the longer nothing has changed, the more."""
        return min(slowest, max(fastest, (self.asked_at - self.changed_at) / _CALMS_DOWN))

    # --- the file

    def save(self) -> None:
        """Not synced: losing it is harmless."""
        content = self._content()
        if content != self._as_saved:
            with contextlib.suppress(OSError):
                write_note(self._file, content)
                self._as_saved = content

    def _content(self) -> str:
        rows = {j: (r.name, r.element, r.slurm_id, r.state, r.again_at) for j, r in self.rows.items()}
        times = {"asked_at": self.asked_at, "changed_at": self.changed_at, "shown": self._shown}
        return json.dumps({"version": _VERSION, **times, "jobs": rows})

    def _load(self) -> None:
        """Nothing of a file that is damaged, or that another version wrote."""
        with contextlib.suppress(Damaged, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
                                 OverflowError):  # fmt: skip
            content = (contents(self._file) or b"").decode()
            kept = json.loads(content)
            if kept["version"] != _VERSION:
                return
            rows = {JobId(job_id): _row(*values) for job_id, values in kept["jobs"].items()}
            self.asked_at, self.changed_at = float(kept["asked_at"]), float(kept["changed_at"])
            self._shown = {str(slurm_id): float(at) for slurm_id, at in kept.get("shown", {}).items()}
            self.rows, self._as_saved = rows, content


def _row(name: str, element: int, slurm_id: str, state: str, again_at: float) -> Row:
    return Row(str(name), int(element), str(slurm_id), str(state), float(again_at))


def _ordinary(view: JobView) -> str:
    """Slurm's word for a job that runs, or that waits for its turn (for which there are many reasons, and they change all
    the time); empty for any other."""
    may_start = view.phase is Phase.WAITING and not view.hopeless
    return view.state if may_start or view.phase is Phase.RUNNING else ""


def _waits_for_slurm(facts: JobFacts, a: AttemptFacts) -> bool:
    """Nothing is left to do, to find out or to wait for but what Slurm does with the last attempt."""
    asked = facts.cancel_asked or facts.retry_asked
    settled = not (facts.outcome or asked) and facts.spec is not None and not any(b.open for b in facts.attempts[:-1])
    said = (a.result, a.verdict, a.ended, a.absent, a.stuck, a.cancel)
    alone = not a.earlier or a.started is not None  # else a copy may turn up and begin under a name that was declined
    return settled and a.submission is not None and alone and all(fact is None for fact in said)


def _latest_start(facts: JobFacts, a: AttemptFacts, max_wait: float) -> float:
    if a.started is not None:
        return float("inf")
    if a.number > 1 and a.intents:  # the job has met its deadline; but another try may wait for as long as the first
        return a.intents[0].at + max_wait
    deadline = deadline_of(facts.message.properties, facts.claimed_at)
    return min(facts.claimed_at + max_wait, float("inf") if deadline is None else deadline)


def _spread(job_id: JobId) -> float:
    """From 0.8 to 1.2; the same for a job each time."""
    return 1 - _SPREAD + 2 * _SPREAD * (zlib.crc32(job_id.encode()) % 1000) / 1000
