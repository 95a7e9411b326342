"""Pilots on one machine with nothing: embedded broker, local scheduler. Many jobs, one submission, one answer each."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.both import one
from tests.scene import IMAGE
from tests.services.upstream import Upstream
from tests.test_alone import Alone, wait_until
from tests.workloads.probe import output
from worker.folder import batches
from worker.folder.facts import JobFolder

pytestmark = pytest.mark.unhurried


class Piloted(Alone):
    """An installation whose queue is for pilots."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        super().__init__(folder, upstream)
        self.set_rules(memory_mb=1000, cpus=2, time="10min", idle="1s", batch=5)
        self.installation.change_site("attempts = 1", "attempts = 3, wait = 0")
        self.pool = batches.Pool(self.installation.jobs, "jobs")

    def set_rules(self, **rules: Any) -> None:
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in rules.items())
        self.installation.change_site(
            'workload = "probe"\n', f'workload = "probe"\nmode = "pilot"\n\n[queues.pilot]\n{lines}'
        )

    def answers(self, correlation_ids: list[str], seconds: float = 300, killed: bool = False) -> dict[str, Any]:
        """One each, after which nothing is left to do. `killed`: between an answer and the note that it was sent, perhaps;
        then an equal one comes again."""
        answers: list[tuple[Any, bytes]] = []

        def all_there() -> bool:
            self.take(answers)
            return len({properties.correlation_id for properties, _ in answers}) >= len(correlation_ids)

        self.installation.passes_until(all_there, seconds)
        self.installation.passes_until(lambda: not (self.installation.active() or self.crew()))
        self.take(answers)
        if killed:
            answers = list({(p.message_id, body): (p, body) for p, body in answers}.values())
        assert sorted(p.correlation_id for p, _ in answers) == sorted(correlation_ids)
        return {p.correlation_id: (json.loads(body), json.loads(p.headers)) for p, body in answers}

    def crew(self) -> list[JobFolder]:
        place = batches.crew_of(self.installation.jobs)
        return [JobFolder(each) for each in place.iterdir()] if place.exists() else []

    def pilot_process(self) -> psutil.Process:
        """The pilot itself, as its runners' parent."""
        found: list[psutil.Process] = []

        def there() -> bool:
            mine = str(self.installation.site_file)
            found[:] = [
                each
                for each in psutil.process_iter(["cmdline", "ppid"])
                if mine in (each.info["cmdline"] or []) and "worker" in each.info["cmdline"]
            ]
            return bool(found)

        wait_until(there, 20)
        pids = {each.pid for each in found}
        return next(each for each in found if each.info["ppid"] not in pids)

    def say(self, verb: str, job: str) -> Any:
        return json.loads(self.installation.check(verb, job, "--offline", "--json"))

    def done(self) -> tuple[int, int, int]:
        """How many succeeded, failed, and left their batch, as the operator is told."""
        (row,) = json.loads(self.installation.check("pilots", "--json"))["queues"]
        return row["done"], row["error"], row["left"]


@pytest.fixture
def piloted(odd_folder: Path, upstream: Upstream) -> Iterator[Piloted]:
    made = Piloted(odd_folder / "installation", upstream)
    yield made
    made.broker.close()


def runs(record: Path) -> int:
    return len(record.read_text().splitlines()) if record.exists() else 0


def test_many_jobs_share_one_submission_and_each_gets_its_own_answer(piloted: Piloted) -> None:
    asked = {piloted.ask(repeat=number): number for number in range(1, 24)}

    answers = piloted.answers(list(asked))

    for correlation_id, (body, headers) in answers.items():
        expected = output("Result", {"Image": b"a page of music"}, {"repeat": asked[correlation_id]})
        assert base64.b64decode(body["Result"]) == expected
        assert (headers["outcome"], headers["attempt"]) == ("succeeded", 1)
    assert len({headers["slurm_job_id"] for _, headers in answers.values()}) == 1
    assert piloted.done() == (23, 0, 0)


def test_one_job_that_fails_touches_no_other(piloted: Piloted) -> None:
    good, bad = [piloted.ask() for _ in range(6)], piloted.ask(exit=3)

    answers = piloted.answers([*good, bad])

    assert "exit code 3" in answers[bad][0]["error"]
    assert all("Result" in answers[each][0] for each in good)
    assert piloted.done() == (6, 1, 0)


