"""Inputs come over real HTTP, from a service that misbehaves; the token goes to nobody else."""

from __future__ import annotations

import errno
import os
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.services.certificates import Certificates
from tests.services.raw import RawServer
from tests.services.upstream import Answer, Upstream
from tests.worker.examples import SPEC, config_for, download
from worker.api import Api
from worker.errors import LoginRefused, StepFailed, Transient
from worker.in_job.fetch import fetch
from worker.job.spec import Input, JobSpec
from worker.settings import ApiSettings, Config, Limits, Seconds

LOGIN = "/api/auth/token/"
PATIENCE = Seconds(0.2)


class Job:
    """One job that fetches its inputs from `upstream`."""

    def __init__(self, folder: Path, upstream: Upstream, **api: Any) -> None:
        self.folder = folder / "inputs"
        self.folder.mkdir()
        self.upstream = upstream
        self.token_file = folder / "token"
        settings = ApiSettings(**{"fetch_patience": PATIENCE, "read_timeout": Seconds(20), **api})
        self.config: Config = config_for(
            folder, upstream.url, upstream.user, upstream.password, changes={"api": settings}
        )
        self.token_file.write_text(Api(self.config).authenticate())
        upstream.requests.clear()

    def limit(self, input_bytes: int) -> Job:
        limits = Limits(input_bytes=input_bytes)
        self.config = replace(self.config, site=replace(self.config.site, limits=limits))
        return self

    def fetch(self, *paths: str, with_token: bool = True) -> list[bytes]:
        inputs = {f"Input {n}": Input(self.url(path), str(n), with_token) for n, path in enumerate(paths)}
        fetch(self.config, self.spec(inputs), self.token_file, self.folder)
        return [(self.folder / str(n)).read_bytes() for n in range(len(paths))]

    def failure(self, *paths: str, with_token: bool = True) -> StepFailed:
        with pytest.raises(StepFailed) as failed:
            self.fetch(*paths, with_token=with_token)
        assert failed.value.step == "fetch"
        return failed.value

    def url(self, path: str) -> str:
        return self.upstream.url + path if path.startswith("/") else path

    @staticmethod
    def spec(inputs: dict[str, Input]) -> JobSpec:
        return replace(SPEC, inputs=inputs)


@pytest.fixture
def job(tmp_path: Path, upstream: Upstream) -> Job:
    return Job(tmp_path, upstream)


@pytest.fixture
def other() -> Iterator[Upstream]:
    """Another host, as far as origins go; it gives `/x` to everybody, once."""
    with Upstream() as service:
        service.script("/x", Answer(status=200, body=b"from elsewhere"))
        yield service


def tokens_seen(upstream: Upstream) -> list[str]:
    return [request.headers.get("Authorization", "") for request in upstream.requests if request.method == "GET"]


def test_inputs_arrive_as_they_are(job: Job) -> None:
    contents = [b"", b"\0\xff" * 1000, os.urandom(3 * 2**20)]
    for n, content in enumerate(contents):
        job.upstream.add(f"/{n}", content)
    token = job.token_file.read_text()

    assert job.fetch("/0", "/1", "/2") == contents
    assert tokens_seen(job.upstream) == [f"Token {token}"] * 3
    assert not job.token_file.exists(), "nobody needs the token any more"


