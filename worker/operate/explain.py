"""`check.py explain JOB`: why a job is where it is, and what happens next, in sentences.

What happens next is not guessed: it is what the judge, which every pass obeys, says of the job's facts now.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Optional

from scheduler import JobView, Outlook, SlurmJobId, Unavailable
from slurm import states

from .. import as_json
from ..errors import Damaged
from ..folder import frozen, pause
from ..folder.facts import JobFolder, read_progress, read_result, site_fault_of
from ..folder.jobs import JobsFolder
from ..folder.snapshot import read_facts
from ..installed import why_stopped
from ..job import judge
from ..job.facts import Outcome, SiteFault
from ..job.snapshot import AttemptFacts, JobFacts
from ..job.spec import Resources, deadline_of
from ..login import shapes
from ..login.known_shapes import Shapes
from ..settings import Config
from . import in_batches, naming, outside, screen
from .in_batches import InBatch
from .naming import NotOne
from .places import Found
from .timeline import resources

SUMMARY = "why a job is where it is, and what happens next"
HELP = """\
Says in sentences where a job stands, what it waits for, and what the next pass will do with it. Asks Slurm why a job
waits, what its partition has, and when it may start (three commands at most); changes nothing.
"""
EXIT_CODES = {0: "the job is explained", 65: "no single job has this name"}
EXAMPLES = """\
examples:
  ./check.py explain 4f0c            the job whose id begins so
  ./check.py explain 4f0c --offline  from its files alone
"""
_SILENT_AFTER = 600.0
"""Seconds since the last pass after which somebody should look: cron fires every minute."""

_REASONS = {
    "Resources": "no node has enough of what it asks for free",
    "Priority": "jobs of higher priority are before it",
    "None": "Slurm has not looked at it yet",
    "Dependency": "another submission of the same job has to end first",
    "JobArrayTaskLimit": "as many elements of its array run as may run at a time (slurm.array_limit)",
    "BeginTime": "its time to begin has not come",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "Reservation": "it waits for its reservation",
    "Licenses": "it waits for a licence",
    "QOSMaxJobsPerUserLimit": "you have as many running jobs as your quality of service allows",
    "AssocMaxJobsLimit": "the account has as many running jobs as it may have",
}
"""squeue(1), "JOB REASON CODES"; those that never pass are in slurm/states.py."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    naming.add_job(parser)
    parser.add_argument("--offline", action="store_true", help="do not ask Slurm")


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    jobs = JobsFolder(config.site.jobs_dir)
    found = naming.one(config, jobs, options.job)
    if isinstance(found, NotOne):
        return found.tell(options.json)
    if isinstance(found, InBatch):
        told = Explained(found.claimed.id, found.state, list(in_batches.explain(jobs, found)))
    else:
        told = Explained(found.job.id, found.word, list(explain(config, jobs, found, options.offline)))
    if options.json:
        return as_json.show(told, os.EX_OK)
    print(f"{told.job}  {told.state}")
    for sentence in told.sentences:
        screen.say(screen.plain(sentence, 1000))
    return os.EX_OK


@dataclass(frozen=True)
class Explained:
    """What --json prints."""

    job: str
    state: str
    sentences: list[str]


def explain(config: Config, jobs: JobsFolder, found: Found, offline: bool) -> Iterator[str]:
    """The sentences, in the order in which a reader asks."""
    if found.job.path.parent != jobs.active:
        yield from _of_the_past(found)
        return
    try:
        facts = read_facts(found.job)
    except (Damaged, OSError) as error:
        yield f"Its folder {found.job.path} can't be read: {error}."
        yield "It is left alone, and the others go on. Repair the file, or restore it from a backup; then a pass goes on."
        return
    if facts is None:
        yield "Its message is not on disk yet: it is being claimed at this moment, or a redelivery will complete it."
        return
    scene = _Scene(config, jobs, found.job, facts, None if offline else outside.ask(config, jobs, broker=False))
    try:
        yield from _where(scene)
        yield from _next(scene)
    except (Damaged, OSError) as error:
        yield f"More is not known, because this can't be read: {error}."
    yield from _about_passes(scene)


@dataclass(frozen=True)
class _Scene:
    config: Config
    jobs: JobsFolder
    job: JobFolder
    facts: JobFacts
    outside: Optional[outside.Outside]

    @property
    def now(self) -> float:
        return time.time()

    @property
    def last(self) -> Optional[AttemptFacts]:
        return self.facts.attempts[-1] if self.facts.attempts else None

    @property
    def max_wait(self) -> float:
        queue = self.config.queue(self.facts.message.queue)
        return queue.max_wait if queue else float("inf")

    @property
    def view(self) -> Optional[JobView]:
        return self.outside.view(self.last.intent) if self.outside and self.last else None


