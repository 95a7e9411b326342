"""The smallest workload: takes no input, and gives back the setting `word`. `./check.py test` sends a job to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    job_file = Path(sys.argv[1])
    job = json.loads(job_file.read_text())
    word = job["settings"].get("word", "hello")
    if not isinstance(word, str) or len(word) > 1000:
        sys.exit('"word" must be a text of at most 1000 characters.')
    (job_file.parent / job["outputs"]["Word"]).write_text(word)


if __name__ == "__main__":
    main()
