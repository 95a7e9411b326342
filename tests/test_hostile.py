"""Hostile and broken messages on real RabbitMQ and real Slurm: each gets its true outcome, and the good job behind it runs.

The tables come first: a row is a message, what it comes to, and words of the answer (of the log where there is none).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import pika
import pytest
from pika import exceptions, frame, spec

from tests.installation import ROOT
from tests.requester import Answer
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.certificates import Certificates
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer as Response
from tests.services.upstream import Upstream

# --- the tables


@dataclass(frozen=True)
class Row:
    """`canary` in a body stands for the address of a listener that must hear nothing."""

    message: str
    body: Union[bytes, Mapping[str, Any]]
    outcome: str
    words: str

    def encoded(self, canary: str = "") -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return body.replace(b"canary", canary.encode())


def rejected(message: str, body: Union[bytes, Mapping[str, Any]], words: str) -> Row:
    return Row(message, body, "rejected", words)


def job(**more: Any) -> dict[str, Any]:
    return {"inputs": {"Image": IMAGE}, "settings": {}, **more}


def text(more: str) -> bytes:
    """A job that is good but for what `more` adds to its settings."""
    return b'{"inputs": {"Image": "%s"}, "settings": {%s}}' % (IMAGE.encode(), more.encode())


BODIES = [
    rejected("empty", b"", "is not valid JSON"),
    rejected("spaces", b" " * 1000, "is not valid JSON"),
    rejected("a NUL", b"\0", "is not valid JSON"),
    rejected("not UTF-8", b"\xff\xfe{}", "is not UTF-8 text"),
    rejected("not UTF-8 in the middle", text('"x": "') + b'\xc3"}', "is not UTF-8 text"),
    rejected("UTF-16", json.dumps(job()).encode("utf-16"), "is not UTF-8 text"),
    rejected("half a job", b'{"inputs": {"Image": ', "is not valid JSON"),
    rejected("a job and more", text("") + b"{}", "is not valid JSON"),
    rejected("a list", b"[]", "is not a JSON object"),
    rejected("a text", b'"job"', "is not a JSON object"),
    rejected("a number", b"1", "is not a JSON object"),
    rejected("null", b"null", "is not a JSON object"),
    rejected("NaN", text('"x": NaN'), "holds NaN, which is not a number in JSON"),
    rejected("Infinity", text('"x": Infinity'), "holds Infinity, which is not a number in JSON"),
    rejected("-Infinity", text('"x": [-Infinity]'), "holds -Infinity, which is not a number in JSON"),
    rejected("1e999", text('"x": 1e999'), "holds a number that is too large"),
    rejected("5000 digits", text('"x": ' + "9" * 5000), "holds a number that is too large"),
    rejected("inputs twice", b'{"inputs": {"Image": "/a"}, "inputs": {}, "settings": {}}', 'gives "inputs" twice'),
    rejected("a key of settings twice", text('"x": {"y": 1, "y": 2}'), 'gives "y" twice'),
    rejected("10,000 lists in one another", b"[" * 10_000 + b"]" * 10_000, "nested more than 50 levels deep"),
    rejected(
        "10,000 objects in one another", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested more than 50 levels deep"
    ),
    rejected(
        "10,000 lists in a setting", text('"x": ' + "[" * 10_000 + "]" * 10_000), "nested more than 50 levels deep"
    ),
    rejected("60 lists in a setting", text('"x": ' + "[" * 60 + "]" * 60), "nested more than 50 levels deep"),
    rejected("no inputs, no settings", b"{}", 'has no "inputs"'),
    rejected("no inputs", {"settings": {}}, 'has no "inputs"'),
    rejected("no settings", {"inputs": {"Image": IMAGE}}, 'has no "settings"'),
    rejected("inputs are null", job(inputs=None), '"inputs" in the job message is not a JSON object'),
    rejected("inputs are a list", job(inputs=["Image"]), '"inputs" in the job message is not a JSON object'),
    rejected("inputs are a text", job(inputs="Image"), '"inputs" in the job message is not a JSON object'),
    rejected("inputs are true", job(inputs=True), '"inputs" in the job message is not a JSON object'),
    rejected("settings are a number", job(settings=1), '"settings" in the job message is not a JSON object'),
    rejected("settings are a list", job(settings=[]), '"settings" in the job message is not a JSON object'),
    rejected("resources are a list", job(resources=[]), '"resources" in the job message is not a JSON object'),
    rejected("resources are null", job(resources=None), '"resources" in the job message is not a JSON object'),
    rejected("an input is null", job(inputs={"Image": None}), 'The address of the input "Image" is not a URL'),
    rejected("an input is a number", job(inputs={"Image": 1}), 'The address of the input "Image" is not a URL'),
    rejected("an input is a list", job(inputs={"Image": [IMAGE]}), 'The address of the input "Image" is not a URL'),
    rejected("an input is an object", job(inputs={"Image": {}}), 'The address of the input "Image" is not a URL'),
    rejected("an input is empty", job(inputs={"Image": ""}), 'The address of the input "Image" is not a URL'),
    rejected("a workload that is a number", job(workload=1), 'no workload named "1"'),
    rejected("a workload that is null", job(workload=None), 'no workload named "None"'),
    rejected("a workload that is a list", job(workload=["probe"]), "no workload named"),
]

LAYERS = ["Image", "Background", "Selected Regions"]
NAMES = [
    rejected("an unknown workload", job(workload="nothing"), 'no workload named "nothing" here'),
    rejected("a path as workload", job(workload="../../bin/sh"), 'no workload named "../../bin/sh" here'),
    rejected("a workload with a line break", job(workload="probe\n"), 'no workload named "probe?" here'),
    rejected("an input is missing", job(inputs={}), 'missing: "Image"'),
    rejected("too many inputs", job(inputs={f"Image {n}": IMAGE for n in range(60)}), "has 60 inputs; at most 50"),
    rejected(
        "a gap in a family",
        job(inputs=dict.fromkeys([*LAYERS, "rgba PNG - Layer 0", "rgba PNG - Layer 2"], IMAGE)),
        'out of sequence: "rgba PNG - Layer 2"',
    ),
    rejected(
        "an empty family",
        job(inputs=dict.fromkeys(LAYERS, IMAGE)),
        'missing: "rgba PNG - Layer 0"',
    ),
    *(
        rejected(f"an input {name!a:.30}", job(inputs={"Image": IMAGE, name: IMAGE}), f'out of sequence: "{shown}')
        for name, shown in [
            ("/etc/passwd", "/etc/passwd"), ("..", '.."'), ("../x", "../x"), ("a\0b", "a?b"), ("a\nb", "a?b"),
            ("a\r\nb", "a??b"), ("x" * 300, "x" * 80 + "..."), ("%j", "%j"), ("\u202eegamI", "?egamI"), ("   ", "   "),
            ("", '"'), ("error", "error"), ("-rf", "-rf"), ("$(id)", "$(id)"), ("\ud800", "?"), ("Image ", "Image "),
        ]
    ),
]  # fmt: skip

NOT_ALLOWED, NO_URL = "which is not allowed here", 'The address of the input "Image" is not a URL'
ADDRESSES = [
    rejected(address.replace("\n", " "), job(inputs={"Image": address}), words)
    for address, words in [
        ("http://canary/x", 'comes from "127.0.0.1", which is not allowed here'),
        ("https://canary/x", NOT_ALLOWED),
        ("https://files.example.org/x", 'comes from "files.example.org", which is not allowed here'),
        ("file:///etc/passwd", NOT_ALLOWED),
        ("file://canary/etc/passwd", NOT_ALLOWED),
        ("ftp://canary/x", NOT_ALLOWED),
        ("gopher://canary/x", NOT_ALLOWED),
        ("http://operator:word@canary/x", NOT_ALLOWED),
        ("//canary/x", NOT_ALLOWED),
        ("///canary/x", NOT_ALLOWED),
        ("http:canary/x", NOT_ALLOWED),
        ("http://169.254.169.254/latest/meta-data/", 'comes from "169.254.169.254", which is not allowed here'),
        ("http://localhost:1/x", NOT_ALLOWED),
        ("http://[::1]:1/x", NOT_ALLOWED),
        ("/a\nHost: canary", NO_URL),
        ("/a\r\nAuthorization: x", NO_URL),
        ("http://canary/x\n", NO_URL),
        ("\\\\canary\\x", NO_URL),
        ("/\\canary/x", NO_URL),
        ("/" + "a" * 5000, NO_URL),
    ]
]

NO_NUMBERS: list[object] = ["6; rm -rf ~", -1, 1e9, True, "6", 0, None, []]
NO_TIMES: list[object] = ["0-06:00 --wrap=x", "99-99", "0", "", "-1", "1\n", 60, True, None, "UNLIMITED", "0-00:00"]
WHOLE, TIME = "must be a whole number of at least 1; this job says", "must be a time such as"
RESOURCES = [
    *(
        rejected(f"{name}: {value!r}", job(resources={name: value}), f'"{name}" {WHOLE}')
        for name in ("cpus", "memory_mb")
        for value in NO_NUMBERS
    ),
    *(rejected(f"CPUs: {value!r}", job(settings={"CPUs": value}), f'"CPUs" {WHOLE}') for value in NO_NUMBERS),
    *(rejected(f"time: {value!r}", job(resources={"time": value}), f'"time" {TIME}') for value in NO_TIMES),
    rejected("gpus: -1", job(resources={"gpus": -1}), '"gpus" must be a whole number of at least 0'),
    rejected("e-mail with a line break", job(resources={"email": "a@b.org\nx"}), "is not an e-mail address"),
    rejected("e-mail with a dash", job(resources={"email": "--wrap=x@b.org"}), "is not an e-mail address"),
    rejected("e-mail in the settings", job(settings={"Slurm Notification Email": "-x"}), "is not an e-mail address"),
    rejected("an unknown resource", job(resources={"account": "root"}), 'asks for "account", which is no resource'),
    rejected("more cpus than the site allows", job(resources={"cpus": 5001}), '"cpus" may be at most 5000 here'),
    rejected("a cpu count of 10^30", job(resources={"cpus": 10**30}), '"cpus" may be at most 5000 here'),
    rejected("more memory", job(resources={"memory_mb": 257001}), '"memory_mb" may be at most 257000 here'),
    rejected("more time", job(resources={"time": "7-00:01"}), '"time" may be at most 168 hours here'),
    rejected("more gpus", job(resources={"gpus": 5}), '"gpus" may be at most 4 here'),
]

FIELDS = {  # every type that RabbitMQ reads, with its extreme values, as on the wire
    "boolean": b"t\xff",
    "signed 8": b"b\x80",
    "unsigned 8": b"B\xff",
    "signed 16": b"s\x80\0",
    "unsigned 16": b"u\xff\xff",
    "signed 32": b"I\x80\0\0\0",
    "unsigned 32": b"i\xff\xff\xff\xff",
    "signed 64": b"l\x80" + b"\0" * 7,
    "long": b"L" + b"\xff" * 8,
    "largest float": b"f\x7f\x7f\xff\xff",
    "largest double": b"d\x7f\xef" + b"\xff" * 6,
    "decimal": b"D\xff\x7f\xff\xff\xff",
    "empty text": b"S\0\0\0\0",
    "100 kB of text that is not UTF-8": b"S" + struct.pack(">I", 100_000) + b"\xff" * 100_000,
    "bytes": b"x\0\0\0\2\0\xff",
    "empty list": b"A\0\0\0\0",
    "empty table": b"F\0\0\0\0",
    "nothing": b"V",
    "time in the year 292277026596": b"T\x7f" + b"\xff" * 7,
    "latest time": b"T" + b"\xff" * 8,
}
REFUSED_FIELDS = {  # the broker closes the connection: no such message gets into a queue
    "a float that is no number": b"f\x7f\xc0\0\0",
    "an infinite double": b"d\x7f\xf0" + b"\0" * 6,
    "an unknown type": b"?",
    "a text that is longer than the message": b"S\xff\xff\xff\xff",
}

# --- what the tests share


class Wire(pika.BasicProperties):  # type: ignore[misc]  # pika publishes no types
    """Properties whose table of headers is written by hand."""

    def __init__(self, table: bytes, **properties: Any) -> None:
        super().__init__(headers={}, **properties)
        self._table = table

    def encode(self) -> list[bytes]:
        flags, rest = (whole := b"".join(super().encode()))[:2], whole[6:]
        return [flags + struct.pack(">I", len(self._table)) + self._table + rest]


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """Listens, and must not be heard of."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield listener


