"""N jobs of /bin/true through a watch and one pilot with two CPUs, each answer confirmed and read. ARGUMENTS: --jobs N.

The clock runs from the first message that is published to the last answer that is read. What is up before: the broker, the
watch, and the pilot, which the first jobs have started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Optional

import pika
import psutil

from bench.ground import ENVIRONMENT, Ground, prepared
from tests.services.upstream import Upstream

SITE = """\
jobs_dir = {jobs}
python = {python}
scheduler = "local"
scratch = {scratch}
ca_file = {ca_file}

[timing]
visible_after = "0s"

[[queues]]
name = {queue}
workload = "true"
mode = "{mode}"

[queues.resources]
memory_mb = 100
time = "1min"

[queues.pilot]
cpus = 2
memory_mb = 8000
most = 1
time = "4h"
idle = "1min"
max_open = 200000

[workloads.true]
argv = ["/bin/true"]

[[workloads.true.forms]]
required = []
outputs = {{}}
"""
BODY = b'{"inputs": {}, "settings": {}}'


class Requester:
    """Publishes jobs, all of which have the same body, and reads their answers, on a connection of its own."""

    def __init__(
        self, ground: Ground, body: bytes = BODY, good: Callable[[bytes], bool] = lambda answer: answer == b"{}"
    ) -> None:
        self._body, self._good = body, good
        self._queue, self._answers = ground.queue, f"{ground.queue}-answers"
        self._connection = pika.BlockingConnection(ground.broker.parameters())
        self._channel = self._connection.channel()
        for name in (self._queue, self._answers):
            self._channel.queue_declare(name, durable=True)
        self._asked = 0

    def ask(self, count: int) -> dict[str, float]:
        """When each was published, by its correlation id."""
        published: dict[str, float] = {}
        for _ in range(count):
            self._asked += 1
            published[str(self._asked)] = time.perf_counter()
            properties = pika.BasicProperties(
                reply_to=self._answers, correlation_id=str(self._asked), message_id=str(self._asked), delivery_mode=2
            )
            self._channel.basic_publish("", self._queue, self._body, properties)
        return published

    def read(self, count: int, silence: float = 120) -> float:
        """Reads so many answers; returns when the last one came."""
        return max(self.read_each(count, silence).values())

    def read_each(self, count: int, silence: float = 120) -> dict[str, float]:
        """When each of so many answers came, by its correlation id."""
        seen: dict[str, float] = {}
        self._channel.basic_qos(prefetch_count=1000)
        for method, properties, body in self._channel.consume(self._answers, inactivity_timeout=silence):
            if method is None:
                raise SystemExit(f"bench: {count - len(seen)} answers did not come")
            if not self._good(body):
                raise SystemExit(f"bench: {body!r} is no success")
            seen.setdefault(properties.correlation_id, time.perf_counter())
            if len(seen) % 500 == 0 or len(seen) == count:
                self._channel.basic_ack(method.delivery_tag, multiple=True)
            if len(seen) == count:
                break
        self._channel.cancel()
        return seen

    def close(self) -> None:
        self._channel.queue_delete(self._answers)
        self._connection.close()


@contextlib.contextmanager
def installed(ground: Ground, mode: str = "pilot") -> Iterator[None]:
    with Upstream() as upstream:
        words = {"jobs": str(ground.jobs.path), "python": sys.executable, "scratch": "/dev/shm" if Path("/dev/shm").is_dir()
                 else "/tmp", "ca_file": ground.broker.ca_file, "queue": ground.queue}  # fmt: skip
        ground.site_file.write_text(SITE.format(mode=mode, **{name: json.dumps(word) for name, word in words.items()}))
        ground.write_credentials(
            ground.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
        )
        yield


@contextlib.contextmanager
def watching(ground: Ground, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[subprocess.Popen[bytes]]:
    log = open(ground.folder / "watch.log", "wb")
    with log:
        watch = subprocess.Popen(ground.check("--watch"), env=environment, stdout=log, stderr=log)
        try:
            yield watch
        finally:
            watch.terminate()
            watch.wait(60)


def pilots_of(ground: Ground) -> list[psutil.Process]:
    words = str(ground.site_file)
    return [each for each in psutil.process_iter(["cmdline"]) if words in (each.info["cmdline"] or [])]


def rss_mb(processes: list[psutil.Process]) -> float:
    total = 0
    for each in processes:
        with contextlib.suppress(psutil.Error):
            total += each.memory_info().rss
    return round(total / 1e6, 1)


def measure(count: int, credentials: Optional[Path], ca_file: str) -> dict[str, float]:
    with prepared(credentials, ca_file) as ground, installed(ground), watching(ground) as watch:
        requester = Requester(ground)
        requester.ask(20)
        requester.read(20)
        begun = time.perf_counter()
        requester.ask(count)
        published = time.perf_counter()
        last = requester.read(count)
        memory = {"watch_mb": rss_mb([psutil.Process(watch.pid)]), "all_mb": rss_mb(pilots_of(ground))}
        for each in pilots_of(ground):
            if each.pid != watch.pid:
                with contextlib.suppress(psutil.Error):
                    each.terminate()
        requester.close()
        return {"seconds": last - begun, "publishing": published - begun, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale.ours", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--credentials", type=Path, help="a broker to use, instead of one that is started here")
    parser.add_argument("--ca-file", default="")
    options = parser.parse_args()
    print(json.dumps(measure(options.jobs, options.credentials, options.ca_file)))


if __name__ == "__main__":
    main()
