"""A support archive: what somebody else needs to help, and no secret.

Every secret that is known (of credentials.env, and tokens) is looked for in every text, in the forms in which it could
stand there; what looks like one is taken out besides.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, quote_plus

from ..folder import JobsFolder
from .report import Finding
from .subject import Subject

_SHOWN = ("RABBITMQ_HOST", "RABBITMQ_PORT", "RABBITMQ_VHOST", "RABBITMQ_TLS", "API_URL")
_HIDDEN = "<SECRET>"
_LAST_BYTES = 200_000
_ASSIGNED = re.compile(
    r"(?i)([\w-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|credential|authorization)[\w-]*[\"']?\s*[:=]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;}\]]+(?: [A-Za-z0-9+/=._-]{16,})?)"
)
_SENT = re.compile(r"(?i)\b(token|bearer|basic) +[A-Za-z0-9+/=._~-]{8,}")
_IN_URL = re.compile(r"(://)[^/\s@\"']+@")


def write_bundle(target: Path, subject: Subject, found: Sequence[Finding], version: str) -> list[str]:
    """The names in the archive, which is yours alone (0600). Raises FileExistsError, OSError."""
    hide = Hider(_secrets(subject))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    names = []
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _texts(subject, found, version):
            content = hide(text).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"batchferry-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
            names.append(name)
    return names


class Hider:
    """Takes secrets out of a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, _HIDDEN)
        text = _IN_URL.sub(rf"\1{_HIDDEN}@", text)
        text = _ASSIGNED.sub(rf"\1{_HIDDEN}", text)
        return _SENT.sub(rf"\1 {_HIDDEN}", text)


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as a URL, a form, JSON, Python, hexadecimal digits or base64 have it."""
    data = secret.encode()
    yield from (
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    )
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield data.hex()
    for before in range(3):
        # Inside of a longer text, base64 of the same bytes has three faces; the characters at the edges are mixed.
        encoded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        whole = encoded[(before * 8 + 5) // 6 : len(encoded) - (1 if (before + len(data)) % 3 else 0)]
        if len(whole) >= 6:
            yield whole


def _secrets(subject: Subject) -> Iterator[str]:
    """Also those of a file that is refused for being readable by others."""
    from ..config import read_variables

    try:
        given = read_variables(subject.credentials_file)
    except (OSError, UnicodeDecodeError):
        given = {}
    yield from (value for name, value in given.items() if not _is_address(name))
    if subject.site is not None:
        for token in JobsFolder(subject.site.jobs_dir).active.glob("*/attempts/*/token"):
            try:
                yield token.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue


def _texts(subject: Subject, found: Sequence[Finding], version: str) -> Iterator[tuple[str, str]]:
    yield "doctor.json", json.dumps([asdict(each) for each in found], indent=1)
    yield "versions.txt", _versions(version)
    yield "site.toml", _without_environments(_tail(subject.site_file))
    yield "credentials.txt", _credentials(subject)
    yield "run_check.log", _tail(subject.root / "logs" / "run_check.log")
    if subject.site is not None:
        jobs = JobsFolder(subject.site.jobs_dir)
        yield "jobs.txt", _count(jobs)
        for path in (jobs.site_fault, jobs.lease, jobs.cluster, jobs.budget):
            yield path.name, _tail(path)


def _versions(version: str) -> str:
    from importlib import metadata

    packages = sorted(f"{each.metadata['Name']} {each.version}" for each in metadata.distributions())
    return "\n".join([f"batchferry {version}", f"Python {sys.version}", platform.platform(), "", *packages, ""])


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            return file.read(_LAST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"({path.name}: {error.strerror})\n"


def _without_environments(text: str) -> str:
    """The variables that a site gives to its workloads may be anything."""
    lines, inside = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith("["):
            inside = re.match(r"\s*\[.*environment\s*\]", line) is not None
        if inside and "=" in line:
            line = f'{line.partition("=")[0]}= "{_HIDDEN}"'
        lines.append(re.sub(r"(\benvironment\b[\w.]*\s*=\s*).*", rf'\1"{_HIDDEN}"', line))
    return "\n".join(lines)


def _credentials(subject: Subject) -> str:
    """Which are set; the values only of addresses."""
    from ..config import read_variables

    try:
        given = read_variables(subject.credentials_file)
    except (OSError, UnicodeDecodeError) as error:
        return f"({subject.credentials_file.name}: {type(error).__name__})\n"
    return "".join(
        f"{name}={value if _is_address(name) else _HIDDEN if value else ''}\n" for name, value in given.items()
    )


def _is_address(name: str) -> bool:
    from ..config import OLDER_NAMES

    return OLDER_NAMES.get(name, name) in _SHOWN


def _count(jobs: JobsFolder) -> str:
    rows = []
    for place in (jobs.active, jobs.done, jobs.rejected, jobs.undelivered, jobs.groups):
        try:
            rows.append(f"{place.name} {len(os.listdir(place))}\n")
        except OSError as error:
            rows.append(f"{place.name} {error.strerror}\n")
    return "".join(rows)
