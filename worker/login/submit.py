"""Submits attempts of equal needs as one job of Slurm, or one array: tokens, intents, group, sbatch, submissions.

Each file is on disk before the next step, and sbatch stands between two of them: an intent without a submission means
that Slurm may or may not have the job, and reconcile finds out which. Running this twice for one attempt is harmless:
the Slurm name stays, `singleton` makes a second copy wait for the first, and started.json lets one of them work.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Optional

from scheduler import BatchRequest, Declined, Refused, SlurmJobId, Unavailable, element_id

from ..folder import paths
from ..folder.batches import PILOT
from ..folder.facts import JobFolder, cluster_of, group_of
from ..folder.frozen import of_last_attempt
from ..folder.jobs import JobsFolder
from ..job import facts
from ..job.facts import Cluster, Group, Intent, Submission
from ..job.judge import Submit
from ..job.names import JobId
from ..job.spec import Resources
from ..settings import Config
from .account import Login
from .away import SiteAway, disk_away, raise_if_disk
from .budget import Budget
from .lease import Lease
from .notices import Notices
from .pass_state import PassState, Ready
from .questions import Questions
from .side_by_side import side_by_side

log = logging.getLogger(__name__)

_LITTLE_MEMORY_MB = 100


class Said(NamedTuple):
    """What Slurm said: where it declined the jobs, its words; empty where it took them; None where that says nothing about
    such jobs. `took`: those of which the submission is on disk. `by_itself`: declined, whatever else is there."""

    words: Optional[str]
    took: Collection[JobId] = ()
    by_itself: bool = False


class Submitter:
    """Submits attempts of equal needs as one job of Slurm, or one array."""

    def __init__(
        self, config: Config, jobs: JobsFolder, lease: Lease, login: Login, questions: Questions, budget: Budget,
        notices: Notices, state: PassState,
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._lease, self._login = config, jobs, lease, login
        self._questions, self._budget, self._notices, self._state = questions, budget, notices, state

    def next_batch(self, ready: Sequence[Ready], most: int = 0) -> list[Ready]:
        """The first one, and those that can be submitted together with it: of its group, or new ones of equal needs, at most
        `most` of them (0 for any number)."""
        like = _kind(ready[0][1])
        if ready[0][1].again is None and not _is_of_today(self._config, ready[0][1]):
            return [ready[0]]  # what it needs was frozen with its last attempt, and with no other job's
        alike = [each for each in ready if _kind(each[1]) == like]
        if len(alike) == 1 or ready[0][1].again:
            return alike
        largest = self._largest_array()
        return alike[: min(most, largest) if most else largest]

    def commands_for_one(self) -> int:
        """Slurm commands for the next submission: a look, if none was paid for in this pass; the question for the largest
        array, if its answer is not known; sbatch."""
        look = 0 if self._questions.answered else 1
        array = self._config.site.slurm.array_size > 1 and self._cluster() is None
        return look + array + 1

    def may_submit(self) -> bool:
        """Counted before the first command of a submission: one that could not be finished would be begun in each pass.
        Where it is not enough, everybody else leaves it what it needs."""
        suffices = self._budget.may("submit", self.commands_for_one())
        if not suffices:
            log.log(self._notices.each_pass, "no slurm commands are left for now, the next pass goes on")
        return suffices

    def batches_of(self, ready: Sequence[Ready]) -> int:
        """How many sbatch it takes to submit them all."""
        known = self._cluster()
        size = max(1, min(self._config.site.slurm.array_size, known.largest_array if known else 1))
        return sum(math.ceil(count / size) for count in Counter(_kind(step) for _, step in ready).values())

    def submit(self, batch: Sequence[Ready]) -> Said:
        """Raises SiteAway where the site is at fault; then the jobs wait."""
        intended = [(job, intent) for job, intent in self._intend_all(batch) if intent is not None]
        if not intended:
            return Said(None)
        steps = {job.id: step for job, step in batch}
        numbers = {job.id: step.attempt for job, step in batch}
        try:
            members = [(i.element, j.id, numbers[j.id]) for j, i in intended]
            group = self._write_group(intended[0][1].group, members, self._needs(*batch[0]))
            elements = [intent.element for _, intent in intended] if set(group.members) != {"0"} else []
            self._lease.check()
            paths.crash_point("before sbatch")
            self._budget.had_turn("submit")
            slurm_id = self._questions.scheduler.submit(request(self._config, intended[0][1], elements))
            paths.crash_point("after sbatch")

            def note(member: tuple[JobFolder, Intent]) -> None:
                job, intent = member
                own_id = element_id(slurm_id, intent.element) if elements else slurm_id
                self._note_submitted(job, numbers[job.id], own_id)

            side_by_side(note, intended)
            return Said("", {job.id for job, _ in intended})
        except Refused as error:
            _note_declined(intended, steps, facts.Declined(str(error), time.time(), final=True))
            return Said(None)
        except Declined as error:
            paths.remove(self._jobs.cluster)  # its limits may have changed
            _note_declined(intended, steps, facts.Declined(str(error), time.time()))
            return Said(str(error), by_itself=error.by_itself)
        except Unavailable as error:
            paths.remove(self._jobs.cluster)  # its limits may have changed
            raise SiteAway("slurm", str(error)) from None
        except OSError as error:
            raise disk_away(error) from None

    def _largest_array(self) -> int:
        """Asked once and remembered."""
        wanted = self._config.site.slurm.array_size
        if wanted <= 1:
            return 1
        known = self._cluster()
        if known is None:
            try:
                known = Cluster(self._questions.scheduler.largest_array())
            except Unavailable as error:
                raise SiteAway("slurm", str(error)) from None
            cluster_of(self._jobs).write(known)
        return max(1, min(wanted, known.largest_array))

    def _cluster(self) -> Cluster | None:
        """One that can't be read is asked for again."""
        return self._state.faults.read(cluster_of(self._jobs))

    def _intend_all(self, batch: Sequence[Ready]) -> list[tuple[JobFolder, Intent | None]]:
        """Writes what is about to happen, once: a submission that is repeated keeps its intents, and so its name.

        One bad folder keeps no other job from being submitted.
        """
        group = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(time.time()))}-{secrets.token_hex(3)}"
        name = f"bf-{self._config.site.installation}-{group}"
        self._login.token()  # logs in, or raises SiteAway, before anything is written

        def intend(numbered: tuple[int, Ready]) -> tuple[JobFolder, Intent | None]:
            element, (job, step) = numbered
            new = Intent(group=group, name=name, element=element, resources=step.resources, at=time.time())
            try:
                return job, self._intend(job, step, new)
            except OSError as error:
                raise_if_disk(error)
                log.error("left alone, its folder can't be used job=%s why=%r", job.id, str(error))
                return job, None

        return side_by_side(intend, enumerate(batch))

    def _intend(self, job: JobFolder, step: Submit, new: Intent) -> Intent | None:
        """None where another pass has just written one: it may have submitted already."""
        attempt = job.attempt(step.attempt)
        paths.make_folders(job.path, job.attempts.name, attempt.path.name)
        paths.write_bytes(attempt.token, self._login.token().encode(), durable=False)  # lost, it costs one more login
        if step.again is not None:
            attempt.absent.remove()  # what Slurm says from now on is about the new submission
            return step.again
        if step.submission > 1:
            attempt.absent.remove()
        if attempt.intent_of(step.submission).claim(new):
            return new
        log.info("another pass is submitting it job=%s attempt=%d", job.id, step.attempt)
        return None

    def _needs(self, job: JobFolder, step: Submit) -> str:
        """What is frozen with its group. Raises Damaged."""
        return self._config.site_text if _is_of_today(self._config, step) else of_last_attempt(self._jobs, job)

    def _write_group(self, name: str, members: Sequence[tuple[int, str, int]], site: str) -> Group:
        """After the intents that name it, so that a crash in between leaves no group that nobody knows of."""
        before = group_of(self._jobs, name).read() or Group({}, site)
        added = {str(element): (job_id, number) for element, job_id, number in members}
        group = replace(before, members={**before.members, **added})
        if group != before:
            group_of(self._jobs, name).write(group)
        return group

    def _note_submitted(self, job: JobFolder, number: int, slurm_id: SlurmJobId) -> None:
        job.attempt(number).submission.write(Submission(slurm_id=slurm_id, at=time.time()))
        self._state.in_slurm.add(job.id)
        log.info("submitted job=%s attempt=%d slurm=%s", job.id, number, slurm_id)


