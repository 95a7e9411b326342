"""The patchwise trainer: sampling against the plain double loop, an epoch against bare Keras, and the wall from a message to
its reply, by step. Needs workloads/patchwise_trainer/.venv and no services: the wall is that of ./run_demo's parts."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from bench import ground
from demo.__main__ import _passes
from demo.requester import open_asker
from demo.setting import ROOT, TRAINER, prepare
from tests.services.upstream import Upstream

_FOLDER = ROOT / "workloads" / TRAINER


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=__doc__)
    parser.add_argument("--only", choices=("sampling", "epoch", "wall"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    facts: dict[str, Any] = {}
    for name in ("sampling", "epoch"):
        if options.only in (None, name):
            facts.update({f"{name}: {what}": value for what, value in _in_its_environment(name).items()})
    if options.only in (None, "wall"):
        facts.update({f"wall: {what}": value for what, value in _wall().items()})
    ground.show(facts, options.json)
    return 0 if all(value for what, value in facts.items() if what.endswith("within_budget")) else 1


def _in_its_environment(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(_FOLDER / ".venv" / "bin" / "python"), "-m", f"bench.trainer.{name}"], cwd=ROOT, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{_FOLDER}"}, text=True, check=True,
    )  # fmt: skip
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _wall() -> dict[str, Any]:
    """Seconds of one job of the demo, with one epoch for each of its four layers: from the message to the reply."""
    with Upstream() as upstream:
        setting = prepare(upstream, slurm=False, credentials=None, failure=None, workload=TRAINER, site={})
        try:
            with contextlib.closing(open_asker(setting)) as asker, contextlib.redirect_stdout(sys.stderr):
                published = time.time()
                settings = {**setting.settings, "Maximum number of training epochs": 1}
                answer = _passes(setting, asker, asker.ask(setting.inputs, settings))
        finally:
            setting.end()
    if answer is None or "error" in answer:
        raise AssertionError(f"the job failed: {answer}")
    (job,) = (file.parent for file in (setting.folder / "jobs" / "done").glob("*/*/message.json"))
    message, started, result, delivered = (
        json.loads((job / name).read_text())
        for name in ("message.json", "attempts/1/started.json", "attempts/1/result.json", "delivered.json")
    )
    labels = {label["model"]: label["seconds"] for label in json.loads(base64.b64decode(answer["Report"]))["labels"]}
    steps = result["used"]["steps"]
    walls = {
        "message to claim": message["claimed_at"] - published,
        "claim to start": started["at"] - message["claimed_at"],
        "fetch": steps["fetch"],
        "run": steps["run"],
        **{f"of it {model}": seconds for model, seconds in labels.items()},
        "of it imports, pages, overlay": steps["run"] - sum(labels.values()),
        "pack": steps["pack"],
        "publish": delivered["at"] - result["ended_at"],
        "all": delivered["at"] - published,
    }
    return {f"{name}, seconds": round(seconds, 2) for name, seconds in walls.items()}


if __name__ == "__main__":
    sys.exit(main())
