"""Submits one attempt of one job: token, group, intent, sbatch, submission.

Each file is on disk before the next step, and sbatch stands between two of them: an intent without a submission means
that Slurm may or may not have the job, and reconcile finds out which. Running this twice for one attempt is harmless:
the Slurm name stays, `singleton` makes a second copy wait for the first, and started.json lets one of them work.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from typing import Optional

from slurm import BatchRequest, Refused, Unavailable

from .. import folder, sentences
from ..answer import record
from ..facts import Group, Intent, Submission, read_spec
from ..folder import JobFolder
from ..outcome import Result
from ..settings import Config
from ..spec import JobSpec
from .tools import SiteAway, Tools, raise_if_disk

log = logging.getLogger(__name__)


def submit(tools: Tools, job: JobFolder, number: int) -> None:
    """Raises SiteAway where the site is at fault; then the job waits."""
    spec = read_spec(job)
    assert spec is not None, "the judge asks for a submission only where there is a spec"
    attempt = job.attempt(number)
    try:
        folder.make_folder(attempt.path)
        folder.write_bytes(attempt.token, tools.token.encode())
        intent = _intend(tools, job, number, spec)
        if intent is None:
            log.info("another pass is submitting it job=%s attempt=%d", job.id, number)
            return
        tools.check_lease()
        slurm_id = tools.scheduler.submit(request(tools.config, intent.name, intent.group, spec))
        folder.write(attempt.submission, Submission(slurm_id=slurm_id, at=tools.now()))
        log.info("submitted job=%s attempt=%d slurm=%s", job.id, number, slurm_id)
    except Refused as error:
        folder.remove(attempt.token)
        record(attempt, Result("rejected", number, sentences.refused(str(error)), ended_at=tools.now()))
        log.info("refused by slurm job=%s attempt=%d why=%r", job.id, number, str(error))
    except Unavailable as error:
        raise SiteAway("slurm", str(error)) from None
    except OSError as error:
        raise_if_disk(error)
        log.error("left alone, its folder can't be used job=%s why=%r", job.id, str(error))


def request(config: Config, name: str, group: str, spec: JobSpec) -> BatchRequest:
    """What Slurm is asked for: the job script, told where everything is."""
    jobs = folder.JobsFolder(config.site.jobs_dir)
    minutes = _minutes(spec)
    return BatchRequest(
        name=name,
        script=str(config.job_script),
        arguments=[
            str(config.root),
            str(config.site.python),
            str(config.site_file),
            str(config.credentials_file),
            str(jobs.group(group)),
        ],
        chdir=str(config.root),
        output=str(jobs.group_log(group)),
        cpus=spec.resources.cpus,
        memory_mb=spec.resources.memory_mb,
        minutes=minutes,
        warn_seconds=int(config.site.timing.margin(minutes * 60)),
        gres=spec.resources.gres,
        email=spec.resources.email,
    )


def _intend(tools: Tools, job: JobFolder, number: int, spec: JobSpec) -> Optional[Intent]:
    """Writes what is about to happen, once: a submission that is repeated keeps its intent, and so its name.

    None where another pass has just written one: it may have submitted already.
    """
    attempt = job.attempt(number)
    before = folder.read(Intent, attempt.intent)
    if before is not None:
        folder.remove(attempt.absent)  # what Slurm says from now on is about the new submission
        return before
    group = _new_group(tools.now())
    intent = Intent(
        group=group,
        name=f"bf-{tools.config.site.installation}-{group}",
        element=0,
        time_limit=_minutes(spec) * 60,
        at=tools.now(),
    )
    folder.write(tools.jobs.group(group), Group(members=((job.id, number),)))
    if folder.claim_name(attempt.intent, intent):
        return intent
    folder.remove(tools.jobs.group(group))
    return None


def _minutes(spec: JobSpec) -> int:
    """Slurm counts in minutes."""
    return math.ceil(spec.resources.time_seconds / 60)


def _new_group(now: float) -> str:
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"
