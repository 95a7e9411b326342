"""Planted misconfigurations, one by one, on real RabbitMQ and real Slurm: the doctor names each in a line that says what to
do, and finds nothing else.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.examined import Examined, Line, connect, faults, one
from tests.faults.passes import altered
from tests.installation import ROOT
from tests.scene import IMAGE, Scene
from tests.services.certificates import Certificates
from tests.services.http_proxy import HttpProxy
from tests.services.rabbitmq import RabbitMQ
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Answer, Upstream
from worker.doctor.schedule import _units
from worker.doctor.subject import Subject


def change_credentials(examined: Examined, name: str, value: str) -> None:
    text = examined.files.credentials_file.read_text()
    changed, times = re.subn(rf"(?m)^export {name}=.*$", f"export {name}={value}", text)
    examined.files.write_credentials(changed if times else f"{text}{name}={value}\n")


def slurm_says(examined: Examined, line: str) -> None:
    examined.files.change_site("[timing]", f"[slurm]\n{line}\n[timing]")


def is_the_only_fault(lines: list[Line], group: str, check: str, found: str, mend: str) -> None:
    assert faults(lines) == [(group, check)], [(line.check, line.words) for line in lines if line.mark == "fault"]
    line = one(lines, group, check)
    assert found in line.found and mend in line.mend, line


# --- workloads


def test_a_workload_whose_script_is_missing_and_a_queue_whose_workload_is_gone_are_named(examined: Examined) -> None:
    examined.files.change_site("{root}/tests/workloads/probe.py", "{root}/tests/workloads/no such.py")
    examined.files.change_site('workload = "probe"\n', 'workload = "paint"\n')

    lines = examined.doctor()

    assert faults(lines) == [("workloads", "workload probe"), ("workloads", "workload paint")]
    assert f"there is no {ROOT}/tests/workloads/no such.py" in one(lines, "workloads", "workload probe").found
    assert examined.files.queue in one(lines, "workloads", "workload paint").found


# --- all is well


def test_a_sound_installation_has_nothing_to_mend(examined: Examined) -> None:
    lines = examined.doctor("--input", IMAGE, expect=0)

    assert faults(lines) == []
    # The tests' disks and nodes are this machine's own.
    assert {line.check for line in lines if line.mark == "warning"} <= {
        "file system",
        "room",
        f"queue {examined.files.queue}",
        "results queues",
    }
    seen = {(line.group, line.check) for line in lines if line.mark == "ok"}
    for group, check in [
        ("python", "packages"), ("python", "python of the jobs"), ("files", "credentials.env"), ("files", "site.toml"),
        ("jobs folder", "writing"), ("jobs folder", "renaming"), ("jobs folder", "linking"), ("jobs folder", "clock"),
        ("broker", "address"), ("broker", "login"), ("broker", f"queue {examined.files.queue}"),
        ("broker", f"right to read {examined.files.queue}"), ("broker", "right to answer"), ("broker", "message size"),
        ("broker", "clock"), ("API", "login"), ("API", "clock"), ("API", "one input"), ("Slurm", "controller"),
        ("Slurm", "partition"), ("Slurm", "account"), ("Slurm", "accounting"), ("Slurm", "MinJobAge"), ("Slurm", "KillWait"),
        ("Slurm", "MaxArraySize"), ("Slurm", f"a job of {examined.files.queue}"), ("passes", "last pass"),
        ("passes", "crontab"),
        ("passes", "other installations"),
    ]:  # fmt: skip
        assert (group, check) in seen, (group, check)


def test_it_takes_nothing_and_leaves_nothing(examined: Examined, scene: Scene) -> None:
    scene.ask()
    before = sorted(path.relative_to(examined.files.folder) for path in examined.files.folder.rglob("*"))

    examined.doctor(expect=0)

    assert sorted(path.relative_to(examined.files.folder) for path in examined.files.folder.rglob("*")) == before
    assert scene.requester.waiting_jobs() == 1
    method, _, _ = scene.requester.channel.basic_get(examined.files.queue, auto_ack=True)
    assert not method.redelivered


def test_people_get_a_line_per_check_with_a_sign(examined: Examined) -> None:
    change_credentials(examined, "RODAN_PASSWORD", "wrong")

    printed = examined.files.check("doctor", expect=os.EX_CONFIG, PATH=examined.path, PYTHONUTF8="1")

    assert "✓ broker, login: tester at virtual host /" in printed
    assert re.search(r"✗ API, login: the API refuses our user or password \(HTTP 401\).*Correct API_USER", printed)
    assert re.search(r"\n1 to fix, \d+ to know of\.\n$", printed) and "\033" not in printed


def test_a_support_archive_comes_from_the_same_round(examined: Examined, scene: Scene, tmp_path: Path) -> None:
    target = tmp_path / "support.tar.gz"

    examined.doctor("--bundle", str(target), expect=0)
    examined.doctor("--bundle", str(target), expect=os.EX_CANTCREAT)

    with tarfile.open(target) as opened:
        texts = [file.read() for member in opened if (file := opened.extractfile(member))]
    assert any(b'"check": "login"' in text for text in texts)
    assert not [text for text in texts if scene.upstream.password.encode() in text]


# --- files, python


def test_a_credentials_file_that_others_can_read(examined: Examined) -> None:
    examined.files.credentials_file.chmod(0o640)

    is_the_only_fault(
        examined.doctor(), "files", "credentials.env", "can be read by others", "chmod 600 credentials.env"
    )


def test_a_site_file_that_others_may_change(examined: Examined) -> None:
    examined.files.site_file.chmod(0o666)

    line = examined.line("files", "who may change the code")

    assert line.mark == "warning" and "site.toml" in line.found and line.mend.startswith("chmod go-w ")


def test_every_fault_of_a_site_file_with_its_line(examined: Examined) -> None:
    examined.files.change_site("max_in_flight = 300", 'max_in_flight = "many"')
    examined.files.change_site("memory_mb = 200", "memory = 200\nmemory_mb = 1.5")

    found = [line.found for line in examined.doctor(expect=os.EX_CONFIG) if line.check == "site.toml"]

    assert [re.sub(r"^.*: (?=must|unknown)", "", words) for words in found] == [
        f"must be a whole number (line {number(examined, 'max_in_flight')})",
        f"unknown setting 'memory', did you mean memory_mb? (line {number(examined, 'memory = ')})",
        f"must be a whole number (line {number(examined, 'memory_mb')})",
    ]


def number(examined: Examined, beginning: str) -> int:
    """Of the site file's line that begins so."""
    lines = examined.files.site_file.read_text().split("\n")
    return next(index for index, line in enumerate(lines, 1) if line.startswith(beginning))


