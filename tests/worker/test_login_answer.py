"""What an API says to a login is understood, and shown without a secret."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.services.upstream import LOGIN_PATHS, Answer, Upstream
from tests.worker.examples import config_for
from worker.api import Api
from worker.errors import LoginRefused, Transient
from worker.login_answer import said_in
from worker.settings import ApiSettings

PASSWORD = "p&ss w\u00f6rd+1"
DJANGO = b'{"non_field_errors":["Unable to log in with provided credentials."]}'


def refused(folder: Path, answer: Answer, username_field: str = "username") -> Transient:
    with Upstream() as upstream:
        for path in LOGIN_PATHS:
            upstream.script(path, answer)
        config = config_for(
            folder, upstream.url, "mary", PASSWORD, changes={"api": ApiSettings(username_field=username_field)}
        )
        with pytest.raises(Transient) as fault:
            Api(config).authenticate()
    return fault.value


@pytest.mark.parametrize(("status", "body", "words"), [
    (400, DJANGO, 'it says "Unable to log in with provided credentials."'),
    (400, b'{"error": "invalid_grant"}', 'it says "invalid_grant"'),
    (422, b'{"detail": "Wrong password"}', 'it says "Wrong password"'),
    (403, b"CSRF failed", 'it says "CSRF failed"'),
    (401, b"", "(HTTP 401)"),
])  # fmt: skip
def test_a_login_that_is_refused_by_its_credentials_is_one(
    tmp_path: Path, status: int, body: bytes, words: str
) -> None:
    error = refused(tmp_path, Answer(status=status, body=body))

    assert isinstance(error, LoginRefused) and words in error.found
    assert error.fix == "Correct API_USER and API_PASSWORD in credentials.env"


@pytest.mark.parametrize("body", [
    b"Bad Request", b"", b'{"detail": "Malformed header"}', b"<html><h1>400</h1><a href=x>login</a></html>",
])  # fmt: skip
def test_another_400_is_no_refused_login(tmp_path: Path, body: bytes) -> None:
    error = refused(tmp_path, Answer(status=400, body=body))

    assert not isinstance(error, LoginRefused) and "login_path" in error.fix


def test_a_login_that_calls_its_user_otherwise_is_told_which_setting_says_so(tmp_path: Path) -> None:
    body = b'{"email": ["This field is required."], "username": ["Unknown field."]}'

    asked = refused(tmp_path, Answer(status=400, body=body))
    said = refused(tmp_path, Answer(status=400, body=body), username_field="email")

    assert not isinstance(asked, LoginRefused) and 'Set username_field = "email" in [api]' in asked.fix
    assert 'Set username_field = "username"' in said.fix


def test_the_fields_of_a_login_are_called_as_the_site_file_says(tmp_path: Path) -> None:
    with Upstream() as upstream:
        settings = ApiSettings(username_field="email", password_field="secret")
        config = config_for(tmp_path, upstream.url, "mary", PASSWORD, changes={"api": settings})
        with pytest.raises(Transient):
            Api(config).authenticate()

        assert upstream.requests[0].body.decode() == f"email=mary&secret={quote_plus(PASSWORD)}"


@pytest.mark.parametrize("body", [
    f"no: {PASSWORD}", json.dumps({"you said": [PASSWORD]}), f"username=mary&password={quote_plus(PASSWORD)}",
    "<p>p&amp;ss w&ouml;rd+1</p>", json.dumps(PASSWORD),
])  # fmt: skip
def test_what_is_shown_holds_no_password(body: str) -> None:
    shown = said_in(body.encode(), PASSWORD)

    assert "***" in shown and "rd+1" not in shown


def test_what_is_shown_is_short_and_on_one_line_and_holds_no_token() -> None:
    shown = said_in(b"\x1b[31mBack\r\nsoon\xe2\x80\xae " + b"a" * 40 + b" word" * 100, "")

    assert shown.startswith("[31mBack soon *** word") and len(shown) == 100 and shown.isprintable()


@pytest.mark.parametrize(("body", "words"), [
    (b'{"access": "eyJhbGciOi", "refresh": "x"}', "the answer holds no token, it holds access, refresh"),
    (b"[]", "the answer holds no token"), (b"<html>", "the answer holds no token, it is a web page"),
])  # fmt: skip
def test_an_answer_without_a_token_is_described_without_its_values(tmp_path: Path, body: bytes, words: str) -> None:
    error = refused(tmp_path, Answer(status=200, body=body))

    assert error.found == f"login at the API: {words}"