def heard(canary: socket.socket) -> bool:
    try:
        canary.accept()
    except BlockingIOError:
        return False
    return True


def address(canary: socket.socket) -> str:
    return f"127.0.0.1:{canary.getsockname()[1]}"


def publish_all(scene: Scene, rows: list[Row], canary: str = "") -> dict[str, Row]:
    return {scene.requester.publish(row.encoded(canary)): row for row in rows}


def publish_each_before_a_good_job(scene: Scene, rows: list[Row], canary: str = "") -> tuple[dict[str, Row], list[str]]:
    asked, good = {}, []
    for row in rows:
        asked.update(publish_all(scene, [row], canary))
        good.append(scene.ask())
    return asked, good


def send(scene: Scene, body: bytes, properties: pika.BasicProperties) -> None:
    scene.requester.channel.basic_publish("", scene.requester.jobs, body, properties)


def one_pass(scene: Scene, *good: str) -> None:
    """After it, the queue is empty and each good job is with Slurm."""
    log = scene.installation.check("--drain")
    assert scene.requester.waiting_jobs() == 0
    assert "unforeseen" not in log and "Traceback" not in log
    submitted = {
        str(json.loads(job.message.path.read_text())["properties"].get("correlation_id"))
        for job in scene.installation.active()
        if job.attempt(1).submission.path.exists()
    }
    assert set(good) <= submitted


