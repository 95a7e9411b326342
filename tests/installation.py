"""An installation of Batchferry for one test: its own folder with credentials.env, site.toml and jobs, and its own queues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.job.names import JobId

ROOT = Path(__file__).resolve().parent.parent

SITE = """\
jobs_dir = {jobs}
python = {python}
max_in_flight = 300

[replies]
retry_wait = "1s"

[slurm]
poll_fastest = 0
poll_slowest = 0

[timing]
visible_after = "3s"
adopt_after = "3s"
lost_after = "6s"
cut_off_after = "6s"
publish_patience = "3s"
hopeless_after = "3s"

[[queues]]
name = {queue}
workload = "probe"

[queues.resources]
memory_mb = 200
max_memory_mb = 257000
max_gpus = 4
time = "5min"
gpus_by_memory = {gpus}

[queues.resources.names]
cpus = "CPUs"
memory_mb = "Maximum memory (MB)"
time = "Maximum time (D-HH:MM)"
email = "Slurm Notification Email"

[workloads.probe]
argv = ["{{python}}", "{{root}}/tests/workloads/probe.py", "{{job}}"]
retry = {retry}
stop_wait = "2s"

[[workloads.probe.forms]]
required = ["Image"]
outputs = {{ "Result" = ".txt" }}

[[workloads.probe.forms]]
required = ["Image", "Background", "Music Layer", "Staff Layer", "Text", "Selected Regions"]
outputs = {{ "Background Model" = ".h5", "Music Symbol Model" = ".h5", "Staff Lines Model" = ".h5", "Text Model" = ".h5" }}

[[workloads.probe.forms]]
required = ["Image", "Background", "Selected Regions", "rgba PNG - Layer {{n}}"]
outputs = {{ "Background Model" = ".h5", "Model {{n}}" = ".h5" }}
"""


class Installation:
    """`folder` is where everything of it lives; the code is the checkout's."""

    def __init__(self, folder: Path, rabbitmq: Any, api_url: str, api_user: str, api_password: str,
                 environment: Mapping[str, str], queue: str, gpus: str = "[]", retry: str = "{ attempts = 1 }",
                 more: str = "",
                 rabbitmq_port: Optional[int] = None) -> None:  # fmt: skip
        self.folder = folder
        self.queue = queue
        self.environment = environment
        self.site_file = folder / "site.toml"
        self.credentials_file = folder / "credentials.env"
        self.jobs = JobsFolder(folder / "jobs")
        folder.mkdir(parents=True, exist_ok=True)
        self.site_file.write_text(SITE.format(
            jobs=json.dumps(str(folder / "jobs")), python=json.dumps(sys.executable), queue=json.dumps(queue),
            gpus=gpus, retry=retry,
        ) + more)  # fmt: skip
        self.write_credentials(
            f"export RABBITMQ_HOST={rabbitmq.host}\nexport RABBITMQ_PORT={rabbitmq_port or rabbitmq.port}\n"
            f"export RABBITMQ_USER={rabbitmq.user}\nexport RABBITMQ_PASSWORD={rabbitmq.password}\n"
            f"export RABBITMQ_VHOST={rabbitmq.vhost}\n"
            f"export RODAN_HOST={api_url}\nexport RODAN_USER={api_user}\nexport RODAN_PASSWORD={api_password}\n"
        )

    def write_credentials(self, text: str) -> None:
        self.credentials_file.touch(mode=0o600)
        self.credentials_file.write_text(text)

    def change_site(self, old: str, new: str) -> None:
        """What is put before [timing] and begins with [slurm] continues the table that is there."""
        text = self.site_file.read_text()
        assert old in text
        new = new.removeprefix("[slurm]\n") if old == "[timing]" and "[slurm]" in text else new
        self.site_file.write_text(text.replace(old, new))

    def check(self, *arguments: str, expect: int | None = 0, stderr: bool = True, **environment: str) -> str:
        """Runs check.py as cron's environment would, and returns what it printed; on `stderr` too, if wanted."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "check.py"), *arguments, "--site", str(self.site_file), "--credentials",
             str(self.credentials_file)],
            env={**self.environment, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if expect is not None:
            assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if stderr else "")

    def passes_until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """Pass after pass, as cron would, until `condition` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.describe()}"
            self.check("--drain", expect=None)
            time.sleep(0.5)

    def active(self) -> list[JobFolder]:
        return list(self.jobs.active_jobs()) if self.jobs.active.exists() else []

    def job(self, job_id: str) -> JobFolder:
        """Wherever it is now."""
        found = self.jobs.find(JobId(job_id))
        assert found is not None, job_id
        return found

    def describe(self) -> str:
        """Every small file of every active job, for the reader of a failed test."""
        files = (
            f for job in self.active() for f in sorted(job.path.rglob("*")) if f.is_file() and f.stat().st_size < 5000
        )
        return "\n".join(
            f"--- {f.relative_to(self.jobs.path)}\n{f.read_text(errors='replace')}" for f in files if f.name != "token"
        )


def cron_environment(slurm_environment: Mapping[str, str]) -> dict[str, str]:
    """As little as cron gives, and the way to this test's Slurm."""
    return {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "SLURM_CONF": slurm_environment["SLURM_CONF"]}


def holding(folder: Path) -> str:
    """A setting of [slurm] with which each job is on hold from its submission on."""
    return wrapping(folder, 'exec sbatch --hold "$@"')


def wrapping(folder: Path, script: str, command: str = "sbatch") -> str:
    """A setting of [slurm] with which `script` is called as `command`, as a site's own wrapper around it would be; in it,
    `command` is the real one. `folder`: where it may lie, beside others' files."""
    wrapper = folder / "wrapper" / command
    wrapper.parent.mkdir(exist_ok=True)
    # What comes first on its PATH is its own folder.
    wrapper.write_text(f"#!/bin/sh\nPATH=${{PATH#*:}}\n{script}\n")
    wrapper.chmod(0o700)
    return f"bin_dir = {json.dumps(str(wrapper.parent))}"
