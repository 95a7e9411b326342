"""Gives tests their real services: started once per run, by a process of its own, and only those that are asked for."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pika
import pytest

from tests.scene import Scene, make_scene
from tests.services.broker import Broker, rabbitmq_in
from tests.services.certificates import Certificates, make_certificates
from tests.services.daemon import Daemon
from tests.services.fate import await_fate
from tests.services.late_files import LateFiles
from tests.services.present import ServiceMissing
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

_SHARED = {"rabbitmq", "slurm"}
_PRIVATE = {"private_rabbitmq", "private_slurm"}
_START_SECONDS = 600.0
_NOT_RUN = "NOT RUN: "
_EXIT_NOT_RUN = 3
# How the first process of a run tells the workers of pytest-xdist where the services are, and whose they are.
_FOLDER, _OWNER = "BATCHFERRY_TEST_SERVICES", "BATCHFERRY_TEST_OWNER"
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ci", action="store_true", help="a service that can't be had is a failure")


# A busy machine is no fault of the code: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
pika.connection.Parameters.DEFAULT_SOCKET_TIMEOUT = pika.connection.Parameters.DEFAULT_STACK_TIMEOUT = 120.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "workload: needs the environment of a workload; ./run_tests makes it")
    config.addinivalue_line("markers", "services: needs real RabbitMQ or Slurm; put on by itself")
    config.addinivalue_line("markers", "fault(what, moment): shows what comes of this fault at this moment")
    config.addinivalue_line("markers", "slow: left out of the default run")
    config.addinivalue_line("markers", "training: trains a network, so it needs TensorFlow; ./run_tests --training")
    config.addinivalue_line("markers", "network: needs a network file system with two mounts; ./run_tests --network")
    config.addinivalue_line("markers", "unhurried: needs no services, and is left out of --fast all the same")
    config.addinivalue_line("markers", "on_disk: not in memory, because the doctor would name that")
    config.addinivalue_line("markers", "long(seconds): takes that long, so it starts first")
    if not _is_worker(config):
        # A user's home may have a space and a quote in its name; so has every tmp_path.
        root = _roomy_place() / "batch'ferry tests"
        root.mkdir(exist_ok=True)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(root))
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="services-", dir=root)
        os.environ[_OWNER] = str(os.getpid())


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        if _fixtures(item) & (_SHARED | _PRIVATE):
            item.add_marker("services")
    yield  # here -m looks at the markers
    items[:] = _long_first(items, _worker_count(config))


def _long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """--dist=worksteal gives each worker one stretch of the list: this order begins each stretch with long tests."""
    long = sorted((item for item in items if _seconds(item)), key=_seconds, reverse=True)
    other = [item for item in items if not _seconds(item)]
    order: list[pytest.Item] = []
    for worker in range(workers):
        stretch = (len(items) - len(order)) // (workers - worker)
        mine = long[worker::workers]
        rest = max(0, stretch - len(mine))
        order += mine + other[:rest]
        del other[:rest]
    return order + other


def _seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("long")
    return float(mark.kwargs["seconds"]) if mark else 0.0


def _roomy_place() -> Path:
    """Thousands of syncs cost a disk ten times what the tests themselves take, and nobody pulls the plug here: so in memory,
    where there is plenty, unless TMPDIR says where."""
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return Path(tempfile.gettempdir())
    room = os.statvfs(memory)
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    enough = min(available, room.f_bavail * room.f_frsize) >= 8 * 2**30
    return memory if enough else Path(tempfile.gettempdir())


def pytest_collection_finish(session: pytest.Session) -> None:
    used = {name for item in session.items for name in _fixtures(item)}
    if used & (_SHARED | _PRIVATE) and not session.config.option.collectonly:
        _start_once(sorted(used & _SHARED))


def _start_once(wanted: list[str]) -> None:
    """All workers come here; the first one starts the services, and nobody waits yet."""
    try:
        (_folder() / "asked").mkdir()
    except FileExistsError:
        return
    _keeper(wanted).start()


def _keeper(wanted: list[str]) -> Daemon:
    argv = [sys.executable, "-m", "tests.services", str(_folder()), "--owner", os.environ[_OWNER], "--only", *wanted]
    root = str(Path(__file__).parent.parent)
    return Daemon("keeper", argv, _folder(), {**os.environ, "PYTHONPATH": root})


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not _is_worker(session.config) and exitstatus == pytest.ExitCode.OK and _not_run_reasons(session.config):
        session.exitstatus = _EXIT_NOT_RUN
    session.config.stash[_FAILED] = exitstatus == pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    reasons = _not_run_reasons(config)
    for reason in sorted(set(reasons)):
        terminalreporter.write_line(f"{reason} ({reasons.count(reason)} tests)", red=True)
    if (_folder() / "asked").exists() and exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.write_line(f"The services' logs: {_folder()}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _is_worker(config) or _FOLDER not in os.environ:
        return
    _keeper([]).stop(patience=60.0)
    if not config.stash.get(_FAILED, False):
        shutil.rmtree(_folder(), ignore_errors=True)


def _not_run_reasons(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    texts = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    return [text[text.index(_NOT_RUN) :] for text in texts if _NOT_RUN in text]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _worker_count(config: pytest.Config) -> int:
    return int(config.workerinput["workercount"]) if hasattr(config, "workerinput") else 1


def _fixtures(item: pytest.Item) -> set[str]:
    """Also those that a parameter names and a fixture asks for by that name. Not those that only an overridden fixture of
    the same name asks for: pytest does not count them, so the overriding one has to ask for them too."""
    if not isinstance(item, pytest.Function):
        return set()
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return set(item.fixturenames) | {value for value in parameters if isinstance(value, str)}


def _folder() -> Path:
    return Path(os.environ[_FOLDER])


def _can_not_run(config: pytest.Config, why: str) -> None:
    """Ends the test. Elsewhere than in CI it is not a failure, but it is told, and the run's exit status is 3."""
    if config.getoption("ci"):
        pytest.fail(f"In CI every service must be there. {why}", pytrace=False)
    pytest.skip(_NOT_RUN + why)


