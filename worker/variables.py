"""NAME=VALUE lines of a file of secrets: what stands there, where, and what a shell that wrote or read it meant.

Facts: python-dotenv's parser; the Shell Command Language of POSIX.1-2017 on quoting (2.2): in double quotes a backslash keeps
its meaning only before $ ` " \\ and a newline, in single quotes never.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

_ASSIGNMENT = re.compile(r"\s*(export\s+)?([^=#\s']+)\s*=[^\S\n]*(.*)", re.DOTALL)
_PIECE = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^\s'"\\]+)""", re.DOTALL)
"""Of a word, as a shell reads it: in single quotes, in double quotes, after a backslash, or plain."""
_IN_DOUBLE = re.compile(r"\\([\\\"$`])")
_ALSO_IN_DOTENV = re.compile(r"\\([\\\"'$`])")
_SHOWN = re.compile(r"[A-Za-z_]{1,30}")
"""What a broken line makes a name of may be a secret."""
_OPEN = "is not NAME=VALUE, or a quote is not closed"
_OTHERWISE = "a shell would read this value otherwise than it stands there"
IN_QUOTES = "Write the value in single quotes, as it is meant"


@dataclass
class Variables:
    """`lines`: where each name stands. `flaws`: line and what is wrong with it."""

    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    flaws: list[tuple[int, str]] = field(default_factory=list)

    def misspelt(self, absent: Mapping[str, float], known: Collection[str]) -> dict[str, str]:
        """Which of the absent names was meant by one that stands there and is not known; each with its least likeness."""
        import difflib

        found: dict[str, str] = {}
        for each in self.values:
            if each in known or not _SHOWN.fullmatch(each):
                continue
            likeness = {name: difflib.SequenceMatcher(None, each.upper(), name).ratio() for name in absent}
            name = max(likeness, key=lambda name: likeness[name], default="")
            if name and likeness[name] >= absent[name]:
                found.setdefault(name, each)
        return found


def read_variables(path: Path) -> dict[str, str]:
    """Raises OSError and UnicodeDecodeError."""
    return read_lines(path).values


def read_lines(path: Path) -> Variables:
    """Raises OSError and UnicodeDecodeError."""
    from dotenv.parser import parse_stream

    found = Variables()
    for each in parse_stream(io.StringIO(path.read_text(encoding="utf-8-sig"))):
        text = each.original.string
        line = each.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        assigned = _ASSIGNMENT.match(text)
        name, value = each.key or "", each.value or ""
        if each.error and assigned:
            name, meant = assigned.group(2), _as_a_shell(assigned.group(3))
        elif assigned and name:
            meant = _meant(value, assigned.group(3), exported=bool(assigned.group(1)))
        else:
            meant = None if each.error else value
        if meant is None or "\n" in meant:
            what = _OTHERWISE if not each.error and meant is None else _OPEN
            found.flaws.append((line, f"{name}: {what}" if _SHOWN.fullmatch(name) else f"the line {what}"))
        if name:
            found.values[name], found.lines[name] = meant or "", line
    return found


def _meant(value: str, written: str, exported: bool) -> Optional[str]:
    """`value`: as dotenv reads it; `written`: as it stands there. A line with `export` is for a shell, and so are escapes that
    only a shell has. None where nobody can tell."""
    piece = _PIECE.match(written)
    if written.startswith('"') and piece:
        return _ALSO_IN_DOTENV.sub(r"\1", piece.group(2))
    if written.startswith("'"):
        return piece.group(1) if exported and piece and "\\'" not in written else value
    if exported and re.search(r"[\\'\"]", value):
        return _as_a_shell(written)
    return None if re.search(r"\\[^\w\s]", value) else value


def _as_a_shell(written: str) -> Optional[str]:
    """One word and perhaps a comment; None for anything else. A variable in it stays as it is written."""
    word, at = "", 0
    while piece := _PIECE.match(written, at):
        single, double, escaped, plain = piece.groups()
        word += _IN_DOUBLE.sub(r"\1", double) if double is not None else single or escaped or plain or ""
        at = piece.end()
    return word if re.fullmatch(r"\s*(\s#.*)?\s*", written[at:], re.DOTALL) else None


def text_of(values: Mapping[str, str], comments: Mapping[str, str]) -> str:
    """What a file with these values says. Raises ValueError for one that would not come back the same."""
    from dotenv import dotenv_values

    lines = [
        f"# {comments[name]}\n{name}='{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'\n"
        for name, value in values.items()
    ]
    text = f"# Addresses and secrets. Made by ./check.py init; for nobody else's eyes.\n\n{chr(10).join(lines)}"
    if dotenv_values(stream=io.StringIO(text), interpolate=False) != dict(values):
        raise ValueError("a value can't be written")
    return text
