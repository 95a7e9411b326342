"""Charts as SVG inside a page, coloured by the page's own style sheet. Pure.

Across, everything is in per cent and letters keep their size, so a chart fills whatever width there is and is never scaled.
The same numbers stand in a table beside each chart: all of these are hidden from a screen reader.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Callable, Optional

_HEIGHT = 180
"""Of the plot, in pixels; letters stand below it."""
_BELOW = 26
_GAP = 0.22
"""Of the room that a day has, so much stays empty."""
_MOST_TICKS = 4
_MOST_LABELS = 7
"""Where there is little room, style sheet and class `wide` halve them."""
_LEAST = 0.4
"""Per cent: what is shorter is drawn so long, to be seen at all."""
_MIN, _H, _D = 60, 3600, 86400
_STEPS_OF_TIME = (
    *(1, 2, 5, 10, 15, 30, _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 30 * _MIN),
    *(_H, 2 * _H, 3 * _H, 6 * _H, 12 * _H, _D, 2 * _D, 5 * _D, 10 * _D, 30 * _D, 100 * _D),
)

Series = Sequence[tuple[str, Sequence[Optional[float]]]]
"""A name, and a value for each day."""
Axis = tuple[Sequence[int], Callable[[int], str]]
"""Where there are ticks, and what each is called."""


def of_counts(most: float) -> Axis:
    """`most`: the highest value that has to fit."""
    step = next(s * 10**power for power in range(18) for s in (1, 2, 5) if most <= s * 10**power * _MOST_TICKS)
    return _ticks(most, step), str


def of_times(most: float) -> Axis:
    """In seconds; whole numbers of the one unit that the step has."""
    step = next((step for step in _STEPS_OF_TIME if most <= step * _MOST_TICKS), _STEPS_OF_TIME[-1])
    size, unit = next(
        (size, unit) for size, unit in ((_D, "d"), (_H, "h"), (_MIN, "min"), (1, "s")) if step % size == 0
    )
    return _ticks(most, step), lambda tick: f"{tick // size} {unit}" if tick else "0"


def _ticks(most: float, step: int) -> Sequence[int]:
    """From 0 to the first one that is not below `most`."""
    return range(0, max(step, -(-math.ceil(most) // step) * step) + 1, step)


def stacked(days: Sequence[str], series: Series, axis: Axis, words: Callable[[float], str]) -> str:
    """Bars upright, the series on top of one another. `words`: for a value, to a pointer that rests on it."""
    below = [0.0] * len(days)
    groups = []
    for number, (name, values) in enumerate(series):
        bars = []
        for i, value in enumerate(values):
            if value:
                bars.append(_upright(days, i, 0, 1, below[i], value, axis, f"{days[i]}: {words(value)} {name}"))
                below[i] += value
        groups.append(f'<g class="s{number}">{"".join(bars)}</g>')
    return _plot(days, axis, groups)


def side_by_side(days: Sequence[str], series: Series, axis: Axis, words: Callable[[float], str]) -> str:
    """Bars upright, those of one day beside one another."""
    groups = []
    for number, (name, values) in enumerate(series):
        bars = [
            _upright(days, i, number, len(series), 0, value, axis, f"{days[i]}, {name}: {words(value)}")
            for i, value in enumerate(values) if value is not None
        ]  # fmt: skip
        groups.append(f'<g class="s{number}">{"".join(bars)}</g>')
    return _plot(days, axis, groups)


def _upright(days: Sequence[str], day: int, place: int, of: int, below: float, value: float, axis: Axis,
             title: str) -> str:  # fmt: skip
    room, most = 100 / len(days), axis[0][-1]
    width = room * (1 - _GAP) / of
    left = room * (day + _GAP / 2) + place * width
    top, height = _HEIGHT * (1 - (below + value) / most), max(1.0, _HEIGHT * value / most)
    return (
        f'<rect x="{left:.3f}%" y="{top:.1f}" width="{width:.3f}%" height="{height:.1f}">'
        f"<title>{html.escape(title)}</title></rect>"
    )


def _plot(days: Sequence[str], axis: Axis, groups: Sequence[str]) -> str:
    ticks, name = axis
    lines = []
    for tick in ticks:
        y = _HEIGHT * (1 - tick / ticks[-1])
        kind = "base" if tick == 0 else "grid"
        lines.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"></line>')
        lines.append(f'<text class="y" x="-8" y="{y + 4:.1f}">{html.escape(name(tick))}</text>')
    every = -(-len(days) // _MOST_LABELS)
    for i, day in enumerate(days):
        ago = len(days) - 1 - i
        if ago % every == 0:
            kind = "x wide" if ago % (2 * every) else "x"
            middle = 100 * (i + 0.5) / len(days)
            lines.append(f'<text class="{kind}" x="{middle:.3f}%" y="{_HEIGHT + 20}">{html.escape(day)}</text>')
    shapes = "".join([*lines, *groups])
    return f'<svg class="plot" height="{_HEIGHT + _BELOW}" aria-hidden="true" focusable="false">{shapes}</svg>'


def bar(part: float) -> str:
    """A bar that lies: so large a part of its width is full."""
    full = f'<rect class="full" width="{100 * min(1.0, max(0.0, part)):.2f}%" height="10"></rect>'
    track = '<rect class="track" width="100%" height="10"></rect>'
    return f'<svg class="bar" height="10" aria-hidden="true" focusable="false">{track}{full}</svg>'


def strip(parts: Sequence[tuple[int, float, str]]) -> str:
    """Parts of a whole in their order, side by side: class number, length, and words for a pointer that rests on it."""
    whole = sum(length for _, length, _ in parts) or 1.0
    shares = [max(_LEAST, 100 * length / whole) for _, length, _ in parts]
    scale, left, made = 100 / (sum(shares) or 1.0), 0.0, []
    for (kind, _, words), share in zip(parts, shares):
        width = share * scale
        made.append(
            f'<g class="l{kind}"><rect x="{left:.3f}%" width="{width:.3f}%" height="12">'
            f"<title>{html.escape(words)}</title></rect></g>"
        )
        left += width
    return f'<svg class="strip" height="12" aria-hidden="true" focusable="false">{"".join(made)}</svg>'