def test_a_site_file_that_is_no_toml_hides_no_other_fault(examined: Examined) -> None:
    examined.files.change_site("max_in_flight = 300", "max_in_flight =")
    examined.files.change_site("[workloads.probe]", "[workloads.probe")
    change_credentials(examined, "RABBITMQ_PASSWORD", "wrong")

    lines = examined.doctor(expect=os.EX_CONFIG)

    assert faults(lines) == [("files", "site.toml")] * 2 + [("broker", "login")]
    assert [line.mend.partition(" of")[0] for line in lines if line.check == "site.toml"] == [
        f"Correct line {number(examined, beginning)}" for beginning in ("max_in_flight", "[workloads.probe")
    ]


def test_a_site_file_that_is_not_there(examined: Examined) -> None:
    examined.files.site_file.unlink()

    lines = examined.doctor(expect=os.EX_CONFIG)

    line = one(lines, "files", "site.toml")
    assert (line.mark, line.mend) == ("fault", "Run: ./check.py init (or copy site.example.toml and fill it in)")


def test_a_python_for_the_jobs_without_the_packages(examined: Examined, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    python.chmod(0o700)
    examined.files.change_site(f"python = {json.dumps(sys.executable)}", f"python = {json.dumps(str(python))}")

    is_the_only_fault(examined.doctor(), "python", "python of the jobs", "No module named 'pika'", "pip install -r")


def test_missing_packages_are_named_by_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-X", "again", str(ROOT / "check.py"), "doctor", "--json"],
        capture_output=True,
        text=True,
    )

    lines = [Line(**each) for each in json.loads(done.stdout)["findings"]]
    assert (done.returncode, done.stderr) == (os.EX_CONFIG, "")
    is_the_only_fault(
        lines, "python", "packages", "missing: pika, requests", ".venv/bin/pip install -r requirements.txt"
    )


