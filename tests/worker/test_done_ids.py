"""An id stays known when the folder of its job is gone: by a few reads, and none where nothing was removed."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import pytest

from tests.worker.login.test_passes import Login
from worker.folder import acts, done_ids, paths
from worker.folder.batches import Pool
from worker.folder.facts import JobFolder
from worker.folder.jobs import JobsFolder
from worker.job.facts import Message
from worker.job.names import JobId
from worker.settings import PilotRules, Seconds

DAY = "2023-11-14"


@pytest.fixture
def jobs(tmp_path: Path) -> JobsFolder:
    return JobsFolder(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 2000])
def test_each_id_is_found_and_no_other(jobs: JobsFolder, count: int) -> None:
    chance = random.Random(count)
    ids = {f"{chance.getrandbits(128):032x}{chance.choice(['', '-2', '-r1', '-r12'])}": "failed" for _ in range(count)}
    others = [f"{chance.getrandbits(128):032x}" for _ in range(100)]
    near = [name[:32] for name in ids if len(name) > 32] + [f"{name}-9" for name in ids] + ["0", "g", "f" * 32]
    done_ids.add(jobs, DAY, ids)

    assert [name for name in ids if done_ids.outcome_of(jobs, name) != "failed"] == []
    assert [name for name in [*others, *near] if done_ids.outcome_of(jobs, name)] == []


def test_a_long_file_is_read_in_a_few_places(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    done_ids.add(jobs, DAY, {f"{number:032x}": "succeeded" for number in range(100_000)})
    reads: list[int] = []
    pread = os.pread

    def counted(file: int, size: int, place: int) -> bytes:
        reads.append(place)
        return pread(file, size, place)

    monkeypatch.setattr(os, "pread", counted)

    assert not done_ids.outcome_of(jobs, f"{100_000 // 2:032x}-2") and done_ids.outcome_of(jobs, f"{7:032x}")

    assert len(reads) <= 2 * 18


def test_what_is_added_comes_to_what_there_is(jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    done_ids.add(jobs, DAY, {"b": "failed"})
    done_ids.add(jobs, DAY, {"a": "succeeded", "c": "lost"})
    done_ids.add(jobs, "2023-11-15", {"d": "rejected"})

    assert done_ids.of_day(jobs, DAY) == {"a": "succeeded", "b": "failed", "c": "lost"}
    assert (jobs.ids / DAY).read_text() == "a succeeded\nb failed\nc lost\n"
    monkeypatch.setattr(paths, "write_bytes", lambda *_: pytest.fail("written once more"))
    done_ids.add(jobs, DAY, {"a": "succeeded", "b": "failed"})


def test_what_a_pass_has_noted_that_was_killed_is_on_disk_before_its_folders_go(
    jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed after the rename, and before that was synced."""
    done_ids.add(jobs, DAY, {"a": "succeeded"})
    synced: list[Path] = []
    monkeypatch.setattr(paths, "sync_folder", synced.append)

    done_ids.add(jobs, DAY, {"a": "succeeded"})

    assert synced == [jobs.ids]


@pytest.mark.parametrize("content", [b"no line of ours\n" * 9 + b"x" * 5000, b"\0" * 5000, b"a succ"])
def test_a_file_that_is_damaged_is_put_aside_and_the_others_count(
    jobs: JobsFolder, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    done_ids.add(jobs, "2023-11-13", {"d": "rejected"})
    paths.make_folder(jobs.ids)
    (jobs.ids / DAY).write_bytes(content)

    assert done_ids.outcome_of(jobs, "d") == "rejected"
    done_ids.add(jobs, DAY, {"e": "failed"})

    assert done_ids.outcome_of(jobs, "e") == "failed" and "put aside" in caplog.text


@pytest.mark.parametrize("mode", ["job", "pilot"])
def test_a_message_whose_job_was_removed_is_not_run_again_when_it_comes_once_more(tmp_path: Path, mode: str) -> None:
    login = Login(tmp_path / "site")
    login.broker.ask()
    login.one_pass()
    (job,) = login.active()
    job.path.rename(tmp_path / "removed by retention")
    done_ids.add(login.jobs, DAY, {job.id: "succeeded"})
    use_mode(login, mode)
    pool = Pool(login.jobs, login.config.site.queues[0].name)

    login.broker.ask()
    login.one_pass()

    assert login.active() == [] == pool.open_batches() and not login.broker.queued and not login.broker.unacked
    done_ids.forget_before(login.jobs, "2023-11-15")
    login.broker.ask()
    login.one_pass()
    ids = [each.id for each in login.active()], pool.open_ids()
    assert ids == (([job.id], set()) if mode == "job" else ([], {job.id}))


def test_a_job_that_another_pass_removes_at_this_moment_is_not_run_again_by_a_pilot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, find = Login(tmp_path / "site"), JobsFolder.find
    use_mode(login, "pilot")

    def find_too_late(jobs: JobsFolder, job_id: JobId, places: Sequence[Path] = ()) -> Optional[JobFolder]:
        done_ids.add(jobs, DAY, {job_id: "succeeded"})  # and then its folder went
        return find(jobs, job_id, places)

    monkeypatch.setattr(JobsFolder, "find", find_too_late)

    login.broker.ask()
    login.one_pass()

    assert Pool(login.jobs, login.config.site.queues[0].name).open_batches() == [] == login.active()
    assert not login.broker.queued and not login.broker.unacked


def test_a_rerun_gets_no_id_of_a_job_whose_folder_was_removed(jobs: JobsFolder) -> None:
    jobs.prepare()
    old = JobFolder(jobs.done / DAY / "a")
    paths.make_folder(old.path)
    old.message.write(Message(1, "hpc-jobs", "{}", 2, {}, 1.0))
    done_ids.add(jobs, DAY, {"a-r1": "succeeded"})

    assert acts.run_again(jobs, old, "rerun", "op@host", True, {}) == "a-r2"


def use_mode(login: Login, mode: str) -> None:
    """With pilots that any of its jobs fits."""
    site = login.config.site
    rules = PilotRules(most=1, cpus=64, memory_mb=10**6, time=Seconds(10**6))
    queues = tuple(
        replace(queue, mode=mode, pilot=rules, resources=replace(queue.resources, gpus_by_memory=()))
        for queue in site.queues
    )
    login.config = replace(login.config, site=replace(site, queues=queues))
