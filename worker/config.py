"""Reads credentials.env and site.toml into one frozen Config, and reports every fault at once.

Nothing is put into the process environment, where every child and every user's `ps e` could read it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Optional, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from .errors import Misconfigured
from .settings import Config, Credentials, Pattern, Queue, Seconds, Secret, Site

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOOPBACK = ("localhost", "127.0.0.1", "::1")
VARIABLES = {
    "RABBITMQ_HOST": "the broker's host name",
    "RABBITMQ_PORT": "its port; 5671 with TLS, else 5672",
    "RABBITMQ_USER": "our user there",
    "RABBITMQ_PASSWORD": "our password there",
    "RABBITMQ_VHOST": "its virtual host; /",
    "RABBITMQ_TLS": "true or false; true, unless the host is this machine",
    "API_URL": "the upstream service, e.g. https://service.example.org",
    "API_USER": "our user there",
    "API_PASSWORD": "our password there",
}
OLDER_NAMES = {"RODAN_HOST": "API_URL", "RODAN_USER": "API_USER", "RODAN_PASSWORD": "API_PASSWORD"}
_MAY_PASS = ("node_failed", "preempted", "lost", "out_of_memory", "timed_out", "fetch", "pack", "start")
"""Ends, and steps that failed for a cause outside the job, after which another attempt makes sense."""
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def read_config(root: Path, site_file: Path, credentials_file: Path) -> Config:
    """Reads both files. Raises Misconfigured with every fault found in either."""
    faults: list[str] = []
    site = _read_site(root, site_file, faults)
    without_broker = site is not None and site.broker == "embedded"
    credentials = _read_credentials(credentials_file, without_broker, faults)
    if site is None or credentials is None or faults:
        raise Misconfigured(faults)
    return Config(root, site_file, credentials_file, site, credentials)


def parse_duration(value: object) -> float:
    """Seconds from a number or from "90s", "15min", "1h", "7d". Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", value) if isinstance(value, str) else None
        if not found:
            raise ValueError('must be a duration such as "90s", "15min", "1h" or "7d"')
        seconds = float(found.group(1)) * _UNITS[found.group(2)]
    if not 0 <= seconds < 10**9:
        raise ValueError("must be a duration of 0 or more, and less than 30 years")
    return seconds


# --- site.toml


def _read_site(root: Path, path: Path, faults: list[str]) -> Optional[Site]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{path.name} can't be read ({error.strerror}). Copy site.example.toml and adapt it.")
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: {error}")
        return None
    before = len(faults)
    site = _build(Site, table, path.name, faults)
    if len(faults) > before:
        return None
    assert isinstance(site, Site)
    faults.extend(f"{path.name}: {fault}" for fault in [*_contradictions(site), *_missing_programs(site, root)])
    return _settle(site, root)


def _settle(site: Site, root: Path) -> Site:
    jobs_dir = root / site.jobs_dir.expanduser()
    name = site.installation or hashlib.sha256(os.fsencode(jobs_dir)).hexdigest()[:6]
    ca_file = site.ca_file or os.environ.get("SSL_CERT_FILE", "")
    python, broker_file = root / site.python.expanduser(), root / site.broker_file.expanduser()
    return replace(site, jobs_dir=jobs_dir, python=python, broker_file=broker_file, installation=name, ca_file=ca_file)


def _contradictions(site: Site) -> list[str]:
    """What no single value shows to be wrong."""
    faults = []
    for queue in site.queues:
        if queue.workload not in site.workloads:
            faults.append(f"queues.{queue.name}.workload: there is no workload {queue.workload!r}")
        faults.extend(_resource_faults(queue))
    for name, workload in site.workloads.items():
        if not workload.argv:
            faults.append(f"workloads.{name}: argv is empty")
        if not workload.forms:
            faults.append(f"workloads.{name}: has no form, so no message could fit it")
        if not set(workload.retry.on) <= set(_MAY_PASS):
            faults.append(f"workloads.{name}.retry.on: must be of {', '.join(_MAY_PASS)}")
        for form in workload.forms:
            if "error" in form.outputs:
                faults.append(f'workloads.{name}: an output can\'t be named "error"; that word marks a failure')
            if any("/" in suffix for suffix in form.outputs.values()):
                faults.append(f"workloads.{name}: an output's suffix can't hold a slash")
    names = [queue.name for queue in site.queues]
    if len(set(names)) < len(names):
        faults.append("queues: two have the same name")
    if not re.fullmatch(r"[A-Za-z0-9]{0,12}", site.installation):
        faults.append("installation: must be at most 12 letters and digits")
    if any(option == "" or not option.startswith("-") for option in site.slurm.extra_options):
        faults.append('slurm.extra_options: each must be one word such as "--qos=short"')
    return faults


def _missing_programs(site: Site, root: Path) -> list[str]:
    """Of those inside this folder; others may exist on the compute nodes only."""
    programs = {name: workload.argv[0] for name, workload in site.workloads.items() if workload.argv}
    return [
        f"workloads.{name}: there is no program {program}. Is the workload's environment set up?"
        for name, program in programs.items()
        if program.startswith("{root}/") and not os.access(program.replace("{root}", str(root)), os.X_OK)
    ]