def assert_each_as_its_row_says(scene: Scene, asked: Mapping[str, Row]) -> None:
    for correlation_id, row in asked.items():
        answers = scene.requester.to(correlation_id)
        assert len(answers) == 1, row.message
        error = answers[0].error
        assert error and row.words in error, (row.message, error)
        assert (outcome_of(answers[0]), answers[0].properties.type) == (row.outcome, "error"), row.message
        assert error.isprintable() and str(ROOT) not in error and len(error) < 1000, row.message


def assert_all_succeed(scene: Scene, good: list[str]) -> None:
    scene.installation.passes_until(lambda: not scene.installation.active())
    assert [outcome_of(answer) for each in good for answer in scene.requester.to(each)] == ["succeeded"] * len(good)


def outcome_of(answer: Answer) -> str:
    return str(answer.headers["outcome"])


def refusal(name: str) -> bytes:
    """A message that is cheap, because it is refused, and whose answer can be told from others by its words."""
    return json.dumps(job(workload=name)).encode()


# --- the message itself


@pytest.mark.long(seconds=25)
@pytest.mark.parametrize("rows", [BODIES, NAMES, RESOURCES], ids=["bodies", "names", "resources"])
def test_each_broken_message_is_answered_and_the_good_one_behind_it_is_taken_in_the_same_pass(
    scene: Scene, rows: list[Row]
) -> None:
    scene.installation.change_site("max_gpus = 4", "max_gpus = 4\nmax_cpus = 5000")
    asked, good = publish_each_before_a_good_job(scene, rows)

    one_pass(scene, *good)

    assert_each_as_its_row_says(scene, asked)
    assert_all_succeed(scene, good)
    assert len(scene.requester.collect()) == len(asked) + len(good)


