"""site.toml as the support archive has it: parsed, and of its values only those that are known to be harmless.

What is hidden is handed on as a secret, to be looked for in everything else that goes into the archive.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import settings
from ..toml_lines import parsed
from .hider import HIDDEN, SECRET_NAME

_KNOWN = {
    field.name
    for kind in vars(settings).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
}
_FREE = {"workloads", "names", "outputs", "arguments"}
"""Tables whose keys are the site's own."""
_WORDS = {"argv", "prefix"}
_SLURM_MAY_SHOW = re.compile(
    r"--(qos|constraint|partition|account|reservation|licenses|gres|gpus[\w-]*|exclude|nodelist|nodes|ntasks[\w-]*|mem[\w-]*|"
    r"cpus-per-\w+|hint|nice|begin|exclusive|clusters?|signal|time-min|tmp|wckey)=[\w.,:&|*!()\[\]@+-]+"
)
_OPTION = re.compile(r"--?[A-Za-z]|--[a-z]+(-[a-z]+)*")
_HARMLESS = re.compile(r"((\{(root|job|work|python|cpus)\}|/|\./|\.\./|~/)[\w./{}~-]*|\d{1,4}|)")
_PROGRAM = re.compile(r"[\w./{}-]+")
_PATHS = re.compile(r"(/[\w.+-]+)+/?(:(/[\w.+-]+)+/?)*")
_SHORTEST = 6
"""Shorter values (a number of threads, a language) stand in too many places to be looked for, unless a name says that they
are secrets."""


def site_as_shown(text: str) -> tuple[str, set[str]]:
    """What may be read of it, and the secrets that were found in it."""
    table = parsed(text)
    if table is None:
        return _outline(text), {value for pair in _QUOTED.findall(text) for value in pair if len(value) >= _SHORTEST}
    shown = _Shown()
    cleaned = shown.table(table)
    head = "# As Batchferry reads it, without comments; what may be a secret is hidden.\n"
    return head + "\n".join(_toml(cleaned)) + "\n", shown.secrets


_QUOTED = re.compile(r'"([^"\n]*)"|\'([^\'\n]*)\'')


def _outline(text: str) -> str:
    """Of a file with a fault in its syntax nobody knows where a value begins: only names of settings are shown."""
    lines = ["# This file can't be read as TOML; doctor.json says where. Only its names are shown."]
    for number, line in enumerate(text.split("\n"), 1):
        header, name = re.match(r"\s*(\[{1,2}[\w.-]+\]{0,2})", line), re.match(r"\s*(\w+)\s*=", line)
        if header:
            lines.append(f"{header[1]} # line {number}")
        elif name and name[1] in _KNOWN:
            lines.append(f"{name[1]} = {HIDDEN} # line {number}")
    return "\n".join(lines) + "\n"


class _Shown:
    """Walks through the parsed file; `secrets` is what it has hidden."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()

    def table(self, table: Mapping[str, Any], free: bool = False) -> dict[str, Any]:
        return {name: self._value(name, value, free) for name, value in table.items()}

    def _value(self, name: str, value: Any, free: bool) -> Any:
        if not free and (name not in _KNOWN or name == "environment"):
            return self._hide_all(name, value)
        if not free and name in _WORDS and isinstance(value, list):
            return list(self._words(value))
        if not free and name == "extra_options" and isinstance(value, list):
            return [word if _SLURM_MAY_SHOW.fullmatch(str(word)) else self._word(str(word), False) for word in value]
        if free and SECRET_NAME.search(name) and not isinstance(value, Mapping):
            return self._hide(value, named=True)
        return self._plain(value, not free and name in _FREE)

    def _plain(self, value: Any, free: bool) -> Any:
        if isinstance(value, Mapping):
            return self.table(value, free)
        if isinstance(value, list):
            return [self._plain(each, free) for each in value]
        return self._url(value) if isinstance(value, str) else value

    def _hide_all(self, name: str, value: Any) -> Any:
        """The names below stay, so that it can be seen what is set."""
        if isinstance(value, Mapping):
            return {each: self._hide_all(each, inner) for each, inner in value.items()}
        if isinstance(value, list):
            return [self._hide_all(name, each) for each in value]
        return self._hide_word(str(value), named=SECRET_NAME.search(name) is not None)

    def _hide(self, value: Any, named: bool = False) -> str:
        text = str(value)
        if named or (len(text) >= _SHORTEST and not _PATHS.fullmatch(text)):
            self.secrets.add(text)
        self._url(text)
        return HIDDEN

    def _url(self, text: str) -> str:
        """Without the login that a URL may hold, nor its query, which may be a signature. The password may itself have an @
        or a slash in it."""
        before, found, rest = text.partition("://")
        if not found:
            return text
        login, at, address = rest.rpartition("@")
        host, asked, query = address.partition("?")
        self.secrets.update(part for part in (login, login.partition(":")[2]) if part)
        self.secrets.update(part for part in re.split("[&=]", query) if len(part) >= _SHORTEST)
        return f"{before}://{HIDDEN + '@' if at else ''}{host}{'?' + HIDDEN if asked else ''}"

    def _words(self, words: Sequence[Any]) -> Iterator[str]:
        """A command's words: the program, names of options, paths and small numbers are shown."""
        for index, word in enumerate(map(str, words)):
            before = str(words[index - 1]) if index else ""
            if index == 0 and _PROGRAM.fullmatch(word):
                yield word
            else:
                yield self._word(word, before.startswith("-") and SECRET_NAME.search(before) is not None)

    def _word(self, word: str, named: bool) -> str:
        if not named and (_OPTION.fullmatch(word) or _HARMLESS.fullmatch(word)):
            return word
        name, equals, value = word.partition("=")
        if not named and equals and re.fullmatch(r"(--?)?[A-Za-z][\w.-]*", name):
            secret = SECRET_NAME.search(name) is not None
            return word if not secret and _HARMLESS.fullmatch(value) else f"{name}={self._hide_word(value, secret)}"
        return self._hide_word(word, named)

    def _hide_word(self, word: str, named: bool) -> str:
        """Also its parts, as of `{"token": "..."}`, or of `TOKEN=... program`: a log may show one of them alone."""
        for part in re.split(r"[\s\"'=,;{}\[\]()|&<>]+", word):
            if len(part) >= _SHORTEST and re.search(r"\d|[^\w.]|[a-z][A-Z]", part) and not _PATHS.fullmatch(part):
                self.secrets.add(part)
        if re.match(r"-[A-Za-z]", word) and len(word) >= _SHORTEST:  # as in `-pPASSWORD`
            self.secrets.add(word[2:])
        return self._hide(word, named)


def _toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    inner = {name: value for name, value in table.items() if _is_table(value)}
    yield from (f"{_key(name)} = {_inline(value)}" for name, value in table.items() if name not in inner)
    for name, value in inner.items():
        header = ".".join(map(_key, (*path, name)))
        for each in value if isinstance(value, list) else [value]:
            yield f"\n[[{header}]]" if isinstance(value, list) else f"\n[{header}]"
            yield from _toml(each, (*path, name))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_inline(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)
