"""What a workload says of its progress: bounded, checked, and never a reason to fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.folder.records import Fact
from worker.in_job import progress
from worker.in_job.progress import parse, watched
from worker.job.facts import Progress


@pytest.mark.parametrize(("text", "expected"), [
    (b"progress 0.4 epoch 6/15\n", (0.4, "epoch 6/15")),
    (b"progress 0.4\n", (0.4, "")),
    (b"progress 1\n", (1.0, "")),
    (b"progress 0\r\n", (0.0, "")),
    (b"progress .5 half\nanything else\n", (0.5, "half")),
    (b"progress 0.1 a\nprogress 0.2 b\n", (0.2, "b")),
    (b"progress 0.1 a\nprogress 0.2 b", (0.1, "a")),  # a line that is still being written
    (b"progress 0.1 a\nprogress 1.5 b\n", (0.1, "a")),
    (b"progress -1\n", None), (b"progress nan\n", None), (b"progress 1e9\n", None), (b"progress 0.\xd9\xa3\n", None),
    (b"", None), (b"\n", None), (b"PROGRESS 0.1\n", None), (b"xprogress 0.1\n", None), (b"progress0.1\n", None),
    (b"progress 0.5 \x1b[2J\x9b\x00red\n", (0.5, "[2J\N{REPLACEMENT CHARACTER} red")),
    (b"progress 0.5 " + b"x" * 500 + b"\n", (0.5, "x" * 80)),
])  # fmt: skip
def test_the_last_whole_line_counts(text: bytes, expected: object) -> None:
    assert parse(text) == expected


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Fact[Progress]]:
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    return tmp_path / "progress", Fact(tmp_path / "progress.json", Progress)


def seen(files: tuple[Path, Fact[Progress]]) -> object:
    with watched(*files):
        pass
    found = files[1].read()
    return found and (found.fraction, found.words)


def test_what_is_said_last_is_kept(files: tuple[Path, Fact[Progress]]) -> None:
    files[0].write_text("progress 0.9 almost\nprogress 1 done\n")

    assert seen(files) == (1.0, "done")


def test_of_a_large_file_only_the_end_is_read(files: tuple[Path, Fact[Progress]]) -> None:
    with open(files[0], "wb") as file:
        file.truncate(10 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nprogress 0.7\n")

    assert seen(files) == (0.7, "")


def test_a_line_whose_beginning_was_cut_away_does_not_count(files: tuple[Path, Fact[Progress]]) -> None:
    cut = b"progress 0.7 " + b"x" * (4096 - 14) + b"\n"
    assert len(cut) == 4096
    files[0].write_bytes(b"no " + cut)

    assert seen(files) is None


@pytest.mark.parametrize("kind", ["nothing", "link", "fifo", "folder"])
def test_what_is_no_plain_file_says_nothing_and_blocks_nobody(kind: str, files: tuple[Path, Fact[Progress]]) -> None:
    secret = files[0].with_name("secret")
    secret.write_text("progress 0.5 secret\n")
    if kind == "link":
        files[0].symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(files[0])
    elif kind == "folder":
        files[0].mkdir()

    assert seen(files) is None


def test_a_folder_that_is_gone_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    source = tmp_path / "progress"
    source.write_text("progress 0.5\n")

    with watched(source, Fact(tmp_path / "gone" / "progress.json", Progress)):
        pass
