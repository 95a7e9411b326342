"""A file system in which a name that was made on one host stays invisible on the other for a while, in which a folder that
one host has renamed away goes on under its old name on the other, and which says on demand that it is away (ENOTCONN), or
that what was just opened is another file by now (ESTALE). For tests.

It stands for a network file system whose clients keep for some time what they know of names; tests/network runs the same
tests on it and on real ones. No lock, no lost answer, no stale content of a file that both hosts know is played here. Two
folders, `login` and `compute`, show one `backing` folder; each is what one host sees. As with Linux's NFS client, whoever
fails to make a name because it exists (link, mkdir, an exclusive open) sees it from then on: the server was asked.

`python -m tests.services.late_files FOLDER` serves both until they are unmounted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from tests.services.daemon import Daemon, wait_until
from tests.services.present import ServiceMissing

HOSTS = ("login", "compute")
_ROOT = Path(__file__).resolve().parent.parent.parent
# What FUSE hands on for "now" and for "leave it" in place of a time, utimensat(2).
_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2


class LateFiles:
    """Both mounts, in `folder`. Whoever can't have them gets ServiceMissing, which says why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.login, self.compute = folder / "login", folder / "compute"
        python_path = {"PYTHONPATH": str(_ROOT), "PATH": os.environ.get("PATH", os.defpath)}
        argv = [sys.executable, "-m", "tests.services.late_files", str(folder)]
        self._server = Daemon("late_files", argv, folder, python_path)

    def late(self, login: float = 0, compute: float = 0, until_changed: bool = False, old_names: float = 0) -> None:
        """Seconds for which each host does not see what the other makes from now on; what there is, both see at once.
        `until_changed`: a name that a host has looked for in vain stays hidden from it until it changes the folder itself,
        and then lists it, as with NFS 3 where the name was made in the same tick of the server's clock.
        `old_names`: seconds for which a folder that one host renames goes on opening, and taking new files, under its old
        name on the other host, if that one has looked at it before. Unlike with NFS, opening the folder above changes
        nothing: the clients of JuiceFS and GlusterFS do not ask their server then. To rename or remove it by its old name
        fails at once, because those go to the server."""
        aside = self.folder / "late.new"
        asked = {"login": login, "compute": compute, "until_changed": until_changed, "old_names": old_names}
        aside.write_text(json.dumps({**asked, "since": time.monotonic()}))
        os.replace(aside, self.folder / "late.json")

    def fails(self, host: str, code: int = 0, name: str = "", times: int = -1) -> None:
        """On this host, so many calls about a file of this name end with this error; all of them, and of all files, if nothing
        is said. 0: none do any more."""
        aside = self.folder / "fails.new"
        aside.write_text(json.dumps({"host": host, "code": code, "name": name, "times": times, "of": time.monotonic()}))
        os.replace(aside, self.folder / "fails.json")

    def on_compute(self, path: Path, *argv: str) -> list[str]:
        """`argv` as it runs on the compute host: there, `path`, a folder of the login host's, is the same folder seen
        from the other side. A mount namespace, because both hosts call it by the same name."""
        other = self.compute / path.relative_to(self.login)
        mount_and_run = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount_and_run, "sh",
                str(other), str(path), *argv]  # fmt: skip

    def python_on_compute(self, path: Path) -> Path:
        """A program to be named as the worker's python."""
        script = self.folder / "python"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(self.on_compute(path, sys.executable))} "$@"\n')
        script.chmod(0o700)
        return script

    def __enter__(self) -> LateFiles:
        _require()
        for name in ("backing", *HOSTS):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.late()
        self.fails("login")
        self._server.start()
        wait_until(lambda: self.login.is_mount() and self.compute.is_mount(), self._server)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for mount in (self.login, self.compute):
            subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
        self._server.kill()  # nothing of it is to be saved


def _require() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
        raise ServiceMissing("late file system: /dev/fuse can't be used here; run the tests as root, and privileged")
    try:
        import mfusepy  # type: ignore[import-untyped] # noqa: F401
    except (ImportError, OSError) as error:
        raise ServiceMissing(f"late file system: {error}; on Debian or Ubuntu: apt-get install libfuse3-3") from None


# --- what serves it


