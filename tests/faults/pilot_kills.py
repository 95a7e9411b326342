"""Thousands of jobs through pilots while pilots, their runners, the watch and the broker are killed; then the books are read.

    python -m tests.faults.pilot_kills --jobs 10000 --kills 60 --seed 1

The books are what a consumer of its own reads from RabbitMQ, and what the workload itself wrote down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pika
import psutil

from bench.ground import ENVIRONMENT
from tests.installation import ROOT
from tests.services.broker import start_rabbitmq
from tests.services.upstream import Upstream
from worker.folder.jobs import JobsFolder

SITE = """\
jobs_dir = {jobs}
python = {python}
scheduler = "local"
max_in_flight = 2000

[timing]
visible_after = "0s"
publish_patience = "5s"
lost_after = "3s"
lease_expires = "60s"

[replies]
retry_wait = "1s"

[[queues]]
name = "jobs"
workload = "record"
mode = "pilot"

[queues.resources]
memory_mb = 100
time = "1min"

[queues.pilot]
cpus = 2
memory_mb = 1000
most = 2
jobs_per_pilot = 200
time = "10min"
idle = "5s"
batch = 100

[workloads.record]
argv = ["/bin/sh", "-c", "grep -o 'number [0-9]*' \\"$0\\" >>\\"$1\\"", "{{job}}", {record}]
retry = {{ attempts = 20, wait = 0, on = ["node_failed", "preempted", "fetch", "start", "pack"] }}

[[workloads.record.forms]]
required = []
outputs = {{}}
"""
CREDENTIALS = """\
RABBITMQ_HOST={host}
RABBITMQ_PORT={port}
RABBITMQ_USER={user}
RABBITMQ_PASSWORD={password}
RABBITMQ_VHOST={vhost}
API_URL={api}
API_USER={api_user}
API_PASSWORD={api_password}
"""


class Books:
    """A consumer of its own; it goes on where the broker comes back."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        self._parameters = parameters
        self.answers: dict[str, Counter[tuple[str, bytes, object, object]]] = {}
        self.stop = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self.stop:
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                with pika.BlockingConnection(self._parameters) as connection:
                    channel = connection.channel()
                    channel.basic_qos(prefetch_count=200)
                    for method, properties, body in channel.consume("answers", inactivity_timeout=0.5):
                        if self.stop:
                            break
                        if method is not None:
                            headers = _headers(properties)
                            told = (str(properties.message_id), body, headers["outcome"], headers["attempt"])
                            self.answers.setdefault(str(properties.correlation_id), Counter())[told] += 1
                            channel.basic_ack(method.delivery_tag)
            time.sleep(0.3)

    def close(self) -> None:
        self.stop = True
        self._thread.join(10)


def _headers(properties: pika.BasicProperties) -> dict[str, object]:
    table = properties.headers
    return dict(pika.data.decode_table(table, 0)[0] if isinstance(table, bytes) else table)


