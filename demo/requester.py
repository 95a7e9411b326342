"""The service's side of the queues, over RabbitMQ or over the embedded broker's file."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Protocol

from demo.setting import ROOT, Setting
from worker.config import read_config
from worker.embedded import Embedded
from worker.errors import Transient
from worker.settings import Config
from worker.sources import Properties

_NO_RIGHT = 403
"""ACCESS_REFUSED of AMQP 0-9-1."""


class Asker(Protocol):
    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        """Publishes one job; returns its correlation id."""

    def answer(self, correlation_id: str) -> Optional[dict[str, str]]:
        """The answer, if it has come."""

    def close(self) -> None:
        """Leaves nothing on a broker that is not the demo's own."""


def open_asker(setting: Setting) -> Asker:
    """Raises Misconfigured, or Transient where the broker does not let us in."""
    config = read_config(ROOT, setting.folder / "site.toml", setting.credentials)
    return _InFile(config, setting.queue) if config.site.broker == "embedded" else _OverAmqp(config, setting.queue)


class _InFile:
    def __init__(self, config: Config, queue: str) -> None:
        self._broker = Embedded(config.site.broker_file, config.site.replies)
        self._queue = queue
        for name in (queue, f"{queue}-results"):
            self._broker.make_queue(name)

    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        correlation_id = str(uuid.uuid4())
        body = json.dumps({"inputs": inputs, "settings": settings}).encode()
        self._broker.put(
            self._queue, body, Properties(reply_to=f"{self._queue}-results", correlation_id=correlation_id)
        )
        return correlation_id

    def answer(self, correlation_id: str) -> Optional[dict[str, str]]:
        delivery = next(iter(self._broker.take(f"{self._queue}-results", 1, wait=0)), None)
        if delivery is None:
            return None
        self._broker.ack([delivery])
        assert delivery.properties.correlation_id == correlation_id
        answer: dict[str, str] = json.loads(delivery.body)
        return answer

    def close(self) -> None:
        self._broker.close()


class _OverAmqp:
    def __init__(self, config: Config, queue: str) -> None:
        from worker.amqp import Connection

        self._connection = Connection(config.credentials, config.site.ca_file)
        self._queue = queue
        with _translated():
            channel = self._connection.confirming()
            for name in (queue, f"{queue}-results"):
                channel.queue_declare(name, durable=True, arguments={"x-expires": 3_600_000})

    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        import pika

        correlation_id = str(uuid.uuid4())
        properties = pika.BasicProperties(reply_to=f"{self._queue}-results", correlation_id=correlation_id)
        body = json.dumps({"inputs": inputs, "settings": settings})
        with _translated():
            self._connection.confirming().basic_publish("", self._queue, body, properties, mandatory=True)
        return correlation_id

    def answer(self, correlation_id: str) -> Optional[dict[str, str]]:
        with _translated():
            channel = self._connection.confirming()
            method, properties, body = channel.basic_get(f"{self._queue}-results", auto_ack=True)
        if method is None:
            return None
        assert properties.correlation_id == correlation_id
        answer: dict[str, str] = json.loads(body)
        return answer

    def close(self) -> None:
        with contextlib.suppress(Transient), _translated():
            for name in (self._queue, f"{self._queue}-results"):
                self._connection.confirming().queue_delete(name)
        self._connection.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raises Transient, whose text says what to do."""
    from pika.exceptions import ChannelClosedByBroker

    from worker.amqp import translated

    try:
        with translated():
            yield
    except Transient as error:
        if isinstance(error.__context__, ChannelClosedByBroker) and error.__context__.reply_code == _NO_RIGHT:
            fix = "The demo makes two queues of its own, batchferry-demo-...: let this user configure them, or use another one"
            raise Transient(error.found, fix=error.fix or fix) from None
        raise
