"""Takes secrets out of a text: those that are known, in the forms in which they could stand there, and what looks like one."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

HIDDEN = "<SECRET>"
SECRET_NAME = re.compile(
    r"(?i)passw|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization|cookie|bearer"
)
# Repetitions are bounded: a log may have a word of 200,000 letters, and each of them may begin a match.
_ASSIGNED = re.compile(
    rf"(?i)([\w-]{{0,40}}(?:{SECRET_NAME.pattern[4:]})[\w-]{{0,40}}[\"']?\s*[:=]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}\]]+(?: [A-Za-z0-9+/=._-]{16,})?)"
)
_OPTION = re.compile(
    rf"(?i)((?<![\w-])--?[\w-]{{0,40}}(?:{SECRET_NAME.pattern[4:]})[\w-]{{0,40}}[\"',]*\s+)(\"[^\"\n]*\"|'[^'\n]*'|\S+)"
)
_SENT = re.compile(r"(?i)\b(token|bearer|basic) +[A-Za-z0-9+/=._~-]{8,}")
_IN_URL = re.compile(r"(://)[^/\s\"']{0,300}@")
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL)
_SHORTEST_LINE = 8
"""Of a secret of several lines each line is hidden by itself too, from this length."""


class Hider:
    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for piece in _pieces(secret) for form in _forms(piece)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        text = _IN_URL.sub(rf"\1{HIDDEN}@", _KEY.sub(HIDDEN, text))
        text = _SENT.sub(rf"\1 {HIDDEN}", text)
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
        return _OPTION.sub(rf"\1{HIDDEN}", text)


def _pieces(secret: str) -> Iterator[str]:
    if secret.strip():
        yield secret
    lines = [line.strip() for line in secret.splitlines()]
    yield from (line for line in lines if line != secret and (len(line) >= _SHORTEST_LINE or len(lines) == 1 and line))


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as a URL, a form, JSON, Python, HTML, a shell, hexadecimal digits or base64 have it."""
    data = secret.encode("utf-8", "surrogateescape")
    quoted = {quote(data), quote(data, safe=""), quote_plus(data)}
    yield from quoted
    yield from (re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in quoted)
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    yield from (html.escape(secret), html.escape(secret, quote=False), shlex.quote(secret))
    yield from (data.hex(), data.hex().upper())
    for before in range(3):
        # Inside of a longer text, base64 of the same bytes has three faces; the characters at the edges are mixed.
        encoded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        whole = encoded[(before * 8 + 5) // 6 : len(encoded) - (1 if (before + len(data)) % 3 else 0)]
        if len(whole) >= 6:
            yield from (whole, whole.replace("+", "-").replace("/", "_"))
