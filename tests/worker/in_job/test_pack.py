"""Outputs become the reply's body, straight from disk to disk; what is no plain file of ours does not."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory import most_memory
from tests.worker.examples import SPEC
from worker.errors import StepFailed
from worker.folder import paths
from worker.folder.facts import AttemptFolder, largest_answer_of
from worker.folder.jobs import JobsFolder
from worker.in_job.pack import pack
from worker.job.facts import LargestAnswer
from worker.job.outcome import Output
from worker.job.spec import JobSpec
from worker.settings import Limits, Queue, Replies, Site

TWO = replace(SPEC, outputs={"Model 0": "00_Model_0", 'Näme "1"': "01_N"})


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptFolder:
    attempt = AttemptFolder(tmp_path / "1", 1)
    paths.make_folder(attempt.work / "outputs")
    return attempt


def site(output_bytes: int = 10**9, max_bytes: int = 10**9) -> Site:
    return Site(
        (Queue("jobs", "copy"),), {}, limits=Limits(output_bytes=output_bytes), replies=Replies(max_bytes=max_bytes)
    )


def put(attempt: AttemptFolder, **files: bytes) -> Path:
    outputs = attempt.work / "outputs"
    for name, content in files.items():
        (outputs / name).write_bytes(content)
    return outputs


def body(attempt: AttemptFolder, spec: JobSpec = TWO, where: Site = site()) -> bytes:  # noqa: B008  # frozen
    packed = pack(spec, attempt.work / "outputs", attempt, where)
    return attempt.reply_body(packed.stem).read_bytes()


def refusal(attempt: AttemptFolder, spec: JobSpec = SPEC, where: Site = site()) -> str:  # noqa: B008  # frozen
    """The sentence; and nothing of the reply stays behind."""
    with pytest.raises(StepFailed) as failed:
        pack(spec, attempt.work / "outputs", attempt, where)
    assert failed.value.step == "pack"
    assert [path.name for path in attempt.path.iterdir()] == ["work"]
    return failed.value.reason


def test_the_reply_is_json_of_base64(attempt: AttemptFolder) -> None:
    put(attempt, **{"00_Model_0": b"one", "01_N": b"\0\xff"})

    assert json.loads(body(attempt)) == {"Model 0": "b25l", 'Näme "1"': "AP8="}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1, 2 * 3 * 2**18 + 5])
def test_pieces_join_without_a_seam(attempt: AttemptFolder, size: int) -> None:
    content = os.urandom(size)
    put(attempt, **{"00_Copy.png": content})

    packed = pack(SPEC, attempt.work / "outputs", attempt, site())

    reply = json.loads(attempt.reply_body(packed.stem).read_bytes())
    assert base64.b64decode(reply["Copy"], validate=True) == content
    assert packed.outputs == {"Copy": Output(size, hashlib.sha256(content).hexdigest())}


def test_no_outputs_are_an_empty_object(attempt: AttemptFolder) -> None:
    assert json.loads(body(attempt, replace(SPEC, outputs={}))) == {}


@given(st.dictionaries(st.text(), st.just("x"), max_size=4))
def test_any_name_is_escaped(names: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        attempt = AttemptFolder(Path(place, "1"), 1)
        paths.make_folder(attempt.work / "outputs")
        put(attempt, x=b"?")
        assert set(json.loads(body(attempt, replace(SPEC, outputs=names)))) == set(names)


def test_the_reply_is_for_our_eyes_only(attempt: AttemptFolder) -> None:
    put(attempt, **{"00_Copy.png": b"x"})

    packed = pack(SPEC, attempt.work / "outputs", attempt, site())

    assert attempt.reply_body(packed.stem).stat().st_mode & 0o777 == 0o600


def test_two_packings_do_not_meet(attempt: AttemptFolder) -> None:
    outputs = put(attempt, **{"00_Copy.png": b"x"})

    assert pack(SPEC, outputs, attempt, site()).stem != pack(SPEC, outputs, attempt, site()).stem


def test_an_output_that_is_missing_is_named(attempt: AttemptFolder) -> None:
    assert refusal(attempt) == 'The program did not make the output "Copy".'


def test_a_second_output_that_is_missing_leaves_nothing_of_the_first(attempt: AttemptFolder) -> None:
    put(attempt, **{"00_Model_0": b"one"})

    assert "did not make" in refusal(attempt, TWO)


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "fifo", "folder", "socket"])
def test_what_is_no_plain_file_is_refused(
    attempt: AttemptFolder, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("canary")
    path = attempt.work / "outputs" / "00_Copy.png"
    monkeypatch.chdir(path.parent)  # the name of a socket has to be short
    if "symlink" in kind:
        path.symlink_to(tmp_path / ("secret" if kind == "symlink" else "gone"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)

    assert refusal(attempt) == 'The output "Copy" is not a plain file.'


def test_a_folder_of_outputs_that_was_replaced_by_a_link_is_not_followed(
    attempt: AttemptFolder, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "00_Copy.png").write_text("canary")
    (attempt.work / "outputs").rmdir()
    (attempt.work / "outputs").symlink_to(tmp_path / "elsewhere")

    assert refusal(attempt) == 'The output "Copy" is not a plain file.'


@pytest.mark.parametrize("elsewhere", ["work/inputs/00_Image", "credentials.env", "work/outputs-of-ours/x"])
def test_a_hard_link_out_of_the_outputs_is_refused(attempt: AttemptFolder, elsewhere: str) -> None:
    theirs = attempt.path / "work" / "more" / elsewhere
    theirs.parent.mkdir(parents=True)
    theirs.write_text("canary")
    os.link(theirs, attempt.work / "outputs" / "00_Copy.png")

    assert refusal(attempt) == (
        'The output "Copy" is a hard link to a file outside of the outputs. The program must copy it.'
    )


def test_a_hard_link_out_of_the_outputs_is_refused_however_many_names_are_inside(attempt: AttemptFolder) -> None:
    outputs = put(attempt, **{"00_Copy.png": b"canary"})
    for place in (outputs / "b", outputs / "c", attempt.work / "outside"):
        os.link(outputs / "00_Copy.png", place)

    assert "is a hard link" in refusal(attempt)


def test_two_outputs_may_be_one_file_and_so_may_a_file_beside_them(attempt: AttemptFolder) -> None:
    outputs = put(attempt, **{"00_Model_0": b"one"})
    (outputs / "more").mkdir()
    os.link(outputs / "00_Model_0", outputs / "01_N")
    os.link(outputs / "00_Model_0", outputs / "more" / "copy")

    assert json.loads(body(attempt)) == {"Model 0": "b25l", 'Näme "1"': "b25l"}


def test_a_file_that_still_grows_is_packed_as_it_was_found(
    attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(attempt, **{"00_Copy.png": b"abc"}) / "00_Copy.png"
    fstat = os.fstat

    def fstat_and_grow(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        with path.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(os, "fstat", fstat_and_grow)
    packed = pack(SPEC, path.parent, attempt, site())

    grown_once = base64.b64encode(b"abcmore").decode()
    assert json.loads(attempt.reply_body(packed.stem).read_bytes()) == {"Copy": grown_once}
    assert packed.outputs["Copy"].size == 7


def test_a_file_that_shrinks_is_refused(attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(attempt, **{"00_Copy.png": b"x" * 10**6}) / "00_Copy.png"
    fstat = os.fstat

    def fstat_and_shrink(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        os.truncate(path, found.st_size // 2)
        return found

    monkeypatch.setattr(os, "fstat", fstat_and_shrink)

    assert refusal(attempt) == 'The output "Copy" shrank while it was read.'


def test_outputs_together_have_a_limit(attempt: AttemptFolder) -> None:
    put(attempt, **{"00_Model_0": b"x" * 60, "01_N": b"x" * 41})

    assert refusal(attempt, TWO, site(output_bytes=100)) == (
        "The outputs are too large to be sent back: they make 101 bytes, and at most 100 are allowed."
    )
    assert len(body(attempt, TWO, site(output_bytes=101))) > 101


def test_the_reply_has_a_limit_of_its_own(attempt: AttemptFolder) -> None:
    put(attempt, **{"00_Copy.png": b"x" * 100})
    size = len(body(attempt, SPEC))
    for left in attempt.path.glob("reply-*"):
        left.unlink()

    assert f"at most {size - 1} are" in refusal(attempt, SPEC, site(max_bytes=size - 1))
    assert len(body(attempt, SPEC, site(max_bytes=size))) == size


def test_what_the_broker_said_it_takes_is_a_limit_too(attempt: AttemptFolder) -> None:
    where = replace(site(), jobs_dir=attempt.path.parent / "jobs")
    paths.make_folder(where.jobs_dir)
    largest_answer_of(JobsFolder(where.jobs_dir)).write(LargestAnswer(2 * 2**20, time.time()))
    put(attempt, **{"00_Copy.png": b"x" * (2 * 2**20)})

    assert "at most 2097152 are" in refusal(attempt, SPEC, where)
    assert body(attempt, SPEC, site())


def test_a_file_with_a_hole_of_any_size_is_refused_before_it_is_read(attempt: AttemptFolder) -> None:
    with (attempt.work / "outputs" / "00_Copy.png").open("wb") as file:
        file.truncate(2**40)

    assert "too large" in refusal(attempt)


def test_memory_does_not_grow_with_the_outputs(attempt: AttemptFolder) -> None:
    with (attempt.work / "outputs" / "00_Copy.png").open("wb") as file:
        file.truncate(40 * 2**20)

    assert most_memory(pack_it, str(attempt.path)) < 6 * 2**20


def pack_it(folder: str) -> None:
    attempt = AttemptFolder(Path(folder), 1)
    pack(SPEC, attempt.work / "outputs", attempt, site())


# --- folders

FOLDER = replace(SPEC, outputs={"Results": "00_Results"}, folders=("Results",))


def zipped(attempt: AttemptFolder) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(json.loads(body(attempt, FOLDER))["Results"], validate=True)))


@pytest.fixture
def results(attempt: AttemptFolder) -> Path:
    folder = attempt.work / "outputs" / "00_Results"
    (folder / "deep" / "empty").mkdir(parents=True)
    return folder


def test_a_folder_goes_home_as_one_zip(attempt: AttemptFolder, results: Path) -> None:
    contents = {"a.txt": b"a" * 5000, "deep/b.png": os.urandom(3 * 2**20), "deep/n\u00e4me": b""}
    for name, content in contents.items():
        (results / name).write_bytes(content)
    os.utime(results / "a.txt", (0, 0))  # a zip's times begin in 1980

    packed = zipped(attempt)

    assert packed.testzip() is None
    assert packed.namelist() == ["a.txt", "deep/", "deep/b.png", "deep/empty/", "deep/n\u00e4me"]
    assert {name: packed.read(name) for name in contents} == contents


def test_the_type_of_an_output_is_told_to_who_says_what_it_can_take(attempt: AttemptFolder, results: Path) -> None:
    asking = replace(FOLDER, accept=("inline",))

    typed = pack(asking, results.parent, attempt, site()).outputs["Results"].type
    assert (typed, pack(FOLDER, results.parent, attempt, site()).outputs["Results"].type) == ("application/zip", "")


def test_no_name_in_a_zip_leads_elsewhere_or_is_there_twice(attempt: AttemptFolder, results: Path) -> None:
    for number, name in enumerate([b"..\\x", b".._x", b"a\xff", b"a\nb", b"C:x"]):
        (Path(os.fsdecode(os.path.join(os.fsencode(results), name)))).write_bytes(b"%d" % number)

    packed = zipped(attempt)

    assert sorted(packed.namelist()) == [".._x", ".._x~2", "C_x", "a_", "a_b", "deep/", "deep/empty/"]
    assert sorted(packed.read(name) for name in packed.namelist() if not name.endswith("/")) == [
        b"0", b"1", b"2", b"3", b"4",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["link", "fifo", "hard link"])
def test_what_is_no_plain_file_is_refused_in_a_folder_too(
    attempt: AttemptFolder, results: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "secret").write_text("canary")
    path = results / "deep" / "x"
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.link(tmp_path / "secret", path)

    said = {"hard link": "a hard link to a file outside of the outputs. The program must copy it."}
    assert refusal(attempt, FOLDER) == (
        f'The output "Results" holds "x", {said.get(kind, "which is not a plain file.")}'
    )


def test_a_file_in_place_of_a_folder_is_named(attempt: AttemptFolder) -> None:
    assert refusal(attempt, FOLDER) == 'The program did not make the output "Results".'
    put(attempt, **{"00_Results": b"x"})
    assert refusal(attempt, FOLDER) == 'The output "Results" is not a folder.'


def test_a_folder_counts_with_all_that_is_in_it_before_any_is_read(attempt: AttemptFolder, results: Path) -> None:
    with (results / "deep" / "hole").open("wb") as file:
        file.truncate(2**40)

    assert f"they make {2**40} bytes" in refusal(attempt, FOLDER)


def test_memory_does_not_grow_with_a_folder(attempt: AttemptFolder, results: Path) -> None:
    with (results / "hole").open("wb") as file:
        file.truncate(40 * 2**20)

    assert most_memory(pack_folder, str(attempt.path)) < 6 * 2**20


def pack_folder(folder: str) -> None:
    attempt = AttemptFolder(Path(folder), 1)
    pack(FOLDER, attempt.work / "outputs", attempt, site())
