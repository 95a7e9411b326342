"""What a submitted job needs of site.toml was frozen with it: what people write there afterwards harms it not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.upstream import Upstream
from tests.test_alone import Alone, wait_until
from tests.test_pilots_alone import Piloted, runs

pytestmark = pytest.mark.unhurried

CHANGES = {
    "a slip of the pen": ("[timing]", "[timing"),
    "its workload under another name": ("workloads.probe", "workloads.other"),
    "another program": ("tests/workloads/probe.py", "tests/workloads/none.py"),
    "other outputs": ('"Result" = ".txt"', '"Something else" = ".txt"'),
    "no such queue": ('name = "jobs"', 'name = "more jobs"'),
}


class Gate:
    """Nothing that was submitted begins before it is opened."""

    def __init__(self, alone: Alone, folder: Path) -> None:
        self._file = folder / "open"
        alone.use_python(folder, f"while [ ! -e {shlex.quote(str(self._file))} ]; do sleep 0.05; done;")

    def open(self) -> None:
        self._file.touch()


@pytest.fixture(params=[Alone, Piloted], ids=["a job of its own", "in a pilot"])
def alone(odd_folder: Path, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Alone]:
    made: Alone = request.param(odd_folder / "installation", upstream)
    yield made
    made.broker.close()


@pytest.fixture
def piloted(odd_folder: Path, upstream: Upstream) -> Iterator[Piloted]:
    made = Piloted(odd_folder / "installation", upstream)
    yield made
    made.broker.close()


@pytest.mark.parametrize("change", CHANGES)
def test_what_people_write_into_the_site_file_harms_no_submitted_job(alone: Alone, tmp_path: Path, change: str) -> None:
    gate, site = Gate(alone, tmp_path), alone.installation.site_file
    alone.ask()
    alone.installation.check("--drain")
    written = site.read_text()

    alone.installation.change_site(*CHANGES[change])
    gate.open()
    answers: list[tuple[Any, bytes]] = []
    wait_until(lambda: alone.take(answers), 300)  # no pass helps

    assert "Result" in json.loads(answers[0][1])
    site.write_text(written)
    alone.installation.passes_until(lambda: not frozen(alone))
    alone.take(answers)
    assert len(answers) == 1


def frozen(alone: Alone) -> list[Path]:
    """What is left of it where nothing is in flight any more."""
    jobs = alone.installation.jobs
    return [*jobs.path.rglob("site.toml"), *(path for path in jobs.groups.iterdir() if not path.name.startswith("."))]


def test_it_is_for_nobody_else_to_read(alone: Alone, tmp_path: Path) -> None:
    gate = Gate(alone, tmp_path)
    alone.ask()
    alone.installation.check("--drain")

    found = frozen(alone)
    gate.open()

    assert found and {path.stat().st_mode & 0o777 for path in found} == {0o600}


def test_a_pilot_outlives_the_settings_that_it_began_with(piloted: Piloted, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    old = piloted.ask(before=wait, record=str(tmp_path / "old"))
    piloted.installation.check("--drain")
    wait_until(lambda: runs(tmp_path / "old") == 1, 300)

    piloted.installation.change_site('"Result" = ".txt"', '"Something else" = ".txt"')
    new = piloted.ask()
    piloted.installation.check("--drain")
    gate.touch()
    answers = piloted.answers([old, new])

    assert "Result" in answers[old][0] and "Something else" in answers[new][0]
    assert answers[old][1]["slurm_job_id"] == answers[new][1]["slurm_job_id"]


def test_a_job_that_leaves_its_batch_takes_along_what_was_frozen(piloted: Piloted, tmp_path: Path) -> None:
    record, gate = tmp_path / "record", tmp_path / "open"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)"
    asked = piloted.ask(before=wait, record=str(record))
    piloted.installation.check("--drain")
    wait_until(lambda: runs(record) == 1, 300)

    piloted.installation.change_site("workloads.probe", "workloads.other")
    piloted.installation.change_site('workload = "probe"', 'workload = "other"')
    piloted.pilot_process().kill()
    gate.touch()
    body, headers = piloted.answers([asked])[asked]

    assert "Result" in body and headers["attempt"] == 2 and runs(record) == 2
    assert frozen(piloted) == []
