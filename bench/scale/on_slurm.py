"""Trivial jobs on a real Slurm, from message to answer: 10 kB in, 100 bytes out. Ours, and Galaxy Pulsar's.

The cluster is the tests' own: three nodes on this machine, with accounting and enforced memory limits.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.ground import ENVIRONMENT, Ground, prepared
from bench.scale.latency import percentiles
from bench.scale.ours import Requester, rss_mb, watching
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

HERE = Path(__file__).resolve().parent
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo")
INPUT = "/input"
BODY = json.dumps({"inputs": {"Image": INPUT}, "settings": {}}).encode()
_SILENCE = 300.0
"""Seconds without an answer after which it is given up."""

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


def _environment(cluster: SlurmCluster, first: str = "") -> dict[str, str]:
    """As little as cron gives, and where Slurm's configuration is. `first`: what PATH begins with."""
    return {**ENVIRONMENT, "PATH": f"{first}/usr/bin:/bin", "SLURM_CONF": cluster.environment()["SLURM_CONF"]}


# --- ours


def _ours(cluster: SlurmCluster, mode: str, count: int) -> dict[str, Any]:
    with prepared(None, "") as ground, Upstream() as upstream:
        calls = _count_commands(cluster, ground.shims)
        _install(ground, upstream, mode)
        with watching(ground, _environment(cluster)) as watch:
            requester = Requester(ground, BODY, lambda answer: b"Result" in answer)
            requester.ask(1)
            requester.read(1, _SILENCE)
            calls.write_text("")
            begun = requester.ask(count)
            ends = requester.read_each(count, _SILENCE)
            said = calls.read_text().split()
            megabytes = rss_mb([psutil.Process(watch.pid)])
            requester.close()
        cluster.run("scancel", "--me")
    each = [ends[name] - begun[name] for name in begun]
    seconds = max(ends.values()) - min(begun.values())
    return {**percentiles(each), "seconds": seconds, "calls": said, "agent_mb": megabytes}


def _install(ground: Ground, upstream: Upstream, mode: str) -> None:
    upstream.add(INPUT, b"x" * 10_000)
    words = {"jobs": str(ground.jobs.path), "python": sys.executable, "shims": str(ground.shims), "queue": ground.queue}
    ground.site_file.write_text(_SITE.format(mode=mode, **{name: json.dumps(word) for name, word in words.items()}))
    ground.write_credentials(
        ground.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
    )


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
        environment = _environment(cluster, f"{shims}:{peers.parent}:")
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            log = b"".join(each.read_bytes() for each in place.glob("agent.log"))[-3000:].decode(errors="replace")
            raise SystemExit(f"bench: Pulsar failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{log}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        said = calls.read_text().split()
        return {**percentiles(found["each"]), "seconds": found["seconds"], "calls": said, "agent_mb": found["agent_mb"]}
