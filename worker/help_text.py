"""What stands in every verb's --help: exit codes, with the meanings of sysexits(3), and lines that fit the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

ALWAYS: Mapping[int, str] = {
    64: "the command line is wrong",
    70: "an unforeseen error; please report the traceback",
    78: "credentials.env or site.toml is at fault; every fault is listed",
    130: "Ctrl-C ended it; 129 and 143: SIGHUP and SIGTERM; 141: whoever read its output is gone",
}
"""Exit codes of every verb."""
_TWO_COLUMNS = re.compile(r" +\S.*? {2,}(?=\S)")
"""A line of a list: what is explained, then its explanation."""


def exit_codes(codes: Mapping[int, str]) -> str:
    """`codes`: those of one verb; what they say comes before what is always so."""
    rows = sorted({**ALWAYS, **codes}.items())
    return "\n".join(["exit codes:", *(f"{code:4}  {words}" for code, words in rows)])


def filled(text: str, width: int) -> str:
    """The same text in lines of this width: paragraphs are filled anew, lists keep their columns."""
    return "\n".join(line for block in _blocks(text) for line in _wrapped(block, width))


def _blocks(text: str) -> Iterator[str]:
    """A paragraph, or one line of a list; an empty line is a block."""
    paragraph: list[str] = []
    for line in text.splitlines():
        if line[:1].strip() and not line.endswith(":"):
            paragraph.append(line)
            continue
        if paragraph:
            yield " ".join(paragraph)
            paragraph = []
        yield line
    if paragraph:
        yield " ".join(paragraph)


def _wrapped(block: str, width: int) -> list[str]:
    columns = _TWO_COLUMNS.match(block)
    indent = columns.end() if columns else len(block) - len(block.lstrip())
    if indent > width // 2:
        indent = 6
    return textwrap.wrap(
        block, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False, expand_tabs=False,
        replace_whitespace=False, drop_whitespace=True,
    ) or [""]  # fmt: skip
