"""Whoever takes the outputs of a job over HTTP: small answers, redirects that keep a body, and the token to the API alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from ..content import range_of, redirected
from ..errors import Transient
from ..job.spec import may_fetch
from ..settings import Config
from ..web import Answer, Content, Web

_PIECE = 1 << 18
"""Bytes: each has to leave within the time to connect."""
_LARGEST = 1 << 20
"""Bytes of an answer that are read."""
_REDIRECTS = 5
_LEADS_ELSEWHERE = (307, 308)
"""The only ones that keep the method and the body (RFC 9110, 15.4)."""
_MAY_PASS = (408, 421, 423, 425, 429)
"""423: a tus server keeps an upload locked for a while whose connection was cut, and says so to who goes on with it."""


class Refused(Exception):
    """For good. The text ends a sentence for the requester, and holds no address."""


class AskAgain(Exception):
    """The address has expired, or the upload is forgotten (`forgotten`): another address has to be asked for."""

    def __init__(self, why: str, forgotten: bool = False) -> None:
        super().__init__(why)
        self.forgotten = forgotten


@dataclass(frozen=True)
class Said:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status in (200, 201, 202, 204)

    def raise_for(self) -> None:
        """For an answer that is no success. Raises Transient, AskAgain, or Refused."""
        status = self.status
        if status in _MAY_PASS or status >= 500:
            raise Transient(f"the receiver answered HTTP {status}")
        if status in (401, 403) or (status == 400 and b"ExpiredToken" in self.body):
            raise AskAgain(f"HTTP {status}")
        if status in (404, 410):
            raise AskAgain(f"HTTP {status}", forgotten=True)
        raise Refused(f"its receiver refused it (HTTP {status})")


class FilePart(Content):
    """Of a file, `size` bytes from `start` on. `go_on`: called before each piece; what it raises ends the sending."""

    def __init__(self, path: Path, start: int, size: int, go_on: Callable[[], None]) -> None:
        self._path, self._start, self._size, self._go_on = path, start, size, go_on

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Raises Refused where the file is not as long as it was, and OSError."""
        left = self._size
        with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            file.seek(self._start)
            while left:
                self._go_on()
                piece = file.read(min(_PIECE, left))
                if not piece:
                    raise Refused("it has been changed since it was made")
                left -= len(piece)
                yield piece

    def md5(self) -> bytes:
        """What Content-MD5 and an ETag of S3 are made of. Raises as reading does."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self:
            digest.update(piece)
        return digest.digest()


class InMemory(Content):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        yield self._body


class Receivers:
    """One session with all of them."""

    def __init__(self, config: Config) -> None:
        self._web = Web(config)
        self._api_url, self._hosts = config.credentials.api_url, config.site.results.output_hosts
        self.token = ""

    def exchange(
        self, method: str, url: str, headers: Optional[Mapping[str, str]] = None, content: Optional[Content] = None
    ) -> Said:
        """Raises Refused for an address that is not allowed, Transient, and what `content` raises."""
        for _ in range(_REDIRECTS):
            if not may_fetch(url, self._api_url, self._hosts):
                raise Refused("its receiver named an address that is not allowed here")
            token = self.token if may_fetch(url, self._api_url, ()) else ""
            with self._web.exchange(method, url, token=token, headers=headers, content=content) as answer:
                if answer.status not in _LEADS_ELSEWHERE or not answer.all("Location"):
                    return Said(answer.status, _headers(answer), b"" if method == "HEAD" else _small(answer))
                url = redirected(url, answer.all("Location"))
        raise Refused(f"its receiver redirected it more than {_REDIRECTS} times")

    def length_of(self, url: str) -> Optional[int]:
        """How many bytes are there, by a GET of the first: a presigned address may be for no other method. None where that
        can't be told. Raises Transient."""
        if not may_fetch(url, self._api_url, self._hosts):
            return None
        token = self.token if may_fetch(url, self._api_url, ()) else ""
        with self._web.exchange("GET", url, token=token, headers={"Range": "bytes=0-0"}, body=True) as answer:
            if answer.status == 206:
                part = range_of(answer.header("Content-Range"))
                return part.total if part else None
            if answer.status == 416:
                part = range_of(answer.header("Content-Range"))
                return part.total if part else 0
            return answer.length if answer.status == 200 and not answer.header("Content-Encoding") else None


def _headers(answer: Answer) -> Mapping[str, str]:
    names = ("Location", "Upload-Offset", "ETag")
    return {name: answer.header(name) for name in names if answer.header(name)}


def _small(answer: Answer) -> bytes:
    """Its beginning, where it has no end."""
    body = b""
    for piece in answer.pieces():
        body += piece
        if len(body) > _LARGEST:
            break
    return body
