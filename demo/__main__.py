"""Plays a web service, cron and an operator, and tells the story as it happens."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Optional

from demo import beside
from demo.pictures import side_by_side, unpack
from demo.requester import Asker, open_asker
from demo.setting import BINARIZE, ROOT, TRAINER, Setting, prepare
from demo.training import separate
from tests.services.upstream import Upstream
from worker.errors import Misconfigured, Transient

PATIENCE = {BINARIZE: 180.0, TRAINER: 1800.0}
"""Seconds; a job on a busy Slurm may have to wait longer, and the demo then says how to look for it."""
ENOUGH = 0.9
"""The F1 that each layer of a page that the models never saw has to reach."""

FAILURES = {
    "memory": "the program needs more memory than it may have (told as out_of_memory with --slurm)",
    "time": "the program takes longer than its time limit",
    "exit": "the program finds a setting that it can't use",
    "input": "the page does not exist at the service",
}


def main() -> int:
    options = _parser().parse_args()
    if options.credentials and not options.credentials.is_file():
        _parser().error(f"there is no file {options.credentials}")
    if options.fail and options.workload != BINARIZE:
        _parser().error(f"--fail plays with the workload {BINARIZE} only")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        site = beside.taken_over(options.credentials) if options.slurm or options.credentials else {}
        host = beside.host_for_nodes(site) if options.slurm else Upstream.host
        return _play(options, site, host)
    except Misconfigured as error:
        for fault in error.faults:
            print(f"run_demo: {fault}", file=sys.stderr)
        return os.EX_CONFIG
    except (beside.Unfit, Transient) as error:
        print(f"run_demo: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE


def _play(options: argparse.Namespace, site: Mapping[str, Any], host: str) -> int:
    with Upstream(host=host) as upstream:
        setting = prepare(upstream, options.slurm, options.credentials, options.fail, options.workload, site)
        try:
            return _story(setting, upstream, options.fail)
        except KeyboardInterrupt:
            _say("stopped")
            return 130
        finally:
            setting.end()


def _story(setting: Setting, upstream: Upstream, failure: Optional[str]) -> int:
    _say(f"The service is at {upstream.url}; it holds {_holds(setting)}.")
    with contextlib.closing(open_asker(setting)) as asker:
        answer = _ask(setting, asker, failure)
    if answer is None:
        _say(
            f"No answer within {PATIENCE[setting.workload]:.0f} s. Look at {_shown(setting.folder / 'jobs' / 'active')}."
        )
        return 1
    _say(f"The answer is there; what the service reads from the queue {setting.queue}-results:")
    as_expected = _show(setting, answer, failure)
    _say("Where to look next:")
    _quote(f"{_shown(setting.folder / 'jobs' / 'done')}   the job's folder: every fact of its life is a file")
    _quote(
        f"{_shown(setting.folder / 'site.toml')}   what this installation may do; site.example.toml explains each line"
    )
    _quote("README.md   how to install it on a cluster; ./run_demo --fail memory shows a failure")
    return 0 if as_expected else 1


def _ask(setting: Setting, asker: Asker, failure: Optional[str]) -> Optional[dict[str, str]]:
    correlation_id = asker.ask(setting.inputs, setting.settings)
    _say(f"It publishes a job to the queue {setting.queue}:")
    _quote(json.dumps({"inputs": setting.inputs, "settings": setting.settings}))
    if failure:
        _say(f"This job will fail: {FAILURES[failure]}.")
    return _passes(setting, asker, correlation_id)


def _passes(setting: Setting, asker: Asker, correlation_id: str) -> Optional[dict[str, str]]:
    """Runs ./run_check as cron would, only more often, until the answer is there and the job's folder is put away."""
    end, answer = time.monotonic() + PATIENCE[setting.workload], None
    _say("Cron runs ./run_check again and again:")
    while time.monotonic() < end:
        for line in _run_check(setting).splitlines():
            _quote(line)
        answer = answer or asker.answer(correlation_id)
        if answer is not None and not any((setting.folder / "jobs" / "active").iterdir()):
            return answer
        time.sleep(1)
        _tick()
    return answer


def _run_check(setting: Setting) -> str:
    command = [
        str(ROOT / "run_check"),
        "--site",
        str(setting.folder / "site.toml"),
        "--credentials",
        str(setting.credentials),
    ]
    with subprocess.Popen(
        command,
        env=setting.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the demo: a pass ends by itself, and the block waits for that
    ) as one_pass:
        assert one_pass.stdout is not None
        return one_pass.stdout.read()


def _show(setting: Setting, answer: dict[str, str], failure: Optional[str]) -> bool:
    if "error" in answer:
        _quote(json.dumps(answer))
        return failure is not None
    files = unpack(answer, setting.folder / "answer")
    for name, file in files.items():
        _quote(f"{name}: {_shown(file)} ({file.stat().st_size} bytes)")
    if setting.workload == TRAINER:
        return _show_separated(setting, files)
    picture = side_by_side(setting.page, files["Clean Page"], setting.folder / "answer" / "before and after.png")
    _quote(f"before and after, side by side: {_shown(picture)}")
    return failure is None


def _holds(setting: Setting) -> str:
    return "a page of music and its layers" if setting.workload == TRAINER else "a scanned page"


def _show_separated(setting: Setting, files: Mapping[str, Path]) -> bool:
    picture = setting.folder / "answer" / "another page, separated.png"
    scores = separate(files, picture)
    _quote(f"another page, and what the models make of it: {_shown(picture)}")
    _quote("F1 there: " + ", ".join(f"{layer} {score:.3f}" for layer, score in scores.items()))
    return min(scores.values()) >= ENOUGH


def _say(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\r{bold}{text}{plain}", flush=True)


def _quote(text: str) -> None:
    print(f"\r    {text}", flush=True)


def _tick() -> None:
    """A sign of life while the job runs; nothing where the output is a file."""
    if sys.stdout.isatty():
        print(f"\r    waiting {time.strftime('%H:%M:%S')}", end="", flush=True)


def _shown(path: Path) -> str:
    return os.path.relpath(path, ROOT)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(os.EX_USAGE, f"run_demo: {message}. See ./run_demo --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="run_demo", description="The main job end to end. See ./run_demo --help")
    parser.add_argument("--workload", choices=(BINARIZE, TRAINER), default=BINARIZE)
    parser.add_argument("--fail", choices=FAILURES)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--credentials", type=Path)
    return parser


if __name__ == "__main__":
    if shutil.which("flock") is None:
        print("run_demo: flock is missing (package util-linux)", file=sys.stderr)
        sys.exit(os.EX_UNAVAILABLE)
    sys.exit(main())
