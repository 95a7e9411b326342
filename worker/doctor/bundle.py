"""A support archive: what somebody else needs to help, and no secret.

Every secret that is known (of credentials.env and site.toml, and tokens) is looked for in every text, in the forms in which
it could stand there; what looks like one is taken out besides.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ..folder.jobs import JobsFolder
from .hider import HIDDEN, Hider
from .report import Finding
from .site_shown import site_as_shown
from .subject import Subject

_SHOWN = ("RABBITMQ_HOST", "RABBITMQ_PORT", "RABBITMQ_VHOST", "RABBITMQ_TLS", "API_URL")
_LAST_BYTES = 200_000
_SHORTEST = 6
"""Of what is taken for a secret only because of where it stands."""


def write_bundle(target: Path, subject: Subject, found: Sequence[Finding], version: str) -> list[str]:
    """The names in the archive, which is yours alone (0600). Raises FileExistsError, OSError."""
    shown, hidden = site_as_shown(_text(subject.site_file))
    hide = Hider([*_secrets(subject), *hidden])
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    names = []
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _texts(subject, found, version, shown):
            content = hide(text).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"batchferry-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
            names.append(name)
    return names


def _secrets(subject: Subject) -> Iterator[str]:
    """Also those of a file that is refused for being readable by others, or that can't be read as it was meant."""
    given = _credentials_of(subject)
    for name, value in given.items():
        if _is_address(name):
            yield from _logins(value)
        else:
            yield value
        if not _is_known(name):
            yield name  # a password on a line of its own is taken for a name
    for line in _text(subject.credentials_file).splitlines():
        yield from _as_written(line)
    if subject.site is not None:
        for token in JobsFolder(subject.site.jobs_dir).active.glob("*/attempts/*/token"):
            try:
                yield token.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue


def _logins(address: str) -> Iterator[str]:
    """What an address may hold before its @."""
    login, at, _ = address.partition("://")[2].rpartition("@")
    if at:
        yield from (part for part in (login, login.partition(":")[2]) if part)


def _as_written(line: str) -> Iterator[str]:
    """What a line of credentials.env may hold, also where a slip or a # makes it mean something else, or nothing."""
    found = re.match(r"\s*#?\s*(?:export\s+)?(\w+)\s*[=:]\s*(.*?)\s*$", line)
    if found and not _is_address(found[1]):
        yield from (value for value in (found[2], found[2].strip("\"'")) if len(value) >= _SHORTEST)
    elif not found and not line.lstrip().startswith("#") and len(line.strip()) >= _SHORTEST:
        yield line.strip()


def _credentials_of(subject: Subject) -> Mapping[str, str]:
    from ..variables import read_variables

    try:
        return read_variables(subject.credentials_file)
    except (OSError, UnicodeDecodeError):
        return {}


def _texts(subject: Subject, found: Sequence[Finding], version: str, shown: str) -> Iterator[tuple[str, str]]:
    yield "doctor.json", json.dumps([asdict(each) for each in found], indent=1)
    yield "versions.txt", _versions(version)
    yield "site.toml", shown
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"# {path.name}: {error.strerror}\n"


def _tail(path: Path) -> str:
    """From the beginning of a line: half a secret would not be recognised."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES)
            file.seek(start)
            data = file.read(_LAST_BYTES)
    except OSError as error:
        return f"({path.name}: {error.strerror})\n"
    return (data.partition(b"\n")[2] if start else data).decode("utf-8", "replace")


def _credentials(subject: Subject) -> str:
    """Which are set; the values only of addresses."""
    given = _credentials_of(subject)
    lines = [
        f"{name}={value if _is_address(name) else HIDDEN if value else ''}\n"
        for name, value in given.items()
        if _is_known(name)
    ]
    others = len(given) - len(lines)
    return "".join(lines) + (f"({others} other lines)\n" if others else "")


def _is_known(name: str) -> bool:
    from ..config import OLDER_NAMES, VARIABLES

    return OLDER_NAMES.get(name, name) in VARIABLES


def _is_address(name: str) -> bool:
    from ..config import OLDER_NAMES

    return OLDER_NAMES.get(name, name) in _SHOWN


def _count(jobs: JobsFolder) -> str:
    rows = []
    for place in (jobs.active, jobs.done, jobs.rejected, jobs.undelivered, jobs.groups):
        try:
            rows.append(f"{place.name} {sum(name[0] != '.' for name in os.listdir(place))}\n")
        except OSError as error:
            rows.append(f"{place.name} {error.strerror}\n")
    return "".join(rows)
