"""What `--json` prints: one object, of the form that docs/json/ describes. Needs the standard library alone."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import Fault

FORMAT = 1
"""Raised where a field goes, or means something else; a field that is added raises nothing."""


@dataclass(frozen=True)
class Wrong:
    """One fault of site.toml or credentials.env."""

    file: str
    line: int
    """0 for the file as a whole."""
    found: str
    fix: str


@dataclass(frozen=True)
class Failed:
    """Stands where the answer would, if there is none."""

    error: str
    """A sentence."""
    fix: str = ""
    """What to do about it, where that is known."""
    candidates: list[str] = field(default_factory=list)
    """The ids of the jobs that a word may mean, where it names several."""
    faults: list[Wrong] = field(default_factory=list)
    """Of the two files, where they are at fault."""


_shown: list[int] = []


def show(said: Any, code: int) -> int:
    """`said`: a dataclass. Returns the exit code, which is inside too."""
    _shown.append(code)
    print(json.dumps({"format_version": FORMAT, "exit_code": code, **asdict(said)}, indent=1))
    return code


def fail(words: str, code: int, in_json: bool, fix: str = "", candidates: Sequence[str] = ()) -> int:
    """Nothing can be shown but why. With --json that stands where the answer would, otherwise it goes to standard error."""
    if in_json:
        return show(Failed(words, fix, list(candidates)), code)
    print(f"check.py: {words}{f'. {fix}' if fix else ''}", file=sys.stderr)
    return code


def of_files(faults: Sequence[Fault], code: int) -> int:
    wrong = [Wrong(str(each.file), each.line, each.found, each.fix) for each in faults]
    return show(Failed("site.toml or credentials.env is at fault", faults=wrong), code)


class LastWords(logging.Handler):
    """Remembers what was logged last, for an answer where nobody has given one."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.words = "nothing was done"

    def emit(self, record: logging.LogRecord) -> None:
        self.words = record.getMessage()

    def __enter__(self) -> LastWords:
        _shown.clear()
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def close_with(self, code: int) -> int:
        """Nobody who asks for JSON gets none."""
        return code if _shown else show(Failed(self.words), code)
