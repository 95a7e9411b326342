"""Makes a clean black-and-white page of a scan (Sauvola's adaptive threshold). Knows job.json, no queue, no cluster."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Optional

# "unused-ignore": the same lines are checked where these packages are installed and where they are not.
import numpy as np  # type: ignore[import-not-found,unused-ignore]
import pixels
from numpy.typing import NDArray  # type: ignore[import-not-found,unused-ignore]
from PIL import Image  # type: ignore[import-not-found,unused-ignore]
from skimage.filters import threshold_sauvola  # type: ignore[import-not-found,unused-ignore]

BAND_PIXELS = 4_000_000  # scikit-image needs about 60 bytes for each pixel that it works on at once


@dataclass(frozen=True)
class Job:
    page: Path
    clean_page: Path
    report: Path
    window_size: int  # pixels, the side of the square around each pixel
    k: float


def binarize(job: Job) -> None:
    page, pictures = read_page(job.page)
    white, mean_threshold = threshold(page, job.window_size, job.k)
    Image.fromarray(white).save(job.clean_page, format="PNG")
    height, width = white.shape
    report = {
        "method": "sauvola",
        "window_size": job.window_size,
        "k": job.k,
        "width": width,
        "height": height,
        "pictures_in_file": pictures,
        "mean_threshold": round(mean_threshold, 3),
        "black_share": round(1 - np.count_nonzero(white) / white.size, 6),
        "versions": {name: version(name) for name in ("scikit-image", "pillow", "numpy")},
    }
    job.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def read_job(file: Path) -> Job:
    """Raises SystemExit with a sentence when the job can't be done as it stands."""
    asked = json.loads(file.read_bytes())
    if "Page" not in asked["inputs"]:
        raise SystemExit("This job has no input named Page.")
    return Job(
        page=file.parent / asked["inputs"]["Page"],
        clean_page=file.parent / asked["outputs"]["Clean Page"],
        report=file.parent / asked["outputs"]["Report"],
        window_size=window_size(asked["settings"].get("Window size", 25)),
        k=sauvola_k(asked["settings"].get("k", 0.2)),
    )


def window_size(value: object) -> int:
    number = as_number(value)
    if number is None or not 3 <= number <= 999 or number % 2 != 1:
        raise SystemExit(f"Window size must be an odd whole number from 3 to 999; this job says {json.dumps(value)}.")
    return int(number)


def sauvola_k(value: object) -> float:
    number = as_number(value)
    if number is None or not 0 < number <= 1:
        raise SystemExit(f"k must be a number above 0 and at most 1; this job says {json.dumps(value)}.")
    return float(number)


def as_number(value: object) -> Optional[float]:
    """Also of a form that sends its numbers as text: "25" and 25.0 are 25."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.\d{0,18})?\s*", value, re.ASCII):
        return float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def read_page(file: Path) -> tuple[NDArray[np.uint8], int]:
    """The first picture in the file, upright, as grey values; and how many pictures the file holds."""
    with file.open("rb") as scan:  # outside of the try: a missing file is not a damaged one
        return pixels.read(scan)


def threshold(page: NDArray[np.uint8], window: int, k: float) -> tuple[NDArray[np.bool_], float]:
    """True where the page is white, and the mean of the thresholds.

    Works in bands of rows, or a large page would need 60 bytes a pixel. Each band is seen with half a window more on
    either side, and sums of 8-bit values are exact in scikit-image's float64 tables: so bands leave no trace.
    """
    height, width = page.shape
    rows, margin = max(1, BAND_PIXELS // width), window // 2
    white, total = np.empty(page.shape, dtype=bool), 0.0
    for top in range(0, height, rows):
        start, bottom = max(0, top - margin), min(top + rows, height)
        around = page[start : bottom + margin]
        level = threshold_sauvola(around, window, k)[top - start : bottom - start]  # type: ignore[no-untyped-call,unused-ignore]
        white[top:bottom] = page[top:bottom] > level
        total += float(level.sum())
    return white, total / page.size


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: binarize.py job.json")
    try:
        binarize(read_job(Path(sys.argv[1])))
    except MemoryError as reason:
        raise SystemExit("The page needs more memory than this job has. Ask for more memory.") from reason
