"""Whether the kernel ended a process for lack of memory, read from a made-up /proc and control group."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.in_job.memory import MemoryWatch

V1 = "9:cpuset:/slurm/uid_1/job_7\n4:cpu,memory:/slurm/uid_1/job_7/step_batch\n1:name=systemd:/x\n0::/y\n"
V2 = "0::/system.slice/slurmstepd.scope/job_7/step_batch/user\n"


class Machine:
    """A /proc/self with one control group, and the kernel's count of kills in it."""

    def __init__(self, folder: Path, version: int, groups: str = "", path: str = "") -> None:
        self.proc, root = folder / "proc", folder / "cgroup"
        self.proc.mkdir()
        (self.proc / "cgroup").write_text(groups or (V1 if version == 1 else V2))
        options = "rw,nosuid,cpu,memory" if version == 1 else "rw,nosuid"
        (self.proc / "mounts").write_text(
            "proc /proc proc rw 0 0\n"
            + ("cgroup /nowhere cgroup rw,cpuset 0 0\n" if version == 1 else "")
            + f"cgroup {root} {'cgroup' if version == 1 else 'cgroup2'} {options} 0 0\n"
        )
        group = path or ("slurm/uid_1/job_7/step_batch" if version == 1 else V2.strip()[4:])
        self.counter = root / group / ("memory.oom_control" if version == 1 else "memory.events")
        self.counter.parent.mkdir(parents=True)
        self.kills(0)

    def kills(self, number: int) -> None:
        self.counter.write_text(f"oom_kill_disable 0\nunder_oom 0\nlow 0\noom 9\noom_kill {number}\noom_group_kill 9\n")


@pytest.fixture
def plain_folder() -> Iterator[Path]:
    """Without a space in its name: no control group is mounted at such a place."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("version", [1, 2])
def test_a_count_that_rises_means_memory_ran_out(plain_folder: Path, version: int) -> None:
    machine = Machine(plain_folder, version)
    watch = MemoryWatch(confined=True, proc=machine.proc)
    assert watch.known and not watch.ran_out()

    machine.kills(1)

    assert watch.ran_out()


@pytest.mark.parametrize("version", [1, 2])
def test_kills_before_our_time_do_not_count(plain_folder: Path, version: int) -> None:
    machine = Machine(plain_folder, version)
    machine.kills(3)

    watch = MemoryWatch(confined=True, proc=machine.proc)

    assert watch.known and not watch.ran_out()


def test_a_group_that_others_share_says_nothing(plain_folder: Path) -> None:
    machine = Machine(plain_folder, 2)
    watch = MemoryWatch(confined=False, proc=machine.proc)

    machine.kills(1)

    assert not watch.known and not watch.ran_out()


@pytest.mark.parametrize("groups", ["0::/\n", "4:memory:/\n0::/\n", "3:cpu:/x\n", "\n", "nonsense\n"])
def test_without_a_group_of_our_own_nothing_is_known(plain_folder: Path, groups: str) -> None:
    machine = Machine(plain_folder, 2, groups)

    watch = MemoryWatch(confined=True, proc=machine.proc)

    assert not watch.known and not watch.ran_out()


def test_a_kernel_that_does_not_count_tells_nothing(plain_folder: Path) -> None:
    machine = Machine(plain_folder, 1)
    machine.counter.write_text("oom_kill_disable 0\nunder_oom 0\n")

    assert not MemoryWatch(confined=True, proc=machine.proc).known


def test_a_machine_without_control_groups_tells_nothing(tmp_path: Path) -> None:
    assert not MemoryWatch(confined=True, proc=tmp_path).known


def test_a_group_that_is_gone_tells_nothing(plain_folder: Path) -> None:
    machine = Machine(plain_folder, 2)
    watch = MemoryWatch(confined=True, proc=machine.proc)

    machine.counter.unlink()

    assert not watch.ran_out()
