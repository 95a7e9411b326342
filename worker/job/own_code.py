"""Code that a job brings along: what a message may say of it, by the rules of its workload. Pure.

`source` is the text of a script, or the address of an archive or of a git repository; `command` names a file in it, and its
arguments, as words and never as a line for a shell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from ..errors import InvalidSpec
from ..settings import OwnCode
from .names import Word, quoted

TEXT, ARCHIVE, GIT = "text", "archive", "git"
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.zst")
_RUN = "run.py"
_MOST_WORDS, _LONGEST_COMMAND = 1000, 100_000
"""Bytes. Linux takes 128 KiB for a word (MAX_ARG_STRLEN), and a computer that refuses a longer one would be blamed for it."""
ARCHIVE_NAME = "the archive of the code"
"""What it is called among the inputs, where it is fetched with them."""
_LONGEST_NAME, _DEEPEST, _LONGEST_PATH = 255, 20, 1000
"""Bytes of a file's name, folders one in the other, bytes of the whole."""


@dataclass(frozen=True)
class Code:
    kind: Word
    """"text", "archive" or "git"."""
    source: str
    """The text, or the address."""
    command: tuple[str, ...]
    """The file to run, as a path in the code, and its arguments."""
    outputs: tuple[str, ...] = ()
    """The files that go home, as paths beside the code; if there are none, all that it makes or changes."""
    revision: str = ""
    """Of a repository: a branch, or a commit's digits; if empty, the one that it shows first."""
    environment: str = ""
    """Which of the site's interpreters runs it."""


def parse_code(
    message: Mapping[str, Any], inputs: Iterable[str], rules: OwnCode, may_fetch: Callable[[str], bool]
) -> Code:
    """`may_fetch`: whether code may come from an address. Raises InvalidSpec with a sentence for the requester."""
    source = message.get("source")
    if not isinstance(source, str) or not source.strip():
        raise InvalidSpec('The job message has no "source": the text of a script, or the address of its code.')
    if not _is_text(source):
        raise InvalidSpec('"source" in the job message is no text: it can\'t be written as UTF-8.')
    command = _command(message.get("command", _RUN))
    kind, revision = _kind(source, may_fetch)
    if kind is GIT:
        source = source[: -len(revision) - 1] if revision else source
    outputs = message.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(each, str) for each in outputs):
        raise InvalidSpec('"outputs" in the job message must be a list of the names of files.')
    named = tuple(dict.fromkeys(path_of(each, "output") for each in outputs))
    if "error" in named:
        raise InvalidSpec('An output can\'t be named "error" here: in an answer, that word marks a failure.')
    files = [path_of(name, "input") for name in inputs]
    _look_for_clashes([*files, *{TEXT: [command[0]], ARCHIVE: [ARCHIVE_NAME]}.get(kind, [])])
    return Code(
        kind, source.strip() if kind is not TEXT else source, command,
        outputs=named, revision=revision, environment=_environment(message.get("environment", ""), rules.environments),
    )  # fmt: skip


def path_of(name: str, what: str) -> str:
    """The same path, without what says nothing ("./"). Raises InvalidSpec for one that leads out of its folder, or that no
    file can have."""
    parts = [part for part in name.split("/") if part != "."]
    good = (
        0 < len(parts) <= _DEEPEST
        and len(name.encode("utf-8", "replace")) <= _LONGEST_PATH
        and all(part not in ("", "..") and len(part.encode("utf-8", "replace")) <= _LONGEST_NAME for part in parts)
        and name.isprintable()
        and not parts[0].startswith("-")
    )
    if not good:
        raise InvalidSpec(f"{quoted(name)} can't be the name of {'an' if what[0] in 'aeiou' else 'a'} {what} here.")
    return "/".join(parts)


def _look_for_clashes(files: Sequence[str]) -> None:
    taken: set[str] = set()
    for file in files:
        above = {"/".join(file.split("/")[:depth]) for depth in range(1, file.count("/") + 1)}
        if file in taken or above & taken or any(other.startswith(f"{file}/") for other in taken):
            raise InvalidSpec(
                f"Two files of the job would be {quoted(file)}: the code, or an input, has that name too."
            )
        taken.add(file)


def _command(given: object) -> tuple[str, ...]:
    words = given.split() if isinstance(given, str) else given
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InvalidSpec('"command" in the job message must be words: the name of a file of the code, and arguments.')
    line = " ".join(words)
    if not _is_text(line) or "\0" in line or len(words) > _MOST_WORDS or len(line.encode()) > _LONGEST_COMMAND:
        raise InvalidSpec('"command" in the job message is too long, or holds a character of code 0, or is no text.')
    return (path_of(words[0], "command"), *words[1:])


def _kind(source: str, may_fetch: Callable[[str], bool]) -> tuple[str, str]:
    """What it is, and the revision of a repository."""
    word = source.strip()
    if not re.fullmatch(r"\S+", word) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|[\w.-]+@[\w.-]+:", word):
        return TEXT, ""
    parts = _split(word)
    if parts is None or parts.scheme not in ("http", "https"):
        scheme = word.partition(":")[0] if "://" in word else "ssh"
        raise InvalidSpec(
            f'Code can\'t come by "{_plain(scheme)}" here. Give an https address, or the text of a script.'
        )
    if len(word) > 4096 or re.search(r"[^\x21-\x7e]|\\", word) or "@" in parts.netloc:
        raise InvalidSpec("The address of the code is not a URL, or holds a user's name or a password.")
    is_archive = parts.path.lower().endswith(ARCHIVES)
    revision = "" if is_archive else _revision(word)
    if not may_fetch(word[: -len(revision) - 1] if revision else word):
        raise InvalidSpec(f"The code comes from {quoted(parts.hostname or word)}, which is not allowed here.")
    return (ARCHIVE if is_archive else GIT), revision


def _split(url: str) -> Optional[Any]:
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and (parts.port is None or parts.port) else None
    except ValueError:
        return None


def _revision(url: str) -> str:
    """`#branch` or `@commit` at its end."""
    found = re.search(r"#([A-Za-z0-9][A-Za-z0-9._/-]{0,199})$|@([0-9a-fA-F]{7,40})$", url)
    if found is None and "#" in url:
        raise InvalidSpec("What follows # in the address of the code can't be the name of a branch.")
    branch = (found.group(1) or found.group(2)) if found else ""
    if ".." in branch or branch.endswith((".lock", "/", ".")) or "//" in branch:
        raise InvalidSpec("What follows # in the address of the code can't be the name of a branch.")
    return branch


def _environment(name: object, known: Collection[str]) -> str:
    if name == "" or (isinstance(name, str) and name in known):
        return str(name)
    raise InvalidSpec(f"There is no environment named {quoted(name)} here.")


def _is_text(text: str) -> bool:
    """JSON can hold half a character (a lone surrogate), which nothing on a computer can be called."""
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9+.-]", "?", text[:20])
