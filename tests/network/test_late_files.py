"""The file system made for tests does to names what it is asked to, for as long as it is asked to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.services.late_files import LateFiles

pytestmark = pytest.mark.unhurried


@pytest.fixture
def place(late_files: LateFiles) -> Path:
    """A folder, by the name that the compute host has it under and goes on to use."""
    place = late_files.compute / "before"
    (place / "below").mkdir(parents=True)
    return place


def rename(late_files: LateFiles, new: str) -> Path:
    """On the login host."""
    moved = late_files.login / new
    os.rename(late_files.login / "before", moved)
    return moved


def test_a_folder_that_the_other_host_renamed_takes_files_under_its_old_name_until_that_is_over(
    late_files: LateFiles, place: Path
) -> None:
    late_files.late(old_names=1000)
    moved = rename(late_files, "after")

    (place / "below" / "file").write_text("late")

    assert (moved / "below" / "file").read_text() == "late"
    assert os.listdir(late_files.compute) == ["after"]
    late_files.late()
    assert not place.exists() and (late_files.compute / "after" / "below" / "file").exists()


def test_a_folder_that_nobody_looked_at_before_is_found_under_its_new_name_alone(late_files: LateFiles) -> None:
    (late_files.login / "before").mkdir()
    late_files.late(old_names=1000)

    rename(late_files, "after")

    assert not (late_files.compute / "before").exists() and (late_files.compute / "after").is_dir()


def test_an_old_name_follows_its_folder_wherever_that_goes_and_says_so_when_it_is_gone(
    late_files: LateFiles, place: Path
) -> None:
    late_files.late(old_names=1000)
    os.rename(rename(late_files, "after"), late_files.login / "later")
    (place / "file").touch()
    (late_files.login / "later" / "file").unlink()
    (late_files.login / "later" / "below").rmdir()
    (late_files.login / "later").rmdir()

    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        (place / "file").touch()


def test_who_renames_or_removes_a_folder_by_its_old_name_asks_the_server(late_files: LateFiles, place: Path) -> None:
    late_files.late(old_names=1000)
    moved = rename(late_files, "after")

    for change in (lambda: place.rename(late_files.compute / "mine"), place.rmdir):
        with pytest.raises(FileNotFoundError):
            change()

    assert os.listdir(late_files.login) == ["after"] and moved.is_dir()


def test_a_new_folder_of_that_name_takes_the_place_of_the_old_one_for_its_maker(
    late_files: LateFiles, place: Path
) -> None:
    late_files.late(old_names=1000)
    rename(late_files, "after")
    (late_files.compute / "another").mkdir()

    (late_files.compute / "another").rename(place)
    (place / "file").touch()

    assert (late_files.login / "before" / "file").exists()
