"""The ids of all jobs that pilots have done: found again, in few files, whatever happened to a merge."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from worker.login.ids import Ids


def some(count: int) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


def test_what_was_added_is_known_and_nothing_else(tmp_path: Path) -> None:
    ours, theirs = some(100), some(100)

    Ids(tmp_path / "ids").add(ours)

    assert Ids(tmp_path / "ids").known([*ours, *theirs]) == set(ours)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=60), st.binary(min_size=16, max_size=16))
def test_an_id_is_known_if_and_only_if_it_was_added(added: list[bytes], asked: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        ids = Ids(Path(name) / "ids")
        for each in added:
            ids.add([each.hex()])

        assert ids.known([asked.hex()]) == ({asked.hex()} if asked in added else set())


def test_many_additions_leave_few_files(tmp_path: Path) -> None:
    ids, batches = Ids(tmp_path / "ids"), [some(250) for _ in range(200)]

    for batch in batches:
        ids.add(batch)

    assert len(os.listdir(tmp_path / "ids")) <= 7 * 4
    assert all(Ids(tmp_path / "ids").known(batch) == set(batch) for batch in batches[::20])


def test_a_merge_that_was_cut_off_changes_nothing(tmp_path: Path) -> None:
    ids, ours = Ids(tmp_path / "ids"), some(10)
    ids.add(ours)
    (twin,) = (tmp_path / "ids").iterdir()
    twin.with_name("20200101000000-00000000.ids").write_bytes(twin.read_bytes())

    assert Ids(tmp_path / "ids").known(ours) == set(ours)


def test_files_whose_newest_id_is_old_are_forgotten(tmp_path: Path) -> None:
    ids, old, new = Ids(tmp_path / "ids"), some(5), some(5)
    ids.add(old)
    (file,) = (tmp_path / "ids").iterdir()
    os.utime(file, (1000, 1000))
    ids.add(new)

    ids.forget_before(2000)

    assert ids.known([*old, *new]) == set(new) == Ids(tmp_path / "ids").known([*old, *new])
