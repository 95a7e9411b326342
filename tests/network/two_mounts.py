"""A batch and its fence, and a look anew, on one file system seen through two mounts. Run where the mounts are:

    python -m tests.network.two_mounts NODE LOGIN

NODE and LOGIN are the mounts of two hosts. One JSON object on stdout: what was seen, and under `broken` which promises were
not kept (none, exit code 0).
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from tests.worker.leased import claimed, flush
from worker.folder import batches, paths
from worker.folder.batches import Batch, Pool
from worker.folder.jobs import JobsFolder
from worker.folder.journal import Journal, TakenAway, close_last_lease, looks_ours, read_progress

_SHOWS = 4.0
"""Seconds that the login side waits for what was synced elsewhere."""
_TRIALS = 50


class TwoMounts:
    """`node`, `login`: the same folder, as each host sees it."""

    def __init__(self, node: Path, login: Path) -> None:
        name = f"two-mounts-{secrets.token_hex(4)}"
        self.node, self.login = node / name, login / name
        self.node.mkdir()
        self.seen: dict[str, Any] = {}
        self.broken: list[str] = []

    def promise(self, kept: bool, words: str) -> None:
        if not kept:
            self.broken.append(words)

    def a_pilot_that_is_cut_off_says_nothing_more(self) -> None:
        pool, here = Pool(JobsFolder(self.node), "jobs"), Pool(JobsFolder(self.login), "jobs")
        pool.prepare()
        batch = batches.add(pool, [claimed(number) for number in range(4)], 0)
        taken = batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")
        journal = Journal(taken)
        flush(journal, 0)
        journal.say()
        flush(journal, 1)  # and it is frozen here, between the sync and the link
        assert looks_ours(taken) and read_progress(taken)

        paths.look_anew(here.locked)
        (seen,) = here.batches(here.locked)
        moved = batches.move(seen, here.ended / seen.path.name)
        begun = time.monotonic()
        self.promise(not close_last_lease(moved, self._server_now(), _SHOWS), "a batch was read before it could show")
        self._still_works_under_its_old_name(taken)
        try:
            journal.say()
            self.promise(False, "a pilot may send what was not said when its batch was taken away")
        except TakenAway:
            self.seen["stopped after"] = round(time.monotonic() - begun, 3)
        while not close_last_lease(moved, self._server_now(), _SHOWS):
            time.sleep(0.2)
        came = set(read_progress(moved).came)
        self.promise(came == {claimed(0).id, claimed(1).id}, f"what was synced does not show: {sorted(came)}")
        try:
            journal.close()
            self.promise(False, "a pilot gave back what had been taken away")
        except (TakenAway, OSError) as error:
            self.seen["giving back says"] = type(error).__name__

    def _still_works_under_its_old_name(self, taken: Batch) -> None:
        try:
            os.close(os.open(taken.jobs, os.O_RDONLY))
            self.seen["the old path opens"] = True
        except OSError as error:
            self.seen["the old path opens"] = error.strerror
        self.seen["and looks ours by way of its parent"] = looks_ours(taken)

    def what_a_pilot_gives_back_is_read(self) -> None:
        pool, here = Pool(JobsFolder(self.node / "second"), "jobs"), Pool(JobsFolder(self.login / "second"), "jobs")
        pool.prepare()
        batch = batches.add(pool, [claimed(number) for number in range(4)], 0)
        taken = batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")
        (locked,) = here.batches(here.locked)
        read_progress(locked)  # so that this host has looked for all of it in vain
        journal = Journal(taken)
        flush(journal, 0)
        journal.say()
        journal.close()
        batches.move(taken, pool.ended / taken.path.name)

        paths.look_anew(here.ended)
        (ended,) = here.batches(here.ended)
        begun = time.monotonic()
        while not close_last_lease(ended, self._server_now(), _SHOWS):
            time.sleep(0.1)
        self.seen["given back, read after"] = round(time.monotonic() - begun, 3)
        self.promise(set(read_progress(ended).came) == {claimed(0).id}, "what was given back does not show")

    def a_name_that_was_looked_for_in_vain_is_found_by_a_look_anew(self) -> None:
        """Made in the same tick of the server's clock as the look, as often as that can be had."""
        hidden = 0
        for number in range(_TRIALS):
            place = self.node / f"trial-{number}"
            place.mkdir()
            there = self.login / place.name
            os.listdir(there)
            (place / "before").touch()
            looked = (there / "name").exists()
            os.listdir(there)
            (place / "name").touch()
            hidden += not (there / "name").exists()
            paths.look_anew(there)
            self.promise(not looked and (there / "name").exists(), f"trial {number}: a look anew does not find it")
            self.promise("name" in os.listdir(there), f"trial {number}: a look anew does not list it")
        self.seen[f"hidden at first, of {_TRIALS}"] = hidden

    def _server_now(self) -> float:
        probe = self.login / "now"
        probe.touch()
        return probe.stat().st_mtime


def main(node: Path, login: Path) -> int:
    here = TwoMounts(node, login)
    here.a_pilot_that_is_cut_off_says_nothing_more()
    here.what_a_pilot_gives_back_is_read()
    here.a_name_that_was_looked_for_in_vain_is_found_by_a_look_anew()
    print(json.dumps({"seen": here.seen, "broken": here.broken}))
    return bool(here.broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
