"""The worker inside a job: its own time beyond fetch, run and publish, and its memory against the sizes it handles.

check.py claims and submits as ever, to a command that passes for sbatch; then `python -m worker run` runs here with the
arguments that sbatch was given, watched by observed.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pika

from bench import ground
from bench.ground import Ground
from tests.services.upstream import Upstream

_MB = 2**20
_OVERHEAD_BUDGET = 0.5
_BODY_BUDGET = 2.5
_INPUT_BUDGET_MB = 5.0
"""What may still differ by chance between a job with a small input and one with a large input."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of the input and of the output."""

    input: int
    output: int


@dataclass(frozen=True)
class Seen:
    """Of one job: the worker's peak memory in MB, its seconds beyond fetch, run and publish, and its reply's size in MB."""

    peak_mb: float
    overhead: float
    body_mb: float


def main() -> int:
    options = _parser().parse_args()
    small, large = _MB, 500 * _MB
    with ground.prepared(options.credentials, options.ca_file) as place, Upstream() as upstream:
        place.write_credentials(
            place.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
        )
        _seen(place, upstream, Sizes(small, 1000))  # warms up
        usual = [_seen(place, upstream, Sizes(small, 1000)) for _ in range(options.runs)]
        large_input = _seen(place, upstream, Sizes(large, 1000))
        large_output = _seen(place, upstream, Sizes(small, 50 * _MB))
    base = median(seen.peak_mb for seen in usual)
    overhead = median(seen.overhead for seen in usual)
    per_body = (large_output.peak_mb - base) / large_output.body_mb
    held = overhead <= _OVERHEAD_BUDGET and large_input.peak_mb - base <= _INPUT_BUDGET_MB and per_body <= _BODY_BUDGET
    facts = {
        "overhead_seconds": round(overhead, 3),
        "overhead_budget": _OVERHEAD_BUDGET,
        "peak_mb": round(base, 1),
        "peak_mb_input_500_mb": round(large_input.peak_mb, 1),
        "peak_mb_output_50_mb": round(large_output.peak_mb, 1),
        "body_mb": round(large_output.body_mb, 1),
        "more_memory_per_body": round(per_body, 2),
        "budget_per_body": _BODY_BUDGET,
        "runs": options.runs,
        "within_budget": held,
    }
    ground.show(facts, options.json)
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="small jobs that count (default: %(default)s)")
    parser.add_argument("--credentials", type=Path, metavar="FILE",
                        help="use the broker that this credentials.env names (default: a private one is started)")  # fmt: skip
    parser.add_argument("--ca-file", default="", metavar="FILE", help="certificates that TLS trusts")
    parser.add_argument("--json", action="store_true")
    return parser


def _seen(place: Ground, upstream: Upstream, sizes: Sizes) -> Seen:
    """One job from the queue to its reply."""
    source = place.folder / "input"
    with open(source, "wb") as file:
        file.truncate(sizes.input)
    path = f"/{uuid.uuid4()}"
    upstream.add(path, source)
    place.write_site(f'head -c {sizes.output} /dev/urandom >"$0"/outputs/00_Result.bin')
    with pika.BlockingConnection(place.broker.parameters()) as connection:
        channel = connection.channel()
        replies = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_declare(place.queue)
        properties = pika.BasicProperties(reply_to=replies, correlation_id=path)
        channel.basic_publish("", place.queue, json.dumps({"inputs": {"Image": path}, "settings": {}}), properties)
        _run(place.check())
        seen = _watched(place)
        (body,) = (body for _, _, body in [channel.basic_get(replies, auto_ack=True)] if body)
    if len(body) < sizes.output * 4 / 3:
        raise AssertionError(f"the job failed: {body[:500]!r}")
    return Seen(seen["peak_mb"], seen["own_seconds"], len(body) / _MB)


def _watched(place: Ground) -> dict[str, float]:
    """The worker as slurm/job.sh starts it, apart from the observer around it."""
    _root, python, site, credentials, group = place.sbatch_arguments()[-5:]
    notes = place.folder / "notes.json"
    _run(
        [python, "-m", "bench.observed", str(notes), "run", "--site", site, "--credentials", credentials, "--group", group,
         "--element", "0", "--scheduler-id", "1", "--confined", "yes"]
    )  # fmt: skip
    return dict(json.loads(notes.read_text()))


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, env=ground.ENVIRONMENT, cwd=ground.ROOT, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}: {done.stdout.decode()}{done.stderr.decode()}")


if __name__ == "__main__":
    sys.exit(main())
