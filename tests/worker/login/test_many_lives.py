"""Jobs live through invented bad days: whatever happens, each gets one answer, sent once, and the answer is true."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import pytest

from scheduler import JobView
from tests.worker.examples import NOW, SPEC, TIMING
from tests.worker.login.situations import message, seen
from worker.job.facts import Intent, Outcome, Started, Submission
from worker.job.judge import (
    Archive,
    AskToCancel,
    Close,
    Conclude,
    Deliver,
    GiveVerdict,
    LookAnew,
    Record,
    Submit,
    Understand,
    Wait,
    judge,
    observe,
)
from worker.job.outcome import Result
from worker.job.retry import is_final
from worker.job.snapshot import AttemptFacts, JobFacts
from worker.settings import RetryPolicy

TICK = 30.0
POLICY = RetryPolicy(attempts=2, on=("node_failed", "preempted", "fetch"), wait=60)
REPEATED = replace(SPEC, retry=POLICY)
MAX_WAIT = 4 * 3600.0
BAD_ENDS = ("FAILED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "CANCELLED")
FATES = ("answers", "fails", "fetch fails", "unsure", "told to stop", "dies", "dies with a result", "dies with an outcome",
         "broker away", "cut off", "stuck", "waits")  # fmt: skip


@dataclass
class SlurmJob:
    """One job in Slurm and what will become of it."""

    slurm_id: str
    attempt: int
    fate: str
    shown_at: float
    starts_at: float
    ends_at: float
    state: str = "PENDING"
    ended_at: float = 0
    answers_at: float = 0
    """When its worker, cut off from Slurm or waiting for the broker, does what is left to do."""


@dataclass
class World:
    """The true facts of one job, and everybody who writes them."""

    dice: random.Random
    accounting: bool
    now: float = NOW
    attempts: dict[int, AttemptFacts] = field(default_factory=dict)
    visible_at: dict[tuple[int, str], float] = field(default_factory=dict)
    """When the login side can see what the job's side wrote: up to a minute later."""
    jobs: list[SlurmJob] = field(default_factory=list)
    understood: bool = False
    outcome: Optional[Outcome] = None
    outcome_at: float = 0
    delivered: int = 0
    archived: bool = False
    really_succeeded: set[int] = field(default_factory=set)
    login_away_until: float = 0

    # --- what the login side sees

    def facts(self) -> JobFacts:
        attempts = tuple(self.seen_of(self.attempts[n]) for n in sorted(self.attempts))
        outcome = self.outcome if self.visible_at.get((0, "outcome"), 0) <= self.now else None
        delivered = self.delivered > 0 and self.visible_at.get((0, "delivered"), 0) <= self.now
        spec = REPEATED if self.understood else None
        return JobFacts(message(NOW), NOW, spec, attempts, outcome, self.outcome_at, delivered=delivered)

    def seen_of(self, a: AttemptFacts) -> AttemptFacts:
        hidden: dict[str, Any] = {
            name: None for (n, name), at in self.visible_at.items() if n == a.number and at > self.now
        }
        return replace(a, ended_noted=a.ended.at if a.ended else 0, **hidden)

    def views(self, attempt: int) -> list[JobView]:
        return [
            seen(job.state, job.slurm_id, "BadConstraints" if job.fate == "stuck" else "Resources", job.ended_at)
            for job in self.jobs
            if job.attempt == attempt and job.shown_at <= self.now
            and (self.accounting or not job.ended_at or self.now - job.ended_at < 300)
        ]  # fmt: skip

    # --- the job's side

    def tick(self) -> None:
        self.now += TICK
        for job in self.jobs:
            if job.state == "PENDING" and self.now >= job.starts_at and job.fate not in ("stuck", "waits"):
                self.start(job)
            elif job.state == "RUNNING" and self.now >= job.ends_at:
                self.end(job)
            if job.answers_at and self.now >= job.answers_at:
                job.answers_at = 0
                self.answer(job.attempt, Result("succeeded", job.attempt), deliver=True)

    def start(self, job: SlurmJob) -> None:
        if any(o.attempt == job.attempt and o.state == "RUNNING" for o in self.jobs):
            return  # singleton
        a = self.attempts[job.attempt]
        if a.started is not None or a.closed or self.outcome is not None:
            self.over(job, "COMPLETED")  # a second copy, one that was closed, or a job that has been answered
            return
        job.state = "RUNNING"
        self.write(job.attempt, "started", Started(job.slurm_id, 0, "n1", self.now))

    def end(self, job: SlurmJob) -> None:
        n, bad = job.attempt, self.dice.choice(BAD_ENDS)
        if job.fate in ("answers", "broker away"):
            self.answer(n, Result("succeeded", n), deliver=job.fate == "answers")
            self.over(job, "COMPLETED")
        elif job.fate in ("fails", "fetch fails"):
            step = "fetch" if job.fate == "fetch fails" else "run"
            self.answer(n, Result("failed", n, step=step, may_work_again=True, ended_at=self.now), deliver=True)
            self.over(job, "COMPLETED")
        elif job.fate == "unsure":
            state = self.dice.choice(("COMPLETED", "OUT_OF_MEMORY"))
            self.answer(n, Result("succeeded", n, needs_verdict=True), deliver=True, really=state == "COMPLETED")
            self.over(job, state)
        elif job.fate == "told to stop":
            self.answer(n, Result("cancelled", n, needs_verdict=True), deliver=True)
            self.over(job, bad)
        elif job.fate == "cut off":
            self.over(job, "NODE_FAIL")
            job.answers_at = self.now + self.dice.choice((TICK, 90, 240))
        else:
            if job.fate == "dies with a result":
                self.write(n, "result", Result("succeeded", n))
                self.really_succeeded.add(n)
            if job.fate == "dies with an outcome":
                self.answer(n, Result("succeeded", n), deliver=False)
            self.over(job, bad)

    def answer(self, n: int, result: Result, deliver: bool, really: bool = True) -> None:
        if self.attempts[n].result is not None:
            return
        self.write(n, "result", result)
        if result.outcome == "succeeded" and really:
            self.really_succeeded.add(n)
        if not result.needs_verdict and is_final(result, REPEATED, SPEC.resources) and self.outcome is None:
            self.conclude(n, result.outcome, "job")
            self.hide(0, "outcome")
            if deliver:
                self.delivered += 1
                self.hide(0, "delivered")

    def over(self, job: SlurmJob, state: str) -> None:
        job.state, job.ended_at = state, self.now

    def write(self, n: int, name: str, fact: Any) -> None:
        self.note(n, **{name: fact})
        self.hide(n, name)

    def hide(self, n: int, name: str) -> None:
        self.visible_at[n, name] = self.now + self.dice.choice((0, 20, 60))

    # --- what both do

    def conclude(self, n: int, word: str, by: str) -> None:
        if self.outcome is None:
            self.outcome, self.outcome_at = Outcome(word, n, "reply", by, self.now), self.now

    # --- the login side

    def one_pass(self) -> None:
        if self.dice.random() < 0.02:
            self.login_away_until = self.now + self.dice.choice((600, 1800))
        if self.now < self.login_away_until:
            return
        if self.dice.random() < 0.9:  # else Slurm does not answer
            for a in self.facts().attempts:
                if a.open:
                    self.look(a)
                    self.remove(a)
        while self.dice.random() < 0.97:  # else the pass is killed
            if not self.take_step():
                return

    def look(self, a: AttemptFacts) -> None:
        for name, fact in observe(a, self.views(a.number), self.dice.random() < 0.95, TIMING, self.now).items():
            self.note(a.number, **{name: fact})

    def note(self, n: int, **facts: Any) -> None:
        self.attempts[n] = replace(self.attempts.get(n, AttemptFacts(n)), **facts)

    def take_step(self) -> bool:
        facts = self.facts()
        step = judge(facts, TIMING, MAX_WAIT, self.now, self.now)
        if isinstance(step, LookAnew):
            facts = self.look_anew(step.attempt)
            step = judge(facts, TIMING, MAX_WAIT, self.now, self.now)
        if isinstance(step, Understand):
            self.understood = True
        elif isinstance(step, Submit):
            assert_may_submit(facts, step.attempt)
            self.submit(step.attempt)
            return False
        elif isinstance(step, Record):
            if self.attempts.get(step.result.attempt, AttemptFacts(0)).result is None:
                self.note(step.result.attempt, result=step.result)
            else:
                self.now += 60  # a surprise: it is read again once it can be seen
        elif isinstance(step, GiveVerdict):
            self.note(step.result.attempt, verdict=step.result)
        elif isinstance(step, Conclude):
            counts = self.attempts[step.attempt].what_counts
            assert counts is not None
            if self.outcome is not None:
                self.now += 60  # a surprise: it is read again once it can be seen
            self.conclude(step.attempt, counts.outcome, "login")
        elif isinstance(step, Deliver):
            self.delivered += 1
        elif isinstance(step, Close):
            self.close(step)
        elif isinstance(step, AskToCancel):
            self.cancel(step)
            return False
        else:
            assert isinstance(step, (Archive, Wait)), step
            self.archived = isinstance(step, Archive)
            return False
        return True

    def look_anew(self, n: int) -> JobFacts:
        """NFS shows what there is then; other file systems show it when they like."""
        if self.dice.random() < 0.5:
            self.visible_at = {name: at for name, at in self.visible_at.items() if name[0] not in (0, n)}
        return replace(self.facts(), looked_anew=n)

    def submit(self, n: int) -> None:
        self.note(n, absent=None, intent=Intent("1", f"bf-{n}", 0, SPEC.resources, self.now))
        luck = self.dice.choice(("taken", "taken", "taken unheard", "not taken", "refused"))
        if luck == "refused" and self.dice.random() < 0.3:
            self.note(n, result=Result("rejected", n))
        elif luck.startswith("taken"):
            slurm_id = str(len(self.jobs) + 1)
            starts_at, fate = self.now + self.dice.choice((0, 60, 600)), self.dice.choice(FATES)
            if n > 1 and fate == "waits":  # for as long as it takes: the deadline is for the first attempt
                starts_at, fate = self.now + MAX_WAIT + 3600, "answers"
            self.jobs.append(SlurmJob(
                slurm_id, n, fate, self.now + self.dice.choice((0, 0, 60)), starts_at,
                starts_at + self.dice.choice((30, 300, 3000)),
            ))  # fmt: skip
            if luck == "taken":
                self.note(n, submission=Submission(slurm_id, self.now))

    def close(self, step: Close) -> None:
        """The file server knows what can't be seen here yet."""
        a = self.attempts.get(step.attempt, AttemptFacts(step.attempt))
        if a.started is not None:
            self.visible_at.pop((step.attempt, "started"), None)
            return
        self.note(step.attempt, cancel=a.cancel or step.why, closed=True)

    def remove(self, a: AttemptFacts) -> None:
        for job in self.jobs:
            if (
                a.closed
                and job.attempt == a.number
                and job.state in ("PENDING", "RUNNING")
                and self.dice.random() < 0.8
            ):
                self.over(job, "CANCELLED")

    def cancel(self, step: AskToCancel) -> None:
        if self.attempts[step.attempt].cancel is None:
            self.note(step.attempt, cancel=step.cancel)
        submission = self.attempts[step.attempt].submission
        for job in self.jobs:
            may = job.state == "PENDING" or (job.state == "RUNNING" and not step.only_waiting)
            if submission is not None and job.slurm_id == submission.slurm_id and may and self.dice.random() < 0.8:
                self.over(job, "CANCELLED")


