"""Invents stories: hypothesis picks what happens next, and the books are checked after each thing that happened."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.worker.model.power import Event, Trouble
from tests.worker.model.world import World

SHARED_MEMORY = Path("/dev/shm")
"""Where there is one, files cost no disk: SQLite's own fsync can't be taken away from it."""

ENDS = ("COMPLETED", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "CANCELLED")
FATES = ("well", "fails", "makes nothing", "loses a child to memory", "runs out of time")
TIMES = (1.0, 60.0, 60.0, 100.0, 130.0, 400.0, 700.0, 4000.0, 90000.0)
LUCK = ("late", "unheard", "unheard and late", "not taken", "refused", "refused and taken", "declined", "declined and taken",
        "declined and taken late")  # fmt: skip
OF_A_PASS = ("message.json", "ack", "spec.json", "intent.json", "sbatch", "submission.json", "ended.json", "cancel.json",
             "started.json", "begun.json", "result.json", "reply-", "outcome.json", "publish", "delivered.json",
             "move to")  # fmt: skip
OF_A_WORKER = ("started.json", "begun.json", "result.json", "reply-", "outcome.json", "publish", "delivered.json")
AT_WORK = (
    "before started.json",
    "before begun.json",
    "program runs",
    "program has ended",
    "before result.json",
    "before outcome.json",
)

AT_WITHDRAWAL = ("before cancel.json", "after cancel.json", "before started.json", "after started.json", "after result.json",
                 "before outcome.json")  # fmt: skip


def body(workload: str, url: str = "/page") -> bytes:
    return json.dumps({"inputs": {"Page": url}, "settings": {}, "workload": workload}).encode()


LARGE = body("once").replace(b'"settings"', b'"resources": {"memory_mb": 2000}, "settings"')
GOOD = (*(body(workload) for workload in ("often", "once", "always")), LARGE)
BAD = (b"{}", b"\xff", body("often").replace(b"Page", b"Leaf"))
MISSING = body("often", "/missing")


def number(least: int, most: int) -> st.SearchStrategy[int]:
    """Not st.integers: that tries the constants of whatever modules are loaded, so that no run would be like another."""
    return st.sampled_from(range(least, most + 1))


which = number(0, 3)
switch = st.booleans()

of_a_pass = st.one_of(
    number(1, 40),
    st.sampled_from([f"{when} {step}" for when in ("before", "after") for step in OF_A_PASS]),
    st.sampled_from(("it waits", "API is asked")),
)
of_a_worker = st.one_of(
    number(1, 20),
    st.sampled_from([f"{when} {step}" for when in ("before", "after") for step in OF_A_WORKER]),
    st.sampled_from(("program runs", "program has ended", "it waits", "API is asked")),
)
fates = st.sampled_from((*FATES, "well", "well"))
states = st.sampled_from(("as it was", "as it was", *ENDS))


def event(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    return st.tuples(st.just(name), *arguments)


messages = st.one_of(
    event("publish", st.sampled_from((*GOOD, *GOOD, MISSING, *BAD))),
    event("publish", st.sampled_from(GOOD), st.just("answers"), st.just(False)),
    event("publish", st.sampled_from(GOOD), st.sampled_from(("answers", None))),
    event("publish", st.just(GOOD[0]), st.just("answers"), st.just(True), st.sampled_from((0, 20_000, 10**7))),
    event("publish_again", which),
)
oddities = st.one_of(
    event("luck_of_next_sbatch", st.sampled_from(LUCK)),
    event("slurm_ends", which, st.sampled_from(ENDS)),
    event("slurm_requeues", which),
    event("slurm_forgets", which, switch),
    event("slurm_brings_back", which),
    event("slurm_holds", which, st.sampled_from(("BadConstraints", "Resources"))),
    event("slurm_deaf", switch),
    event("slurm_has_room_for", st.sampled_from((1, 2, 1000))),
    event("slurm_declines", st.sampled_from(("", "large", "all"))),
    event("cache_is", st.sampled_from(("lost", "damaged", "stale", "stale", "deaf", "rings")), which),
)
faults = st.one_of(
    event("broker_away", st.just(True)),
    event("reply_queue", st.just(False)),
    event("slurm_away", st.just(True)),
    event("slurm_commands_are_used_up"),
    event("accounting_away", st.just(True)),
    event("api_is", st.sampled_from(("refused", "away"))),
    event("disk_full", st.just(True)),
    event("operator_resends"),
    event("operator_cancels", which),
)


def crashes(moments: st.SearchStrategy[Any]) -> st.SearchStrategy[Trouble]:
    return st.builds(Trouble, moments, st.just("crash"))


def at_most_one(of: st.SearchStrategy[Trouble]) -> st.SearchStrategy[tuple[Trouble, ...]]:
    return st.lists(of, max_size=1).map(lambda troubles: tuple(troubles))


whatever = st.lists(
    st.one_of(
        event("tick", st.sampled_from(TIMES)),
        event("slurm_ends", which, st.sampled_from(("NODE_FAIL", *ENDS))),
        event("one_pass", switch, at_most_one(crashes(of_a_pass))),
        event("job_begins", which, fates, switch, at_most_one(crashes(of_a_worker))),
        oddities,
        faults,
        event("mend"),
        messages,
    ),
    min_size=1, max_size=5,
)  # fmt: skip
the_node_is_cut_off = st.tuples(
    event("slurm_ends", st.just(0), st.just("NODE_FAIL")),
    event("tick", st.sampled_from(TIMES)),
    event("one_pass", st.just(True)),
    event("tick", st.sampled_from(TIMES)),
    event("one_pass", st.just(True)),
)
meanwhile = st.one_of(whatever, st.builds(lambda cut, more: [*cut, *more], the_node_is_cut_off, whatever)).map(tuple)


def troubles(moments: st.SearchStrategy[Any], *kinds: str) -> st.SearchStrategy[tuple[Trouble, ...]]:
    any_trouble = st.one_of(
        crashes(moments),
        st.builds(Trouble, moments, st.sampled_from(kinds)),
        st.builds(Trouble, moments, st.just("meanwhile"), meanwhile),
    )
    return st.lists(any_trouble, max_size=2).map(lambda troubles: tuple(troubles))


pass_troubles = troubles(of_a_pass, "drops", "full")
worker_troubles = troubles(of_a_worker, "drops", "full", "told to stop")


ANSWERED: tuple[Event, ...] = (("slurm_ends", 0, "COMPLETED"), ("one_pass", True))


def passes_after(waits: Sequence[float]) -> list[Event]:
    return [each for seconds in waits for each in (("tick", seconds), ("one_pass", True))]


class Life(RuleBasedStateMachine):
    """One installation's story. It ends with everything healthy, and with every promise kept."""

    lived = 0

    def __init__(self) -> None:
        super().__init__()
        Life.lived += 1
        there = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        self.place = Path(tempfile.mkdtemp(prefix="life", dir=there))
        self.world: Optional[World] = None
        self.sound = True

    @initialize(accounting=switch, scarce=switch, message=messages)
    def begin(self, accounting: bool, scarce: bool, message: Event) -> None:
        self.world = World(self.place / "it's here", accounting, scarce)
        self.happen(message)

    def happen(self, event: Event) -> None:
        assert self.world is not None
        self.sound = False  # until what comes of it has been checked
        self.world.happen(event)

    @rule(message=messages)
    def a_requester_sends(self, message: Event) -> None:
        self.happen(message)

    @rule(seconds=st.sampled_from(TIMES))
    def time_passes(self, seconds: float) -> None:
        self.happen(("tick", seconds))

    @rule(seconds=st.sampled_from(TIMES), passes=number(1, 3), drain=switch)
    def cron_runs(self, seconds: float, passes: int, drain: bool) -> None:
        for _ in range(passes):
            self.happen(("tick", seconds))
            self.happen(("one_pass", drain))

    @rule(drain=switch, troubles=pass_troubles)
    def cron_runs_in_trouble(self, drain: bool, troubles: tuple[Trouble, ...]) -> None:
        self.happen(("one_pass", drain, troubles))

    @rule(seconds=st.sampled_from(TIMES), passes=number(1, 4), troubles=pass_troubles)
    def a_watch_runs(self, seconds: float, passes: int, troubles: tuple[Trouble, ...]) -> None:
        self.happen(("a_watch", passes, seconds, troubles))

    @rule(message=messages, luck=st.sampled_from(LUCK), seconds=st.sampled_from(TIMES))
    def an_sbatch_goes_wrong(self, message: Event, luck: str, seconds: float) -> None:
        self.happen(message)
        self.happen(("luck_of_next_sbatch", luck))
        self.happen(("one_pass", True))
        self.happen(("tick", seconds))
        self.happen(("one_pass", True))

    @rule(messages=st.lists(messages, min_size=1, max_size=4), shape=st.sampled_from(("", "large", "all")),
          most=number(0, 3), seconds=st.sampled_from(TIMES), passes=number(1, 5), lasts=switch)  # fmt: skip
    def slurm_wants_no_more(
        self, messages: list[Event], shape: str, most: int, seconds: float, passes: int, lasts: bool
    ) -> None:
        self.happen(("slurm_declines", shape))
        self.happen(("slurm_has_room_for", most))
        for message in messages:
            self.happen(message)
        for _ in range(passes):
            self.happen(("one_pass", True))
            self.happen(("tick", seconds))
        if not lasts:
            self.happen(("slurm_has_room_for", 1000))
            self.happen(("slurm_declines", ""))

    @rule(which=which, fate=fates, sees_memory=switch, state=states, troubles=worker_troubles)
    def a_job_runs(self, which: int, fate: str, sees_memory: bool, state: str, troubles: tuple[Trouble, ...]) -> None:
        self.happen(("job_begins", which, fate, sees_memory, troubles))
        self.happen(("slurm_ends", 0, state))

    @rule(fate=fates, sees_memory=switch, worker=worker_troubles, state=states, seconds=st.sampled_from(TIMES),
          after=pass_troubles)  # fmt: skip
    def a_job_lives(
        self, fate: str, sees_memory: bool, worker: tuple[Trouble, ...], state: str, seconds: float,
        after: tuple[Trouble, ...],
    ) -> None:  # fmt: skip
        self.happen(("mend",))
        self.happen(("publish", GOOD[1]))
        self.happen(("one_pass", True))
        self.happen(("job_begins", 0, fate, sees_memory, worker))
        self.happen(("slurm_ends", 0, state))
        self.happen(("tick", seconds))
        self.happen(("one_pass", True, after))

    @rule(moment=st.sampled_from(AT_WORK), waits=st.tuples(*[st.sampled_from(TIMES)] * 2), second=st.sampled_from(FATES),
          first=fates, answered=switch)  # fmt: skip
    def a_job_that_was_cut_off_works_on(
        self, moment: str, waits: tuple[float, float], second: str, first: str, answered: bool
    ) -> None:
        """Its node is taken for failed; another attempt works, and may have answered, before it comes to its own end."""
        elsewhere = [*passes_after(waits), ("job_begins", 0, second, False), *(ANSWERED if answered else ())]
        self.is_cut_off(moment, first, False, elsewhere)

    def is_cut_off(
        self, moment: str, fate: str, sees_memory: bool, elsewhere: Sequence[Event], then: Sequence[Event] = ()
    ) -> None:
        """`elsewhere`: what happens from then on until the job comes to its own end; `then`: after that, before a pass."""
        cut_off: Event = ("slurm_ends", 0, "NODE_FAIL")
        self.happen(("mend",))
        self.happen(("publish", GOOD[0]))
        self.happen(("one_pass", True))
        self.happen(("job_begins", 0, fate, sees_memory, (Trouble(moment, "meanwhile", (cut_off, *elsewhere)),)))
        for each in then:
            self.happen(each)
        self.happen(("one_pass", True))

    @rule(how=st.sampled_from(("expires", "is cancelled", "is held")), moment=st.sampled_from(AT_WITHDRAWAL), fate=fates,
          silent=switch, spent=switch, back=switch, dies=switch)  # fmt: skip
    def a_job_begins_while_it_is_withdrawn(
        self, how: str, moment: str, fate: str, silent: bool, spent: bool, back: bool, dies: bool
    ) -> None:
        """Accounting may be silent, and a restored controller may bring the job back when it has been answered."""
        self.happen(("mend",))
        self.happen(("publish", GOOD[0], "answers", True, 20_000 if how == "expires" else None))
        self.happen(("one_pass", True))
        if how == "is cancelled":
            self.happen(("operator_cancels", 0))
        if how == "is held":
            self.happen(("slurm_holds", 0, "BadConstraints"))
            self.happen(("one_pass", True))
        self.happen(("tick", 4000.0))
        if silent:
            self.happen(("accounting_away", True))
        killed = (Trouble("program runs", "crash"),) if dies else ()
        begins: tuple[Event, ...] = (("slurm_holds", 0, "Resources"), ("job_begins", 0, fate, True, killed))
        spends: tuple[Event, ...] = (("slurm_commands_are_used_up",),)
        self.happen(("one_pass", True, (Trouble(moment, "meanwhile", begins + (spends if spent else ())),)))
        if back:
            self.happen(("slurm_brings_back", 0))
            self.happen(("job_begins", 0, fate, True))

    @rule(which=which, state=states)
    def slurm_ends_a_job(self, which: int, state: str) -> None:
        self.happen(("slurm_ends", which, state))

    @rule(oddity=oddities)
    def slurm_is_odd(self, oddity: Event) -> None:
        self.happen(oddity)

    @rule(fault=faults)
    def something_breaks(self, fault: Event) -> None:
        self.happen(fault)

    @rule()
    def everything_is_mended(self) -> None:
        self.happen(("mend",))

    @invariant()
    def promises_are_kept(self) -> None:
        if self.world is not None:
            self.world.check()
            self.sound = True

    def teardown(self) -> None:
        try:
            if self.world is not None and self.sound:
                self.world.settle()
        finally:
            shutil.rmtree(self.place)
