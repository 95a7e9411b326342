"""What a pass costs, by what is in flight: its wall, its Slurm commands, and the files below jobs/ that it opens."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from bench.ground import ENVIRONMENT, Ground, prepared
from bench.scale_ground import fill_active
from tests.services.upstream import Upstream

_SQUEUE = "#!/bin/sh\necho squeue >>'{calls}'\ncat '{rows}'\n"
BODY = b'{"inputs": {"Image": "/a"}, "settings": {}}'


def in_flight(count: int, runs: int) -> dict[str, Any]:
    """Passes with so many jobs in flight of which nothing changes, each with one squeue."""
    with prepared(None, "") as ground:
        ground.site_file.write_text(
            ground.site_file.read_text().replace(
                "[slurm]\n", '[slurm]\npoll_fastest = "0s"\npoll_slowest = "0s"\ncommands_at_once = 1000000\n'
            )
        )
        ground.jobs.prepare()
        rows = ground.folder / "rows"
        rows.write_text("".join(fill_active(ground.jobs, count, time.time(), ground.queue)))
        squeue = ground.shims / "squeue"
        squeue.write_text(_SQUEUE.format(calls=ground.shims / "calls", rows=rows))
        _declare(ground)
        first = _timed(ground.check("--drain"))
        before = ground.slurm_calls()
        walls = [_timed(ground.check("--drain")) for _ in range(runs)]
        calls = (ground.slurm_calls() - before - 1) / runs
        return {
            "in flight": count, "wall": statistics.median(walls), "first pass": first,
            "slurm commands": round(calls, 1), "files opened": _opened(ground),
        }  # fmt: skip


def claimed_and_submitted(count: int, mode: str = "arrays") -> dict[str, Any]:
    """So many equal messages: claimed, acked and submitted by one pass. `mode`: arrays, or "one" sbatch for each job."""
    with prepared(None, "") as ground, Upstream() as upstream:
        size = 1000 if mode == "arrays" else 1
        ground.site_file.write_text(
            ground.site_file.read_text()
            .replace("[slurm]\n", f"[slurm]\narray_size = {size}\ncommands_at_once = 1000000\n")
            .replace("jobs_dir", f"max_in_flight = {count}\njobs_dir", 1)
        )
        ground.write_credentials(
            ground.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
        )
        scontrol = ground.shims / "scontrol"
        scontrol.write_text("#!/bin/sh\necho scontrol >>\"${0%/*}/calls\"\necho 'MaxArraySize            = 1001'\n")
        scontrol.chmod(0o755)
        _publish(ground, count)
        before = ground.slurm_calls()
        wall = _timed(ground.check("--drain"))
        sbatches = (ground.shims / "calls").read_text().split().count("sbatch")
        return {
            "messages": count,
            "wall": wall,
            "sbatch": sbatches,
            "slurm commands": ground.slurm_calls() - before - 1,
        }


def bare_loop(count: int) -> dict[str, Any]:
    """The floor of claiming: get, write and fsync, ack."""
    with prepared(None, "") as ground:
        _publish(ground, count)
        script = ground.folder / "bare.py"
        script.write_text(_BARE)
        place = ground.folder / "claimed"
        place.mkdir()
        b = ground.broker
        return {"messages": count, "wall": _timed(
            [sys.executable, str(script), b.host, str(b.port), b.user, b.password, b.vhost, ground.queue, str(place)]
        )}  # fmt: skip


_BARE = """\
import os, sys, pika
host, port, user, password, vhost, queue, place = sys.argv[1:]
connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port), vhost, pika.PlainCredentials(user, password)))
channel = connection.channel()
number = 0
while True:
    method, properties, body = channel.basic_get(queue)
    if method is None:
        break
    number += 1
    with open(os.path.join(place, str(number)), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    channel.basic_ack(method.delivery_tag)
connection.close()
"""


def _declare(ground: Ground) -> None:
    _publish(ground, 0)


def _publish(ground: Ground, count: int) -> None:
    import pika

    with pika.BlockingConnection(ground.broker.parameters()) as connection:
        channel = connection.channel()
        channel.queue_declare(ground.queue, durable=True)
        for number in range(count):
            properties = pika.BasicProperties(reply_to="nobody", correlation_id=str(number), delivery_mode=2)
            channel.basic_publish("", ground.queue, BODY, properties)


def _opened(ground: Ground) -> int:
    file = ground.folder / "opened"
    argv = ground.check("--drain")[2:]
    counted = [sys.executable, "-m", "bench.scale.counted", str(file), str(ground.jobs.path), *argv]
    subprocess.run(counted, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return int(file.read_text())


def _timed(argv: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(argv, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {argv[1]} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - begun
