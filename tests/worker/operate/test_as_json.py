"""JSON is an interface: what each verb prints is what docs/json/ says, errors among it; and exit codes stand in every help."""

from __future__ import annotations

import ast
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import check
from docs import json_schemas
from tests.installation import ROOT, Installation
from tests.json_schema import faults
from tests.worker.login.situations import job, outcome, result, started, submitted
from tests.worker.operate.ground import put
from worker import help_text
from worker.job.facts import Delivered, Progress, Undeliverable

VERBS = [*check.EARLY_VERBS, *check.VERBS]
Door = Callable[..., tuple[int, str]]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """With a broker in a file, and jobs that stand everywhere."""
    nobody = SimpleNamespace(host="127.0.0.1", user="u", password="p", vhost="/", port=9)
    made = Installation(tmp_path / "place", nobody, "http://127.0.0.1:9", "u", "p", {}, "jobs")
    broker = json.dumps(str(tmp_path / "broker.sqlite"))
    made.site_file.write_text(f'broker = "embedded"\nbroker_file = {broker}\n{made.site_file.read_text()}')
    made.jobs.prepare()
    put(made.jobs, "aa11", job(submitted()))
    put(made.jobs, "aa22", job()).held.path.write_text("{}")  # damaged, which must hide no other
    put(made.jobs, "bb11", job(started())).attempt(1).progress.write(Progress(0.5, "half", 1))
    put(made.jobs, "cc11", job(started(result=result("failed")), outcome=outcome("job", word="failed")),
        "done/2026-11-20", ("delivered.json", Delivered("answers", 1)))  # fmt: skip
    put(made.jobs, "dd11", job(spec=None, outcome=outcome("login", word="rejected")), "rejected")
    put(made.jobs, "ee11", job(started(result=result()), outcome=outcome("job")), "undelivered",
        ("undeliverable.json", Undeliverable("no queue", 1)))  # fmt: skip
    return made


