"""What each pilot that had a batch wrote down, and the fence that decides which of its answers may leave. Both sides use it.

Per lease `<n>` (one pilot's time with the batch) the batch's folder holds
    journal-<n>.jsonl  what may have been started, what was started, what it came to: lines, synced together
    said-<n>-<k>       exclusive: of the k-th flush, the pilot may send the answers (or nobody any more)
    sent-<n>           the ids of answers that the broker has confirmed
    closed-<n>.json    exclusive: nothing of this lease can leave any more, and so many bytes of its journal count
and `taken.json` says when the login side took the batch away from its pilot.

That a batch's folder was renamed away can't be seen at once where the jobs folder is on a network: on NFS the old path goes
on opening, and taking new files, for up to a minute. So absence decides nothing here, and a link does: the file server
lets one of two win. Before the answers of its k-th flush leave, a pilot links its journal to said-<n>-<k>; the login side,
after its rename, links taken.json to the first k that is free. Whatever was flushed by then is in the journal, because that
was synced before; whatever comes later finds the name taken, and is not sent.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

from ..errors import Damaged
from ..job.names import JobId, NameIfAny
from ..job.outcome import Reply, Result
from . import paths
from .batches import LARGEST, NOT_WRITTEN, Batch, Closed, Taken
from .paths import GONE
from .records import from_json, to_json

_INLINE = 1 << 18
"""Bytes of a reply's body up to which it stands in the journal itself."""
_SYNC_SENT = 1.0
"""Seconds between two syncs of what the broker has confirmed."""


class TakenAway(Exception):
    """The login side believes that this pilot is dead; nothing that it does counts any more."""


# --- what it says


@dataclass(frozen=True)
class Came:
    """What a job came to in a pilot. Without a reply it is not the job's end: it goes on as a folder of its own."""

    result: Result
    reply: Optional[Reply]
    body_file: str = ""
    """Where the reply's body lies, if it is too large for the journal."""


@dataclass
class Progress:
    """All that a batch's journals say. `upto`: jobs before this place may have been started."""

    upto: int = 0
    started: dict[str, float] = field(default_factory=dict)
    came: dict[str, Came] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    handed: set[str] = field(default_factory=set)


def read_progress(batch: Batch) -> Progress:
    """Raises Damaged, also where an answer was sent of which the journals say nothing: they have lost more, then."""
    progress = Progress()
    for number in range(1, batch.leases() + 1):
        try:
            for line in _whole_lines(batch, number):
                _add_line(progress, line)
            sent = paths.contents(batch.sent(number), LARGEST) or b""
            progress.sent.update(sent.decode("ascii", "replace").split("\n")[:-1])
        except NOT_WRITTEN as error:
            raise Damaged(f"{batch.journal(number)} is not what was written there ({error!s:.200})") from None
        if not progress.sent <= set(progress.came):
            raise Damaged(
                f"{batch.journal(number)} lacks jobs whose answers were sent, as {batch.sent(number).name} says"
            )
        handed = batch.handed(number).read()
        if handed is not None:
            progress.handed.update(handed.jobs)
    return progress


def _add_line(progress: Progress, line: Mapping[str, Any]) -> None:
    if "upto" in line:
        progress.upto = max(progress.upto, from_json(int, line["upto"]))
    elif "start" in line:
        progress.started[line["start"]] = from_json(float, line["at"])
    else:
        reply = None if line["reply"] is None else _reply(line["reply"])
        body_file = from_json(NameIfAny, line.get("body_file", ""))
        progress.came.setdefault(line["id"], Came(from_json(Result, line["result"]), reply, body_file))


def _whole_lines(batch: Batch, number: int) -> Iterator[Mapping[str, Any]]:
    """A line that was cut off was never synced, so nothing followed from it; one in the midst of others was. Raises
    Damaged."""
    path, closed = batch.journal(number), batch.closed(number).read()
    content = paths.contents(path, LARGEST)
    if content is None:
        raise Damaged(f"{path} is gone")
    if closed is not None and closed.bytes > len(content):
        raise Damaged(f"{path} was cut off, as {batch.closed(number).name} says")
    lines = content[: closed.bytes if closed else len(content)].split(b"\n")[:-1]
    for place, line in enumerate(lines):
        try:
            found = json.loads(line)
        except ValueError:
            if any(each.startswith(b'{"') and each.endswith(b"}") for each in lines[place + 1 :]):
                raise Damaged(f"{path} is not what was written there (line {place + 1})") from None
            return
        yield found


# --- the pilot's side


