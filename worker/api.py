"""The upstream web API: authenticate and download. The only importer of requests.

Facts: the wire contract of the existing service (`POST /api/auth/token/`, form-encoded; `Authorization: Token <token>`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic, time
from typing import Optional
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase

from .errors import LoginRefused, StepFailed, Transient
from .settings import Config
from .spec import Input, may_fetch

_PIECE = 1 << 20
"""Bytes in memory at a time."""
_LOGIN_SECONDS = 60.0
_REDIRECTS = 5
_AS_IT_IS = {"Accept-Encoding": "identity"}
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)


class TokenExpired(Exception):
    """The API no longer takes this token: authenticate again, once."""


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


class Api:
    """One session with the upstream service."""

    def __init__(self, config: Config) -> None:
        self._settings = config.site.api
        self._credentials = config.credentials
        self._timeout = (self._settings.connect_timeout, self._settings.read_timeout)
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = config.ca_file or True

    def authenticate(self) -> str:
        """A token. Raises LoginRefused or Transient."""
        form = {"username": self._credentials.api_user, "password": self._credentials.api_password.reveal()}
        url = self._credentials.api_url + self._settings.login_path
        with self._answer("POST", url, data=form, headers=_AS_IT_IS) as answer:
            if answer.status_code in (401, 403):
                mend = "mend API_USER, API_PASSWORD in credentials.env"
                raise LoginRefused(f"the API refuses our user or password (HTTP {answer.status_code}): {mend}")
            if answer.status_code != 200:
                raise Transient(f"login at the API: HTTP {answer.status_code}", _retry_after(answer))
            try:
                token = json.loads(_small(answer))["token"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise Transient("login at the API: the answer holds no token") from None
        if not isinstance(token, str) or not token.isprintable() or not token.isascii() or not token:
            raise Transient("login at the API: the token in the answer can't be used")
        return token

    def download(self, name: str, source: Input, token: str, target: Path, most: int) -> int:
        """Streams one input to `target`; returns its size in bytes, `most` at the most.

        Raises Transient, TokenExpired, or StepFailed where trying again would change nothing.
        """
        with self._opened(name, source, token) as answer:
            return _save(name, answer, target, most, self._settings.unknown_length)

    def look(self, name: str, source: Input, token: str) -> None:
        """Opens one input and reads its beginning. Raises what `download` raises."""
        with self._opened(name, source, token) as answer:
            next(answer.iter_content(1), b"")

    def clock_ahead(self) -> Optional[float]:
        """By how many seconds the API's clock is ahead of ours; None where it does not say. Raises Transient."""
        before = time()
        with self._answer("HEAD", self._credentials.api_url) as answer:
            said, after = answer.headers.get("Date", ""), time()
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            # It says whole seconds; what the way there and back took is nobody's fault.
            theirs = parsedate_to_datetime(said).timestamp()
            return min(theirs + 1 - before, 0.0) or max(theirs - after, 0.0)
        return None

    @contextlib.contextmanager
    def _opened(self, name: str, source: Input, token: str) -> Iterator[requests.Response]:
        url, with_token = source.url, source.with_token
        for _ in range(_REDIRECTS):
            auth = _Token(token) if with_token else None
            with self._answer("GET", url, auth=auth, headers=_AS_IT_IS) as answer:
                if not answer.is_redirect:
                    _check(name, answer, with_token)
                    yield answer
                    return
                url = _joined(url, answer.headers["Location"])
            if not may_fetch(url, self._credentials.api_url, self._settings.input_hosts):
                raise StepFailed("fetch", f'The input "{name}" was redirected to an address that is not allowed here.')
            with_token = with_token and may_fetch(url, self._credentials.api_url, ())
        raise StepFailed("fetch", f'The input "{name}" was redirected more than {_REDIRECTS} times.')

    @contextlib.contextmanager
    def _answer(
        self, method: str, url: str, auth: Optional[AuthBase] = None, **more: object
    ) -> Iterator[requests.Response]:
        try:
            answer = self._session.request(
                method,
                url,
                auth=auth or _no_auth,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
                **more,
            )
        except requests.exceptions.SSLError:
            raise Transient("the API's certificate is not trusted here (ca_file, SSL_CERT_FILE)") from None
        except (requests.RequestException, OSError) as error:
            raise _away(error) from None
        with answer:
            try:
                yield answer
            except requests.RequestException as error:  # an OSError is our own disk's
                raise _away(error) from None


def _away(error: Exception) -> Transient:
    """The text of the exception may hold the URL with whatever it carries; the class name is enough."""
    return Transient(f"the API can't be reached ({type(error).__name__})")


def _joined(url: str, location: str) -> str:
    """Where a redirect leads to; "" for what is no address."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _check(name: str, answer: requests.Response, with_token: bool) -> None:
    status = answer.status_code
    if status == 200:
        return
    if status in _MAY_PASS or status >= 500:
        raise Transient(f"HTTP {status}", _retry_after(answer))
    if status in (401, 403) and with_token:
        raise TokenExpired
    what = {404: "does not exist", 410: "no longer exists", 401: "may not be read by this service",
            403: "may not be read by this service"}.get(status, f"could not be downloaded (HTTP {status})")  # fmt: skip
    raise StepFailed("fetch", f'The input "{name}" {what}.')


def _small(answer: requests.Response) -> bytes:
    """A body that is surely small; one that is not, or that drips, is no answer. Raises Transient."""
    end, body = monotonic() + _LOGIN_SECONDS, b""
    for piece in answer.iter_content(4096):
        body += piece
        if len(body) > _PIECE or monotonic() > end:
            raise Transient("login at the API: the answer has no end")
    return body


def _save(name: str, answer: requests.Response, target: Path, most: int, unknown_length: bool) -> int:
    length = answer.headers.get("Content-Length", "")
    expected = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    if expected is None and not unknown_length and answer.headers.get("Transfer-Encoding") != "chunked":
        raise Transient("the answer does not say how long it is (api.unknown_length in the site file)")
    too_large = StepFailed("fetch", f'The input "{name}" is larger than what one job may bring.')
    if expected is not None and expected > most:
        raise too_large
    size = 0
    with open(target, "wb") as file:
        for piece in answer.iter_content(_PIECE):
            size += len(piece)
            if size > most:
                raise too_large
            file.write(piece)
    received = answer.raw.tell()  # as it came over the wire, before any decoding
    if expected is not None and expected != received:
        raise Transient(f"the answer was cut off after {received} of {expected} bytes")
    return size


def _retry_after(answer: requests.Response) -> float:
    """Seconds, from a number or an HTTP date; 0 where there is none."""
    value = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    return 0.0