# --- the jobs folder


def mount(place: Path, *options: str) -> None:
    subprocess.run(["mount", *options, str(place)], check=True)


@pytest.fixture
def disk(examined: Examined) -> Iterator[Path]:
    """A small one, in the place of the jobs folder."""
    place = examined.files.jobs.path
    mark = (place / "installation.json").read_bytes()
    mount(place, "-t", "tmpfs", "-o", "size=4096k,mode=0700", "tmpfs")
    (place / "installation.json").write_bytes(mark)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(examined: Examined, disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(3 << 20))

    line = examined.line("jobs folder", "room")

    assert line.mark == "fault" and "0 MiB free: no message is taken" in line.found and "Make room" in line.mend


def test_a_read_only_disk(examined: Examined, disk: Path) -> None:
    mount(disk, "-o", "remount,ro")

    lines = examined.doctor(expect=os.EX_CONFIG)

    line = one(lines, "jobs folder", "jobs folder")
    assert line.mark == "fault" and "can't be written" in line.found and "mounted read-only" in line.mend


def test_a_disk_that_forgets(examined: Examined, disk: Path) -> None:
    line = examined.line("jobs folder", "file system")

    assert line.mark == "fault" and "gone after a reboot" in line.found and "jobs_dir" in line.mend


def test_a_jobs_folder_that_others_may_enter(examined: Examined) -> None:
    examined.files.jobs.path.chmod(0o755)

    line = examined.line("jobs folder", "jobs folder")

    assert line.mark == "warning" and line.mend.startswith("chmod 700")


