"""How the patchwise trainer draws its samples: which pixels, how often, and what a patch of them holds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from patchwise import sampling

PATCH = (8, 12)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 255, (40, 50, 3), np.uint8)


@pytest.fixture
def layer() -> NDArray[np.bool_]:
    """A fifth of the page, all four corners among it."""
    layer: NDArray[np.bool_] = np.random.default_rng(4).random((40, 50)) < 0.2
    layer[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return layer


def plain_loop(layer: NDArray[np.bool_]) -> list[int]:
    """The centres that may be drawn, as one would write it down first."""
    found = []
    for row in range(layer.shape[0]):
        for column in range(layer.shape[1]):
            if layer[row, column]:
                found.append(row * layer.shape[1] + column)
    return found


def test_with_room_for_all_every_pixel_of_the_layer_is_a_centre_once(layer: NDArray[np.bool_]) -> None:
    drawn = sampling.draw(layer, 10_000, (0,))

    assert sorted(drawn.tolist()) == plain_loop(layer)
    assert drawn.tolist() != plain_loop(layer), "in random order, or the first fifth would be the top of the page"


def test_no_pixel_is_drawn_twice(layer: NDArray[np.bool_]) -> None:
    drawn = sampling.draw(layer, 300, (0,))

    assert len(set(drawn.tolist())) == 300


def test_every_pixel_is_as_likely_as_any_other_also_at_the_border(layer: NDArray[np.bool_]) -> None:
    centres, draws, most = plain_loop(layer), 4000, 40

    counts = np.bincount(
        np.concatenate([sampling.draw(layer, most, (seed,)) for seed in range(draws)]), minlength=layer.size
    )

    expected = draws * most / len(centres)
    deviation = (counts[centres] - expected) / np.sqrt(expected * (1 - most / len(centres)))
    assert counts.sum() == counts[centres].sum()
    # Deviations of an unbiased draw are those of a normal distribution: mean square 1, and none of 400 beyond 5.
    assert abs(np.mean(deviation**2) - 1) < 0.25 and np.abs(deviation).max() < 5


def test_the_same_seed_draws_the_same_and_another_one_does_not(layer: NDArray[np.bool_]) -> None:
    first, again, other = (sampling.draw(layer, 50, seed) for seed in ((7, 1), (7, 1), (7, 2)))

    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("patch", [(8, 12), (7, 5), (40, 50), (1, 1)])
def test_a_patch_has_its_pixel_in_the_middle_and_paper_beyond_the_page(
    image: NDArray[np.uint8], layer: NDArray[np.bool_], patch: tuple[int, int]
) -> None:
    regions: NDArray[np.bool_] = np.random.default_rng(5).random(layer.shape) < 0.7
    samples = sampling.sample(sampling.canvas(image, regions, patch), layer, 10_000, (0,))

    batch = samples.cut(np.arange(len(samples)))

    for number, centre in enumerate(samples.centres):
        row, column = divmod(int(centre), layer.shape[1])
        for y in (0, patch[0] // 2, patch[0] - 1):
            for x in (0, patch[1] // 2, patch[1] - 1):
                r, c = row - patch[0] // 2 + y, column - patch[1] // 2 + x
                on_page = 0 <= r < layer.shape[0] and 0 <= c < layer.shape[1]
                seen = (255 - image[r, c].astype(float)) / 255 if on_page else np.zeros(3)
                assert batch.image[number, y, x] == pytest.approx(seen)
                assert batch.layer[number, y, x, 0] == (on_page and layer[r, c])
                assert batch.known[number, y, x] == (on_page and regions[r, c])


def test_a_fifth_is_held_out_and_none_of_it_is_learned_from(image: NDArray[np.uint8], layer: NDArray[np.bool_]) -> None:
    samples = sampling.sample(sampling.canvas(image, layer, PATCH), layer, 100, (0,))

    learn, held_out = samples.split(0.2)

    assert (len(learn), len(held_out)) == (80, 20)
    assert not set(learn.centres.tolist()) & set(held_out.centres.tolist())


def test_a_million_samples_take_no_more_memory_than_their_numbers() -> None:
    layer: NDArray[np.bool_] = np.ones((1200, 1000), bool)
    canvas = sampling.canvas(np.zeros((1200, 1000, 3), np.uint8), layer, (256, 256))
    tracemalloc.start()

    samples = sampling.sample(canvas, layer, 1_000_000, (0,))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert len(samples) == 1_000_000
    assert kept < 8 * 1_000_000 + 2 * layer.size + 1_000_000, "8 bytes for each, and the layer with its margin"
