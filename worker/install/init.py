"""The story of init: ask, find out, write both files, show or add what starts the passes, say what is left to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..config import credentials_text, parse_duration, read_separately
from ..installed import why_stopped
from ..variables import read_variables
from .answers import CREDENTIALS, SITE, NotGiven, complete, home_of, read_answers
from .files import create, put_aside, site_text
from .proposals import Proposals, ask_broker, ask_for_queues, ask_slurm
from .shared import ask_to_share, share
from .starting import NotAdded, Start, add


@dataclass(frozen=True)
class Wishes:
    """What the command line says."""

    given: Mapping[str, str]
    answers: Optional[Path]
    schedule: str
    add: bool
    replace: bool


def init(root: Path, site_file: Path, credentials_file: Path, wishes: Wishes) -> int:
    """Returns an exit code: 0, 64 where answers are missing, 73 where a file or crontab can't be written."""
    try:
        answers = {**(read_answers(wishes.answers) if wishes.answers else {}), **wishes.given}
        _write_credentials(credentials_file, answers, wishes.replace)
        _write_site(root, site_file, credentials_file, answers, wishes.replace)
        _start_passes(Start(root, site_file, credentials_file, os.environ.get("SLURM_CONF", "")), wishes)
    except NotGiven as error:
        print(f"check.py: {error}", file=sys.stderr)
        return os.EX_USAGE
    except NotAdded as error:
        print(f"check.py: {error}", file=sys.stderr)
        return os.EX_CANTCREAT
    except OSError as error:
        print(f"check.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return os.EX_CANTCREAT
    _say_what_is_left(root, site_file, credentials_file)
    return os.EX_OK


def _write_credentials(file: Path, answers: Mapping[str, str], replace: bool) -> None:
    if file.exists() and not replace:
        said = read_variables(file)
        same = {name for name, value in answers.items() if said.get(name.upper()) == value}
        _keep(file, [each.name for each in CREDENTIALS if each.name not in same], answers)
        return
    values = complete(CREDENTIALS, answers, {})
    text = credentials_text(
        {name.upper(): value for name, value in values.items() if value and not _usual(name, value)}
    )
    _write(file, text, replace)


def _usual(name: str, value: str) -> bool:
    return (name, value) == ("rabbitmq_vhost", "/")


def _write_site(root: Path, site_file: Path, credentials_file: Path, answers: Mapping[str, str], replace: bool) -> None:
    if site_file.exists() and not replace:
        _keep(site_file, [each.name for each in SITE], answers)
        return
    _, credentials, _ = read_separately(root, site_file, credentials_file)
    bin_dir = answers.get("bin_dir") or home_of("sbatch")
    slurm = ask_slurm(bin_dir, answers.get("partition", ""))
    _tell(slurm)
    ca_file = answers.get("ca_file") or os.environ.get("SSL_CERT_FILE") or None
    reachable = credentials is not None and bool(credentials.rabbitmq_host)
    queues = (
        ask_for_queues(credentials, ca_file) if credentials and reachable and not answers.get("queue") else Proposals()
    )
    _tell(queues)
    values = complete(SITE, answers, {"bin_dir": bin_dir, **slurm.answers, **queues.answers})
    if values["partition"] != answers.get("partition", ""):
        slurm = ask_slurm(bin_dir, values["partition"])  # it was chosen only now: its caps count
    broker = (
        ask_broker(credentials, values["ca_file"] or ca_file, values["queue"], values["service_declares"] == "no")
        if credentials and reachable
        else Proposals()
    )
    _tell(broker)
    ours = values["service_declares"] == "no"
    places: dict[tuple[str, str], Any] = {
        ("queues", "name"): values["queue"], ("queues", "workload"): values["workload"], ("queues", "make"): ours,
        ("replies", "expiration"): _duration(values["expiration"]),
    }  # fmt: skip
    made = {("queues", "durable"): True} if ours else {}
    usual = {each.name: each.default for each in SITE}
    for table, name in (
        ("", "jobs_dir"),
        ("", "ca_file"),
        ("slurm", "partition"),
        ("slurm", "account"),
        ("slurm", "bin_dir"),
    ):
        if values[name] != usual[name]:
            places[table, name] = values[name]
    example = (root / "site.example.toml").read_text(encoding="utf-8")
    jobs_dir = root / Path(values["jobs_dir"]).expanduser()
    shared = ask_to_share(site_file, jobs_dir)
    _write(site_file, site_text(example, {**made, **slurm.settings, **broker.settings, **places}), replace)
    if shared:
        share(site_file, jobs_dir)


def _duration(said: str) -> str:
    try:
        parse_duration(said)
        return said
    except ValueError as error:
        raise NotGiven(f"expiration: {error}") from None


def _tell(found: Proposals) -> None:
    for note in found.notes:
        print("".join(character if character.isprintable() else "?" for character in note))


def _keep(file: Path, names: list[str], answers: Mapping[str, str]) -> None:
    lost = [name for name in names if name in answers]
    if lost:
        raise NotAdded(
            f"{file} exists and is not changed, so {', '.join(lost)} would be lost. Change it there, or give --replace: "
            "that makes it anew and keeps the old one beside it"
        )
    print(f"{file} exists; it stays as it is.")


def _write(file: Path, text: str, replace: bool) -> None:
    kept = put_aside(file) if replace and file.exists() else None
    if not create(file, text):
        raise NotAdded(f"{file} was made by somebody else just now; it stays as it is")
    print(f"{file} is written{f'; the old one is {kept.name}' if kept else ''}.")


def _start_passes(start: Start, wishes: Wishes) -> None:
    if wishes.add:
        print(add(start, wishes.schedule))
    else:
        print(
            f"\nTo start passes ({wishes.schedule}; the same with --add adds it):\n\n{start.shown(wishes.schedule)}\n"
        )


def _say_what_is_left(root: Path, site_file: Path, credentials_file: Path) -> None:
    site, _, faults = read_separately(root, site_file, credentials_file)
    stopped = (
        (f"workload {name}: {why}" for name in site.workloads if (why := why_stopped(root, site, name))) if site else ()
    )
    for fault in (*faults, *stopped):
        print(f"Left to do: {fault}")
    print("Next: ./check.py doctor")
