"""How things are put on a screen. What a message or a program said is shown as plain text, never as a terminal's commands."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Optional

from ..job import sentences

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH_OF_A_FILE = 200
"""Columns where nobody looks at a screen; rich would cut the table at 80."""


def console() -> Console:
    """Colour only on a terminal, and none where NO_COLOR is set."""
    from rich.console import Console

    class Honest(Console):
        def on_broken_pipe(self) -> None:
            """rich would end the process with 1; whoever called knows better what that means."""
            raise

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    return Honest(width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Columns without lines between them, so that a row can be cut out and pasted. `whole`: those whose cells are never
    folded, because somebody will paste them."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        made.add_column(Text(name), justify=justify, overflow="fold", no_wrap=name in whole)
    return made


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = (),
               whole: Sequence[str] = ()) -> None:  # fmt: skip
    """Prints a table of plain text; nothing, where there is no row."""
    from rich.text import Text

    made = table(*columns, right=right, whole=whole)
    for row in rows:
        made.add_row(*(Text(plain(cell)) for cell in row))
    if made.row_count:
        console().print(made)


def say(text: str, indent: str = "") -> None:
    """Prints a line; on a terminal its words are kept whole."""
    if not sys.stdout.isatty():
        print(text)
        return
    width = shutil.get_terminal_size().columns
    print(textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False))


def plain(value: object, most: int = 300) -> str:
    """On one line, without a character that a terminal would obey."""
    text = value if isinstance(value, str) else str(value)
    shown = "".join(c if c.isprintable() else " " if c in "\t\n\r" else "�" for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def when(at: float, now: Optional[float] = None) -> str:
    """The time of day, with its date where that is not today's."""
    then = time.localtime(at)
    same_day = then[:3] == time.localtime(now if now is not None else time.time())[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)


def lasted(seconds: float) -> str:
    """A duration in words, no more exact than people read it; clocks of two hosts may make it negative."""
    if 0 < seconds < 0.05:
        return "under 0.1 s"
    return sentences.about(max(0.0, seconds))


def size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"


counted = sentences.counted


def rate(count: float, seconds: float) -> str:
    return f"{size(count / seconds)}/s" if seconds > 0 else ""
