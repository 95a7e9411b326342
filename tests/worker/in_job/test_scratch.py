"""Where a job works on its node: a folder that nobody knows of before, and the node's own fault where there can be none."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from worker.errors import StepFailed
from worker.in_job.scratch import NoPlace, expanded, new_place, place_to_work

LONG_AGO = 1_000_000_000


@pytest.mark.parametrize(("setting", "path"), [
    ("/tmp", "/tmp"),
    ("$TMPDIR", "/local/7"),
    ("${TMPDIR}/jobs", "/local/7/jobs"),
    ("/scratch/$USER/$SLURM_JOB_ID", "/scratch/mary/7"),
    ("~/work", f"{os.environ.get('HOME', '')}/work"),
    ("/a$", "/a$"),
])  # fmt: skip
def test_variables_are_those_of_the_node(setting: str, path: str) -> None:
    environment = {"TMPDIR": "/local/7", "USER": "mary", "SLURM_JOB_ID": "7"}

    assert expanded(setting, environment) == Path(path)


@pytest.mark.parametrize(("setting", "words"), [
    ("$NOWHERE", "the variable NOWHERE is not set on this node"),
    ("${NOWHERE}/a", "the variable NOWHERE is not set on this node"),
    ("/scratch/$EMPTY", "the variable EMPTY is not set on this node"),
    ("$RELATIVE", "tmp on this node, and that is not a full path"),
    ("~nobody-of-this-name/x", "that is not a full path"),
])  # fmt: skip
def test_what_names_no_folder_on_this_node_is_a_sentence(setting: str, words: str) -> None:
    with pytest.raises(NoPlace, match=words):
        expanded(setting, {"EMPTY": "", "RELATIVE": "tmp"})


def test_the_folder_is_ours_alone_and_no_two_have_one_name(tmp_path: Path) -> None:
    with place_to_work(str(tmp_path), "job") as one, place_to_work(str(tmp_path), "job") as other:
        assert one != other and one.parent == other.parent == tmp_path
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        (one / "file").touch()

    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_removed_when_the_job_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), place_to_work(str(tmp_path), "job") as place:
        (place / "file").touch()
        1 / 0  # noqa: B018

    assert list(tmp_path.iterdir()) == []


def test_folders_above_it_are_made(tmp_path: Path) -> None:
    with place_to_work(f"{tmp_path}/a/b", "job") as place:
        assert place.parent == tmp_path / "a" / "b"


@pytest.mark.parametrize("setting", ["{file}", "{file}/below", "$NOT_SET_ANYWHERE", "/proc/none"])
def test_where_there_can_be_none_the_node_is_at_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StepFailed) as failed, place_to_work(setting.format(file=tmp_path / "file"), "job"):
        pass

    assert (failed.value.step, failed.value.may_work_again) == ("start", True)
    assert "no fault of the job" in failed.value.reason and str(tmp_path) not in failed.value.reason
    assert "no place to work on this node" in caplog.text


def test_a_fault_of_the_job_itself_is_none_of_the_node(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), place_to_work(str(tmp_path), "job"):
        raise OSError("mine")


# --- what a killed worker left


def left_behind(place: Path, age: bool = True) -> Path:
    """By a worker of this node that was killed while it worked."""
    program = f"""
import os, signal, sys
from pathlib import Path
from worker.in_job.scratch import new_place
with new_place(Path({str(place)!r}), "job") as made:
    (made / "inputs").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (path,) = place.iterdir()
    if age:
        os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_what_a_killed_worker_left_goes_when_the_next_one_comes(tmp_path: Path) -> None:
    left = left_behind(tmp_path)

    with new_place(tmp_path, "job"):
        assert not left.exists()


def test_what_was_made_just_now_may_have_no_lock_yet(tmp_path: Path) -> None:
    left = left_behind(tmp_path, age=False)

    with new_place(tmp_path, "job"):
        assert left.exists()


def test_the_folder_of_a_worker_that_lives_stays_however_old(tmp_path: Path) -> None:
    with new_place(tmp_path, "job") as working:
        os.utime(working, (LONG_AGO, LONG_AGO))
        with new_place(tmp_path, "job"):
            assert working.exists()


@pytest.mark.parametrize("name", ["batchferry-other-host-job-x", "batchferry", "something else"])
def test_what_may_be_another_node_s_or_somebody_else_s_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))

    with new_place(tmp_path, "job"):
        assert (tmp_path / name).exists()


def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path) -> None:
    scratch, elsewhere = tmp_path / "scratch", tmp_path / "elsewhere"
    scratch.mkdir()
    (elsewhere / "kept").mkdir(parents=True)
    with new_place(scratch, "job") as working:
        name = working.name
    os.symlink(elsewhere, scratch / name)
    os.utime(scratch / name, (LONG_AGO, LONG_AGO), follow_symlinks=False)

    with new_place(scratch, "job"):
        assert (elsewhere / "kept").exists()


def test_where_locks_do_not_work_jobs_do_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_behind(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with new_place(tmp_path, "job") as working:
        assert working.exists() and left.exists()
