"""The broker stops, dies, freezes or vanishes, at every moment of a job: one answer each, and nothing taken in vain."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import psutil
import pytest

from tests.faults.passes import Operator, Pass, job_of, runs, wait_until
from tests.installation import holding
from tests.requester import Answer, Requester
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.proxy import CLIENT, SERVER, Proxy
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

AWAY = "broker away why="
KEPT = "broker away, answers are kept why="
KEPT_BY_JOB = "broker away, the answer is kept for the next pass"
NO_SUCH_WORKLOAD = 'There is no workload named "nothing" here.'
CLASSIC: dict[str, Any] = {"durable": True}
QUORUM: dict[str, Any] = {"durable": True, "arguments": {"x-queue-type": "quorum"}}


@dataclass(frozen=True)
class Moment:
    """When a frame comes by. `answer_by`: whose answer that is; None while a message is taken."""

    words: str
    sender: str
    frame: str
    answer_by: Optional[str] = None
    skip: int = 0
    """How many such frames come before the one that is meant."""

    @property
    def taken(self) -> bool:
        """Whether the message is ours by then."""
        return self.frame in ("basic.ack", "basic.qos") or self.answer_by is not None

    @property
    def confirmed(self) -> bool:
        return self.sender == SERVER and self.answer_by is not None


MOMENTS = [
    Moment("when a pass looks whether messages wait", CLIENT, "queue.declare"),
    Moment("when a message is asked for", CLIENT, "basic.get"),
    Moment("when a message is delivered", SERVER, "basic.get-ok"),
    Moment("when a message is acked", CLIENT, "basic.ack"),
    Moment("after the ack, before the submission", CLIENT, "basic.qos", skip=1),
    Moment("in the middle of an answer from a pass", CLIENT, "body", answer_by="pass"),
    Moment("when an answer from a pass is confirmed", SERVER, "basic.ack", answer_by="pass"),
    Moment("in the middle of an answer from a job", CLIENT, "body", answer_by="job"),
    Moment("when an answer from a job is confirmed", SERVER, "basic.ack", answer_by="job"),
]
FROM_CLIENT = [moment for moment in MOMENTS if moment.sender == CLIENT]


class Keeper(Requester):
    """A requester that also keeps the bytes of its answers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bodies: list[bytes] = []

    def collect(self) -> list[Answer]:
        while True:
            method, properties, body = self.channel.basic_get(self.results, auto_ack=True)
            if method is None:
                return self.answers
            self.bodies.append(body)
            self.answers.append(Answer(properties.correlation_id, json.loads(body), properties))


class Story:
    """One job on its way through a proxy of its own, and a fault in the middle of it."""

    def __init__(self, scene: Scene, proxy: Proxy, moment: Moment, record: Path) -> None:
        self.scene, self.proxy, self.moment, self.record = scene, proxy, moment, record
        self.operator = Operator(scene)
        self._running: Optional[subprocess.Popen[str]] = None

    def come_to_the_moment(self) -> None:
        """The job is published and goes its way until the frame is held."""
        self._halt = self.proxy.halt_at(
            self.moment.sender, self.moment.frame, half=self.moment.frame == "body", skip=self.moment.skip
        )
        workload = {"workload": "nothing"} if self.moment.answer_by == "pass" else {}
        self.correlation_id = publish(self.scene, {"record": str(self.record)}, **workload)
        if self.moment.answer_by == "job":
            self.operator.passes_until_one_is_fine()
        else:
            self._running = self.operator.start()
        while not self._halt.wait_while(self._goes_on):
            # A machine that is busy otherwise gave this pass no broker in time, and cron would fire another one.
            self._running = self.operator.start()

    def _goes_on(self) -> bool:
        return self._running is None or self._running.poll() is None

    def go_on(self) -> Optional[Pass]:
        """What the pass came to in whose middle it was; None where it was a job. What a dead broker said is lost."""
        self._halt.lose() if self.moment.sender == SERVER else self._halt.go_on()
        if self._running is None:
            return None
        printed, _ = self._running.communicate(timeout=150)
        return self.operator.note(self._running.returncode, printed)

    def the_pass_failed_softly(self, ended: Optional[Pass], away: str = AWAY) -> None:
        if ended is None:
            return
        assert ended.code == os.EX_UNAVAILABLE, f"{self.moment}\n{ended.log}"
        assert (KEPT if self.moment.answer_by else away) in ended.log, f"{self.moment}\n{ended.log}"
        assert "Traceback" not in ended.log
        assert bool(self.scene.installation.active()) == self.moment.taken, f"{self.moment}\n{ended.log}"

    def ends_well(self, copies: Sequence[int]) -> None:
        answer = answered(self.operator, self.correlation_id, copies)
        told = (answer.headers["outcome"], answer.error, runs(self.record))
        rejected = self.moment.answer_by == "pass"
        assert told == (("rejected", NO_SUCH_WORKLOAD, 0) if rejected else ("succeeded", None, 1)), self.moment
        assert answer.headers["attempt"] == 1


