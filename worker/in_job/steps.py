"""The steps of an attempt: fetch, execute, pack. Whatever happens to them becomes one Result."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ..build import traits
from ..errors import Damaged, OutputsTooLarge, StepFailed
from ..folder import paths
from ..folder.answer import kept_until
from ..folder.facts import AttemptFolder
from ..installed import needed, trouble
from ..job import sentences
from ..job.names import JobId
from ..job.outcome import Result, Used, readable_tail
from ..job.own_code import Code
from ..job.spec import JobSpec, Resources
from ..settings import Config, Workload
from .begin import note_begun
from .execute import Exit, adopt_orphans, execute
from .fetch import Fetcher, fetch
from .interrupt import Interrupted, Interrupts
from .memory import MemoryWatch
from .own_code import OwnJob
from .pack import Packed, goes_inline, keep, pack, pack_into
from .progress import PROGRESS, watched
from .scratch import IN_FOLDER, on_this_node, place_to_work

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


class Meter:
    """How long each step took, and what the attempt used; a step that fails counts too."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self._before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.input_bytes = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = round(time.monotonic() - begun, 3)

    def used(self) -> Used:
        """The program is our child, and what it has waited for counts with it (getrusage(2)). The most memory is of all
        our children since we began: where it has not risen, another attempt had more, and this one's is unknown."""
        before, now = self._before, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
        process_mb = now.ru_maxrss // 1024 if now.ru_maxrss > before.ru_maxrss else 0
        return Used(dict(self._steps), self.input_bytes, round(cpu_seconds, 2), process_mb)


@dataclass(frozen=True)
class InPilot:
    """A job that shares its Slurm job with others. Its folder is gone when it has ended: the journal tells what it came to."""

    fetcher: Fetcher
    alone: bool
    """No other one runs at the same time."""
    body: io.BytesIO
    """Where the reply's body is packed into."""


@dataclass(frozen=True)
class Work:
    """Everything the steps need."""

    config: Config
    job_id: JobId
    attempt: AttemptFolder
    spec: JobSpec
    resources: Resources
    """What this attempt was given."""
    place: Placement
    started_at: float
    interrupts: Interrupts
    memory: MemoryWatch
    pilot: Optional[InPilot] = None
    """For a job that shares its Slurm job with others."""
    log_to: Optional[int] = None
    """The attempt's log, where this process has it open already."""
    meter: Meter = field(default_factory=Meter)
    queue: str = ""
    """Where the job comes from."""
    provenance: dict[str, str] = field(default_factory=dict)
    """What ran, where the job brought it along."""

    @property
    def workload(self) -> Workload:
        workload = self.config.site.workloads.get(self.spec.workload)
        if workload is None or workload.is_own_code != (self.spec.code is not None):  # the site file has changed since
            raise StepFailed("start", sentences.program_not_started("it is no longer installed"), may_work_again=True)
        return workload


def attempt(work: Work) -> Result:
    """Fetch, execute, pack: whatever happens becomes a result, and memory that ran out explains whatever happened."""
    # Where it can't be seen whether memory ran out, the scheduler's verdict is waited for, if it may have one.
    unsure = not work.memory.known and traits(work.config.site).enforces_memory
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
        log.exception("unforeseen job=%s attempt=%d", work.job_id, work.attempt.number)
        result = _result(work, "failed", _UNFORESEEN, step="run")
    return _after_memory_ran_out(work, result) if work.memory.ran_out() else result


def _after_memory_ran_out(work: Work, result: Result) -> Result:
    """The count of kills is that of the whole Slurm job: beside others, only one that was killed is surely meant, and
    another one has to show by itself what it comes to."""
    if work.pilot is None or work.pilot.alone or result.signal == signal.SIGKILL:
        return _out_of_memory(work)
    return _result(work, "failed", sentences.beside_one_without_memory(), step="start", may_work_again=True)


def _steps(work: Work) -> Packed:
    _look_for_program(work)
    with _scratch(work) as scratch:
        own = _own_job(work, work.spec.code, scratch) if work.spec.code else None
        if own:
            own.prepare(_job_file(work))
        try:
            with work.meter.step("fetch"), work.interrupts.allowed():
                work.meter.input_bytes = _fetch(work, own.to_fetch(work.spec) if own else work.spec, scratch / "inputs")
                if own:
                    own.put_in_place(work.spec)
        except Interrupted as interrupted:
            interrupted.while_fetching = True
            raise
        if own:
            return _run_own(work, own, scratch)
        with on_this_node():
            (scratch / "job.json").write_bytes(_job_file(work))
        argv = _argv(work, scratch)
        environment = _environment(work, scratch)
        if work.pilot is None:  # a pilot's journal says it of its jobs
            patience = work.config.site.timing.publish_patience
            note_begun(work.job_id, work.attempt, patience, work.interrupts)
        with work.meter.step("run"), _progress_watched(work, scratch):
            exit = execute(
                argv, scratch, environment, work.attempt.log, work.interrupts, work.workload.stop_wait, work.log_to
            )
        _check_exit(work, exit)
        with work.meter.step("pack"):
            return _pack(work, work.spec, scratch / "outputs")


