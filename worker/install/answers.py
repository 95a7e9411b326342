"""What init must know, and where it may come from: a flag, a file of answers, or a question on the terminal.

A secret comes from the file of answers or from the terminal, where it is not shown; never from the command line, which
every user of the host can read.
"""

from __future__ import annotations

import getpass
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Question:
    name: str
    words: str
    default: str = ""
    needed: bool = False
    secret: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


CREDENTIALS = (
    Question("rabbitmq_host", "the broker's host name", needed=True),
    Question("rabbitmq_port", "its port, if not 5671 with TLS and 5672 without"),
    Question("rabbitmq_user", "our user there", needed=True),
    Question("rabbitmq_password", "our password there", needed=True, secret=True),
    Question("rabbitmq_vhost", "its virtual host", "/"),
    Question("rabbitmq_tls", "true or false; true, unless it is on this machine"),
    Question("api_url", "the upstream service, e.g. https://service.example.org", needed=True),
    Question("api_user", "our user there", needed=True),
    Question("api_password", "our password there", needed=True, secret=True),
)
SITE = (
    Question("queue", "the jobs queue", "hpc-jobs"),
    Question("service_declares", "yes if the service declares this queue itself, no if we are to make it", "yes"),
    Question(
        "expiration",
        "how long an unread answer is kept: 1h where requests share one reply queue, 7d where answers are read later",
        "1h",
    ),
    Question("workload", "the workload of its jobs", "binarize"),
    Question("jobs_dir", "the folder of the jobs, on a disk that the compute nodes share", "jobs"),
    Question("ca_file", "a file of certificates to trust, if the system's do not suffice"),
    Question("partition", "the partition; empty for Slurm's default"),
    Question("account", "the account; empty for Slurm's default"),
    Question("bin_dir", "the folder of sbatch, if cron would not find it"),
)
_QUIET = ("rabbitmq_vhost", "rabbitmq_tls", "ca_file", "bin_dir", "workload")
"""Not asked on the terminal, because the default suits most; they have flags."""


class NotGiven(Exception):
    """Answers are missing or can't be taken. The text says what to do."""


def read_answers(path: Path) -> dict[str, str]:
    """NAME=VALUE lines, as in credentials.env. Raises NotGiven."""
    from ..variables import IN_QUOTES, read_lines

    try:
        mode = path.stat().st_mode
        given = read_lines(path)
    except OSError as error:
        raise NotGiven(f"{path} can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise NotGiven(f"{path} is not UTF-8 text") from None
    answers = {name.lower(): value for name, value in given.values.items()}
    known = {each.name: each for each in (*CREDENTIALS, *SITE)}
    unknown = sorted(set(answers) - set(known))
    if unknown:
        # What a broken line makes a name of may be a secret.
        shown = [name if re.fullmatch(r"[a-z_]{1,30}", name) else "one that is no name" for name in unknown]
        raise NotGiven(f"{path} has unknown names: {', '.join(shown)}. Known are: {', '.join(known)}")
    if given.flaws:
        line, words = given.flaws[0]
        raise NotGiven(f"{path}: {words}. {IN_QUOTES} (line {line})")
    if any(known[name].secret for name in answers) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotGiven(f"{path} holds a password and can be read by others. Run: chmod 600 {path}")
    return answers


def complete(questions: tuple[Question, ...], given: Mapping[str, str], proposals: Mapping[str, str]) -> dict[str, str]:
    """An answer to each. On a terminal what is missing is asked. Raises NotGiven with all that is missing."""
    answers = {each.name: given[each.name] for each in questions if given.get(each.name)}
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    for each in questions:
        if each.name in answers:
            continue
        proposal = proposals.get(each.name, each.default)
        asked = _ask(each, proposal) if asks and each.name not in _QUIET else None
        answers[each.name] = proposal if asked is None else asked
    missing = [each for each in questions if each.needed and not answers[each.name]]
    if missing:
        words = ", ".join(f"{each.name.upper()} ({each.words})" for each in missing)
        raise NotGiven(f"not given: {words}. Use flags, --answers FILE for passwords too, or a terminal")
    _refuse_odd(questions, answers)
    return answers


def _ask(question: Question, proposal: str) -> Optional[str]:
    prompt = f"{question.name}: {question.words}{f' [{proposal}]' if proposal else ''}: "
    while True:
        answer = getpass.getpass(prompt) if question.secret else _line(prompt)
        if answer or proposal or not question.needed or answer is None:
            return answer or proposal
        print("This one is needed.", file=sys.stderr)


def _line(prompt: str) -> Optional[str]:
    """None where nobody will say anything any more."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.strip() if line else None


def _refuse_odd(questions: tuple[Question, ...], answers: Mapping[str, str]) -> None:
    for each in questions:
        if not answers[each.name].isprintable():
            raise NotGiven(f"{each.name}: holds a character that can't be printed")
    if answers.get("service_declares", "yes") not in ("yes", "no"):
        raise NotGiven("service_declares: must be yes or no")
    if answers.get("rabbitmq_host", "").count(":") == 1:
        raise NotGiven("rabbitmq_host: is a host's name alone; the port is RABBITMQ_PORT (--rabbitmq-port)")


def home_of(program: str) -> str:
    """The folder of a program that cron's PATH would not find; empty if it would, or if there is none."""
    import shutil

    found = shutil.which(program)
    standard = ("/usr/local/bin", "/usr/bin", "/bin")
    return os.path.dirname(found) if found and os.path.dirname(found) not in standard else ""
