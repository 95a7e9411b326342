"""A private CA and a certificate for loopback, as files: what TLS tests give to servers and clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """PEM files. Servers get `cert` and `key`; clients trust `ca`."""

    cert: Path
    key: Path
    ca: Path


def make_certificates(folder: Path) -> Certificates:
    """A new CA and a certificate of it for localhost and 127.0.0.1."""
    import trustme  # the demo uses the sample service too, without TLS and without the tests' packages

    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(made.ca))
    server.private_key_pem.write_to_path(str(made.key))
    made.cert.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    return made
