"""HTTP connections that nobody can hold up: each wait is bounded, and all of them together are; and so is each line.

Beneath requests and urllib3, whose timeouts are for one wait at a time: a byte now and then would hold them for ever.
What an answer's head says about where its body ends is read as RFC 9112, section 6.3, has it.
"""

from __future__ import annotations

import http.client
import io
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable, Optional

import urllib3.connection
import urllib3.connectionpool
from urllib3.exceptions import NewConnectionError

from .bounded import within
from .causes import name_unknown, not_connected

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from .causes import Server
    from .errors import Advice

_LINE = 1 << 16
"""Bytes of a line; http.client itself stops there, urllib3 does not."""
_INTERIM = 20
"""Answers of 1xx before the one that counts."""


class Pace:
    """How long the exchange that is under way may take; every wait on the wire asks it.

    `why`: what the other side did, where one of us has seen it: "the API ..." goes on with it.
    """

    def __init__(self, connect: float, silence: float) -> None:
        self.connect = connect
        self.silence = silence
        self.why = ""
        self.at_proxy = False
        """Whether it is a proxy that we wait for."""
        self.failed: Optional[tuple[Callable[[Server, Any], Advice], OSError]] = None
        """The step of the way there that failed, and how."""
        self._total, self._until = 0.0, 0.0
        self._least, self._came, self._since = 0, 0, 0.0

    def begin(self, total: float) -> None:
        """From now on, `total` seconds."""
        self.why, self.at_proxy, self.failed = "", False, None
        self._total, self._until, self._least = total, monotonic() + total, 0

    def begin_body(self, least: int) -> None:
        """From now on as long as it takes, if in each stretch as long as the longest silence `least` bytes a second come."""
        self._total, self._least, self._came, self._since = 0, least, 0, monotonic()

    def wait(self, most: float) -> float:
        """Seconds that the next wait may take, `most` at the most. Raises socket.timeout."""
        if not self._total:
            return most
        left = self._until - monotonic()
        if left <= 0:
            raise self.timed_out(most)
        return min(left, most)

    def timed_out(self, most: float) -> socket.timeout:
        """What to raise when a wait is over."""
        in_all = self._total and monotonic() >= self._until
        return self._fail(
            f"gave no whole answer within {self._total:g} s" if in_all else f"gave no answer for {most:g} s"
        )

    def came(self, size: int) -> None:
        """Raises socket.timeout where it is too slow."""
        self._came += size
        now = monotonic()
        if self._total or now - self._since < self.silence:
            return
        if self._came < self._least * self.silence:
            raise self._fail(f"sent only {self._came} bytes in {now - self._since:.0f} s")
        self._came, self._since = 0, now

    def refuse(self, words: str) -> http.client.HTTPException:
        """What to raise for an answer that can't be read."""
        self.why = f"sent {words}"
        return http.client.HTTPException(words)

    def unreached(self, step: Callable[[Server, Any], Advice], error: OSError) -> OSError:
        self.failed = step, error
        return error

    def _fail(self, words: str) -> socket.timeout:
        self.why = words
        return socket.timeout(words)


def pools(pace: Pace) -> dict[str, type[urllib3.connectionpool.HTTPConnectionPool]]:
    """By scheme, what PoolManager takes its pools from; all their connections keep to `pace`."""
    known = {"pace": pace}
    own = {"pace": pace, "response_class": type("Response", (_Response,), known)}
    http_pool, https_pool = urllib3.connectionpool.HTTPConnectionPool, urllib3.connectionpool.HTTPSConnectionPool
    return {
        "http": type("Http", (http_pool,), {"ConnectionCls": type("Plain", (_Plain,), own)}),
        "https": type("Https", (https_pool,), {"ConnectionCls": type("Tls", (_Tls,), own)}),
    }


class _Plain(urllib3.connection.HTTPConnection):
    pace: Pace

    def _new_conn(self) -> socket.socket:
        return _connected_for(self, 80, self.pace)


class _Tls(urllib3.connection.HTTPSConnection):
    pace: Pace

    def _new_conn(self) -> socket.socket:
        return _connected_for(self, 443, self.pace)

    def _tunnel(self) -> None:
        self.pace.at_proxy = True
        super()._tunnel()
        self.pace.at_proxy = False


