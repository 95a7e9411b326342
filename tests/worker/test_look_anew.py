"""What a network file system hides is looked for again where the file server has to answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker import __main__ as worker
from worker.folder import paths
from worker.folder.records import Fact
from worker.job.facts import Group


def test_a_look_leaves_nothing_behind_and_needs_no_folder(tmp_path: Path) -> None:
    before = os.stat(tmp_path).st_mtime_ns

    paths.look_anew(tmp_path)
    paths.look_anew(tmp_path / "missing")

    assert os.listdir(tmp_path) == [] and os.stat(tmp_path).st_mtime_ns > before


def test_a_node_finds_what_it_had_looked_for_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[Path]()

    def look(path: Path) -> None:
        looked.append(path)
        group.write(Group({}))

    group = Fact(tmp_path / "group.json", Group)
    monkeypatch.setattr(worker, "look_anew", look)

    assert worker._appears(group, 0.1)[0] == Group({})

    assert looked == [tmp_path]


def test_a_node_looks_a_few_times_only_and_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, now = list[float](), [0.0]
    monkeypatch.setattr("worker.__main__.time.monotonic", lambda: now[0])
    monkeypatch.setattr("worker.__main__.time.sleep", lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(worker, "look_anew", lambda _: looked.append(now[0]))

    assert worker._appears(Fact(tmp_path / "group.json", Group), 90)[0] is None

    assert looked == [5, 15, 45, 90]
