"""Outputs that are uploaded: the address is asked for at use, what arrived is looked at, and only then is it answered."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.memory import most_memory
from tests.services.upstream import ASK, Answer, Upstream
from tests.worker.examples import config_for
from tests.worker.in_job.test_fetch import Clock, clock
from tests.worker.in_job.whole import Whole
from worker.deliveries.put import Put
from worker.deliveries.receiver import Receivers
from worker.deliveries.upload import Parcel
from worker.job.facts import Asked, Sent
from worker.job.outcome import Output
from worker.settings import Limits, Results, Seconds, Timing

__all__ = ["clock"]
BODY = bytes(range(256)) * 4096  # 1 MiB
MAKES = "open(outputs['Model'], 'wb').write(bytes(range(256)) * 4096)"
UPLOAD: Mapping[str, Any] = {"accept": ["upload"]}
PUT = "/put/a"


@pytest.fixture
def service(upstream: Upstream) -> Upstream:
    """Takes each output by PUT."""
    upstream.give = lambda asked: {"put": upstream.url + PUT, "get": upstream.url + PUT, "upload": "u-1"}
    return upstream


def whole(
    folder: Path, service: Upstream, message: Mapping[str, Any] = UPLOAD, program: str = MAKES,
    results: Optional[Results] = None, mode: str = "upload", limit: int = 8 << 20, **site: Any,
) -> Whole:  # fmt: skip
    queue = {"results": mode, "inline_limit": limit}
    results = results or Results(ask=ASK)
    return Whole(folder, service, program, message, queue=queue, results=results, **site)


def asked(service: Upstream) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in service.requests if each.path == ASK]


def test_an_output_is_put_where_its_requester_says_and_then_answered(tmp_path: Path, service: Upstream) -> None:
    done = whole(tmp_path, service).run()

    digest = hashlib.sha256(BODY).hexdigest()
    assert service.files[PUT] == BODY
    assert done.body == {"Model": {
        "url": service.url + PUT, "bytes": len(BODY), "sha256": digest, "type": "image/png",
        "file": "00_Model.png", "verified": True,
    }}  # fmt: skip
    assert asked(service) == [{
        "job": "a" * 32, "attempt": 1, "output": "Model", "file": "00_Model.png", "bytes": len(BODY), "sha256": digest,
        "content_type": "image/png", "upload": None,
    }]  # fmt: skip
    assert done.reply.headers["outputs"]["Model"]["size"] == len(BODY) and done.job.delivered.is_there()
    assert done.kept == {"00_Model.png"}, "kept until it is delivered, and then for keep_outputs"


@pytest.mark.parametrize(("message", "mode", "limit", "inline"), [
    ({}, "upload", 0, True), ({}, "auto", 0, True), ({"accept": ["inline"]}, "upload", 0, True),
    ({"accept": ["inline", "upload"]}, "upload", 0, False), ({"accept": ["inline", "upload"]}, "auto", 1 << 20, True),
    ({"accept": ["inline", "upload"]}, "auto", (1 << 20) - 1, False), ({"accept": ["upload"]}, "auto", 1 << 20, False),
])  # fmt: skip
def test_how_results_go_is_what_both_agree_on(
    tmp_path: Path, service: Upstream, message: Mapping[str, Any], mode: str, limit: int, inline: bool
) -> None:
    done = whole(tmp_path, service, message, mode=mode, limit=limit).run()

    assert isinstance(done.body["Model"], str) == inline == (asked(service) == [])


def test_who_never_said_what_he_takes_sees_byte_for_byte_what_he_saw(tmp_path: Path, service: Upstream) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    old = Whole(tmp_path / "a", service, "open(outputs['Model'], 'w').write('abc')").run().reply
    new = (
        whole(tmp_path / "b", service, {}, "open(outputs['Model'], 'w').write('abc')", mode="auto", limit=0).run().reply
    )

    assert new.body == old.body == b'{"Model": "YWJj"}'
    for reply in (old, new):
        assert set(reply.headers) == {
            *("job_id", "outcome", "attempt", "slurm_job_id", "exit_code", "started_at", "ended_at", "outputs")
        }
        assert set(reply.headers["outputs"]["Model"]) == {"size", "sha256"}


def test_an_upload_may_be_larger_than_any_answer(tmp_path: Path, service: Upstream) -> None:
    done = whole(tmp_path, service, limits=Limits(output_bytes=1024)).run()

    assert done.result.outcome == "succeeded" and service.files[PUT] == BODY


def test_an_empty_output_arrives_too(tmp_path: Path, service: Upstream) -> None:
    done = whole(tmp_path, service, program="open(outputs['Model'], 'wb')").run()

    assert service.files[PUT] == b"" and done.body["Model"]["bytes"] == 0


# --- what a receiver may do


def test_half_a_body_that_is_taken_for_whole_is_noticed(tmp_path: Path, service: Upstream, clock: Clock) -> None:
    service.script(PUT, Answer(stores=1000, headers={"ETag": '"other"'}))

    done = whole(tmp_path, service).run()

    assert service.files[PUT] == BODY and done.body["Model"]["verified"] is True
    assert [each["upload"] for each in asked(service)] == [None, "u-1"], "the same upload, by its own word"


def test_where_nobody_can_be_asked_the_reply_says_so(tmp_path: Path, service: Upstream) -> None:
    service.give = lambda asked: {"put": service.url + PUT, "get": "model-1"}
    service.script(PUT, Answer(headers={"ETag": '"other"'}))

    assert whole(tmp_path, service).run().body["Model"] == {
        "url": "model-1", "bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest(), "file": "00_Model.png",
        "type": "image/png", "verified": False,
    }  # fmt: skip


@pytest.mark.parametrize("fault", [
    Answer(status=500), Answer(status=503), Answer(status=429), Answer(status=423), Answer(takes=1000), Answer(hang_up=True),
])  # fmt: skip
def test_what_fails_in_passing_is_sent_again(tmp_path: Path, service: Upstream, clock: Clock, fault: Answer) -> None:
    service.script(PUT, fault)

    assert whole(tmp_path, service).run().body["Model"]["verified"] is True and service.files[PUT] == BODY


@pytest.mark.parametrize("expired", [
    Answer(status=401), Answer(status=403), Answer(status=400, body=b"<Error><Code>ExpiredToken</Code></Error>"),
    Answer(status=404), Answer(status=410),
])  # fmt: skip
def test_an_address_that_has_expired_is_asked_for_again(tmp_path: Path, service: Upstream, expired: Answer) -> None:
    service.script(PUT, expired)

    assert whole(tmp_path, service).run().body["Model"]["verified"] is True
    assert len(asked(service)) == 2


@pytest.mark.parametrize(("change", "words"), [
    (lambda s: s.script(PUT, Answer(status=413)), "its receiver refused it (HTTP 413)"),
    (lambda s: s.script(ASK, Answer(status=404)), "its receiver gave no address for it (HTTP 404)"),
    (lambda s: s.script(ASK, Answer(status=422)), "its receiver refused it (HTTP 422)"),
    (lambda s: setattr(s, "give", lambda _: {"ftp": "x"}), "its receiver offers no way that is known here"),
    (lambda s: setattr(s, "give", lambda _: {"put": 7}), "the answer to an ask for its address can't be used"),
    (lambda s: setattr(s, "give", lambda _: {"put": f"{s.url}/a", "headers": {"X": "a\r\nY: b"}}), "can't be used"),
    (lambda s: setattr(s, "give", lambda _: {"put": f"{s.url}/a", "get": "x" * 9000}), "can't be used"),
    (lambda s: setattr(s, "give", lambda _: {"put": "http://169.254.169.254/x"}), "an address that is not allowed here"),
    (lambda s: setattr(s, "give", lambda _: {"s3": {"parts": ["x"], "part_bytes": 9, "complete": "x"}}), "can't be used"),
    (lambda s: s.script(PUT, *[Answer(status=307, headers={"Location": PUT})] * 9), "redirected it more than 5 times"),
    (lambda s: s.script(PUT, Answer(status=308, headers={"Location": "https://evil.example.org/x"})), "not allowed here"),
    (lambda s: s.script(PUT, Answer(status=302, headers={"Location": f"{PUT}2"})), "refused it (HTTP 302)"),
])  # fmt: skip
def test_what_is_refused_for_good_is_answered_in_words_and_the_outputs_are_kept(
    tmp_path: Path, service: Upstream, change: Callable[[Upstream], None], words: str
) -> None:
    change(service)

    done = whole(tmp_path, service).run()

    outcome, error = done.outcome, done.body["error"]
    assert error.startswith('The job has succeeded, but its output "Model" could not be delivered: ') and words in error
    assert "They are kept on the cluster, until " in error and done.kept == {"00_Model.png"}
    assert outcome is not None and (outcome.outcome, outcome.reason) == ("failed", error)
    assert done.reply.type == "error" and "exit_code" not in done.reply.headers and done.job.delivered.is_there()


def test_a_redirect_that_keeps_the_body_is_followed(tmp_path: Path, service: Upstream) -> None:
    service.script(PUT, Answer(status=307, headers={"Location": "/put/b"}))

    whole(tmp_path, service).run()

    assert service.files["/put/b"] == BODY


def test_the_token_goes_to_the_api_alone(tmp_path: Path, service: Upstream) -> None:
    with Upstream() as other:
        service.give = lambda _: {"put": f"{other.url}{PUT}?signature=canary", "get": "model-1"}
        done = whole(tmp_path, service, results=Results(ask=ASK, output_hosts=(other.url,))).run()

        assert other.files[f"{PUT}?signature=canary"] == BODY
        assert ["Authorization" in each.headers for each in other.requests] == [False]
    secret = b"canary"
    assert not [path for path in done.job.path.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_token_that_expires_during_an_upload_is_renewed(tmp_path: Path, service: Upstream, clock: Clock) -> None:
    give = service.give

    def expire(asked: dict[str, Any]) -> object:
        service.expire_tokens()
        return give(asked)

    service.give = expire
    service.script(PUT, Answer(status=500))

    assert whole(tmp_path, service).run().body["Model"]["url"] == service.url + PUT


# --- who goes on


def test_what_the_worker_can_t_deliver_in_time_is_left_for_the_next_pass(
    tmp_path: Path, service: Upstream, clock: Clock
) -> None:
    service.stop()

    left = whole(tmp_path, service, timing=Timing(publish_patience=Seconds(0))).run()

    assert left.outcome is None and left.result.outcome == "succeeded" and left.result.to_upload
    assert left.kept == {"00_Model.png"}


def test_a_login_that_is_refused_is_not_tried_again_by_the_job(tmp_path: Path, service: Upstream, clock: Clock) -> None:
    service.refuse_logins = 401

    done = whole(tmp_path, service).run()

    assert done.outcome is None and done.result.to_upload and len(service.paths("POST")) == 1


def test_a_job_that_is_cancelled_before_it_is_answered_is_cancelled(tmp_path: Path, service: Upstream) -> None:
    job = whole(tmp_path, service)
    give = service.give

    def cancel(asked: dict[str, Any]) -> object:
        job.job.cancel_asked.write(Asked("op@host", time.time(), "not wanted"))
        return give(asked)

    service.give = cancel

    outcome = job.run().outcome

    assert outcome is not None and outcome.outcome == "cancelled" and PUT not in service.files
    assert job.body["error"].startswith("The job was cancelled by those who run the service: not wanted")


def test_an_output_that_is_changed_after_it_was_made_is_not_sent_as_if_it_were_whole(
    tmp_path: Path, service: Upstream
) -> None:
    job = whole(tmp_path, service)
    give = service.give

    def shrink(asked: dict[str, Any]) -> object:
        os.truncate(job.attempt.outputs / "00_Model.png", 5000)
        return give(asked)

    service.give = shrink

    assert "it has been changed since it was made" in job.run().body["error"]


@pytest.mark.parametrize(("accept", "mode", "words"), [
    (["upload"], "inline", "can only be sent in its answer, which the job message does not accept"),
    (["pigeon"], "upload", 'Of what "accept" in the job message names, nothing is known here'),
    ("upload", "upload", '"accept" in the job message is not a list of words'),
])  # fmt: skip
def test_what_nobody_here_can_do_is_refused_before_it_runs(
    tmp_path: Path, service: Upstream, accept: object, mode: str, words: str
) -> None:
    from worker.errors import InvalidSpec

    with pytest.raises(InvalidSpec, match=words):
        whole(tmp_path, service, {"accept": accept}, mode=mode)


def test_an_upload_that_is_taken_and_refused_each_time_does_not_hold_its_node(
    tmp_path: Path, service: Upstream, clock: Clock
) -> None:
    service.script(PUT, *[Answer(status=500)] * 99)

    left = whole(tmp_path, service).run()

    assert left.outcome is None and len(service.paths("PUT")) == 10


def test_memory_does_not_grow_with_an_upload(tmp_path: Path, service: Upstream) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(40 * 2**20)

    assert most_memory(put_it, str(tmp_path), service.url) < 6 * 2**20
    assert service.files[PUT] == bytes(40 * 2**20)


def put_it(folder: str, url: str) -> None:
    file = Path(folder, "large")
    output = Output(file.stat().st_size, "", "image/png", file.name)
    parcel = Parcel("a", 1, "Large", output, file, lambda _: None, lambda: None)
    assert Put().send(Receivers(config_for(Path(folder), url)), parcel, {"put": url + PUT}, Sent()).verified
