"""Why a server can't be spoken to: host, port, cause, and what an operator does about it. Passes, jobs and the doctor all say
it in these words.

Facts: the reasons of a certificate that is not taken are X509_V_ERR of openssl-verification-options(1).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Optional
from urllib.parse import urlsplit

from .bounded import TookTooLong
from .errors import Advice
from .settings import Credentials

_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_SPEAKS_NO_TLS = (
    "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "UNKNOWN_PROTOCOL",
    "UNEXPECTED_EOF_WHILE_READING", "EXCESSIVE_MESSAGE_SIZE",
)  # fmt: skip
"""What OpenSSL calls a first answer that is none of TLS's."""
_FIX_CA_FILE = "Set ca_file in site.toml (or SSL_CERT_FILE) to the certificate of your site's own authority (PEM)"


@dataclass(frozen=True)
class Server:
    """`whom`: as in "the broker"; `tls`: None where it is not asked for; `setting`: which one names it. Each `fix` is a
    sentence without its full stop: where its port does not answer, where TLS is spoken or is not, where its words are odd."""

    whom: str
    host: str
    port: int
    tls: Optional[bool]
    setting: str
    fix_port: str
    fix_tls: str = ""
    fix_odd: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.whom} at {host}:{self.port}"


def broker_of(credentials: Credentials) -> Server:
    usual = "5671 with TLS, 5672 without, as a rule"
    to_tls = "Set RABBITMQ_PORT to its TLS port" if credentials.rabbitmq_tls else "Set RABBITMQ_TLS=true"
    return Server(
        "the broker", credentials.rabbitmq_host, credentials.rabbitmq_port, credentials.rabbitmq_tls,
        "RABBITMQ_HOST in credentials.env",
        f"Correct RABBITMQ_HOST and RABBITMQ_PORT in credentials.env ({usual}), or ask whether it is up and no firewall "
        "stands between",
        f"{to_tls} in credentials.env ({usual})",
        f"Is RABBITMQ_PORT in credentials.env the broker's port ({usual})? Then see its log, or ask its administrators",
    )  # fmt: skip


def api_of(api_url: str) -> Server:
    parts = urlsplit(api_url)
    tls = parts.scheme == "https"
    to_tls = "Correct the port in API_URL, or write http:// if it has no TLS" if tls else "Write https:// in API_URL"
    return Server(
        "the API", parts.hostname or "", parts.port or (443 if tls else 80), tls, "API_URL in credentials.env",
        "Correct API_URL in credentials.env, or ask whether it is up and no firewall stands between; where the way out is an "
        "HTTP proxy, set proxy in [api] of site.toml", f"{to_tls} in credentials.env",
        "Is API_URL in credentials.env right? Then ask the service's administrators",
    )  # fmt: skip


def proxy_of(proxy: str) -> Optional[Server]:
    """Where all ways to the API lead through one."""
    parts = urlsplit(proxy)
    if not parts.hostname:
        return None
    setting = "proxy in [api] of site.toml"
    fix = f"Correct {setting}, or ask whether it is up and no firewall stands between"
    return Server("the proxy", parts.hostname, parts.port or 80, None, setting, fix, fix, fix)


def host_of(url: str, api_url: str) -> Server:
    """The API, or another host that inputs come from."""
    api, other = api_of(api_url), api_of(url)
    if other.host == api.host:
        return replace(api, port=other.port, tls=other.tls)
    fix = "Ask the service whether it is up, and whether this site may reach it"
    return replace(other, whom="the host", setting="the address of the input", fix_port=fix, fix_tls=fix, fix_odd=fix)


# --- step by step


def name_unknown(server: Server, error: Exception) -> Advice:
    """Of a name's look-up."""
    if isinstance(error, TookTooLong):
        why = f"its name was not found: {error}"
    else:
        why = f"its name can't be found: {_lower(getattr(error, 'strerror', None) or 'no such name')}"
    fix = f"Correct {server.setting}, or ask whether this host may resolve that name"
    return Advice(f"{server} can't be reached ({why})", fix)


