"""Charts as SVG to stand inside a page: drawn by pygal, coloured by the page's own style sheet. The only importer of pygal.

pygal adds a script, a style sheet and texts for its script; all of that is taken out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional
from xml.etree import ElementTree

import pygal
from pygal.style import Style

_SIZE = {"width": 420, "height": 260}
"""So that letters can still be read where a phone shows it in 330 pixels."""
_LETTERS = 16
_BAR = 34
_LONGEST_LABEL = 20
_NOT_WANTED = ("defs", "script", "style", "title")
_MOST_LABELS = 7

Words = Callable[[float], str]
Series = Sequence[tuple[str, Sequence[Optional[float]]]]


def stacked(labels: Sequence[str], series: Series, words: Words = str) -> str:
    """Bars upright, the series on top of one another."""
    return _drawn(pygal.StackedBar(**_options(labels, words), **_fewer(labels)), series)


def side_by_side(labels: Sequence[str], series: Series, words: Words) -> str:
    return _drawn(pygal.Bar(**_options(labels, words), **_fewer(labels)), series)


def lying(labels: Sequence[str], series: Series, words: Words) -> str:
    """Bars from left to right, the first on top; for names."""
    # pygal begins at the bottom.
    short = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 3]}..." for name in labels][::-1]
    options = {**_options(short, words), "height": 70 + _BAR * len(labels) * len(series)}
    return _drawn(pygal.HorizontalBar(**options), [(name, list(values)[::-1]) for name, values in series])


def _options(labels: Sequence[str], words: Words) -> dict[str, Any]:
    return {
        **_SIZE, "js": [], "css": [], "style": Style(label_font_size=_LETTERS, major_label_font_size=_LETTERS),
        "show_legend": False, "disable_xml_declaration": True, "margin": 8, "max_scale": 6, "min_scale": 3,
        "x_labels": list(labels), "value_formatter": words, "include_x_axis": True, "truncate_label": -1,
    }  # fmt: skip


def _fewer(labels: Sequence[str]) -> dict[str, Any]:
    """As many of the labels below upright bars as there is room for."""
    return {"x_labels_major_every": -(-len(labels) // _MOST_LABELS) or 1, "show_minor_x_labels": False}


def _drawn(chart: Any, series: Series) -> str:
    names = [name for name, _ in series]
    for name, values in series:
        chart.add(name, list(values))
    chart.add_xml_filter(lambda root: _plain(root, names))
    drawn: str = chart.render(is_unicode=True)
    return drawn


def _plain(root: Any, names: Sequence[str]) -> Any:
    """Only shapes and letters. Each bar says what it is, for a pointer that rests on it."""
    for above in list(root.iter()):
        above.attrib.pop("style", None)
        above.attrib.pop("id", None)
        for each in list(above):
            if not isinstance(each.tag, str) or each.tag in _NOT_WANTED or "overlay" in each.get("class", ""):
                above.remove(each)
    for number, name in enumerate(names):
        for each in root.iter("g"):
            if f"serie-{number}" in each.get("class", "").split():
                each.set("class", f"s{number}")
                _tell(each, name if len(names) > 1 else "")
    root.set("aria-hidden", "true")  # the same numbers follow in a table
    root.set("focusable", "false")
    return root


def _tell(bars: Any, name: str) -> None:
    for bar in [each for each in bars.iter("g") if each.get("class") == "bar"]:
        said = {each.get("class"): each.text or "" for each in bar.findall("desc")}
        for each in bar.findall("desc"):
            bar.remove(each)
        words = (said.get("x_label", ""), name, said.get("value", ""))
        ElementTree.SubElement(bar, "title").text = ", ".join(word for word in words if word)
