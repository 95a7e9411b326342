"""What each file of a job folder says. Facts are written once, whole, by one side; folder/facts.py names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union

from .names import Name, SlurmId, SlurmIdIfAny, Word, WordIfAny
from .outcome import Result
from .spec import JobSpec, Resources

_LOGIN = "login"
"""Stands in place of a node in the started.json of an attempt that was closed."""
FORMAT, WITH_SOURCE = 1, 2
"""Of message.json: from the broker, or from elsewhere. A folder with another number was made by a version we do not know, and
is left alone."""


@dataclass(frozen=True)
class Message:
    """Claimed: the message as it came."""

    format: int
    queue: str
    body: Union[str, bytes]
    body_size: int
    """More than len(body) where the message was too large to keep whole."""
    properties: Mapping[str, Union[str, bytes, int, None]]
    claimed_at: float
    source: str = ""
    """Which kind of place it came from, and its answer goes to; empty for the broker of the site file."""
    needs_settling: bool = False
    """Somebody else may have it too; settled.json says whose it is."""

    @property
    def body_bytes(self) -> bytes:
        """As they came."""
        return self.body.encode() if isinstance(self.body, str) else self.body


@dataclass(frozen=True)
class Acked:
    """The broker has surely forgotten the message. Written only for messages without any id."""

    at: float


@dataclass(frozen=True)
class Settlement:
    """Its source has said whose it is: "ours", "theirs" (somebody else answers it) or "gone" (nobody waits for it)."""

    whose: Word
    at: float

    @property
    def ours(self) -> bool:
        return self.whose == "ours"


@dataclass(frozen=True)
class Intent:
    """About to be submitted, in this group, under this Slurm name."""

    group: Name
    name: Name
    element: int
    resources: Resources
    """What this attempt is given; more than the message asked for where an earlier one had too little."""
    at: float


@dataclass(frozen=True)
class Submission:
    """Submitted. `adopted`: found by name after an unclear sbatch."""

    slurm_id: SlurmId
    at: float
    adopted: bool = False


@dataclass(frozen=True)
class Declined:
    """Slurm said no to the submission of this intent. `final`: in words that blame the job, so that no other try follows."""

    words: str
    at: float
    final: bool = False


@dataclass(frozen=True)
class Started:
    """Running: exclusive, so that a second copy of the attempt finds it. Closed: the login side was first, and nothing of the
    attempt will ever run (fence.py)."""

    slurm_id: SlurmIdIfAny
    restarts: int
    node: str
    at: float
    says_begun: bool = False
    """Its worker links this file to begun.json before it starts the program. Workers of versions before say nothing."""

    @property
    def closed(self) -> bool:
        return not self.slurm_id and self.node == _LOGIN


@dataclass(frozen=True)
class Ended:
    """Slurm said that the attempt has ended, and how."""

    end: Word
    state: str
    at: float
    exit_code: str = ""
    node: str = ""
    by: str = ""
    node_refused: bool = False
    """Its node could not begin it, unless it has begun."""


@dataclass(frozen=True)
class Absent:
    """Slurm answered clearly and did not know the attempt: since when, how many such answers in a row, and when it said so
    last."""

    since: float
    answers: int
    until: float = 0


@dataclass(frozen=True)
class Stuck:
    """The scheduler holds the job back for a reason that does not pass by itself; since when."""

    reason: str
    """The scheduler's word, or one of the judge's."""
    since: float
    words: str = ""
    """The same for people, where there are any."""


@dataclass(frozen=True)
class Cancel:
    """It shall end; if that works, or nothing of it has begun, this is what it came to."""

    outcome: Word
    reason: str
    at: float
    step: WordIfAny = ""
    """Of `failed`: what could not be done."""


@dataclass(frozen=True)
class Progress:
    """How far the workload says it is: a fraction, and words of its own."""

    fraction: float
    words: str
    at: float


@dataclass(frozen=True)
class Outcome:
    """What the job came to: exclusive, final; only a success that no message can carry becomes a failure, before anything
    of it was taken. `reply` is the stem of the reply's two files in the attempt's folder."""

    outcome: Word
    attempt: int
    reply: Name
    by: str
    """"job": its worker won, and publishes; "login": nobody else ever will."""
    at: float
    reason: str = ""
    """Where it is not its attempt's own."""

    def why(self, result: Optional[Result]) -> str:
        """What the requester is told; empty for a success. `result`: its attempt's."""
        return self.reason or (result.reason if result else "")


@dataclass(frozen=True)
class Sent:
    """How far the upload of one output is, for who goes on with it: what its receiver says counts, and not this."""

    upload: str = ""
    """Its receiver's own word for it, which the next ask sends back."""
    place: str = ""
    """Of tus: its address, which is a secret."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Of S3: the ETag of each part that was taken, by its number."""
    get: str = ""
    """What the reply carries."""
    arrived: bool = False
    verified: bool = False
    """Its receiver has said that all bytes are there, or what their checksum is."""
    taken: int = 0
    """The most bytes that its receiver ever had."""


