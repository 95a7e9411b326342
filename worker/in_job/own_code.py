"""A job that brings its own code along: fetched, unpacked, run in a sandbox; what it makes goes home."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import StepFailed
from ..job import sentences
from ..job.own_code import ARCHIVE, ARCHIVE_NAME, GIT, TEXT, Code
from ..job.spec import Input, JobSpec
from ..settings import OwnCode, Workload
from . import sandbox
from .bounds import Bounds, limits
from .git import ENVIRONMENT, clone
from .made import Seen, made_since, move_out, seen_in
from .sandbox import Places
from .scratch import on_this_node

log = logging.getLogger(__name__)


@dataclass
class OwnJob:
    """One of them, in its place on this node. `scratch` holds `inputs`, once they are fetched, and `outputs`."""

    code: Code
    workload: Workload
    scratch: Path
    provenance: dict[str, str] = field(default_factory=dict)
    """What ran, for the result: the code's digest or commit, and the sandbox."""
    hidden: tuple[Path, ...] = ()
    """This installation's own files and folders, wherever they lie."""
    _before: Seen = field(default_factory=dict)

    @property
    def rules(self) -> OwnCode:
        return self.workload.code

    @property
    def places(self) -> Places:
        return Places(self.scratch / "code", self.scratch / "tmp", self.scratch / "read_only", self.hidden)

    @property
    def bounds(self) -> Bounds:
        return Bounds([self.places.home, self.places.temporary], self.rules)

    def to_fetch(self, spec: JobSpec) -> JobSpec:
        """Its inputs, and its archive."""
        if self.code.kind != ARCHIVE:
            return spec
        archive = Input(self.code.source, "archive", with_token=False, hosts=self.rules.hosts)
        return replace(spec, inputs={**spec.inputs, ARCHIVE_NAME: archive})

    def prepare(self, job_file: bytes) -> None:
        """Makes its folders, and tries the sandbox. Not to be interrupted. Raises StepFailed."""
        with on_this_node():
            sandbox.prepare(self.places, job_file)
        self._check_sandbox()

    def put_in_place(self, spec: JobSpec) -> None:
        """The code, and its inputs beside it. Raises StepFailed."""
        home = self.places.home
        if self.code.kind == TEXT:
            self._write_text(home)
        elif self.code.kind == ARCHIVE:
            self._unpack(home)
        elif self.code.kind == GIT:
            self.provenance["commit"] = clone(self.code, home, self._inside(ENVIRONMENT, network=True), self.bounds)
        if not os.path.isfile(home / self.code.command[0]) or os.path.islink(home / self.code.command[0]):
            raise StepFailed("fetch", f'The code has no file "{self.code.command[0]}", which it is told to run.')
        for name, source in spec.inputs.items():
            self._place_input(name, self.scratch / "inputs" / source.file)
        self._before = seen_in(home, self.rules.work_files)

    def _write_text(self, home: Path) -> None:
        path = home / self.code.command[0]
        with on_this_node():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(self.code.source, encoding="utf-8")
            path.chmod(0o700)
            self.provenance["code"] = f"sha256:{_digest(path)}"

    def _unpack(self, home: Path) -> None:
        from .unpack import unpack

        archive = self.scratch / "inputs" / "archive"
        with on_this_node():
            self.provenance["code"] = f"sha256:{_digest(archive)}"
            unpack(archive, urlsplit(self.code.source).path, home, self.rules.work_bytes, self.rules.work_files)
            archive.unlink()
        os.chmod(home, 0o700)

    def _place_input(self, name: str, file: Path) -> None:
        target = self.places.home / name
        above = [target.parent, *target.parent.parents][: name.count("/")]
        if os.path.lexists(target) or any(os.path.islink(each) or os.path.isfile(each) for each in above):
            raise StepFailed("fetch", f'The input "{name}" has the name of a file of the code.')
        with on_this_node():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(file, target)

    def _check_sandbox(self) -> None:
        if self.rules.unsandboxed:
            self.provenance["sandbox"] = "none"
            return
        sandbox.try_out(self._inside())
        self.provenance["sandbox"] = sandbox.version(sandbox.program(self.rules, self.workload.path))

    def _inside(self, environment: Mapping[str, str] = {}, network: bool = False) -> list[str]:
        if self.rules.unsandboxed:
            return []
        bubblewrap = sandbox.program(self.rules, self.workload.path)
        gpus = any(name in environment for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"))
        return sandbox.inside(bubblewrap, self.rules, self.places, environment, gpus, network)

    def argv(self, interpreter: list[str], environment: Mapping[str, str]) -> list[str]:
        """`interpreter`: the workload's own words, filled in."""
        named = self.rules.environments.get(self.code.environment)
        if named is None and self.code.environment:  # it has left the site file since
            raise StepFailed("start", sentences.program_not_started("it is no longer installed"), may_work_again=True)
        with_it = [*named] if named is not None else interpreter
        file = self.code.command[0]
        if not with_it:
            os.chmod(self.places.home / file, 0o700)
        own = [*with_it, file if with_it else f"./{file}", *self.code.command[1:]]
        return [*self.workload.prefix, *limits(self.rules), *self._inside(environment), *own]

    def environment(self, outside: Mapping[str, str]) -> Mapping[str, str]:
        """The variables of the program, made of those of any program."""
        if self.rules.unsandboxed:
            home, temporary, job_file = map(
                str, (self.places.home, self.places.temporary, self.places.read_only / "job.json")
            )
        else:
            home, temporary, job_file = sandbox.HOME, sandbox.TEMPORARY, sandbox.JOB_FILE
        own = {
            "HOME": home,
            "TMPDIR": temporary,
            "BATCHFERRY_JOB": job_file,
            "BATCHFERRY_PROGRESS": f"{temporary}/progress",
        }
        return {**outside, **own}

    @property
    def progress(self) -> Path:
        return self.places.temporary / "progress"

    def gather(self, bounds: Bounds) -> dict[str, str]:
        """What it has made moves to `outputs`: name -> file there."""
        bounds.look()
        home = self.places.home
        with contextlib.suppress(OSError):
            home.chmod(0o700)  # its owner in there may have closed it
        names = self.code.outputs or made_since(self._before, home, self.rules.work_files)
        moved = move_out(home, names, self.scratch / "outputs")
        # In an answer, the word alone marks a failure.
        return {"./error" if name == "error" else name: file for name, file in moved.items()}

    def missing(self, moved: Mapping[str, str]) -> str:
        """The first output that the message names and that is not there."""
        return next((name for name in self.code.outputs if name not in moved), "")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
