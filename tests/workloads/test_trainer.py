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


WATCH = """
from types import SimpleNamespace as S
from patchwise.training import Watch
NAN = float("nan")
for logs in (
    [(.5, .99), (.4, .98), (.3, .97), (.31, .99), (.32, 1), (.33, 1), (.1, 1)],
    [(NAN, .5), (.4, .5), (.3, .5)],
    [(NAN, .5)] * 9,
):
    kept, told = [], []
    watch = Watch(lambda model, epoch: kept.append(epoch.number), lambda epoch: told.append(epoch.number), lambda: False)
    watch.set_model(S(get_weights=lambda: [len(told)], stop_training=False))
    for number, (loss, accuracy) in enumerate(logs):
        watch.on_epoch_begin(number)
        watch.on_epoch_end(number, {"loss": 1, "binary_accuracy": 1, "val_loss": loss, "val_binary_accuracy": accuracy})
        if watch.model.stop_training:
            break
    print(kept, watch.best_epoch, len(told), watch.best_weights)
"""


def test_the_epoch_of_the_lowest_validation_loss_is_kept_whatever_the_accuracy() -> None:
    """Also where the first loss, or each, is no number."""
    done = subprocess.run([PYTHON, "-c", WATCH], env=ENVIRONMENT, capture_output=True, text=True)

    assert done.stdout.splitlines() == ["[1, 2, 3] 3 6 [2]", "[1, 2, 3] 3 3 [2]", "[1] 1 4 [0]"], done.stderr


