"""Exact argument lists for sbatch, squeue, sacct and scancel. Pure.

Options: the manual pages of Slurm 22.05. Nothing here passes through a shell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from scheduler import BatchRequest, SlurmJobId

from .details import OUTLOOK_FORMAT, SINFO_FIELDS, USAGE_FIELDS
from .states import SACCT_FIELDS, SQUEUE_FORMAT

_MOST_NAMES = 1000
"""One argument may have 128 KiB on Linux; a name of ours has about 40 bytes."""

_ALL_STATES = "BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO"


def sbatch(
    request: BatchRequest, account: Optional[str], partition: Optional[str], extra: Sequence[str], at_a_time: int = 0
) -> list[str]:
    """The call that submits `request`; `at_a_time`: how many elements of an array may run at the same time, 0 for all.

    `singleton` on a name that is unique per submission makes a second copy wait for the first; `--no-requeue` because
    attempts are ours to count. What the site adds comes first: of two equal options the last one holds, which must be ours.
    """
    argv = [
        "sbatch",
        *extra,
        "--parsable",
        f"--job-name={request.name}",
        "--dependency=singleton",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.cpus}",
        *([f"--mem={request.memory_mb}M"] if request.memory_mb is not None else []),
        f"--time={request.minutes}",
        f"--signal=B:USR1@{request.warn_seconds}",
        f"--chdir={request.chdir}",
        f"--output={request.output.replace('%', '%%')}",
        "--open-mode=append",
        "--input=/dev/null",
    ]
    limit = f"%{at_a_time}" if at_a_time else ""
    argv += [f"--array={_ranges(request.elements)}{limit}"] if request.elements else []
    argv += [f"--gres={request.gres}"] if request.gres else []
    argv += [f"--mail-user={request.email}", "--mail-type=BEGIN,END,FAIL"] if request.email else []
    argv += [f"--account={account}"] if account else []
    argv += [f"--partition={partition}"] if partition else []
    return [*argv, request.script, *request.arguments]


def _ranges(elements: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    runs: list[list[int]] = []
    for element in sorted(elements):
        if runs and element == runs[-1][-1] + 1:
            runs[-1].append(element)
        else:
            runs.append([element])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def test_only(argv: Sequence[str]) -> list[str]:
    """The same call as a question: would Slurm take this job? QOS limits, limits on how many jobs one may submit and the
    site's submit plugins are asked too (tried with 22.05); nothing is submitted."""
    return [argv[0], "--test-only", *(each for each in argv[1:] if each != "--parsable")]


def show_config() -> list[str]:
    return ["scontrol", "show", "config"]


def parse_max_array_size(stdout: str) -> Optional[int]:
    """MaxArraySize is one more than the largest index, slurm.conf(5)."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", stdout, re.MULTILINE)
    return int(found.group(1)) - 1 if found else None


def squeue() -> list[str]:
    """One call for everything: thousands of ids would not fit, and one unknown id would fail the call."""
    return ["squeue", "--me", "--states=all", "--array", "--noheader", f"--format={SQUEUE_FORMAT}"]


def sacct(names: Sequence[str], age_seconds: int, end_age_seconds: int = 0) -> list[str]:
    """What accounting knows of jobs with these names that ran between these times, in seconds before now."""
    argv = ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={SACCT_FIELDS}"]
    # Without a list of states, sacct 22.05 passes over jobs that were cancelled before they could start.
    end = f"now-{end_age_seconds}seconds" if end_age_seconds else "now"
    argv += [f"--starttime=now-{age_seconds}seconds", f"--endtime={end}", f"--state={_ALL_STATES}"]
    return argv + ([f"--name={','.join(names)}"] if len(names) <= _MOST_NAMES else [])


def is_too_wide(stderr: str) -> bool:
    """Whether sacct was refused because of MaxQueryTimeRange: slurm_errno.c, ESLURM_DB_QUERY_TOO_WIDE. Slurm's own user is
    exempt, and so is a question with --jobs (slurmdbd, proc_req.c)."""
    return "Too wide of a date range" in stderr


def usage(slurm_id: SlurmJobId) -> list[str]:
    """What accounting knows of one job and its steps."""
    return ["sacct", f"--jobs={slurm_id}", "--noheader", "--parsable2", f"--format={USAGE_FIELDS}"]


def outlook(slurm_id: SlurmJobId) -> list[str]:
    return ["squeue", "--me", "--array", "--noheader", f"--jobs={slurm_id}", f"--format={OUTLOOK_FORMAT}"]


def nodes(partition: str) -> list[str]:
    """A partition's nodes, one a line."""
    return ["sinfo", "--Node", "--noheader", f"--partition={partition}", f"--Format={SINFO_FIELDS}"]


def scancel(ids: Sequence[SlurmJobId], only_waiting: bool) -> list[str]:
    return ["scancel", "--quiet", *(["--state=PENDING"] if only_waiting else []), *ids]


def parse_submitted(stdout: str) -> Optional[SlurmJobId]:
    """The id in sbatch's `--parsable` answer "123" or "123;cluster", after whatever a site's plugins print before it."""
    lines = stdout.strip().splitlines()
    found = re.fullmatch(r"(\d+)(;.*)?", lines[-1].strip()) if lines else None
    return SlurmJobId(found.group(1)) if found else None
