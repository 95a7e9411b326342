"""A git repository that a job names becomes files: cloned in the sandbox, with all that could run or lead elsewhere switched
off."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Optional

from ..errors import StepFailed
from ..job.outcome import readable_tail
from ..job.own_code import Code
from .bounds import Bounds

log = logging.getLogger(__name__)

_PATIENCE = 600.0
_LAST_LOOK = 5.0
_END = 4096
"""Bytes of what it says that anybody looks at."""
_OFF = ("protocol.allow=never", "protocol.https.allow=always", "http.followRedirects=false", "credential.helper=",
        "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=false", "submodule.recurse=false",
        "transfer.fsckObjects=true", "advice.detachedHead=false", "init.defaultBranch=main", "gc.auto=0",
        "fetch.recurseSubmodules=false", "http.lowSpeedLimit=100", "http.lowSpeedTime=60")  # fmt: skip
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_ASKPASS": "/bin/false", "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1", "HOME": "/nonexistent",
}  # fmt: skip
"""Without a HOME, libcurl looks for this user's own, and sends what his .netrc has for the host."""


def clone(code: Code, home: Path, inside: Sequence[str], bounds: Bounds) -> str:
    """Fills `home` with the files of one commit, without its history; returns the commit's digits. `inside`: the words that
    put a command into a sandbox with a network. Raises StepFailed with a sentence for the requester."""
    run = _Git(code, home, inside, bounds)
    run("init", "--quiet")
    wanted = code.revision or "HEAD"
    # A server without shallow clones (plain HTTP), or without single commits, has to give all of it.
    if not run("fetch", "--quiet", "--depth=1", "--no-tags", code.source, wanted, may_fail=True):
        run("fetch", "--quiet", "--no-tags", code.source, "+refs/heads/*:refs/remotes/origin/*")
        if not code.revision:
            run("fetch", "--quiet", "--no-tags", code.source, "HEAD")
        wanted = _found(run, code.revision)
    else:
        wanted = "FETCH_HEAD"
    run("checkout", "--quiet", "--detach", "--force", wanted)
    commit = run.output("rev-parse", "HEAD")
    run.remove_history()
    return commit


def _found(run: _Git, revision: str) -> str:
    for name in (f"refs/remotes/origin/{revision}", f"{revision}^{{commit}}") if revision else ("FETCH_HEAD",):
        if run("rev-parse", "--quiet", "--verify", name, may_fail=True):
            return name
    raise StepFailed("fetch", f'The repository of the code has no branch or commit "{revision}".')


def _end_of(stream: Optional[IO[bytes]]) -> bytes:
    """A server may have git say as much as it likes."""
    end = b""
    with stream or io.BytesIO() as said:
        while piece := said.read(_END):
            end = (end + piece)[-_END:]
    return end


class _Git:
    def __init__(self, code: Code, home: Path, inside: Sequence[str], bounds: Bounds) -> None:
        self._code, self._home, self._bounds = code, home, bounds
        off = [*_OFF, *(["protocol.http.allow=always"] if code.source.startswith("http://") else [])]
        self._git = [*inside, "/usr/bin/git", *(word for each in off for word in ("-c", each))]
        self._said = b""

    def __call__(self, *words: str, may_fail: bool = False) -> bool:
        """Whether it went well."""
        try:
            process = subprocess.Popen(
                [*self._git, *words], cwd=self._home, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise StepFailed(
                "start", f"The code could not be fetched (git: {error.strerror}).", may_work_again=True
            ) from None
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(_end_of(process.stdout)), name="git", daemon=True)
        reader.start()
        try:
            with self._bounds.watch(process.pid):
                process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise StepFailed("fetch", "The repository of the code did not come in time.", may_work_again=True) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Not for ever: an interrupt may have come while subprocess held its lock on the process.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_LOOK)
            reader.join(_LAST_LOOK)
        self._said = said[0] if said else b""
        if self._bounds.broken:
            raise StepFailed("fetch", self._bounds.broken)
        if process.returncode and not may_fail:
            raise self._failed(words[0])
        return process.returncode == 0

    def output(self, *words: str) -> str:
        """The object's digits; a warning may stand before them."""
        self(*words)
        found = re.search(rb"^[0-9a-f]{40,64}$", self._said, re.MULTILINE)
        if found is None:
            raise self._failed(words[0])
        return found.group().decode()

    def remove_history(self) -> None:
        from ..folder.paths import remove_tree

        remove_tree(self._home / ".git")

    def _failed(self, step: str) -> StepFailed:
        said, query = self._said.decode("utf-8", "replace"), self._code.source.partition("?")[2]
        tail = readable_tail(said.replace(query, "...") if query else said, lines=2, characters=300)
        log.warning("git failed step=%s said=%r", step, tail)
        words = f"The repository of the code could not be fetched. git says: {tail or 'nothing'}"
        return StepFailed("fetch", words, may_work_again=not re.search("not found|does not exist|redirect", tail))
