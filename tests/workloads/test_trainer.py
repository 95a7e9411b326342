"""The patchwise trainer itself: its own python and a job.json; and end to end, in the words of both generations."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.scene import Scene
from tests.workloads.score_page import BACKGROUND, STAFF, WRITING, ScorePage, make_page
from tests.workloads.trained import ENVIRONMENT, FOLDER, GENERATION_A, MODELS_A, PYTHON, Work, f1_of, inputs_of, set_up

pytestmark = pytest.mark.training

LITTLE = {"Maximum number of training epochs": 2, "Maximum number of samples per label": 40,
          "Patch height": 16, "Patch width": 24}  # fmt: skip
ENOUGH = {"Maximum number of training epochs": 4, "Maximum number of samples per label": 640,
          "Patch height": 32, "Patch width": 32}  # fmt: skip
TWO_LAYERS = {"Background": BACKGROUND, "rgba PNG - Layer 0": STAFF}


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    set_up()


@pytest.fixture(scope="module")
def page() -> ScorePage:
    return make_page(1)


def little(folder: Path, page: ScorePage, **settings: Any) -> Work:
    models = ["Background Model", "Model 0"]
    return Work(folder, inputs_of(page, TWO_LAYERS), models, **{**LITTLE, **settings})


def test_a_job_leaves_models_that_keras_loads_a_report_a_picture_and_progress(tmp_path: Path, page: ScorePage) -> None:
    work = little(tmp_path / "a'; echo work", page)

    code, said = work.run()

    assert (code, said) == (0, "")
    assert work.outputs() == {"Background Model", "Model 0", "Report", "Overlay"}
    report = work.report
    assert report["finished"] and report["backend"] == "tensorflow" and report["device"]
    for label in report["labels"]:
        assert (label["state"], label["samples"], label["held_out_samples"]) == ("complete", 40, 8)
        assert 1 <= label["best_epoch"] <= label["epochs"] == len(label["history"]) == 2 and label["seconds"] > 0
        assert all(0 <= label[name] <= 1 for name in ("accuracy", "recall")) and label["loss"] > 0
        best = label["history"][label["best_epoch"] - 1]
        assert label["accuracy"] == pytest.approx(best["validation_accuracy"], abs=1e-3)
    last = work.progress.read_text().splitlines()[-1]
    assert last == "progress 1.000 Model 0: complete"
    models = {BACKGROUND: "Background Model", STAFF: "Model 0"}
    assert set(f1_of(1, {layer: as_h5(work.folder / "outputs" / name) for layer, name in models.items()})) == set(
        models
    )


def as_h5(model: Path) -> Path:
    """Keras goes by the suffix."""
    return model.rename(model.with_name(f"{model.name}.h5"))


def test_the_same_seed_learns_the_same_and_what_is_outside_of_the_regions_is_not_learned(
    tmp_path: Path, page: ScorePage
) -> None:
    """The second page differs outside of the regions alone: in its layers, which count for nothing there."""
    outside = ~page.layers["regions"]
    layers = {name: layer | outside if name == STAFF else layer for name, layer in page.layers.items()}
    works = [little(tmp_path / "first", page), little(tmp_path / "second", ScorePage(page.image, layers))]

    for work in works:
        assert work.run() == (0, "")

    first, second = ([label["history"][-1]["loss"] for label in work.report["labels"]] for work in works)
    assert first == pytest.approx(second, abs=1e-4)


def test_each_fault_of_the_page_is_one_sentence_before_keras_is_even_imported(tmp_path: Path, page: ScorePage) -> None:
    empty = dict(page.layers)
    empty[STAFF] = np.zeros_like(empty[STAFF])
    few: NDArray[np.bool_] = np.zeros_like(empty[STAFF])
    few[100, 100:112] = True
    begun = time.monotonic()

    nothing = little(tmp_path / "1", ScorePage(page.image, empty)).run()
    too_few = little(tmp_path / "2", ScorePage(page.image, {**empty, STAFF: few})).run()
    large = little(tmp_path / "3", page, **{"Patch height": 264}).run()

    assert nothing[0] == too_few[0] == large[0] == 1
    assert nothing[1].startswith('The layer "rgba PNG - Layer 0" is empty inside the selected regions')
    assert too_few[1].startswith(
        'The layer "rgba PNG - Layer 0" has 12 pixels inside the selected regions; at least 20'
    )
    assert large[1].startswith("The patch of 24 x 264 pixels is larger than the page of 360 x 260.")
    assert time.monotonic() - begun < 20


def test_a_backend_that_is_not_installed_is_told_in_a_sentence(tmp_path: Path, page: ScorePage) -> None:
    code, said = little(tmp_path / "work", page, Backend="jax").run()

    assert code == 1 and said.startswith("The backend jax is not installed here.")


def test_too_little_memory_of_the_device_is_told_in_a_sentence() -> None:
    """A GPU says it as TensorFlow says it here: with its own exception, of an allocation that can't be had."""
    code = (
        "import sys, tensorflow as tf; sys.argv = ['train.py', 'job.json']; import train\n"
        "from patchwise.job import Settings\n"
        "from types import SimpleNamespace as S\n"
        "train.read_job = lambda file: S(settings=Settings(1, 20, 256, 256, 0, 'tensorflow'))\n"
        "def run(job, stop_asked): raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')\n"
        "train.run = run; train.main()"
    )

    done = subprocess.run([PYTHON, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "The memory of the GPU, or of the job, is too small for patches of 256 x 256 pixels in batches of 16."
    )


def test_on_sigterm_the_best_models_so_far_are_there_and_it_says_how_far_it_got(
    tmp_path: Path, page: ScorePage
) -> None:
    work = little(tmp_path / "work", page, **{"Maximum number of training epochs": 5000})
    process = work.start()
    wait_until(lambda: work.progress.exists() and "epoch 1/5000, accuracy" in work.progress.read_text(), 120)

    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)

    assert process.returncode == 1 and time.monotonic() - asked < 20
    told = re.fullmatch(
        r"Stopped before the end: 0 of 2 models were complete, and Background Model was in epoch (\d+) of 5000: "
        r"the best of its (\d+) epochs? is kept\.",
        said.splitlines()[-1],
    )
    assert told and int(told[1]) == int(told[2]) + 1 and work.report["stopped"] == said.splitlines()[-1]
    assert work.outputs() == {"Background Model", "Report"} and not work.report["finished"]
    model = as_h5(work.folder / "outputs" / "Background Model")
    assert f1_of(1, {BACKGROUND: model})[BACKGROUND] > 0


