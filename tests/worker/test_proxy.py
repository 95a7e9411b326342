"""The way through an HTTP proxy that the site names: whole addresses for plain HTTP, CONNECT for TLS, no secret on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.certificates import Certificates
from tests.services.daemon import free_ports
from tests.services.http_proxy import HttpProxy
from tests.services.raw import Clock, RawServer
from tests.services.upstream import Upstream
from tests.worker.examples import CREDENTIALS, SITE, config_for, download, read
from worker.api import Api
from worker.errors import Misconfigured, Transient
from worker.job.spec import Input
from worker.settings import ApiSettings, Config, Seconds, Secret

NAME = "service.example.org"
"""Nobody but the proxy knows it."""
USER, PASSWORD = "site", "proxy-canary:\u00e9"


def config(folder: Path, upstream: Upstream, url: str, proxy: str, ca_file: str = "") -> Config:
    settings = ApiSettings(proxy=proxy, read_timeout=Seconds(30))
    made = config_for(folder, url, upstream.user, upstream.password, changes={"api": settings, "ca_file": ca_file})
    login = {"proxy_user": USER, "proxy_password": Secret(PASSWORD)}
    return replace(made, credentials=replace(made.credentials, **login))  # type: ignore[arg-type]


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[HttpProxy]:
    with HttpProxy({NAME: upstream.port}, USER, PASSWORD) as running:
        yield running


@pytest.fixture
def plain(tmp_path: Path, upstream: Upstream, proxy: HttpProxy) -> Config:
    return config(tmp_path, upstream, f"http://{NAME}", proxy.url)


def fetched(given: Config, path: str, token: str, folder: Path) -> bytes:
    source = Input(given.credentials.api_url + path, "", True)
    download(Api(given), source, token, folder / "input", 1 << 20)
    return (folder / "input").read_bytes()


def test_login_and_inputs_go_through_the_proxy(
    plain: Config, upstream: Upstream, proxy: HttpProxy, tmp_path: Path
) -> None:
    upstream.add("/a?b=1", b"a page")

    token = Api(plain).authenticate()

    assert fetched(plain, "/a?b=1", token, tmp_path) == b"a page"
    assert proxy.log == [f"POST http://{NAME}/api/auth/token/ 200", f"GET http://{NAME}/a?b=1 200"]
    assert not [name for request in upstream.requests for name in request.headers if name.startswith("Proxy")]


def test_with_tls_the_proxy_learns_the_host_and_nothing_else(
    tmp_path: Path, upstream_tls: Upstream, certificates: Certificates
) -> None:
    upstream_tls.add("/uploads/a-page", b"a page")
    with HttpProxy({}, USER, PASSWORD) as proxy:
        address = f"localhost:{upstream_tls.port}"
        given = config(tmp_path, upstream_tls, f"https://{address}", proxy.url, str(certificates.ca))

        token = Api(given).authenticate()

        assert fetched(given, "/uploads/a-page", token, tmp_path) == b"a page"
    assert proxy.log == [f"CONNECT {address} 200"] * 2
    for secret in (upstream_tls.password, token, "/uploads/a-page", "operator"):
        assert secret.encode() not in proxy.passed
    assert not [name for request in upstream_tls.requests for name in request.headers if name.startswith("Proxy")]


def test_a_certificate_is_looked_at_behind_the_proxy_too(tmp_path: Path, upstream_tls: Upstream) -> None:
    with HttpProxy({}, USER, PASSWORD) as proxy:
        given = config(tmp_path, upstream_tls, f"https://localhost:{upstream_tls.port}", proxy.url)

        with pytest.raises(Transient, match="can't be reached: its certificate is not trusted here"):
            Api(given).authenticate()
    assert upstream_tls.requests == []


@pytest.mark.parametrize(("status", "words"), [
    (403, "the proxy does not let us through (HTTP 403)"), (407, "the proxy asks for a user and a password"),
    (502, "the proxy does not let us through (HTTP 502)"),
])  # fmt: skip
def test_a_proxy_that_refuses_a_tunnel_is_named(
    tmp_path: Path, upstream_tls: Upstream, status: int, words: str
) -> None:
    with HttpProxy({}) as proxy:
        proxy.refuse = status
        given = config(tmp_path, upstream_tls, f"https://localhost:{upstream_tls.port}", proxy.url)

        with pytest.raises(Transient) as fault:
            Api(given).authenticate()
    assert re.sub(r" at \S+:\d+", "", fault.value.found) == words and fault.value.fix


def test_a_proxy_that_refuses_our_login_is_named(plain: Config, proxy: HttpProxy) -> None:
    proxy.login = "Basic other"

    with pytest.raises(Transient, match="HTTP 407, a proxy asks for a user and a password"):
        Api(plain).authenticate()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_gone_is_named_and_nobody_goes_past_it(tmp_path: Path, upstream: Upstream, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{upstream.port}"
    given = config(tmp_path, upstream, url, f"http://127.0.0.1:{free_ports(1)[0]}")

    with pytest.raises(Transient) as fault:
        Api(given).authenticate()

    assert (
        re.fullmatch(r"the proxy at \S+:\d+ can't be reached \(connection refused\)", fault.value.found)
        and upstream.requests == []
    )


def test_a_proxy_that_drips_is_given_up_and_named(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("worker.wire.monotonic", clock)
    with RawServer(lambda: clock.drip(b"HTTP/1.1 200 OK")) as server:
        given = config(tmp_path, upstream, "https://localhost", server.url)
        timing = replace(given.site.timing, lease_expires=Seconds(20))

        with pytest.raises(Transient) as fault:
            Api(replace(given, site=replace(given.site, timing=timing))).authenticate()
    assert (
        fault.value.found.startswith("the proxy at 127.0.0.1:")
        and "gave no whole answer within 10 s" in fault.value.found
    )


@pytest.mark.parametrize("value", [
    "http://anna:canary@proxy:3128", "proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://proxy/x",
    "http://proxy:3128 ", "http://pro xy",
])  # fmt: skip
def test_a_proxy_that_is_no_address_or_holds_a_secret_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Misconfigured) as error:
        read(tmp_path, f'{SITE}\n[api]\nproxy = "{value}"\n')
    assert "api.proxy: " in str(error.value) and "canary" not in str(error.value)


@pytest.mark.parametrize("value", ["", "http://proxy", "http://proxy.example.org:3128/", "http://[::1]:3128"])
def test_a_proxy_and_its_login_are_read(tmp_path: Path, value: str) -> None:
    given = read(tmp_path, f'{SITE}\n[api]\nproxy = "{value}"\n', f"{CREDENTIALS}PROXY_USER=a\nPROXY_PASSWORD=b\n")

    assert given.site.api.proxy == value
    assert (given.credentials.proxy_user, given.credentials.proxy_password.reveal()) == ("a", "b")
    assert "<SECRET>" in repr(given.credentials.proxy_password)