def test_a_jobs_folder_that_is_a_file(examined: Examined, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (examined.files.folder / ".site.toml.installed").unlink()
    examined.files.change_site(json.dumps(str(examined.files.jobs.path)), json.dumps(str(tmp_path / "file")))

    line = examined.line("jobs folder", "jobs folder")

    assert (line.mark, line.mend) == ("fault", "Set jobs_dir in site.toml to a folder.")


def test_a_jobs_folder_that_is_not_mounted(examined: Examined) -> None:
    examined.files.jobs.path.rename(examined.files.folder / "elsewhere")
    examined.files.jobs.path.mkdir()

    line = examined.line("jobs folder", "mark")

    assert line.mark == "fault" and "lacks the mark of earlier passes" in line.found
    assert line.mend.startswith("Is its file system mounted") and "remove " in line.mend


# --- the broker


@pytest.mark.parametrize(("name", "value", "check", "found", "mend"), [
    ("RABBITMQ_PASSWORD", "wrong", "login", "refuses our user or password", "RABBITMQ_PASSWORD in credentials.env"),
    ("RABBITMQ_VHOST", "nowhere", "login", "nowhere", "Correct RABBITMQ_VHOST"),
    ("RABBITMQ_HOST", "mq.invalid", "address", "can't be reached (its name", "Correct RABBITMQ_HOST"),
    ("RABBITMQ_PORT", "1", "port 1", "connection refused", "Correct RABBITMQ_HOST and RABBITMQ_PORT"),
    ("RABBITMQ_TLS", "true", "TLS", "speaks no TLS", "Set RABBITMQ_PORT to its TLS port"),
])  # fmt: skip
def test_a_broker_that_is_named_wrongly(
    examined: Examined, name: str, value: str, check: str, found: str, mend: str
) -> None:
    change_credentials(examined, name, value)

    is_the_only_fault(examined.doctor(), "broker", check, found, mend)


@pytest.mark.parametrize(("durable", "arguments", "mark", "words"), [
    (True, {"x-queue-type": "stream"}, "fault", "is a stream"),
    (True, {"x-queue-type": "quorum"}, "warning", "durable is true, x-queue-type is 'quorum'"),
    (True, {}, "warning", "durable is true"),
    (False, {"x-max-length": 7, "x-message-ttl": 60000}, "warning", "x-max-length is 7"),
])  # fmt: skip
def test_a_queue_of_another_type(
    examined: Examined, scene: Scene, durable: bool, arguments: dict[str, object], mark: str, words: str
) -> None:
    scene.requester.channel.queue_delete(examined.files.queue)
    scene.requester.channel.queue_declare(examined.files.queue, durable=durable, arguments=arguments)

    line = examined.line("broker", f"queue {examined.files.queue}")

    scene.requester.channel.queue_delete(examined.files.queue)
    assert line.mark == mark and words in line.found and line.mend


def test_a_queue_that_is_not_there(examined: Examined, scene: Scene) -> None:
    scene.requester.channel.queue_delete(examined.files.queue)

    line = examined.line("broker", f"queue {examined.files.queue}")

    assert line.mark == "warning" and "does not exist" in line.found and "correct its name in site.toml" in line.mend


@pytest.mark.parametrize(("words", "mark", "found", "mend"), [
    ("", "warning", "the first pass makes it: it is not durable", "Write make = false under its name in site.toml if"),
    ("make = false", "warning", "the service makes it", "Check its name in site.toml."),
    ("make = true", "fault", "site.toml does not say how to make it", "Write durable = true under its name there."),
    ("make = true\ndurable = true", "warning", "the first pass makes it (durable=true)", "correct its name"),
])  # fmt: skip
def test_who_makes_a_queue_that_is_not_there(
    examined: Examined, scene: Scene, words: str, mark: str, found: str, mend: str
) -> None:
    examined.files.change_site("durable = false", words)
    scene.requester.channel.queue_delete(examined.files.queue)

    line = examined.line("broker", f"queue {examined.files.queue}")

    assert line.mark == mark and found in line.found and mend in line.mend


def test_a_queue_that_is_not_durable_without_a_word_is_told(examined: Examined) -> None:
    examined.files.change_site("durable = false\n", "")

    line = examined.line("broker", f"queue {examined.files.queue}")

    assert line.mark == "warning" and "gone when the broker restarts" in line.found and "make = false" in line.mend


@pytest.mark.parametrize(("expiration", "mark"), [("7d", "warning"), ("1h", "ok")])
def test_a_reply_queue_in_which_an_unwanted_answer_would_go_round_for_days(
    examined: Examined, scene: Scene, expiration: str, mark: str
) -> None:
    patterns = f'patterns = ["none", {json.dumps(scene.requester.results)}]'
    examined.files.change_site("[replies]", f'[replies]\nexpiration = "{expiration}"\n{patterns}')

    line = examined.line("broker", "unread answers")

    assert line.mark == mark
    if mark == "warning":
        assert f"stays in {scene.requester.results} for 168 h" in line.found and 'expiration = "1h"' in line.mend


def test_a_queue_that_another_takes_from(examined: Examined, scene: Scene) -> None:
    scene.requester.channel.basic_consume(examined.files.queue, lambda *_: None)

    line = examined.line("broker", f"queue {examined.files.queue}")

    assert line.mark == "warning" and "1 others take from it" in line.found and "Find out who it is" in line.mend


def test_a_queue_that_belongs_to_one_connection(examined: Examined, scene: Scene) -> None:
    scene.requester.channel.queue_delete(examined.files.queue)
    scene.requester.channel.queue_declare(examined.files.queue, exclusive=True)

    line = examined.line("broker", f"queue {examined.files.queue}")

    assert line.mark == "fault" and "exclusive" in line.found and "Ask the service" in line.mend


def certificates_for(name: str, folder: Path, days: int = 30) -> Certificates:
    """Of a new authority, for this name, expiring in so many days."""
    import trustme

    authority, end = trustme.CA(), datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    leaf = authority.issue_cert(name, not_before=end - datetime.timedelta(days=400), not_after=end)
    folder.mkdir()
    made = Certificates(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    leaf.private_key_pem.write_to_path(str(made.key))
    made.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return made


def trust(examined: Examined, certificates: Certificates) -> None:
    site = examined.files.site_file
    site.write_text(f"ca_file = {json.dumps(str(certificates.ca))}\n{site.read_text()}")


@pytest.mark.long(seconds=25)
def test_a_broker_with_an_expired_certificate_or_rights_that_do_not_suffice(
    pytestconfig: pytest.Config, examined: Examined, tmp_path: Path
) -> None:
    expired = certificates_for("127.0.0.1", tmp_path / "expired", days=-1)
    broker = RabbitMQ(tmp_path / "rabbitmq", expired)
    with (broker.folder / "rabbitmq.conf").open("a") as configuration:
        configuration.write("max_message_size = 1000000\n")
    with broker:
        for name, value in (
            ("PORT", broker.tls_port), ("USER", broker.user), ("PASSWORD", broker.password), ("TLS", "true")
        ):  # fmt: skip
            change_credentials(examined, f"RABBITMQ_{name}", str(value))
        trust(examined, expired)
        is_the_only_fault(examined.doctor(), "broker", "TLS", "has expired", "renew it")

        change_credentials(examined, "RABBITMQ_TLS", "false")
        is_the_only_fault(examined.doctor(), "broker", "login", "hung up without an answer", "Set RABBITMQ_TLS=true")

        change_credentials(examined, "RABBITMQ_PORT", str(broker.port))
        found = "the broker takes 1000000 bytes at the most, and replies.max_bytes is 134217728"
        is_the_only_fault(examined.doctor(), "broker", "message size", found, "Set max_bytes = 1000000 in [replies]")

        control(broker, "set_vm_memory_high_watermark", "0.0000001")
        (line,) = [line for line in examined.doctor() if line.mark == "fault"]
        assert line.group == "broker" and "memory or disk alarm" in line.mend, line
        control(broker, "set_vm_memory_high_watermark", "0.4")

        with connect(broker) as connection:
            connection.channel().queue_declare(examined.files.queue)
            control(broker, "set_permissions", broker.user, "", "", "")
            lines = examined.doctor()
        assert faults(lines) == [("broker", f"right to read {examined.files.queue}"), ("broker", "right to answer")]
        assert "Ask for the right to read" in one(lines, *faults(lines)[0]).mend
        assert "write to amq.default" in one(lines, *faults(lines)[1]).mend


def control(broker: RabbitMQ, *words: str) -> None:
    from tests.faults.test_broker_faults import control as told

    told(broker, *words)


# --- the API


@pytest.mark.parametrize(("name", "value", "check", "found", "mend"), [
    ("RODAN_PASSWORD", "wrong", "login", "refuses our user or password (HTTP 401)", "Correct API_USER and API_PASSWORD"),
    ("RODAN_HOST", "http://service.invalid", "address", "service.invalid:80 can't be reached (its name", "Correct API_URL"),
    ("RODAN_HOST", "http://127.0.0.1:1", "port 1", "connection refused", "Correct API_URL"),
])  # fmt: skip
def test_an_api_that_is_named_wrongly(
    examined: Examined, name: str, value: str, check: str, found: str, mend: str
) -> None:
    change_credentials(examined, name, value)

    is_the_only_fault(examined.doctor(), "API", check, found, mend)


def test_an_api_without_tls_where_tls_is_asked_for(examined: Examined, upstream: Upstream) -> None:
    change_credentials(examined, "RODAN_HOST", upstream.url.replace("http:", "https:"))

    is_the_only_fault(examined.doctor(), "API", "TLS", "speaks no TLS", "write http:// if it has no TLS")


@pytest.mark.parametrize(("name", "days", "trusted", "found", "mend"), [
    ("127.0.0.1", -1, True, "its certificate has expired", "renew it"),
    ("127.0.0.1", 30, False, "is not trusted here", "Set ca_file in site.toml"),
    ("other.example.org", 30, True, "is for another name than 127.0.0.1", "Write the name in its certificate into API_URL"),
    ("127.0.0.1", 500, True, "is not valid yet", "Look at this host's clock"),
])  # fmt: skip
def test_an_api_whose_certificate_is_wrong(
    examined: Examined, tmp_path: Path, name: str, days: int, trusted: bool, found: str, mend: str
) -> None:
    certificates = certificates_for(name, tmp_path / "certificates", days)
    with Upstream(tls=certificates) as service:
        change_credentials(examined, "RODAN_HOST", service.url)
        if trusted:
            trust(examined, certificates)

        is_the_only_fault(examined.doctor(), "API", "TLS", found, mend)


def test_a_certificate_that_will_expire_soon(examined: Examined, tmp_path: Path) -> None:
    certificates = certificates_for("127.0.0.1", tmp_path / "certificates", days=5)
    with Upstream(tls=certificates) as service:
        change_credentials(examined, "RODAN_HOST", service.url)
        trust(examined, certificates)

        line = examined.line("API", "TLS")

    assert line.mark == "warning" and "which is soon" in line.found and "renew it" in line.mend


def test_an_api_behind_a_proxy_and_a_proxy_that_is_gone(examined: Examined, upstream: Upstream) -> None:
    change_credentials(examined, "RODAN_HOST", "http://service.example.org")
    with HttpProxy({"service.example.org": upstream.port}) as proxy:
        examined.files.change_site("[timing]", f'[api]\nproxy = "{proxy.url}"\n[timing]')
        through = examined.doctor()
    gone = examined.doctor()

    assert not faults(through) and one(through, "API", f"port {proxy.port}").mark == "ok"
    is_the_only_fault(gone, "API", f"port {proxy.port}", "connection refused", "Correct proxy in [api] of site.toml")


def test_a_login_path_that_is_not_there(examined: Examined, upstream: Upstream) -> None:
    upstream.script("/token", Answer(status=404))
    examined.files.change_site("[timing]", '[api]\nlogin_path = "/token"\n[timing]')

    is_the_only_fault(examined.doctor(), "API", "login", "HTTP 404", "Is login_path in [api] of site.toml right?")


@pytest.mark.parametrize(("path", "found", "mend"), [
    ("/uploads/nothing", "does not exist", "Ask the service"),
    ("https://elsewhere.example.org/page", "not allowed here", "Add its host to input_hosts"),
])  # fmt: skip
def test_an_input_that_can_not_be_read(examined: Examined, path: str, found: str, mend: str) -> None:
    is_the_only_fault(examined.doctor("--input", path), "API", "one input", found, mend)


def test_without_a_flag_an_input_of_the_last_job_is_tried(examined: Examined, scene: Scene) -> None:
    scene.installation.change_site("[timing]", '[slurm]\nextra_options = ["--begin=now+1hour"]\n[timing]')
    scene.ask()
    scene.installation.check("--drain")

    there = examined.line("API", "one input")
    del scene.upstream.files[IMAGE]
    gone = examined.line("API", "one input")

    assert there.mark == "ok" and there.found.endswith(f"{IMAGE} can be read")
    assert gone.mark == "warning" and "does not exist" in gone.found and "--input" in gone.mend


# --- clocks


def test_a_clock_that_is_off(examined: Examined) -> None:
    files = examined.files
    done = subprocess.run(
        [*altered(shift=-4000), sys.executable, str(ROOT / "check.py"), "doctor", "--json", "--site", str(files.site_file),
         "--credentials", str(files.credentials_file)],
        env={**files.environment, "PATH": examined.path}, capture_output=True, text=True,
    )  # fmt: skip

    lines = [Line(**each) for each in json.loads(done.stdout)["findings"]]

    assert faults(lines) == [("jobs folder", "clock"), ("broker", "clock"), ("API", "clock")]
    for group, whose in (("jobs folder", "the file server's"), ("broker", "the broker's"), ("API", "the API's")):
        line = one(lines, group, "clock")
        assert re.fullmatch(rf"this host's clock is (3999|400[01]) s behind {whose}", line.found) and "NTP" in line.mend


# --- Slurm


@pytest.mark.parametrize(("setting", "check", "found", "mend"), [
    ('partition = "gpu"', "partition", "there is no partition gpu", "to one of: main, doomed"),
    ('extra_options = ["--constraint=nosuch"]', "a job of {queue}", "nvalid feature", "Mend [slurm]"),
])  # fmt: skip
def test_what_slurm_does_not_have(examined: Examined, setting: str, check: str, found: str, mend: str) -> None:
    slurm_says(examined, setting)

    lines = [line for line in examined.doctor() if line.group == "Slurm" and line.mark == "fault"]

    line = one(lines, "Slurm", check.format(queue=examined.files.queue))
    assert found in line.found and mend in line.mend


def test_a_folder_of_slurm_s_commands_that_is_not_there_is_told_though_they_are_found_elsewhere(
    examined: Examined,
) -> None:
    slurm_says(examined, 'bin_dir = "/opt/slurm/bin"')

    line = one([each for each in examined.doctor() if each.mark == "warning"], "Slurm", "commands")

    assert "bin_dir /opt/slurm/bin is no folder" in line.found and "take it out" in line.mend


def test_a_controller_that_is_away(examined: Examined, slurm: SlurmCluster, tmp_path: Path) -> None:
    configuration = Path(slurm.environment()["SLURM_CONF"]).read_text()
    (tmp_path / "slurm.conf").write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", configuration))

    printed = examined.files.check(
        "doctor",
        "--json",
        expect=os.EX_CONFIG,
        PATH=examined.path,
        SLURM_CONF=str(tmp_path / "slurm.conf"),
        stderr=False,
    )

    lines = [Line(**each) for each in json.loads(printed)["findings"]]
    is_the_only_fault(
        lines, "Slurm", "controller", "Unable to contact slurm controller", "tell the cluster's administrators"
    )


def test_an_account_that_is_not_ours(examined: Examined) -> None:
    slurm_says(examined, 'account = "physics"')

    line = examined.line("Slurm", "account")

    assert line.mark == "warning" and "physics is none of ours" in line.found and "one of: root" in line.mend


def test_caps_beyond_what_the_partition_has(examined: Examined) -> None:
    examined.files.change_site("max_gpus = 4", 'max_gpus = 4\nmax_cpus = 65\nmax_time = "8d"')

    line = examined.line("Slurm", f"caps of {examined.files.queue}")

    assert line.mark == "warning" and "max_cpus is 65, main has 64" in line.found
    assert line.mend.startswith('Set max_cpus = 64, max_time = "10080min" in [queues.resources]')


def test_default_times_beyond_what_the_partition_allows(examined: Examined) -> None:
    """Slurm takes such jobs, and never starts them."""
    examined.files.change_site('time = "5min"', 'time = "8d"\nmax_time = "8d"')
    examined.files.change_site('workload = "probe"\n', 'workload = "probe"\nmode = "pilot"\npilot = { time = "9d" }\n')

    lines = [line for line in examined.doctor() if line.check == f"time of {examined.files.queue}"]

    assert [(line.mark, line.found.partition(" gets ")[0]) for line in lines] == [
        ("fault", "a job that asks for nothing"), ("fault", "a pilot")
    ]  # fmt: skip
    assert all('time = "10080min" or less' in line.mend for line in lines)


def test_several_partitions_are_looked_at_together(examined: Examined) -> None:
    slurm_says(examined, 'partition = "doomed,main"')

    line = examined.line("Slurm", "partition")

    assert line.mark == "ok" and "main: " in line.found and "doomed: " in line.found


def test_a_queue_whose_jobs_no_pilot_can_take_is_told(examined: Examined) -> None:
    examined.files.change_site(
        'workload = "probe"\n', 'workload = "probe"\nmode = "pilot"\npilot = { time = "6min" }\n'
    )

    warnings = [line for line in examined.doctor() if line.check == "site.toml" and line.mark == "warning"]

    assert ["asks for 5 minutes, a pilot gives a job less than 4.8" in line.found for line in warnings] == [True]


def test_a_default_that_slurm_would_refuse(examined: Examined) -> None:
    examined.files.change_site(
        "memory_mb = 200\nmax_memory_mb = 257000", "memory_mb = 90000000\nmax_memory_mb = 90000000"
    )

    lines = examined.doctor()

    line = one(lines, "Slurm", f"a job of {examined.files.queue}")
    assert line.mark == "fault" and "a job that asks for nothing" in line.found and "resources" in line.mend


# --- what starts the passes


def test_no_line_in_the_crontab(examined: Examined) -> None:
    examined.crontab.write("# nothing")
    os.utime(examined.files.jobs.lease, (0, time.time() - 3600))

    lines = examined.doctor()

    assert faults(lines) == [("passes", "last pass"), ("passes", "crontab")]
    assert one(lines, "passes", "last pass").found == "1 h ago"
    assert "./check.py init" in one(lines, "passes", "crontab").mend


def test_two_lines_in_the_crontab(examined: Examined) -> None:
    examined.crontab.write(examined.cron_line(), "# and once more", examined.cron_line())

    is_the_only_fault(examined.doctor(), "passes", "crontab", "line 1 of the crontab, line 3 of", "Remove all but one")


def test_a_unit_of_systemd_starts_passes_too_alone_or_beside_cron(examined: Examined, tmp_path: Path) -> None:
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "batchferry.service").write_text(f"[Service]\nWorkingDirectory={ROOT}\n")

    beside = crontab_line_at_home(examined, tmp_path)
    examined.crontab.file.unlink()
    alone = crontab_line_at_home(examined, tmp_path)

    assert beside.mark == alone.mark == "ok"
    assert beside.found.startswith("line 3, * * * * *; and ") and beside.found.endswith(", one of them works at a time")
    assert alone.found == str(units / "batchferry.service")


def crontab_line_at_home(examined: Examined, home: Path) -> Line:
    printed = examined.files.check("doctor", "--json", expect=None, stderr=False, PATH=examined.path, HOME=str(home))
    return one([Line(**each) for each in json.loads(printed)["findings"]], "passes", "crontab")


@pytest.mark.parametrize(("place", "ours"), [
    ("{home}/batch 50%%", True), ("%h/batch 50%%", True), ("%h/other", False), ("/opt/batch 50%%", False),
])  # fmt: skip
def test_a_unit_is_known_by_the_folder_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, ours: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root, units = tmp_path / "batch 50%", tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "x.service").write_text(f"[Service]\nWorkingDirectory={place.format(home=tmp_path)}\n")

    found = list(_units(Subject(root, root / "site.toml", root / "credentials.env", None, None)))

    assert bool(found) == ours


