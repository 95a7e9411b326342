"""tus and S3, with real servers: an upload goes on where its receiver says it is, and arrives whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.receivers import Bucket, TusService, s3_service, tus_service
from tests.services.upstream import ASK, Answer, Upstream
from tests.worker.in_job.test_upload import BODY, PUT, whole
from tests.worker.in_job.whole import Whole
from worker.errors import Transient
from worker.job.facts import Transfer
from worker.settings import Results
from worker.transfer import answer_delivered, upload

PART = 5 << 20
MAKES_12_MB = "open(outputs['Model'], 'wb').write(bytes(range(256)) * 47000)"
BODY_12_MB = bytes(range(256)) * 47000


class Cut(Exception):
    """Where a worker ends."""


def cut_after(pieces: int) -> Any:
    left = [pieces]

    def go_on() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Cut

    return go_on


def go_on_with(job: Whole) -> Transfer:
    return upload(job.config, job.job, job.attempt, job.result, lambda: None)


def left_alone(job: Whole, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """Its worker ends once its result is on disk."""
    with monkeypatch.context() as patch:
        patch.setattr("worker.in_job.upload.upload_and_conclude", lambda *_: None)
        return job.run()


@pytest.fixture
def tus(tmp_path: Path, upstream: Upstream) -> Iterator[TusService]:
    with tus_service(tmp_path) as service:
        upstream.give = lambda asked: {"tus": service.url, "get": "model-1", "upload": "u-1"}
        yield service


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    with s3_service() as bucket:
        yield bucket


def job_with(folder: Path, upstream: Upstream, url: str, program: str) -> Whole:
    origin = "/".join(url.split("/")[:3])
    return whole(folder, upstream, program=program, results=Results(ask=ASK, output_hosts=(origin,)))


def test_an_output_arrives_by_tus(tmp_path: Path, upstream: Upstream, tus: TusService) -> None:
    done = job_with(tmp_path, upstream, tus.url, MAKES_12_MB).run()

    assert tus.contents() == [BODY_12_MB]
    assert (done.body["Model"]["url"], done.body["Model"]["verified"]) == ("model-1", True)


def test_an_empty_output_arrives_by_tus(tmp_path: Path, upstream: Upstream, tus: TusService) -> None:
    done = job_with(tmp_path, upstream, tus.url, "open(outputs['Model'], 'wb')").run()

    assert done.body["Model"]["bytes"] == 0


def test_by_tus_it_goes_on_from_what_the_receiver_has(
    tmp_path: Path, upstream: Upstream, tus: TusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = left_alone(job_with(tmp_path, upstream, tus.url, MAKES_12_MB), monkeypatch)
    with pytest.raises(Cut):
        upload(job.config, job.job, job.attempt, job.result, cut_after(20))
    (place,) = {path for method, path, _ in tus.requests if method == "PATCH"}
    tus.storage.write_chunk(place.rpartition("/")[2], 0, BODY_12_MB[:1000])
    tus.storage.update_offset(place.rpartition("/")[2], 1000)

    answer_delivered(job.config, job.job, job.attempt, job.result, go_on_with(job), "login")

    assert [method for method, _, _ in tus.requests] == ["POST", "PATCH", "HEAD", "PATCH"]
    assert tus.requests[-1][2] == "1000" and tus.contents() == [BODY_12_MB]


def test_an_upload_that_its_receiver_has_forgotten_begins_anew(
    tmp_path: Path, upstream: Upstream, tus: TusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = left_alone(job_with(tmp_path, upstream, tus.url, MAKES_12_MB), monkeypatch)
    with pytest.raises(Cut):
        upload(job.config, job.job, job.attempt, job.result, cut_after(20))
    tus.forget()

    assert go_on_with(job).outputs["Model"].arrived
    assert BODY_12_MB in tus.contents()


def test_a_wrong_offset_leads_to_a_question(
    tmp_path: Path, upstream: Upstream, tus: TusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = left_alone(job_with(tmp_path, upstream, tus.url, MAKES_12_MB), monkeypatch)
    monkeypatch.setattr("worker.deliveries.tus._created", created_elsewhere(tus))

    assert go_on_with(job).outputs["Model"].arrived
    assert [method for method, _, _ in tus.requests] == ["POST", "PATCH", "HEAD", "PATCH"]
    assert tus.contents() == [BODY_12_MB]


def created_elsewhere(tus: TusService) -> Any:
    """Somebody else has sent the beginning since."""
    from worker.deliveries.tus import _created

    def created(*given: Any) -> str:
        place = _created(*given)
        tus.storage.write_chunk(place.rpartition("/")[2], 0, BODY_12_MB[:1000])
        tus.storage.update_offset(place.rpartition("/")[2], 1000)
        return place

    return created


# --- S3


def test_an_output_arrives_in_parts(tmp_path: Path, upstream: Upstream, s3: Bucket) -> None:
    upstream.give = lambda asked: s3.addresses("a", s3.begin("a"), asked["bytes"], PART)

    done = job_with(tmp_path, upstream, s3.url, MAKES_12_MB).run()

    assert s3.content("a") == BODY_12_MB and done.body["Model"]["verified"] is True


@pytest.mark.parametrize("program", [MAKES_12_MB.replace("47000", "10"), "open(outputs['Model'], 'wb')"])
def test_a_small_or_empty_output_is_one_part(tmp_path: Path, upstream: Upstream, s3: Bucket, program: str) -> None:
    upstream.give = lambda asked: s3.addresses("b", s3.begin("b"), asked["bytes"], PART)

    done = job_with(tmp_path, upstream, s3.url, program).run()

    assert len(s3.content("b")) == done.body["Model"]["bytes"]


def test_only_the_parts_that_are_missing_are_sent_after_a_cut(
    tmp_path: Path, upstream: Upstream, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def give(asked: dict[str, Any]) -> object:
        assert asked["upload"] == (begun[-1] if begun else None), "or parts of a second ask are another upload"
        begun.append(asked["upload"] or s3.begin("c"))
        return s3.addresses("c", begun[-1], asked["bytes"], PART)

    upstream.give = give
    job = left_alone(job_with(tmp_path, upstream, s3.url, MAKES_12_MB), monkeypatch)
    pieces_of_a_part = 2 * PART // (1 << 18)  # its digest is made first
    with pytest.raises(Cut):
        upload(job.config, job.job, job.attempt, job.result, cut_after(pieces_of_a_part + 5))
    transfer = job.attempt.transfer.read()
    assert transfer is not None and set(transfer.outputs["Model"].parts) == {"1"}

    upload(job.config, job.job, job.attempt, job.result, cut_after(pieces_of_a_part + 14))

    assert s3.content("c") == BODY_12_MB and len(set(begun)) == 1


def test_a_completion_that_was_not_noted_is_found(
    tmp_path: Path, upstream: Upstream, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = s3.begin("d")
    upstream.give = lambda asked: s3.addresses("d", upload_id, asked["bytes"], PART)
    job = left_alone(job_with(tmp_path, upstream, s3.url, MAKES_12_MB), monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr("worker.deliveries.s3.arrived", lambda *_, **__: cut_after(0)())
        go_on_with(job)

    assert go_on_with(job).outputs["Model"].arrived and s3.content("d") == BODY_12_MB


def test_an_error_in_a_completion_that_says_200_is_one(tmp_path: Path, upstream: Upstream) -> None:
    origin = upstream.url
    upstream.give = lambda asked: {
        "s3": {"parts": [f"{origin}{PUT}"], "part_bytes": 1 << 30, "complete": f"{origin}/complete"}, "upload": "u-1"
    }  # fmt: skip
    job = whole(tmp_path, upstream)
    failing = Answer(status=200, body=b"<?xml?>\n<Error><Code>InternalError</Code></Error>")
    upstream.script("/complete", failing)
    job.config = job.config
    with pytest.MonkeyPatch.context() as patch:
        left_alone(job, patch)

    with pytest.raises(Transient, match="could not put the parts together"):
        go_on_with(job)
    upstream.script("/complete", Answer(status=200))
    assert go_on_with(job).outputs["Model"].arrived and upstream.files[PUT] == BODY
