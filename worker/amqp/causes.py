"""What is wrong with a broker, or with one of its queues, and what an operator does about it: for passes, jobs and the doctor.

Fact: AMQP 0-9-1 for reply codes (403 no right, 404 no such queue, 405 another connection's own, 530 no such virtual host).
"""

from __future__ import annotations

from typing import Optional

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from .. import causes
from ..causes import Server, broker_of
from ..errors import Advice
from ..settings import Credentials
from . import in_words

_NOT_ALLOWED = 530
_FIX_LOGIN = "Correct RABBITMQ_USER and RABBITMQ_PASSWORD in credentials.env"
_FIX_GUEST = f"{_FIX_LOGIN}: a broker takes guest from its own host alone, unless it was told otherwise"
_FIX_VHOST = "Correct RABBITMQ_VHOST in credentials.env, or ask for access to it"
_FIX_BLOCKED = "It takes no messages now (a memory or disk alarm of its own): tell its administrators"
_FIX_LOST = "If it stays, see the broker's log for why it ends our connections"

NO_RIGHT_TO_ANSWER = Advice("we may not publish to the default exchange, so no answer can leave",
                            "Ask for the right to write to amq.default")  # fmt: skip
_QUEUES = {
    403: Advice("may not be read by our user, or does not exist",
                "Check its name in site.toml, or ask for the right to read it"),
    404: Advice("does not exist", "Make it, or correct its name in site.toml"),
    405: Advice("belongs to another connection alone (it is exclusive)", "Ask the service for a queue that is shared"),
    540: Advice("is a stream, whose messages stay when they are read",
                "Ask the service for a classic or quorum queue, or correct the name in site.toml"),
}  # fmt: skip
"""By reply code; RabbitMQ 4.3 says 403 also of a queue that does not exist, and 540 to a basic.get from a stream."""


def queue_cause(code: int) -> Advice:
    """Why a jobs queue can't be read, after its name."""
    return _QUEUES.get(code) or Advice(f"can't be read: the broker refuses it ({code})", "See the broker's log")


def not_opened(credentials: Credentials, ca_file: Optional[str], error: BaseException) -> Advice:
    """Of a connection that could not be opened."""
    server = broker_of(credentials)
    if server.tls and (trouble := causes.unusable(ca_file)):
        return trouble
    if isinstance(error, (exceptions.ProbableAuthenticationError, exceptions.AuthenticationError)):
        found = f"{server} refuses our user or password (RABBITMQ_USER, RABBITMQ_PASSWORD)"
        return Advice(found, _FIX_GUEST if credentials.rabbitmq_user == "guest" else _FIX_LOGIN)
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return _closed(server, error, _FIX_VHOST)
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return _closed(server, error, _FIX_VHOST if error.reply_code == _NOT_ALLOWED else _FIX_LOST)
    if isinstance(error, AMQPConnectorStackTimeout):
        return causes.silent(server)
    if isinstance(error, (exceptions.IncompatibleProtocolError, exceptions.StreamLostError, ConnectionError)):
        return causes.hung_up(server)
    return causes.cause_of(server, error) or Advice(f"{server} can't be reached ({in_words(error)})", server.fix_port)


def _closed(server: Server, error: BaseException, fix: str) -> Advice:
    return Advice(f"{server} closed the connection: {in_words(error)}", fix)


def lost(error: BaseException) -> Advice:
    """Of a connection that was open."""
    if isinstance(error, exceptions.ConnectionBlockedTimeout):
        return Advice("the broker takes no messages from us now", _FIX_BLOCKED)
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return Advice(f"the broker closed the connection: {in_words(error)}", _FIX_LOST)
    if isinstance(error, (exceptions.ChannelClosedByBroker, exceptions.ChannelError)):
        return Advice(f"the broker refuses what was asked: {in_words(error)}", "See the broker's log")
    return Advice(f"the connection to the broker was lost: {in_words(error)}", _FIX_LOST)
