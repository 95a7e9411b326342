"""Two hosts that share a file system, as the tests of this folder know them: the same tests wherever that is mounted."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Traits:
    """What a file system is known to do, and whoever trusts names would stumble over."""

    keeps_old_names: bool
    """A folder that was renamed away goes on opening where it was, and taking new files, for longer than any test takes.
    Where this is False it may do so for a moment."""
    hides_new_names: bool
    """A name that was looked for just before it was made may stay hidden until its folder changes."""
    visible_after: float = 4.0
    """Seconds after which one host reads what the other has synced."""


TRAITS: Mapping[str, Traits] = {
    "late": Traits(keeps_old_names=True, hides_new_names=True, visible_after=0.2),
    "nfs-4.2": Traits(keeps_old_names=True, hides_new_names=False),
    "nfs-3": Traits(keeps_old_names=True, hides_new_names=True),
    "juicefs": Traits(keeps_old_names=False, hides_new_names=False),
}


class Hosts:
    """One folder as the compute node sees it, and as the login host does."""

    def __init__(self, place: str, node: Path, login: Path) -> None:
        """`node` and `login`: the mounts of each."""
        name = f"two-hosts-{secrets.token_hex(4)}"
        self.traits = TRAITS[place]
        self.node, self.login = node / name, login / name
        self.node.mkdir(mode=0o700)

    def server_now(self) -> float:
        """The file server's clock."""
        clock = self.login / "clock"
        clock.touch()
        return clock.stat().st_mtime
