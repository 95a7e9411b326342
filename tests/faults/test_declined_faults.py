"""Slurm says no in words that blame nobody clearly: only such jobs wait, none runs twice, and each answer is true."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.shims import Shims, runs, slurm_jobs
from tests.scene import Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream

NO = "sbatch: error: Batch job submission failed: "
EACH_NO = {
    "a policy": f"sbatch: error: QOSMaxCpuPerJobLimit\n{NO}Job violates accounting/QOS policy (job submit limit)",
    "a plugin": f"sbatch: error: The centre wants no such jobs\n{NO}Unspecified error",
    "a partition": f"{NO}Required partition not available (inactive or drain)",
    "the job's fault": f"{NO}Requested node configuration is not available",
    "a retry": f"sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n{NO}Unspecified error",
    "a connection": f"{NO}Socket timed out on send/recv operation",
}
PLUGIN = """\
function slurm_job_submit(job_desc, part_list, submit_uid)
   if job_desc.min_cpus ~= nil and job_desc.min_cpus < 1000 and job_desc.min_cpus > 2 then
      slurm.log_user("The centre wants no such jobs")
      return slurm.ERROR
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
   return slurm.SUCCESS
end

return slurm.SUCCESS
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster that enforces limits; `tight` is a QOS that declines jobs of more than one CPU; a submit plugin has words
    of its own for jobs of three."""
    settings = {"AccountingStorageEnforce": "associations,limits,qos", "JobSubmitPlugins": "lua"}
    cluster = SlurmCluster(tmp_path_factory.mktemp("strict") / "slurm", settings)
    (cluster.folder / "job_submit.lua").write_text(PLUGIN)
    with cluster:
        cluster.run("sacctmgr", "-i", "add", "qos", "tight", "set", "MaxTRESPerJob=cpu=1", "flags=DenyOnLimit")
        cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "qos+=tight")
        yield cluster


@pytest.fixture
def scene(rabbitmq: Broker, strict: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    made = make_scene(odd_folder, rabbitmq, strict, upstream)
    yield made
    strict.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=-1")
    made.requester.close()


@pytest.fixture
def record(odd_folder: Path) -> Path:
    return odd_folder / "record"


def outcome(scene: Scene, correlation_id: str) -> str:
    answers = scene.requester.to(correlation_id)
    assert len(answers) <= 1
    return str(answers[0].headers["outcome"]) if answers else ""


@pytest.mark.fault(what="a QOS or a submit plugin declines a job", moment="while others are taken")
@pytest.mark.long(seconds=40)
def test_jobs_that_a_qos_or_a_plugin_declines_are_rejected_with_slurms_words_and_the_others_go_on(
    scene: Scene, record: Path
) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--qos=tight"]\n[timing]\npatience = "12s"')
    by_qos, by_plugin = scene.ask(record=str(record), CPUs=2), scene.ask(record=str(record), CPUs=3)
    scene.installation.check("--drain")
    before = scene.ask(record=str(record))

    scene.installation.passes_until(lambda: bool(outcome(scene, before)))
    assert not outcome(scene, by_qos) and not outcome(scene, by_plugin)
    told = scene.installation.check("status")
    scene.installation.passes_until(lambda: not scene.installation.active())

    assert outcome(scene, before) == "succeeded" and runs(record) == 1
    assert "Slurm declines jobs of 2 CPUs, 200 MB, 5 min: QOSMaxCpuPerJobLimit" in told
    for correlation_id, words in ((by_qos, "QOSMaxCpuPerJobLimit"), (by_plugin, "The centre wants no such jobs")):
        (answer,) = scene.requester.to(correlation_id)
        assert answer.headers["outcome"] == "rejected" and answer.error is not None
        assert answer.error.startswith(f"The cluster does not accept this job ({words}")


@pytest.mark.fault(what="a user may submit 5 jobs (MaxSubmitJobs), and 12 wait", moment="when they are submitted")
@pytest.mark.long(seconds=60)
def test_of_more_jobs_than_a_user_may_submit_those_that_fit_go_in_and_the_rest_follows(
    scene: Scene, record: Path
) -> None:
    scene.slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=5")
    go_on = record.with_name("go on")
    long = scene.ask(record=str(record), until=str(go_on))
    others = [scene.ask(record=str(record)) for _ in range(11)]

    scene.installation.passes_until(lambda: all(outcome(scene, each) for each in others), 200)
    assert not outcome(scene, long)
    go_on.touch()
    scene.installation.passes_until(lambda: not scene.installation.active())

    assert {outcome(scene, each) for each in [long, *others]} == {"succeeded"} and runs(record) == 12


@pytest.mark.parametrize("no", [
    pytest.param(no, id=name, marks=pytest.mark.fault(what=f"sbatch submits and says no: {name}", moment="after it did"))
    for name, no in EACH_NO.items()
])  # fmt: skip
def test_a_job_that_sbatch_submitted_and_said_no_to_is_found_and_runs_once(scene: Scene, record: Path, no: str) -> None:
    shims = Shims(scene)
    shims.script(
        "sbatch", f'case "$*" in *--test-only*) exec "$real" "$@";; esac; "$real" "$@"; echo "{no}" >&2; exit 1'
    )
    correlation_id = scene.ask(record=str(record), sleep=1)

    scene.installation.check("--drain", expect=None)
    shims.behave("sbatch")

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
    assert runs(record) == 1 and len(slurm_jobs(scene)) == 1


@pytest.mark.fault(what="a wrapper calls sbatch twice where one job may be submitted", moment="after the first went in")
@pytest.mark.parametrize("said", [pytest.param("", id="in silence"), pytest.param("retrying", id="and says so")])
def test_a_second_try_in_one_call_is_declined_because_the_first_went_in(scene: Scene, record: Path, said: str) -> None:
    scene.slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=1")
    shims = Shims(scene)
    once = f'"$real" "$@" >/dev/null; echo "{said}" >&2; exec "$real" "$@"'
    shims.script("sbatch", f'case "$*" in *--test-only*) exec "$real" "$@";; esac; {once}')
    correlation_id = scene.ask(record=str(record), sleep=1)

    scene.installation.check("--drain", expect=None)
    shims.behave("sbatch")

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
    assert runs(record) == 1 and len(slurm_jobs(scene)) == 1


@pytest.mark.fault(what="another program of the user fills MaxSubmitJobs", moment="when a job is submitted")
def test_a_job_waits_while_another_program_of_the_user_takes_all_places(scene: Scene, record: Path) -> None:
    scene.slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=1")
    other = scene.slurm.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 300").strip()
    correlation_id = scene.ask(record=str(record))

    printed = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    scene.ask()
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    waiting = scene.requester.waiting_jobs()
    scene.slurm.run("scancel", other)
    assert poll(lambda: not scene.slurm.run("squeue", "--noheader", f"--jobs={other}"))

    assert "site away, jobs wait and no message is taken kind=slurm" in printed and "AssocMaxSubmitJobLimit" in printed
    assert waiting == 1
    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
