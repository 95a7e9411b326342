"""The scheduler of one machine: whoever watches over a job writes down how it ended, whenever it is asked to end it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.installation import ROOT

ASKED_WHILE_THE_LOCK_IS_HELD = """\
import os, signal, subprocess, sys
from pathlib import Path
from scheduler import local

def poll(self, look=subprocess.Popen.poll, asked=[]):
    if not asked:
        asked.append(True)
        self._waitpid_lock.acquire()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # the handler runs here, at the latest
            pass
        self._waitpid_lock.release()
    return look(self)

subprocess.Popen.poll = poll
local.watch(Path(sys.argv[1]))
"""


def test_a_job_that_is_cancelled_while_its_process_is_looked_at_has_an_end(tmp_path: Path) -> None:
    """A handler that raised left subprocess's lock held, and whoever waited for the process then waited for ever."""
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    request = {"script": str(script), "arguments": [], "chdir": str(tmp_path), "output": str(tmp_path / "log"),
               "minutes": 10, "warn_seconds": 1, "name": "a"}  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))

    watch = [sys.executable, "-c", ASKED_WHILE_THE_LOCK_IS_HELD, str(tmp_path)]
    subprocess.run(watch, cwd=ROOT, check=True, timeout=100)

    assert json.loads((tmp_path / "end.json").read_text())["state"] == "CANCELLED"
