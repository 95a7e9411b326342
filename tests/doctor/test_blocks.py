"""What init asks on a terminal is tried at once, and asked again where it is refused."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable

import pytest

from tests.services.upstream import Upstream
from worker.errors import Transient
from worker.install.answers import API, BROKER, NotGiven, as_variables, complete
from worker.install.blocks import ask_block, log_in_at_api, log_in_at_broker
from worker.settings import Credentials

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    def getpass(prompt: str) -> str:
        print(prompt, end="", file=sys.stderr)
        return sys.stdin.readline().rstrip("\n")

    monkeypatch.setattr("getpass.getpass", getpass)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


def answer(monkeypatch: pytest.MonkeyPatch, lines: Iterable[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


class Broker:
    """Lets in who has this password."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.tried: list[tuple[Credentials, str]] = []

    def __call__(self, credentials: Credentials, ca_file: str) -> None:
        self.tried.append((credentials, ca_file))
        if credentials.rabbitmq_password.reveal() != self.password:
            raise Transient("the broker refuses our user or password", fix="Correct it in credentials.env")


def test_vhost_and_tls_are_asked_in_words(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    answer(monkeypatch, ["mq.example.org", "", "", "ours", "me", "right"])
    broker = Broker("right")

    given = ask_block(BROKER, {}, {}, "the broker", broker)

    ((credentials, _),) = broker.tried
    assert (credentials.rabbitmq_vhost, credentials.rabbitmq_tls, credentials.rabbitmq_port) == ("ours", True, 5671)
    assert as_variables(given)["RABBITMQ_TLS"] == "true"
    shown = capsys.readouterr().err
    assert (
        "rabbitmq_tls: whether the way to it is encrypted (TLS), yes or no; yes, unless it is on this machine [yes]: "
        in shown
    )
    assert "rabbitmq_vhost: the virtual host, the part of the broker that our queues are in [/]: " in shown
    assert shown.endswith("Trying the broker ...\nThe broker lets us in.\n")


def test_what_is_refused_is_asked_again_with_what_was_answered_before(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    answer(monkeypatch, ["mq", "no", "", "", "me", "canary", "", *[""] * 5, "right", "/ca.pem"])
    broker = Broker("right")

    given = ask_block(BROKER, {}, {}, "the broker", broker)

    shown = capsys.readouterr().err
    assert [ca_file for _, ca_file in broker.tried] == ["", "/ca.pem"] and given["ca_file"] == "/ca.pem"
    assert [each.rabbitmq_tls for each, _ in broker.tried] == [False, False]
    assert "No: the broker refuses our user or password.\n" in shown
    assert "our user there [me]: " in shown and "our password there [the same]: " in shown and "canary" not in shown


@pytest.mark.parametrize("ends", [["no"], []])
def test_who_wants_goes_on_with_what_is_refused(monkeypatch: pytest.MonkeyPatch, ends: list[str]) -> None:
    answer(monkeypatch, ["mq", "", "", "", "me", "wrong", *ends])
    broker = Broker("right")

    given = ask_block(BROKER, {}, {}, "the broker", broker)

    assert len(broker.tried) == 1 and given["rabbitmq_password"] == "wrong"


def test_an_answer_that_can_not_be_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    answer(monkeypatch, ["mq:5671", "mq", "perhaps", "yes", "77777", "5671", "", "me", "right"])

    given = ask_block(BROKER, {}, {}, "the broker", Broker("right"))

    assert (given["rabbitmq_host"], given["rabbitmq_tls"], given["rabbitmq_port"]) == ("mq", "yes", "5671")
    shown = capsys.readouterr().err
    for words in ("is a host's name alone", "must be yes or no", "must be a port number"):
        assert f"It {words}" in shown


def test_what_is_given_is_not_asked(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    answer(monkeypatch, ["", "", "", "right"])

    ask_block(BROKER, {"rabbitmq_host": "localhost", "rabbitmq_user": "me"}, {}, "the broker", Broker("right"))

    shown = capsys.readouterr().err
    assert "rabbitmq_host:" not in shown and "on this machine [no]: " in shown


def test_a_closed_port_and_an_unreadable_ca_file_are_sentences(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    given = {"rabbitmq_host": "127.0.0.1", "rabbitmq_port": "1", "rabbitmq_user": "me", "rabbitmq_password": "x"}
    for more in ({"rabbitmq_tls": "no"}, {"rabbitmq_tls": "yes", "ca_file": "/no/such.pem"}):
        answer(monkeypatch, ["", "no"])
        ask_block(BROKER, {**given, **more}, {}, "the broker", log_in_at_broker)

    shown = capsys.readouterr().err
    assert "No: the broker can't be reached or refused: " in shown
    assert "No: ca_file can't be used: No such file or directory." in shown


def test_the_api_is_tried_too(monkeypatch: pytest.MonkeyPatch, capsys: Said, upstream: Upstream) -> None:
    answer(monkeypatch, [upstream.url, upstream.user, "wrong", "yes", "", "", upstream.password, ""])

    given = ask_block(API, {}, {}, "the API", log_in_at_api)

    shown = capsys.readouterr().err
    assert "No: the API refuses our user or password (HTTP 401)." in shown and "The API lets us in." in shown
    assert given["api_url"] == upstream.url


def test_without_a_terminal_all_that_is_wrong_is_named() -> None:
    with pytest.raises(NotGiven, match="rabbitmq_tls: must be yes or no; rabbitmq_port: must be a port number"):
        complete(
            BROKER,
            {each.name: "x" for each in BROKER},
            {},
            asks=False,
        )
