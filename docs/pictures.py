"""Makes docs/pictures/ anew, of what the demo really does: `.venv/bin/python -m docs.pictures`. Needs chromium and pillow.

Some jobs of the demo's service run here, on the embedded broker and the local scheduler; `check.py status` and `check.py
report` are photographed while they do, by day and by night. `--flow` draws the flow alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from demo.requester import Asker, open_asker
from demo.setting import BINARIZE, ROOT, Setting, prepare
from tests.services.upstream import Upstream

HERE = Path(__file__).parent / "pictures"
THEMES = {"light": 1, "dark": 0}
"""As Chromium counts them."""
JOBS, MORE = 36, 6
REPORT, STATUS = (1120, 850), (1040, 350)
COLUMNS = 116


# --- what is photographed


def _publish(asker: Asker, setting: Setting, numbers: range) -> None:
    """Most are good ones; the others are of each kind that a requester can get wrong."""
    page = setting.inputs
    wrong = {
        5: (page, {"Window size": 24}), 11: ({"Page": "/uploads/gone.png"}, {}), 17: (page, {"Window size": 24}),
        23: (page, {"Maximum memory (MB)": 10**9}), 29: ({"Page": "/uploads/gone.png"}, {}),
    }  # fmt: skip
    for number in numbers:
        asker.ask(*wrong.get(number, (page, {"Window size": 25, "k": 0.2})))


def _check(setting: Setting, *words: str) -> str:
    """On a terminal of its own, as an operator has it."""
    program = [sys.executable, str(ROOT / "check.py"), *words] if words else [str(ROOT / "run_check")]
    site = ("--site", str(setting.folder / "site.toml"), "--credentials", str(setting.credentials))
    return subprocess.run(
        ["script", "-qec", shlex.join([*program, *site]), "/dev/null"],
        env={**setting.environment, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


def _ended(setting: Setting) -> int:
    jobs = setting.folder / "jobs"
    return len(list((jobs / "done").glob("*/*"))) + len(list((jobs / "rejected").glob("*")))


def _play(setting: Setting, asker: Asker) -> tuple[str, str]:
    """The report as HTML and what status says, when most jobs have ended and the last ones run."""
    _publish(asker, setting, range(JOBS))
    end = time.monotonic() + 600
    while _ended(setting) < JOBS and time.monotonic() < end:
        _check(setting)
        time.sleep(0.5)
    _publish(asker, setting, range(JOBS, JOBS + MORE))
    _check(setting)
    time.sleep(1)
    said, file = _check(setting, "status"), setting.folder / "report.html"
    _check(setting, "report", "--output", str(file))
    return file.read_text(encoding="utf-8"), said


def _as_page(said: str) -> str:
    """What a terminal shows, as a page."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi("$ ./check.py status\n" + said.rstrip()))
    shown = console.export_html(code_format="{code}", inline_styles=True)
    return (
        "<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'><style>"
        "body{margin:0;padding:18px 22px;background:#fff;color:#1b1f24}"
        "@media(prefers-color-scheme:dark){body{background:#14171b;color:#e8eaed}}"
        f"pre{{font:14px/1.5 ui-monospace,monospace;margin:0}}</style><pre>{shown}</pre>"
    )


def _photograph(page: str, name: str, size: tuple[int, int], folder: Path) -> None:
    file, shot = folder / f"{name}.html", folder / f"{name}.png"
    file.write_text(page, encoding="utf-8")
    for theme, number in THEMES.items():
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--user-data-dir={folder / 'browser'}", f"--blink-settings=preferredColorScheme={number}",
             f"--window-size={size[0]},{size[1]}", f"--screenshot={shot}", file.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as taken, io.BytesIO() as packed:
            taken.convert("RGB").quantize(96).save(packed, "PNG", optimize=True)
            (HERE / f"{name}-{theme}.png").write_bytes(packed.getvalue())


# --- the flow

