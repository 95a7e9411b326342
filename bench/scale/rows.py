"""`bench/scale/run`: tables for the README. Runs are interleaved with the peers'; figures are medians.

Each table says on which machine it was made; compare within a table only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ground import machine, prepared
from bench.scale import latency, on_slurm, passes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class System:
    name: str
    seconds: Callable[[int], float]
    durability: str


def main() -> int:
    options = _parser().parse_args()
    peers = Path(options.peers)
    tables = {
        "jobs": lambda: _jobs(peers, options.jobs, options.runs),
        "slurm": lambda: on_slurm.table(peers, 100, options.runs),
        "claims": lambda: _claims(options.runs),
        "passes": lambda: [passes.in_flight(count, options.runs) for count in (1, 1000, 10_000)],
        "latency": lambda: [
            latency.by_passes(20), latency.watched("job", 50), latency.watched("pilot", 200),
        ],
        "growth": lambda: [_growth(count) for count in (100, 1000, 10_000, 100_000)],
    }  # fmt: skip
    told: dict[str, Any] = {"machine": machine()}
    print(f"On {machine()}:", flush=True)
    for name in options.table or tables:
        told[name] = tables[name]()
        if not options.json:
            _show(name, told[name])
    if options.json:
        print(json.dumps(told, indent=1))
    return 0


def _jobs(peers: Path, count: int, runs: int) -> list[dict[str, Any]]:
    """/bin/true, so many times, on two CPUs of this machine."""
    systems = [
        System("floor: posix_spawn and wait, 2 processes", _module("bench.scale.floor"), "none"),
        System("Batchferry, watch and one pilot", _module("bench.scale.ours", "--jobs"),
               "claimed, result and answer each synced to disk; persistent messages, confirmed"),
        System("Celery, prefork, acks_late, rpc results", _celery(peers), "message until done; results are not synced"),
        System("Parsl HTEX", _peer(peers, "peer_parsl.py"), "none: lives in the submitting process"),
        System("HyperQueue, local cluster", _peer(peers, "peer_hyperqueue.py"), "none without its journal"),
    ]  # fmt: skip
    seen: dict[str, list[float]] = {system.name: [] for system in systems}
    for number in range(runs):
        for system in systems:
            seen[system.name].append(system.seconds(count))
            print(f"run {number + 1}: {system.name}: {seen[system.name][-1]:.2f} s", file=sys.stderr, flush=True)
    return [
        {"system": each.name, "jobs/s": round(count / statistics.median(seen[each.name])),
         "least": round(count / max(seen[each.name])), "most": round(count / min(seen[each.name])),
         "what survives a power failure": each.durability}
        for each in systems
    ]  # fmt: skip


def _module(name: str, *before: str) -> Callable[[int], float]:
    return lambda count: _seconds([sys.executable, "-m", name, *before, str(count)], {})


def _peer(peers: Path, script: str, **environment: str) -> Callable[[int], float]:
    return lambda count: _seconds([str(peers), str(HERE / script), str(count)], {"PATH": _path(peers), **environment})


def _path(peers: Path) -> str:
    return f"{peers.parent}:{os.environ['PATH']}"


def _celery(peers: Path) -> Callable[[int], float]:
    def seconds(count: int) -> float:
        with prepared(None, "") as ground:
            b = ground.broker
            vhost = "" if b.vhost == "/" else b.vhost
            url = f"amqp://{b.user}:{b.password}@{b.host}:{b.port}/{vhost}"
            return _peer(peers, "peer_celery.py", BENCH_BROKER=url, BENCH_QUEUE=ground.queue)(count)

    return seconds


def _seconds(argv: list[str], environment: dict[str, str]) -> float:
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv)} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def _claims(runs: int) -> list[dict[str, Any]]:
    """1,000 equal messages: claimed, acked, submitted; beside a bare loop of get, write and fsync, ack."""
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "floor: get, write + fsync, ack": lambda: passes.bare_loop(1000),
        "Batchferry, arrays": lambda: passes.claimed_and_submitted(1000),
        "Batchferry, one sbatch each": lambda: passes.claimed_and_submitted(1000, "one"),
    }
    seen: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, run in ways.items():
            seen[way].append(run())
    return [
        {"way": way, "wall": statistics.median(each["wall"] for each in found), "sbatch": found[0].get("sbatch", 0),
         "slurm commands": found[0].get("slurm commands", 0)}
        for way, found in seen.items()
    ]  # fmt: skip


def _growth(count: int) -> dict[str, Any]:
    argv = [sys.executable, "-m", "bench.scale.ours", "--jobs", str(count)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"queued jobs": count, "jobs/s": round(count / found["seconds"]), "watch, MB": found["watch_mb"],
            "watch and pilot, MB": found["all_mb"]}  # fmt: skip


def _show(name: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    print(f"\n{name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(f'{value:.3f}' if isinstance(value, float) else str(value) for value in row.values())} |")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/scale/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="*", help="jobs, slurm, claims, passes, latency, growth (default: all)")
    parser.add_argument("--jobs", type=int, default=10_000, help="how many in the table of jobs (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (default: %(default)s)")
    parser.add_argument("--peers", default=str(HERE / ".venv" / "bin" / "python"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
