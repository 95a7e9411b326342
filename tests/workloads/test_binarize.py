"""The workload binarize as the worker starts it: its own python and a job.json. That python makes the pictures too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.workload, pytest.mark.unhurried]

FOLDER = Path(__file__).resolve().parents[2] / "workloads" / "binarize"
PYTHON = str(FOLDER / ".venv" / "bin" / "python")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}

# scikit-image ships a real scan of 384 x 191 pixels, unevenly lit.
PICTURES = """
import json, skimage, numpy as np
from pathlib import Path
from PIL import Image
scan = Image.open(Path(skimage.__file__).parent / "data" / "page.png").convert("L")
page, clean_page = Path("inputs/page"), Path("outputs/0.png")
"""


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """The workload's own environment, built when it isn't there; when that fails, so do the tests: they never skip."""
    if Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", "import skimage.filters, PIL"]).returncode == 0:
        return
    for command in (
        [sys.executable, "-m", "venv", ".venv"],
        [PYTHON, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"],
    ):
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
        if done.returncode != 0:
            by_hand = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
            pytest.fail(f"Can't set up workloads/binarize. Run there: {by_hand}\n{done.stderr}", pytrace=False)


@dataclass(frozen=True)
class Work:
    folder: Path

    def python(self, code: str) -> str:
        done = subprocess.run([PYTHON, "-c", PICTURES + code], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def binarize(
        self, settings: Mapping[str, object] | None = None, under: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        job = {
            "format": 1,
            "workload": "binarize",
            "settings": settings or {},
            "inputs": {"Page": "inputs/page"},
            "outputs": {"Clean Page": "outputs/0.png", "Report": "outputs/1.json"},
            "resources": {"cpus": 2, "memory_mb": 2000, "time_seconds": 600},
        }
        (self.folder / "job.json").write_text(json.dumps(job))
        command = [*under, PYTHON, str(FOLDER / "binarize.py"), str(self.folder / "job.json")]
        return subprocess.run(command, cwd=self.folder, env=ENVIRONMENT, capture_output=True, text=True)

    def outputs(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted((self.folder / "outputs").iterdir())]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A work folder with the real scan as its page, under a name that a shell would trip over."""
    folder = tmp_path / "a'; echo work $(id)"
    (folder / "inputs").mkdir(parents=True)
    (folder / "outputs").mkdir()
    work = Work(folder)
    work.python("scan.save(page, 'PNG')")
    return work


def assert_refused(done: subprocess.CompletedProcess[str], work: Work, sentence: str) -> None:
    """Then the job fails with this sentence and nothing else, and has no outputs."""
    assert (done.returncode, done.stderr, done.stdout, work.outputs()) == (1, sentence + "\n", "", [])


def test_real_scan_becomes_clean_page_with_report(work: Work) -> None:
    # When a real scan is binarized with the default settings
    done = work.binarize()

    # Then the page is black and white, as large as the scan, and the report says what was done
    assert (done.returncode, done.stderr) == (0, "")
    assert work.python("made = Image.open(clean_page); print(made.mode, made.size)") == "1 (384, 191)"
    report = json.loads(work.outputs()[1])
    versions = report.pop("versions")
    assert versions["scikit-image"] == work.python("print(skimage.__version__)")
    assert report == {
        "method": "sauvola",
        "window_size": 25,
        "k": 0.2,
        "width": 384,
        "height": 191,
        "pictures_in_file": 1,
        "mean_threshold": pytest.approx(145.209),
        "black_share": pytest.approx(0.127672),
    }


def test_every_pixel_follows_sauvolas_formula(work: Work) -> None:
    # When a scan is binarized with a window of 15 and k = 0.34
    work.binarize({"Window size": 15, "k": 0.34})

    # Then each pixel is white exactly where it is brighter than m * (1 + k * (s / 127.5 - 1)) of its own window
    code = """
grey = np.asarray(scan).astype(float)
windows = np.lib.stride_tricks.sliding_window_view(np.pad(grey, 7, mode="reflect"), (15, 15))
level = windows.mean((2, 3)) * (1 + 0.34 * (windows.std((2, 3)) / 127.5 - 1))
assert np.abs(grey - level).min() > 1e-9  # no pixel so near its threshold that rounding decides
print(np.array_equal(np.asarray(Image.open(clean_page)), grey > level))
"""
    assert work.python(code) == "True"