def _resource_faults(queue: Queue) -> list[str]:
    rules, where = queue.resources, f"queues.{queue.name}.resources"
    pairs: tuple[tuple[str, float, float], ...] = (
        ("cpus", rules.cpus, rules.max_cpus),
        ("memory_mb", rules.memory_mb, rules.max_memory_mb),
        ("time", rules.time, rules.max_time),
        ("gpus", rules.gpus, rules.max_gpus),
    )
    faults = [f"{where}.{name}: the default is more than max_{name}" for name, value, most in pairs if value > most]
    # Slurm takes 0 for "all of it" or "without limit".
    faults += [f"{where}.{name}: must be at least 1" for name, value, _ in pairs if value < 1 and name != "gpus"]
    known = ("cpus", "memory_mb", "time", "gpus", "email")
    return faults + [f"{where}.names.{ours}: must be one of {known}" for ours in rules.names if ours not in known]


def _build(cls: Any, table: object, where: str, faults: list[str]) -> object:
    """An instance of the dataclass `cls` from a TOML table; faults are collected, and then the result means nothing."""
    if not isinstance(table, dict):
        faults.append(f"{where}: must be a table")
        return None
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    faults.extend(f"{where}: unknown setting {name!r}" for name in table if name not in known)
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in table:
            values[name] = _value(hints[name], table[name], f"{where}: {name}", faults)
            if "choices" in f.metadata and values[name] not in f.metadata["choices"]:
                faults.append(f"{where}: {name}: must be one of {', '.join(f.metadata['choices'])}")
        elif f.default is MISSING and f.default_factory is MISSING:
            faults.append(f"{where}: {name} is missing")
            values[name] = None
    return cls(**values)


def _value(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, where, faults)
    origin, of = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            faults.append(f"{where}: must be a list")
            return ()
        return tuple(_value(of[0], item, f"{where}[{i}]", faults) for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            faults.append(f"{where}: must be a table")
            return {}
        return {key: _value(of[1], item, f"{where}.{key}", faults) for key, item in value.items()}
    return _scalar(kind, value, where, faults)


def _scalar(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    if kind is Any:
        return value
    if kind in (Seconds, float):
        try:
            return parse_duration(value)
        except ValueError as error:
            faults.append(f"{where}: {error}")
            return 0.0
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is Pattern and isinstance(value, str):
        return Pattern(value)
    if type(value) is kind and not (isinstance(value, int) and value < 0):
        return value
    names = {int: "a whole number of 0 or more", bool: "true or false"}
    faults.append(f"{where}: must be {names.get(kind, 'a text in quotes')}")
    return value


# --- credentials.env


def _read_credentials(path: Path, without_broker: bool, faults: list[str]) -> Optional[Credentials]:
    from dotenv import dotenv_values

    try:
        mode = path.stat()
    except OSError as error:
        faults.append(f"{path.name} can't be read ({error.strerror}). Copy credentials.env.example and fill it in.")
        return None
    if mode.st_uid != os.getuid() or mode.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        faults.append(f"{path.name} can be read by others. Run: chmod 600 {path.name}")
        return None
    try:
        given = {name: value or "" for name, value in dotenv_values(path, interpolate=False, encoding="utf-8").items()}
    except UnicodeDecodeError:
        faults.append(f"{path.name} is not UTF-8 text")
        return None
    for older, newer in OLDER_NAMES.items():
        given[newer] = given.get(newer) or given.get(older, "")
    of_broker = () if without_broker else ("RABBITMQ_HOST", "RABBITMQ_USER", "RABBITMQ_PASSWORD")
    for name in (*of_broker, "API_URL", "API_USER", "API_PASSWORD"):
        if not given.get(name):
            faults.append(f"{path.name}: {name} is missing ({VARIABLES[name]})")
    tls, port = _tls_and_port(given, path.name, faults)
    return Credentials(
        rabbitmq_host=given.get("RABBITMQ_HOST", ""),
        rabbitmq_port=port,
        rabbitmq_user=given.get("RABBITMQ_USER", ""),
        rabbitmq_password=Secret(given.get("RABBITMQ_PASSWORD", "")),
        rabbitmq_vhost=given.get("RABBITMQ_VHOST") or "/",
        rabbitmq_tls=tls,
        api_url=_api_url(given.get("API_URL", ""), path.name, faults),
        api_user=given.get("API_USER", ""),
        api_password=Secret(given.get("API_PASSWORD", "")),
    )


def _tls_and_port(given: Mapping[str, str], where: str, faults: list[str]) -> tuple[bool, int]:
    """TLS unless it is turned off by name, or the broker is on this machine and not on the TLS port."""
    port, tls = given.get("RABBITMQ_PORT") or "", given.get("RABBITMQ_TLS", "").lower()
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        faults.append(f"{where}: RABBITMQ_PORT must be a port number")
        port = ""
    if tls not in ("", "true", "false"):
        faults.append(f"{where}: RABBITMQ_TLS must be true or false")
    local = given.get("RABBITMQ_HOST") in LOOPBACK and port != "5671"
    on = tls == "true" or (tls == "" and not local)
    return on, int(port or (5671 if on else 5672))


def _api_url(value: str, where: str, faults: list[str]) -> str:
    url = value.rstrip("/") if "://" in value else f"https://{value.rstrip('/')}"
    if value and not _is_origin(url):
        faults.append(f"{where}: API_URL must be a scheme and a host, such as https://service.example.org")
    return url


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        whole
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not (parts.path or parts.query or parts.fragment or "@" in url)
    )
