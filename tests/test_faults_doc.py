"""docs/faults.md and the tests of faults say the same: no row without its test, no scenario without its row."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST = 60
"""So many distinct pairs of a fault and a moment were asked for."""


def rows() -> list[list[str]]:
    """The cells of each row of the tables."""
    lines = (ROOT / "docs" / "faults.md").read_text().splitlines()
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("| ")]
    return [cells for cells in found if cells[0] != "fault"]


def named(row: list[str]) -> list[str]:
    return re.findall(r"`(test_\w+)", row[-1])


def functions() -> Iterator[ast.FunctionDef]:
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(file.read_text())
        yield from (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def pairs(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """What its `pytest.mark.fault(what=..., moment=...)` say, also those inside of parameters."""
    calls = [node for each in function.decorator_list for node in ast.walk(each) if isinstance(node, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "fault"]
    words = [{k.arg: ast.unparse(k.value) for k in mark.keywords} for mark in marks]  # a name stands for one scenario
    return [(word["what"], word["moment"]) for word in words]


def test_every_row_names_tests_that_exist() -> None:
    known = {function.name for function in functions()}

    gone = {row[0]: [name for name in named(row) if name not in known] for row in rows()}

    assert len(rows()) >= 40
    assert not {fault: names for fault, names in gone.items() if names}
    assert not [row[0] for row in rows() if not named(row)]


def test_every_row_about_returns_names_tests_that_exist() -> None:
    known = {function.name for function in functions()}
    lines = (ROOT / "docs" / "queues.md").read_text().splitlines()
    shown = [re.findall(r"`(test_\w+)", line) for line in lines if line.startswith("| ") and "shown by" not in line]

    assert len(shown) >= 9 and all(shown)
    assert not {name for names in shown for name in names} - known


def test_every_row_is_whole() -> None:
    assert not [row for row in rows() if len(row) != 5 or not all(row)]


def test_every_scenario_has_its_row() -> None:
    told = {name for row in rows() for name in named(row)}

    assert not [function.name for function in functions() if pairs(function) and function.name not in told]


def test_there_are_as_many_scenarios_as_were_asked_for_and_none_twice() -> None:
    found = Counter(pair for function in functions() for pair in pairs(function))

    assert len(found) >= LEAST
    assert not [pair for pair, times in found.items() if times > 1]