def _own_job(work: Work, code: Code, scratch: Path) -> OwnJob:
    config, site = work.config, work.config.site
    hidden = (config.root, site.jobs_dir, config.credentials_file, site.broker_file, scratch.parent)
    return OwnJob(code, work.workload, scratch, work.provenance, hidden)


def _run_own(work: Work, own: OwnJob, scratch: Path) -> Packed:
    """As any program, but that its bounds are watched, and what it makes is what it gives."""
    environment, bounds, made = own.environment(_environment(work, scratch)), own.bounds, {}
    adopt_orphans()  # what it leaves is gone before anything of it is read
    argv = own.argv(_argv(work, scratch)[len(work.workload.prefix) :], environment)
    note_begun(work.job_id, work.attempt, work.config.site.timing.publish_patience, work.interrupts)
    try:
        with work.meter.step("run"), watched(own.progress, work.attempt.progress):
            exit = execute(
                argv, own.places.home, environment, work.attempt.log, work.interrupts, work.workload.stop_wait, work.log_to,
                bounds.watch, not own.rules.unsandboxed,
            )  # fmt: skip
    finally:
        made = own.gather(bounds)
    if bounds.broken:
        raise StepFailed("run", bounds.broken)
    _check_exit(work, exit)
    missing = own.missing(made)
    if missing:
        raise StepFailed("pack", f'The program did not make the output "{missing}".')
    with work.meter.step("pack"):
        return _pack(work, replace(work.spec, outputs=made), scratch / "outputs")


def _look_for_program(work: Work) -> None:
    """A script that its interpreter does not find ends like one that failed by itself. So it is looked for before, and what
    is missing on this node is not the job's fault. Raises StepFailed."""
    for need in needed(work.workload, work.config.root, Path(sys.executable)):
        missing = trouble(need) if need.sure else ""
        if missing:
            log.warning("the program is not on this node job=%s why=%r", work.job_id, missing)
            raise StepFailed("start", sentences.program_not_started("it is not there"), may_work_again=True)


def _fetch(work: Work, spec: JobSpec, inputs: Path) -> int:
    if work.pilot is None:
        return fetch(work.config, spec, work.attempt.token, inputs)
    return work.pilot.fetcher.fetch_all(spec, inputs)


def _pack(work: Work, spec: JobSpec, outputs: Path) -> Packed:
    if work.pilot is None:
        queue = work.config.queue(work.queue)
        if goes_inline(spec, outputs, queue.inline_limit if queue else 0):
            return pack(spec, outputs, work.attempt, work.config.site)
        with work.interrupts.allowed():  # what is large may take longer than there is time
            return keep(spec, outputs, work.attempt, work.config.site)
    return Packed("", pack_into(work.pilot.body, spec, outputs, work.config.site))


def _progress_watched(work: Work, scratch: Path) -> contextlib.AbstractContextManager[None]:
    """In a pilot nobody looks for it: its jobs are short."""
    return contextlib.nullcontext() if work.pilot else watched(scratch / PROGRESS, work.attempt.progress)


@contextlib.contextmanager
def _scratch(work: Work) -> Iterator[Path]:
    """The working folder, with inputs/ and outputs/; removed afterwards. Of a job that did not succeed, what it has made
    by then stays in the attempt's folder, for people."""
    if work.pilot is not None:  # its runner removes the attempt's folder, and nobody would look there
        yield _made(work.attempt.work)
        return
    place = work.config.site.scratch
    with _emptied(work.attempt.work) if place == IN_FOLDER else place_to_work(place, str(work.job_id)) as path:
        try:
            yield _made(path)
        except BaseException as error:
            _keep_outputs(work, path / "outputs", error)
            raise


def _keep_outputs(work: Work, made: Path, why: BaseException) -> None:
    """Whoever is told that they are too large is told until when they are here."""
    limits, timing, declared = work.config.site.limits, work.config.site.timing, _declared(work, made)
    if not isinstance(why, OutputsTooLarge):
        paths.keep_files(made, work.attempt.outputs, limits.output_bytes, declared)
        return
    kept: set[str] = set()
    with contextlib.suppress(Interrupted), work.interrupts.allowed():  # to copy them may take longer than there is time
        kept = paths.keep_files(made, work.attempt.outputs, limits.kept_bytes, declared)
    if declared and declared <= kept:
        why.reason += sentences.kept_until(kept_until(time.time(), timing))


