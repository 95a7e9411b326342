"""What comes over the wire, byte by byte: framed as RFC 9112 has it, bounded in time and in memory, and named."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.services.proxy import Proxy
from tests.services.raw import Clock, RawServer
from tests.services.upstream import Upstream
from tests.worker.examples import config_for, download
from worker.api import Api
from worker.errors import StepFailed, Transient
from worker.job.spec import Input
from worker.settings import ApiSettings, Seconds
from worker.wire import Pace

gzipped = partial(gzip.compress, mtime=0)
"""Without the time of day, which would be in the names of tests, and those of one run have to be alike."""

HELLO = b"hello, page"
MOST = 1 << 20
LONG = Seconds(60)
"""No test waits for that long."""


def without_place(error: Transient) -> str:
    """What was found, without the host and the port, which differ each time."""
    assert re.search(r" at \S+:\d+ |HTTP|login at the API|cut off|the answer", error.found), error.found
    return re.sub(r" at \S+:\d+", "", error.found)


class Client:
    """Fetches one input, or logs in, from a server that says what the test wants."""

    def __init__(self, folder: Path, server: RawServer, **api: Any) -> None:
        self.server, self.target = server, folder / "input"
        settings = ApiSettings(**{"connect_timeout": LONG, "read_timeout": LONG, **api})
        self.config = config_for(folder, server.url, changes={"api": settings})

    def within(self, seconds: float) -> Client:
        """All of one exchange but the body of a download may take that long."""
        timing = replace(self.config.site.timing, lease_expires=Seconds(2 * seconds))
        self.config = replace(self.config, site=replace(self.config.site, timing=timing))
        return self

    def say(self, *pieces: bytes) -> Client:
        self.server.script = lambda: pieces
        return self

    def fetch(self) -> bytes:
        download(Api(self.config), Input(f"{self.server.url}/a", "", True), "token", self.target, MOST)
        return self.target.read_bytes()

    def fault(self) -> str:
        with pytest.raises(Transient) as fault:
            self.fetch()
        return without_place(fault.value)

    def login_fault(self) -> str:
        with pytest.raises(Transient) as fault:
            Api(self.config).authenticate()
        return without_place(fault.value)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(lambda: ()) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, server: RawServer) -> Client:
    return Client(tmp_path, server)


def ok(*headers: str, body: bytes = HELLO, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([first, *headers, "", ""]).encode("latin-1") + body


def sized(body: bytes, *headers: str) -> bytes:
    return ok(f"Content-Length: {len(body)}", *headers, body=body)


def chunked(body: bytes, *headers: str, last: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (body[:3], body[3:]) if each)
    return ok("Transfer-Encoding: chunked", *headers, body=chunks + last)


PACKED, INTERIM = gzipped(HELLO), "HTTP/1.1 {} X\r\nLink: </style.css>\r\n\r\n"
WHOLE = {
    "a length": sized(HELLO),
    "a length in lower case and odd space": ok(f"content-length:\t {len(HELLO)}  "),
    "the same length twice": sized(HELLO, f"Content-Length: {len(HELLO)}"),
    "the same length twice in one line": ok("Content-Length: 11, 11"),
    "the same length three times, padded": sized(HELLO, "Content-Length: 011,11"),
    "more bytes than the length": sized(HELLO) + b"and more",
    "chunks": chunked(HELLO),
    "chunks in upper case": ok("TRANSFER-ENCODING: Chunked", body=b"B\r\nhello, page\r\n0\r\n\r\n"),
    "chunks with an extension and a trailer": ok(
        "Transfer-Encoding: chunked", body=b"00b;a=b\r\nhello, page\r\n0;x\r\nDigest: y\r\n\r\n"
    ),
    "chunks and a length": chunked(HELLO, "Content-Length: 3"),
    "continue": INTERIM.format(100).encode() + sized(HELLO),
    "processing, early hints, early hints": "".join(INTERIM.format(s) for s in (102, 103, 103)).encode() + sized(HELLO),
    "identity": sized(HELLO, "Content-Encoding: identity"),
    "gzip": sized(PACKED, "Content-Encoding: gzip"),
    "gzip in capitals": sized(PACKED, "Content-Encoding: GZIP"),
    "x-gzip": sized(PACKED, "CONTENT-ENCODING: x-gzip"),
    "gzip in two headers of which one says nothing": sized(PACKED, "Content-Encoding: identity", "Content-Encoding: gzip"),
    "gzip in two members": sized(gzipped(HELLO[:4]) + gzipped(HELLO[4:]), "Content-Encoding: gzip"),
    "gzip and zeros": sized(PACKED + bytes(600), "Content-Encoding: gzip"),
    "gzip in chunks": chunked(PACKED, "Content-Encoding: gzip"),
    "gzip without a length, which shows its own end": ok("Content-Encoding: gzip", body=PACKED),
    "deflate": sized(zlib.compress(HELLO), "Content-Encoding: deflate"),
    "HTTP/1.0": ok("Content-Length: 11", first="HTTP/1.0 200 OK"),
}  # fmt: skip


@pytest.mark.parametrize("said", WHOLE)
def test_what_is_whole_is_taken_as_it_is(client: Client, said: str) -> None:
    assert client.say(WHOLE[said]).fetch() == HELLO


BROKEN = {
    "half of gzip, with a length that fits": (sized(PACKED[:15], "Content-Encoding: gzip"), "cut off or damaged"),
    "gzip without its last byte": (sized(PACKED[:-1], "Content-Encoding: gzip"), "cut off or damaged"),
    "half of gzip in whole chunks": (chunked(PACKED[:9], "Content-Encoding: gzip"), "cut off or damaged"),
    "gzip with a wrong checksum": (sized(PACKED[:-8] + b"abcd" + PACKED[-4:], "Content-Encoding: gzip"), "cut off or damaged"),
    "gzip and something after it": (sized(PACKED + b"page", "Content-Encoding: gzip"), "cut off or damaged"),
    "not gzip at all": (sized(HELLO, "Content-Encoding: gzip"), "cut off or damaged"),
    "deflate without a checksum": (sized(zlib.compress(HELLO)[2:-4], "Content-Encoding: deflate"), "cut off or damaged"),
    "half a body": (ok("Content-Length: 99"), "the API cut its answer off"),
    "no length": (ok(), "does not say how long it is"),
    "two lengths": (sized(HELLO, "Content-Length: 5"), "the API sent an answer that gives two lengths"),
    "two lengths in one line": (ok("Content-Length: 11, 5"), "the API sent an answer that gives two lengths"),
    "a negative length": (ok("Content-Length: -11"), "the API sent an answer whose length is no number"),
    "a length in words": (ok("Content-Length: eleven"), "the API sent an answer whose length is no number"),
    "chunks that are packed besides": (
        ok("Transfer-Encoding: gzip, chunked", body=b"b\r\nhello, page\r\n0\r\n\r\n"), "transfer coding that was not asked",
    ),
    "chunked in two headers": (chunked(HELLO, "Transfer-Encoding: chunked"), "transfer coding that was not asked for"),
    "chunks without an end": (chunked(HELLO, last=b""), "the API cut its answer off"),
    "half a chunk": (ok("Transfer-Encoding: chunked", body=b"ff\r\nhello"), "the API cut its answer off"),
    "a chunk's size cut off after its first zeros": (
        ok("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n00"), "the API cut its answer off",
    ),
    "a chunk of less than nothing": (ok("Transfer-Encoding: chunked", body=b"-5\r\nhello"), "the API cut its answer off"),
    "a chunk of no size": (ok("Transfer-Encoding: chunked", body=b"\r\nhello"), "the API cut its answer off"),
    "a chunk's size that has no end": (ok("Transfer-Encoding: chunked", body=b"0" * 10**6), "sent a line without an end"),
    "a head cut off in a line": (b"HTTP/1.1 200 OK\r\nContent-Len", "the API cut its answer off"),
    "a head cut off after a line": (b"HTTP/1.1 200 OK\r\nServer: x\r\n", "the API cut its answer off"),
    "a head line that has no end": (b"HTTP/1.1 200 OK\r\nServer: " + b"x" * 10**6, "the API sent a line without an end"),
    "headers without an end": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n", "an answer that can't be read"),
    "another protocol": (b"220 mail.example.org ESMTP\r\n", "the API speaks no HTTP there"),
    "nothing": (b"", "the API hung up without an answer"),
    "interim answers without an end": (
        INTERIM.format(103).encode() * 100, "the API sent one interim answer after the other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", BROKEN)
def test_what_can_t_be_shown_to_be_whole_is_tried_again(client: Client, said: str) -> None:
    data, words = BROKEN[said]

    assert words in client.say(data).fault()


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nServer: x\r\n", b"HTTP/1.1 200 OK\r\nContent-Len"])
def test_a_head_that_was_cut_off_is_no_empty_input_even_where_no_length_is_needed(
    tmp_path: Path, server: RawServer, data: bytes
) -> None:
    client = Client(tmp_path, server, unknown_length=True)

    assert "cut its answer off" in client.say(data).fault()
    assert client.say(ok()).fetch() == HELLO


@pytest.mark.parametrize("headers", [
    ["Content-Encoding: br"], ["Content-Encoding: zstd"], ["content-encoding: COMPRESS"], ["Content-Encoding: gzip, br"],
    ["Content-Encoding: gzip", "Content-Encoding: gzip"], ["Content-Encoding: aes128gcm"],
])  # fmt: skip
def test_a_coding_that_can_t_be_proven_whole_is_refused_in_words(client: Client, headers: list[str]) -> None:
    with pytest.raises(StepFailed) as failed:
        client.say(sized(HELLO, *headers)).fetch()

    assert "that nobody asked for and that can't be undone here" in failed.value.reason
    assert not failed.value.may_work_again


# --- bytes


def test_a_bomb_ends_at_the_limit_of_bytes(client: Client) -> None:
    client.say(sized(gzipped(bytes(64 * MOST)), "Content-Encoding: gzip"))

    with pytest.raises(StepFailed, match="larger than what one job may bring"):
        client.fetch()
    assert client.target.stat().st_size <= MOST


def test_packed_bytes_that_come_to_nothing_end_at_the_limit_too(client: Client) -> None:
    client.server.script = lambda: itertools.chain(
        [ok("Content-Encoding: gzip", body=b"")], endless(gzipped(b"") * 900)
    )

    with pytest.raises(StepFailed, match="larger than what one job may bring"):
        client.fetch()


def endless(piece: bytes) -> Iterable[bytes]:
    return itertools.repeat(piece)


@pytest.mark.parametrize(("answer", "words"), [
    (sized(gzipped(bytes(64 * MOST)), "Content-Encoding: gzip"), "the answer has no end"),
    (sized(gzipped(b'{"token": "a"}')[:-9], "Content-Encoding: gzip"), "the answer can't be read"),
    (sized(b"\x1b" * 16000, "Content-Encoding: br"), "the answer can't be read (br)"),
    (sized(b'{"token": ' * 10**4, "Content-Type: text/html"), "the answer holds no token"),
    (sized(b"<html>Back soon"), "the answer holds no token, it is a web page"),
    (ok("Location: https://www.example.org/login?secret", body=b"", first="HTTP/1.1 301 Moved"),
     "HTTP 301, it sends us to https://www.example.org"),
    (ok("Proxy-Authenticate: Basic", body=b"", first="HTTP/1.1 407 X"), "HTTP 407, a proxy asks for a user and a password"),
    (ok(body=b"", first="HTTP/1.1 511 X"), "HTTP 511, the network there asks for a login"),
])  # fmt: skip
def test_a_login_s_answer_is_bounded_and_named(client: Client, answer: bytes, words: str) -> None:
    sizes = []
    for _ in range(3):  # in one of them no other test's server takes memory meanwhile
        client.say(answer)
        tracemalloc.start()
        fault = client.login_fault()
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert fault.startswith("login at the API: ") and words in fault

    assert min(sizes) < 16 * MOST


def test_a_packed_login_is_a_login(client: Client) -> None:
    body = gzipped(json.dumps({"token": "abc"}).encode())

    assert Api(client.say(sized(body, "Content-Encoding: gzip")).config).authenticate() == "abc"


def test_what_an_error_says_is_not_read(client: Client) -> None:
    client.server.script = lambda: itertools.chain([ok(body=b"", first="HTTP/1.1 500 X")], endless(bytes(MOST)))

    assert client.fault() == "HTTP 500" and client.login_fault() == "login at the API: HTTP 500"


# --- time


SLOW = {
    "its status": b"HTTP/1.1 200 OK",
    "its headers": b"A: b\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that a pace goes by. It moves when the server sends, so no machine is too slow, or too fast."""
    made = Clock()
    monkeypatch.setattr("worker.wire.monotonic", made)
    return made


