"""The upstream web API: authenticate and download.

Facts: the wire contract of the existing service (`POST /api/auth/token/`, form-encoded; `Authorization: Token <token>`).
What a status means is RFC 9110's word, section 15, and RFC 6585's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from time import time
from typing import Optional
from urllib.parse import urlsplit

from .content import (
    NotWhole,
    UnknownCoding,
    coding_of,
    is_page,
    range_of,
    redirected,
    unpacked,
    validator_of,
)
from .errors import LoginRefused, StepFailed, Transient
from .job.spec import Input, may_fetch
from .login_answer import other_field, said_in, speaks_of_credentials, token_in
from .partial import Partial, too_large
from .settings import Config
from .web import Answer, Web

_FIX_LOGIN = "Correct API_USER and API_PASSWORD in credentials.env"
_FIX_URL = "Correct API_URL in credentials.env"
_FIX_PATH = "Is login_path in [api] of site.toml right? Else ask the service's administrators"
_FIX_STAYS = "If it stays so, ask the service's administrators"
_LARGEST_LOGIN = 1 << 20
"""Bytes."""
_REDIRECTS = 5
_LEADS_ELSEWHERE = (301, 302, 303, 307, 308)
_OF_A_PART = (206, 416)
_MAY_PASS = (202, 408, 421, 425, 429)
_WORDS = {
    202: "the service is still preparing it", 407: "a proxy asks for a user and a password",
    429: "the service asks for time", 511: "the network there asks for a login",
}  # fmt: skip
_FINAL = {
    203: "was changed on its way by a proxy", 401: "may not be read by this service",
    403: "may not be read by this service", 404: "does not exist", 410: "no longer exists",
    451: "may not be given out, for legal reasons",
}  # fmt: skip


class TokenExpired(Exception):
    """The API no longer takes this token: authenticate again, once. The text says, for the requester, what it is if the
    next one is not taken either."""


class Api:
    """One session with the upstream service."""

    def __init__(self, config: Config) -> None:
        self._settings = config.site.api
        self._credentials = config.credentials
        self._web = Web(config)

    def authenticate(self) -> str:
        """A token. Raises LoginRefused or Transient."""
        c, s = self._credentials, self._settings
        form = {s.username_field: c.api_user, s.password_field: c.api_password.reveal()}
        url = c.api_url + s.login_path
        with self._web.exchange("POST", url, form=form) as answer:
            if answer.status != 200:
                raise _no_login(url, answer, form, c.api_password.reveal())
            body = _small(answer)
        return token_in(body)

    def download(self, part: Partial, token: str) -> int:
        """Streams what is not here yet of one input to its file; returns its size in bytes.

        Raises Transient, after which it goes on where it was cut off, if the server can; TokenExpired; Stopped; OSError; or
        StepFailed where trying again would change nothing.
        """
        if not part.is_whole:
            with self._content(part.name, part.source, token, part) as pieces, part.open() as file:
                for piece in pieces:
                    part.write(file, piece)
        part.check()
        return part.size

    def look(self, name: str, source: Input, token: str) -> None:
        """Opens one input and reads its beginning. Raises what `download` raises."""
        with self._content(name, source, token) as pieces:
            next(pieces, b"")

    def clock_ahead(self) -> Optional[float]:
        """By how many seconds the API's clock is ahead of ours; None where it does not say. Raises Transient."""
        before = time()
        with self._web.exchange("HEAD", self._credentials.api_url) as answer:
            theirs, after = _seconds(answer.header("Date")), time()
        if theirs is None:
            return None
        # It says whole seconds; what the way there and back took is nobody's fault.
        return min(theirs + 1 - before, 0.0) or max(theirs - after, 0.0)

    @contextlib.contextmanager
    def _content(
        self, name: str, source: Input, token: str, part: Optional[Partial] = None
    ) -> Iterator[Iterator[bytes]]:
        """What an input is made of, or with `part` what of it is not here yet: unpacked, and no web page instead. It raises
        after its last piece where it is not whole; its size is still to be looked at."""
        with self._opened(name, source, token, part.asks if part else {}) as (answer, url):
            coding = _coding(name, answer)
            if part and answer.status == 416:
                part.nothing_follows(range_of(answer.header("Content-Range")))
                yield iter(())
                return
            if part and answer.status == 206:
                same = not coding and part.fits(answer.all("ETag"))
                part.go_on(range_of(answer.header("Content-Range")) if same else None)
                yield _whole(name, answer, coding, part.room.most, True)
                return
            pieces = _whole(name, answer, coding, part.room.most if part else None, self._settings.unknown_length)
            first = next(pieces, b"")
            if is_page(answer.header("Content-Type"), first, source.url, url != source.url):
                words = f'Instead of the input "{name}" came a web page, most likely one that asks for a login.'
                if source.with_token:
                    raise TokenExpired(words)
                raise StepFailed("fetch", words)
            if part:
                part.begin(None if coding else answer.length, "" if coding else _validator(answer))
            yield _joined(first, pieces)

    @contextlib.contextmanager
    def _opened(self, name: str, source: Input, token: str, asks: Mapping[str, str]) -> Iterator[tuple[Answer, str]]:
        """The answer that is no redirect, and where it came from. `asks`: headers, for a part of it."""
        url, with_token = source.url, source.with_token
        for _ in range(_REDIRECTS):
            with self._web.exchange("GET", url, token=token if with_token else "", body=True, headers=asks) as answer:
                if answer.status not in _LEADS_ELSEWHERE or not answer.all("Location"):
                    if not (asks and answer.status in _OF_A_PART):
                        _check(name, answer, with_token)
                    yield answer, url
                    return
                url = redirected(url, answer.all("Location"))
            if not self._may_lead_to(url, source):
                lost = url.startswith("http:") and source.url.startswith("https:")
                where = "an address without encryption, which" if lost else "an address that"
                raise StepFailed("fetch", f'The input "{name}" was redirected to {where} is not allowed here.')
            with_token = with_token and may_fetch(url, self._credentials.api_url, ())
        raise StepFailed("fetch", f'The input "{name}" was redirected more than {_REDIRECTS} times.')

    def _may_lead_to(self, url: str, source: Input) -> bool:
        if source.hosts:
            return may_fetch(url, "", source.hosts)
        return may_fetch(url, self._credentials.api_url, self._settings.input_hosts)