def not_connected(server: Server, error: OSError) -> Advice:
    """Of connecting to its port; a reset may be noticed at this step or at the next one."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return hung_up(server)
    if isinstance(error, (socket.timeout, TookTooLong)):
        why = "no answer to a connection, as from behind a firewall"
    else:
        why = _lower(error.strerror or str(error) or type(error).__name__)
    return Advice(f"{server} can't be reached ({why})", server.fix_port)


def not_secured(server: Server, error: Exception) -> Advice:
    """Of TLS's handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(server, error)
    if isinstance(error, (socket.timeout, TookTooLong)):
        return silent(server)
    if isinstance(error, ConnectionError):
        return hung_up(server)
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    if reason and reason not in _SPEAKS_NO_TLS:
        words = reason.lower().replace("_", " ")
        fix = "Ask its administrators which versions of TLS it takes, and whether it wants a certificate of ours"
        return Advice(f"{server} does not agree with us on TLS ({words})", fix)
    return Advice(f"{server} speaks no TLS there", server.fix_tls)


def silent(server: Server) -> Advice:
    return Advice(f"{server} takes the connection and says nothing", server.fix_odd)


def hung_up(server: Server) -> Advice:
    """On our first words."""
    fix = server.fix_odd if server.tls is not False else f"If this is its TLS port: {server.fix_tls}. {server.fix_odd}"
    return Advice(f"{server} hung up without an answer", fix)


def unusable(ca_file: Optional[str]) -> Optional[Advice]:
    """Whether the certificates to be trusted can be read at all."""
    try:
        ssl.create_default_context(cafile=ca_file or None)
        return None
    except OSError as error:
        found = f"the certificates in {ca_file} can't be used ({_lower(error.strerror or str(error))})"
        return Advice(found, "Set ca_file in site.toml (or SSL_CERT_FILE) to a PEM file that we may read")


def _untrusted(server: Server, error: ssl.SSLCertVerificationError) -> Advice:
    ask = f"Tell the administrators of {server.host}"
    code = error.verify_code
    if code == _EXPIRED:
        why, fix = "has expired", f"{ask} to renew it. If it is new, look at this host's clock: run `date`"
    elif code == _NOT_YET:
        why, fix = "is not valid yet", f"Look at this host's clock: run `date`. If it is right: {ask}"
    elif code in _OTHER_NAME:
        why, fix = f"is for another name than {server.host}", f"Write the name in its certificate into {server.setting}"
    elif code in _UNKNOWN_ISSUER:
        why, fix = f"is not trusted here: {error.verify_message}", _FIX_CA_FILE
    else:
        why, fix = f"is not taken: {error.verify_message}", ask
    return Advice(f"{server} can't be reached: its certificate {why}", fix)


# --- from an error


def cause_of(server: Server, error: BaseException) -> Optional[Advice]:
    """Of what a library raised while it connected; None where it is none of these."""
    chain = list(chain_of(error))
    for each in chain:
        if isinstance(each, (ssl.SSLError, ssl.CertificateError)):
            return not_secured(server, each)
    for each in chain:
        if isinstance(each, (socket.gaierror, UnicodeError)):
            return name_unknown(server, each)
    for each in chain:
        if isinstance(each, OSError) and (each.strerror or isinstance(each, (socket.timeout, TookTooLong))):
            return not_connected(server, each)
    return None


def chain_of(error: Optional[BaseException]) -> Iterator[BaseException]:
    """The error and what it came of, as several libraries pass it on."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            inner = (getattr(each, "reason", None), getattr(each, "exception", None), each.__cause__, each.__context__)
            left += [*each.args, *inner]


def _lower(words: str) -> str:
    return f"{words[:1].lower()}{words[1:]}"
