"""Something is killed at its first durable step, then at its second, and so on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Callable, TypeVar

import pytest

from tests.worker.login.test_passes import PowerFailure
from worker.folder import paths

T = TypeVar("T")


def killed_at_each_step(
    patch: pytest.MonkeyPatch, make: Callable[[int], T], act: Callable[[T], object]
) -> Iterator[tuple[int, T]]:
    """At which step, and what `make` has made, after `act` was killed there. The last one came to its end."""
    for killed_at in itertools.count(1):
        made, left = make(killed_at), [killed_at]

        def count(step: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise PowerFailure(step)

        patch.setattr(paths, "crash_point", count)
        with contextlib.suppress(PowerFailure):
            act(made)
        patch.setattr(paths, "crash_point", lambda step: None)
        yield killed_at, made
        if left[0] > 0:
            return
