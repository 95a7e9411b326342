"""Everything one end-to-end test needs: an installation, a requester with queues of its own, the sample service, Slurm."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from tests.installation import Installation, cron_environment
from tests.requester import Answer, Requester
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

IMAGE = "/uploads/projects/0a/resources/0b/original_file"


@dataclass
class Scene:
    installation: Installation
    requester: Requester
    upstream: Upstream
    slurm: SlurmCluster

    def ask(self, **settings: Any) -> str:
        """One job of the probe workload; returns its correlation id."""
        return self.requester.ask({"Image": IMAGE}, settings)

    def answer(self, correlation_id: str, seconds: float = 300) -> Answer:
        """Passes until the answer is there, and until nothing is left to do; then exactly one must have come."""
        self.installation.passes_until(lambda: bool(self.requester.to(correlation_id)), seconds)
        self.installation.passes_until(lambda: not self.installation.active())
        answers = self.requester.to(correlation_id)
        assert len(answers) == 1
        return answers[0]

    def submit(self, **settings: Any) -> tuple[str, str]:
        """A job that Slurm has now: its correlation id and Slurm's id."""
        correlation_id = self.ask(**settings)
        known = {job.id for job in self.installation.active()}
        self.installation.check("--drain")
        (job,) = (job for job in self.installation.active() if job.id not in known)
        return correlation_id, str(json.loads(job.attempt(1).submission.path.read_text())["slurm_id"])


def make_scene(
    folder: Path,
    rabbitmq: Broker,
    slurm: SlurmCluster,
    upstream: Upstream,
    rabbitmq_port: Optional[int] = None,
    **installation: Any,
) -> Scene:
    """`rabbitmq_port`: where the installation finds the broker, if not where the requester does."""
    queue = f"jobs-{secrets.token_hex(4)}"
    upstream.add(IMAGE, b"a page of music")
    return Scene(
        Installation(
            folder / "installation",
            rabbitmq,
            upstream.url,
            upstream.user,
            upstream.password,
            cron_environment(slurm.environment()),
            queue,
            rabbitmq_port=rabbitmq_port,
            **installation,
        ),
        Requester(rabbitmq, queue, f"{queue}-results"),
        upstream,
        slurm,
    )
