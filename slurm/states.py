"""Slurm's words and ours: job states, reasons for waiting, and the tables that squeue and sacct print. Pure.

Words: squeue(1) "JOB STATE CODES" and "JOB REASON CODES", sacct(1) "JOB STATE CODES", Slurm 22.05 to 26.05; SchedMD's page
"Job Reason Codes" (job_reason_codes.html), src/common/job_state_reason.c.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional

from scheduler import JobView, Phase, SlurmJobId

_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNNING = ("CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING",
            "EXPEDITING", "POWER_UP_NODE")  # fmt: skip
_ENDS = {
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
    "NODE_FAIL": "node_failed",
    "BOOT_FAIL": "node_failed",
    "LAUNCH_FAILED": "node_failed",
    "RECONFIG_FAIL": "node_failed",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
}
_PHASES: dict[str, Phase] = {
    **{word: Phase.WAITING for word in _WAITING},
    **{word: Phase.RUNNING for word in _RUNNING},
    **{word: Phase.ENDED for word in _ENDS},
}

_HOPELESS = {
    "PartitionConfig": "it asks for more than the partition may give",
    "PartitionNodeLimit": "it asks for more nodes than the partition may give",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "BadConstraints": "no node can ever fulfil what it asks for",
    "DependencyNeverSatisfied": "it waits for a job that can never succeed",
    "JobHeldAdmin": "an administrator of the cluster holds it back",
    "JobHeldUser": "it was put on hold",
    "AccountNotAllowed": "the account may not use this partition",
    "QOSNotAllowed": "the quality of service is not allowed on this partition",
    "InvalidAccount": "the account is not valid on this cluster",
    "InvalidQOS": "the quality of service is not valid on this cluster",
    "MaxMemPerLimit": "it asks for more memory than is allowed",
    "ReservationDeleted": "the reservation that it was to run in was deleted",
    "ReservationInvalid": "the reservation that it was to run in is not valid",
}
_RUN_MINUTES = re.compile(r"Max\w+RunMinsPer(Account|User)")
"""From Slurm 26.05 on; src/common/job_state_reason.c, and "Max*PerAccount" in SchedMD's page "Job Reason Codes"."""
_LIMIT_ON_ONE_JOB = re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)")
"""Limits on what one job may ask for never pass; limits on all jobs together (AssocMaxJobsLimit, AssocGrp...,
QOSMax...PerUser) pass as other jobs end, so waiting for those is left to the queue's `max_wait`."""

SQUEUE_FORMAT = "%i|%T|%e|%r|%N|%j"
SACCT_FIELDS = "JobID,State,ExitCode,End,NodeList,JobName"


def passing(reason: str) -> Optional[str]:
    """What a limit on all jobs together means, in words, where its name says so; it passes as other jobs go on."""
    found = _RUN_MINUTES.fullmatch(reason)
    if not found:
        return None
    whose = "of your account" if found.group(1) == "Account" else "of yours"
    return f"the jobs {whose} that run now may use as much as the quality of service allows at a time"


def hopeless(reason: str) -> Optional[str]:
    """Why a job that waits for `reason` will not start by waiting alone, in words; None where it may still start."""
    if _LIMIT_ON_ONE_JOB.match(reason):
        return "it asks for more than one job of this account may have"
    return _HOPELESS.get(reason)


_HELD_AFTER_LAUNCH = re.compile(r"launch[ _]failed|job[ _]requeued[ _]in[ _]held[ _]state", re.IGNORECASE)
"""Reasons for which Slurm holds a job that it has requeued, job_state_string and job_mgr.c: a node could not begin it, and it
may be requeued (which `--no-requeue` forbids, and a site's plugin may allow again)."""
_HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT")


def _node_refused(word: str, reason: str, node: str, by: str, own: str) -> bool:
    """Slurm 22.05 ends a job of `--no-requeue` whose Prolog fails as CANCELLED by its own user or root, with the node that
    was to begin it; one that somebody cancels while it waits has no node."""
    if word == "LAUNCH_FAILED" or word in _HELD_STATES:
        return True
    if word == "CANCELLED":
        return bool(node) and (by in ("", "0") or by != own)
    return _PHASES.get(word) is Phase.WAITING and _HELD_AFTER_LAUNCH.search(reason) is not None


def parse_squeue(text: str) -> list[JobView]:
    """The rows of `squeue -h -o SQUEUE_FORMAT` with SLURM_TIME_FORMAT=%s. Raises ValueError for a cut-off answer."""
    return [
        _view(slurm_id, name, state, end, reason=reason, node=node)
        for slurm_id, state, end, reason, node, name in _rows(text)
    ]


def parse_sacct(text: str, own: str = "") -> list[JobView]:
    """The rows of `sacct -X -n -P -o SACCT_FIELDS` with SLURM_TIME_FORMAT=%s; `own`: the number of the jobs' user. Raises
    ValueError for a cut-off answer."""
    return [
        _view(slurm_id, name, state, end, exit_code=exit_code, node=node, own=own)
        for slurm_id, state, exit_code, end, node, name in _rows(text)
    ]


def left_to_history(view: JobView) -> JobView:
    """squeue's row of a job whose end accounting tells better. Its CANCELLED is true all the same; its PREEMPTED may be
    followed by a requeue."""
    if view.state not in ("CANCELLED", "PREEMPTED"):
        return view
    phase = Phase.UNKNOWN if view.state == "PREEMPTED" else view.phase
    return replace(view, phase=phase, more_in_history=True)


def _rows(text: str) -> list[list[str]]:
    """Six fields each; the name comes last, because a job of somebody's own may have a bar in its name."""
    if text and not text.endswith("\n"):
        raise ValueError("the answer ends in the middle of a line")
    return [fields for fields in (line.split("|", 5) for line in text.splitlines()) if len(fields) == 6]


def _view(slurm_id: str, name: str, state: str, end: str, reason: str = "", exit_code: str = "",
          node: str = "", own: str = "") -> JobView:  # fmt: skip
    word, by = _state_and_by(state)
    node = "" if node == "None assigned" else node
    phase = _PHASES.get(word, Phase.UNKNOWN)
    return JobView(
        slurm_id=SlurmJobId(slurm_id),
        name=name,
        phase=phase,
        state=word,
        end=_ENDS.get(word),
        reason=reason,
        hopeless=(hopeless(reason) or "") if phase is Phase.WAITING else "",
        ended_at=float(end) if phase is Phase.ENDED and end.isdigit() else None,
        exit_code=exit_code,
        node=node,
        by=by,
        node_refused=_node_refused(word, reason, node, by, own),
    )


def _state_and_by(state: str) -> tuple[str, str]:
    """sacct prints "CANCELLED by 1000"; some versions mark a cut word with a plus ("CANCELLED+")."""
    word, _, rest = state.partition(" by ")
    return word.strip().rstrip("+"), rest.strip()
