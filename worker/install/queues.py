"""Makes the jobs queues that we are to make: whoever publishes to a queue before it is there loses the message."""

from __future__ import annotations

from collections.abc import Iterator

from ..amqp.trial import Trial
from ..build import open_ends
from ..errors import Transient
from ..settings import Config


def make_missing(config: Config) -> Iterator[str]:
    """A sentence for each queue that was made, or could not be."""
    ours = [queue for queue in config.site.queues if queue.make and queue.durable is not None and not queue.source]
    if not ours or not config.site.has_broker or not config.credentials.rabbitmq_host:
        return
    ends = open_ends(config)
    trial = None
    try:
        trial = Trial(config.credentials, config.ca_file)
        for queue in ours:
            if trial.look(queue).state == "missing":
                ends.source(queue).waiting(queue)
                yield f"The queue {queue.name} is made. What is published from now on waits in it."
    except Transient as error:
        yield f"Left to do: {error}"
    except OSError as error:
        yield f"Left to do: ca_file can't be used: {error.strerror or error}"
    finally:
        ends.close()
        if trial is not None:
            trial.close()
