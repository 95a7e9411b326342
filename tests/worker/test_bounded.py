"""Work that nobody can hurry is not waited for, and what comes of it in time is as if nobody had bounded it."""

from __future__ import annotations

import threading

import pytest

from worker.bounded import TookTooLong, within

LONG = 300.0


def test_what_work_returns_or_raises_in_time_is_its_own() -> None:
    assert within(LONG, lambda: [1]) == [1] and within(LONG, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(LONG, lambda: 1 // 0)


def test_work_that_hangs_is_left_behind() -> None:
    over = threading.Event()

    with pytest.raises(TookTooLong, match=r"no answer within 0\.1 s"):
        within(0.1, lambda: over.wait(LONG))

    over.set()


def test_where_no_thread_is_to_be_had_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert within(0, threading.get_ident) == threading.get_ident()
