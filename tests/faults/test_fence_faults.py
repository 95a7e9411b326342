"""An attempt that nobody saw start is closed before it is answered for: on real Slurm, whatever Slurm says about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.shims import Shims, runs, slurm_jobs
from tests.installation import wrapping
from tests.scene import Scene, make_scene
from tests.services.alias import new_alias
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.test_arrays import finish, slurm_ids

LATER = '[slurm]\nextra_options = ["--begin=now+3600"]\n[timing]'
NOT_BEGUN = "The computer that was to run the job could not begin it. This was no fault of the job; run it again."


def job_of(scene: Scene, correlation_id: str) -> str:
    (found,) = (
        job.id for job in scene.installation.active()
        if json.loads(job.message.path.read_text())["properties"]["correlation_id"] == correlation_id
    )  # fmt: skip
    return found


def outcomes(scene: Scene) -> dict[str, str]:
    return {answer.correlation_id: str(answer.headers["outcome"]) for answer in scene.requester.collect()}


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="accounting is silent", moment="when elements of an array that wait are cancelled")
def test_elements_that_wait_are_cancelled_in_the_same_pass_whatever_accounting_says(scene: Scene, record: Path) -> None:
    shims = Shims(scene)
    scene.installation.change_site("[timing]", LATER)
    asked = [scene.ask(record=str(record)) for _ in range(3)]
    scene.installation.check("--drain")
    ids = slurm_ids(scene)
    shims.script("sacct", "exit 1")

    scene.installation.check("cancel", *(job_of(scene, each) for each in asked[:2]), "--reason", "Not needed")
    scene.installation.check("--drain")

    assert outcomes(scene) == dict.fromkeys(asked[:2], "cancelled")
    assert slurm_jobs(scene, "--states=PENDING", "--array") == [ids[asked[2]]]
    shims.behave("sacct")
    scene.slurm.run("scontrol", "update", f"jobid={ids[asked[2]]}", "starttime=now")
    assert finish(scene, asked) == {**dict.fromkeys(asked[:2], "cancelled"), asked[2]: "succeeded"}
    assert runs(record) == 1


@pytest.mark.long(seconds=30)
@pytest.mark.fault(what="an array of which one element runs and one waits", moment="when both have waited for max_wait")
def test_of_two_elements_only_the_one_that_waits_is_withdrawn(scene: Scene, record: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    scene.installation.change_site("[timing]", "[slurm]\narray_limit = 1\n[timing]")
    scene.installation.change_site('workload = "probe"', 'workload = "probe"\nmax_wait = "6s"')
    asked = [scene.ask(record=str(record), until=str(go)) for _ in range(2)]
    scene.installation.check("--drain")
    assert poll(lambda: runs(record) == 1)

    scene.installation.passes_until(lambda: len(scene.requester.collect()) == 1)
    waited = outcomes(scene)
    go.touch()
    came_to = finish(scene, asked)

    assert list(waited.values()) == ["expired"]
    assert sorted(came_to.values()) == ["expired", "succeeded"] and runs(record) == 1


@pytest.fixture
def with_prolog(rabbitmq: Broker, upstream: Upstream, odd_folder: Path, tmp_path: Path) -> Iterator[Scene]:
    """On a cluster whose Prolog fails once when there is a file `tmp_path/fails`."""
    prolog = tmp_path / "prolog"
    prolog.write_text('#!/bin/sh\nrm "$(dirname "$(readlink -f "$0")")/fails" 2>/dev/null && exit 1\nexit 0\n')
    prolog.chmod(0o755)
    alias = new_alias()  # slurm.conf can't bear the name of this folder
    alias.symlink_to(tmp_path)
    try:
        with SlurmCluster(tmp_path / "slurm", {"Prolog": str(alias / "prolog")}) as cluster:
            made = make_scene(odd_folder, rabbitmq, cluster, upstream, retry="{ attempts = 2, wait = 1 }")
            yield made
            made.requester.close()
    finally:
        alias.unlink()


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="a node's Prolog fails, and Slurm cancels the job", moment="before a job begins")
@pytest.mark.fault(what="a node's Prolog fails, and Slurm holds the job", moment="before a job begins")
def test_a_job_whose_node_could_not_begin_it_is_tried_on_another(
    with_prolog: Scene, record: Path, tmp_path: Path
) -> None:
    (tmp_path / "fails").touch()
    cancelled = with_prolog.answer(with_prolog.ask(record=str(record)))
    # What Slurm requeues after a Prolog has failed, it holds.
    requeued = wrapping(tmp_path, """
        for word; do shift; [ "$word" != --no-requeue ] || word=--requeue; set -- "$@" "$word"; done
        exec sbatch "$@"
    """)  # fmt: skip
    doomed = f'[slurm]\n{requeued}\nextra_options = ["--partition=doomed"]\n[timing]'
    with_prolog.installation.change_site("[timing]", doomed)
    (tmp_path / "fails").touch()
    held, slurm_id = with_prolog.submit(record=str(record))
    assert poll(lambda: "held" in with_prolog.slurm.run("squeue", "-h", "-j", slurm_id, "-o", "%r"))
    with_prolog.installation.change_site('extra_options = ["--partition=doomed"]', "")

    answers = [cancelled, with_prolog.answer(held)]

    assert [(each.headers["outcome"], each.headers["attempt"]) for each in answers] == [("succeeded", 2)] * 2
    assert [each.headers["earlier_attempts"] for each in answers] == [["failed"]] * 2
    assert runs(record) == 2 and not slurm_jobs(with_prolog, "--states=PENDING,RUNNING")
    first = with_prolog.installation.job(cancelled.headers["job_id"]).attempt(1).result
    assert json.loads(first.path.read_text())["reason"] == NOT_BEGUN


LIMITED = """\
if [[ "$*" =~ starttime=now-([0-9]+)seconds ]] && [ "${BASH_REMATCH[1]}" -gt 80000 ]; then
    echo "sacct: error: slurmdbd: Too wide of a date range in query" >&2; exit 1
fi
exec "$real" "$@"
"""
"""As slurmdbd does it where MaxQueryTimeRange is set, but for root, who is exempt."""


@pytest.mark.long(seconds=30)
@pytest.mark.fault(
    what="accounting refuses questions about a day or more (MaxQueryTimeRange)", moment="when a job has ended"
)
def test_an_end_is_found_where_accounting_is_asked_about_short_times_only(scene: Scene, record: Path) -> None:
    shims = Shims(scene)
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    assert poll(record.exists)
    shims.script("squeue", "exit 0")
    shims.script("sacct", LIMITED)

    scene.slurm.run("scancel", "--batch", "--signal=KILL", slurm_id)

    assert scene.answer(correlation_id).headers["outcome"] == "failed"
    assert shims.calls("sacct") >= 2 and runs(record) == 1