def _ago(scene: _Scene, at: float) -> str:
    return f"{screen.lasted(scene.now - at)} ago"


# --- where it is


def _where(scene: _Scene) -> Iterator[str]:
    facts, a = scene.facts, scene.last
    yield f"Claimed {_ago(scene, facts.claimed_at)} from the queue {facts.message.queue}; it is on disk and safe."
    if facts.outcome is not None:
        yield from _after_outcome(scene, facts.outcome)
    elif a is None or a.intent is None:
        yield "Slurm does not have it yet."
    elif a.what_counts is not None:
        reason = a.what_counts.reason
        yield f"Attempt {a.number} came to {a.what_counts.outcome}{f': {reason}' if reason else '.'}"
    elif a.ended is not None:
        yield f"Slurm says that attempt {a.number} ended ({a.ended.state}) {_ago(scene, a.ended.at)}, without a result."
    elif a.started is not None:
        yield from _running(scene, a)
    elif a.closed:
        yield f"Attempt {a.number} was withdrawn before it began; the next pass writes down what it came to."
    elif a.submission is None and a.declined is not None:
        yield f"Slurm declined it {_ago(scene, a.declined.at)}: {a.declined.words}."
    elif a.submission is None:
        yield f"sbatch was called {_ago(scene, a.intent.at)} and gave no clear answer, so Slurm may or may not have it."
    else:
        yield from _pending(scene, a)


def _running(scene: _Scene, a: AttemptFacts) -> Iterator[str]:
    assert a.started is not None and a.intent is not None
    limit = a.intent.resources.minutes * 60
    stopped_at = a.started.at + limit - scene.config.site.timing.margin(limit)
    yield (
        f"Attempt {a.number} has been running on {a.started.node} since {screen.when(a.started.at)} (Slurm's id "
        f"{a.slurm_id}), with {resources(a.intent.resources)}. It is stopped at {screen.when(stopped_at)} at the latest."
    )
    progress = read_progress(scene.job.attempt(a.number))
    if progress is not None:
        yield f"It says that it is {progress.fraction:.0%} done{f' ({progress.words})' if progress.words else ''}."
    if a.cancel is not None:
        yield f"Slurm was asked {_ago(scene, a.cancel.at)} to cancel it: {a.cancel.reason}"
    if a.absent is not None:
        yield f"Slurm has not shown it since {screen.when(a.absent.since)}."


def _pending(scene: _Scene, a: AttemptFacts) -> Iterator[str]:
    assert a.submission is not None and a.intent is not None
    yield from _slurm_away(scene)
    view, since = scene.view, screen.when(a.submission.at)
    if a.absent is not None:
        yield f"Submitted at {since} (Slurm's id {a.slurm_id}), and not shown by Slurm since {screen.when(a.absent.since)}."
    elif view is None:
        yield f"Submitted at {since} (Slurm's id {a.slurm_id}); it waits there."
    else:
        outlook = _outlook(scene, view)
        reason = outlook.reason if outlook else view.reason
        yield f"Waiting in Slurm since {since} (id {a.slurm_id}): {reason or view.state}{_reason_words(reason)}."
        yield from _room(a.intent.resources, outlook)
    if a.stuck is not None:
        end = a.stuck.since + scene.config.site.timing.hopeless_after
        yield (
            "This will not clear up on its own. "
            f"If it is still so at {screen.when(end)}, the job is cancelled and answered rejected."
        )
    if a.cancel is not None:
        yield f"Slurm was asked {_ago(scene, a.cancel.at)} to cancel it: {a.cancel.reason}"
    elif a.number == 1:
        yield from _must_start_by(scene)


def _slurm_away(scene: _Scene) -> Iterator[str]:
    if scene.outside is not None and scene.outside.slurm_away:
        yield f"Slurm gives no answer now: {scene.outside.slurm_away}."


def _reason_words(reason: str) -> str:
    words = states.hopeless(reason) or states.passing(reason) or _REASONS.get(reason)
    return f", {words}" if words else ""


def _outlook(scene: _Scene, view: JobView) -> Optional[Outlook]:
    from ..login.budget import Spent, scheduler_for_people

    try:
        return scheduler_for_people(scene.config.site, scene.jobs, 2).outlook(SlurmJobId(view.slurm_id))
    except (Unavailable, Spent):
        return None


