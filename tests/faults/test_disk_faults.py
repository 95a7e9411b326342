"""The jobs folder's disk is full, read-only, gone, closed to us or out of inodes: messages wait, running jobs go on, and when
it is well again each is answered once, truly. On small disks of their own (tmpfs), with real RabbitMQ and real Slurm.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.passes import (
    Operator,
    altered,
    hold_back,
    is_slurm_id,
    job_of,
    let_start,
    runs,
    use_python,
    wait_until,
    wait_until_ended,
)
from tests.requester import Answer
from tests.scene import Scene, make_scene
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.workloads.probe import output

MADE = output("Result", {"Image": b"a page of music"}, {})
FULL = "No space left on device"
CLOSED = "jobs folder can't be used why="
AWAY = "site away, jobs wait and no message is taken kind=disk"


class Disk:
    """A disk for one folder, whose room can be taken away and given back."""

    def __init__(self, place: Path, size_kb: int = 4096, inodes: int = 10_000) -> None:
        self.place = place
        self._options = f"size={size_kb}k,nr_inodes={inodes},mode=0700"
        place.mkdir(parents=True, exist_ok=True)

    def fill(self, leave_kb: int = 0) -> None:
        with open(self.place / "ballast", "ab", buffering=0) as ballast:
            while (room := self._room() - leave_kb * 1024) > 0:
                ballast.write(b"b" * min(room, 1 << 20))

    def use_up_inodes(self, leave: int) -> None:
        (self.place / "many").mkdir()
        for number in range(os.statvfs(self.place).f_favail - leave):
            (self.place / "many" / str(number)).touch()

    def give_room(self) -> None:
        subprocess.run(["rm", "-rf", str(self.place / "ballast"), str(self.place / "many")], check=True)

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)

    def _room(self) -> int:
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize

    def __enter__(self) -> Disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", str(self.place)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def scene(rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path) -> Iterator[Scene]:
    retry = '{ attempts = 2, on = ["start"], wait = "0s" }'
    made = make_scene(odd_folder, rabbitmq, slurm, upstream, retry=retry)
    yield made
    made.requester.close()


@pytest.fixture
def disk(scene: Scene) -> Iterator[Disk]:
    """The jobs folder's."""
    with Disk(scene.installation.jobs.path) as made:
        yield made


@pytest.fixture
def scratch(scene: Scene, tmp_path: Path) -> Iterator[Disk]:
    """The node's own, where the programs work."""
    with Disk(tmp_path / "scratch") as made:
        site = scene.installation.site_file
        site.write_text(f"scratch = {json.dumps(str(made.place))}\n" + site.read_text())
        yield made


def is_success(answer: Answer, attempt: int = 1) -> None:
    told = answer.headers
    assert (told["outcome"], told["attempt"], told.get("exit_code")) == ("succeeded", attempt, 0)
    assert is_slurm_id(told["slurm_job_id"]) and answer.output("Result") == MADE


def is_failure(answer: Answer, words: str) -> None:
    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
    assert answer.error is not None and words in answer.error


