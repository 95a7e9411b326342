"""What the words of the site file stand for: the one place that knows the schedulers by name.

It imports a kind only once that kind is asked for: an empty pass and a compute node pay for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scheduler import Scheduler, SpentOn, Traits

    from .deliveries import Answers, Delivery, Store
    from .deliveries.upload import Uploads
    from .requester import Requester
    from .settings import Config, Queue, Site
    from .sources import Source


def traits(site: Site) -> Traits:
    """How the site's scheduler differs from others. Makes none, and loads no scheduler's code."""
    if site.scheduler == "local":
        from scheduler import ONE_MACHINE

        return ONE_MACHINE
    from slurm.traits import TRAITS

    return TRAITS


def open_scheduler(site: Site, spent_on: Optional[SpentOn] = None) -> Scheduler:
    """The site's scheduler. Nothing is asked of it yet, and no file is opened. `spent_on`: entered around each command
    that it runs; what this raises comes out of the scheduler's methods."""
    if site.scheduler == "local":
        from scheduler.local import Local

        return Local(site.jobs_dir / "local")
    from slurm.cluster import Slurm

    s = site.slurm
    return Slurm(
        s.bin_dir, s.account, s.partition, s.extra_options, s.accounting, s.command_timeout, s.array_limit, spent_on
    )


def left_by_scheduler(site: Site) -> Optional[tuple[Path, Callable[[str], Optional[tuple[str, float]]]]]:
    """Where the site's scheduler leaves a folder of each of its jobs among ours, and what tells of such a folder which job it
    was and when it ended (None: it may go on). None where it leaves nothing."""
    if site.scheduler == "local":
        from scheduler.local import Local

        folder = site.jobs_dir / "local"
        return folder, Local(folder).ended
    return None


class End(NamedTuple):
    """Where the jobs of one kind of queue come from, and where their answers go: loaded once there is one."""

    source: Source
    open_delivery: Callable[[], Delivery]


def kind_of(site: Site, source: str) -> str:
    """Which end a queue, or a message, is at whose source is called so."""
    return source or site.broker


class Ends:
    """Where the jobs of this site's queues come from, and where answers go: each kind is opened once, when it is first needed.
    `open_end`: makes one of this kind."""

    def __init__(self, site: Site, open_end: Callable[[str], End]) -> None:
        self._site = site
        self._open_end = open_end
        self._opened: dict[str, End] = {}
        self._deliveries: dict[str, Delivery] = {}

    def source(self, queue: Queue) -> Source:
        return self._end(kind_of(self._site, queue.source)).source

    def delivery(self, source: str) -> Delivery:
        """`source`: the message's own, as it was noted at its claim."""
        kind = kind_of(self._site, source)
        if kind not in self._deliveries:
            self._deliveries[kind] = self._end(kind).open_delivery()
        return self._deliveries[kind]

    def _end(self, kind: str) -> End:
        if kind not in self._opened:
            self._opened[kind] = self._open_end(kind)
        return self._opened[kind]

    def listen(self, queues: Sequence[Queue], wait: float) -> bool:
        """Whether a message is there in any of them; waits at most `wait` seconds. Raises QueueFault and Transient. To listen
        to no queue keeps connections alive."""
        names: dict[str, list[str]] = {kind: [] for kind in self._opened}
        for queue in queues or self._site.queues[:1]:
            names.setdefault(kind_of(self._site, queue.source), []).extend([queue.name] if queues else [])
        came = False
        for number, (kind, mine) in enumerate(names.items(), 1):
            # Only the last one may wait, and only where none has a message already.
            came = self._end(kind).source.listen(mine, wait if number == len(names) and not came else 0) or came
        return came

    def stop_listening(self) -> None:
        for end in self._opened.values():
            end.source.stop_listening()

    def close(self) -> None:
        for end in self._opened.values():
            end.source.close()
        for delivery in self._deliveries.values():
            delivery.close()


def open_end(config: Config, kind: str) -> End:
    """It is connected when it is first used. Raises Damaged for a kind that this version does not know."""
    if kind not in _ENDS:
        from .errors import Damaged

        raise Damaged(f"the source {kind!r} is not one of {', '.join(_ENDS)}")
    return _ENDS[kind](config)


def open_ends(config: Config) -> Ends:
    """All of the site's, each opened when it is first needed."""
    return Ends(config.site, lambda kind: open_end(config, kind))


def _rabbitmq(config: Config) -> End:
    from .amqp import Connection
    from .sources.amqp import RabbitMQ

    connection = Connection(config.credentials, config.ca_file)

    def open_delivery() -> Delivery:
        from .deliveries.message import Messages

        return Messages(connection, config.site.replies)

    return End(RabbitMQ(connection), open_delivery)


def _embedded(config: Config) -> End:
    from .embedded import Embedded

    both = Embedded(config.site.broker_file, config.site.replies)
    return End(both, lambda: both)


def _spool(config: Config) -> End:
    from pathlib import Path

    from .sources.spool import Spool

    folders = {queue.name: Path(queue.folder) for queue in config.site.queues if queue.source == "spool"}
    both = Spool(folders, config.site.limits.message_bytes + 1)
    return End(both, lambda: both)


_ENDS: dict[str, Callable[[Config], End]] = {"rabbitmq": _rabbitmq, "embedded": _embedded, "spool": _spool}


def open_store(site: Site) -> Store:
    """How results are put into an answer: so far, for each kind of source, as the body of one message."""
    import time

    from .deliveries.in_message import InMessage
    from .folder.answer import largest_answer

    def most_for(size: int) -> int:
        return site.replies.max_bytes if size <= _TAKEN_EVERYWHERE else largest_answer(site, time.time())

    return InMessage(most_for)


def open_uploads(config: Config) -> Uploads:
    """How outputs are uploaded. Nothing is connected yet."""
    from .api import Api
    from .deliveries.put import Put
    from .deliveries.s3 import S3
    from .deliveries.tus import Tus
    from .deliveries.upload import Uploads

    return Uploads(config, Api(config).authenticate, {"tus": Tus(), "s3": S3(), "put": Put()})


_TAKEN_EVERYWHERE = 1 << 20
"""Bytes that any broker takes, as a rule (RabbitMQ 4: 16 MiB); no file is looked at for smaller answers."""


def open_answers(config: Config, kind: str, changed: Callable[[], None]) -> Answers:
    """Many answers at once, to where the jobs of such a queue come from. `changed` is called, from any thread, whenever
    there is something to be confirmed."""
    if kind == "rabbitmq":
        from .deliveries.window import Window

        return Window(config.credentials, config.ca_file, changed)
    from .deliveries.one_by_one import OneByOne

    return OneByOne(open_end(config, kind).open_delivery())


def open_requester(config: Config, queue: Queue) -> Optional[Requester]:
    """Who asks for a job in this queue, and waits for its answer; None where that is done with files."""
    if queue.in_folder:
        return None
    if kind_of(config.site, queue.source) == "rabbitmq":
        from .amqp.requester import DirectRequester

        return DirectRequester(config.credentials, config.ca_file)
    from .embedded import FileRequester

    return FileRequester(config.site.broker_file, config.site.replies)