def test_an_address_elsewhere_is_refused_before_any_connection(scene: Scene, canary: socket.socket) -> None:
    asked, good = publish_each_before_a_good_job(scene, ADDRESSES, address(canary))

    one_pass(scene, *good)

    assert_each_as_its_row_says(scene, asked)
    assert_all_succeed(scene, good)
    assert set(scene.upstream.paths()) == {IMAGE} and not heard(canary)
    assert "word" not in " ".join(answer.error or "" for answer in scene.requester.collect() if answer.error)


def test_what_an_address_leads_to_is_not_trusted_either(
    rabbitmq: Broker, slurm: SlurmCluster, upstream_tls: Upstream, odd_folder: Path, certificates: Certificates,
    canary: socket.socket,
) -> None:  # fmt: skip
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream_tls)
    site = scene.installation.site_file
    trust = f"ca_file = {json.dumps(str(certificates.ca))}\n"
    site.write_text(f"{trust}{site.read_text()}[limits]\ninput_bytes = 1000000\n")
    elsewhere, plain = f"https://{address(canary)}/x", upstream_tls.url.replace("https:", "http:")
    for path, response in {
        "/elsewhere": Response(status=302, headers={"Location": elsewhere}),
        "/plain": Response(status=307, headers={"Location": plain + IMAGE}),
        "/file": Response(status=301, headers={"Location": "file:///etc/passwd"}),
        "/10-gb": Response(status=200, length=10 * 2**30),
        "/endless": Response(status=200, headers={"Transfer-Encoding": "chunked"}, body=b"ffffffff\r\n", endless=True),
    }.items():
        upstream_tls.script(path, response)
    redirected = "was redirected to an address that is not allowed here"
    too_large = "larger than what one job may bring"
    rows = [
        rejected("http where the API is https", job(inputs={"Image": plain + IMAGE}), NOT_ALLOWED),
        Row("a redirect to another host", job(inputs={"Image": "/elsewhere"}), "failed", redirected),
        Row(
            "a redirect from https to http", job(inputs={"Image": "/plain"}), "failed", "an address without encryption"
        ),
        Row("a redirect to a file", job(inputs={"Image": "/file"}), "failed", redirected),
        Row("an answer of 10 GB", job(inputs={"Image": "/10-gb"}), "failed", too_large),
        Row("an answer without an end", job(inputs={"Image": "/endless"}), "failed", too_large),
    ]
    asked = publish_all(scene, rows)
    good = scene.ask()

    one_pass(scene, good)
    scene.installation.passes_until(lambda: len(scene.requester.collect()) > len(asked))

    assert_each_as_its_row_says(scene, asked)
    assert outcome_of(scene.answer(good)) == "succeeded"
    assert not heard(canary)
    scene.requester.close()


# --- its size


