"""`python -m worker run ...`: what the batch script becomes. Logging, arguments, exit codes; the story is in_job/run.py."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from pathlib import Path
from typing import Optional

from .config import read_frozen, read_separately
from .errors import Damaged, Misconfigured
from .folder.batches import pilot_folder
from .folder.facts import JobFolder
from .folder.jobs import JobsFolder
from .folder.paths import GONE, look_anew
from .folder.records import Fact, T
from .in_job.run import read_intended, run
from .in_job.steps import Placement
from .job.facts import Group
from .job.names import JobId
from .settings import Config, Timing

_LOOKS = (5.0, 15.0, 45.0)
"""Seconds after which a folder is looked at anew for what should be there."""


def main() -> int:
    options = _parser().parse_args()
    os.umask(0o077)  # inputs, outputs and all between are for nobody else; the workload inherits it
    try:
        group = _group(options)
        config = read_frozen(Path.cwd(), options.site, options.credentials, group.site if group else "")
    except (Misconfigured, Damaged) as error:
        print(f"worker: {error}", file=sys.stderr)
        return os.EX_CONFIG
    if group is None or str(options.element) not in group.members:
        print(f"worker: no element {options.element} in {options.group}", file=sys.stderr)
        return os.EX_NOINPUT
    patience = config.site.timing.visible_after
    job_id, number = group.members[str(options.element)]
    place = Placement(options.scheduler_id, options.restarts, options.node, options.confined == "yes")
    pilot = pilot_folder(JobsFolder(config.site.jobs_dir), job_id)
    if pilot is not None:
        return _be_a_pilot(config, pilot, place)
    job = JobsFolder(config.site.jobs_dir).job(JobId(job_id))
    try:
        intended = read_intended(job, job.attempt(number), functools.partial(_appears, patience=patience))
    except Damaged as error:
        print(f"worker: {error}", file=sys.stderr)
        return os.EX_CONFIG
    if intended is None:
        print(f"worker: job {job_id} is not among the active jobs; nothing to do", file=sys.stderr)
        return os.EX_NOINPUT
    _log_to(job.attempt(number).log)
    run(config, job, number, place, intended, log_to=sys.stderr.fileno())
    return os.EX_OK


def _be_a_pilot(config: Config, crew: JobFolder, place: Placement) -> int:
    from .in_job import pilot

    if _appears(crew.attempt(1).intent, config.site.timing.visible_after)[0] is None:
        print(f"worker: the pilot {crew.id} is not wanted any more; nothing to do", file=sys.stderr)
        return os.EX_NOINPUT
    _log_to(crew.attempt(1).log)
    try:
        pilot.run(config, crew, place)
        JobsFolder(config.site.jobs_dir).ring(crew.id)
    except (Misconfigured, Damaged) as error:
        logging.error("pilot ends: %s", error)
        return os.EX_CONFIG
    return os.EX_OK


def _group(options: argparse.Namespace) -> Optional[Group]:
    """Where it is late, the site file says for how long it is waited for, if it can be read. Raises Damaged."""
    fact = Fact(options.group, Group)
    group = _read(fact)[0]
    if group is None:
        site, _, _ = read_separately(Path.cwd(), options.site, options.credentials)
        group = _appears(fact, (site.timing if site else Timing()).visible_after)[0]
    return group


def _appears(fact: Fact[T], patience: float) -> tuple[Optional[T], float]:
    """What it says, and when that was written: a network file system may show late what the login node wrote. Its folder is
    looked at anew a few times only, because all elements of an array share it. Raises Damaged."""
    begun, looks = time.monotonic(), [*(each for each in _LOOKS if each < patience), patience]
    while (said := _read(fact))[0] is None:
        if time.monotonic() - begun < looks[0]:
            time.sleep(1)
            continue
        look_anew(fact.path.parent)
        if len(looks) == 1:
            return _read(fact)
        del looks[0]
    return said


def _read(fact: Fact[T]) -> tuple[Optional[T], float]:
    try:
        return fact.read_dated()
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None, 0


def _log_to(path: Path) -> None:
    """From here on everything, of the workload too, goes to the job's own log."""
    log_file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log_file, stream)
    os.close(log_file)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S%z",
    )
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker", description="Runs one job on a compute node. Started by slurm/job.sh."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="fetch the inputs, run the workload, pack and publish the outputs")
    verb.add_argument("--site", type=Path, required=True, help="the site file")
    verb.add_argument("--credentials", type=Path, required=True, help="addresses and secrets")
    verb.add_argument("--group", type=Path, required=True, help="the group file of this submission")
    verb.add_argument("--element", type=int, required=True, help="which member of the group this is")
    verb.add_argument("--scheduler-id", required=True, help="the scheduler's id of this job")
    verb.add_argument("--restarts", type=int, default=0, help="how often the scheduler has restarted it")
    verb.add_argument("--confined", choices=("yes", "no"), default="no", help="whether its control group is its own")
    verb.add_argument("--node", default="", help="the node it runs on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
