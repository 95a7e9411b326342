"""A server that says exactly the bytes that a test has in mind, at the pace that it has in mind."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Callable, Optional


class Clock:
    """A clock to put in the place of time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def drip(self, data: bytes) -> Iterator[bytes]:
        """A byte in each of this clock's seconds, for long enough."""
        for number in range(50):
            self.now += 1
            yield data[number % len(data) :][:1]
        threading.Event().wait(60)


Script = Callable[[], Iterable[bytes]]


class RawServer:
    """Answers each request on loopback with the pieces that `script` makes. Start it with `with`."""

    def __init__(self, script: Script, keeps_alive: bool = False) -> None:
        self.script, self.keeps_alive = script, keeps_alive
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def drip(self, data: bytes, pause: float) -> Iterator[bytes]:
        """One byte at a time, and from the start again, for ever."""
        while not self.stopping.is_set():
            for byte in data:
                yield bytes([byte])
                self.stopping.wait(pause)

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stopping.set()
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while head := b"".join(iter(reader.readline, b"\r\n")):
                length = next((int(line[15:]) for line in head.splitlines() if line.startswith(b"Content-Length")), 0)
                self.requests.append(head + b"\r\n" + reader.read(length))
                for piece in self.script():
                    connection.sendall(piece)
                if not self.keeps_alive:
                    return
