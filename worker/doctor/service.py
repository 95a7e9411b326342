"""The upstream API: the way there, our login, its clock, one input."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..causes import Server, api_of, proxy_of
from ..errors import Damaged, StepFailed, Transient
from ..folder.jobs import JobsFolder
from ..settings import Credentials
from .network import reach
from .report import Report
from .subject import Subject

if TYPE_CHECKING:
    from ..api import Api

CLOCKS_MAY_DIFFER, TOO_FAR = 5.0, 60.0
"""Seconds."""
_JOBS_LOOKED_AT = 20
MEND_CLOCK = "Ask this host's administrators to set its clock (NTP): deadlines and certificates depend on it."


def look_at_api(report: Report, subject: Subject) -> None:
    report.begin("API")
    credentials = subject.credentials
    if credentials is None:
        report.skip("credentials.env can't be used, as told above")
    elif not credentials.api_url or urlsplit(credentials.api_url).hostname is None:
        report.skip("credentials.env does not say where it is")
    elif reach(report, _way(subject, credentials), subject.ca_file):
        _speak(report, subject, credentials)


def _way(subject: Subject, credentials: Credentials) -> Server:
    """Nothing behind a proxy can be reached step by step."""
    return proxy_of(subject.known_site.api.proxy) or api_of(credentials.api_url)


def _speak(report: Report, subject: Subject, credentials: Credentials) -> None:
    from ..api import Api

    api = Api(subject.config(credentials))
    report.begin("login")
    token = ""
    try:
        token = api.authenticate()
        report.ok(f"{credentials.api_user} at {credentials.api_url}{subject.known_site.api.login_path}")
    except Transient as error:
        report.failed(error, "Ask the service's administrators.")
    _compare_clocks(report, api)
    if token:
        _open_input(report, subject, credentials, api, token)


def _compare_clocks(report: Report, api: Api) -> None:
    report.begin("clock")
    try:
        ahead = api.clock_ahead()
    except Transient as error:
        report.skip(error.found)
        return
    if ahead is None:
        report.skip("the API does not say what time it is")
    else:
        tell_clock(report, "the API's", -ahead)


def tell_clock(report: Report, whose: str, ahead: float) -> None:
    """`ahead`: by how many seconds ours is ahead of it."""
    found = f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"
    if abs(ahead) > TOO_FAR:
        report.fault(found, MEND_CLOCK)
    elif abs(ahead) > CLOCKS_MAY_DIFFER:
        report.warn(found, MEND_CLOCK)
    else:
        report.ok(f"this host's clock agrees with {whose}")


def _open_input(report: Report, subject: Subject, credentials: Credentials, api: Api, token: str) -> None:
    """The one that was named; else one of a job that is in flight, which may have been removed since."""
    from ..api import TokenExpired
    from ..job.spec import Input, may_fetch

    report.begin("one input")
    named = subject.input or _of_a_job(subject)
    if not named:
        report.skip("not tried; name one with --input, as a message would: ./check.py doctor --input /uploads/page.png")
        return
    url = named if "://" in named else f"{credentials.api_url}{named}"
    if not may_fetch(url, credentials.api_url, subject.known_site.api.input_hosts):
        report.fault(
            f"{url} is on a host that is not allowed here", "Add its host to input_hosts in [api] of site.toml."
        )
        return
    try:
        api.look("input", Input(url, "", may_fetch(url, credentials.api_url, ())), token)
        report.ok(f"{url} can be read")
    except (StepFailed, Transient) as error:
        words = error.reason if isinstance(error, StepFailed) else error.found
        if subject.input:
            report.fault(words, f"Ask the service whether {credentials.api_user} may read it.")
        else:
            report.warn(f"{url}: {words}", "If it was removed since, name another one with --input.")
    except TokenExpired:
        report.fault("the API does not take the token that it gave", "Ask the service's administrators.")


def _of_a_job(subject: Subject) -> str:
    """The address of an input of a job in flight; empty where there is none."""
    if subject.site is None:
        return ""
    active = JobsFolder(subject.site.jobs_dir)
    try:
        specs = (job.spec.read() for job in itertools.islice(active.active_jobs(), _JOBS_LOOKED_AT))
        return next((source.url for spec in specs if spec for source in spec.inputs.values()), "")
    except (OSError, Damaged):
        return ""
