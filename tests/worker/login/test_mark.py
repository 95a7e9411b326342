"""One folder of jobs is one installation: wherever it is moved, however it is called, and whoever copies it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from tests.worker.examples import config_for
from worker.errors import NotOurs
from worker.folder.jobs import JobsFolder, mark_file
from worker.folder.records import Fact
from worker.install.shared import ask_to_share, share
from worker.install.starting import NotAdded
from worker.login import mark, other_place
from worker.login.guard import guarded
from worker.login.mark import Mark, Marked, check_mark
from worker.settings import Config


def installed(place: Path, jobs: str = "jobs") -> Config:
    """The place of a site file, with a jobs folder relative to it or not. Its files are made only once."""
    place.mkdir(exist_ok=True)
    config = config_for(place)
    return replace(config, site=replace(config.site, jobs_dir=place / jobs))


def one_pass(config: Config) -> int:
    return guarded(config, lambda *_: 0)


def place_in(config: Config) -> Mark:
    found = Fact(JobsFolder(config.site.jobs_dir).mark, Mark).read()
    assert found is not None
    return found


def look(config: Config) -> Marked:
    return check_mark(config.site_file, JobsFolder(config.site.jobs_dir))


@pytest.fixture
def here(tmp_path: Path) -> Config:
    config = installed(tmp_path / "here")
    assert one_pass(config) == 0 and look(config) is Marked.YES
    return config


@pytest.mark.parametrize("copied", ["whole, with relative jobs_dir", "the jobs folder alone"])
def test_a_copy_is_refused_as_long_as_the_original_is_there_and_the_original_goes_on(
    here: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, copied: str
) -> None:
    if "whole" in copied:
        shutil.copytree(here.root, tmp_path / "there")
        copy = installed(tmp_path / "there")
    else:
        shutil.copytree(here.site.jobs_dir, tmp_path / "copied")
        copy = replace(here, site=replace(here.site, jobs_dir=tmp_path / "copied"))

    assert one_pass(copy) == os.EX_CANTCREAT
    assert one_pass(here) == 0

    assert f"{copy.site.jobs_dir} is a copy of {here.site.jobs_dir}" in caplog.text and "docs/copying.md" in caplog.text


def test_a_folder_that_was_moved_goes_on_and_the_way_back_is_the_same(here: Config, tmp_path: Path) -> None:
    os.rename(here.root, tmp_path / "there")
    there = installed(tmp_path / "there")
    assert look(there) is Marked.ELSEWHERE

    assert one_pass(there) == 0

    assert look(there) is Marked.YES and place_in(there).jobs_dir == str(there.site.jobs_dir)
    os.rename(tmp_path / "there", here.root)
    assert one_pass(here) == 0


def test_a_folder_that_was_moved_by_copying_goes_on_once_the_old_one_is_gone(here: Config, tmp_path: Path) -> None:
    shutil.copytree(here.root, tmp_path / "there")
    there = installed(tmp_path / "there")
    assert one_pass(there) == os.EX_CANTCREAT

    shutil.rmtree(here.root)

    assert one_pass(there) == 0 and look(there) is Marked.YES


def linked(target: Path, name: Path) -> None:
    name.symlink_to(target)


def bound(target: Path, name: Path) -> None:
    name.mkdir()
    if subprocess.run(["mount", "--bind", str(target), str(name)], capture_output=True).returncode:
        pytest.skip("no right to mount")


@pytest.mark.parametrize("make", [linked, bound])
def test_one_folder_with_two_names_is_no_copy(here: Config, tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    other_name = tmp_path / "other name"
    make(here.root, other_name)
    try:
        there = installed(other_name)

        assert look(there) is Marked.ELSEWHERE and one_pass(there) == 0

        assert place_in(here).jobs_dir == str(there.site.jobs_dir)
        assert one_pass(here) == 0 and sorted(os.listdir(here.site.jobs_dir)) == sorted(
            set(os.listdir(here.site.jobs_dir))
        )
        assert not list(here.site.jobs_dir.glob(".seen-*"))
    finally:
        subprocess.run(["umount", str(other_name)], capture_output=True)


def test_an_old_place_that_gives_no_answer_is_reported_and_holds_nothing_up(
    here: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_place, "_SECONDS", 1.0)
    os.rename(here.root, tmp_path / "there")
    here.site.jobs_dir.mkdir(parents=True)
    os.mkfifo(here.site.jobs_dir / "installation.json")  # whoever opens it waits, as on a mount whose server is gone
    there = installed(tmp_path / "there")

    assert one_pass(there) == 0, "else it would wait for ever"

    assert "gives no answer" in caplog.text
    assert place_in(there).jobs_dir == str(here.site.jobs_dir), "so that it is asked again"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_new_version_beside_works_on_the_same_folder_and_on_no_new_one(
    here: Config, tmp_path: Path, absolute: bool
) -> None:
    beside = installed(tmp_path / "beside", str(here.site.jobs_dir) if absolute else "jobs")
    shutil.copy2(mark_file(here.site_file), mark_file(beside.site_file))

    codes = [one_pass(each) for each in (beside, here, beside)]

    assert codes == ([0, 0, 0] if absolute else [os.EX_CANTCREAT, 0, os.EX_CANTCREAT])


def test_a_first_pass_that_was_killed_between_the_marks_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = installed(tmp_path / "here")
    with monkeypatch.context() as patch:
        patch.setattr(mark, "_mark_the_site_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            one_pass(config)
    left = place_in(config)

    assert one_pass(config) == 0

    assert look(config) is Marked.YES and place_in(config) == left


@pytest.mark.parametrize("version", ["this one", "an older one"])
def test_a_new_site_file_that_names_another_installation_s_folder_is_refused_with_what_to_do(
    here: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    if version != "this one":
        inside = JobsFolder(here.site.jobs_dir).mark
        inside.write_text(json.dumps({**json.loads(inside.read_text()), "site_file": ""}))
    stranger = installed(tmp_path / "stranger", str(here.site.jobs_dir))

    assert one_pass(stranger) == os.EX_CANTCREAT

    told = shlex.split(caplog.messages[-1].partition("copy the mark: cp -p ")[2])
    assert told == [str(JobsFolder(here.site.jobs_dir).mark), str(mark_file(stranger.site_file))]
    shutil.copy2(*told)
    assert [one_pass(stranger), one_pass(here)] == [0, 0]


def test_the_marks_of_an_older_version_still_count(here: Config) -> None:
    for file in (JobsFolder(here.site.jobs_dir).mark, mark_file(here.site_file)):
        file.write_text(json.dumps({"id": place_in(here).id, "jobs_dir": str(here.site.jobs_dir)}))

    assert look(here) is Marked.YES and one_pass(here) == 0


def test_a_damaged_mark_is_named_with_what_to_do(here: Config, caplog: pytest.LogCaptureFixture) -> None:
    for file in (mark_file(here.site_file), JobsFolder(here.site.jobs_dir).mark):
        whole = file.read_bytes()
        file.write_bytes(whole[:20])

        with pytest.raises(NotOurs) as refused:
            look(here)
        assert str(file) in str(refused.value) and one_pass(here) == os.EX_CANTCREAT
        file.write_bytes(whole)
    assert one_pass(here) == 0


@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_init_asks_on_a_terminal_before_a_new_site_file_takes_somebody_s_folder(
    here: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, made: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    stranger = installed(tmp_path / "stranger", str(here.site.jobs_dir))

    with contextlib.nullcontext() if made else pytest.raises(NotAdded, match="is the jobs folder of"):
        assert ask_to_share(stranger.site_file, stranger.site.jobs_dir)
        share(stranger.site_file, stranger.site.jobs_dir)

    assert one_pass(stranger) == (os.EX_OK if made else os.EX_CANTCREAT)


def test_init_says_what_is_left_to_do_where_nobody_can_be_asked(
    here: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    assert not ask_to_share(tmp_path / "site.toml", here.site.jobs_dir)

    assert "copy the mark: cp -p" in capsys.readouterr().out
    assert not ask_to_share(tmp_path / "site.toml", tmp_path / "nothing yet")