@pytest.mark.parametrize("what", SLOW)
def test_an_answer_whose_head_drips_for_ever_is_given_up_and_named(client: Client, what: str, clock: Clock) -> None:
    begin = b"HTTP/1.1 200 OK\r\n" if what == "its headers" else b""
    client.server.script = lambda: itertools.chain([begin], clock.drip(SLOW[what]))
    client.within(10)

    assert client.fault() == "the API gave no whole answer within 10 s"
    assert client.login_fault() == "the API gave no whole answer within 10 s"


@pytest.mark.parametrize("head", [
    ok("Content-Length: 1000000", body=b""), ok("Transfer-Encoding: chunked", body=b""),
    ok("Content-Encoding: gzip", body=b""),
])  # fmt: skip
def test_a_login_whose_body_drips_for_ever_is_given_up_and_named(client: Client, head: bytes, clock: Clock) -> None:
    body = gzipped(b"") if b"gzip" in head else b"1\r\n{\r\n"
    client.server.script = lambda: itertools.chain([head], clock.drip(body))

    assert client.within(10).login_fault() == "the API gave no whole answer within 10 s"


def test_an_answer_that_never_begins_is_given_up_and_named(client: Client) -> None:
    client.server.script = lambda: silence(client.server)

    assert client.within(1).login_fault() == "the API gave no whole answer within 1 s"


