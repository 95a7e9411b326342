"""A source whose claims can be lost: a table of documents in memory that others take from too, as behind a REST API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from worker.errors import Transient
from worker.folder import paths
from worker.job.facts import Message
from worker.job.names import JobId
from worker.job.outcome import Reply
from worker.settings import Queue
from worker.sources import Properties, Settled, Taken

SOURCE = "spool"
"""The word under which the tests' site file has it."""


@dataclass
class Document:
    body: bytes
    owner: str = ""


class Table:
    """What the service has."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.away = False
        self.sent: list[Reply] = []

    def put(self, body: bytes) -> str:
        name = f"document-{len(self.documents)}"
        self.documents[name] = Document(body)
        return name


class Disputed:
    """A source and a delivery."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._acked: set[str] = set()

    def waiting(self, queue: Queue, make: bool = True) -> int:
        return len(self._free())

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        return [self._taken(queue, name) for name in self._free()[:most]]

    def ack(self, messages: Sequence[Taken]) -> None:
        """The table learns of it when they are settled; this connection brings them no more."""
        paths.crash_point("before ack")
        self._acked.update(str(each.tag) for each in messages)

    def ensure_acked(self) -> None: ...

    def settle(self, claims: Sequence[tuple[JobId, Message]]) -> list[Settled]:
        paths.crash_point("before settle")
        if self.table.away:
            raise Transient("the table is away")
        settled = [self._settle(job_id, message) for job_id, message in claims]
        paths.crash_point("after settle")
        return settled

    def give_back(self, taken: Taken) -> None: ...

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        return bool(self._free())

    def stop_listening(self) -> None: ...

    def close(self) -> None:
        self._acked.clear()

    def send(self, reply: Reply) -> None:
        self.table.sent.append(reply)

    def _free(self) -> list[str]:
        return [
            name for name, document in self.table.documents.items() if not document.owner and name not in self._acked
        ]

    def _taken(self, queue: str, name: str) -> Taken:
        properties = Properties(reply_to=name, correlation_id=name, message_id=name)
        body = self.table.documents[name].body
        return Taken(queue, body, properties, redelivered=False, tag=name, source=SOURCE, needs_settling=True)

    def _settle(self, job_id: JobId, message: Message) -> Settled:
        """The first one gets it, as with a document's revision."""
        document: Optional[Document] = self.table.documents.get(str(message.properties["message_id"]))
        if document is None:
            return Settled.GONE
        document.owner = document.owner or job_id
        return Settled.OURS if document.owner == job_id else Settled.THEIRS