def _room(asked: Resources, outlook: Optional[Outlook]) -> Iterator[str]:
    """What it asks for against what its partition has."""
    if outlook is None:
        yield f"It asks for {resources(asked)}."
        return
    kind, _, number = (asked.gres or "").rpartition(":")
    rows = [row for row in outlook.stock if row.what == "CPUs" or (kind and row.what.startswith(kind))]
    has = "; ".join(f"{row.total} {row.what}, {'all' if row.used >= row.total else row.used} in use" for row in rows)
    where = f"; the partition {outlook.partition} has {has}" if has else ""
    yield f"It asks for {resources(asked)}{where}."
    if outlook.start_at is not None:
        yield f"Slurm's estimate of its start: {screen.when(outlook.start_at)}."


def _must_start_by(scene: _Scene) -> Iterator[str]:
    facts = scene.facts
    deadline = deadline_of(facts.message.properties, facts.claimed_at)
    ends = [
        (facts.claimed_at + scene.max_wait, "max_wait"),
        *([(deadline, "its deadline")] if deadline is not None else []),
    ]
    at, why = min(ends)
    if at != float("inf"):
        yield f"If it has not started at {screen.when(at)} ({why}), it is answered expired."


def _after_outcome(scene: _Scene, outcome: Outcome) -> Iterator[str]:
    why = outcome.why(read_result(scene.job.attempt(outcome.attempt)))
    yield f"It came to {outcome.outcome} {_ago(scene, outcome.at)}{f': {why}' if why else '.'}"
    kept = scene.facts.not_taken
    if scene.facts.delivered:
        yield "Its requester has the answer."
    elif scene.facts.undeliverable:
        yield "Its answer was given up."
    elif kept is not None:
        end = kept.since + scene.config.site.replies.give_up_after
        yield (
            f"No queue has taken its answer since {screen.when(kept.since)}: {kept.why}. "
            f"Tried {screen.counted(kept.times, 'time')}, again at {screen.when(kept.again_at)}, given up at "
            f"{screen.when(end)}."
        )
        yield f"Make the queue, or list it in [replies] create; then `./check.py resend {scene.job.id}` sends it at once."


def _of_the_past(found: Found) -> Iterator[str]:
    job = found.job
    try:
        outcome, delivered = job.outcome.read(), job.delivered.read()
        gone = job.undeliverable.read()
        result = read_result(job.attempt(outcome.attempt)) if outcome else None
    except (Damaged, OSError) as error:
        yield f"It is over, but its folder {job.path} can't be read: {error}."
        return
    if outcome is not None:
        why = outcome.why(result)
        yield f"It came to {outcome.outcome} at {screen.when(outcome.at)}{f': {why}' if why else '.'}"
    if delivered is not None:
        yield f"Its answer was delivered at {screen.when(delivered.at)}{f' to {delivered.to}' if delivered.to else ''}."
    if gone is not None:
        yield f"Its answer was given up at {screen.when(gone.at)}: {gone.why}."
        yield f"Mend the cause; then ./check.py resend {job.id}."
    yield f"It is in {job.path}; nothing more will happen to it on its own."


# --- what happens next


def _is_uploading(facts: JobFacts, number: int) -> bool:
    return any(a.number == number and a.what_counts is not None and a.what_counts.to_upload for a in facts.attempts)


def _next(scene: _Scene) -> Iterator[str]:
    facts, timing = scene.facts, scene.config.site.timing
    if scene.config.queue(facts.message.queue) is None:
        yield f"Its queue {facts.message.queue} is no longer in the site file: put it back, or the job stays as it is."
    step = judge.judge(facts, timing, scene.max_wait, scene.now, scene.now)
    if isinstance(step, judge.LookAnew):  # a pass does; here it is supposed to show no more than can be seen now
        facts = replace(facts, looked_anew=step.attempt)
        step = judge.judge(facts, timing, scene.max_wait, scene.now, scene.now)
    if isinstance(step, judge.Wait):
        yield f"It waits {step.why}."
    elif isinstance(step, judge.Submit):
        yield from _will_submit(scene, step)
    elif isinstance(step, judge.Understand) and (held := list(_held(scene))):
        yield from held
    elif isinstance(step, judge.Understand) and (stopped := list(_paused(scene))):
        yield from stopped
        yield from _must_start_by(scene)
    elif isinstance(step, judge.Understand):
        yield "The next pass reads its message and submits it."
        yield from _site_fault(scene)
    elif isinstance(step, (judge.Record, judge.GiveVerdict)):
        yield f"The next pass notes that it came to {step.result.outcome}: {step.result.reason or 'as its worker said.'}"
    elif isinstance(step, judge.Conclude) and _is_uploading(facts, step.attempt):
        yield "Its program has succeeded. The next passes go on with the upload of its outputs, until all have arrived."
    elif isinstance(step, judge.Conclude):
        yield "The next pass makes this the job's outcome and sends the answer."
    elif isinstance(step, judge.Deliver):
        yield "The next pass sends the answer."
    elif isinstance(step, judge.Close):
        yield f"The next pass withdraws it: {step.why.reason if step.why else 'Slurm says that it ended before it began.'}"
    elif isinstance(step, judge.CloseProgram):
        yield "The next pass sees to it that its program can't begin any more, and notes whether it had."
    elif isinstance(step, judge.AskToCancel):
        yield f"The next pass asks Slurm to cancel it: {step.cancel.reason}"
    else:
        yield "The next pass puts it away."


