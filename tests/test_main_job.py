"""The main job on real RabbitMQ and real Slurm: what goes in by the wire contract, and the true answer that comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.installation import ROOT, holding
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.certificates import Certificates
from tests.services.daemon import poll
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.workloads.probe import output

GENERATION_A = ("Image", "Background", "Music Layer", "Staff Layer", "Text", "Selected Regions")
MODELS_A = ("Background Model", "Music Symbol Model", "Staff Lines Model", "Text Model")
CONTRACT_SETTINGS = {
    "Maximum number of training epochs": 15,
    "Maximum number of samples per label": 10000,
    "Patch height": 256,
    "Patch width": 256,
    "CPUs": 1,
    "Maximum memory (MB)": 200,
    "Maximum time (D-HH:MM)": "0-00:10",
    "Slurm Notification Email": "",
    "@something": "that means nothing here",
}
GPU_TABLE = """[{ up_to_mb = 128000, gres = "gpu:1" }, { up_to_mb = 192000, gres = "gpu:v100l:1" },
                { up_to_mb = 257000, gres = "gpu:p100l:4" }]""".replace("\n", "")


@pytest.mark.long(seconds=120)
def test_200_jobs_of_both_generations_get_200_true_answers(scene: Scene) -> None:
    asked = {}
    for number in range(200):
        names = GENERATION_A if number % 2 else generation_b(1 + number % 10)
        inputs = {name: f"/uploads/{number}/{index}/original_file" for index, name in enumerate(names)}
        contents = {name: f"{number} {name}".encode() * 100 for name in names}
        for name, path in inputs.items():
            scene.upstream.add(path, contents[name])
        asked[scene.requester.ask(inputs, CONTRACT_SETTINGS)] = contents
    # The test machine has fewer cores than its nodes claim, and other tests have jobs on them.
    scene.installation.change_site("[timing]", "[slurm]\narray_limit = 16\n[timing]")

    scene.installation.passes_until(lambda: len(scene.requester.collect()) >= 200, 400)
    scene.installation.passes_until(lambda: not scene.installation.active())

    answers = scene.requester.collect()
    assert Counter(answer.correlation_id for answer in answers) == Counter(dict.fromkeys(asked, 1))
    for answer in answers:
        contents = asked[answer.correlation_id]
        expected = MODELS_A if "Text" in contents else models_b(len(contents) - 3)
        assert set(answer.body) == set(expected), (answer.body.get("error"), answer.headers)
        for name in answer.body:
            assert answer.output(name) == output(name, contents, CONTRACT_SETTINGS)


def generation_b(layers: int) -> tuple[str, ...]:
    return ("Image", "Background", "Selected Regions", *(f"rgba PNG - Layer {n}" for n in range(layers)))


def models_b(layers: int) -> tuple[str, ...]:
    return ("Background Model", *(f"Model {n}" for n in range(layers)))


@pytest.mark.parametrize(
    ("settings", "outcome", "words"),
    [
        pytest.param({"memory": 500}, "out_of_memory", "used all of the 200 MB", id="it needs more memory"),
        pytest.param({"child memory": 500}, "out_of_memory", "Ask for more memory", id="a child does, and it exits 0"),
        pytest.param({"exit": 3}, "failed", "exit code 3. Its last words: probe runs / the image is", id="it exits with 3"),
        pytest.param({"signal": 11}, "failed", "ended by the signal SIGSEGV", id="a signal ends it"),
        pytest.param({"omit": True}, "failed", 'did not make the output "Result"', id="it makes no output"),
        pytest.param(
            {"sleep": 300, "Maximum time (D-HH:MM)": "0-00:01", "ignore term": True, "children": 2},
            "timed_out", "reached its time limit of 1 min and was stopped. Ask for more time",
            id="it takes too long", marks=pytest.mark.long(seconds=60),
        ),
    ],
)  # fmt: skip
def test_a_job_that_does_not_succeed_is_answered_once_with_the_true_cause(
    scene: Scene, settings: dict[str, Any], outcome: str, words: str
) -> None:
    correlation_id = scene.ask(**settings)

    answer = scene.answer(correlation_id, 300)

    assert (answer.headers["outcome"], answer.properties.type) == (outcome, "error")
    assert answer.error is not None and words in answer.error
    assert str(ROOT) not in answer.error and "Traceback" not in answer.error


@pytest.mark.long(seconds=30)
def test_a_job_that_is_cancelled_while_it_runs_is_answered_with_who_did_it(scene: Scene) -> None:
    scene.installation.change_site('visible_after = "3s"', 'visible_after = "20s"')  # accounting may lag by seconds
    correlation_id, slurm_id = scene.submit(sleep=300)
    (job,) = scene.installation.active()
    assert poll(job.attempt(1).started.path.exists), "before its worker has begun, it would be its node's trouble"

    scene.slurm.run("scancel", slurm_id)

    answer = scene.answer(correlation_id)
    assert answer.headers["outcome"] == "cancelled"
    assert answer.error == "The job was cancelled on the cluster by root."


def test_a_job_that_is_cancelled_while_it_waits_is_answered(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+1hour"]\n[timing]')
    correlation_id, slurm_id = scene.submit()

    scene.slurm.run("scancel", slurm_id)

    assert scene.answer(correlation_id).headers["outcome"] == "cancelled"


def test_a_job_that_can_never_start_is_withdrawn_and_rejected(scene: Scene) -> None:
    scene.installation.change_site("[timing]", f"[slurm]\n{holding(scene.installation.folder)}\n[timing]")
    correlation_id, slurm_id = scene.submit()

    answer = scene.answer(correlation_id)

    assert answer.headers["outcome"] == "rejected"
    assert answer.error is not None and "will never start this job: it was put on hold" in answer.error
    assert "CANCELLED" in state_of(scene, slurm_id)


def test_more_than_any_node_has_is_rejected_in_words(scene: Scene) -> None:
    scene.installation.change_site("max_gpus = 4", "max_gpus = 4\nmax_cpus = 9999")

    answer = scene.answer(scene.ask(CPUs=5000))

    assert answer.headers["outcome"] == "rejected"
    assert answer.error is not None and answer.error.startswith("The cluster can not run this job: ")


@pytest.mark.long(seconds=45)
def test_a_job_whose_node_fails_is_answered_and_its_next_attempt_runs(
    rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    retry = '{ attempts = 2, on = ["node_failed"], wait = "0s" }'
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream, retry=retry)
    scene.installation.change_site("[timing]", '[slurm]\npartition = "doomed"\n[timing]')
    record = odd_folder / "record"
    correlation_id, slurm_id = scene.submit(sleep=25, record=str(record))
    wait_until(record.exists, 30)

    slurm.kill_node("n3")
    slurm.declare_lost("n3")
    wait_for_state(scene, slurm_id, "NODE_FAIL", 60)
    slurm.start_node("n3")

    answer = scene.answer(correlation_id, 120)
    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("succeeded", 2)
    assert len(record.read_text().splitlines()) == 2


def test_a_job_that_an_administrator_requeues_is_not_run_twice(scene: Scene, tmp_path: Path) -> None:
    record = tmp_path / "record"
    correlation_id, slurm_id = scene.submit(sleep=300, record=str(record))
    wait_until(lambda: record.exists(), 30)

    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "requeue=1")
    scene.slurm.run("scontrol", "requeue", slurm_id)
    wait_for_state(scene, slurm_id, "PENDING")
    scene.slurm.run("scontrol", "update", f"jobid={slurm_id}", "starttime=now")

    answer = scene.answer(correlation_id, 300)
    assert answer.headers["outcome"] == "node_failed"
    assert len(record.read_text().splitlines()) == 1


def test_a_message_that_is_no_job_is_answered_and_the_next_one_is_taken_in_the_same_pass(scene: Scene) -> None:
    broken = scene.requester.publish(b'{"inputs": {"Image": ')
    good = scene.ask()

    scene.installation.check("--drain")

    (answer,) = scene.requester.to(broken)
    assert answer.error == "The job message is not valid JSON."
    assert scene.answer(good).headers["outcome"] == "succeeded"
    assert len(list(scene.installation.jobs.rejected.iterdir())) == 1


def test_a_message_that_pika_can_not_decode_does_not_stop_the_queue(scene: Scene) -> None:
    class Raw(dict):  # type: ignore[type-arg]
        pass

    import struct
    from decimal import Decimal

    from pika import data

    poisoned = data.encode_value

    def encode(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Decimal):  # stands for what pika would not let us write
            pieces.append(struct.pack(">cQ", b"T", 2**63 - 1))
            return 9
        return int(poisoned(pieces, value))

    data.encode_value = encode
    try:
        correlation_id = scene.requester.publish(
            json.dumps({"inputs": {"Image": IMAGE}, "settings": {}}), headers={"when": Decimal(1)}
        )
    finally:
        data.encode_value = poisoned

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


def test_a_pass_without_a_verb_takes_exactly_one_message(scene: Scene) -> None:
    for _ in range(3):
        scene.ask()

    scene.installation.check()

    assert scene.requester.waiting_jobs() == 2


def test_a_drain_stops_at_max_in_flight(scene: Scene) -> None:
    scene.installation.change_site("max_in_flight = 300", "max_in_flight = 2")
    for _ in range(3):
        scene.ask(sleep=20)

    scene.installation.check("--drain")

    assert scene.requester.waiting_jobs() == 1
    assert scene.upstream.paths("POST") == ["/api/auth/token/"]


def test_a_dry_run_counts_what_waits_and_takes_nothing_however_often_it_looks(scene: Scene) -> None:
    scene.ask()
    scene.requester.publish(b"no job")

    looks = [json.loads(scene.installation.check("--dry-run", "--drain", "--json")) for _ in range(3)]

    assert [look["queues"][0]["waiting"] for look in looks] == [2, 2, 2]
    assert looks[0]["queues"][0]["would_take"] == 2 and looks[0]["jobs"] == []
    assert scene.requester.waiting_jobs() == 2 and not scene.installation.active()


def test_a_quorum_queue_keeps_its_messages_through_more_dry_runs_than_it_allows_returns(
    rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream)
    scene.requester.channel.queue_delete(scene.requester.jobs)
    limits = {"x-queue-type": "quorum", "x-delivery-limit": 2}
    scene.requester.channel.queue_declare(scene.requester.jobs, durable=True, arguments=limits)
    scene.requester.publish(b"no job")

    for _ in range(4):
        scene.installation.check("--dry-run")

    assert scene.requester.waiting_jobs() == 1


def test_a_dry_run_shows_what_a_message_from_a_file_would_become(scene: Scene, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"inputs": {"Image": IMAGE}, "settings": {"Maximum memory (MB)": 300}}))
    bad.write_bytes(b"no job")

    row = json.loads(scene.installation.check("--dry-run", "--message", str(good), "--json"))
    refusal = json.loads(scene.installation.check("--dry-run", "--message", str(bad), "--json", expect=os.EX_DATAERR))

    assert row["would"] == "submit" and "--mem=300M" in row["sbatch"]
    assert refusal["would"] == "reject" and "JSON" in refusal["why"]


@pytest.mark.parametrize(("memory", "gres"), [(128000, "gpu:1"), (192000, "gpu:v100l:1"), (257000, "gpu:p100l:4")])
def test_gpus_follow_from_the_memory_as_the_site_file_says(
    rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path, memory: int, gres: str
) -> None:
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream, gpus=GPU_TABLE)
    message = odd_folder / "message.json"
    settings = {"Maximum memory (MB)": memory, "CPUs": 6, "Maximum time (D-HH:MM)": "0-06:00"}
    message.write_text(json.dumps({"inputs": {"Image": IMAGE}, "settings": settings}))

    row = json.loads(scene.installation.check("--dry-run", "--message", str(message), "--json"))

    assert {f"--mem={memory}M", f"--gres={gres}", "--cpus-per-task=6", "--time=360"} <= set(row["sbatch"])


def test_while_the_login_is_refused_no_message_is_taken_and_none_is_lost(scene: Scene) -> None:
    scene.upstream.refuse_logins = 401
    correlation_ids = [scene.ask() for _ in range(3)]

    for _ in range(3):
        scene.installation.check("--drain", expect=os.EX_NOPERM)
    taken_meanwhile = len(scene.installation.active())
    waiting_meanwhile = scene.requester.waiting_jobs()
    scene.upstream.refuse_logins = None

    assert (taken_meanwhile, waiting_meanwhile) == (0, 3)
    for correlation_id in correlation_ids:
        assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


def test_a_claimed_job_waits_while_the_login_is_refused_and_is_answered_after_patience(
    rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    retry = '{ attempts = 2, on = ["out_of_memory"], wait = "0s" }'
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream, retry=retry)
    scene.installation.change_site("[timing]", '[timing]\nlogin_patience = "3s"')
    correlation_id, _ = scene.submit(memory=500)

    upstream.refuse_logins = 403
    answer = scene.answer(correlation_id)

    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 2)
    assert answer.error is not None and "the service's account was refused" in answer.error


def test_a_token_that_expires_while_the_job_waits_leads_to_one_fresh_login(scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+3"]\n[timing]')
    correlation_id, _ = scene.submit()

    scene.upstream.expire_tokens()

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"
    assert scene.upstream.paths("POST") == ["/api/auth/token/"] * 2


def test_an_input_that_does_not_exist_is_named_in_the_answer(scene: Scene) -> None:
    correlation_id = scene.requester.ask({"Image": "/uploads/gone"}, {})

    answer = scene.answer(correlation_id)

    assert (answer.headers["outcome"], answer.error) == ("failed", 'The input "Image" does not exist.')


@pytest.mark.long(seconds=30)
def test_an_answer_that_finds_no_broker_arrives_after_it_is_back(
    private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = make_scene(odd_folder, private_rabbitmq, slurm, upstream)
    scene.requester.channel.queue_declare("durable-results", durable=True)
    correlation_id = scene.requester.publish(
        json.dumps({"inputs": {"Image": IMAGE}, "settings": {"sleep": 6}}), reply_to="durable-results"
    )
    scene.requester.results = "durable-results"
    scene.installation.check("--drain")
    (job,) = scene.installation.active()

    private_rabbitmq.stop()
    wait_until(lambda: job.outcome.path.exists(), 40)
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    private_rabbitmq.start()
    scene.requester.connect()
    scene.requester.channel.queue_declare(scene.requester.jobs)

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


def test_an_answer_whose_queue_is_gone_is_kept_and_arrives_when_it_is_back(scene: Scene) -> None:
    correlation_id, _ = scene.submit()
    scene.requester.channel.queue_delete(scene.requester.results)
    wait_until(lambda: any(job.unroutable.path.exists() for job in scene.installation.active()), 30)

    scene.requester.channel.queue_declare(scene.requester.results)

    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


def test_an_answer_whose_queue_stays_away_is_given_up_and_kept_as_undelivered(scene: Scene) -> None:
    scene.installation.change_site("[replies]", '[replies]\ngive_up_after = "2s"')
    scene.requester.publish(json.dumps({"inputs": {"Image": IMAGE}, "settings": {}}), reply_to="nobody")

    undelivered = scene.installation.jobs.undelivered
    scene.installation.passes_until(lambda: undelivered.exists() and any(undelivered.iterdir()))

    (job,) = undelivered.iterdir()
    assert "does not exist" in (job / "undeliverable.json").read_text()
    assert list(job.glob("attempts/1/reply-*.bin"))


def test_an_answer_that_was_given_up_is_sent_again_by_resend(scene: Scene) -> None:
    scene.installation.change_site("[replies]", '[replies]\ngive_up_after = "2s"')
    lost, other = f"{scene.requester.results}-lost", f"{scene.requester.results}-other"
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": {}})
    correlation_id = scene.requester.publish(body, reply_to=lost)
    scene.requester.publish(body, reply_to=other)
    undelivered = scene.installation.jobs.undelivered
    scene.installation.passes_until(lambda: undelivered.exists() and len(list(undelivered.iterdir())) == 2)
    shown = json.loads(scene.installation.check("resend", "--json", stderr=False))["answers"]
    assert {(row["to"], row["state"]) for row in shown} == {(lost, "given up"), (other, "given up")}
    (job_id,) = (row["job"] for row in shown if row["to"] == lost)

    scene.requester.results = lost
    scene.requester.channel.queue_declare(lost)
    said = scene.installation.check("resend", job_id[:8], stderr=False)

    assert f"\n{job_id[:8]}  delivered  " in said
    assert [answer.headers["outcome"] for answer in scene.requester.to(correlation_id)] == ["succeeded"]
    assert not scene.installation.active() and len(list(undelivered.iterdir())) == 1
    assert scene.installation.check("resend", "--all", expect=os.EX_UNAVAILABLE, stderr=False).count("  kept") == 1
    assert "no answer of a job with this id" in scene.installation.check("resend", "zzz", expect=os.EX_DATAERR)


def test_a_job_that_ran_out_of_memory_is_tried_with_twice_as_much_where_the_site_allows_it(scene: Scene) -> None:
    scene.installation.change_site("attempts = 1", 'attempts = 3, wait = "1s", on = ["out_of_memory"]')

    answer = scene.answer(scene.ask(memory=300), 120)

    assert answer.error is None
    assert answer.headers["attempt"] == 2 and answer.headers["earlier_attempts"] == ["out_of_memory"]


def test_memory_is_raised_up_to_the_cap_and_the_answer_names_the_attempts(scene: Scene) -> None:
    scene.installation.change_site("attempts = 1", 'attempts = 5, wait = "1s", on = ["out_of_memory"]')
    scene.installation.change_site("max_memory_mb = 257000", "max_memory_mb = 350")

    answer = scene.answer(scene.ask(memory=800), 120)

    assert answer.error == (
        "The job used all of the 350 MB it was given in the end and was stopped. Ask for more memory. "
        "(This was attempt 2; before: out of memory.)"
    )
    assert answer.headers["outcome"] == "out_of_memory" and answer.headers["attempt"] == 2


@pytest.mark.parametrize(
    "shim",
    [
        pytest.param(
            '/usr/bin/sbatch "$@"; echo "sbatch: error: Socket timed out" >&2; exit 1', id="submits and fails"
        ),
        pytest.param('/usr/bin/sbatch "$@"; sleep 300', id="submits and hangs"),
        pytest.param('/usr/bin/sbatch "$@" >/dev/null', id="submits and says nothing"),
        pytest.param('echo "lua: a word of welcome"; /usr/bin/sbatch "$@"; echo "sbatch: warning: hm" >&2', id="chats"),
        pytest.param("exit 1", id="does not submit and fails"),
    ],
)
def test_a_job_runs_once_whatever_sbatch_answers(scene: Scene, tmp_path: Path, shim: str) -> None:
    use_shim(scene, "sbatch", shim)
    correlation_id = scene.ask(record=str(tmp_path / "record"))
    scene.installation.check("--drain", expect=None)
    use_shim(scene, "sbatch", 'exec /usr/bin/sbatch "$@"')

    answer = scene.answer(correlation_id)

    assert answer.headers["outcome"] == "succeeded"
    assert len((tmp_path / "record").read_text().splitlines()) == 1


def use_shim(scene: Scene, name: str, text: str) -> None:
    shims = scene.installation.folder / "shims"
    if not shims.exists():
        shims.mkdir()
        scene.installation.change_site(
            "[timing]", f'[slurm]\nbin_dir = {json.dumps(str(shims))}\ncommand_timeout = "3s"\n[timing]'
        )
    (shims / name).write_text(f"#!/bin/bash\n{text}\n")
    (shims / name).chmod(0o700)


@pytest.mark.long(seconds=20)
def test_no_message_is_taken_into_a_dead_cluster(
    rabbitmq: Broker, private_slurm: SlurmCluster, upstream: Upstream, odd_folder: Path
) -> None:
    scene = make_scene(odd_folder, rabbitmq, private_slurm, upstream)
    scene.installation.change_site("[timing]", '[slurm]\ncommand_timeout = "3s"\n[timing]')
    private_slurm.stop_controller()
    correlation_id = scene.ask()

    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    taken = scene.installation.active()
    private_slurm.start_controller()

    assert not taken and scene.requester.waiting_jobs() == 1
    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


def test_the_same_message_twice_is_one_job(scene: Scene, tmp_path: Path) -> None:
    body = json.dumps({"inputs": {"Image": IMAGE}, "settings": {"record": str(tmp_path / "record")}})
    correlation_id = scene.requester.publish(body)
    scene.requester.publish(body, correlation_id=correlation_id)

    scene.answer(correlation_id)
    scene.requester.publish(body, correlation_id=correlation_id)
    scene.installation.check("--drain")

    assert len((tmp_path / "record").read_text().splitlines()) == 1
    assert len(scene.requester.to(correlation_id)) == 1 and scene.requester.waiting_jobs() == 0


def test_two_passes_at_once_take_each_message_once(scene: Scene) -> None:
    correlation_ids = [scene.ask() for _ in range(6)]
    command = [sys.executable, str(ROOT / "check.py"), "--drain", "--site", str(scene.installation.site_file),
               "--credentials", str(scene.installation.credentials_file)]  # fmt: skip

    passes = [subprocess.Popen(command, env=scene.installation.environment, stdout=subprocess.PIPE) for _ in range(2)]
    codes = {process.wait(300) for process in passes}

    assert codes <= {os.EX_OK, os.EX_TEMPFAIL} and os.EX_OK in codes
    for correlation_id in correlation_ids:
        scene.answer(correlation_id)


def test_everything_works_over_tls_with_a_private_ca(
    private_rabbitmq: RabbitMQ,
    slurm: SlurmCluster,
    upstream_tls: Upstream,
    odd_folder: Path,
    certificates: Certificates,
) -> None:
    scene = make_scene(odd_folder, private_rabbitmq, slurm, upstream_tls, rabbitmq_port=private_rabbitmq.tls_port)
    credentials = scene.installation.credentials_file
    credentials.write_text(credentials.read_text() + "RABBITMQ_TLS=true\n")
    correlation_id = scene.ask()

    distrusted = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    site = scene.installation.site_file
    site.write_text(f"ca_file = {json.dumps(str(certificates.ca))}\n" + site.read_text())

    assert "certificate" in distrusted.lower()
    assert scene.answer(correlation_id).headers["outcome"] == "succeeded"


@pytest.mark.workload
def test_a_scanned_page_comes_back_black_and_white(scene: Scene) -> None:
    venv = ROOT / "workloads" / "binarize" / ".venv"
    page = next(venv.glob("lib/python3*/site-packages/skimage/data/page.png"))
    site = scene.installation.site_file
    binarize = """
[workloads.binarize]
argv = ["{root}/workloads/binarize/.venv/bin/python", "{root}/workloads/binarize/binarize.py", "{job}"]
[[workloads.binarize.forms]]
required = ["Page"]
outputs = { "Clean Page" = ".png", "Report" = ".json" }
"""
    site.write_text(site.read_text() + binarize)
    scene.upstream.add("/scan.png", page)
    settings = {"Maximum memory (MB)": 1000}

    answer = scene.answer(scene.requester.ask({"Page": "/scan.png"}, settings, workload="binarize"), 90)

    assert answer.error is None
    assert answer.output("Clean Page").startswith(b"\x89PNG")
    assert 0 < json.loads(answer.output("Report"))["black_share"] < 0.5


def wait_until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def wait_for_state(scene: Scene, slurm_id: str, state: str, seconds: float = 300) -> None:
    wait_until(lambda: state in state_of(scene, slurm_id), seconds)


def state_of(scene: Scene, slurm_id: str) -> str:
    return scene.slurm.run("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={slurm_id}")
