"""What one pass finds out: made anew for each, and gone with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Optional

from ..errors import Damaged
from ..folder import paths
from ..folder.facts import JobFolder
from ..folder.pause import Pause
from ..folder.records import Fact, T
from ..job.judge import Submit
from ..job.names import JobId
from ..job.spec import Resources
from . import lease
from .away import SiteAway, raise_if_disk

log = logging.getLogger(__name__)

Ready = tuple[JobFolder, Submit]


class Places:
    """Which jobs take a place: those that are in flight, and of each queue as many again that are held."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.held: dict[JobId, str] = {}
        """Claimed jobs that wait for something of their own, with their queues: not in flight, so that others go on."""

    def hold(self, job_id: JobId, queue: str) -> None:
        """For a job that was counted as in flight; it takes no place while it waits."""
        if job_id not in self.held:
            self.held[job_id] = queue
            self.in_flight -= 1

    def release(self, job_id: JobId) -> None:
        if self.held.pop(job_id, None) is not None:
            self.in_flight += 1

    def left(self, queue: str, most: int) -> int:
        """How many messages of this queue may be claimed: at most `most` jobs are in flight, and of no queue are more than
        that held."""
        held = sum(each == queue for each in self.held.values())
        return max(0, most - max(self.in_flight, held))


class Faults:
    """What is away, stopped or can't be read."""

    def __init__(self) -> None:
        self.broker_away = ""
        self.unclear = 0
        """Jobs of which nobody knows yet whether Slurm has them."""
        self.left_alone = 0
        """Jobs that can't be worked on until somebody mends them."""
        self.damaged = 0
        """Files that were put aside."""
        self.stopped: dict[str, str] = {}
        """Workloads of which nothing can be begun: why."""
        self.queues: dict[str, str] = {}
        """Jobs queues that can't be read: why, and what to do."""

    def read(self, fact: Fact[T]) -> Optional[T]:
        """A fact that may be lost, since a pass finds it out anew. One that can't be read is put aside."""
        try:
            return fact.read()
        except Damaged as error:
            aside = paths.put_aside(fact.path)
            log.error("damaged, put aside as %s; what it said is found out anew what=%r", aside, str(error))
            self.damaged += 1
            return None

    @contextlib.contextmanager
    def left_alone_if_bad(self, job: JobFolder) -> Iterator[None]:
        """The outermost border of the work on one job."""
        try:
            yield
        except (lease.Lost, SiteAway):
            raise
        except Damaged as error:
            log.error("damaged, left alone; docs/symptoms.md says what to do job=%s what=%r", job.id, str(error))
            self.left_alone += 1
        except OSError as error:
            raise_if_disk(error)
            log.error("left alone, its folder can't be used job=%s why=%r", job.id, str(error))
            self.left_alone += 1
        except Exception:
            log.exception("unforeseen, left alone job=%s", job.id)
            self.left_alone += 1


class PassState:
    """How things stand: what is ready to be submitted, what is held, and what Slurm has."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.places = Places()
        self.ready: list[Ready] = []
        self.in_slurm: set[str] = set()
        """The ids of jobs and pilots that Slurm has, as far as this pass knows."""
        self.shapes: list[Resources] = []
        """What the jobs and pilots ask for that are held because Slurm declines such jobs..."""
        self.declined: list[Resources] = []
        """...and of them the jobs."""
        self.full = ""
        """What Slurm said where it takes no more jobs because it has so many of ours."""

        self.paused: Optional[Pause] = None
        """Somebody wants no message to be taken, or also nothing to be submitted."""

    @property
    def submits_nothing(self) -> bool:
        """Because somebody wants it so."""
        return self.paused is not None and self.paused.submit

    def hold_shape(self, job_id: JobId, queue: str, asked: Resources) -> None:
        """For a job that Slurm declines."""
        self.places.hold(job_id, queue)
        self.shapes.append(asked)
        self.declined.append(asked)
