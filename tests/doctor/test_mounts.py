"""What the doctor makes of a mount's options, and that its own folder goes in the end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from worker.doctor.aside import own_folder
from worker.doctor.mounts import Mount, kept_for, look_at_options, mount_of
from worker.doctor.report import FAULT, OK, WARNING, Finding, Report
from worker.folder import paths

NFS = "rw,vers=4.2,rsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,local_lock=none,addr=10.0.0.1"
LINE = "41 27 {device} / {point} rw,nosuid shared:7 master:1 - {kind} server:/export {options}\n"


def mounted(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text("".join(lines))
    return file


def found(options: str, kind: str = "nfs4", visible_after: float = 90) -> list[Finding]:
    report = Report("jobs folder")
    look_at_options(
        report, Mount("/shared", kind, dict(o.partition("=")[::2] for o in options.split(","))), visible_after
    )
    return report.findings


def test_a_mount_is_known_by_its_device_with_the_options_of_both_columns(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    ours = LINE.format(device=f"{os.major(device)}:{os.minor(device)}", point="/a", kind="nfs4", options=NFS)

    mount = mount_of(tmp_path, mounted(tmp_path, "no such line\n", ours))

    assert mount is not None and (mount.point, mount.kind) == ("/a", "nfs4")
    assert mount.options["vers"] == "4.2" and {"nosuid", "hard"} <= mount.options.keys()


def test_where_no_device_is_the_same_the_longest_place_above_counts(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    spaced = str(place.resolve()).replace(" ", "\\040")
    lines = [LINE.format(device="0:999", point=point, kind=kind, options="rw")
             for point, kind in (("/", "overlay"), (spaced, "nfs4"), (spaced + "c", "tmpfs"))]  # fmt: skip

    mount = mount_of(place, mounted(tmp_path, *lines))

    assert mount is not None and (mount.kind, mount.point) == ("nfs4", str(place.resolve()))


def test_without_that_file_nothing_is_known(tmp_path: Path) -> None:
    assert mount_of(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(("changed", "mark", "words"), [
    ("", OK, "hard, vers=4.2, names are believed missing for 1 min at most"),
    ("hard>soft", FAULT, "mounted soft: what is written may be lost"),
    ("hard>softerr", FAULT, "mounted softerr"),
    ("vers=4.2>vers=3", WARNING, "NFS 3: a new name may stay hidden"),
    ("hard>hard,nolock", WARNING, "nolock: locks of programs hold on one host only"),
    ("hard>hard,acregmax=600,acdirmax=600", WARNING, "for up to 10 min, and visible_after is 90 s"),
    ("hard>hard,acdirmax=600,lookupcache=none", OK, "missing for 0 s at most"),
    ("hard>hard,acregmin=3,acregmax=3,acdirmin=3,acdirmax=3", OK, "missing for 3 s at most"),
    ("hard>hard,noac", OK, "missing for 0 s at most"),
])  # fmt: skip
def test_what_an_nfs_mount_s_options_mean_is_said(changed: str, mark: str, words: str) -> None:
    before, _, after = changed.partition(">")

    (finding,) = found(NFS.replace(before, after, 1) if changed else NFS)

    assert (finding.mark, finding.check) == (mark, "mount options") and words in finding.found
    assert mark == OK or finding.mend


def test_the_default_is_longer_than_a_short_visible_after() -> None:
    (finding,) = found(NFS, visible_after=30)

    assert finding.mark == WARNING and "actimeo=3" in finding.mend


def test_nothing_is_said_of_what_shows_nothing() -> None:
    assert found("rw,user_id=0,allow_other", "fuse.juicefs") == []


def test_an_unknown_number_is_the_default() -> None:
    assert kept_for({"acdirmax": "?"}) == kept_for({}) == 60


def test_the_doctor_s_folder_goes_also_where_a_file_in_it_is_still_open_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS keeps the name of an open file, and the folder with it, until it is closed."""
    right, held = paths.remove_tree, ["first", "second"]
    monkeypatch.setattr(paths, "remove_tree", lambda path: held.pop() if held else right(path))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    with own_folder(tmp_path) as place:
        (place / ".nfs0001").touch()

    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_doctor_could_not_remove_goes_and_what_another_one_uses_stays(tmp_path: Path) -> None:
    for name in (".doctor-old", ".doctor-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".nfs0001").touch()
    os.utime(tmp_path / ".doctor-old", (time.time() - 7200,) * 2)

    with own_folder(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == [".doctor-new"]
