"""What an API answers to a login: its token, or why there is none. What is shown of it holds no secret. Pure.

Facts: what Django REST framework's `obtain_auth_token` sends: 200 with `token`; 400 with `non_field_errors`, also for a wrong
password; 400 with the names of fields that are missing.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from .errors import Transient

_FIX_TOKEN = "Is login_path in [api] of site.toml right? Else ask the service's administrators"
_CREDENTIALS = re.compile(
    r"credential|password|log[ _-]?in|sign[ _-]?in|authenticat|invalid_grant|user[ _-]?name|account|non_field_errors",
    re.I,
)
_CALLS_A_USER = ("username", "email", "user", "login", "user_name", "name")
_MOST_SHOWN = 100
_LIKE_A_TOKEN = re.compile(r"[\w+/=.~-]{24,}")
_MOST_NAMES = 5


def token_in(body: bytes) -> str:
    """Raises Transient."""
    table = _parsed(body)
    if not isinstance(table, dict) or "token" not in table:
        what = ""
        if body.lstrip().startswith(b"<"):
            what = ", it is a web page"
        elif isinstance(table, dict) and table:
            names = [_clean(str(name)) for name in list(table)[:_MOST_NAMES]]
            what = f", it holds {', '.join(name[:20] for name in names)}"
        raise Transient(f"login at the API: the answer holds no token{what}", fix=_FIX_TOKEN)
    token = table["token"]
    if not isinstance(token, str) or not token.isprintable() or not token.isascii() or not token:
        raise Transient("login at the API: the token in the answer can't be used", fix=_FIX_TOKEN)
    return token


def speaks_of_credentials(body: bytes) -> bool:
    """Whether a 400 is about our user or password, and not about the request."""
    return not body.lstrip().startswith(b"<") and _CREDENTIALS.search(body.decode("utf-8", "replace")) is not None


def other_field(body: bytes, form: Collection[str]) -> str:
    """How the service calls a user whom we called otherwise, by the fault it finds; empty where it does not say."""
    table = _parsed(body)
    names = [str(each) for each in table] if isinstance(table, dict) else []
    return next((name for name in _CALLS_A_USER if name in names and name not in form), "")


def said_in(body: bytes, secret: str) -> str:
    """The beginning of what it says, on one line; without our password, and without what looks like a token."""
    table = _parsed(body)
    text = " ".join(_texts(table)) if isinstance(table, (dict, list)) else body.decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<[^>]*>?", " ", text)
    for form in {secret, quote(secret), quote_plus(secret), html.escape(secret), json.dumps(secret)[1:-1]} - {""}:
        text = text.replace(form, "***")
    text = _LIKE_A_TOKEN.sub("***", _clean(html.unescape(text)))
    text = text.replace(secret, "***") if secret else text
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _texts(value: Any, deep: int = 0) -> Iterator[str]:
    if isinstance(value, (dict, list)) and deep < 5:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each, deep + 1)
    elif isinstance(value, str):
        yield value


def _clean(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
