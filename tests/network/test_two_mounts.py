"""A pilots' fence and a look anew where they are needed: on file systems that two hosts see differently for a while."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing_told
from tests.services.late_files import LateFiles
from tests.services.two_hosts import JuiceFs, NfsGuest

_SCRIPT = [sys.executable, "-m", "tests.network.two_mounts"]


@pytest.fixture(scope="module")
def guest(pytestconfig: pytest.Config) -> Iterator[NfsGuest]:
    with missing_told(pytestconfig), NfsGuest() as guest:
        yield guest


@pytest.fixture
def juicefs(pytestconfig: pytest.Config) -> Iterator[JuiceFs]:
    with missing_told(pytestconfig), JuiceFs() as volume:
        yield volume


def seen_by(code: int, printed: str) -> dict[str, Any]:
    """What the two hosts saw, where all promises were kept."""
    told = json.loads(printed.splitlines()[-1])
    assert (code, told["broken"]) == (0, []), printed
    print(json.dumps(told["seen"], indent=1))
    seen: dict[str, Any] = told["seen"]
    return seen


def here(node: Path, login: Path) -> dict[str, Any]:
    done = subprocess.run([*_SCRIPT, str(node), str(login)], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return seen_by(done.returncode, done.stdout)


@pytest.mark.network
@pytest.mark.parametrize("version", NfsGuest.mounts)
def test_on_nfs_nobody_sends_what_was_taken_away_and_a_look_anew_shows_what_there_is(
    guest: NfsGuest, version: str
) -> None:
    seen = seen_by(*guest.run([*_SCRIPT, *guest.mounts[version]]))

    assert seen["the old path opens"] is True
    assert version != "3" or seen["hidden at first, of 50"] > 0


@pytest.mark.network
def test_on_juicefs_nobody_sends_what_was_taken_away_though_it_still_looks_his(juicefs: JuiceFs) -> None:
    seen = here(juicefs.node, juicefs.login)

    assert seen["the old path opens"] is True and seen["and looks ours by way of its parent"] is True


@pytest.mark.unhurried
@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="names that were looked for stay hidden", moment="while a pilot's batch is taken away")
def test_where_names_stay_hidden_until_their_folder_changes_a_look_anew_shows_them(late_files: LateFiles) -> None:
    late_files.late(until_changed=True)

    seen = here(late_files.compute, late_files.login)

    assert seen["hidden at first, of 50"] == 50
