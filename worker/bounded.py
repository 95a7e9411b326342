"""Work that takes its own time, a name's look-up above all, and can't be told ours: bounded all the same."""

from __future__ import annotations

import threading
from typing import Callable, TypeVar

Found = TypeVar("Found")


class TookTooLong(OSError):
    """It goes on, and nobody waits for it any longer."""


def within(seconds: float, work: Callable[[], Found]) -> Found:
    """What `work` returns; raises what it raises, or TookTooLong. It runs in a thread that does not keep the process from
    ending; where no thread is to be had, it takes as long as it takes."""
    found: list[Found] = []
    failed: list[BaseException] = []

    def do() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            failed.append(error)

    doing = threading.Thread(target=do, daemon=True)
    try:
        doing.start()
        doing.join(seconds)
    except RuntimeError:
        do()
    if failed:
        raise failed[0]
    if not found:
        raise TookTooLong(f"no answer within {seconds:.3g} s")
    return found[0]
