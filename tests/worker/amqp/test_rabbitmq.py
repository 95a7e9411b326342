"""What no broker can be made to do when a test asks for it."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.both import OverRabbitMQ
from worker.errors import Transient
from worker.settings import Credentials, Queue, Replies, Secret


def test_a_broker_that_is_gone_right_after_it_was_connected_to_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        credentials = Credentials(address, port, "u", Secret("p"), "/", False, "http://api", "u", Secret("p"))
        monkeypatch.setattr(socket.socket, "getpeername", gone, raising=False)

        with pytest.raises(Transient, match="the broker at 127.0.0.1:\\d+ can't be reached \\(.*not connected"):
            OverRabbitMQ(credentials, Replies()).waiting(Queue("jobs", "sample"))