def _connected_for(connection: urllib3.connection.HTTPConnection, port: int, pace: Pace) -> socket.socket:
    """In urllib3's own error: it takes a reset before anything was sent for one after all was sent, and reads on."""
    try:
        return _connected(connection._dns_host, connection.port or port, pace)
    except OSError as error:
        raise NewConnectionError(connection, "no connection") from error


def _connected(host: str, port: int, pace: Pace) -> socket.socket:
    """Raises OSError. The socket's timeout then is what the TLS handshake may take in all."""
    last = OSError("it has no address")
    for family, kind, protocol, _, address in _addresses(host, port, pace):
        connection = socket.socket(family, kind, protocol)
        try:
            most = pace.wait(pace.connect)
            connection.settimeout(most)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(pace.wait(pace.connect))
            return connection
        except OSError as error:
            connection.close()
            if pace.why:
                raise
            last = error
        except BaseException:
            connection.close()
            raise
    raise pace.unreached(not_connected, last)


def _addresses(host: str, port: int, pace: Pace) -> list[Any]:
    """The resolver has a patience of its own, and can't be told ours. Raises OSError."""
    most = pace.wait(pace.connect)
    try:
        return list(within(most, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except (OSError, UnicodeError) as error:
        raise pace.unreached(name_unknown, error if isinstance(error, OSError) else OSError("no such name")) from None


class _Response(http.client.HTTPResponse):
    """One that skips every interim answer (RFC 9110, 15.2), and believes no head that says two things at once."""

    pace: Pace
    will_close: bool

    def __init__(self, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp: Any = _Lines(_Paced(sock, self.fp.detach(), self.pace))

    def begin(self) -> None:
        if self.headers is not None:
            return
        for _ in range(_INTERIM):
            super().begin()
            self.fp.in_head = False
            if self.status >= 200 or self.status == 101:
                break
            self.headers = self.msg = None
        else:
            raise self.pace.refuse("one interim answer after the other")
        self._read_framing()

    def _read_status(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        self.fp.in_head = True
        return status

    def _read_framing(self) -> None:
        codings, lengths = self._all("Transfer-Encoding"), self._all("Content-Length")
        if codings:
            if codings != ["chunked"]:
                raise self.pace.refuse("an answer in a transfer coding that was not asked for")
            self.chunked, self.chunk_left, self.length = True, None, None
            return
        if not all(each.isascii() and each.isdigit() and len(each) < 19 for each in lengths):
            raise self.pace.refuse("an answer whose length is no number")
        if len({int(each) for each in lengths}) > 1:
            raise self.pace.refuse("an answer that gives two lengths")
        if lengths and self.length != 0:  # 0 is what the status means, or the method
            self.length = int(lengths[0])

    def _all(self, name: str) -> list[str]:
        """The elements of a list, in however many lines it came."""
        words = ",".join(self.headers.get_all(name, [])).split(",")
        return [word.strip().lower() for word in words if word.strip()]


class _Paced(io.RawIOBase):
    """Reads from a socket as fast as bytes come, but never waits for longer than the pace says."""

    def __init__(self, sock: socket.socket, inner: io.RawIOBase, pace: Pace) -> None:
        self._sock, self._inner, self._pace = sock, inner, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> Optional[int]:
        self._sock.settimeout(self._pace.wait(self._pace.silence))
        try:
            size = self._inner.readinto(buffer)
        except socket.timeout:
            raise self._pace.timed_out(self._pace.silence) from None
        self._pace.came(size or 0)
        return size

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Lines(io.BufferedReader):
    """Gives no line without an end, and nothing without a limit."""

    in_head = False
    """After its first line: until the empty one, it is cut off."""

    def readline(self, size: Optional[int] = -1) -> bytes:
        most = _LINE + 1 if size is None or size < 0 else size
        line = super().readline(most)
        if not line.endswith(b"\n") and len(line) < most and (line or self.in_head):
            raise http.client.IncompleteRead(line)
        return line

    def read(self, size: Optional[int] = -1) -> bytes:
        if size is None or size < 0:  # a chunk of negative size
            raise http.client.IncompleteRead(b"")
        return super().read(size)
