"""An installation, a crontab of its own, and what the doctor says of them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.installation import ROOT, Installation
from tests.scene import Scene

_CRONTAB = """\
#!/bin/sh
file={file}
case $1 in
-l) [ -e "$file" ] && exec cat "$file"; echo "no crontab for $USER" >&2; exit 1 ;;
*) exec cat -- "$1" >"$file" ;;
esac
"""


@dataclass(frozen=True)
class Line:
    """One line of the doctor's."""

    group: str
    check: str
    mark: str
    found: str
    mend: str
    node: str

    @property
    def words(self) -> str:
        return f"{self.found} {self.mend}"


class Crontab:
    """As crontab(1) keeps it, for this test alone; `bin` goes to the beginning of PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.file = folder / "crontab"
        self.bin.mkdir(parents=True)
        program = self.bin / "crontab"
        program.write_text(_CRONTAB.format(file=shlex.quote(str(self.file))))
        program.chmod(0o700)

    def write(self, *lines: str) -> None:
        self.file.write_text("".join(f"{line}\n" for line in lines))


class Examined:
    """`files`: the installation. Its crontab has the one line that it should have."""

    def __init__(self, files: Installation, folder: Path) -> None:
        self.files = files
        self.crontab = Crontab(folder)
        (files.folder / "logs").mkdir()
        files.change_site('workload = "probe"\n', 'workload = "probe"\ndurable = false\n')
        self.crontab.write("MAILTO=me", "", self.cron_line())

    def cron_line(self, log: str = "logs/run_check.log", site_file: Path | None = None) -> str:
        words = [str(ROOT / "run_check"), "--site", str(site_file or self.files.site_file)]
        words += ["--credentials", str(self.files.credentials_file)]
        line = f"* * * * * {shlex.join(words)} >> {shlex.quote(str(self.files.folder / log))} 2>&1"
        return line.replace("%", "\\%")

    @property
    def path(self) -> str:
        return f"{self.crontab.bin}:{os.defpath}"

    def doctor(self, *options: str, expect: int | None = None) -> list[Line]:
        printed = self.files.check("doctor", "--json", *options, expect=expect, stderr=False, PATH=self.path)
        return [Line(**each) for each in json.loads(printed)["findings"]]

    def line(self, group: str, check: str, *options: str) -> Line:
        return one(self.doctor(*options), group, check)


def one(lines: Sequence[Line], group: str, check: str) -> Line:
    found = [line for line in lines if (line.group, line.check) == (group, check)]
    assert len(found) == 1, [(line.group, line.check, line.mark) for line in lines]
    return found[0]


def faults(lines: Sequence[Line]) -> list[tuple[str, str]]:
    return [(line.group, line.check) for line in lines if line.mark == "fault"]


def prepared(scene: Scene) -> Scene:
    """With a pass behind it, so that nothing is missing."""
    scene.installation.check("--drain")
    return scene


def connect(rabbitmq: Any) -> Any:
    import pika

    login = pika.PlainCredentials(rabbitmq.user, rabbitmq.password)
    return pika.BlockingConnection(pika.ConnectionParameters(rabbitmq.host, rabbitmq.port, credentials=login))
