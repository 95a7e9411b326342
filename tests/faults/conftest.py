from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the workload writes a line each time that it runs."""
    return tmp_path / "record"
