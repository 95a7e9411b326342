"""Reads credentials.env and site.toml into one frozen Config, and reports every fault at once.

Nothing is put into the process environment, where every child and every user's `ps e` could read it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from .contradictions import contradictions
from .errors import Fault, Misconfigured
from .settings import Config, Credentials, Pattern, Seconds, Secret, Site
from .variables import IN_QUOTES, Variables, read_lines, text_of

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
    "PROXY_USER": "our user at the proxy of site.toml, if it asks for one",
    "PROXY_PASSWORD": "our password there",
}
OLDER_NAMES = {"RODAN_HOST": "API_URL", "RODAN_USER": "API_USER", "RODAN_PASSWORD": "API_PASSWORD"}
_LIKE_ONE_THAT_IS_MISSING, _LIKE_ANOTHER = 0.7, 0.85
"""How like a name has to be that is taken for a misspelt one; 1 for the same."""
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def read_config(root: Path, site_file: Path, credentials_file: Path) -> Config:
    """Reads both files. Raises Misconfigured with every fault found in either."""
    faults: list[Fault] = []
    site, text = _read_site(root, site_file, faults)
    credentials = _read_credentials(credentials_file, _without_broker(site), faults)
    if site is None or credentials is None or faults:
        raise Misconfigured(faults)
    return Config(root, site_file, credentials_file, site, credentials, text)


def read_frozen(root: Path, site_file: Path, credentials_file: Path, frozen: str) -> Config:
    """What a job needs is what the site file said when it was submitted: whatever people write there since, and be it a slip,
    harms no submitted job. Addresses and secrets are those of today. Where nothing was frozen, or an earlier version's is not
    understood any more, the site file counts. Raises Misconfigured."""
    today, text = _read_site(root, site_file, []) if frozen else (None, "")
    site = today if text == frozen else _parse_site(root, site_file, frozen, [])
    if site is None:
        return read_config(root, site_file, credentials_file)
    faults: list[Fault] = []
    credentials = _read_credentials(credentials_file, _without_broker(site), faults)
    if credentials is None or faults:
        raise Misconfigured(faults)
    return Config(root, site_file, credentials_file, _with_addresses(site, today), credentials, frozen)


def as_frozen(config: Config, frozen: str) -> Config:
    """The same by what was frozen; where that is nothing, or not understood, the configuration itself."""
    if frozen in ("", config.site_text):
        return config
    site = _parse_site(config.root, config.site_file, frozen, [])
    return config if site is None else replace(config, site=_with_addresses(site, config.site), site_text=frozen)


def _with_addresses(site: Site, today: Optional[Site]) -> Site:
    return site if today is None else replace(site, api=today.api, ca_file=today.ca_file)


def read_separately(
    root: Path, site_file: Path, credentials_file: Path
) -> tuple[Optional[Site], Optional[Credentials], list[Fault]]:
    """What can be read of either file, whatever the other is like, and every fault found in both."""
    faults: list[Fault] = []
    site, _ = _read_site(root, site_file, faults)
    return site, _read_credentials(credentials_file, _without_broker(site), faults), faults


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


_Path = tuple[Union[str, int], ...]


@dataclass(frozen=True)
class _Place:
    """A place in the site file: in words, and as a path."""

    words: str
    path: _Path = ()

    def setting(self, name: str) -> _Place:
        return _Place(f"{self.words}: {name}", (*self.path, name))

    def item(self, number: int) -> _Place:
        return _Place(f"{self.words}[{number}]", (*self.path, number))

    def key(self, name: str) -> _Place:
        return _Place(f"{self.words}.{name}", (*self.path, name))


class _Flaws:
    """What is wrong with the site file, and where."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[tuple[_Path, str, str]] = []
        self.serious = False
        """Whether the values that were read can't be looked at any further."""

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: _Place, words: str, serious: bool = True, fix: str = "") -> None:
        self._found.append((place.path, f"{place.words}: {words}", fix))
        self.serious = self.serious or serious

    def with_lines(self, text: str) -> list[Fault]:
        if not self._found:
            return []
        from .toml_lines import line_of

        found = [Fault(self._file, words, line_of(text, path) or 0, fix) for path, words, fix in self._found]
        return sorted(found, key=lambda fault: fault.line)


def _without_broker(site: Optional[Site]) -> bool:
    return site is not None and (site.broker == "embedded" or not site.has_broker)


