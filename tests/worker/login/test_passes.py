"""Whole passes on a real folder, with a broker and a scheduler in memory: whatever step the power fails at, one answer."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from scheduler import BatchRequest, JobView, Phase, Refused, SlurmJobId, Unavailable, element_id
from slurm.traits import TRAITS
from tests.both import ends_of
from tests.worker.examples import config_for
from tests.worker.login.process import passes_of
from worker.errors import LoginRefused, Transient
from worker.folder import paths
from worker.folder.answer import conclude, deliver, record
from worker.folder.facts import JobFolder, cluster_of
from worker.folder.jobs import JobsFolder
from worker.folder.records import Fact
from worker.job.facts import Group, Message, Started
from worker.job.names import JobId
from worker.job.outcome import Reply, Result
from worker.settings import Config, Queue, RetryPolicy, Seconds, Timing
from worker.sources import Properties, Settled, Taken

AT_ONCE = Timing(visible_after=Seconds(0), cut_off_after=Seconds(0), adopt_after=Seconds(0), lost_after=Seconds(0))
LAYERS = {"Image": "/a", "Background": "/b", "Selected Regions": "/c", "rgba PNG - Layer 0": "/d"}
GOOD = json.dumps({"inputs": LAYERS, "settings": {}}).encode()


class PowerFailure(BaseException):
    pass


class Broker:
    """Queues in memory. What is not acked comes back, marked, when the connection ends."""

    def __init__(self) -> None:
        self.queued: list[Taken] = []
        self.unacked: list[Taken] = []
        self.sent: list[Reply] = []
        self.away = False

    def ask(self, body: bytes = GOOD, name: Optional[str] = "c-1") -> None:
        properties = Properties(reply_to="answers", correlation_id=name)
        self.queued.append(Taken("hpc-jobs", body, properties, redelivered=False, tag=1))

    def waiting(self, queue: Queue, make: bool = True) -> int:
        if self.away:
            raise Transient("the broker is away")
        return len(self.queued)

    def get(self, queue: str) -> Optional[Taken]:
        if not self.queued:
            return None
        self.unacked.append(self.queued.pop(0))
        return self.unacked[-1]

    def take(self, queue: str, most: int, wait: float) -> list[Taken]:
        return [taken for taken in (self.get(queue) for _ in range(most)) if taken]

    def ack(self, messages: Sequence[Taken]) -> None:
        for taken in messages:
            paths.crash_point("before ack")
            self.unacked.remove(taken)
            paths.crash_point("after ack")

    def listen(self, queues: Sequence[str], wait: float) -> bool:
        return bool(self.queued)

    def stop_listening(self) -> None: ...

    def ensure_acked(self) -> None: ...

    def settle(self, claims: Sequence[tuple[JobId, Message]]) -> list[Settled]:
        return [Settled.OURS] * len(claims)

    def give_back(self, taken: Taken) -> None:
        self.close()

    def send(self, reply: Reply) -> None:
        if self.away:
            raise Transient("the broker is away")
        paths.crash_point("before publish")
        self.sent.append(reply)
        paths.crash_point("after publish")

    def close(self) -> None:
        self.queued = [replace(delivery, redelivered=True) for delivery in self.unacked] + self.queued
        self.unacked = []


class Cluster:
    """A scheduler in memory: what was submitted, and how it ended."""

    traits = TRAITS

    def __init__(self) -> None:
        self.jobs: list[BatchRequest] = []
        self.elements: list[tuple[SlurmJobId, BatchRequest, int]] = []
        self.ended: dict[str, str] = {}
        self.running = ""
        """The id of the job that runs now."""
        self.fault: Optional[Exception] = None

    def submit(self, request: BatchRequest) -> SlurmJobId:
        paths.crash_point("before sbatch")
        if self.fault is not None:
            raise self.fault
        self.jobs.append(request)
        slurm_id = SlurmJobId(str(len(self.jobs)))
        array = [(element_id(slurm_id, element), request, element) for element in request.elements]
        self.elements += array or [(slurm_id, request, 0)]
        paths.crash_point("after sbatch")
        return slurm_id

    def objection(self, request: BatchRequest) -> str:
        return ""

    def largest_array(self) -> int:
        return 10

    def queue(self) -> list[JobView]:
        if isinstance(self.fault, Unavailable):
            raise self.fault
        return [self.view(slurm_id, request.name) for slurm_id, request, _ in self.elements]

    def view(self, slurm_id: str, name: str) -> JobView:
        end = self.ended.get(slurm_id)
        if end is None:
            return JobView(SlurmJobId(slurm_id), name, Phase.RUNNING, "RUNNING")
        return JobView(SlurmJobId(slurm_id), name, Phase.ENDED, end.upper(), end, ended_at=0.0)

    def history(self, names: Sequence[str], since: float, until: Optional[float] = None) -> list[JobView]:
        return []

    def cancel(self, ids: Sequence[SlurmJobId], only_waiting: bool = False) -> None:
        self.ended.update({slurm_id: "cancelled" for slurm_id in ids})


class Login:
    """The login side: each pass is a new process."""

    def __init__(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        config = config_for(place, changes={"timing": AT_ONCE})
        workloads = {n: replace(w, retry=RetryPolicy(attempts=1)) for n, w in config.site.workloads.items()}
        slurm = replace(config.site.slurm, poll_fastest=Seconds(0.0), poll_slowest=Seconds(0.0))
        self.config: Config = replace(config, site=replace(config.site, workloads=workloads, slurm=slurm))
        self.jobs = JobsFolder(self.config.site.jobs_dir)
        self.jobs.prepare()
        self.broker, self.cluster = Broker(), Cluster()
        self.refused: Optional[Transient] = None
        """What the API says to a login."""

    def use_retry(self, retry: RetryPolicy) -> None:
        workloads = {n: replace(w, retry=retry) for n, w in self.config.site.workloads.items()}
        self.config = replace(self.config, site=replace(self.config.site, workloads=workloads))

    def one_pass(self, drain: bool = True) -> int:
        ends = ends_of(self.config.site, self.broker)
        try:
            return passes_of(self.config, self.jobs, ends, self.cluster, authenticate=self.log_in).begin().run(drain)
        finally:
            self.broker.close()

    def log_in(self) -> str:
        if self.refused is not None:
            raise self.refused
        return "a token"

    def run_jobs(self, worker: Callable[[Login, JobFolder, int], None], end: str) -> None:
        """Everything that was submitted runs, in the way of `worker`, and ends with this word."""
        for slurm_id, request, element in self.cluster.elements:
            group = Fact(Path(request.arguments[-1]), Group).read()
            if slurm_id not in self.cluster.ended and group is not None:
                job_id, number = group.members[str(element)]
                self.cluster.running = slurm_id
                try:
                    worker(self, self.jobs.job(JobId(job_id)), number)
                finally:
                    self.cluster.ended[slurm_id] = end

    def active(self) -> list[JobFolder]:
        return list(self.jobs.active_jobs())

    def errors(self) -> list[str]:
        return [json.loads(reply.body)["error"] for reply in self.broker.sent]


def dies(login: Login, job: JobFolder, number: int) -> None:
    """The worker leaves nothing behind."""


def starts_and_dies(login: Login, job: JobFolder, number: int) -> None:
    job.attempt(number).started.claim(Started(login.cluster.running, 0, "n1", 1.0))


def starts_and_says_so(login: Login, job: JobFolder, number: int) -> None:
    job.attempt(number).started.claim(Started(login.cluster.running, 0, "n1", 1.0, says_begun=True))


def begins_and_dies(login: Login, job: JobFolder, number: int) -> None:
    starts_and_says_so(login, job, number)
    job.attempt(number).begun.claim_as(job.attempt(number).started)


def answers(login: Login, job: JobFolder, number: int) -> None:
    attempt = job.attempt(number)
    starts_and_dies(login, job, number)
    paths.write_bytes(attempt.reply_body("reply-1"), b'{"Model 0": ""}')
    result = record(attempt, Result("succeeded", number, body="reply-1", ended_at=1.0))
    outcome = conclude(job, attempt, result, login.config.site.replies, "job", 1.0)
    deliver(job, outcome, lambda _: login.broker, login.config.site, lambda: 1.0)


def dies_before_it_could_answer(login: Login, job: JobFolder, number: int) -> None:
    attempt = job.attempt(number)
    starts_and_dies(login, job, number)
    paths.write_bytes(attempt.reply_body("reply-1"), b'{"Model 0": ""}')
    record(attempt, Result("succeeded", number, body="reply-1", ended_at=1.0))


@pytest.fixture
def login(tmp_path: Path) -> Login:
    return Login(tmp_path / "site")


# --- without a crash


def test_a_message_becomes_a_slurm_job_and_its_answer_goes_out_once(login: Login) -> None:
    login.broker.ask()

    assert login.one_pass() == 0
    (request,) = login.cluster.jobs
    assert request.name.startswith(f"bf-{login.config.site.installation}-") and login.broker.queued == []

    login.run_jobs(answers, "succeeded")
    login.one_pass()

    assert len(login.broker.sent) == 1 and login.active() == []


def test_the_token_is_gone_when_the_job_has_ended(login: Login) -> None:
    login.broker.ask()
    login.one_pass()
    (token,) = login.jobs.active.rglob("token")
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("a token", 0o600)

    login.run_jobs(dies, "failed")
    login.broker.away = True  # so the job stays where it is
    login.one_pass()

    assert login.active() and not list(login.jobs.path.rglob("token"))


def test_a_job_that_slurm_killed_is_answered_with_the_true_cause(login: Login) -> None:
    login.broker.ask()
    login.one_pass()
    login.run_jobs(starts_and_dies, "out_of_memory")

    login.one_pass()

    assert login.errors() == ["The job used all of the 8000 MB it asked for and was stopped. Ask for more memory."]


def test_a_further_attempt_that_waits_in_vain_is_withdrawn_and_the_end_of_the_one_before_is_told_once(
    login: Login,
) -> None:
    login.use_retry(RetryPolicy(attempts=3, wait=Seconds(0.0)))
    login.broker.ask()
    login.one_pass()
    login.run_jobs(begins_and_dies, "node_failed")
    login.one_pass()
    (job,) = login.active()
    assert login.one_pass() == 0 and login.broker.sent == [] and job.attempt_numbers() == [1, 2]
    queues = tuple(replace(queue, max_wait=Seconds(0.0)) for queue in login.config.site.queues)
    login.config = replace(login.config, site=replace(login.config.site, queues=queues))
    login.jobs.standing.unlink()  # else it is looked at again when that time comes that was set before

    login.one_pass()
    closed = job.attempt(2).started.read()
    login.one_pass()

    assert closed is not None and closed.closed, "nothing of it can begin any more"

    (reply,) = login.broker.sent
    assert (reply.headers["outcome"], reply.headers["attempt"]) == ("node_failed", 1)
    assert "earlier_attempts" not in reply.headers and "start within" not in json.loads(reply.body)["error"]


def test_a_job_whose_program_never_began_is_tried_again_and_one_that_had_begun_is_not(login: Login) -> None:
    login.use_retry(RetryPolicy(attempts=2, wait=Seconds(0.0)))
    login.broker.ask(GOOD, "never began")
    login.one_pass()
    login.run_jobs(starts_and_says_so, "failed")
    login.one_pass()
    submitted = len(login.cluster.jobs)
    login.run_jobs(answers, "succeeded")
    login.broker.ask(GOOD, "had begun")
    login.one_pass()
    login.run_jobs(begins_and_dies, "failed")

    login.one_pass()

    assert (submitted, len(login.cluster.jobs)) == (2, 3)
    first, second = login.broker.sent
    assert (first.headers["outcome"], first.headers["attempt"]) == ("succeeded", 2)
    assert (second.headers["outcome"], second.headers["attempt"]) == ("failed", 1)
    assert "without leaving a result after its program had begun" in json.loads(second.body)["error"]


def test_a_begun_json_that_can_not_be_seen_yet_is_found_by_the_link_that_fails(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS 3 may hide a name until the folder changes; EEXIST is its server's word."""
    login.use_retry(RetryPolicy(attempts=2, wait=Seconds(0.0)))
    login.broker.ask()
    login.one_pass()
    login.run_jobs(begins_and_dies, "failed")
    open_file, link, hidden = os.open, os.link, [True]

    def hides(path: Any, *more: Any, **options: Any) -> int:
        if hidden[0] and str(path).endswith("/begun.json"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return open_file(path, *more, **options)

    def shows(source: Any, target: Any) -> None:
        hidden[0] = hidden[0] and not str(target).endswith("/begun.json")
        link(source, target)

    monkeypatch.setattr(os, "open", hides)
    monkeypatch.setattr(os, "link", shows)

    login.one_pass()

    (error,) = login.errors()
    assert "after its program had begun" in error and len(login.cluster.jobs) == 1


def test_a_message_that_is_no_job_is_answered_and_the_next_one_runs(login: Login) -> None:
    for n, body in enumerate([b"", b"\xff", b"{}", b'{"inputs": {}, "settings": {}}']):
        login.broker.ask(body, f"bad-{n}")
    login.broker.ask(GOOD, "good")

    login.one_pass()
    login.one_pass()

    assert len(login.cluster.jobs) == 1
    assert sorted(reply.correlation_id or "" for reply in login.broker.sent) == ["bad-0", "bad-1", "bad-2", "bad-3"]
    assert len(list(login.jobs.rejected.iterdir())) == 4


def test_a_damaged_job_does_not_stop_the_others(login: Login) -> None:
    login.broker.ask(GOOD, "one")
    login.broker.ask(GOOD, "two")
    login.one_pass()
    login.active()[0].spec.path.write_bytes(b"\xff")
    login.run_jobs(dies, "failed")

    login.one_pass()

    assert len(login.broker.sent) == 1
    assert len(login.active()) == 1


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN])
@pytest.mark.parametrize("name", ["active", "message.json", "intent.json"])
def test_a_disk_that_is_away_is_said_once_for_all_jobs_and_nothing_is_taken(
    login: Login, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, name: str
) -> None:
    for number in range(3):
        login.broker.ask(GOOD, f"c-{number}")
    login.one_pass(drain=True)
    login.broker.ask(GOOD, "later")
    caplog.clear()

    with monkeypatch.context() as patch:
        for call in ("open", "listdir"):
            patch.setattr(os, call, fails_at(getattr(os, call), name, code))
        login.one_pass()

    said = [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]
    assert len(said) == 1 and said[0].startswith("site away, jobs wait and no message is taken kind=disk")
    assert f"the jobs folder can't be reached: {os.strerror(code)}" in said[0]
    assert len(login.active()) == 3
    login.run_jobs(answers, "succeeded")
    login.one_pass()
    assert sorted(reply.correlation_id or "" for reply in login.broker.sent) == ["c-0", "c-1", "c-2"]