# --- before a pass


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("no room", marks=pytest.mark.fault(what="the jobs folder's disk is full", moment="before a pass")),
        pytest.param("no inode", marks=pytest.mark.fault(what="the disk has no inode left", moment="before a pass")),
    ],
)
def test_without_room_for_the_lease_nothing_is_taken_and_all_is_answered_afterwards(
    scene: Scene, disk: Disk, tmp_path: Path, how: str
) -> None:
    operator, record = Operator(scene), tmp_path / "record"
    operator.passes_until_one_is_fine()
    asked = [scene.ask(record=str(record)) for _ in range(2)]
    if how == "no room":
        disk.fill()
    else:
        disk.use_up_inodes(leave=0)

    passes = [operator.one_pass() for _ in range(2)]
    waiting, taken = scene.requester.waiting_jobs(), scene.installation.active()
    disk.give_room()

    assert [(one.code, one.log.count(CLOSED), FULL in one.log) for one in passes] == [(os.EX_CANTCREAT, 1, True)] * 2
    assert (waiting, taken) == (2, [])
    for answer in operator.answers(asked).values():
        is_success(answer)
    assert runs(record) == 2


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "no room", marks=pytest.mark.fault(what="the disk is nearly full", moment="before a message is taken")
        ),
        pytest.param(
            "no inode", marks=pytest.mark.fault(what="few inodes are left", moment="before a message is taken")
        ),
    ],
)
def test_while_there_may_be_no_room_for_a_message_it_stays_in_the_queue_and_no_running_job_is_harmed(
    scene: Scene, disk: Disk, tmp_path: Path, how: str
) -> None:
    operator, record, go = Operator(scene), tmp_path / "record", tmp_path / "go"
    running = scene.ask(before=wait_for(go), record=str(record))
    operator.one_pass()
    wait_until(record.exists)
    waiting = [scene.ask(record=str(record)) for _ in range(2)]
    if how == "no room":
        disk.fill(leave_kb=400)
    else:
        disk.use_up_inodes(leave=20)

    passes = [operator.one_pass() for _ in range(2)]
    in_queue = scene.requester.waiting_jobs()
    go.touch()
    is_success(scene.requester.wait_for(running))  # also while the disk is as it is
    disk.give_room()

    why = f'{AWAY} waiting=0 why="the jobs folder\'s disk is full"'
    assert [(one.code, one.log.count(why)) for one in passes] == [(os.EX_UNAVAILABLE, 1)] * 2
    assert in_queue == 2 and "claimed job" not in "".join(one.log for one in passes)
    for answer in operator.answers([running, *waiting]).values():
        is_success(answer)
    assert runs(record) == 3


def wait_for(file: Path) -> str:
    """What a program does that goes on when the test says so."""
    return f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.1)"


@pytest.mark.fault(what="the disk is read-only", moment="before a pass")
def test_on_a_read_only_disk_nothing_is_taken_and_all_is_answered_afterwards(
    scene: Scene, disk: Disk, tmp_path: Path
) -> None:
    operator, record = Operator(scene), tmp_path / "record"
    operator.passes_until_one_is_fine()
    correlation_id = scene.ask(record=str(record))
    disk.remount("ro")

    seen = operator.one_pass()
    waiting = scene.requester.waiting_jobs()
    disk.remount("rw")

    assert (seen.code, waiting, CLOSED in seen.log) == (os.EX_CANTCREAT, 1, True)
    assert os.strerror(errno.EROFS) in seen.log
    is_success(operator.answer(correlation_id))
    assert runs(record) == 1


@pytest.mark.fault(what="the jobs folder may not be entered (mode 0000)", moment="before a pass")
def test_a_jobs_folder_that_is_closed_to_us_is_told_and_nothing_is_taken(scene: Scene, tmp_path: Path) -> None:
    operator, record = Operator(scene, NO_ROOT), tmp_path / "record"
    operator.passes_until_one_is_fine()
    correlation_id = scene.ask(record=str(record))
    scene.installation.jobs.path.chmod(0)

    seen = operator.one_pass()
    waiting = scene.requester.waiting_jobs()
    scene.installation.jobs.path.chmod(0o700)

    assert (seen.code, waiting) == (os.EX_CANTCREAT, 1)
    assert (
        f"{scene.installation.jobs.path} is closed to us. Set jobs_dir in site.toml to a folder of your own" in seen.log
    )
    is_success(operator.answer(correlation_id))
    assert runs(record) == 1


# Root without the right to pass over modes is a user like any other.
NO_ROOT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.fault(what="one job's folder may not be entered", moment="while the job runs")
def test_one_job_whose_folder_is_closed_is_told_and_the_others_go_on(scene: Scene, tmp_path: Path) -> None:
    operator, go = Operator(scene, NO_ROOT), tmp_path / "go"
    closed = scene.ask(before=wait_for(go), record=str(tmp_path / "record"))
    operator.one_pass()
    wait_until((tmp_path / "record").exists)
    job = job_of(scene, closed)
    job.path.chmod(0)
    other = scene.ask()
    operator.passes_until(lambda: bool(scene.requester.to(other)))

    seen = operator.one_pass()
    job.path.chmod(0o700)
    go.touch()

    assert (seen.code, f"says what to do job={job.id} what=" in seen.log) == (os.EX_DATAERR, True)
    assert f"{job.id} is not a folder that can be read" in seen.log and os.strerror(errno.EACCES) in seen.log
    for answer in operator.answers([closed, other]).values():
        is_success(answer)
    assert runs(tmp_path / "record") == 1


