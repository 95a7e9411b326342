"""The upstream API refuses, lies, drips or is away: jobs wait where they are, and each gets one true answer."""

from __future__ import annotations

import gzip
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.faults.passes import Operator, altered, job_of, runs, wait_until
from tests.requester import Answer, Requester
from tests.scene import IMAGE, Scene, make_scene
from tests.services.broker import Broker
from tests.services.daemon import free_ports
from tests.services.http_proxy import HttpProxy
from tests.services.proxy import CLIENT, Proxy
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer as Response
from tests.services.upstream import Upstream
from tests.workloads.probe import output

LOGIN = "/api/auth/token/"
API_AWAY = "site away, jobs wait and no message is taken kind=api"
LOGIN_REFUSED = "site away, jobs wait and no message is taken kind=login"
CONTENT = b"a page of music"


@dataclass
class Service:
    """The API as one installation finds it: the sample service behind a proxy, and beside it an address elsewhere."""

    scene: Scene
    upstream: Upstream
    proxy: Proxy
    elsewhere: str

    def answer_logins(self, *answers: Response) -> None:
        """One for each pass. A pass that tried twice would find the service well."""
        self.upstream.script(LOGIN, *answers)

    def move_to(self, url: str) -> None:
        """As far as the installation knows."""
        credentials = self.scene.installation.credentials_file.read_text().splitlines()
        lines = [line for line in credentials if "RODAN_HOST" not in line]
        self.scene.installation.write_credentials("\n".join([*lines, f"export RODAN_HOST={url}", ""]))

    def mend(self) -> None:
        self.proxy.mend()
        self.move_to(f"http://{self.proxy.host}:{self.proxy.port}")


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """A port that nobody may come to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        yield listener


def heard(canary: socket.socket) -> bool:
    try:
        canary.accept()[0].close()
        return True
    except socket.timeout:
        return False


@pytest.fixture
def broker_proxy(rabbitmq: Broker) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture
def service(
    rabbitmq: Broker,
    broker_proxy: Proxy,
    slurm: SlurmCluster,
    upstream: Upstream,
    odd_folder: Path,
    canary: socket.socket,
) -> Iterator[Service]:
    scene = make_scene(odd_folder, rabbitmq, slurm, upstream, rabbitmq_port=broker_proxy.port)
    upstream.add(IMAGE, CONTENT)
    scene.installation.change_site("[replies]", '[api]\nconnect_timeout = "2s"\nread_timeout = "2s"\n[replies]')
    with Proxy(upstream.port) as proxy:
        made = Service(scene, upstream, proxy, f"http://127.0.0.1:{canary.getsockname()[1]}/")
        made.mend()
        yield made
    scene.requester.close()


@pytest.fixture
def record(odd_folder: Path) -> Path:
    return odd_folder / "record"


def succeeds_once(operator: Operator, correlation_id: str) -> Answer:
    answer = operator.answer(correlation_id)
    assert (answer.headers["outcome"], answer.headers["attempt"], answer.error) == ("succeeded", 1, None)
    return answer


# --- the login, while messages wait


@dataclass(frozen=True)
class LoginFault:
    what: str
    begins: Callable[[Service], object]
    words: str
    """What the operator sees of it."""
    code: int = os.EX_UNAVAILABLE
    moment: str = "while messages wait"
    passes: int = 2


def each_pass(**answer: Any) -> Callable[[Service], None]:
    return lambda service: service.answer_logins(Response(**answer), Response(**answer))


def status_codes(service: Service) -> None:
    service.answer_logins(*(Response(status) for status in (404, 408, 500, 503)))


def redirected_elsewhere(service: Service) -> None:
    to = {"Location": service.elsewhere}
    service.answer_logins(Response(302, to), Response(307, to))


LOGIN_FAULTS = [
    LoginFault("login: 404, 408, 500, 503", status_codes, "login at the API: HTTP ", passes=4),
    LoginFault(
        "login: 429 with Retry-After", each_pass(status=429, headers={"Retry-After": "1"}), "login at the API: HTTP 429"
    ),
    LoginFault(
        "login: a page of maintenance instead of a token",
        each_pass(status=200, body=b"<html>Back soon</html>"),
        "login at the API: the answer holds no token",
    ),
    LoginFault("login: silent", each_pass(delay=60), "gave no answer for 2 s"),
    LoginFault("login: half a body", each_pass(cut=10), "cut its answer off"),
    LoginFault("login: Content-Length too large", each_pass(length=999), "cut its answer off"),
    LoginFault("login: Content-Length too small", each_pass(length=9), "the answer holds no token"),
    LoginFault("login: the body never ends", each_pass(endless=True), "login at the API: the answer has no end"),
    LoginFault("login: hangs up", each_pass(hang_up=True), "hung up without an answer"),
    LoginFault(
        "login: redirect to the same host",
        each_pass(status=302, headers={"Location": LOGIN}),
        "login at the API: HTTP 302",
    ),
    LoginFault("login: redirect to another host", redirected_elsewhere, "login at the API: HTTP 30"),
    LoginFault(
        "API: connection refused",
        lambda service: service.move_to(f"http://127.0.0.1:{free_ports(1)[0]}"),
        "can't be reached (connection refused)",
    ),
    LoginFault(
        "API: name unknown to DNS",
        lambda service: service.move_to("http://nowhere.invalid"),
        "nowhere.invalid:80 can't be reached (its name can't be found",
    ),
    LoginFault("API: connection reset", lambda s: s.proxy.refuse(), "hung up without an answer"),
    LoginFault("API: black hole", lambda s: s.proxy.black_hole(), "gave no answer for 2 s"),
]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, id=each.what, marks=pytest.mark.fault(what=each.what, moment=each.moment))
        for each in LOGIN_FAULTS
    ],
)
def test_while_nobody_can_log_in_messages_stay_in_their_queue(
    service: Service, record: Path, canary: socket.socket, fault: LoginFault
) -> None:
    operator = Operator(service.scene)
    correlation_id = service.scene.ask(record=str(record))

    fault.begins(service)
    passes = [operator.one_pass() for _ in range(fault.passes)]
    tries, waiting = len(service.upstream.paths("POST")), service.scene.requester.waiting_jobs()
    service.mend()

    for each in passes:
        assert each.code == fault.code and API_AWAY in each.log and fault.words in each.log, each.log
        assert "Traceback" not in each.log and service.upstream.password not in each.log
    assert tries <= fault.passes and waiting == 1 and not service.scene.installation.active()
    succeeds_once(operator, correlation_id)
    assert runs(record) == 1 and not heard(canary)


@pytest.mark.fault(what="login: drips for ever", moment="while messages wait")
def test_a_login_that_drips_for_ever_is_given_up_and_named(service: Service, record: Path) -> None:
    operator = Operator(service.scene)
    correlation_id = service.scene.ask(record=str(record))

    service.proxy.drip(1, 0.2)
    ended = operator.one_pass()
    waiting = service.scene.requester.waiting_jobs()
    service.mend()

    assert ended.code == os.EX_UNAVAILABLE and API_AWAY in ended.log
    assert "gave no whole answer within 6 s" in ended.log or "gave no answer for 2 s" in ended.log
    assert waiting == 1 and not service.scene.installation.active()
    succeeds_once(operator, correlation_id)
    assert runs(record) == 1


# --- the login, while claimed jobs wait


@dataclass(frozen=True)
class Outage:
    what: str
    begins: Callable[[Service], object]
    kind: str
    code: int
    reason: str
    """What the requester reads when patience is over."""


def refuse_logins(service: Service) -> None:
    service.upstream.refuse_logins = 403


OUTAGES = [
    Outage(
        "API: connection reset for the whole outage",
        lambda service: service.proxy.refuse(),
        API_AWAY,
        os.EX_UNAVAILABLE,
        "because the service's own web address could not be reached from the cluster. Run it again later.",
    ),
    Outage(
        "login: 403 for the whole outage",
        refuse_logins,
        LOGIN_REFUSED,
        os.EX_NOPERM,
        "because the service's account was refused. Run it again later.",
    ),
]


def outages(moment: str) -> list[Any]:
    return [
        pytest.param(each, id=each.what, marks=pytest.mark.fault(what=each.what, moment=moment)) for each in OUTAGES
    ]


def claim_only(service: Service, broker_proxy: Proxy, operator: Operator, number: int) -> None:
    """A pass that loses its broker at the ack of the `number` messages that wait: it has claimed them, and submitted none."""
    halt = broker_proxy.halt_at(CLIENT, "basic.ack")
    running = operator.start()
    halt.wait()
    broker_proxy.reset()
    halt.go_on()
    printed, _ = running.communicate(timeout=300)
    operator.note(running.returncode, printed)
    assert len(service.scene.installation.active()) == number, printed


def serve_a_second_queue(scene: Scene) -> Requester:
    """Of the same service: its answers come where those of the first come."""
    name = f"{scene.requester.jobs}-2"
    site = scene.installation.site_file
    queue = f'[[queues]]\nname = "{name}"\nworkload = "probe"\n[queues.resources]\nmemory_mb = 200\n'
    site.write_text(site.read_text() + queue)
    scene.requester.channel.queue_declare(name)
    return scene.requester


@pytest.mark.long(seconds=30)
@pytest.mark.parametrize("outage", outages("while claimed jobs and messages wait"))
def test_after_an_outage_all_are_answered_in_the_order_of_their_queues(
    service: Service, broker_proxy: Proxy, record: Path, outage: Outage
) -> None:
    scene, operator = service.scene, Operator(service.scene)
    requester = serve_a_second_queue(scene)
    first = [scene.ask(record=str(record), number=number) for number in range(4)]
    claim_only(service, broker_proxy, operator, 4)
    first.append(scene.ask(record=str(record), number=4))
    requester.jobs = f"{requester.jobs}-2"
    second = [scene.ask(record=str(record), number=number) for number in range(3)]
    logins = len(service.upstream.paths("POST"))

    outage.begins(service)
    connections = service.proxy.connections
    passes = [operator.one_pass() for _ in range(3)]
    tries = service.proxy.connections - connections
    claimed, waiting = len(scene.installation.active()), requester.waiting_jobs()
    service.mend()
    service.upstream.refuse_logins = None
    logins_after = len(service.upstream.paths("POST"))
    passes.append(operator.one_pass())

    for each in passes[:3]:
        assert each.code == outage.code and outage.kind in each.log and "waiting=4" in each.log, each.log
    assert (claimed, waiting) == (4, 3)
    assert tries == 3 and logins == 1  # no stampede: one login for each pass
    assert passes[3].code == os.EX_OK and len(service.upstream.paths("POST")) == logins_after + 1
    answers = operator.answers([*first, *second])
    assert {answer.headers["outcome"] for answer in answers.values()} == {"succeeded"} and runs(record) == 8
    for queue in (first, second):
        slurm_ids = [[int(part) for part in answers[one].headers["slurm_job_id"].split("_")] for one in queue]
        assert slurm_ids == sorted(slurm_ids)


@pytest.mark.parametrize("outage", outages("for longer than patience"))
def test_a_claimed_job_that_waits_for_longer_than_patience_is_told_why(
    service: Service, broker_proxy: Proxy, record: Path, outage: Outage
) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[timing]", '[timing]\npatience = "2s"\nlogin_patience = "2s"')
    given_up = scene.ask(record=str(record))
    claim_only(service, broker_proxy, operator, 1)
    waits = scene.ask(record=str(record))

    outage.begins(service)
    wait_until(lambda: bool(operator.one_pass() and scene.requester.to(given_up)))
    waiting = scene.requester.waiting_jobs()
    service.mend()
    service.upstream.refuse_logins = None

    assert outage.kind in operator.log and waiting == 2  # the ack of the first was lost, so it comes again
    succeeds_once(operator, waits)
    (answer,) = scene.requester.to(given_up)
    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
    assert answer.error is not None and answer.error.startswith("The job could not be started for ")
    assert answer.error.endswith(outage.reason)
    assert "claimed before, acked again" in operator.log and runs(record) == 1


# --- downloads, in a job


FETCHING = "while a job fetches its input"
UNREACHED = 'The input "Image" could not be downloaded within 2 s ('


@dataclass(frozen=True)
class FetchFault:
    what: str
    answers: tuple[Response, ...] = ()
    error: Optional[str] = None
    gets: Optional[int] = None
    logins: int = 1
    site: str = ""
    """More of [api] in the site file."""
    log: str = "download failed, trying again why="


FETCH_FAULTS = [
    FetchFault("download: 401 once", (Response(401),), gets=2, logins=2, log="token refused, logging in once more"),
    FetchFault(
        "download: 403 for ever", (Response(403),) * 9, 'The input "Image" may not be read by this service.', 2, 2,
        log="token refused, logging in once more",
    ),
    FetchFault("download: 404", (Response(404),), 'The input "Image" does not exist.', 1, log="step failed"),
    FetchFault("download: 500 once", (Response(500),), gets=2),
    FetchFault("download: 500 for ever", (Response(500),) * 99, f"{UNREACHED}HTTP 500)."),
    FetchFault("download: half a body", (Response(cut=7),), gets=2),
    FetchFault("download: Content-Length too large", (Response(length=99),), gets=2),
    FetchFault("download: silent", (Response(delay=60),), gets=2),
    FetchFault("download: hangs up", (Response(hang_up=True),), gets=2),
    FetchFault(
        "download: never ends, length not said", (Response(endless=True),) * 99,
        f"{UNREACHED}the answer does not say how long it is).",
    ),
    FetchFault(
        "download: never ends, up to the limit of bytes", (Response(endless=True),),
        'The input "Image" is larger than what one job may bring.', 1, site="unknown_length = true", log="step failed",
    ),
    FetchFault("download: 202, not ready yet", (Response(202, {"Retry-After": "1"}),), gets=2),
    FetchFault(
        "download: half of gzip, whole as its length says",
        (Response(200, {"Content-Encoding": "gzip"}, gzip.compress(CONTENT)[:20]),), gets=2,
    ),
    FetchFault(
        "download: a coding that nobody asked for", (Response(200, {"Content-Encoding": "br"}, CONTENT),),
        'The input "Image" came packed in a way ("br") that nobody asked for and that can\'t be undone here.', 1,
        log="step failed",
    ),
    FetchFault(
        "download: a login page behind a redirect", (Response(302, {"Location": "/login"}),) * 2,
        'Instead of the input "Image" came a web page, most likely one that asks for a login.', 4, 2, log="step failed",
    ),
    FetchFault(
        "download: redirect to the same host", (Response(302, {"Location": IMAGE}),), gets=2, log="fetched input="
    ),
    FetchFault(
        "download: redirect in a circle", (Response(302, {"Location": IMAGE}),) * 99,
        'The input "Image" was redirected more than 5 times.', 5, log="step failed",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, id=each.what, marks=pytest.mark.fault(what=each.what, moment=FETCHING))
        for each in FETCH_FAULTS
    ],
)
def test_a_download_that_fails_is_tried_again_or_told_in_words(
    service: Service, record: Path, fault: FetchFault
) -> None:
    scene, operator = service.scene, Operator(service.scene)
    patience = "2s" if fault.error else "60s"
    scene.installation.change_site(
        "[api]", f'[limits]\ninput_bytes = 100000\n[api]\nfetch_patience = "{patience}"\n{fault.site}'
    )
    service.upstream.script(IMAGE, *fault.answers)
    service.upstream.script("/login", *[Response(200, {"Content-Type": "text/html"}, b"<html>")] * 2)
    correlation_id = scene.ask(record=str(record))

    answer = operator.answer(correlation_id)

    assert (answer.error, answer.headers["outcome"]) == (fault.error, "failed" if fault.error else "succeeded")
    assert answer.headers["attempt"] == 1 and answer.headers["slurm_job_id"]
    assert runs(record) == (0 if fault.error else 1)
    assert fault.error or answer.output("Result") == output("Result", {"Image": CONTENT}, {"record": str(record)})
    assert fault.log in job_of(scene, correlation_id).attempt(1).log.read_text()
    assert fault.gets in (None, len(service.upstream.paths("GET")))
    assert len(service.upstream.paths("POST")) == fault.logins


@pytest.mark.fault(what="download: redirect to another host", moment=FETCHING)
def test_a_download_that_leads_elsewhere_is_refused_before_any_connection(
    service: Service, record: Path, canary: socket.socket
) -> None:
    operator = Operator(service.scene)
    service.upstream.script(IMAGE, Response(302, {"Location": service.elsewhere}))
    correlation_id = service.scene.ask(record=str(record))

    answer = operator.answer(correlation_id)

    assert answer.error == 'The input "Image" was redirected to an address that is not allowed here.'
    assert answer.headers["outcome"] == "failed" and runs(record) == 0 and not heard(canary)


@pytest.mark.fault(what="download: 429 with Retry-After", moment=FETCHING)
def test_a_service_that_asks_for_time_gets_it(service: Service, record: Path) -> None:
    operator = Operator(service.scene)
    service.upstream.script(IMAGE, Response(429, {"Retry-After": "4"}))  # our own first wait is 2 s at the most
    correlation_id = service.scene.ask(record=str(record))

    succeeds_once(operator, correlation_id)

    first, second = [request.time for request in service.upstream.requests if request.method == "GET"]
    assert second - first >= 4 and runs(record) == 1


@pytest.mark.fault(what="API: connection refused, then back", moment=FETCHING)
@pytest.mark.fault(what="API: black hole, then back", moment=FETCHING)
def test_a_job_outwaits_an_api_that_is_away(service: Service, record: Path) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+3"]\n[timing]')
    correlation_id, _ = scene.submit(record=str(record))
    (job,) = scene.installation.active()
    log = job.attempt(1).log

    service.proxy.refuse()
    wait_until(lambda: log.exists() and "hung up without an answer" in log.read_text())
    service.proxy.black_hole()
    wait_until(lambda: "gave no answer for" in log.read_text())
    service.mend()

    succeeds_once(operator, correlation_id)
    assert runs(record) == 1


@pytest.mark.fault(what="API: answers drip", moment=FETCHING)
def test_a_slow_download_is_no_failure(service: Service, record: Path) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[api]", "[api]\nleast_rate = 0")
    scene.upstream.add(IMAGE, CONTENT * 40)
    correlation_id = scene.ask(record=str(record))

    service.proxy.drip(30, 0.2)  # in all longer than read_timeout, with no silence as long

    succeeds_once(operator, correlation_id)
    assert runs(record) == 1 and service.upstream.paths("GET") == [IMAGE]


@pytest.mark.fault(what="API: answers drip more slowly than least_rate", moment=FETCHING)
def test_a_download_that_is_too_slow_is_begun_anew_and_named(service: Service, record: Path) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[api]", '[api]\nleast_rate = 100000\nfetch_patience = "2s"')
    scene.upstream.add(IMAGE, CONTENT * 10_000)
    correlation_id, _ = scene.submit(record=str(record))

    service.proxy.drip(50, 0.2)
    wait_until(lambda: bool(operator.one_pass() and scene.requester.to(correlation_id)))
    service.mend()

    (answer,) = scene.requester.to(correlation_id)
    assert answer.error is not None and re.match(
        re.escape(UNREACHED) + r"the API at [0-9.]+:\d+ sent only ", answer.error
    )
    assert answer.headers["outcome"] == "failed" and runs(record) == 0


@pytest.mark.fault(what="an input's host is unknown to DNS", moment=FETCHING)
def test_a_host_that_nobody_knows_is_told(service: Service, record: Path) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[api]", '[api]\ninput_hosts = ["nowhere.invalid"]\nfetch_patience = "2s"')
    correlation_id = scene.requester.ask({"Image": "https://nowhere.invalid/page"}, {"record": str(record)})

    answer = operator.answer(correlation_id)

    assert answer.error is not None and answer.error.startswith(
        f"{UNREACHED}the host at nowhere.invalid:443 can't be reached ("
    )
    assert "its name can't be found" in answer.error and answer.headers["outcome"] == "failed" and runs(record) == 0


# --- a proxy between the site and the API


@pytest.mark.fault(what="the API is behind an HTTP proxy", moment="for a pass and for a job")
@pytest.mark.fault(what="the HTTP proxy refuses us, then lets us through", moment="while messages wait")
def test_behind_a_proxy_a_pass_and_a_job_go_through_it_and_neither_tells_a_secret(
    service: Service, record: Path
) -> None:
    scene, operator = service.scene, Operator(service.scene)
    name, password = "service.example.org", "proxy-canary"  # a name that only the proxy knows
    with HttpProxy({name: service.upstream.port}, "site", password) as proxy:
        service.move_to(f"http://{name}")
        written = scene.installation.credentials_file.read_text()
        scene.installation.write_credentials(f"{written}PROXY_USER=site\nPROXY_PASSWORD={password}\n")
        scene.installation.change_site("[api]", f'[api]\nproxy = "{proxy.url}"')
        correlation_id = scene.ask(record=str(record))

        proxy.refuse = 407
        refused = operator.one_pass()
        proxy.refuse = None
        succeeds_once(operator, correlation_id)

    assert refused.code == os.EX_UNAVAILABLE and "HTTP 407, a proxy asks for a user and a password" in refused.log
    assert f"POST http://{name}{LOGIN} 200" in proxy.log and f"GET http://{name}{IMAGE} 200" in proxy.log
    log = job_of(scene, correlation_id).attempt(1).log.read_text()
    for secret in (password, service.upstream.password, *service.upstream.tokens):
        assert secret not in operator.log + log + "\n".join(proxy.log)


# --- the login, in a job


SIX = ("Image", "Background", "Music Layer", "Staff Layer", "Text", "Selected Regions")


@dataclass(frozen=True)
class LoginInJob:
    what: str
    logins: tuple[Response, ...]
    error: Optional[str] = None


LOGINS_IN_JOB = [
    LoginInJob("token expires, and the login works", ()),
    LoginInJob("token expires, and the login fails at first", (Response(500), Response(hang_up=True))),
    LoginInJob(
        "token expires, and the login is refused",
        (Response(401),),
        "The inputs could not be downloaded: the service's account was refused.",
    ),
]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, id=each.what, marks=pytest.mark.fault(what=each.what, moment="at the third of six inputs"))
        for each in LOGINS_IN_JOB
    ],
)
def test_a_token_that_expires_in_the_middle_is_renewed_once(service: Service, record: Path, fault: LoginInJob) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[api]", "[api]\nfetch_at_once = 1")  # one after the other
    inputs = {name: f"/uploads/{number}" for number, name in enumerate(SIX)}
    for path in inputs.values():
        service.upstream.add(path, CONTENT)
    service.upstream.script("/uploads/2", *[Response(401)] * (1 + len(fault.logins)))
    service.upstream.script(LOGIN, Response(), *fault.logins)  # the first is the login side's
    correlation_id = scene.requester.ask(inputs, {"record": str(record)})

    answer = operator.answer(correlation_id)

    assert (answer.error, answer.headers["outcome"]) == (fault.error, "failed" if fault.error else "succeeded")
    assert "token refused, logging in once more" in job_of(scene, correlation_id).attempt(1).log.read_text()
    assert runs(record) == (0 if fault.error else 1)
    gets = service.upstream.paths("GET")
    assert [gets.count(path) for path in ("/uploads/0", "/uploads/1", "/uploads/5")] == [1, 1, 0 if fault.error else 1]


@pytest.mark.long(seconds=60)
@pytest.mark.fault(what="API: answers drip for longer than the job's time", moment=FETCHING)
def test_a_download_that_never_comes_to_its_end_ends_with_the_time_limit(service: Service, record: Path) -> None:
    scene, operator = service.scene, Operator(service.scene)
    scene.installation.change_site("[api]", "[api]\nleast_rate = 0")
    scene.upstream.add(IMAGE, CONTENT * 10_000)
    limit = {"Maximum time (D-HH:MM)": "0-00:01"}
    correlation_id, _ = scene.submit(record=str(record), **limit)

    service.proxy.drip(50, 0.2)  # within read_timeout; several minutes in all
    answer = operator.answer(correlation_id, 150)

    assert (answer.headers["outcome"], answer.headers["attempt"], runs(record)) == ("timed_out", 1, 0)
    assert answer.error is not None
    assert answer.error.startswith(
        "The job reached its time limit of 1 min while its inputs were still being downloaded"
    )


@pytest.mark.fault(what="login: 429 with Retry-After", moment="in each pass before that time is over")
def test_an_api_that_asks_for_time_is_left_alone_for_it(service: Service, record: Path) -> None:
    service.upstream.script(LOGIN, Response(429, {"Retry-After": "1800"}))
    correlation_id = service.scene.ask(record=str(record))

    operator = Operator(service.scene)
    passes = [operator.one_pass() for _ in range(3)]
    left_alone = len(service.upstream.paths("POST"))
    # The clock is turned on: however long three passes take on a busy machine, half an hour is longer.
    later = Operator(service.scene, altered(shift=1800 + 60))
    succeeds_once(later, correlation_id)

    assert [each.code for each in passes] == [os.EX_UNAVAILABLE] * 3
    assert all("asked to be left alone" in each.log for each in passes[1:])
    assert left_alone == 1 and runs(record) == 1