class _Births:
    """When and on which host each name was made. By its folder's inode, which a rename of the folder leaves alone."""

    def __init__(self, settings: Path) -> None:
        self._settings = settings
        self._births: dict[tuple[int, str], tuple[str, float]] = {}
        self._in_vain: set[tuple[int, str, str]] = set()
        """Folder, name and the host that looked for it."""
        self._changed: set[tuple[int, str]] = set()
        """Folder and host: its next listing is the server's."""

    def note(self, folder: Path, name: str, host: str) -> None:
        self._births[(folder.stat().st_ino, name)] = (host, time.monotonic())
        self.changed(folder, host)

    def forget(self, folder: Path, name: str) -> None:
        self._births.pop((folder.stat().st_ino, name), None)

    def changed(self, folder: Path, host: str) -> None:
        self._changed.add((folder.stat().st_ino, host))

    def listed(self, folder: Path, host: str) -> None:
        number = folder.stat().st_ino
        if (number, host) in self._changed:
            self._changed.discard((number, host))
            self._in_vain = {each for each in self._in_vain if (each[0], each[2]) != (number, host)}

    def missed(self, folder: Path, name: str, host: str) -> None:
        with contextlib.suppress(OSError):
            self._in_vain.add((folder.stat().st_ino, name, host))

    def hidden(self, folder: Path, name: str, host: str) -> bool:
        number = folder.stat().st_ino
        maker, born = self._births.get((number, name), (host, 0.0))
        if maker == host:
            return False
        settings = json.loads(self._settings.read_text())
        if born <= settings["since"]:
            return False
        if settings["until_changed"] and (number, name, host) in self._in_vain:
            return True
        return bool(time.monotonic() - born < settings[host])


class _OldNames:
    """Folders that one host has renamed, and that the other one still finds where they were."""

    def __init__(self, backing: Path, settings: Path) -> None:
        self._backing, self._settings = backing, settings
        self._looked_at: set[tuple[str, str]] = set()
        """Host and path of a folder that this host has found there, or put there itself."""
        self._kept: dict[tuple[str, str], tuple[int, float]] = {}
        """By host and old path: the folder itself, open, and when it was renamed."""
        self._lock = threading.Lock()

    def looked_at(self, host: str, path: str) -> None:
        self._looked_at.add((host, path))

    def renames(self, host: str, folder: Path, old: str, new: str) -> None:
        """To be said before it does: no look of the other host may fall in between."""
        (other,) = {*HOSTS} - {host}
        with self._lock:
            for key in list(self._kept):
                if key[0] == host and any(_is_below(key[1], path) for path in (old, new)):
                    self._drop(key)
            if (other, old) in self._looked_at:
                self._looked_at.discard((other, old))
                self._drop((other, old))
                found = os.open(folder, os.O_PATH | os.O_DIRECTORY)
                self._kept[other, old] = (found, time.monotonic())
        self.looked_at(host, new)

    def is_kept(self, host: str, path: str) -> bool:
        with self._lock:
            return self._folder((host, path)) is not None

    def real(self, host: str, path: str) -> Path:
        """Where that is by now which this host calls by this path."""
        with self._lock:
            rest: list[str] = []
            while self._kept and path != "/":
                found = self._folder((host, path))
                if found is not None:
                    return found.joinpath(*reversed(rest))
                path, name = os.path.split(path)
                rest.append(name)
            return self._backing.joinpath(path.lstrip("/"), *reversed(rest))

    def _folder(self, key: tuple[str, str]) -> Optional[Path]:
        if key not in self._kept:
            return None
        found, since = self._kept[key]
        settings = json.loads(self._settings.read_text())
        if since <= settings["since"] or time.monotonic() - since >= settings["old_names"]:
            self._drop(key)
            return None
        if not os.fstat(found).st_nlink:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return Path(os.readlink(f"/proc/self/fd/{found}"))

    def _drop(self, key: tuple[str, str]) -> None:
        if key in self._kept:
            os.close(self._kept.pop(key)[0])


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class _Failures:
    """What was asked for with `fails`."""

    def __init__(self, settings: Path) -> None:
        self._settings = settings
        self._of, self._seen = 0.0, 0

    def strike(self, path: str, host: str) -> None:
        asked = json.loads(self._settings.read_text())
        if asked["of"] != self._of:
            self._of, self._seen = asked["of"], 0
        meant = asked["code"] and asked["host"] == host and asked["name"] in ("", os.path.basename(path))
        if meant and (asked["times"] < 0 or self._seen < asked["times"]):
            self._seen += 1
            raise OSError(asked["code"], os.strerror(asked["code"]))