def _read_site(root: Path, path: Path, faults: list[Fault]) -> tuple[Optional[Site], str]:
    """And its text."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin each file with a mark of its order of bytes
        return _parse_site(root, path, text, faults), text
    except OSError as error:
        faults.append(_unreadable(path, error, "site.example.toml"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        faults.append(Fault(path, f"{path.name}: is not UTF-8 text", line))
    return None, ""


def _parse_site(root: Path, file: Path, text: str, faults: list[Fault]) -> Optional[Site]:
    """None where it can't be used; what is wrong with it, also where it can, is added to `faults`. `file`: where the text
    stands, for the faults."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        from .toml_lines import syntax_faults

        found = [Fault(file, f"{file.name}: {fault.words}", fault.line) for fault in syntax_faults(text)]
        faults.extend(found or [Fault(file, f"{file.name}: {error}")])
        return None
    flaws = _Flaws(file)
    site = _build(Site, table, _Place(file.name), flaws)
    if isinstance(site, Site) and not flaws.serious:
        for where, words in contradictions(site):
            flaws.add(_Place(file.name, where), words, serious=False)
        for where, words in _homeless(site):
            flaws.add(_Place(file.name, where), words, serious=False, fix="Write it in full")
    faults.extend(flaws.with_lines(text))
    return None if flaws.serious or not isinstance(site, Site) else _settle(site, root)


def _settle(site: Site, root: Path) -> Site:
    jobs_dir = root / _at_home(site.jobs_dir)
    name = site.installation or hashlib.sha256(os.fsencode(jobs_dir)).hexdigest()[:6]
    ca_file = site.ca_file or os.environ.get("SSL_CERT_FILE", "")
    python, broker_file = root / _at_home(site.python), root / _at_home(site.broker_file)
    return replace(site, jobs_dir=jobs_dir, python=python, broker_file=broker_file, installation=name, ca_file=ca_file)


def _at_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))


def _homeless(site: Site) -> Iterator[tuple[_Path, str]]:
    """Paths that begin with a home folder that is not known here."""
    for name in ("jobs_dir", "python", "broker_file"):
        path = getattr(site, name)
        if str(_at_home(path)).startswith("~"):
            yield (name,), f"{name}: it is not known here which folder {path.parts[0]} is"


def _build(cls: Any, table: object, where: _Place, flaws: _Flaws) -> object:
    """An instance of the dataclass `cls` from a TOML table; flaws are collected, and after a serious one it means nothing."""
    if not isinstance(table, dict):
        flaws.add(where, "must be a table")
        return None
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for name in table:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(str(name), known, 1)
            meant = f", did you mean {near[0]}?" if near else ""
            flaws.add(_Place(where.words, (*where.path, name)), f"unknown setting {name!r}{meant}", serious=False)
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in table:
            values[name] = _checked(hints[name], f.metadata, table[name], where.setting(name), flaws)
        elif (f.default is MISSING and f.default_factory is MISSING) or _is_needed(f.metadata, table):
            flaws.add(where, f"{name} is missing")
            values[name] = None
    return cls(**values)


def _is_needed(rules: Mapping[str, Any], table: Mapping[str, object]) -> bool:
    """Of what may be left out only where another setting has a certain value."""
    name, value = rules.get("unless", ("", None))
    return bool(name) and table.get(name) != value


def _checked(kind: Any, rules: Mapping[str, Any], given: Any, where: _Place, flaws: _Flaws) -> Any:
    """The value, which must be of its kind, one of the choices, and neither less than the least nor more than the most."""
    before = len(flaws)
    value = _value(kind, given, where, flaws)
    if len(flaws) > before:
        return value
    if "choices" in rules and value not in rules["choices"]:
        flaws.add(where, f"must be one of {', '.join(rules['choices'])}")
    if "most" in rules and not rules["least"] <= value <= rules["most"]:
        flaws.add(where, f"must be {span(kind, rules)}")
    return value


def span(kind: Any, rules: Mapping[str, Any]) -> str:
    """The values that a number may have, in words."""
    least, most = rules["least"], rules["most"]
    if kind in (Seconds, float) and not rules.get("is_rate"):
        return f'from "{duration(least)}" to "{duration(most)}"'
    return f"from {least:,} to {most:,}"


def duration(seconds: float) -> str:
    """As the site file may say it."""
    units = reversed(_UNITS.items()) if seconds else iter(_UNITS.items())
    size, unit = next((size, unit) for unit, size in units if seconds % size == 0)
    return f"{seconds / size:g}{unit}"


