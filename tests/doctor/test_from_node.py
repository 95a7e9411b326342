"""check.py doctor --from-node on real Slurm: what is wrong only there is told, with the node's name; nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doctor.examined import Examined, Line, faults, one
from tests.installation import ROOT
from tests.services.slurm import SlurmCluster
from worker.doctor.from_node import _try_scratch
from worker.doctor.report import Report
from worker.settings import Site


def from_node(examined: Examined, *options: str, through: tuple[str, ...] = ()) -> list[Line]:
    files = examined.files
    done = subprocess.run(
        [*through, sys.executable, str(ROOT / "check.py"), "doctor", "--from-node", "--json", *options,
         "--site", str(files.site_file), "--credentials", str(files.credentials_file)],
        env={**files.environment, "PATH": examined.path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode in (os.EX_OK, os.EX_CONFIG), done.stderr
    return [Line(**each) for each in json.loads(done.stdout)["findings"]]


def left_behind(examined: Examined) -> list[str]:
    return [path.name for path in examined.files.jobs.path.iterdir() if path.name.startswith(".doctor")]


@pytest.mark.long(seconds=15)
def test_the_same_checks_are_made_on_a_node(examined: Examined, slurm: SlurmCluster) -> None:
    examined.files.change_site(
        "[workloads.probe]", '[workloads.other]\nargv = ["/opt/no such"]\nforms = []\n[workloads.probe]'
    )
    examined.files.change_site("forms = []", 'forms = [{ required = ["A"], outputs = { "B" = "" } }]')

    examined.files.change_site(
        "[workloads.probe]",
        '[workloads.scripted]\nargv = ["/bin/sh", "-u", "/opt/no.sh"]\n'
        'forms = [{ required = ["A"], outputs = { "B" = "" } }]\n[workloads.probe]',
    )
    examined.files.change_site("jobs_dir =", 'scratch = "$NOT_SET_THERE"\njobs_dir =')

    lines = from_node(examined)

    there = [line for line in lines if line.node]
    assert {line.node for line in there} <= {slurm.node("n1"), slurm.node("n2")}
    assert faults(lines) == [("workloads", f"workload {name}") for name in ("other", "scripted")] + [
        ("workloads", "scratch")
    ]
    assert "there is no /opt/no.sh here" in one(there, "workloads", "workload scripted").found
    assert "the variable NOT_SET_THERE is not set on this node" in one(there, "workloads", "scratch").found
    assert "no program /opt/no such here" in one(there, "workloads", "workload other").found
    made = {(line.group, line.check) for line in there if line.mark == "ok"}
    assert {("jobs folder", "shared"), ("python", "packages"), ("broker", "login"), ("API", "login")} <= made
    assert ("workloads", "workload probe") in made
    delays = ("a new name", "a removed name", "a folder that was moved away")
    assert all(one(lines, "compute node", each).mark == "ok" for each in delays)
    assert left_behind(examined) == []


@pytest.mark.parametrize(("scratch", "mark", "words"), [
    ("folder", "ok", "jobs work in their own folders"),
    ("{folder}", "ok", "MiB free"),
    ("$OF_THE_NODE", "ok", "MiB free"),
    ("{folder}/file/below", "fault", "Not a directory"),
    ("/proc/none", "fault", "No such file or directory"),
    ("$NOWHERE", "fault", "the variable NOWHERE is not set"),
])  # fmt: skip
def test_the_doctor_works_in_the_scratch_as_a_job_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: str, mark: str, words: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OF_THE_NODE", str(tmp_path))
    report = Report("workloads")
    report.begin("scratch")

    _try_scratch(report, Site(queues=(), workloads={}, scratch=scratch.format(folder=tmp_path)))

    (finding,) = report.findings
    assert finding.mark == mark and words in finding.found
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.long(seconds=15)
def test_a_jobs_folder_that_the_node_does_not_share(examined: Examined) -> None:
    place = str(examined.files.jobs.path)
    alone = ("unshare", "--mount", "sh", "-c",
             'cp "$1/installation.json" /dev/shm/mark.$$ && mount -t tmpfs -o mode=0700 tmpfs "$1" && '
             'mv /dev/shm/mark.$$ "$1/installation.json" && shift && exec "$@"', "sh", place)  # fmt: skip

    lines = from_node(examined, through=alone)

    line = one(lines, "compute node", "job")
    assert line.mark == "fault" and f"{place} is not the same folder there" in line.found
    assert "mount at the same path" in line.mend


@pytest.mark.long(seconds=15)
def test_a_python_that_is_not_there(examined: Examined) -> None:
    examined.files.change_site(json.dumps(sys.executable), '"/opt/python/bin/python"')

    line = one(from_node(examined), "compute node", "job")

    assert line.mark == "fault" and "/opt/python/bin/python: No such file or directory" in line.found
    assert left_behind(examined) == []


def test_a_cluster_that_is_busy(examined: Examined, slurm: SlurmCluster) -> None:
    examined.files.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+1hour"]\n[timing]')

    line = one(from_node(examined, "--wait", "3"), "compute node", "job")

    assert line.mark == "warning" and "(PENDING, BeginTime); it is cancelled" in line.found
    number = line.found.split()[1]
    assert slurm.run("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={number}").strip() == "CANCELLED"
    assert left_behind(examined) == []


def test_a_job_that_slurm_refuses(examined: Examined) -> None:
    examined.files.change_site("[timing]", '[slurm]\npartition = "nosuch"\n[timing]')

    line = one(from_node(examined), "compute node", "job")

    assert line.mark == "fault" and "invalid partition specified: nosuch" in line.found
