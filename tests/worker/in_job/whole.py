"""A whole attempt in this process, over real HTTP: from its message to its answer, with the broker that is a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from tests.services.upstream import Upstream
from tests.worker.examples import config_for
from worker.build import open_ends
from worker.folder import paths
from worker.folder.answer import deliver
from worker.folder.facts import JobFolder, read_reply
from worker.folder.jobs import JobsFolder
from worker.in_job.run import run
from worker.in_job.steps import Placement
from worker.job.facts import Intent, Message, Outcome
from worker.job.names import JobId
from worker.job.outcome import Reply, Result
from worker.job.spec import parse_spec
from worker.settings import Config, Form, Pattern, Queue, Replies, Workload

PLACE = Placement("7", 0, "n1", False)


class Whole:
    """One job. `program`: Python that finds its outputs' paths in `outputs`; `queue`, `site`: what the site says otherwise."""

    def __init__(
        self, folder: Path, upstream: Upstream, program: str, message: Optional[Mapping[str, Any]] = None,
        outputs: Optional[Mapping[str, str]] = None, folders: tuple[str, ...] = (), queue: Optional[Mapping[str, Any]] = None,
        **site: Any,
    ) -> None:  # fmt: skip
        head = "import json, os, sys; outputs = json.load(open(sys.argv[1]))['outputs']\n"
        form = Form((), outputs or {"Model": ".png"}, folders=folders)
        workload = Workload(argv=(sys.executable, "-c", head + program, "{job}"), forms=(form,))
        replies = replace(site.pop("replies", Replies()), create=(Pattern("*"),), create_durable=True)
        changes = {
            "queues": (Queue("jobs", "make", **(queue or {})),), "workloads": {"make": workload}, "scheduler": "local",
            "broker": "embedded", "broker_file": folder / "broker.sqlite", "jobs_dir": folder / "jobs", "replies": replies,
            **site,
        }  # fmt: skip
        self.config: Config = config_for(folder, upstream.url, upstream.user, upstream.password, changes=changes)
        jobs = JobsFolder(self.config.site.jobs_dir)
        jobs.prepare()
        self.job: JobFolder = jobs.job(JobId("a" * 32))
        self.attempt = self.job.attempt(1)
        paths.make_folder(self.attempt.path)
        body = json.dumps({"inputs": {}, "settings": {}, **(message or {})})
        properties = {"reply_to": "answers", "correlation_id": "c-1"}
        self.job.message.write(Message(1, "jobs", body, len(body), properties, time.time()))
        site_now = self.config.site
        spec = parse_spec(
            body.encode(),
            site_now.queues[0],
            site_now.workloads,
            upstream.url,
            site_now.api.input_hosts,
            site_now.limits,
        )
        self.job.spec.write(spec)
        self.attempt.intent.write(Intent("g", "bf-x-g", 0, spec.resources, time.time()))

    def run(self) -> Whole:
        run(self.config, self.job, 1, PLACE)
        return self

    def deliver(self) -> None:
        """As the next pass does for a worker that could not."""
        outcome, ends = self.outcome, open_ends(self.config)
        assert outcome is not None
        try:
            deliver(self.job, outcome, ends.delivery, self.config.site, time.time)
        finally:
            ends.close()

    @property
    def result(self) -> Result:
        result = self.attempt.result.read()
        assert result is not None
        return result

    @property
    def outcome(self) -> Optional[Outcome]:
        return self.job.outcome.read()

    @property
    def reply(self) -> Reply:
        outcome = self.outcome
        assert outcome is not None
        return read_reply(self.attempt, outcome.reply)

    @property
    def body(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.reply.body)
        return said

    @property
    def kept(self) -> set[str]:
        """The outputs that are in the attempt's folder."""
        return set(paths.names_in(self.attempt.outputs))
