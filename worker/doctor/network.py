"""The way to a server, step by step: its name, its port, its certificate. Knows nothing of what is spoken then."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Optional

from ..bounded import TookTooLong, within
from .report import Report

_SECONDS = 10.0
_SOON = 21 * 86400
_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
"""Of X509_V_ERR, openssl-verification-options(1)."""


@dataclass(frozen=True)
class Server:
    """`tls`: None where it is not asked for; `setting`: which setting names it; `mend_port`: what to do where its port does
    not answer."""

    host: str
    port: int
    tls: Optional[bool]
    setting: str
    mend_port: str
    mend_tls: str


def reach(report: Report, server: Server, ca_file: Optional[str]) -> bool:
    """Whether the way is free. What the operator reads are the lines in the report."""
    if not _look_up(report, server):
        return False
    report.begin(f"port {server.port}")
    try:
        # It looks the name up once more, and tries each address for as long.
        connection = within(2 * _SECONDS, lambda: socket.create_connection((server.host, server.port), _SECONDS))
    except OSError as error:
        words = "no answer" if isinstance(error, (socket.timeout, TookTooLong)) else error.strerror or str(error)
        report.fault(f"{server.host}:{server.port} can't be reached: {words}", server.mend_port)
        return False
    with connection:
        report.ok(f"{server.host} lets us connect")
        return server.tls is None or _shake_hands(report, server, connection, ca_file)


def _look_up(report: Report, server: Server) -> bool:
    report.begin("address")
    try:
        found = within(_SECONDS, lambda: socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        mend = f"Mend {server.setting}, or ask whether this host may resolve that name."
        report.fault(f"{server.host} can't be found: {words}", mend)
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
            report.warn("off: our password and all data can be read on the way", server.mend_tls)
        return True
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        report.fault(f"the certificates in {ca_file} can't be used ({error.strerror or error})",
                     "Set ca_file in site.toml (or SSL_CERT_FILE) to a file of PEM certificates.")  # fmt: skip
        return False
    try:
        with context.wrap_socket(connection, server_hostname=server.host) as wrapped:
            return _tell_certificate(report, server, wrapped)
    except ssl.SSLCertVerificationError as error:
        report.fault(*_untrusted(server, error))
    except (OSError, ValueError) as error:
        words = "no answer" if isinstance(error, socket.timeout) else type(error).__name__
        report.fault(f"{server.host}:{server.port} speaks no TLS there ({words})", server.mend_tls)
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


def _untrusted(server: Server, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """What is found, and what to do."""
    ask = f"Tell the administrators of {server.host}"
    if error.verify_code == _EXPIRED:
        return "its certificate has expired", f"{ask} to renew it. If it is new, look at this host's clock: run `date`."
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet", f"Look at this host's clock: run `date`. If it is right: {ask}."
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is for another name than {server.host}", f"Write its name into {server.setting}."
    if error.verify_code in _UNKNOWN_ISSUER:
        mend = "Set ca_file in site.toml to the certificate of your site's own authority (PEM)."
        return f"its certificate is not trusted here: {error.verify_message}", mend
    return f"its certificate is not taken: {error.verify_message}", f"{ask}."
