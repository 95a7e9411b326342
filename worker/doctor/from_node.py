"""The same checks on a compute node: a small job makes them there, and its answer comes back through the jobs folder.

The environment, the shared disk and the network there are what fails in practice.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

from scheduler import BatchRequest, Declined, JobView, Phase, Refused, Scheduler, SlurmJobId, Unavailable

from ..build import open_scheduler, traits
from ..errors import Damaged
from ..folder.paths import write_bytes
from ..folder.records import Fact
from ..settings import Site
from . import workloads
from .aside import own_folder
from .delays import Watch, do_what_is_watched
from .report import Finding, Report
from .sandbox import look_at_sandboxes
from .subject import Subject

_MINUTES, _MEMORY_MB = 2, 500
_SOME_BYTES = 2**20
_LOOK_EVERY, _ASK_EVERY = 1.0, 5.0
"""Seconds: for the answer, and for what Slurm says."""


@dataclass(frozen=True)
class _Word:
    """What the login node leaves for the compute node to find."""

    said: str
    host: str


def _word(place: Path) -> Fact[_Word]:
    return Fact(place / "word.json", _Word)


# --- on the login node


def look_from_node(report: Report, subject: Subject, patience: float) -> list[Finding]:
    """What was found there. What kept us from looking is in the report."""
    report.begin("job")
    if subject.site is None:
        report.skip("site.toml can't be read")
        return []
    if not traits(subject.site).many_hosts:
        report.skip(f'there is none: scheduler = "{subject.site.scheduler}"')
        return []
    try:
        with own_folder(subject.site.jobs_dir) as place:
            _word(place).write(_Word(place.name, socket.gethostname()))
            with Watch(place) as watch:
                found = _run(report, subject, subject.site, place, patience)
                if found:
                    watch.tell(report, subject.site.timing.visible_after)
            return found
    except OSError as error:
        report.fault(f"{subject.site.jobs_dir}: {error.strerror}", "See the lines about the jobs folder.")
        return []


def _run(report: Report, subject: Subject, site: Site, place: Path, patience: float) -> list[Finding]:
    slurm = open_scheduler(site)
    try:
        slurm_id = slurm.submit(_request(subject, site, place))
    except (Refused, Declined, Unavailable) as error:
        report.fault(str(error), "See the lines about Slurm.")
        return []
    view: Optional[JobView] = None
    try:
        view = _wait(slurm, slurm_id, place / "answer.json", patience, site.timing.visible_after)
        return _tell(report, slurm_id, view, place, site)
    finally:
        if view is None or view.phase is not Phase.ENDED:
            _cancel(slurm, slurm_id)


def _request(subject: Subject, site: Site, place: Path) -> BatchRequest:
    files = (subject.root, site.python, subject.site_file, subject.credentials_file, place)
    return BatchRequest(
        name=f"batchferry{place.name.replace('.', '-')}", script=str(subject.root / "slurm" / "doctor.sh"),
        arguments=[*map(str, files), subject.input], chdir=str(subject.root), output=str(place / "slurm.log"), cpus=1,
        memory_mb=_MEMORY_MB if site.slurm.ask_memory else None, minutes=_MINUTES, warn_seconds=1,
    )  # fmt: skip


def _wait(
    slurm: Scheduler, slurm_id: SlurmJobId, answer: Path, patience: float, visible_after: float
) -> Optional[JobView]:
    """Until the answer is there, or can't come any more; returns what Slurm says of the job then."""
    end, ask_at, ended_at = time.monotonic() + patience, 0.0, None
    view: Optional[JobView] = None
    while time.monotonic() < end and not answer.exists():
        if time.monotonic() >= ask_at:
            view, ask_at = _ask(slurm, slurm_id) or view, time.monotonic() + _ASK_EVERY
        if view is not None and view.phase is Phase.ENDED:
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at > visible_after:
                break
        time.sleep(_LOOK_EVERY)
        os.listdir(answer.parent)  # a network file system looks anew
    return view


