"""What a screen reader is given of a page: Chromium's accessibility tree, asked for over its debugging pipe."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Node = tuple[str, str]
"""A role, and a name."""
_PATIENCE = 60.0


def tree(program: str, flags: Sequence[str], folder: Path, address: str, width: int) -> list[Node]:
    """In the page's order, without what is hidden. The browser has ended when this returns."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    argv = [program, *flags, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    browser = subprocess.Popen(
        ["bash", "-c", script, "bash", *argv], pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(from_write)
    pipe = _Pipe(to_write, from_read)
    try:
        target = pipe.call("Target.createTarget", url=address)["targetId"]
        pipe.session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        pipe.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        pipe.call("Accessibility.enable")
        seen = "document.URL + document.readyState"
        while pipe.call("Runtime.evaluate", expression=seen)["result"]["value"] != f"{address}complete":
            time.sleep(0.1)
        nodes = pipe.call("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.terminate()
        browser.wait(30)
        os.close(to_write)
        os.close(from_read)
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]


class _Pipe:
    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._read, self._count = to, back, b"", 0
        self.session = ""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Raises KeyError where the browser refuses it, and OSError where it has ended."""
        self._count += 1
        session = {"sessionId": self.session} if self.session else {}
        os.write(
            self._to,
            json.dumps({"id": self._count, "method": method, "params": parameters, **session}).encode() + b"\0",
        )
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._back], [], [], _PATIENCE)
            more = os.read(self._back, 1 << 20) if ready else b""
            if not more:
                raise BrokenPipeError("the browser has ended, or hangs")
            self._read += more
        one, _, self._read = self._read.partition(b"\0")
        answer: dict[str, Any] = json.loads(one)
        return answer
