"""The service's side of the queues, over RabbitMQ or over the embedded broker's file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Optional, Protocol

from demo.setting import ROOT, Setting
from worker.config import read_config
from worker.embedded import Embedded
from worker.settings import Config
from worker.sources import Properties


class Asker(Protocol):
    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        """Publishes one job; returns its correlation id."""

    def answer(self, correlation_id: str) -> Optional[dict[str, str]]:
        """The answer, if it has come."""

    def close(self) -> None:
        """Leaves nothing on a broker that is not the demo's own."""


def open_asker(setting: Setting) -> Asker:
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
        import ssl

        import pika

        c = config.credentials
        tls = (
            pika.SSLOptions(ssl.create_default_context(cafile=config.ca_file), c.rabbitmq_host)
            if c.rabbitmq_tls
            else None
        )
        login = pika.PlainCredentials(c.rabbitmq_user, c.rabbitmq_password.reveal())
        parameters = pika.ConnectionParameters(
            c.rabbitmq_host, c.rabbitmq_port, c.rabbitmq_vhost, login, ssl_options=tls
        )
        self._channel = pika.BlockingConnection(parameters).channel()
        self._queue = queue
        for name in (queue, f"{queue}-results"):
            self._channel.queue_declare(name, arguments={"x-expires": 3_600_000})

    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        import pika

        correlation_id = str(uuid.uuid4())
        properties = pika.BasicProperties(reply_to=f"{self._queue}-results", correlation_id=correlation_id)
        body = json.dumps({"inputs": inputs, "settings": settings})
        self._channel.basic_publish("", self._queue, body, properties)
        return correlation_id

    def answer(self, correlation_id: str) -> Optional[dict[str, str]]:
        method, properties, body = self._channel.basic_get(f"{self._queue}-results", auto_ack=True)
        if method is None:
            return None
        assert properties.correlation_id == correlation_id
        answer: dict[str, str] = json.loads(body)
        return answer

    def close(self) -> None:
        for name in (self._queue, f"{self._queue}-results"):
            self._channel.queue_delete(name)
        self._channel.connection.close()