def _await_shared(config: pytest.Config, service: str) -> Path:
    fate = await_fate(_folder(), service, _START_SECONDS)
    if fate.kind == "missing":
        _can_not_run(config, fate.why)
    if fate.kind == "failed":
        pytest.fail(f"{service} did not start. {fate.why}", pytrace=False)
    return _folder() / service


@contextmanager
def missing_told(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except ServiceMissing as missing:
        _can_not_run(config, str(missing))


@contextmanager
def _noted(service: str, home: Path) -> Iterator[None]:
    """While a test has a service of its own, the keeper knows of it: should the test be ended, the keeper stops it."""
    note = _folder() / "private" / f"{service}.{os.getpid()}"
    note.parent.mkdir(exist_ok=True)
    note.write_text(str(home))
    yield
    note.unlink()


@pytest.fixture(scope="session")
def rabbitmq(pytestconfig: pytest.Config) -> Broker:
    """The run's broker. Others use it too: use queues of your own, and don't stop it."""
    return rabbitmq_in(_await_shared(pytestconfig, "rabbitmq"))


@pytest.fixture(scope="session")
def slurm(pytestconfig: pytest.Config) -> SlurmCluster:
    """The run's cluster. Others use it too: kill no node but n3 (partition `doomed`), and bring it back."""
    return SlurmCluster(_await_shared(pytestconfig, "slurm"))


@pytest.fixture
def private_rabbitmq(pytestconfig: pytest.Config, tmp_path: Path, certificates: Certificates) -> Iterator[RabbitMQ]:
    """A broker for this test alone, to be stopped, killed and frozen at will, with TLS too (`certificates`); 5 s."""
    with _noted("rabbitmq", tmp_path / "rabbitmq"), missing_told(pytestconfig):
        with RabbitMQ(tmp_path / "rabbitmq", certificates) as broker:
            yield broker


@pytest.fixture
def private_slurm(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[SlurmCluster]:
    """A cluster for this test alone, whose daemons may be stopped at will; 3 s."""
    with _noted("slurm", tmp_path / "slurm"), missing_told(pytestconfig):
        with SlurmCluster(tmp_path / "slurm") as cluster:
            yield cluster


@pytest.fixture
def scene(rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    """An installation of this test's own, on the run's services: only its own jobs and partitions may be steered."""
    made = make_scene(odd_folder, rabbitmq, slurm, upstream)
    yield made
    made.requester.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """The sample service over HTTP, for this test alone."""
    with Upstream() as service:
        yield service


@pytest.fixture
def upstream_tls(certificates: Certificates) -> Iterator[Upstream]:
    """The sample service over HTTPS; its CA is `certificates.ca`."""
    with Upstream(tls=certificates) as service:
        yield service


@pytest.fixture
def late_files(pytestconfig: pytest.Config, odd_folder: Path) -> Iterator[LateFiles]:
    """A file system that a login host and a compute host see differently for a while."""
    with missing_told(pytestconfig), LateFiles(odd_folder / "late") as files:
        yield files


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """pytest's own, but on a disk for who asks for that."""
    if request.node.get_closest_marker("on_disk") is None:
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(prefix="batch'ferry tests "))
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A folder whose name does harm where a name is taken for code."""
    folder = tmp_path / 'a\'; echo "$HOME" & %j #'
    folder.mkdir()
    return folder
