"""On a terminal: a block of questions, an attempt with what was answered, and the same questions again where it is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Callable

from ..config import credentials_from
from ..errors import Fault, Transient
from ..settings import Config, Credentials, Site
from .answers import CA_FILE, Question, as_variables, complete, line

Attempt = Callable[[Credentials, str], None]
"""Takes credentials and a ca_file, perhaps empty. Raises Transient or OSError where it is refused."""
BEFORE = """\
Enter takes what stands in brackets. What you answer is tried at once, at the broker and at the API; what they refuse is asked
again. To change an answer later: correct credentials.env or site.toml, or run ./check.py init --replace.
"""


def ask_block(
    questions: Sequence[Question], given: Mapping[str, str], proposals: Mapping[str, str], what: str, attempt: Attempt
) -> dict[str, str]:
    """The answers, which may name a ca_file too. `what`: who is tried, in words."""
    answers = complete(questions, given, proposals, asks=True)
    while why := _refused({**given, **answers}, what, attempt):
        print(f"No: {why}.", file=sys.stderr)
        again = line("again: ask these once more, yes, or go on with them as they are, no [yes]: ")
        if again is None or again.lower().startswith("n"):
            break
        questions = [*(each for each in questions if each.name != CA_FILE.name), replace(CA_FILE, quiet=False)]
        answers = complete(questions, {}, {**given, **answers}, asks=True)
    return {**given, **answers}


def _refused(answers: Mapping[str, str], what: str, attempt: Attempt) -> str:
    faults: list[Fault] = []
    credentials = credentials_from(as_variables(answers), Path("credentials.env"), faults)
    if faults:
        return faults[0].found
    print(f"Trying {what} ...", file=sys.stderr)
    try:
        attempt(credentials, answers.get(CA_FILE.name) or os.environ.get("SSL_CERT_FILE", ""))
    except Transient as error:
        return error.found
    except OSError as error:
        return f"ca_file can't be used: {error.strerror or error}"
    print(f"{what[0].upper()}{what[1:]} lets us in.", file=sys.stderr)
    return ""


def log_in_at_broker(credentials: Credentials, ca_file: str) -> None:
    from ..amqp.trial import Trial

    trial = Trial(credentials, ca_file or None)
    try:
        trial.server()
    finally:
        trial.close()


def log_in_at_api(credentials: Credentials, ca_file: str) -> None:
    from ..api import Api

    nowhere = Path()
    Api(Config(nowhere, nowhere, nowhere, Site(queues=(), workloads={}, ca_file=ca_file), credentials)).authenticate()