def fails_at(right: Callable[..., Any], name: str, code: int) -> Callable[..., Any]:
    def call(path: Any, *more: Any, **options: Any) -> Any:
        if os.path.basename(os.fspath(path)) == name:
            raise OSError(code, os.strerror(code), str(path))
        return right(path, *more, **options)

    return call


def test_a_job_that_slurm_refuses_is_rejected_in_words(login: Login) -> None:
    login.broker.ask()
    login.cluster.fault = Refused("no node of the cluster has the memory it asks for")

    for _ in range(3):  # not before two answers of Slurm have shown that it does not have it
        login.one_pass()

    assert login.errors() == [
        "The cluster can not run this job: no node of the cluster has the memory it asks for. Ask for less."
    ]
    assert login.active() == []


def test_a_pass_takes_one_message_unless_it_is_told_to_drain(login: Login) -> None:
    for n in range(3):
        login.broker.ask(GOOD, f"c-{n}")

    login.one_pass(drain=False)
    assert len(login.cluster.jobs) == 1

    login.one_pass(drain=True)
    assert len(login.cluster.elements) == 3


# --- arrays


def test_jobs_of_equal_needs_are_submitted_as_one_array(login: Login) -> None:
    for n in range(7):
        login.broker.ask(GOOD, f"c-{n}")

    login.one_pass()

    (request,) = login.cluster.jobs
    assert list(request.elements) == list(range(7))
    ids = {job.attempt(1).submission.read() for job in login.active()}
    assert {fact.slurm_id for fact in ids if fact} == {f"1_{n}" for n in range(7)}


