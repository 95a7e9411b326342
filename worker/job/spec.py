"""From a message's bytes to a JobSpec, or an InvalidSpec that says what is wrong. Pure.

Every name and limit comes from the site file; the message only chooses among what is allowed there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Optional, Union
from urllib.parse import urlsplit

from ..errors import InvalidSpec, UnknownWorkload
from ..settings import Form, GpuRule, Limits, Queue, ResourceRules, RetryPolicy, Workload
from .names import FileName, Line, Word
from .names import quoted as _quoted
from .own_code import Code, parse_code

_DEEPEST = 50
"""Levels of nesting in a message; a reader of job.json may be recursive."""
_TOO_DEEP = f"The job message is nested more than {_DEEPEST} levels deep."
_MOST_DIGITS = 1000
ACCEPTED = ("inline", "upload")
"""The forms of results, the one of old first."""
_LARGEST_SIZE = 2**60
"""Bytes."""


@dataclass(frozen=True)
class Resources:
    cpus: int
    memory_mb: int
    time_seconds: int
    gres: Optional[Line] = None
    email: Optional[Line] = None

    @property
    def minutes(self) -> int:
        """The time limit as Slurm counts."""
        return math.ceil(self.time_seconds / 60)


@dataclass(frozen=True)
class Caps:
    """The most that a later attempt may be given: what the queue allowed when the job was claimed."""

    memory_mb: int = 0
    time_seconds: int = 0
    gpus_by_memory: tuple[GpuRule, ...] = ()
    """Empty for a job that said itself how many GPUs it wants."""

    def gres(self, memory_mb: int, asked: Optional[str] = None) -> Optional[str]:
        """The GPUs that follow from the memory; `asked` where they don't."""
        return next((rule.gres for rule in self.gpus_by_memory if memory_mb <= rule.up_to_mb), asked)


@dataclass(frozen=True)
class Input:
    """One input: the address it comes from, the file it becomes, and whether the API's token may go along."""

    url: str
    file: FileName
    with_token: bool
    size: Optional[int] = None
    """In bytes, where the message says it."""
    sha256: str = ""
    """In hexadecimal, where the message says it."""
    hosts: tuple[str, ...] = ()
    """Of code: where it may come from, which is not where inputs may."""


@dataclass(frozen=True)
class JobSpec:
    """A job that may run. `inputs` by name; `outputs`: name -> file; `settings` as they came."""

    workload: str
    inputs: Mapping[str, Input]
    outputs: Mapping[str, FileName]
    settings: Mapping[str, Any]
    resources: Resources
    """What the message asks for: the first attempt's."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    caps: Caps = field(default_factory=Caps)
    folders: tuple[str, ...] = ()
    """Of the outputs, those that the program makes as folders."""
    accept: tuple[str, ...] = ()
    """In which forms the requester can take the outputs, of those known here; empty where the message does not say."""
    results: Word = "inline"
    """How they go: "inline", "upload", or "auto", by their size."""
    code: Optional[Code] = None
    """What the job brings along, for a workload that runs such code; what it makes is its outputs."""


def parse_spec(
    body: bytes,
    queue: Queue,
    workloads: Mapping[str, Workload],
    api_url: str,
    input_hosts: Sequence[str],
    limits: Limits,
) -> JobSpec:
    """Reads a message's body by the rules of its queue. Raises InvalidSpec with a sentence for the requester."""
    message = _object(body, limits.message_bytes)
    inputs = _table(message, "inputs")
    settings = _table(message, "settings")
    name = message.get("workload", queue.workload)
    workload = workloads.get(name) if isinstance(name, str) else None
    if workload is None:
        words = f"There is no workload named {_quoted(name)} here."
        raise UnknownWorkload(words, name) if isinstance(name, str) else InvalidSpec(words)
    if len(inputs) > limits.inputs:
        raise InvalidSpec(f"The job has {len(inputs)} inputs; at most {limits.inputs} are allowed.")
    code, folders, accept = None, set[str](), _accept(message)
    if workload.is_own_code:
        code = parse_code(message, inputs, workload.code, lambda url: may_fetch(url, "", workload.code.hosts))
        outputs: Mapping[str, str] = {}
    else:
        form, members = _fitting_form(name, workload.forms, set(inputs))
        outputs, folders = _outputs(form, members), _expand(form.folders, members)
    resources, caps = _resources(message, settings, queue.resources)
    return JobSpec(
        workload=name,
        inputs=_inputs(inputs, api_url, input_hosts, limits),
        outputs=outputs,
        settings=settings,
        resources=resources,
        retry=workload.retry,
        caps=caps,
        folders=tuple(sorted(folders)),
        accept=accept,
        results=_results(accept, "inline" if "pilot" in (workload.mode or queue.mode,) else queue.results),
        code=code,
    )


