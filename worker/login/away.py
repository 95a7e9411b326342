"""What stops all claimed jobs at once: the login, the API, Slurm or the disk."""

from __future__ import annotations

from ..folder import disk


class SiteAway(Exception):
    """Something of the site stops claimed jobs: they wait, and no new message is taken. `kind`: login, api, slurm, disk."""

    def __init__(self, kind: str, words: str, retry_after: float = 0) -> None:
        super().__init__(words)
        self.kind = kind
        self.retry_after = retry_after


def disk_away(error: OSError) -> SiteAway:
    return SiteAway("disk", disk.words(error))


def raise_if_disk(error: OSError) -> None:
    """Raises SiteAway where it is the disk that is at fault, and so every job's."""
    if disk.is_away(error):
        raise disk_away(error) from None
