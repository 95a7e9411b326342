"""A sample of the service that publishes jobs: token login and downloads over real HTTP(S), with faults on demand."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import shutil
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Callable, Optional, Union
from urllib.parse import parse_qs

from tests.services.certificates import Certificates

ASK = "/api/uploads/"
LOGIN_PATHS = ("/api/auth/token/", "/auth/token/")


@dataclass(frozen=True)
class Answer:
    """What to do with one request instead of the usual. Only what is given differs from the usual.

    With `status` nothing is looked up and no token is asked for: the answer is that status, `headers` and `body`.
    """

    status: Optional[int] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0  # seconds before anything is sent
    cut: Optional[int] = None  # the connection is closed after this many bytes of the body
    length: Optional[int] = None  # what Content-Length claims
    endless: bool = False  # the body goes on until the client or the server has enough
    hang_up: bool = False  # the connection is closed without an answer
    whole: bool = False  # a range that is asked for is not looked at
    takes: Optional[int] = None  # of what is sent by PUT: so many bytes are read, then the connection is closed
    stores: Optional[int] = None  # of what is sent by PUT: so many bytes are kept, and nobody is told


@dataclass(frozen=True)
class Request:
    """One request as it came in; `time` is time.time()."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    time: float


class Upstream:
    """Serves what was added, to who logged in. Start it with start() or `with`; change it at any time while it runs."""

    host = "127.0.0.1"

    def __init__(self, tls: Optional[Certificates] = None, port: int = 0, host: str = host) -> None:
        self.host = host
        self.user = "operator"
        self.password = secrets.token_hex(8)
        self.refuse_logins: Optional[int] = None  # a status: the answer to every login, for example 401
        self.requests: list[Request] = []
        self.files: dict[str, Union[bytes, Path]] = {}
        self.give: Callable[[dict[str, Any]], object] = dict  # what an ask for an address is answered
        self.tags: dict[str, str] = {}  # path -> entity tag: what has one is given in parts too
        self.tokens: set[str] = set()
        self.stopping = threading.Event()
        self._scripts: defaultdict[str, list[Answer]] = defaultdict(list)
        self._server = _Server(self, port)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        if tls:
            self._server.socket = _wrapped(self._server, tls)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def add(self, path: str, content: Union[bytes, Path]) -> str:
        """Serve `content` at `path`; returns the full URL."""
        self.files[path] = content
        return self.url + path

    def script(self, path: str, *answers: Answer) -> None:
        """The next requests of `path` (login paths too) get these answers, one each; later ones the usual."""
        self._scripts[path].extend(answers)

    def expire_tokens(self) -> None:
        """No token that was issued so far is valid any longer."""
        self.tokens.clear()

    def paths(self, method: str = "GET") -> list[str]:
        """The paths that were asked for, in order."""
        return [request.path for request in self.requests if request.method == method]

    def next_answer(self, path: str) -> Answer:
        script = self._scripts[path]
        return script.pop(0) if script else Answer()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Upstream:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Requests that hang on purpose must not hold up the end of a test.
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstream: Upstream, port: int) -> None:
        self.upstream = upstream
        super().__init__((upstream.host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away in the middle are what many tests are about: no traceback."""


def _wrapped(server: _Server, tls: Certificates) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    # The handshake is left to the thread of each connection, or one silent client would block all others.
    return context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        """What is stored may be got again."""
        upstream, size = self.server.upstream, int(self.headers["Content-Length"])
        answer = upstream.next_answer(self.path)
        body = self.rfile.read(size if answer.takes is None else answer.takes)
        upstream.requests.append(Request(self.command, self.path, dict(self.headers), body, time.time()))
        if answer.takes is not None or answer.hang_up:
            self.close_connection = True
        elif answer.status is not None:
            self._send(answer.status, answer.body, answer)
        else:
            upstream.files[self.path] = body[: answer.stores]
            etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}  # noqa: S324
            self._send(HTTPStatus.OK, b"", replace(answer, headers={**etag, **answer.headers}))

    def _handle(self, body: bytes) -> None:
        upstream = self.server.upstream
        upstream.requests.append(Request(self.command, self.path, dict(self.headers), body, time.time()))
        answer = upstream.next_answer(self.path)
        upstream.stopping.wait(answer.delay)
        if answer.hang_up:
            self.close_connection = True
        elif answer.status is not None:
            self._send(answer.status, answer.body, answer)
        elif self.command == "POST" and self.path in LOGIN_PATHS:
            self._login(body, answer)
        elif self.command == "POST" and self.path == ASK:
            self._give_an_address(body, answer)
        else:
            self._download(answer)

    def _login(self, body: bytes, answer: Answer) -> None:
        upstream = self.server.upstream
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if upstream.refuse_logins is not None:
            self._send_json(upstream.refuse_logins, {"detail": "Logins are refused."}, answer)
        elif (form.get("username"), form.get("password")) != (upstream.user, upstream.password):
            self._send_json(HTTPStatus.UNAUTHORIZED, {"detail": "Invalid username/password."}, answer)
        else:
            token = secrets.token_hex(20)
            upstream.tokens.add(token)
            self._send_json(HTTPStatus.OK, {"token": token, "username": upstream.user, "email": ""}, answer)

    def _give_an_address(self, body: bytes, answer: Answer) -> None:
        upstream = self.server.upstream
        if self.headers.get("Authorization", "").partition(" ")[2] not in upstream.tokens:
            self._send_json(HTTPStatus.UNAUTHORIZED, {"detail": "Invalid token."}, answer)
        else:
            given = json.dumps(upstream.give(json.loads(body))).encode()
            self._send(HTTPStatus.OK, given, answer, "application/json")

    def _download(self, answer: Answer) -> None:
        upstream = self.server.upstream
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Token" or token not in upstream.tokens:
            self._send_json(HTTPStatus.UNAUTHORIZED, {"detail": "Invalid token."}, answer)
        elif self.command != "GET" or self.path not in upstream.files:
            self._send_json(HTTPStatus.NOT_FOUND, {"detail": "Not found."}, answer)
        elif not answer.whole and self._asks_for_a_part():
            self._send_part(upstream.files[self.path], answer)
        else:
            self._send(HTTPStatus.OK, upstream.files[self.path], answer)

    def _asks_for_a_part(self) -> bool:
        """RFC 9110, 13.1.5: only of what is still the same."""
        tag, wanted = self.server.upstream.tags.get(self.path), self.headers.get("If-Range")
        return "Range" in self.headers and (wanted is None or wanted == tag)

    def _send_part(self, content: Union[bytes, Path], answer: Answer) -> None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        first, end = (
            int(each) if each else len(data) - 1 for each in self.headers["Range"][len("bytes=") :].split("-")
        )
        there = f"{first}-{end}" if first < len(data) else "*"
        status = HTTPStatus.PARTIAL_CONTENT if first < len(data) else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        headers = {"Content-Range": f"bytes {there}/{len(data)}", **answer.headers}
        self._send(status, data[first : end + 1], replace(answer, headers=headers))

    def _send_json(self, status: int, fields: Mapping[str, str], answer: Answer) -> None:
        self._send(status, json.dumps(fields).encode(), answer, "application/json")

    def _send(
        self, status: int, content: Union[bytes, Path], answer: Answer, kind: str = "application/octet-stream"
    ) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self.send_response(status)
        tag = self.server.upstream.tags.get(self.path)
        for name, value in {"Content-Type": kind, **({"ETag": tag} if tag else {}), **answer.headers}.items():
            self.send_header(name, value)
        if not answer.endless:
            self.send_header("Content-Length", str(size if answer.length is None else answer.length))
        if answer.endless or answer.cut is not None or answer.length is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
            self._send_body(source, answer)

    def _send_body(self, source: BinaryIO, answer: Answer) -> None:
        if answer.cut is None:
            shutil.copyfileobj(source, self.wfile)
        else:
            self.wfile.write(source.read(answer.cut))
        while answer.endless and not self.server.upstream.stopping.is_set():
            self.wfile.write(b"\0" * 65536)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: `requests` is the log."""


def main() -> None:
    """Serve a folder's files until the program is ended; the first line on stdout is JSON: url, user, password."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="FOLDER/a/b.png is served at /a/b.png")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    options = parser.parse_args()
    with Upstream(port=options.port) as upstream:
        for file in options.folder.rglob("*"):
            if file.is_file():
                upstream.add(f"/{file.relative_to(options.folder).as_posix()}", file)
        print(json.dumps({"url": upstream.url, "user": upstream.user, "password": upstream.password}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
