"""A workload whose program is missing, or that has left the site file, beside one that is well: on real RabbitMQ and Slurm."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.requester import Answer
from tests.scene import IMAGE, Scene
from tests.test_hostile import outcome_of


@pytest.fixture
def script(scene: Scene) -> Path:
    """Of a workload `other`, that messages of the same queue ask for by name; it lies in the checkout."""
    file = ROOT / "logs" / f"{scene.requester.jobs}.py"
    file.parent.mkdir(exist_ok=True)
    words = json.dumps(["{python}", f"{{root}}/logs/{file.name}", "{job}"])
    form = '[[workloads.other.forms]]\nrequired = ["Image"]\noutputs = { "Result" = ".txt" }\n'
    scene.installation.site_file.write_text(
        f"{scene.installation.site_file.read_text()}\n[workloads.other]\nargv = {words}\nretry = {{ attempts = 1 }}\n{form}"
    )
    return file


def ask_other(scene: Scene) -> str:
    return scene.requester.ask({"Image": IMAGE}, {}, workload="other")


def outcomes(scene: Scene, asked: list[str]) -> list[str]:
    scene.installation.passes_until(lambda: all(scene.requester.to(each) for each in asked))
    answers: list[list[Answer]] = [scene.requester.to(each) for each in asked]
    assert [len(each) for each in answers] == [1] * len(asked)
    return [outcome_of(each) for (each,) in answers]


@pytest.mark.long(seconds=30)
@pytest.mark.fault(
    what="a workload's script is missing, and its name leaves site.toml", moment="before it is submitted"
)
def test_a_workload_whose_script_is_missing_waits_while_the_other_one_runs(scene: Scene, script: Path) -> None:
    stopped, well = ask_other(scene), scene.ask()

    said = scene.installation.check("--drain", expect=os.EX_DATAERR)
    assert f"workload stopped, the others go on workload=other why='there is no {script}'" in said
    assert outcomes(scene, [well]) == ["succeeded"]
    scene.installation.passes_until(lambda: len(scene.installation.active()) == 1)
    (job,) = scene.installation.active()
    assert job.held.path.exists() and not scene.requester.to(stopped)
    explained = " ".join(scene.installation.check("explain", job.id).split())
    status = " ".join(scene.installation.check("status").split())
    assert f"its workload can't be begun: there is no {script}" in explained and "other is stopped" in status

    whole = scene.installation.site_file.read_text()
    scene.installation.site_file.write_text(whole[: whole.index("[workloads.other]")])
    later = ask_other(scene)
    scene.installation.check("--drain", expect=os.EX_DATAERR)
    assert len(scene.installation.active()) == 2 and scene.requester.waiting_jobs() == 0

    scene.installation.site_file.write_text(whole)
    shutil.copy(ROOT / "tests" / "workloads" / "probe.py", script)
    try:
        assert outcomes(scene, [stopped, later]) == ["succeeded"] * 2
    finally:
        script.unlink()
