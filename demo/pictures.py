"""The reply's outputs as files, and a picture that shows what the job did."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

from demo.setting import ROOT

_SUFFIXES = {"Clean Page": ".png", "Report": ".json", "Overlay": ".png"}
"""Of the outputs that are no models."""

# Runs in the workload's environment, which has what it takes to handle pictures; ours does not need it.
_SIDE_BY_SIDE = """
import sys
from PIL import Image
before, after = (Image.open(file).convert("L") for file in sys.argv[1:3])
both = Image.new("L", (before.width + after.width + 10, max(before.height, after.height)), 128)
both.paste(before, (0, 0))
both.paste(after, (before.width + 10, 0))
both.save(sys.argv[3])
"""


def unpack(answer: dict[str, str], folder: Path) -> dict[str, Path]:
    """Output name -> file."""
    folder.mkdir(exist_ok=True)
    files = {name: folder / f"{name.lower()}{_SUFFIXES.get(name, '.h5')}" for name in answer}
    for name, file in files.items():
        file.write_bytes(base64.b64decode(answer[name]))
    return files


def side_by_side(before: Path, after: Path, target: Path) -> Path:
    python = ROOT / "workloads" / "binarize" / ".venv" / "bin" / "python"
    subprocess.run([str(python), "-c", _SIDE_BY_SIDE, str(before), str(after), str(target)], check=True)
    return target