def test_a_model_that_learned_nothing_is_warned_of_in_the_report_the_log_and_its_file(
    tmp_path: Path, page: ScorePage
) -> None:
    """Pixels at random, one of a hundred: nothing about the page tells where they are."""
    noise = np.random.default_rng(3).random(page.layers[STAFF].shape) < 0.01
    work = little(tmp_path / "work", ScorePage(page.image, {**page.layers, STAFF: noise & page.layers["regions"]}))

    process = work.start()
    log, said = process.communicate(timeout=300)

    assert process.returncode == 0, said
    (warning,) = (each for each in work.report["warnings"] if each.startswith('"Model 0"'))
    assert warning.startswith('"Model 0" has learned nothing:') and f"Warning: {warning}" in log.splitlines()
    assert work.report["labels"][1]["recall"] == 0 and work.report["labels"][0]["recall"] > 0
    show = "import sys, json; from pathlib import Path; from patchwise.model_file import read_card; " \
           "print(json.dumps(read_card(Path(sys.argv[1]))))"  # fmt: skip
    card = subprocess.run([PYTHON, "-c", show, str(work.folder / "outputs" / "Model 0")], env=ENVIRONMENT,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(card.stdout)["held_out"]["recall"] == 0
    assert json.loads(card.stdout)["layer"] == "rgba PNG - Layer 0"


def test_training_goes_on_from_a_model_on_another_page_too_and_draws_its_curves(
    tmp_path: Path, page: ScorePage
) -> None:
    first = little(tmp_path / "first", page)
    assert first.run() == (0, "")
    second = make_page(2)
    inputs = inputs_of(page, TWO_LAYERS)
    inputs.update({f"Further Page 0: {name}": content for name, content in inputs_of(second, TWO_LAYERS).items()})
    inputs["Model 0"] = (first.folder / "outputs" / "Model 0").read_bytes()
    work = Work(tmp_path / "second", inputs, ["Background Model", "Model 0", "Curves"], **LITTLE)

    assert work.run() == (0, "")

    before, after = first.report["labels"], work.report["labels"]
    assert [label["went_on_from_a_model"] for label in after] == [False, True]
    assert after[1]["history"][0]["loss"] < before[1]["history"][0]["loss"] < 2 * after[1]["history"][0]["loss"] + 1
    assert work.report["page"]["pages"] == 2 and after[1]["layer_pixels"] == sum(
        int(each.layers[STAFF].sum()) for each in (page, second)
    )
    told = work.report["separation"]
    assert np.sum(told["confusion"]) == told["pixels"] > 0 and 0 <= told["mean_f1"] <= 1
    assert (work.folder / "outputs" / "Curves").read_bytes().startswith(b"\x89PNG")


BAD_MODELS = """
import shutil, sys, h5py, keras, numpy as np
from pathlib import Path
from patchwise.model_file import UNREADABLE, read_weights, save
from patchwise.network import build
place = Path(sys.argv[1])
model = build(16, 24)
shapes = [tuple(weight.shape) for weight in model.weights]
save(model, place / "good", {}, 1e-4)
names = ["half", "not a number", "outside", "more", "group"]
for name in names:
    shutil.copy(place / "good", place / name)
keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(1, 1)]).save(place / "other.h5")
(place / "empty").write_bytes(b"")
(place / "half").write_bytes((place / "half").read_bytes()[:1_000_000])
kernel = "model_weights/conv2d/conv2d/kernel:0"
with h5py.File(place / "not a number", "r+") as opened:
    opened[kernel][0, 0, 0, 0] = np.nan
with h5py.File(place / "outside", "r+") as opened:
    shape = opened[kernel].shape
    del opened[kernel]
    opened.create_dataset(kernel, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
with h5py.File(place / "more", "r+") as opened:
    del opened[kernel]
    opened.create_dataset(kernel, (10**6, 10**6), "f4", chunks=(1000, 1000))
with h5py.File(place / "group", "r+") as opened:
    del opened[kernel]
    opened.create_group(kernel)
for name in [*names, "other.h5", "empty"]:
    try:
        read_weights(place / name, shapes)
    except UNREADABLE:
        continue
    print(name)
print(all((a == b).all() for a, b in zip(read_weights(place / "good", shapes), model.get_weights())))
"""


def test_only_whole_weights_of_our_own_form_are_read_and_nothing_that_a_file_leads_to(tmp_path: Path) -> None:
    done = subprocess.run([PYTHON, "-c", BAD_MODELS, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True)

    assert done.stdout == "True\n", done.stderr


def test_what_is_no_model_of_ours_is_refused_before_anything_is_trained(tmp_path: Path, page: ScorePage) -> None:
    inputs = {**inputs_of(page, TWO_LAYERS), "Model 0": b"\x89HDF\r\n\x1a\n and no more"}

    code, said = Work(tmp_path / "work", inputs, ["Background Model", "Model 0"], **LITTLE).run()

    sentence = (
        'The input "Model 0" is not a model that training can go on from: it must be one that was made here, whole.'
    )
    assert (code, said) == (1, sentence)


def test_each_fault_of_the_page_is_one_sentence_before_keras_is_even_imported(tmp_path: Path, page: ScorePage) -> None:
    empty = dict(page.layers)
    empty[STAFF] = np.zeros_like(empty[STAFF])
    few: NDArray[np.bool_] = np.zeros_like(empty[STAFF])
    few[100, 100:112] = True
    jax: dict[str, Any] = {"Backend": "jax"}  # is not installed, and would be named first

    nothing = little(tmp_path / "1", ScorePage(page.image, empty), **jax).run()
    too_few = little(tmp_path / "2", ScorePage(page.image, {**empty, STAFF: few}), **jax).run()
    large = little(tmp_path / "3", page, **{"Patch height": 264, **jax}).run()

    assert nothing[0] == too_few[0] == large[0] == 1
    assert nothing[1].startswith('The layer "rgba PNG - Layer 0" is empty inside the selected regions')
    assert too_few[1].startswith(
        'The layer "rgba PNG - Layer 0" has 12 pixels inside the selected regions; at least 20'
    )
    assert large[1].startswith("The patch of 24 x 264 pixels is larger than the page of 360 x 260.")


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
    wait_until(lambda: work.progress.exists() and "epoch 1/5000, accuracy" in work.progress.read_text(), 300)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)

    assert process.returncode == 1
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

    answer = scene.answer(ask(scene, page, layers), 1800)  # the job's own limit is half an hour

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
