"""Where the tests of this folder run: always on the file system made for tests, and with --network on real ones."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Callable, Optional, Union

import pytest

from tests.conftest import missing_told
from tests.installation import ROOT
from tests.network.hosts import TRAITS, Hosts
from tests.services.late_files import LateFiles
from tests.services.two_hosts import JuiceFs, NfsGuest


@dataclass(frozen=True)
class Elsewhere:
    """Hosts whose mounts only the guest's kernel has, so their tests run there."""

    place: str
    failed: Mapping[str, str]
    """What each test said there; "" of one that passed."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Optional[bool]:
    hosts = pyfuncitem.funcargs.get("hosts")
    if not isinstance(hosts, Elsewhere):
        return None
    if hosts.failed[_there(pyfuncitem)]:
        pytest.fail(f"On {hosts.place}: {hosts.failed[_there(pyfuncitem)]}", pytrace=False)
    return True


def _there(test: pytest.Function) -> str:
    """Its name where there is one place only."""
    return f"{test.path.relative_to(ROOT).as_posix()}::{test.originalname}"


@pytest.fixture(scope="session")
def guest(pytestconfig: pytest.Config) -> Iterator[NfsGuest]:
    with missing_told(pytestconfig), NfsGuest() as guest:
        yield guest


@pytest.fixture(scope="session")
def tried_on_nfs(request: pytest.FixtureRequest, guest: NfsGuest) -> Callable[[str], Elsewhere]:
    """All tests of this run that want this version, together: a Python takes seconds to begin there."""

    @functools.cache
    def tried(version: str) -> Elsewhere:
        place, told = f"nfs-{version}", guest.folder / f"told-{version}.json"
        wanted = [test for test in request.session.items if isinstance(test, pytest.Function) and _place(test) == place]
        pytest_there = [sys.executable, "-m", "pytest", "--noconftest", "-p", "tests.network.mounted"]
        without = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
        mounts = ["--mounts", place, *guest.mounts[version], "--told", str(told)]
        _, printed = guest.run([*pytest_there, *without, *mounts, *map(_there, wanted)])
        assert told.exists(), printed
        return Elsewhere(place, json.loads(told.read_text()))

    return tried


def _place(test: pytest.Function) -> str:
    return str(test.callspec.params.get("hosts")) if hasattr(test, "callspec") else ""


@pytest.fixture(scope="session")
def juicefs(pytestconfig: pytest.Config) -> Iterator[JuiceFs]:
    with missing_told(pytestconfig), JuiceFs() as volume:
        yield volume


@pytest.fixture(params=[
    pytest.param(place, marks=pytest.mark.unhurried if place == "late" else pytest.mark.network) for place in TRAITS
])  # fmt: skip
def hosts(request: pytest.FixtureRequest) -> Union[Hosts, Elsewhere]:
    place: str = request.param
    if place.startswith("nfs-"):
        elsewhere: Elsewhere = request.getfixturevalue("tried_on_nfs")(place[len("nfs-") :])
        return elsewhere
    if place == "juicefs":
        volume: JuiceFs = request.getfixturevalue("juicefs")
        return Hosts(place, volume.node, volume.login)
    files: LateFiles = request.getfixturevalue("late_files")
    files.late(until_changed=True, old_names=1000)
    return Hosts(place, files.compute, files.login)