def test_an_array_is_never_larger_than_the_cluster_takes_which_is_asked_once(login: Login) -> None:
    for n in range(23):
        login.broker.ask(GOOD, f"c-{n}")

    login.one_pass()

    assert [len(request.elements) for request in login.cluster.jobs] == [10, 10, 3]
    known = cluster_of(login.jobs).read()
    assert known is not None and known.largest_array == 10


def test_jobs_of_other_needs_are_another_array(login: Login) -> None:
    other = json.dumps({**json.loads(GOOD), "resources": {"cpus": 3}}).encode()
    for n in range(6):
        login.broker.ask(other if n % 2 else GOOD, f"c-{n}")

    login.one_pass()

    assert [(request.cpus, len(request.elements)) for request in login.cluster.jobs] == [(2, 3), (3, 3)]


def test_an_array_that_was_submitted_without_a_clear_answer_is_adopted_whole(login: Login) -> None:
    for n in range(4):
        login.broker.ask(GOOD, f"c-{n}")
    submit = login.cluster.submit

    def submit_and_fail(request: BatchRequest) -> SlurmJobId:
        submit(request)
        raise Unavailable("Socket timed out")

    login.cluster.submit = submit_and_fail  # type: ignore[method-assign]
    login.one_pass()
    login.cluster.submit = submit  # type: ignore[method-assign]
    login.one_pass()

    assert len(login.cluster.jobs) == 1
    ids = [job.attempt(1).submission.read() for job in login.active()]
    assert sorted(fact.slurm_id for fact in ids if fact and fact.adopted) == ["1_0", "1_1", "1_2", "1_3"]


