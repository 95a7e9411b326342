"""What did earlier jobs come to? Asks Slurm once about everything open, writes down its answer, and lets the judge decide.

There is no other recovery code: what a pass does after a crash is what it does every time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Optional, Union

from scheduler import JobView, Phase, SlurmJobId, TooWide, Unavailable, element_id, elements, is_element

from ..errors import Damaged, InvalidSpec, Transient, UnknownWorkload
from ..folder import answer, fence, frozen, paths
from ..folder.facts import JobFolder, read_result
from ..folder.pause import Pause
from ..folder.snapshot import read_attempt, read_facts
from ..job import judge
from ..job.facts import Message, Settlement
from ..job.names import JobId
from ..job.outcome import Result
from ..job.snapshot import AttemptFacts, JobFacts
from ..job.spec import JobSpec, Resources, parse_spec, with_resources
from ..settings import Config, Queue
from . import accounting, archive, lease, left_over, retention, tally
from .away import SiteAway, raise_if_disk
from .budget import LOOK, Spent
from .hold import hold, let_go
from .known import was_there
from .tools import Tools

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Jobs in one scancel: their ids are far from an argument list's limit."""


class Standing:
    """How things stand after reconciling: what is ready to be submitted, and how many jobs are in flight."""

    def __init__(self) -> None:
        self.ready: list[tuple[JobFolder, judge.Submit]] = []
        self.in_flight = 0
        self.shapes: list[Resources] = []
        """What the jobs and pilots ask for that are held because Slurm declines such jobs..."""
        self.declined: list[Resources] = []
        """...and of them the jobs."""
        self.full = ""
        """What Slurm said where it takes no more jobs because it has so many of ours."""
        self.unclear = 0
        """Jobs of which nobody knows yet whether Slurm has them."""
        self.left_alone = 0
        """Jobs that can't be worked on until somebody mends them."""
        self.to_cancel: dict[bool, list[SlurmJobId]] = {True: [], False: []}
        """By whether only those are meant that have not begun."""
        self.stopped: dict[str, str] = {}
        """Workloads of which nothing can be begun: why."""
        self.queue_faults: dict[str, str] = {}
        """Jobs queues that can't be read: why, and what to do."""
        self.paused: Optional[Pause] = None
        """Somebody wants no message to be taken, or also nothing to be submitted."""
        self.well = False
        """Whether nothing is away that more than one job, or one queue, needs."""
        self.held: dict[JobId, str] = {}
        """Claimed jobs that wait for something of their own, with their queues: not in flight, so that others go on."""

    @property
    def submits_nothing(self) -> bool:
        """Because somebody wants it so."""
        return self.paused is not None and self.paused.submit

    def hold(self, job_id: JobId, queue: str) -> None:
        """For a job that was counted as in flight; it takes no place while it waits."""
        if job_id not in self.held:
            self.held[job_id] = queue
            self.in_flight -= 1

    def hold_shape(self, job_id: JobId, queue: str, asked: Resources) -> None:
        """For a job that Slurm declines."""
        self.hold(job_id, queue)
        self.shapes.append(asked)
        self.declined.append(asked)

    def release(self, job_id: JobId) -> None:
        if self.held.pop(job_id, None) is not None:
            self.in_flight += 1

    def places(self, queue: str, most: int) -> int:
        """How many messages of this queue may be claimed: at most `most` jobs are in flight, and of no queue are more than
        that held."""
        held = sum(each == queue for each in self.held.values())
        return max(0, most - max(self.in_flight, held))