@dataclass(frozen=True)
class Transfer:
    """`moved_at`: when something more was taken last; `tried_since`: when a pass went on with it first; seconds since 1970."""

    outputs: Mapping[str, Sent]
    moved_at: float
    tried_since: float = 0


@dataclass(frozen=True)
class LargestAnswer:
    """What the broker said it takes when it refused one. A hint: it may be lost, and it may be set otherwise meanwhile."""

    max_bytes: int
    at: float


@dataclass(frozen=True)
class Delivered:
    """The broker confirmed the reply, or nobody asked for one (`to` is empty)."""

    to: str
    at: float
    note: str = ""


@dataclass(frozen=True)
class Undeliverable:
    why: str
    at: float


@dataclass(frozen=True)
class NotTaken:
    """The broker does not take the reply: no such queue, say, or a full one. Since when, how often, and when it is sent
    again."""

    since: float
    why: str
    times: int
    again_at: float


@dataclass(frozen=True)
class Kept:
    """What a worker had read when it began, left where the job's own files were gone when it ended. begun.json decides only
    where there is no result, and a worker that leaves this has one."""

    message: Message
    claimed_at: float
    """When message.json was written, by the file server's clock: deadlines hang on it."""
    spec: JobSpec
    intent: Intent
    started: Started


@dataclass(frozen=True)
class Asked:
    """What an operator asked for; a pass obeys. `by`: user@host."""

    by: str
    at: float
    reason: str = ""
    """For the requester."""
    attempt: int = 0
    """For a retry: the attempt after which it does not wait any longer."""


@dataclass(frozen=True)
class Origin:
    """This job was made of an earlier one's message, because an operator asked for it."""

    of: Name
    verb: str
    by: str
    at: float
    resources: Mapping[str, Union[int, str]] = field(default_factory=dict)
    """What it gets instead of what its message asks for, under the names that a message uses."""


@dataclass(frozen=True)
class Again:
    """In the earlier job's folder: it runs once more, as this job."""

    job: Name
    verb: str
    by: str
    at: float


@dataclass(frozen=True)
class Held:
    """The job waits for something of its own that those who run the service have to put right: what, and since when."""

    why: str
    since: float


@dataclass(frozen=True)
class Paused:
    """Somebody (`by`: user@host) wants no new message to be taken, nor, with `submit`, what is claimed to be submitted."""

    by: str
    at: float
    submit: bool = False
    reason: str = ""


@dataclass(frozen=True)
class SiteFault:
    """Something of the site is away and claimed jobs wait for it: login, api, slurm or disk; since when."""

    kind: str
    words: str
    since: float
    not_before: float = 0
    """The API asked to be left alone until then."""


@dataclass(frozen=True)
class Group:
    """One submission. An array's elements that a crash kept from being intended are missing here, and never submitted."""

    members: Mapping[str, tuple[Name, int]]
    """Element (a number, as JSON has it: a string) -> (job id, attempt)."""
    site: str = ""
    """site.toml when it was submitted: a worker goes by this, whatever people write there since. Empty in groups of versions
    before, whose workers read the file itself."""


@dataclass(frozen=True)
class Shape:
    """What is remembered of a kind of job that Slurm declined: everything that sbatch is asked for it."""

    resources: Resources
    words: str
    """Slurm's own, of the last time."""
    at: float
    """When it was declined last."""
    since: float = 0
    """Since when it declines even a single one; 0 where it was only too many at a time."""
    tries: int = 0
    """Single ones in a row that were declined."""
    again_at: float = 0
    most: int = 0
    """So many at a time were taken, or are tried next; 0 for any number."""
    in_slurm: int = 0
    """How many of our jobs Slurm had when it declined one more: when it has fewer, there may be room."""
    alone: bool = False
    """It was declined also when Slurm had none, or for what a single one asks: they are not what is in its way."""
    asked_at: float = 0
    """When Slurm was asked last whether it would take the smallest job there is..."""
    objection: str = ""
    """...and what it said against that one: then it takes nothing, whatever its shape. Empty: it is the job."""
    full: bool = False
    """It had jobs of ours when it took nothing: this passes when they end."""
    given_up_at: float = 0
    """When its patience was over: what waits is answered."""


@dataclass(frozen=True)
class Unfit:
    """No pilot can do its work here: why, and since when."""

    why: str
    since: float


@dataclass(frozen=True)
class Cluster:
    """What was asked of the scheduler once, and is remembered."""

    largest_array: int


def closed_at(now: float) -> Started:
    """What the login side claims, so that no worker can."""
    return Started("", 0, _LOGIN, now)