def test_a_page_of_many_bands_has_no_seams(work: Work) -> None:
    # Given a page of noise, where every pixel counts, too large for one band, with three rows for the last
    noise = "np.random.default_rng(1).integers(0, 256, (2003, 4000), np.uint8)"
    work.python(f"Image.fromarray({noise}).save(page, 'TIFF')")

    # When it is binarized with a far larger window
    work.binarize({"Window size": 99})

    # Then the result is what scikit-image makes of the whole page at once
    code = """
from skimage.filters import threshold_sauvola
grey = np.asarray(Image.open(page))
print(np.array_equal(np.asarray(Image.open(clean_page)), grey > threshold_sauvola(grey, 99, 0.2)))
"""
    assert work.python(code) == "True"


def test_same_page_gives_same_bytes(work: Work) -> None:
    # Given the outputs of one run
    work.binarize()
    first = work.outputs()

    # When the same job runs again
    work.binarize()

    # Then both outputs are the same, byte for byte
    assert work.outputs() == first


@pytest.mark.parametrize(
    "save",
    [
        "scan.save(page, 'TIFF', compression='tiff_lzw')",
        "scan.convert('RGB').save(page, 'PNG')",
        "scan.convert('RGBA').save(page, 'PNG')",
        "scan.convert('LA').save(page, 'TIFF')",
        "scan.convert('P').save(page, 'PNG')",
        "Image.fromarray(np.asarray(scan).astype(np.uint16) * 257).save(page, 'PNG')",
        "Image.fromarray(np.asarray(scan).astype(np.uint16) * 257).save(page, 'TIFF')",
        "exif = Image.Exif(); exif[0x112] = 6; scan.transpose(Image.Transpose.ROTATE_90).save(page, 'PNG', exif=exif)",
    ],
)
def test_a_scan_in_another_guise_gives_the_same_page(work: Work, save: str) -> None:
    # Given the page that comes of the greyscale PNG, and the same scan saved without loss in another way
    work.binarize()
    expected = work.outputs()
    work.python(save)

    # When that one is binarized
    done = work.binarize()

    # Then the outputs are the same
    assert done.returncode == 0, done.stderr
    assert work.outputs() == expected


def test_jpeg_gives_nearly_the_same_page(work: Work) -> None:
    # Given the scan as a colour JPEG, which loses a little
    work.python("scan.convert('RGB').save(page, 'JPEG', quality=95)")

    # When it is binarized
    done = work.binarize()

    # Then the share of ink is that of the scan within a hundredth
    assert done.returncode == 0, done.stderr
    assert json.loads(work.outputs()[1])["black_share"] == pytest.approx(0.1277, abs=0.01)


def test_transparent_parts_are_white_paper(work: Work) -> None:
    # Given a page that is black, and transparent in its left half
    work.python("p = Image.new('RGBA', (60, 40), 'black'); p.paste((0, 0, 0, 0), (0, 0, 30, 40)); p.save(page, 'PNG')")

    # When it is binarized
    work.binarize()

    # Then the left half is white
    assert work.python("print(np.asarray(Image.open(clean_page))[:, :30].all())") == "True"


def test_smallest_page_is_binarized(work: Work) -> None:
    # Given a page of one black pixel, far smaller than the window
    work.python("Image.new('L', (1, 1)).save(page, 'PNG')")

    # When it is binarized
    done = work.binarize()

    # Then it stays black
    assert done.returncode == 0, done.stderr
    assert json.loads(work.outputs()[1])["black_share"] == 1


