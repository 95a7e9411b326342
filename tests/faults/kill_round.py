"""One installation's life under kills: messages of every kind, passes and workers that are killed, then normal passes and
the books."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pika
import psutil

from tests.faults.crashing import AT_POINT, AT_RANDOM, CALM, FORGOTTEN, STOPPED, WITH_WORKLOAD, Event, Plan, point
from tests.faults.kill_books import GOOD, KINDS, PAGE, PROVOKED_BY, Asked, Books, Consumer, draw
from tests.faults.kill_tally import Tally, Where
from tests.installation import ROOT, Installation, cron_environment, wrapping
from tests.scene import IMAGE
from tests.services.daemon import poll
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from tests.sweep import sweep
from worker.folder.jobs import JobsFolder

_RETRY = '{ attempts = 3, wait = "0s", on = ["node_failed", "preempted", "fetch", "start", "lost"] }'
_SETTINGS = {
    "local": {
        "visible_after": "0s",
        "adopt_after": "1s",
        "lost_after": "1s",
        "cut_off_after": "1s",
        "retry_wait": "1s",
    },
    "slurm": {"visible_after": "2s", "retry_wait": "1s"},
}
_EVERYWHERE = {
    "timing": {"hopeless_after": '"1s"', "lease_expires": '"60s"'},
    "replies": {"give_up_after": '"1s"'},
    "slurm": {"commands_per_second": "100.0", "commands_at_once": "1000"},
}
_MODES = {AT_POINT: 10.0, AT_RANDOM: 2.0, WITH_WORKLOAD: 1.0, FORGOTTEN: 0.8, STOPPED: 1.5, CALM: 5.0}
_MOST_OPEN = 12
_FINISH_SECONDS = {"local": 90.0, "slurm": 180.0}
_KEPT = {
    "lease.json", "cluster.json", "slurm_budget.json", "standing.json", "tally.json", "installation.json", "operator.log",
    "turns.json", "workloads.json", "touched", "retention.json",
}  # fmt: skip
"""Files of the jobs folder itself that stay."""
_HELD = ("held",)
"""In place of options: Slurm does not start what this pass submits."""
_SORRY = re.compile(r"Traceback|unforeseen|damaged|left alone|can't be used|please report")


class Round:
    """`folder` is its own; what it leaves there is for whoever looks into a violation."""

    def __init__(self, number: int, folder: Path, seed: str, rabbitmq: Any, slurm: Optional[SlurmCluster],
                 tally: Tally, quota: int) -> None:  # fmt: skip
        self.number, self.folder, self.seed, self.quota = number, folder, seed, quota
        self.scheduler = "slurm" if slurm else "local"
        self.dice = random.Random(seed)
        self.kills = 0
        self.asked: list[Asked] = []
        self.events: list[Event] = []
        self.printed: list[str] = []
        self._tally, self._slurm, self._rabbitmq = tally, slurm, rabbitmq
        self._last: Where = ("", "")
        self._read = {"events": 0, "passed": 0}
        self._typical = 0.6
        self._held = False

    def run(self) -> list[str]:
        """Violations, each a sentence; empty if the books balance and nothing is left behind. With a quota of 0, no kills."""
        with Upstream() as self.upstream:
            self.upstream.add(IMAGE, PAGE)
            self._prepare()
            try:
                (self._live if self.quota else self._live_unharmed)()
                found = [*self._finish(), *self._audit()]
            finally:
                self._end_processes()
                self.consumer.close()
                self._publisher.close()
        if not found:
            shutil.rmtree(self.folder, ignore_errors=True)
        return [f"round {self.number} ({self.scheduler}, seed {self.seed}): {words}" for words in found]

    # --- before

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True)
        self.plans = self.folder / "plans"
        self.plans.mkdir()
        queue = f"kills-{os.urandom(4).hex()}"
        self.results = f"{queue}-results"
        self.consumer = Consumer(self._rabbitmq, self.results)
        self.consumer.watch(queue)
        self.consumer.queues.remove(queue)
        self._publisher = self._connect()
        environment = cron_environment(self._slurm.environment()) if self._slurm else {"PATH": "/usr/bin:/bin"}
        self.installation = Installation(
            self.folder / "installation", self._rabbitmq, self.upstream.url, self.upstream.user, self.upstream.password,
            environment, queue, retry=_RETRY,
        )  # fmt: skip
        self._adapt_site()

    def _connect(self) -> Any:
        login = pika.PlainCredentials(self._rabbitmq.user, self._rabbitmq.password)
        return pika.BlockingConnection(
            pika.ConnectionParameters(self._rabbitmq.host, self._rabbitmq.port, self._rabbitmq.vhost, login)
        )

    def _adapt_site(self) -> None:
        """The worker's python is a script that runs it with a plan; passes may use a site file or credentials with a fault."""
        here = self.installation
        python = self.folder / "python"
        words = shlex.join([sys.executable, "-m", "tests.faults.crashing", str(self.plans), "job"])
        python.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        python.chmod(0o700)
        here.change_site(f"python = {json.dumps(sys.executable)}", f"python = {json.dumps(str(python))}")
        here.site_file.write_text(
            f'scheduler = "{self.scheduler}"\n' + _adapted(here.site_file.read_text(), self.scheduler)
        )
        self.holding = here.folder / "holding"
        hold = f'[ ! -e {shlex.quote(str(self.holding))} ] || set -- --hold "$@"\nexec sbatch "$@"'
        here.change_site("[slurm]\n", f"[slurm]\n{wrapping(here.folder, hold)}\n")
        self.refused = here.folder / "refused.env"
        self.refused.touch(mode=0o600)
        self.refused.write_text(here.credentials_file.read_text().replace(self.upstream.password, "not it"))

    # --- while the kills go on

    def _live(self) -> None:
        while self.kills < self.quota and not self._tally.enough():
            self._publish(self.dice.randint(0, 3))
            self._plan_jobs(self._modes())
            self._one_pass()
            self._look()
            time.sleep(self.dice.choice([0, 0, 0.1, 0.3]))

    def _live_unharmed(self) -> None:
        """Every kind of message and of trouble, and no kill of ours: it shows which points there are."""
        first = [FORGOTTEN, STOPPED, FORGOTTEN]
        Plan(self.seed, modes={CALM: 1.0}, first=first).write(self.plans, "job")
        for kind in (GOOD, *KINDS, GOOD):
            self.ask(kind)
        self.check(Plan(), ["--credentials", str(self.refused)])
        if self._slurm:
            self._held = True
            self.check(Plan(), _HELD)
            for kind in (GOOD, *KINDS):
                self.ask(kind)
        poll(lambda: self.check(Plan()) < 0 or (self.plans / f"worker.{len(first)}").exists(), 30)
        poll(lambda: self.check(Plan()) < 0 or any(self.installation.jobs.undelivered.iterdir()), 30)
        self.check(Plan(), ["resend", "--all"])

    def _modes(self) -> Mapping[str, float]:
        more = {STOPPED: "verdict.json", FORGOTTEN: "late_result.json"}
        return {**_MODES, **{mode: 4.0 for mode, step in more.items() if self._tally.lacks(step)}}

    def _publish(self, count: int) -> None:
        for _ in range(count if len(self.installation.active()) < _MOST_OPEN else 0):
            wanted = [kind for step, kind in PROVOKED_BY.items() if self._tally.lacks(step)]
            self.ask(self.dice.choice(wanted) if wanted and self.dice.random() < 0.5 else "")

    def ask(self, kind: str = "") -> None:
        asked = draw(f"{self.number}-{len(self.asked)}", self.results, self.folder, self.dice, kind)
        if asked.own_queue:
            self.consumer.watch(asked.own_queue)
        channel = self._publisher.channel()
        for _ in range(asked.copies):
            channel.basic_publish("", self.installation.queue, asked.body, pika.BasicProperties(**asked.properties))
        channel.close()
        self.asked.append(asked)

    def _plan_jobs(self, modes: Mapping[str, float], first: Sequence[str] = ()) -> None:
        points, otherwise = self._tally.targets("job", self.dice)
        Plan(f"{self.seed}/{self.dice.random()}", points, otherwise, modes, first).write(self.plans, "job")

    def _one_pass(self) -> None:
        if self.dice.random() < 0.25:
            self._pass_killed_from_outside()
        else:
            points, otherwise = self._tally.targets("login", self.dice)
            plan = Plan(f"{self.seed}/{self.dice.random()}", points, otherwise)
            self.check(plan if self.dice.random() < 0.85 else Plan(), self._odd_options())

    def _odd_options(self) -> Sequence[str]:
        """A pass to which Slurm does not start what it submits, or which the API does not let in; or no pass, but a verb."""
        if self._slurm and self.dice.random() < (0.4 if self._tally.lacks("stuck.json") else 0.15):
            self._held = True
            return _HELD
        if self.dice.random() < (0.2 if self._tally.lacks("move to active") else 0.05):
            return ["resend", "--all"]
        refused = self.dice.random() < (0.3 if self._tally.lacks("site_fault.json") else 0.05)
        return ["--credentials", str(self.refused)] if refused else []

    def check(self, plan: Plan, options: Sequence[str] = ()) -> int:
        """One pass of check.py under this plan; returns how it ended."""
        if options is _HELD:
            self.holding.touch()
        else:
            self.holding.unlink(missing_ok=True)
        plan.write(self.plans, "login")
        module = ["-m", "tests.faults.crashing", str(self.plans), "login"]
        with self._started(*module, *self._arguments(() if options is _HELD else options)) as process:
            self.printed.append(process.communicate(timeout=300)[0])
        assert process.returncode != os.EX_CONFIG, self.printed[-1]
        return process.returncode

    def _arguments(self, options: Sequence[str]) -> list[str]:
        here = self.installation
        usual = ["--site", str(here.site_file), "--credentials", str(here.credentials_file)]
        # Of an option that is given twice, the last one counts.
        return [*([] if "resend" in options else ["--drain"]), *usual, *options]

    def _started(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], env=dict(self.installation.environment), cwd=ROOT, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _pass_killed_from_outside(self) -> None:
        """check.py as cron starts it; sometimes with what it has started, sbatch for example."""
        begun = time.monotonic()
        with self._started(str(ROOT / "check.py"), *self._arguments(())) as process:
            try:
                process.wait(self.dice.uniform(0.05, 1.3 * self._typical))
                self._typical = 0.7 * self._typical + 0.3 * (time.monotonic() - begun)
            except subprocess.TimeoutExpired:
                if self.dice.random() < 0.5:
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            # Not to its end: what it started may hold the pipe open.
            self.printed.append(process.communicate()[0])
        if process.returncode == -signal.SIGKILL:
            Event("login", AT_RANDOM).write(self.plans)

    def _look(self) -> None:
        events = [Event(**line) for line in self._new_lines("events")]
        passed = [(side, Counter(counts)) for side, counts in self._new_lines("passed")]
        self._last = self._tally.add(events, passed, self._last)
        self.events += events
        self.kills += sum(event.point != STOPPED for event in events)
        self.consumer.collect()
        self._publisher.process_data_events()

    def _new_lines(self, name: str) -> Iterator[Any]:
        file = self.plans / name
        if not file.exists():
            return
        with open(file, encoding="utf-8") as lines:
            lines.seek(self._read[name])
            content = lines.read()
        self._read[name] += len(content)
        yield from map(json.loads, content.splitlines())

    # --- afterwards

    def _finish(self) -> Iterator[str]:
        """Normal passes until nothing is left to do, and two more: what is left behind then is left for ever."""
        self._plan_jobs({CALM: 1.0})
        end = time.monotonic() + _FINISH_SECONDS[self.scheduler]
        code = -1
        while code != os.EX_OK or self.installation.active() or self._waiting():
            if time.monotonic() > end:
                yield f"not finished after {_FINISH_SECONDS[self.scheduler]:.0f} s:\n{self.installation.describe()}"
                return
            code = self.check(Plan())
            self._look()
            time.sleep(0.2)
        self._let_time_pass()
        for _ in range(2):
            self.check(Plan())
        self._look()

    def _let_time_pass(self) -> None:
        """What a writer that was killed left aside may be a living one's, until the lease has expired."""
        for aside in self.installation.jobs.path.glob(".*.????????"):
            with contextlib.suppress(FileNotFoundError):
                written = aside.lstat().st_mtime - 3600
                os.utime(aside, (written, written))

    def _waiting(self) -> int:
        channel = self._publisher.channel()
        count = int(channel.queue_declare(self.installation.queue, passive=True).method.message_count)
        channel.close()
        return count

    def _audit(self) -> Iterator[str]:
        yield from self._processes_left()
        self._look()
        books = Books(self.asked, self.consumer.replies, self.events, self._held)
        self._tally.add_books(len(self.asked), books.copies)
        yield from books.violations()
        yield from leftovers(self.installation, {"API password": [self.upstream.password],
                                                 "broker password": [self._rabbitmq.password],
                                                 "token": sorted(self.upstream.tokens)},
                             spared={self.refused.name, self.installation.credentials_file.name})  # fmt: skip
        for text in self.printed:
            yield from (f"check.py said: {text[-3000:]}" for _ in _SORRY.findall(text)[:1])

    def _processes_left(self) -> Iterator[str]:
        end = time.monotonic() + 20
        while self._processes() and time.monotonic() < end:
            time.sleep(0.1)
        yield from (f"a process is left: {shlex.join(p.info['cmdline'])}" for p in self._processes())

    def _processes(self) -> list[psutil.Process]:
        place = str(self.folder)
        return [p for p in psutil.process_iter(["cmdline"]) if any(place in word for word in p.info["cmdline"] or ())]

    def _end_processes(self) -> None:
        for process in self._processes():
            process.kill()


