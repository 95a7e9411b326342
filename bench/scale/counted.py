"""check.py, with what it opened counted: `python -m bench.scale.counted FILE ARGUMENTS` writes the number into FILE."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    file, jobs = Path(sys.argv[1]), sys.argv[2]
    opened = [0]

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(jobs):
            opened[0] += 1

    sys.argv = [str(ROOT / "check.py"), *sys.argv[3:]]
    sys.path.insert(0, str(ROOT))
    sys.addaudithook(note)
    try:
        runpy.run_path(str(ROOT / "check.py"), run_name="__main__")
    finally:
        file.write_text(str(opened[0]))


if __name__ == "__main__":
    main()
