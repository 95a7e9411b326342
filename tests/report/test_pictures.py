"""The pictures of the README: all there, small, by day and by night, and the flow is the one that the script draws."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from docs import pictures
from tests.installation import ROOT

SHOWN = re.findall(r'(?:src|srcset)="(docs/pictures/[^"]+)"', (ROOT / "README.md").read_text())


def test_each_picture_is_shown_by_day_and_by_night_and_says_what_it_shows() -> None:
    names = {re.sub(r"-(light|dark)\.\w+$", "", path) for path in SHOWN}
    said = re.findall(r'<img [^>]*alt="([^"]{20,})"', (ROOT / "README.md").read_text())

    assert len(SHOWN) == 2 * len(names) == 2 * len(said) == 6


@pytest.mark.parametrize("path", SHOWN)
def test_a_picture_is_there_and_small(path: str) -> None:
    assert 1000 < (ROOT / path).stat().st_size < 150_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_flow_is_as_the_script_draws_it_and_asks_for_nothing(theme: str) -> None:
    drawn = pictures.flow(pictures.COLOURS[theme])

    assert (pictures.HERE / f"flow-{theme}.svg").read_text() == drawn
    assert {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(drawn).iter()} <= {
        "svg", "title", "defs", "marker", "path", "rect", "text", "tspan"
    }  # fmt: skip
