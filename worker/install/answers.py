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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..config import LOOPBACK, parse_duration


@dataclass(frozen=True)
class Question:
    name: str
    words: str
    default: str = ""
    needed: bool = False
    secret: bool = False
    quiet: bool = False
    """Not asked on the terminal, because the default suits most; it has a flag."""

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


BROKER = (
    Question("rabbitmq_host", "the broker's host name", needed=True),
    Question("rabbitmq_tls", "whether the way to it is encrypted (TLS), yes or no; yes, unless it is on this machine"),
    Question("rabbitmq_port", "its port, if not 5671 with TLS and 5672 without"),
    Question("rabbitmq_vhost", "the virtual host, the part of the broker that our queues are in", "/"),
    Question("rabbitmq_user", "our user there", needed=True),
    Question("rabbitmq_password", "our password there", needed=True, secret=True),
)
API = (
    Question("api_url", "the upstream service, e.g. https://service.example.org", needed=True),
    Question("api_user", "our user there", needed=True),
    Question("api_password", "our password there", needed=True, secret=True),
)
CREDENTIALS = (*BROKER, *API)
CA_FILE = Question("ca_file", "a file of certificates to trust, if the system's do not suffice", quiet=True)
SITE = (
    Question("queue", "the jobs queue", "hpc-jobs"),
    Question("service_declares", "yes if the service declares this queue itself, no if we are to make it", "yes"),
    Question(
        "expiration",
        "how long an unread answer is kept: 1h where requests share one reply queue, 7d where answers are read later",
        "1h",
    ),
    Question("workload", "the workload of its jobs", "binarize", quiet=True),
    Question("jobs_dir", "the folder of the jobs, on a disk that the compute nodes share", "jobs"),
    CA_FILE,
    Question("partition", "the partition; empty for Slurm's default"),
    Question("account", "the account; empty for Slurm's default"),
    Question("bin_dir", "the folder of sbatch, if cron would not find it", quiet=True),
)
_YES_OR_NO = {"yes": "true", "no": "false"}


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


def on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def complete(
    questions: Sequence[Question], given: Mapping[str, str], proposals: Mapping[str, str], asks: bool
) -> dict[str, str]:
    """An answer to each; one that is given may be empty. `asks`: on a terminal, for what is not given. Raises NotGiven with
    all that is missing, or with what is wrong."""
    answers = {each.name: given[each.name] for each in questions if each.name in given}
    for each in questions:
        if each.name in answers:
            continue
        proposal = proposals.get(each.name) or (_usual(each, answers) if asks else each.default)
        asked = _ask(each, proposal) if asks and not each.quiet else None
        answers[each.name] = proposal if asked is None else asked
    missing = [each for each in questions if each.needed and not answers[each.name]]
    if missing:
        words = ", ".join(f"{each.name.upper()} ({each.words})" for each in missing)
        raise NotGiven(f"not given: {words}. Use flags, --answers FILE for passwords too, or a terminal")
    odd = [f"{each.name}: {words}" for each in questions if (words := _odd(each.name, answers[each.name]))]
    if odd:
        raise NotGiven("; ".join(odd))
    return answers


def as_variables(answers: Mapping[str, str]) -> dict[str, str]:
    """As credentials.env has them: without what goes without saying."""
    told = {each.name.upper(): answers.get(each.name, "") for each in CREDENTIALS}
    tls = told["RABBITMQ_TLS"]
    told["RABBITMQ_TLS"] = _YES_OR_NO.get(tls, tls)
    return {name: value for name, value in told.items() if value and (name, value) != ("RABBITMQ_VHOST", "/")}


def _usual(question: Question, answers: Mapping[str, str]) -> str:
    if question.name == "rabbitmq_tls":
        return "no" if answers.get("rabbitmq_host") in LOOPBACK else "yes"
    return question.default


def _ask(question: Question, proposal: str) -> Optional[str]:
    shown = "the same" if question.secret and proposal else proposal
    prompt = f"{question.name}: {question.words}{f' [{shown}]' if shown else ''}: "
    while True:
        answer = getpass.getpass(prompt) if question.secret else line(prompt)
        odd = _odd(question.name, answer or "")
        if odd:
            print(f"It {odd}.", file=sys.stderr)
        elif answer or proposal or not question.needed or answer is None:
            return answer or proposal
        else:
            print("This one is needed.", file=sys.stderr)


def line(prompt: str) -> Optional[str]:
    """None where nobody will say anything any more."""
    print(prompt, end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline()
    return said.strip() if said else None


def _odd(name: str, answer: str) -> str:
    """What is wrong with it, or nothing."""
    if not answer.isprintable():
        return "holds a character that can't be printed"
    if name == "service_declares" and answer not in ("", *_YES_OR_NO):
        return "must be yes or no"
    if name == "rabbitmq_tls" and answer not in ("", *_YES_OR_NO, *_YES_OR_NO.values()):
        return "must be yes or no"
    if name == "rabbitmq_port" and answer and not (answer.isdecimal() and 0 < int(answer) < 65536):
        return "must be a port number"
    if name == "rabbitmq_host" and answer.count(":") == 1:
        return "is a host's name alone; the port is RABBITMQ_PORT (--rabbitmq-port)"
    if name == "expiration" and answer:
        try:
            parse_duration(answer)
        except ValueError as error:
            return str(error)
    return ""


def home_of(program: str) -> str:
    """The folder of a program that cron's PATH would not find; empty if it would, or if there is none."""
    import shutil

    found = shutil.which(program)
    standard = ("/usr/local/bin", "/usr/bin", "/bin")
    return os.path.dirname(found) if found and os.path.dirname(found) not in standard else ""
