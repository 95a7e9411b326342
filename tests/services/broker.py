"""Chooses how this machine gets its RabbitMQ: from Docker where an engine answers, else the Debian program."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from tests.services.docker_rabbitmq import DockerRabbitMQ, engine_answers
from tests.services.rabbitmq import RabbitMQ

Broker = Union[RabbitMQ, DockerRabbitMQ]


def start_rabbitmq(folder: Path) -> Broker:
    """A broker that answers; ServiceMissing says what to install."""
    broker = rabbitmq_in(folder)
    broker.start()
    return broker


def rabbitmq_in(folder: Path) -> Broker:
    """The broker whose data are in `folder`, or a new one there; not started here."""
    if not folder.exists():
        return DockerRabbitMQ(folder) if engine_answers() else RabbitMQ(folder)
    return RabbitMQ(folder) if (folder / "rabbitmq.conf").exists() else DockerRabbitMQ(folder)
