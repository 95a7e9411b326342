"""What a batch says of its jobs: whole lines only, and of two lines about one job the first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.errors import Damaged
from worker.folder import batches
from worker.folder.batches import Batch, Claimed, Pool
from worker.folder.jobs import JobsFolder
from worker.folder.journal import Came, Journal, read_progress
from worker.job.facts import Message
from worker.job.names import JobId
from worker.job.outcome import Output, Reply, Result, Used
from worker.job.spec import Resources

RESOURCES = Resources(cpus=2, memory_mb=100, time_seconds=60)


def claimed(number: int, body: str | bytes = "{}") -> Claimed:
    properties: Mapping[str, str | bytes | int | None] = {
        "reply_to": "results", "correlation_id": b"\xff\x00", "timestamp": 2**63
    }  # fmt: skip
    return Claimed(JobId(f"{number:032x}"), Message(1, "jobs", body, len(body), properties, 12.5), RESOURCES)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    made = Pool(JobsFolder(tmp_path), "jobs")
    made.prepare()
    return made


def came(outcome: str = "succeeded") -> Came:
    reply = Reply("results", b"\xff\x00", b'{"Result": "aGE="}', "result", "id", 1, 2, {"outputs": {"R": {"size": 2}}})
    used = Used({"run": 0.5}, 10, 0.1, 3)
    outputs = {"R": Output(2, "ab")}
    return Came(Result(outcome, 1, exit_code=0, started_at=1.5, outputs=outputs, used=used), reply)


def test_what_was_claimed_is_read_as_it_was(pool: Pool) -> None:
    jobs = [claimed(1), claimed(2, b"\xfe no text"), claimed(3, '{"inputs": {"ü": "\u2028"}}')]

    batch = batches.add(pool, jobs, 0)

    assert batches.read_jobs(batch) == jobs
    assert batch.count == 3 and pool.batches(pool.todo)[0].path == batch.path and not list(pool.new.iterdir())


def test_a_batch_without_its_jobs_is_damaged_and_one_that_was_moved_is_not(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    taken = batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")

    with pytest.raises(FileNotFoundError):
        batches.read_jobs(batch)
    taken.jobs.unlink()
    with pytest.raises(Damaged, match="jobs.jsonl is gone"):
        batches.read_jobs(taken)
    assert pool.open_ids() == set(), "the other jobs of the queue don't wait for it"


def test_a_batch_can_be_taken_once(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    taken = batches.move(batch, pool.locked / f"{batch.path.name}~pilot-1")

    with pytest.raises(FileNotFoundError):
        batches.move(batch, pool.locked / f"{batch.path.name}~pilot-2")
    assert (taken.pilot, taken.id, taken.count) == ("pilot-1", batch.id, 1)


def test_a_journal_tells_what_was_begun_and_what_it_came_to(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1), claimed(2)], 0)
    journal = Journal(batch)
    journal.may_start(2)
    journal.started(claimed(1).id, 3.0)
    journal.came(claimed(1).id, came())
    journal.sync()
    journal.sent([claimed(1).id])
    journal.close()

    progress = read_progress(batch)

    assert progress.upto == 2 and progress.started == {claimed(1).id: 3.0} and progress.sent == {claimed(1).id}
    assert progress.came == {claimed(1).id: came()}


def test_a_line_that_was_cut_off_says_nothing(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1), claimed(2)], 0)
    journal = Journal(batch)
    for number in (1, 2):
        journal.came(claimed(number).id, came())
    journal.sync()
    file = batch.journal(1)
    for length in range(len(file.read_bytes()) - 1, len(file.read_bytes()) // 2, -50):
        file.write_bytes(file.read_bytes()[:length])

        assert set(read_progress(batch).came) == {claimed(1).id}


def test_the_first_word_about_a_job_counts(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    for outcome in ("succeeded", "failed"):
        journal = Journal(batch)
        journal.came(claimed(1).id, came(outcome))
        journal.sync()

    assert read_progress(batch).came[claimed(1).id].result.outcome == "succeeded"
    assert batch.leases() == 2


def test_what_is_not_on_disk_is_not_said(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    Journal(batch).came(claimed(1).id, came())

    assert read_progress(batch).came == {}


def test_a_damaged_list_of_jobs_is_told(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    batch.jobs.write_text("{}\n")

    with pytest.raises(Damaged, match="jobs.jsonl"):
        batches.read_jobs(batch)


@pytest.mark.parametrize("queue", ["../x", "a/b", "", ".", "ü", "x" * 100, "a b"])
def test_no_queues_name_leads_out_of_the_folder(tmp_path: Path, queue: str) -> None:
    pool = Pool(JobsFolder(tmp_path), queue)

    assert pool.path.parent == tmp_path / "pilots" and pool.path.name.startswith("q-") and len(pool.path.name) < 80


def test_names_of_closed_batches_hold_their_counts(tmp_path: Path) -> None:
    batch = Batch(tmp_path / "20260101000000-aa.7~pilot-1")
    name = batches.closed_name(batch, 4, 2, 1)

    assert batches.is_closed(name) and not batches.is_closed("pilot-20260101-aa")
    assert batches.counts(Batch(tmp_path / name)) == (4, 2, 1)


@pytest.mark.parametrize("length", range(1, 300, 37))
def test_a_list_of_jobs_that_was_cut_off_is_damaged_wherever_that_was(pool: Pool, length: int) -> None:
    batch = batches.add(pool, [claimed(1), claimed(2)], 0)
    whole = batch.jobs.read_bytes()
    for content in (whole[:-length], whole.split(b"\n")[0] + b"\n"):
        batch.jobs.write_bytes(content)

        with pytest.raises(Damaged, match=re.escape(str(batch.jobs))):
            batches.read_jobs(batch)


def test_a_list_of_jobs_whose_ids_lead_elsewhere_is_damaged(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    batch.jobs.write_text(batch.jobs.read_text().replace(claimed(1).id, "../../../etc"))

    with pytest.raises(Damaged, match="is no name"):
        batches.read_jobs(batch)


@pytest.mark.parametrize("damage", ["emptied", "gone", "a line in its midst", "a reply that is none"])
def test_a_journal_that_lost_what_was_answered_is_damaged_so_that_no_job_runs_again(pool: Pool, damage: str) -> None:
    batch = batches.add(pool, [claimed(1), claimed(2)], 0)
    journal = Journal(batch)
    for number in (1, 2):
        journal.came(claimed(number).id, came())
    journal.sync()
    journal.sent([claimed(1).id])
    journal.close()
    file = batch.journal(1)
    first, second = file.read_bytes().splitlines(keepends=True)

    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"emptied": b"", "a line in its midst": b"x" * 40 + b"\n" + second,
                          "a reply that is none": first.replace(b'"reply":', b'"reply":7,"x":')}[damage])  # fmt: skip

    with pytest.raises(Damaged, match=re.escape(str(batch.path))):
        read_progress(batch)


def test_a_journal_is_read_though_an_earlier_one_is_gone_and_that_is_told(pool: Pool) -> None:
    batch = batches.add(pool, [claimed(1)], 0)
    for _ in range(2):
        Journal(batch).close()
    batch.journal(1).unlink()

    assert batch.leases() == 2
    with pytest.raises(Damaged, match="journal-1.jsonl is gone"):
        read_progress(batch)
