"""The story of init: ask, find out, write both files, show or add what starts the passes, say what is left to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..config import credentials_text, read_separately
from ..folder.disk import FULL
from ..installed import why_stopped
from ..settings import Config
from ..variables import read_variables
from .answers import (
    API,
    BROKER,
    CREDENTIALS,
    SITE,
    NotGiven,
    as_variables,
    complete,
    home_of,
    on_a_terminal,
    read_answers,
)
from .blocks import BEFORE, ask_block, log_in_at_api, log_in_at_broker
from .files import create, put_aside, site_text
from .proposals import Proposals, ask_broker, ask_for_queues, ask_slurm
from .queues import make_missing
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

    @property
    def asks(self) -> bool:
        """Whoever brings a file of answers is asked nothing."""
        return self.answers is None and on_a_terminal()


def init(root: Path, site_file: Path, credentials_file: Path, wishes: Wishes) -> int:
    """Returns an exit code: 0, 64 where answers are missing, 73 where a file or crontab can't be written."""
    try:
        said = {**(read_answers(wishes.answers) if wishes.answers else {}), **wishes.given}
        answers = {name: value for name, value in said.items() if value}
        answers = _write_credentials(credentials_file, answers, wishes)
        _write_site(root, site_file, credentials_file, answers, wishes)
        _start_passes(Start(root, site_file, credentials_file, os.environ.get("SLURM_CONF", "")), wishes)
    except NotGiven as error:
        print(f"check.py: {error}", file=sys.stderr)
        return os.EX_USAGE
    except NotAdded as error:
        print(f"check.py: {error}", file=sys.stderr)
        return os.EX_CANTCREAT
    except OSError as error:
        found = f"{error.filename or credentials_file.parent}: {error.strerror}"
        fix = "Make room there" if error.errno in FULL else "Get the right to write there"
        print(f"check.py: {found}. {fix}, or name files elsewhere: --site, --credentials", file=sys.stderr)
        return os.EX_CANTCREAT
    _say_what_is_left(root, site_file, credentials_file)
    return os.EX_OK


def _write_credentials(file: Path, answers: dict[str, str], wishes: Wishes) -> dict[str, str]:
    """Returns the answers with those that were asked."""
    if file.exists() and not wishes.replace:
        said = read_variables(file)
        same = {name for name, value in answers.items() if said.get(name.upper()) == value}
        _keep(file, [each.name for each in CREDENTIALS if each.name not in same], answers)
        return answers
    if wishes.asks:
        print(BEFORE, file=sys.stderr)
        before = _before(file)
        answers = ask_block(BROKER, answers, before, "the broker", log_in_at_broker)
        answers = ask_block(API, answers, before, "the API", log_in_at_api)
    _write(file, credentials_text(as_variables(complete(CREDENTIALS, answers, {}, asks=False))), wishes.replace)
    return {name: value for name, value in answers.items() if value}


def _before(file: Path) -> dict[str, str]:
    """What a file says that is replaced."""
    try:
        return {name.lower(): value for name, value in read_variables(file).items()}
    except (OSError, UnicodeDecodeError):
        return {}


def _write_site(
    root: Path, site_file: Path, credentials_file: Path, answers: Mapping[str, str], wishes: Wishes
) -> None:
    if site_file.exists() and not wishes.replace:
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
    values = complete(SITE, answers, {"bin_dir": bin_dir, **slurm.answers, **queues.answers}, wishes.asks)
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
        ("replies", "expiration"): values["expiration"],
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
    _write(site_file, site_text(example, {**made, **slurm.settings, **broker.settings, **places}), wishes.replace)
    if shared:
        share(site_file, jobs_dir)


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
    start.log.parent.mkdir(
        mode=0o700, exist_ok=True
    )  # whoever copies the line needs it as well: cron's shell opens the log
    if wishes.add:
        print(add(start, wishes.schedule))
    else:
        print(
            f"\nTo start passes ({wishes.schedule}; the same with --add adds it):\n\n{start.shown(wishes.schedule)}\n"
        )


def _say_what_is_left(root: Path, site_file: Path, credentials_file: Path) -> None:
    site, credentials, faults = read_separately(root, site_file, credentials_file)
    stopped = (
        (f"workload {name}: {why}" for name in site.workloads if (why := why_stopped(root, site, name))) if site else ()
    )
    if site and credentials and not faults:
        for sentence in make_missing(Config(root, site_file, credentials_file, site, credentials)):
            print(sentence)
    for fault in (*faults, *stopped):
        print(f"Left to do: {fault}")
    print(
        f"To change an answer: correct {credentials_file.name} or {site_file.name}, or run ./check.py init --replace."
    )
    print("Next: ./check.py doctor")