def test_a_line_whose_log_has_no_folder(examined: Examined) -> None:
    examined.crontab.write(examined.cron_line("nowhere/run_check.log"))

    is_the_only_fault(examined.doctor(), "passes", "crontab", "no pass starts", "mkdir -p")


def test_a_line_with_a_percent_sign(examined: Examined) -> None:
    examined.crontab.write(examined.cron_line().replace("\\%", "%"))

    is_the_only_fault(examined.doctor(), "passes", "crontab", "has a %", r"Write \%")


def test_another_installation_on_the_same_queue(examined: Examined, tmp_path: Path) -> None:
    other = tmp_path / "other site.toml"
    text = examined.files.site_file.read_text()
    other.write_text(text.replace(json.dumps(str(examined.files.jobs.path)), json.dumps(str(tmp_path / "jobs"))))
    examined.crontab.write(examined.cron_line(), examined.cron_line(site_file=other))

    is_the_only_fault(
        examined.doctor(),
        "passes",
        "other installations",
        f"takes from the same queue {examined.files.queue}",
        "Remove one",
    )


def test_a_pass_that_could_not_work(examined: Examined, scene: Scene, upstream: Upstream) -> None:
    upstream.refuse_logins = 503
    scene.ask()
    scene.installation.check("--drain", expect=os.EX_UNAVAILABLE)
    upstream.refuse_logins = None

    line = examined.line("passes", "last pass")

    assert line.mark == "fault" and "the API is away: login at the API: HTTP 503" in line.found


def test_a_service_that_hangs_is_named_and_hides_nothing(examined: Examined, upstream: Upstream) -> None:
    examined.files.change_site("[timing]", '[api]\nread_timeout = "2s"\n[timing]')
    upstream.script("/api/auth/token/", Answer(delay=30))

    is_the_only_fault(examined.doctor(), "API", "login", "gave no answer for 2 s", "administrators")
