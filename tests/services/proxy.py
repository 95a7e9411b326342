"""A TCP proxy in front of a service: passes, drips, swallows, breaks, or halts a given AMQP frame while a test does harm."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Callable, Optional

CLIENT, SERVER = "client", "server"

# Class and method ids of AMQP 0-9-1.
_METHODS = {
    (10, 11): "connection.start-ok", (10, 31): "connection.tune-ok", (10, 50): "connection.close",
    (20, 10): "channel.open", (50, 10): "queue.declare", (60, 10): "basic.qos", (60, 40): "basic.publish",
    (60, 60): "basic.deliver", (60, 70): "basic.get", (60, 71): "basic.get-ok", (60, 80): "basic.ack",
    (85, 10): "confirm.select",
}  # fmt: skip
_OTHER_FRAMES = {2: "header", 3: "body", 8: "heartbeat"}
_PIECE = 1 << 16


@dataclass
class Halt:
    """The next `frame` that `sender` sends is held back; what `sender` sends after it waits too. `half` of it may go."""

    sender: str
    frame: str
    half: bool = False
    skip: int = 0
    """How many such frames pass before."""
    _lost: bool = False
    _reached: threading.Event = field(default_factory=threading.Event)
    # Made in the proxy's thread: before Python 3.10 an event belongs to the loop that it is made in.
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_event_loop)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def wait(self, seconds: float = 300) -> None:
        """Returns when the frame is held."""
        assert self._reached.wait(seconds), f"no {self.frame} of the {self.sender} within {seconds} s"

    def wait_while(self, going: Callable[[], bool]) -> bool:
        """Whether the frame is held, once it is or nobody is going any more who could send it."""
        until = time.monotonic() + 300
        while going() and not self._reached.wait(0.2):
            assert time.monotonic() < until, f"no {self.frame} of the {self.sender} within 300 s"
        return self._reached.is_set()

    def go_on(self) -> None:
        """Sends the frame on its way, if there still is one."""
        self._loop.call_soon_threadsafe(self._released.set)

    def lose(self) -> None:
        """The frame, or the rest of it, never arrives; what comes after it does."""
        self._lost = True
        self.go_on()

    async def hold(self, rest: bytes) -> bytes:
        """What is to be sent of it in the end."""
        self._reached.set()
        await self._released.wait()
        return b"" if self._lost else rest

    def meets(self, sender: str, frame: str) -> bool:
        if (sender, frame) != (self.sender, self.frame) or self._reached.is_set():
            return False
        self.skip -= 1
        return self.skip < 0


class _Link:
    """One connection through the proxy."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.swallowed = False
        self.amqp = False
        self.client_spoke = asyncio.Event()

    def reset(self) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if raw.fileno() < 0:
                continue  # closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class Proxy:
    """Listens on loopback in a thread of its own. Start it with `with`; any thread may steer it."""

    host = "127.0.0.1"

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._mode = "pass"
        self._pause = 0.0
        self._piece = _PIECE
        self._halts: list[Halt] = []
        self._links: list[_Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.connections = 0
        """How many were ever made."""

    # --- what a test says

    def halt_at(self, sender: str, frame: str, half: bool = False, skip: int = 0) -> Halt:
        self._in_loop(lambda: self._halts.append(Halt(sender, frame, half, skip)))
        return self._halts[-1]

    def black_hole(self) -> None:
        """From now on nothing gets through, in either direction, and nobody is told; new connections are taken too."""
        self._in_loop(self._swallow)

    def reset(self) -> None:
        """Every connection there is ends with RST. New ones pass."""
        self._in_loop(self._reset)

    def refuse(self) -> None:
        """As `reset`, and so does every new connection until `mend`."""
        self._mode = "refuse"
        self.reset()

    def drip(self, piece: int, pause: float) -> None:
        """From now on the service's answers come `piece` bytes at a time, `pause` seconds before each."""
        self._piece, self._pause = piece, pause

    def mend(self) -> None:
        """New connections pass, at full speed. Swallowed ones end, as both ends would find out in time."""
        self._mode = "pass"
        self.drip(_PIECE, 0)
        self._in_loop(lambda: self._reset(only_swallowed=True))

    def __enter__(self) -> Proxy:
        self._thread.start()
        server = self._call(asyncio.start_server(self._serve, self.host, 0))
        self.port = int(server.sockets[0].getsockname()[1])
        self._server = server
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- what happens in the proxy's own thread

    def _in_loop(self, what: Callable[[], object]) -> None:
        async def do() -> None:
            what()

        self._call(do())

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _reset(self, only_swallowed: bool = False) -> None:
        for link in self._links:
            if link.swallowed or not only_swallowed:
                link.reset()

    async def _end(self) -> None:
        self._server.close()
        self._reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _swallow(self) -> None:
        self._mode = "black hole"
        for link in self._links:
            link.swallowed = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link()
        link.writers.append(writer)
        self._links.append(link)
        if self._mode == "refuse":
            link.reset()
            return
        link.swallowed = self._mode == "black hole"
        try:
            there, to_target = await asyncio.open_connection(self.host, self._target_port)
        except OSError:
            link.reset()
            return
        link.writers.append(to_target)
        for sender, source, sink in ((CLIENT, reader, to_target), (SERVER, there, writer)):
            task = self._loop.create_task(self._pump(link, sender, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, link: _Link, sender: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if sender == SERVER:
                await link.client_spoke.wait()  # its first bytes tell what is spoken
            async for frame in _frames(link, source):
                await self._hand_on(link, sender, frame, sink)
        if not link.swallowed:
            link.close()

    async def _hand_on(self, link: _Link, sender: str, frame: bytes, sink: asyncio.StreamWriter) -> None:
        name = _name(frame) if link.amqp else ""
        for halt in self._halts:
            if halt.meets(sender, name):
                half = len(frame) // 2 if halt.half else 0
                sink.write(frame[:half])
                frame = await halt.hold(frame[half:])
        while frame and not link.swallowed:
            size, pause = (self._piece, self._pause) if sender == SERVER else (_PIECE, 0)
            piece, frame = frame[:size], frame[size:]
            await asyncio.sleep(pause)
            if not link.swallowed:
                sink.write(piece)
                await sink.drain()


async def _frames(link: _Link, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole AMQP frames, where the client's first bytes say that it speaks AMQP; else bytes as they come."""
    while not source.at_eof():
        if not link.amqp:
            first = await source.read(_PIECE)
            link.amqp = first == b"AMQP\0\0\x09\x01"
            link.client_spoke.set()
            yield first
            continue
        head = await source.readexactly(7)
        yield head + await source.readexactly(int.from_bytes(head[3:], "big") + 1)


def _name(frame: bytes) -> str:
    """Of a method frame, or the kind of another one; "" for what nobody halts."""
    if frame[0] != 1:
        return _OTHER_FRAMES.get(frame[0], "")
    return _METHODS.get(struct.unpack(">HH", frame[7:11]), "")
