"""The operator's verbs on real RabbitMQ and real Slurm: they say what is true, and what they do is done."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.installation import ROOT
from tests.scene import IMAGE, Scene
from tests.services.daemon import poll


def told(scene: Scene, *arguments: str, expect: int = 0) -> dict[str, Any]:
    """What a verb says as JSON."""
    answer: dict[str, Any] = json.loads(scene.installation.check(*arguments, "--json", expect=expect, stderr=False))
    return answer


def wait_for_state(scene: Scene, state: str, seconds: float = 300) -> dict[str, Any]:
    """The one job's row, once it is in this state; without a pass."""
    assert poll(lambda: [row["state"] for row in told(scene, "status", "--offline")["jobs"]] == [state], seconds)
    (row,) = told(scene, "status")["jobs"]
    return dict(row)


# --- status and show


@pytest.mark.long(seconds=40)
def test_status_follows_a_job_from_the_queue_to_its_answer(scene: Scene, tmp_path: Path) -> None:
    go = tmp_path / "go"
    said = "import os; open(os.environ['BATCHFERRY_PROGRESS'], 'w').write('progress 0.25 page 1/4\\n')"
    correlation_id = scene.ask(before=said, until=str(go), sleep=0)
    before = told(scene, "status")
    assert before["waiting"] == {scene.requester.jobs: 1} and not before["active"] and before["last_pass"] is None

    scene.installation.check("--drain")
    row = wait_for_state(scene, "running")
    assert row["workload"] == "probe" and row["correlation_id"] == correlation_id
    assert (row["slurm_state"], row["attempt"]) == ("RUNNING", 1) and row["node"]
    go.touch()
    scene.answer(correlation_id)

    after = told(scene, "status", "--state", "done")
    assert not after["active"] and list(after["done"].values()) == [1] and not after["last_pass"]["running"]
    assert [(each["state"], each["outcome"]) for each in after["jobs"]] == [("done", "succeeded")]
    assert "none kept" not in scene.installation.check("status", stderr=False)


@pytest.mark.long(seconds=40)
def test_show_tells_a_job_s_life_with_what_it_used(scene: Scene) -> None:
    said = "import os; open(os.environ['BATCHFERRY_PROGRESS'], 'w').write('progress 1 all pages\\n')"
    correlation_id = scene.ask(memory=120, sleep=2, say="\x1b[2Jhello", before=said)
    scene.answer(correlation_id)
    (row,) = told(scene, "status", "--state", "done")["jobs"]

    story = told(scene, "show", row["job"][:6])
    text = scene.installation.check("show", row["job"], stderr=False)

    events = [event["what"] for event in story["timeline"]]
    assert [e for e in events if e not in ("understood", "ended", "confirmed", "outcome")] == [
        "claimed", "sbatch", "submitted", "started", "fetch", "run", "pack", "result"
    ]  # fmt: skip
    assert {"understood", "ended", "confirmed", "outcome"} <= set(events)
    assert story["outcome"] == "succeeded" and story["outputs"]["Result"] > 0
    assert story["inputs"] == {"Image": f"{scene.upstream.url}{IMAGE}"}
    assert story["progress"]["fraction"] == 1 and story["progress"]["words"] == "all pages"
    (used,) = story["used"]
    assert 120 <= used["memory_mb"] <= 200 == used["asked_memory_mb"] and used["seconds"] >= 2
    assert "hello" in text and "\x1b" not in text
    assert scene.upstream.password not in text and not any(token in text for token in scene.upstream.tokens)


