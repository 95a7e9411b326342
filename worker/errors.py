"""The families of errors, named by the reaction they call for. Edges translate their libraries' exceptions into these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Advice:
    """What was found, and what an operator does about it."""

    found: str
    fix: str
    """A sentence without its full stop; empty where it may pass by itself, or nobody here can tell."""

    def __str__(self) -> str:
        return f"{self.found}. {self.fix}" if self.fix else self.found


class InvalidSpec(Exception):
    """The message is no job that can run here: reject and answer. The text is a sentence for the requester."""


class UnknownWorkload(InvalidSpec):
    """The message asks for a workload that the site file does not have; perhaps it had it once."""

    def __init__(self, sentence: str, name: str) -> None:
        super().__init__(sentence)
        self.name = name


class Transient(Exception):
    """It may work later: the next pass tries again. The text is for the operator's log: what was found, then the fix."""

    def __init__(self, found: str, retry_after: float = 0, fix: str = "") -> None:
        super().__init__(str(Advice(found, fix)))
        self.found = found
        self.retry_after = retry_after
        """Seconds the other side asked us to wait; 0 where it did not."""
        self.fix = fix


class LoginRefused(Transient):
    """The upstream API refuses our user or password. Somebody must mend it, so patience is shorter."""


class StepFailed(Exception):
    """A step of a job failed: answer. `reason` is a sentence for the requester."""

    def __init__(self, step: str, reason: str, may_work_again: bool = False) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.may_work_again = may_work_again
        """True where the cause lies outside the job, e.g. an API that was away: another attempt may succeed."""


class OutputsTooLarge(StepFailed):
    """More than an answer may carry. `found`: the sentence, to which it may be added until when they are kept."""

    def __init__(self, found: str) -> None:
        super().__init__("pack", found)


@dataclass(frozen=True)
class Fault:
    """Of one of the site's own files."""

    file: Path
    found: str
    line: int = 0
    """0 for the file as a whole."""
    fix: str = ""
    """What to do about it; empty where that is to correct the line."""

    def __str__(self) -> str:
        return f"{self.found}{f'. {self.fix}' if self.fix else ''}{f' (line {self.line})' if self.line else ''}"


class Misconfigured(Exception):
    """The site's own files are at fault; nothing was touched. Carries every fault found, not just the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class NotOurs(Exception):
    """The jobs folder is not the one of earlier passes. `fix`: what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}. {fix}")
        self.found, self.fix = found, fix


class Damaged(Exception):
    """A file of a job folder is not what we wrote there, or comes from a newer version: left alone and reported."""


class Unroutable(Exception):
    """The other end works, but does not take this reply: no such queue, or one that is full or not ours. The text says why."""


class TooLarge(Exception):
    """The other end does not take a message of this size. `most`: what it takes, where it says so, or 0."""

    def __init__(self, words: str, most: int = 0) -> None:
        super().__init__(words)
        self.most = most
