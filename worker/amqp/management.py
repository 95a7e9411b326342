"""What RabbitMQ's management plugin tells beyond AMQP, where it runs and lets us in: all queues, policies, what is deprecated.

Facts: RabbitMQ's management HTTP API (`GET /api/queues/<vhost>`, `/api/queues/<vhost>/<name>`, and from 3.13 on
`/api/deprecated-features/used`, for users with the tag monitoring; ports 15672, and 15671 with TLS by custom).
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import quote

from ..bounded import within
from ..settings import Credentials

_PORT, _TLS_PORT = 15672, 15671
_SECONDS = 4.0
"""For each wait..."""
_IN_ALL = 12.0
"""...and for all of them, and the look-up of its name: who drips would hold us for ever."""
_MOST_BYTES = 1 << 22


class Management:
    """No method raises: what can't be found out is None. One that was away is not asked again."""

    def __init__(self, credentials: Credentials, ca_file: Optional[str], port: int = 0) -> None:
        self._credentials, self._ca_file, self._port = credentials, ca_file, port
        self._away = False

    def queues(self) -> Optional[list[tuple[str, int]]]:
        """Name and messages of each."""
        told = self._ask(f"queues/{self._vhost}?columns=name,messages")
        try:
            return [(str(each["name"]), int(each.get("messages", 0))) for each in told]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def policy_of(self, queue: str) -> Optional[Mapping[str, Any]]:
        """What policies say of this queue, all together."""
        told = self._ask(f"queues/{self._vhost}/{quote(queue, safe='')}")
        if not isinstance(told, dict):
            return None
        policy = told.get("effective_policy_definition")
        return policy if isinstance(policy, dict) else {}  # without any, Erlang's empty list

    def deprecated_in_use(self) -> Optional[list[str]]:
        """Names of features that a later RabbitMQ takes away, and that anybody on this broker uses."""
        told = self._ask("deprecated-features/used")
        try:
            return [str(each["name"]) for each in told]
        except (KeyError, TypeError):
            return None

    @property
    def _vhost(self) -> str:
        return quote(self._credentials.rabbitmq_vhost, safe="")

    def _ask(self, what: str) -> Any:
        """The password goes the same way as to the broker: with TLS wherever that has it."""
        tls, c = self._credentials.rabbitmq_tls, self._credentials
        host = f"[{c.rabbitmq_host}]" if ":" in c.rabbitmq_host else c.rabbitmq_host
        port = self._port or (_TLS_PORT if tls else _PORT)
        url = f"{'https' if tls else 'http'}://{host}:{port}/api/{what}"
        login = base64.b64encode(f"{c.rabbitmq_user}:{c.rabbitmq_password.reveal()}".encode()).decode()
        try:
            if self._away:
                return None
            # No proxy of the environment, and no redirect that would carry the login elsewhere.
            context = ssl.create_default_context(cafile=self._ca_file) if tls else None
            handlers = [urllib.request.ProxyHandler({}), _NoRedirect(), urllib.request.HTTPSHandler(context=context)]
            request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
            opener = urllib.request.build_opener(*handlers)
            return json.loads(within(_IN_ALL, lambda: _read(opener, request)))
        except urllib.error.HTTPError:
            return None  # it knows no such thing, or does not tell us
        except (OSError, ValueError, RecursionError):
            self._away = True
            return None


def _read(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> bytes:
    with opener.open(request, timeout=_SECONDS) as answer:
        return bytes(answer.read(_MOST_BYTES))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
