"""Plays the existing upstream service on the broker, by its wire contract and by nothing else."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pika
from pika import data


@dataclass(frozen=True)
class Answer:
    correlation_id: str
    body: dict[str, str]
    properties: Any

    @property
    def error(self) -> str | None:
        return self.body.get("error")

    @property
    def headers(self) -> dict[str, Any]:
        table = self.properties.headers
        # Once a test has imported worker.amqp, pika leaves the table as it was on the wire.
        return dict(data.decode_table(table, 0)[0] if isinstance(table, bytes) else table)

    def output(self, name: str) -> bytes:
        return base64.b64decode(self.body[name])


class Requester:
    """Publishes jobs and collects answers; each test has queues of its own, of the contract's kind."""

    def __init__(self, rabbitmq: Any, jobs: str, results: str) -> None:
        self.jobs, self.results = jobs, results
        self._parameters = pika.ConnectionParameters(
            rabbitmq.host, rabbitmq.port, rabbitmq.vhost, pika.PlainCredentials(rabbitmq.user, rabbitmq.password),
            heartbeat=0,  # a test may watch passes for minutes, and not look at its own connection
        )  # fmt: skip
        self.answers: list[Answer] = []
        self.connect()
        for queue in (jobs, results):
            self.channel.queue_declare(queue, durable=False, exclusive=False, auto_delete=False)

    def connect(self) -> None:
        self.connection = pika.BlockingConnection(self._parameters)
        self.channel = self.connection.channel()

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()

    def ask(self, inputs: Mapping[str, str], settings: Mapping[str, Any], **more: Any) -> str:
        """Publishes one job by the contract; returns its correlation id."""
        return self.publish(json.dumps({"inputs": inputs, "settings": settings, **more}))

    def publish(self, body: str | bytes, **properties: Any) -> str:
        correlation_id = properties.pop("correlation_id", str(uuid.uuid4()))
        known = {"reply_to": self.results, "correlation_id": correlation_id, **properties}
        self.channel.basic_publish("", self.jobs, body, pika.BasicProperties(**known))
        return str(correlation_id)

    def collect(self) -> list[Answer]:
        """Takes what has arrived; returns all answers so far."""
        while True:
            method, properties, body = self.channel.basic_get(self.results, auto_ack=True)
            if method is None:
                return self.answers
            self.answers.append(Answer(properties.correlation_id, json.loads(body), properties))

    def to(self, correlation_id: str) -> list[Answer]:
        return [answer for answer in self.collect() if answer.correlation_id == correlation_id]

    def wait_for(self, correlation_id: str, seconds: float = 300) -> Answer:
        end = time.monotonic() + seconds
        while not self.to(correlation_id):
            assert time.monotonic() < end, f"no answer within {seconds} s"
            time.sleep(0.1)
        return self.to(correlation_id)[0]

    def waiting_jobs(self) -> int:
        return int(self.channel.queue_declare(self.jobs, passive=True).method.message_count)
