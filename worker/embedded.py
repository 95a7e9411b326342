"""A broker in one SQLite file on a local disk, for one machine without RabbitMQ: the demo, and tests that need no services.

At least once, like RabbitMQ: a message leaves the file when it is acked; what a process held when it died is delivered
again. Not for a network file system, where SQLite's locks are not to be trusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from .errors import Transient, Unroutable
from .settings import Queue, Replies
from .sources import Properties, Source, Taken

if TYPE_CHECKING:
    from .job.outcome import Reply
    from .requester import Answered, Waiting

_SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    properties TEXT NOT NULL,
    expires_at REAL,
    redelivered INTEGER NOT NULL DEFAULT 0,
    holder TEXT
);
CREATE INDEX IF NOT EXISTS in_order ON messages (queue, id);
"""

_LOOK_AGAIN = 0.05
"""Seconds; a file tells nobody that it has changed."""


class Embedded(Source):
    """A source and a delivery. `holder` names this process in such a way that others can see whether it still lives."""

    def __init__(self, file: Path, replies: Replies) -> None:
        self._file = file
        self._replies = replies
        self._holder = f"{os.getpid()} {_started(os.getpid())} {secrets.token_hex(4)}"
        self._open: Optional[sqlite3.Connection] = None

    def waiting(self, queue: Queue, make: bool = True) -> int:
        with self._transaction() as db:
            if make:
                db.execute("INSERT OR IGNORE INTO queues VALUES (?)", (queue.name,))
            _tidy(db, queue.name)
            return _count(db, queue.name)

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        end = time.monotonic() + wait
        while True:
            taken = self._take(queue, most)
            left = end - time.monotonic()
            if taken or left <= 0:
                return taken
            time.sleep(min(left, _LOOK_AGAIN))

    def _take(self, queue: str, most: int) -> list[Taken]:
        from .folder.records import from_json

        with self._transaction() as db:
            _tidy(db, queue)
            rows = db.execute(
                "SELECT id, body, properties, redelivered FROM messages"
                " WHERE queue = ? AND holder IS NULL ORDER BY id LIMIT ?",
                (queue, most),
            ).fetchall()
            db.executemany("UPDATE messages SET holder = ? WHERE id = ?", [(self._holder, row[0]) for row in rows])
        return [
            Taken(queue, bytes(body), from_json(Properties, json.loads(properties)), bool(redelivered), int(tag))
            for tag, body, properties, redelivered in rows
        ]

    def ack(self, messages: Sequence[Taken]) -> None:
        held = [(taken.tag, self._holder) for taken in messages]
        with self._transaction() as db:
            db.executemany("DELETE FROM messages WHERE id = ? AND holder = ?", held)

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        end = time.monotonic() + wait
        while True:
            with self._transaction() as db:
                if any(_count(db, queue) for queue in queues):
                    return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK_AGAIN))

    def stop_listening(self) -> None:
        """To listen was to look."""

    def ensure_acked(self) -> None:
        """Every ack was committed before it returned."""

    def give_back(self, taken: Taken) -> None:
        with self._transaction() as db:
            _give_back(db, "id = ? AND holder = ?", taken.tag, self._holder)

    def send(self, reply: Reply) -> None:
        from .deliveries import matches

        properties = Properties(
            correlation_id=reply.correlation_id,
            message_id=reply.message_id,
            expiration=str(reply.expiration_ms),
            timestamp=reply.timestamp,
            content_type=reply.content_type,
            type=reply.type,
            headers=json.dumps(dict(reply.headers)).encode(),
        )
        if matches(reply.routing_key, self._replies.create):
            self.make_queue(reply.routing_key)
        self.put(reply.routing_key, reply.body, properties)

    def make_queue(self, name: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO queues VALUES (?)", (name,))

    def remove_queue(self, name: str) -> None:
        """With all that is in it."""
        with self._transaction() as db:
            db.execute("DELETE FROM messages WHERE queue = ?", (name,))
            db.execute("DELETE FROM queues WHERE name = ?", (name,))

    def messages_in(self, name: str) -> Optional[int]:
        """None where there is no such queue."""
        with self._transaction() as db:
            _tidy(db, name)
            there = db.execute("SELECT 1 FROM queues WHERE name = ?", (name,)).fetchone()
            return None if there is None else _count(db, name)

    def put(self, queue: str, body: bytes, properties: Properties) -> None:
        """What a requester does too. When it returns, the message survives a power failure. Raises Unroutable."""
        from .folder.records import to_json

        expiration = properties.expiration
        life = int(expiration) / 1000 if isinstance(expiration, str) and expiration.isdigit() else None
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM queues WHERE name = ?", (queue,)).fetchone() is None:
                raise Unroutable(f"the reply queue {queue} does not exist")
            db.execute(
                "INSERT INTO messages (queue, body, properties, expires_at) VALUES (?, ?, ?, ?)",
                (queue, body, json.dumps(to_json(asdict(properties))), None if life is None else time.time() + life),
            )

    def close(self) -> None:
        """What this connection still holds is delivered again."""
        if self._open is not None:
            with contextlib.suppress(Transient), self._transaction() as db:
                _give_back(db, "holder = ?", self._holder)
            self._open.close()
            self._open = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Transient(f"the embedded broker's file can't be used: {error}") from None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = sqlite3.connect(self._file, timeout=10, isolation_level=None)
            os.chmod(self._file, 0o600)
            self._open.execute("PRAGMA synchronous = FULL")
            self._open.executescript(_SCHEMA)
        return self._open


class FileRequester:
    """Asks for one job, as whoever has this file may; the answer comes to a queue of its own."""

    pattern = "batchferry-test.*"

    def __init__(self, file: Path, replies: Replies) -> None:
        self._broker = Embedded(file, replies)
        self.reply_to = f"batchferry-test.{secrets.token_hex(8)}"

    def look(self, queue: str) -> Optional[Waiting]:
        from .requester import Waiting

        messages = self._broker.messages_in(queue)
        return None if messages is None else Waiting(messages)

    def ask(self, queue: str, body: bytes, correlation_id: str, seconds: float) -> None:
        self._broker.make_queue(self.reply_to)
        properties = Properties(self.reply_to, correlation_id, correlation_id, expiration=str(int(seconds * 1000)))
        self._broker.put(queue, body, properties)

    def answer(self) -> Optional[Answered]:
        from .requester import Answered

        taken = next(iter(self._broker.take(self.reply_to, 1, wait=0)), None)
        if taken is None:
            return None
        self._broker.ack([taken])
        return Answered(taken.body, str(json.loads(taken.properties.headers or b"{}").get("job_id", "")))

    def close(self) -> None:
        with contextlib.suppress(Transient):
            self._broker.remove_queue(self.reply_to)
        self._broker.close()


def _tidy(db: sqlite3.Connection, queue: str) -> None:
    """Frees what dead processes held, and drops what has expired."""
    held = db.execute("SELECT DISTINCT holder FROM messages WHERE queue = ? AND holder IS NOT NULL", (queue,))
    for (holder,) in held.fetchall():
        pid, started, _ = holder.split(" ")
        if _started(int(pid)) != started:
            _give_back(db, "holder = ?", holder)
    db.execute("DELETE FROM messages WHERE queue = ? AND holder IS NULL AND expires_at < ?", (queue, time.time()))


def _give_back(db: sqlite3.Connection, which: str, *values: Any) -> None:
    db.execute(f"UPDATE messages SET holder = NULL, redelivered = 1 WHERE {which}", values)


def _count(db: sqlite3.Connection, queue: str) -> int:
    return int(db.execute("SELECT count(*) FROM messages WHERE queue = ? AND holder IS NULL", (queue,)).fetchone()[0])


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22): with it a pid is never mistaken."""
    try:
        return Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return "gone"