@pytest.mark.fault(what="the jobs folder has been removed", moment="before a pass, nothing in flight")
def test_a_jobs_folder_that_was_removed_is_made_again_once_its_mark_is_removed_too(scene: Scene) -> None:
    operator, place = Operator(scene), scene.installation.jobs.path
    is_success(operator.answer(scene.ask()))
    shutil.rmtree(place)
    correlation_id = scene.ask()

    refused = operator.one_pass()
    (named,) = re.findall(r"remove (.*/\.site\.toml\.installed)$", refused.log.strip())
    assert (refused.code, scene.requester.waiting_jobs(), place.exists()) == (os.EX_CANTCREAT, 1, False)
    Path(named).unlink()

    is_success(operator.answer(correlation_id))


@pytest.mark.fault(what="the jobs folder's file system is not mounted", moment="before a pass, a job in flight")
def test_nothing_is_taken_into_the_place_of_a_file_system_that_is_not_mounted(scene: Scene, tmp_path: Path) -> None:
    operator, real, place = Operator(scene), tmp_path / "real", scene.installation.jobs.path
    for folder in (real, place):
        folder.mkdir()
    with mounted(real, place):
        hold_back(scene)
        scene.ask()
        operator.one_pass()
        assert len(scene.installation.active()) == 1
    scene.ask()

    seen = operator.one_pass()

    assert (seen.code, scene.requester.waiting_jobs()) == (os.EX_CANTCREAT, 1)
    assert "is not the one of earlier passes, nothing done" in seen.log and "Is its file system mounted" in seen.log
    assert list(place.iterdir()) == []
    with mounted(real, place):
        operator.passes_until_one_is_fine()


def test_an_installation_that_moves_with_its_jobs_goes_on_and_one_that_leaves_them_is_told(scene: Scene) -> None:
    operator, files = Operator(scene), scene.installation
    operator.passes_until_one_is_fine()
    old, new = files.jobs.path, files.folder / "moved"
    files.change_site(json.dumps(str(old)), json.dumps(str(new)))

    left = operator.one_pass()
    old.rename(new)
    moved = operator.one_pass()

    assert left.code == os.EX_CANTCREAT and f"(it was {old})" in left.log
    assert moved.code == os.EX_OK


def test_beside_a_site_file_in_a_read_only_place_a_pass_works_without_the_mark(scene: Scene, tmp_path: Path) -> None:
    operator, files, jobs = Operator(scene), scene.installation, tmp_path / "jobs"
    files.change_site(json.dumps(str(files.jobs.path)), json.dumps(str(jobs)))

    with mounted(files.folder, files.folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(files.folder)], check=True)
        codes = [operator.one_pass().code, operator.one_pass().code]

    assert codes == [os.EX_OK, os.EX_OK] and (jobs / "installation.json").exists()


