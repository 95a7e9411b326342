"""One installation and all that is around it. The product's code runs as it is; only what it touches of the machine is ours:
clock, fsync, HTTP, the workload's process, the kernel's count of kills.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import secrets
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
import requests.adapters
import urllib3

from tests.worker.examples import NOW, read
from tests.worker.model.books import Attempt, Books, Broken, Sent, promise
from tests.worker.model.cluster import Cluster, SlurmJob
from tests.worker.model.power import LATER_THAN_ANY_STORY, Event, PowerFailure, Process, Trouble
from tests.worker.spending import Spending
from worker.build import open_ends
from worker.embedded import Embedded
from worker.errors import Damaged, Transient
from worker.folder import paths
from worker.folder.jobs import JobsFolder
from worker.folder.records import Fact
from worker.in_job import fetch, memory
from worker.in_job.run import run
from worker.in_job.steps import Placement
from worker.job.facts import Asked, Group
from worker.job.names import JobId
from worker.login.guard import guarded
from worker.login.lease import Lease
from worker.login.passes import Passes
from worker.login.resend import resend
from worker.sources import Properties

SITE = """\
broker = "embedded"
broker_file = "broker/queues.sqlite"
jobs_dir = "jobs"

[timing]
keep_done = "9000d"

[[queues]]
name = "jobs"
workload = "once"

[queues.resources]
memory_mb = 1000
time = "2h"

[workloads.once]
argv = ["/bin/true"]
forms = [{ required = ["Page"], outputs = { "Copy" = ".png" } }]
retry = { attempts = 1 }

[workloads.often]
argv = ["/bin/true"]
forms = [{ required = ["Page"], outputs = { "Copy" = ".png" } }]

[workloads.always]
argv = ["/bin/true"]
forms = [{ required = ["Page"], outputs = { "Copy" = ".png" } }]
retry = { on = ["node_failed", "preempted", "lost", "out_of_memory", "timed_out", "fetch", "pack", "start"] }
"""
_DROPPED = ("before ack", "after ack", "before publish", "after publish")
"""Moments at which the product talks to the broker."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
_DEEPEST = 3
"""Processes that run side by side."""


class _WithoutThreads:
    """As on a node where no thread can be started."""

    Lock = threading.Lock

    class Thread:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't start new thread")


