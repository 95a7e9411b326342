"""What any scheduler must offer: types and protocols, nothing about one of them and nothing about our jobs.

Two exist: `slurm.cluster.Slurm` (the real commands) and `scheduler.local.Local` (one machine, no Slurm). Whoever submits
sees only the types below.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Callable, NewType, Optional, Protocol

SlurmJobId = NewType("SlurmJobId", str)
"""As `squeue -r` prints it: "123", or "123_4" for one element of an array."""


def element_id(slurm_id: SlurmJobId, element: int) -> SlurmJobId:
    """The id of one element of the array `slurm_id`."""
    return SlurmJobId(f"{slurm_id}_{element}")


def elements(slurm_id: SlurmJobId) -> Optional[set[int]]:
    """Which elements of an array a row is about; None for a job that is no array.

    Slurm's accounting has one row for all elements that never began: "12_[0-3,7%2]", and a step where they have one:
    "12_[0-20:2]".
    """
    listed = slurm_id.partition("_")[2].strip("[]").partition("%")[0]
    found: set[int] = set()
    for part in listed.split(",") if listed else ():
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        if first.isdigit() and (last or first).isdigit() and (step or "1").isdigit():
            found.update(range(int(first), int(last or first) + 1, max(1, int(step or 1))))
    return found or None


def is_element(slurm_id: SlurmJobId) -> bool:
    """Whether this is the id of one element of an array."""
    return "_" in slurm_id


class Phase(enum.Enum):
    """Where a job stands. UNKNOWN is a word we do not know: it says nothing, least of all that the job has ended."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class JobView:
    """One job as the scheduler sees it now."""

    slurm_id: SlurmJobId
    name: str
    phase: Phase
    state: str
    """The scheduler's own word, e.g. "OUT_OF_MEMORY"."""
    end: Optional[str] = None
    """For ENDED: one of succeeded, failed, out_of_memory, timed_out, node_failed, preempted, cancelled."""
    reason: str = ""
    """For WAITING: the scheduler's word for why, e.g. "Resources"."""
    ended_at: Optional[float] = None
    """Seconds since 1970, by the scheduler's clock."""
    exit_code: str = ""
    node: str = ""
    more_in_history: bool = False
    """Its history tells more: who cancelled it, or whether a preemption was its end."""
    remembered: bool = False
    """Only the history shows it. A controller that lost its state leaves jobs there that seem to run for ever."""
    by: str = ""
    """For a cancelled job: the user who did it, where the scheduler tells."""
    node_refused: bool = False
    """Its node was to begin it and could not (a Prolog that fails, say), unless its script has run: the scheduler's words
    don't tell a job that an administrator ended from one that never began."""
    hopeless: str = ""
    """For WAITING: why it will not start by waiting alone, in words for people; empty where it may."""


@dataclass(frozen=True)
class Usage:
    """What accounting says that a job used; None where it does not say."""

    elapsed_seconds: Optional[float] = None
    cpus: Optional[int] = None
    cpu_seconds: Optional[float] = None
    memory_mb: Optional[float] = None
    """The most that one of its steps had at one time."""


@dataclass(frozen=True)
class Stock:
    """So much of something (CPUs, or GPUs of one type) the nodes of a partition have, and so much of it is in use."""

    what: str
    total: int
    used: int


@dataclass(frozen=True)
class Outlook:
    """Why a job waits, in the scheduler's words, and what it would have to fit into."""

    state: str
    reason: str
    partition: str = ""
    start_at: Optional[float] = None
    """When it is expected to start, seconds since 1970; None where the scheduler has not planned it."""
    stock: Sequence[Stock] = ()


@dataclass(frozen=True)
class BatchRequest:
    """One submission: what to run and with which resources."""

    name: str
    script: str
    arguments: Sequence[str]
    chdir: str
    output: str
    cpus: int
    memory_mb: Optional[int]
    """None where the site does not let jobs ask for memory."""
    minutes: int
    warn_seconds: int
    """How long before the time limit the script is told (SIGUSR1)."""
    gres: Optional[str] = None
    email: Optional[str] = None
    elements: Sequence[int] = ()
    """Which elements of an array; none for a job that is no array."""


@dataclass(frozen=True)
class Traits:
    """What schedulers differ in, as far as others must know. Whoever does asks for a trait, never for a name."""

    many_hosts: bool
    """Jobs run on other hosts than the one that submits them, and these may see other disks and other networks."""
    enforces_memory: bool
    """It ends a job that takes more memory than it asked for, and says so."""
    elements_may_vanish: bool
    """An element of an array that is cancelled may leave no trace while others of its array are still shown. Without this
    trait, an element that is not shown is lost."""
    runs_commands: bool
    """Each question and each request takes a command, which may hang and burdens a controller that many share: commands are
    counted, and it is asked only as often as something new is to be expected."""


ONE_MACHINE = Traits(many_hosts=False, enforces_memory=False, elements_may_vanish=False, runs_commands=False)
"""Of a scheduler that starts jobs where it is called itself."""


class Refused(Exception):
    """The scheduler says that this job can never run as asked. The text is a sentence for a scientist."""


class Declined(Exception):
    """The scheduler says no in words that blame nobody clearly: this kind of job, or all of them, now or for ever. The text
    is its own. The job may have been accepted all the same, by an earlier try inside the same call. `by_itself`: such a job
    is too large whatever else is there."""

    def __init__(self, words: str, by_itself: bool = False) -> None:
        super().__init__(words)
        self.by_itself = by_itself


class Unavailable(Exception):
    """The scheduler gave no clear answer. After a submission this means: it may have been accepted, or not. `fix`: what an
    operator does about it; empty where nobody here can tell. The text says both."""

    def __init__(self, found: str, fix: str = "") -> None:
        super().__init__(f"{found}. {fix}" if fix else found)
        self.found = found
        self.fix = fix


class TooWide(Unavailable):
    """The history may only be asked about a shorter time at once."""


SpentOn = Callable[[str], AbstractContextManager[None]]
"""Entered with a command's name around each run of one, by a scheduler that runs commands. What it raises keeps the command
from being run, and comes out of the method that wanted it."""


class Scheduler(Protocol):
    @property
    def traits(self) -> Traits: ...

    def submit(self, request: BatchRequest) -> SlurmJobId:
        """Submit once; returns the job's id, or the array's. Raises Refused, Declined or Unavailable."""

    def objection(self, request: BatchRequest) -> str:
        """What it would say against this job, in its own words; empty if it would take it. Submits nothing. Raises
        Unavailable."""

    def largest_array(self) -> int:
        """How many elements an array may have. Raises Unavailable."""

    def queue(self) -> Sequence[JobView]:
        """Every job of this user that the scheduler still shows. Raises Unavailable."""

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> Sequence[JobView]:
        """Jobs of these names between these times (seconds since 1970; None: now), also those no longer shown. Raises
        Unavailable, and TooWide."""

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        """Cancel; a job that has ended is no error. Takes one command for elements of arrays and one for other jobs. Raises
        Unavailable: some of them may have been cancelled."""

    def usage(self, slurm_id: SlurmJobId) -> Optional[Usage]:
        """What it used, once it has ended; None where it has nothing to tell. Raises Unavailable."""

    def outlook(self, slurm_id: SlurmJobId) -> Optional[Outlook]:
        """Why it waits; None where it has nothing to tell. Raises Unavailable."""