def reconcile(tools: Tools, standing: Standing, others: Sequence[tuple[JobFolder, AttemptFacts]] = ()) -> None:
    """Brings every active job as far as it gets in this pass. Raises SiteAway for a disk that is full. `others`: open
    attempts of what is no job, which Slurm is asked about as well.
    """
    quiet, now = tools.quiet, tools.server_now
    called = tools.jobs.hear()
    active = _read(tools, quiet.wake(tools.jobs.active_names(), called, now), standing)
    seen = _ask(tools, active, len(others))
    if seen is not None:
        active += _read(tools, quiet.changed(lambda name, element: _under(name, element, seen), now), standing)
        open_attempts = [*others, *((job, a) for job, facts in active for a in facts.attempts if a.open)]
        _look(tools, standing, seen, open_attempts)
        _remove_closed(seen, open_attempts, standing)
    standing.in_flight += len(quiet.rows)
    tools.there = set(quiet.rows) | {crew.id for crew, a in others if a.in_slurm}
    for job, facts in sorted(active, key=lambda pair: pair[1].message.claimed_at):
        standing.in_flight += facts.in_flight
        if not tools.stopping:
            settle(tools, job, standing)
    _cancel_all(tools, standing)
    retention.tidy(tools.jobs, tools.config.site, tools.now())


def settle(tools: Tools, job: JobFolder, standing: Standing, known: Optional[JobFacts] = None) -> None:
    """Takes one step after the other until the job has to wait. One bad job never stops the others. `known`: all its facts,
    where this pass has just made them."""
    standing.release(job.id)
    with left_alone_if_bad(job, standing):
        _settle(tools, job, standing, known)


def _settle(tools: Tools, job: JobFolder, standing: Standing, known: Optional[JobFacts]) -> None:
    look_anew = 0
    try:
        while True:
            facts, known = known or read_facts(job, look_anew), None
            if facts is None:
                return
            (tools.there.add if any(a.in_slurm for a in facts.attempts) else tools.there.discard)(job.id)
            step = judge.judge(facts, tools.config.site.timing, _max_wait(tools, facts), tools.now(), tools.server_now)
            look_anew = step.attempt if isinstance(step, judge.LookAnew) else 0
            if not look_anew and not _take_step(tools, job, facts, step, standing):
                return
    except Transient as error:
        if not tools.broker_away:
            log.warning("broker away, answers are kept why=%r", str(error))
        tools.broker_away = str(error)


@contextlib.contextmanager
def left_alone_if_bad(job: JobFolder, standing: Standing) -> Iterator[None]:
    """The outermost border of the work on one job."""
    try:
        yield
    except (lease.Lost, SiteAway):
        raise
    except Damaged as error:
        log.error("damaged, left alone; docs/symptoms.md says what to do job=%s what=%r", job.id, str(error))
        standing.left_alone += 1
    except OSError as error:
        raise_if_disk(error)
        log.error("left alone, its folder can't be used job=%s why=%r", job.id, str(error))
        standing.left_alone += 1
    except Exception:
        log.exception("unforeseen, left alone job=%s", job.id)
        standing.left_alone += 1


def _max_wait(tools: Tools, facts: JobFacts) -> float:
    queue = tools.config.queue(facts.message.queue)
    return queue.max_wait if queue else float("inf")


