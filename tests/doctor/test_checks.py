"""docs/doctor.md lists the doctor's checks: all that the code makes, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.installation import ROOT
from worker.doctor.delays import MADE, MOVED, REMOVED

MADE_BY = {
    "python": ("packages",), "files": ("files", "checkout"), "jobs folder": ("disk", "mounts", "from_node"),
    "broker": ("broker", "drops", "network"), "API": ("service", "network"),
    "workloads": ("workloads", "sandbox", "from_node"),
    "Slurm": ("cluster",), "passes": ("schedule", "pause"), "compute node": ("from_node", "delays"),
}  # fmt: skip
GIVEN = {
    "files": {"credentials.env", "site.toml"}, "disk": {"renaming", "linking", "syncing"},
    "delays": {MADE, REMOVED, MOVED},
}  # fmt: skip
"""Names of checks that are no text where the check begins."""
ROW = re.compile(r"\| ([\w ]+) \| `([^`]+)` \| .+ \|")
DOCUMENTED = {
    match.groups() for match in map(ROW.fullmatch, (ROOT / "docs" / "doctor.md").read_text().splitlines()) if match
}


def begun(module: str) -> Iterator[str]:
    """The checks of a module, with `...` for what is filled in."""
    for node in ast.walk(ast.parse((ROOT / "worker" / "doctor" / f"{module}.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "begin":
            (name,) = node.args
            if isinstance(name, (ast.Constant, ast.JoinedStr)):
                parts = [name] if isinstance(name, ast.Constant) else name.values
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)
            else:
                assert module in GIVEN, ast.unparse(node)
    yield from GIVEN.get(module, ())


def test_each_check_of_the_code_is_documented_and_each_that_is_documented_is_made() -> None:
    modules = {path.stem for path in (ROOT / "worker" / "doctor").glob("*.py") if ".begin(" in path.read_text()}
    of_a_group = {group: {check for module in made_by for check in begun(module)} for group, made_by in MADE_BY.items()}

    assert modules == {module for made_by in MADE_BY.values() for module in made_by}
    assert {check for checks in of_a_group.values() for check in checks} == {check for _, check in DOCUMENTED}
    assert [(group, check) for group, check in DOCUMENTED if check not in of_a_group[group]] == []


@pytest.mark.parametrize("module", ["drops", "network"])
def test_what_is_filled_into_the_name_of_a_check_is_left_out(module: str) -> None:
    assert {"returns to ...", "port ..."} & set(begun(module))