class World:
    """`place`: a folder of its own. Everything that can happen is a method; the arguments are plain, so that a story reads."""

    def __init__(self, place: Path, accounting: bool, scarce: bool = False) -> None:
        """`scarce`: the site allows few Slurm commands."""
        self.now = NOW
        place.mkdir(parents=True)
        few = "\n[slurm]\ncommands_per_second = 0.01\ncommands_at_once = 3\n" if scarce else ""
        config = read(place, SITE + few)
        self.config = replace(config, root=place)
        self.broker_folder, self._broker_aside = place / "broker", place / "broker.away"
        self.broker_folder.mkdir()
        self.jobs = JobsFolder(self.config.site.jobs_dir)
        self.jobs.prepare()
        self.books = Books()
        self.cluster = Cluster(lambda: self.now, self.books, self._attempt_of, accounting)
        self.cluster.killed = self._kill_worker
        self.api = "well"
        self.full = False
        self.processes: list[Process] = []
        self.kernel = place / "memory.events"
        self._kills = 0
        self._names = 0
        self._caches: list[bytes] = []
        """What the passes left that is no fact."""
        self._broken: Optional[Broken] = None
        self.reply_queue(True)

    # --- what may happen

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def publish(self, body: bytes, reply_to: Optional[str] = "answers", named: bool = True,
                expiration: Optional[int] = None) -> None:  # fmt: skip
        name = f"c-{len(self.books.sent)}" if named else None
        self._send(Sent(0, body, reply_to, name, expiration, self.now))

    def publish_again(self, which: int) -> None:
        if self.books.sent:
            self._send(replace(self.books.sent[which % len(self.books.sent)], at=self.now))

    def reply_queue(self, there: bool) -> None:
        how = (
            "INSERT OR IGNORE INTO queues VALUES ('answers')" if there else "DELETE FROM queues WHERE name = 'answers'"
        )
        with self._borders():
            Embedded(self.broker_file, self.config.site.replies).waiting(self.config.site.queues[0])
        self._change_broker(how)

    def broker_away(self, away: bool) -> None:
        if away == self.broker_folder.exists():
            source, target = self.broker_folder, self._broker_aside
            os.rename(*((source, target) if away else (target, source)))

    def api_is(self, state: str) -> None:
        """well, refused or away."""
        self.api = state

    def disk_full(self, full: bool) -> None:
        self.full = full

    def slurm_away(self, away: bool) -> None:
        self.cluster.away = away

    def accounting_away(self, away: bool) -> None:
        self.cluster.accounting_away = away

    def slurm_deaf(self, deaf: bool) -> None:
        self.cluster.deaf = deaf

    def slurm_has_room_for(self, most: int) -> None:
        self.cluster.most = most

    def slurm_declines(self, shape: str) -> None:
        """all, those that ask for more than one CPU (large), or none."""
        self.cluster.declined_shape = shape

    def luck_of_next_sbatch(self, luck: str) -> None:
        self.cluster.luck = luck

    def cache_is(self, what: str, which: int) -> None:
        """lost, damaged, or as an earlier pass left it; a bell is lost, or rings without a reason."""
        if what == "lost":
            self.jobs.standing.unlink(missing_ok=True)
        elif what == "damaged":
            self.jobs.standing.write_text(self.jobs.standing.read_text()[:-9] if self.jobs.standing.exists() else "{")
        elif what == "stale" and self._caches:
            self.jobs.standing.write_bytes(self._caches[which % len(self._caches)])
        elif what == "deaf":
            self.jobs.hear()
        elif what == "rings":
            for job in self.jobs.active_jobs():
                self.jobs.ring(job.id)

    def slurm_ends(self, which: int, state: str) -> None:
        """`state`: Slurm's word, or "as it was"; a job that its worker has left is looked for first."""
        job = self._pick(which, lambda job: job.state == "RUNNING") or self._pick(which, lambda job: job.alive)
        if job is not None:
            natural = "COMPLETED" if job.finished else "FAILED"
            self.cluster.end(job, natural if state == "as it was" else state)

    def slurm_requeues(self, which: int) -> None:
        job = self._pick(which, lambda job: job.state == "RUNNING")
        if job is not None:
            self.cluster.requeue(job)

    def slurm_holds(self, which: int, reason: str) -> None:
        job = self._pick(which, lambda job: job.state == "PENDING")
        if job is not None:
            job.reason = reason

    def slurm_forgets(self, which: int, forgotten: bool) -> None:
        """For a while, or for good."""
        job = self._pick(which, lambda job: True)
        if job is not None:
            job.forgotten = forgotten

    def slurm_brings_back(self, which: int) -> None:
        job = self._pick(which, lambda job: not job.alive and not job.began)
        if job is not None:
            self.cluster.bring_back(job)

    def slurm_commands_are_used_up(self) -> None:
        self.jobs.budget.write_text(json.dumps({"tokens": 0, "at": self.now}))

    def job_begins(self, which: int, fate: str, sees_memory: bool, troubles: tuple[Trouble, ...] = ()) -> None:
        """One that waits, or one that Slurm has lost the sight of on a failed node."""
        job = self._pick(which, lambda job: not job.began and (self.cluster.may_start(job) or job.state == "NODE_FAIL"))
        if job is not None and len(self.processes) < _DEEPEST:
            job.state, job.began = "RUNNING" if job.alive else job.state, True
            self._work(job, fate, sees_memory, troubles)

    def one_pass(self, drain: bool, troubles: tuple[Trouble, ...] = ()) -> None:
        if len(self.processes) >= _DEEPEST:
            return
        self._note_away()
        with self._process(Process("pass", troubles)):
            self.cluster.alone = sum(process.kind == "pass" for process in self.processes) == 1
            guarded(self.config, lambda jobs, held: self._pass(self._passes(jobs, held), drain))
        self._note_away()
        if self.jobs.standing.exists():
            self._caches.append(self.jobs.standing.read_bytes())

    def a_watch(self, passes: int, seconds: float, troubles: tuple[Trouble, ...] = ()) -> None:
        """Passes of one process, with time and jobs between them."""
        if len(self.processes) >= _DEEPEST:
            return
        self._note_away()
        with self._process(Process("pass", troubles)):
            self.cluster.alone = sum(process.kind == "pass" for process in self.processes) == 1
            guarded(self.config, lambda jobs, held: self._watch(self._passes(jobs, held, True), passes, seconds))
        self._note_away()

    def _passes(self, jobs: JobsFolder, held: Lease, watching: bool = False) -> Passes:
        return Passes(self.config, jobs, held, open_ends(self.config), watching,
                      lambda spent_on: Spending(self.cluster, spent_on))  # fmt: skip

    def _pass(self, process: Passes, drain: bool) -> int:
        with process:
            return process.run(drain)

    def _watch(self, process: Passes, passes: int, seconds: float) -> int:
        with process:
            for _ in range(passes):
                self._note_away()
                process.begin().run(drain=True)
                self.tick(seconds)
                self.job_begins(0, "well", True)
                self.slurm_ends(0, "as it was")
            process.quiet.save()
            process.tell(0)
        return 0

    def operator_resends(self) -> None:
        """Slurm is not asked by what follows, and must not be."""
        config = replace(self.config, site=replace(self.config.site, scheduler="local"))
        with self._process(Process("resend", ())), contextlib.redirect_stdout(io.StringIO()):
            resend(config, [], everything=True, dry_run=False, in_json=False)

    def operator_cancels(self, which: int) -> None:
        """As `check.py cancel` does it: a fact that the passes obey, or nothing for a job that has its outcome."""
        open_ones = [
            job for job in self.jobs.active_jobs() if job.message.path.exists() and not job.outcome.path.exists()
        ]
        if open_ones:
            job = open_ones[which % len(open_ones)]
            self.books.cancel_asked.add(job.id)
            with self._process(Process("operator", ())), contextlib.suppress(OSError):
                job.cancel_asked.write(Asked("mary@login1", self.now, "It is not needed."))

    # --- what must come of it

    def outcomes_are_noted(self) -> None:
        """In the midst of things, when not all else can be checked."""
        self.books.note_outcomes(self.jobs.path)

    def check(self) -> None:
        if self._broken is not None:
            raise self._broken
        self.books.check(self.broker_file, self.jobs.path, self.now)

    def settle(self) -> None:
        """Everything is healthy, and time passes."""
        self.mend()
        for seconds in [0, 100, 100, 700, 3700] * 8:
            self.tick(seconds)
            self._let_jobs_run()
            self.one_pass(drain=True)
            self.check()
            if seconds == 700 and os.listdir(self.jobs.undelivered):
                self.operator_resends()
            if self._at_rest():
                break
        # What a writer left aside may be a living one's until then.
        self.tick(self.config.site.timing.lease_expires + 1)
        self.one_pass(drain=True)
        self.check()
        self.books.check_end(self.jobs.path)

    def mend(self) -> None:
        self.broker_away(False)
        self.reply_queue(True)
        self.api_is("well")
        self.disk_full(False)
        self.cluster.away = self.cluster.accounting_away = self.cluster.deaf = False
        self.cluster.luck, self.cluster.most, self.cluster.declined_shape = "taken", 1000, ""
        for job in self.cluster.jobs:
            job.reason = "Resources"

    def _let_jobs_run(self) -> None:
        for job in self.cluster.jobs:
            if self.cluster.may_start(job):
                job.state, job.began = "RUNNING", True
                self._work(job, "well", True, ())
            if job.state == "RUNNING":
                self.cluster.end(job, "COMPLETED" if job.finished else "FAILED")

    def _at_rest(self) -> bool:
        with sqlite3.connect(self.broker_file) as db:
            waiting = db.execute("SELECT count(*) FROM messages WHERE queue = 'jobs'").fetchone()[0]
        db.close()
        return not waiting and not any(map(os.listdir, (self.jobs.active, self.jobs.undelivered)))

    # --- a process of the product

    @contextlib.contextmanager
    def _process(self, process: Process) -> Iterator[None]:
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._release_what_the_dead_held()
        self.processes.append(process)
        try:
            with self._borders():
                yield
        except PowerFailure:
            process.bury(self.jobs.path)
        finally:
            self.processes.pop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._stamp()

    @contextlib.contextmanager
    def _borders(self) -> Iterator[None]:
        """Ours only while the product runs."""
        if len(self.processes) > 1:
            yield
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "crash_point", self.moment)
            patch.setattr(os, "fsync", self._fsync)
            patch.setattr(os, "utime", self._utime(os.utime))
            patch.setattr(time, "time", lambda: self.now)
            patch.setattr(time, "monotonic", lambda: self.now)
            patch.setattr(time, "sleep", self._sleep)
            patch.setattr(signal, "setitimer", lambda *_: None)
            patch.setattr(secrets, "token_hex", self._token_hex)
            patch.setattr(requests.adapters.HTTPAdapter, "send", self._http())
            patch.setattr(memory, "_counter_file", lambda proc: self.kernel)
            patch.setattr(
                fetch, "threading", _WithoutThreads
            )  # what happens meanwhile happens in the one that there is
            logger, handler = logging.getLogger("worker"), _Handler(self._logged)
            logger.addHandler(handler)
            try:
                yield
            finally:
                logger.removeHandler(handler)

    def moment(self, step: str) -> None:
        """The product passes here before and after each durable step, and while it waits for somebody else."""
        process = self.processes[-1] if self.processes else None
        if process is None:
            return
        for trouble in process.next_troubles(step):
            try:
                self._strike(process, step, trouble)
            except Broken as error:
                self._broken = error  # the product may take it for an error of its own, and go on
                raise
        if process.killed:
            process.die(self.jobs.path)

    def _strike(self, process: Process, step: str, trouble: Trouble) -> None:
        if trouble.kind == "crash":
            process.die(self.jobs.path)
        elif trouble.kind == "drops" and step in _DROPPED:
            raise Transient("the connection was closed")
        elif trouble.kind == "full":
            self.full = True
        elif trouble.kind == "told to stop" and process.kind == "worker" and process.slurm_job is not None:
            self.books.evidence[process.slurm_job.attempt].add("node_failed")
            signal.raise_signal(signal.SIGTERM)
        for event in trouble.events:
            self.happen(event)
        if trouble.events and process.kind == "worker":
            signal.raise_signal(signal.SIGALRM)  # a tick of its clock, as the first thing after it was suspended

    def happen(self, event: Event) -> None:
        name, *arguments = event
        getattr(self, str(name))(*arguments)

    # --- the job's side

    def _work(self, slurm_job: SlurmJob, fate: str, sees_memory: bool, troubles: tuple[Trouble, ...]) -> None:
        """As `python -m worker run` does it. A worker that dies of an error leaves what one leaves that is killed."""
        with self._process(Process("worker", troubles, slurm_job)), self._program(fate, sees_memory):
            group = Fact(Path(slurm_job.group), Group).read()
            job_id, number = slurm_job.attempt
            job = self.jobs.job(JobId(job_id))
            answered = job.outcome.path.exists()
            if not job.spec.path.exists() or not job.attempt(number).intent.path.exists():
                return
            known = group is not None and group.members.get(str(slurm_job.element)) == slurm_job.attempt
            promise(known or answered, f"the group of {slurm_job.attempt} does not know it")
            if not known:
                return
            before = self.books.began[slurm_job.attempt]
            with contextlib.suppress(OSError, Damaged):
                run(self.config, job, number, Placement(slurm_job.slurm_id, slurm_job.restarts, "n1", sees_memory))
            promise(
                not answered or self.books.began[slurm_job.attempt] == before, "it worked for a job that was answered"
            )
            slurm_job.finished = True

    @contextlib.contextmanager
    def _program(self, fate: str, sees_memory: bool) -> Iterator[None]:
        """The workload's process, which runs in ours."""
        world = self

        class Program:
            pid = -1
            ended = False

            def __init__(self, argv: Sequence[str], cwd: Path, **more: Any) -> None:
                self.folder = cwd

            def wait(self, timeout: Optional[float] = None) -> int:
                if self.ended:
                    return -signal.SIGTERM
                self.ended = True
                return world._run_program(self.folder, fate)

        listdir = os.listdir
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "Popen", Program)
            patch.setattr(os, "listdir", lambda path=".": [] if path == "/proc" else listdir(path))
            self.kernel.write_text(f"oom_kill {self._kills}\n")
            yield

    def _run_program(self, work: Path, fate: str) -> int:
        number, job = int(work.parent.name), work.parents[2].name
        attempt = (job, number)
        promise((work.parent / "begun.json").exists(), f"{attempt} begins, and nothing on disk says so")
        self.books.began[attempt] += 1
        self.moment("while the program runs")
        if fate == "fails":
            self.books.evidence[attempt].add("failed")
            return 3
        if fate == "runs out of time":
            self.books.evidence[attempt].add("timed_out")
            self._worker_waits(24 * 3600)
        if fate == "makes nothing":
            self.books.evidence[attempt].add("failed")
            return 0
        if fate == "loses a child to memory":
            self._kills += 1
            self.kernel.write_text(f"oom_kill {self._kills}\n")
            self.books.evidence[attempt].add("out_of_memory")
            for process in self.processes:
                if process.slurm_job is not None and process.slurm_job.attempt == attempt:
                    process.slurm_job.out_of_memory = True
        output = f"made by attempt {number} of {job} in run {sum(self.books.began.values())}".encode()
        (file,) = json.loads((work / "job.json").read_text())["outputs"].values()
        (work / file).write_bytes(output)
        if fate != "loses a child to memory":
            self.books.ended_well[attempt] = output
        self.moment("when the program has ended")
        return 0

    def _kill_worker(self, slurm_job: SlurmJob) -> None:
        """Slurm ends what it ends; only on a node that it can't reach may a worker go on."""
        for process in self.processes:
            if process.slurm_job is slurm_job and slurm_job.state != "NODE_FAIL":
                process.killed = True

    # --- the borders

    def _fsync(self, descriptor: int) -> None:
        """Costs no time here: this power failure is a mild one. Every fact comes by: it gets the story's time."""
        if self.full and stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._note_disk_full()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.utime(descriptor, (self.now, self.now))

    def _note_disk_full(self) -> None:
        for process in self.processes:
            if process.slurm_job is not None:
                self.books.evidence[process.slurm_job.attempt].add("failed")

    def _utime(self, real: Callable[..., None]) -> Callable[..., None]:
        """What is touched gets the story's time."""
        return lambda file, times=None, **more: real(file, times if times or more else (self.now, self.now), **more)

    def _sleep(self, seconds: float) -> None:
        if self.processes and self.processes[-1].kind == "worker":
            self._worker_waits(seconds)
        else:
            self.now += seconds
        self.moment("while it waits")

    def _worker_waits(self, seconds: float) -> None:
        """Its own clock ticks, or it would take itself for suspended; every 4 s are often enough."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 4, end)
            signal.raise_signal(signal.SIGALRM)

    def _token_hex(self, size: int) -> str:
        self._names += 1
        return f"{self._names:0{2 * size}x}"

    def _http(self) -> Any:
        def send(
            adapter: requests.adapters.HTTPAdapter, request: requests.PreparedRequest, **_: Any
        ) -> requests.Response:
            self.moment("while the API is asked")
            status, body = self._served(str(request.method), str(request.url))
            if status != 200 and self.processes and self.processes[-1].slurm_job is not None:
                self.books.evidence[self.processes[-1].slurm_job.attempt].add("failed")
            raw = urllib3.HTTPResponse(
                io.BytesIO(body), {"Content-Length": str(len(body))}, status, preload_content=False
            )
            return adapter.build_response(request, raw)

        return send

    def _served(self, method: str, url: str) -> tuple[int, bytes]:
        if self.api == "away":
            return 503, b""
        if self.api == "refused":
            return 401, b""
        if method == "POST":
            return 200, b'{"token": "a-token"}'
        return (404, b"") if url.endswith("missing") else (200, b"an image")

    def _logged(self, record: logging.LogRecord) -> None:
        """Passes side by side may surprise each other, and a job that was put away its worker; else nothing is unforeseen."""
        slurm_job = self.processes[-1].slurm_job
        put_away = slurm_job is not None and not self.jobs.job(JobId(slurm_job.attempt[0])).message.path.exists()
        if record.msg.startswith(("unforeseen", "damaged")) and self.cluster.alone and not put_away:
            raise Broken(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)

    def _stamp(self) -> None:
        """Folders of jobs that were made just now, too."""
        for job in self.jobs.active_jobs():
            if job.path.stat().st_mtime > LATER_THAN_ANY_STORY:
                os.utime(job.path, (self.now, self.now))

    # --- the rest

    @property
    def broker_file(self) -> Path:
        there = self.broker_folder if self.broker_folder.exists() else self._broker_aside
        return there / self.config.site.broker_file.name

    def _send(self, sent: Sent) -> None:
        properties = Properties(
            reply_to=sent.reply_to, correlation_id=sent.correlation_id,
            expiration=None if sent.expiration is None else str(sent.expiration),
        )  # fmt: skip
        with self._borders(), sqlite3.connect(self.broker_file) as db:
            broker = Embedded(self.broker_file, self.config.site.replies)
            broker.put("jobs", sent.body, properties)
            broker.close()
            (tag,) = db.execute("SELECT max(id) FROM messages WHERE queue = 'jobs'").fetchone()
        db.close()
        self.books.sent.append(replace(sent, tag=tag))

    def _release_what_the_dead_held(self) -> None:
        """A broker sees that their connections are closed; here they live in a process that goes on."""
        if not self.processes and self.broker_folder.exists():
            self._change_broker("UPDATE messages SET holder = NULL, redelivered = 1 WHERE holder IS NOT NULL")

    def _change_broker(self, how: str) -> None:
        with sqlite3.connect(self.broker_file) as db:
            db.execute(how)
        db.close()

    def _attempt_of(self, group_file: str, element: int) -> Attempt:
        group = Fact(Path(group_file), Group).read()
        promise(
            group is not None and str(element) in group.members, f"element {element} is submitted without its group"
        )
        assert group is not None
        return group.members[str(element)]

    def _pick(self, which: int, fit: Any) -> Optional[SlurmJob]:
        """Counted from the newest."""
        fitting = [job for job in reversed(self.cluster.jobs) if fit(job)]
        return fitting[which % len(fitting)] if fitting else None

    def _note_away(self) -> None:
        if self.api != "well" or self.cluster.away or self.full:
            self.books.note_away(self.now)


class _Handler(logging.Handler):
    def __init__(self, emit: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.ERROR)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit(record)