def _value(kind: Any, value: Any, where: _Place, flaws: _Flaws) -> Any:
    if get_origin(kind) is Union:  # what may be left unsaid can't be said to be so
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if is_dataclass(kind):
        return _build(kind, value, where, flaws)
    origin, of = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            flaws.add(where, "must be a list")
            return ()
        return tuple(_value(of[0], item, where.item(i), flaws) for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            flaws.add(where, "must be a table")
            return {}
        return {key: _value(of[1], item, where.key(key), flaws) for key, item in value.items()}
    return _scalar(kind, value, where, flaws)


def _scalar(kind: Any, value: Any, where: _Place, flaws: _Flaws) -> Any:
    if kind is Any:
        return value
    if isinstance(value, str) and "\0" in value:
        flaws.add(where, "holds a character of code 0, which no program can be given")
        return value
    if kind in (Seconds, float):
        try:
            return parse_duration(value)
        except ValueError as error:
            flaws.add(where, f"{error}")
            return 0.0
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is Pattern and isinstance(value, str):
        return Pattern(value)
    if type(value) is kind:
        return value
    names = {int: "a whole number", bool: "true or false"}
    flaws.add(where, f"must be {names.get(kind, 'a text in quotes')}")
    return value


# --- credentials.env


def _read_credentials(path: Path, without_broker: bool, faults: list[Fault]) -> Optional[Credentials]:
    try:
        mode = path.stat()
    except OSError as error:
        faults.append(_unreadable(path, error, "credentials.env.example"))
        return None
    if mode.st_uid != os.getuid() or mode.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        faults.append(Fault(path, f"{path.name} can be read by others", fix=f"Run: chmod 600 {path.name}"))
        return None
    try:
        said = read_lines(path)
    except OSError as error:
        faults.append(_unreadable(path, error, "credentials.env.example"))
        return None
    except UnicodeDecodeError:
        faults.append(Fault(path, f"{path.name} is not UTF-8 text"))
        return None
    given = dict(said.values)
    for older, newer in OLDER_NAMES.items():
        given[newer] = given.get(newer) or given.get(older, "")
    faults.extend(Fault(path, f"{path.name}: {words}", line, IN_QUOTES) for line, words in said.flaws)
    of_broker = () if without_broker else ("RABBITMQ_HOST", "RABBITMQ_USER", "RABBITMQ_PASSWORD")
    faults.extend(_missing(path, said, given, (*of_broker, "API_URL", "API_USER", "API_PASSWORD")))
    return credentials_from(given, path, faults)


def credentials_from(given: Mapping[str, str], path: Path, faults: list[Fault]) -> Credentials:
    """`path`: where these stand, or will. What can't be so is added to `faults`."""
    tls, port = _tls_and_port(given, path, faults)
    return Credentials(
        rabbitmq_host=given.get("RABBITMQ_HOST", ""),
        rabbitmq_port=port,
        rabbitmq_user=given.get("RABBITMQ_USER", ""),
        rabbitmq_password=Secret(given.get("RABBITMQ_PASSWORD", "")),
        rabbitmq_vhost=given.get("RABBITMQ_VHOST") or "/",
        rabbitmq_tls=tls,
        api_url=_api_url(given.get("API_URL", ""), path, faults),
        api_user=given.get("API_USER", ""),
        api_password=Secret(given.get("API_PASSWORD", "")),
        proxy_user=given.get("PROXY_USER", ""),
        proxy_password=Secret(given.get("PROXY_PASSWORD", "")),
    )


def _missing(path: Path, said: Variables, given: Mapping[str, str], needed: Sequence[str]) -> Iterator[Fault]:
    """What must be there and is not, and what need not be there but is misspelt."""
    absent = [name for name in VARIABLES if not given.get(name) and (name in needed or name not in given)]
    likeness = {name: _LIKE_ONE_THAT_IS_MISSING if name in needed else _LIKE_ANOTHER for name in absent}
    misspelt = said.misspelt(likeness, {*VARIABLES, *OLDER_NAMES})
    for name in absent:
        if name in misspelt:
            meant = f"unknown name {misspelt[name]}, did you mean {name} ({VARIABLES[name]})?"
            yield Fault(path, f"{path.name}: {meant}", said.lines[misspelt[name]])
        elif name in needed:
            yield Fault(path, f"{path.name}: {name} is missing ({VARIABLES[name]})")


def _unreadable(path: Path, error: OSError, example: str) -> Fault:
    if isinstance(error, FileNotFoundError):
        fix = f"Run: ./check.py init (or copy {example} and fill it in)"
        return Fault(path, f"{path.name} is not there yet", fix=fix)
    fix = f"Run, as its owner: chmod 600 {path.name}" if isinstance(error, PermissionError) else ""
    return Fault(path, f"{path.name} can't be read ({error.strerror})", fix=fix)


def credentials_text(values: Mapping[str, str]) -> str:
    """What a credentials.env with these values says. Raises ValueError for one that would not come back the same."""
    return text_of(values, VARIABLES)


def _tls_and_port(given: Mapping[str, str], file: Path, faults: list[Fault]) -> tuple[bool, int]:
    """TLS unless it is turned off by name, or the broker is on this machine and not on the TLS port."""
    port, tls = given.get("RABBITMQ_PORT") or "", given.get("RABBITMQ_TLS", "").lower()
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        faults.append(Fault(file, f"{file.name}: RABBITMQ_PORT must be a port number"))
        port = ""
    if tls not in ("", "true", "false"):
        faults.append(Fault(file, f"{file.name}: RABBITMQ_TLS must be true or false"))
    local = given.get("RABBITMQ_HOST") in LOOPBACK and port != "5671"
    on = tls == "true" or (tls == "" and not local)
    return on, int(port or (5671 if on else 5672))


def _api_url(value: str, file: Path, faults: list[Fault]) -> str:
    url = value.rstrip("/") if "://" in value else f"https://{value.rstrip('/')}"
    if value and not _is_origin(url):
        found = f"{file.name}: API_URL must be a scheme and a host, such as https://service.example.org"
        faults.append(Fault(file, found))
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
