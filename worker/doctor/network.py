"""The way to a server, step by step: its name, its port, its certificate. Knows nothing of what is spoken then."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Optional

from ..bounded import within
from ..causes import Server, name_unknown, not_connected, not_secured, unusable
from .report import Report

_SECONDS = 10.0
_SOON = 21 * 86400


def reach(report: Report, server: Server, ca_file: Optional[str]) -> bool:
    """Whether the way is free. What the operator reads are the lines in the report."""
    if not _look_up(report, server):
        return False
    report.begin(f"port {server.port}")
    try:
        # It looks the name up once more, and tries each address for as long.
        connection = within(2 * _SECONDS, lambda: socket.create_connection((server.host, server.port), _SECONDS))
    except OSError as error:
        report.failed(not_connected(server, error))
        return False
    with connection:
        report.ok(f"{server.host} lets us connect")
        return server.tls is None or _shake_hands(report, server, connection, ca_file)


def _look_up(report: Report, server: Server) -> bool:
    report.begin("address")
    try:
        found = within(_SECONDS, lambda: socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        report.failed(name_unknown(server, error))
        return False
    addresses = sorted({str(each[4][0]) for each in found})
    report.ok(f"{server.host} is {', '.join(addresses)}")
    return True


def _shake_hands(report: Report, server: Server, connection: socket.socket, ca_file: Optional[str]) -> bool:
    report.begin("TLS")
    if not server.tls:
        if server.host in ("localhost", "127.0.0.1", "::1"):
            report.ok("off; it is on this host")
        else:
            report.warn("off: our password and all data can be read on the way", f"{server.fix_tls}.")
        return True
    trouble = unusable(ca_file)
    if trouble:
        report.failed(trouble)
        return False
    try:
        context = ssl.create_default_context(cafile=ca_file)
        with context.wrap_socket(connection, server_hostname=server.host) as wrapped:
            return _tell_certificate(report, server, wrapped)
    except (OSError, ValueError) as error:
        report.failed(not_secured(server, error))
    return False


def _tell_certificate(report: Report, server: Server, wrapped: ssl.SSLSocket) -> bool:
    certificate = wrapped.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    found = f"{wrapped.version()}, certificate valid until {time.strftime('%Y-%m-%d', time.gmtime(ends))}"
    if ends - time.time() < _SOON:
        report.warn(f"{found}, which is soon", f"Tell the administrators of {server.host} to renew it.")
    else:
        report.ok(found)
    return True
