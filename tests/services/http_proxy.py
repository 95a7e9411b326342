"""A small forward proxy on loopback, as a site has one between its nodes and the world: CONNECT, and whole addresses."""

from __future__ import annotations

import base64
import http.client
import select
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Optional
from urllib.parse import urlsplit

_OWN = ("proxy-authorization", "proxy-connection", "connection", "transfer-encoding")


class HttpProxy:
    """`hosts`: names that only it knows, each with a port on loopback. Start it with `with`."""

    host = "127.0.0.1"

    def __init__(self, hosts: Mapping[str, int], user: str = "", password: str = "") -> None:
        self.hosts = hosts
        self.login = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""
        self.log: list[str] = []
        """As proxies log: the method, the address, our answer."""
        self.passed = b""
        """What went through tunnels."""
        self.refuse: Optional[int] = None
        """A status: the answer to everything."""
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{self.host}:{self.port}"

    def __enter__(self) -> HttpProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: HttpProxy) -> None:
        self.proxy = proxy
        super().__init__((proxy.host, 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ends that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_CONNECT(self) -> None:
        if not self._may_pass():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection(("127.0.0.1", self.server.proxy.hosts.get(host, int(port)))) as there:
            self._answer(200)
            self._tunnel(there)
        self.close_connection = True

    def do_GET(self) -> None:
        if not self._may_pass():
            return
        parts = urlsplit(self.path)
        port = self.server.proxy.hosts.get(parts.hostname or "", parts.port or 80)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        there = http.client.HTTPConnection("127.0.0.1", port)
        there.request(self.command, f"{parts.path}?{parts.query}".rstrip("?"), body, headers)
        answer = there.getresponse()
        content = answer.read()
        self._note(answer.status)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_OWN, "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_HEAD = do_GET

    def _may_pass(self) -> bool:
        proxy = self.server.proxy
        if proxy.refuse is not None:
            self._answer(proxy.refuse)
        elif proxy.login and self.headers.get("Proxy-Authorization") != proxy.login:
            self._answer(407)
        else:
            return True
        return False

    def _answer(self, status: int) -> None:
        self._note(status)
        self.send_response(status)
        if status != 200:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def _tunnel(self, there: socket.socket) -> None:
        ends = {self.connection: there, there: self.connection}
        while True:
            for ready in select.select(list(ends), [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                self.server.proxy.passed += data
                ends[ready].sendall(data)

    def _note(self, status: int) -> None:
        self.server.proxy.log.append(f"{self.command} {self.path} {status}")

    def log_message(self, format: str, *args: object) -> None:
        """Silent: `log` is the log."""
