"""Who can do something about a failure: the requester, the operator, or the site. Pure.

It goes by what the facts say, and by no words for people but those of job/sentences.py that have no fact beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..job.outcome import Result

REQUESTER, OPERATOR, SITE = "requester", "operator", "site"
WHO: Mapping[str, str] = {
    REQUESTER: "what was sent: the message, its inputs and settings, what it asks for, where its answer goes",
    OPERATOR: "the installation: site.toml, the workloads, accounts, and what was cancelled by hand",
    SITE: "the cluster and the network: nodes, Slurm, disks, hosts that gave no answer",
}
UNDELIVERED = "no queue took the answer"
_ALWAYS: Mapping[str, str] = {
    "rejected": REQUESTER, "node_failed": SITE, "preempted": SITE, "lost": SITE, "expired": SITE, "cancelled": SITE,
    "unknown": OPERATOR,
}  # fmt: skip
"""`cancelled`: in Slurm, by whomever; our own verb leaves a fact."""
_ASKED = {"out_of_memory": "memory_mb", "timed_out": "time"}
_OF_STEPS: Mapping[str, str] = {"submit": SITE, "start": SITE, "pack": OPERATOR, "publish": OPERATOR}
_OPERATORS_WORDS = ("account was refused", "could not start the program", "installation is at fault")
"""Of sentences whose step alone does not tell."""
_NO_SUCH_PROGRAM = (126, 127)
"""Exit codes with which shells and env say that a program is not there, or is none."""


def whose(outcome: str, result: Result, asked: tuple[str, ...] = (), by_operator: bool = False) -> str:
    """Of a job that did not succeed. `asked`: what its message asked for itself ("memory_mb", "time"), beyond what site.toml
    gives; `by_operator`: `./check.py cancel` was asked to end it."""
    if by_operator and outcome == "cancelled":
        return OPERATOR
    if outcome in _ASKED:
        return REQUESTER if _ASKED[outcome] in asked else OPERATOR
    if outcome in _ALWAYS:
        return _ALWAYS[outcome]
    if any(words in result.reason for words in _OPERATORS_WORDS):
        return OPERATOR
    if result.step == "fetch":
        return SITE if result.may_work_again else REQUESTER
    if result.step in _OF_STEPS:
        return _OF_STEPS[result.step]
    return REQUESTER if result.exit_code and result.exit_code not in _NO_SUCH_PROGRAM else OPERATOR
