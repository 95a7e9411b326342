"""What a job came to, and the reply that says so. Pure.

The reply's form: `{"<output>": "<base64>", ...}` or `{"error": "<sentence>"}`; everything new travels in properties.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from .names import FileNameIfAny, NameIfAny, Word, WordIfAny

OUTCOMES = ("succeeded", "rejected", "failed", "out_of_memory", "timed_out", "node_failed", "preempted", "cancelled",
            "expired", "lost")  # fmt: skip


@dataclass(frozen=True)
class Output:
    """One output file: `size` in bytes, `sha256` in hexadecimal, `type` a media type, where its requester wants to know."""

    size: int
    sha256: str
    type: str = ""
    file: FileNameIfAny = ""
    """In the attempt's outputs/, where it goes home from there."""


@dataclass(frozen=True)
class Used:
    """What an attempt used, as its worker saw it."""

    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds in fetch, run and pack; a step that was not reached is missing."""
    input_bytes: int = 0
    cpu_seconds: float = 0
    process_mb: int = 0
    """The most memory that one process of it had; all of them together are the scheduler's to tell."""


@dataclass(frozen=True)
class Result:
    """What one attempt came to."""

    outcome: Word
    attempt: int
    reason: str = ""
    """A sentence for the requester; empty for a success."""
    step: WordIfAny = ""
    may_work_again: bool = False
    needs_verdict: bool = False
    """The worker could not know the whole truth (it was told to stop, or could not see whether memory ran out): the
    scheduler's word decides, and the login side sends the answer."""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    node: str = ""
    slurm_job_id: str = ""
    started_at: Optional[float] = None
    ended_at: Optional[float] = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    body: NameIfAny = ""
    """For a success: the name of the file in the attempt's folder that holds the packed reply."""
    used: Optional[Used] = None
    to_upload: bool = False
    """Of a success: its outputs are files in the attempt's outputs/, and have to arrive before it is answered."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Of code that the job brought along: its digest or commit, and the sandbox that it ran in."""


@dataclass(frozen=True)
class Reply:
    """One message to a requester, complete: what is stored is what is sent, and sent again."""

    routing_key: str
    correlation_id: Optional[Union[str, bytes]]
    body: bytes
    type: str
    message_id: str
    timestamp: int
    """Seconds since 1970."""
    expiration_ms: int
    headers: Mapping[str, Any]
    content_type: str = "application/json"


def headers(result: Result, job_id: str, earlier: Sequence[Result] = (), rerun_of: str = "") -> dict[str, Any]:
    """The reply's headers: AMQP types only, so numbers are whole and absent facts are left out. `rerun_of`: the job whose
    message an operator has put to work again. Of very many outputs, or where long names begin alike, it says only how many
    they are."""
    told = {_short(name): _described(output) for name, output in result.outputs.items()}
    facts = {
        "job_id": job_id,
        "rerun_of": rerun_of or None,
        "outcome": result.outcome,
        "attempt": result.attempt,
        "earlier_attempts": [each.outcome for each in earlier] or None,
        "slurm_job_id": result.slurm_job_id or None,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "started_at": _whole(result.started_at),
        "ended_at": _whole(result.ended_at),
        "provenance": dict(result.provenance) or None,
        "outputs": told,
    }
    if len(told) < len(result.outputs) or len(json.dumps(told)) > _MOST_OF_OUTPUTS:
        facts.update(outputs=None, outputs_untold=len(result.outputs))
    return {name: value for name, value in facts.items() if value is not None}


_MOST_OF_OUTPUTS = 1 << 16
"""Bytes. The head of a message is one frame, of 128 KiB where nobody has set `frame_max`, and a broker ends the connection
over a larger one: such an answer would never arrive. What this counts is about what they take there."""


def _described(output: Output) -> dict[str, Any]:
    """To a requester who never said what it can take, nothing may be new."""
    described = {"size": output.size, "sha256": output.sha256}
    return {**described, "type": output.type} if output.type else described


def failure_body(result: Result, earlier: Sequence[Result] = ()) -> bytes:
    return json.dumps({"error": sentence(result, earlier)}).encode()


def sentence(result: Result, earlier: Sequence[Result] = ()) -> str:
    """One readable paragraph for a scientist, to be shown in the middle of somebody else's text."""
    text = result.reason or result.outcome.replace("_", " ")
    if not earlier:
        return text
    ends = ", ".join(f"failed to {each.step}" if each.step else each.outcome.replace("_", " ") for each in earlier)
    return f"{text} (This was attempt {result.attempt}; before: {ends}.)"


_FRAME = re.compile(
    r"""
    [\s|+]*(Exception\ Group\ )?Traceback\ \(most\ recent\ call\ last\)
    | [\s|]*File\ ".*",\ line\ \d+
    | \s{4,}[^\s|+] | \s*\|\s{4,}\S # the line of source in a frame, and what marks its place
    | [\s|+-]*-{9,}                 # between the members of an exception group
    """,
    re.VERBOSE,
)
_PATH = re.compile(
    r"""
    (\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^\s'"]+)                    # an address stays as it is
    | (?:\bfile:)? (?<![\w./])/+ (?:(?:[\w.@%+=,-]+/+)+([\w.@%+=,-]*)  # of a path, its last part stays
                                   |([\w.@%+=,-]+))
    """,
    re.VERBOSE,
)


def readable_tail(text: str, lines: int = 5, characters: int = 600) -> str:
    """The last lines of a program's output as a requester may see them: no traceback, no path of the cluster."""
    kept = [line.strip() for line in text.splitlines() if line.strip() and not _FRAME.match(line)]
    tail = " / ".join(_PATH.sub(r"\1\2\3", line) for line in kept[-lines:])
    printable = "".join(c if c.isprintable() else " " for c in tail)
    return printable if len(printable) <= characters else "..." + printable[-characters:]


def _whole(seconds: Optional[float]) -> Optional[int]:
    return None if seconds is None else int(seconds)


def _short(name: str) -> str:
    """A header's name may have 255 bytes."""
    return name.encode()[:255].decode("utf-8", "ignore")