@pytest.mark.long(seconds=40)
def test_show_follows_the_log_until_the_job_is_over(scene: Scene, tmp_path: Path) -> None:
    go = tmp_path / "go"
    scene.submit(until=str(go), after="print('the last page')")
    row = wait_for_state(scene, "running")
    with subprocess.Popen(
        [sys.executable, str(ROOT / "check.py"), "show", row["job"], "--follow", "--offline", "--site",
         str(scene.installation.site_file), "--credentials", str(scene.installation.credentials_file)],
        stdout=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert any("probe runs" in line for line in iter(follower.stdout.readline, ""))
        go.touch()
        rest = follower.stdout.read()

    assert follower.returncode == 0
    assert "the last page" in rest and "delivered job=" in rest


@pytest.mark.long(seconds=30)
def test_explain_says_why_a_job_waits_in_slurm_and_what_its_partition_has(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+3600"]\n[timing]')
    scene.ask(**{"Maximum memory (MB)": 300})
    scene.installation.change_site(
        "gpus_by_memory = []", 'gpus_by_memory = [{ up_to_mb = 257000, gres = "gpu:p100l:4" }]'
    )
    scene.installation.check("--drain")
    (row,) = told(scene, "status")["jobs"]

    said = " ".join(told(scene, "explain", row["job"])["sentences"])

    assert "Waiting in Slurm since" in said and "BeginTime, its time to begin has not come." in said
    assert "1 CPU, 300 MB, 5 min, gpu:p100l:4" in said
    assert re.search(r"has \d+ CPUs, \w+ in use; \d+ gpu:p100l, \w+ in use", said)
    assert "Slurm's estimate of its start" in said and "(max_wait), it is answered expired." in said
    scene.slurm.run("scancel", row["slurm"])
    scene.installation.passes_until(lambda: not scene.installation.active())


def test_a_job_that_is_not_there_is_named(scene: Scene) -> None:
    for verb in ("show", "status", "explain"):
        assert "no job with this id" in scene.installation.check(verb, "zz", expect=os.EX_DATAERR)


def test_status_says_who_gives_no_answer_and_since_when_the_site_is_away(scene: Scene) -> None:
    scene.upstream.refuse_logins = 401
    scene.ask()
    scene.installation.check("--drain", expect=os.EX_NOPERM)
    scene.installation.change_site("[timing]", '[slurm]\nbin_dir = "/nowhere"\n[timing]')
    scene.installation.write_credentials(
        re.sub(r"RABBITMQ_PORT=\d+", "RABBITMQ_PORT=1", scene.installation.credentials_file.read_text())
    )

    standing = told(scene, "status")

    assert standing["site_fault"]["kind"] == "login"
    assert "can't be reached" in standing["broker_away"]


@pytest.mark.long(seconds=20)
def test_status_refreshes_in_place_until_it_is_interrupted(scene: Scene) -> None:
    mine, its = os.openpty()
    argv = [sys.executable, str(ROOT / "check.py"), "status", "--watch", "1", "--offline", "--site",
            str(scene.installation.site_file), "--credentials", str(scene.installation.credentials_file)]  # fmt: skip
    with subprocess.Popen(argv, stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm"}) as watch:
        os.close(its)
        seen, interrupted = b"", False
        try:
            # Read to its end: who writes to a terminal that nobody reads waits for ever.
            while select.select([mine], [], [], 60)[0]:
                try:
                    seen += os.read(mine, 65536)
                except OSError:  # closed (EIO)
                    break
                if not interrupted and seen.count(b"of at most 300") >= 2:
                    watch.send_signal(signal.SIGINT)
                    interrupted = True
            assert watch.wait(30) == 130, seen
        finally:
            watch.kill()
    os.close(mine)

    assert b"\x1b[?1049h" in seen, "a screen of its own, which gives back what was there before"
    assert b"Traceback" not in seen


@pytest.mark.long(seconds=40)
def test_the_report_shows_what_runs_and_what_came_of_the_others(scene: Scene, tmp_path: Path) -> None:
    scene.answer(scene.ask(memory=120))
    scene.answer(scene.ask(exit=3))
    go, page = tmp_path / "go", tmp_path / "page.html"
    scene.submit(until=str(go))
    wait_for_state(scene, "running")

    said = told(scene, "report")
    scene.installation.check("report", "--output", str(page), "--mode", "644", stderr=False)

    assert sum(map(Counter, (day["outcomes"] for day in said["days"])), Counter()) == {"succeeded": 1, "failed": 1}
    assert [(row["state"], row["slurm_state"]) for row in said["now"]["jobs"]] == [("running", "RUNNING")]
    assert [each["past"]["outcome"] for each in said["recent"]] == ["failed", "succeeded"]
    (usage,) = said["looked"]["usage"]
    memory = usage["memory"]
    assert usage["jobs"] == 2 and 120 <= memory["most"] <= 200 == memory["asked"]
    assert said["looked"]["causes"][0]["cause"] == "failed in run, exit code 3"
    assert [node["failed"] for node in said["looked"]["nodes"]] == [1]
    assert sum(day["slurm"]["count"] for day in said["looked"]["waits"] if day["slurm"]) == 2
    text = page.read_text()
    assert "failed in run, exit code 3" in text and text.count("<figure") >= 2
    assert scene.upstream.password not in text and not any(token in text for token in scene.upstream.tokens)
    go.touch()
    scene.installation.passes_until(lambda: not scene.installation.active())


# --- cancel, retry, rerun, replay


@pytest.mark.long(seconds=60)
def test_jobs_are_cancelled_wherever_they_stand_and_each_is_answered_once(scene: Scene, tmp_path: Path) -> None:
    running = scene.ask(sleep=300)
    scene.installation.check("--drain")
    first = wait_for_state(scene, "running")["job"]
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+3600"]\n[timing]')
    pending = scene.ask(sleep=1)
    scene.installation.check("--drain")
    claimed = scene.ask()
    scene.installation.change_site("[slurm]\n", '[slurm]\npartition = "nowhere"\n')
    scene.installation.check("--drain")  # while Slurm has jobs of ours, its no may be about their number
    assert sorted(row["state"] for row in told(scene, "status")["jobs"]) == ["declined", "pending", "running"]

    assert not any(
        row["done"] for row in json.loads(scene.installation.check("--dry-run", "--json", "cancel", "--all"))["jobs"]
    )
    done = told(scene, "cancel", "--all", "--reason", "The scans were upside down")

    assert len(done["jobs"]) == 3 and all(row["done"] for row in done["jobs"])
    scene.installation.passes_until(lambda: not scene.installation.active())
    answers = {answer.correlation_id: answer for answer in scene.requester.collect()}
    assert set(answers) == {running, pending, claimed} and len(scene.requester.answers) == 3
    for answer in answers.values():
        assert answer.headers["outcome"] == "cancelled"
        assert answer.error == "The job was cancelled by those who run the service: The scans were upside down."
    events = [event["what"] for event in told(scene, "show", first)["timeline"]]
    assert "cancel" in events
    assert (
        scene.slurm.run("squeue", "-h", "-t", "PD,R", "-o", "%j").count(f"bf-{told(scene, 'status')['installation']}")
        == 0
    )


@pytest.mark.long(seconds=40)
def test_a_job_that_failed_is_rerun_with_more_memory_and_its_answer_says_of_which_it_is(scene: Scene) -> None:
    first = scene.answer(scene.ask(memory=300))
    assert first.headers["outcome"] == "out_of_memory"

    (row,) = told(scene, "rerun", first.headers["job_id"], "--memory-mb", "600")["jobs"]
    scene.installation.passes_until(lambda: len(scene.requester.to(first.correlation_id)) == 2)
    scene.installation.passes_until(lambda: not scene.installation.active())

    assert "its requester has had an answer, and gets one more" in row["words"]
    second = scene.requester.to(first.correlation_id)[1]
    assert second.error is None and second.headers["rerun_of"] == first.headers["job_id"]
    assert second.headers["job_id"] == second.properties.message_id == f"{first.headers['job_id']}-r1"
    story = told(scene, "show", second.headers["job_id"])
    assert "600 MB" in story["asks_for"] and story["timeline"][0]["what"] == "rerun"
    assert any(event["what"] == "rerun" for event in told(scene, "show", first.headers["job_id"])["timeline"])


@pytest.mark.long(seconds=40)
def test_a_job_that_waits_for_its_next_attempt_gets_it_when_asked(scene: Scene, tmp_path: Path) -> None:
    scene.installation.change_site("attempts = 1", 'attempts = 2, wait = "1h", on = ["out_of_memory"]')
    correlation_id = scene.ask(memory=300)
    scene.installation.passes_until(lambda: [r["state"] for r in told(scene, "status")["jobs"]] == ["retrying"])

    (row,) = told(scene, "retry", "--state", "retrying")["jobs"]

    assert row["done"]
    assert scene.answer(correlation_id).headers["attempt"] == 2


@pytest.mark.long(seconds=40)
def test_a_rejected_message_is_replayed_once_the_site_file_is_mended(scene: Scene) -> None:
    correlation_id = scene.requester.ask({"Image": IMAGE}, {}, workload="later")
    first = scene.answer(correlation_id)
    assert first.headers["outcome"] == "rejected"
    (row,) = told(scene, "replay", first.headers["job_id"], expect=os.EX_DATAERR)["jobs"]
    assert not row["done"] and 'would be rejected: There is no workload named "later"' in row["words"]

    scene.installation.site_file.write_text(
        re.sub(r"(?s)(\[workloads\.probe\].*)", lambda m: m[0] + m[0].replace("workloads.probe", "workloads.later"),
               scene.installation.site_file.read_text())
    )  # fmt: skip
    told(scene, "replay", "--all")
    scene.installation.passes_until(lambda: len(scene.requester.to(correlation_id)) == 2)
    scene.installation.passes_until(lambda: not scene.installation.active())

    assert scene.requester.to(correlation_id)[1].headers["outcome"] == "succeeded"
    assert told(scene, "replay", "--all")["jobs"] == []


# --- metrics and logs


@pytest.mark.long(seconds=40)
def test_metrics_and_logs_for_machines_tell_of_a_job(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "batchferry.prom"
    site = scene.installation.site_file
    site.write_text(f"metrics_file = {json.dumps(str(file))}\n" + site.read_text())
    correlation_id = scene.ask()
    lines = scene.installation.check("--drain", "--log-format", "json", stderr=False).splitlines()
    scene.answer(correlation_id)
    os.utime(file, (0, 0))
    scene.installation.check("--drain")  # an empty pass, and the metrics are old

    events = {line["event"]: line for line in map(json.loads, lines)}
    assert events["submitted"]["job"] == events["claimed"]["job"] and events["submitted"]["attempt"] == 1
    assert events["claimed"]["correlation_id"] == correlation_id and events["claimed"]["bytes"] > 0
    text = file.read_text()
    assert 'batchferry_jobs_ended_total{outcome="succeeded",workload="probe"} 1.0' in text
    assert 'batchferry_step_seconds_count{step="run",workload="probe"} 1.0' in text
    assert re.search(r'batchferry_slurm_commands_total{command="sbatch"} 1.0', text)
    assert "batchferry_last_pass_exit_code 0.0" in text
    assert time.time() - file.stat().st_mtime < 60
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert told(scene, "status")["outcomes"] == {day: {"succeeded": 1}}


@pytest.mark.long(seconds=40)
def test_while_it_is_paused_what_runs_is_answered_and_the_next_message_stays_in_its_queue(
    scene: Scene, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    running, _ = scene.submit(until=str(go))
    scene.installation.check("pause", "--reason", "new disks")
    waiting = scene.ask()

    go.touch()
    scene.installation.passes_until(lambda: bool(scene.requester.to(running)) and not scene.installation.active())
    standing = told(scene, "status")

    assert standing["waiting"] == {scene.requester.jobs: 1} and standing["paused"]["reason"] == "new disks"
    assert not scene.requester.to(waiting)
    scene.installation.check("resume")
    scene.answer(waiting)
