"""What the patchwise trainer understands of a job.json, of either generation, and what it says of itself meanwhile."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from patchwise import curves, overlay
from patchwise.job import Job, read_job
from patchwise.report import Report, duration, learned_nothing
from patchwise.separation import Surest, separation
from PIL import Image

from worker.in_job.progress import parse


@dataclass(frozen=True)
class Epoch:
    """As training.py has it, which only its own environment can import."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


GENERATION_A = ("Image", "Background", "Music Layer", "Staff Layer", "Text", "Selected Regions")
MODELS_A = ("Background Model", "Music Symbol Model", "Staff Lines Model", "Text Model")


def job(tmp_path: Path, inputs: Any = GENERATION_A, outputs: Any = MODELS_A, **settings: Any) -> Job:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({
        "settings": settings, "resources": {"cpus": 6},
        "inputs": {name: f"inputs/{name}" for name in inputs}, "outputs": {name: f"outputs/{name}" for name in outputs},
    }))  # fmt: skip
    return read_job(file, {})


def numbered(*numbers: int) -> tuple[str, ...]:
    return ("Image", "Background", "Selected Regions", *(f"rgba PNG - Layer {n}" for n in numbers))


def assert_refused(sentence: str, tmp_path: Path, *arguments: Any, **settings: Any) -> None:
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        job(tmp_path, *arguments, **settings)


def test_generation_a_names_its_layers_and_models(tmp_path: Path) -> None:
    labels = job(tmp_path).labels

    assert {label.layer: label.model for label in labels} == {
        "Background": "Background Model", "Music Layer": "Music Symbol Model", "Staff Layer": "Staff Lines Model",
        "Text": "Text Model",
    }  # fmt: skip


def test_generation_b_numbers_them_up_to_ten(tmp_path: Path) -> None:
    labels = job(tmp_path, numbered(*range(10)), ("Background Model", *(f"Model {n}" for n in range(10)))).labels

    assert [(label.layer, label.model) for label in labels] == [
        ("Background", "Background Model"), *((f"rgba PNG - Layer {n}", f"Model {n}") for n in range(10)),
    ]  # fmt: skip


def test_a_gap_in_the_numbers_is_named(tmp_path: Path) -> None:
    assert_refused(
        'The input "rgba PNG - Layer 1" is missing; there is a Layer 3. '
        "Number the layers 0, 1, 2 and so on, without a gap.",
        tmp_path, numbered(0, 2, 3), ("Background Model", "Model 0", "Model 1"),
    )  # fmt: skip


@pytest.mark.parametrize("missing", GENERATION_A)
def test_an_input_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    inputs = [name for name in GENERATION_A if name != missing]

    assert_refused(f'This job has no input named "{missing}".', tmp_path, inputs)


def test_an_output_that_the_site_did_not_declare_is_named(tmp_path: Path) -> None:
    assert_refused(
        'This job has no output named "Text Model". Somebody who runs the service must look into it.',
        tmp_path, GENERATION_A, MODELS_A[:3],
    )  # fmt: skip


def test_the_settings_of_the_contract_have_its_defaults_and_those_of_others_mean_nothing(tmp_path: Path) -> None:
    settings = job(tmp_path, **{"@note": None, "CPUs": 6}).settings

    assert (settings.epochs, settings.samples, settings.height, settings.width) == (15, 10_000, 256, 256)
    assert (settings.seed, settings.backend) == (0, "tensorflow")


@pytest.mark.parametrize(("name", "value", "limits"), [
    ("Maximum number of training epochs", 0, "1 to 10000"), ("Maximum number of training epochs", "15.5", "1 to 10000"),
    ("Maximum number of training epochs", 15.5, "1 to 10000"),
    ("Maximum number of training epochs", "many", "1 to 10000"), ("Maximum number of training epochs", "1e2", "1 to 10000"),
    ("Maximum number of training epochs", "0", "1 to 10000"), ("Maximum number of training epochs", "", "1 to 10000"),
    ("Maximum number of training epochs", "1_5", "1 to 10000"), ("Maximum number of training epochs", 1e300, "1 to 10000"),
    ("Maximum number of training epochs", True, "1 to 10000"),
    ("Maximum number of samples per label", 19, "20 to 10000000"), ("Patch height", 12, "16 to 4096"),
    ("Patch width", None, "16 to 4096"), ("Seed", -1, "0 to 4294967295"),
])  # fmt: skip
def test_a_setting_out_of_range_is_refused(tmp_path: Path, name: str, value: Any, limits: str) -> None:
    sentence = f"{name} must be a whole number from {limits}; this job says {json.dumps(value)}."

    assert_refused(sentence, tmp_path, **{name: value})


