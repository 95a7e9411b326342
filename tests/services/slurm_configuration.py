"""The text of a small Slurm cluster's configuration files. Tested with 22.05."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The real Slurm defaults that matter to us are kept: MinJobAge (how long squeue knows an ended job), JobRequeue.
# What is shortened is only waiting: a test run can't wait for the periods that suit a real site.
DEFAULTS: Mapping[str, str] = {
    "KillWait": "5",
    "MinJobAge": "300",
    "SlurmdTimeout": "10",
    "MessageTimeout": "10",  # Slurm's default: with 5 s, a node that begins 40 jobs at once on 2 cores counts as failed
    "JobRequeue": "1",
    "EnforcePartLimits": "ALL",
    # Without it a job takes all the memory of its node, and jobs run one after another.
    "DefMemPerCPU": "50",
    "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1",
}

# More than the machine has, so that many small jobs run side by side and large requests are accepted.
_NODE = "CPUs=64 RealMemory=50000000"
_GPUS = {"v100l": 64, "p100l": 64}

_SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
MailProg=/bin/true
StateSaveLocation={home}/state
SlurmctldPidFile={home}/slurmctld.own.pid
SlurmdPidFile={home}/%n/slurmd.own.pid
SlurmdSpoolDir={home}/%n/spool
SlurmdParameters=config_overrides
ReturnToService=2
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={accounting_port}
AccountingStoragePass={home}/munge.socket
GresTypes=gpu
"""

_DATABASE_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting_port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
PidFile={home}/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={database_password}
StorageLoc=slurm
"""

_CGROUP_CONF = """\
CgroupPlugin=cgroup/{version}
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
"""
# Version 2 is otherwise asked of systemd, which a container doesn't have.
_CGROUP_V2 = "IgnoreSystemd=yes\n"


@dataclass(frozen=True)
class Layout:
    """Where one cluster lives: names and loopback ports."""

    home: Path
    host: str
    cluster: str
    controller_port: int
    accounting_port: int
    database_port: int
    nodes: Mapping[str, tuple[str, int]]  # what tests call a node -> its Slurm name and port
    database_password: str
    cgroup_version: str

    def files(self, settings: Mapping[str, str]) -> dict[str, str]:
        """File name -> text. `settings` replace or add lines of slurm.conf."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lines = [f"{name}={value}" for name, value in {**DEFAULTS, **settings}.items()]
        extra = _CGROUP_V2 if self.cgroup_version == "v2" else ""
        return {
            "slurm.conf": _SLURM_CONF.format(**facts) + "\n".join(lines) + "\n" + self._nodes(),
            "slurmdbd.conf": _DATABASE_CONF.format(**facts),
            "cgroup.conf": _CGROUP_CONF.format(version=self.cgroup_version) + extra,
            "gres.conf": "".join(
                f"Name=gpu Type={kind} File={self.home}/gpu/{kind}[0-{count - 1}]\n" for kind, count in _GPUS.items()
            ),
        }

    def devices(self) -> list[str]:
        """Files that pass for GPUs: Slurm 22.05 counts a GPU without a file as none."""
        return [f"{kind}{number}" for kind, count in _GPUS.items() for number in range(count)]

    def account(self) -> str:
        """The database account of slurmdbd, in SQL."""
        user = "slurm@'127.0.0.1'"
        return (
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{self.database_password}';\nGRANT ALL ON *.* TO {user};\n"
        )

    def _nodes(self) -> str:
        gpus = ",".join(f"gpu:{kind}:{count}" for kind, count in _GPUS.items())
        lines = [
            f"NodeName={name} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={port} {_NODE} Gres={gpus}"
            for name, port in self.nodes.values()
        ]
        names = [name for name, _ in self.nodes.values()]
        lines += [
            f"PartitionName=main Nodes={','.join(names[:2])} Default=YES MaxTime=7-00:00:00 DefaultTime=10 State=UP",
            f"PartitionName=doomed Nodes={names[2]} MaxTime=7-00:00:00 DefaultTime=10 State=UP",
        ]
        return "\n".join(lines) + "\n"
