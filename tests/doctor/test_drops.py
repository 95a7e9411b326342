"""What the broker drops of a jobs queue, and what is deprecated: as the doctor tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

import pytest

from tests.doctor.examined import Examined
from tests.scene import Scene
from worker.amqp.management import Management
from worker.amqp.trial import Seen
from worker.doctor.drops import Limit, limit_of, tell_deprecated
from worker.doctor.report import Report
from worker.settings import Credentials, Secret


@pytest.mark.parametrize(("arguments", "policy", "version", "limit"), [
    ({}, {}, "3.13.7", Limit(None, None)),
    ({}, {}, "4.0.5", Limit(20, None)),
    ({}, {}, "what?", Limit(None, None)),
    ({"x-delivery-limit": -1}, {}, "4.3.6", Limit(None, None)),
    ({"x-delivery-limit": 7}, {"delivery-limit": 5}, "4.3.6", Limit(5, None)),
    ({}, {"delivery-limit": 5, "dead-letter-exchange": "dlx"}, "3.10.8", Limit(5, "dlx")),
    ({"x-dead-letter-exchange": "mine"}, {"dead-letter-exchange": "dlx"}, "4.0.5", Limit(20, "mine")),
])  # fmt: skip
def test_the_lower_limit_and_the_queue_s_own_exchange_count(
    arguments: Mapping[str, Any], policy: Mapping[str, Any], version: str, limit: Limit
) -> None:
    assert limit_of(arguments, policy, version) == limit


@pytest.mark.parametrize(("exchange", "mark", "words"), [
    (None, "ok", "more than 3 times is dropped unanswered (unless a policy says otherwise"),
    ("nobody-made-it", "warning", "its dead-letter exchange nobody-made-it does not exist"),
    ("amq.direct", "ok", "more than 3 times is dropped, and goes to the exchange amq.direct"),
])  # fmt: skip
def test_the_doctor_tells_when_a_message_is_dropped_and_where_it_goes(
    examined: Examined, scene: Scene, exchange: Optional[str], mark: str, words: str
) -> None:
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 3}
    arguments.update({"x-dead-letter-exchange": exchange} if exchange is not None else {})
    scene.requester.channel.queue_delete(examined.files.queue)
    scene.requester.channel.queue_declare(examined.files.queue, durable=True, arguments=arguments)

    line = examined.line("broker", f"returns to {examined.files.queue}")

    scene.requester.channel.queue_delete(examined.files.queue)
    assert line.mark == mark and words in line.found


# --- from the management API


class _Told(BaseHTTPRequestHandler):
    answers: Mapping[str, Any] = {}

    def do_GET(self) -> None:
        known = self.path in self.answers
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(self.answers[self.path]).encode() if known else b"{}")

    def log_message(self, *_: object) -> None: ...


def told(answers: Mapping[str, Any], ask: Any) -> Any:
    handler = type("Handler", (_Told,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return ask(management(server.server_address[1]))
        finally:
            server.shutdown()


def management(port: int) -> Management:
    return Management(Credentials("127.0.0.1", 1, "u", Secret("p"), "/", False, "http://x", "", Secret("")), None, port)


def deprecated(answers: Mapping[str, Any], durable: bool) -> list[str]:
    report = Report("broker")
    told(answers, lambda api: tell_deprecated(report, api, {"jobs": Seen("there", known=True, durable=durable)}))
    return [f"{each.mark}: {each.found}" for each in report.findings]


def test_deprecated_features_that_our_queues_need_are_a_warning() -> None:
    used = {"/api/deprecated-features/used": [{"name": "transient_nonexcl_queues"}, {"name": "global_qos"}]}

    (ours,), (others,) = deprecated(used, durable=False), deprecated(used, durable=True)

    assert ours.startswith(
        "warning: a later RabbitMQ does without transient_nonexcl_queues, global_qos: jobs can't be made"
    )
    assert others == "ok: in use on this broker: transient_nonexcl_queues, global_qos"
    assert deprecated({"/api/deprecated-features/used": []}, durable=False) == ["ok: in use on this broker: none"]


@pytest.mark.parametrize(
    "answers", [{}, {"/api/deprecated-features/used": "what?"}, {"/api/deprecated-features/used": 7}]
)
def test_where_it_can_not_be_found_out_nothing_is_said(answers: Mapping[str, Any]) -> None:
    assert deprecated(answers, durable=False) == []
    assert management(1).deprecated_in_use() is None


@pytest.mark.parametrize(("answer", "policy"), [
    ({"effective_policy_definition": {"delivery-limit": 5}}, {"delivery-limit": 5}),
    ({"effective_policy_definition": []}, {}), ({}, {}), ([], None),
])  # fmt: skip
def test_policies_are_read_as_erlang_writes_them(answer: Any, policy: Any) -> None:
    assert told({"/api/queues/%2F/hpc%20jobs": answer}, lambda api: api.policy_of("hpc jobs")) == policy