COLOURS = {
    "light": {
        "text": "#1b1f24",
        "soft": "#545d68",
        "card": "#f5f6f8",
        "line": "#c9d0d8",
        "pill": "#ffffff",
        "go": "#1f5fb8",
    },
    "dark": {
        "text": "#e8eaed",
        "soft": "#b3bbc4",
        "card": "#1d2127",
        "line": "#4a525d",
        "pill": "#2a3038",
        "go": "#7fb2ff",
    },
}
BOXES = [
    (10, 20, 190, 300, "Web service", "RabbitMQ, and a REST API"),
    (280, 118, 290, 112, "Login node", "one pass of check.py, by cron"),
    (640, 118, 310, 112, "Compute node", "one Slurm job"),
]
PILLS = [
    (25, 176, 160, "jobs queue"), (25, 236, 160, "API: token, inputs"), (25, 276, 160, "results queue"),
    (295, 176, 74, "claim"), (388, 176, 74, "ack"), (481, 176, 74, "sbatch"),
    (655, 176, 62, "fetch"), (729, 176, 62, "run"), (803, 176, 62, "pack"), (877, 176, 62, "answer"),
]  # fmt: skip
ARROWS = [
    "M187 192H291", "M371 192H384", "M464 192H477", "M557 192H651", "M719 192H725", "M793 192H799", "M867 192H873",
    "M187 252H686V212", "M908 210V292H191", "M425 116V74", "M795 116V74",
]  # fmt: skip


def flow(colours: dict[str, str]) -> str:
    return "\n".join(_shapes(colours)) + "\n"


def _shapes(c: dict[str, str]) -> Iterator[str]:
    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 330" font-family="system-ui, sans-serif" '
        'font-size="14" role="img" aria-labelledby="t">'
    )
    yield (
        '<title id="t">A pass on the login node takes a message from the jobs queue, writes it down, acks it and submits it; '
        "a Slurm job fetches the inputs, runs, packs and answers to the results queue. Both write facts to the shared disk."
        "</title>"
    )
    yield (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{c["go"]}"/></marker></defs>'
    )
    for x, y, width, height, title, about in BOXES:
        yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="12" fill="{c["card"]}" stroke="{c["line"]}"/>'
        yield f'<text x="{x + 15}" y="{y + 26}" font-weight="600" fill="{c["text"]}">{title}</text>'
        yield f'<text x="{x + 15}" y="{y + 46}" font-size="13" fill="{c["soft"]}">{about}</text>'
    yield f'<rect x="280" y="20" width="670" height="52" rx="12" fill="{c["card"]}" stroke="{c["line"]}"/>'
    yield (
        f'<text x="295" y="51" fill="{c["text"]}"><tspan font-weight="600">Shared disk</tspan>'
        f'<tspan dx="14" fill="{c["soft"]}">jobs/active/&lt;job id&gt;/: facts, each written once and whole</tspan></text>'
    )
    for path in ARROWS:
        yield f'<path d="{path}" fill="none" stroke="{c["go"]}" stroke-width="2" marker-end="url(#a)"/>'
    for x, y, width, word in PILLS:
        yield f'<rect x="{x}" y="{y}" width="{width}" height="32" rx="8" fill="{c["pill"]}" stroke="{c["line"]}"/>'
        yield f'<text x="{x + width / 2:g}" y="{y + 21}" text-anchor="middle" fill="{c["text"]}">{word}</text>'
    yield "</svg>"


def main(words: Sequence[str]) -> int:
    HERE.mkdir(exist_ok=True)
    (ROOT / ".demo").mkdir(exist_ok=True)
    for theme, colours in COLOURS.items():
        (HERE / f"flow-{theme}.svg").write_text(flow(colours), encoding="utf-8")
    if "--flow" in words:
        return 0
    with Upstream() as upstream:
        setting = prepare(upstream, slurm=False, credentials=None, failure=None, workload=BINARIZE, site={})
        try:
            with contextlib.closing(open_asker(setting)) as asker:
                report, said = _play(setting, asker)
        finally:
            setting.end()
        _photograph(report, "report", REPORT, setting.folder)
        _photograph(_as_page(said), "status", STATUS, setting.folder)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
