"""What a word in a fact must look like that becomes a path, a name in Slurm, or a word of a command line. Pure.

A fact that was damaged, or written by somebody else, may say anything: `../../x`, nothing at all, a megabyte. The forms
stand with the fields (facts.py, outcome.py, spec.py), and folder.from_json holds each fact to them when it is read. So
nobody who uses one has to ask again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NewType

JobId = NewType("JobId", str)
_LONGEST = 200
"""Characters: a file's name may have 255 bytes, ours have an ending, and are written aside under a longer one."""


@dataclass(frozen=True)
class Form:
    what: str
    pattern: str

    def check(self, word: str) -> None:
        """Raises ValueError."""
        if len(word) > _LONGEST or re.fullmatch(self.pattern, word) is None:
            raise ValueError(f"{word[:_LONGEST]!r} is no {self.what}")


_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SLURM_ID = r"[A-Za-z0-9][]A-Za-z0-9_.+,:%[-]*"

Name = Annotated[str, Form("name", _WORD)]
"""Of a job, a group, a stored reply, or in Slurm: no path leads out of a folder by it, and it is no option."""
NameIfAny = Annotated[str, Form("name", f"({_WORD})?")]
SlurmId = Annotated[str, Form("id of a Slurm job", _SLURM_ID)]
SlurmIdIfAny = Annotated[str, Form("id of a Slurm job", f"({_SLURM_ID})?")]
FileName = Annotated[str, Form("file's name", r"[^/\0-\x1f.-][^/\0-\x1f]*")]
"""Of an input or an output; a site may end it as it likes."""
FileNameIfAny = Annotated[str, Form("file's name", r"([^/\0-\x1f.-][^/\0-\x1f]*)?")]
Line = Annotated[str, Form("single line", r"[^\0-\x1f]+")]
"""One word of a command line, behind the name of an option."""
Place = Annotated[str, Form("path", r"(/[^\0]*)?")]
Word = Annotated[str, Form("word", r"[a-z_]+")]
"""One of ours: an outcome, or a step."""
WordIfAny = Annotated[str, Form("word", r"[a-z_]*")]


def quoted(value: object) -> str:
    """A value of a message as it may stand in a sentence: short, printable, on one line."""
    text = value if isinstance(value, str) else repr(value)
    printable = "".join(c if c.isprintable() else "?" for c in text[:81])
    return f'"{printable[:80]}..."' if len(text) > 80 else f'"{printable}"'
