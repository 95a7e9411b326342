"""Slurm commands that misbehave: executables named like the real ones, which call those and lie about it, hang or die."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

from tests.scene import Scene
from tests.services.daemon import poll
from tests.services.present import find

_COMMANDS = ("sbatch", "squeue", "sacct", "scancel")

COMMAND_TIMEOUT = 5
"""Seconds that an installation with shims waits for a command."""


class Shims:
    """The `bin_dir` of one installation. Each command is the real one until `script` tells it what to do instead: bash,
    in which `"$real" "$@"` is the real command, `$marks` a folder for files, and `$PPID` the pass that called."""

    def __init__(self, scene: Scene, timeout: int = COMMAND_TIMEOUT) -> None:
        self._folder = scene.installation.folder / "shims"
        self.marks = scene.installation.folder / "marks"
        for folder in (self._folder, self.marks):
            folder.mkdir()
        for command in _COMMANDS:
            self.behave(command)
        slurm = f'[slurm]\nbin_dir = {json.dumps(str(self._folder))}\ncommand_timeout = "{timeout}s"\n'
        scene.installation.change_site("[timing]", f"{slurm}[timing]")

    def behave(self, *commands: str) -> None:
        for command in commands:
            self.script(command, 'exec "$real" "$@"')

    def script(self, command: str, text: str) -> None:
        lines = [
            "#!/bin/bash",
            f"real={shlex.quote(find(command) or command)} marks={shlex.quote(str(self.marks))}",
            f'echo "$*" >>"$marks/{command}.calls"',
            text,
        ]
        aside = self._folder / f".{command}"
        aside.write_text("\n".join(lines) + "\n")
        aside.chmod(0o700)
        aside.rename(self._folder / command)

    def calls(self, command: str) -> int:
        """How often a pass has called it."""
        made = self.marks / f"{command}.calls"
        return len(made.read_text().splitlines()) if made.exists() else 0

    def go(self) -> None:
        """Lets a script go on that waits for it (`WAIT_TO_GO`)."""
        (self.marks / "go").touch()


WAIT_TO_GO = 'touch "$marks/waits"; for _ in {1..600}; do [ -e "$marks/go" ] && break; sleep 0.1; done'


def pass_halted_at_sbatch(scene: Scene, shims: Shims, meanwhile: Callable[[], None], expect: int) -> str:
    """One pass: a message is claimed, and `meanwhile` happens before sbatch begins. Returns what the pass printed."""
    shims.script("sbatch", f'{WAIT_TO_GO}; exec "$real" "$@"')
    with ThreadPoolExecutor() as pool:
        printed = pool.submit(scene.installation.check, "--drain", expect=expect)
        assert poll((shims.marks / "waits").exists), "no pass has come to sbatch"
        meanwhile()
        shims.go()
        text = printed.result()
    shims.behave("sbatch")
    return text


def slurm_jobs(scene: Scene, *options: str) -> list[str]:
    """The ids of all of this installation's jobs that Slurm shows; with `options` of squeue, of some."""
    names = {json.loads(intent.read_text())["name"] for intent in scene.installation.jobs.path.rglob("intent*.json")}
    rows = scene.slurm.run("squeue", "--noheader", "--format=%i|%j", *(options or ["--states=all"])).splitlines()
    return [slurm_id for slurm_id, _, name in (row.partition("|") for row in rows) if name in names]


def start_now(scene: Scene, *slurm_ids: str) -> None:
    """Jobs that were to begin later, unless they have begun."""
    for slurm_id in slurm_ids:
        try:
            scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "starttime=now")
        except RuntimeError as error:
            if "no longer pending" not in str(error):
                raise


def runs(record: Path) -> int:
    """How often the workload ran."""
    return len(record.read_text().splitlines()) if record.exists() else 0


def all_quiet(scene: Scene) -> bool:
    """Whether Slurm has nothing left that could still run or answer."""
    return poll(lambda: not slurm_jobs(scene, "--states=PENDING,RUNNING,SUSPENDED,COMPLETING"), 60, pause=0.3)
