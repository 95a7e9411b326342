"""The example files say what the code reads: nothing more, nothing less, and with the defaults that hold."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from docs.settings import tables
from tests.installation import ROOT
from worker.config import VARIABLES, parse_duration, read_config
from worker.settings import Seconds, Site

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = (ROOT / "site.example.toml").read_text()
CREDENTIALS = (ROOT / "credentials.env.example").read_text()


def test_the_site_example_names_every_setting_and_no_other() -> None:
    everything = tomllib.loads(uncommented(EXAMPLE))

    assert set(paths_in(everything)) == set(paths_of(Site))


def test_the_defaults_in_the_site_example_are_the_code_s() -> None:
    everything = tomllib.loads(uncommented(EXAMPLE))
    as_it_stands = set(paths_in(tomllib.loads(EXAMPLE)))

    for path, (kind, default) in paths_of(Site).items():
        if path not in as_it_stands and default is not None:  # no default can't be written
            value = value_at(everything, path)
            assert plain(kind, value) == plain(kind, default), path


def test_the_examples_can_be_used_as_they_are_once_filled_in(tmp_path: Path) -> None:
    site, credentials = tmp_path / "site.toml", tmp_path / "credentials.env"
    site.write_text(EXAMPLE)
    credentials.touch(mode=0o600)
    credentials.write_text(re.sub(r"(?m)^(\w+)=$", r"\1=secret", CREDENTIALS))

    # Elsewhere than here, where a test may be setting up the workload's environment just now.
    program = tmp_path / "checkout" / "workloads" / "binarize" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o700)

    config = read_config(tmp_path / "checkout", site, credentials)

    assert config.credentials.api_url == "https://service.example.org"
    assert config.site.queues[0].name == "hpc-jobs"


def test_the_credentials_example_names_every_variable_and_no_other() -> None:
    assert set(re.findall(r"(?m)^#?([A-Z_]+)=", CREDENTIALS)) == set(VARIABLES)


@pytest.mark.parametrize("path", ["queues.name", "queues.resources.max_gpus", "timing.visible_after"])
def test_the_comparison_would_see_a_missing_setting(path: str) -> None:
    name = path.rpartition(".")[2]
    without = re.sub(rf"(?m)^#?{name} = .*$", "", EXAMPLE)

    assert path not in paths_in(tomllib.loads(uncommented(without)))


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^#(\w+ = )", r"\1", text)


def paths_of(cls: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Every setting with its type and default; tables that a site names itself count as one."""
    found: dict[str, tuple[Any, Any]] = {}
    hints = get_type_hints(cls)
    for f in fields(cls):
        kind = hints[f.name]
        inner = next((k for k in (kind, *get_args(kind)) if is_dataclass(k)), None)
        if inner is not None and f.name != "gpus_by_memory":
            found.update(paths_of(inner, f"{prefix}{f.name}."))
        else:
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            found[prefix + f.name] = (kind, default)
    return found


def paths_in(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        path = prefix + name
        if path == "workloads":
            yield from paths_in(value["binarize"], "workloads.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from paths_in(value[0], f"{path}.")
        elif isinstance(value, dict) and name not in ("names", "arguments", "environment", "environments", "outputs"):
            yield from paths_in(value, f"{path}.")
        else:
            yield path


def value_at(table: dict[str, Any], path: str) -> Any:
    value: Any = table
    for name in path.split("."):
        value = value[name]
        value = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        value = value["binarize"] if name == "workloads" else value
    return value


def plain(kind: Any, value: Any) -> Any:
    if kind in (Seconds, float):
        return parse_duration(value)
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def test_the_documentation_of_the_settings_is_the_code_s() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == tables() + "\n"
