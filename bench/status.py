"""How long `check.py status` takes with many jobs: `python -m bench.status [--active N] [--done N]`.

The jobs are made up; the done ones are names only, because counting reads no more of them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.scale_ground import fill_active
from tests.installation import ROOT
from tests.worker.examples import CREDENTIALS, SITE
from worker.folder.jobs import JobsFolder

DAYS = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--active", type=int, default=10_000)
    parser.add_argument("--done", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as place:
        site, credentials = _installation(Path(place))
        jobs = JobsFolder(Path(place) / "jobs")
        jobs.prepare()
        fill_active(jobs, options.active, time.time())
        _make_done(jobs, options.done)
        for words in (["--limit", "20"], ["--state", "running", "--limit", "20"]):
            argv = [sys.executable, str(ROOT / "check.py"), "status", "--offline", *words, "--json"]
            argv += ["--site", str(site), "--credentials", str(credentials)]
            wall, cpu = min(_timed(argv) for _ in range(3))
            print(
                f"{wall:.2f} s, of CPU {cpu:.2f} s:  {options.active} active, {options.done} done  status {' '.join(words)}"
            )


def _installation(place: Path) -> tuple[Path, Path]:
    site, credentials = place / "site.toml", place / "credentials.env"
    site.write_text(f'jobs_dir = "{place / "jobs"}"\n{SITE}')
    credentials.touch(mode=0o600)
    credentials.write_text(CREDENTIALS)
    return site, credentials


def _make_done(jobs: JobsFolder, count: int) -> None:
    for day in range(DAYS):
        place = jobs.done / f"2026-11-{day + 1:02d}"
        place.mkdir()
        for number in range(count // DAYS + (day < count % DAYS)):
            (place / f"{day:02d}{number:030x}").touch()


def _timed(argv: list[str]) -> tuple[float, float]:
    """Seconds by the wall's clock, and of CPU."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
