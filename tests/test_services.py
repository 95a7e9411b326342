"""The services are what they claim: a job really runs, memory is really limited, a broker really keeps a message."""

from __future__ import annotations

import secrets
import ssl
import time

import pika
import pytest
import requests
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from tests.services.broker import Broker
from tests.services.certificates import Certificates
from tests.services.daemon import poll
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer, Upstream


def submit(slurm: SlurmCluster, command: str, *options: str) -> str:
    return slurm.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={command}").strip()


def ended(slurm: SlurmCluster, job: str, seconds: float = 300) -> str:
    """The job's state and exit code, as sacct tells them once it knows the end."""

    def answer() -> str:
        return slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode,End").strip()

    poll(lambda: answer() != "" and not answer().endswith("Unknown"), seconds)
    return answer().rpartition("|")[0]


def test_an_empty_job_completes(slurm: SlurmCluster) -> None:
    assert ended(slurm, submit(slurm, "true")) == "COMPLETED|0:0"


def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(slurm: SlurmCluster) -> None:
    job = submit(slurm, "head -c 400000000 /dev/zero | tail", "--mem=100")

    assert ended(slurm, job) == "OUT_OF_MEMORY|0:125"


@pytest.mark.parametrize("gpus", ["gpu:1", "gpu:v100l:1", "gpu:p100l:4"])
def test_requests_for_gpus_are_met(slurm: SlurmCluster, gpus: str) -> None:
    assert ended(slurm, submit(slurm, "true", f"--gres={gpus}", "--mem=257000")) == "COMPLETED|0:0"


@pytest.mark.long(seconds=30)
def test_a_job_ends_with_its_node(private_slurm: SlurmCluster) -> None:
    job = submit(private_slurm, "sleep 100", "--partition=doomed", "--no-requeue")
    poll(lambda: private_slurm.run("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING", 60)

    private_slurm.kill_node("n3")

    assert ended(private_slurm, job, seconds=60).startswith("NODE_FAIL")


def test_a_node_is_lost_at_once_on_demand_and_comes_back(private_slurm: SlurmCluster) -> None:
    job = submit(private_slurm, "sleep 100", "--partition=doomed", "--no-requeue")
    poll(lambda: private_slurm.run("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING", 60)

    private_slurm.kill_node("n3")
    private_slurm.declare_lost("n3")
    assert ended(private_slurm, job).startswith("NODE_FAIL")

    private_slurm.start_node("n3")
    assert ended(private_slurm, submit(private_slurm, "true", "--partition=doomed")) == "COMPLETED|0:0"


def test_two_clusters_run_side_by_side(slurm: SlurmCluster, private_slurm: SlurmCluster) -> None:
    jobs = {cluster: submit(cluster, "sleep 1") for cluster in (slurm, private_slurm)}

    assert {ended(cluster, job) for cluster, job in jobs.items()} == {"COMPLETED|0:0"}


def test_a_message_comes_back(rabbitmq: Broker) -> None:
    queue = secrets.token_hex(4)
    with connection(rabbitmq) as client:
        channel = client.channel()
        channel.queue_declare(queue, auto_delete=True)
        channel.basic_publish("", queue, b"hello")

        assert channel.basic_get(queue, auto_ack=True)[2] == b"hello"
        channel.queue_delete(queue)


def test_a_confirmed_message_outlives_a_crash_of_the_broker(private_rabbitmq: RabbitMQ) -> None:
    with connection(private_rabbitmq) as client:
        channel = client.channel()
        channel.confirm_delivery()
        channel.queue_declare("jobs", durable=True)
        channel.basic_publish("", "jobs", b"hello", pika.BasicProperties(delivery_mode=2))
    time.sleep(3)  # a confirm is about the message; that its queue was made is written behind, within seconds

    private_rabbitmq.kill()
    private_rabbitmq.start()

    with connection(private_rabbitmq) as client:
        assert client.channel().basic_get("jobs")[2] == b"hello"


def test_a_frozen_broker_says_nothing_until_it_is_thawed(private_rabbitmq: RabbitMQ) -> None:
    private_rabbitmq.pause()
    with pytest.raises(AMQPConnectorException):
        connection(private_rabbitmq, stack_timeout=1)

    private_rabbitmq.resume()

    connection(private_rabbitmq).close()


def connection(broker: Broker, stack_timeout: float = 10) -> pika.BlockingConnection:
    login = pika.PlainCredentials(broker.user, broker.password)
    where = pika.ConnectionParameters(broker.host, broker.port, broker.vhost, login, stack_timeout=stack_timeout)
    return pika.BlockingConnection(where)


def test_a_broker_speaks_tls(private_rabbitmq: RabbitMQ, certificates: Certificates) -> None:
    login = pika.PlainCredentials(private_rabbitmq.user, private_rabbitmq.password)
    tls = pika.SSLOptions(ssl.create_default_context(cafile=str(certificates.ca)), "localhost")
    assert private_rabbitmq.tls_port

    with pika.BlockingConnection(
        pika.ConnectionParameters("localhost", private_rabbitmq.tls_port, credentials=login, ssl_options=tls)
    ) as client:
        assert client.is_open


def test_who_logged_in_may_download(upstream: Upstream) -> None:
    url = upstream.add("/uploads/page.png", b"a page")

    with requests.Session() as client:
        assert client.get(url).status_code == 401
        log_in(client, upstream)
        assert client.get(url).content == b"a page"
        upstream.expire_tokens()
        assert client.get(url).status_code == 401
    assert upstream.paths("POST") == ["/api/auth/token/"]


def test_the_service_speaks_tls(upstream_tls: Upstream, certificates: Certificates) -> None:
    url = upstream_tls.add("/uploads/page.png", b"a page")

    with requests.Session() as client:
        # Without this, REQUESTS_CA_BUNDLE in the environment wins over `verify`.
        client.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            client.get(url)
        client.verify = str(certificates.ca)
        log_in(client, upstream_tls)
        assert client.get(url).content == b"a page"


@pytest.mark.parametrize("status", [401, 403, 500])
def test_logins_are_refused_on_demand(upstream: Upstream, status: int) -> None:
    upstream.refuse_logins = status

    assert log_in(requests.Session(), upstream) == status


def test_answers_are_bad_on_demand_and_then_good_again(upstream: Upstream) -> None:
    url = upstream.add("/file", b"content")
    upstream.script("/file", Answer(429, {"Retry-After": "2"}), Answer(cut=3), Answer(hang_up=True), Answer(length=3))

    with requests.Session() as client:
        log_in(client, upstream)
        assert client.get(url).headers["Retry-After"] == "2"
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            client.get(url)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.get(url)
        assert client.get(url).content == b"con"
        assert client.get(url).content == b"content"


def log_in(client: requests.Session, upstream: Upstream) -> int:
    """The status; on success the client shows its token from now on."""
    answer = client.post(
        upstream.url + "/api/auth/token/", data={"username": upstream.user, "password": upstream.password}
    )
    client.headers["Authorization"] = f"Token {answer.json().get('token')}"
    return answer.status_code
