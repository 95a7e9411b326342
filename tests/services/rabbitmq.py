"""A private RabbitMQ broker on loopback: from Docker where an engine answers, else the program that Debian packages."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Optional

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.services.alias import new_alias, point, remove
from tests.services.certificates import Certificates
from tests.services.daemon import Daemon, DidNotStart, accepts, free_ports, wait_until
from tests.services.present import require

# The one in sbin switches to the user rabbitmq, and starts a broker whatever arguments it is given.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_LIBRARY = Path("/usr/lib/rabbitmq/lib")

_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
disk_free_limit.absolute = 50MB
"""

_PERMIT = "deprecated_features.permit.transient_nonexcl_queues = true\n"
_REFUSE = "deprecated_features.permit.transient_nonexcl_queues = false\n"

_BY_VERSION = (
    # What RabbitMQ 3 takes; 4 takes 16 MiB unless it is told.
    ((4, 0), "max_message_size = 134217728\n"),
    # The platform's own queues; refused from here on unless they are permitted, and an unknown word before.
    ((4, 3), _PERMIT),
)

_TLS_CONFIGURATION = """\
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.certfile = {folder}/cert.pem
ssl_options.keyfile = {folder}/key.pem
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.verify = verify_none
"""


def version() -> tuple[int, int]:
    """Of the installed program, which has a folder of its version's name."""
    found = re.search(r"-(\d+)\.(\d+)", next(map(str, _LIBRARY.glob("rabbitmq_server-*")), ""))
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


class RabbitMQ:
    """A broker with its own epmd. Its data are in `folder` and outlive stop(), kill() and restart().

    A second object on the same folder, also in another process, steers the same broker. `transient`: whether it makes
    queues that are neither durable nor exclusive, as the platform has them; to be refused from 3.12 on.
    """

    host = "127.0.0.1"
    vhost = "/"
    user = "tester"

    def __init__(self, folder: Path, tls: Optional[Certificates] = None, transient: bool = True) -> None:
        self.folder = folder.absolute()
        if not self._facts_file.exists():
            self._prepare(tls, transient)
        facts = json.loads(self._facts_file.read_text())
        self.port: int = facts["port"]
        self.tls_port: Optional[int] = facts["tls_port"]
        self.password: str = facts["password"]
        # RabbitMQ never gets ready under a name with a quote in it: its disk monitor hands the name to a shell.
        self._alias = Path(facts["alias"])
        environment = self._environment(facts["epmd_port"], facts["distribution_port"])
        # Started by us, and not by the broker, it is ours to end.
        self._epmd = Daemon("epmd", ["epmd"], self.folder, environment)
        self._broker = Daemon("rabbitmq", [str(_SERVER)], self.folder, environment)

    @property
    def _facts_file(self) -> Path:
        return self.folder / "facts.json"

    def _prepare(self, tls: Optional[Certificates], transient: bool) -> None:
        require("RabbitMQ", {"rabbitmq-server": "rabbitmq-server", "epmd": "rabbitmq-server"})
        self.folder.mkdir(parents=True, exist_ok=True)
        port, tls_port, epmd_port, distribution_port = free_ports(4)
        alias = new_alias()
        facts = {
            "alias": str(alias),
            "port": port,
            "tls_port": tls_port if tls else None,
            "epmd_port": epmd_port,
            "distribution_port": distribution_port,
            "password": secrets.token_hex(8),
        }
        configuration = _CONFIGURATION.format(user=self.user, **facts)
        configuration += "".join(words for least, words in _BY_VERSION if version() >= least)
        if not transient:
            configuration = configuration.replace(_PERMIT, "") + _REFUSE
        if tls:
            configuration += _TLS_CONFIGURATION.format(tls_port=tls_port, folder=alias)
            for source, name in ((tls.cert, "cert.pem"), (tls.key, "key.pem"), (tls.ca, "ca.pem")):
                shutil.copy(source, self.folder / name)
        (self.folder / "rabbitmq.conf").write_text(configuration)
        (self.folder / "enabled_plugins").write_text("[].\n")
        self._facts_file.write_text(json.dumps(facts))

    def _environment(self, epmd_port: int, distribution_port: int) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._alias),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": f"batchferry{self.folder.stat().st_ino}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(self._alias / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._alias / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._alias / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._alias / "log"),
            "RABBITMQ_PID_FILE": str(self._alias / "broker.pid"),
        }

    def start(self) -> None:
        """Returns when a client gets in; a broker that is silent is started once more."""
        point(self._alias, self.folder)
        self._epmd.start()
        try:
            self._start_broker()
        except DidNotStart as error:
            # Seen on a loaded machine: printed "Starting broker...", and nothing for a minute.
            print(f"started once more: {error}", file=sys.stderr)
            self._broker.kill()
            try:
                self._start_broker()
            except DidNotStart:
                self.stop()
                raise

    def _start_broker(self) -> None:
        self._broker.start()
        # It listens for TLS last.
        wait_until(lambda: lets_in(self.host, self.port, self.user, self.password), self._broker, 120)
        wait_until(lambda: self.tls_port is None or accepts(self.tls_port), self._broker)

    def stop(self) -> None:
        """As an administrator stops it: what it has confirmed is on disk."""
        self._broker.stop()
        self._epmd.stop()
        remove(self._alias)

    def kill(self) -> None:
        """As a crash of the machine stops it."""
        self._broker.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Frozen: connections stay open and nothing answers."""
        self._broker.pause()

    def resume(self) -> None:
        self._broker.resume()

    def pids(self) -> list[int]:
        return self._epmd.pids() + self._broker.pids()

    def url(self) -> str:
        return f"amqp://{self.user}:{self.password}@{self.host}:{self.port}/%2F"

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()


def lets_in(host: str, port: int, user: str, password: str) -> bool:
    """Whether a broker there takes these credentials now."""
    # The port first: pika logs every refused connection as an error.
    if not accepts(port):
        return False
    try:
        login = pika.PlainCredentials(user, password)
        pika.BlockingConnection(pika.ConnectionParameters(host, port, credentials=login)).close()
        return True
    except (pika.exceptions.AMQPError, AMQPConnectorException):
        return False