def assert_may_submit(facts: JobFacts, number: int) -> None:
    """Never while an attempt is open without a result, unless sbatch left it unclear whether there is one."""
    assert facts.spec is not None and facts.outcome is None
    for a in facts.attempts:
        if a.number == number:
            assert a.submission is None and a.started is None and a.what_counts is None
        else:
            assert a.what_counts is not None and not is_final(a.what_counts, REPEATED, SPEC.resources)


@pytest.mark.parametrize("accounting", [True, False])
@pytest.mark.parametrize("block", range(8))
def test_every_life_ends_with_one_true_answer(block: int, accounting: bool) -> None:
    for seed in range(block * 50, block * 50 + 50):
        world = World(random.Random(seed), accounting)
        story = f"seed {seed}"

        while not world.archived:
            assert world.now - NOW < 3 * 86400, f"{story}: waits for ever: {world.facts()}"
            world.tick()
            world.one_pass()

        assert world.outcome is not None and world.delivered == 1, f"{story}: sent {world.delivered} times"
        if world.outcome.outcome == "succeeded":
            assert world.outcome.attempt in world.really_succeeded, f"{story}: untrue"
        if world.outcome.outcome in ("expired", "rejected"):
            assert world.attempts[world.outcome.attempt].started is None, f"{story}: it had begun"
