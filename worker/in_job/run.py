"""One attempt of one job, on the compute node: start, fetch, execute, pack, answer. A failing step becomes the answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from .. import folder, sentences
from ..answer import conclude, record
from ..errors import Damaged, StepFailed
from ..facts import Intent, Started, read_spec
from ..folder import AttemptFolder, JobFolder, read
from ..outcome import Result, Used, readable_tail
from ..retry import is_final
from ..settings import Config, Workload
from ..spec import JobSpec
from .execute import Exit, execute
from .fetch import fetch
from .interrupt import Interrupted, Interrupts
from .memory import MemoryWatch
from .pack import Packed, pack
from .progress import PROGRESS, watched
from .publish import publish

log = logging.getLogger(__name__)

_UNFORESEEN = (
    "The service that runs the job failed in a way that was not foreseen. Somebody who runs it must look into it."
)


@dataclass(frozen=True)
class Placement:
    """Which of the scheduler's jobs this is, how often it was restarted, and where it runs."""

    scheduler_id: str
    restarts: int
    node: str
    confined: bool
    """Whether the control group that this process is in is this job's alone."""


class _Meter:
    """How long each step took, and what it moved; a step that fails counts too."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self.input_bytes = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = round(time.monotonic() - begun, 3)

    def used(self) -> Used:
        """The program is this process's only child, and what it has waited for counts with it (getrusage(2))."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = round(children.ru_utime + children.ru_stime, 2)
        return Used(dict(self._steps), self.input_bytes, cpu_seconds, children.ru_maxrss // 1024)


@dataclass(frozen=True)
class _Work:
    """Everything the steps need."""

    config: Config
    job: JobFolder
    attempt: AttemptFolder
    spec: JobSpec
    intent: Intent
    place: Placement
    started: Started
    interrupts: Interrupts
    meter: _Meter = field(default_factory=_Meter)

    @property
    def workload(self) -> Workload:
        return self.config.site.workloads[self.spec.workload]


def run(config: Config, job: JobFolder, number: int, place: Placement) -> None:
    """The whole life of an attempt. What it leaves are files; it returns when it has answered, or could not."""
    attempt = job.attempt(number)
    spec, intent = read_spec(job), read(Intent, attempt.intent)
    if spec is None or intent is None:
        raise Damaged("this attempt was never intended")
    timing = config.site.timing
    time_limit = intent.resources.minutes * 60
    with Interrupts(time_limit - timing.margin(time_limit)) as interrupts:
        started = _start(job, attempt, place)
        if started is None:
            return
        work = _Work(config, job, attempt, spec, intent, place, started, interrupts)
        result = _attempt(work)
        folder.make_folder(attempt.path)  # the program may have deleted it
        result = record(attempt, result)
        folder.remove(attempt.token)
        _answer(work, result)


def _start(job: JobFolder, attempt: AttemptFolder, place: Placement) -> Optional[Started]:
    """None for a second copy of this attempt, which leaves without a word; and when the job has its outcome already."""
    started = Started(place.scheduler_id, place.restarts, place.node, time.time())
    if job.outcome.exists():
        log.info("the job has been answered, nothing to do job=%s attempt=%d", job.id, attempt.number)
        return None
    if folder.claim_name(attempt.started, started):
        log.info("started job=%s attempt=%d slurm=%s node=%s", job.id, attempt.number, place.scheduler_id, place.node)
        return started
    first = read(Started, attempt.started)
    # The count of restarts tells nothing where the controller came back with an older state.
    if first is not None and first.slurm_id == place.scheduler_id:
        log.warning("restarted by the scheduler, the first run is lost job=%s attempt=%d", job.id, attempt.number)
        record(attempt, Result(
            "node_failed", attempt.number, sentences.of_end("node_failed"), node=first.node,
            slurm_job_id=first.slurm_id, started_at=first.at, ended_at=time.time(),
        ))  # fmt: skip
    else:
        log.warning("a second copy, leaving job=%s attempt=%d slurm=%s", job.id, attempt.number, place.scheduler_id)
    return None


def _attempt(work: _Work) -> Result:
    """Fetch, execute, pack: whatever happens becomes a result, and memory that ran out explains whatever happened."""
    memory = MemoryWatch(work.place.confined)
    # Where it can't be seen whether memory ran out, Slurm's verdict is waited for; without Slurm nothing is enforced.
    unsure = not memory.known and work.config.site.scheduler == "slurm"
    try:
        try:
            packed = _steps(work)
        finally:
            work.interrupts.off()
        result = _success(work, packed, unsure)
    except Interrupted as interrupted:
        return _interrupted(work, interrupted)
    except StepFailed as failed:
        result = _failed(work, failed, unsure)
    except MemoryError:
        return _out_of_memory(work)
    except Exception:
        # The outermost border of the steps: an unanswered job would be worse than an unforeseen sentence.
        log.exception("unforeseen job=%s attempt=%d", work.job.id, work.attempt.number)
        result = _result(work, "failed", _UNFORESEEN, step="run")
    return _out_of_memory(work) if memory.ran_out() else result


def _steps(work: _Work) -> Packed:
    with _scratch(work) as scratch:
        try:
            with work.meter.step("fetch"), work.interrupts.allowed():
                work.meter.input_bytes = fetch(work.config, work.spec, work.attempt.token, scratch / "inputs")
        except Interrupted as interrupted:
            interrupted.while_fetching = True
            raise
        _write_job_file(work, scratch)
        argv = _argv(work, scratch)
        environment = _environment(work, scratch)
        with work.meter.step("run"), watched(scratch / PROGRESS, work.attempt.progress):
            exit = execute(argv, scratch, environment, work.attempt.log, work.interrupts, work.workload.stop_wait)
        _check_exit(work, exit)
        with work.meter.step("pack"):
            return pack(work.spec, scratch / "outputs", work.attempt, work.config.site)


@contextlib.contextmanager
def _scratch(work: _Work) -> Iterator[Path]:
    """The working folder, with inputs/ and outputs/; removed afterwards. Of a job that did not succeed, what it has made
    by then stays in the attempt's folder, for people."""
    place = work.config.site.scratch
    path = work.attempt.work if place == "folder" else Path(place) / f"batchferry-{work.job.id}-{work.attempt.number}"
    folder.remove_tree(path)
    for name in ("inputs", "outputs", "tmp"):
        (path / name).mkdir(mode=0o700, parents=True)
    try:
        yield path
    except BaseException:
        folder.keep_files(path / "outputs", work.attempt.outputs, work.config.site.limits.output_bytes)
        raise
    finally:
        folder.remove_tree(path)


def _write_job_file(work: _Work, scratch: Path) -> None:
    spec = work.spec
    job_file = {
        "format": 1,
        "workload": spec.workload,
        "settings": spec.settings,
        "inputs": {name: f"inputs/{source.file}" for name, source in spec.inputs.items()},
        "outputs": {name: f"outputs/{file}" for name, file in spec.outputs.items()},
        "resources": {
            "cpus": work.intent.resources.cpus,
            "memory_mb": work.intent.resources.memory_mb,
            "time_seconds": work.intent.resources.time_seconds,
        },
    }
    (scratch / "job.json").write_text(json.dumps(job_file, indent=1) + "\n", encoding="utf-8")


def _argv(work: _Work, scratch: Path) -> list[str]:
    """The site's words, with the places filled in; nothing of the message can be among them."""
    places = {"{root}": str(work.config.root), "{job}": str(scratch / "job.json"), "{work}": str(scratch),
              "{cpus}": str(work.intent.resources.cpus), "{python}": sys.executable}  # fmt: skip
    return [_fill(word, places) for word in (*work.workload.prefix, *work.workload.argv)]


def _fill(word: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word


def _environment(work: _Work, scratch: Path) -> dict[str, str]:
    """From scratch: what a login shell or the batch system had in its own is no business of the workload."""
    cpus = str(work.intent.resources.cpus)
    environment = {
        "PATH": work.workload.path,
        "HOME": str(scratch),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": cpus,
        "OPENBLAS_NUM_THREADS": cpus,
        "MKL_NUM_THREADS": cpus,
        "BATCHFERRY_PROGRESS": str(scratch / PROGRESS),
    }
    # Slurm tells a job which GPUs are its own only in this way.
    gpus = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if name in os.environ}
    return {**environment, **gpus, **work.workload.environment}


def _check_exit(work: _Work, exit: Exit) -> None:
    log.info(
        "program ended job=%s exit_code=%s signal=%s seconds=%.1f",
        work.job.id,
        exit.code,
        exit.signal_name,
        exit.seconds,
    )
    if exit.code == 0:
        return
    tail = readable_tail(exit.tail)
    words = sentences.killed(exit.signal_name, tail) if exit.signal_name else sentences.exited(exit.code, tail)
    raise _ProgramFailed("run", words, exit)


class _ProgramFailed(StepFailed):
    def __init__(self, step: str, reason: str, exit: Exit) -> None:
        super().__init__(step, reason)
        self.exit = exit


# --- results


def _success(work: _Work, packed: Packed, unsure: bool) -> Result:
    return _result(work, "succeeded", needs_verdict=unsure, exit_code=0, outputs=packed.outputs, body=packed.stem)


def _failed(work: _Work, failed: StepFailed, unsure: bool) -> Result:
    log.info("step failed job=%s step=%s why=%r", work.job.id, failed.step, failed.reason)
    exit = failed.exit if isinstance(failed, _ProgramFailed) else None
    return _result(
        work, "failed", failed.reason, step=failed.step, may_work_again=failed.may_work_again,
        needs_verdict=unsure and exit is not None,
        exit_code=exit.code if exit and not exit.signal_name else None, signal=exit.signal or None if exit else None,
    )  # fmt: skip


def _out_of_memory(work: _Work) -> Result:
    return _result(work, "out_of_memory", sentences.out_of_memory(work.intent.resources, work.spec.resources))


def _interrupted(work: _Work, interrupted: Interrupted) -> Result:
    """The time limit is our own clock's word. A request to stop may come from a person, or for another job, or from the
    node: only the scheduler knows."""
    log.info("interrupted job=%s by=%s", work.job.id, interrupted)
    if interrupted.by_clock:
        words = sentences.timed_out(work.intent.resources, interrupted.while_fetching)
        return _result(work, "timed_out", words)
    return _result(work, "cancelled", sentences.of_end("cancelled"), needs_verdict=True)


def _result(work: _Work, outcome: str, reason: str = "", **more: object) -> Result:
    return Result(
        outcome, work.attempt.number, reason, node=work.place.node, slurm_job_id=work.place.scheduler_id,
        started_at=work.started.at, ended_at=time.time(), used=work.meter.used(), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _answer(work: _Work, result: Result) -> None:
    """A result that is not final, or that only the scheduler can judge, is left for the next pass."""
    if result.needs_verdict or not is_final(result, work.spec, work.intent.resources):
        return
    outcome = conclude(work.job, work.attempt, result, work.config.site.replies, "job", time.time())
    if outcome.by == "job" and outcome.attempt == work.attempt.number:
        publish(work.config, work.job, outcome)