@pytest.mark.parametrize("value", ["15", 15.0, " 15 ", "15.0", "15.", "+15", "015"])
def test_a_whole_number_may_come_as_text_or_with_a_point(tmp_path: Path, value: Any) -> None:
    assert job(tmp_path, **{"Maximum number of training epochs": value}).settings.epochs == 15


def further(number: int, without: str = "") -> tuple[str, ...]:
    return tuple(f"Further Page {number}: {name}" for name in GENERATION_A if name != without)


def test_further_pages_have_the_inputs_of_the_first_one_under_their_own_names(tmp_path: Path) -> None:
    pages = job(tmp_path, (*GENERATION_A, *further(0), *further(1))).further

    assert [page.prefix for page in pages] == ["Further Page 0: ", "Further Page 1: "]
    assert pages[1].image == tmp_path / "inputs" / "Further Page 1: Image"
    assert set(pages[1].layers) == {"Background", "Music Layer", "Staff Layer", "Text"}
    assert pages[1].layers["Text"] == tmp_path / "inputs" / "Further Page 1: Text"
    assert job(tmp_path).further == ()


@pytest.mark.parametrize("missing", ["Image", "Selected Regions", "Background", "Text"])
def test_an_input_of_a_further_page_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    sentence = f'This job has no input named "Further Page 0: {missing}".'

    assert_refused(sentence, tmp_path, (*GENERATION_A, *further(0, without=missing)))


def test_a_model_among_the_inputs_is_what_training_goes_on_from(tmp_path: Path) -> None:
    labels = job(tmp_path, (*GENERATION_A, "Text Model")).labels

    assert [label.start_file for label in labels] == [None, None, None, tmp_path / "inputs" / "Text Model"]


def test_curves_are_drawn_where_the_site_declares_them(tmp_path: Path) -> None:
    assert job(tmp_path).curves is None
    assert job(tmp_path, outputs=(*MODELS_A, "Curves")).curves == tmp_path / "outputs" / "Curves"


def test_curves_show_each_model_also_one_without_an_epoch_or_with_a_loss_that_is_no_number(tmp_path: Path) -> None:
    history: list[dict[str, Any]] = [{"loss": 0.5, "validation_loss": 0.6}, {"loss": 0.2, "validation_loss": None}]

    curves.draw([("Model 0", history, 1), ("Model 1", [], None), ("Model 2", history[:1], 1)], tmp_path / "curves")

    with Image.open(tmp_path / "curves") as drawn:
        assert drawn.size == (480, 3 * 240) and drawn.format == "PNG"
        colours = {colour for _, colour in drawn.crop((40, 30, 340, 210)).getcolors() or []}
    assert {(0, 90, 200), (213, 94, 0)} <= colours


def test_each_pixel_goes_to_the_model_that_is_most_sure_and_is_counted_where_it_belongs(tmp_path: Path) -> None:
    layers = [np.array([[1, 1, 0, 0, 1, 0]], bool), np.array([[0, 0, 1, 1, 1, 0]], bool)]
    surest = Surest((1, 6))
    surest.add(np.array([[0.9, 0.2, 0.2, 0.5, 0.5, 0.5]], np.float32))
    surest.add(np.array([[0.1, 0.3, 0.8, 0.5, 0.5, 0.5]], np.float32))

    told = separation(surest.labels, layers, np.ones((1, 6), bool))

    assert surest.labels.tolist() == [[0, 1, 1, 0, 0, 0]]
    assert told == {
        "accuracy": 0.5, "mean_f1": 0.5, "f1": [0.5, 0.5], "confusion": [[1, 1], [1, 1]], "pixels": 4,
        "pixels_of_no_or_several_layers": 2,
    }  # fmt: skip


def test_a_page_of_which_nothing_is_known_has_no_number_for_its_separation() -> None:
    told = separation(np.zeros((2, 2), np.uint8), [np.ones((2, 2), bool)] * 2, np.ones((2, 2), bool))

    assert (told["accuracy"], told["mean_f1"], told["confusion"]) == (None, None, [[0, 0], [0, 0]])


