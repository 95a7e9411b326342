"""Submits what is ready, batch after batch, as far as Slurm takes it."""

from __future__ import annotations

import logging
from typing import Callable

from ..errors import Damaged
from .declined import Declines
from .lease import Lease
from .pass_state import PassState
from .patience import Patience
from .questions import Questions
from .quiet import Quiet
from .settle import Settler
from .stop import Stop
from .submit import Said, Submitter

log = logging.getLogger(__name__)


class Submissions:
    """`rest`: called before what may take longer than the broker's heartbeat."""

    def __init__(
        self, lease: Lease, questions: Questions, quiet: Quiet, submitter: Submitter, declines: Declines,
        patience: Patience, settler: Settler, rest: Callable[[], None], stop: Stop, state: PassState,
    ) -> None:  # fmt: skip
        self._lease, self._questions, self._quiet, self._submitter = lease, questions, quiet, submitter
        self._declines, self._patience, self._settler = declines, patience, settler
        self._rest, self._stop, self._state = rest, stop, state

    def submit_all(self) -> None:
        """Raises SiteAway; what was not submitted then stays ready."""
        state, declines = self._state, self._declines
        fault = self._patience.fault() if state.ready else None
        declines.sort_out()
        while state.ready and not self._stop.asked and self._submitter.may_submit():
            self._questions.check()
            self._rest()
            batch = self._submitter.next_batch(state.ready, declines.most(state.ready[0][1]))
            damaged, said = False, Said(None)
            try:
                # One that may have been submitted before, and that Slurm surely does not have, has waited for long enough.
                said = self._submitter.submit([
                    (job, step) for job, step in batch
                    if not (fault and step.again is not None and self._patience.gives_up(job, step.attempt, fault))
                ])  # fmt: skip
            except Damaged as error:
                log.error(
                    "damaged, left alone; docs/symptoms.md says what to do jobs=%d what=%r", len(batch), str(error)
                )
                state.faults.left_alone += len(batch)
                damaged = True
            self._quiet.changed_at = self._lease.server_now
            done = {job.id for job, _ in batch}
            state.ready = [(job, step) for job, step in state.ready if job.id not in done]
            for job, _ in [] if damaged else batch:
                if job.id not in said.took:  # one that Slurm has just taken waits for it, and that was all
                    self._settler.settle(job)
            declines.learn(batch, said.words, said.by_itself)
        declines.raise_if_away()