def test_first_picture_of_several_is_taken_and_reported(work: Work) -> None:
    # Given a TIFF with the scan and an empty page
    work.python("scan.save(page, 'TIFF', save_all=True, append_images=[Image.new('L', (10, 10))])")

    # When it is binarized
    work.binarize()

    # Then the report is about the scan and tells that there were two
    report = json.loads(work.outputs()[1])
    assert (report["width"], report["pictures_in_file"]) == (384, 2)


@pytest.mark.parametrize("page", [b"", b"<html>Not found</html>", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01\x00\x01\x00"])
def test_what_is_no_picture_is_refused_in_a_sentence(work: Work, page: bytes) -> None:
    # Given something else than a picture
    (work.folder / "inputs" / "page").write_bytes(page)

    # When, then
    sentence = "The page is not an image that can be read (PNG, JPEG or TIFF)."
    assert_refused(work.binarize(), work, sentence)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_half_a_picture_is_refused_in_a_sentence(work: Work, kind: str) -> None:
    # Given a download that broke off half-way
    work.python(f"scan.save(page, '{kind}'); page.write_bytes(page.read_bytes()[: page.stat().st_size // 2])")

    # When, then
    sentence = "The page is not an image that can be read (PNG, JPEG or TIFF)."
    assert_refused(work.binarize(), work, sentence)


def test_decompression_bomb_is_refused_before_it_is_decoded(work: Work) -> None:
    # Given a small file that claims 400 million pixels
    work.python("Image.new('1', (20000, 20000)).save(page, 'PNG')")

    # When, then
    sentence = "The page has 20000 x 20000 pixels; at most 150 million can be binarized. Use a lower resolution."
    assert_refused(work.binarize(), work, sentence)


def test_floating_point_pixels_are_refused(work: Work) -> None:
    # Given a picture of a kind whose black and white nobody has agreed on
    work.python("Image.new('F', (10, 10)).save(page, 'TIFF')")

    # When, then
    sentence = "The page's pixels are neither 8-bit nor 16-bit values. Save it as greyscale or RGB."
    assert_refused(work.binarize(), work, sentence)


@pytest.mark.parametrize("value", [24, 1, 1001, -25, 25.5, "25.5", "24", "x", "", True, None, [25], 1e300])
def test_window_size_that_makes_no_window_is_refused(work: Work, value: object) -> None:
    sentence = f"Window size must be an odd whole number from 3 to 999; this job says {json.dumps(value)}."
    assert_refused(work.binarize({"Window size": value}), work, sentence)


@pytest.mark.parametrize(
    "value", [0, -0.2, 1.5, 10**400, float("nan"), float("inf"), "1.2", "nan", "1e-3", False, None]
)
def test_k_out_of_range_is_refused(work: Work, value: object) -> None:
    sentence = f"k must be a number above 0 and at most 1; this job says {json.dumps(value)}."
    assert_refused(work.binarize({"k": value}), work, sentence)


def test_numbers_may_come_as_text_or_with_a_point(work: Work) -> None:
    # Given the page that comes of numbers
    work.binarize({"Window size": 15, "k": 0.34})
    expected = work.outputs()

    # When the same numbers come as a form sends them, then
    for window in ("15", 15.0, "15.0"):
        assert work.binarize({"Window size": window, "k": "0.34"}).returncode == 0
        assert work.outputs() == expected


def test_settings_of_others_are_ignored(work: Work) -> None:
    # When a job brings settings that are meant for the site
    done = work.binarize({"CPUs": 6, "@note": None})

    # Then it is binarized all the same
    assert done.returncode == 0, done.stderr


def test_too_little_memory_is_told_in_a_sentence(work: Work) -> None:
    # Given a page that needs about 1 GB with windows of 999, and a process that may not grow beyond 900 MB
    work.python("Image.new('L', (12000, 12000), 255).save(page, 'PNG')")

    # When, then
    sentence = "The page needs more memory than this job has. Ask for more memory."
    assert_refused(work.binarize({"Window size": 999}, under=["prlimit", "--as=900000000"]), work, sentence)