def _ask(slurm: Scheduler, slurm_id: SlurmJobId) -> Optional[JobView]:
    try:
        return next((view for view in slurm.queue() if view.slurm_id == slurm_id), None)
    except Unavailable:
        return None


def _cancel(slurm: Scheduler, slurm_id: SlurmJobId) -> None:
    try:
        slurm.cancel([slurm_id])
    except Unavailable:
        return  # it ends by itself after two minutes


def _tell(report: Report, slurm_id: SlurmJobId, view: Optional[JobView], place: Path, site: Site) -> list[Finding]:
    answer = place / "answer.json"
    if answer.exists():
        report.ok(f"job {slurm_id} ran, and its answer came back through the jobs folder")
        return [Finding(**each) for each in json.loads(answer.read_text(encoding="utf-8"))]
    if view is None or view.phase is not Phase.ENDED:
        state = f"{view.state}, {view.reason}" if view else "not shown by squeue"
        report.warn(f"job {slurm_id} gave no answer in time ({state}); it is cancelled",
                    "Try again when the cluster is less busy, or wait longer with --wait.")  # fmt: skip
        return []
    _tell_silence(report, slurm_id, view, place, site)
    return []


def _tell_silence(report: Report, slurm_id: SlurmJobId, view: JobView, place: Path, site: Site) -> None:
    log = place / "slurm.log"
    if not log.exists():
        report.fault(f"job {slurm_id} ended ({view.state}) on {view.node or 'its node'}, and nothing of it is here: "
                     f"{site.jobs_dir} is not the same folder there",
                     "Set jobs_dir in site.toml to a disk that all nodes mount at the same path.")  # fmt: skip
        return
    words = " / ".join(log.read_text(encoding="utf-8", errors="replace").split("\n")[-4:]).strip(" /")
    report.fault(f"job {slurm_id} ended ({view.state}) without an answer and said: {words or 'nothing'}",
                 "The checkout, its .venv and both files must be on a disk that the nodes share.")  # fmt: skip


# --- on the compute node


def answer_from_node(found: Iterable[list[Finding]], place: Path) -> None:
    """Writes what was found here, for the login node to read."""
    do_what_is_watched(place)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    report = Report("jobs folder")
    report.begin("shared")
    try:
        word = _word(place).read()
    except (Damaged, OSError):
        word = None
    if word is not None and word.said == place.name:
        report.ok(f"what {word.host} wrote is here")
    else:
        report.fault(
            "what the login node wrote is not here", "Set jobs_dir in site.toml to a disk that all nodes share."
        )
    findings = [replace(each, node=node) for group in (report.findings, *found) for each in group]
    write_bytes(place / "answer.json", json.dumps([asdict(each) for each in findings]).encode())


def look_at_workloads(report: Report, subject: Subject) -> None:
    """What can be known of a workload only where it runs."""
    if subject.site is None:
        return
    workloads.look_at_workloads(report, subject)
    look_at_sandboxes(report, subject)
    report.begin("scratch")
    _try_scratch(report, subject.site)


def _try_scratch(report: Report, site: Site) -> None:
    """As a job does it: makes a folder there, writes a file, and removes both."""
    from ..in_job.scratch import IN_FOLDER, NoPlace, expanded, new_place

    if site.scratch == IN_FOLDER:
        report.ok("jobs work in their own folders")
        return
    try:
        place = expanded(site.scratch, os.environ)
        with new_place(place, "doctor") as made:
            (made / "file").write_bytes(bytes(_SOME_BYTES))
            room = shutil.disk_usage(made).free // 2**20
        report.ok(f"{place}, {room} MiB free")
    except NoPlace as error:
        report.fault(str(error), "Set scratch in site.toml to a folder that jobs may write to on every node.")
    except OSError as error:
        report.fault(f"{error.filename or site.scratch}: {error.strerror}",
                     "Set scratch in site.toml to a folder that jobs may write to on every node.")  # fmt: skip