def _check(name: str, answer: Answer, with_token: bool) -> None:
    status = answer.status
    if status == 200:
        return
    if status in _MAY_PASS or status == 407 or status >= 500:
        raise Transient(_said(answer), _retry_after(answer))
    if status in (401, 403) and with_token:
        raise TokenExpired(f'The input "{name}" {_FINAL[status]}.')
    raise StepFailed("fetch", f'The input "{name}" {_FINAL.get(status, f"could not be downloaded (HTTP {status})")}.')


def _validator(answer: Answer) -> str:
    if answer.header("Accept-Ranges").strip().lower() == "none":
        return ""
    modified = answer.header("Last-Modified")
    return validator_of(answer.all("ETag"), _seconds(modified), modified, _seconds(answer.header("Date")))


def _said(answer: Answer) -> str:
    words = _WORDS.get(answer.status)
    return f"HTTP {answer.status}{f', {words}' if words else ''}"


def _no_login(url: str, answer: Answer, form: Collection[str], secret: str) -> Transient:
    """A login is sent elsewhere most often to https, or to the host's other name; it is never followed with a password."""
    status, found, fix = answer.status, f"login at the API: {_said(answer)}", _FIX_PATH
    parts = urlsplit(redirected(url, answer.all("Location")))
    if status in _LEADS_ELSEWHERE and parts.hostname and "@" not in parts.netloc:
        return Transient(f"{found}, it sends us to {parts.scheme}://{parts.netloc}", _retry_after(answer), _FIX_URL)
    body = answer.beginning()
    words = said_in(body, secret)
    says = f', it says "{words}"' if words else ""
    other = other_field(body, form) if status in (400, 422) else ""
    if other:
        fix = f'Set username_field = "{other}" in [api] of site.toml, if that is how its login calls our user'
        return Transient(f"{found}, it asks for {other}{says}", _retry_after(answer), fix)
    if status in (401, 403) or (status in (400, 422) and speaks_of_credentials(body)):
        return LoginRefused(f"the API refuses our user or password (HTTP {status}){says}", fix=_FIX_LOGIN)
    if status == 407:
        fix = "Set PROXY_USER and PROXY_PASSWORD in credentials.env to our login there"
    elif status in _WORDS or status in _MAY_PASS or status >= 500:
        fix = _FIX_STAYS
    return Transient(f"{found}{says}", _retry_after(answer), fix)


def _small(answer: Answer) -> bytes:
    """A body that is surely small; one that is not is no answer. Raises Transient."""
    body = b""
    try:
        coding = coding_of(answer.all("Content-Encoding"))
        for piece in unpacked(answer.pieces(), coding) if coding else answer.pieces():
            body += piece
            if len(body) > _LARGEST_LOGIN:
                raise Transient("login at the API: the answer has no end")
    except (NotWhole, UnknownCoding) as error:
        raise Transient(f"login at the API: the answer can't be read ({error})") from None
    return body


def _coding(name: str, answer: Answer) -> str:
    try:
        return coding_of(answer.all("Content-Encoding"))
    except UnknownCoding as error:
        words = (
            f'The input "{name}" came packed in a way ("{error}") that nobody asked for and that can\'t be undone here.'
        )
        raise StepFailed("fetch", words) from None


def _whole(name: str, answer: Answer, coding: str, most: Optional[int], unknown_length: bool) -> Iterator[bytes]:
    """The content. Raises Transient after its last piece where it can't be shown to be whole."""
    if answer.length is None and not answer.chunked and not coding and not unknown_length:
        raise Transient("the answer does not say how long it is")
    if most is not None and (answer.length or 0) > most:
        raise too_large(name)
    received = _Counted(name, answer, most)
    try:
        yield from unpacked(received.pieces(), coding) if coding else received.pieces()
    except NotWhole as error:
        raise Transient(f"the answer was cut off or damaged: {error}") from None


class _Counted:
    """The bytes on the wire: of a packed content they may be many for nothing."""

    def __init__(self, name: str, answer: Answer, most: Optional[int]) -> None:
        self._name, self._answer, self._most = name, answer, most

    def pieces(self) -> Iterator[bytes]:
        received, expected = 0, self._answer.length
        for piece in self._answer.pieces():
            received += len(piece)
            if self._most is not None and received > self._most:
                raise too_large(self._name)
            yield piece
        if expected is not None and expected != received:
            raise Transient(f"the answer was cut off after {received} of {expected} bytes")


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _retry_after(answer: Answer) -> float:
    """Seconds, from a number or an HTTP date, by the clock of whoever sent it; 0 where there is none."""
    value = answer.header("Retry-After").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    until, now = _seconds(value), _seconds(answer.header("Date"))
    return max(0.0, until - (time() if now is None else now)) if until is not None else 0.0


def _seconds(date: str) -> Optional[float]:
    """Since 1970, of any of the three forms of an HTTP date: always GMT, even where it does not say so."""
    with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
        when = parsedate_to_datetime(date)
        return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
    return None