class Round:
    def __init__(self, place: Path, jobs: int, kills: int, seed: int) -> None:
        self.place, self.count, self.kills = place, jobs, kills
        self.random = random.Random(seed)
        self.jobs = JobsFolder(place / "jobs")
        self.record = place / "record"
        self.killed: Counter[str] = Counter()
        self.watch: subprocess.Popen[bytes] | None = None

    def run(self) -> list[str]:
        """Returns what is wrong in the books."""
        broker = start_rabbitmq(self.place / "rabbitmq")
        with Upstream() as upstream:
            login = pika.PlainCredentials(broker.user, broker.password)
            parameters = pika.ConnectionParameters(broker.host, broker.port, broker.vhost, login)
            self._install(broker, upstream)
            with pika.BlockingConnection(parameters) as connection:
                channel = connection.channel()
                for queue in ("jobs", "answers"):
                    channel.queue_declare(queue, durable=True)
                channel.confirm_delivery()
                for number in range(self.count):
                    body = json.dumps({"inputs": {}, "settings": {"say": f"number {number}"}}).encode()
                    properties = pika.BasicProperties(reply_to="answers", correlation_id=str(number), delivery_mode=2)
                    channel.basic_publish("", "jobs", body, properties)
            books = Books(parameters)
            try:
                self._kill_now_and_then(broker, books)
                self._until(lambda: len(books.answers) == self.count, 600)
                self._until(self._nothing_left, 120)
            finally:
                if self.watch is not None:
                    self.watch.kill()
                for each in self._processes():
                    each.kill()
                time.sleep(1)
                books.close()
                broker.stop()
        return self._faults(books)

    def _install(self, broker: object, upstream: Upstream) -> None:
        words = {name: json.dumps(str(value)) for name, value in (("jobs", self.jobs.path), ("python", sys.executable))}
        (self.place / "site.toml").write_text(SITE.format(record=json.dumps(str(self.record)), **words))
        file = self.place / "credentials.env"
        file.touch(mode=0o600)
        file.write_text(CREDENTIALS.format(
            api=upstream.url, api_user=upstream.user, api_password=upstream.password, **{
                name: getattr(broker, name) for name in ("host", "port", "user", "password", "vhost")
            }))  # fmt: skip

    def _start_watch(self) -> None:
        if self.watch is None or self.watch.poll() is not None:
            with open(self.place / "watch.log", "ab") as log:
                argv = [sys.executable, str(ROOT / "check.py"), "--watch", "--site", str(self.place / "site.toml"),
                        "--credentials", str(self.place / "credentials.env")]  # fmt: skip
                self.watch = subprocess.Popen(argv, env=ENVIRONMENT, stdout=log, stderr=log)

    def _processes(self) -> list[psutil.Process]:
        site = str(self.place / "site.toml")
        return [
            each for each in psutil.process_iter(["cmdline"])
            if site in (words := each.info["cmdline"] or []) and "worker" in words
        ]  # fmt: skip

    def _kill_now_and_then(self, broker: object, books: Books) -> None:
        while sum(self.killed.values()) < self.kills:
            self._start_watch()
            time.sleep(self.random.uniform(0.3, 2.5))
            if len(books.answers) == self.count:
                return
            what = self.random.choices(["pilot", "runner", "watch", "broker"], [5, 3, 4, 1])[0]
            workers = self._processes()
            pids = {each.pid for each in workers}
            chosen = [each for each in workers if (_parent(each) in pids) == (what == "runner")]
            if what == "watch" and self.watch is not None:
                self.watch.kill()
                self.watch.wait()
            elif what == "broker":
                broker.restart()  # type: ignore[attr-defined]
            elif chosen:
                with contextlib.suppress(psutil.Error):
                    os.kill(self.random.choice(chosen).pid, signal.SIGKILL)
            else:
                continue
            self.killed[what] += 1

    def _until(self, condition: object, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:  # type: ignore[operator]
            self._start_watch()
            time.sleep(0.5)

    def _nothing_left(self) -> bool:
        crew = self.jobs.pilots / "crew"
        return not os.listdir(self.jobs.active) and not (crew.is_dir() and os.listdir(crew))

    def _faults(self, books: Books) -> list[str]:
        ran = Counter(self.record.read_text().split("\n")[:-1])
        faults = []
        for number in range(self.count):
            told = books.answers.get(str(number), Counter())
            if len(told) != 1:
                faults.append(f"{number}: {len(told)} different answers: {list(told)[:3]}")
                continue
            _, body, outcome, attempt = next(iter(told))
            if outcome != "succeeded" or body != b"{}":
                faults.append(f"{number}: {outcome} {body[:200]!r}")
            if not 1 <= ran[f"number {number}"] <= int(str(attempt)):
                faults.append(f"{number}: ran {ran[f'number {number}']} times in {attempt} attempts")
        if not self._nothing_left():
            faults.append("something is left behind")
        tokens = [str(path.relative_to(self.place)) for path in self.jobs.path.rglob("token")]
        return faults + [f"a secret is left behind: {path}" for path in tokens]


def _parent(process: psutil.Process) -> int:
    """0 of one that has ended meanwhile."""
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pilot_kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchferry-pilot-kills-") as name:
        this = Round(Path(name), options.jobs, options.kills, options.seed)
        faults = this.run()
    print(f"seed {options.seed}: {options.jobs} jobs, killed: {dict(this.killed)}, {time.monotonic() - begun:.0f} s")
    print("\n".join(faults[:20]) or "The books balance.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
