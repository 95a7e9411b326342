"""Looks for secrets wherever somebody else could read them: in processes, files and texts. Says what it found, and where."""

from __future__ import annotations

import base64
import os
import stat
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Optional

_EVERY = 0.02
"""Seconds between two looks at all processes."""


@dataclass(frozen=True)
class Finding:
    secret: str
    """Its name, never its value."""
    where: str
    """For example "environ of 123", or "file installation/site.toml 0644"."""


def sweep(
    secrets: Mapping[str, Collection[str]],
    processes: Iterable[tuple[str, bytes]] = (),
    folders: Iterable[Path] = (),
    texts: Mapping[str, str] | None = None,
) -> set[Finding]:
    """Every place that shows a secret. `secrets`: name -> all values it has had; `texts`: where it was read -> text."""
    places = chain(
        processes,
        chain.from_iterable(map(_files, folders)),
        ((where, text.encode("utf-8", "surrogateescape")) for where, text in (texts or {}).items()),
    )
    wanted = {name: [form for value in values for form in _forms(value)] for name, values in secrets.items()}
    return {
        Finding(name, where)
        for where, content in places
        for name, forms in wanted.items()
        if any(f in content for f in forms)
    }


def _forms(secret: str) -> Iterator[bytes]:
    """As it is, in hexadecimal, and in base64 wherever it may begin in what was encoded."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        # The first and the last characters depend on the neighbours.
        yield encoded[(0, 2, 3)[before] : -4]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Its files, with their modes; one that goes away meanwhile shows nothing any more."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            try:
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode):
                    yield f"file {path.relative_to(folder.parent)} {stat.S_IMODE(facts.st_mode):04o}", path.read_bytes()
            except FileNotFoundError:
                continue


class ProcessWatch:
    """While it is entered, looks every 20 ms at the command line and the environment of each process but the spared ones.

    Iterating gives everything seen so far, once; so a secret that is made later is found in what was seen before.
    """

    def __init__(self, spared: Collection[int]) -> None:
        self.looks = 0
        self._spared = {str(pid) for pid in spared}
        self._seen: dict[tuple[str, bytes], None] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._over.set()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(list(self._seen))

    def _look_again_and_again(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + _EVERY, time.monotonic())
            self._look()
            self.looks += 1

    def _look(self) -> None:
        for pid in os.listdir("/proc"):
            if pid.isdigit() and pid not in self._spared:
                for what in ("cmdline", "environ"):
                    content = _read(f"/proc/{pid}/{what}")
                    if content:
                        self._seen[(f"{what} of {pid}", content)] = None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
