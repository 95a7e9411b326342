"""The same interface on one machine without Slurm: the batch script runs in a session of its own, watched over.

Each job has a folder: request.json (as submitted), watcher (pid and start time of the process that watches over it) and
end.json (how it ended). The watcher outlives check.py and enforces the time limit; a job whose watcher is gone without an
end is not known any more, and so becomes `lost`. `python -m scheduler.local FOLDER` is the watcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from . import ONE_MACHINE, BatchRequest, JobView, Outlook, Phase, SlurmJobId, Unavailable, Usage, element_id

_KILL_WAIT = 10.0
"""Seconds between SIGTERM and SIGKILL, as Slurm's KillWait."""
_TICK = 0.2


class Local:
    """Jobs run at once, as many as are submitted: `max_in_flight` is what limits them."""

    traits = ONE_MACHINE

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, request: BatchRequest) -> SlurmJobId:
        slurm_id = SlurmJobId(f"local-{time.strftime('%Y%m%d%H%M%S')}-{secrets.token_hex(3)}")
        for name in [element_id(slurm_id, element) for element in request.elements] or [slurm_id]:
            self._start(request, name)
        return slurm_id

    def objection(self, request: BatchRequest) -> str:
        return ""

    def largest_array(self) -> int:
        return 1000

    def _start(self, request: BatchRequest, slurm_id: SlurmJobId) -> None:
        job = self._folder / slurm_id
        try:
            job.mkdir(parents=True, mode=0o700)
            _write(job / "request.json", asdict(request))
            subprocess.Popen(
                [sys.executable, "-m", "scheduler.local", str(job)],
                cwd=Path(__file__).resolve().parent.parent,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the job could not be started: {error.strerror}") from None

    def queue(self) -> list[JobView]:
        with contextlib.suppress(FileNotFoundError):
            return [view for job in sorted(self._folder.iterdir()) if (view := _view(job)) is not None]
        return []

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        return []

    def usage(self, slurm_id: SlurmJobId) -> Optional[Usage]:
        return None

    def outlook(self, slurm_id: SlurmJobId) -> Optional[Outlook]:
        return None

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        """No job waits here, so `only_waiting` cancels none."""
        for slurm_id in () if only_waiting else ids:
            watcher = _watcher(self._folder / slurm_id)
            if watcher is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(watcher, signal.SIGTERM)

    def ended(self, slurm_id: str) -> Optional[tuple[str, float]]:
        """What a job was called, and when it ended, in seconds since 1970; None while it may run. One without a watcher will
        never run, or was killed with its machine: then since when its folder is as it is."""
        job = self._folder / slurm_id
        request, end = _read(job / "request.json") or {}, _read(job / "end.json") or {}
        name, at = str(request.get("name", "")), end.get("at")
        if isinstance(at, (int, float)):
            return name, float(at)
        with contextlib.suppress(FileNotFoundError):
            return (name, job.stat().st_mtime) if _watcher(job) is None else None
        return None


def _view(job: Path) -> Optional[JobView]:
    request = _read(job / "request.json")
    if request is None:
        return None
    slurm_id, name, end = SlurmJobId(job.name), str(request["name"]), _read(job / "end.json")
    if end is not None:
        return JobView(
            slurm_id, name, Phase.ENDED, end["state"], end["end"], ended_at=end["at"], exit_code=end["exit_code"]
        )
    # Without its watcher it will never run: whoever submitted it may have been killed before it started one.
    if _watcher(job) is not None:
        return JobView(slurm_id, name, Phase.RUNNING, "RUNNING")
    return None


def _watcher(job: Path) -> Optional[int]:
    """The pid of a job's watcher, if it lives."""
    try:
        pid, started = (job / "watcher").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


# --- the watcher


class _Asked:
    """Whether somebody has asked for the job to be cancelled. A flag, because an exception could come while subprocess holds
    its lock on the process, which nobody would give back then: whoever waits for the process would wait for ever."""

    def __init__(self) -> None:
        self.yet = False

    def note(self, *_: object) -> None:
        self.yet = True


def watch(job: Path) -> None:
    """Runs the batch script and writes down how it ended."""
    request = _read(job / "request.json")
    assert request is not None
    asked = _Asked()
    signal.signal(signal.SIGTERM, asked.note)
    _write_text(job / "watcher", f"{os.getpid()} {_started(os.getpid())}")
    _adopt_orphans()
    with open(request["output"], "ab") as output:
        process = subprocess.Popen(
            [request["script"], *request["arguments"]],
            cwd=request["chdir"],
            env=_environment(job.name),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    state, end = _outlast(process, asked, request["minutes"] * 60, request["warn_seconds"])
    _signal(process.pid, signal.SIGKILL)
    _end_orphans()
    code = process.returncode
    exit_code = f"{max(0, code)}:{max(0, -code)}"
    _write(job / "end.json", {"state": state, "end": end, "exit_code": exit_code, "at": time.time()})


def _adopt_orphans() -> None:
    """Whatever of this job outlives its parent becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER is 36)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _end_orphans() -> None:
    """Nothing of a job outlives it, as under Slurm; those that a killed process leaves behind come to us in turn."""
    end = time.monotonic() + _KILL_WAIT
    while (children := _children()) and time.monotonic() < end:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _children() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(int(name))[1:2] == [str(os.getpid())]]


def _outlast(process: subprocess.Popen[bytes], asked: _Asked, limit: float, warn: float) -> tuple[str, str]:
    """Waits for the end, brought about where need be; Slurm's word for it and ours."""
    end_at = time.monotonic() + limit
    if not _ended_by(process, end_at - warn, asked) and not asked.yet:
        _signal(process.pid, signal.SIGUSR1)
    if not _ended_by(process, end_at, asked):
        _stop(process)
        return ("CANCELLED", "cancelled") if asked.yet else ("TIMEOUT", "timed_out")
    return ("COMPLETED", "succeeded") if process.returncode == 0 else ("FAILED", "failed")


def _ended_by(process: subprocess.Popen[bytes], when: float, asked: Optional[_Asked] = None) -> bool:
    while process.poll() is None and time.monotonic() < when and not (asked and asked.yet):
        time.sleep(_TICK)
    return process.poll() is not None


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal(process.pid, signal.SIGTERM)
    _ended_by(process, time.monotonic() + _KILL_WAIT)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    """Only the batch process is asked, as Slurm does; a kill goes to all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number) if number == signal.SIGKILL else os.kill(group, number)


def _environment(slurm_id: str) -> dict[str, str]:
    array, _, element = slurm_id.partition("_")
    of_array = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": element} if element else {}
    return {
        **of_array,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": os.path.expanduser("~"),
        "LANG": "C.UTF-8",
        "SLURM_JOB_ID": slurm_id,
        "SLURMD_NODENAME": os.uname().nodename,
    }


def _started(pid: int) -> str:
    """When a process began (proc(5), stat, field 22): with it a pid is never mistaken for an earlier one."""
    return next(iter(_stat(pid)[19:20]), "gone")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on: state, ppid, ...; empty where there is no such process."""
    try:
        return Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _read(path: Path) -> Optional[dict[str, Any]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: Mapping[str, object]) -> None:
    _write_text(path, json.dumps(value) + "\n")


def _write_text(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
