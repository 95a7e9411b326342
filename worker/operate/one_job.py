"""`check.py test`: one small job through the real queue, scheduler and answer of this site, told step by step."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from typing import Optional

from ..build import open_ends, open_requester
from ..errors import Damaged, Transient, Unroutable
from ..folder import batches, paths, pause
from ..folder.batches import Pool
from ..folder.facts import JobFolder, site_fault_of
from ..folder.jobs import JobsFolder
from ..job.facts import Message
from ..job.names import JobId
from ..job.spec import JobSpec
from ..login.guard import guarded_pass
from ..requester import Answered, Requester
from ..settings import Config
from ..sources import QueueFault
from . import asking, naming, places, screen
from .in_batches import InBatch
from .places import Found
from .small_job import Failed, SmallJob, choose_job, choose_queue, understood
from .told import Heard, Told

SUMMARY = "send one small job through this site's own queue, Slurm and answer, and report each step"
HELP = """\
For a new installation, or after a change: publishes one small job to the jobs queue, runs passes until it is answered,
and removes its folder; if the job fails, the folder stays to be looked at. The passes are real ones, which also take
whatever else is waiting; while a watch or cron's pass is running, the work is left to that. The job is of the workload
in site.toml that needs no input, or what --workload and --input say.

The answer goes to an address of the test's own (RabbitMQ's direct reply-to), which nobody else reads. Of results queues
that site.toml names, it only checks that they exist. If nobody takes the message, it expires after ten minutes (or
--wait, if longer).

"""
EXIT_CODES = {
    0: "the answer came, and is as it should be",
    65: "the job did not succeed; `show` and `explain` have the rest",
    69: "the broker, the API or Slurm is away, something else took the message, or no answer came in time",
    73: "the jobs folder can't be used",
    75: "this installation is paused",
    77: "the API refuses our login",
    78: "credentials.env or site.toml is at fault; says which block or pattern to add",
}
EXAMPLES = """\
examples:
  ./check.py test
  ./check.py test --wait 30min                       if jobs wait long in Slurm
  ./check.py test --workload binarize --input Page=/uploads/1/page.png
"""
_WAIT = 600.0
_EVERY = 1.0
"""Seconds between two passes, or looks."""
_GONE_FOR = 10.0
"""Seconds after which a message that is in no queue and in no folder of ours is somebody else's."""
_UNTIL_PUT_AWAY = 120.0
_AWAY = {os.EX_UNAVAILABLE, os.EX_NOPERM}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", default="", metavar="NAME", help="publish to this jobs queue (default: the first)")
    parser.add_argument("--workload", default="", metavar="NAME", help="a job of this workload")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=_named,
        metavar="NAME=ADDRESS",
        help="a job with this input; may be repeated",
    )
    parser.add_argument(
        "--wait", type=places.age, default=_WAIT, metavar="TIME", help="wait this long for the answer (default: 10min)"
    )


