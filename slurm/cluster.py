"""Runs Slurm's commands: the only door to other programs on the login side."""

from __future__ import annotations

import logging
import os
import pwd
import subprocess
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Callable, Optional

from scheduler import (
    BatchRequest,
    Declined,
    JobView,
    NoHistory,
    Outlook,
    Refused,
    SlurmJobId,
    SpentOn,
    TooWide,
    Unavailable,
    Usage,
    is_element,
)

from . import answers, commands, details, states
from .traits import TRAITS

log = logging.getLogger(__name__)

_STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

_TIMES = {"SLURM_TIME_FORMAT": "%s"}
_FIX_BIN_DIR = (
    "Set bin_dir in [slurm] of site.toml to the folder of sbatch (`which sbatch` tells it, with modules loaded)"
)
_FIX_CONF = "Set SLURM_CONF to the cluster's slurm.conf, in the crontab as in your login shell"
_FIX_HANGS = "Run it by hand; if it hangs there too, tell the cluster's administrators"
_FIX_NO_SACCT = "or, where this cluster has no sacct, accounting = false"


class Slurm:
    """The cluster's commands, with an environment made from scratch: sbatch hands its own environment to the job."""

    traits = TRAITS

    def __init__(
        self,
        bin_dir: str = "",
        account: Optional[str] = None,
        partition: Optional[str] = None,
        extra_options: Sequence[str] = (),
        accounting: bool = True,
        timeout: float = 60,
        at_a_time: int = 0,
        spent_on: Optional[SpentOn] = None,
    ) -> None:
        """`timeout`: seconds that a command may take; `at_a_time`: how many elements of one array, 0 for no limit.
        What `spent_on` raises comes out of each method besides its own errors."""
        self._account, self._partition, self._extra = account, partition, extra_options
        self._accounting = accounting
        self._timeout = timeout
        self._at_a_time = at_a_time
        self._spent_on: SpentOn = spent_on or (lambda command: nullcontext())
        self._environment = _environment(bin_dir)

    def submit(self, request: BatchRequest) -> SlurmJobId:
        argv = commands.sbatch(request, self._account, self._partition, self._extra, self._at_a_time)
        answer = self._run(argv)
        if answer.returncode != 0:
            raise _no(argv, answer)
        slurm_id = commands.parse_submitted(answer.stdout)
        if slurm_id is None:
            raise _unavailable(argv, answer)
        if answer.stderr.strip():
            log.warning("sbatch warned slurm=%s said=%r", slurm_id, answer.stderr.strip())
        return slurm_id

    def objection(self, request: BatchRequest) -> str:
        answer = self._run(commands.test_only(commands.sbatch(request, self._account, self._partition, self._extra)))
        if answer.returncode == 0:
            return ""
        said = f"{answer.stderr}\n{answer.stdout}"
        if answers.is_unclear(answer.returncode, said):
            raise _unavailable(["sbatch --test-only"], answer)
        return answers.words_of(said)

    def largest_array(self) -> int:
        return commands.parse_max_array_size(self._ask(commands.show_config())) or 1

    def queue(self) -> list[JobView]:
        rows = self._parsed(states.parse_squeue, commands.squeue())
        return [states.left_to_history(row) for row in rows] if self._accounting else rows

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        if not self._accounting:
            return []
        own, now = str(os.getuid()), time.time()
        ages = [max(0, int(now - each)) for each in (since, until if until is not None else now)]
        rows = self._parsed(lambda text: states.parse_sacct(text, own), commands.sacct(names, *ages))
        return [replace(row, by=_user_name(row.by)) for row in rows]

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        """Elements of arrays also where they have just started: with `--state` Slurm 22.05 takes "7_0" of an array that
        waits as a whole for all of it, and ends 7_1 too."""
        elements = [each for each in ids if is_element(each)]
        others = [each for each in ids if not is_element(each)]
        for some, filtered in ((elements, False), (others, only_waiting)):
            if some:
                self._ask(commands.scancel(some, filtered))

    def usage(self, slurm_id: SlurmJobId) -> Optional[Usage]:
        return details.parse_usage(self._ask(commands.usage(slurm_id))) if self._accounting else None

    def outlook(self, slurm_id: SlurmJobId) -> Optional[Outlook]:
        asked = commands.outlook(slurm_id)
        answer = self._run(asked, **_TIMES)
        if answer.returncode != 0 and answers.knows_no_such_job(answer.stderr):
            return None
        seen = details.parse_outlook(_stdout(asked, answer))
        if seen is None or not seen.partition:
            return seen
        return replace(seen, stock=details.parse_nodes(self._ask(commands.nodes(seen.partition))))

    def _parsed(self, parse: Callable[[str], list[JobView]], argv: list[str]) -> list[JobView]:
        try:
            return parse(self._ask(argv))
        except ValueError as error:
            raise Unavailable(f"{argv[0]}: {error}") from None

    def _ask(self, argv: list[str]) -> str:
        return _stdout(argv, self._run(argv, **_TIMES))

    def _run(self, argv: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        with self._spent_on(argv[0]):
            return self._run_now(argv, **more)

    def _run_now(self, argv: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv, env={**self._environment, **more}, stdin=subprocess.DEVNULL, capture_output=True,
                encoding="utf-8", errors="replace", timeout=self._timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            # Without slurm.conf sbatch looks for its controller by DNS, and waits.
            fix = _FIX_CONF if argv[0] == "sbatch" and "SLURM_CONF" not in self._environment else _FIX_HANGS
            raise Unavailable(f"{argv[0]} gave no answer within {self._timeout:.0f} s", fix) from None
        except OSError as error:
            found = f"{argv[0]} could not be started: {error.strerror}"
            if argv[0] == "sacct":
                raise NoHistory(found, f"{_FIX_BIN_DIR}, {_FIX_NO_SACCT}") from None
            raise Unavailable(found, _FIX_BIN_DIR) from None


def _stdout(argv: Sequence[str], answer: subprocess.CompletedProcess[str]) -> str:
    """Raises Unavailable."""
    if commands.is_too_wide(answer.stderr):
        raise TooWide(_complaint(argv, answer))
    if answer.returncode != 0:
        raise _unavailable(argv, answer)
    return answer.stdout


def _unavailable(argv: Sequence[str], answer: subprocess.CompletedProcess[str]) -> Unavailable:
    said = f"{answer.stderr}\n{answer.stdout}"
    kind = NoHistory if answers.has_no_accounting(said) else Unavailable
    return kind(_complaint(argv, answer), answers.fix_of(argv[0].split()[0], said))


def _no(argv: Sequence[str], answer: subprocess.CompletedProcess[str]) -> Exception:
    """What an sbatch that failed is to be taken for. An id that it printed proves nothing."""
    said = f"{answer.stderr}\n{answer.stdout}"
    if answers.is_unclear(answer.returncode, said):
        return _unavailable(argv, answer)
    blame = answers.blame(said)
    return Refused(blame) if blame else Declined(answers.words_of(said), answers.is_about_one_job(said))


def _user_name(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except (ValueError, KeyError, OverflowError):
        return uid


def _home_and_user() -> tuple[str, str]:
    """A user that the directory service does not know just now has a number all the same."""
    try:
        user = pwd.getpwuid(os.getuid())
        return user.pw_dir, user.pw_name
    except KeyError:
        return os.environ.get("HOME") or "/", _user_name(str(os.getuid()))


def _environment(bin_dir: str) -> dict[str, str]:
    home, user = _home_and_user()
    environment = {
        "PATH": f"{bin_dir}:{_STANDARD_PATH}" if bin_dir else _STANDARD_PATH,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "LANG": "C.UTF-8",
    }
    if "SLURM_CONF" in os.environ:
        environment["SLURM_CONF"] = os.environ["SLURM_CONF"]
    return environment


def _complaint(argv: Sequence[str], answer: subprocess.CompletedProcess[str]) -> str:
    said = " / ".join(part.strip() for part in (answer.stderr, answer.stdout) if part.strip())
    return f"{argv[0]} ended with exit code {answer.returncode} and said: {said or 'nothing'}"
