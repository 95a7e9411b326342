"""What did earlier jobs come to? Asks Slurm once about everything open, writes down its answer, and lets the judge decide.

There is no other recovery code: what a pass does after a crash is what it does every time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Optional

from scheduler import JobView, Phase, SlurmJobId, TooWide, Unavailable, element_id, elements

from ..build import traits
from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_facts
from ..job import judge
from ..job.names import JobId
from ..job.snapshot import AttemptFacts, JobFacts
from ..settings import Config
from . import accounting, left_over, retention
from .budget import LOOK, Budget, Spent
from .lease import Lease
from .notices import Notices, Stop
from .pass_state import PassState
from .questions import Cancels, Questions
from .quiet import Quiet
from .settle import Settler

log = logging.getLogger(__name__)


class Reconciler:
    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, questions: Questions, budget: Budget, quiet: Quiet,
        cancels: Cancels, settler: Settler, notices: Notices, stop: Stop, state: PassState,
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._lease = config, jobs, lease
        self._questions, self._budget, self._quiet, self._cancels = questions, budget, quiet, cancels
        self._settler, self._notices, self._stop, self._state = settler, notices, stop, state

    def reconcile(self, others: Sequence[tuple[JobFolder, AttemptFacts]] = ()) -> None:
        """Brings every active job as far as it gets in this pass. Raises SiteAway for a disk that is full. `others`: open
        attempts of what is no job, which Slurm is asked about as well.
        """
        quiet, now, places = self._quiet, self._lease.server_now, self._state.places
        called = self._jobs.hear()
        active = self._read(quiet.wake(self._jobs.active_names(), called, now))
        seen = self._ask(active, len(others))
        if seen is not None:
            active += self._read(quiet.changed(lambda name, element: _under(name, element, seen), now))
            open_attempts = [*others, *((job, a) for job, facts in active for a in facts.attempts if a.open)]
            self._look(seen, open_attempts)
            self._remove_closed(seen, open_attempts)
        places.in_flight += len(quiet.rows)
        self._state.in_slurm.update(quiet.rows, (pilot.id for pilot, a in others if a.in_slurm))
        for job, facts in sorted(active, key=lambda pair: pair[1].message.claimed_at):
            places.in_flight += facts.in_flight
            if not self._stop.asked:
                self._settler.settle(job)
        self._cancels.send()
        retention.tidy(self._jobs, self._config.site, time.time())

    def _read(self, job_ids: Sequence[JobId]) -> list[tuple[JobFolder, JobFacts]]:
        """These active jobs, with their facts."""
        found = []
        for job in map(self._jobs.job, job_ids):
            with self._state.faults.left_alone_if_bad(job):
                facts = read_facts(job)
                if facts is None and left_over.restored(self._config, self._jobs, job, self._lease.server_now):
                    facts = read_facts(job)
                if facts is not None:
                    found.append((job, facts))
        return found

    def _ask(self, active: Sequence[tuple[JobFolder, JobFacts]], others: int) -> Optional[Seen]:
        """One squeue for all; None where nobody needs it, or it gave no answer."""
        count = sum(a.open and not a.surely_not_there for _, facts in active for a in facts.attempts)
        in_slurm, questions = count + len(self._quiet.rows) + others, self._questions
        if not in_slurm:
            return None
        if (self._notices.watching or not count) and questions.just_asked(self._lease.server_now):
            return None
        try:
            self._budget.begin("look", LOOK)
            views = questions.queue()
        except Spent:
            level = self._notices.each_pass
            log.log(level, "no slurm command is left, asked in the next pass jobs=%d", in_slurm)
            return None
        if questions.away:
            log.warning("slurm gives no answer, its jobs are left as they are why=%r", questions.away)
            return None
        return _indexed(views)

    def _look(self, seen: Seen, open_attempts: Sequence[tuple[JobFolder, AttemptFacts]]) -> None:
        """One sacct for those that squeue does not show as alive or ended; then the facts are written."""
        unclear = [a for _, a in open_attempts if not a.surely_not_there and _unclear(a, _of_attempt(a, seen))]
        missing = sorted({intent.name for a in unclear for intent in a.intents})
        self._quiet.note_shown([view.slurm_id for _, a in open_attempts for view in _alive(_of_attempt(a, seen))],
                               {a.slurm_id for a in unclear if a.slurm_id})  # fmt: skip
        clear = self._add_history(missing, unclear, seen) if missing else ()
        may_vanish = traits(self._config.site).elements_may_vanish
        names = {name for (name, _), views in seen.items() if views and may_vanish}
        for job, a in open_attempts:
            others = a.intent is not None and a.intent.name in names
            with self._state.faults.left_alone_if_bad(job):
                views, all_asked = (
                    _of_attempt(a, seen),
                    all(i.name in clear or i.name not in missing for i in a.intents),
                )
                self._write_observed(job, a, views, all_asked, others)
                self._cancels.add(judge.strays(a, views), only_waiting=True)

    def _remove_closed(self, seen: Seen, open_attempts: Sequence[tuple[JobFolder, AttemptFacts]]) -> None:
        """Until Slurm has them no more: a scancel may be lost, an sbatch come late, a restored controller bring them
        back."""
        for _, a in open_attempts:
            if a.closed:
                self._cancels.add(view.slurm_id for view in _alive(_of_attempt(a, seen)))

    def _add_history(self, missing: Sequence[str], unclear: Sequence[AttemptFacts], seen: Seen) -> Collection[str]:
        """The names of which all was shown; of the others nothing follows from not being seen."""
        since, questions = min(map(self._may_have_ended_at, unclear)), self._questions
        try:
            told, clear = accounting.ask(
                questions.scheduler, self._jobs.history, self._state.faults, missing, since, time.time()
            )
            for key, views in _indexed(told).items():
                known = seen.setdefault(key, {})
                for slurm_id, view in views.items():
                    if view.phase is Phase.ENDED:
                        known[slurm_id] = view
                    else:
                        known.setdefault(slurm_id, replace(view, remembered=True))
        except (Spent, TooWide):
            return ()
        except Unavailable as error:
            questions.accounting_away = str(error)
            log.warning("accounting gives no answer, ended jobs wait for it why=%r", str(error))
            return ()
        early = time.time() - self._config.site.timing.visible_after
        for views in seen.values():
            views.update({slurm_id: _patient(view, early) for slurm_id, view in views.items()})
        return clear

    def _may_have_ended_at(self, a: AttemptFacts) -> float:
        """A time before its end, the later the better, or when squeue showed it last, which is noted by the file server's
        clock: what has waited for days and was cancelled a moment ago is asked about as news."""
        server_now = self._lease.server_now
        shown = self._quiet.last_shown(a.slurm_id, server_now)
        return alive_at(a) if shown is None else max(alive_at(a), time.time() - (server_now - shown))

    def _write_observed(
        self, job: JobFolder, a: AttemptFacts, views: Sequence[JobView], clear: bool, others: bool
    ) -> None:
        attempt = job.attempt(a.number)
        observed = judge.observe(a, views, clear, self._config.site.timing, time.time(), others)
        for name, said in observed.items():
            fact = getattr(attempt, name)
            if said is None:
                fact.remove()
            else:
                fact.write(said)
        if any(view.phase is Phase.UNKNOWN for view in views):
            log.warning("unknown state, waiting job=%s state=%s", job.id, views[0].state)
        if attempt.ended.read() is not None:
            paths.remove(attempt.token)


def alive_at(a: AttemptFacts) -> float:
    """A time, the later the better, at which it had surely not ended: what waits for days and runs for an hour is asked about
    as one that ran for an hour."""
    return a.started.at if a.started is not None else min(intent.at for intent in a.intents)


def _unclear(a: AttemptFacts, views: Sequence[JobView]) -> bool:
    """Whether squeue does not tell enough. Of several copies of an attempt that began, the one that did is meant."""
    meant = [view for view in views if a.started is None or view.slurm_id == a.started.slurm_id]
    return all(view.more_in_history for view in meant)


def _alive(views: Sequence[JobView]) -> list[JobView]:
    alive = [view for view in views if view.phase in (Phase.WAITING, Phase.RUNNING) and view.end is None]
    return [view for view in alive if not view.remembered]


def _patient(view: JobView, since: float) -> JobView:
    """Accounting hears of an end some seconds after squeue shows it; until then the end has not come for us."""
    early = view.more_in_history and view.ended_at is not None and view.ended_at > since
    return replace(view, phase=Phase.RUNNING) if early else view


Seen = dict[tuple[str, Optional[int]], dict[SlurmJobId, JobView]]
"""By name and element (None for a job that is no array), then by the id of that element."""


def _indexed(views: Sequence[JobView]) -> Seen:
    seen: Seen = {}
    for view in views:
        array = SlurmJobId(view.slurm_id.partition("_")[0])
        for element in elements(view.slurm_id) or [None]:
            slurm_id = view.slurm_id if element is None else element_id(array, element)
            own = view if slurm_id == view.slurm_id else replace(view, slurm_id=slurm_id)
            seen.setdefault((view.name, element), {})[slurm_id] = own
    return seen


def _of_attempt(a: AttemptFacts, seen: Seen) -> list[JobView]:
    return [view for intent in a.intents for view in _under(intent.name, intent.element, seen)]


def _under(name: str, element: int, seen: Seen) -> list[JobView]:
    """What is no array runs as element 0 (job.sh). A pass that was killed before it had written the group may have left
    intents of several, of which one is submitted again alone, and others as an array under the same name."""
    keys = ((name, None), (name, element)) if element == 0 else ((name, element),)
    return [view for key in keys for view in seen.get(key, {}).values()]
