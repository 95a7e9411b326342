"""Facts: files that each say one thing, and the one codec between them and dataclasses.

A fact is declared once: its name and what it says (a dataclass), and whether several may try to write it. So mypy knows what
comes back, and what may go in.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Callable,
    Generic,
    Optional,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ..errors import Damaged
from . import paths

T = TypeVar("T")


class Fact(Generic[T]):
    """One file that only one side writes, whole."""

    __slots__ = ("kind", "path")

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.path = path
        self.kind = kind

    def read(self) -> Optional[T]:
        """What it says, or None where there is no such file. Raises Damaged, and OSError where the disk is away."""
        return self.read_dated()[0]

    def read_dated(self) -> tuple[Optional[T], float]:
        """The same, and when it was written, by the file server's clock; 0 where there is none."""
        content, written_at = paths.dated_contents(self.path)
        if content is None:
            return None, 0
        try:
            said: T = from_json(self.kind, _JSON.decode(content.decode("utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise Damaged(f"{self.path} is not what was written there ({_short(error)})") from None
        return said, written_at

    def write(self, said: T, sync_name: bool = True) -> None:
        """After the return it survives a power failure. `sync_name`: False where its folder is synced anyhow before anything
        relies on it. Raises OSError."""
        with paths.aside(self.path, encoded(said)) as temporary:
            temporary.rename(sync_name)

    @contextlib.contextmanager
    def prepared(self, said: T, at: Optional[float] = None) -> Iterator[Callable[[], None]]:
        """Where writing must not fail any more once something has happened: on disk already when the block begins, it gets
        its name by calling what the block is given, which needs no space. `at`: when it says that it was written."""
        with paths.aside(self.path, encoded(said)) as temporary:
            if at is not None:
                os.utime(temporary.path, (at, at))
            yield temporary.rename

    def remove(self) -> None:
        paths.remove(self.path)

    def is_there(self) -> bool:
        """Whether anything has its name. Raises OSError where the disk does not say."""
        return paths.is_there(self.path)

    def written_at(self) -> float:
        """By the file server's clock. Raises OSError."""
        return os.stat(self.path).st_mtime

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)


class Exclusive(Fact[T]):
    """One file that several may try to write: one of them wins. To `write` it is for who knows that it is his, or nobody's."""

    __slots__ = ()

    def claim(self, said: T) -> bool:
        """False if another writer was first. Raises OSError."""
        return self.claim_dated(said) is not None

    def claim_dated(self, said: T) -> Optional[float]:
        """The same: None, or when it was written, by the file server's clock."""
        with paths.aside(self.path, encoded(said)) as temporary:
            return temporary.written_at if paths.claim_link(temporary.path, self.path) else None

    def claim_as(self, other: Fact[T]) -> bool:
        """The same, to say what another fact says that is on disk: one link and one sync. Raises OSError; after that it may
        stand all the same, and is ours when it is asked for again."""
        return paths.claim_link(other.path, self.path)


class Listed:
    """What is in a folder, listed once: of facts that are not there, the file server is asked nothing more."""

    def __init__(self, folder: Path) -> None:
        """Raises Damaged, and OSError where the disk is away."""
        self.names = frozenset(paths.names_in(folder))
        self._written: dict[str, float] = {}

    def read(self, fact: Fact[T]) -> Optional[T]:
        if fact.name not in self.names:
            return None
        said, self._written[fact.name] = fact.read_dated()
        return said

    def written_at(self, fact: Fact[T]) -> float:
        """When what was read was written, by the file server's clock; 0 where it was not there."""
        return self._written.get(fact.name, 0)


# --- how a folder declares them


class _Folder(Protocol):
    @property
    def path(self) -> Path: ...


class _Declared(Generic[T]):
    def __init__(self, name: str, kind: type[T]) -> None:
        self.name, self.kind = name, kind

    def __get__(self, folder: _Folder, owner: object) -> Fact[T]:
        return Fact(folder.path / self.name, self.kind)


class _DeclaredExclusive(_Declared[T]):
    def __get__(self, folder: _Folder, owner: object) -> Exclusive[T]:
        return Exclusive(folder.path / self.name, self.kind)


class _Place:
    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: _Folder, owner: object) -> Path:
        return folder.path / self.name


def fact(name: str, kind: type[T]) -> _Declared[T]:
    return _Declared(name, kind)


def exclusive(name: str, kind: type[T]) -> _DeclaredExclusive[T]:
    return _DeclaredExclusive(name, kind)


def place(name: str) -> _Place:
    """A file or folder that is no fact."""
    return _Place(name)


# --- the codec


def encoded(said: object) -> bytes:
    """A dataclass as it stands in its file."""
    assert is_dataclass(said) and not isinstance(said, type)
    return (json.dumps(to_json(asdict(said)), indent=1) + "\n").encode()


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


_JSON = json.JSONDecoder(parse_constant=_no_number)
_LARGEST_INT = 2**64
_LARGEST_FLOAT = 2.5e11
"""No time of ours lies beyond the year 9900, and no integer in a message beyond 64 bits. What is larger would fail only
where it is counted with."""


def _short(error: Exception) -> str:
    """It may quote all of what it found."""
    words = str(error)
    return words if len(words) <= 200 else f"{words[:200]}..."


def to_json(value: Any) -> Any:
    """Bytes are tagged, so that they come back as bytes."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(inner) for inner in value]
    return value


def from_json(kind: Any, value: Any) -> Any:
    """The reverse, led by the dataclass's own annotations. Unknown keys are a newer version's, and are passed over."""
    if kind is Any or (kind is type(value) and kind not in (int, float)):
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no object")
        return kind(**{name: from_json(of, value[name]) for name, of in _fields(kind) if name in value})
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        word = from_json(of[0], value)
        of[1].check(word)
        return word
    if origin is Union:
        return _from_json_union(of, value)
    if origin is tuple:
        inner = of[:1] * len(value) if len(of) == 2 and of[1] is ... else of
        if not isinstance(value, list) or len(inner) != len(value):
            raise ValueError(f"{value!r} is no list of {len(inner)}")
        return tuple(from_json(k, v) for k, v in zip(inner, value))
    if origin is not None and issubclass(origin, Mapping):
        return {key: from_json(of[1], inner) for key, inner in value.items()}
    if kind is bytes:
        return base64.b64decode(value["base64"], validate=True)
    if isinstance(kind, type) and not isinstance(value, (kind, int) if kind is float else kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    most = {int: _LARGEST_INT, float: _LARGEST_FLOAT}.get(kind)
    if most is not None and not -most < value < most:
        raise ValueError(f"{value!r} is too large a number")
    return value


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """To work them out takes ten times as long as to read a fact."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(kind))


def _from_json_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, dict) and bytes in kinds:
        return from_json(bytes, value)
    if isinstance(value, str) and str in kinds:
        return value
    left = [kind for kind in kinds if kind not in (str, bytes, type(None))]
    if not left:
        raise ValueError(f"{value!r} is of the wrong type")
    return from_json(left[0], value)
