"""A scheduler that obeys: takes jobs, shows them late, forgets them, ends them in any way, and tells it as Slurm does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional, Union

from scheduler import BatchRequest, Declined, JobView, Refused, SlurmJobId, Unavailable, element_id
from slurm import states
from slurm.traits import TRAITS
from tests.worker.model.books import Attempt, Books, promise

_SHOWN_AFTER_END = 300.0
"""Slurm's MinJobAge: so long squeue shows a job that has ended."""
_LOST_AFTER = 600.0
_ALIVE = ("PENDING", "RUNNING")
_LARGEST_ARRAY = 3
_ORDINARY_MB = 1000
"""What the queue gives a job that asks for nothing."""

Place = tuple[str, int]
"""A Slurm name, and which element of its array."""


@dataclass
class SlurmJob:
    """One job, or one element of an array, and the truth about it."""

    slurm_id: str
    submission: int
    """Those of one array have the same."""
    name: str
    element: int
    group: str
    """The path of its group file."""
    attempt: Attempt
    shown_at: float
    state: str = "PENDING"
    reason: str = "Resources"
    ended_at: float = 0.0
    restarts: int = 0
    forgotten: bool = False
    began: bool = False
    """Its worker was started, in this run of it."""
    finished: bool = False
    """Its worker came to its own end."""
    out_of_memory: bool = False

    @property
    def alive(self) -> bool:
        return self.state in _ALIVE

    @property
    def place(self) -> Place:
        return self.name, self.element

    @property
    def id_in_history(self) -> str:
        """Elements that never began share a row."""
        array, _, element = self.slurm_id.partition("_")
        return f"{array}_[{element}]" if element and self.state == "CANCELLED" and not self.began else self.slurm_id

    @property
    def node(self) -> str:
        return "n1" if self.began else ""


@dataclass
class _Absence:
    """Since when, and in how many clear answers in a row, a job or a place was not among what we showed."""

    since: float = 0.0
    answers: int = 0