def _adapted(site: str, scheduler: str) -> str:
    """The site file with times that fit a run of many short lives."""
    for name, value in _SETTINGS[scheduler].items():
        site, times = re.subn(rf'(?m)^{name} = ".*"$', f'{name} = "{value}"', site)
        assert times == 1, name
    for table, settings in _EVERYWHERE.items():
        site = site if f"[{table}]" in site else f"{site}\n[{table}]\n"
        for name, value in settings.items():
            site = re.sub(rf"(?m)^{name} = .*\n", "", site)
            site = site.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n")
    return site


def leftovers(installation: Installation, secrets: Mapping[str, Sequence[str]], spared: set[str]) -> Iterator[str]:
    """Files that nobody needs any more, and secrets, wherever they are."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(installation.jobs.path.rglob("*")):
        for what in _superfluous(installation.jobs, path):
            found[what].append(path)
    for what, paths in found.items():
        yield f"{what} is left behind {len(paths)} times, for example {paths[0].relative_to(installation.jobs.path)}"
    for finding in sweep(secrets, folders=[installation.folder]):
        if not any(f"/{name} 0600" in finding.where for name in spared):
            yield f"the {finding.secret} is in {finding.where}"


def _superfluous(jobs: JobsFolder, path: Path) -> Iterator[str]:
    if jobs.path / "local" in path.parents:
        return  # the local scheduler keeps its records for ever
    if path.name in (".bytes", ".outputs") and path.parent.parent == jobs.done:
        return  # the sizes of a day's jobs, and which of them have kept outputs
    if path.name.startswith(".lease.json."):
        return  # another pass may be writing it at this moment; it goes when it is old
    if path.name.startswith("."):
        yield f"a temporary file ({point(path.name)})"
    elif path.name in ("token", "work"):
        yield path.name
    elif path.parent == jobs.groups:
        yield f"a file of a group ({path.suffix})"
    elif path.parent == jobs.active or (path.parent == jobs.path and path.is_file() and path.name not in _KEPT):
        yield str(path.relative_to(jobs.path))