class _View:
    """What one host sees of the folder: the operations of libfuse, by path."""

    use_ns = True

    def __init__(self, backing: Path, host: str, births: _Births, old_names: _OldNames, failures: _Failures) -> None:
        self._backing, self._host = backing, host
        self._births, self._old_names, self._failures = births, old_names, failures

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # what is not here, libfuse does by itself or refuses

    def _at(self, path: str) -> Path:
        """Where the server finds this name: in the folder that this host has in mind, whatever that is called by now."""
        self._failures.strike(path, self._host)
        if path == "/":
            return self._backing
        above, name = os.path.split(path)
        return self._old_names.real(self._host, above) / name

    def _seen(self, path: str) -> Path:
        """Raises the error of a name that is not there."""
        real = self._at(path)
        if self._old_names.is_kept(self._host, path):
            return self._old_names.real(self._host, path)
        there = path == "/" or os.path.lexists(real)
        if path != "/" and self._births.hidden(real.parent, real.name, self._host):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not there:
            self._births.missed(real.parent, real.name, self._host)
        return real

    @contextlib.contextmanager
    def _making(self, path: str) -> Iterator[Path]:
        real = self._at(path)
        new = not os.path.lexists(real)
        try:
            yield real
        except FileExistsError:
            self._births.forget(real.parent, real.name)
            raise
        if new:
            self._births.note(real.parent, real.name, self._host)
        else:  # replaced by us, who see what we did
            self._births.forget(real.parent, real.name)

    # names

    def getattr(self, path: str, handle: Optional[int] = None) -> Mapping[str, int]:
        found = os.fstat(handle) if handle is not None else os.lstat(self._seen(path))
        if stat.S_ISDIR(found.st_mode):
            self._old_names.looked_at(self._host, path)
        plain = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_rdev", "st_dev")
        times = {f"st_{kind}time": getattr(found, f"st_{kind}time_ns") for kind in "amc"}
        return {**{name: getattr(found, name) for name in plain}, **times}

    def readdir(self, path: str, handle: int) -> Iterator[tuple[str, Mapping[str, int], int]]:
        folder = self._seen(path)
        self._births.listed(folder, self._host)
        for name in os.listdir(folder):
            if not self._births.hidden(folder, name, self._host):
                # A name whose inode is 0 would be passed over by readdir(3).
                with contextlib.suppress(FileNotFoundError):
                    yield name, {"st_ino": os.lstat(folder / name).st_ino}, 0

    def create(self, path: str, mode: int, flags: int) -> int:
        with self._making(path) as real:
            return os.open(real, flags | os.O_CREAT, mode)

    def mkdir(self, path: str, mode: int) -> int:
        with self._making(path) as real:
            os.mkdir(real, mode)
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        with self._making(path) as real:
            os.mknod(real, mode, device)
        return 0

    def symlink(self, path: str, points_to: str) -> int:
        with self._making(path) as real:
            os.symlink(points_to, real)
        return 0

    def link(self, path: str, existing: str) -> int:
        with self._making(path) as real:
            os.link(self._seen(existing), real)
        return 0

    def rename(self, old: str, new: str) -> int:
        source = self._at(old)
        with self._making(new) as real:
            if source.is_dir():
                self._old_names.renames(self._host, source, old, new)
            os.rename(source, real)
        self._births.forget(source.parent, source.name)
        return 0

    def unlink(self, path: str) -> int:
        real = self._at(path)
        os.unlink(real)
        self._births.forget(real.parent, real.name)
        self._births.changed(real.parent, self._host)
        return 0

    def rmdir(self, path: str) -> int:
        real = self._at(path)
        os.rmdir(real)
        self._births.forget(real.parent, real.name)
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._seen(path))

    # content

    def open(self, path: str, flags: int) -> int:
        return os.open(self._seen(path), flags)

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        self._failures.strike(path, self._host)
        return os.pread(handle, size, offset)

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        return os.pwrite(handle, data, offset)

    def truncate(self, path: str, length: int, handle: Optional[int] = None) -> int:
        os.truncate(self._seen(path) if handle is None else handle, length)
        return 0

    def fsync(self, path: str, only_data: int, handle: int) -> int:
        os.fsync(handle)
        return 0

    def release(self, path: str, handle: int) -> int:
        os.close(handle)
        return 0

    # properties

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._seen(path), mode)
        return 0

    def chown(self, path: str, user: int, group: int) -> int:
        os.lchown(self._seen(path), user, group)
        return 0

    def utimens(self, path: str, times: Optional[tuple[int, int]] = None) -> int:
        real = self._seen(path)
        before = os.lstat(real)
        kept, now = (before.st_atime_ns, before.st_mtime_ns), time.time_ns()
        given = times or (_NOW, _NOW)
        meant = [now if t == _NOW else old if t == _OMIT else t for t, old in zip(given, kept)]
        os.utime(real, ns=(meant[0], meant[1]), follow_symlinks=False)
        return 0

    def statfs(self, path: str) -> Mapping[str, int]:
        found = os.statvfs(self._backing)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}


def _serve(folder: Path) -> None:
    import mfusepy

    births, failures = _Births(folder / "late.json"), _Failures(folder / "fails.json")
    old_names = _OldNames(folder / "backing", folder / "late.json")
    # No caches in the kernel: what is late here is late by these tables alone.
    options = {"entry_timeout": 0, "attr_timeout": 0, "negative_timeout": 0, "use_ino": True, "hard_remove": True}
    threads = [
        threading.Thread(
            target=mfusepy.FUSE,
            args=(_View(folder / "backing", host, births, old_names, failures), str(folder / host)),
            kwargs={"foreground": True, "nothreads": True, "fsname": f"late_{host}", **options},
        )
        for host in HOSTS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