def publish(scene: Scene, settings: dict[str, Any], **more: Any) -> str:
    """A job that outlives a restart of the broker, in a queue that does."""
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": settings, **more})
    return scene.requester.publish(body, delivery_mode=2)


def answered(operator: Operator, correlation_id: str, copies: Sequence[int] = (1,)) -> Answer:
    """Passes until nothing is left to do. Copies of an answer are one answer: equal in every byte."""
    scene, requester = operator.scene, operator.scene.requester
    assert isinstance(requester, Keeper)
    operator.passes_until(lambda: bool(requester.to(correlation_id)))
    operator.passes_until(lambda: not scene.installation.active())
    last = operator.one_pass()
    assert last.code == os.EX_OK, last.log
    answers = requester.to(correlation_id)
    assert len(answers) in copies, f"{len(answers)} copies\n{operator.log}"
    assert len(requester.answers) == len(answers) and len(set(requester.bodies)) == 1
    assert all(vars(one.properties) == vars(answers[0].properties) for one in answers)
    assert answers[0].properties.message_id == job_of(scene, correlation_id).id
    return answers[0]


def made_durable(scene: Scene, jobs: dict[str, Any]) -> Scene:
    """The same queues, of a kind that a broker keeps when it restarts; and messages are surely there."""
    old = scene.requester
    for queue, options in ((old.jobs, jobs), (old.results, CLASSIC)):
        old.channel.queue_delete(queue)
        old.channel.queue_declare(queue, **options)
    old.channel.confirm_delivery()
    return scene


def keep_answers(scene: Scene, broker: Broker) -> Scene:
    old = scene.requester
    scene.requester = Keeper(broker, old.jobs, old.results)
    old.close()
    return scene


