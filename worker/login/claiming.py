"""Claims messages of one queue: on disk first, then acked; what the disk does not take goes back."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ..build import Ends
from ..errors import InvalidSpec
from ..folder import paths
from ..folder.batches import Pool
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..job.names import JobId
from ..job.snapshot import JobFacts
from ..settings import Config, Queue
from ..sources import Taken, digest
from .away import SiteAway, disk_away
from .claim import claim, free_ids, has_id, note_acked, sync_names
from .notices import Stop
from .pools import BatchClaims, pool_of
from .reserve import Reserve
from .side_by_side import side_by_side
from .tally import Uncounted
from .understand import write_spec

log = logging.getLogger(__name__)

_AT_ONCE = 250
"""Messages that are held at the same time, until they are claimed."""

Claimed = tuple[JobFolder, Optional[JobFacts]]
"""Without facts where the message is no valid job."""


class Claiming:
    def __init__(
        self, config: Config, jobs: JobsFolder, ends: Ends, reserve: Reserve, batches: BatchClaims, seen: Uncounted,
        stop: Stop,
    ) -> None:  # fmt: skip
        self._config, self._jobs, self._ends, self._reserve = config, jobs, ends, reserve
        self._batches, self._seen, self._stop = batches, seen, stop

    def claim(self, queue: Queue, most: int, drain: bool) -> Iterator[tuple[int, list[Claimed]]]:
        """Up to `most` new folders, with the number of messages. What goes into batches for pilots is limited by the room that
        they have, and by one in a pass that takes one message."""
        source, pool = self._ends.source(queue), pool_of(self._config, self._jobs, queue)
        room = self._batches.room(queue) if drain else 1
        while most > 0 and not self._is_to_end() and (pool is None or room > 0):
            wanted = min(most, _AT_ONCE) if pool is None else min(room, queue.pilot.batch)
            messages = source.take(queue.name, wanted, wait=0)
            if not messages:
                return
            self._seen.redelivered += sum(taken.redelivered for taken in messages)
            for alike in _with_ids_together(messages):
                claimed = self._claim_or_give_back(queue, pool, alike)
                paths.crash_point("before ack")
                source.ack(alike)
                paths.crash_point("after ack")
                if not has_id(alike[0]):
                    source.ensure_acked()
                    note_acked(self._jobs, alike[0], time.time())
                most -= len(claimed)
                yield len(alike), claimed
            if not self._reserve.held:
                raise SiteAway("disk", "the jobs folder's disk is full, or our quota of it")
            room -= len(messages)

    def _is_to_end(self) -> bool:
        return self._stop.asked or paths.is_there(self._jobs.paused)

    def _claim_or_give_back(self, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken]) -> list[Claimed]:
        """The folders that are new. What was claimed before the disk failed is known when it comes again: a claim that failed
        may stand all the same, so without ids each message keeps the id that was free for it before the first try."""
        ids: Optional[list[Optional[JobId]]] = None
        try:
            ids = None if has_id(messages[0]) else free_ids(self._jobs, messages)
            return self._claim_all(queue, pool, messages, ids)
        except OSError as error:
            try:
                if self._reserve.give_up(error):
                    again = [replace(taken, redelivered=True) for taken in messages]
                    return self._claim_all(queue, pool, again, ids)
            except OSError:
                log.warning("a claim failed again, each message is tried alone queue=%s messages=%d",
                            queue.name, len(messages))  # fmt: skip
            return self._claim_one_by_one(queue, pool, messages, ids)

    def _claim_one_by_one(
        self, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken], ids: Optional[list[Optional[JobId]]]
    ) -> list[Claimed]:
        """What the disk takes is claimed and acked, and only the rest goes back: each return counts."""
        claimed, left = list[Claimed](), list[Taken]()
        why: Optional[OSError] = None
        for place, taken in enumerate(messages):
            try:
                own = None if ids is None else ids[place : place + 1]
                claimed += self._claim_all(queue, pool, [replace(taken, redelivered=True)], own)
            except OSError as error:
                left, why = [*left, taken], error
        if why is None:
            return claimed
        source = self._ends.source(queue)
        source.ack([taken for taken in messages if all(taken is not each for each in left)])
        log.warning("messages go back, because they can't be claimed queue=%s messages=%d why=%r",
                    queue.name, len(left), why.strerror)  # fmt: skip
        for taken in reversed(left):
            source.give_back(taken)
        raise disk_away(why) from None

    def _claim_all(
        self, queue: Queue, pool: Optional[Pool], messages: Sequence[Taken], ids: Optional[list[Optional[JobId]]]
    ) -> list[Claimed]:
        """After the return all of them may be acked. `ids`: those of messages that have none of their own."""
        if ids is not None:
            named = [(each, job_id) for each, job_id in zip(messages, ids) if job_id is not None]
            return self._on_disk(messages, [self._claim(queue, each, (), job_id) for each, job_id in named])
        others = messages if pool is None else self._batches.claim(queue, pool, messages)
        where = self._jobs.places()
        return self._on_disk(others, side_by_side(lambda each: self._claim(queue, each, where), others))

    def _on_disk(self, messages: Sequence[Taken], claimed: Sequence[Optional[Claimed]]) -> list[Claimed]:
        if messages:
            sync_names(self._jobs)
        return [each for each in claimed if each is not None]

    def _claim(
        self, queue: Queue, taken: Taken, where: Sequence[Path], job_id: Optional[JobId] = None
    ) -> Optional[Claimed]:
        """The message is understood at once, while others wait for the disk too; a rejection is left for later."""
        claimed = claim(self._jobs, taken, self._config.site.limits.message_bytes, time.time(), where, job_id)
        if claimed is None:
            return None
        try:
            spec = write_spec(self._config, queue, claimed.job, taken.properties.reply_to, taken.body)
        except InvalidSpec:
            return claimed.job, None
        return claimed.job, JobFacts(replace(claimed.message, body=""), claimed.claimed_at, spec=spec)


def _with_ids_together(messages: Sequence[Taken]) -> Iterator[list[Taken]]:
    """Equal messages without ids are claimed and acked together: were we killed after the ack of the first, the second would
    come again marked as a redelivery, and be taken for the first."""
    for with_ids, alike in itertools.groupby(messages, has_id):
        equal: dict[str, list[Taken]] = {}
        for taken in alike:
            equal.setdefault("" if with_ids else digest(taken), []).append(taken)
        yield from equal.values()