def test_what_a_crash_kept_from_being_intended_is_submitted_later_in_a_group_of_its_own(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        login.broker.ask(GOOD, f"c-{n}")
    seen = iter(range(2))

    def passing(step: str) -> None:
        if step == "after intent.json" and next(seen) == 1:
            raise PowerFailure(step)

    with monkeypatch.context() as power, pytest.raises(PowerFailure):
        power.setattr(paths, "crash_point", passing)
        login.one_pass()

    for _ in range(4):
        login.one_pass()
    login.run_jobs(answers, "succeeded")
    login.one_pass()

    assert len(login.cluster.elements) == 4 and len(login.broker.sent) == 4
    assert not login.active() and not list(login.jobs.groups.iterdir())


@pytest.mark.parametrize("count", [3, 30])
def test_the_names_of_all_that_was_claimed_are_synced_once_and_before_the_first_ack(
    login: Login, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for n in range(count):
        login.broker.ask(GOOD, f"c-{n}")
    steps: list[str] = []
    right = paths.sync_folder

    def sync_folder(path: Path) -> None:
        right(path)
        steps.append(f"synced {path.name}")

    monkeypatch.setattr(paths, "sync_folder", sync_folder)
    monkeypatch.setattr(paths, "crash_point", steps.append)

    login.one_pass()

    until_an_ack = steps[: steps.index("before ack")]
    claims = [place for place, step in enumerate(until_an_ack) if step == "after message.json"]
    names = [place for place, step in enumerate(until_an_ack) if step == "synced active"]
    assert len(claims) == count and [place > claims[-1] for place in names] == [True]


def test_what_a_power_failure_takes_of_an_understood_message_is_understood_anew(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    login.broker.ask()
    with monkeypatch.context() as power, pytest.raises(PowerFailure):

        def passing(step: str) -> None:
            if step == "before intent.json":
                raise PowerFailure(step)

        power.setattr(paths, "crash_point", passing)
        login.one_pass()
    (job,) = login.active()
    job.spec.remove()  # its name had not been synced by itself

    login.one_pass()
    login.run_jobs(answers, "succeeded")
    login.one_pass()

    assert len(login.broker.sent) == 1 and not login.active()


@pytest.mark.parametrize("away", ["login", "slurm", "broker"])
def test_while_the_site_is_away_no_message_is_taken_and_none_is_lost(login: Login, away: str) -> None:
    login.broker.ask()
    login.refused = LoginRefused("the API refuses our user or password") if away == "login" else None
    login.cluster.fault = Unavailable("slurmctld is away") if away == "slurm" else None
    login.broker.away = away == "broker"

    code = login.one_pass()

    assert code in (69, 77) and (code == 77) == (away == "login")
    assert len(login.broker.queued) == 1 and login.active() == []

    login.refused, login.cluster.fault, login.broker.away = None, None, False
    assert login.one_pass() == 0
    assert len(login.cluster.jobs) == 1


def test_an_answer_waits_for_the_broker(login: Login) -> None:
    login.broker.ask()
    login.one_pass()
    login.run_jobs(dies, "timed_out")
    login.broker.away = True
    assert login.one_pass() == 69

    login.broker.away = False
    login.one_pass()

    assert len(login.broker.sent) == 1 and login.active() == []


# --- with a crash at every step

WORKERS = {"answers": answers, "dies": dies, "dies late": dies_before_it_could_answer}


@pytest.mark.parametrize(("name", "messages"), [*((name, 1) for name in WORKERS), ("answers", 2)])
def test_wherever_the_power_fails_there_is_one_job_and_one_answer_for_each_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, messages: int
) -> None:
    steps = live(Login(tmp_path / "calm"), WORKERS[name], monkeypatch, messages, crash_at=None)
    assert {"before sbatch", "after message.json", "before publish", "after outcome.json"} <= set(steps)

    for number, step in enumerate(steps):
        login = Login(tmp_path / f"{number}")
        live(login, WORKERS[name], monkeypatch, messages, crash_at=number)

        submitted = len(login.cluster.elements)
        assert submitted == messages, f"submitted {submitted} times after a crash {step}"
        copies = 1 if step in ("after publish", "before delivered.json") else 0
        assert len(login.broker.sent) == messages + copies, f"{len(login.broker.sent)} answers after a crash {step}"
        answers = {reply.correlation_id: reply for reply in login.broker.sent}
        assert len(answers) == messages
        assert all(reply == answers[reply.correlation_id] for reply in login.broker.sent)
        assert login.active() == [] and not list(login.jobs.path.rglob("token"))
        assert not list(login.jobs.groups.iterdir()), f"a group that nobody knows after a crash {step}"


def live(
    login: Login,
    worker: Callable[[Login, JobFolder, int], None],
    monkeypatch: pytest.MonkeyPatch,
    messages: int,
    crash_at: Optional[int],
) -> list[str]:
    """The life of so many jobs; the power fails once, at the step with this number, and cron goes on. Returns the steps."""
    steps: list[str] = []

    def passing(step: str) -> None:
        steps.append(step)
        if len(steps) - 1 == crash_at:
            raise PowerFailure(step)

    with monkeypatch.context() as power:
        power.setattr(paths, "crash_point", passing)
        power.setattr(os, "fsync", lambda descriptor: None)  # it costs time, and this power failure is a mild one
        for number in range(messages):
            login.broker.ask(name=f"c-{number}")
        for _ in range(12):
            with contextlib.suppress(PowerFailure):
                login.one_pass()
            with contextlib.suppress(PowerFailure):
                login.run_jobs(worker, "failed" if worker is not answers else "succeeded")
    return steps