def _take_step(tools: Tools, job: JobFolder, facts: JobFacts, step: judge.Step, standing: Standing) -> bool:
    """Does what the judge says is next; False when nothing more can be done in this pass."""
    site = tools.config.site
    if isinstance(step, judge.Submit):
        why = tools.workloads.why_stopped(step.workload)
        if why and not frozen.suffices(tools.jobs, job, step.workload, site):
            return hold(tools, job, step.attempt, facts.message.queue, standing, why)
        if facts.held:
            let_go(job)
        standing.ready.append((job, step))
        return False
    if isinstance(step, judge.Wait):
        standing.unclear += step.unclear
        if step.held is not None:
            standing.hold_shape(job.id, facts.message.queue, step.held)
        tools.quiet.add(job.id, facts, _max_wait(tools, facts), tools.server_now)
        log.debug("waits job=%s %s", job.id, step.why)
        if facts.not_taken is not None and tools.is_new(job.id, facts.not_taken.times):
            log.warning("answer kept: make its queue, or list it in [replies] create job=%s why=%r times=%d",
                        job.id, facts.not_taken.why, facts.not_taken.times)  # fmt: skip
        return False
    if isinstance(step, judge.Settle):
        return settle_claims(tools, facts.message.queue, [(job, facts.message)])
    if isinstance(step, judge.LeaveToOthers):
        archive.leave_to_others(tools.jobs, job)
        standing.in_flight -= 1
        return False
    if isinstance(step, judge.Understand):
        return _understand(tools, job, facts, standing)
    if isinstance(step, judge.Record):
        return _record(job, step.result)
    elif isinstance(step, judge.GiveVerdict):
        job.attempt(step.result.attempt).verdict.write(step.result)
    elif isinstance(step, judge.Conclude):
        attempt = job.attempt(step.attempt)
        result = read_result(attempt)
        assert result is not None
        if result.to_upload:
            from . import uploads

            if not uploads.conclude(tools, job, attempt, result):
                return False
        else:
            answer.conclude(job, attempt, result, site.replies, "login", tools.now())
        standing.in_flight -= 1
    elif isinstance(step, judge.Deliver):
        return _deliver(tools, job)
    elif isinstance(step, judge.Close):
        _close(tools, job, step, standing)
    elif isinstance(step, judge.CloseProgram):
        begun = not fence.close_program(job.attempt(step.attempt), tools.now())
        log.info("ended without a result job=%s attempt=%d begun=%s", job.id, step.attempt, "yes" if begun else "no")
    elif isinstance(step, judge.AskToCancel):
        _cancel(job, step, standing)
        return False
    else:
        ended = tally.ended(job, facts, tools.now())
        archive.archive(tools.jobs, job, facts, site, tools.now())
        tools.ended.append(ended)
        return False
    return True


def settle_claims(tools: Tools, queue_name: str, claims: Sequence[tuple[JobFolder, Message]]) -> bool:
    """Asks their source whose these are, and notes what it says. False where its queue is no longer known. Raises
    Transient."""
    queue = tools.config.queue(queue_name)
    if queue is None:
        return False
    verdicts = tools.ends.source(queue).settle([(job.id, message) for job, message in claims])
    for (job, _), whose in zip(claims, verdicts):
        job.settled.claim(Settlement(whose.value, tools.now()))
        log.info("settled job=%s whose=%s", job.id, whose.value)
    return True


def _understand(tools: Tools, job: JobFolder, facts: JobFacts, standing: Standing) -> bool:
    message = facts.message
    queue = tools.config.queue(message.queue)
    if queue is None:
        log.error("left alone: its queue is no longer in the site file job=%s queue=%s", job.id, message.queue)
        standing.left_alone += 1
        return False
    body = message.body_bytes
    try:
        origin = job.origin.read()
        if origin is not None and origin.resources:
            body = with_resources(body, origin.resources, tools.config.site.limits)
        write_spec(tools.config, queue, job, message.properties.get("reply_to"), body)
    except UnknownWorkload as error:
        if was_there(tools.jobs, error.name):
            end = judge.end_of_unread(facts, queue.max_wait, tools.now(), tools.server_now)
            if end is not None:
                return _record(job, end)
            return hold(tools, job, 1, queue.name, standing, f"the workload {error.name} is no longer in site.toml")
        return _record(job, Result("rejected", attempt=1, reason=str(error), ended_at=tools.now()))
    except InvalidSpec as error:
        return _record(job, Result("rejected", attempt=1, reason=str(error), ended_at=tools.now()))
    return True


def _record(job: JobFolder, result: Result) -> bool:
    attempt = job.attempt(result.attempt)
    paths.make_folder(attempt.path)
    answer.record(attempt, result)
    return True


def write_spec(
    config: Config, queue: Queue, job: JobFolder, reply_to: Union[str, bytes, int, None], body: bytes
) -> JobSpec:
    """Raises InvalidSpec, and then there is none. Until the folder of an attempt is made, a power failure may take it: then
    the message is understood anew."""
    spec = understand(config, queue, reply_to, body)
    job.spec.write(spec, sync_name=False)
    return spec


def understand(config: Config, queue: Queue, reply_to: Union[str, bytes, int, None], body: bytes) -> JobSpec:
    """What a message asks for. Raises InvalidSpec, also where its answer may not go where it says."""
    site = config.site
    refusal = None if queue.source else answer.refused_reply_to(reply_to, site)
    if refusal:
        raise InvalidSpec(refusal)
    return parse_spec(body, queue, site.workloads, config.credentials.api_url, site.api.input_hosts, site.limits)


