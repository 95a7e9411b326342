"""Where code that a job brings along runs: bubblewrap shows it /usr, the folders that the site names, and its own.

Its own are bind mounts of these alone: no fact, token or log of this or another job, no credentials, no munge socket and no
home can be read, made or linked from there. It has its own processes, of which none outlives it (it is the first of its
process namespace, and the kernel ends the others with it), and no network unless the site allows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StepFailed
from ..job import sentences
from ..settings import OwnCode

HOME, TEMPORARY, JOB_FILE = "/job", "/tmp", "/run/batchferry/job.json"
"""In the sandbox: the code and what it makes, what it may throw away, and what the message says."""
_PATIENCE = 30.0
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS = ("alternatives", "ld.so.cache", "localtime", "fonts")
_NETWORK = ("resolv.conf", "hosts", "nsswitch.conf", "services", "ssl", "pki", "ca-certificates")
"""Of /etc: what libraries need, and what they need on a network."""
_GPUS = ("dri", "kfd")


@dataclass(frozen=True)
class Places:
    """On this node: the folder that becomes HOME, the one that becomes TEMPORARY, and one for what the sandbox only reads.
    `hidden`: folders and files that are covered where they lie in a folder that is shown."""

    home: Path
    temporary: Path
    read_only: Path
    hidden: tuple[Path, ...] = ()


def prepare(places: Places, job_file: bytes) -> None:
    """Raises OSError."""
    for folder in (places.home, places.temporary, places.read_only):
        folder.mkdir(mode=0o700, exist_ok=True)
    (places.read_only / "job.json").write_bytes(job_file)
    (places.read_only / "passwd").write_text(f"job:x:{os.getuid()}:{os.getgid()}::{HOME}:/bin/sh\n")
    (places.read_only / "group").write_text(f"job:x:{os.getgid()}:\n")


def program(rules: OwnCode, path: str) -> str:
    """Where bubblewrap is. Raises StepFailed where it is not."""
    found = shutil.which(rules.sandbox, path=path)
    if found is None:
        raise StepFailed("start", sentences.no_sandbox("bubblewrap is not there"), may_work_again=True)
    return found


def inside(
    bubblewrap: str,
    rules: OwnCode,
    places: Places,
    environment: Mapping[str, str],
    with_gpus: bool = False,
    network: bool = False,
) -> list[str]:
    """The words to put before a command, so that it runs in the sandbox."""
    words = [bubblewrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
             "--die-with-parent", "--hostname", "job", "--cap-drop", "ALL"]  # fmt: skip
    if not (rules.network or network):
        words.append("--unshare-net")
    for words_of in (_system(rules.network or network), _devices(with_gpus), _own(rules, places)):
        words += words_of
    words.append("--clearenv")
    for name, value in environment.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", HOME, "--"]


def _system(network: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _SYSTEM:
        path = f"/{name}"
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    for name in (*_SETTINGS, *(_NETWORK if network else ())):
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _devices(with_gpus: bool) -> Iterator[str]:
    """The GPUs of other jobs are there too, but the batch system keeps them closed."""
    yield from ("--proc", "/proc", "--dev", "/dev")
    if with_gpus:
        for name in sorted(name for name in os.listdir("/dev") if name.startswith("nvidia") or name in _GPUS):
            yield from ("--dev-bind-try", f"/dev/{name}", f"/dev/{name}")


def _own(rules: OwnCode, places: Places) -> Iterator[str]:
    yield from _read_only(rules.read_only, places.hidden)
    for name, at in (("passwd", "/etc/passwd"), ("group", "/etc/group"), ("job.json", JOB_FILE)):
        yield from ("--ro-bind", str(places.read_only / name), at)
    yield from ("--bind", str(places.temporary), TEMPORARY, "--bind", str(places.home), HOME)
    yield from ("--remount-ro", "/")


def _read_only(shown: Sequence[str], hidden: Sequence[Path]) -> Iterator[str]:
    """Each folder before what lies in it: what is hidden in one that is shown, and what is shown again in that."""
    covers = {at: path for path in hidden if os.path.exists(path) for at in _seen_at(path, ("/usr", *shown))}
    for at in sorted({*shown, *covers}, key=lambda path: (os.path.normpath(path).count("/"), path)):
        if at in shown:
            yield from ("--ro-bind", at, at)
        if at in covers:
            yield from ("--tmpfs", at) if os.path.isdir(covers[at]) else ("--ro-bind", os.devnull, at)
    for at, path in covers.items():
        if os.path.isdir(path):
            yield from ("--remount-ro", at)


def _seen_at(path: Path, shown: Sequence[str]) -> Iterator[str]:
    real = os.path.realpath(path)
    for folder in shown:
        above = os.path.realpath(folder)
        if os.path.commonpath((above, real)) == above:
            yield os.path.normpath(os.path.join(folder, os.path.relpath(real, above)))


def try_out(words: Sequence[str]) -> None:
    """Runs the smallest program in it. Raises StepFailed with what it said."""
    why = trouble(words)
    if why:
        raise StepFailed("start", sentences.no_sandbox(why), may_work_again=True)


def trouble(words: Sequence[str]) -> str:
    """Why nothing can run in it on this node; empty where it can."""
    try:
        done = subprocess.run(
            [*words, "/usr/bin/true"], env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error) if isinstance(error, subprocess.TimeoutExpired) else (error.strerror or str(error))
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit code {done.returncode}")


def version(bubblewrap: str) -> str:
    """In its own words, or where it is."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            [bubblewrap, "--version"], capture_output=True, text=True, timeout=_PATIENCE
        ).stdout.strip()
    return bubblewrap
