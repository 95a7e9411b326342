"""The queues of a virtual host, from RabbitMQ's management plugin, where it runs and lets us in. AMQP itself lists none.

Facts: RabbitMQ's management HTTP API (`GET /api/queues/<vhost>`; ports 15672, and 15671 with TLS by custom).
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import Optional
from urllib.parse import quote

from ..settings import Credentials

_PORT, _TLS_PORT = 15672, 15671
_SECONDS = 4.0
_MOST_BYTES = 1 << 22


def list_queues(credentials: Credentials, ca_file: Optional[str], port: int = 0) -> list[tuple[str, int]]:
    """Name and messages of each; none where that can't be found out. The password goes the same way as to the broker: with
    TLS wherever that has it."""
    tls, c = credentials.rabbitmq_tls, credentials
    host = f"[{c.rabbitmq_host}]" if ":" in c.rabbitmq_host else c.rabbitmq_host
    where = f"{'https' if tls else 'http'}://{host}:{port or (_TLS_PORT if tls else _PORT)}"
    url = f"{where}/api/queues/{quote(c.rabbitmq_vhost, safe='')}?columns=name,messages"
    login = base64.b64encode(f"{c.rabbitmq_user}:{c.rabbitmq_password.reveal()}".encode()).decode()
    try:
        # No proxy of the environment, and no redirect that would carry the login elsewhere.
        context = ssl.create_default_context(cafile=ca_file) if tls else None
        handlers = [urllib.request.ProxyHandler({}), _NoRedirect(), urllib.request.HTTPSHandler(context=context)]
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.build_opener(*handlers).open(request, timeout=_SECONDS) as answer:
            return [(str(each["name"]), int(each.get("messages", 0))) for each in json.loads(answer.read(_MOST_BYTES))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
