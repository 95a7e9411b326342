"""What the patchwise trainer reads of its pictures, and the sentence for each that it can't use."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from patchwise.pages import Page, joined, read_image, read_page
from PIL import Image

from tests.workloads.score_page import make_page

WIDTH, HEIGHT = 40, 30


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An image of noise, a region in its left half, and a layer whose upper half is opaque."""
    rgb = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    left, upper = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    left[:, : WIDTH // 2] = 255
    upper[: HEIGHT // 2] = 255
    upper[0, 0] = 254
    pictures = {"Image": rgb, "Selected Regions": np.dstack([rgb, left]), "Text": np.dstack([rgb, upper])}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / name, "PNG")
    return {name: tmp_path / name for name in pictures}


def read(files: dict[str, Path], patch: tuple[int, int] = (16, 16)) -> Page:
    return read_page(files["Image"], files["Selected Regions"], {"Text": files["Text"]}, patch)


def assert_refused(files: dict[str, Path], sentence: str, patch: tuple[int, int] = (16, 16)) -> None:
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        read(files, patch)


def test_a_pixel_belongs_to_a_layer_where_it_is_wholly_opaque_and_inside_the_regions(files: dict[str, Path]) -> None:
    page = read(files)

    expected: NDArray[np.bool_] = np.zeros((HEIGHT, WIDTH), bool)
    expected[: HEIGHT // 2, : WIDTH // 2] = True
    expected[0, 0] = False
    assert np.array_equal(page.layers["Text"], expected)
    assert page.regions.sum() == WIDTH // 2 * HEIGHT


def test_the_image_is_read_blue_first(files: dict[str, Path]) -> None:
    picture = np.asarray(Image.open(files["Image"]))

    assert np.array_equal(read_image(files["Image"]), picture[:, :, ::-1])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_an_image_of_another_kind_becomes_three_channels_of_eight_bits(tmp_path: Path, mode: str) -> None:
    grey = np.array([[0, 255], [255, 0]] if mode == "1" else [[0, 100], [200, 255]], np.uint8)
    picture = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(tmp_path / "image", "PNG")

    assert np.array_equal(read_image(tmp_path / "image"), np.dstack([grey] * 3))


def test_a_layer_of_another_size_than_the_image_is_refused(files: dict[str, Path]) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT + 1), "black").save(files["Text"], "PNG")

    assert_refused(
        files,
        'The layer "Text" has 40 x 31 pixels, but the image has 40 x 30. Both must be of the same size.',
    )


def test_a_layer_that_is_empty_inside_the_regions_is_refused(files: dict[str, Path]) -> None:
    layer = Image.new("RGBA", (WIDTH, HEIGHT))
    layer.paste("black", (WIDTH // 2, 0, WIDTH, HEIGHT))
    layer.save(files["Text"], "PNG")

    assert_refused(
        files,
        'The layer "Text" is empty inside the selected regions: no pixel is opaque (alpha 255) there. '
        "Draw what belongs to it, or leave the layer out.",
    )


@pytest.mark.parametrize("alpha", [254, 1])
def test_a_layer_that_is_nearly_opaque_is_refused_by_its_alpha(files: dict[str, Path], alpha: int) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, alpha)).save(files["Text"], "PNG")

    assert_refused(
        files,
        'The layer "Text" is empty inside the selected regions: no pixel is opaque (alpha 255) there, '
        f"its most opaque one has alpha {alpha}. Draw what belongs to it, or leave the layer out.",
    )


def test_regions_that_are_nearly_opaque_are_refused_by_their_alpha(files: dict[str, Path]) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 254)).save(files["Selected Regions"], "PNG")

    sentence = "no pixel of it is opaque (alpha 255), its most opaque one has alpha 254. Select a region."
    assert_refused(files, f'"Selected Regions" selects nothing: {sentence}')


def test_pixels_that_are_neither_opaque_nor_transparent_are_counted(files: dict[str, Path]) -> None:
    assert read(files).partly == {"Text": 1}


def test_several_pages_become_one_with_white_paper_between_them_that_is_not_selected(files: dict[str, Path]) -> None:
    first = read(files)
    second = Page(first.image[:20, :30], first.regions[:20, :30], {"Text": np.zeros((20, 30), bool)}, {"Text": 2})

    page = joined([first, second], (16, 12))

    assert page.image.shape == (HEIGHT + 16 + 20, WIDTH, 3) and page.partly == {"Text": 3}
    assert np.array_equal(page.image[:HEIGHT], first.image) and np.array_equal(page.image[46:, :30], second.image)
    assert (
        (page.image[HEIGHT:46] == 255).all() and not page.regions[HEIGHT:46].any() and not page.regions[46:, 30:].any()
    )
    assert page.regions.sum() == first.regions.sum() + second.regions.sum()
    assert np.array_equal(page.layers["Text"][:HEIGHT], first.layers["Text"]) and not page.layers["Text"][HEIGHT:].any()
    assert joined([first], (16, 12)) is first


