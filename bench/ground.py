"""What a measurement stands on: a broker, an installation in a temporary folder, and what passes for Slurm's commands."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pika

from slurm.cluster import Slurm
from worker.config import read_config
from worker.folder.jobs import JobsFolder
from worker.settings import Config

ROOT = Path(__file__).resolve().parent.parent
# As little as cron gives; above all nothing that keeps Python from storing its compiled files.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}

_SITE = """\
jobs_dir = {jobs}
python = {python}
ca_file = {ca_file}

[slurm]
bin_dir = {shims}

[[queues]]
name = {queue}
workload = "make"

[workloads.make]
argv = ["/bin/sh", "-c", {command}, "{{work}}"]

[[workloads.make.forms]]
required = ["Image"]
outputs = {{ "Result" = ".bin" }}
"""
_CREDENTIALS = """\
RABBITMQ_HOST='{host}'
RABBITMQ_PORT='{port}'
RABBITMQ_USER='{user}'
RABBITMQ_PASSWORD='{password}'
RABBITMQ_VHOST='{vhost}'
RABBITMQ_TLS='{tls}'
API_URL='{api_url}'
API_USER='{api_user}'
API_PASSWORD='{api_password}'
"""
# One line per call, so that calls can be counted; sbatch also keeps its arguments, and takes every job as number 1.
_SHIM = """\
#!/bin/sh
echo "${0##*/}" >>"${0%/*}/calls"
[ "${0##*/}" = sbatch ] || exit 0
printf '%s\\0' "$@" >"${0%/*}/sbatch.arguments"
echo 1
"""


@dataclass(frozen=True)
class Broker:
    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool
    ca_file: str

    def parameters(self) -> pika.ConnectionParameters:
        tls = pika.SSLOptions(ssl.create_default_context(cafile=self.ca_file or None), self.host) if self.tls else None
        login = pika.PlainCredentials(self.user, self.password)
        return pika.ConnectionParameters(self.host, self.port, self.vhost, login, ssl_options=tls)


@dataclass(frozen=True)
class Ground:
    """An installation in `folder`, whose jobs queue is its own. `check()` is the command line of one pass."""

    folder: Path
    broker: Broker
    queue: str

    @property
    def site_file(self) -> Path:
        return self.folder / "site.toml"

    @property
    def credentials_file(self) -> Path:
        return self.folder / "credentials.env"

    @property
    def jobs(self) -> JobsFolder:
        return JobsFolder(self.folder / "jobs")

    @property
    def shims(self) -> Path:
        return self.folder / "bin"

    def check(self, *arguments: str, credentials: Optional[Path] = None) -> list[str]:
        files = ["--site", str(self.site_file), "--credentials", str(credentials or self.credentials_file)]
        return [sys.executable, str(ROOT / "check.py"), *arguments, *files]

    def config(self) -> Config:
        return read_config(ROOT, self.site_file, self.credentials_file)

    def write_credentials(self, file: Path, proxy: Optional[int] = None, **api: str) -> Path:
        """`proxy`: a port of this machine that stands for the broker."""
        known = {"api_url": "http://127.0.0.1:9", "api_user": "nobody", "api_password": "none", **api}
        place = {"host": "127.0.0.1", "port": proxy} if proxy else {}
        facts = {**vars(self.broker), "tls": str(self.broker.tls).lower(), **place}
        file.touch(mode=0o600)
        file.write_text(_CREDENTIALS.format(**facts, **known))
        return file

    def write_site(self, command: str = "true") -> None:
        """`command`: what the workload does, in the words of sh; $0 is its folder."""
        words = {"jobs": str(self.jobs.path), "python": sys.executable, "ca_file": self.broker.ca_file,
                 "shims": str(self.shims), "queue": self.queue, "command": command}  # fmt: skip
        self.site_file.write_text(_SITE.format(**{name: json.dumps(word) for name, word in words.items()}))

    def slurm_calls(self) -> int:
        """How many Slurm commands were run so far; one more, of our own, shows that the count can be trusted."""
        before = self._counted()
        Slurm(str(self.shims)).queue()
        if self._counted() != before + 1:
            raise AssertionError("the commands that pass for Slurm's do not count")
        return before

    def sbatch_arguments(self) -> list[str]:
        return (self.shims / "sbatch.arguments").read_text().split("\0")[:-1]

    def _counted(self) -> int:
        calls = self.shims / "calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0


@contextlib.contextmanager
def prepared(credentials: Optional[Path], ca_file: str) -> Iterator[Ground]:
    """On the broker that `credentials` names, or else on one that is started here and stopped again."""
    with tempfile.TemporaryDirectory(prefix="batchferry-bench-") as name:
        folder = Path(name)
        with _broker(credentials, ca_file, folder) as broker:
            ground = Ground(folder, broker, f"batchferry-bench-{secrets.token_hex(4)}")
            ground.shims.mkdir()
            for command in ("sbatch", "squeue", "sacct", "scancel"):
                shim = ground.shims / command
                shim.write_text(_SHIM)
                shim.chmod(0o755)
            ground.write_site()
            ground.write_credentials(ground.credentials_file)
            try:
                yield ground
            finally:
                with pika.BlockingConnection(broker.parameters()) as connection:
                    connection.channel().queue_delete(ground.queue)


@contextlib.contextmanager
def _broker(credentials: Optional[Path], ca_file: str, folder: Path) -> Iterator[Broker]:
    if credentials is not None:
        yield _named_by(credentials, ca_file, folder)
        return
    from tests.services.broker import start_rabbitmq

    started = start_rabbitmq(folder / "rabbitmq")
    try:
        yield Broker(started.host, started.port, started.user, started.password, started.vhost, tls=False, ca_file="")
    finally:
        started.stop()


def _named_by(credentials: Path, ca_file: str, folder: Path) -> Broker:
    any_site = Ground(folder, Broker("", 0, "", "", "", False, ca_file), "none")
    any_site.write_site()
    c = read_config(ROOT, any_site.site_file, credentials.resolve()).credentials
    password = c.rabbitmq_password.reveal()
    return Broker(
        c.rabbitmq_host, c.rabbitmq_port, c.rabbitmq_user, password, c.rabbitmq_vhost, c.rabbitmq_tls, ca_file
    )


def machine() -> str:
    return f"{os.cpu_count()} CPUs, Python {platform.python_version()}, {platform.system()} {platform.release()}"


def show(facts: dict[str, Any], as_json: bool) -> None:
    facts = {**facts, "machine": machine()}
    lines = [f"{name.replace('_', ' '):<24} {value}" for name, value in facts.items()]
    print(json.dumps(facts, indent=1) if as_json else "\n".join(lines))