def _named(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not name or not address:
        raise argparse.ArgumentTypeError("must be NAME=ADDRESS")
    return name, address


def run(config: Config, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    told = Told(options.json)
    log = logging.getLogger()
    if not getattr(options, "verbose", False):
        log.setLevel(logging.WARNING)  # what a pass says of each step, this says itself
    heard = Heard()
    log.addHandler(heard)
    try:
        _test(config, options, told, heard)
    except Failed as failed:
        told.failed(failed)
        return failed.code
    except KeyboardInterrupt:
        told.failed(Failed("stopped", "stopped before the answer came", told.left_behind))
        return 130
    finally:
        log.removeHandler(heard)
    told.well()
    return os.EX_OK


def _test(config: Config, options: argparse.Namespace, told: Told, heard: Heard) -> None:
    jobs = JobsFolder(config.site.jobs_dir)
    paused = pause.seen(jobs)
    if paused is not None:
        raise Failed("pause", paused.sentence, "End that first: ./check.py resume", os.EX_TEMPFAIL)
    queue = choose_queue(config, options.queue)
    job = choose_job(config, queue, options.workload, dict(options.input))
    told.step(
        "workload", f"{job.workload}, {'with ' + ', '.join(job.inputs) if job.inputs else 'which takes no input'}"
    )
    requester = open_requester(config, queue)
    assert requester is not None
    try:
        spec = understood(config, job, requester)
        _look(config, job, requester, told)
        _OneJob(config, jobs, job, spec, requester, told, heard).run(options.wait)
    except Transient as error:
        raise Failed("broker", error.found, f"{error.fix or 'Ask the doctor: ./check.py doctor'}.") from None
    finally:
        requester.close()


def _look(config: Config, job: SmallJob, requester: Requester, told: Told) -> None:
    """The queues, as they are before. Raises Failed and Transient."""
    ends = open_ends(config)
    try:
        ends.source(job.queue).waiting(job.queue)
    except QueueFault as fault:
        raise Failed("queue", fault.found, f"{fault.fix or 'Ask the doctor: ./check.py doctor'}.") from None
    finally:
        ends.close()
    seen = requester.look(job.queue.name)
    before = f"{seen.messages} messages before ours" if seen and seen.messages else "it is empty"
    listen = f", {seen.consumers} others listen" if seen and seen.consumers else ""
    told.step("queue", f"{job.queue.name}: {before}{listen}")
    names = [name for name in config.site.replies.patterns if not name.endswith("*") and not name.startswith("amq.")]
    for name in names:
        there = (
            "is there" if requester.look(name) else "is not there, or is another connection's own; see [replies] create"
        )
        told.step("results", f"{name} {there}")
    if not names:
        told.step("results", "site.toml names no results queue, so none was looked at")


class _OneJob:
    """From its message to its folder's removal. Raises Failed and Transient."""

    def __init__(self, config: Config, jobs: JobsFolder, job: SmallJob, spec: JobSpec, requester: Requester,
                 told: Told, heard: Heard) -> None:  # fmt: skip
        self._config, self._jobs, self._job, self._spec = config, jobs, job, spec
        self._requester, self._told, self._heard = requester, told, heard
        self._correlation_id = f"batchferry-test-{uuid.uuid4()}"
        self._before: set[str] = set()
        self._id: Optional[JobId] = None
        self._word = ""
        self._submitted = False
        self._gone_since: Optional[float] = None

    def run(self, wait: float) -> None:
        self._before = set(places.names(self._jobs.active))
        try:
            life = max(_WAIT, wait)
            self._requester.ask(self._job.queue.name, self._job.body, self._correlation_id, life)
        except Unroutable as error:
            raise Failed("message", str(error), "Ask the doctor: ./check.py doctor.") from None
        self._told.left_behind = f"The message is gone after {screen.lasted(life)}, if nobody takes it"
        self._told.step("message", f"published to {self._job.queue.name}, confirmed")
        answer = self._answer(time.monotonic() + wait, wait)
        self._judge(answer)
        self._put_away(time.monotonic() + _UNTIL_PUT_AWAY)

    def _answer(self, end: float, wait: float) -> Answered:
        while True:
            self._pass()
            self._see()
            answer = self._requester.answer()
            if answer is not None:
                return answer
            self._check_not_gone()
            if time.monotonic() >= end:
                where = f"its job is {self._word}" if self._id else "no pass has taken it"
                fix = f"./check.py explain {self._id} says why" if self._id else "./check.py doctor and the log say why"
                raise Failed(
                    "answer", f"none within {screen.lasted(wait)}; {where}", f"{fix}. {self._told.left_behind}."
                )
            time.sleep(_EVERY)

    # --- passes

    def _pass(self) -> None:
        """A pass of ours, or, beside another one, none."""
        self._heard.last = ""
        code = guarded_pass(self._config, drain=True)
        if code == os.EX_TEMPFAIL:
            self._told.step("pass", "another one is running (cron's, or a watch): waiting for what it does", once=True)
        elif code == os.EX_CANTCREAT:
            raise Failed("jobs folder", self._heard.last, "./check.py doctor says more.", code)
        elif code in _AWAY and not self._submitted:
            fault = None
            with contextlib.suppress(Damaged):
                fault = site_fault_of(self._jobs).read()
            step, words = (fault.kind, fault.words) if fault else ("pass", self._heard.last)
            raise Failed(step, words, f"./check.py doctor says more. {self._told.left_behind}.", code)

    def _see(self) -> None:
        """Where it stands, as far as that has changed."""
        self._id = self._id or self._find()
        if self._id is None:
            return
        named = naming.one(self._config, self._jobs, self._id)
        found, inside = (named if isinstance(named, Found) else None), (named if isinstance(named, InBatch) else None)
        word, where = (
            found.word if found else inside.state if inside else self._word,
            _where(found.job) if found else "",
        )
        self._submitted = self._submitted or inside is not None or bool(where)
        if word != self._word:
            self._word = word
            self._told.job = self._id
            self._told.left_behind = f"The job goes on; ./check.py cancel {self._id} ends it"
            self._told.step(word, f"{self._id}{where}")

    def _find(self) -> Optional[JobId]:
        for name in places.names(self._jobs.active):
            if name not in self._before and self._is_it(JobFolder(self._jobs.active / name)):
                return JobId(name)
        return next(self._in_batches(), None)

    def _is_it(self, job: JobFolder) -> bool:
        with contextlib.suppress(Damaged, OSError):
            message = job.message.read()
            return message is not None and self._has_it(message)
        return False

    def _has_it(self, message: Message) -> bool:
        return message.properties.get("correlation_id") == self._correlation_id

    def _in_batches(self) -> Iterator[JobId]:
        pool = Pool(self._jobs, self._job.queue.name)
        with contextlib.suppress(Damaged, OSError):
            for batch in pool.open_batches() if paths.is_folder(pool.path) else ():
                yield from (each.id for each in batches.read_jobs(batch) if self._has_it(each.message))

    def _check_not_gone(self) -> None:
        """It is in no queue, and nobody of ours has it."""
        seen = self._requester.look(self._job.queue.name) if self._id is None else None
        if seen is None or seen.messages:
            self._gone_since = None
            return
        now = time.monotonic()
        self._gone_since = now if self._gone_since is None else self._gone_since
        if now - self._gone_since < _GONE_FOR:
            return
        paths.look_anew(self._jobs.active)
        self._id = self._find()
        if self._id is None:
            listen = f" ({seen.consumers} listen there)" if seen.consumers else ""
            raise Failed(
                "taken", f"the message left {self._job.queue.name}, and no pass of this installation has it: another "
                f"consumer took it{listen}", "A jobs queue is for one taker: stop the other one, or use another queue.",
            )  # fmt: skip

    # --- the answer

    def _judge(self, answer: Answered) -> None:
        self._id = self._id or self._ours(answer.job)
        if self._id is None or (answer.job and answer.job != self._id):
            raise Failed(
                "taken", f"another installation took the message, and answered it as {screen.plain(answer.job)}",
                "A jobs queue is for one taker: stop the other one, or use another queue.",
            )  # fmt: skip
        try:
            body = json.loads(answer.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise Failed("answer", "it is no JSON object", "Please report this.", os.EX_DATAERR)
        wrong = str(body.get("error") or self._job.fault_of(body, self._spec))
        if wrong:
            raise Failed("answer", screen.plain(wrong, 1000), f"./check.py show {self._id}", os.EX_DATAERR)
        self._told.step("answer", f"{', '.join(map(screen.plain, body))}: {len(answer.body)} bytes, as asked for")

    def _ours(self, name: str) -> Optional[JobId]:
        """Where a watch was so fast that it was not seen on its way."""
        if name and isinstance(naming.one(self._config, self._jobs, name), naming.NotOne):
            return None
        return JobId(name)

    def _found(self) -> Optional[Found]:
        found = naming.one(self._config, self._jobs, str(self._id))
        return found if isinstance(found, Found) else None

    def _put_away(self, end: float) -> None:
        """A job of a folder of its own; one that lay in a pilot's batch stays there as a line."""
        assert self._id is not None
        while (found := self._found()) is not None and found.job.path.parent == self._jobs.active:
            if time.monotonic() >= end:
                raise Failed("put away", f"it is answered, and still {found.word}", f"./check.py explain {self._id}")
            time.sleep(_EVERY)
            self._pass()
        if found is not None:
            paths.remove_tree(found.job.path)
            self._told.step("removed", f"its folder {found.job.path}")
        asking.audit(self._jobs, "test", self._id, asking.asker(), "it was answered as it should")


def _where(job: JobFolder) -> str:
    with contextlib.suppress(Damaged, OSError):
        for number in reversed(job.attempt_numbers()):
            started, submission = job.attempt(number).started.read(), job.attempt(number).submission.read()
            if started is not None and started.node:
                return f" on {started.node} (id {started.slurm_id})"
            if submission is not None:
                return f" (id {submission.slurm_id})"
    return ""
