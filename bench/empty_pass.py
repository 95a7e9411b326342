"""A pass with an empty queue and nothing in flight, against a bare script that imports pika, connects, gets and closes."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench import ground
from bench.connections import CountingProxy
from bench.ground import Ground

_BUDGET = 1.3
_WARM_UP = 3
_BARE = """\
import pika{imports}

connection = pika.BlockingConnection(
    pika.ConnectionParameters({host!r}, {port!r}, {vhost!r}, pika.PlainCredentials({user!r}, {password!r}), ssl_options={tls})
)
connection.channel().basic_get({queue!r})
connection.close()
"""
_TLS = "pika.SSLOptions(ssl.create_default_context(cafile={ca_file!r} or None), {host!r})"


def main() -> int:
    options = _parser().parse_args()
    with ground.prepared(options.credentials, options.ca_file) as place:
        _seconds(place.check())  # makes the queue and the folders
        passes, bare = _interleaved(place.check(), [sys.executable, str(_bare(place))], options.runs)
        slurm_commands = place.slurm_calls()
        connections = None if place.broker.tls else _connections(place)
    ratio = median(a / b for a, b in zip(passes, bare))
    held = ratio <= _BUDGET and slurm_commands == 0 and connections in (1, None)
    facts = {
        "pass_ms": round(median(passes) * 1000, 1),
        "bare_script_ms": round(median(bare) * 1000, 1),
        "ratio": round(ratio, 3),
        "budget": _BUDGET,
        "slurm_commands": slurm_commands,
        "amqp_connections": connections if connections is not None else "not counted: a proxy would break TLS",
        "runs": options.runs,
        "within_budget": held,
    }
    ground.show(facts, options.json)
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.empty_pass", description=__doc__)
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="pairs that count (default: %(default)s)")
    parser.add_argument("--credentials", type=Path, metavar="FILE",
                        help="use the broker that this credentials.env names (default: a private one is started)")  # fmt: skip
    parser.add_argument("--ca-file", default="", metavar="FILE", help="certificates that TLS trusts")
    parser.add_argument("--json", action="store_true")
    return parser


def _bare(place: Ground) -> Path:
    """The floor. Its file holds the password, as credentials.env does."""
    facts = vars(place.broker)
    tls = _TLS.format(**facts) if place.broker.tls else "None"
    script = place.folder / "bare.py"
    script.touch(mode=0o600)
    text = _BARE.format(**{**facts, "tls": tls}, queue=place.queue, imports="\nimport ssl" if place.broker.tls else "")
    script.write_text(text)
    return script


def _interleaved(a: list[str], b: list[str], runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run, pair by pair, so that what else the machine does falls on both."""
    pairs = [(_seconds(a), _seconds(b)) for _ in range(_WARM_UP + runs)][_WARM_UP:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _seconds(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, env=ground.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _connections(place: Ground) -> int:
    """How many a pass opens, in a run of its own."""
    with CountingProxy(place.broker.host, place.broker.port) as proxy:
        credentials = place.write_credentials(place.folder / "proxy.env", proxy=proxy.port)
        _seconds(place.check(credentials=credentials))
        return proxy.count


if __name__ == "__main__":
    sys.exit(main())
