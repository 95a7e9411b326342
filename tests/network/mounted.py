"""A plugin of pytest for the place where the mounts are, if that is another kernel: the tests run there as they are.

    python -m pytest --noconftest -p tests.network.mounted --mounts PLACE NODE LOGIN --told FILE TEST ...

FILE gets a JSON object: for each test what it failed with, or "".
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.network.hosts import Hosts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mounts", nargs=3)
    parser.addoption("--told", type=Path)


def pytest_configure(config: pytest.Config) -> None:
    for name in ("fault(what, moment)", "long(seconds)"):
        config.addinivalue_line("markers", name)


_FAILED = dict[str, str]()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _FAILED[report.nodeid] = _FAILED.get(report.nodeid, "") + ("" if report.passed else report.longreprtext)


def pytest_sessionfinish(session: pytest.Session) -> None:
    told: Path = session.config.getoption("told")
    told.write_text(json.dumps(_FAILED))


@pytest.fixture
def hosts(pytestconfig: pytest.Config) -> Hosts:
    place, node, login = pytestconfig.getoption("mounts")
    return Hosts(place, Path(node), Path(login))