@pytest.fixture
def door(installation: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Door:
    """check.py, in this process: its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        files = ["--site", str(installation.site_file), "--credentials", str(installation.credentials_file)]
        monkeypatch.setattr("sys.argv", ["check.py", *words, *files])
        capsys.readouterr()
        try:
            code = check.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().out

    return run


def held_against(form: str, code: int, printed: str) -> dict[str, Any]:
    """What was printed, once it is found to be as the schema on disk has it."""
    told: dict[str, Any] = json.loads(printed)
    schema = json.loads((json_schemas.HERE / f"{form}.schema.json").read_text(encoding="utf-8"))
    assert list(faults(told, schema, schema)) == []
    assert (told["format_version"], told["exit_code"]) == (1, code)
    return told


@pytest.mark.parametrize("form", json_schemas.FORMS)
def test_a_schema_is_what_the_code_says_with_every_field_explained(form: str) -> None:
    file = json_schemas.HERE / f"{form}.schema.json"

    assert file.read_text(encoding="utf-8") == json_schemas.written(form), "run: .venv/bin/python -m docs.json_schemas"
    schema = json_schemas.schema(form)
    for name, each in [(form, schema), *schema.get("$defs", {}).items()]:
        assert [field for field, said in each["properties"].items() if not said.get("description")] == [], name
    assert f"]({file.name})" in (json_schemas.HERE / "README.md").read_text(encoding="utf-8")


def test_no_verb_that_has_json_is_without_a_schema() -> None:
    assert set(VERBS) - set(check.WITHOUT_JSON) <= set(json_schemas.FORMS)


@pytest.mark.parametrize(("form", "words"), [
    ("status", ["status", "--offline"]), ("status", ["status", "a", "--offline"]), ("status", ["status", "--state", "done"]),
    ("status-check", ["status", "--check", "--offline"]),
    ("show", ["show", "bb", "--offline"]), ("show", ["show", "dd", "--offline"]), ("show", ["show", "ee", "--offline"]),
    ("explain", ["explain", "bb", "--offline"]), ("explain", ["explain", "ee", "--offline"]),
    ("cancel", ["cancel", "aa11", "zz"]), ("cancel", ["cancel", "--all"]), ("retry", ["retry", "--all"]),
    ("rerun", ["rerun", "--all", "--dry-run"]), ("rerun", ["rerun", "cc"]), ("replay", ["replay"]),
    ("resend", ["resend"]), ("resend", ["resend", "last", "ee"]), ("resend", ["resend", "ee"]),
    ("pilots", ["pilots"]), ("pilots", ["pilots", "--list", "error"]), ("pilots", ["pilots", "--put-back"]),
    ("report", ["report", "--offline", "--days", "366"]), ("dry-run", ["--dry-run"]),
])  # fmt: skip
def test_what_a_verb_prints_is_as_its_schema_says(form: str, words: list[str], door: Door) -> None:
    code, printed = door(*words, "--json")

    held_against(form, code, printed)


def test_the_doctor_s_findings_and_what_a_message_would_become_are_too(door: Door, tmp_path: Path) -> None:
    body = tmp_path / "body"
    for text in ('{"inputs": {"Image": "/a"}, "settings": {}}', "no job"):
        body.write_text(text)
        held_against("dry-run-message", *door("--dry-run", "--message", str(body), "--json"))
    held_against("doctor", *door("doctor", "--json"))


@pytest.mark.parametrize(("words", "code", "said"), [
    (["show", "zz"], 65, "zz: no job with this id, and none begins so."),
    (["explain", "aa"], 65, "aa: 2 jobs begin so: aa11 (pending), aa22 (held). Give more of the id."),
    (["show"], 64, "the following arguments are required: JOB"),
    (["status", "--state", "lost"], 64, "argument --state: invalid choice"),
    (["pilots", "--queue", "none"], 64, "there is no queue none in the site file"),
    (["--dry-run", "--message", "/nowhere"], 66, "/nowhere can't be read"),
    (["sattus"], 64, "invalid choice: 'sattus'"),
])  # fmt: skip
def test_an_error_is_json_too_with_its_exit_code_inside(words: list[str], code: int, said: str, door: Door) -> None:
    assert (told := held_against("error", *door(*words, "--json")))["exit_code"] == code
    assert said in told["error"]


def test_resend_says_apart_that_no_answer_waits_and_that_several_do(door: Door, installation: Installation) -> None:
    put(installation.jobs, "ee22", job(started(result=result()), outcome=outcome("job")), "undelivered",
        ("undeliverable.json", Undeliverable("no queue", 1)))  # fmt: skip

    told = held_against("resend", *door("resend", "zz", "ee", "--json"))

    assert told["unknown"] == ["zz", "ee"] and told["unclear"] == [
        "zz: no answer of a job with this id waits",
        "ee: answers of 2 jobs whose ids begin so wait: ee11, ee22. Give more of the id",
    ]


def test_several_candidates_are_listed_whole(door: Door) -> None:
    assert held_against("error", *door("show", "aa", "--json"))["candidates"] == ["aa11", "aa22"]


def test_files_that_are_at_fault_are_named_with_their_lines(door: Door, installation: Installation) -> None:
    installation.change_site("max_in_flight = 300", "max_in_flight = 0\nmax_in_fligth = 1")

    told = held_against("error", *door("status", "--json"))

    assert told["exit_code"] == os.EX_CONFIG and len(told["faults"]) == 2
    assert all(each["line"] and each["file"] == str(installation.site_file) for each in told["faults"])


def test_where_only_the_log_says_why_its_words_are_the_error(door: Door, installation: Installation) -> None:
    installation.jobs.mark.write_text('{"format": 1, "id": "another"}')

    told = held_against("error", *door("resend", "--all", "--json"))

    assert told["exit_code"] == os.EX_CANTCREAT and "not the one of earlier passes" in told["error"]


# --- help


def sources(verb: str) -> list[Path]:
    module = {**check.EARLY_VERBS, **check.VERBS}[verb]
    return [ROOT / f"{module.replace('.', '/')}.py"]


@pytest.mark.parametrize("verb", VERBS)
def test_exit_codes_stand_in_every_verb_s_help_which_fits_eighty_columns(
    verb: str, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    code, printed = door(verb, "--help")

    codes = {int(line.split()[0]) for line in printed.partition("exit codes:\n")[2].partition("\n\n")[0].splitlines()
             if line.split()[0].isdigit()}  # fmt: skip
    assert code == 0 and {0, *help_text.ALWAYS} <= codes
    assert {getattr(os, name) for path in sources(verb) for name in returned(path)} <= codes
    assert [line for line in printed.splitlines() if len(line) > 80] == []


def returned(path: Path) -> set[str]:
    """The exit codes that a file names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("EX_")}


@pytest.mark.parametrize("verb", VERBS)
def test_a_summary_is_a_line_and_a_help_has_examples(verb: str) -> None:
    about = importlib.import_module({**check.EARLY_VERBS, **check.VERBS}[verb])

    assert len(about.SUMMARY) < 120 and "\n" not in about.SUMMARY
    assert about.EXAMPLES.startswith("examples:") and f"check.py {verb}" in about.EXAMPLES


def test_a_list_keeps_its_columns_and_a_paragraph_is_filled_anew() -> None:
    text = "Some words\nin a paragraph.\n\nstates:\n  claimed   on disk and safe; not submitted yet\n"

    assert help_text.filled(text, 30).splitlines() == [
        "Some words in a paragraph.", "", "states:", "  claimed   on disk and safe;", "            not submitted yet",
    ]  # fmt: skip
