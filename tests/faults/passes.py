"""Passes one by one, as an operator sees them: what each printed, its exit code, and on which host or with which clock."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from tests.installation import ROOT
from tests.requester import Answer
from tests.scene import Scene
from tests.services.daemon import poll
from worker.folder.facts import JobFolder

ALTERED = Path(__file__).with_name("altered.py")


@dataclass(frozen=True)
class Pass:
    code: int
    log: str


class Operator:
    """Runs the passes of one installation, and keeps all that they print in `log`. `through`: words put before the
    command, as of somebody who starts it in another way."""

    def __init__(self, scene: Scene, through: Sequence[str] = ()) -> None:
        self.scene = scene
        self.log = ""
        self.last = Pass(0, "")
        self._through = through

    def command(self, through: Sequence[str] = ()) -> list[str]:
        files = self.scene.installation
        return [
            *through, sys.executable, str(ROOT / "check.py"), "--drain",
            "--site", str(files.site_file), "--credentials", str(files.credentials_file),
        ]  # fmt: skip

    def one_pass(self, through: Sequence[str] = ()) -> Pass:
        running = self.start(through)
        printed, _ = running.communicate(timeout=300)
        return self.note(running.returncode, printed)

    def note(self, code: int, printed: str) -> Pass:
        assert code != os.EX_CONFIG, printed
        self.log += printed
        self.last = Pass(code, printed)
        return self.last

    def start(self, through: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A pass that goes on while the test does."""
        return subprocess.Popen(
            self.command(through or self._through), env=dict(self.scene.installation.environment),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def passes_until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"{self.log}\n{self.scene.installation.describe()}"
            self.one_pass()
            time.sleep(0.5)

    def passes_until_one_is_fine(self) -> None:
        """Before a fault: a machine that is busy otherwise may keep a pass from its broker or Slurm for too long."""
        self.last = Pass(os.EX_UNAVAILABLE, "")
        self.passes_until(lambda: self.last.code == os.EX_OK)

    def answers(self, correlation_ids: Iterable[str], seconds: float = 300) -> dict[str, Answer]:
        """Passes until each is answered and nothing is left to do; then there must be exactly one for each."""
        wanted = list(correlation_ids)
        requester = self.scene.requester
        self.passes_until(lambda: all(requester.to(one) for one in wanted), seconds)
        self.passes_until(lambda: not self.scene.installation.active(), seconds)
        assert self.one_pass().code in (os.EX_OK, os.EX_TEMPFAIL), self.log
        counts = {one: len(requester.to(one)) for one in wanted}
        assert counts == dict.fromkeys(wanted, 1), f"{counts}\n{self.log}"
        return {one: requester.to(one)[0] for one in wanted}

    def answer(self, correlation_id: str, seconds: float = 300) -> Answer:
        return self.answers([correlation_id], seconds)[correlation_id]


def job_of(scene: Scene, correlation_id: str) -> JobFolder:
    """The job's folder, wherever it is now."""
    for message in scene.installation.jobs.path.rglob("message.json"):
        if json.loads(message.read_text())["properties"].get("correlation_id") == correlation_id:
            return JobFolder(message.parent)
    raise AssertionError(f"no job of {correlation_id}\n{scene.installation.describe()}")


def slurm_id_of(scene: Scene, correlation_id: str) -> str:
    """Of its first attempt."""
    return str(json.loads(job_of(scene, correlation_id).attempt(1).submission.path.read_text())["slurm_id"])


def hold_back(scene: Scene) -> None:
    """From now on jobs wait in Slurm until `let_start`."""
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+1hour"]\n[timing]')


def let_start(scene: Scene, correlation_id: str) -> None:
    scene.slurm.run("scontrol", "update", f"jobid={slurm_id_of(scene, correlation_id)}", "starttime=now")


def wait_until_ended(scene: Scene, correlation_id: str) -> None:
    """Until Slurm says so."""
    state = ["squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={slurm_id_of(scene, correlation_id)}"]
    wait_until(lambda: scene.slurm.run(*state).strip() in ("FAILED", "COMPLETED", "CANCELLED"), 300)


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    assert poll(condition, seconds, pause=0.2), f"not within {seconds} s"


def runs(record: Path) -> int:
    """How often the workload ran."""
    return len(record.read_text().splitlines()) if record.exists() else 0


def is_slurm_id(text: str) -> bool:
    """A job's, or that of one element of an array."""
    return re.fullmatch(r"[0-9]+(_[0-9]+)?", text) is not None


def on_host(name: str) -> list[str]:
    """Words before a command that is to find itself on another host."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$1" && shift && exec "$@"', "sh", name]


def altered(**how: Any) -> list[str]:
    """Words before a Python command; see altered.py."""
    return [sys.executable, str(ALTERED), json.dumps(how)]


def program(file: Path, words: Sequence[str]) -> Path:
    """An executable that runs `words` and what it is given."""
    file.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    file.chmod(0o700)
    return file


def use_python(scene: Scene, python: Path) -> None:
    """The worker's python, as the site file names it."""
    scene.installation.change_site(f"python = {json.dumps(sys.executable)}", f"python = {json.dumps(str(python))}")
