"""One long-running program: start, stop, kill, freeze. Its pid is a file, so any process of a test run can do it."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import psutil

# A Popen that is forgotten while its program runs warns on collection, and a killed child stays a zombie until polled.
_started_here: list[subprocess.Popen[bytes]] = []


class DidNotStart(Exception):
    """A service ended, or was silent for too long, instead of becoming ready; the text shows the end of its log."""


@dataclass(frozen=True)
class Daemon:
    """A program that stays in the foreground, in a session of its own, its output in `<folder>/<name>.out`."""

    name: str
    argv: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.out"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def start(self) -> None:
        if self.alive():
            return
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                list(self.argv),
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _started_here.append(child)
        # The start time goes along because a pid alone may be given to a stranger later.
        self._pid_file.write_text(f"{child.pid} {psutil.Process(child.pid).create_time()}")

    def pids(self) -> list[int]:
        """The program and all that it started, the program first."""
        return [process.pid for process in self._tree()]

    def alive(self) -> bool:
        return bool(self._tree())

    def stop(self, patience: float = 20.0) -> None:
        """SIGTERM, and SIGKILL for what is left after `patience` seconds."""
        tree = self._tree()
        if tree:
            send(signal.SIGCONT, tree)
            send(signal.SIGTERM, tree[:1])
            wait_gone(tree[:1], patience)
        end(tree)

    def kill(self) -> None:
        end(self._tree())

    def pause(self) -> None:
        send(signal.SIGSTOP, self._tree())

    def resume(self) -> None:
        send(signal.SIGCONT, self._tree())

    def _tree(self) -> list[psutil.Process]:
        leader = self._leader()
        try:
            return [] if leader is None else [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _leader(self) -> Optional[psutil.Process]:
        try:
            pid, created = self._pid_file.read_text().split()
            process = psutil.Process(int(pid))
            return process if process.create_time() == float(created) and not _gone(process) else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None


def send(signal_number: int, processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal_number)
        except psutil.NoSuchProcess:
            continue


def end(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL; returns when they are gone."""
    send(signal.SIGKILL, processes)
    wait_gone(processes, 10.0)


def wait_gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    poll(lambda: all(map(_gone, processes)), seconds, pause=0.02)


def _gone(process: psutil.Process) -> bool:
    for child in _started_here:
        child.poll()
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(ready: Callable[[], bool], daemon: Daemon, seconds: float = 300) -> None:
    """Returns when `ready()`; DidNotStart if `daemon` ends or `seconds` pass before that."""
    if not poll(lambda: ready() or not daemon.alive(), seconds) or not daemon.alive():
        why = "is silent" if daemon.alive() else "ended"
        raise DidNotStart(f"{daemon.name} {why}: {daemon.log.read_text(errors='replace')[-3000:]}")


def poll(condition: Callable[[], bool], seconds: float = 300, pause: float = 0.05) -> bool:
    """Whether `condition()` came true within `seconds`: by default so many that a machine with much else to do has time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing uses, below the range from which outgoing connections take theirs."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        probe = socket.socket()
        try:
            probe.bind(("127.0.0.1", random.randrange(10000, 32000)))
            sockets.append(probe)
        except OSError:
            probe.close()
    ports = [int(probe.getsockname()[1]) for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        return True
    except OSError:
        return False
