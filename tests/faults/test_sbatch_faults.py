"""Slurm's commands fail, hang, lie or are killed: the workload runs once per attempt, and one true answer comes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.shims import COMMAND_TIMEOUT, WAIT_TO_GO, Shims, all_quiet, runs, slurm_jobs, start_now
from tests.requester import Answer
from tests.scene import Scene
from tests.services.daemon import poll

SITE_AWAY = "site away, jobs wait and no message is taken kind=slurm"
UNCLEAR = "an sbatch was unclear, no message is taken until Slurm has told twice"
NO_ANSWER = "slurm gives no answer, its jobs are left as they are"
KILLED = -signal.SIGKILL
NOTHING = "exit 0"


@pytest.fixture
def shims(scene: Scene) -> Shims:
    return Shims(scene)


# --- sbatch


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(
            "exec sleep 300", f"sbatch gave no answer within {COMMAND_TIMEOUT} s", id="hangs",
            marks=pytest.mark.fault(what="sbatch hangs for ever", moment="before it submits"),
        ),
        pytest.param(
            'echo "sbatch: command not found" >&2; exit 127', "sbatch: command not found", id="is missing",
            marks=pytest.mark.fault(what="sbatch is missing", moment="when a job is submitted"),
        ),
        pytest.param(
            "kill -KILL $$", "sbatch ended with exit code -9", id="is killed",
            marks=pytest.mark.fault(what="sbatch is killed", moment="before it submits"),
        ),
    ],
)  # fmt: skip
def test_a_job_that_sbatch_did_not_submit_holds_back_the_queue_until_it_is_submitted(
    scene: Scene, shims: Shims, record: Path, script: str, why: str
) -> None:
    shims.script("sbatch", script)
    correlation_id = scene.ask(record=str(record))

    failing = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    next_one = scene.ask()
    shims.behave("sbatch")
    unclear = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    assert SITE_AWAY in failing and why in failing
    assert UNCLEAR in unclear and scene.requester.waiting_jobs() == 1
    succeeded_once(scene, correlation_id, record)
    assert scene.answer(next_one).headers["outcome"] == "succeeded"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(
            '"$real" "$@"; echo "lua: thank you"', "lua: thank you", id="says more after the id",
            marks=pytest.mark.fault(what="sbatch prints text after the id", moment="after it submitted"),
        ),
        pytest.param(
            '"$real" "$@" >/dev/null; kill -KILL $$', "sbatch ended with exit code -9", id="is killed",
            marks=pytest.mark.fault(what="sbatch is killed", moment="after it submitted"),
        ),
    ],
)  # fmt: skip
def test_a_job_that_sbatch_submitted_without_saying_so_is_adopted(
    scene: Scene, shims: Shims, record: Path, script: str, why: str
) -> None:
    shims.script("sbatch", script)
    correlation_id = scene.ask(record=str(record))

    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    assert SITE_AWAY in printed and why in printed
    succeeded_once(scene, correlation_id, record)
    assert shims.calls("sbatch") == 1


@pytest.mark.fault(what="sbatch answers with the id of another job", moment="after it submitted")
def test_a_wrong_id_is_put_right_by_the_name(scene: Scene, shims: Shims, record: Path) -> None:
    shims.script("sbatch", '"$real" "$@" >/dev/null; echo 999999999')
    correlation_id = scene.ask(record=str(record))

    printed = scene.installation.check("--drain")

    assert "submitted job=" in printed and "slurm=999999999" in printed
    answer = succeeded_once(scene, correlation_id, record)
    assert [answer.headers["slurm_job_id"]] == slurm_jobs(scene)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            '"$real" "$@"; "$real" "$@" >/dev/null', id="answers with the first id",
            marks=pytest.mark.fault(what="sbatch submits twice, answers with the first id", moment="when a job is submitted"),
        ),
        pytest.param(
            '"$real" "$@" >/dev/null; "$real" "$@"', id="answers with the second id",
            marks=pytest.mark.fault(what="sbatch submits twice, answers with the second id", moment="when a job is submitted"),
        ),
    ],
)  # fmt: skip
def test_of_two_slurm_jobs_for_one_attempt_one_works(scene: Scene, shims: Shims, record: Path, script: str) -> None:
    shims.script("sbatch", script)
    correlation_id = scene.ask(record=str(record), sleep=2)

    scene.installation.check("--drain")

    assert len(slurm_jobs(scene)) == 2
    assert all_quiet(scene)  # so that the second one finds the job where it was
    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="sbatch submits twice", moment="and the job expires while both wait")
def test_both_slurm_jobs_of_an_attempt_that_expires_are_withdrawn(scene: Scene, shims: Shims, record: Path) -> None:
    scene.installation.change_site('workload = "probe"', 'workload = "probe"\nmax_wait = "3s"')
    shims.script("sbatch", 'for _ in 1 2; do "$real" --begin=now+1hour "$@"; done | head --lines=1')
    correlation_id = scene.ask(record=str(record))

    scene.installation.check("--drain")

    assert len(slurm_jobs(scene, "--states=PENDING")) == 2
    answer = answered_once(scene, correlation_id, record, "expired", times=0)
    assert answer.error == "The job did not start within 3 s and was withdrawn. Run it again later."
    assert len(slurm_jobs(scene, "--states=CANCELLED")) == 2


@pytest.mark.fault(what="a submission reaches Slurm late", moment="after it was repeated")
def test_a_submission_that_arrives_after_it_was_repeated_does_no_work(scene: Scene, shims: Shims, record: Path) -> None:
    late = f'( {WAIT_TO_GO}; exec "$real" "$@" ) </dev/null >/dev/null 2>&1 &'
    shims.script("sbatch", f'{late}\necho "sbatch: error: Socket timed out" >&2; exit 1')
    correlation_id = scene.ask(record=str(record), sleep=4)
    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    shims.behave("sbatch")
    scene.installation.passes_until(lambda: bool(slurm_jobs(scene)))

    shims.go()

    assert "Socket timed out" in printed
    assert poll(lambda: len(slurm_jobs(scene)) == 2)
    assert all_quiet(scene)
    succeeded_once(scene, correlation_id, record)


# --- the pass dies with it


@pytest.mark.fault(what="check.py and sbatch are killed", moment="before sbatch submits")
def test_a_pass_that_is_killed_before_the_submission_is_taken_up_by_the_next(
    scene: Scene, shims: Shims, record: Path
) -> None:
    shims.script("sbatch", "kill -KILL $PPID $$")
    correlation_id = scene.ask(record=str(record))

    scene.installation.check("--drain", expect=KILLED)
    shims.behave("sbatch")
    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    assert UNCLEAR in printed
    succeeded_once(scene, correlation_id, record)


@pytest.mark.fault(what="check.py and sbatch are killed", moment="after sbatch submitted")
def test_a_pass_that_is_killed_after_the_submission_leaves_a_job_that_is_adopted(
    scene: Scene, shims: Shims, record: Path
) -> None:
    shims.script("sbatch", '"$real" "$@" >/dev/null; kill -KILL $PPID $$')
    correlation_id = scene.ask(record=str(record))

    scene.installation.check("--drain", expect=KILLED)

    succeeded_once(scene, correlation_id, record)
    assert shims.calls("sbatch") == 1


@pytest.mark.fault(what="check.py is killed and its sbatch goes on", moment="before sbatch submits")
def test_an_sbatch_that_outlives_its_pass_is_not_repeated_too_early(scene: Scene, shims: Shims, record: Path) -> None:
    shims.script("sbatch", f'kill -KILL $PPID; {WAIT_TO_GO}; exec "$real" "$@" >/dev/null')
    correlation_id = scene.ask(record=str(record))

    scene.installation.check("--drain", expect=KILLED)
    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    shims.go()

    assert UNCLEAR in printed
    assert poll(lambda: bool(slurm_jobs(scene)))
    succeeded_once(scene, correlation_id, record)
    assert shims.calls("sbatch") == 1


# --- squeue and sacct


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(
            'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1', "Unable to contact", id="fails",
            marks=pytest.mark.fault(what="squeue fails", moment="before a message is taken"),
        ),
        pytest.param(
            "exec sleep 300", f"squeue gave no answer within {COMMAND_TIMEOUT} s", id="hangs",
            marks=pytest.mark.fault(what="squeue hangs", moment="before a message is taken"),
        ),
    ],
)  # fmt: skip
def test_no_message_is_taken_while_squeue_gives_no_answer(
    scene: Scene, shims: Shims, record: Path, script: str, why: str
) -> None:
    shims.script("squeue", script)
    correlation_id = scene.ask(record=str(record))

    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    shims.behave("squeue")

    assert SITE_AWAY in printed and why in printed
    assert not scene.installation.active() and scene.requester.waiting_jobs() == 1
    succeeded_once(scene, correlation_id, record)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(
            'echo "slurm_load_jobs error: Socket timed out" >&2; exit 1', "Socket timed out", id="fails",
            marks=pytest.mark.fault(what="squeue fails", moment="while a job runs and ends"),
        ),
        pytest.param(
            '"$real" "$@" | head --bytes=-8', "the answer ends in the middle of a line", id="is cut off",
            marks=pytest.mark.fault(what="squeue's table is cut off", moment="while a job runs and ends"),
        ),
    ],
)  # fmt: skip
def test_a_job_answers_by_itself_while_squeue_is_of_no_use(
    scene: Scene, shims: Shims, record: Path, script: str, why: str
) -> None:
    correlation_id, slurm_id = scene.submit(record=str(record))
    shims.script("squeue", script)

    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    scene.requester.wait_for(correlation_id)
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    kept = len(scene.installation.active())
    shims.behave("squeue")

    assert NO_ANSWER in printed and why in printed and kept == 1
    assert succeeded_once(scene, correlation_id, record).headers["slurm_job_id"] == slurm_id


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="squeue shows a state that nobody knows", moment="while a job runs for longer than lost_after")
def test_an_unknown_state_is_no_end(scene: Scene, shims: Shims, record: Path) -> None:
    correlation_id, _ = scene.submit(record=str(record), sleep=9)
    shims.script("squeue", '"$real" "$@" | sed -E "s/\\|[A-Z_]+\\|/|THAWING|/"')

    printed = scene.installation.check("--drain")
    scene.installation.passes_until(lambda: bool(scene.requester.to(correlation_id)))
    kept = len(scene.installation.active())
    shims.behave("squeue")

    assert "unknown state, waiting job=" in printed and "state=THAWING" in printed and kept == 1
    succeeded_once(scene, correlation_id, record)


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="squeue leaves jobs out", moment="while they run for longer than lost_after")
def test_a_job_that_squeue_leaves_out_is_found_by_accounting(scene: Scene, shims: Shims, record: Path) -> None:
    correlation_ids = [scene.ask(record=str(record), sleep=9) for _ in range(2)]
    scene.installation.check("--drain")
    shims.script("squeue", '"$real" "$@" | head --lines=1')  # at most one of the two is in it

    scene.installation.passes_until(lambda: len(scene.requester.collect()) == 2)

    for correlation_id in correlation_ids:
        assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
    assert runs(record) == 2 and shims.calls("sbatch") == 1 and all_quiet(scene)
    assert len(scene.requester.collect()) == 2


@pytest.mark.fault(what="squeue and sacct show nothing once", moment="after an sbatch that submitted and failed")
def test_one_empty_table_does_not_repeat_a_submission(scene: Scene, shims: Shims, record: Path) -> None:
    failing = 'echo "sbatch: error: Socket timed out" >&2; exit 1'
    shims.script("sbatch", f'"$real" --begin=now+1hour "$@" >/dev/null; {failing}')
    correlation_id = scene.ask(record=str(record))
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    hide_all_jobs(shims)
    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    shims.behave("squeue", "sacct")
    start_now(scene, *slurm_jobs(scene))

    assert UNCLEAR in printed and "Socket timed out" in printed
    succeeded_once(scene, correlation_id, record)
    assert shims.calls("sbatch") == 1


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="squeue and sacct show nothing", moment="until a submission that had arrived is repeated")
def test_a_submission_that_was_repeated_for_nothing_works_once(scene: Scene, shims: Shims, record: Path) -> None:
    shims.script("sbatch", '"$real" --begin=now+1hour "$@" >/dev/null; echo "Socket timed out" >&2; exit 1')
    correlation_id = scene.ask(record=str(record))
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    hide_all_jobs(shims)
    shims.behave("sbatch")

    scene.installation.passes_until(lambda: shims.calls("sbatch") == 2)
    shims.behave("squeue", "sacct")

    both = slurm_jobs(scene)
    start_now(scene, *both)
    assert len(both) == 2 and all_quiet(scene)
    succeeded_once(scene, correlation_id, record)


@pytest.mark.long(seconds=20)
@pytest.mark.fault(what="squeue and sacct show nothing", moment="while a job runs for longer than lost_after")
def test_a_job_that_was_given_up_for_lost_does_not_answer_again(scene: Scene, shims: Shims, record: Path) -> None:
    correlation_id, slurm_id = scene.submit(record=str(record), until=str(shims.marks / "go"))
    assert poll(record.exists)
    hide_all_jobs(shims)
    scene.installation.passes_until(lambda: bool(scene.requester.to(correlation_id)))
    still_running = slurm_jobs(scene, "--states=RUNNING")
    shims.behave("squeue", "sacct")
    shims.go()

    answer = answered_once(scene, correlation_id, record, "lost")

    assert still_running == [slurm_id]
    assert answer.error == "The cluster lost track of the job and its result. Run it again."


# --- scancel


@pytest.mark.parametrize(
    ("script", "phrase"),
    [
        pytest.param(
            "exit 1", "cancel failed, asked again in the next pass", id="fails",
            marks=pytest.mark.fault(what="scancel fails", moment="when a held job is withdrawn"),
        ),
        pytest.param(
            NOTHING, "", id="does nothing",
            marks=pytest.mark.fault(what="scancel does nothing and says it did", moment="when a held job is withdrawn"),
        ),
    ],
)  # fmt: skip
def test_a_job_is_withdrawn_and_answered_whatever_scancel_does_and_in_the_end_slurm_has_it_no_more(
    scene: Scene, shims: Shims, record: Path, script: str, phrase: str
) -> None:
    shims.script("sbatch", 'exec "$real" --hold "$@"')
    shims.script("scancel", script)
    correlation_id, slurm_id = scene.submit(record=str(record))
    scene.installation.passes_until(lambda: shims.calls("scancel") >= 1)
    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE if phrase else os.EX_OK)
    answered, waiting = len(scene.requester.to(correlation_id)), slurm_jobs(scene, "--states=PENDING")
    shims.behave("scancel")
    scene.installation.passes_until(lambda: not scene.installation.active())
    answer = answered_once(scene, correlation_id, record, "rejected", times=0)

    assert phrase in printed and answered == 1 and waiting == [slurm_id]
    assert not slurm_jobs(scene, "--states=PENDING") and shims.calls("scancel") >= 3
    assert answer.headers["slurm_job_id"] == slurm_id
    assert answer.error == "The cluster will never start this job: it was put on hold."


# --- what comes of it


def hide_all_jobs(shims: Shims) -> None:
    shims.script("squeue", NOTHING)
    shims.script("sacct", NOTHING)


def succeeded_once(scene: Scene, correlation_id: str, record: Path) -> Answer:
    answer = answered_once(scene, correlation_id, record, "succeeded")
    assert answer.error is None and answer.output("Result")
    return answer


def answered_once(scene: Scene, correlation_id: str, record: Path, outcome: str, times: int = 1) -> Answer:
    """Also when everything that Slurm had of it has come to its end."""
    answer = scene.answer(correlation_id)
    assert all_quiet(scene)
    assert (answer.headers["outcome"], answer.headers["attempt"]) == (outcome, 1)
    assert len(scene.requester.to(correlation_id)) == 1
    assert runs(record) == times
    return answer


# --- sites that want other options


@pytest.mark.fault(what="a site forbids --mem", moment="when a job is submitted")
def test_a_site_that_forbids_jobs_to_ask_for_memory_is_served(scene: Scene, shims: Shims) -> None:
    refuses = 'case " $*" in *" --mem"*) echo "sbatch: error: Please do not use --mem here" >&2; exit 1;; esac'
    shims.script("sbatch", f'{refuses}; exec "$real" "$@"')
    scene.installation.change_site("poll_fastest = 0\n", "poll_fastest = 0\nask_memory = false\n")

    assert scene.answer(scene.ask()).headers["outcome"] == "succeeded"


@pytest.mark.parametrize("option", ["--export=NONE", "--get-user-env"])
def test_a_site_s_word_on_the_environment_of_jobs_does_them_no_harm(scene: Scene, option: str) -> None:
    scene.installation.change_site("poll_fastest = 0\n", f'poll_fastest = 0\nextra_options = ["{option}"]\n')

    assert scene.answer(scene.ask()).headers["outcome"] == "succeeded"


@pytest.mark.fault(what="an option in site.toml undoes one of ours", moment="before anything is taken")
def test_with_an_option_that_undoes_ours_nothing_is_taken_and_the_line_is_named(scene: Scene) -> None:
    scene.installation.change_site("poll_fastest = 0\n", 'poll_fastest = 0\nextra_options = ["--clus=x", "-Jmine"]\n')
    correlation_id = scene.ask()

    said = scene.installation.check("--drain", expect=os.EX_CONFIG)

    assert "'--clus=x': --clusters would undo" in said and "'-Jmine': --job-name would undo" in said
    assert "(line 10)" in said and scene.requester.waiting_jobs() == 1
    scene.installation.change_site('extra_options = ["--clus=x", "-Jmine"]\n', "")
    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