@pytest.mark.parametrize(("loss", "recall", "share", "warned"), [
    (0.05, 0.9, 0.1, None), (0.05, 0.0, 0.1, "has learned nothing"), (0.05, None, 0.1, "has learned nothing"),
    (0.33, 1.0, 0.1, "no better than a guess"), (float("nan"), 1.0, 0.1, "no better than a guess"),
    (0.06, 1.0, 0.99, "no better than a guess"), (0.05, 1.0, 0.99, None), (0.1, 1.0, 1.0, "no better than a guess"),
])  # fmt: skip
def test_a_model_that_finds_nothing_or_only_guesses_is_warned_of(
    tmp_path: Path, loss: float, recall: Optional[float], share: float, warned: Optional[str]
) -> None:
    """A tenth of the pixels belong: always to say "a tenth" costs 0.325."""
    said = learned_nothing(job(tmp_path).labels[3], loss, recall, share)

    assert said is None if warned is None else said is not None and warned in said and said.startswith('"Text Model"')


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (20000, "5.6 h")])
def test_a_duration_is_told_as_people_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_after_an_epoch_it_is_told_how_long_the_whole_takes_at_most(tmp_path: Path) -> None:
    """Two labels of 1000 and 500 samples, 10 epochs, and an epoch of the first took 60 s."""
    (tmp_path / "outputs").mkdir()
    asked = job(tmp_path, numbered(0), ("Background Model", "Model 0", "Report"),
                **{"Maximum number of training epochs": 10, "Maximum number of samples per label": 1000})  # fmt: skip
    report = Report(
        asked, {"Background": 99_999, "rgba PNG - Layer 0": 500}, {"BATCHFERRY_PROGRESS": str(tmp_path / "p")}
    )
    report.begin(0, samples=1000)

    report.epoch(0, Epoch(1, 0.5, 0.9, 0.5, 0.9, 60.0))

    last = (tmp_path / "p").read_text().splitlines()[-1]
    assert last == "progress 0.050 Background Model: epoch 1/10, accuracy 0.900, at most 14 min left"
    written = json.loads((tmp_path / "outputs" / "Report").read_text())
    assert written["estimated_seconds_at_most"] == pytest.approx(9 * 60 + 10 * 30, abs=5)


def test_a_side_that_can_not_be_halved_twice_is_refused(tmp_path: Path) -> None:
    assert_refused("Patch width must be a multiple of 4; this job says 250. Try 248.", tmp_path, **{"Patch width": 250})


def test_a_backend_that_keras_does_not_have_is_refused(tmp_path: Path) -> None:
    sentence = 'Backend must be one of tensorflow, torch, jax; this job says "theano".'

    assert_refused(sentence, tmp_path, Backend="theano")


def test_the_backend_of_the_site_counts_where_the_message_has_none(tmp_path: Path) -> None:
    job(tmp_path)

    assert read_job(tmp_path / "job.json", {"KERAS_BACKEND": "jax"}).settings.backend == "jax"


def test_a_stopped_report_says_how_far_it_got_and_status_can_read_each_line(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    asked = job(tmp_path, outputs=(*MODELS_A, "Report"), **{"Maximum number of training epochs": 15})
    report = Report(asked, {label.layer: 9 for label in asked.labels}, {"BATCHFERRY_PROGRESS": str(tmp_path / "p")})

    report.begin(0, samples=20)
    report.complete(0, f1=0.5, loss=float("inf"))
    report.begin(1, samples=20)
    said = report.stop()

    assert said == (
        "Stopped before the end: 1 of 4 models were complete, and Music Symbol Model was in epoch 1 of 15: "
        "it had no whole epoch, so there is no model of it."
    )
    written = json.loads((tmp_path / "outputs" / "Report").read_text())
    assert (written["finished"], written["stopped"]) == (False, said)
    assert [label["state"] for label in written["labels"]] == ["complete", "stopped", "waiting", "waiting"]
    assert written["labels"][0]["loss"] is None
    lines = [parse(line.encode() + b"\n") for line in (tmp_path / "p").read_text().splitlines()]
    assert lines[-1] == (0.25, "Music Symbol Model: epoch 1/15") and None not in lines


@pytest.mark.parametrize(("size", "patch"), [((30, 41), (16, 16)), ((16, 16), (16, 16)), ((100, 17), (32, 16))])
def test_patches_that_see_the_whole_page_give_each_pixel_its_own_probability(
    size: tuple[int, int], patch: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)

    made = overlay.probability(lambda patches: patches[..., :1], image, patch, batch=3)

    assert made == pytest.approx((255 - image[..., 0].astype(float)) / 255, abs=1e-6)


def test_the_overlay_leaves_the_background_as_it_is_and_colours_each_layer(tmp_path: Path) -> None:
    image = np.full((20, 30, 3), 201, np.uint8)
    surest = Surest((20, 30))
    for probability in (np.full((20, 30), 0.5), np.pad(np.ones((20, 10)), ((0, 0), (0, 20)))):
        surest.add(probability.astype(np.float32))

    overlay.draw(image, surest.labels, tmp_path / "overlay.png")

    drawn = np.asarray(Image.open(tmp_path / "overlay.png"))
    assert (drawn[:, 10:] == 201).all() and (drawn[:, :10] != 201).all()


def test_an_overlay_of_a_large_page_is_small(tmp_path: Path) -> None:
    overlay.draw(np.zeros((3000, 2000, 3), np.uint8), np.zeros((3000, 2000), int), tmp_path / "overlay.png")

    with Image.open(tmp_path / "overlay.png") as drawn:
        assert drawn.size == (800, 1200)