@pytest.fixture
def proxy(rabbitmq: Broker) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture
def scene(rabbitmq: Broker, proxy: Proxy, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    """On the run's broker, through a proxy of its own."""
    made = keep_answers(make_scene(odd_folder, rabbitmq, slurm, upstream, rabbitmq_port=proxy.port), rabbitmq)
    yield made
    made.requester.close()


@dataclass
class Stories:
    """Several jobs, each in an installation of its own and at another moment, and one fault for all of them."""

    all: list[Story]
    broker: RabbitMQ

    def each(self, do: Callable[[Story], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self.all)) as pool:
            return list(pool.map(do, self.all))

    def through(self, fault: Callable[[], object]) -> None:
        """The fault happens to all at once; each pass that it hits ends softly, and so does the one after it."""
        self.each(Story.come_to_the_moment)
        fault()
        ended = self.each(Story.go_on)
        for story, one in zip(self.all, ended):
            story.the_pass_failed_softly(one)

    @contextmanager
    def going_on(self) -> Iterator[list[Future[Optional[Pass]]]]:
        """The passes, while they go on."""
        with ThreadPoolExecutor(len(self.all)) as pool:
            going = {story: pool.submit(story.go_on) for story in self.all}
            yield [one for story, one in going.items() if story.moment.answer_by != "job"]

    def nothing_is_taken(self, some: Optional[Sequence[Story]] = None) -> None:
        """Passes during the fault."""
        for story in some or self.all:
            before = len(story.scene.installation.active())
            meanwhile = story.operator.one_pass()
            assert meanwhile.code == os.EX_UNAVAILABLE and "broker away" in meanwhile.log, meanwhile.log
            assert len(story.scene.installation.active()) == before, story.moment

    def end_well(self, copies: Copies = lambda moment: [2 if moment.confirmed else 1]) -> None:
        """What a broker confirmed and nobody heard of is sent again: two copies."""
        for story in self.all:
            story.scene.requester.connect()
        self.each(lambda story: story.ends_well(copies(story.moment)))


MakeStories = Callable[[Sequence[Moment]], Stories]
Copies = Callable[[Moment], Sequence[int]]


@pytest.fixture
def make_stories(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> Iterator[MakeStories]:
    with ExitStack() as stack:

        def make(moments: Sequence[Moment]) -> Stories:
            made = []
            for number, moment in enumerate(moments):
                proxy = stack.enter_context(Proxy(private_rabbitmq.port))
                folder = odd_folder / str(number)
                scene = make_scene(folder, private_rabbitmq, slurm, upstream, rabbitmq_port=proxy.port)
                made_durable(keep_answers(scene, private_rabbitmq), QUORUM if number % 2 else CLASSIC)
                made.append(Story(scene, proxy, moment, folder / "record"))
            return Stories(made, private_rabbitmq)

        yield make


def faults(what: str, moments: Sequence[Moment]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def marked(test: Callable[..., None]) -> Callable[..., None]:
        for moment in moments:
            test = pytest.mark.fault(what=what, moment=moment.words)(test)
        return test

    return marked


def params(what: str, moments: Sequence[Moment]) -> list[Any]:
    return [
        pytest.param(moment, id=moment.words, marks=pytest.mark.fault(what=what, moment=moment.words))
        for moment in moments
    ]


def freeze(broker: RabbitMQ) -> None:
    """On a busy machine a broker goes on for a while after SIGSTOP: this returns when all its threads have stopped."""
    broker.pause()
    threads = [
        each for pid in broker.pids() if name_of(pid) == "beam.smp" for each in Path(f"/proc/{pid}/task").iterdir()
    ]
    assert threads
    wait_until(lambda: all(state_of(each) == "T" for each in threads))


def unread(port: int) -> int:
    """In how many connections somebody has said something to this port that is not read yet (proc_net_tcp in the kernel's
    documentation: local address, state, and the bytes that wait to be received)."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return sum(
        int(line[1].rpartition(":")[2], 16) == port and line[3] == "01" and int(line[4].rpartition(":")[2], 16) > 0
        for line in lines
    )


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def state_of(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


# --- the connection breaks, the broker is well


@pytest.mark.parametrize("moment", params("connection to the broker reset", MOMENTS))
def test_a_connection_that_breaks_costs_a_pass_and_nothing_else(
    scene: Scene, proxy: Proxy, odd_folder: Path, moment: Moment
) -> None:
    story = Story(scene, proxy, moment, odd_folder / "record")
    story.come_to_the_moment()

    proxy.reset()
    story.the_pass_failed_softly(story.go_on())

    story.ends_well(copies=[2 if moment.confirmed else 1])


# --- the broker is gone, and comes back with what it had


@pytest.mark.long(seconds=50)
@faults("broker killed (SIGKILL)", MOMENTS)
def test_a_broker_that_is_killed_keeps_its_queues_and_each_job_its_one_answer(make_stories: MakeStories) -> None:
    stories = make_stories(MOMENTS)

    stories.through(stories.broker.kill)
    stories.nothing_is_taken()
    stories.broker.start()

    stories.end_well()


@pytest.mark.long(seconds=50)
@faults("broker stopped", MOMENTS)
def test_a_broker_that_is_stopped_is_waited_for(make_stories: MakeStories) -> None:
    stories = make_stories(MOMENTS)

    stories.through(stories.broker.stop)
    stories.nothing_is_taken()
    stories.broker.start()

    stories.end_well()


@pytest.mark.long(seconds=30)
@faults("broker frozen for some seconds (SIGSTOP)", FROM_CLIENT)
def test_a_broker_that_freezes_for_a_moment_is_waited_for_in_the_same_pass(make_stories: MakeStories) -> None:
    stories = make_stories(FROM_CLIENT)

    stories.each(Story.come_to_the_moment)
    freeze(stories.broker)
    with stories.going_on() as passes:
        wait_until(lambda: unread(stories.broker.port) >= len(FROM_CLIENT))
        assert not any(one.done() for one in passes)
        stories.broker.resume()

    assert {ended.code for one in passes if (ended := one.result())} == {os.EX_OK}
    stories.end_well()


# A connection is believed dead after 35 to 70 s of silence: heartbeats of 30 s.
@pytest.mark.slow
@pytest.mark.long(seconds=150)
@faults("broker frozen for minutes (SIGSTOP)", FROM_CLIENT)
def test_what_a_frozen_broker_was_sent_counts_when_it_is_thawed(make_stories: MakeStories) -> None:
    stories = make_stories(FROM_CLIENT)

    stories.through(lambda: freeze(stories.broker))
    stories.nothing_is_taken(stories.all[:1])
    stories.broker.resume()

    # An answer that it confirms when nobody listens any more is sent again.
    stories.end_well(copies=lambda moment: [1, 2] if moment.answer_by else [1])


@pytest.mark.long(seconds=120)
@faults("broker black-holed for minutes", MOMENTS)
def test_a_broker_that_vanishes_without_a_word_is_given_up_and_found_again(make_stories: MakeStories) -> None:
    stories = make_stories(MOMENTS)

    stories.through(lambda: stories.each(lambda story: story.proxy.black_hole()))
    stories.nothing_is_taken(stories.all[:1])
    stories.each(lambda story: story.proxy.mend())

    stories.end_well()


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="broker restarted", moment="while messages wait and an answer is unread, in durable queues")
def test_what_lies_in_durable_queues_outlives_a_restart(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = keep_answers(make_scene(odd_folder, private_rabbitmq, slurm, upstream), private_rabbitmq)
    made_durable(scene, QUORUM)
    operator = Operator(scene)
    unread = publish(scene, {}, workload="nothing")
    operator.passes_until_one_is_fine()
    waiting = [publish(scene, {"number": number}) for number in range(3)]

    private_rabbitmq.restart()
    scene.requester.connect()
    wait_until(lambda: scene.requester.waiting_jobs() == 3)  # a quorum queue finds its leader some time after the start

    answers = operator.answers([unread, *waiting])
    assert [answers[one].headers["outcome"] for one in (unread, *waiting)] == ["rejected"] + ["succeeded"] * 3


# --- the connection is well, and something about it is not


@pytest.mark.fault(what="connection to the broker reset", moment="when a pass takes leave before it submits")
def test_a_goodbye_that_fails_does_not_keep_a_job_from_its_submission(
    scene: Scene, proxy: Proxy, odd_folder: Path
) -> None:
    operator, record = Operator(scene), odd_folder / "record"
    halt = proxy.halt_at(CLIENT, "connection.close", skip=1)
    correlation_id = publish(scene, {"record": str(record)})
    running = operator.start()
    halt.wait()

    proxy.reset()
    halt.go_on()
    printed, _ = running.communicate(timeout=300)

    assert running.returncode == os.EX_OK and "submitted" in printed, printed
    assert answered(operator, correlation_id).headers["outcome"] == "succeeded" and runs(record) == 1


@pytest.mark.fault(what="broker slow", moment="all the time")
def test_a_slow_broker_costs_time_and_nothing_else(scene: Scene, proxy: Proxy, odd_folder: Path) -> None:
    operator, record = Operator(scene), odd_folder / "record"
    rejected, good = publish(scene, {}, workload="nothing"), publish(scene, {"record": str(record)})

    proxy.drip(64, 0.05)
    answers = operator.answers([rejected, good])

    assert [answers[one].headers["outcome"] for one in (rejected, good)] == ["rejected", "succeeded"]
    assert runs(record) == 1 and "broker away" not in operator.log


@pytest.mark.fault(what="the broker refuses our login", moment="when a pass begins")
@pytest.mark.fault(what="the broker refuses our login", moment="when a job answers")
def test_a_login_that_the_broker_refuses_is_the_operators_to_mend(
    scene: Scene, rabbitmq: Broker, odd_folder: Path
) -> None:
    operator, record = Operator(scene), odd_folder / "record"
    credentials = scene.installation.credentials_file.read_text()
    wrong = credentials.replace(rabbitmq.password, "wrong-" + rabbitmq.password)
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+2"]\n[timing]')
    in_a_job = publish(scene, {"record": str(record)})
    operator.passes_until_one_is_fine()
    in_the_queue = publish(scene, {"record": str(record)})

    scene.installation.write_credentials(wrong)
    (job,) = scene.installation.active()
    log = job.attempt(1).log
    wait_until(lambda: log.exists() and KEPT_BY_JOB in log.read_text())
    refused = operator.one_pass()
    scene.installation.write_credentials(credentials)

    words = "refuses our user or password (RABBITMQ_USER, RABBITMQ_PASSWORD)"
    assert refused.code == os.EX_UNAVAILABLE and "broker away" in refused.log and words in refused.log
    assert words in log.read_text() and rabbitmq.password not in refused.log + log.read_text()
    assert scene.requester.waiting_jobs() == 1
    answers = operator.answers([in_a_job, in_the_queue])
    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"} and runs(record) == 2


@pytest.mark.fault(what="jobs queue deleted", moment="when a message is acked")
def test_a_message_that_is_claimed_when_its_queue_is_deleted_is_answered(
    scene: Scene, proxy: Proxy, odd_folder: Path
) -> None:
    moment = next(each for each in MOMENTS if each.frame == "basic.ack")
    story = Story(scene, proxy, moment, odd_folder / "record")
    story.come_to_the_moment()

    scene.requester.channel.queue_delete(scene.requester.jobs)
    ended = story.go_on()
    story.the_pass_failed_softly(ended, away="jobs queue can't be read")
    made = story.operator.one_pass()

    assert ended and "no queue" in ended.log and "queue missing, making it" in made.log
    story.ends_well(copies=[1])


IN_THE_MIDDLE = [moment for moment in MOMENTS if moment.frame == "body"]


@pytest.mark.parametrize("moment", params("reply queue deleted, made again later", IN_THE_MIDDLE))
def test_an_answer_whose_queue_vanishes_under_it_waits_for_it(
    scene: Scene, proxy: Proxy, odd_folder: Path, moment: Moment
) -> None:
    story = Story(scene, proxy, moment, odd_folder / "record")
    story.come_to_the_moment()

    scene.requester.channel.queue_delete(scene.requester.results)
    ended = story.go_on()
    (job,) = scene.installation.active()
    wait_until(job.unroutable.path.exists)
    kept = story.operator.one_pass()
    scene.requester.channel.queue_declare(scene.requester.results)

    assert ended is None or (ended.code == os.EX_OK and "answer not taken, kept and sent again" in ended.log)
    assert kept.code == os.EX_OK and ("answer not taken" in kept.log or "answer kept: make its queue" in kept.log)
    story.ends_well(copies=[1])


@pytest.mark.fault(what="reply queue full", moment="while a pass answers")
def test_an_answer_to_a_full_queue_waits_until_somebody_reads(scene: Scene) -> None:
    operator, channel, results = Operator(scene), scene.requester.channel, scene.requester.results
    channel.queue_delete(results)
    channel.queue_declare(results, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.basic_publish("", results, b"unread")
    correlation_id = publish(scene, {}, workload="nothing")

    kept = operator.one_pass()
    assert channel.basic_get(results, auto_ack=True)[2] == b"unread"

    assert kept.code == os.EX_OK and "answer not taken, kept and sent again" in kept.log and "or is full" in kept.log
    assert answered(operator, correlation_id).error == NO_SUCH_WORKLOAD


# --- the broker takes nothing more


def states_of_connections(broker: RabbitMQ) -> list[str]:
    """`blocked`: during an alarm, of those that have published since it began (rabbitmqctl(8), list_connections)."""
    return control(broker, "--quiet", "list_connections", "state").split()


def control(broker: RabbitMQ, *words: str) -> str:
    """rabbitmqctl. The one in sbin switches to the user rabbitmq, who knows nothing of this broker."""
    pid = next(pid for pid in broker.pids() if name_of(pid) == "beam.smp")  # what it forks has its name for a moment
    program = ["/usr/lib/rabbitmq/bin/rabbitmqctl", *words]
    environment = psutil.Process(pid).environ()
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def files(operator: Operator, name: str) -> list[Path]:
    """Facts of that name, of all jobs."""
    return list(operator.scene.installation.jobs.path.rglob(name))


ALARMS = {
    "memory alarm": (["set_vm_memory_high_watermark", "0.0000001"], ["set_vm_memory_high_watermark", "0.4"]),
    "disk alarm": (["set_disk_free_limit", "900000GB"], ["set_disk_free_limit", "50MB"]),
}


@pytest.mark.long(seconds=30)
@pytest.mark.parametrize(
    "alarm",
    [
        pytest.param(
            alarm,
            id=alarm,
            marks=[
                pytest.mark.fault(what=alarm, moment="while a pass answers"),
                pytest.mark.fault(what=alarm, moment="while a job answers"),
                pytest.mark.fault(what=alarm, moment="while a message is taken"),
            ],
        )
        for alarm in ALARMS
    ],
)
def test_an_alarm_of_the_broker_is_waited_out(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path, alarm: str
) -> None:
    made = [make_scene(odd_folder / name, private_rabbitmq, slurm, upstream) for name in ("pass", "job")]
    by_pass, by_job = (Operator(keep_answers(scene, private_rabbitmq)) for scene in made)
    record = odd_folder / "record"
    rejected, good = publish(by_pass.scene, {}, workload="nothing"), publish(by_job.scene, {"record": str(record)})
    begins, ends = ALARMS[alarm]

    control(private_rabbitmq, *begins)
    taken = by_job.one_pass()
    waits = by_pass.start()
    wait_until(lambda: all(files(op, "outcome.json") for op in (by_pass, by_job)))
    wait_until(lambda: states_of_connections(private_rabbitmq).count("blocked") >= 2)  # both have tried to publish
    delivered = [files(op, "delivered.json") for op in (by_pass, by_job)]
    control(private_rabbitmq, *ends)
    printed, _ = waits.communicate(timeout=300)

    assert taken.code == os.EX_OK and "submitted" in taken.log
    assert delivered == [[], []]
    gave_up = "a memory or disk alarm of its own" in printed  # its minute was over before a busy machine had looked
    if gave_up:
        assert waits.returncode == os.EX_UNAVAILABLE and KEPT in printed, printed
    else:
        assert waits.returncode == os.EX_OK and "delivered" in printed and "broker away" not in printed, printed
    assert answered(by_pass, rejected, copies=[1, 2] if gave_up else [1]).error == NO_SUCH_WORKLOAD
    assert answered(by_job, good).headers["outcome"] == "succeeded" and runs(record) == 1


@pytest.mark.slow
@pytest.mark.long(seconds=150)
@pytest.mark.fault(what="memory alarm for longer than a pass waits", moment="while a pass answers")
def test_what_an_alarm_keeps_from_being_read_is_one_answer_in_copies(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = keep_answers(make_scene(odd_folder, private_rabbitmq, slurm, upstream), private_rabbitmq)
    operator = Operator(scene)
    rejected = publish(scene, {}, workload="nothing")
    begins, ends = ALARMS["memory alarm"]

    control(private_rabbitmq, *begins)
    passes = [operator.one_pass() for _ in range(2)]
    control(private_rabbitmq, *ends)

    for each in passes:
        assert each.code == os.EX_UNAVAILABLE and KEPT in each.log and "a memory or disk alarm of its own" in each.log
    # What was sent last to the blocked broker lies in a socket of its, and counts if it reads on soon enough.
    assert answered(operator, rejected, copies=[1, 2]).error == NO_SUCH_WORKLOAD


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="our rights at the broker are withdrawn", moment="while a job runs and messages wait")
def test_rights_that_are_withdrawn_are_told_and_the_answer_waits(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = keep_answers(make_scene(odd_folder, private_rabbitmq, slurm, upstream), private_rabbitmq)
    operator, record = Operator(scene), odd_folder / "record"
    scene.installation.change_site("[timing]", f"[slurm]\n{holding(odd_folder)}\n[timing]")
    in_a_job = publish(scene, {"record": str(record)})
    operator.passes_until_one_is_fine()
    scene.installation.change_site(holding(odd_folder), "")
    in_the_queue = publish(scene, {"record": str(record)})
    (job,) = scene.installation.active()

    control(private_rabbitmq, "set_permissions", private_rabbitmq.user, "", "", "")
    slurm.run("scontrol", "release", json.loads(job.attempt(1).submission.path.read_text())["slurm_id"])
    wait_until(job.unroutable.path.exists)
    refused = operator.one_pass()
    control(private_rabbitmq, "set_permissions", private_rabbitmq.user, ".*", ".*", ".*")
    scene.requester.connect()

    assert refused.code == os.EX_UNAVAILABLE and "jobs queue can't be read" in refused.log
    assert "ACCESS_REFUSED" in refused.log
    assert "ACCESS_REFUSED" in job.unroutable.path.read_text() + refused.log
    assert scene.requester.waiting_jobs() == 1
    answers = operator.answers([in_a_job, in_the_queue])
    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"} and runs(record) == 2