def with_resources(body: bytes, resources: Mapping[str, object], limits: Limits) -> bytes:
    """The same message, asking for these resources. Raises InvalidSpec."""
    message = _object(body, limits.message_bytes)
    asked = message.get("resources", {})
    return json.dumps({**message, "resources": {**asked, **resources} if isinstance(asked, dict) else asked}).encode()


def parse_slurm_time(text: str) -> int:
    """Seconds of a Slurm time limit: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. Raises ValueError.

    sbatch(1), --time. Its 0 means "no limit" there, so it is refused here.
    """
    days_form = re.fullmatch(r"(\d{1,3})-(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?", text, re.ASCII)
    short_form = re.fullmatch(r"(?:(\d{1,4}):)?(\d{1,5})(?::(\d{1,2}))?", text, re.ASCII)
    if days_form:
        days, hours, minutes, seconds = (int(part or 0) for part in days_form.groups())
        if hours > 23:
            raise ValueError(text)
    elif short_form:
        days = 0
        hours, minutes, seconds = _short_time(*short_form.groups())
    else:
        raise ValueError(text)
    if seconds > 59 or (minutes > 59 and (days or hours)):
        raise ValueError(text)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(text)
    return total


def deadline_of(properties: Mapping[str, Union[str, bytes, int, None]], claimed_at: float) -> Optional[float]:
    """When a message has expired, in seconds since 1970: timestamp + expiration, or the claim + expiration; None without a
    readable expiration.

    A sender's timestamp may be anything; one after the claim, or of before 2000, is no time of sending.
    """
    expiration, timestamp = properties.get("expiration"), properties.get("timestamp")
    if not isinstance(expiration, str) or not re.fullmatch(r"[0-9]{1,15}", expiration):
        return None
    plausible = isinstance(timestamp, int) and 946684800 <= timestamp <= claimed_at
    sent_at = float(timestamp) if plausible and isinstance(timestamp, int) else claimed_at
    return sent_at + int(expiration) / 1000


def _short_time(first: Optional[str], middle: str, last: Optional[str]) -> tuple[int, int, int]:
    if last is not None:
        return int(first or 0), int(middle), int(last)
    if first is not None:
        return 0, int(first), int(middle)
    return 0, int(middle), 0


# --- the body


def _object(body: bytes, most: int) -> dict[str, Any]:
    if len(body) > most:
        raise InvalidSpec(f"The job message is larger than the {most} bytes that are allowed.")
    try:
        message = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_not_endless,
        )
    except UnicodeDecodeError:
        raise InvalidSpec("The job message is not UTF-8 text.") from None
    except RecursionError:
        raise InvalidSpec(_TOO_DEEP) from None
    except ValueError:
        raise InvalidSpec("The job message is not valid JSON.") from None
    if _depth(message) > _DEEPEST:
        raise InvalidSpec(_TOO_DEEP)
    if not isinstance(message, dict):
        raise InvalidSpec("The job message is not a JSON object.")
    return message


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:  # one by one: a message may have a hundred thousand of them
        if name in table:
            raise InvalidSpec(f"The job message gives {_quoted(name)} twice.")
        table[name] = value
    return table


