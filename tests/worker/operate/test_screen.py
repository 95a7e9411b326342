"""What a stranger said can't command the operator's terminal; times and sizes are short."""

from __future__ import annotations

import time

import pytest

from worker.operate import screen


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J\x1b]0;owned\x07", "a\rb", "a\nb", "\x9b31m", "\u202egnp", "\x00", "[red]x[/]"]
)
def test_no_character_reaches_the_terminal_that_it_would_obey(hostile: str) -> None:
    shown = screen.plain(hostile)

    assert shown.isprintable() and "\x1b" not in shown and "\x9b" not in shown
    assert screen.plain("[red]x[/]") == "[red]x[/]"


def test_a_long_text_is_cut() -> None:
    assert screen.plain("x" * 10**6, 100) == "x" * 97 + "..."


@pytest.mark.parametrize(("bytes_", "text"), [
    (0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (7e9, "7 GB"), (3.2e13, "32 TB"),
])  # fmt: skip
def test_a_size_has_three_digits_and_a_unit(bytes_: float, text: str) -> None:
    assert screen.size(bytes_) == text


def test_a_time_has_its_date_only_where_that_is_another_day_s() -> None:
    now = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))

    assert screen.when(now - 60, now) == "11:59:00"
    assert screen.when(now - 86400, now) == "2026-11-20 12:00:00"


def test_a_clock_that_is_ahead_makes_no_negative_time() -> None:
    assert screen.lasted(-5) == "0 s"
