"""Clocks that jump, login hosts that work at once or freeze in the middle of a pass, messages that come again, and files that
show up late: on real RabbitMQ and real Slurm, each job is submitted once, runs once and is answered once, truly.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import psutil
import pytest

from tests.faults.passes import (
    Operator,
    altered,
    hold_back,
    is_slurm_id,
    job_of,
    let_start,
    on_host,
    program,
    runs,
    use_python,
    wait_until,
    wait_until_ended,
)
from tests.faults.shims import Shims
from tests.requester import Answer
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.late_files import LateFiles
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.workloads.probe import output

MADE = output("Result", {"Image": b"a page of music"}, {})
HOUR = 3600.0
ANOTHER_PASS = "another pass is running, nothing done: passes run on "


def is_success(answer: Answer) -> None:
    told = answer.headers
    assert (told["outcome"], told["attempt"], told.get("exit_code")) == ("succeeded", 1, 0)
    assert is_slurm_id(told["slurm_job_id"]) and answer.output("Result") == MADE


def wait_for(file: Path) -> str:
    """What a program does that goes on when the test says so."""
    return f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.1)"


# --- clocks


AHEAD, BEHIND = "the login host's clock jumps an hour ahead", "the login host's clock jumps an hour back"


@pytest.mark.parametrize(
    ("seconds", "moment"),
    [
        pytest.param(seconds, moment, marks=pytest.mark.fault(what=what, moment=moment))
        for what, seconds in ((AHEAD, HOUR), (BEHIND, -HOUR))
        for moment in ("while a job waits in Slurm", "while a job runs", "after a job has ended")
    ],
)
@pytest.mark.long(seconds=25)
def test_a_clock_that_jumps_between_passes_changes_no_answer(
    scene: Scene, record: Path, tmp_path: Path, seconds: float, moment: str
) -> None:
    operator, go = Operator(scene), tmp_path / "go"
    if "waits" in moment:
        hold_back(scene)
    correlation_id = scene.ask(before=wait_for(go), record=str(record))
    operator.one_pass()
    jumped = Operator(scene, altered(shift=seconds))
    if "waits" in moment:
        assert [jumped.one_pass().code for _ in range(2)] == [os.EX_OK, os.EX_OK] and not record.exists()
        let_start(scene, correlation_id)
    else:
        wait_until(record.exists)
    if "runs" in moment:
        assert [jumped.one_pass().code for _ in range(2)] == [os.EX_OK, os.EX_OK]
        assert not scene.requester.to(correlation_id)
    go.touch()
    if "ended" in moment:
        wait_until(lambda: bool(scene.requester.to(correlation_id)))

    answer = jumped.answer(correlation_id)

    is_success(answer)
    assert runs(record) == 1 and f"archived job={job_of(scene, correlation_id).id} outcome=succeeded" in jumped.log


@pytest.mark.fault(
    what="the login host's clock jumps an hour ahead", moment="while a job with a deadline waits in Slurm"
)
def test_a_clock_that_jumps_ahead_does_not_make_a_deadline_pass(scene: Scene, record: Path) -> None:
    hold_back(scene)
    body = {"inputs": {"Image": IMAGE}, "settings": {"record": str(record)}}
    correlation_id = scene.requester.publish(json.dumps(body), expiration=str(30 * 60 * 1000))
    Operator(scene).one_pass()
    jumped = Operator(scene, altered(shift=HOUR))
    jumped.one_pass()
    let_start(scene, correlation_id)

    answer = jumped.answer(correlation_id)

    is_success(answer)
    assert runs(record) == 1


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(
            HOUR, marks=pytest.mark.fault(what="the node's clock jumps an hour ahead", moment="while a job runs")
        ),
        pytest.param(
            -HOUR, marks=pytest.mark.fault(what="the node's clock jumps an hour back", moment="while a job runs")
        ),
    ],
)
def test_a_node_s_clock_that_jumps_neither_ends_a_job_nor_changes_its_answer(
    scene: Scene, record: Path, tmp_path: Path, seconds: float
) -> None:
    use_python(
        scene, program(tmp_path / "python", [*altered(shift=seconds, since="after started.json"), sys.executable])
    )
    correlation_id = scene.ask(record=str(record), sleep=1)

    answer = Operator(scene).answer(correlation_id)

    is_success(answer)
    assert abs(answer.headers["ended_at"] - answer.headers["started_at"] - seconds) < 60  # the jump was there
    assert runs(record) == 1


@pytest.mark.fault(what="the login host's clock jumps two hours back", moment="after Slurm's queue has forgotten a job")
@pytest.mark.long(seconds=45)
def test_a_job_that_ended_is_not_lost_to_a_clock_that_is_set_back(
    rabbitmq: Broker, upstream: Upstream, odd_folder: Path, tmp_path: Path, record: Path, slurm: SlurmCluster
) -> None:
    with SlurmCluster(tmp_path / "slurm", {"MinJobAge": "2"}) as forgetful:
        scene = make_scene(odd_folder, rabbitmq, forgetful, upstream)
        dies = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
        correlation_id = scene.ask(before=dies, record=str(record))
        Operator(scene).one_pass()
        wait_until(record.exists)
        wait_until(lambda: not forgetful.run("squeue", "--states=all", "--noheader"))

        back = Operator(scene, altered(shift=-2 * HOUR))
        codes = [back.one_pass().code for _ in range(3)]
        time.sleep(8)  # longer than lost_after
        codes += [back.one_pass().code for _ in range(2)]
        answer = Operator(scene).answer(correlation_id)

        assert set(codes) == {os.EX_OK}, back.log
        assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
        assert answer.error is not None and "without leaving a result" in answer.error
        assert runs(record) == 1
        scene.requester.close()


# --- several login hosts, some of which freeze or die


@pytest.mark.fault(what="passes on two login hosts", moment="at the same time")
def test_passes_on_two_hosts_at_once_submit_each_job_once(scene: Scene, tmp_path: Path) -> None:
    records = [tmp_path / str(number) for number in range(6)]
    shims, operator = Shims(scene), Operator(scene)
    asked = [scene.ask(record=str(each)) for each in records]

    running = [operator.start(on_host(name)) for name in ("login1", "login2", "login3")]
    passes = [operator.note(process.wait(), text) for process in running for text in [process.communicate()[0]]]

    assert sorted(one.code for one in passes).count(os.EX_OK) >= 1
    assert {one.code for one in passes} <= {os.EX_OK, os.EX_TEMPFAIL}
    assert all(("another pass" in one.log) == (one.code == os.EX_TEMPFAIL) for one in passes)
    submitted = shims.calls("sbatch")
    answers = operator.answers(asked).values()
    for answer in answers:
        is_success(answer)
    assert len({answer.headers["slurm_job_id"] for answer in answers}) == 6
    assert [runs(each) for each in records] == [1] * 6 and shims.calls("sbatch") == submitted


class Frozen:
    """A pass on another login host that came to a halt at a durable step."""

    def __init__(self, operator: Operator, step: str) -> None:
        self._operator = operator
        self._process = operator.start([*on_host("frozen"), *altered(halt=step)])
        wait_until(lambda: self._python() is not None)

    def _python(self) -> Optional[psutil.Process]:
        """The one that stopped itself; those before it became it."""
        halted = psutil.Process(self._process.pid)
        return halted if halted.status() == psutil.STATUS_STOPPED else None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def wake(self) -> Any:
        self._process.send_signal(signal.SIGCONT)
        printed, _ = self._process.communicate(timeout=300)
        return self._operator.note(self._process.returncode, printed)


@pytest.mark.parametrize(
    ("step", "fate"),
    [
        pytest.param(
            "after intent.json", "killed",
            marks=pytest.mark.fault(what="a login host dies (SIGKILL)", moment="in its pass, before sbatch"),
        ),
        pytest.param(
            "after intent.json", "woken",
            marks=pytest.mark.fault(what="a login host freezes and wakes after a takeover", moment="before sbatch"),
        ),
        pytest.param(
            "after message.json", "woken",
            marks=pytest.mark.fault(what="a login host freezes and wakes after a takeover", moment="before the ack"),
        ),
        pytest.param(
            "after submission.json", "woken",
            marks=pytest.mark.fault(what="a login host freezes and wakes after a takeover", moment="after sbatch"),
        ),
    ],
)  # fmt: skip
@pytest.mark.long(seconds=45)
def test_another_host_takes_over_and_the_first_one_submits_nothing_more(
    scene: Scene, record: Path, step: str, fate: str
) -> None:
    scene.installation.change_site("[timing]", '[timing]\nlease_expires = "25s"')
    shims, operator = Shims(scene), Operator(scene)
    correlation_id = scene.ask(record=str(record))
    frozen = Frozen(operator, step)
    if fate == "killed":
        frozen.kill()

    meanwhile = operator.one_pass()
    operator.passes_until(lambda: operator.last.code == os.EX_OK and record.exists())
    submitted = shims.calls("sbatch")
    if fate == "woken":
        woken = frozen.wake()

        assert woken.code == os.EX_TEMPFAIL
        assert (
            "pass took longer than lease_expires, ended" in woken.log or "stopped: another pass took over" in woken.log
        )
    is_success(operator.answer(correlation_id))
    assert (meanwhile.code, f"{ANOTHER_PASS}frozen" in meanwhile.log) == (os.EX_TEMPFAIL, True)
    assert (submitted, shims.calls("sbatch"), runs(record)) == (1, 1, 1)


@pytest.mark.fault(what="a login host freezes and wakes after a takeover", moment="before it sends an answer")
@pytest.mark.long(seconds=30)
def test_a_host_that_wakes_after_a_takeover_does_not_send_the_answer_that_was_sent(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[timing]\nlease_expires = "12s"')
    operator = Operator(scene)
    correlation_id = scene.requester.publish(b"no job")
    frozen = Frozen(operator, "after outcome.json")

    answer = operator.answer(correlation_id)
    woken = frozen.wake()

    assert (answer.headers["outcome"], answer.error) == ("rejected", "The job message is not valid JSON.")
    assert woken.code == os.EX_TEMPFAIL and "delivered job=" not in woken.log
    assert len(scene.requester.to(correlation_id)) == 1


# --- messages that come again


@pytest.mark.parametrize(
    ("again", "moment"),
    [
        pytest.param(again, moment, marks=pytest.mark.fault(what=f"a message is {again}", moment=moment))
        for again, moment in (
            ("redelivered", "before it was ever claimed"),
            ("sent twice", "while the first runs"),
            ("redelivered", "while its job runs"),
            ("redelivered", "while its job waits in Slurm"),
            ("redelivered", "after the answer"),
        )
    ],
)
def test_a_message_that_comes_again_is_the_same_job(
    scene: Scene, record: Path, tmp_path: Path, again: str, moment: str
) -> None:
    operator, go = Operator(scene), tmp_path / "go"
    if "waits" in moment:
        hold_back(scene)
    settings = {"record": str(record), "before": wait_for(go)}
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": settings})
    correlation_id = scene.requester.publish(body)
    if "before" not in moment:
        operator.one_pass()
        if "runs" in moment:
            wait_until(record.exists)
        if "after" in moment:
            go.touch()
            operator.answer(correlation_id)
        scene.requester.publish(body, correlation_id=correlation_id)
    if again == "redelivered":
        give_back(scene)

    seen = operator.one_pass()
    go.touch()
    if "waits" in moment:
        let_start(scene, correlation_id)

    is_success(operator.answer(correlation_id))
    job = job_of(scene, correlation_id)
    assert (f"claimed before, acked again job={job.id}" in seen.log) == ("before" not in moment)
    assert (runs(record), scene.requester.waiting_jobs()) == (1, 0)


def give_back(scene: Scene) -> None:
    """As a consumer that dies with the message in its hands: the broker marks it as redelivered."""
    channel = scene.requester.channel
    wait_until(lambda: scene.requester.waiting_jobs() == 1)
    method, _, _ = channel.basic_get(scene.requester.jobs)
    channel.basic_nack(method.delivery_tag, requeue=True)
    wait_until(lambda: scene.requester.waiting_jobs() == 1)
    method, _, _ = channel.basic_get(scene.requester.jobs)
    assert method.redelivered
    channel.basic_nack(method.delivery_tag, requeue=True)


@pytest.mark.fault(what="a message that is no job is redelivered", moment="after its rejection")
def test_a_broken_message_that_comes_again_is_rejected_once(scene: Scene) -> None:
    operator = Operator(scene)
    correlation_id = scene.requester.publish(b"no job")
    operator.answer(correlation_id)
    scene.requester.publish(b"no job", correlation_id=correlation_id)
    give_back(scene)

    answer = operator.answer(correlation_id)

    assert (answer.headers["outcome"], scene.requester.waiting_jobs()) == ("rejected", 0)
    assert operator.log.count("outcome=rejected attempt=1") == 1 and "claimed before, acked again" in operator.log


# --- files that show up late (see tests/services/late_files.py; NFS itself was not tested)


@pytest.fixture
def late_scene(
    late_files: LateFiles, rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, tmp_path: Path
) -> Iterator[Scene]:
    """An installation in the login host's folder, whose jobs run where the compute host's is seen instead."""
    made = make_scene(late_files.login, rabbitmq, slurm, upstream)
    use_python(made, late_files.python_on_compute(late_files.login))
    yield made
    made.requester.close()


def believe_after(scene: Scene, seconds: int) -> None:
    """`visible_after`: after how long a file that is not there is believed to be missing."""
    scene.installation.change_site('visible_after = "3s"', f'visible_after = "{seconds}s"')


@pytest.mark.parametrize(
    ("late", "visible_after"),
    [
        pytest.param(
            {"login": 6}, 10,
            marks=pytest.mark.fault(what="the worker's files show up late", moment="on the login host, in time"),
        ),
        pytest.param(
            {"compute": 6}, 10,
            marks=pytest.mark.fault(what="spec and intent show up late", moment="on the node, when the job starts"),
        ),
        pytest.param(
            {"login": 6, "compute": 6}, 10,
            marks=pytest.mark.fault(what="all files show up late", moment="on both hosts"),
        ),
        pytest.param(
            {"until_changed": True}, 2, id="until the folder changes",
            marks=pytest.mark.fault(what="names that were looked for stay hidden", moment="until their folder changes"),
        ),
        pytest.param(
            {"login": 60, "compute": 60}, 75, id="a minute",
            marks=[
                pytest.mark.fault(what="all files show up a minute late", moment="on both hosts"), pytest.mark.slow,
                pytest.mark.long(seconds=240),
            ],
        ),
    ],
)  # fmt: skip
@pytest.mark.long(seconds=40)
def test_however_late_files_are_seen_a_job_runs_once_and_is_answered_once(
    late_scene: Scene, late_files: LateFiles, record: Path, late: dict[str, Any], visible_after: int
) -> None:
    believe_after(late_scene, visible_after)
    late_files.late(**late)
    operator = Operator(late_scene)
    correlation_id = late_scene.ask(record=str(record))

    answer = operator.answer(correlation_id, 300)

    is_success(answer)
    assert runs(record) == 1
    assert operator.log.count("submitted job=") == 1 and "ERROR" not in operator.log


@pytest.mark.fault(what="delivered.json stays hidden from who looked for it", moment="until its folder changes")
@pytest.mark.long(seconds=40)
def test_an_answer_that_its_worker_sent_is_not_sent_again_though_no_time_shows_that(
    late_scene: Scene, late_files: LateFiles
) -> None:
    believe_after(late_scene, 2)
    late_files.late(until_changed=True)
    operator = Operator(late_scene)
    correlation_id = late_scene.ask()

    operator.passes_until(lambda: "submitted job=" in operator.log and not late_scene.installation.active())

    (answer,) = late_scene.requester.to(correlation_id)
    is_success(answer)
    assert "delivered job=" not in operator.log


@pytest.mark.parametrize(
    ("settings", "late", "visible_after", "words", "ran"),
    [
        pytest.param(
            {"exit": 3}, {"login": 6}, 10, "The program ended with exit code 3.", 1,
            marks=pytest.mark.fault(what="a failed job's result shows up late", moment="on the login host"),
        ),
        pytest.param(
            {"before": "import os; os.kill(os.getppid(), 9)"}, {"login": 6}, 10, "ended without leaving a result", 1,
            marks=pytest.mark.fault(what="a worker dies", moment="while its files show up late"),
        ),
        pytest.param(
            {}, {"compute": 30}, 2, "ended without leaving a result", 0,
            marks=pytest.mark.fault(what="spec and intent show up late", moment="later than visible_after"),
        ),
    ],
)  # fmt: skip
@pytest.mark.long(seconds=40)
def test_a_job_that_fails_where_files_are_late_is_answered_once_with_the_truth(
    late_scene: Scene, late_files: LateFiles, record: Path, settings: dict[str, Any], late: dict[str, Any],
    visible_after: int, words: str, ran: int
) -> None:  # fmt: skip
    believe_after(late_scene, visible_after)
    late_files.late(**late)
    correlation_id = late_scene.ask(record=str(record), **settings)

    answer = Operator(late_scene).answer(correlation_id)

    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
    assert answer.error is not None and words in answer.error
    assert runs(record) == ran


@pytest.mark.fault(what="outcome.json shows up late", moment="after the worker could not send its answer")
@pytest.mark.long(seconds=40)
def test_an_answer_that_its_worker_could_not_send_is_sent_as_it_was_packed(
    late_scene: Scene, late_files: LateFiles, record: Path, tmp_path: Path
) -> None:
    believe_after(late_scene, 10)
    late_files.late(login=6)
    go, operator = tmp_path / "go", Operator(late_scene)
    correlation_id = late_scene.ask(record=str(record), before=wait_for(go))
    operator.one_pass()
    wait_until(record.exists)
    late_scene.requester.channel.queue_delete(late_scene.requester.results)
    go.touch()
    wait_until(lambda: any((late_files.folder / "backing").rglob("unroutable.json")))
    late_scene.requester.channel.queue_declare(late_scene.requester.results)

    answer = operator.answer(correlation_id)

    is_success(answer)
    assert (operator.log.count("delivered job="), runs(record)) == (1, 1)


@pytest.mark.fault(what="the login host's clock is an hour ahead", moment="while delivered.json shows up late")
@pytest.mark.long(seconds=40)
def test_a_clock_that_is_ahead_does_not_cut_the_wait_for_files_short(
    late_scene: Scene, late_files: LateFiles, record: Path
) -> None:
    delivers_slowly(late_scene, late_files, seconds=8)
    believe_after(late_scene, 120)
    operator = Operator(late_scene, altered(shift=HOUR))
    correlation_id = late_scene.ask(record=str(record))
    operator.one_pass()
    wait_until(lambda: any((late_files.folder / "backing").rglob("outcome.json")))
    late_files.late(login=1000)  # what is there by now can be seen, and delivered.json not
    wait_until(lambda: bool(late_scene.requester.to(correlation_id)), 300)
    wait_until_ended(late_scene, correlation_id)

    codes = [operator.one_pass().code for _ in range(2)]
    late_files.late()
    answer = operator.answer(correlation_id)

    is_success(answer)
    assert (codes, operator.log.count("delivered job=")) == ([os.EX_OK] * 2, 0)
    assert runs(record) == 1


@pytest.mark.fault(what="the worker's files show up late", moment="later than visible_after")
@pytest.mark.long(seconds=40)
def test_files_that_are_later_than_the_site_file_believes_cost_at_most_an_equal_copy(
    late_scene: Scene, late_files: LateFiles, record: Path
) -> None:
    delivers_slowly(late_scene, late_files, seconds=4)
    late_files.late(login=6)
    believe_after(late_scene, 1)
    correlation_id, operator = late_scene.ask(record=str(record)), Operator(late_scene)

    operator.passes_until(lambda: "archived job=" in operator.log)

    sent = late_scene.requester.to(correlation_id)
    for answer in sent:
        is_success(answer)
    # A requester can tell it from a second answer: message_id is the job's.
    assert len({(a.properties.message_id, json.dumps(a.body), json.dumps(a.headers)) for a in sent}) == 1
    assert runs(record) == 1


def delivers_slowly(scene: Scene, late_files: LateFiles, seconds: float) -> None:
    """Its workers take so long to send an answer, so that it shows up well before the note that it was sent."""
    slow = [*altered(pause=["before publish", seconds]), sys.executable]
    on_node = late_files.on_compute(late_files.login, *slow)
    script = program(late_files.folder / "slow python", on_node)
    site = scene.installation
    site.change_site(json.dumps(str(late_files.folder / "python")), json.dumps(str(script)))


@pytest.mark.fault(what="files show up late", moment="when another login host takes its turn")
@pytest.mark.long(seconds=40)
def test_another_login_host_rests_until_it_sees_what_the_first_one_wrote(
    late_scene: Scene, late_files: LateFiles, record: Path
) -> None:
    believe_after(late_scene, 10)
    other = on_host("login2") + late_files.on_compute(late_files.login)
    operator, shims = Operator(late_scene), Shims(late_scene)
    late_files.late(login=6, compute=6)
    first = late_scene.ask(record=str(record), sleep=3)
    operator.one_pass()
    second = late_scene.ask(record=str(record))

    at_once = operator.one_pass(other)
    waiting = late_scene.requester.waiting_jobs()
    until = time.monotonic() + 60
    while operator.one_pass(other).code == os.EX_TEMPFAIL:
        assert time.monotonic() < until
        time.sleep(1)

    assert (at_once.code, ANOTHER_PASS in at_once.log, waiting) == (os.EX_TEMPFAIL, True, 1)
    for answer in operator.answers([first, second], 120).values():
        is_success(answer)
    assert (shims.calls("sbatch"), runs(record)) == (2, 2)
