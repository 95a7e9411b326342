"""Starts RabbitMQ and Slurm side by side; keeps them until SIGTERM, Ctrl-C, or the end of the process that wanted them.

FOLDER gets one file per service, `<service>.json`, when its fate is known: ready, missing or failed, and why. Services
that a test starts for itself are noted in `FOLDER/private/<service>.<pid>`; those left over at the end are stopped too.
Tests run this as a process of its own, so that what stays behind does not depend on how a test run ends.
"""

from __future__ import annotations

import argparse
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional, Protocol

import psutil

from tests.services.broker import rabbitmq_in
from tests.services.fate import Fate
from tests.services.present import ServiceMissing
from tests.services.slurm import SlurmCluster


class Service(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


_SERVICES: dict[str, Callable[[Path], Service]] = {"rabbitmq": rabbitmq_in, "slurm": SlurmCluster}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made if it does not exist; data and logs stay in it")
    parser.add_argument("--only", nargs="*", choices=_SERVICES, default=list(_SERVICES), metavar="SERVICE")
    parser.add_argument("--owner", type=int, help="a pid: stop everything when that process has ended")
    options = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    owner = psutil.Process(options.owner) if options.owner else None
    with ThreadPoolExecutor() as pool:
        started = [service for service in pool.map(lambda name: _start(name, options.folder), options.only) if service]
        while not over.wait(0.2) and (owner is None or owner.is_running()):
            continue
        list(pool.map(lambda service: service.stop(), started + _private(options.folder)))


def _private(folder: Path) -> list[Service]:
    notes = [(note.name.partition(".")[0], Path(note.read_text())) for note in (folder / "private").glob("*")]
    return [_SERVICES[name](home) for name, home in notes if home.exists()]


def _start(name: str, folder: Path) -> Optional[Service]:
    try:
        service = _SERVICES[name](folder / name)
        service.start()
    except ServiceMissing as missing:
        Fate("missing", str(missing)).write(folder, name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the tests that need this service say it
        Fate("failed", f"{type(error).__name__}: {error}").write(folder, name)
    else:
        Fate("ready").write(folder, name)
        return service
    return None


if __name__ == "__main__":
    main()