def request(config: Config, intent: Intent, elements: Sequence[int] = ()) -> BatchRequest:
    """What Slurm is asked for: the job script, told where everything is."""
    jobs, asked = JobsFolder(config.site.jobs_dir), intent.resources
    return BatchRequest(
        name=intent.name,
        script=str(config.job_script),
        arguments=[
            str(config.root),
            str(config.site.python),
            str(config.site_file),
            str(config.credentials_file),
            str(jobs.group(intent.group)),
        ],
        chdir=str(config.root),
        output=str(jobs.group_log(intent.group)),
        cpus=asked.cpus,
        memory_mb=asked.memory_mb if config.site.slurm.ask_memory else None,
        minutes=asked.minutes,
        warn_seconds=int(config.site.timing.margin(asked.minutes * 60)),
        gres=asked.gres,
        email=asked.email,
        elements=elements,
    )


def smallest(config: Config, like: Resources) -> BatchRequest:
    """The least that can be asked for: whoever declines this takes nothing."""
    little = Resources(cpus=1, memory_mb=min(like.memory_mb, _LITTLE_MEMORY_MB), time_seconds=60)
    name = f"bf-{config.site.installation}-question"
    return request(config, Intent(group="question", name=name, element=0, resources=little, at=0))


def _kind(step: Submit) -> tuple[object, ...]:
    return (step.again.name,) if step.again else (step.workload, step.resources)


def _is_of_today(config: Config, step: Submit) -> bool:
    """Whether its workload is in the site file; a pilot has none."""
    return step.workload in config.site.workloads or step.workload.startswith(PILOT)


def _note_declined(
    intended: Sequence[tuple[JobFolder, Intent]], steps: Mapping[JobId, Submit], no: facts.Declined
) -> None:
    """Not an answer yet: sbatch may have submitted it all the same."""

    def note(member: tuple[JobFolder, Intent]) -> None:
        job, step = member[0], steps[member[0].id]
        job.attempt(step.attempt).declined(step.submission).write(no)
        words = "refused" if no.final else "declined"
        log.info("%s by slurm job=%s attempt=%d why=%r", words, job.id, step.attempt, no.words)

    try:
        side_by_side(note, intended)
    except OSError as error:  # then it is unclear
        raise disk_away(error) from None
