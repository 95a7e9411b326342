"""What the broker drops of a jobs queue, and what a later RabbitMQ takes away: told before a job is lost to it.

Facts: RabbitMQ's guide on quorum queues: without a limit of its own a queue has one of 20 from RabbitMQ 4 on, and -1 is none;
of a queue's argument and a policy, the lower limit counts; the argument's dead-letter exchange goes before the policy's. The
list of deprecated features: queues that are neither durable nor exclusive are refused from 4.3 on, unless they are permitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ..amqp.management import Management
from ..amqp.trial import Seen, Trial
from .report import Report

_FROM_4_ON = 20
_TRANSIENT = "transient_nonexcl_queues"


@dataclass(frozen=True)
class Limit:
    returns: Optional[int]
    """None: a message may go back as often as it likes."""
    dead_letters: Optional[str]
    """The exchange that gets what is dropped."""


def limit_of(arguments: Mapping[str, Any], policy: Mapping[str, Any], version: str) -> Limit:
    """Of a quorum queue."""
    said = [arguments.get("x-delivery-limit"), policy.get("delivery-limit")]
    numbers = [each for each in said if isinstance(each, int)]
    default = _FROM_4_ON if _major(version) >= 4 else -1
    returns = min(numbers) if numbers else default
    name = arguments.get("x-dead-letter-exchange", policy.get("dead-letter-exchange"))
    return Limit(returns if returns >= 0 else None, name if isinstance(name, str) else None)


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def tell_what_is_dropped(report: Report, trial: Trial, management: Management, queue: str, seen: Seen) -> None:
    """Only for a quorum queue, the one kind that counts returns."""
    if seen.kind != "quorum":
        return
    report.begin(f"returns to {queue}")
    policy = management.policy_of(queue)
    limit = limit_of(seen.arguments, policy or {}, trial.server()[1])
    if limit.returns is None:
        report.ok(f"no limit: a message may go back as often as it likes{_unseen(policy)}")
        return
    dropped = f"a message that goes back more than {limit.returns} times is dropped"
    if limit.dead_letters is None and policy is not None:
        report.warn(f"{dropped} unanswered: there is no dead-letter exchange", "Ask for one, or for a higher limit; "
                    "docs/queues.md says what goes back.")  # fmt: skip
    elif limit.dead_letters is None:
        report.ok(f"{dropped} unanswered{_unseen(policy)}; docs/queues.md says what goes back")
    elif not trial.has_exchange(limit.dead_letters):
        report.warn(f"{dropped} unanswered: its dead-letter exchange {limit.dead_letters} does not exist",
                    "Ask for it to be made.")  # fmt: skip
    else:
        report.ok(f"{dropped}, and goes to the exchange {limit.dead_letters or 'without a name'}")


def _unseen(policy: Optional[Mapping[str, Any]]) -> str:
    return (
        " (unless a policy says otherwise: the management API, which would tell, can't be asked)"
        if policy is None
        else ""
    )


def tell_deprecated(report: Report, management: Management, ours: Mapping[str, Seen]) -> None:
    """Nothing is said where the management API can't be asked. `ours`: the jobs queues, by name."""
    report.begin("deprecated features")
    used = management.deprecated_in_use()
    transient = [name for name, seen in ours.items() if seen.known and not seen.durable]
    if used is None:
        return
    if _TRANSIENT in used and transient:
        report.warn(f"a later RabbitMQ does without {', '.join(used)}: {', '.join(transient)} can't be made any more then",
                    "Have it made durable before the broker gets RabbitMQ 4.3 or newer.")  # fmt: skip
    else:
        report.ok(f"in use on this broker: {', '.join(used) or 'none'}")