WITH_PEAK = """
import re, runpy, sys
script = sys.argv[1]
sys.argv = sys.argv[1:]
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_100_mb_of_spaces_are_rejected_in_bounded_memory_and_are_not_kept(scene: Scene) -> None:
    huge = 100 * 2**20
    asked = publish_all(scene, [rejected("100 MB of spaces", b" " * huge, "is larger than the 1048576 bytes")])
    good = scene.ask()
    installation = scene.installation

    done = subprocess.run(
        [sys.executable, "-c", WITH_PEAK, str(ROOT / "check.py"), "--drain", "--site", str(installation.site_file),
         "--credentials", str(installation.credentials_file)],
        env=installation.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 2.5 * huge + 60 * 2**20
    assert_each_as_its_row_says(scene, asked)
    assert outcome_of(scene.answer(good)) == "succeeded"
    (kept,) = installation.jobs.rejected.iterdir()
    assert sum(file.stat().st_size for file in kept.rglob("*")) < 2 * 2**20


@pytest.mark.parametrize("size", [2**30, 2**63 - 1])
def test_a_message_that_only_announces_a_great_length_never_gets_into_the_queue(scene: Scene, size: int) -> None:
    with connection_to(scene) as sender:
        sender._impl._output_marshaled_frames([
            frame.Method(1, spec.Basic.Publish(exchange="", routing_key=scene.requester.jobs)).marshal(),
            frame.Header(1, size, pika.BasicProperties()).marshal(),
            frame.Body(1, b" " * 1000).marshal(),
        ])  # fmt: skip
        words = why_closed(sender, 0.5)  # RabbitMQ 4.3 does not even wait for it
        assert scene.requester.waiting_jobs() == 0
        good = scene.ask()
        one_pass(scene, good)
        if not words:
            sender._impl._output_marshaled_frames([frame.Method(1, spec.Basic.Qos()).marshal()])
            words = why_closed(sender, 5)
        assert "UNEXPECTED_FRAME" in words or "FRAME_ERROR" in words

    assert outcome_of(scene.answer(good)) == "succeeded"


def why_closed(sender: Any, seconds: float) -> str:
    """Empty while the broker has not closed it."""
    try:
        sender.process_data_events(seconds)
    except exceptions.ConnectionClosedByBroker as error:
        return str(error)
    return ""


@contextmanager
def connection_to(scene: Scene) -> Iterator[Any]:
    """A connection of somebody else, with its channel 1 open."""
    connection = pika.BlockingConnection(scene.requester._parameters)
    connection.channel(1)
    yield connection
    if connection.is_open:
        connection.close()


# --- its properties


@pytest.mark.parametrize("correlation_id", [None, "an id"])
def test_who_asks_for_no_answer_gets_none_and_the_work_is_done(
    scene: Scene, tmp_path: Path, correlation_id: Optional[str]
) -> None:
    record = tmp_path / "record"
    send(scene, text(f'"record": {json.dumps(str(record))}'), pika.BasicProperties(correlation_id=correlation_id))
    send(scene, b"no job", pika.BasicProperties(correlation_id=correlation_id))
    send(scene, b"no job", pika.BasicProperties(reply_to="", correlation_id=correlation_id))
    good = scene.ask()

    one_pass(scene, good)

    assert outcome_of(scene.answer(good)) == "succeeded"
    assert len(scene.requester.collect()) == 1 and len(record.read_text().splitlines()) == 1
    assert len(list(scene.installation.jobs.rejected.iterdir())) == 2


def test_whoever_asks_is_answered_with_the_correlation_id_that_came(scene: Scene) -> None:
    results = scene.requester.results
    ids: list[Union[str, bytes, None]] = ["x" * 255, b"\xff" * 255, b"\x80\0\n", "\u202eid \0", "", None]
    for number, correlation_id in enumerate(ids):
        send(scene, refusal(f"w{number}"), pika.BasicProperties(reply_to=results, correlation_id=correlation_id))
    good = scene.ask()

    one_pass(scene, good)

    found = {str(answer.error): answer.correlation_id for answer in scene.requester.collect() if answer.error}
    assert found == {f'There is no workload named "w{number}" here.': each for number, each in enumerate(ids)}
    assert outcome_of(scene.answer(good)) == "succeeded"


def test_an_answer_goes_only_where_it_may_and_its_queue_is_left_as_it_is(scene: Scene) -> None:
    scene.installation.change_site("[replies]", '[replies]\ngive_up_after = "1s"')
    channel, jobs = scene.requester.channel, scene.requester.jobs
    nowhere = {
        "does not exist": f"{jobs}-nobody",
        "reply_to is a jobs queue": jobs,
        "reply_to is not UTF-8": b"\xff\xfe",
    }
    for reply_to in nowhere.values():
        send(scene, refusal("nowhere"), pika.BasicProperties(reply_to=reply_to, correlation_id="nowhere"))
    mine = channel.queue_declare("", exclusive=True).method.queue
    send(scene, refusal("mine"), pika.BasicProperties(reply_to=mine, correlation_id="mine"))
    direct: list[tuple[Any, bytes]] = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *parts: direct.append(parts[2:]), auto_ack=True)
    send(scene, refusal("direct"), pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="direct"))
    with connection_to(scene) as other:
        # Made up, and sent by one whom the broker does not ask to have a consumer.
        made_up = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to.made.up", correlation_id="made up")
        other.channel(2).basic_publish("", jobs, refusal("made up"), made_up)
    good = scene.ask()

    one_pass(scene, good)
    scene.requester.connection.process_data_events(1)

    ((properties, body),) = direct
    assert properties.correlation_id == "direct" and b"no workload named" in body
    _, properties, body = channel.basic_get(mine, auto_ack=True)
    assert properties.correlation_id == "mine" and b"no workload named" in body
    assert outcome_of(scene.answer(good)) == "succeeded"
    assert scene.requester.waiting_jobs() == 0 and len(scene.requester.collect()) == 1
    put_away = list(scene.installation.jobs.rejected.iterdir())
    assert len(put_away) == len([*nowhere, "mine", "direct", "made up"])
    given_up = " ".join(file.read_text() for job in put_away for file in job.glob("undeliverable.json"))
    for words in nowhere:
        assert given_up.count(words) == 1


def test_what_makes_two_messages_one_job_is_told_from_ids_and_redelivery(scene: Scene) -> None:
    results = scene.requester.results
    for name, copies, properties in [
        ("one", 1, {"correlation_id": "shared"}),
        ("another body", 1, {"correlation_id": "shared"}),
        ("twice with an id", 2, {"correlation_id": "twice"}),
        ("twice without an id", 2, {}),
    ]:
        for _ in range(copies):
            send(scene, refusal(name), pika.BasicProperties(reply_to=results, **properties))
    redeliver(scene)
    send(scene, refusal("twice with an id"), pika.BasicProperties(reply_to=results, correlation_id="twice"))
    send(scene, refusal("twice without an id"), pika.BasicProperties(reply_to=results))
    good = scene.ask()

    one_pass(scene, good)

    assert outcome_of(scene.answer(good)) == "succeeded"
    told = [answer.error for answer in scene.requester.collect() if answer.error]
    count = {name: sum(f'"{name}"' in error for error in told) for name in ("one", "another body", "twice with an id")}
    assert count == {"one": 1, "another body": 1, "twice with an id": 1}
    assert sum('"twice without an id"' in error for error in told) == 3


def redeliver(scene: Scene) -> None:
    """Everything in the queue carries the redelivered flag now."""
    channel = scene.requester.connection.channel()
    while channel.basic_get(scene.requester.jobs)[0] is not None:
        pass
    channel.close()
    while scene.requester.waiting_jobs() == 0:
        time.sleep(0.05)


def test_no_header_and_no_property_stops_the_queue(scene: Scene) -> None:
    results = scene.requester.results
    deep_list, deep_table = b"V", b"V"
    for _ in range(5000):
        deep_list = b"A" + struct.pack(">I", len(deep_list)) + deep_list
        deep_table = b"F" + struct.pack(">I", len(deep_table) + 2) + b"\1h" + deep_table
    tables = {name: b"\1h" + field for name, field in FIELDS.items()}
    tables["5000 lists in one another"] = b"\1h" + deep_list
    tables["5000 tables in one another"] = b"\1h" + deep_table
    tables["all at once, under one name that is not UTF-8"] = b"".join(
        b"\xff" + b"\xff" * 255 + field for name, field in FIELDS.items() if "kB" not in name
    )
    for name, table in tables.items():
        send(scene, refusal(name), Wire(table, reply_to=results, correlation_id=name))
    hostile = b"\xff" * 255
    others: dict[str, dict[str, Any]] = {
        "year 292277026596": {"timestamp": 2**63 - 1},
        "latest time": {"timestamp": 2**64 - 1, "expiration": "60000"},
        "time 0": {"timestamp": 0, "expiration": "60000"},
        "longest expiration": {"expiration": "4294967295"},
        "highest priority": {"priority": 255},
        "not UTF-8": dict.fromkeys(
            ["content_type", "content_encoding", "message_id", "type", "app_id", "cluster_id"], hostile
        ),
    }
    for name, properties in others.items():
        send(scene, refusal(name), pika.BasicProperties(reply_to=results, correlation_id=name, **properties))
    good = scene.requester.publish(text(""), timestamp=2**63 - 1, expiration="600000", priority=255, message_id=hostile)

    one_pass(scene, good)

    for name in [*tables, *others]:
        (answer,) = scene.requester.to(name)
        assert outcome_of(answer) == "rejected", name
    assert outcome_of(scene.answer(good)) == "succeeded"


def test_what_the_broker_can_not_read_it_does_not_take(scene: Scene) -> None:
    for name, field in REFUSED_FIELDS.items():
        with connection_to(scene) as sender, pytest.raises(exceptions.ConnectionClosedByBroker):
            channel = sender.channel(2)
            channel.confirm_delivery()
            channel.basic_publish("", scene.requester.jobs, refusal(name), Wire(b"\1h" + field))
    for expiration in ("soon", "-1", "9" * 15):
        with connection_to(scene) as sender, pytest.raises(exceptions.ChannelClosedByBroker, match="expiration"):
            channel = sender.channel(2)
            channel.confirm_delivery()
            properties = pika.BasicProperties(expiration=expiration)
            channel.basic_publish("", scene.requester.jobs, refusal("x"), properties)
    good = scene.ask()

    one_pass(scene, good)

    assert outcome_of(scene.answer(good)) == "succeeded"
    assert len(scene.requester.collect()) == 1


def test_a_job_that_nobody_waits_for_any_longer_is_not_started(scene: Scene) -> None:
    now = int(time.time())
    scene.requester.publish(text(""), expiration="1")  # the broker itself throws it away
    late = scene.requester.publish(text('"late": 1'), timestamp=now - 600, expiration="300000")
    nearly = scene.requester.publish(text('"nearly": 1'), timestamp=now - 58, expiration="60000")
    good = scene.requester.publish(text(""), timestamp=now - 30, expiration="900000")
    time.sleep(0.1)

    one_pass(scene, good)

    (answer,) = scene.requester.to(late)
    assert (outcome_of(answer), answer.error) == ("expired", "The job's deadline passed before it could start.")
    assert outcome_of(scene.answer(good)) == "succeeded"
    assert outcome_of(scene.answer(nearly)) in ("succeeded", "expired", "cancelled")
    assert len(scene.requester.collect()) == 3


# --- its queue


QUEUES: dict[str, dict[str, Any]] = {
    "durable": {"durable": True},
    "quorum": {"durable": True, "arguments": {"x-queue-type": "quorum"}},
    "with TTL": {"arguments": {"x-message-ttl": 600_000}},
    "with max-length": {"arguments": {"x-max-length": 3, "x-overflow": "reject-publish"}},
    "with priorities": {"arguments": {"x-max-priority": 10}},
    "lazy, and deleted when unused": {"arguments": {"x-queue-mode": "lazy", "x-expires": 600_000}},
}


def test_a_queue_that_others_made_is_used_as_it_is(scene: Scene) -> None:
    channel, first = scene.requester.channel, scene.requester.jobs
    for number, options in enumerate(QUEUES.values()):
        channel.queue_declare(f"{first}-{number}", **options)
    add_queues(scene, *(f"{first}-{number}" for number in range(len(QUEUES))))
    asked, good = {}, []
    for number in range(len(QUEUES)):
        scene.requester.jobs = f"{first}-{number}"
        asked.update(publish_all(scene, [rejected("no job", b"no job", "is not valid JSON")]))
        good.append(scene.ask())

    scene.installation.check("--drain")

    assert_each_as_its_row_says(scene, asked)
    for correlation_id in good:
        assert outcome_of(scene.answer(correlation_id)) == "succeeded"
    for number, options in enumerate(QUEUES.values()):
        # Had somebody made it anew in another way, this would be refused.
        assert channel.queue_declare(f"{first}-{number}", **options).method.message_count == 0
        channel.queue_delete(f"{first}-{number}")


def add_queues(scene: Scene, *names: str) -> None:
    site = scene.installation.site_file
    more = "".join(
        f'[[queues]]\nname = "{name}"\nworkload = "probe"\n[queues.resources]\nmemory_mb = 200\n' for name in names
    )
    site.write_text(site.read_text() + more)


def test_a_stream_is_refused_with_a_sentence_and_the_queues_before_and_after_it_go_on(scene: Scene) -> None:
    before = scene.requester.jobs
    stream, after = f"{before}-stream", f"{before}-z"
    channel = scene.requester.channel
    channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    channel.queue_declare(after)
    channel.basic_publish("", stream, text(""))
    add_queues(scene, stream, after)
    good = [scene.ask()]
    scene.requester.jobs = after
    good.append(scene.ask())
    while channel.queue_declare(stream, passive=True).method.message_count == 0:  # a stream tells after seconds
        time.sleep(0.2)

    log = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    again = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    for each in (log, again):
        assert f"the queue {stream} is a stream, whose messages stay when they are read" in each
        assert "Traceback" not in each
    for correlation_id in good:
        assert outcome_of(scene.answer(correlation_id)) == "succeeded"
    assert channel.queue_declare(stream, passive=True).method.message_count == 1
    for name in (stream, after):
        channel.queue_delete(name)


@pytest.mark.fault(
    what="jobs queues can't be read: an exclusive one, settings that the broker refuses", moment="reading them"
)
def test_queues_that_can_not_be_read_are_named_and_the_one_after_them_goes_on(scene: Scene) -> None:
    last, channel = scene.requester.jobs, scene.requester.channel
    alone, bad = f"{last}-alone", f"{last}-bad"
    channel.queue_declare(alone, exclusive=True)
    site = scene.installation.site_file
    add_queues(scene, alone, bad)
    text_now = site.read_text().replace(f'name = "{bad}"', f'name = "{bad}"\narguments = {{ x-max-length = "many" }}')
    first, *others = text_now.split("[[queues]]")
    workloads = others[0].index("[workloads.")
    site.write_text("[[queues]]".join([first, *others[1:], others[0][:workloads]]) + "\n" + others[0][workloads:])
    good = scene.ask()

    said = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    looked = scene.installation.check("--dry-run", expect=os.EX_UNAVAILABLE)
    status = scene.installation.check("status")

    for name, why in ((alone, "belongs to another connection alone"), (bad, "be made as site.toml says")):
        (line,) = (line for line in said.splitlines() if f"queue={name}" in line and "the others go on" in line)
        assert why in line
    assert "Traceback" not in said
    assert alone in looked and f"the queue {alone} belongs to another connection" in " ".join(status.split())
    assert outcome_of(scene.answer(good)) == "succeeded"


def test_a_missing_queue_is_made_as_the_site_file_says(scene: Scene) -> None:
    channel, jobs = scene.requester.channel, scene.requester.jobs
    channel.queue_delete(jobs)
    scene.installation.change_site(
        'workload = "probe"\n\n[queues.resources]',
        'workload = "probe"\ndurable = true\narguments = { x-max-length = 7 }\n\n[queues.resources]',
    )

    log = scene.installation.check("--drain")
    channel.queue_declare(jobs, durable=True, arguments={"x-max-length": 7})
    asked = publish_all(scene, [rejected("no job", b"no job", "is not valid JSON")])
    good = scene.ask()
    one_pass(scene, good)

    assert "queue missing, making it" in log
    assert_each_as_its_row_says(scene, asked)
    assert outcome_of(scene.answer(good)) == "succeeded"


@pytest.mark.parametrize("words", ["", "durable = false\n", "make = false\n", "make = true\ndurable = true\n"])
def test_a_service_that_declared_its_queues_before_us_is_served(scene: Scene, words: str) -> None:
    """By name only, as the platform does; and it declares them again with each request."""
    scene.installation.change_site('workload = "probe"\n', f'workload = "probe"\n{words}')

    scene.installation.check("--drain")
    scene.requester.channel.queue_declare(scene.requester.jobs, durable=False, exclusive=False, auto_delete=False)

    assert outcome_of(scene.answer(scene.ask())) == "succeeded"


@pytest.mark.parametrize(("words", "code"), [("", 0), ("durable = false\n", 0), ("make = false\n", os.EX_UNAVAILABLE)])
def test_a_service_that_declares_its_queue_after_us_is_served(scene: Scene, words: str, code: int) -> None:
    scene.installation.change_site('workload = "probe"\n', f'workload = "probe"\n{words}')
    scene.requester.channel.queue_delete(scene.requester.jobs)

    said = scene.installation.check("--drain", expect=code)
    scene.requester.channel.queue_declare(scene.requester.jobs, durable=False, exclusive=False, auto_delete=False)

    assert ("not durable" in said and "make = false" in said) == (words == "")
    assert ("and the service makes it (make = false)" in said) == (code != 0)
    assert outcome_of(scene.answer(scene.ask())) == "succeeded"


def test_a_queue_of_which_nobody_says_how_to_make_it_holds_up_no_other(scene: Scene) -> None:
    unsaid = f"{scene.requester.jobs}-unsaid"
    scene.installation.change_site(
        "[[queues]]", f'[[queues]]\nname = {json.dumps(unsaid)}\nworkload = "probe"\nmake = true\n[[queues]]'
    )
    good = scene.ask()

    said = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)

    assert "site.toml does not say how to make it. Write durable = true under its name there" in said
    assert outcome_of(scene.answer(good)) == "succeeded"
    scene.requester.channel.queue_declare(unsaid, durable=True)  # nobody has made it
    scene.requester.channel.queue_delete(unsaid)


def test_a_queue_that_is_deleted_in_the_middle_of_a_pass_is_told_and_made_again(scene: Scene) -> None:
    scene.ask()
    scene.upstream.script("/api/auth/token/", Response(delay=2))
    deleter = threading.Thread(target=delete_after_login, args=(scene,))

    deleter.start()
    log = scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    deleter.join()
    made = scene.installation.check("--drain")
    good = scene.ask()
    one_pass(scene, good)

    assert "no queue" in log and "Traceback" not in log
    assert "queue missing, making it" in made
    assert outcome_of(scene.answer(good)) == "succeeded"


def delete_after_login(scene: Scene) -> None:
    """check.py has seen that a message waits, and has not taken it yet: it logs in first."""
    while not scene.upstream.paths("POST"):
        time.sleep(0.02)
    with connection_to(scene) as connection:
        connection.channel(2).queue_delete(scene.requester.jobs)
