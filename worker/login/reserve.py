"""Room kept in reserve, so that a message that was got can be claimed: one that goes back counts against the delivery limit
of a quorum queue (RabbitMQ 4 drops it at its 21st return), and statvfs knows nothing of quotas.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from ..folder import paths
from ..folder.jobs import JobsFolder
from .away import SiteAway, disk_away

log = logging.getLogger(__name__)

_BESIDE_THE_BODY = 64 * 1024
_FILES = 30
"""What a claimed job makes until its answer is stored."""


class Reserve:
    """`jobs/reserve/`: as large as the largest message, and as many files as a job has. Made once, and given up the moment a
    claim meets a full disk."""

    def __init__(self, jobs: JobsFolder, largest_message: int) -> None:
        self._active, self._folder = jobs.active, jobs.reserve
        self._size = largest_message + _BESIDE_THE_BODY
        self.held = False

    def hold(self) -> None:
        """Before a message is got: makes sure, once in a pass, that it is there, and that a file can be made durably beside
        the active jobs. Raises OSError where not."""
        if not self.held:
            # One name for all: what a pass that was killed leaves, the next one removes.
            _try_to_write(self._active / ".try")
            room = self._folder / "room"
            if not room.exists() or room.stat().st_size < self._size:
                self._make(room)
            self.held = True

    def _make(self, room: Path) -> None:
        """The file that says that it is whole gets its name last."""
        paths.remove_tree(self._folder)  # half made, or of a smaller size
        if os.path.lexists(self._folder):
            paths.put_aside(self._folder)
        paths.make_folder(self._folder)
        for number in range(_FILES):
            (self._folder / str(number)).touch(mode=0o600)
        aside = self._folder / "room.part"
        try:
            with open(aside, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
                os.fsync(file.fileno())
            os.rename(aside, room)
        except OSError:
            paths.remove_tree(self._folder)
            raise

    def check(self, whole: bool = True) -> None:
        """Raises SiteAway where a message might not fit: to give it back counts against a quorum queue's delivery limit.
        `whole`: also makes sure that the reserve is there, which costs a sync."""
        disk = os.statvfs(self._active.parent)
        # Some file systems count no inodes, and say 0 of 0.
        no_inodes = disk.f_files > 0 and disk.f_favail < _FILES
        if no_inodes or disk.f_bavail * disk.f_frsize < 2 * (self._size - _BESIDE_THE_BODY):
            raise SiteAway("disk", "the jobs folder's disk is full")
        try:
            if whole:
                self.hold()
        except OSError as error:
            raise disk_away(error) from None

    def give_up(self, error: OSError) -> bool:
        """False where that makes no room: the disk has another trouble, or there is no reserve."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.held:
            return False
        log.warning("no room for what was got, the reserve is given up why=%r", error.strerror)
        self.held = False
        paths.remove_tree(self._folder)
        return True


def _try_to_write(file: Path) -> None:
    try:
        with open(file, "wb") as opened:
            opened.write(b"may this be written?\n")
            opened.flush()
            os.fsync(opened.fileno())
    finally:
        with contextlib.suppress(OSError):
            os.unlink(file)
