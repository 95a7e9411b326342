"""The passes of one process, with a broker and a scheduler in memory."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional, cast

from worker.build import Ends
from worker.folder.jobs import JobsFolder
from worker.login.lease import Lease
from worker.login.passes import Passes
from worker.settings import Config


class NoLease:
    """Nobody else is there, and the file server's clock is ours."""

    @property
    def server_now(self) -> float:
        return time.time()

    def check(self) -> None: ...


NO_LEASE = cast(Lease, NoLease())


def a_token() -> str:
    return "a token"


def passes_of(
    config: Config, jobs: JobsFolder, ends: Ends, scheduler: Any, lease: Lease = NO_LEASE, watching: bool = False,
    authenticate: Optional[Callable[[], str]] = a_token,
) -> Passes:  # fmt: skip
    """`scheduler` has what passes ask of one; what it does costs no command."""
    return Passes(config, jobs, lease, ends, watching, lambda _: scheduler, authenticate)
