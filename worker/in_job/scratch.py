"""Where a job works on its node: a folder that nobody else could know of, removed by the attempt that made it.

Whatever keeps us from making it is this node's trouble and not the job's, which may do well on another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import StepFailed
from ..folder import paths
from ..job import sentences

log = logging.getLogger(__name__)

IN_FOLDER = "folder"
"""What the site file says where jobs work in their own folders."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_LEFT_BEHIND_AFTER = 3600.0
"""Seconds: by then whoever made a folder has long taken its lock."""


class NoPlace(Exception):
    """Why there is none here, for the people who run this installation."""


@contextlib.contextmanager
def place_to_work(setting: str, label: str) -> Iterator[Path]:
    """A new folder in the site's `scratch`, removed afterwards. `label` helps people to see whose it is.

    Raises StepFailed where there can be none.
    """
    with contextlib.ExitStack() as stack:
        with on_this_node():
            path = stack.enter_context(new_place(expanded(setting, os.environ), label))
        yield path


@contextlib.contextmanager
def new_place(above: Path, label: str) -> Iterator[Path]:
    """Raises OSError when it is entered."""
    path = _make(above, label)
    descriptor = _locked(path)
    try:
        yield path
    finally:
        paths.remove_tree(path)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def on_this_node() -> Iterator[None]:
    """What fails here is this node's fault. The requester reads what, and the log says where. Raises StepFailed."""
    try:
        yield
    except (NoPlace, OSError) as error:
        log.warning("no place to work on this node why=%r", str(error))
        why = error.strerror or "" if isinstance(error, OSError) else ""
        raise StepFailed("start", sentences.no_place_to_work(why), may_work_again=True) from None


def expanded(setting: str, environment: Mapping[str, str]) -> Path:
    """The folder on this node: what it is called may depend on the node and on the job. Raises NoPlace."""

    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if not environment.get(name):
            raise NoPlace(f"scratch is {setting}, and the variable {name} is not set on this node")
        return environment[name]

    path = os.path.expanduser(_VARIABLE.sub(value, setting))
    if not path.startswith("/"):
        raise NoPlace(f"scratch is {setting}, which is {path} on this node, and that is not a full path")
    return Path(path)


def _make(above: Path, label: str) -> Path:
    """Of those that killed workers left here, none keeps its room."""
    prefix = f"batchferry-{_host()}-"
    if not above.is_dir():
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_what_the_killed_left(above, prefix)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{label}-", dir=above))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", socket.gethostname())


def _remove_what_the_killed_left(above: Path, prefix: str) -> None:
    """Those of this node, ours, and without a lock: the kernel took that back when its worker died. A lock of another host
    on a shared file system could be invisible here, therefore the node's name in the folder's."""
    with contextlib.suppress(OSError):
        with os.scandir(above) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix)]
        for name in names:
            _remove_if_left(above / name)


def _remove_if_left(path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not ours or time.time() - found.st_mtime < _LEFT_BEHIND_AFTER:
            return
        descriptor = _locked(path)
        if descriptor is not None:
            log.info("removing what a killed worker left path=%s", path)
            paths.remove_tree(path)
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """None where somebody else has it, or where there are no locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError:
        os.close(descriptor)
        return None
