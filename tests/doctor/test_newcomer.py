"""docs/install.md as a new operator follows it, in a checkout of their own: from two example files to the first answer."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.examined import Crontab
from tests.installation import ROOT, cron_environment
from tests.requester import Requester
from tests.scene import IMAGE
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.workloads.probe import output
from worker.config import credentials_text


class Operator:
    def __init__(self, checkout: Path, crontab: Crontab, environment: dict[str, str]) -> None:
        self.checkout, self.crontab, self.environment = checkout, crontab, environment

    def run(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            words, cwd=self.checkout, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", timeout=180,
        )  # fmt: skip
        assert done.returncode == expect, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def as_cron_does(self) -> None:
        """Runs the command of the crontab's one line."""
        (line,) = self.crontab.file.read_text().splitlines()
        command = re.sub(r"\\%", "%", line.split(" ", 5)[5])
        subprocess.run(["/bin/sh", "-c", command], env={"PATH": "/usr/bin:/bin", "HOME": "/"}, cwd="/", timeout=300)


@pytest.fixture
def queue(rabbitmq: Broker) -> Iterator[Requester]:
    name = f"newcomer-{os.urandom(4).hex()}"
    made = Requester(rabbitmq, name, f"{name}-results")
    yield made
    made.channel.queue_delete(made.jobs)
    made.close()


@pytest.fixture
def operator(slurm: SlurmCluster, odd_folder: Path, tmp_path: Path) -> Operator:
    """Step 1: a checkout, with a .venv that has the packages."""
    checkout, crontab = odd_folder / "batchferry", Crontab(tmp_path / "cron")
    for name in ("worker", "scheduler", "slurm", "tests/workloads", "workloads"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    for name in ("check.py", "run_check", "site.example.toml", "credentials.env.example", "requirements.txt"):
        shutil.copy2(ROOT / name, checkout)
    for venv in (checkout / ".venv", checkout / "workloads" / "binarize" / ".venv"):
        (venv / "bin").mkdir(parents=True)
        python = venv / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
    environment = {
        **cron_environment(slurm.environment()),
        "PATH": f"{crontab.bin}:/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    return Operator(checkout, crontab, environment)


@pytest.mark.long(seconds=20)
def test_from_nothing_to_the_first_answer(
    operator: Operator, queue: Requester, rabbitmq: Broker, upstream: Upstream
) -> None:
    upstream.add(IMAGE, b"a page of music")
    answers = operator.checkout / "answers.env"
    answers.touch(mode=0o600)
    answers.write_text(credentials_text({
        "RABBITMQ_HOST": rabbitmq.host, "RABBITMQ_PORT": str(rabbitmq.port), "RABBITMQ_USER": rabbitmq.user,
        "RABBITMQ_PASSWORD": rabbitmq.password, "API_URL": upstream.url, "API_USER": upstream.user,
        "API_PASSWORD": upstream.password,
    }) + f"QUEUE={queue.jobs}\n")  # fmt: skip

    # Step 2, and the one thing that this test needs otherwise: a workload that has no packages of its own.
    assert "Next: ./check.py doctor" in operator.run("./check.py", "init", "--answers", "answers.env")
    answers.unlink()
    site = operator.checkout / "site.toml"
    text = site.read_text().replace("workloads/binarize/binarize.py", "tests/workloads/probe.py")
    text = text.replace('required = ["Page"]', 'required = ["Image"]').replace("#memory_mb = 4000", "memory_mb = 200")
    text = text.replace('#visible_after = "90s"', 'visible_after = "3s"')
    site.write_text(re.sub(r"(?m)^outputs = .*", 'outputs = { "Result" = ".txt" }', text))

    # Steps 3 and 4: no ✗ but those that step 6 will mend.
    told = operator.run("./check.py", "doctor", "--from-node", expect=os.EX_CONFIG)
    assert re.findall(r"(?m)^✗ ([^:]*):", told) == ["passes, crontab"], told
    assert operator.run("./check.py", "--dry-run") == "The queue is empty.\n"

    # Step 6, and the first job.
    operator.run("./check.py", "init", "--add")
    correlation_id = queue.ask({"Image": IMAGE}, {})
    end = time.monotonic() + 90
    while not queue.to(correlation_id) or any((operator.checkout / "jobs" / "active").iterdir()):
        assert time.monotonic() < end, (operator.checkout / "logs" / "run_check.log").read_text()
        operator.as_cron_does()
        time.sleep(1)

    (answer,) = queue.to(correlation_id)
    assert answer.output("Result") == output("Result", {"Image": b"a page of music"}, {})
    assert "outcome=succeeded" in (operator.checkout / "logs" / "run_check.log").read_text()
    assert "✗" not in operator.run("./check.py", "doctor")