def test_a_job_that_takes_too_long_is_stopped_alone(piloted: Piloted) -> None:
    piloted.installation.change_site('time = "5min"', 'time = "2s"')
    good, slow = piloted.ask(), piloted.ask(sleep=60)

    answers = piloted.answers([good, slow])

    assert "time limit" in answers[slow][0]["error"] and answers[slow][1]["outcome"] == "timed_out"
    assert "Result" in answers[good][0]


def test_a_job_that_is_too_large_for_a_pilot_gets_a_submission_of_its_own(piloted: Piloted) -> None:
    small = [piloted.ask() for _ in range(3)]
    large = piloted.send({"inputs": {"Image": IMAGE}, "settings": {}, "resources": {"memory_mb": 1001}})

    said = piloted.installation.check("--drain", expect=None)
    answers = piloted.answers([*small, large])

    ids = {each: answers[each][1]["slurm_job_id"] for each in answers}
    assert len({ids[each] for each in small}) == 1 and ids[large] not in {ids[each] for each in small}
    assert "no pilot can take these" in said and "jobs=1 why='asks for 1001 MB, a pilot has 1000'" in said


@pytest.mark.slow
def test_a_pilot_that_is_killed_loses_no_job_and_doubles_none(piloted: Piloted, tmp_path: Path) -> None:
    records = [tmp_path / str(number) for number in range(30)]
    asked = [piloted.ask(record=str(record), sleep=0.3) for record in records]
    piloted.installation.check("--drain")
    wait_until(lambda: sum(map(runs, records)) >= 5, 30)

    os.kill(piloted.pilot_process().pid, signal.SIGKILL)
    answers = piloted.answers(asked, killed=True)

    attempts = [answers[each][1]["attempt"] for each in asked]
    assert all(answers[each][1]["outcome"] == "succeeded" for each in asked)
    assert 1 <= attempts.count(2) <= 4 and attempts.count(1) >= 26
    for record, attempt in zip(records, attempts):
        assert 1 <= runs(record) <= attempt


@pytest.mark.slow
def test_a_pilot_that_is_asked_to_stop_leaves_its_jobs_to_others(piloted: Piloted, tmp_path: Path) -> None:
    records = [tmp_path / str(number) for number in range(10)]
    asked = [piloted.ask(record=str(record), sleep=0.5) for record in records]
    piloted.installation.check("--drain")
    wait_until(lambda: sum(map(runs, records)) >= 3, 30)

    piloted.pilot_process().send_signal(signal.SIGTERM)
    answers = piloted.answers(asked)

    assert all(answers[each][1]["outcome"] == "succeeded" for each in asked)
    assert all(1 <= runs(record) <= answers[each][1]["attempt"] for each, record in zip(asked, records))


def test_a_redelivery_of_what_a_batch_has_is_acked_and_not_run_again(piloted: Piloted, tmp_path: Path) -> None:
    record = tmp_path / "record"
    message = {"inputs": {"Image": IMAGE}, "settings": {"record": str(record)}}
    correlation_id = piloted.send(message)
    while_open = piloted.send(message, correlation_id=correlation_id)
    piloted.answers([correlation_id])

    when_done = piloted.send(message, correlation_id=correlation_id)
    said = piloted.installation.check("--drain")

    assert "claimed before" in said and while_open == when_done == correlation_id
    assert runs(record) == 1 and not piloted.crew()


def test_an_answer_that_no_queue_takes_is_kept_and_can_be_sent_again(piloted: Piloted) -> None:
    correlation_id = piloted.send({"inputs": {"Image": IMAGE}, "settings": {}}, reply_to="gone")
    piloted.installation.passes_until(
        lambda: any(j.unroutable.path.exists() for j in piloted.installation.active()), 30
    )

    piloted.broker.make_queue("gone")
    piloted.installation.check("resend", "--all")
    piloted.installation.passes_until(lambda: not piloted.installation.active())

    delivery = one(piloted.broker, "gone")
    assert delivery is not None and delivery.properties.correlation_id == correlation_id
    status = json.loads(piloted.installation.check("status", "--offline", "--json"))
    assert status["rejected"] == 0 and sum(status["done"].values()) == 1


@pytest.mark.slow
def test_a_pilot_begins_no_job_that_does_not_fit_into_what_is_left_of_its_time(piloted: Piloted) -> None:
    piloted.installation.change_site('time = "10min"', 'time = "1min"')
    piloted.installation.change_site('time = "5min"', 'time = "40s"')
    asked = [piloted.ask(sleep=5) for _ in range(8)]

    answers = piloted.answers(asked, 120)

    assert all(answers[each][1]["outcome"] == "succeeded" for each in asked)
    assert len({answers[each][1]["slurm_job_id"] for each in asked}) >= 2


