"""A message is put to work again as a whole new job or not at all, whatever step the power fails at; and never by mistake."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.worker.examples import SPEC, config_for
from tests.worker.login.situations import job, message, outcome, result, started, submitted
from tests.worker.operate.ground import jobs_in, put
from worker.folder import paths
from worker.folder.jobs import JobsFolder
from worker.folder.moves import move_job
from worker.job.facts import Delivered, Message
from worker.job.names import JobId
from worker.job.snapshot import JobFacts
from worker.operate import cancel, replay, rerun, retry
from worker.settings import Config

LAYERS = {"Image": "/a", "Background": "/b", "Selected Regions": "/c", "rgba PNG - Layer 0": "/d"}
BODY = json.dumps({"inputs": LAYERS, "settings": {}})
VERBS = {"cancel": cancel, "retry": retry, "rerun": rerun, "replay": replay}


class PowerFailure(BaseException):
    pass


@pytest.fixture
def config(tmp_path: Path) -> Config:
    jobs = jobs_in(tmp_path)
    return config_for(tmp_path, changes={"jobs_dir": jobs.path})


@pytest.fixture
def jobs(config: Config) -> JobsFolder:
    return JobsFolder(config.site.jobs_dir)


def do(config: Config, *words: str, expect: int = 0) -> None:
    verb = VERBS[words[0]]
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(dry_run=False)
    assert verb.run(config, parser.parse_args(list(words[1:]))) == expect


def over(word: str = "failed", **properties: Any) -> JobFacts:
    facts = job(started(result=result(word)), spec=replace(SPEC, workload="train"), outcome=outcome("job", word=word))
    told = message(**{"timestamp": 1, "expiration": "1000", **properties})
    return replace(facts, message=replace(told, queue="hpc-jobs", body=BODY, body_size=len(BODY)))


def put_done(jobs: JobsFolder, word: str = "failed", name: str = "a") -> None:
    put(jobs, name, over(word), "done/2026-11-20", ("delivered.json", Delivered("answers", 1)))


def put_rejected(jobs: JobsFolder, body: str = BODY, name: str = "a") -> None:
    facts = over("rejected")
    facts = replace(facts, spec=None, message=replace(facts.message, body=body, body_size=len(body)))
    put(jobs, name, facts, "rejected", ("delivered.json", Delivered("answers", 1)))


def new_jobs(jobs: JobsFolder) -> list[str]:
    return [each.id for each in jobs.active_jobs()]


def message_of(jobs: JobsFolder, name: str) -> Message:
    found = jobs.job(JobId(name)).message.read()
    assert found is not None
    return found


@pytest.mark.parametrize(("verb", "place"), [("retry", put_done), ("rerun", put_done), ("replay", put_rejected)])
def test_the_message_becomes_a_new_job_and_the_old_one_says_so(
    verb: str, place: Any, config: Config, jobs: JobsFolder
) -> None:
    place(jobs)

    do(config, verb, "a")

    assert new_jobs(jobs) == ["a-r1"]
    new = jobs.job(JobId("a-r1"))
    origin, told = new.origin.read(), message_of(jobs, "a-r1")
    assert origin is not None and (origin.of, origin.verb) == ("a", verb)
    assert told.body == BODY and dict(told.properties) == {"reply_to": "answers", "correlation_id": "c"}
    assert new.spec.path.exists() == (verb == "retry")
    old = jobs.find(JobId("a"))
    assert old is not None and old.again(1).path.exists() and old.outcome.path.exists()
    assert f"operator verb={verb} job=a by=" in jobs.operator_log.read_text()


@pytest.mark.parametrize("verb", ["retry", "rerun", "replay"])
def test_the_same_command_given_twice_makes_one_job(verb: str, config: Config, jobs: JobsFolder) -> None:
    (put_rejected if verb == "replay" else put_done)(jobs)
    do(config, verb, "a")

    do(config, verb, "a", expect=65)
    do(config, verb, "--all")

    assert new_jobs(jobs) == ["a-r1"]


def test_one_that_ran_again_before_is_taken_by_its_id_only(config: Config, jobs: JobsFolder) -> None:
    put_done(jobs)
    do(config, "rerun", "a")
    move_job(jobs.job(JobId("a-r1")), jobs.done / "2026-11-21")

    do(config, "rerun", "--outcome", "failed")
    assert new_jobs(jobs) == []
    do(config, "rerun", "a")

    assert new_jobs(jobs) == ["a-r2"]


def test_a_job_of_a_job_is_numbered_like_its_siblings(config: Config, jobs: JobsFolder) -> None:
    put_done(jobs)
    put_done(jobs, name="a-r1")

    do(config, "rerun", "a-r1")

    assert new_jobs(jobs) == ["a-r2"]


@pytest.mark.parametrize("words", [
    ("retry", "b"), ("rerun", "b"), ("replay", "b"), ("cancel", "a"), ("retry", "c"), ("replay", "a"), ("cancel", "d"),
    ("rerun", "e"), ("retry", "e"), ("rerun", "a", "--memory-mb", "99999999"), ("rerun", "a", "--time", "never"),
    ("rerun", "nobody"), ("replay", "f"),
])  # fmt: skip
def test_what_can_t_be_done_is_refused_and_changes_nothing(
    words: tuple[str, ...], config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put_done(jobs)
    put(jobs, "b", job(submitted()))
    put_done(jobs, "succeeded", "c")
    put(jobs, "d", job(started(result=result()), outcome=outcome("job")))
    put_rejected(jobs, name="e")
    put_rejected(jobs, '{"inputs": {}}', "f")
    before = sorted(path for path in jobs.path.rglob("*"))

    do(config, *words, expect=65)

    assert sorted(path for path in jobs.path.rglob("*")) == before
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in said if line != ["job", "state", "what"]] in ([words[1]], ["nobody:"])


@pytest.mark.parametrize("verb", ["cancel", "retry", "rerun", "replay"])
@pytest.mark.parametrize("option", [(), ("--dry-run", "--all")])
def test_without_a_job_or_with_dry_run_it_only_shows(
    verb: str, option: tuple[str, ...], config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put_done(jobs)
    put_rejected(jobs, name="b")
    put(jobs, "c", job(submitted()))
    before = sorted(path for path in jobs.path.rglob("*"))

    do(config, verb, *option)

    assert sorted(path for path in jobs.path.rglob("*")) == before
    assert "Nothing was done" in capsys.readouterr().out


def test_rerun_says_how_many_matched_and_why_each_that_stays_was_left_out(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a1", "a2", "a3", "a4", "a5"):
        put_done(jobs, name=name)
    put_done(jobs, name="b1")
    do(config, "rerun", *(f"a{number}" for number in range(1, 6)))
    capsys.readouterr()

    do(config, "rerun", "--state", "done", "--json")
    told = json.loads(capsys.readouterr().out)
    do(config, "rerun", "--state", "done", "--dry-run")
    text = capsys.readouterr().out

    assert (told["matched"], told["exit_code"], told["format_version"]) == (6, 0, 1)
    assert [(row["job"], row["done"], row["new_job"]) for row in told["jobs"]] == [("b1", True, "b1-r1")]
    left_out = {row["job"]: (row["words"], row["new_job"]) for row in told["left_out"]}
    assert left_out == {f"a{n}": ("ran again before", f"a{n}-r1") for n in range(1, 6)}
    assert "6 jobs matched, 6 left out:" in text
    assert re.search(r"6 +ran again before +\w+, \w+, \w+, and 3 more\n", text)


def test_replay_says_why_a_message_would_be_rejected_again(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    put_rejected(jobs, '{"inputs": {}}', "f")

    do(config, "replay", "--all")

    text = capsys.readouterr().out
    assert "1 job matched, 1 left out:" in text and "would be rejected: " in text and "Nothing was done" not in text


def test_those_that_are_chosen_by_filters_are_put_to_work_in_the_order_in_which_they_were_claimed(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, at in (("c", 300), ("a", 200), ("b", 100)):
        put_done(jobs, name=name)
        os.utime(jobs.done / "2026-11-20" / name / "message.json", (at, at))

    do(config, "rerun", "--all", "--json")

    assert [row["job"] for row in json.loads(capsys.readouterr().out)["jobs"]] == ["b", "a", "c"]


def test_a_filter_chooses_and_leaves_the_others(config: Config, jobs: JobsFolder) -> None:
    put_done(jobs, "node_failed", "a")
    put_done(jobs, "failed", "b")
    put_done(jobs, "succeeded", "c")

    do(config, "retry", "--outcome", "node_failed")

    assert new_jobs(jobs) == ["a-r1"]


def test_nobody_is_answered_where_that_is_wanted(config: Config, jobs: JobsFolder) -> None:
    put_done(jobs)

    do(config, "rerun", "a", "--no-reply")

    assert "reply_to" not in message_of(jobs, "a-r1").properties


def test_resources_that_are_given_are_kept_for_the_new_job(config: Config, jobs: JobsFolder) -> None:
    put_done(jobs)

    do(config, "rerun", "a", "--memory-mb", "16000", "--time", "0-03:00")

    origin = jobs.job(JobId("a-r1")).origin.read()
    assert origin is not None and origin.resources == {"memory_mb": 16000, "time": "0-03:00"}


@pytest.mark.parametrize("verb", ["retry", "rerun"])
def test_whatever_step_the_power_fails_at_there_is_one_whole_new_job_in_the_end(
    verb: str, config: Config, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_done(jobs)
    steps: list[str] = []
    monkeypatch.setattr(paths, "crash_point", steps.append)
    do(config, verb, "a")
    assert len(steps) >= 8
    (made,) = new_jobs(jobs)
    files = sorted(path.name for path in (jobs.active / made).iterdir())
    paths.remove_tree(jobs.done)
    paths.remove_tree(jobs.active / made)

    for number in range(len(steps)):
        put_done(jobs)
        left: Optional[int] = number

        def fail(step: str) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    left = None
                    raise PowerFailure(step)

        monkeypatch.setattr(paths, "crash_point", fail)
        with pytest.raises(PowerFailure):
            do(config, verb, "a")
        for each in jobs.active_jobs():
            assert sorted(path.name for path in each.path.iterdir()) == files, steps[number]
        if not new_jobs(jobs):
            do(config, verb, "a")

        assert len(new_jobs(jobs)) == 1, steps[number]
        paths.remove_tree(jobs.active / new_jobs(jobs)[0])
        paths.remove_tree(jobs.done)


def test_a_cancellation_is_written_down_with_who_asked_and_why(config: Config, jobs: JobsFolder) -> None:
    put(jobs, "a", job(submitted()))

    do(config, "cancel", "a", "--reason", "not\x1b[2J needed")
    do(config, "cancel", "a", expect=65)

    asked = json.loads(jobs.job(JobId("a")).cancel_asked.path.read_text())
    assert "@" in asked["by"] and asked["reason"] == "not\N{REPLACEMENT CHARACTER}[2J needed."


@pytest.mark.parametrize(("answer", "cancelled"), [("y", True), ("", False), ("no", False), ("yes", True)])
def test_on_a_terminal_it_asks_first(
    answer: str, cancelled: bool, config: Config, jobs: JobsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(jobs, "a", job(submitted()))
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or answer)  # type: ignore[func-returns-value]

    do(config, "cancel", "a")

    assert asked == ["Cancel this job? [y/N] "]
    assert jobs.job(JobId("a")).cancel_asked.path.exists() == cancelled
