"""What may interrupt an attempt, and when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from worker.in_job.interrupt import Interrupted, Interrupts

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
LONG = 1000.0


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_warning_before_the_deadline_does_nothing() -> None:
    with Interrupts(LONG) as interrupts, interrupts.allowed():
        send(signal.SIGUSR1)


def test_a_warning_after_the_deadline_is_the_time_limit() -> None:
    with Interrupts(0.05) as interrupts:
        time.sleep(0.06)
        with pytest.raises(Interrupted) as interrupted, interrupts.allowed():
            send(signal.SIGUSR1)

    assert interrupted.value.by_clock


def test_the_clock_interrupts_by_itself() -> None:
    begun = time.monotonic()

    with pytest.raises(Interrupted) as interrupted, Interrupts(0.1) as interrupts, interrupts.allowed():
        time.sleep(LONG)

    assert interrupted.value.by_clock
    assert 0.1 <= time.monotonic() - begun < LONG


def test_the_time_that_a_job_is_suspended_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Interrupts(60) as interrupts, interrupts.allowed():
        for seconds in (30, 10):  # suspended for half a minute, and for ten seconds more
            clock[0] += seconds
            send(signal.SIGUSR1)
        for _ in range(59):
            clock[0] += 1
            send(signal.SIGUSR1)

        with pytest.raises(Interrupted):
            clock[0] += 1
            send(signal.SIGUSR1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_heard_at_once_where_it_is_allowed(number: signal.Signals) -> None:
    with Interrupts(LONG) as interrupts:
        with pytest.raises(Interrupted) as interrupted, interrupts.allowed():
            send(number)
            time.sleep(LONG)

    assert not interrupted.value.by_clock


def test_an_attempt_is_ended_alone_where_it_is_asked_for_and_the_next_one_goes_on() -> None:
    asked = True
    with Interrupts(LONG, lambda: asked) as interrupts:
        with pytest.raises(Interrupted) as interrupted, interrupts.allowed():
            send(signal.SIGUSR2)
            time.sleep(LONG)
        ended = interrupts.cancelled
        interrupts.off()

        asked = False
        interrupts.begin_another(LONG)
        with interrupts.allowed():
            send(signal.SIGUSR2)

    assert ended and not interrupted.value.by_clock and not interrupts.cancelled


def test_a_request_to_stop_waits_until_it_is_allowed() -> None:
    with Interrupts(LONG) as interrupts:
        send(signal.SIGTERM)
        written = "a durable write"

        with pytest.raises(Interrupted), interrupts.allowed():
            pytest.fail("not reached")

    assert written


def test_a_deadline_that_passed_meanwhile_is_heard_when_it_is_allowed() -> None:
    with Interrupts(0.05) as interrupts:
        time.sleep(0.1)

        with pytest.raises(Interrupted) as interrupted, interrupts.allowed():
            pytest.fail("not reached")

    assert interrupted.value.by_clock


def test_who_was_interrupted_is_not_interrupted_again_while_cleaning_up() -> None:
    with Interrupts(LONG) as interrupts:
        with pytest.raises(Interrupted), interrupts.allowed():
            try:
                send(signal.SIGTERM)
            finally:
                send(signal.SIGTERM)
                cleaned_up = True

    assert cleaned_up


def test_after_the_end_nothing_interrupts() -> None:
    with Interrupts(0.05) as interrupts:
        interrupts.off()
        with interrupts.allowed():
            time.sleep(0.1)
            send(signal.SIGTERM)
            send(signal.SIGUSR1)


def test_an_interruption_is_no_ordinary_error() -> None:
    with Interrupts(LONG) as interrupts, pytest.raises(Interrupted), interrupts.allowed():
        try:
            send(signal.SIGTERM)
        except Exception:  # noqa: BLE001  # that is the point
            pytest.fail("swallowed")


def test_another_attempt_in_the_same_process_has_its_own_time() -> None:
    with Interrupts(0.05) as interrupts:
        with pytest.raises(Interrupted), interrupts.allowed():
            time.sleep(LONG)
        interrupts.off()

        begun = time.monotonic()
        interrupts.begin_another(0.3)
        with pytest.raises(Interrupted) as interrupted, interrupts.allowed():
            time.sleep(LONG)

    assert interrupted.value.by_clock and time.monotonic() - begun > 0.25


def test_who_is_asked_to_stop_between_two_attempts_does_not_do_the_second_one() -> None:
    with Interrupts(LONG) as interrupts:
        interrupts.off()
        send(signal.SIGTERM)

        interrupts.begin_another(LONG)
        with pytest.raises(Interrupted), interrupts.allowed():
            pytest.fail("not reached")

    assert interrupts.asked_to_stop
