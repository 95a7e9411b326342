"""What the demo takes over from the installation beside it, and where compute nodes can reach the sample service."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from demo.training import ROOT
from scheduler import Unavailable
from slurm.survey import Survey
from worker.install.files import toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SECONDS = 10.0
_ANY_PORT = 6817
_HERE = "127.0.0.1"
_TAKEN_OVER = ("ca_file", "python", "slurm")


class Unfit(Exception):
    """The demo can't work with what it was given. The text is a sentence that says what to do."""


def taken_over(credentials: Optional[Path]) -> dict[str, Any]:
    """How to use Slurm, and whom to trust: of the site.toml beside the credentials, or of this checkout's. Raises Unfit."""
    file = (credentials.resolve().parent if credentials else ROOT) / "site.toml"
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unfit(f"{file} can't be read ({error}). ./check.py doctor says what is wrong with it") from None
    return {name: told[name] for name in _TAKEN_OVER if told.get(name)}


def as_lines(site: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {toml(value)}\n" for name, value in site.items())


def bin_dir(site: Mapping[str, Any]) -> str:
    return str(site.get("slurm", {}).get("bin_dir", ""))


def host_for_nodes(site: Mapping[str, Any]) -> str:
    """The address of this host on the way to Slurm's controller, which compute nodes reach as well. Raises Unfit where Slurm
    gives no answer."""
    try:
        controller = Survey(bin_dir(site), timeout=_SECONDS).controller()
    except Unavailable as error:
        raise Unfit(
            f"--slurm needs a Slurm that answers here: {error}. Without --slurm, jobs run on this host"
        ) from None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((controller, _ANY_PORT))  # nothing is sent
            return str(way.getsockname()[0])
    except OSError:
        return _HERE
