"""`./run_tests --matrix`: which releases are tried, and what becomes of one that can't be had. The trees are not made here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.installation import ROOT

STUB = """\
#!/bin/sh
echo "$*" >>"$CALLS"
case $1 in
trixie) exit "${TRIXIE:-0}" ;;
*) exit "${FORKY:-0}" ;;
esac
"""


class Checkout:
    """One with `run_tests`, and with a way into another release that only notes that it was asked for."""

    def __init__(self, place: Path) -> None:
        self.root, self.calls, self.second = place / "a checkout", place / "calls", 1_700_000_000
        stub = self.root / "tests" / "services" / "with_suite"
        stub.parent.mkdir(parents=True)
        stub.write_text(STUB)
        stub.chmod(0o755)
        shutil.copy(ROOT / "run_tests", self.root)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *words: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        date = {"GIT_COMMITTER_DATE": f"@{self.second} +0000"}
        subprocess.run(
            ["git", "-C", str(self.root), *who, *words], check=True, capture_output=True, env={**os.environ, **date}
        )

    def commit(self) -> None:
        self.second += 1
        self.git("commit", "--quiet", "--allow-empty", "-m", "one more")

    def matrix(self, *options: str, ends: Mapping[str, int] = {}) -> tuple[int, str, list[str]]:
        """Exit status, what it says, and the releases that were tried."""
        self.calls.write_text("")
        more = {name.upper(): str(code) for name, code in ends.items()}
        done = subprocess.run(
            [str(self.root / "run_tests"), *options],
            env={**os.environ, "CALLS": str(self.calls), **more},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr, self.calls.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_releases_take_turns_and_the_turn_is_said(checkout: Checkout) -> None:
    tried = []
    for _ in range(4):
        code, said, calls = checkout.matrix("--matrix=turn", "--ci")
        again = checkout.matrix("--matrix=turn", "--ci")[2]
        (turn,) = re.findall("it is the turn of ([a-z]+)", said)
        assert code == 0 and [call.split()[0] for call in calls] == [turn] and calls == again
        assert "./run_tests --no-browser --ci -- tests/test_services.py" in calls[0]
        tried.append(turn)
        checkout.commit()

    assert tried in (["trixie", "forky"] * 2, ["forky", "trixie"] * 2)


def test_all_are_tried_whatever_becomes_of_one_and_one_can_be_named(checkout: Checkout) -> None:
    code, said, calls = checkout.matrix("--matrix", "--", "-k", "a name", ends={"trixie": 1})

    assert code == 1 and [call.split()[0] for call in calls] == ["trixie", "forky"]
    assert all(call.endswith("-- -k a name") for call in calls) and "trixie: exit status 1" in said
    assert [call.split()[0] for call in checkout.matrix("--matrix=forky")[2]] == ["forky"]


@pytest.mark.parametrize(("options", "ends", "expected"), [
    ((), {"trixie": 69}, 3), (("--ci",), {"trixie": 69}, 1), ((), {"trixie": 69, "forky": 1}, 1),
    ((), {"trixie": 1, "forky": 69}, 1), ((), {"forky": 3}, 3),
])  # fmt: skip
def test_a_tree_that_can_not_be_had_is_not_run_and_in_ci_a_failure(
    checkout: Checkout, options: tuple[str, ...], ends: Mapping[str, int], expected: int
) -> None:
    code, said, _ = checkout.matrix("--matrix", *options, ends=ends)

    assert code == expected
    assert ("NOT RUN: the tree of" in said) == (69 in ends.values())
