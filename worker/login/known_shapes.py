"""What is remembered of shapes of jobs that Slurm declined: one small file for each, under jobs/shapes.

It is no fact of a job: without it, Slurm is asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from ..errors import Damaged
from ..folder import paths
from ..folder.jobs import JobsFolder
from ..folder.records import Fact
from ..job.facts import Shape
from ..job.spec import Resources
from ..settings import SlurmSettings


class Shapes:
    """By what sbatch is asked for them; with other settings of the site it is another shape."""

    def __init__(self, jobs: JobsFolder, settings: SlurmSettings) -> None:
        self._folder = jobs.shapes
        self._site = [settings.account, settings.partition, *settings.extra_options]
        self._known = dict(_read_all(jobs))
        self.silent = False
        """Slurm did not answer when it was asked about the smallest job: once is enough for a pass."""

    def __bool__(self) -> bool:
        return bool(self._known)

    def of(self, asked: Resources) -> Optional[Shape]:
        return self._known.get(self._key(asked)) if self._known else None

    def all(self) -> list[Shape]:
        """With the site's settings of now; the one that was declined first comes first."""
        current = [shape for key, shape in self._known.items() if key == self._key(shape.resources)]
        return sorted(current, key=lambda shape: shape.since or shape.at)

    def forget(self, which: Callable[[Shape], bool]) -> None:
        """Raises OSError."""
        for key in [key for key, shape in self._known.items() if which(shape)]:
            _fact(self._folder, key).remove()
            del self._known[key]

    def note(self, asked: Resources, shape: Optional[Shape]) -> None:
        """None: nothing is known of it any more. Raises OSError."""
        key = self._key(asked)
        if shape is not None:
            paths.make_folder(self._folder)
            _fact(self._folder, key).write(shape)
            self._known[key] = shape
        elif self._known.pop(key, None) is not None:
            _fact(self._folder, key).remove()

    def _key(self, asked: Resources) -> str:
        """Whom Slurm writes to is no part of it."""
        what = [asked.cpus, asked.memory_mb, asked.minutes, asked.gres, *self._site]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _fact(folder: Path, key: str) -> Fact[Shape]:
    return Fact(folder / f"{key}.json", Shape)


def _read_all(jobs: JobsFolder) -> Iterator[tuple[str, Shape]]:
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(jobs.shapes) if name.endswith(".json") and not name.startswith(".")]
    for key in sorted(name[: -len(".json")] for name in names):
        with contextlib.suppress(Damaged, OSError):
            shape = _fact(jobs.shapes, key).read()
            if shape is not None:
                yield key, shape
