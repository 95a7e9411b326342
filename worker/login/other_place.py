"""What stands at another path, asked by a child process: the place may be a mount whose server is gone, and whoever looks
there then hangs, and can't even be killed."""

from __future__ import annotations

import enum
import secrets
import subprocess
import sys
from pathlib import Path

from ..folder.paths import remove

_SECONDS = 10.0
_LOOK = """\
import json, os, sys
place, mark, mark_id, made = sys.argv[1:]
try:
    with open(os.path.join(place, mark), "rb") as file:
        there = json.loads(file.read(1 << 20))["id"] == mark_id
except (OSError, ValueError, KeyError, TypeError):
    there = False
print("same" if os.path.lexists(os.path.join(place, made)) else "copy" if there else "nothing")
"""


class OtherPlace(enum.Enum):
    NOTHING = "nothing"
    """The mark does not stand there, or not any more."""
    SAME = "same"
    """It is this folder under another name: a symbolic link, an automounter's, a second mount."""
    COPY = "copy"
    """The mark stands there as well."""
    NO_ANSWER = ""


def look_at(place: str, mark: Path, mark_id: str) -> OtherPlace:
    """Whether the folder `place` bears the same mark as ours, and is ours: then a file that is made in ours is seen there.
    Raises OSError where ours can't be written."""
    made = mark.with_name(f".seen-{secrets.token_hex(8)}")
    made.touch(mode=0o600)
    try:
        arguments = [place, mark.name, mark_id, made.name]
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", _LOOK, *arguments], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        try:
            said, _ = child.communicate(timeout=_SECONDS)
            return OtherPlace(said.strip())
        except subprocess.TimeoutExpired:
            child.kill()  # and not waited for: it may never end
            return OtherPlace.NO_ANSWER
    finally:
        remove(made)