def test_a_pilot_that_was_slow_to_start_looks_for_work_before_it_leaves(piloted: Piloted, tmp_path: Path) -> None:
    slow = "import os, time\nfork = os.fork\nos.fork = lambda: (time.sleep(1.5), fork())[1]\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    piloted.use_python(tmp_path, f"PYTHONPATH={shlex.quote(str(tmp_path))}")
    asked = piloted.ask()

    body, _ = piloted.answers([asked])[asked]

    assert "Result" in body


def test_jobs_in_error_are_listed_and_can_be_put_back_once(piloted: Piloted, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    asked = [piloted.ask(), piloted.ask(before=f"import os, sys; os.path.exists({str(mended)!r}) or sys.exit(3)")]
    first = piloted.answers(asked)

    (row,) = json.loads(piloted.installation.check("pilots", "--list", "error", "--json"))["jobs"]
    mended.touch()
    said = [piloted.installation.check("pilots", "--put-back") for _ in range(2)]
    again = piloted.answers([asked[1]])

    assert row["job"] == first[asked[1]][1]["job_id"] and "exit code 3" in row["reason"]
    assert ["1 job was put back" in each for each in said] == [True, False]
    body, headers = again[asked[1]]
    assert "Result" in body and headers["rerun_of"] == row["job"] and headers["job_id"] != row["job"]
    assert piloted.done() == (2, 1, 0)


def test_a_job_in_a_batch_is_told_wherever_it_stands(piloted: Piloted, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    held = piloted.ask(before=f"import os, time\nwhile not os.path.exists({str(mended)!r}): time.sleep(0.05)")
    bad = piloted.ask(exit=3)
    told = []

    piloted.installation.check("--drain")
    running = first_of(piloted, "locked", held)
    told += [piloted.say("explain", running), piloted.say("show", running), piloted.say("status", running)]
    mended.touch()
    answers = piloted.answers([held, bad])
    failed = answers[bad][1]["job_id"]
    told += [piloted.say("explain", failed), piloted.say("show", failed[:9]), piloted.say("status", failed)]

    explained, shown, listed, explained_after, shown_after, listed_after = told
    assert explained["state"] == shown["state"] == listed["jobs"][0]["state"] == "locked"
    assert any("is on disk and safe" in each for each in explained["sentences"])
    assert [event["what"] for event in shown["timeline"]] == ["claimed", "started"]
    assert (shown["correlation_id"], shown["workload"]) == (held, "probe")
    assert explained_after["state"] == shown_after["state"] == listed_after["jobs"][0]["state"] == "error"
    assert any("put-back" in each for each in explained_after["sentences"])
    assert [event["what"] for event in shown_after["timeline"]] == ["claimed", "started", "result", "confirmed"]
    assert "exit code 3" in shown_after["reason"] and "exit code 3" in listed_after["jobs"][0]["why"]
    assert sum(listed_after["outcomes"].popitem()[1].values()) == 2
    assert listed_after["pilots"][0]["done"] == listed_after["pilots"][0]["error"] == 1


def first_of(piloted: Piloted, state: str, correlation_id: str) -> str:
    """The id of this job once it has begun."""

    def begun() -> bool:
        said = json.loads(piloted.installation.check("pilots", "--list", state, "--json"))["jobs"]
        for row in said:
            story = piloted.say("show", row["job"])
            if story["correlation_id"] == correlation_id and len(story["timeline"]) == 2:
                found.append(row["job"])
        return bool(found)

    found: list[str] = []
    wait_until(begun, 20)
    return found[0]


def test_a_pilot_works_in_the_scratch_of_its_node_and_leaves_nothing_there(piloted: Piloted, tmp_path: Path) -> None:
    place = tmp_path / "scratch"
    piloted.installation.change_site("jobs_dir =", f"scratch = {json.dumps(str(place))}\njobs_dir =")

    asked = [piloted.ask() for _ in range(3)]

    assert all("Result" in body for body, _ in piloted.answers(asked).values())
    assert list(place.iterdir()) == []


def test_where_no_pilot_finds_a_place_jobs_are_tried_one_by_one_and_the_node_is_blamed(
    piloted: Piloted, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    piloted.installation.change_site("jobs_dir =", f"scratch = {json.dumps(str(tmp_path / 'file'))}\njobs_dir =")

    asked = [piloted.ask() for _ in range(2)]

    for body, headers in piloted.answers(asked).values():
        assert (headers["outcome"], headers["attempt"]) == ("failed", 3) and "no place for its files" in body["error"]
