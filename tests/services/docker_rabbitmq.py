"""A private RabbitMQ broker from Docker through testcontainers: the same handles as in rabbitmq.py, without TLS."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Optional, cast

import docker
import docker.errors
from docker.models.containers import Container

from tests.services.daemon import DidNotStart, free_ports, poll
from tests.services.rabbitmq import lets_in

_IMAGE = os.environ.get("BATCHFERRY_TEST_RABBITMQ_IMAGE", "rabbitmq:3.13-alpine")


def engine_answers() -> bool:
    """Asks the engine: a docker program without one is common."""
    try:
        client = docker.from_env(timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


class DockerRabbitMQ:
    """Its data are in `folder` and outlive stop(), which removes the container. Any process can steer it."""

    host = "127.0.0.1"
    vhost = "/"
    user = "tester"
    tls_port: Optional[int] = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        facts_file = self.folder / "facts.json"
        if not facts_file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = {"port": free_ports(1)[0], "password": secrets.token_hex(8), "name": f"bf-{secrets.token_hex(4)}"}
            facts_file.write_text(json.dumps(fresh))
        facts = json.loads(facts_file.read_text())
        self.port: int = facts["port"]
        self.password: str = facts["password"]
        self._name: str = facts["name"]

    def start(self) -> None:
        """Returns when a client gets in."""
        container = self._container()
        if container:
            container.start()
        else:
            self._create()
        if not poll(lambda: lets_in(self.host, self.port, self.user, self.password), 120.0):
            raise DidNotStart(f"RabbitMQ in Docker ({_IMAGE}) did not answer within two minutes")

    def stop(self) -> None:
        container = self._container()
        if container:
            container.stop()
            container.remove(v=True)

    def kill(self) -> None:
        self._existing().kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        self._existing().pause()

    def resume(self) -> None:
        self._existing().unpause()

    def pids(self) -> list[int]:
        """As this machine counts them."""
        table = self._existing().top()
        return [int(row[table["Titles"].index("PID")]) for row in table["Processes"]]

    def url(self) -> str:
        return f"amqp://{self.user}:{self.password}@{self.host}:{self.port}/%2F"

    def _create(self) -> None:
        # Here, because it is slow to import and some versions warn while they are.
        from testcontainers.core.container import DockerContainer

        new = DockerContainer(_IMAGE).with_name(self._name)
        # The broker's data carry the name of its host.
        new.with_kwargs(hostname=self._name)
        # with_bind_ports takes no address, and would open the broker to the network.
        cast("dict[str, object]", new.ports)["5672/tcp"] = (self.host, self.port)
        new.with_volume_mapping(str(self.folder / "data"), "/var/lib/rabbitmq", "rw")
        new.with_env("RABBITMQ_DEFAULT_USER", self.user).with_env("RABBITMQ_DEFAULT_PASS", self.password)
        new.start()

    def _container(self) -> Optional[Container]:
        try:
            return docker.from_env().containers.get(self._name)
        except docker.errors.NotFound:
            return None

    def _existing(self) -> Container:
        return docker.from_env().containers.get(self._name)
