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
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional, Protocol, Union
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from .errors import Transient
from .settings import Config
from .wire import Pace, pools

_PIECE = 1 << 20
"""Bytes in memory at a time."""
_AS_IT_IS = {"Accept-Encoding": "identity"}

logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # it logs what it also raises, with addresses and tracebacks


class Answer:
    """The head of an answer, and its body piece by piece as it came over the wire."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer
        self.status: int = answer.status_code
        self.chunked = bool(self.all("Transfer-Encoding"))
        lengths = re.findall("[0-9]+", ",".join(self.all("Content-Length")))
        self.length: Optional[int] = int(lengths[0]) if lengths and not self.chunked else None

    def all(self, name: str) -> list[str]:
        """Each value of a header that may come more than once."""
        return list(self._answer.raw.headers.getlist(name))

    def header(self, name: str) -> str:
        return str(self._answer.headers.get(name, ""))

    def pieces(self) -> Iterator[bytes]:
        while piece := self._answer.raw.read(_PIECE, decode_content=False):
            yield piece


class Web:
    """A session: one connection for one exchange after the other with the same host."""

    def __init__(self, config: Config) -> None:
        site = config.site
        self._settings, self._api_host = site.api, urlsplit(config.credentials.api_url).hostname
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
                yield Answer(answer)
            except (requests.RequestException, HTTPError) as error:  # an OSError is our own disk's
                raise self._away(url, error) from None

    def _sent(self, content: Content) -> Union[_Sent, bytes]:
        """Nothing at all is sent as such: an empty iterator would go without a length."""
        return _Sent(content, lambda: self._pace.begin(self._total)) if len(content) else b""

    def _away(self, url: str, error: Exception) -> Transient:
        """The text of the exception may hold the URL with whatever it carries, so it is not shown."""
        host = urlsplit(url).hostname
        who = "the API" if host == self._api_host else f"the host {host}"
        if self._pace.at_proxy or isinstance(error, requests.exceptions.ProxyError):
            who = "the proxy"
        return Transient(f"{who} {self._pace.why or _words(error)}")


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


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    """The error and what it came of, as three libraries pass it on."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            left += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


_WORDS = {
    ssl.SSLCertVerificationError: "can't be reached: its certificate is not trusted here",
    http.client.RemoteDisconnected: "hung up without an answer",
    http.client.IncompleteRead: "cut its answer off",
    http.client.BadStatusLine: "speaks no HTTP there",
    http.client.LineTooLong: "sent a line without an end",
    http.client.HTTPException: "sent an answer that can't be read",
    socket.timeout: "gave no answer in time",
}


def _words(error: Exception) -> str:
    """What the other side did. Only libraries' words that can hold no secret are among it."""
    chain = list(_chain(error))
    for kind, words in _WORDS.items():
        if any(isinstance(each, kind) for each in chain):
            return words
    for reason in (each.reason for each in chain if isinstance(each, ssl.SSLError) and each.reason):
        return f"can't be spoken to over TLS ({reason.lower().replace('_', ' ')})"
    # http.client has what a proxy says of a CONNECT in a text only.
    refused = [re.match(r"Tunnel connection failed: ([0-9]{3})", str(each)) for each in chain]
    for status in (match.group(1) for match in refused if match):
        return "asks for a user and a password" if status == "407" else f"does not let us through (HTTP {status})"
    strings = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    return f"can't be reached ({strings[0].lower() if strings else type(error).__name__})"
