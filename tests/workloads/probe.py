"""A workload for tests: its outputs are a digest of its inputs and settings, and its settings say how it misbehaves.

It keeps its own record of having run (setting "record": a file that gets a line), so that the books can be balanced
without asking Batchferry. What no other setting can say is Python in "before" or "after": run in the work folder before
or after the outputs are written.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    job_file = Path(sys.argv[1])
    job = json.loads(job_file.read_text())
    settings = job["settings"]
    if "record" in settings:
        with open(settings["record"], "a") as record:
            record.write(f"{os.getpid()}\n")
    note(settings, "began")
    misbehave(settings)
    exec(settings.get("before", ""), {})
    inputs = {name: (job_file.parent / path).read_bytes() for name, path in job["inputs"].items()}
    for name, path in job["outputs"].items():
        (job_file.parent / path).write_bytes(output(name, inputs, settings))
    exec(settings.get("after", ""), {})
    note(settings, "ended")


def note(settings: dict[str, Any], word: str) -> None:
    """For the books of jobs that are tried more than once (setting "books"): the folder tells the job and the attempt."""
    if "books" in settings:
        with open(settings["books"], "a") as books:
            books.write(f"{word} {os.getcwd()}\n")


def output(name: str, inputs: dict[str, bytes], settings: dict[str, Any]) -> bytes:
    """What this workload makes of these inputs, also when a test calls it directly."""
    digest = hashlib.sha256(name.encode())
    for each in sorted(inputs):
        digest.update(each.encode() + inputs[each])
    return digest.digest() * int(settings.get("repeat", 4))


def misbehave(settings: dict[str, Any]) -> None:
    print("probe runs", settings.get("say", ""), flush=True)
    if settings.get("ignore term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if settings.get("farewell"):
        signal.signal(signal.SIGTERM, lambda *_: take_leave(float(settings["farewell"])))
    for _ in range(int(settings.get("children", 0))):
        subprocess.Popen(
            [sys.executable, "-c", f"import time; time.sleep(300)  # {settings.get('mark', '')}"],
            start_new_session=False,
        )
    time.sleep(float(settings.get("sleep", 0)))
    while "until" in settings and not os.path.exists(settings["until"]):
        time.sleep(0.1)
    if settings.get("memory"):
        hoard = bytearray(int(settings["memory"]) << 20)
        hoard[::4096] = b"x" * len(hoard[::4096])
    if settings.get("child memory"):
        # A child is killed for memory, and we go on as if nothing had happened.
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"b = bytearray({int(settings['child memory']) << 20}); b[::4096] = b'x' * len(b[::4096])",
            ]
        )
    if settings.get("signal"):
        os.kill(os.getpid(), int(settings["signal"]))
    if settings.get("exit"):
        print(settings.get("complaint", "the image is empty"), file=sys.stderr)
        sys.exit(int(settings["exit"]))
    if settings.get("omit"):
        sys.exit(0)


def take_leave(seconds: float) -> None:
    """What a program does that saves its work when it is told to stop."""
    time.sleep(seconds)
    print("probe took its leave", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
