"""Who makes a queue that does not exist, and how; and what is said where that is not known."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
from pika import exceptions

from tests.both import OverRabbitMQ
from tests.worker.examples import config_for
from worker.amqp import Connection
from worker.amqp.making import Make, how_to_make, how_to_make_for_reply
from worker.amqp.trial import Seen, Trial
from worker.doctor.broker import _tell_queue
from worker.doctor.replies import try_making_reply_queues
from worker.doctor.report import Report
from worker.errors import Advice, Unroutable
from worker.job.outcome import Reply
from worker.settings import Credentials, Pattern, Queue, Replies, Secret
from worker.sources import QueueFault

CREDENTIALS = Credentials("mq", 5671, "u", Secret("p"), "/", True, "http://api", "u", Secret("p"))
REFUSED = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."


@pytest.mark.parametrize(("make", "durable", "how"), [
    (None, None, Make(False, {"x-a": 1}, unsaid=True)),  # as site files were when nothing had to be said
    (None, False, Make(False, {"x-a": 1})),
    (None, True, Make(True, {"x-a": 1})),
    (True, False, Make(False, {"x-a": 1})),
    (True, True, Make(True, {"x-a": 1})),
    (True, None, "Write durable = true under its name"),
    (False, None, "the service makes it (make = false)"),
    (False, True, "the service makes it (make = false)"),
])  # fmt: skip
def test_a_queue_is_made_only_where_the_site_file_says_so(
    make: Optional[bool], durable: Optional[bool], how: Any
) -> None:
    found = how_to_make(Queue("jobs", "w", make=make, durable=durable, arguments={"x-a": 1}))

    if isinstance(how, str):
        assert isinstance(found, Advice) and how in str(found)
    else:
        assert found == how


@pytest.mark.parametrize(("said", "how"), [(None, Make(False, unsaid=True)), (False, Make(False)), (True, Make(True))])
def test_a_reply_queue_is_made_as_the_site_file_says(said: Optional[bool], how: Make) -> None:
    assert how_to_make_for_reply(Replies(create_durable=said)) == how


class _Channel:
    """A broker's that has none of these queues, and does not make those that are not durable."""

    is_open = True

    def __init__(self, refuse: Callable[[], Exception]) -> None:
        self._refuse = refuse
        self.durable: list[bool] = []

    def queue_declare(self, name: str, passive: bool = False, durable: bool = False, **more: Any) -> Any:
        if passive:
            raise exceptions.ChannelClosedByBroker(404, f"NOT_FOUND - no queue '{name}'")
        self.durable.append(durable)
        if not durable:
            raise self._refuse()
        return None

    def basic_publish(self, *_: Any, **__: Any) -> None:
        raise exceptions.UnroutableError([])

    def close(self) -> None: ...


class _Connection:
    is_open = True

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def channel(self) -> _Channel:
        return self._channel


def broker_that_refuses(
    monkeypatch: pytest.MonkeyPatch, refuse: Callable[[], Exception], replies: Replies
) -> OverRabbitMQ:
    broker = OverRabbitMQ(CREDENTIALS, replies)
    make_it_refuse(monkeypatch, broker, refuse)
    return broker


def make_it_refuse(monkeypatch: pytest.MonkeyPatch, broker: object, refuse: Callable[[], Exception]) -> None:
    channel = _Channel(refuse)
    monkeypatch.setattr(broker, "_jobs_channel", lambda: channel)
    monkeypatch.setattr(Connection, "open", lambda _: _Connection(channel))
    monkeypatch.setattr(Connection, "confirming", lambda _: channel)


@pytest.mark.parametrize("durable", [None, False])
@pytest.mark.parametrize("error", [exceptions.ConnectionClosedByBroker, exceptions.ChannelClosedByBroker])
def test_a_broker_that_refuses_queues_that_are_not_durable_is_told_with_the_line_to_write(
    monkeypatch: pytest.MonkeyPatch, durable: Optional[bool], error: type
) -> None:
    broker = broker_that_refuses(monkeypatch, lambda: error(541, REFUSED), Replies())

    with pytest.raises(QueueFault, match="this broker refuses queues that are not durable. Write durable = true"):
        broker.waiting(Queue("jobs", "w", durable=durable))


def test_a_broker_that_is_stopped_just_then_is_away_and_no_fault_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = broker_that_refuses(
        monkeypatch, lambda: exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), Replies()
    )

    with pytest.raises(Exception, match="CONNECTION_FORCED") as raised:
        broker.waiting(Queue("jobs", "w", durable=False))
    assert not isinstance(raised.value, QueueFault)


@pytest.mark.parametrize("durable", [None, False])
def test_the_same_for_a_reply_queue(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, durable: Optional[bool]
) -> None:
    replies = Replies(create=(Pattern("*"),), create_durable=durable)
    broker = broker_that_refuses(monkeypatch, lambda: exceptions.ConnectionClosedByBroker(541, REFUSED), replies)

    with caplog.at_level(logging.WARNING), pytest.raises(Unroutable, match="Write create_durable = true"):
        broker.send(Reply("answers", "c", b"{}", "result", "m", 0, 60_000, {}))

    assert ("create_durable" in caplog.text) == (durable is None)


@pytest.mark.parametrize(("code", "words", "makes"), [
    (541, REFUSED, False), (541, "INTERNAL_ERROR", False), (403, "ACCESS_REFUSED - access to queue", True),
])  # fmt: skip
def test_the_doctor_tries_whether_the_broker_makes_queues_that_are_not_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, makes: bool
) -> None:
    trial, site = Trial(CREDENTIALS, None), config_for(tmp_path).site
    make_it_refuse(monkeypatch, trial, lambda: exceptions.ConnectionClosedByBroker(code, words))
    report = Report("broker")
    report.begin("queue jobs")

    assert trial.makes_transient() is makes
    _tell_queue(report, trial, Queue("jobs", "w", durable=False), Seen("missing"))
    try_making_reply_queues(report, trial, replace(site, replies=Replies(create=(Pattern("*"),))))

    faults = [each for each in report.findings if each.mark == "fault"]
    assert len(faults) == (0 if makes else 2)
    assert makes or "refuses queues that are not durable" in faults[0].found
    assert makes or [each.mend for each in faults] == [
        "Write durable = true in site.toml, or make it by hand.",
        "Write create_durable = true in site.toml, or make it by hand.",
    ]