@contextlib.contextmanager
def mounted(folder: Path, place: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(folder), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


# --- while a job starts, runs and ends


@pytest.mark.fault(what="the disk is read-only", moment="when a job starts")
@pytest.mark.long(seconds=30)
def test_a_job_that_starts_on_a_read_only_disk_gets_another_attempt(scene: Scene, disk: Disk, tmp_path: Path) -> None:
    operator, record = Operator(scene), tmp_path / "record"
    hold_back(scene)
    correlation_id = scene.ask(record=str(record))
    operator.one_pass()
    scene.installation.change_site('extra_options = ["--begin=now+1hour"]', "")
    disk.remount("ro")

    let_start(scene, correlation_id)
    wait_until_ended(scene, correlation_id)
    disk.remount("rw")

    is_success(operator.answer(correlation_id), attempt=2)
    assert f"submitted job={job_of(scene, correlation_id).id} attempt=2" in operator.log
    assert runs(record) == 1


class Worker:
    """Of the next job: it stops itself at a durable step, as a rule just before it would note that its program begins."""

    def __init__(self, scene: Scene, place: Path, step: str = "before begun.json") -> None:
        self._site = str(scene.installation.site_file)
        flag, python = place / "halt", place / "python"
        flag.touch()
        halting = shlex.join([*altered(halt=step), sys.executable])
        python.write_text(f'#!/bin/sh\nrm {shlex.quote(str(flag))} 2>/dev/null && exec {halting} "$@"\n'
                          f'exec {shlex.quote(sys.executable)} "$@"\n')  # fmt: skip
        python.chmod(0o700)
        use_python(scene, python)

    def wait_until_it_has_stopped(self) -> None:
        wait_until(lambda: [each.status() for each in self._found()] == [psutil.STATUS_STOPPED])

    def wake(self) -> None:
        for each in self._found():
            each.resume()

    def _found(self) -> list[psutil.Process]:
        running = psutil.process_iter(["cmdline"])
        return [each for each in running if {self._site, "--scheduler-id"} <= set(each.info["cmdline"] or ())]


@pytest.mark.fault(what="the disk is away for longer than publish_patience", moment="when a program is to begin")
@pytest.mark.long(seconds=40)
def test_a_program_whose_beginning_can_t_be_noted_is_not_started_and_its_job_is_tried_again(
    scene: Scene, disk: Disk, scratch: Disk, tmp_path: Path
) -> None:
    operator, record, worker = Operator(scene), tmp_path / "record", Worker(scene, tmp_path)
    correlation_id = scene.ask(record=str(record))
    operator.one_pass()
    worker.wait_until_it_has_stopped()

    disk.use_up_inodes(leave=0)  # nor can it leave a result
    worker.wake()
    wait_until_ended(scene, correlation_id)
    left = sorted(path.name for path in job_of(scene, correlation_id).attempt(1).path.glob("*.json"))
    disk.give_room()

    assert "started.json" in left and not {"begun.json", "result.json"} & set(left)
    is_success(operator.answer(correlation_id), attempt=2)
    assert "ended without a result" in operator.log and runs(record) == 1


@pytest.mark.fault(what="the disk is away for a moment", moment="when a program is to begin")
def test_a_program_waits_for_a_disk_that_comes_back_and_runs_once(
    scene: Scene, disk: Disk, scratch: Disk, tmp_path: Path
) -> None:
    operator, record, worker = Operator(scene), tmp_path / "record", Worker(scene, tmp_path)
    scene.installation.change_site('publish_patience = "3s"', 'publish_patience = "120s"')
    correlation_id = scene.ask(record=str(record))
    operator.one_pass()
    worker.wait_until_it_has_stopped()
    job_log = job_of(scene, correlation_id).attempt(1).log

    disk.use_up_inodes(leave=0)
    worker.wake()
    wait_until(lambda: "the program waits for the disk" in job_log.read_text())
    ran_before = runs(record)
    disk.give_room()

    is_success(operator.answer(correlation_id))
    assert (ran_before, runs(record)) == (0, 1)


@pytest.mark.fault(what="the disk is away for a moment", moment="when a program has ended")
def test_a_result_waits_for_a_disk_that_comes_back(scene: Scene, disk: Disk, scratch: Disk, tmp_path: Path) -> None:
    operator, record = Operator(scene), tmp_path / "record"
    worker = Worker(scene, tmp_path, "before result.json")
    scene.installation.change_site('publish_patience = "3s"', 'publish_patience = "120s"')
    correlation_id = scene.ask(record=str(record))
    operator.one_pass()
    worker.wait_until_it_has_stopped()
    job_log = job_of(scene, correlation_id).attempt(1).log

    disk.use_up_inodes(leave=0)
    worker.wake()
    wait_until(lambda: "the result waits for the disk" in job_log.read_text())
    disk.give_room()

    is_success(operator.answer(correlation_id))
    assert runs(record) == 1


@pytest.mark.parametrize(
    ("leave_kb", "words"),
    [
        pytest.param(
            16, f"The outputs could not be stored ({FULL}).",
            marks=pytest.mark.fault(what="the disk has room for facts only", moment="when the outputs are packed"),
        ),
        pytest.param(
            0, "The job ended without leaving a result after its program had begun.",
            marks=pytest.mark.fault(what="the disk is full to the last page", moment="when the outputs are packed"),
        ),
    ],
)  # fmt: skip
def test_outputs_that_find_no_room_are_a_failure_and_one_answer_tells_it(
    scene: Scene, disk: Disk, scratch: Disk, tmp_path: Path, leave_kb: int, words: str
) -> None:
    operator, record, go = Operator(scene), tmp_path / "record", tmp_path / "go"
    correlation_id = scene.ask(before=wait_for(go), record=str(record), repeat=4000)
    operator.one_pass()
    wait_until(record.exists)

    disk.fill(leave_kb)
    go.touch()
    wait_until_ended(scene, correlation_id)
    disk.give_room()

    is_failure(operator.answer(correlation_id), words)
    assert runs(record) == 1


@pytest.mark.fault(what="a program fills the node's scratch disk", moment="while it runs")
def test_a_program_that_fills_the_scratch_disk_fails_and_the_next_one_finds_room(
    scene: Scene, scratch: Disk, tmp_path: Path
) -> None:
    operator = Operator(scene)
    greedy = scene.ask(
        before="open('all', 'wb', buffering=0).write(b'x' * (64 << 20)); open('more', 'wb').write(b'x' * 9999)"
    )

    failed = operator.answer(greedy)
    succeeded = operator.answer(scene.ask())

    is_failure(failed, FULL)
    assert failed.headers["exit_code"] == 1
    is_success(succeeded)
    assert not any(scratch.place.iterdir())


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("read-only", marks=pytest.mark.fault(what="a node's scratch disk is read-only", moment="at the start")),
        pytest.param("no inode", marks=pytest.mark.fault(what="a node's scratch disk is full", moment="at the start")),
        pytest.param("missing", marks=pytest.mark.fault(what="a node has no scratch disk", moment="at the start")),
    ],
)  # fmt: skip
def test_a_node_that_has_no_place_to_work_is_at_fault_and_not_the_job(
    scene: Scene, scratch: Disk, tmp_path: Path, how: str
) -> None:
    operator, record = Operator(scene), tmp_path / "record"
    if how == "missing":
        site = scene.installation.site_file
        site.write_text(site.read_text().replace(str(scratch.place), str(scratch.place / "no" / "such")))
        (scratch.place / "no").write_text("a file")
    elif how == "read-only":
        scratch.remount("ro")
    else:
        scratch.use_up_inodes(leave=0)
    correlation_id = scene.ask(record=str(record))

    operator.one_pass()
    wait_until(lambda: bool(list(scene.installation.jobs.active.glob("*/attempts/1/result.json"))))
    (result,) = scene.installation.jobs.active.glob("*/attempts/1/result.json")
    told = json.loads(result.read_text())
    scratch.remount("rw")
    scratch.give_room()
    (scratch.place / "no").unlink(missing_ok=True)

    assert (told["outcome"], told["step"], told["may_work_again"]) == ("failed", "start", True)
    assert "no place for its files" in told["reason"] and "no fault of the job" in told["reason"]
    is_success(operator.answer(correlation_id), attempt=2)
    assert runs(record) == 1


@pytest.mark.fault(what="a program fills the jobs folder's disk", moment="while it runs")
def test_a_program_that_fills_the_jobs_folder_fails_and_nobody_has_to_clean_up(
    scene: Scene, disk: Disk, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    greedy = "while True: open(f'{time.time_ns()}', 'wb', buffering=0).write(b'x' * 65536)"
    correlation_id = scene.ask(before=f"import time\n{greedy}", record=str(record))

    answer = Operator(scene).answer(correlation_id, 40)

    is_failure(answer, FULL)
    assert runs(record) == 1
