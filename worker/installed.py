"""Is what a workload needs there: its program, its interpreter, its script? What is missing stops this workload, and no other.

A login node need not see what the compute nodes see: there only paths inside of this folder count. An error of the disk says
nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .settings import Queue, Site, Workload

_INTERPRETER = re.compile(r"(python|pypy|perl|ruby|bash|sh|dash|ksh|zsh|Rscript|julia|node|java)[\d.]*")


@dataclass(frozen=True)
class Needed:
    """A word of the command that is a path. `run`: it has to be executable; `sure`: it is a path of this machine, and not
    perhaps one inside of a container."""

    path: str
    run: bool
    sure: bool


def needed(workload: Workload, root: Path, python: Path) -> Iterator[Needed]:
    """Those words that are absolute paths, with {root} and {python} filled in. What only a job knows is no such path."""
    words = [*workload.prefix, *workload.argv]
    filled = [word.replace("{root}", str(root)).replace("{python}", str(python)) for word in words]
    script = None if workload.prefix else _script(filled)
    for number, (word, path) in enumerate(zip(words, filled)):
        if path.startswith("/") and "{" not in path:
            inside = _is_inside(path, root)
            program = number == 0 or word == "{python}" or (number == len(workload.prefix) and inside)
            yield Needed(path, program, sure=program or inside or number == script)


def _script(words: Sequence[str]) -> Optional[int]:
    """Where an interpreter's script stands."""
    if not words or not _INTERPRETER.fullmatch(os.path.basename(words[0])):
        return None
    return next((number for number, word in enumerate(words) if number and not word.startswith("-")), None)


def trouble(need: Needed) -> str:
    """Empty where it is there, or where the disk does not say."""
    try:
        found = os.stat(need.path)
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no {'program ' if need.run else ''}{need.path}"
    except PermissionError:
        return f"{need.path} can't be looked at"
    except OSError:
        return ""
    if need.run and not (stat.S_ISREG(found.st_mode) and os.access(need.path, os.X_OK)):
        return f"{need.path} is not executable"
    return "" if os.access(need.path, os.R_OK) or need.run else f"{need.path} can't be read"


def why_stopped(root: Path, site: Site, name: str) -> str:
    """Why nothing of this workload can be begun, as far as it shows here; empty where it can."""
    workload = site.workloads.get(name)
    if workload is None:
        return f"the workload {name} is not in site.toml"
    seen = (need for need in needed(workload, root, site.python) if _is_inside(need.path, root))
    return next(filter(None, map(trouble, seen)), "")


class Workloads:
    """Those that can be begun, and those that are stopped. Each is looked at once."""

    def __init__(self, root: Path, site: Site) -> None:
        self._root, self._site = root, site
        self._seen: dict[str, str] = {}

    def why_stopped(self, name: str) -> str:
        if name not in self._seen:
            self._seen[name] = why_stopped(self._root, self._site, name)
        return self._seen[name]

    def stopped(self) -> dict[str, str]:
        """Why, of those that the site file names."""
        names = dict.fromkeys([*self._site.workloads, *(queue.workload for queue in self._site.queues)])
        return {name: why for name in names if (why := self.why_stopped(name))}

    def can_begin(self, queue: Queue) -> bool:
        """Whether a job of this queue may come to anything: not where all of its workloads are stopped."""
        return not all(self.why_stopped(name) for name in workloads_of(self._site, queue))


def workloads_of(site: Site, queue: Queue) -> list[str]:
    """Those that its messages ask for: its own, and those that are no queue's own and can only be asked for by name."""
    own = {each.workload for each in site.queues}
    return [queue.workload, *(name for name in site.workloads if name not in own)]


def _is_inside(path: str, root: Path) -> bool:
    return os.path.normpath(path).startswith(f"{root}/")