@dataclass
class Cluster:
    traits = TRAITS
    clock: Callable[[], float]
    books: Books
    attempt_of: Callable[[str, int], Attempt]
    """What a group file says about an element."""
    accounting: bool
    jobs: list[SlurmJob] = field(default_factory=list)
    away: bool = False
    accounting_away: bool = False
    luck: str = "taken"
    """Of the next sbatch: taken, late (is shown a while later), unheard, unheard and late, not taken; refused or declined,
    "... and taken" where it went in all the same."""
    most: int = 1000
    """So many jobs may be here; more are declined."""
    declined_shape: str = ""
    """Which jobs are declined: all, large (more memory than the queue gives), or none."""
    deaf: bool = False
    """Requests to cancel are lost."""
    alone: bool = True
    """Only one pass runs; two that run side by side may both repeat an sbatch."""
    killed: Callable[[SlurmJob], None] = lambda job: None
    _absences: dict[Union[str, Place], _Absence] = field(default_factory=lambda: defaultdict(_Absence))
    _submitted: dict[Place, float] = field(default_factory=dict)
    _submissions: int = 100

    # --- what the product may do (slurm.Scheduler)

    def submit(self, request: BatchRequest) -> SlurmJobId:
        luck, self.luck = self.luck, "taken"
        group = request.arguments[-1]
        attempts = {element: self.attempt_of(group, element) for element in request.elements or [0]}
        if self.away or luck in ("not taken", "unheard", "unheard and late"):
            self.books.note_away(self.clock())
        if self.away or luck == "not taken":
            raise Unavailable("sbatch: error: Unable to contact slurm controller")
        promise(len(request.elements) <= _LARGEST_ARRAY, "an array that is too large")
        if "refused" in luck:
            for attempt in attempts.values():
                self.books.evidence[attempt].add("rejected")
        declined = "declined" in luck or self._declines(request, len(attempts))
        if declined:
            self.books.note_declined(self.clock())
        if (declined or "refused" in luck) and "taken" not in luck:
            raise Declined("AssocMaxSubmitJobLimit") if declined else Refused("it asks for more than there is")
        for element in attempts:
            self._check_repetition((request.name, element))
        self._submissions += 1
        slurm_id = SlurmJobId(str(self._submissions))
        shown_at = self.clock() + (400 if "late" in luck else 0)
        for element, attempt in attempts.items():
            own_id = element_id(slurm_id, element) if request.elements else slurm_id
            self.jobs.append(SlurmJob(own_id, self._submissions, request.name, element, group, attempt, shown_at))
            if not self.alone:  # the pass beside this one may have asked before this sbatch, and have counted that
                self._count((request.name, element))
                self._count(own_id)
        if "refused" in luck:
            raise Refused("it asks for more than there is")
        if declined:
            raise Declined("AssocMaxSubmitJobLimit")
        if "unheard" in luck:
            raise Unavailable("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
        return slurm_id

    def objection(self, request: BatchRequest) -> str:
        if self.away:
            raise Unavailable("sbatch: error: Unable to contact slurm controller")
        return "AssocMaxSubmitJobLimit" if self._declines(request, 1) else ""

    def _declines(self, request: BatchRequest, count: int) -> bool:
        unwanted = self.declined_shape == "all" or (
            self.declined_shape == "large" and (request.memory_mb or 0) > _ORDINARY_MB
        )
        return unwanted or sum(job.alive for job in self.jobs) + count > self.most

    def _check_repetition(self, place: Place) -> None:
        """docs/promise.md, Submission: again only after two clear answers without it; design, 5: and after 120 s."""
        absence = self._absences.pop(place, _Absence())
        if place in self._submitted and self.alone:
            waited = self.clock() - self._submitted[place]
            promise(absence.answers >= 2 and waited >= 120, f"{place} was submitted twice")
        self._submitted[place] = self.clock()

    def largest_array(self) -> int:
        if self.away:
            raise Unavailable("slurm_load_ctl_conf error: Unable to contact slurm controller")
        return _LARGEST_ARRAY

    def queue(self) -> list[JobView]:
        if self.away:
            raise Unavailable("slurm_load_jobs error: Unable to contact slurm controller")
        shown = [job for job in self.jobs if self._in_queue(job)]
        rows = "".join(
            f"{job.slurm_id}|{job.state}|{job.ended_at:.0f}|{job.reason}|{job.node}|{job.name}\n" for job in shown
        )
        self._note_shown(shown)
        if not self.accounting:
            self._note_absent([name for name, _ in self._submitted])
        views = states.parse_squeue(rows)
        return [states.left_to_history(view) for view in views] if self.accounting else views

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        if not self.accounting:
            return []
        if self.accounting_away:
            raise Unavailable("sacct: error: Problem talking to the database: Connection refused")
        told = [job for job in self.jobs if job.name in names and self._in_history(job)]
        told = [job for job in told if job.alive or since <= job.ended_at <= (until or self.clock())]
        self._note_shown(told)
        self._note_absent(names)
        return states.parse_sacct("".join(
            f"{job.id_in_history}|{job.state}{' by 0' if job.state == 'CANCELLED' else ''}|0:0|{job.ended_at:.0f}|"
            f"{job.node or 'None assigned'}|"
            f"{job.name}\n"
            for job in told
        ))  # fmt: skip

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        if self.away:
            raise Unavailable("scancel: error: Unable to contact slurm controller")
        for job in self.jobs:
            may = job.state == "PENDING" or (job.state == "RUNNING" and not only_waiting)
            if job.slurm_id in ids and may and not self.deaf:
                self.end(job, "CANCELLED")

    # --- what the world may do

    def may_start(self, job: SlurmJob) -> bool:
        """`singleton`: not before all earlier submissions of its name have ended."""
        alike = [other for other in self.jobs if other.name == job.name and other.alive]
        return job.state == "PENDING" and not any(other.submission < job.submission for other in alike)

    def end(self, job: SlurmJob, state: str) -> None:
        """As the truth has it where it must: only Slurm sees a child that was killed for memory."""
        if job.alive:
            job.state = "OUT_OF_MEMORY" if job.out_of_memory and state in ("COMPLETED", "FAILED") else state
            job.ended_at = self.clock()
            self.killed(job)

    def requeue(self, job: SlurmJob) -> None:
        if job.state == "RUNNING":
            self.killed(job)
            job.state, job.began, job.finished, job.restarts = "PENDING", False, False, job.restarts + 1
            self.books.evidence[job.attempt].add("node_failed")

    def bring_back(self, job: SlurmJob) -> None:
        """The controller was restored, and knows nothing of what has happened since this job was submitted."""
        if not job.alive and not job.began:
            job.state, job.ended_at, job.forgotten, job.shown_at = "PENDING", 0.0, False, self.clock()

    # --- what follows from what was shown

    def _in_queue(self, job: SlurmJob) -> bool:
        recent = job.alive or self.clock() - job.ended_at < _SHOWN_AFTER_END
        return recent and job.shown_at <= self.clock() and not job.forgotten

    def _in_history(self, job: SlurmJob) -> bool:
        return job.shown_at <= self.clock() and not job.forgotten

    def _note_shown(self, shown: Sequence[SlurmJob]) -> None:
        for job in shown:
            self._absences.pop(job.place, None)
            self._absences.pop(job.slurm_id, None)
            self.books.lost_from.pop(job.attempt, None)
            end = states.parse_squeue(f"{job.slurm_id}|{job.state}|0|||{job.name}\n")[0].end
            if end is not None:
                # Without a result of its own, a job that ended well has failed all the same.
                # So has one that was taken from its node before it began.
                never_began = end == "cancelled" and job.began and not self.books.began[job.attempt]
                self.books.evidence[job.attempt] |= {end, "failed"} if end == "succeeded" or never_began else {end}
            if job.state == "PENDING" and states.hopeless(job.reason):
                self.books.evidence[job.attempt].add("rejected")

    def _note_absent(self, names: Sequence[str]) -> None:
        """All who were asked for and are in neither list."""
        shown = [job for job in self.jobs if self._in_queue(job) or (self.accounting and self._in_history(job))]
        for place in self._submitted.keys() - {job.place for job in shown}:
            if place[0] in names:
                self._count(place)
        for job in self.jobs:
            if job.name in names and job not in shown and self._count(job.slurm_id).answers >= 2:
                lost_from = self._absences[job.slurm_id].since + _LOST_AFTER
                self.books.lost_from[job.attempt] = lost_from
                if self.clock() >= lost_from:  # so it may be decided, and only told after the job has been shown again
                    self.books.evidence[job.attempt].add("lost")

    def _count(self, who: Union[str, Place]) -> _Absence:
        absence = self._absences[who]
        absence.since = absence.since or self.clock()
        absence.answers += 1
        return absence
