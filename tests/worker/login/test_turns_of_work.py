"""Where a site allows few Slurm commands, each kind of work gets its turn: the real bucket and the real passes, with a clock
that only these tests move."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from scheduler import BatchRequest, JobView, Phase, SlurmJobId
from tests.both import ends_of
from tests.worker.login import test_passes
from tests.worker.login.process import NO_LEASE, a_token
from tests.worker.login.test_passes import GOOD, Login, starts_and_dies
from tests.worker.model.machine import SHARED_MEMORY
from tests.worker.spending import Spending
from worker.job.facts import Asked
from worker.login.budget import LEAST_AT_ONCE, LOOK, Budget, Spent
from worker.login.passes import Passes
from worker.settings import Seconds

pytestmark = pytest.mark.unhurried

BURSTS = (LEAST_AT_ONCE, 4, 20)
RATES = (0.001, 0.5, 10.0)
PAUSES = (0.3, 1.0, 7.0)
"""Between two passes, in the time that one command takes to become available."""
NEEDS = {"look": LOOK, "submit": 3, "cancel": 1, "try": 1}


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=SHARED_MEMORY if SHARED_MEMORY.exists() else None))
    yield path
    shutil.rmtree(path)


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        patch.setattr(time, "time", lambda: self.now)
        patch.setattr(os, "fsync", lambda descriptor: os.utime(descriptor, (self.now, self.now)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# --- the bucket


def works(bucket: Budget, wanted: Sequence[str], spent: Counter[str]) -> None:
    """One pass that wants all this."""
    bucket.begin_pass()
    for work in wanted:
        if bucket.may(work, NEEDS[work]):
            bucket.had_turn(work)
            for _ in range(NEEDS[work]):
                bucket.take(work)
            spent[work] += 1


def test_whatever_wants_commands_all_the_time_each_kind_of_work_gets_as_many_turns(place: Path, clock: Clock) -> None:
    subsets = [some for size in range(2, 5) for some in itertools.combinations(NEEDS, size)]
    for number, (burst, pause, wanted) in enumerate(itertools.product((LEAST_AT_ONCE, 5), PAUSES, subsets)):
        bucket, turns = Budget(place / str(number), 0.5, burst), Counter[str]()
        cycle = sum(NEEDS[work] for work in wanted)
        passes = int(3 * (cycle + burst) / pause) + 8

        for _ in range(passes):
            works(bucket, wanted, turns)
            clock.now += pause / 0.5

        at_least = min(int(passes * pause / cycle), passes // len(wanted)) // 2
        assert at_least >= 1 and min(turns[work] for work in wanted) >= at_least, (burst, pause, wanted, turns)


def test_what_no_longer_wants_commands_keeps_nobody_waiting(place: Path, clock: Clock) -> None:
    bucket = Budget(place / "bucket", 0.5, 3)
    for _ in range(3):
        bucket.take("squeue")
    assert not bucket.may("submit", 3)
    clock.now += 4
    assert not bucket.may("look", LOOK), "a submission waits for them"

    bucket.begin_pass()
    bucket.begin_pass()

    assert bucket.may("look", LOOK)


def test_what_people_ask_takes_nothing_that_work_waits_for(place: Path, clock: Clock) -> None:
    bucket = Budget(place / "bucket", 0.5, 3)
    bucket.take("squeue")
    bucket.leave_enough(2)
    assert not bucket.may("submit", 3)

    with pytest.raises(Spent):
        bucket.leave_enough(1)

    clock.now += 2
    assert bucket.may("submit", 3)


def test_a_clock_that_is_set_back_while_it_is_empty_costs_no_more_than_it_takes_to_fill(
    place: Path, clock: Clock
) -> None:
    bucket = Budget(place / "bucket", 0.5, 3)
    for _ in range(3):
        bucket.take("squeue")
    clock.now -= 86400
    assert bucket.left() == 0

    clock.now += 2.1

    assert bucket.left() == 1
    bucket.take("sbatch")


# --- whole passes


class Cluster(test_passes.Cluster):
    """Jobs run until they are told to end; one that has ended is only in accounting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.calls, self.submitted_at = clock, Counter[str](), dict[str, float]()

    def submit(self, request: BatchRequest) -> SlurmJobId:
        self.calls["sbatch"] += 1
        group = json.loads(Path(request.arguments[-1]).read_text())["members"]
        self.submitted_at.update({job_id: self.clock.now for job_id, _ in group.values()})
        return super().submit(request)

    def objection(self, request: BatchRequest) -> str:
        return ""

    def largest_array(self) -> int:
        self.calls["scontrol"] += 1
        return 10

    def queue(self) -> list[JobView]:
        self.calls["squeue"] += 1
        return [view for view in super().queue() if view.phase is not Phase.ENDED]

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        self.calls["sacct"] += 1
        return [self.view(slurm_id, request.name) for slurm_id, request, _ in self.elements if request.name in names]

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        self.calls["scancel"] += 1
        super().cancel(ids, only_waiting)