def _deliver(tools: Tools, job: JobFolder) -> bool:
    outcome = job.outcome.read()
    assert outcome is not None
    if tools.broker_away:
        return False
    tools.check_lease()
    answer.deliver(job, outcome, tools.ends.delivery, tools.config.site, tools.now)
    return job.delivered.is_there() or job.undeliverable.is_there()


def _close(tools: Tools, job: JobFolder, step: judge.Close, standing: Standing) -> None:
    """What is closed can be answered at once; that Slurm is asked to remove it only tidies up."""
    attempt = job.attempt(step.attempt)
    if fence.close(attempt, step.why, tools.now()):
        facts = read_attempt(attempt)
        why = facts.cancel.reason if facts.cancel else "it has ended"
        log.info("closed before it began job=%s attempt=%d slurm=%s why=%r", job.id, step.attempt, facts.slurm_id, why)
        if facts.submission is not None and facts.ended is None and facts.absent is None:
            standing.to_cancel[False].append(SlurmJobId(facts.submission.slurm_id))
    elif step.why is not None and step.why.outcome != "cancelled":
        log.info("it has begun, and goes on job=%s attempt=%d", job.id, step.attempt)
        attempt.cancel.remove()


def _remove_closed(seen: Seen, open_attempts: Sequence[tuple[JobFolder, AttemptFacts]], standing: Standing) -> None:
    """Until Slurm has them no more: a scancel may be lost, an sbatch come late, a restored controller bring them back."""
    for _, a in open_attempts:
        if a.closed:
            standing.to_cancel[False].extend(view.slurm_id for view in _alive(_of_attempt(a, seen)))


def _alive(views: Sequence[JobView]) -> list[JobView]:
    alive = [view for view in views if view.phase in (Phase.WAITING, Phase.RUNNING) and view.end is None]
    return [view for view in alive if not view.remembered]


def _cancel(job: JobFolder, step: judge.AskToCancel, standing: Standing) -> None:
    """The reason is on disk before Slurm is asked, so that the end is told truly whatever happens in between."""
    attempt = job.attempt(step.attempt)
    facts = read_attempt(attempt)
    if facts.cancel is None:
        attempt.cancel.write(step.cancel)
        log.info(
            "cancelling job=%s attempt=%d slurm=%s why=%r", job.id, step.attempt, facts.slurm_id, step.cancel.reason
        )
    if facts.submission is not None:
        standing.to_cancel[step.only_waiting].append(SlurmJobId(facts.submission.slurm_id))


def _cancel_all(tools: Tools, standing: Standing) -> None:
    """As few commands as it takes. What is not asked now is asked by the next pass, which finds the same reasons."""
    for only_waiting, ids in standing.to_cancel.items():
        while ids and not tools.slurm_away:
            some, ids[:] = ids[:_AT_ONCE], ids[_AT_ONCE:]
            try:
                tools.begin("cancel", len({is_element(each) for each in some}))
                tools.scheduler.cancel(some, only_waiting)
            except Spent:
                log.info("no slurm command is left, cancelled in the next pass jobs=%d", len(some) + len(ids))
                return
            except Unavailable as error:
                log.warning("cancel failed, asked again in the next pass jobs=%d why=%r", len(some), str(error))
                tools.slurm_away = str(error)


# --- reading what there is, and asking Slurm about it


def _read(tools: Tools, job_ids: Sequence[JobId], standing: Standing) -> list[tuple[JobFolder, JobFacts]]:
    """These active jobs, with their facts."""
    found = []
    for job in map(tools.jobs.job, job_ids):
        with left_alone_if_bad(job, standing):
            facts = read_facts(job)
            if facts is None and left_over.restored(tools, job):
                facts = read_facts(job)
            if facts is not None:
                found.append((job, facts))
    return found


