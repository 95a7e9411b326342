"""Submits one attempt of one job: token, group, intent, sbatch, submission.

Each file is on disk before the next step, and sbatch stands between two of them: an intent without a submission means
that Slurm may or may not have the job, and reconcile finds out which. Running this twice for one attempt is harmless:
the Slurm name stays, `singleton` makes a second copy wait for the first, and started.json lets one of them work.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Optional

from slurm import BatchRequest, Refused, Unavailable

from .. import folder, sentences
from ..answer import record
from ..facts import Group, Intent, Submission
from ..folder import JobFolder
from ..outcome import Result
from ..settings import Config
from ..spec import Resources
from .tools import SiteAway, Tools, raise_if_disk

log = logging.getLogger(__name__)


def submit(tools: Tools, job: JobFolder, number: int, resources: Resources) -> None:
    """Raises SiteAway where the site is at fault; then the job waits."""
    attempt = job.attempt(number)
    try:
        folder.make_folder(attempt.path)
        folder.write_bytes(attempt.token, tools.token.encode())
        intent = _intend(tools, job, number, resources)
        if intent is None:
            log.info("another pass is submitting it job=%s attempt=%d", job.id, number)
            return
        tools.check_lease()
        folder.passing("before sbatch")
        slurm_id = tools.scheduler.submit(request(tools.config, intent))
        folder.passing("after sbatch")
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


def request(config: Config, intent: Intent) -> BatchRequest:
    """What Slurm is asked for: the job script, told where everything is."""
    jobs, asked = folder.JobsFolder(config.site.jobs_dir), intent.resources
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
        memory_mb=asked.memory_mb,
        minutes=asked.minutes,
        warn_seconds=int(config.site.timing.margin(asked.minutes * 60)),
        gres=asked.gres,
        email=asked.email,
    )


def _intend(tools: Tools, job: JobFolder, number: int, resources: Resources) -> Optional[Intent]:
    """Writes what is about to happen, once: a submission that is repeated keeps its intent, and so its name.

    None where another pass has just written one: it may have submitted already.
    """
    attempt = job.attempt(number)
    before = folder.read(Intent, attempt.intent)
    if before is None:
        group = _new_group(tools.now())
        name = f"bf-{tools.config.site.installation}-{group}"
        intent = Intent(group=group, name=name, element=0, resources=resources, at=tools.now())
        if not folder.claim_name(attempt.intent, intent):
            return None
    else:
        intent = before
        folder.remove(attempt.absent)  # what Slurm says from now on is about the new submission
    # After the intent that names it, so that a crash in between leaves no group that nobody knows of.
    folder.write(tools.jobs.group(intent.group), Group(members=((job.id, number),)))
    return intent


def _new_group(now: float) -> str:
    return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"