def silence(server: RawServer) -> Iterator[bytes]:
    server.stopping.wait(LONG)
    yield b""


def test_a_download_that_drips_for_ever_is_too_slow(tmp_path: Path, server: RawServer) -> None:
    client = Client(tmp_path, server, read_timeout=Seconds(0.5), least_rate=10**6)
    client.server.script = lambda: itertools.chain([ok("Content-Length: 1000000", body=b"")], server.drip(b"x", 0.01))

    words = client.fault()

    assert (
        words.startswith("the API sent only ") or words == "the API gave no answer for 0.5 s"
    )  # a machine that stalls


def test_a_body_has_as_long_as_it_takes_if_enough_comes_in_each_stretch(clock: Clock) -> None:
    pace = Pace(10, 60)
    pace.begin(130)
    clock.now += 120
    assert pace.wait(60) == 10
    pace.begin_body(100)

    for _ in range(1000):
        clock.now += 30
        pace.came(3000)
        assert pace.wait(60) == 60
    clock.now += 30
    pace.came(2999)
    clock.now += 29
    pace.came(3000)
    clock.now += 1
    with pytest.raises(socket.timeout):
        pace.came(0)
    assert pace.why == "sent only 5999 bytes in 60 s"


def test_a_slow_body_is_no_fault_where_no_rate_is_asked_for(clock: Clock) -> None:
    pace = Pace(10, 60)
    pace.begin_body(0)
    clock.now += 10**6

    pace.came(1)

    assert pace.wait(60) == 60