def _held(scene: _Scene) -> Iterator[str]:
    """Nothing, unless its workload can't be begun."""
    site, spec = scene.config.site, scene.facts.spec
    held = scene.job.held.read()
    why = why_stopped(scene.config.root, site, spec.workload) if spec else held.why if held else ""
    if not why or (spec and frozen.suffices(scene.jobs, scene.job, spec.workload, site)):
        return
    since = held.since if held else scene.now
    yield f"It has been held since {screen.when(since)}, because its workload can't be begun: {why}. Other workloads go on."
    end = screen.when(since + site.timing.patience)
    yield f"Once that is put right, the next pass submits it. If it is not by {end}, the job is answered failed."


def _will_submit(scene: _Scene, step: judge.Submit) -> Iterator[str]:
    held = list(_held(scene))
    if held:
        yield from held
        return
    fault, declined, paused = _fault(scene), _declined(scene, step), list(_paused(scene))
    yield from (*declined, *paused)
    if fault is None and not declined and not paused:
        yield f"The next pass submits it as attempt {step.attempt}, with {resources(step.resources)}."
    yield from _site_fault(scene)
    if step.attempt == 1:
        yield from _must_start_by(scene)


def _paused(scene: _Scene) -> Iterator[str]:
    """Nothing, unless it waits because somebody has paused what is submitted."""
    paused = pause.seen(scene.jobs)
    if paused is not None and paused.submit:
        yield f"It waits, because this installation is paused: {paused.sentence}."
        yield "Its deadline and max_wait go on meanwhile. Once `./check.py resume` has ended this, the next pass submits it."


def _declined(scene: _Scene, step: judge.Submit) -> list[str]:
    """What is known of jobs like it that Slurm declines."""
    if step.declined is not None and step.declined.final:
        return ["The next pass answers it as rejected."]
    shape, timing = Shapes(scene.jobs, scene.config.site.slurm).of(step.resources), scene.config.site.timing
    if shape is None or shapes.forgotten(shape, timing, scene.now):
        return []
    said = [f"{shapes.sentence(shape, scene.now)}."]
    if shape.since and not shape.full:
        end = screen.when(shape.since + timing.patience)
        outcome = "failed" if shape.objection else "rejected, with Slurm's words"
        said.append(f"One is tried for all of them. If that is still so at {end}, they are answered {outcome}.")
    return said


def _site_fault(scene: _Scene) -> Iterator[str]:
    fault, timing = _fault(scene), scene.config.site.timing
    if fault is None:
        return
    patience = timing.login_patience if fault.kind == "login" else timing.patience
    end = max(fault.since, scene.facts.message.claimed_at) + patience
    yield f"The site has been away since {screen.when(fault.since)} ({fault.kind}): {fault.words}."
    yield (
        "While that lasts, claimed jobs wait and no message is taken; the first pass after it submits this job. "
        f"If it is still away at {screen.when(end)}, the job is answered failed."
    )


def _fault(scene: _Scene) -> Optional[SiteFault]:
    try:
        return site_fault_of(scene.jobs).read()
    except Damaged:
        return None


def _about_passes(scene: _Scene) -> Iterator[str]:
    """Nothing happens without passes."""
    try:
        silent = scene.now - scene.jobs.lease.stat().st_mtime
    except OSError:
        yield "No pass has run yet: is run_check in the crontab?"
        return
    if silent > _SILENT_AFTER:
        yield f"The last sign of life of a pass was {screen.lasted(silent)} ago: is run_check still in the crontab?"
