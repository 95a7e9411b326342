"""Where each setting of a TOML file stands, and every fault of its syntax: the standard reader tells the first one only.

The file is read statement by statement, each by the standard reader. Needed only when there is a fault to be told.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Path = tuple[Union[str, int], ...]
"""As in `("queues", 0, "resources", "cpus")`."""

_LONGEST = 200
"""Lines that one statement may have."""
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class SyntaxFault:
    line: int
    words: str


@dataclass(frozen=True)
class _Statement:
    line: int
    length: int
    table: Optional[Mapping[str, Any]]
    is_header: bool
    words: str = ""
    """What is wrong with it, where `table` is None."""


def parsed(text: str) -> Optional[dict[str, Any]]:
    """None for a file with a fault in its syntax."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    return table


def syntax_faults(text: str) -> list[SyntaxFault]:
    """All of them, in order; none for a file that the standard reader takes."""
    statements = list(_statements(text))
    found = [SyntaxFault(each.line, each.words) for each in statements if each.table is None]
    good = [each for each in statements if each.table is not None]
    while fault := _contradiction(text, good):
        found.append(fault)
        good.remove(max((each for each in good if each.line <= fault.line), key=lambda each: each.line))
    return sorted(found, key=lambda fault: fault.line)


def line_of(text: str, path: Path) -> Optional[int]:
    """The line of this setting, or of the nearest one around it that is written there; None for the file as a whole."""
    lines = _lines(text)
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def _contradiction(text: str, good: Sequence[_Statement]) -> Optional[SyntaxFault]:
    """A fault that no statement shows alone: a name that is given twice, say."""
    lines = text.split("\n")
    kept = {number for each in good for number in range(each.line, each.line + each.length)}
    try:
        tomllib.loads("\n".join(line if number in kept else "" for number, line in enumerate(lines, 1)))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place.group(1)) if place and place.group(1) else max(each.line for each in good)
        return SyntaxFault(line, _PLACE.sub("", str(error)))
    return None


def _statements(text: str) -> Iterator[_Statement]:
    lines, start = text.split("\n"), 0
    while start < len(lines):
        statement = _statement(lines, start)
        yield statement
        start += statement.length


def _statement(lines: Sequence[str], start: int) -> _Statement:
    words = ""
    for end in range(start + 1, min(start + _LONGEST, len(lines)) + 1):
        try:
            table = tomllib.loads("\n".join(lines[start:end]))
        except tomllib.TOMLDecodeError as error:
            words = words or _PLACE.sub("", str(error))
            continue
        return _Statement(start + 1, end - start, table, lines[start].lstrip().startswith("["))
    return _Statement(start + 1, 1, None, False, words)


def _lines(text: str) -> dict[Path, int]:
    found: dict[Path, int] = {}
    last: dict[Path, int] = {}  # of each list of tables, the number of its last one
    here: Path = ()
    for each in _statements(text):
        names, value = _names(each.table or {})
        if each.is_header:
            here = _table(names, isinstance(value, list), last)
            found[here] = each.line
        for n in range(1, len(names) + 1):
            found.setdefault(here if each.is_header else (*here, *names[:n]), each.line)
    return found


def _names(table: Mapping[str, Any]) -> tuple[list[str], Any]:
    """The dotted name of a statement, and what it is given."""
    names: list[str] = []
    value: Any = table
    while isinstance(value, Mapping) and len(value) == 1:
        ((name, value),) = value.items()
        names.append(name)
    return names, value


def _table(names: Sequence[str], one_of_many: bool, last: dict[Path, int]) -> Path:
    """The table that a header opens: `[[queues]]`, and then `[queues.resources]` in the last of them."""
    path: Path = ()
    for name in names[:-1] if one_of_many else names:
        path = (*path, name)
        path = (*path, last[path]) if path in last else path
    if one_of_many:
        path = (*path, names[-1])
        last[path] = last.get(path, -1) + 1
        path = (*path, last[path])
    return path