class Journal:
    """What one lease writes. Nothing is on disk before `sync()`, and nothing may be sent before `say()`."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.number = batch, batch.leases() + 1
        self._path, self._flush = batch.journal(self.number), 0
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._sent = os.open(batch.sent(self.number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._sent_unsynced, self._sent_synced_at = False, time.monotonic()
        paths.sync_folder(batch.path)
        self._lines: list[bytes] = []

    def may_start(self, upto: int) -> None:
        """From the next sync on, those before this place may have been started, also where the node fails."""
        self._lines.append(b'{"upto":%d}\n' % upto)

    def started(self, job_id: JobId, at: float) -> None:
        """Outlives this process at once."""
        self._append(b'{"start":"%s","at":%.3f}\n' % (job_id.encode(), at))

    def came(self, job_id: JobId, came: Came) -> None:
        line: dict[str, Any] = {"id": job_id, "result": _plain(came.result), "reply": None}
        if came.reply is not None:
            line["reply"] = {**to_json(vars(came.reply)), "body": came.reply.body.decode()}
        if came.body_file:
            line["body_file"] = came.body_file
        self._lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def keep_body(self, job_id: JobId, body: bytes) -> str:
        """Where a body is kept that is too large for the journal; "" for one that is not. Raises OSError."""
        if len(body) <= _INLINE:
            return ""
        path = self.batch.reply_body(self.number, job_id)
        paths.write_bytes(path, body)
        return path.name

    def sync(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._append(b"".join(lines))
            os.fsync(self._file)

    def say(self) -> None:
        """After this, what was synced before may be sent: one link, which survives no power failure and needs not to, since
        then these answers are sent again, equal to the byte. Raises TakenAway and OSError."""
        self._flush += 1
        said = self.batch.said(self.number, self._flush)
        paths.crash_point(f"before {said.name}")
        self._win(lambda: paths.link_first(self._path, said))
        paths.crash_point(f"after {said.name}")

    def _win(self, claim: Callable[[], bool]) -> None:
        """Raises TakenAway where the login side was first, or the batch's folder has gone."""
        try:
            ours = claim()
        except OSError as error:
            if error.errno not in GONE:
                raise
            ours = False
        if not ours:
            raise TakenAway(f"the batch {self.batch} was taken away, nothing more is sent")

    def sent(self, job_ids: Iterable[str]) -> None:
        """On disk with the next `sync_sent()`: where this gets lost, an equal answer is sent once more."""
        os.write(self._sent, "".join(f"{each}\n" for each in job_ids).encode())
        self._sent_unsynced = True

    def sync_sent(self, at_once: bool = False) -> None:
        """To be called again and again: another host sees no byte of a file that was not synced, and what it does not see is
        sent once more. Once a second, because a sync for each flush would cost as much as the flush."""
        if self._sent_unsynced and (at_once or time.monotonic() - self._sent_synced_at >= _SYNC_SENT):
            os.fsync(self._sent)
            self._sent_unsynced, self._sent_synced_at = False, time.monotonic()

    def close(self) -> None:
        """Gives the lease back: nothing of it leaves any more, and all of its journal counts. Raises TakenAway and OSError."""
        self.sync()
        self.sync_sent(at_once=True)
        size = os.fstat(self._file).st_size
        os.close(self._file)
        os.close(self._sent)
        self._win(lambda: self.batch.closed(self.number).claim(Closed(size)))

    def _append(self, data: bytes) -> None:
        """Raises OSError; then nothing may follow, because it would stand after half a line."""
        if os.write(self._file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def looks_ours(batch: Batch) -> bool:
    """An early look, which saves work and decides nothing: opened by way of the folder above, an NFS client asks its
    server; others believe for a second what they knew."""
    return paths.opens(batch.path.parent) and paths.opens(batch.jobs)


def _plain(result: Result) -> Any:
    outputs = {name: vars(output) for name, output in result.outputs.items()}
    said = {**vars(result), "outputs": outputs, "used": vars(result.used) if result.used else None}
    return {name: value for name, value in said.items() if value is not None and value != "" and value != {}}


def _reply(line: Mapping[str, Any]) -> Reply:
    known = {**line, "body": line["body"].encode(), "correlation_id": _text(line["correlation_id"])}
    return Reply(**known)


def _text(value: Any) -> Union[str, bytes, None]:
    text: Union[str, bytes, None] = from_json(bytes, value) if isinstance(value, dict) else value
    return text


# --- the login side's


def close_last_lease(batch: Batch, server_now: float, visible_after: float) -> bool:
    """Of a batch that was moved out of its pilot's reach: whether nothing more can leave, and all that left can be read. If
    not yet, it is to be called again by a later pass; to call it twice is harmless. Raises Damaged and OSError.

    `server_now`: the file server's clock, not ahead of it. `visible_after`: seconds after which what was written elsewhere
    can be read here: a pilot that was cut off may have synced its last lines a moment ago.
    """
    paths.look_anew(batch.path)
    number = batch.leases()
    if not number:
        return True
    closed = batch.closed(number).read()
    if closed is not None:
        shown = len(paths.contents(batch.journal(number), LARGEST) or b"") >= closed.bytes
        return shown or server_now - batch.closed(number).path.stat().st_mtime >= visible_after
    taken = batch.taken.read()
    if taken is None or taken.pilot != batch.pilot:
        batch.taken.write(Taken(batch.pilot))
    _bar(batch, number)
    if server_now - batch.taken.path.stat().st_mtime < visible_after:
        return False
    content = paths.contents(batch.journal(number), LARGEST)
    if content is None:
        raise Damaged(f"{batch.journal(number)} is gone")
    batch.closed(number).claim(Closed(len(content)))  # or the pilot was quicker, which gave it back
    return True


def _bar(batch: Batch, number: int) -> None:
    """Wins the fence before the first flush that was not said; of those that are listed only the last one may be ours. That
    has to survive a power failure."""
    for flush in itertools.count(max(1, batch.flushes_said(number))):
        said = batch.said(number, flush)
        paths.crash_point(f"before {said.name}")
        if paths.link_first(batch.taken.path, said):
            paths.sync_folder(batch.path)
            paths.crash_point(f"after {said.name}")
            return
