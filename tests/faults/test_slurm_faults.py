"""Slurm itself fails, or people steer it while a job is under way: the true end of the job, told once."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.shims import Shims, all_quiet, pass_halted_at_sbatch, runs, slurm_jobs, start_now
from tests.installation import holding
from tests.requester import Answer
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer as Response
from tests.services.upstream import Upstream
from worker.folder.facts import JobFolder

SITE_AWAY = "site away, jobs wait and no message is taken kind=slurm"
NO_ANSWER = "slurm gives no answer, its jobs are left as they are"
NODE_FAILED = "The computer that the job ran on failed. This was no fault of the job; run it again."
BEGUN = "The job ended without leaving a result after its program had begun."
NO_RESULT = f"{BEGUN} Somebody who runs the service must look into it."
SLOW_IMAGE = "/uploads/slow"


@pytest.fixture
def own(rabbitmq: Broker, private_slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    """On a cluster of its own, whose daemons and nodes may be killed."""
    made = make_scene(odd_folder, rabbitmq, private_slurm, upstream)
    made.upstream.add(SLOW_IMAGE, b"a page of music")
    yield made
    made.requester.close()


@pytest.fixture
def partition(slurm: SlurmCluster) -> Iterator[str]:
    """A partition for this test alone."""
    name = f"own{secrets.token_hex(4)}"
    nodes = ",".join(slurm.node(each) for each in ("n1", "n2"))
    slurm.run("scontrol", "create", f"partitionname={name}", f"nodes={nodes}", "state=up", "maxtime=60")
    yield name
    assert poll(lambda: not slurm.run("squeue", "--noheader", f"--partition={name}"))
    slurm.run("scontrol", "delete", f"partitionname={name}")


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """What a program waits for whose setting "until" it is."""
    return tmp_path / "go"


# --- slurmctld


@pytest.mark.long(seconds=25)
@pytest.mark.fault(what="slurmctld stopped", moment="between claim and sbatch")
def test_a_claimed_job_waits_for_a_controller_that_went_away(own: Scene, record: Path) -> None:
    correlation_id = own.ask(record=str(record))
    shims = Shims(own, timeout=30)

    printed = pass_halted_at_sbatch(own, shims, own.slurm.stop_controller, expect=os.EX_UNAVAILABLE)
    later = own.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    claimed = len(own.installation.active())
    own.slurm.start_controller()

    assert SITE_AWAY in printed and NO_ANSWER in later
    assert claimed == 1 and own.requester.waiting_jobs() == 0
    succeeded_once(own, correlation_id, record)


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="slurmctld frozen and thawed", moment="between claim and sbatch")
def test_a_submission_that_a_frozen_controller_takes_later_runs_once(own: Scene, record: Path) -> None:
    controller = next(p for p in map(psutil.Process, own.slurm.pids()) if p.name() == "slurmctld")
    correlation_id = own.ask(record=str(record))
    shims = Shims(own, timeout=30)

    printed = pass_halted_at_sbatch(own, shims, controller.suspend, expect=os.EX_UNAVAILABLE)
    controller.resume()

    assert SITE_AWAY in printed
    succeeded_once(own, correlation_id, record)


@pytest.mark.long(seconds=25)
@pytest.mark.fault(what="slurmctld stopped", moment="while a job runs and ends well")
@pytest.mark.fault(what="slurmctld stopped", moment="while a job runs and its worker is killed")
def test_what_ends_without_a_controller_is_told_truly_when_it_is_back(own: Scene, record: Path, go: Path) -> None:
    good, _ = own.submit(until=str(go), record=str(record))
    bad, bad_id = own.submit(sleep=300, record=str(record))
    assert poll(lambda: runs(record) == 2)

    own.slurm.stop_controller()
    worker_of(own, bad_id).kill()
    go.touch()
    early = own.requester.wait_for(good)
    with_slurm(own, 'command_timeout = "3s"')
    printed = own.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    kept = len(own.installation.active())
    own.slurm.start_controller()

    assert NO_ANSWER in printed and kept == 2
    assert succeeded_once(own, good, record, times=2) == early
    assert answered_once(own, bad, record, "failed", times=2).error == NO_RESULT


@pytest.mark.slow
@pytest.mark.fault(what="slurmctld restarted", moment="while a job is pending")
def test_a_pending_job_outlives_a_restart_of_the_controller(own: Scene, record: Path) -> None:
    with_slurm(own, 'extra_options = ["--begin=now+1hour"]')
    correlation_id, slurm_id = own.submit(record=str(record))

    own.slurm.stop_controller()
    own.slurm.start_controller()

    assert state_of(own, slurm_id) == "PENDING"
    start_now(own, slurm_id)
    assert succeeded_once(own, correlation_id, record).headers["slurm_job_id"] == slurm_id


@pytest.mark.long(seconds=25)
@pytest.mark.fault(what="slurmctld comes back with an older state", moment="while a job is pending")
def test_a_pending_job_that_slurm_forgot_is_lost_and_never_runs(own: Scene, record: Path) -> None:
    older = saved_state(own)
    with_slurm(own, 'extra_options = ["--begin=now+1hour"]')
    correlation_id, slurm_id = own.submit(record=str(record))

    set_back(own, older)

    answer = answered_once(own, correlation_id, record, "lost", times=0)
    assert answer.error == "The cluster lost track of the job and its result. Run it again."
    assert answer.headers["slurm_job_id"] == slurm_id


@pytest.mark.slow
@pytest.mark.long(seconds=110)
@pytest.mark.fault(what="slurmctld comes back with an older state", moment="while a job runs that accounting knows")
def test_a_running_job_that_only_accounting_remembers_is_lost(own: Scene, record: Path) -> None:
    change_slurm(own, "MinJobAge=300", "MinJobAge=300\nOverTimeLimit=UNLIMITED")  # its limit is not what ends it here
    older = saved_state(own)
    limit = {"Maximum time (D-HH:MM)": "0-00:01"}
    correlation_id, slurm_id = own.submit(sleep=300, record=str(record), **limit)
    assert poll(record.exists)
    assert poll(lambda: "RUNNING" in own.slurm.run("sacct", "-X", "-n", "-P", "-o", "State", "-j", slurm_id))

    set_back(own, older)

    assert poll(lambda: not psutil.pid_exists(int(record.read_text())))
    answer = answered_once(own, correlation_id, record, "lost", seconds=120)
    assert answer.error == "The cluster lost track of the job and its result. Run it again."


@pytest.mark.slow
@pytest.mark.long(seconds=25)
@pytest.mark.fault(what="slurmctld comes back with an older state", moment="while a job runs that was pending then")
def test_a_job_that_slurm_starts_a_second_time_unknowingly_works_once(own: Scene, record: Path) -> None:
    with_slurm(own, holding(own.installation.folder))
    correlation_id, slurm_id = own.submit(sleep=300, record=str(record))
    older = saved_state(own)
    own.slurm.run("scontrol", "release", slurm_id)
    assert poll(record.exists)
    step = worker_of(own, slurm_id).parent()
    assert step is not None

    set_back(own, older)
    # What Slurm takes for pending it ends on its node. Released before that it is a "Duplicate jobid", and cancelled.
    assert poll(lambda: not psutil.pid_exists(step.pid))
    own.slurm.run("scontrol", "release", slurm_id)

    answer = answered_once(own, correlation_id, record, "node_failed")
    assert answer.error == NODE_FAILED and answer.headers["slurm_job_id"] == slurm_id


# --- accounting


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="slurmdbd stopped", moment="when a job ended and squeue has forgotten it")
def test_an_end_that_only_accounting_knows_waits_for_accounting(own: Scene, record: Path) -> None:
    correlation_id, slurm_id = own.submit(sleep=300, record=str(record))
    assert poll(record.exists)
    own.slurm.stop_accounting()
    worker_of(own, slurm_id).kill()
    assert poll(lambda: state_of(own, slurm_id) == "FAILED")
    forget_ended_jobs(own)

    printed = own.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    lost_at = time.monotonic() + 8  # if its not being seen counted
    own.installation.passes_until(lambda: time.monotonic() > lost_at)
    early = own.requester.to(correlation_id)
    # A controller tells accounting what happened meanwhile only some seconds after that is back.
    own.installation.change_site('lost_after = "6s"', 'lost_after = "60s"')
    own.slurm.start_accounting()

    assert "accounting gives no answer, ended jobs wait for it" in printed and not early
    answer = answered_once(own, correlation_id, record, "failed")
    assert answer.error is not None and "without leaving a result" in answer.error


# --- nodes


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="slurmd and its jobs killed", moment="while a job fetches its inputs")
@pytest.mark.fault(what="slurmd and its jobs killed", moment="while a job publishes its answer")
def test_a_node_that_dies_early_or_late_in_a_job(own: Scene, record: Path) -> None:
    with_slurm(own, 'partition = "doomed"', holding(own.installation.folder))
    own.upstream.script(SLOW_IMAGE, Response(delay=120))
    fetching = own.requester.ask({"Image": SLOW_IMAGE}, {"record": str(record)})
    publishing = own.ask(record=str(record))
    own.installation.check("--drain")
    with broker_away_for_jobs(own):
        own.slurm.run("scontrol", "release", *slurm_jobs(own))
        assert poll(lambda: SLOW_IMAGE in own.upstream.paths() and len(outcomes(own)) == 1)

        own.slurm.kill_node("n3")
        own.slurm.declare_lost("n3")

    own.slurm.start_node("n3")
    answer = answered_once(own, fetching, record, "node_failed")
    assert answer.error == NODE_FAILED
    succeeded_once(own, publishing, record)


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="a node is cut off from Slurm and works on", moment="while a job runs, with a second attempt")
def test_of_an_attempt_that_is_cut_off_and_its_successor_one_answers(own: Scene, record: Path, go: Path) -> None:
    retry(own, "node_failed")
    with_slurm(own, 'partition = "doomed"')
    correlation_id, slurm_id = own.submit(until=str(go), record=str(record))
    assert poll(record.exists)
    cut_off = worker_of(own, slurm_id)

    own.slurm.kill_node("n3", spare_jobs=True)
    own.slurm.declare_lost("n3")
    own.installation.change_site('partition = "doomed"', 'partition = "main"')
    own.installation.passes_until(lambda: runs(record) == 2)
    worked_on = cut_off.is_running()
    go.touch()
    answer = own.answer(correlation_id)

    assert worked_on and poll(lambda: not cut_off.is_running())
    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("succeeded", 2)
    assert runs(record) == 2 and len(own.requester.to(correlation_id)) == 1


@pytest.mark.slow
@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="a node drained", moment="while a job is pending")
@pytest.mark.fault(what="a node drained", moment="while a job runs")
def test_a_drained_node_finishes_what_runs_and_the_rest_waits(own: Scene, record: Path, go: Path) -> None:
    with_slurm(own, 'partition = "doomed"')
    node = f"nodename={own.slurm.node('n3')}"
    runs_on, _ = own.submit(until=str(go), record=str(record))
    assert poll(record.exists)

    own.slurm.run("scontrol", "update", node, "state=drain", "reason=test")
    waits, slurm_id = own.submit(record=str(record))
    go.touch()
    succeeded_while_drained = own.requester.wait_for(runs_on)
    own.installation.check("--drain")
    pending = state_of(own, slurm_id)
    own.slurm.run("scontrol", "update", node, "state=resume")

    assert pending == "PENDING"
    assert succeeded_once(own, runs_on, record, times=None) == succeeded_while_drained
    succeeded_once(own, waits, record, times=2)


@pytest.mark.long(seconds=40)
@pytest.mark.fault(what="preempted", moment="while a job runs")
def test_a_job_that_makes_room_for_a_more_urgent_one_says_so(own: Scene, record: Path) -> None:
    make_preemptive(own)
    with_slurm(own, 'partition = "doomed"')
    correlation_id, slurm_id = own.submit(sleep=300, record=str(record), CPUs=64)
    assert poll(record.exists)

    own.slurm.run("sbatch", "--partition=urgent", "--cpus-per-task=64", "--output=/dev/null", "--wrap=sleep 1")

    answer = answered_once(own, correlation_id, record, "preempted")
    assert answer.error == "The cluster stopped the job to make room for a more urgent one. Run it again."
    assert answer.headers["slurm_job_id"] == slurm_id


# --- partitions


@pytest.mark.fault(what="partition down", moment="before sbatch")
@pytest.mark.fault(what="partition down", moment="while a job is pending")
def test_jobs_outwait_a_partition_that_is_down(scene: Scene, partition: str, record: Path) -> None:
    with_slurm(scene, f'partition = "{partition}"', 'extra_options = ["--begin=now+1hour"]')
    pending, pending_id = scene.submit(record=str(record))
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=down")
    submitted, submitted_id = scene.submit(record=str(record))
    start_now(scene, pending_id, submitted_id)
    assert poll(lambda: {reason_of(scene, each) for each in (pending_id, submitted_id)} == {"PartitionDown"})

    scene.installation.check("--drain")
    early = scene.requester.to(pending) + scene.requester.to(submitted)
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=up")

    assert not early and runs(record) == 0
    for correlation_id in (pending, submitted):
        succeeded_once(scene, correlation_id, record, times=None)
    assert runs(record) == 2


@pytest.mark.fault(what="partition inactive: sbatch refuses", moment="when a job is submitted")
def test_a_job_waits_until_its_partition_takes_jobs_again(scene: Scene, partition: str, record: Path) -> None:
    with_slurm(scene, f'partition = "{partition}"')
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=inactive")
    correlation_id = scene.ask(record=str(record))

    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=up")

    assert SITE_AWAY in printed and "Required partition not available" in printed
    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="partition down", moment="for longer than max_wait")
def test_a_job_that_its_partition_keeps_waiting_expires_and_never_runs(
    scene: Scene, partition: str, record: Path
) -> None:
    with_slurm(scene, f'partition = "{partition}"')
    scene.installation.change_site('workload = "probe"', 'workload = "probe"\nmax_wait = "3s"')
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=down")
    correlation_id, slurm_id = scene.submit(record=str(record))

    answer = answered_once(scene, correlation_id, record, "expired", times=0)

    assert answer.error == "The job did not start within 3 s and was withdrawn. Run it again later."
    assert state_of(scene, slurm_id) == "CANCELLED"


@pytest.mark.fault(what="partition's time limit lowered below the job's", moment="while a job is pending")
def test_a_job_that_its_partition_no_longer_allows_is_withdrawn(scene: Scene, partition: str, record: Path) -> None:
    with_slurm(scene, f'partition = "{partition}"')
    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "state=down")
    correlation_id, slurm_id = scene.submit(record=str(record))

    scene.slurm.run("scontrol", "update", f"partitionname={partition}", "maxtime=1", "state=up")

    answer = answered_once(scene, correlation_id, record, "rejected", times=0)
    assert answer.error == "The cluster will never start this job: it asks for more time than the partition allows."
    assert state_of(scene, slurm_id) == "CANCELLED"


# --- what people do to a job


@pytest.mark.fault(what="scancel by the user", moment="while a job fetches its inputs")
def test_a_job_that_is_cancelled_while_it_fetches_never_runs(scene: Scene, record: Path) -> None:
    scene.upstream.script(IMAGE, Response(delay=120))
    correlation_id, slurm_id = scene.submit(record=str(record))
    assert poll(lambda: IMAGE in scene.upstream.paths())

    scene.slurm.run("scancel", slurm_id)

    was_cancelled(answered_once(scene, correlation_id, record, "cancelled", times=0), slurm_id)


@pytest.mark.fault(what="scancel --signal=KILL", moment="while a job runs")
def test_a_job_that_is_killed_through_slurm_is_cancelled(scene: Scene, record: Path) -> None:
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    assert poll(record.exists)

    scene.slurm.run("scancel", "--signal=KILL", slurm_id)

    was_cancelled(answered_once(scene, correlation_id, record, "cancelled"), slurm_id)


@pytest.mark.fault(what="scancel --batch --signal=KILL: only the worker dies", moment="while a job runs")
def test_a_job_whose_worker_alone_is_killed_has_failed(scene: Scene, record: Path) -> None:
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    assert poll(record.exists)

    scene.slurm.run("scancel", "--batch", "--signal=KILL", slurm_id)

    answer = answered_once(scene, correlation_id, record, "failed")
    assert answer.error == NO_RESULT
    assert poll(lambda: not psutil.pid_exists(int(record.read_text()))), "the workload lives on"


@pytest.mark.fault(what="scancel by the user", moment="while a job publishes its answer")
def test_a_job_that_is_cancelled_while_it_answers_keeps_its_answer(scene: Scene, record: Path) -> None:
    with_slurm(scene, holding(scene.installation.folder))
    correlation_id, slurm_id = scene.submit(record=str(record))
    with broker_away_for_jobs(scene):
        scene.slurm.run("scontrol", "release", slurm_id)
        assert poll(lambda: len(outcomes(scene)) == 1)

        scene.slurm.run("scancel", slurm_id)
        assert poll(lambda: state_of(scene, slurm_id) == "CANCELLED")

    assert succeeded_once(scene, correlation_id, record).headers["slurm_job_id"] == slurm_id


@pytest.mark.fault(what="scancel of a step beside the worker", moment="while a job runs")
def test_a_job_outlives_a_cancelled_step(scene: Scene, record: Path, go: Path) -> None:
    correlation_id, slurm_id = scene.submit(until=str(go), record=str(record))
    assert poll(record.exists)
    step = psutil.Popen(
        ["srun", f"--jobid={slurm_id}", "--overlap", "--mem=10M", "sleep", "60"], env=scene.slurm.environment()
    )
    assert poll(lambda: f"{slurm_id}.0" in scene.slurm.run("squeue", "--steps", "--noheader"))

    scene.slurm.run("scancel", f"{slurm_id}.0")
    step.wait(30)
    go.touch()

    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="requeue by the administrator", moment="while a job fetches its inputs")
def test_a_job_that_is_requeued_while_it_fetches_is_not_started_again(scene: Scene, record: Path) -> None:
    scene.upstream.script(IMAGE, Response(delay=120))
    correlation_id, slurm_id = scene.submit(record=str(record))
    assert poll(lambda: IMAGE in scene.upstream.paths())

    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "requeue=1")
    scene.slurm.run("scontrol", "requeue", slurm_id)
    assert poll(lambda: state_of(scene, slurm_id) == "PENDING")
    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "starttime=now")

    assert answered_once(scene, correlation_id, record, "node_failed", times=0).error == NODE_FAILED


@pytest.mark.fault(what="requeued and held by the administrator", moment="while a job runs")
def test_a_job_that_is_requeued_and_held_is_answered(scene: Scene, record: Path) -> None:
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    assert poll(record.exists)

    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "requeue=1")
    scene.slurm.run("scontrol", "requeuehold", slurm_id)
    assert poll(lambda: state_of(scene, slurm_id) == "PENDING")
    try:
        assert answered_once(scene, correlation_id, record, "node_failed", seconds=15).error == NODE_FAILED
    finally:
        scene.slurm.run("scancel", slurm_id)


@pytest.mark.fault(what="hold by the user, released in time", moment="while a job is pending")
def test_a_job_that_is_held_for_a_while_runs_after_all(scene: Scene, record: Path) -> None:
    scene.installation.change_site('hopeless_after = "3s"', 'hopeless_after = "60s"')
    with_slurm(scene, 'extra_options = ["--begin=now+1hour"]')
    correlation_id, slurm_id = scene.submit(record=str(record))

    scene.slurm.run("scontrol", "hold", slurm_id)
    scene.installation.check("--drain")
    (job,) = scene.installation.active()
    noticed = job.attempt(1).stuck.path.exists()
    scene.slurm.run("scontrol", "release", slurm_id)
    start_now(scene, slurm_id)

    assert noticed
    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="suspended by the administrator and resumed", moment="while a job runs")
def test_a_job_that_is_suspended_for_a_while_goes_on(scene: Scene, record: Path, go: Path) -> None:
    correlation_id, slurm_id = scene.submit(until=str(go), record=str(record))
    assert poll(record.exists)

    scene.slurm.run("scontrol", "suspend", slurm_id)
    assert poll(lambda: state_of(scene, slurm_id) == "SUSPENDED")
    go.touch()
    for _ in range(5):
        scene.installation.check("--drain")
    early = scene.requester.to(correlation_id)
    scene.slurm.run("scontrol", "resume", slurm_id)

    assert not early
    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="the node has lost the worker's python", moment="when a job starts")
def test_a_job_that_could_not_begin_is_tried_again(scene: Scene, tmp_path: Path, record: Path) -> None:
    retry(scene, "start")
    python = tmp_path / "python"
    scene.installation.change_site(f"python = {json.dumps(sys.executable)}", f"python = {json.dumps(str(python))}")
    install(python)
    with_slurm(scene, holding(scene.installation.folder))
    correlation_id, slurm_id = scene.submit(record=str(record))

    python.unlink()
    scene.slurm.run("scontrol", "release", slurm_id)
    assert poll(lambda: state_of(scene, slurm_id) == "FAILED")
    install(python)
    scene.installation.change_site(holding(scene.installation.folder), "")

    assert succeeded_once(scene, correlation_id, record, attempt=2).headers["slurm_job_id"] != slurm_id


# --- the clock


@pytest.mark.slow
@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="time runs out", moment="while a program runs that saves its work when told to stop")
def test_a_program_whose_time_is_up_gets_its_time_to_take_leave(scene: Scene, record: Path) -> None:
    scene.installation.change_site('stop_wait = "2s"', 'stop_wait = "8s"')
    limit = {"Maximum time (D-HH:MM)": "0-00:01"}
    code = "import os, time; open(os.environ['BATCHFERRY_PROGRESS'], 'w').write('progress 0.4 epoch 6/15\\n'); time.sleep(300)"
    correlation_id, slurm_id = scene.submit(before=code, farewell=3, record=str(record), **limit)
    scene.requester.wait_for(correlation_id, 300)

    answer = answered_once(scene, correlation_id, record, "timed_out")

    sentence = "The job reached its time limit of 1 min and was stopped at 40% (epoch 6/15). Ask for more time."
    assert answer.error == sentence
    assert "probe took its leave" in done(scene, answer).attempt(1).log.read_text()
    assert state_of(scene, slurm_id) == "COMPLETED"  # so it ended before Slurm's own clock did


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="time limit shortened by the administrator", moment="while a job runs")
def test_a_job_that_slurm_ends_before_its_own_clock_does_has_timed_out(scene: Scene, record: Path) -> None:
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    assert poll(record.exists)

    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "endtime=now+2")
    assert poll(lambda: state_of(scene, slurm_id) == "TIMEOUT", 120, pause=0.5)

    answer = answered_once(scene, correlation_id, record, "timed_out")
    assert answer.error is not None and "and was stopped. Ask for more time." in answer.error


@pytest.mark.slow
@pytest.mark.long(seconds=100)
@pytest.mark.fault(what="suspended by the administrator and resumed", moment="while a job runs, for most of its time")
def test_the_time_that_a_job_is_suspended_does_not_count(scene: Scene, record: Path, go: Path) -> None:
    limit = {"Maximum time (D-HH:MM)": "0-00:01"}
    correlation_id, slurm_id = scene.submit(until=str(go), record=str(record), **limit)
    assert poll(record.exists)

    scene.slurm.run("scontrol", "suspend", slurm_id)
    time.sleep(70)  # more than all the time it has, however little of that had passed
    scene.slurm.run("scontrol", "resume", slurm_id)
    time.sleep(3)  # its clock looks once a second
    go.touch()

    succeeded_once(scene, correlation_id, record)


# --- how things are brought about


def with_slurm(scene: Scene, *settings: str) -> None:
    """Settings of [slurm] in the site file."""
    scene.installation.change_site("[timing]", "\n".join(["[slurm]", *settings, "[timing]"]))


def retry(scene: Scene, end: str) -> None:
    """One more attempt after this end."""
    more = f'retry = {{ attempts = 2, on = ["{end}"], wait = "0s" }}'
    scene.installation.change_site("retry = { attempts = 1 }", more)


class broker_away_for_jobs:
    """Jobs that start meanwhile find no broker, and try to publish for as long as they may."""

    def __init__(self, scene: Scene) -> None:
        self._installation = scene.installation
        self._credentials = scene.installation.credentials_file.read_text()

    def __enter__(self) -> None:
        self._installation.change_site('publish_patience = "3s"', 'publish_patience = "90s"')
        lines = self._credentials.splitlines()
        away = ["export RABBITMQ_PORT=1" if "RABBITMQ_PORT" in line else line for line in lines]
        self._installation.write_credentials("\n".join(away))

    def __exit__(self, *_: object) -> None:
        self._installation.write_credentials(self._credentials)


def make_preemptive(scene: Scene) -> None:
    """Adds a partition `urgent` on the node of `doomed`, whose jobs end those of `doomed`."""
    configuration = Path(scene.slurm.environment()["SLURM_CONF"])
    node = scene.slurm.node("n3")
    more = [
        "PreemptType=preempt/partition_prio",
        "PreemptMode=CANCEL",
        f"PartitionName=urgent Nodes={node} PriorityTier=10 State=UP",
    ]
    configuration.write_text(configuration.read_text() + "\n".join(more) + "\n")
    scene.slurm.stop_controller()
    scene.slurm.start_controller()
    scene.slurm.wait_ready()


def saved_state(scene: Scene) -> Path:
    """What the controller knows now."""
    older = scene.slurm.folder / "older state"
    scene.slurm.stop_controller()
    shutil.copytree(scene.slurm.folder / "state", older)
    scene.slurm.start_controller()
    scene.slurm.wait_ready()
    return older


def set_back(scene: Scene, older: Path) -> None:
    """As a crash does, before which the last state could not be written."""
    scene.slurm.stop_controller()
    shutil.rmtree(scene.slurm.folder / "state")
    older.rename(scene.slurm.folder / "state")
    scene.slurm.start_controller()
    scene.slurm.wait_ready()


def forget_ended_jobs(scene: Scene) -> None:
    """As Slurm does by itself after MinJobAge, here 300 s."""
    change_slurm(scene, "MinJobAge=300", "MinJobAge=2")
    assert poll(lambda: not slurm_jobs(scene))


def change_slurm(scene: Scene, before: str, after: str) -> None:
    configuration = Path(scene.slurm.environment()["SLURM_CONF"])
    text = configuration.read_text()
    assert before in text
    configuration.write_text(text.replace(before, after))
    scene.slurm.run("scontrol", "reconfigure")


def worker_of(scene: Scene, slurm_id: str) -> psutil.Process:
    """The process that Slurm's job is."""
    site = str(scene.installation.site_file)
    (found,) = [
        process for process in psutil.process_iter(["cmdline"])
        if {site, "--scheduler-id", slurm_id} <= set(process.info["cmdline"] or ())
    ]  # fmt: skip
    return found