class Site(Login):
    def __init__(self, place: Path, clock: Clock, rate: float, burst: int) -> None:
        super().__init__(place)
        slurm = replace(self.config.site.slurm, commands_per_second=rate, commands_at_once=burst)
        timing = replace(self.config.site.timing, patience=Seconds(1e9))
        queues = tuple(replace(queue, max_wait=Seconds(1e9)) for queue in self.config.site.queues)
        site = replace(self.config.site, slurm=slurm, timing=timing, queues=queues)
        self.config = replace(self.config, site=site)
        self.clock, self.rate, self.began = clock, rate, clock.now
        self.burst, self.names = burst, itertools.count()
        self.cluster: Cluster = Cluster(clock)
        self.claimed_at: dict[str, float] = {}
        self.watch: Optional[Passes] = None

    def ask_for(self, cpus: int) -> None:
        body = json.dumps({**json.loads(GOOD), "resources": {"cpus": cpus}}).encode()
        self.broker.ask(body, name=f"c-{next(self.names)}")

    def one_pass(self, drain: bool = True) -> int:
        code = (self.watch or self.new_process()).begin().run(drain)
        self.broker.close()
        for job in self.active():
            self.claimed_at.setdefault(job.id, self.clock.now)
        used, most = sum(self.cluster.calls.values()), self.burst + (self.clock.now - self.began) * self.rate
        assert used <= most + 1e-6, f"the site allows {most}: {self.cluster.calls}"
        return code

    def new_process(self, watching: bool = False) -> Passes:
        ends = ends_of(self.config.site, self.broker)
        return Passes(self.config, self.jobs, NO_LEASE, ends, watching,
                      lambda spent_on: Spending(self.cluster, spent_on), a_token)  # fmt: skip

    def passes(self, commands: float, pause: float) -> None:
        """As many as it takes until the site would have allowed so many commands."""
        for _ in range(int(commands / pause) + 2):
            self.clock.now += pause / self.rate
            self.one_pass()


def watched(site: Site) -> Site:
    site.watch = site.new_process(watching=True)
    return site


def test_each_message_is_submitted_whatever_the_site_allows_and_none_is_claimed_that_would_wait(
    place: Path, clock: Clock
) -> None:
    """While a job runs of which Slurm is asked in each pass, three of different needs come at once."""
    for number, (rate, burst, pause) in enumerate(itertools.product(RATES, BURSTS, PAUSES)):
        site = Site(place / str(number), clock, rate, burst)
        site.ask_for(1)
        site.passes(3 * LEAST_AT_ONCE, 1.0)
        assert len(site.cluster.submitted_at) == 1
        before = Counter(site.cluster.calls)

        for cpus in (2, 3, 4):
            site.ask_for(cpus)
        site.passes(5 * (LOOK + LEAST_AT_ONCE) + burst, pause)

        case = f"rate={rate} burst={burst} pause={pause} {site.cluster.calls}"
        assert len(site.cluster.submitted_at) == 4 and not site.broker.queued, case
        waited = [site.cluster.submitted_at[job] - site.claimed_at[job] for job in site.claimed_at]
        assert max(waited) <= max(3600, 2 * pause / rate), case
        assert (site.cluster.calls - before)["squeue"] >= 3, "and Slurm is asked all the same"


@pytest.mark.parametrize("kind", ["cron", "watch"])
@pytest.mark.parametrize("burst", BURSTS)
def test_looks_cancels_and_ends_get_their_commands_while_messages_never_cease(
    place: Path, clock: Clock, burst: int, kind: str
) -> None:
    site = Site(place / "site", clock, 0.5, burst)
    site = watched(site) if kind == "watch" else site
    for cpus in (1, 2):
        site.ask_for(cpus)
    site.passes(20, 1.0)
    first, second = site.active()
    first.cancel_asked.write(Asked("mary@login1", clock.now))
    site.jobs.ring(first.id)
    slurm_id = json.loads(second.attempt(1).submission.path.read_text())["slurm_id"]
    site.cluster.running = slurm_id
    starts_and_dies(site, second, 1)
    site.cluster.ended[slurm_id] = "failed"

    for cpus in range(3, 23):
        site.ask_for(cpus)
        site.passes(4, 0.25)

    site.passes(150, 1.0)
    assert not {first.id, second.id} & {job.id for job in site.active()}, "both are answered"
    assert len(site.cluster.submitted_at) == 22 and site.cluster.calls["scancel"] >= 1
