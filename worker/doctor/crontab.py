"""The lines of a crontab that start a pass: read, understood, and made. Pure, but for the two functions that run crontab."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .programs import Answer, run

_SCHEDULE = re.compile(r"\s*(@\w+|(?:\S+\s+){4}\S+)\s+(.*)")
_SETTING = re.compile(r"\s*[A-Za-z_]\w*\s*=")


@dataclass(frozen=True)
class Line:
    """One that calls a run_check. `root`: the checkout it belongs to; the two files where it names them."""

    number: int
    schedule: str
    root: Path
    site_file: Optional[Path]
    credentials_file: Optional[Path]
    log: Optional[Path]
    cut_at_percent: bool
    """cron ends a command at the first % that has no backslash."""


def read_crontab(scrontab: bool = False) -> Optional[str]:
    """The user's own; empty where there is none yet; None where this host has no crontab at all."""
    answer = run(["scrontab" if scrontab else "crontab", "-l"])
    if answer is None:
        return None
    return answer.said if answer.code == 0 else ""


def has_none_yet(answer: Answer) -> bool:
    """Of `crontab -l` and `scrontab -l`: "no crontab for mary"."""
    return answer.code != 0 and "no crontab" in answer.complained.lower()


def pass_lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        found = _SCHEDULE.fullmatch(line)
        if found and "run_check" in line and not line.lstrip().startswith("#") and not _SETTING.match(line):
            understood = _understand(number, found.group(1), found.group(2))
            if understood is not None:
                yield understood


def _understand(number: int, schedule: str, command: str) -> Optional[Line]:
    whole = re.sub(r"\\%", "\0", command)
    try:
        words = [word.replace("\0", "%") for word in shlex.split(whole.replace(">>", " >> "))]
    except ValueError:
        words = []
    program = next((word for word in words if Path(word).name == "run_check"), None)
    if program is None:
        return None
    after = dict(zip(words, words[1:]))
    return Line(
        number=number,
        schedule=schedule,
        root=Path(os.path.realpath(program)).parent,
        site_file=_path(after.get("--site")),
        credentials_file=_path(after.get("--credentials")),
        log=_path(after.get(">>")),
        cut_at_percent="%" in whole,
    )


def _path(word: Optional[str]) -> Optional[Path]:
    return Path(word) if word else None
