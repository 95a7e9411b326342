"""What `--json` prints: one object, of the form that docs/json/ describes. Needs the standard library alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

FORMAT = 1
"""Raised where a field goes, or means something else; a field that is added raises nothing."""


def show(said: Any, code: int) -> int:
    """`said`: a dataclass, or fields by name. Returns the exit code, which is inside too."""
    told: Mapping[str, Any] = asdict(said) if is_dataclass(said) and not isinstance(said, type) else said
    print(json.dumps({"format_version": FORMAT, "exit_code": code, **told}, indent=1))
    return code


def fail(words: str, code: int, in_json: bool, fix: str = "", **more: object) -> int:
    """Nothing can be shown but why. With --json that stands where the answer would, otherwise it goes to standard
    error. `more`: what else a program may want to know."""
    if in_json:
        return show({"error": words, "fix": fix, **more}, code)
    print(f"check.py: {words}{f'. {fix}' if fix else ''}", file=sys.stderr)
    return code
