"""A new version beside the old one, as docs/install.md says: jobs of the old one are answered, whenever they start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.passes import hold_back, job_of, let_start, wait_until
from tests.installation import ROOT
from tests.scene import Scene


class Version:
    """A checkout with its own two files, on the jobs folder of `scene`."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self.folder = folder
        self.environment = dict(scene.installation.environment)
        files = scene.installation
        folder.mkdir()
        for name in ("worker", "scheduler", "slurm", "tests/workloads"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("check.py", "run_check"):
            shutil.copy2(ROOT / name, folder)
        shutil.copy2(files.site_file, folder / "site.toml")
        shutil.copy2(files.credentials_file, folder / "credentials.env")

    def one_pass(self, expect: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, str(self.folder / "check.py"), "--drain"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout


@pytest.mark.long(seconds=20)
def test_jobs_of_the_old_version_are_answered_by_the_new_one_and_run_the_code_they_were_submitted_with(
    scene: Scene, tmp_path: Path
) -> None:
    hold_back(scene)
    old = Version(tmp_path / "old", scene)
    pending = scene.ask(after=f"open({str(tmp_path / 'ran in')!r}, 'w').write(__import__('sys').argv[0])")
    old.one_pass()
    new = Version(tmp_path / "new", scene)
    shutil.copy2(old.folder / ".site.toml.installed", new.folder)
    assert "submitted" not in new.one_pass()

    let_start(scene, pending)
    later = scene.ask()
    new.one_pass()
    let_start(scene, later)

    def all_answered() -> bool:
        new.one_pass()
        return all(scene.requester.to(one) for one in (pending, later))

    wait_until(all_answered, 90)

    assert (tmp_path / "ran in").read_text().startswith(str(old.folder))
    for one in (pending, later):
        (answer,) = scene.requester.to(one)
        assert (answer.error, answer.headers["attempt"]) == (None, 1)
    facts = [job_of(scene, one).attempt(1).intent for one in (pending, later)]
    names = {json.loads(fact.path.read_text())["name"].split("-")[1] for fact in facts}
    assert len(names) == 1, "both versions are one installation"


def test_a_new_version_whose_jobs_folder_is_another_one_takes_nothing(scene: Scene, tmp_path: Path) -> None:
    old = Version(tmp_path / "old", scene)
    old.one_pass()
    new = Version(tmp_path / "new", scene)
    shutil.copy2(old.folder / ".site.toml.installed", new.folder)
    site = new.folder / "site.toml"
    site.write_text(site.read_text().replace(json.dumps(str(scene.installation.jobs.path)), '"jobs"'))
    scene.ask()

    assert "is not the one of earlier passes" in new.one_pass(expect=os.EX_CANTCREAT)
    assert scene.requester.waiting_jobs() == 1
