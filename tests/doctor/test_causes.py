"""Whatever keeps us from a server is told alike by a pass, by a job and by the doctor: host, port, cause, and what to do."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Optional

import pika
import pytest

from tests.worker.examples import config_for
from worker import amqp
from worker.amqp import Connection
from worker.api import Api
from worker.doctor import broker, disk, network, service
from worker.doctor.report import FAULT, Report
from worker.doctor.subject import Subject
from worker.errors import Transient
from worker.folder.jobs import JobsFolder
from worker.login import lease
from worker.login.guard import guarded_pass
from worker.settings import ApiSettings, Config, Seconds, SlurmSettings

SHORT = 0.5
"""Seconds of patience with who says nothing."""


@dataclass
class Place:
    """Where somebody listens, or nobody does. `ca_file`: whom to trust there."""

    port: int
    tls: bool = False
    ca_file: str = ""
    host: str = "127.0.0.1"


@contextlib.contextmanager
def listening(speak: Callable[[socket.socket], object]) -> Iterator[int]:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if speak(connection) is None:
                over.wait(60)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)


def hang_up(connection: socket.socket) -> bool:
    return bool(connection.recv(4)) or True


def speak_plainly(connection: socket.socket) -> bool:
    connection.recv(8)
    connection.sendall(b"AMQP\0\0\x09\x01")
    connection.recv(4096)
    return True


def speak_ssh(connection: socket.socket) -> bool:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    connection.recv(4096)
    return True


@contextlib.contextmanager
def nobody(_: Path) -> Iterator[Place]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Place(bound.getsockname()[1])


@contextlib.contextmanager
def unknown_name(_: Path) -> Iterator[Place]:
    yield Place(5672, host="nowhere.invalid")


@contextlib.contextmanager
def black_hole(_: Path) -> Iterator[Place]:
    """A queue of connections that is full: the kernel drops what comes."""
    with contextlib.ExitStack() as held, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _each in range(4):
            each = held.enter_context(socket.socket())
            each.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                each.connect(server.getsockname())
        yield Place(server.getsockname()[1])


@contextlib.contextmanager
def who(_: Path, speak: Callable[[socket.socket], object] = lambda _: None, tls: bool = False) -> Iterator[Place]:
    with listening(speak) as port:
        yield Place(port, tls)


@contextlib.contextmanager
def certified(folder: Path, name: str = "127.0.0.1", days: int = 30, trusted: bool = True) -> Iterator[Place]:
    import trustme

    authority, end = trustme.CA(), datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    leaf = authority.issue_cert(name, not_before=end - datetime.timedelta(days=400), not_after=end)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    with listening(lambda connection: context.wrap_socket(connection, server_side=True).recv(1)) as port:
        yield Place(port, True, str(folder / "ca.pem") if trusted else "")


@contextlib.contextmanager
def no_certificates(folder: Path) -> Iterator[Place]:
    with listening(lambda _: None) as port:
        yield Place(port, True, str(folder / "not there.pem"))


Where = Callable[[Path], contextlib.AbstractContextManager[Place]]
CAUSES: dict[str, tuple[Where, str, str]] = {
    "closed port": (nobody, "can't be reached (connection refused)", "ask whether it is up"),
    "unknown name": (unknown_name, "can't be reached (its name can't be found", "may resolve that name"),
    "black hole": (black_hole, "can't be reached (no answer to a connection", "no firewall stands between"),
    "no TLS": (partial(who, speak=speak_plainly, tls=True), "speaks no TLS there", "in credentials.env"),
    "silent TLS": (partial(who, tls=True), "takes the connection and says nothing", "in credentials.env"),
    "another name": (partial(certified, name="other.example.org"), "its certificate is for another name than 127.0.0.1",
                     "Write the name in its certificate into"),
    "expired": (partial(certified, days=-1), "its certificate has expired", "to renew it"),
    "not yet valid": (partial(certified, days=500), "its certificate is not valid yet", "run `date`"),
    "unknown authority": (partial(certified, trusted=False), "its certificate is not trusted here", "Set ca_file"),
    "no ca_file": (no_certificates, "not there.pem can't be used (no such file", "Set ca_file"),
}  # fmt: skip
OF_THE_BROKER: dict[str, tuple[Where, str, str]] = {
    "silent broker": (who, "takes the connection and says nothing", "Is RABBITMQ_PORT in credentials.env the broker's port"),
    "another protocol": (partial(who, speak=hang_up), "hung up without an answer", "Set RABBITMQ_TLS=true"),
}  # fmt: skip
OF_THE_API: dict[str, tuple[Where, str, str]] = {
    "hangs up": (partial(who, speak=hang_up), "hung up without an answer", "Write https:// in API_URL"),
    "no HTTP": (partial(who, speak=speak_ssh), "speaks no HTTP there", "Is API_URL in credentials.env right"),
    "silent API": (who, f"gave no answer for {SHORT:g} s", "Is API_URL in credentials.env right"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    made = amqp.parameters

    def parameters(*given: object) -> pika.ConnectionParameters:
        found = made(*given)  # type: ignore[arg-type]
        found.socket_timeout, found.stack_timeout = SHORT, 2 * SHORT
        return found

    monkeypatch.setattr(amqp, "parameters", parameters)
    monkeypatch.setattr(network, "_SECONDS", SHORT)


def config_of(folder: Path, place: Place) -> Config:
    api = ApiSettings(connect_timeout=Seconds(SHORT), read_timeout=Seconds(SHORT))
    url = f"{'https' if place.tls else 'http'}://{place.host}:{place.port}"
    config = config_for(folder, url, changes={"ca_file": place.ca_file, "api": api})
    credentials = replace(
        config.credentials, rabbitmq_host=place.host, rabbitmq_port=place.port, rabbitmq_tls=place.tls
    )
    return replace(config, credentials=credentials)


def words_of(work: Callable[[], object]) -> str:
    """What a pass or a job writes into its log."""
    with pytest.raises(Transient) as fault:
        work()
    return str(fault.value)


def doctor_s(look: Callable[[Report, Subject], None], config: Config) -> str:
    report = Report("group")
    look(report, Subject(config.root, config.site_file, config.credentials_file, config.site, config.credentials))
    (fault,) = [each for each in report.findings if each.mark == FAULT]
    return f"{fault.found}. {fault.mend}"


def check(place: Optional[Place], whom: str, told: str, found: str, fix: str, doctor: str) -> None:
    assert place is not None
    if "not there.pem" not in found:
        assert told.startswith(f"{whom} at {place.host}:{place.port} ")
    assert found in told and fix in told and not re.search(r"Error\b|\(<|errno|AF_INET", told), told
    assert doctor == f"{told}."


@pytest.mark.parametrize("cause", [*CAUSES, *OF_THE_BROKER])
def test_what_is_wrong_with_the_way_to_the_broker_is_told_alike(cause: str, tmp_path: Path) -> None:
    where, found, fix = {**CAUSES, **OF_THE_BROKER}[cause]
    with where(tmp_path) as place:
        config = config_of(tmp_path, place)

        of_a_pass = words_of(lambda: Connection(config.credentials, config.ca_file).open())
        of_the_doctor = doctor_s(broker.look_at_broker, config)

    check(place, "the broker", of_a_pass, found, fix, of_the_doctor)


@pytest.mark.parametrize("cause", [*CAUSES, *OF_THE_API])
def test_what_is_wrong_with_the_way_to_the_api_is_told_alike(cause: str, tmp_path: Path) -> None:
    where, found, fix = {**CAUSES, **OF_THE_API}[cause]
    with where(tmp_path) as place:
        config = config_of(tmp_path, place)

        of_a_pass = words_of(Api(config).authenticate)
        of_the_doctor = doctor_s(service.look_at_api, config)

    check(place, "the API", of_a_pass, found, fix, of_the_doctor)


@pytest.mark.parametrize(("code", "fix"), [
    (errno.ENOSPC, "Make room there"), (errno.EDQUOT, "our quota there is used up"), (errno.EROFS, "mounted read-only"),
    (errno.EACCES, "chmod u+rwx"), (errno.EIO, "Does its server answer"), (errno.ESTALE, "Does its server answer"),
])  # fmt: skip
def test_what_is_wrong_with_the_disk_is_told_alike(
    code: int, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(tmp_path, changes={"slurm": SlurmSettings()})
    jobs = JobsFolder(config.site.jobs_dir)
    jobs.prepare()
    error = OSError(code, os.strerror(code), str(jobs.path))

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(lease, "hold", fail)
    monkeypatch.setattr(disk, "own_folder", fail)

    assert guarded_pass(config, drain=False) == os.EX_CANTCREAT
    of_the_doctor = doctor_s(disk.look_at_jobs_folder, config)

    assert fix in of_the_doctor and of_the_doctor[:-1] in caplog.text.replace("\\'", "'"), caplog.text
