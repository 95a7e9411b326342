"""The doctor's own way to a server is bounded, wherever somebody hangs or drips, and it says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.amqp import management
from worker.amqp.management import Management
from worker.causes import Server
from worker.doctor import network
from worker.doctor.network import reach
from worker.doctor.report import Report
from worker.settings import Credentials, Secret

LONG = 300.0


@pytest.fixture
def over() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_name_server_that_hangs_is_a_line_of_the_report(
    over: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(LONG) and [])
    monkeypatch.setattr(network, "_SECONDS", 0.1)
    report = Report("API")

    assert not reach(report, Server("the API", "api.example.org", 443, True, "API_URL", ""), None)

    (finding,) = report.findings
    assert (finding.check, finding.mark) == ("address", "fault")
    assert (
        finding.found
        == "the API at api.example.org:443 can't be reached (its name was not found: no answer within 0.1 s)"
    )


def test_a_name_that_is_looked_up_once_more_to_connect_may_not_hang_either(
    over: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo("127.0.0.1", 1, type=socket.SOCK_STREAM)
    asked: list[object] = []

    def hangs_the_second_time(*host: object, **_: object) -> object:
        asked.append(host)
        return known if len(asked) == 1 else over.wait(LONG) and []

    monkeypatch.setattr(socket, "getaddrinfo", hangs_the_second_time)
    monkeypatch.setattr(network, "_SECONDS", 0.1)
    report = Report("API")

    assert not reach(report, Server("the API", "api.example.org", 443, True, "API_URL", ""), None)
    assert report.findings[-1].found.startswith("the API at api.example.org:443 can't be reached (no answer")


def drip(listener: socket.socket, over: threading.Event) -> None:
    """A byte at a time, each one sooner than anybody who waits for one gives up."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not over.wait(0.05):
            connection.sendall(b" ")


def test_a_management_api_that_drips_is_one_that_can_t_be_asked(
    over: threading.Event, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(management, "_IN_ALL", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener, over), daemon=True).start()
        known = Credentials("127.0.0.1", 5672, "u", Secret("p"), "/", False, "http://x", "", Secret(""))

        assert Management(known, None, listener.getsockname()[1]).queues() is None
