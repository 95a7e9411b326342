"""docs/api.md says of each status what the code makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.services.upstream import LOGIN_PATHS, Answer, Upstream
from tests.worker.examples import config_for
from worker.api import Api, TokenExpired
from worker.errors import LoginRefused, StepFailed, Transient
from worker.job.spec import Input
from worker.settings import ApiSettings

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([0-9, to]+|any other) \| (.+) \| (.+) \|$", re.MULTILINE)
OTHERS = (405, 409, 413, 418, 426)


def statuses(words: str) -> Iterator[int]:
    if words == "any other":
        yield from OTHERS
    elif "to" in words:
        yield from (500, 502, 503, 504, 511, 599)
    else:
        yield from map(int, words.split(", "))


SAID = {status: (login, an_input) for words, login, an_input in ROW.findall(PAGE) for status in statuses(words)}
MEANS = {
    "the site waits": Transient, "never followed": Transient, "refused": LoginRefused, "tried again": Transient,
    "final": StepFailed, "followed": StepFailed, "one fresh login": TokenExpired,
}  # fmt: skip


def kind(words: str) -> type[Exception]:
    return next(error for beginning, error in MEANS.items() if words.startswith(beginning))


@pytest.mark.parametrize("status", [status for status in SAID if status != 200])
def test_a_status_means_what_the_page_says(status: int, tmp_path: Path) -> None:
    login, an_input = SAID[status]
    elsewhere = {"Location": "http://elsewhere.example.org/"} if 300 < status < 400 else {}
    body = b"Wrong password" if status in (400, 422) else b""
    with Upstream() as upstream:
        for path in (*LOGIN_PATHS, "/a"):
            upstream.script(path, Answer(status=status, headers=elsewhere, body=body))
        api = Api(config_for(tmp_path, upstream.url))

        with pytest.raises(Transient) as of_login:
            api.authenticate()
        with pytest.raises((Transient, StepFailed, TokenExpired)) as of_input:
            api.look("a", Input(f"{upstream.url}/a", "", True), "token")

    assert of_login.type is kind(login) and of_input.type is kind(an_input)
    if an_input.startswith("final: "):
        assert an_input.partition(": ")[2] in str(of_input.value)


def test_the_page_knows_each_status_that_the_code_tells_apart_and_the_usual_times() -> None:
    usual = ApiSettings()

    assert {200, 202, 203, 301, 308, 400, 401, 403, 404, 407, 408, 410, 421, 422, 425, 429, 451, 500, 511} <= set(SAID)
    times = [
        float(each) for each in (usual.connect_timeout, usual.read_timeout, usual.least_rate, usual.fetch_patience)
    ]
    assert times == [10, 60, 100, 600]
    assert "| 130 s | both" in PAGE and f"POST {usual.login_path} " in PAGE
