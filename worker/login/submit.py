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
from .away import SiteAway, disk_away, raise_if_disk
from .side_by_side import side_by_side
from .tools import Tools

log = logging.getLogger(__name__)

_LITTLE_MEMORY_MB = 100

Ready = tuple[JobFolder, Submit]


def next_batch(tools: Tools, ready: Sequence[Ready], most: int = 0) -> list[Ready]:
    """The first one, and those that can be submitted together with it: of its group, or new ones of equal needs, at most
    `most` of them (0 for any number)."""
    like = _kind(ready[0][1])
    if ready[0][1].again is None and not _is_of_today(tools.config, ready[0][1]):
        return [ready[0]]  # what it needs was frozen with its last attempt, and with no other job's
    alike = [each for each in ready if _kind(each[1]) == like]
    if len(alike) == 1 or ready[0][1].again:
        return alike
    largest = _largest_array(tools)
    return alike[: min(most, largest) if most else largest]


def commands_for_one(tools: Tools) -> int:
    """Slurm commands for the next submission: a look, if none was paid for in this pass; the question for the largest
    array, if its answer is not known; sbatch."""
    look = 0 if tools.slurm_answered else 1
    array = tools.config.site.slurm.array_size > 1 and _cluster(tools) is None
    return look + array + 1


def batches_of(tools: Tools, ready: Sequence[Ready]) -> int:
    """How many sbatch it takes to submit them all."""
    known = _cluster(tools)
    size = max(1, min(tools.config.site.slurm.array_size, known.largest_array if known else 1))
    return sum(math.ceil(count / size) for count in Counter(_kind(step) for _, step in ready).values())


class Said(NamedTuple):
    """What Slurm said: where it declined the jobs, its words; empty where it took them; None where that says nothing about
    such jobs. `took`: those of which the submission is on disk. `by_itself`: declined, whatever else is there."""

    words: Optional[str]
    took: Collection[JobId] = ()
    by_itself: bool = False


def submit(tools: Tools, batch: Sequence[Ready]) -> Said:
    """Raises SiteAway where the site is at fault; then the jobs wait."""
    intended = [(job, intent) for job, intent in _intend_all(tools, batch) if intent is not None]
    if not intended:
        return Said(None)
    steps = {job.id: step for job, step in batch}
    numbers = {job.id: step.attempt for job, step in batch}
    try:
        members = [(i.element, j.id, numbers[j.id]) for j, i in intended]
        group = _write_group(tools, intended[0][1].group, members, _needs(tools, *batch[0]))
        elements = [intent.element for _, intent in intended] if set(group.members) != {"0"} else []
        tools.check_lease()
        paths.crash_point("before sbatch")
        tools.had_turn("submit")
        slurm_id = tools.scheduler.submit(request(tools.config, intended[0][1], elements))
        paths.crash_point("after sbatch")

        def note(member: tuple[JobFolder, Intent]) -> None:
            job, intent = member
            own_id = element_id(slurm_id, intent.element) if elements else slurm_id
            _note_submitted(tools, job, numbers[job.id], own_id)

        side_by_side(note, intended)
        return Said("", {job.id for job, _ in intended})
    except Refused as error:
        _note_declined(intended, steps, facts.Declined(str(error), tools.now(), final=True))
        return Said(None)
    except Declined as error:
        paths.remove(tools.jobs.cluster)  # its limits may have changed
        _note_declined(intended, steps, facts.Declined(str(error), tools.now()))
        return Said(str(error), by_itself=error.by_itself)
    except Unavailable as error:
        paths.remove(tools.jobs.cluster)  # its limits may have changed
        raise SiteAway("slurm", str(error)) from None
    except OSError as error:
        raise disk_away(error) from None


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


def _largest_array(tools: Tools) -> int:
    """Asked once and remembered."""
    wanted = tools.config.site.slurm.array_size
    if wanted <= 1:
        return 1
    known = _cluster(tools)
    if known is None:
        try:
            known = Cluster(tools.scheduler.largest_array())
        except Unavailable as error:
            raise SiteAway("slurm", str(error)) from None
        cluster_of(tools.jobs).write(known)
    return max(1, min(wanted, known.largest_array))


def _cluster(tools: Tools) -> Cluster | None:
    """One that can't be read is asked for again."""
    return tools.note(cluster_of(tools.jobs))


def _intend_all(tools: Tools, batch: Sequence[Ready]) -> list[tuple[JobFolder, Intent | None]]:
    """Writes what is about to happen, once: a submission that is repeated keeps its intents, and so its name.

    One bad folder keeps no other job from being submitted.
    """
    group = f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(tools.now()))}-{secrets.token_hex(3)}"
    name = f"bf-{tools.config.site.installation}-{group}"
    tools.token  # noqa: B018  # logs in, or raises SiteAway, before anything is written

    def intend(numbered: tuple[int, Ready]) -> tuple[JobFolder, Intent | None]:
        element, (job, step) = numbered
        new = Intent(group=group, name=name, element=element, resources=step.resources, at=tools.now())
        try:
            return job, _intend(tools, job, step, new)
        except OSError as error:
            raise_if_disk(error)
            log.error("left alone, its folder can't be used job=%s why=%r", job.id, str(error))
            return job, None

    return side_by_side(intend, enumerate(batch))


def _intend(tools: Tools, job: JobFolder, step: Submit, new: Intent) -> Intent | None:
    """None where another pass has just written one: it may have submitted already."""
    attempt = job.attempt(step.attempt)
    paths.make_folders(job.path, job.attempts.name, attempt.path.name)
    paths.write_bytes(attempt.token, tools.token.encode(), durable=False)  # lost, it costs one more login
    if step.again is not None:
        attempt.absent.remove()  # what Slurm says from now on is about the new submission
        return step.again
    if step.submission > 1:
        attempt.absent.remove()
    if attempt.intent_of(step.submission).claim(new):
        return new
    log.info("another pass is submitting it job=%s attempt=%d", job.id, step.attempt)
    return None


def _is_of_today(config: Config, step: Submit) -> bool:
    """Whether its workload is in the site file; a pilot has none."""
    return step.workload in config.site.workloads or step.workload.startswith(PILOT)


def _needs(tools: Tools, job: JobFolder, step: Submit) -> str:
    """What is frozen with its group. Raises Damaged."""
    return tools.config.site_text if _is_of_today(tools.config, step) else of_last_attempt(tools.jobs, job)


def _write_group(tools: Tools, name: str, members: Sequence[tuple[int, str, int]], site: str) -> Group:
    """After the intents that name it, so that a crash in between leaves no group that nobody knows of."""
    before = group_of(tools.jobs, name).read() or Group({}, site)
    added = {str(element): (job_id, number) for element, job_id, number in members}
    group = replace(before, members={**before.members, **added})
    if group != before:
        group_of(tools.jobs, name).write(group)
    return group


def _note_submitted(tools: Tools, job: JobFolder, number: int, slurm_id: SlurmJobId) -> None:
    job.attempt(number).submission.write(Submission(slurm_id=slurm_id, at=tools.now()))
    tools.there.add(job.id)
    log.info("submitted job=%s attempt=%d slurm=%s", job.id, number, slurm_id)


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
