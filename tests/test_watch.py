"""check.py --watch on real services: it wakes at once, ends cleanly, and cron takes over at any moment, and back."""

from __future__ import annotations

import configparser
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

import check
from tests.both import one
from tests.installation import ROOT, Installation, wrapping
from tests.scene import Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import poll
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.test_alone import Alone


class Watch:
    """One process of check.py --watch."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._log = installation.folder / f"watch-{len(list(installation.folder.glob('watch-*')))}.log"
        with self._log.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "check.py"), "--watch", "--site", str(installation.site_file), "--credentials",
                 str(installation.credentials_file)],
                env=dict(installation.environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, words: str, seconds: float = 300, times: int = 1) -> None:
        assert poll(lambda: self.log.count(words) >= times, seconds), self.log + self._installation.describe()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def told_to_stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        self._process.send_signal(number)
        return self._process.wait(seconds)


Start = Callable[[Installation], Watch]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Watch] = []

    def begin(installation: Installation) -> Watch:
        started.append(Watch(installation))
        started[-1].says("watching")
        return started[-1]

    yield begin
    for watch in started:
        if watch.is_running():
            watch.kill()


def answered_once(scene: Scene, correlation_id: str) -> bool:
    answers = scene.requester.to(correlation_id)
    assert len(answers) <= 1
    return len(answers) == 1


def test_a_message_is_taken_at_once_and_its_job_put_away_soon_after_it_has_answered(scene: Scene, start: Start) -> None:
    scene.installation.change_site("poll_fastest = 0", "poll_fastest = 1")
    watch = start(scene.installation)
    time.sleep(2)

    correlation_id = scene.ask()
    watch.says("submitted", 120)
    assert scene.requester.wait_for(correlation_id, 120).output("Result")
    watch.says("archived", 120)

    assert "broker away" not in watch.log, "it was not heard, but seen when the connection was opened anew"
    assert scene.installation.active() == [] and scene.requester.waiting_jobs() == 0
    assert watch.told_to_stop() == 0
    assert len(scene.requester.to(correlation_id)) == 1


def test_a_job_s_bell_makes_room_for_the_next_message(scene: Scene, start: Start) -> None:
    scene.installation.change_site("max_in_flight = 300", "max_in_flight = 1")
    scene.installation.change_site("poll_fastest = 0\npoll_slowest = 0", 'poll_fastest = "1h"\npoll_slowest = "2h"')
    watch = start(scene.installation)

    asked = [scene.ask() for _ in range(3)]

    assert poll(lambda: all([answered_once(scene, each) for each in asked])), watch.log


def test_an_idle_watch_asks_slurm_nothing_says_nothing_and_ends_within_seconds(scene: Scene, start: Start) -> None:
    watch = start(scene.installation)
    time.sleep(4)

    for number in (signal.SIGTERM, signal.SIGINT):
        begun = time.monotonic()
        assert watch.told_to_stop(number) == 0
        assert time.monotonic() - begun < 30, "it waits for a message no longer"
        lines = watch.log.splitlines()
        assert len(lines) == 2 and "watching" in lines[0] and "stopped" in lines[1], watch.log
        if number is signal.SIGTERM:
            watch = start(scene.installation)


def test_beside_a_watch_neither_cron_nor_a_second_watch_does_anything(scene: Scene, start: Start) -> None:
    watch = start(scene.installation)

    assert "another pass is running" in scene.installation.check("--drain", expect=os.EX_TEMPFAIL)
    assert "another pass is running" in scene.installation.check("--watch", expect=os.EX_TEMPFAIL)
    assert watch.is_running()

    assert watch.told_to_stop() == 0
    scene.installation.check("--drain")


@pytest.mark.fault(what="the watch is killed", moment="with jobs claimed, submitted and running")
def test_cron_takes_over_from_a_watch_that_was_killed_in_the_middle(scene: Scene, start: Start) -> None:
    watch = start(scene.installation)
    asked = [scene.ask(sleep=1) for _ in range(4)]
    watch.says("submitted", 20)
    asked += [scene.ask() for _ in range(4)]
    watch.kill()
    asked += [scene.ask()]

    scene.installation.passes_until(lambda: all([answered_once(scene, each) for each in asked]))
    scene.installation.passes_until(lambda: not scene.installation.active())

    again = start(scene.installation)
    last = scene.ask()
    assert poll(lambda: answered_once(scene, last)), again.log
    assert all(answered_once(scene, each) for each in asked) and scene.requester.waiting_jobs() == 0


@pytest.mark.slow
@pytest.mark.long(seconds=120)
def test_a_watch_that_is_killed_again_and_again_answers_each_message_once(scene: Scene, start: Start) -> None:
    """With passes of cron in between, at moments that a seed picks; a second copy of an answer has to be equal."""
    dice, asked = random.Random(5), list[str]()
    for _ in range(12):
        watch = start(scene.installation)
        asked += [scene.ask() for _ in range(dice.randrange(1, 5))]
        time.sleep(dice.uniform(0.0, 2.5))
        watch.kill()
        if dice.random() < 0.3:
            scene.installation.check("--drain", expect=None)
    watch = start(scene.installation)

    done = poll(lambda: all([scene.requester.to(each) for each in asked]) and not scene.installation.active(), 120, 1)

    assert done, watch.log + scene.installation.describe()
    assert watch.told_to_stop() == 0 and scene.requester.waiting_jobs() == 0
    copies = {(a.correlation_id, a.properties.message_id, json.dumps(a.body)) for a in scene.requester.answers}
    assert sorted(correlation_id for correlation_id, _, _ in copies) == sorted(asked)


@pytest.mark.fault(what="the API refuses our login", moment="while a watch listens")
def test_a_login_that_is_refused_leaves_messages_in_the_queue_until_it_is_mended(scene: Scene, start: Start) -> None:
    scene.upstream.refuse_logins = 401
    watch = start(scene.installation)

    correlation_id = scene.ask()
    watch.says("kind=login", 20, times=2)
    assert scene.installation.active() == [] and poll(lambda: scene.requester.waiting_jobs() == 1)

    scene.upstream.refuse_logins = None
    assert poll(lambda: answered_once(scene, correlation_id)), watch.log


@pytest.mark.fault(what="the broker is restarted", moment="while a watch listens and a job runs")
def test_a_watch_outlives_its_broker(
    odd_folder: Path, private_rabbitmq: RabbitMQ, slurm: SlurmCluster, upstream: Upstream, start: Start
) -> None:
    scene = make_scene(odd_folder, private_rabbitmq, slurm, upstream)
    watch = start(scene.installation)
    first = scene.ask(sleep=3)
    watch.says("submitted", 20)

    scene.requester.close()
    private_rabbitmq.restart()
    scene.requester.connect()
    for queue in (scene.requester.jobs, scene.requester.results):
        scene.requester.channel.queue_declare(queue)  # they are not durable
    second = scene.ask()

    assert poll(lambda: answered_once(scene, second)), watch.log
    assert poll(lambda: answered_once(scene, first)), watch.log
    assert "broker away" in watch.log and watch.told_to_stop() == 0


@pytest.mark.fault(what="slurmctld is away", moment="while a watch listens")
def test_while_slurm_is_away_nothing_is_taken(
    odd_folder: Path, rabbitmq: Broker, private_slurm: SlurmCluster, upstream: Upstream, start: Start
) -> None:
    scene = make_scene(odd_folder, rabbitmq, private_slurm, upstream)
    watch = start(scene.installation)
    private_slurm.stop_controller()

    correlation_id = scene.ask()
    watch.says("kind=slurm", 60)
    assert scene.installation.active() == [] and poll(lambda: scene.requester.waiting_jobs() == 1)

    private_slurm.start_controller()
    assert poll(lambda: answered_once(scene, correlation_id)), watch.log


@pytest.mark.long(seconds=30)
def test_a_pause_wakes_a_watch_that_listens_and_so_does_its_end(scene: Scene, start: Start) -> None:
    watch = start(scene.installation)
    assert poll(lambda: consumers_of(scene) == 1, 60), watch.log

    scene.installation.check("pause")
    watch.says("paused, no message is taken", 60)
    assert poll(lambda: consumers_of(scene) == 0, 60), watch.log
    correlation_id = scene.ask()
    assert poll(lambda: scene.requester.waiting_jobs() == 1, 20), watch.log

    scene.installation.check("resume")
    assert poll(lambda: bool(scene.requester.to(correlation_id)), 60), watch.log


def consumers_of(scene: Scene) -> int:
    return int(scene.requester.channel.queue_declare(scene.requester.jobs, passive=True).method.consumer_count)


# --- on one machine with nothing


def test_a_watch_works_through_many_jobs_and_counts_what_it_did(
    tmp_path: Path, upstream: Upstream, start: Start
) -> None:
    alone = Alone(tmp_path / "it's here", upstream)
    watch = start(alone.installation)

    asked = [alone.ask() for _ in range(12)]
    watch.says("archived", 60, times=12)

    answers = [one(alone.broker, "results") for _ in range(13)]
    assert sorted(str(each.properties.correlation_id) for each in answers if each) == sorted(asked)
    assert watch.told_to_stop() == 0 and watch.log.count("Traceback") == 0


@pytest.mark.unhurried
@pytest.mark.fault(what="a Slurm command hangs for longer than lease_expires", moment="in a pass of a watch")
def test_a_pass_that_hangs_ends_the_watch_so_that_the_next_one_goes_on(
    tmp_path: Path, upstream: Upstream, start: Start
) -> None:
    alone = Alone(tmp_path / "it's here", upstream)
    alone.installation.change_site("[timing]", '[timing]\nlease_expires = "2s"')
    alone.installation.change_site('scheduler = "local"', 'scheduler = "slurm"')
    hanging = wrapping(tmp_path, "exec sleep 300", command="squeue")
    alone.installation.change_site("[timing]", f"[slurm]\n{hanging}\n[timing]")
    watch = start(alone.installation)
    time.sleep(4)
    assert watch.is_running(), "to wait is no pass"

    alone.ask()
    watch.says("took longer than lease_expires", 20)
    assert poll(lambda: not watch.is_running()) and watch.told_to_stop() == os.EX_TEMPFAIL


# --- what is shipped to start it


def test_the_systemd_unit_starts_a_watch_and_not_again_what_only_a_person_can_mend() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "contrib" / "batchferry.service")
    service = unit["Service"]

    shell, option, command = shlex.split(service["ExecStart"])
    python, isolated, door, *arguments = command.removeprefix("exec ").partition(" >>")[0].split()

    assert (shell, option, python, isolated, door) == ("/bin/sh", "-c", ".venv/bin/python", "-E", "check.py")
    assert options_of_the_door(arguments)["stay"] is True
    assert service["RestartPreventExitStatus"].split() == [str(os.EX_USAGE), str(os.EX_CONFIG)]


def test_the_scrontab_runs_what_is_there() -> None:
    text = (ROOT / "contrib" / "scrontab").read_text()
    entries = [line.lstrip("#").split("exec ")[1] for line in text.splitlines() if re.match(r"#?\*", line)]

    one_pass, watch = (entry.split() for entry in entries)

    assert (ROOT / Path(one_pass[0]).name).exists() and watch[:3] == [".venv/bin/python", "-E", "check.py"]
    assert options_of_the_door(watch[3:])["stay"] is True


def options_of_the_door(arguments: list[str]) -> dict[str, object]:
    return vars(check._parser().parse_args(arguments))


def test_a_verb_s_own_watch_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", "status", "--watch"])  # only this verb's options are read

    options = options_of_the_door(["status", "--watch"])

    assert options["every"] and not options["stay"]


@pytest.mark.parametrize("more", [["--dry-run"], ["resend"]])
def test_a_watch_does_nothing_else(more: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "check.py"), "--watch", *more], capture_output=True, text=True, check=False
    )

    assert done.returncode == os.EX_USAGE and "--watch" in done.stderr