# --- end to end


def open_for_training(scene: Scene) -> None:
    """The site's block is the README's."""
    (block,) = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    scene.installation.change_site('workload = "probe"', 'workload = "patchwise_trainer"')
    site = scene.installation.site_file
    site.write_text(site.read_text() + "\n" + block)


def ask(scene: Scene, page: ScorePage, layers: dict[str, str]) -> str:
    served = {}
    for name, content in inputs_of(page, layers).items():
        served[name] = f"/uploads/projects/0a/resources/{name.encode().hex()}/original_file"
        scene.upstream.add(served[name], content)
    settings = {"CPUs": 1, "Maximum memory (MB)": 3000, "Maximum time (D-HH:MM)": "0-00:30",
                "Slurm Notification Email": "", "@note": "means nothing here", **ENOUGH}  # fmt: skip
    return scene.requester.ask(served, settings)


@pytest.mark.long(seconds=200)
@pytest.mark.parametrize(
    ("layers", "models"),
    [
        pytest.param(GENERATION_A, MODELS_A, id="generation A"),
        pytest.param(
            {"Background": BACKGROUND, "rgba PNG - Layer 0": STAFF, "rgba PNG - Layer 1": WRITING},
            ["Background Model", "Model 0", "Model 1"],
            id="generation B",
        ),
    ],
)  # fmt: skip
def test_the_models_that_come_back_separate_another_page(
    scene: Scene, page: ScorePage, tmp_path: Path, layers: dict[str, str], models: list[str]
) -> None:
    open_for_training(scene)

    answer = scene.answer(ask(scene, page, layers), 900)

    assert answer.error is None and set(answer.body) == {*models, "Report", "Overlay"}
    assert answer.output("Overlay").startswith(b"\x89PNG")
    report = json.loads(answer.output("Report"))
    assert [(label["model"], label["state"]) for label in report["labels"]] == [(name, "complete") for name in models]
    files = {layer: tmp_path / f"{layer}.h5" for layer in layers.values()}
    for file, name in zip(files.values(), models):
        file.write_bytes(answer.output(name))
    scores = f1_of(2, files)
    print(scores, {label["model"]: label["f1"] for label in report["labels"]})
    assert min(scores.values()) >= 0.9, scores


def wait_until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