def _no_constant(word: str) -> NoReturn:
    raise InvalidSpec(f"The job message holds {word}, which is not a number in JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidSpec("The job message holds a number that is too large.")
    return number


def _not_endless(text: str) -> int:
    # int() takes a time that grows with the square of the digits; since Python 3.11 it refuses many of them itself.
    if len(text) > _MOST_DIGITS:
        raise InvalidSpec("The job message holds a number that is too large.")
    return int(text)


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST + 1:
        deepest += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
    return deepest


def _table(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in message:
        raise InvalidSpec(f'The job message has no "{name}".')
    if not isinstance(message[name], dict):
        raise InvalidSpec(f'"{name}" in the job message is not a JSON object.')
    return dict(message[name])


def _accept(message: Mapping[str, Any]) -> tuple[str, ...]:
    """Other forms than ours may be among them: those of a newer version."""
    asked = message.get("accept", [])
    if not isinstance(asked, list) or not all(isinstance(each, str) for each in asked):
        raise InvalidSpec('"accept" in the job message is not a list of words.')
    accepted = tuple(form for form in ACCEPTED if form in asked)
    if asked and not accepted:
        raise InvalidSpec(
            f'Of what "accept" in the job message names, nothing is known here ({", ".join(ACCEPTED)} are).'
        )
    return accepted


def _results(accept: Sequence[str], offered: str) -> str:
    """`offered`: by the queue; where its jobs share a Slurm job, they have no time to wait for an upload."""
    if not accept or (offered == "inline" and "inline" in accept):
        return "inline"
    if offered == "inline":
        raise InvalidSpec(
            "The results of this job can only be sent in its answer, which the job message does not accept."
        )
    if "upload" not in accept:
        return "inline"
    return offered if "inline" in accept else "upload"


# --- inputs and outputs


def _fitting_form(workload: str, forms: Sequence[Form], given: set[str]) -> tuple[Form, int]:
    """The first form that takes exactly these inputs, and how many members its family has."""
    complaints = []
    for form in forms:
        members = _members(form, given)
        required = _expand(form.required, members)
        allowed = required.union(*(_expand([name], _count(name, form, given)) for name in form.optional))
        if required <= given <= allowed:
            return form, members
        complaints.append(
            (len(required - given) + len(given - allowed), sorted(required - given), sorted(given - allowed))
        )
    _, missing, unknown = min(complaints)
    parts = [f"{words}: {', '.join(map(_quoted, names[:10]))}" for words, names in
             (("missing", missing), ("not known or out of sequence", unknown)) if names]  # fmt: skip
    raise InvalidSpec(f'The inputs do not fit the workload "{workload}" ({"; ".join(parts)}).')


def _members(form: Form, given: set[str]) -> int:
    """How many of the required families' members there must be: at least one, and as many as the longest has."""
    families = [name for name in form.required if "{n}" in name]
    return max([1, *(_count(name, form, given) for name in families)]) if families else 0


def _count(name: str, form: Form, given: set[str]) -> int:
    """How many members of a family are there before the first gap."""
    return next((n for n in range(form.family_max) if _member(name, n) not in given), form.family_max)


def _expand(names: Sequence[str], members: int) -> set[str]:
    return {
        each for name in names for each in ([_member(name, n) for n in range(members)] if "{n}" in name else [name])
    }


def _member(name: str, n: int) -> str:
    return name.replace("{n}", str(n))


def _outputs(form: Form, members: int) -> dict[str, str]:
    names = [
        (each, suffix)
        for name, suffix in form.outputs.items()
        for each in ([_member(name, n) for n in range(members)] if "{n}" in name else [name])
    ]
    return {name: _file(index, name) + suffix for index, (name, suffix) in enumerate(names)}


def _file(index: int, name: str) -> str:
    """A name on disk for a name in a message: the number makes it unique, the rest is for people."""
    return f"{index:02d}_{re.sub(r'[^A-Za-z0-9-]+', '_', name)[:40]}"


def _inputs(given: Mapping[str, Any], api_url: str, input_hosts: Sequence[str], limits: Limits) -> Mapping[str, Input]:
    sources = {
        name: _input(index, name, each, api_url, input_hosts)
        for index, (name, each) in enumerate(sorted(given.items()))
    }
    size = sum(source.size or 0 for source in sources.values())
    if size > limits.input_bytes:
        raise InvalidSpec(f"The job's inputs have {size} bytes; at most {limits.input_bytes} are allowed.")
    return sources


def _input(index: int, name: str, given: object, api_url: str, input_hosts: Sequence[str]) -> Input:
    """`given`: an address, or a table with the address and what is known of the file."""
    if not isinstance(given, dict):
        return _input_at(index, name, given, api_url, input_hosts)
    unknown = set(given) - {"url", "sha256", "bytes"}
    if unknown:
        raise InvalidSpec(f"The input {_quoted(name)} has {_quoted(min(unknown))}, which is not known here.")
    size, sha256 = given.get("bytes"), given.get("sha256", "")
    if size is not None and (type(size) is not int or not 0 <= size <= _LARGEST_SIZE):
        raise InvalidSpec(
            f'"bytes" of the input {_quoted(name)} must be a whole number; this job says {_quoted(size)}.'
        )
    if not isinstance(sha256, str) or not re.fullmatch("([0-9a-fA-F]{64})?", sha256):
        raise InvalidSpec(f'"sha256" of the input {_quoted(name)} must be 64 hexadecimal digits.')
    source = _input_at(index, name, given.get("url"), api_url, input_hosts)
    return replace(source, size=size, sha256=sha256.lower())


def _input_at(index: int, name: str, url: object, api_url: str, input_hosts: Sequence[str]) -> Input:
    if not isinstance(url, str) or not url or len(url) > 4096 or re.search(r"[^\x21-\x7e]|\\", url):
        raise InvalidSpec(f"The address of the input {_quoted(name)} is not a URL.")
    if url.startswith("/") and not url.startswith("//"):
        return Input(api_url + url, _file(index, name), with_token=True)
    if may_fetch(url, api_url, input_hosts):
        return Input(url, _file(index, name), with_token=_origin(url) == _origin(api_url))
    raise InvalidSpec(f"The input {_quoted(name)} comes from {_quoted(_host(url))}, which is not allowed here.")


def may_fetch(url: str, api_url: str, input_hosts: Sequence[str]) -> bool:
    """Whether a job may download from `url`: the API's own origin, or a listed host over https.

    A listed host may also be a whole origin, such as "http://files.internal:8080".
    """
    origin = _origin(url)
    if origin is None or "@" in urlsplit(url).netloc:
        return False
    listed = [_origin(host if "://" in host else f"https://{host}") for host in input_hosts]
    return origin == _origin(api_url) or origin in listed


def _origin(url: str) -> Optional[tuple[str, str, int]]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def _host(url: str) -> str:
    origin = _origin(url)
    return origin[1] if origin else url


# --- resources


def _resources(message: Mapping[str, Any], settings: Mapping[str, Any], rules: ResourceRules) -> tuple[Resources, Caps]:
    asked = message.get("resources", {})
    if not isinstance(asked, dict):
        raise InvalidSpec('"resources" in the job message is not a JSON object.')
    unknown = set(asked) - {"cpus", "memory_mb", "time", "gpus", "email"}
    if unknown:
        raise InvalidSpec(f"The job asks for {_quoted(min(unknown))}, which is no resource known here.")
    named = {ours: settings[theirs] for ours, theirs in rules.names.items() if theirs in settings}
    wish = {**named, **asked}
    called = {ours: theirs for ours, theirs in rules.names.items() if ours not in asked}
    cpus = _number(wish, "cpus", called, rules.cpus, rules.max_cpus)
    memory_mb = _number(wish, "memory_mb", called, rules.memory_mb, rules.max_memory_mb)
    gpus = _number(wish, "gpus", called, rules.gpus, rules.max_gpus, least=0)
    caps = Caps(rules.max_memory_mb, int(rules.max_time), () if gpus else rules.gpus_by_memory)
    asked = Resources(
        cpus=cpus,
        memory_mb=memory_mb,
        time_seconds=_time(wish, called, rules),
        gres=f"gpu:{gpus}" if gpus else caps.gres(memory_mb),
        email=_email(wish),
    )
    return asked, caps


def _number(
    wish: Mapping[str, Any], name: str, called: Mapping[str, str], default: int, most: int, least: int = 1
) -> int:
    value = wish.get(name, default)
    label = called.get(name, name)
    if type(value) is not int or value < least:
        raise InvalidSpec(f'"{label}" must be a whole number of at least {least}; this job says {_quoted(value)}.')
    if value > most:
        raise InvalidSpec(f'"{label}" may be at most {most} here; this job says {_quoted(value)}. Ask for less.')
    return value


def _time(wish: Mapping[str, Any], called: Mapping[str, str], rules: ResourceRules) -> int:
    if "time" not in wish:
        return int(rules.time)
    value, label = wish["time"], called.get("time", "time")
    try:
        seconds = parse_slurm_time(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidSpec(
            f'"{label}" must be a time such as "0-06:00" (days-hours:minutes); this job says {_quoted(value)}.'
        ) from None
    if seconds > rules.max_time:
        raise InvalidSpec(f'"{label}" may be at most {_hours(rules.max_time)} here; this job says {_quoted(value)}.')
    return seconds


def _email(wish: Mapping[str, Any]) -> Optional[str]:
    value = wish.get("email", "")
    if value in ("", None):
        return None
    address = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
    if not isinstance(value, str) or not re.fullmatch(address, value):
        raise InvalidSpec(f"{_quoted(value)} is not an e-mail address.")
    return value


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} hours"
