"""The demo's installation: a site file, credentials and a scanned page in .demo, made anew for each run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from demo import beside, training
from scheduler import Phase, SlurmJobId, Unavailable
from scheduler.local import Local
from slurm.cluster import Slurm
from tests.services.upstream import Upstream

ROOT = training.ROOT
BINARIZE, TRAINER = "binarize", "patchwise_trainer"
FOLDER = ROOT / ".demo"
_ENVIRONMENT = ROOT / "workloads" / BINARIZE / ".venv"

_SITE = """\
# Made by ./run_demo.
jobs_dir = {jobs}
scheduler = {scheduler}
broker = {broker}
broker_file = {broker_file}
{beside}
[timing]
visible_after = {visible_after}

[[queues]]
name = {queue}
workload = {workload}

[queues.resources]
memory_mb = {memory_mb}
time = {time}

[queues.resources.names]
cpus = "CPUs"
memory_mb = "Maximum memory (MB)"
time = "Maximum time (D-HH:MM)"

"""
_BLOCK = """\
[workloads.binarize]
argv = {argv}
prefix = {prefix}

[[workloads.binarize.forms]]
required = ["Page"]
outputs = {{ "Clean Page" = ".png", "Report" = ".json" }}
"""


@dataclass(frozen=True)
class Setting:
    folder: Path
    credentials: Path
    queue: str
    page: Path
    """What the answer is shown beside."""
    inputs: dict[str, str]
    settings: dict[str, Any]
    workload: str
    environment: dict[str, str]
    local: bool
    bin_dir: str = ""

    def end(self) -> None:
        """No process stays behind."""
        if not self.local:
            self._end_on_slurm()
            return
        jobs = Local(self.folder / "jobs" / "local")
        end = time.monotonic() + 15
        while time.monotonic() < end:
            running = [view.slurm_id for view in jobs.queue() if view.phase is Phase.RUNNING]
            if not running:
                return
            jobs.cancel(running)
            time.sleep(0.1)

    def _end_on_slurm(self) -> None:
        submissions = (self.folder / "jobs" / "active").glob("*/attempts/*/submission.json")
        ids = [SlurmJobId(json.loads(file.read_text())["slurm_id"]) for file in submissions]
        if ids:
            with contextlib.suppress(Unavailable):
                Slurm(self.bin_dir).cancel(ids)


def prepare(
    upstream: Upstream,
    slurm: bool,
    credentials: Optional[Path],
    failure: Optional[str],
    workload: str,
    site: Mapping[str, Any],
) -> Setting:
    """Makes .demo anew, except for the packages' log. `site`: what is taken over from the installation beside it."""
    folder = FOLDER
    for name in ("jobs", "answer", "pages", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for leftover in (*folder.glob("broker.sqlite*"), *folder.glob(".site.toml.installed")):
        leftover.unlink()
    (folder / "tmp").mkdir()
    if workload == TRAINER:
        inputs, settings = training.add_pages(upstream, folder / "pages")
        page = folder / "pages" / "Image.png"
    else:
        page = next(_ENVIRONMENT.glob("lib/python3*/site-packages/skimage/data/page.png"))
        upstream.add("/uploads/page.png", page)
        inputs = {"Page": "/uploads/gone.png" if failure == "input" else "/uploads/page.png"}
        settings = {"Window size": 24 if failure == "exit" else 25, "k": 0.2, **_limits(failure)}
    queue = f"batchferry-demo-{os.getpid()}" if credentials else "demo-jobs"
    (folder / "site.toml").write_text(
        _site(folder, queue, slurm, credentials is not None, failure, workload, beside.as_lines(site))
    )
    return Setting(
        folder=folder,
        credentials=_credentials(folder, upstream, credentials),
        queue=queue,
        page=page,
        inputs=inputs,
        settings=settings,
        workload=workload,
        environment=_environment(folder),
        local=not slurm,
        bin_dir=beside.bin_dir(site),
    )


def _limits(failure: Optional[str]) -> dict[str, Any]:
    if failure == "time":
        return {"Maximum time (D-HH:MM)": "0-00:01"}
    return {"Maximum memory (MB)": 50} if failure == "memory" else {}


def _site(
    folder: Path, queue: str, slurm: bool, rabbitmq: bool, failure: Optional[str], workload: str, more: str
) -> str:
    trains = workload == TRAINER
    return _SITE.format(
        jobs=json.dumps(str(folder / "jobs")),
        scheduler=json.dumps("slurm" if slurm else "local"),
        broker=json.dumps("rabbitmq" if rabbitmq else "embedded"),
        broker_file=json.dumps(str(folder / "broker.sqlite")),
        visible_after=json.dumps("5s" if slurm else "0s"),
        beside=more,
        queue=json.dumps(queue),
        workload=json.dumps(workload),
        memory_mb=3000 if trains else 1000,
        time=json.dumps("30min" if trains else "2min"),
    ) + (training.site_block() if trains else _binarize_block(slurm, failure))


def _binarize_block(slurm: bool, failure: Optional[str]) -> str:
    argv = [str(_ENVIRONMENT / "bin" / "python"), "{root}/workloads/binarize/binarize.py", "{job}"]
    # Without Slurm nothing limits memory; the demo lets the kernel refuse it, so that the failure can be seen.
    prefix = {"memory": ["prlimit", "--as=100000000"], "time": ["sh", "-c", "sleep 600"]}.get(failure or "", [])
    if slurm and failure == "memory":
        prefix = []
    return _BLOCK.format(argv=json.dumps(argv), prefix=json.dumps(prefix))


def _credentials(folder: Path, upstream: Upstream, given: Optional[Path]) -> Path:
    """The sample service's address and password; those of the broker are the given file's."""
    text = given.read_text() + "\n" if given else ""
    file = folder / "credentials.env"
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    file.touch(mode=0o600)
    file.write_text(f"{text}API_URL={upstream.url}\nAPI_USER={upstream.user}\nAPI_PASSWORD={upstream.password}\n")
    return file


def _environment(folder: Path) -> dict[str, str]:
    """As little as cron gives; TMPDIR keeps run_check's lock inside this folder."""
    passed_on = {name: os.environ[name] for name in ("SLURM_CONF", "HOME") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder / "tmp"), **passed_on}
