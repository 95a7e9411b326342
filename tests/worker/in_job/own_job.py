"""Runs one job that brings its own code along, as its worker does, and returns what it came to."""

from __future__ import annotations

import base64
import json
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Optional

from tests.services.present import ServiceMissing, require
from tests.services.upstream import Upstream
from tests.worker.examples import NOW, config_for
from worker.folder import paths
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.in_job import sandbox, steps
from worker.in_job.interrupt import Interrupts
from worker.in_job.memory import MemoryWatch
from worker.in_job.sandbox import Places
from worker.in_job.steps import Placement, Work
from worker.job.facts import Started
from worker.job.names import JobId
from worker.job.outcome import Result
from worker.job.spec import Resources, parse_spec
from worker.settings import OWN_CODE, Config, Limits, OwnCode, Queue, Seconds, Workload

QUEUE = Queue(name="code", workload="code")


class Host(ThreadingHTTPServer):
    """Where code comes from: it gives files to anybody, whole."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.partition("?")[0])
        elsewhere = self.server.redirects.get(self.path)
        self.send_response(302 if elsewhere else 404 if content is None else 200)
        if elsewhere:
            self.send_header("Location", elsewhere)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None: ...


class OwnJobs:
    """A site with one workload for such jobs. `rules`: what they may do."""

    def __init__(self, folder: Path, upstream: Upstream, host: Host) -> None:
        self.folder, self.upstream, self.host = folder, upstream, host
        self.rules = OwnCode(hosts=(host.url,))
        self.interpreter: tuple[str, ...] = ("/usr/bin/python3",)
        self.limits = Limits()
        self.meanwhile: Optional[Workload] = None
        """What the site file says of the workload by the time that the job starts."""
        self.job: JobFolder
        self._count = 0

    @property
    def workload(self) -> Workload:
        return Workload(kind=OWN_CODE, argv=self.interpreter, code=self.rules, stop_wait=Seconds(1))

    def config(self) -> Config:
        config = config_for(self.folder, self.upstream.url, self.upstream.user, self.upstream.password)
        site = replace(config.site, queues=(QUEUE,), workloads={"code": self.workload}, scratch="folder")
        site = replace(site, limits=self.limits)
        return replace(config, site=site)

    def run(self, source: str, seconds: float = 60, **more: Any) -> Result:
        """`more`: the other keys of the message. Raises InvalidSpec."""
        config = self.config()
        message = {"inputs": {}, "settings": {}, "source": source, **more}
        spec = parse_spec(
            json.dumps(message).encode(), QUEUE, config.site.workloads, self.upstream.url, (), Limits()
        )  # fmt: skip
        if self.meanwhile:
            config = replace(config, site=replace(config.site, workloads={"code": self.meanwhile}))
        self._count += 1
        jobs = JobsFolder(config.site.jobs_dir)
        jobs.prepare()
        self.job = jobs.job(JobId(f"job{self._count}"))
        attempt = self.job.attempt(1)
        paths.make_folder(attempt.path)
        attempt.token.write_text("")
        attempt.started.write(Started("1", 0, "n1", NOW, says_begun=True))

        def attempted() -> Result:
            with Interrupts(seconds) as interrupts:
                work = Work(
                    config, self.job.id, attempt, spec, Resources(1, 1000, 600), Placement("1", 0, "n1", False), NOW,
                    interrupts, MemoryWatch(False),
                )  # fmt: skip
                return steps.attempt(work)

        return _in_a_process_of_its_own(attempted)

    def answer(self, result: Result) -> dict[str, bytes]:
        """What its requester gets, by name."""
        body = json.loads(self.job.attempt(1).reply_body(result.body).read_bytes())
        return {name: base64.b64decode(content) for name, content in body.items()}

    def log(self) -> str:
        return self.job.attempt(1).log.read_text()


def _in_a_process_of_its_own(run: Callable[[], Result]) -> Result:
    """As a worker is: what ends all of its children must not end the tests' services."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(run()))
    child.start()
    theirs.close()
    try:
        result: Result = ours.recv()
    finally:
        child.join()
    return result


@contextmanager
def own_jobs(folder: Path) -> Iterator[OwnJobs]:
    require_sandbox(folder)
    with Upstream() as upstream, Host() as host:
        threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True).start()
        yield OwnJobs(folder, upstream, host)
        host.shutdown()


def require_sandbox(folder: Path) -> None:
    """Raises ServiceMissing where nothing can run in one."""
    bubblewrap = require("The sandbox", {"bwrap": "bubblewrap", "git": "git"})["bwrap"]
    places = Places(folder / "home", folder / "temporary", folder / "read_only")
    sandbox.prepare(places, b"{}")
    why = sandbox.trouble(sandbox.inside(bubblewrap, OwnCode(), places, {}))
    if why:
        raise ServiceMissing(f"The sandbox: {why}; let users make user namespaces (sysctl user.max_user_namespaces)")