def _ask(tools: Tools, active: Sequence[tuple[JobFolder, JobFacts]], others: int) -> Optional[Seen]:
    """One squeue for all; None where nobody needs it, or it gave no answer."""
    count = sum(a.open and not a.surely_not_there for _, facts in active for a in facts.attempts)
    in_slurm = count + len(tools.quiet.rows) + others
    if not in_slurm or ((tools.watching or not count) and tools.asked_just_now):
        return None
    try:
        tools.begin("look", LOOK)
        views = tools.ask_queue()
    except Spent:
        log.log(tools.each_pass, "no slurm command is left, asked in the next pass jobs=%d", in_slurm)
        return None
    if tools.slurm_away:
        log.warning("slurm gives no answer, its jobs are left as they are why=%r", tools.slurm_away)
        return None
    return _indexed(views)


def _look(
    tools: Tools, standing: Standing, seen: Seen, open_attempts: Sequence[tuple[JobFolder, AttemptFacts]]
) -> None:
    """One sacct for those that squeue does not show as alive or ended; then the facts are written."""
    unclear = [a for _, a in open_attempts if not a.surely_not_there and _unclear(a, _of_attempt(a, seen))]
    missing = sorted({intent.name for a in unclear for intent in a.intents})
    tools.quiet.note_shown([view.slurm_id for _, a in open_attempts for view in _alive(_of_attempt(a, seen))],
                           {a.slurm_id for a in unclear if a.slurm_id})  # fmt: skip
    clear = _add_history(tools, missing, unclear, seen) if missing else ()
    names = {name for (name, _), views in seen.items() if views and tools.traits.elements_may_vanish}
    for job, a in open_attempts:
        others = a.intent is not None and a.intent.name in names
        with left_alone_if_bad(job, standing):
            views, all_asked = _of_attempt(a, seen), all(i.name in clear or i.name not in missing for i in a.intents)
            _write_observed(job, a, views, all_asked, others, tools)
            standing.to_cancel[True] += judge.strays(a, views)


def _unclear(a: AttemptFacts, views: Sequence[JobView]) -> bool:
    """Whether squeue does not tell enough. Of several copies of an attempt that began, the one that did is meant."""
    meant = [view for view in views if a.started is None or view.slurm_id == a.started.slurm_id]
    return all(view.more_in_history for view in meant)


def _add_history(tools: Tools, missing: Sequence[str], unclear: Sequence[AttemptFacts], seen: Seen) -> Collection[str]:
    """The names of which all was shown; of the others nothing follows from not being seen."""
    since = min(_may_have_ended_at(tools, a) for a in unclear)
    try:
        told, clear = accounting.ask(tools, missing, since)
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
        tools.accounting_away = str(error)
        log.warning("accounting gives no answer, ended jobs wait for it why=%r", str(error))
        return ()
    early = tools.now() - tools.config.site.timing.visible_after
    for views in seen.values():
        views.update({slurm_id: _patient(view, early) for slurm_id, view in views.items()})
    return clear


def alive_at(a: AttemptFacts) -> float:
    """A time, the later the better, at which it had surely not ended: what waits for days and runs for an hour is asked about
    as one that ran for an hour."""
    return a.started.at if a.started is not None else min(intent.at for intent in a.intents)


def _may_have_ended_at(tools: Tools, a: AttemptFacts) -> float:
    """The same, or when squeue showed it last, which is noted by the file server's clock: what has waited for days and was
    cancelled a moment ago is asked about as news."""
    shown = tools.quiet.last_shown(a.slurm_id, tools.server_now)
    return alive_at(a) if shown is None else max(alive_at(a), tools.now() - (tools.server_now - shown))


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


def _write_observed(
    job: JobFolder, a: AttemptFacts, views: Sequence[JobView], clear: bool, others: bool, tools: Tools
) -> None:
    attempt = job.attempt(a.number)
    for name, said in judge.observe(a, views, clear, tools.config.site.timing, tools.now(), others).items():
        fact = getattr(attempt, name)
        if said is None:
            fact.remove()
        else:
            fact.write(said)
    if any(view.phase is Phase.UNKNOWN for view in views):
        log.warning("unknown state, waiting job=%s state=%s", job.id, views[0].state)
    if attempt.ended.read() is not None:
        paths.remove(attempt.token)
