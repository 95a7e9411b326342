"""Stories in which what the planted bugs need happens often. What the bugs do not need to be found is in machine.py."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.worker.model.machine import (
    ANSWERED,
    AT_WORK,
    FATES,
    GOOD,
    TIMES,
    Life,
    fates,
    messages,
    passes_after,
    switch,
)
from tests.worker.model.power import Event, Trouble

AT_A_CLAIM = tuple(
    f"{when} {step}" for when in ("before", "after") for step in ("message.json", "ack", "intent.json", "sbatch")
)


class Directed(Life):
    """The workers of a story share one meter of memory, so these are no stories to judge the product by."""

    @rule(message=messages, moment=st.sampled_from(AT_A_CLAIM))
    def a_pass_is_killed_while_it_takes_a_message(self, message: Event, moment: str) -> None:
        self.happen(("mend",))
        self.happen(message)
        self.happen(("one_pass", True, (Trouble(moment, "crash"),)))
        self.happen(("one_pass", True))

    @rule(moment=st.sampled_from(AT_WORK), waits=st.tuples(*[st.sampled_from(TIMES)] * 2), second=st.sampled_from(FATES),
          first=fates, answered=switch, sees_memory=switch, unsent=switch, after=switch)  # fmt: skip
    def a_job_that_was_cut_off_works_on(
        self, moment: str, waits: tuple[float, float], second: str, first: str, answered: bool, sees_memory: bool,
        unsent: bool, after: bool,
    ) -> None:  # fmt: skip
        """Its node is taken for failed; another attempt works, and may have answered, before it comes to its own end.
        `unsent`: what the login side concludes stays where it is meanwhile. `after`: the other attempt begins after that
        end, and before a pass knows of it."""
        begins: Event = ("job_begins", 0, second, False)
        elsewhere: list[Event] = [
            *([("broker_away", True)] if unsent else []),
            *passes_after(waits),
            ("outcomes_are_noted",),
            *([] if after else [begins]),
            *(ANSWERED if answered else ()),
        ]
        self.is_cut_off(moment, first, sees_memory, elsewhere, [begins])


class SentTwice(Directed):
    """More answers leave twice than in the other stories."""

    @rule(moment=st.sampled_from(("before publish", "after publish", "before delivered.json")), by_a_pass=switch)
    def whoever_sends_an_answer_is_killed(self, moment: str, by_a_pass: bool) -> None:
        killed = (Trouble(moment, "crash"),)
        self.happen(("mend",))
        self.happen(("publish", GOOD[0]))
        self.happen(("one_pass", True))
        self.happen(("broker_away", by_a_pass))
        self.happen(("job_begins", 0, "well", True, () if by_a_pass else killed))
        self.happen(("mend",))
        self.happen(("slurm_ends", 0, "COMPLETED"))
        self.happen(("one_pass", True, killed if by_a_pass else ()))
        for each in passes_after((130.0, 130.0)):
            self.happen(each)
