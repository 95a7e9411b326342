"""Settings are documented, frozen and keep their secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from worker.settings import Queue, Secret, Site, Timing


def settings_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """Every setting of a table and of the tables in it."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        inner = [kind for kind in (hints[f.name], *get_args(hints[f.name])) if is_dataclass(kind)]
        yield f"{cls.__name__}.{f.name}", f
        for kind in inner:
            yield from settings_of(kind)


@pytest.mark.parametrize(("name", "setting"), settings_of(Site))
def test_every_setting_says_what_it_means(name: str, setting: Any) -> None:
    is_table = name.split(".")[1] in ("api", "slurm", "replies", "results", "limits", "timing")

    assert setting.metadata.get("doc") or is_table or name.startswith("RetryPolicy.")


def test_tables_of_two_sites_are_not_the_same_object() -> None:
    one, other = Queue("a", "w"), Queue("b", "w")

    assert one.arguments is not other.arguments
    assert one.resources.names is not other.resources.names


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Timing().visible_after = 1  # type: ignore[misc,assignment]


@pytest.mark.parametrize("show", [
    repr, str, "{}".format, "{0!r}".format, "{:s}".format, "%s".__mod__, "%r".__mod__, lambda s: str([s]),
    lambda s: str({"x": s}), lambda s: str(ValueError(s)), lambda s: f"{s}", lambda s: f"{s:>3}",
])  # fmt: skip
def test_a_secret_never_shows_itself(show: Any) -> None:
    try:
        shown = show(Secret("canary"))
    except (TypeError, ValueError) as error:
        shown = repr(error)

    assert "canary" not in shown


def test_a_secret_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("x").error("login password=%s", Secret("canary"))

    assert "<SECRET>" in caplog.text and "canary" not in caplog.text


def test_a_secret_reveals_itself_on_request() -> None:
    assert Secret("canary").reveal() == "canary"


@pytest.mark.parametrize(("time_limit", "margin"), [(60, 12), (1499, 299.8), (1500, 300), (86400, 300)])
def test_a_job_is_stopped_before_its_limit_by_at_most_a_fifth_of_it(time_limit: float, margin: float) -> None:
    assert Timing().margin(time_limit) == pytest.approx(margin)
