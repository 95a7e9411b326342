"""Trains one model per layer of a page of music. Knows job.json, no queue, no cluster. Keras is imported only when the
page and its layers have turned out to be usable."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, Optional

from patchwise import overlay, sampling
from patchwise.job import BATCH, FEWEST_SAMPLES, HELD_OUT, Job, read_job
from patchwise.pages import Page, joined, read_page
from patchwise.report import Report, learned_nothing, partly_opaque
from patchwise.separation import Surest, separation


class StopAsked:
    """Whether SIGTERM has come. It is looked at between batches: a model or a report is never cut in the middle."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def __call__(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: Optional[FrameType]) -> None:
        self._asked = True


def run(job: Job, stop_asked: StopAsked) -> None:
    pages = list(_pages(job))
    page = joined(pages, _patch(job))
    _check_samples(page)
    report = Report(job, {name: int(layer.sum()) for name, layer in page.layers.items()})
    report.facts["page"] = {
        "width": pages[0].image.shape[1], "height": pages[0].image.shape[0], "pixels_in_regions": int(page.regions.sum()),
        "pages": len(pages),
    }  # fmt: skip
    for name, partly in page.partly.items():
        if partly > page.layers[name].sum() * WORTH_A_WARNING:
            report.warn(partly_opaque(name, partly, int(page.layers[name].sum())))
    report.facts.update(_start_backend(job))
    from patchwise.training import Stopped

    try:
        _train_all(job, page, report, stop_asked)
    except Stopped:
        raise SystemExit(report.stop()) from None


WORTH_A_WARNING = 0.05
"""Pixels that are half transparent, as a share of the opaque ones: soft edges of what was drawn have some."""


def _pages(job: Job) -> Iterator[Page]:
    yield read_page(job.image, job.regions, {label.layer: label.layer_file for label in job.labels}, _patch(job))
    for each in job.further:
        yield read_page(each.image, each.regions, each.layers, _patch(job), each.prefix)


def _patch(job: Job) -> tuple[int, int]:
    return job.settings.height, job.settings.width


def _check_samples(page: Page) -> None:
    for name, layer in page.layers.items():
        if layer.sum() < FEWEST_SAMPLES:
            raise SystemExit(
                f'The layer "{name}" has {layer.sum()} pixels inside the selected regions; at least {FEWEST_SAMPLES} are '
                f"needed, for a batch of {BATCH} and a fifth held out. Draw more of it, or leave the layer out."
            )


def _train_all(job: Job, page: Page, report: Report, stop_asked: StopAsked) -> None:
    from patchwise.training import Stopped, starts

    canvas = sampling.canvas(page.image, page.regions, _patch(job))
    begin_with = starts(job.labels, _patch(job))
    surest = Surest(page.regions.shape) if job.overlay or job.report else None
    for index, label in enumerate(job.labels):
        if stop_asked():
            raise Stopped
        samples = sampling.sample(canvas, page.layers[label.layer], job.settings.samples, (job.settings.seed, index))
        model = _train_one(job, index, samples, report, stop_asked, begin_with[index])
        if surest is not None:
            surest.add(overlay.probability(_stoppable(model, stop_asked), page.image, canvas.patch, BATCH))
    if surest is not None:
        layers = [page.layers[label.layer] for label in job.labels]
        report.facts["separation"] = separation(surest.labels, layers, page.regions)
        report.write()
        if job.overlay is not None:
            overlay.draw(page.image, surest.labels, job.overlay)


def _train_one(
    job: Job,
    index: int,
    samples: sampling.Samples,
    report: Report,
    stop_asked: StopAsked,
    begin_with: Optional[list[Any]],
) -> Any:
    from patchwise.training import train

    begun = time.monotonic()
    learn, held_out = samples.split(HELD_OUT)
    report.begin(
        index, samples=len(samples), held_out_samples=len(held_out), went_on_from_a_model=begin_with is not None
    )
    trained = train(
        learn, held_out, (job.settings.seed, index), job.settings.epochs, job.labels[index].model_file,
        report.card(index), lambda epoch: report.epoch(index, epoch), stop_asked, begin_with,
    )  # fmt: skip
    report.complete(
        index, epochs=len(trained.epochs), best_epoch=trained.best_epoch, **asdict(trained.measured),
        seconds=time.monotonic() - begun,
    )  # fmt: skip
    measured = trained.measured
    warning = learned_nothing(job.labels[index], measured.loss, measured.recall, measured.share)
    if warning is not None:
        report.warn(warning)
    return trained.model


def _stoppable(model: Any, stop_asked: StopAsked) -> Any:
    import keras
    from patchwise.training import Stopped

    def predict(patches: Any) -> Any:
        if stop_asked():
            raise Stopped
        return keras.ops.convert_to_numpy(model(patches, training=False))

    return predict


def _start_backend(job: Job) -> dict[str, Any]:
    """Imports Keras on the backend that is asked for, with as many threads as the job has CPUs."""
    backend = job.settings.backend
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # its chatter would push the sentence out of the job's last words
    try:
        with _quiet():
            device = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}[backend](job.cpus)
            import keras
    except ImportError as reason:
        raise SystemExit(
            f"The backend {backend} is not installed here. Use another, or have somebody who runs the service install it."
        ) from reason
    versions = {"python": platform.python_version(), "keras": keras.__version__}
    for name in ("tensorflow", "tensorflow-cpu", "torch", "jax", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"backend": backend, "device": device, "versions": versions}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libraries say of themselves when they are loaded would stand among the job's last words. It is told only when
    loading them fails."""
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _tensorflow(cpus: int) -> str:
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(cpus)
    tensorflow.config.threading.set_inter_op_parallelism_threads(cpus)
    gpus = tensorflow.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU ({cpus} threads)"
    return str(tensorflow.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def _torch(cpus: int) -> str:
    import torch

    torch.set_num_threads(cpus)
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else f"CPU ({cpus} threads)"


def _jax(cpus: int) -> str:
    import jax

    device = jax.devices()[0]
    return "CPU" if device.platform == "cpu" else str(device.device_kind)


def out_of_memory(error: BaseException) -> bool:
    """The backends have no common class for it: TensorFlow and JAX say RESOURCE_EXHAUSTED or OOM, torch "out of memory"."""
    words = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(
        each in words for each in ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OOM when", "out of memory")
    )


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: train.py job.json")
    stop_asked = StopAsked()
    job = read_job(Path(sys.argv[1]))
    try:
        run(job, stop_asked)
    except Exception as error:
        if not out_of_memory(error):
            raise
        patch = f"{job.settings.width} x {job.settings.height}"
        raise SystemExit(
            f"The memory of the GPU, or of the job, is too small for patches of {patch} pixels in batches of {BATCH}. "
            "Use smaller patches, or ask for more memory."
        ) from error


if __name__ == "__main__":
    main()
