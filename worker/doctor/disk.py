"""The jobs folder: whether it can be written, has room, and keeps what the facts of jobs rely on."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..build import traits
from ..errors import NotOurs
from ..folder import paths
from ..folder.jobs import JobsFolder, mark_file
from ..job.sentences import duration
from ..login.mark import Marked, check_mark
from ..settings import Site
from .aside import own_folder
from .mounts import look_at_options, mount_of
from .report import Report
from .service import tell_clock
from .subject import Subject

_MIB = 2**20
_LITTLE = 1024 * _MIB
_INODES = 1000
_ON_ONE_HOST = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ramfs", "f2fs")
_SCRATCH = re.compile(r"scratch|^ptmp$", re.IGNORECASE)
_LEAST_PURGE = 3 * 86400
"""Seconds: a round of touching may take a day, and passes may stand still for another."""
_GONE_AFTER_A_REBOOT = ("tmpfs", "ramfs")


def look_at_jobs_folder(report: Report, subject: Subject) -> None:
    report.begin("jobs folder")
    if subject.site is None:
        report.skip("site.toml can't be read")
        return
    site = subject.site
    if not _is_the_one(report, subject, site) or not _there(report, site):
        return
    _look_at_room(report, site, site.jobs_dir)
    _look_at_kind(report, site, subject.on_node)
    _look_for_purges(report, site)
    report.begin("writing")
    try:
        with own_folder(site.jobs_dir) as made:
            _try_writing(report, made)
    except OSError as error:
        report.fault(f"{site.jobs_dir}: {error.strerror}", "See whether the disk is full, read-only or over quota.")


def _is_the_one(report: Report, subject: Subject, site: Site) -> bool:
    if site.jobs_dir.exists() and not site.jobs_dir.is_dir():
        report.begin("jobs folder")
        return True  # it is told in words of its own
    report.begin("mark")
    file = mark_file(subject.site_file)
    try:
        marked = check_mark(subject.site_file, JobsFolder(site.jobs_dir))
        if marked is Marked.YES:
            report.ok("the folder is the one of earlier passes")
        elif marked is Marked.ELSEWHERE:
            report.ok(
                "the folder is the one of earlier passes, which knew it by another name; the next pass notes this one"
            )
        elif marked is Marked.UNSURE:
            report.warn("the folder was elsewhere before, and that place gives no answer: is this one a copy of it?",
                        "If the other one may still be in use, use only that; docs/copying.md.")  # fmt: skip
        elif os.access(file.parent, os.W_OK):
            report.ok("none yet; the first pass leaves one")
        else:
            report.warn(f"none, and {file.parent} can't be written: a jobs folder that is not mounted would not be noticed",
                        "Put site.toml into a folder of yours, and name it with --site.")  # fmt: skip
    except NotOurs as error:
        report.fault(error.found, f"{error.fix}.")
        return False
    except OSError as error:
        report.fault(f"{site.jobs_dir}: {error.strerror}", "Is its file system mounted, and does its server answer?")
        return False
    report.begin("jobs folder")
    return True


def _there(report: Report, site: Site) -> bool:
    path = site.jobs_dir
    try:
        found = path.stat()
    except FileNotFoundError:
        return _can_be_made(report, site)
    except OSError as error:
        report.fault(f"{path} can't be looked at: {error.strerror}", "Is its file system mounted, and are we let in?")
        return False
    if not stat.S_ISDIR(found.st_mode):
        report.fault(f"{path} is no folder", "Set jobs_dir in site.toml to a folder.")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        report.fault(
            f"{path} can't be written by us", f"Run as its owner: chmod u+rwx {path}; or set another jobs_dir."
        )
    elif found.st_uid != os.getuid():
        report.fault(f"{path} belongs to another user", "Set jobs_dir in site.toml to a folder of your own.")
    elif found.st_mode & 0o077:
        report.warn(f"{path} can be entered by others; it holds tokens and other people's data", f"chmod 700 {path}")
        return True
    else:
        report.ok(f"{path}, ours alone")
        return True
    return False


def _can_be_made(report: Report, site: Site) -> bool:
    path = site.jobs_dir
    above = next(each for each in path.parents if each.exists())
    if os.access(above, os.W_OK | os.X_OK):
        report.warn(f"{path} does not exist; the first pass makes it",
                    "If there were jobs before: is its file system mounted?")  # fmt: skip
        _look_at_room(report, site, above)
    else:
        report.fault(
            f"{path} does not exist, and {above} can't be written", "Set jobs_dir in site.toml to a folder of yours."
        )
    return False


def _look_at_room(report: Report, site: Site, folder: Path) -> None:
    """`folder`: the jobs folder, or where it will be made."""
    report.begin("room")
    disk = os.statvfs(folder)
    room, least = disk.f_bavail * disk.f_frsize, 2 * site.limits.message_bytes
    found = f"{room // _MIB} MiB free"
    mend = f"Make room on the disk of {folder}, or set keep_done and done_bytes lower."
    if room < least:
        report.fault(f"{found}: no message is taken", mend)
    elif disk.f_files and disk.f_favail < _INODES:
        report.fault(f"only {disk.f_favail} more files fit", mend)
    elif room < max(_LITTLE, site.limits.output_bytes * 4):
        report.warn(found, mend)
    else:
        report.ok(found)


def _look_at_kind(report: Report, site: Site, on_node: bool) -> None:
    report.begin("file system")
    mount = mount_of(site.jobs_dir)
    kind = mount.kind if mount else ""
    if kind in _GONE_AFTER_A_REBOOT:
        report.fault(
            f"{kind}: jobs and answers would be gone after a reboot", "Set jobs_dir in site.toml to a real disk."
        )
    elif kind in _ON_ONE_HOST and traits(site).many_hosts and not on_node:
        report.warn(f"{kind}, which as a rule only this host sees", "Run ./check.py doctor --from-node to know.")
    else:
        report.ok(kind or "unknown")
    if mount is not None:
        look_at_options(report, mount, site.timing.visible_after)


def _look_for_purges(report: Report, site: Site) -> None:
    """Passes touch what is in flight once a day; but some sites count from when a file was made, and some forbid it."""
    report.begin("purges")
    after, name = site.purged_after, looks_like_scratch(site.jobs_dir, os.environ)
    mend = "Set jobs_dir in site.toml to a place that is not purged: a home or project folder."
    if 0 < after < _LEAST_PURGE:
        report.fault("files are removed before a pass may have touched them: jobs would be lost", mend)
    elif after:
        report.warn(f"files that nobody reads for {duration(after)} are removed; jobs in flight are touched once a day, those "
                    "that are done may vanish before keep_done", mend)  # fmt: skip
    elif name:
        report.warn(f"{name} is scratch space, by its name: many sites remove old files there, jobs in flight among them",
                    f"Ask the site. {mend} Or say purged_after.")  # fmt: skip
    else:
        report.ok("none known")


def looks_like_scratch(path: Path, environment: Mapping[str, str]) -> str:
    """By what makes it look so; "" where nothing does. Sites call it /scratch, /pscratch, /lustre/scratch4, /nfsscratch,
    scratch-shared, /ptmp; and they name it in a variable such as SCRATCH, PSCRATCH or MYSCRATCH."""
    real = path.resolve()
    for each in (path, real):
        word = next((part for part in each.parts if _SCRATCH.search(part)), "")
        if word:
            return word
    for variable, value in environment.items():
        place = Path(value)
        if (
            "SCRATCH" in variable
            and place.is_absolute()
            and len(place.parts) > 1
            and place.resolve() in (real, *real.parents)
        ):
            return f"${variable}"
    return ""


def _try_writing(report: Report, place: Path) -> None:
    """The two ways in which facts are written: aside and renamed, aside and linked to a name that one writer gets."""
    before = time.time()
    (place / "clock").touch()
    theirs, after = (place / "clock").stat().st_mtime, time.time()
    report.ok("files can be made")
    _expect(report, "renaming", lambda: _rename_replaces(place), "a rename does not replace the file that was there")
    _expect(report, "linking", lambda: _link_is_exclusive(place), "a link does not fail where the name is taken")
    _expect(report, "syncing", lambda: _folder_syncs(place), "a folder can't be synced")
    report.begin("clock")
    tell_clock(report, "the file server's", min(0.0, after - theirs + 0.1) or max(0.0, before - theirs - 0.1))


def _expect(report: Report, what: str, holds: Callable[[], bool], else_found: str) -> None:
    report.begin(what)
    mend = "Set jobs_dir in site.toml to another file system (NFS and Lustre do it)."
    try:
        report.ok("as needed") if holds() else report.fault(else_found, mend)
    except OSError as error:
        report.fault(f"{else_found}: {error.strerror}", mend)


def _rename_replaces(place: Path) -> bool:
    paths.write_bytes(place / "fact", b"old")
    paths.write_bytes(place / "fact", b"new")
    return (place / "fact").read_bytes() == b"new"


def _link_is_exclusive(place: Path) -> bool:
    (place / "one").write_bytes(b"one")
    (place / "two").write_bytes(b"two")
    os.link(place / "one", place / "name")
    try:
        os.link(place / "two", place / "name")
    except FileExistsError:
        return os.path.samefile(place / "one", place / "name") and (place / "one").stat().st_nlink == 2
    return False


def _folder_syncs(place: Path) -> bool:
    paths.sync_folder(place)
    return True
