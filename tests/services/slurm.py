"""A real Slurm cluster of three nodes on this host, with accounting and enforced memory limits, all of it private."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Optional

import psutil

from tests.services.alias import new_alias, point, remove
from tests.services.daemon import Daemon, accepts, end, free_ports, wait_until
from tests.services.present import ServiceMissing, find, require
from tests.services.slurm_configuration import Layout

_PACKAGES = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mungekey": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_CGROUPS = Path("/sys/fs/cgroup")
_LIBRARIES = (
    {"LD_LIBRARY_PATH": os.environ["BATCHFERRY_TEST_SLURMDBD_LIBRARIES"]}
    if ("BATCHFERRY_TEST_SLURMDBD_LIBRARIES" in os.environ)
    else {}
)
"""Debian 13's slurmdbd fails with its own libmariadb; tests/services/with_suite lays another one here."""


class SlurmCluster:
    """Partition `main` (default) is n1 and n2; partition `doomed` is n3, whose node tests may kill.

    `settings` replace lines of slurm.conf (`{"MinJobAge": "2"}`) when the cluster is first made. A second object on the
    same folder, also in another process, steers the same cluster. Nodes have other names in Slurm's tables, unique on
    the machine, because cgroups are named after them: `node("n1")`.
    """

    def __init__(self, folder: Path, settings: Optional[Mapping[str, str]] = None) -> None:
        self.folder = folder.absolute()
        if not self._facts_file.exists():
            self._prepare(settings or {})
        facts = json.loads(self._facts_file.read_text())
        self.layout = Layout(**{**facts, "home": Path(facts["home"])})
        self._munge = self._daemon("munged", "munged", "--foreground", *self._munge_options())
        self._database = self._daemon("mariadbd", "mariadbd", *self._database_options())
        self._accounting = self._daemon("slurmdbd", "slurmdbd", "-D", **_LIBRARIES)
        self._controller = self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self._home / "slurm.conf"))
        self._nodes = {
            name: self._daemon(name, "slurmd", "-D", "-N", self.node(name), "-f", str(self._home / "slurm.conf"))
            for name in self.layout.nodes
        }

    # What a test does with it

    def environment(self) -> dict[str, str]:
        """What a client's environment needs, and nothing else."""
        return {"SLURM_CONF": str(self._home / "slurm.conf"), "PATH": os.environ.get("PATH", os.defpath)}

    def run(self, *argv: str) -> str:
        """The output of a Slurm command; RuntimeError with both its streams if it fails."""
        done = subprocess.run(argv, env=self.environment(), capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def node(self, name: str) -> str:
        """What Slurm's tables call the node that tests call n1, n2 or n3."""
        return self.layout.nodes[name][0]

    def kill_node(self, name: str, spare_jobs: bool = False) -> None:
        """As a power cut ends it; with `spare_jobs` as a network cut does: its jobs run on, unseen by Slurm."""
        self._nodes[name].kill()
        if not spare_jobs:
            end(self._processes_on(name))

    def declare_lost(self, name: str) -> None:
        """Tells Slurm now what it would find out after half a minute; its jobs end as NODE_FAIL. start_node() mends it."""
        self.run("scontrol", "update", f"nodename={self.node(name)}", "state=down", "reason=lost")

    def stop_node(self, name: str) -> None:
        """As an administrator stops its slurmd: jobs run on, and are found again by start_node."""
        self._nodes[name].stop()

    def start_node(self, name: str) -> None:
        self._nodes[name].start()

    def stop_controller(self) -> None:
        self._controller.stop()

    def start_controller(self) -> None:
        self._controller.start()
        wait_until(lambda: accepts(self.layout.controller_port), self._controller)

    def stop_accounting(self) -> None:
        self._accounting.stop()

    def start_accounting(self) -> None:
        self._accounting.start()
        wait_until(lambda: accepts(self.layout.accounting_port), self._accounting)

    def wait_ready(self, seconds: float = 300) -> None:
        """Returns when all three nodes can take jobs."""
        wait_until(self._all_nodes_up, self._controller, seconds)

    def pids(self) -> list[int]:
        daemons = [pid for daemon in self._daemons() for pid in daemon.pids()]
        return daemons + [process.pid for name in self._nodes for process in self._processes_on(name)]

    # Start and stop

    def start(self) -> None:
        """Returns when jobs can run: about 3 s. sacct knows of them some 5 s later, as on any cluster just started."""
        point(self._home, self.folder)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        if not (self.folder / "munge.key").exists():
            subprocess.run([find("mungekey") or "", "-c", "-k", str(self.folder / "munge.key")], check=True)
        self._munge.start()
        self._make_database()
        self._database.start()
        wait_until((self._home / "munge.socket").exists, self._munge)
        wait_until(lambda: accepts(self.layout.database_port), self._database)
        self.start_accounting()
        if not self.run("sacctmgr", "-n", "-P", "show", "cluster", self.layout.cluster):
            self.run("sacctmgr", "-i", "add", "cluster", self.layout.cluster)
        self.start_controller()
        for slurmd in self._nodes.values():
            slurmd.start()
        self.wait_ready()

    def stop(self) -> None:
        """Everything at once, jobs too. What Slurm knew stays in the folder, so that start() goes on from there."""
        for slurmd in self._nodes.values():
            slurmd.kill()
        for name in self._nodes:
            end(self._processes_on(name))
            self._remove_cgroups(name)
        for daemon in (self._controller, self._accounting, self._database, self._munge):
            daemon.stop()
        remove(self._home)

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    # How it is made

    @property
    def _facts_file(self) -> Path:
        return self.folder / "facts.json"

    @property
    def _home(self) -> Path:
        """The folder under a name that Slurm's configuration and a socket can bear."""
        return self.layout.home

    def _prepare(self, settings: Mapping[str, str]) -> None:
        _require_slurm()
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = free_ports(6)
        tag = f"bf{secrets.token_hex(2)}n"
        layout = Layout(
            home=new_alias(),
            host=platform.node().split(".")[0],
            cluster=f"batchferry{secrets.token_hex(2)}",
            controller_port=ports[0],
            accounting_port=ports[1],
            database_port=ports[2],
            nodes={f"n{number}": (f"{tag}{number}", ports[2 + number]) for number in (1, 2, 3)},
            database_password=secrets.token_hex(8),
            cgroup_version="v2" if (_CGROUPS / "cgroup.controllers").exists() else "v1",
        )
        for name, text in layout.files(settings).items():
            file = self.folder / name
            file.write_text(text)
            # slurmdbd refuses to start if others may read its file.
            file.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        for name in ("state", "gpu", "tmp", *(node for node, _ in layout.nodes.values())):
            (self.folder / name).mkdir(exist_ok=True)
        for device in layout.devices():
            (self.folder / "gpu" / device).touch()
        (self.folder / "account.sql").write_text(layout.account())
        self._facts_file.write_text(json.dumps({**asdict(layout), "home": str(layout.home)}))

    def _daemon(self, name: str, program: str, *options: str, **more: str) -> Daemon:
        return Daemon(name, [find(program) or program, *options], self.folder, {**self.environment(), **more})

    def _daemons(self) -> list[Daemon]:
        return [self._munge, self._database, self._accounting, self._controller, *self._nodes.values()]

    def _munge_options(self) -> list[str]:
        files = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.own.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        return ["--force", *(f"--{option}={self._home / name}" for option, name in files.items())]

    def _database_options(self) -> list[str]:
        options = {
            "datadir": self._home / "database",
            # A starting MariaDB clears its temporary folder, also of another's tables.
            "tmpdir": self._home / "tmp",
            "socket": self._home / "mariadb.socket",
            "pid-file": self._home / "mariadb.own.pid",
            "bind-address": "127.0.0.1",
            "port": self.layout.database_port,
            "init-file": self._home / "account.sql",
            "user": "root",
            "innodb-log-file-size": "4M",
            # Slurm's transactions read what others have changed meanwhile; MariaDB 11.8 refuses that unless it is told.
            "loose-innodb-snapshot-isolation": "OFF",
            # Accounting need not survive a power cut of the test machine.
            "innodb-flush-log-at-trx-commit": "0",
        }
        # First: MariaDB looks for this one nowhere else.
        return ["--no-defaults", *(f"--{option}={value}" for option, value in options.items())]

    def _make_database(self) -> None:
        if (self.folder / "database").exists():
            return
        subprocess.run(
            [find("mariadb-install-db") or "", *self._database_options()[:3], "--user=root", "--skip-test-db"],
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _all_nodes_up(self) -> bool:
        try:
            states = self.run("sinfo", "-h", "-N", "-o", "%T").split()
        except RuntimeError:
            return False
        return bool(states) and all(state in ("idle", "mixed", "allocated") for state in states)

    # A node's jobs are no children of its slurmd; what holds them together is a cgroup with the node's name

    def _processes_on(self, name: str) -> list[psutil.Process]:
        lists = [file for top in self._cgroups(name) for file in top.rglob("cgroup.procs")]
        pids = {int(pid) for file in lists for pid in file.read_text().split()}
        found: list[tuple[bool, float, psutil.Process]] = []
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                found.append((process.name() != "slurmstepd", process.create_time(), process))
        # Whoever would tell Slurm of the end of another goes first; numbers say nothing, they begin anew some time.
        return [process for _, _, process in sorted(found, key=lambda each: each[:2])]

    def _remove_cgroups(self, name: str) -> None:
        for top in self._cgroups(name):
            folders = [path for path in top.rglob("*") if path.is_dir()]
            for folder in [*sorted(folders, reverse=True), top]:
                folder.rmdir()

    def _cgroups(self, name: str) -> list[Path]:
        # v1: <controller>/slurm_<node>; v2: system.slice/<node>_slurmstepd.scope
        return list(_CGROUPS.glob(f"*/*{self.node(name)}*"))


def _require_slurm() -> None:
    if os.geteuid() != 0:
        raise ServiceMissing("Slurm: only root can make a cluster with enforced memory limits; run the tests as root")
    require("Slurm", _PACKAGES)
    if not os.access(_CGROUPS, os.W_OK) or not any(_CGROUPS.iterdir()):
        raise ServiceMissing("Slurm: /sys/fs/cgroup is not writable here; in a container, run it with --privileged")