def install(python: Path) -> None:
    """An interpreter at a path of our own."""
    python.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o700)


def outcomes(scene: Scene) -> list[Path]:
    return [job.outcome.path for job in scene.installation.active() if job.outcome.path.exists()]


# --- what comes of it


def state_of(scene: Scene, slurm_id: str) -> str:
    return scene.slurm.run("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={slurm_id}").strip()


def reason_of(scene: Scene, slurm_id: str) -> str:
    return scene.slurm.run("squeue", "--states=all", "--noheader", "--format=%r", f"--jobs={slurm_id}").strip()


def done(scene: Scene, answer: Answer) -> JobFolder:
    return scene.installation.job(answer.headers["job_id"])


def was_cancelled(answer: Answer, slurm_id: str) -> None:
    assert answer.error is not None and answer.error.startswith("The job was cancelled on the cluster")
    assert answer.headers["slurm_job_id"] == slurm_id


def succeeded_once(scene: Scene, correlation_id: str, record: Path, **more: Any) -> Answer:
    answer = answered_once(scene, correlation_id, record, "succeeded", **more)
    assert answer.error is None and answer.output("Result")
    return answer


def answered_once(
    scene: Scene,
    correlation_id: str,
    record: Path,
    outcome: str,
    times: int | None = 1,
    attempt: int = 1,
    seconds: float = 300,
) -> Answer:
    """Also when everything that Slurm had of it has come to its end. `times`: how often the workload ran, if asked."""
    answer = scene.answer(correlation_id, seconds)
    assert times is None or all_quiet(scene)
    assert (answer.headers["outcome"], answer.headers["attempt"]) == (outcome, attempt)
    assert len(scene.requester.to(correlation_id)) == 1
    assert times is None or runs(record) == times
    return answer