def test_memory_does_not_grow_with_the_inputs(job: Job, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(40 * 2**20)
    job.upstream.add("/large", tmp_path / "large")

    tracemalloc.start()
    try:
        received = fetched_size(job, "/large")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert received == 40 * 2**20
    assert most < 10 * 2**20


def fetched_size(job: Job, path: str) -> int:
    fetch(job.config, job.spec({"Large": Input(job.url(path), "large", True)}), job.token_file, job.folder)
    return (job.folder / "large").stat().st_size


# --- the token


def test_a_token_that_expired_meanwhile_leads_to_one_fresh_login(job: Job) -> None:
    job.upstream.add("/a", b"a")
    job.upstream.add("/b", b"b")
    job.upstream.expire_tokens()

    assert job.fetch("/a", "/b") == [b"a", b"b"]
    assert job.upstream.paths("POST") == [LOGIN]
    assert sorted(job.upstream.paths())[-1] == "/b" and set(job.upstream.paths()) == {"/a", "/b"}


def test_a_missing_token_file_leads_to_a_login_too(job: Job) -> None:
    job.upstream.add("/a", b"a")
    job.token_file.unlink()

    assert job.fetch("/a") == [b"a"]


@pytest.mark.parametrize("status", [401, 403])
def test_an_input_that_a_fresh_token_does_not_open_is_not_for_us(job: Job, status: int) -> None:
    job.upstream.add("/a", b"a")
    job.upstream.script("/a", Answer(status=status), Answer(status=status), Answer(status=status))

    failure = job.failure("/a")

    assert failure.reason == 'The input "Input 0" may not be read by this service.' and not failure.may_work_again
    assert (job.upstream.paths("POST"), job.upstream.paths()) == ([LOGIN], ["/a", "/a"])


def test_a_login_that_is_refused_may_work_again_and_tells_no_secret(job: Job) -> None:
    job.upstream.add("/a", b"a")
    job.upstream.expire_tokens()
    job.upstream.refuse_logins = 401

    failure = job.failure("/a")

    assert failure.may_work_again and "the service's account was refused" in failure.reason
    assert job.upstream.password not in failure.reason


def test_the_token_is_ours_and_not_one_from_netrc(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login netrc password canary\ndefault login netrc password canary\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    job.upstream.add("/a", b"a")

    assert job.fetch("/a") == [b"a"]
    assert all(seen.startswith("Token ") for seen in tokens_seen(job.upstream))


def test_an_address_without_the_token_gets_none_from_netrc_either(
    tmp_path: Path, upstream: Upstream, other: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login netrc password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    job = Job(tmp_path, upstream, input_hosts=(other.url,))

    assert job.fetch(f"{other.url}/x", with_token=False) == [b"from elsewhere"]
    assert tokens_seen(other) == [""]


def test_no_proxy_from_the_environment_gets_to_see_the_token(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    job.upstream.add("/a", b"a")

    assert job.fetch("/a") == [b"a"]


# --- redirects


def to(location: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_api_s_own_host_keeps_the_token(job: Job, status: int) -> None:
    job.upstream.add("/b", b"b")
    job.upstream.script("/a", to("/b", status))

    assert job.fetch("/a") == [b"b"]
    assert all(seen.startswith("Token ") for seen in tokens_seen(job.upstream))


def test_a_redirect_to_another_host_is_refused_before_any_connection(job: Job, other: Upstream) -> None:
    job.upstream.script("/a", to(f"{other.url}/x"))

    failure = job.failure("/a")

    assert failure.reason == 'The input "Input 0" was redirected to an address that is not allowed here.'
    assert not failure.may_work_again and other.requests == []


def test_a_redirect_to_a_listed_host_leaves_the_token_behind(
    tmp_path: Path, upstream: Upstream, other: Upstream
) -> None:
    job = Job(tmp_path, upstream, input_hosts=(other.url,))
    upstream.script("/a", to(f"{other.url}/x"))

    assert job.fetch("/a") == [b"from elsewhere"]
    assert tokens_seen(other) == [""]


def test_a_listed_host_can_t_get_at_the_token_by_a_redirect_back(
    tmp_path: Path, upstream: Upstream, other: Upstream
) -> None:
    job = Job(tmp_path, upstream, input_hosts=(other.url,))
    upstream.add("/secret", b"canary")
    other.script("/y", to(f"{upstream.url}/secret"))

    failure = job.failure(f"{other.url}/y", with_token=False)

    assert "may not be read" in failure.reason
    assert tokens_seen(upstream) == [""]


@pytest.mark.parametrize("location", [
    "https://127.0.0.1/x", "//evil.example.org/x", "http://169.254.169.254/latest", "file:///etc/passwd", "ftp://127.0.0.1/x",
    "http://user:word@127.0.0.1/x", "http://[::1", "javascript:alert(1)",
])  # fmt: skip
def test_a_redirect_to_anything_else_is_refused(job: Job, location: str) -> None:
    job.upstream.script("/a", to(location))

    assert "was redirected to an address that is not allowed here" in job.failure("/a").reason


@pytest.mark.parametrize(("location", "path"), [
    ("/s\u00e9quence.png".encode().decode("latin-1"), "/s%C3%A9quence.png"), ("/s\u00e9.png", "/s%E9.png"),
    ("/a page.png#top", "/a%20page.png"), ("b.png?x=1", "/b.png?x=1"),
])  # fmt: skip
def test_a_redirect_leads_where_its_bytes_say(job: Job, location: str, path: str) -> None:
    job.upstream.add(path, b"found")
    job.upstream.script("/a", to(location))

    assert job.fetch("/a") == [b"found"]


def test_the_body_of_a_redirect_is_not_read(job: Job) -> None:
    job.upstream.add("/b", b"b")
    job.upstream.script("/a", replace(to("/b"), endless=True))

    assert job.fetch("/a") == [b"b"]


def test_a_circle_of_redirects_ends(job: Job) -> None:
    job.upstream.script("/a", *[to("/a")] * 20)

    assert job.failure("/a").reason == 'The input "Input 0" was redirected more than 5 times.'
    assert len(job.upstream.paths()) == 5


# --- faults that last


@pytest.mark.parametrize(("status", "words"), [
    (404, "does not exist"), (410, "no longer exists"), (400, "could not be downloaded (HTTP 400)"),
    (206, "could not be downloaded (HTTP 206)"), (204, "could not be downloaded (HTTP 204)"),
    (203, "was changed on its way by a proxy"), (205, "could not be downloaded (HTTP 205)"),
    (300, "could not be downloaded (HTTP 300)"), (302, "could not be downloaded (HTTP 302)"),
    (304, "could not be downloaded (HTTP 304)"), (305, "could not be downloaded (HTTP 305)"),
    (451, "may not be given out, for legal reasons"),
])  # fmt: skip
def test_a_fault_that_lasts_is_final_at_once(job: Job, status: int, words: str) -> None:
    job.upstream.script("/a", Answer(status=status))

    failure = job.failure("/a")

    assert failure.reason == f'The input "Input 0" {words}.' and not failure.may_work_again
    assert job.upstream.paths() == ["/a"]


@pytest.mark.parametrize("status", [300, 304, 305])
def test_only_a_redirect_is_followed(job: Job, status: int) -> None:
    job.upstream.script("/a", replace(to("/b"), status=status))

    assert f"could not be downloaded (HTTP {status})" in job.failure("/a").reason
    assert job.upstream.paths() == ["/a"]


# --- pages

LOGIN_PAGE = Answer(
    status=200, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<!DOCTYPE html><title>Log in</title>"
)
A_PAGE_CAME = 'Instead of the input "Input 0" came a web page, most likely one that asks for a login.'


def test_a_login_page_behind_a_redirect_is_named_after_one_fresh_login(job: Job) -> None:
    job.upstream.script("/uploads/5", *[to("/login/?next=/uploads/5")] * 3)
    job.upstream.script("/login/?next=/uploads/5", *[LOGIN_PAGE] * 3)

    failure = job.failure("/uploads/5")

    assert failure.reason == A_PAGE_CAME and not failure.may_work_again
    assert job.upstream.paths("POST") == [LOGIN] and len(job.upstream.paths()) == 4


def test_a_token_that_expired_may_show_by_a_login_page(job: Job) -> None:
    job.upstream.add("/a.png", b"\x89PNG")
    job.upstream.script("/a.png", to("/login/"))
    job.upstream.script("/login/", LOGIN_PAGE)

    assert job.fetch("/a.png") == [b"\x89PNG"]


def test_a_page_where_a_picture_was_asked_for_is_named(tmp_path: Path, upstream: Upstream, other: Upstream) -> None:
    job = Job(tmp_path, upstream, input_hosts=(other.url,))
    other.script("/x.png", LOGIN_PAGE)

    assert job.failure(f"{other.url}/x.png", with_token=False).reason == A_PAGE_CAME


def test_a_page_that_was_asked_for_is_an_input_like_any_other(job: Job) -> None:
    job.upstream.script("/a", to("/text.html"))
    job.upstream.script("/text.html", LOGIN_PAGE, LOGIN_PAGE)

    assert job.fetch("/text.html") == [LOGIN_PAGE.body]


def test_a_picture_that_is_said_to_be_a_page_is_a_picture(job: Job) -> None:
    job.upstream.add("/a.png", b"\x89PNG")
    job.upstream.script("/a.png", Answer(headers={"Content-Type": "text/html"}))

    assert job.fetch("/a.png") == [b"\x89PNG"]


# --- faults that may pass

PASSING = {
    "500": Answer(status=500), "503": Answer(status=503), "429": Answer(status=429), "408": Answer(status=408),
    "425": Answer(status=425), "202": Answer(status=202, body=b"being made"), "421": Answer(status=421),
    "407": Answer(status=407), "511": Answer(status=511), "hang up": Answer(hang_up=True), "half a body": Answer(cut=5),
    "a length that is too large": Answer(length=1000), "no body at all": Answer(cut=0),
}  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that downloads are tried again by: it stands still while something is done, so no machine is too slow."""
    made = Clock()
    for module in ("tenacity", "tenacity.nap"):
        monkeypatch.setattr(f"{module}.time", made)
    return made


class Clock:
    def __init__(self) -> None:
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def monotonic(self) -> float:
        return sum(self.waits)


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again(tmp_path: Path, upstream: Upstream, fault: str, clock: Clock) -> None:
    job = Job(tmp_path, upstream, fetch_patience=Seconds(10))
    job.upstream.add("/a", b"0123456789")
    job.upstream.script("/a", PASSING[fault])

    assert job.fetch("/a") == [b"0123456789"]
    assert job.upstream.paths() == ["/a", "/a"] and len(clock.waits) == 1


@pytest.mark.parametrize(("fault", "words"), [
    ("500", "HTTP 500"), ("hang up", "hung up without an answer"), ("half a body", "(the "),
])  # fmt: skip
def test_a_fault_that_does_not_pass_in_time_may_work_in_another_attempt(
    job: Job, fault: str, words: str, clock: Clock
) -> None:
    job.upstream.add("/a", b"0123456789")
    job.upstream.script("/a", *[PASSING[fault]] * 9)

    failure = job.failure("/a")

    assert failure.may_work_again and words in failure.reason
    assert 'The input "Input 0" could not be downloaded within 0.2 s' in failure.reason
    assert clock.monotonic() == pytest.approx(PATIENCE)


@pytest.mark.parametrize("status", [202, 429, 503])
def test_a_service_that_asks_us_to_wait_is_given_its_time(
    tmp_path: Path, upstream: Upstream, clock: Clock, status: int
) -> None:
    job = Job(tmp_path, upstream, fetch_patience=Seconds(60))
    upstream.add("/a", b"a")
    upstream.script("/a", Answer(status=status, headers={"Retry-After": "30"}))

    assert job.fetch("/a") == [b"a"]
    assert clock.waits == [30] and upstream.paths() == ["/a", "/a"]


def test_nobody_can_make_us_wait_longer_than_our_patience(job: Job, clock: Clock) -> None:
    job.upstream.script("/a", *[Answer(status=503, headers={"Retry-After": "86400"})] * 9)

    assert job.failure("/a").may_work_again
    assert clock.waits == [PATIENCE]


def test_a_service_that_is_silent_for_too_long_is_given_up(tmp_path: Path, upstream: Upstream) -> None:
    job = Job(tmp_path, upstream)
    api = replace(job.config.site.api, read_timeout=Seconds(0.2))
    job.config = replace(job.config, site=replace(job.config.site, api=api))
    upstream.add("/a", b"a")
    upstream.script("/a", *[Answer(delay=60)] * 9)

    assert "gave no answer for 0.2 s" in job.failure("/a").reason


def test_a_service_that_is_gone_may_be_back_for_another_attempt(job: Job) -> None:
    job.upstream.stop()

    failure = job.failure("/a")

    assert failure.may_work_again and "can't be reached (connection refused)" in failure.reason


# --- size and disk


def test_an_answer_that_never_ends_is_cut_at_the_limit(job: Job) -> None:
    job.limit(3 * 2**20)
    job.config = replace(
        job.config, site=replace(job.config.site, api=replace(job.config.site.api, unknown_length=True))
    )
    job.upstream.add("/a", b"")
    job.upstream.script("/a", Answer(endless=True))

    failure = job.failure("/a")

    assert failure.reason == 'The input "Input 0" is larger than what one job may bring.' and not failure.may_work_again
    assert (job.folder / "0").stat().st_size <= 3 * 2**20


def test_an_answer_that_announces_too_much_is_not_even_begun(job: Job) -> None:
    job.limit(1000)
    job.upstream.add("/a", b"x" * 500)
    job.upstream.script("/a", Answer(length=10 * 2**30))

    assert "larger than what one job may bring" in job.failure("/a").reason
    assert job.upstream.paths() == ["/a"]


def test_inputs_share_one_limit(job: Job) -> None:
    job.limit(10)
    job.upstream.add("/a", b"123456")
    job.upstream.add("/b", b"1234")
    job.upstream.add("/c", b"1")

    assert job.fetch("/a", "/b") == [b"123456", b"1234"]
    assert "is larger than what one job may bring" in job.failure("/a", "/b", "/c").reason


def test_a_disk_that_can_t_take_it_is_not_the_api_s_fault(job: Job) -> None:
    job.upstream.add("/a", b"a")
    job.folder.rmdir()

    failure = job.failure("/a")

    assert failure.reason == 'The input "Input 0" could not be stored (No such file or directory).'
    assert failure.may_work_again


def test_a_disk_that_is_away_when_the_token_goes_is_not_the_job_s_fault(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "unlink", away)

    with pytest.raises(StepFailed, match="Stale file handle") as failed:
        job.fetch()

    assert failed.value.may_work_again


def test_a_full_disk_is_not_the_api_s_fault(job: Job) -> None:
    job.upstream.add("/a", b"a" * 10**6)
    (job.folder / "0").symlink_to("/dev/full")

    failure = job.failure("/a")

    assert failure.reason == 'The input "Input 0" could not be stored (No space left on device).'


# --- login


def login(job: Job) -> Api:
    return Api(job.config)


def test_a_login_sends_a_form_and_gets_a_token(job: Job) -> None:
    token = login(job).authenticate()

    (request,) = job.upstream.requests
    assert token in job.upstream.tokens
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.body == f"username=operator&password={job.upstream.password}".encode()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_the_operator_s_to_mend(job: Job, status: int) -> None:
    job.upstream.refuse_logins = status

    with pytest.raises(LoginRefused, match=f"refuses our user or password \\(HTTP {status}\\)"):
        login(job).authenticate()


@pytest.mark.parametrize("answer", [
    Answer(status=500), Answer(status=302, headers={"Location": "/x"}), Answer(status=404), Answer(hang_up=True),
    Answer(status=200, body=b""), Answer(status=200, body=b"<html>"), Answer(status=200, body=b"[]"),
    Answer(status=200, body=b"{}"), Answer(status=200, body=b'{"token": 7}'), Answer(status=200, body=b'{"token": ""}'),
    Answer(status=200, body=b'{"token": null}'), Answer(status=200, body=b'{"token": "a\\nHost: x"}'),
    Answer(status=200, body=b'{"token": "\\u00e4"}'), Answer(status=200, body=b'"token"'),
])  # fmt: skip
def test_a_login_without_a_usable_token_may_work_later(job: Job, answer: Answer) -> None:
    job.upstream.script(LOGIN, answer)

    with pytest.raises(Transient) as error:
        login(job).authenticate()
    assert not isinstance(error.value, LoginRefused) and job.upstream.password not in str(error.value)


@pytest.mark.parametrize(("value", "least", "most"), [
    ("7", 7, 7), ("0", 0, 0), ("-1", 0, 0), ("soon", 0, 0), ("", 0, 0), ("\u00b2", 0, 0), ("1.5", 0, 0),
    ("in an hour", 3000, 3600), (formatdate(0, usegmt=True), 0, 0), (" 7 ", 7, 7),
    ("Sun Nov  6 08:49:37 1994", 0, 0), ("Sunday, 06-Nov-94 08:49:37 GMT", 0, 0),
    ("Fri, 31 Dec 99999 23:59:59 GMT", 0, 0),
])  # fmt: skip
def test_retry_after_is_a_number_or_a_date(job: Job, value: str, least: float, most: float) -> None:
    sent = formatdate(time.time() + 3600, usegmt=True) if value == "in an hour" else value
    job.upstream.script(LOGIN, Answer(status=503, headers={"Retry-After": sent}))

    with pytest.raises(Transient) as error:
        login(job).authenticate()
    assert least <= error.value.retry_after <= most


@pytest.mark.parametrize("until", [
    "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
])  # fmt: skip
def test_a_date_to_wait_for_is_read_by_the_clock_of_its_sender(tmp_path: Path, until: str) -> None:
    head = f"HTTP/1.1 503 X\r\nDate: Sun, 06 Nov 1994 08:49:00 GMT\r\nRetry-After: {until}\r\n\r\n"
    with RawServer(lambda: (head.encode(),)) as server, pytest.raises(Transient) as error:
        Api(config_for(tmp_path, server.url)).authenticate()

    assert error.value.retry_after == 37


# --- TLS


def test_a_private_ca_is_trusted_where_the_site_file_names_it(
    tmp_path: Path, upstream_tls: Upstream, certificates: Certificates
) -> None:
    config = config_for(tmp_path, upstream_tls.url, upstream_tls.user, upstream_tls.password,
                        changes={"ca_file": str(certificates.ca)})  # fmt: skip

    assert Api(config).authenticate() in upstream_tls.tokens


def test_a_certificate_that_is_not_trusted_ends_the_connection_before_the_password_is_sent(
    tmp_path: Path, upstream_tls: Upstream
) -> None:
    config = config_for(tmp_path, upstream_tls.url, upstream_tls.user, upstream_tls.password, changes={"ca_file": ""})

    with pytest.raises(Transient, match="can't be reached: its certificate is not trusted here"):
        Api(config).authenticate()
    assert upstream_tls.requests == []


def test_a_ca_file_that_is_missing_is_told(tmp_path: Path, upstream_tls: Upstream) -> None:
    config = config_for(tmp_path, upstream_tls.url, changes={"ca_file": str(tmp_path / "gone.pem")})

    with pytest.raises(Transient):
        Api(config).authenticate()


def test_a_redirect_that_loses_https_is_refused_and_no_token_goes_there(
    tmp_path: Path, upstream_tls: Upstream, certificates: Certificates, other: Upstream
) -> None:
    config = config_for(tmp_path, upstream_tls.url, upstream_tls.user, upstream_tls.password,
                        changes={"ca_file": str(certificates.ca)})  # fmt: skip
    upstream_tls.script("/a", to(f"{other.url}/x"), to(f"//127.0.0.1:{other.port}/x"))
    source = Input(f"{upstream_tls.url}/a", "", True)

    for words in ("an address without encryption, which is not allowed", "an address that is not allowed"):
        with pytest.raises(StepFailed, match=f"was redirected to {words} here"):
            download(Api(config), source, "token", tmp_path / "input", 1000)
    assert other.requests == []