def test_a_resolver_that_hangs_is_given_up_and_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hangs.wait(LONG) and [])
    settings = replace(client.config.site.api, connect_timeout=Seconds(0.1))
    client.config = replace(client.config, site=replace(client.config.site, api=settings))

    assert client.fault() == "the API can't be reached (its name was not found: no answer within 0.1 s)"
    hangs.set()


def test_where_no_thread_is_to_be_had_a_name_is_looked_up_without(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = client.say(sized(HELLO))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "within" not in repr(getattr(thread, "_target", "")):
            return start(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert answered.fetch() == HELLO


def test_each_address_of_a_host_is_tried(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    right = socket.getaddrinfo("127.0.0.1", int(client.server.url.rpartition(":")[2]), type=socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        wrong = socket.getaddrinfo("127.0.0.1", gone.getsockname()[1], type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*wrong, *right])

    assert client.say(sized(HELLO)).fetch() == HELLO


def test_a_host_that_takes_no_connection_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = socket.getaddrinfo("127.0.0.1", full.getsockname()[1], type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: address * 100)
        waiting = [busy(address[0][4]) for _ in range(3)]

        assert client.within(1).login_fault() == "the API gave no whole answer within 1 s"
        for each in waiting:
            each.close()


def busy(address: Any) -> socket.socket:
    """A connection that takes up a place of those that nobody has accepted."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(address)
    return connection


# --- connections


def test_one_connection_serves_one_exchange_after_the_other(tmp_path: Path) -> None:
    with RawServer(lambda: (sized(HELLO),), keeps_alive=True) as server:
        client = Client(tmp_path, server)
        api, source = Api(client.config), Input(f"{server.url}/a", "", False)

        assert [download(api, source, "", client.target, MOST) for _ in range(3)] == [len(HELLO)] * 3
        assert server.connections == 1 and len(server.requests) == 3


def test_what_was_asked_for_is_what_was_meant(client: Client) -> None:
    client.say(sized(HELLO)).fetch()

    (request,) = client.server.requests
    assert request.startswith(b"GET /a HTTP/1.1\r\n") and b"Accept-Encoding: identity\r\n" in request


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_never_used(
    client: Client, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, upstream.url)

    assert client.say(sized(HELLO)).fetch() == HELLO and upstream.requests == []


def test_a_connection_that_is_reset_at_once_is_named(tmp_path: Path, upstream: Upstream) -> None:
    with Proxy(upstream.port) as proxy:
        proxy.refuse()
        api = Api(config_for(tmp_path, f"http://{proxy.host}:{proxy.port}"))
        for _ in range(30):  # it is noticed at one step or another
            with pytest.raises(Transient, match="the API at .* (can't be reached|hung up without an answer)"):
                api.authenticate()


def over_tls(folder: Path, url: str, **api: Any) -> str:
    """What is said of a login at this server, as if it spoke TLS."""
    settings = ApiSettings(**{"connect_timeout": LONG, "read_timeout": LONG, **api})
    config = config_for(folder, url.replace("http:", "https:"), changes={"api": settings})
    with pytest.raises(Transient) as fault:
        Api(config).authenticate()
    return without_place(fault.value)


def test_a_server_that_never_shakes_hands_is_given_up_and_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = over_tls(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=Seconds(0.5))

    assert words == "the API takes the connection and says nothing"


def test_a_server_without_tls_is_named(tmp_path: Path, upstream: Upstream) -> None:
    assert over_tls(tmp_path, upstream.url) == "the API speaks no TLS there"
