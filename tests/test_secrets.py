"""While jobs of every kind run end to end, no secret shows in any process, file, log, reply or table of Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requester import Answer as Reply
from tests.scene import Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer, Upstream
from tests.sweep import Finding, ProcessWatch, sweep

_SLOW, _LOCKED = "/uploads/slow", "/uploads/locked"
_CREDENTIALS = "file installation/credentials.env 0600"
_TOKEN = re.compile(r"file installation/jobs/active/\w+/attempts/1/token 0600")


class _Records:
    """What can be read about a scene: what check.py printed, Slurm's tables and scripts, and the answers."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._printed = ""
        self._scripts: dict[str, str] = {}

    def check(self, *arguments: str, expect: int | None = 0) -> None:
        self._printed += self._scene.installation.check("--verbose", *arguments, expect=expect)

    def collect_scripts(self, *more_ids: str) -> None:
        """Slurm gives a job's script only as long as it keeps it."""
        for slurm_id in (*re.findall(r"submitted job=\w+ attempt=1 slurm=(\d+)", self._printed), *more_ids):
            with contextlib.suppress(RuntimeError):
                text = self._scene.slurm.run("scontrol", "write", "batch_script", slurm_id, "-")
                self._scripts[f"batch script of {slurm_id}"] = text

    def texts(self) -> dict[str, str]:
        history = self._scene.slurm.run("sacct", "--allusers", "--parsable2", "--format=ALL")
        assert "|bf-" in history
        return {
            "check.py": self._printed,
            "scontrol": self._scene.slurm.run("scontrol", "show", "job", "--details"),
            "sacct": history,
            **self._scripts,
            **{f"reply to {reply.correlation_id}": _whole(reply) for reply in self._scene.requester.collect()},
        }


def _whole(reply: Reply) -> str:
    """Body and outputs, properties and headers."""
    outputs = [] if reply.error else [repr(reply.output(name)) for name in reply.body]
    return json.dumps([reply.body, outputs, repr(vars(reply.properties))])


@pytest.mark.long(seconds=30)
def test_no_secret_shows_anywhere(rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> None:
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream)
    folders = (scene.installation.folder, slurm.folder)
    records, canary = _Records(scene), secrets.token_hex(12)
    loose: set[str] = set()
    watch = ProcessWatch(spared=[os.getpid(), *rabbitmq.pids()])
    with contextlib.closing(scene.requester), watch, _planted(scene, canary) as planted:
        _login_refused(scene, records)
        asked = _ask_for_jobs_of_every_kind(scene, canary)
        records.check("--dry-run")
        records.check("--drain")
        assert poll(lambda: _SLOW in upstream.paths()), "the slow job never asked for its input"
        on_disk = sweep({"token": _tokens(upstream)}, folders=folders)
        records.collect_scripts(planted.slurm_id)
        _end_all(scene, records, asked, loose)
        hidden = {
            "broker password": [rabbitmq.password],
            "API password": [upstream.password],
            "token": _tokens(upstream),
        }
        findings = sweep({**hidden, "canary": [canary]}, watch, folders, records.texts())

    # While a job waits for its inputs, its token is in one place, and nobody else may read it.
    assert on_disk and all(_TOKEN.fullmatch(finding.where) for finding in on_disk)
    assert {f for f in findings if f.secret != "canary"} == {
        Finding("broker password", _CREDENTIALS), Finding("API password", _CREDENTIALS)
    }  # fmt: skip
    assert not loose, "files that others may read"
    # The same sweep finds what was planted, in every kind of place.
    found = {finding.where for finding in findings if finding.secret == "canary"}
    assert planted.places <= found
    assert {where for where in found if where.startswith(("cmdline", "environ"))} <= planted.places
    assert watch.looks > 100
    seen = b"".join(content for where, content in watch if where.startswith("cmdline"))
    assert b"check.py" in seen and b"-m\0worker" in seen and b"probe.py" in seen


def _login_refused(scene: Scene, records: _Records) -> None:
    scene.upstream.refuse_logins = 401
    waits = scene.ask()
    records.check("--drain", expect=os.EX_NOPERM)
    assert not scene.requester.to(waits)
    scene.upstream.refuse_logins = None


def _ask_for_jobs_of_every_kind(scene: Scene, canary: str) -> int:
    """How many answers must come, with that of the job that waits already."""
    scene.upstream.add(_SLOW, b"late")
    scene.upstream.script(_SLOW, Answer(delay=4.0))
    scene.upstream.add(_LOCKED, b"secret")
    scene.upstream.script(_LOCKED, *[Answer(status=401)] * 2)  # a job that logs in again, in vain
    scene.ask(sleep=1)
    scene.ask(exit=1, complaint=f"seen: {canary}")
    scene.requester.ask({"Image": _SLOW}, {})
    scene.requester.ask({"Image": _LOCKED}, {})
    scene.requester.ask({"Something": "/else"}, {})
    scene.requester.publish(b"no job at all", correlation_id=f"no-job-{canary}")
    return 7


def _end_all(scene: Scene, records: _Records, answers: int, loose: set[str]) -> None:
    """Pass after pass; collects the files that others could read meanwhile."""
    end = time.monotonic() + 90
    while scene.installation.active() or len(scene.requester.collect()) < answers:
        assert time.monotonic() < end, scene.installation.describe()
        loose |= _loose(scene.installation.jobs.path)
        records.check("--drain", expect=None)
        records.collect_scripts()
        time.sleep(0.3)
    loose |= _loose(scene.installation.jobs.path)
    outcomes = sorted(reply.headers["outcome"] for reply in scene.requester.collect())
    assert outcomes == ["failed", "failed", "rejected", "rejected", "succeeded", "succeeded", "succeeded"]


def _tokens(upstream: Upstream) -> list[str]:
    assert upstream.tokens
    return list(upstream.tokens)


def _loose(jobs: Path) -> set[str]:
    """Files and folders that anybody but their owner may do anything with."""
    loose = set()
    for parent, _, names in os.walk(jobs):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                if mode & (stat.S_IRWXG | stat.S_IRWXO):
                    loose.add(f"{path.relative_to(jobs)} {stat.S_IMODE(mode):04o}")
    return loose


class _Planted:
    """Where a canary was put, and so must be found."""

    def __init__(self, slurm_id: str, places: set[str]) -> None:
        self.slurm_id = slurm_id
        self.places = places


@contextlib.contextmanager
def _planted(scene: Scene, canary: str) -> Iterator[_Planted]:
    """Two processes, a file and a Slurm job. A job's complaint and a correlation id bring it to the other places."""
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    forgotten = scene.installation.folder / "forgotten"
    forgotten.write_text(f"password = {canary}\n")
    forgotten.chmod(0o644)
    script = scene.installation.folder / "script"
    script.write_text(f"#!/bin/sh\n#SBATCH --comment={canary}\n#SBATCH --output=/dev/null\nsleep 1\n")
    slurm_id = scene.slurm.run("sbatch", "--parsable", str(script)).strip()
    argued, exported = subprocess.Popen([*sleep, canary]), subprocess.Popen(sleep, env={"CANARY": canary})
    places = {
        f"cmdline of {argued.pid}", f"environ of {exported.pid}", "file installation/forgotten 0644", "scontrol",
        f"batch script of {slurm_id}", "check.py", f"reply to no-job-{canary}",
    }  # fmt: skip
    try:
        yield _Planted(slurm_id, places)
    finally:
        for process in (argued, exported):
            process.kill()
            process.wait()
