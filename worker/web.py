"""One exchange over HTTP at a time: bounded in time and bytes, never redirected, never unpacked, by the proxy that the site
names and no other. The only importer of requests.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional, Protocol, Union

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from .causes import Server, cause_of, chain_of, host_of, hung_up, proxy_of, silent, unusable
from .errors import Advice, Transient
from .settings import Config
from .wire import Pace, pools

_PIECE = 1 << 20
"""Bytes in memory at a time."""
_BEGINNING = 4096
"""Bytes..."""
_SOON = 5.0
"""...that are waited for so many seconds."""
_AS_IT_IS = {"Accept-Encoding": "identity"}

logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # it logs what it also raises, with addresses and tracebacks


class Answer:
    """The head of an answer, and its body piece by piece as it came over the wire."""

    def __init__(self, answer: requests.Response, pace: Pace) -> None:
        self._answer, self._pace = answer, pace
        self.status: int = answer.status_code
        self.chunked = bool(self.all("Transfer-Encoding"))
        lengths = re.findall("[0-9]+", ",".join(self.all("Content-Length")))
        self.length: Optional[int] = int(lengths[0]) if lengths and not self.chunked else None

    def all(self, name: str) -> list[str]:
        """Each value of a header that may come more than once."""
        return list(self._answer.raw.headers.getlist(name))

    def header(self, name: str) -> str:
        return str(self._answer.headers.get(name, ""))

    def beginning(self) -> bytes:
        """Of its body, as much as comes soon; to be shown, so that what goes wrong is no matter."""
        self._pace.begin(_SOON)
        with contextlib.suppress(requests.RequestException, HTTPError, OSError, http.client.HTTPException):
            return bytes(self._answer.raw.read(_BEGINNING, decode_content=True))
        return b""

    def pieces(self) -> Iterator[bytes]:
        while piece := self._answer.raw.read(_PIECE, decode_content=False):
            yield piece


class Web:
    """A session: one connection for one exchange after the other with the same host."""

    def __init__(self, config: Config) -> None:
        site = config.site
        self._settings, self._api_url, self._ca_file = site.api, config.credentials.api_url, config.ca_file
        # Where one wait may take as long as a pass, all of them together still must not.
        total = self._settings.connect_timeout + 2 * self._settings.read_timeout
        self._total = min(total, site.timing.lease_expires / 2)
        self._pace = Pace(self._settings.connect_timeout, self._settings.read_timeout)
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = config.ca_file or True
        self._session.proxies = {"http": site.api.proxy, "https": site.api.proxy} if site.api.proxy else {}
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._pace, _proxy_login(config)))

    @contextlib.contextmanager
    def exchange(
        self, method: str, url: str, form: Optional[Mapping[str, str]] = None, token: str = "", body: bool = False,
        headers: Optional[Mapping[str, str]] = None, content: Optional[Content] = None,
    ) -> Iterator[Answer]:  # fmt: skip
        """Until the answer is there, or with `body` its head, only so much time may pass; with `content`, since its last piece
        was sent. Raises Transient, and what `content` raises."""
        self._pace.begin(self._total)
        auth = _Token(token) if token else _no_auth
        try:
            answer = self._session.request(
                method, url, data=form if content is None else self._sent(content), headers={**_AS_IT_IS, **(headers or {})},
                auth=auth, allow_redirects=False, stream=True,
                timeout=(self._settings.connect_timeout, self._settings.read_timeout),
            )  # fmt: skip
        except (requests.RequestException, HTTPError, OSError) as error:
            raise self._away(url, error) from None
        with answer:
            if body:
                self._pace.begin_body(self._settings.least_rate)
            try:
                yield Answer(answer, self._pace)
            except (requests.RequestException, HTTPError) as error:  # an OSError is our own disk's
                raise self._away(url, error) from None

    def _sent(self, content: Content) -> Union[_Sent, bytes]:
        """Nothing at all is sent as such: an empty iterator would go without a length."""
        return _Sent(content, lambda: self._pace.begin(self._total)) if len(content) else b""

    def _away(self, url: str, error: Exception) -> Transient:
        """The text of the exception may hold the URL with whatever it carries, so it is not shown."""
        server, proxy = host_of(url, self._api_url), proxy_of(self._settings.proxy)
        if proxy and (self._pace.at_proxy or self._pace.failed or isinstance(error, requests.exceptions.ProxyError)):
            server = proxy
        cause = self._cause(server, error)
        return Transient(cause.found, fix=cause.fix)

    def _cause(self, server: Server, error: Exception) -> Advice:
        if server.tls and (trouble := unusable(self._ca_file)):
            return trouble
        if self._pace.failed:
            step, what = self._pace.failed
            return step(server, what)
        if self._pace.why:
            return Advice(f"{server} {self._pace.why}", server.fix_odd)
        return _of_http(server, error) or cause_of(server, error) or Advice(
            f"{server} can't be reached ({type(error).__name__})", server.fix_port)  # fmt: skip


class Content(Protocol):
    """A body to send: its length in bytes, and its pieces."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class _Sent:
    """Told with each piece that things move."""

    def __init__(self, content: Content, moves: Callable[[], None]) -> None:
        self._content, self._moves = content, moves

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._content:
            self._moves()
            yield piece
        self._moves()


class _Token(AuthBase):
    """Adds the token; an object, because `trust_env=False` and this keep ~/.netrc from replacing it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Token {self._token}"
        return request


class _Session(requests.Session):
    """Leaves redirects to us. `allow_redirects=False` alone would still read a redirect's whole body into memory."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(HTTPAdapter):
    """Gives requests our own connections, and the proxy its login, which stands in no address."""

    def __init__(self, pace: Pace, proxy_login: Mapping[str, str]) -> None:
        self._pools, self._proxy_login = pools(pace), dict(proxy_login)
        super().__init__()

    def init_poolmanager(self, *sizes: Any, **more: Any) -> None:
        super().init_poolmanager(*sizes, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *proxy: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*proxy, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        return self._proxy_login


def _proxy_login(config: Config) -> dict[str, str]:
    user, password = config.credentials.proxy_user, config.credentials.proxy_password.reveal()
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {login}"} if user else {}


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


# --- in words


_HUNG_UP = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
_ODD = {
    http.client.IncompleteRead: "cut its answer off",
    http.client.BadStatusLine: "speaks no HTTP there",
    http.client.LineTooLong: "sent a line without an end",
    http.client.HTTPException: "sent an answer that can't be read",
}
_FIX_PROXY_LOGIN = "Set PROXY_USER and PROXY_PASSWORD in credentials.env to our login there"
_FIX_PROXY = "Ask who runs the proxy whether it may let us through"


def _of_http(server: Server, error: Exception) -> Optional[Advice]:
    """What the other side did. Only libraries' words that can hold no secret are among it."""
    chain = list(chain_of(error))
    if any(isinstance(each, _HUNG_UP) for each in chain):
        return hung_up(server)
    for kind, words in _ODD.items():
        if any(isinstance(each, kind) for each in chain):
            return Advice(f"{server} {words}", server.fix_odd)
    if any(isinstance(each, socket.timeout) for each in chain):
        return silent(server)  # of anything but TLS's handshake the pace has told
    # http.client has what a proxy says of a CONNECT in a text only.
    refused = [re.match(r"Tunnel connection failed: ([0-9]{3})", str(each)) for each in chain]
    for status in (match.group(1) for match in refused if match):
        if status == "407":
            return Advice(f"{server} asks for a user and a password", _FIX_PROXY_LOGIN)
        return Advice(f"{server} does not let us through (HTTP {status})", _FIX_PROXY)
    return None
