"""What starts the passes: a line for cron, a block for scrontab, or a service of systemd's user manager that watches.

Facts: crontab(5), scrontab(1), systemd.service(5), systemd.unit(5) on specifiers.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..doctor.crontab import has_none_yet, pass_lines
from ..doctor.programs import run
from .files import create

UNIT = "batchferry.service"


class NotAdded(Exception):
    """It could not be added; nothing was changed. The text says why."""


@dataclass(frozen=True)
class Start:
    root: Path
    site_file: Path
    credentials_file: Path
    slurm_conf: str = ""

    @property
    def log(self) -> Path:
        return self.root / "logs" / "run_check.log"

    def words(self) -> list[str]:
        """run_check, and the files where they are not in their usual places."""
        words = [str(self.root / "run_check")]
        for option, path in (("--site", self.site_file), ("--credentials", self.credentials_file)):
            usual = self.root / ("site.toml" if option == "--site" else "credentials.env")
            words += [] if path == usual else [option, str(path)]
        return words

    def cron_line(self) -> str:
        setting = f"SLURM_CONF={shlex.quote(self.slurm_conf)} " if self.slurm_conf else ""
        command = f"{setting}{' '.join(map(_quoted, self.words()))} >> {_quoted(str(self.log))} 2>&1"
        return "* * * * * " + command.replace("%", "\\%")

    def scrontab_block(self) -> str:
        """Each pass is a small job; Slurm submits the next one when the last has ended."""
        return f"#SCRON --job-name=batchferry-pass --time=00:20:00 --mem=500M --output=/dev/null\n{self.cron_line()}"

    def unit(self) -> str:
        """contrib/batchferry.service, with the paths of this installation."""
        text = (self.root / "contrib" / UNIT).read_text(encoding="utf-8")
        options = "".join(f" {_quoted(word)}" for word in self.words()[1:])
        command = f"exec .venv/bin/python -E check.py --watch{options} >>{_quoted(str(self.log))} 2>&1"
        page = quote(str(self.root / "docs" / "watch.md"))
        lines = {
            "Documentation=": f"Documentation=file://{page}".replace("%", "%%"),
            "WorkingDirectory=": f"WorkingDirectory={self.root}".replace("%", "%%"),
            "ExecStart=": f"ExecStart=/bin/sh -c {_unit_quoted(command)}",
        }
        if self.slurm_conf:
            lines["#Environment=SLURM_CONF="] = f"Environment={_unit_quoted(f'SLURM_CONF={self.slurm_conf}')}"
        for begin, line in lines.items():
            text = re.sub(rf"(?m)^{begin}.*$", line.replace("\\", r"\\"), text)
        return text

    def shown(self, kind: str) -> str:
        if kind == "systemd":
            return f"# ~/.config/systemd/user/{UNIT}\n{self.unit()}"
        return self.cron_line() if kind == "crontab" else self.scrontab_block()


def add(start: Start, kind: str) -> str:
    """Returns what was done, in a sentence. Raises NotAdded."""
    return _add_unit(start) if kind == "systemd" else _add_lines(start, kind)


def _add_lines(start: Start, program: str) -> str:
    before = _present_lines(program)
    ours = [line for line in pass_lines(before) if line.root == start.root and _names(line.site_file, start)]
    if ours:
        return f"Line {ours[0].number} of the {program} starts passes already; nothing was added."
    block = start.cron_line() if program == "crontab" else start.scrontab_block()
    with tempfile.NamedTemporaryFile("w", prefix="batchferry-", encoding="utf-8") as file:
        file.write(f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{block}\n")
        file.flush()
        answer = run([program, file.name])
    if answer is None or answer.code:
        raise NotAdded(f"{program} refuses it: {answer.complained.strip() if answer else 'no answer'}")
    return f"Added to the {program}."


def _names(site_file: object, start: Start) -> bool:
    return (site_file or start.root / "site.toml") == start.site_file


def _present_lines(program: str) -> str:
    """Raises NotAdded where they can't be read: to write a new file then would remove them."""
    answer = run([program, "-l"])
    if answer is None:
        raise NotAdded(f"there is no {program} program on this host")
    if answer.code and not has_none_yet(answer):
        raise NotAdded(f"{program} -l failed: {answer.complained.strip() or 'no reason given'}")
    return answer.said if answer.code == 0 else ""


def _add_unit(start: Start) -> str:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    file, text = Path(home) / "systemd" / "user" / UNIT, start.unit()
    file.parent.mkdir(parents=True, exist_ok=True)
    if not create(file, text) and file.read_text(encoding="utf-8") != text:
        raise NotAdded(f"{file} is there already and says something else; remove it first")
    return (
        f"{file} is written. Start it: systemctl --user daemon-reload && systemctl --user enable --now batchferry. "
        "Keep it running when you are logged out: loginctl enable-linger"
    )


def _quoted(word: str) -> str:
    """Always in quotes, as a path in a crontab may get a space one day."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _unit_quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
