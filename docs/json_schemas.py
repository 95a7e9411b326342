"""Writes docs/json/ from the code's own dataclasses: `.venv/bin/python -m docs.json_schemas`. A test keeps them so.

JSON Schema, draft 2020-12 (https://json-schema.org/draft/2020-12/json-schema-core).
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from worker import as_json
from worker.doctor import examine
from worker.login import resend
from worker.operate import asking, dry_run, explain, health, pause, pilots, report, show, status, told

FORMS: Mapping[str, tuple[type, str]] = {
    "status": (status.Standing, "./check.py status --json"),
    "status-check": (health.Health, "./check.py status --check --json"),
    "show": (show.Story, "./check.py show JOB --json"),
    "explain": (explain.Explained, "./check.py explain JOB --json"),
    "cancel": (asking.Told, "./check.py cancel --json"),
    "retry": (asking.Told, "./check.py retry --json"),
    "rerun": (asking.Told, "./check.py rerun --json"),
    "replay": (asking.Told, "./check.py replay --json"),
    "resend": (resend.Told, "./check.py resend --json"),
    "pilots": (pilots.Told, "./check.py pilots --json"),
    "pause": (pause.Shown, "./check.py pause --json"),
    "resume": (pause.Shown, "./check.py resume --json"),
    "test": (told.Shown, "./check.py test --json"),
    "report": (report.Report, "./check.py report --json"),
    "doctor": (examine.Told, "./check.py doctor --json"),
    "dry-run": (dry_run.Planned, "./check.py --dry-run --json"),
    "dry-run-message": (dry_run.OfMessage, "./check.py --dry-run --message FILE --json"),
    "error": (as_json.Failed, "any of these, if there is no answer"),
}
HERE = Path(__file__).parent / "json"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_ENVELOPE = {
    "format_version": {"const": as_json.FORMAT, "description": "Raised where a field goes, or means something else."},
    "exit_code": {
        "type": "integer",
        "description": "The one that the command ends with; its --help says what it means.",
    },
}

_EXPLAINED = {
    "at": "When, in seconds since 1970.",
    "since": "Since when, in seconds since 1970.",
    "claimed_at": "When its message was taken, in seconds since 1970.",
    "ended_at": "When it ended, in seconds since 1970.",
    "oldest_claimed_at": "When the oldest active job was claimed, in seconds since 1970.",
    "oldest_unanswered_since": "Since when the oldest answer that is not sent waits, in seconds since 1970.",
    "last_at": "When that happened last, in seconds since 1970.",
    "job": "The id of a job.",
    "last_job": "The id of the last job of which this is so.",
    "state": "Where it stands, in a word that `./check.py status --help` explains.",
    "outcome": "What it came to, in a word that `./check.py status --help` explains; empty where it has none yet.",
    "outcomes": "How many jobs, by day and outcome, or by outcome.",
    "queue": "The name of a jobs queue.",
    "queues": "Of each jobs queue.",
    "workload": "The name of its workload; empty where the message was no valid job.",
    "correlation_id": "As its message has it, without characters that are not printable.",
    "reply_to": "Where its answer goes, as its message has it.",
    "attempt": "The number of an attempt; 0 for none.",
    "attempts": "How many attempts.",
    "slurm": "Slurm's id of its last attempt; empty for none.",
    "slurm_id": "Slurm's id; empty for none.",
    "slurm_state": "Slurm's own word for it.",
    "slurm_reason": "Why Slurm lets it wait, in Slurm's own word.",
    "slurm_away": "Why Slurm gives no answer; empty where it does, or was not asked.",
    "broker_away": "Why the broker gives no answer; empty where it does, or was not asked.",
    "away": "Who gives no answer, and why; empty where all do.",
    "node": "The name of a compute node; empty where it has none.",
    "why": "In a sentence; empty where there is nothing to say.",
    "reason": "What its requester reads; empty where it succeeded.",
    "last_reason": "What the requester of that job reads.",
    "words": "In a sentence.",
    "what": "What happened, in a word.",
    "progress": "How far its program says that it is, from 0 to 1; null where it has said nothing.",
    "progress_words": "What its program says about that.",
    "fraction": "From 0 to 1.",
    "host": "The name of the login host.",
    "running": "Whether it is running now.",
    "installation": "The name of this installation, as Slurm's job names bear it.",
    "max_in_flight": "At most so many jobs are active.",
    "last_pass": "The last pass, or the one that is running; null where there was none.",
    "site_fault": "What keeps all jobs waiting; null where nothing does.",
    "kind": "Of login, api, slurm and disk, what is away.",
    "waiting": "Messages that wait.",
    "queue_faults": "By queue why it can't be read, and what to do.",
    "active": "How many active jobs, by state.",
    "rejected": "How many are kept in jobs/rejected.",
    "undelivered": "How many are kept in jobs/undelivered.",
    "jobs": "Jobs: each of them, or how many.",
    "folder": "Where its files are.",
    "asks_for": "What it asks for, in words.",
    "inputs": "By name, the URL; what follows a question mark is left out in `show`.",
    "settings": "As its message has them.",
    "timeline": "What happened, in the order of time.",
    "used": "What each attempt was given, and used.",
    "log_tail": "The last lines of its log.",
    "asked_cpus": "CPUs that it was given.",
    "asked_memory_mb": "Memory that it asked for, in MB.",
    "asked_seconds": "Time that it asked for, in seconds.",
    "seconds": "How long it took; null where nobody knows.",
    "cpu_seconds": "CPU time of all its processes; null where nobody knows.",
    "memory_mb": "The most that it had, in MB; null where nobody knows.",
    "most_memory_mb": "The most that one of them had, in MB; null where nobody knows.",
    "longest_seconds": "The longest of them; null where nobody knows.",
    "sentences": "Where it is, what it waits for, and what comes next.",
    "matched": "How many jobs fit what was asked for.",
    "done": "How many lie in jobs/done.",
    "answers": "Those that wait, or were sent now.",
    "to": "The queue that it is for.",
    "findings": "One for each thing that was looked at.",
    "group": "What belongs together.",
    "check": "The name of the check; docs/doctor.md has them all.",
    "found": "What was found, in a sentence.",
    "fix": "What to do about it; empty where that is clear from what was found.",
    "file": "The path of the file.",
    "level": "OK, WARNING, CRITICAL or UNKNOWN.",
    "sbatch": "The command that would be called.",
    "would": "submit or reject; empty for a job that was tried already.",
    "would_take": "How many of them the next pass takes.",
    "batch": "The name of its batch.",
    "pilot": "The name of a pilot.",
    "pilots": "Each pilot.",
    "todo": "Jobs in batches that no pilot has taken yet.",
    "locked": "Jobs in batches that a pilot has taken.",
    "ended": "Jobs in batches that came back.",
    "error": "Jobs that were answered, and not with a success.",
    "left": "Jobs that went on as jobs of their own.",
    "version": "Batchferry's own.",
    "now": "The same as `status --json`.",
    "day": "A day of UTC, such as 2026-11-28.",
    "days": "Each day, the oldest first.",
    "looked": "What the jobs that were opened add up to.",
    "recent": "The jobs that ended last.",
    "past": "What is known of it.",
    "place": "Where it lies: done, rejected or undelivered.",
    "cause": "Why it failed, in a few words.",
    "causes": "Failures by cause.",
    "nodes": "Failures by node.",
    "failed": "How many of them did not succeed.",
    "tries": "Its attempts.",
    "usage": "What each workload asks for and uses.",
    "advice": "What to ask for instead; empty where nothing is to be said.",
    "waits": "How long jobs waited, by day.",
    "unreadable": "How many could not be read.",
    "count": "Of how many.",
    "median": "Half of them are below this.",
    "p90": "Nine in ten of them are below this.",
    "asked": "What was asked for.",
    "memory": "How its memory fits, where that is known.",
    "time": "How its time fits, where that is known.",
    "whose": "Whose doing it was.",
    "life": "How long each of its steps took.",
    "step": "What it did: wait, fetch, run, pack or answer.",
    "grave": "Whether nothing is taken, or nothing goes out.",
    "detail": "What was found, and what to do.",
    "by": "Who asked for it: user@host.",
    "submit": "Whether nothing is submitted either.",
    "Pause.reason": "Why, as who asked for it said.",
    "Waits.queue": "In the jobs queue; null where nobody knows.",
    "Waits.slurm": "In Slurm; null where nobody knows.",
    "Cause.jobs": "How many failed so.",
    "Looked.jobs": "How many were opened.",
    "Standing.waiting": "Messages that wait, by queue.",
    "QueueRow.done": "Jobs that were answered with a success.",
    "Row.done": "Whether it was done, or can be done.",
    "Progress.words": "What its program says about that.",
}
"""What a field is whose class does not say it, by its name, or by that of its class too."""


def schema(name: str) -> dict[str, Any]:
    """Of what a verb prints."""
    form, command = FORMS[name]
    inner: dict[str, Any] = {}
    whole = _object(form, inner)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": command,
        **whole,
        "properties": {**_ENVELOPE, **whole["properties"]},
        "required": [*_ENVELOPE, *whole["required"]],
        **({"$defs": inner} if inner else {}),
    }


def _object(form: type, inner: dict[str, Any]) -> dict[str, Any]:
    """Of a dataclass; those in it go to `inner`. All fields are there always."""
    about, words = inspect.getdoc(form) or "", _words(form)
    hints = get_type_hints(form, include_extras=True)
    properties = {}
    for each in fields(form):
        of_class, otherwise = f"{form.__name__}.{each.name}", _EXPLAINED.get(each.name)
        explained = words.get(each.name) or _EXPLAINED.get(of_class, otherwise)
        said = _type(hints[each.name], inner)
        properties[each.name] = {**said, "description": explained} if explained else said
    described = {"description": " ".join(about.split())} if about and not about.startswith(f"{form.__name__}(") else {}
    return {**described, "type": "object", "properties": properties, "required": list(properties)}


def _type(hint: Any, inner: dict[str, Any]) -> dict[str, Any]:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(inside[0], inner)
    if origin is Union or isinstance(hint, getattr(types, "UnionType", ())):
        return {"anyOf": [_type(each, inner) for each in inside]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(inside[1], inner)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _type(inside[0], inner)}
    if is_dataclass(hint) and isinstance(hint, type):
        name = f"{hint.__module__.rpartition('.')[2]}.{hint.__name__}"  # several modules have a Row
        if name not in inner:
            inner[name] = {}  # it may hold itself
            inner[name] = _object(hint, inner)
        return {"$ref": f"#/$defs/{name}"}
    if hasattr(hint, "__supertype__"):
        return _type(hint.__supertype__, inner)
    return {"type": _PLAIN[hint]} if hint in _PLAIN else {}


def _words(form: type) -> dict[str, str]:
    """What stands below each field."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(form))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for each, below in zip(node.body, node.body[1:]):
        if isinstance(each, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(each.target)] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def written(name: str) -> str:
    return json.dumps(schema(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for each in FORMS:
        (HERE / f"{each}.schema.json").write_text(written(each), encoding="utf-8")