def test_a_further_page_may_lack_a_layer_and_its_faults_are_named(files: dict[str, Path]) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT)).save(files["Text"], "PNG")
    page = read_page(files["Image"], files["Selected Regions"], {"Text": files["Text"]}, (16, 16), "Further Page 0: ")
    assert not page.layers["Text"].any()

    files["Text"].write_bytes(b"")
    with pytest.raises(SystemExit, match='^"Further Page 0: Text" is not a PNG that can be read.$'):
        read_page(files["Image"], files["Selected Regions"], {"Text": files["Text"]}, (16, 16), "Further Page 0: ")


def test_regions_that_select_nothing_are_refused(files: dict[str, Path]) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT)).save(files["Selected Regions"], "PNG")

    assert_refused(files, '"Selected Regions" selects nothing: no pixel of it is opaque (alpha 255). Select a region.')


def test_a_layer_without_an_alpha_channel_is_refused(files: dict[str, Path]) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(files["Text"], "PNG")

    assert_refused(
        files,
        'The layer "Text" has no alpha channel: it is RGB, not RGBA. Save it as a PNG with transparency, '
        "opaque only where a pixel belongs to the layer.",
    )


@pytest.mark.parametrize("name", ["Image", "Selected Regions", "Text"])
@pytest.mark.parametrize("kind", ["empty", "html", "jpeg", "half"])
def test_what_is_not_a_png_is_refused_by_its_name(files: dict[str, Path], name: str, kind: str) -> None:
    whole = files[name].read_bytes()
    jpeg = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(jpeg, "JPEG")
    files[name].write_bytes(
        {"empty": b"", "html": b"<html>gone</html>", "jpeg": jpeg.getvalue(), "half": whole[: len(whole) // 2]}[kind]
    )

    assert_refused(files, f'"{name}" is not a PNG that can be read.')


@pytest.mark.parametrize("name", ["Image", "Selected Regions", "Text"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(files: dict[str, Path], name: str) -> None:
    Image.new("1", (20000, 20000)).save(files[name], "PNG")

    assert files[name].stat().st_size < 100_000
    assert_refused(
        files, f'"{name}" has 20000 x 20000 pixels; at most 150 million can be used. Use a lower resolution.'
    )


@pytest.mark.parametrize("name", ["Image", "Selected Regions", "Text"])
def test_a_header_that_claims_more_than_the_file_can_hold_is_refused_before_room_is_made(
    files: dict[str, Path], name: str
) -> None:
    content = files[name].read_bytes()
    header = struct.pack(">II", 12206, 12206) + content[24:29]
    claiming = content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    files[name].write_bytes(claiming[:100])

    sentence = "claims 12206 x 12206 pixels, which a file of 100 bytes can't hold: it is damaged, or cut off."
    assert_refused(files, f'"{name}" {sentence}')


def test_a_png_with_a_large_colour_profile_and_a_long_text_is_read(files: dict[str, Path]) -> None:
    expected = read_image(files["Image"])
    content = files["Image"].read_bytes()
    chunks = b""
    for name, data in ((b"iCCP", b"large\0\0" + zlib.compress(bytes(2_000_000))),
                       (b"zTXt", b"long\0\0" + zlib.compress(bytes(90_000_000)))):  # fmt: skip
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    files["Image"].write_bytes(content[:33] + chunks + content[33:])

    assert np.array_equal(read_image(files["Image"]), expected)


@pytest.mark.parametrize(("patch", "fits"), [((32, 16), False), ((16, 44), False), ((30, 40), True)])
def test_a_patch_that_is_larger_than_the_page_is_refused(
    files: dict[str, Path], patch: tuple[int, int], fits: bool
) -> None:
    if fits:
        assert read(files, patch).layers
        return

    sentence = f"The patch of {patch[1]} x {patch[0]} pixels is larger than the page of 40 x 30. "
    assert_refused(files, sentence + "Set a smaller Patch height and Patch width.", patch)


def test_the_pages_that_tests_are_made_of_have_layers_that_share_out_the_regions() -> None:
    page, same, other = make_page(1), make_page(1), make_page(2)

    parts = np.sum([page.layers[name] for name in ("symbols", "staff", "text", "background")], axis=0)

    assert np.array_equal(parts == 1, page.layers["regions"]) and parts.max() == 1
    assert all(page.layers[name].mean() > 0.02 for name in page.layers)
    assert np.array_equal(page.image, same.image) and not np.array_equal(page.image, other.image)
