"""Writes docs/settings.md from the code's own definitions: `.venv/bin/python -m docs.settings > docs/settings.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from worker.config import OLDER_NAMES, VARIABLES, duration, span
from worker.settings import Seconds, Site

_HEAD = """\
# Settings

Made by `python -m docs.settings` from `worker/settings.py`; a test keeps it so. `site.example.toml` is the same as a file
to copy. Durations are written as "90s", "15min", "1h" or "7d".
"""


def tables() -> str:
    return "\n".join([_HEAD, *_site("site.toml", "", Site), _credentials()])


def _site(title: str, about: str, cls: Any) -> Iterator[str]:
    """A table for this class, then those of the tables inside it."""
    hints = get_type_hints(cls)
    yield f"## {title}\n"
    if about:
        yield f"{about}\n"
    yield "| setting | default | values | what it means |\n|---|---|---|---|"
    inside = []
    for f in fields(cls):
        inner = next((k for k in (hints[f.name], *get_args(hints[f.name])) if is_dataclass(k)), None)
        if not isinstance(inner, type):
            doc = f.metadata.get("doc", "")
            yield f"| `{f.name}` | {_default(f, hints[f.name])} | {_values(f, hints[f.name])} | {doc} |"
        else:
            inside.append((_title(title, f.name, hints[f.name]), (inner.__doc__ or "").partition("\n")[0], inner))
    yield ""
    for name, doc, inner in inside:
        yield from _site(name, "" if doc.startswith(inner.__name__) else doc, inner)


def _title(outer: str, name: str, kind: Any) -> str:
    """As the table is written in TOML: [name], [[name]] for a list, [name.<word>] for a table of tables."""
    path = name if outer == "site.toml" else f"{outer.strip('[]`')}.{name}"
    if len(get_args(kind)) == 2 and get_args(kind)[1] is ...:
        return f"`[[{path}]]`"
    return f"`[{path}.<name>]`" if get_args(kind) else f"`[{path}]`"


def _default(f: Field[Any], kind: Any) -> str:
    if f.default is MISSING and f.default_factory is MISSING:
        return "must be set"
    value: Any = f.default_factory() if f.default_factory is not MISSING else f.default
    if value is None:
        return "none"
    if kind in (Seconds, float) and "is_rate" not in f.metadata:
        return f'`"{duration(value)}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, dict)):
        return f"`{list(value) if isinstance(value, tuple) else value}`".replace("'", '"')
    return f"`{value}`" if isinstance(value, (int, float)) else f'`"{value}"`'


def _values(f: Field[Any], kind: Any) -> str:
    """Those that are allowed, where the kind of the setting leaves more."""
    if "choices" in f.metadata:
        return ", ".join(f'`"{word}"`' for word in f.metadata["choices"])
    return span(kind, f.metadata) if "most" in f.metadata else ""


def _credentials() -> str:
    rows = "\n".join(f"| `{name}` | {doc} |" for name, doc in VARIABLES.items())
    older = ", ".join(f"`{old}` for `{new}`" for old, new in OLDER_NAMES.items())
    return (
        f"## credentials.env\n\n| variable | what it means |\n|---|---|\n{rows}\n\n"
        f"Lines may begin with `export`. Older names: {older}."
    )


if __name__ == "__main__":
    print(tables())