def _declared(work: Work, made: Path) -> set[str]:
    """Of code that the job brought along, all that was gathered."""
    if work.spec.code is None:
        return set(work.spec.outputs.values())
    with contextlib.suppress(Damaged, OSError):
        return set(paths.names_in(made))
    return set()


@contextlib.contextmanager
def _emptied(path: Path) -> Iterator[Path]:
    paths.remove_tree(path)
    try:
        yield path
    finally:
        paths.remove_tree(path)


def _made(path: Path) -> Path:
    with on_this_node():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("inputs", "outputs", "tmp"):
            os.mkdir(f"{path}/{name}", 0o700)
    return path


def _job_file(work: Work) -> bytes:
    spec = work.spec
    job_file = {
        "format": 1,
        "workload": spec.workload,
        "settings": spec.settings,
        "inputs": {name: name if spec.code else f"inputs/{source.file}" for name, source in spec.inputs.items()},
        "outputs": {name: f"outputs/{file}" for name, file in spec.outputs.items()},
        "resources": {
            "cpus": work.resources.cpus,
            "memory_mb": work.resources.memory_mb,
            "time_seconds": work.resources.time_seconds,
        },
    }
    return json.dumps(job_file).encode() + b"\n"


def _argv(work: Work, scratch: Path) -> list[str]:
    """The site's words, with the places filled in; nothing of the message can be among them."""
    places = {"{root}": str(work.config.root), "{job}": f"{scratch}/job.json", "{work}": str(scratch),
              "{cpus}": str(work.resources.cpus), "{python}": sys.executable}  # fmt: skip
    return [_fill(word, places) for word in (*work.workload.prefix, *work.workload.argv)]


def _fill(word: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word


def _environment(work: Work, scratch: Path) -> dict[str, str]:
    """From scratch: what a login shell or the batch system had in its own is no business of the workload."""
    cpus = str(work.resources.cpus)
    environment = {
        "PATH": work.workload.path,
        "HOME": str(scratch),
        "TMPDIR": f"{scratch}/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": cpus,
        "OPENBLAS_NUM_THREADS": cpus,
        "MKL_NUM_THREADS": cpus,
        "BATCHFERRY_PROGRESS": f"{scratch}/{PROGRESS}",
    }
    # Slurm tells a job which GPUs are its own only in this way.
    gpus = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if name in os.environ}
    return {**environment, **gpus, **work.workload.environment}


def _check_exit(work: Work, exit: Exit) -> None:
    log.log(
        logging.INFO if work.pilot is None or exit.code else logging.DEBUG,
        "program ended job=%s exit_code=%s signal=%s seconds=%.1f",
        work.job_id,
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


def _success(work: Work, packed: Packed, unsure: bool) -> Result:
    return _result(
        work,
        "succeeded",
        needs_verdict=unsure,
        exit_code=0,
        outputs=packed.outputs,
        body=packed.stem,
        to_upload=work.pilot is None and not packed.stem,
    )


def _failed(work: Work, failed: StepFailed, unsure: bool) -> Result:
    log.info("step failed job=%s step=%s why=%r", work.job_id, failed.step, failed.reason)
    exit = failed.exit if isinstance(failed, _ProgramFailed) else None
    return _result(
        work, "failed", failed.reason, step=failed.step, may_work_again=failed.may_work_again,
        needs_verdict=unsure and exit is not None,
        exit_code=exit.code if exit and not exit.signal_name else None, signal=exit.signal or None if exit else None,
    )  # fmt: skip


def _out_of_memory(work: Work) -> Result:
    had = work.resources if work.config.site.slurm.ask_memory else None  # then nobody here knows how much it was
    return _result(work, "out_of_memory", sentences.out_of_memory(had, work.spec.resources))


def _interrupted(work: Work, interrupted: Interrupted) -> Result:
    """The time limit is our own clock's word. A request to stop may come from a person, or for another job, or from the
    node: only the scheduler knows."""
    log.info("interrupted job=%s by=%s", work.job_id, interrupted)
    if interrupted.by_clock:
        words = sentences.timed_out(work.resources, interrupted.while_fetching, _how_far(work))
        return _result(work, "timed_out", words)
    return _result(work, "cancelled", sentences.of_end("cancelled"), needs_verdict=True)


def _how_far(work: Work) -> str:
    try:
        said = work.attempt.progress.read()
    except Damaged:  # a hint, for which no answer may be lost
        return ""
    if said is None:
        return ""
    words = readable_tail(said.words)
    return f"{said.fraction:.0%}{f' ({words})' if words else ''}"


def _result(work: Work, outcome: str, reason: str = "", **more: object) -> Result:
    return Result(
        outcome, work.attempt.number, reason, node=work.place.node, slurm_job_id=work.place.scheduler_id,
        started_at=work.started_at, ended_at=time.time(), used=work.meter.used(), provenance=dict(work.provenance), **more,  # type: ignore[arg-type]
    )  # fmt: skip
