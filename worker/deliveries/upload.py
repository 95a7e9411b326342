"""One output to where its requester wants it: asks for the address when it is needed, and sends by what the answer says.

The answer to the ask is one of `{"tus": url}`, `{"put": url, "headers": {...}}`, `{"s3": {"parts": [url, ...], "part_bytes":
n, "complete": url}}`, each with "get" (what the reply carries) and "upload" (a word that the next ask for it sends back).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Protocol

from ..errors import Transient
from ..job.facts import Sent
from ..job.outcome import Output
from ..settings import Config
from .receiver import AskAgain, FilePart, InMemory, Receivers, Refused, Said

_ASKS = 3
"""In one go: where each answer has expired by the time that it is used, something else is wrong."""
_LONGEST = 8192


@dataclass(frozen=True)
class Parcel:
    """One output on its way. `note`: keeps how far it is; `go_on`: called while it is sent, what it raises ends that."""

    job_id: str
    attempt: int
    name: str
    output: Output
    path: Path
    note: Callable[[Sent], None]
    go_on: Callable[[], None]

    def part(self, start: int, size: int) -> FilePart:
        return FilePart(self.path, start, size, self.go_on)


class Way(Protocol):
    """How bytes reach a receiver."""

    def send(self, receivers: Receivers, parcel: Parcel, given: Mapping[str, Any], sent: Sent) -> Sent:
        """What is not there yet. `given`: what the ask was answered. Raises Refused, AskAgain, Transient, OSError."""


class Uploads:
    """All outputs of one job. `authenticate`: gives a token of the API; `ways`: by the word in the answer to an ask."""

    def __init__(self, config: Config, authenticate: Callable[[], str], ways: Mapping[str, Way]) -> None:
        self._receivers = Receivers(config)
        self._ask_at = config.credentials.api_url + config.site.results.ask
        self._authenticate, self._ways = authenticate, ways

    def send(self, parcel: Parcel, sent: Sent) -> Sent:
        """Returns when it has arrived. Raises Refused; Transient, after which it goes on from where its receiver is; and
        OSError."""
        noted = sent

        def note(sent: Sent) -> None:
            nonlocal noted
            noted = sent
            parcel.note(sent)

        for _ in range(_ASKS):
            given = self._ask(parcel, noted)
            note(replace(noted, upload=_text(given, "upload", noted.upload), get=_text(given, "get", noted.get)))
            way = next((word for word in self._ways if word in given), "")
            if not way:
                raise Refused("its receiver offers no way that is known here")
            try:
                return self._ways[way].send(self._receivers, replace(parcel, note=note), given, noted)
            except AskAgain as again:
                if again.forgotten:
                    note(replace(noted, place="", parts={}))
        raise Transient("the receiver does not take what it has given addresses for")

    def _ask(self, parcel: Parcel, sent: Sent) -> Mapping[str, Any]:
        output = parcel.output
        asked = {
            "job": parcel.job_id, "attempt": parcel.attempt, "output": parcel.name, "file": output.file,
            "bytes": output.size, "sha256": output.sha256, "content_type": output.type, "upload": sent.upload or None,
        }  # fmt: skip
        said = self._with_token(InMemory(json.dumps(asked).encode()))
        if not said.ok:
            try:
                said.raise_for()
            except AskAgain:
                raise Refused(f"its receiver gave no address for it (HTTP {said.status})") from None
        try:
            given = json.loads(said.body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise Transient("the answer to an ask for an address can't be read")
        return given

    def _with_token(self, content: InMemory) -> Said:
        """A token may have expired since: one fresh login tells."""
        fresh = not self._receivers.token
        if fresh:
            self._receivers.token = self._authenticate()
        headers = {"Content-Type": "application/json"}
        said = self._receivers.exchange("POST", self._ask_at, headers, content)
        if said.status in (401, 403) and not fresh:
            self._receivers.token = ""
            return self._with_token(content)
        return said


def _text(given: Mapping[str, Any], name: str, before: str) -> str:
    said = given.get(name, before)
    if not isinstance(said, str) or len(said) > _LONGEST or not said.isprintable():
        raise Refused("the answer to an ask for its address can't be used")
    return said


def address(given: object) -> str:
    """An address that an ask was answered. Raises Refused."""
    if (
        not isinstance(given, str)
        or not given
        or len(given) > _LONGEST
        or not given.isprintable()
        or not given.isascii()
    ):
        raise Refused("the answer to an ask for its address can't be used")
    return given
