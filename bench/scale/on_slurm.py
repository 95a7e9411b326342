"""Trivial jobs on a real Slurm, from message to answer: 10 kB in, 100 bytes out. Ours, and Galaxy Pulsar's.

The cluster is the tests' own: three nodes on this machine, with accounting and enforced memory limits.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import psutil

from bench.ground import Ground, prepared
from bench.scale.ours import rss_mb
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

HERE = Path(__file__).resolve().parent
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
INPUT = "/input"

_SITE = """\
jobs_dir = {jobs}
python = {python}
max_in_flight = 1000

[slurm]
bin_dir = {shims}

[[queues]]
name = {queue}
workload = "head"
mode = "{mode}"

[queues.resources]
memory_mb = 200
time = "5min"

[queues.pilot]
cpus = 2
memory_mb = 800
most = 1
time = "1h"
idle = "1min"

[workloads.head]
argv = ["/bin/sh", "-c", "head -c 100 inputs/* >outputs/00_Result.bin"]

[[workloads.head.forms]]
required = ["Image"]
outputs = {{ "Result" = ".bin" }}
"""
_SHIM = """\
#!/bin/sh
echo {command} >>'{calls}'
SLURM_CONF='{conf}' exec {real} "$@"
"""


def table(peers: Path, count: int, runs: int) -> list[dict[str, Any]]:
    """In every run one job goes before, to see that all is up."""
    ways: dict[str, Callable[[SlurmCluster], dict[str, Any]]] = {
        "Batchferry, watch, a Slurm job each": lambda cluster: _ours(cluster, "job", count),
        "Batchferry, watch and one pilot": lambda cluster: _ours(cluster, "pilot", count),
        "Galaxy Pulsar, queued_cli": lambda cluster: _pulsar(cluster, peers, count),
    }
    seen: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    place = tempfile.TemporaryDirectory(prefix="batchferry-bench-slurm-")
    with place as name, SlurmCluster(Path(name) / "slurm") as cluster:
        for number in range(runs):
            for way, run in ways.items():
                seen[way].append(run(cluster))
                said = f"{seen[way][-1]['seconds']:.1f} s"
                print(f"run {number + 1}: {way}: {said}", file=sys.stderr, flush=True)
    return [_row(way, found) for way, found in seen.items()]


def _row(way: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    def median(name: str) -> float:
        return float(statistics.median(each[name] for each in found))

    calls = found[-1]["calls"]
    return {
        "system": way, "wall": median("seconds"), "p50": median("p50"), "p99": median("p99"),
        "Slurm commands": ", ".join(f"{calls.count(each)} {each}" for each in COMMANDS if each in calls) or "none",
        "agent, MB": round(median("agent_mb")),
    }  # fmt: skip


def _told(each: list[float], **more: Any) -> dict[str, Any]:
    in_order = sorted(each)
    return {"p50": statistics.median(each), "p99": in_order[min(len(each) - 1, int(len(each) * 0.99))], **more}


def _count_commands(cluster: SlurmCluster, folder: Path) -> Path:
    """Slurm's commands, each of which leaves a line in `calls`."""
    folder.mkdir(exist_ok=True)
    environment = cluster.environment()
    for command in COMMANDS:
        real = shutil.which(command, path=environment["PATH"])
        shim = folder / command
        shim.write_text(
            _SHIM.format(command=command, calls=folder / "calls", conf=environment["SLURM_CONF"], real=real)
        )
        shim.chmod(0o755)
    return folder / "calls"


# --- ours


def _ours(cluster: SlurmCluster, mode: str, count: int) -> dict[str, Any]:
    with prepared(None, "") as ground, Upstream() as upstream:
        calls = _count_commands(cluster, ground.shims)
        _install(ground, upstream, mode)
        environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"),
                       "SLURM_CONF": cluster.environment()["SLURM_CONF"]}  # fmt: skip
        with open(ground.folder / "watch.log", "wb") as log:
            watch = subprocess.Popen(ground.check("--watch"), env=environment, stdout=log, stderr=log)
            try:
                requester = _Requester(ground)
                requester.all_of(1)
                calls.write_text("")
                each, seconds = requester.all_of(count)
                said = calls.read_text().split()
                megabytes = rss_mb([psutil.Process(watch.pid)])
                requester.close()
            finally:
                watch.terminate()
                watch.wait(60)
                cluster.run("scancel", "--me")
    return _told(each, seconds=seconds, calls=said, agent_mb=megabytes)


def _install(ground: Ground, upstream: Upstream, mode: str) -> None:
    upstream.add(INPUT, b"x" * 10_000)
    words = {"jobs": str(ground.jobs.path), "python": sys.executable, "shims": str(ground.shims), "queue": ground.queue}
    ground.site_file.write_text(_SITE.format(mode=mode, **{name: json.dumps(word) for name, word in words.items()}))
    ground.write_credentials(
        ground.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
    )


class _Requester:
    def __init__(self, ground: Ground) -> None:
        self._queue, self._answers = ground.queue, f"{ground.queue}-answers"
        self._connection = pika.BlockingConnection(ground.broker.parameters())
        self._channel = self._connection.channel()
        for name in (self._queue, self._answers):
            self._channel.queue_declare(name, durable=True)

    def all_of(self, count: int) -> tuple[list[float], float]:
        """So many jobs at once: the seconds that each took, and all together."""
        body = json.dumps({"inputs": {"Image": INPUT}, "settings": {}}).encode()
        begun: dict[str, float] = {}
        ends: dict[str, float] = {}
        first = time.perf_counter()
        for number in range(count):
            name = f"{count}-{number}"  # an equal message would be the same job
            begun[name] = time.perf_counter()
            properties = pika.BasicProperties(reply_to=self._answers, correlation_id=name, delivery_mode=2)
            self._channel.basic_publish("", self._queue, body, properties)
        for method, properties, reply in self._channel.consume(self._answers, auto_ack=True, inactivity_timeout=300):
            if method is None or b"Result" not in reply:
                raise SystemExit(f"bench: {reply!r} is no success")
            ends[properties.correlation_id] = time.perf_counter()
            if len(ends) == count:
                break
        self._channel.cancel()
        return [ends[number] - begun[number] for number in begun], max(ends.values()) - first

    def close(self) -> None:
        self._channel.queue_delete(self._answers)
        self._connection.close()


# --- Pulsar's


def _pulsar(cluster: SlurmCluster, peers: Path, count: int) -> dict[str, Any]:
    with prepared(None, "") as ground:
        shims = ground.folder / "real"
        calls = _count_commands(cluster, shims)
        b = ground.broker
        place = ground.folder / "pulsar"
        place.mkdir()
        vhost = "" if b.vhost == "/" else b.vhost
        argv = [str(peers), str(HERE / "peer_pulsar.py"), str(count),
                f"amqp://{b.user}:{b.password}@{b.host}:{b.port}/{vhost}", str(place), str(calls)]  # fmt: skip
        environment = {"PATH": f"{shims}:{peers.parent}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"),
                       "SLURM_CONF": cluster.environment()["SLURM_CONF"]}  # fmt: skip
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            log = b"".join(each.read_bytes() for each in place.glob("agent.log"))[-3000:].decode(errors="replace")
            raise SystemExit(f"bench: Pulsar failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{log}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        said = calls.read_text().split()
        return _told(found["each"], seconds=found["seconds"], calls=said, agent_mb=found["agent_mb"])
