"""Which words of a workload's command have to be there, and what is said of one that is not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker.examples import COPY, config_for
from worker.installed import Needed, needed, trouble, why_stopped, workloads_of
from worker.settings import Config, Queue, Site, Workload


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "run.py").write_text("")
    found = config_for(tmp_path, changes={"python": tmp_path / "bin" / "python"})
    return replace(found, root=tmp_path)


def stopped(config: Config, name: str) -> str:
    return why_stopped(config.root, config.site, name)


def with_workload(config: Config, *argv: str, prefix: tuple[str, ...] = ()) -> Config:
    workload = replace(COPY, argv=argv, prefix=prefix)
    return replace(config, site=replace(config.site, workloads={"w": workload}))


WELL = {
    "an interpreter and its script": ("{root}/bin/python", "{root}/run.py"),
    "the worker's own python": ("{python}", "-X", "utf8", "{root}/run.py"),
    "what only a job knows": ("{root}/bin/python", "{root}/run.py", "{job}", "{work}/x", "{root}/jobs/{job}"),
    "a path inside of a word": ("{root}/bin/python", "{root}/run.py", "--cache={root}/cache"),
    "a program of the compute nodes": ("/opt/only/there", "/opt/only/there.cfg"),
    "a program of the PATH": ("apptainer", "exec"),
}
MISSING = {
    "a program": (("{root}/bin/no such",), (), "there is no program {root}/bin/no such"),
    "an interpreter's script": (("/usr/bin/python3", "{root}/no.py"), (), "there is no {root}/no.py"),
    "a script of the worker's python": (("{python}", "{root}/no.py"), (), "there is no {root}/no.py"),
    "a prefix": (("{root}/bin/python",), ("{root}/sandbox",), "there is no program {root}/sandbox"),
    "a prefix's image": (("run",), ("apptainer", "exec", "{root}/image.sif"), "there is no {root}/image.sif"),
    "a program after a prefix": (("{root}/run.py",), ("bwrap",), "{root}/run.py is not executable"),
    "the execute bit": (("{root}/run.py",), (), "{root}/run.py is not executable"),
    "a program that is a folder": (("{root}/bin",), (), "{root}/bin is not executable"),
    "a folder that is a file": (("{root}/run.py/x",), (), "there is no program {root}/run.py/x"),
}


@pytest.mark.parametrize("argv", WELL.values(), ids=list(WELL))
def test_a_command_that_is_there_as_far_as_it_shows_here_stops_nothing(config: Config, argv: tuple[str, ...]) -> None:
    assert stopped(with_workload(config, *argv), "w") == ""


@pytest.mark.parametrize(("argv", "prefix", "why"), MISSING.values(), ids=list(MISSING))
def test_a_word_that_is_missing_is_named(
    config: Config, argv: tuple[str, ...], prefix: tuple[str, ...], why: str
) -> None:
    assert stopped(with_workload(config, *argv, prefix=prefix), "w") == why.replace("{root}", str(config.root))


def test_a_python_that_is_gone_stops_what_runs_with_it(config: Config) -> None:
    (config.root / "bin" / "python").unlink()
    (config.root / "bin" / "python").symlink_to("/gone/with/the/upgrade")

    assert "there is no program" in stopped(with_workload(config, "{python}", "{root}/run.py"), "w")


def test_a_name_that_is_not_in_the_site_file_is_named(config: Config) -> None:
    assert stopped(config, "gone") == "the workload gone is not in site.toml"


def test_a_disk_that_does_not_answer_says_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: str) -> os.stat_result:
        raise OSError(116, os.strerror(116))

    monkeypatch.setattr(os, "stat", stale)

    assert trouble(Needed("/x", run=True, sure=True)) == ""


def test_on_a_node_other_paths_count_too_where_they_are_surely_paths_of_the_node() -> None:
    def sure(*argv: str, prefix: tuple[str, ...] = ()) -> list[str]:
        workload = Workload(argv=argv, forms=(), prefix=prefix)
        return [need.path for need in needed(workload, Path("/root"), Path("/py")) if need.sure]

    assert sure("/opt/python3.11", "-u", "/opt/x.py", "/data/y") == ["/opt/python3.11", "/opt/x.py"]
    assert sure("/opt/tool", "/data/y") == ["/opt/tool"]
    assert sure("/app/run", "{root}/z", prefix=("/bin/bwrap", "--bind", "{work}", "/app")) == ["/bin/bwrap", "/root/z"]


def test_a_queue_s_workloads_are_its_own_and_those_that_are_no_queue_s_own() -> None:
    def of(*queues: str) -> list[list[str]]:
        made = tuple(Queue(name=str(number), workload=name) for number, name in enumerate(queues))
        site = Site(queues=made, workloads=dict.fromkeys("abc", COPY))
        return [workloads_of(site, queue) for queue in made]

    assert of("a") == [["a", "b", "c"]]
    assert of("a", "b") == [["a", "c"], ["b", "c"]] and of("a", "b", "c") == [["a"], ["b"], ["c"]]
