"""The lines of a crontab that start a pass: read, understood, and made. Pure, but for the two functions that run crontab."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from .programs import Answer, run

_SCHEDULE = re.compile(r"\s*(@\w+|(?:\S+\s+){4}\S+)\s+(.*)")
_SETTING = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_CALLS = re.compile(r"run_check['\"]?\s")
_SETS_UP = {".", "source", "module", "ml", "eval", "--login", "-l", "-lc", "conda", "spack"}
"""Words of a command that may bring it any environment."""


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
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the crontab and the line itself set. cron fills in no variables."""
    sets_up: bool = False
    """Whether its command reads a profile or the like, which may set anything."""


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
    settings: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        found, setting = _SCHEDULE.fullmatch(line), _SETTING.fullmatch(line)
        if line.lstrip().startswith("#"):
            continue
        if setting:
            settings[setting.group(1)] = _unquoted(setting.group(2))
        elif found and "run_check" in line:
            understood = _understand(number, found.group(1), found.group(2))
            if understood is not None:
                yield replace(understood, environment={**settings, **understood.environment})


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _understand(number: int, schedule: str, command: str) -> Optional[Line]:
    whole = re.sub(r"\\%", "\0", command)
    words = [word.replace("\0", "%") for word in _words(whole)]
    program = next((word for word in words if Path(word).name == "run_check"), None)
    if program is None:
        return None
    after, before = dict(zip(words, words[1:])), words[: words.index(program)]
    assigned = [match.groups() for match in map(_ASSIGNMENT.fullmatch, before) if match]
    return Line(
        number=number,
        schedule=schedule,
        root=Path(os.path.realpath(program)).parent,
        site_file=_path(after.get("--site")),
        credentials_file=_path(after.get("--credentials")),
        log=_path(after.get(">>")),
        cut_at_percent="%" in whole,
        environment={name: value for name, value in assigned},
        sets_up=bool(_SETS_UP & set(before)),
    )


def _words(command: str) -> list[str]:
    """Those of a command, and of one that is handed to a shell as one word."""
    try:
        words = shlex.split(command.replace(">>", " >> "))
    except ValueError:
        return []
    nested = [_words(word) if Path(word).name != "run_check" and _CALLS.search(word) else [word] for word in words]
    return [word for some in nested for word in some]


def _path(word: Optional[str]) -> Optional[Path]:
    return Path(word) if word else None
