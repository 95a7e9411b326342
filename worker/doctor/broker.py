"""The broker: the way there, our login and rights, and each jobs queue."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from time import monotonic

from ..amqp import FIX_LOGIN
from ..amqp.making import UNSAID, how_to_make, instead_of_transient
from ..amqp.management import Management
from ..amqp.trial import Seen, Trial
from ..errors import Advice, Damaged, Transient
from ..folder.facts import JobFolder
from ..folder.jobs import JobsFolder
from ..settings import Credentials, Queue, Site
from .drops import tell_deprecated, tell_what_is_dropped
from .network import Server, reach
from .report import Report
from .service import tell_clock
from .subject import Subject

_MIB = 2**20
_TRIED_BYTES = 17 * _MIB
"""More than what RabbitMQ 4 takes unless it is told otherwise."""
_SHORT = 3600.0
"""Seconds that an answer may stay unread without a word."""
_MOST_LOOKED_AT = 20
_SLOW = 1.5
"""Seconds for a MiB."""
_MANY_CONSUMERS = "Find out who it is: no queue should be served by two (another installation, an older service)."


def look_at_broker(report: Report, subject: Subject) -> None:
    site, credentials = subject.known_site, subject.credentials
    _look_at_folders(report, site)
    report.begin("broker")
    if not site.has_broker:
        report.ok("none is needed: no queue is at one")
    elif site.broker == "embedded":
        report.ok(f"embedded, in {site.broker_file}")
    elif credentials is None:
        report.skip("credentials.env can't be used, as told above")
    elif not credentials.rabbitmq_host:
        report.skip("credentials.env does not say where it is")
    elif reach(report, _server(credentials), subject.ca_file):
        trial = Trial(credentials, subject.ca_file)
        try:
            if _log_in(report, trial, credentials):
                _look_inside(report, trial, site, Management(credentials, subject.ca_file))
        except Transient as error:
            report.failed(error, "See the broker's log for why it closed the connection.")
        finally:
            trial.close()


def _look_at_folders(report: Report, site: Site) -> None:
    for queue in site.queues:
        if not queue.in_folder:
            continue
        report.begin(f"queue {queue.name}")
        folder = Path(queue.folder)
        shut = [place for place in (folder, folder / "answers") if not os.access(place, os.W_OK | os.X_OK)]
        if folder.is_dir() and shut:
            report.fault(f"{shut[0]} is not there, or we may not write there", "Make it, and give our user its rights.")
        elif folder.is_dir():
            report.ok(f"{queue.source}, in {folder}")
        elif queue.make is False:
            report.fault(f"{folder} is not there", "Make it, or correct its folder in site.toml.")
        else:
            report.ok(f"{queue.source}, in {folder}, which the first pass makes")


def _server(credentials: Credentials) -> Server:
    port = "Mend RABBITMQ_HOST and RABBITMQ_PORT in credentials.env (5671 with TLS, 5672 without, as a rule), or ask "
    tls = "Set RABBITMQ_TLS=true" if not credentials.rabbitmq_tls else "Set RABBITMQ_PORT to its TLS port"
    return Server(
        credentials.rabbitmq_host, credentials.rabbitmq_port, credentials.rabbitmq_tls, "RABBITMQ_HOST in credentials.env",
        f"{port}whether a firewall stands between.", f"{tls} in credentials.env (5671, as a rule).",
    )  # fmt: skip


def _log_in(report: Report, trial: Trial, credentials: Credentials) -> bool:
    report.begin("login")
    where = f"{credentials.rabbitmq_user} at virtual host {credentials.rabbitmq_vhost}"
    try:
        product, version = trial.server()
    except Transient as error:
        report.failed(error, _fix_login(credentials))
        return False
    report.ok(f"{where}; {product} {version}")
    return True


def _fix_login(credentials: Credentials) -> str:
    if not credentials.rabbitmq_tls:
        return "Is this its TLS port? Then set RABBITMQ_TLS=true in credentials.env. Else see the broker's log."
    return f"See the broker's log. {FIX_LOGIN}."


def _look_inside(report: Report, trial: Trial, site: Site, management: Management) -> None:
    ours = dict[str, Seen]()
    for queue in site.queues:
        if queue.source:
            continue
        report.begin(f"queue {queue.name}")
        seen = ours[queue.name] = trial.look(queue)
        _tell_queue(report, trial, queue, seen)
        if seen.state == "there" and seen.kind != "stream":
            _try_reading(report, trial, queue, seen.messages)
            tell_what_is_dropped(report, trial, management, queue.name, seen)
    tell_deprecated(report, management, ours)
    report.begin("right to answer")
    if trial.may_answer():
        report.ok("we may publish to the default exchange")
    else:
        report.fault("we may not publish to the default exchange, so no answer could leave",
                     "Ask for the right to write to amq.default.")  # fmt: skip
        return
    _try_size(report, trial, site.replies.max_bytes)
    _look_at_replies(report, trial, site)
    _try_making_reply_queues(report, trial, site)
    report.begin("clock")
    ahead = trial.clock_ahead()
    if ahead is None:
        report.skip("the broker's clock can't be asked without the right to make a queue")
    else:
        tell_clock(report, "the broker's", -ahead)


def _look_at_replies(report: Report, trial: Trial, site: Site) -> None:
    """A reply queue that many requests share gives back what is not theirs. What nobody wants goes round there, thousands of
    times a second, until it expires."""
    report.begin("unread answers")
    life = site.replies.expiration
    shared = [name for name in _reply_queues(site) if life > _SHORT and trial.is_there(name)]
    if shared:
        names, hours = ", ".join(shared), f"{life / _SHORT:g} h"
        report.warn(f"an answer that nobody wants stays in {names} for {hours}; if requests share it and give back what is "
                    "not theirs, it is redelivered thousands of times a second for so long",
                    'Set expiration = "1h" in [replies] of site.toml, unless answers are read later than that.')  # fmt: skip
    else:
        report.ok(f"an answer that nobody reads is gone after {life / _SHORT:g} h")


def _try_making_reply_queues(report: Report, trial: Trial, site: Site) -> None:
    report.begin("queues for answers")
    if site.replies.create and not site.replies.create_durable and not trial.makes_transient():
        instead = instead_of_transient("create_durable")
        report.fault(f"replies.create names queues to be made, and {instead.found}", f"{instead.fix}.")


def _reply_queues(site: Site) -> list[str]:
    """Those that site.toml names in full, and those that jobs in flight want their answers in."""
    names = {str(each) for each in site.replies.patterns if not each.endswith("*")}
    with contextlib.suppress(OSError):
        for path in itertools.islice(JobsFolder(site.jobs_dir).active.iterdir(), _MOST_LOOKED_AT):
            with contextlib.suppress(Damaged, OSError):
                message = JobFolder(path).message.read()
                reply_to = message.properties.get("reply_to") if message else None
                names |= {reply_to} if isinstance(reply_to, str) else set()
    return sorted(name for name in names if name and not name.startswith("amq."))[:_MOST_LOOKED_AT]


def _tell_queue(report: Report, trial: Trial, queue: Queue, seen: Seen) -> None:
    if seen.state == "missing":
        _tell_missing(report, trial, queue)
    elif seen.state == "locked":
        report.fault("belongs to another connection alone (exclusive)", "Ask the service for a queue that is shared.")
    elif seen.state == "refused":
        report.fault("it does not exist, or we may not even look at it",  # RabbitMQ 4.3 says the same of both
                     "Check its name in site.toml, or ask for the right to read it.")  # fmt: skip
    elif seen.kind == "stream":
        report.fault("is a stream, whose messages stay when they are read",
                     "Ask the service for a classic or quorum queue, or mend the name in site.toml.")  # fmt: skip
    else:
        _tell_what_it_is(report, queue, seen)


def _tell_missing(report: Report, trial: Trial, queue: Queue) -> None:
    how = how_to_make(queue)
    if isinstance(how, Advice):
        tell = report.warn if queue.make is False else report.fault
        tell(how.found, f"{how.fix}.")
    elif not how.durable and not trial.makes_transient():
        instead = instead_of_transient("durable")
        report.fault(f"does not exist, and {instead.found}", f"{instead.fix}.")
    elif how.unsaid:
        report.warn(f"does not exist; the first pass makes it: {UNSAID.found}", f"{UNSAID.fix}.")
    else:
        made = f"durable={str(how.durable).lower()}{''.join(f', {k}={v}' for k, v in how.arguments.items())}"
        report.warn(f"does not exist; the first pass makes it ({made})",
                    "What is published before that is lost: ./check.py init makes it now. If the service should have made it, "
                    "correct its name in site.toml.")  # fmt: skip


def _tell_what_it_is(report: Report, queue: Queue, seen: Seen) -> None:
    kind = f"{seen.kind}, durable={str(seen.durable).lower()}" if seen.known else "its type can't be seen"
    found = f"{seen.messages} waiting, {kind}"
    dead = next((name for name in ("x-message-ttl", "x-max-length", "x-expires") if name in seen.arguments), None)
    if seen.consumers:
        report.warn(f"{found}; {seen.consumers} others take from it too", _MANY_CONSUMERS)
    elif seen.differences:
        report.warn(f"{found}; it is used as it is, but differs from site.toml: {', '.join(seen.differences)}",
                    "Let durable and arguments of this queue in site.toml say the same.")  # fmt: skip
    elif dead:
        report.warn(f"{found}; {dead}={seen.arguments[dead]}: the broker may drop jobs that wait",
                    "Ask the service for a queue without it, if no job may be lost before we take it.")  # fmt: skip
    elif seen.known and not seen.durable and queue.make is None and queue.durable is None:
        report.warn(f"{found}; {UNSAID.found}, and a pass makes it so if it is missing", f"{UNSAID.fix}.")
    else:
        report.ok(found)


def _try_reading(report: Report, trial: Trial, queue: Queue, waiting: int) -> None:
    """Only on an empty queue: a message that was taken and given back is marked as redelivered, and may be taken for one
    that was claimed before."""
    report.begin(f"right to read {queue.name}")
    if waiting:
        report.skip("not tried while messages wait, because they would be marked as redelivered")
    elif trial.may_read(queue.name):
        report.ok("we may take messages from it")
    else:
        report.fault("we may not take messages from it", f"Ask for the right to read {queue.name}.")


def _try_size(report: Report, trial: Trial, wanted: int) -> None:
    """A small one first: on a slow line the large one would take minutes."""
    report.begin("message size")
    tried, begun = min(wanted, _MIB), monotonic()
    most = trial.largest(tried)
    if most == tried < wanted and monotonic() - begun < _SLOW:
        tried = min(wanted, _TRIED_BYTES)
        most = trial.largest(tried)
    if most < tried:
        report.fault(f"the broker takes {most} bytes at the most, and replies.max_bytes is {wanted}",
                     f"Set max_bytes = {most} in [replies] of site.toml, or ask for a larger max_message_size.")  # fmt: skip
    elif tried < wanted:
        report.ok(f"takes {tried // _MIB} MiB; up to {wanted // _MIB} MiB (replies.max_bytes) was not tried")
    else:
        report.ok(f"takes {tried} bytes, the largest answer (replies.max_bytes)")
