"""One log call makes a line for people and an object for machines, and both say the same."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys

import pytest

from tests.installation import ROOT
from worker.log_lines import JsonLines, parts


def record(message: str, *arguments: object, exc_info: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if exc_info else None
    return logging.LogRecord("worker", logging.INFO, "x.py", 1, message, arguments, info)


@pytest.mark.parametrize(("message", "arguments", "event", "fields"), [
    ("submitted job=%s attempt=%d slurm=%s", ("a", 1, "7_3"), "submitted", {"job": "a", "attempt": 1, "slurm": "7_3"}),
    ("broker away why=%r", ("it's\n\x1b[2J",), "broker away", {"why": "it's\n\x1b[2J"}),
    ("answer not taken job=%s in=%.0f s why=%r", ("a", 1.5, "x"), "answer not taken s", {"job": "a", "in": 1.5, "why": "x"}),
    ("waits job=%s %s", ("a", "for Slurm"), "waits for Slurm", {"job": "a"}),
    ("too large job=%s: set it (%s)", ("a", "why"), "too large: set it (why)", {"job": "a"}),
    ("nothing to say", (), "nothing to say", {}),
    ("all of it 100%% job=%s", ("a",), "all of it 100%", {"job": "a"}),
    ("id correlation_id=%r", (b"\xff",), "id", {"correlation_id": "b'\\xff'"}),
    ("odd level=%s", ("x",), "odd", {"with_level": "x"}),
])  # fmt: skip
def test_fields_are_taken_out_of_the_phrase(
    message: str, arguments: tuple[object, ...], event: str, fields: dict[str, object]
) -> None:
    assert parts(record(message, *arguments)) == (event, fields)


def test_a_line_is_one_json_object_on_one_line() -> None:
    line = JsonLines().format(record("claimed job=%s why=%r", "a", "one\ntwo"))

    assert "\n" not in line
    assert json.loads(line)["event"] == "claimed" and json.loads(line)["at"].endswith("Z")


def test_a_traceback_is_kept() -> None:
    try:
        raise ValueError("canary")
    except ValueError:
        line = JsonLines().format(record("unforeseen job=%s", "a", exc_info=True))

    assert "canary" in json.loads(line)["traceback"] and "\n" not in line


def test_every_log_call_s_template_can_be_taken_apart() -> None:
    calls = [f"log.{level}" for level in ("debug", "info", "warning", "error", "exception")]
    seen = 0

    for path in [path for room in ("worker", "scheduler", "slurm") for path in (ROOT / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
                template = node.args[0]
                assert isinstance(template, ast.Constant) and isinstance(template.value, str), (
                    f"{path.name}: {ast.unparse(node)}"
                )
                _, fields = parts(record(template.value, *[1.0] * (len(node.args) - 1)))
                seen += 1
                assert "with_at" not in fields and "with_event" not in fields, path

    assert seen > 50


def test_a_line_for_people_says_in_which_zone_its_time_is() -> None:
    """Login nodes, compute nodes and cron may each have another one."""
    said = subprocess.run(
        [sys.executable, "-c", "import check, logging\nhandler = check._handler('text', True)\n"
         "print(handler.format(logging.makeLogRecord({'msg': 'x', 'levelname': 'INFO', 'created': 0})))"],
        cwd=ROOT, env={"TZ": "XYZ-5:30", "PATH": "/usr/bin"}, capture_output=True, text=True,
    )  # fmt: skip

    assert said.stdout == "1970-01-01 05:30:00+0530 INFO    x\n", said.stderr
