"""Which Python may run Batchferry, and how `.venv` is made with it.

A Python that is too old reads this file too (RHEL 8's `python3` is 3.6), so it is written in what 3.5 understands.
"""

import os
import shlex
import shutil
import sys

OLDEST, NEWEST = (3, 9), (3, 14)
_NAMES = ["python3"] + ["python3." + str(minor) for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]


def change_over_if_too_old(root: str) -> int:
    """Under a Python that is too old: goes on as `.venv`'s, or as a newer one that is found by its name; where there is none
    says so, and returns 78. Otherwise 0."""
    if sys.version_info >= OLDEST:
        return 0
    newer = next(filter(is_new_enough, [os.path.join(root, ".venv", "bin", "python")]), "") or find()
    if newer:
        os.execvp(newer, [newer, "-E"] + sys.argv)
    print("check.py: " + _too_old(root), file=sys.stderr)
    return os.EX_CONFIG


def install(root: str) -> str:
    """The commands that make `.venv`."""
    python = find() or (sys.executable if sys.version_info >= OLDEST else "python3.x")
    own = os.path.join(root, ".venv", "bin", "python")
    clear = " --clear" if os.path.lexists(own) and not is_new_enough(own) else ""
    make = " -m venv" + clear + " .venv && .venv/bin/pip install -r requirements.txt"
    return "cd " + shlex.quote(root) + " && " + shlex.quote(python) + make


def find() -> str:
    """The first on PATH that is new enough: `python3`, or else the newest by its name; empty where there is none."""
    return next((name for name in _NAMES if is_new_enough(shutil.which(name) or "")), "")


def is_new_enough(python: str) -> bool:
    """Whether there is such a program, and what it says of itself."""
    import subprocess

    ask = "import sys; sys.exit(sys.version_info < " + repr(OLDEST) + ")"
    try:
        return bool(python) and not subprocess.call(
            [python, "-E", "-c", ask], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False


def _too_old(root: str) -> str:
    found = "this is Python " + ".".join(map(str, sys.version_info[:3])) + " (" + sys.executable + ")"
    needed = "and Batchferry needs 3.9 or newer. No python3.9 to python3.14 is on your PATH"
    fix = "Load a module that has one (`module avail python`), or have it installed; then: "
    return found + ", " + needed + ". " + fix + install(root)
