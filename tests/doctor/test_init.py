"""check.py init on real RabbitMQ and real Slurm: the files it makes, what it never does, and what starts the passes."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from slurm.survey import Partition, parse_minutes, parse_partitions
from tests.doctor.examined import Crontab, connect
from tests.installation import ROOT, cron_environment
from tests.requester import Requester
from tests.services.broker import Broker
from tests.services.daemon import free_ports, poll
from tests.services.rabbitmq import RabbitMQ, version
from tests.services.slurm import SlurmCluster
from tests.services.upstream import Upstream
from worker.amqp.management import Management
from worker.config import credentials_text, read_separately
from worker.doctor.crontab import pass_lines
from worker.install.files import create, site_text, toml
from worker.install.proposals import _caps, _choose
from worker.install.starting import Start
from worker.settings import Credentials, Secret
from worker.variables import read_variables


@dataclass
class Newcomer:
    """An operator with an empty folder, a crontab, and the services' addresses."""

    folder: Path
    crontab: Crontab
    environment: dict[str, str]
    secrets: tuple[str, str]
    queue: str

    @property
    def site(self) -> Path:
        return self.folder / "site.toml"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials.env"

    @property
    def answers(self) -> Path:
        return self.folder / "answers.env"

    def command(self, *options: str, verb: str = "init") -> list[str]:
        files = ["--site", str(self.site), "--credentials", str(self.credentials)]
        return [sys.executable, str(ROOT / "check.py"), verb, *options, *files]

    def init(self, *options: str, expect: int = 0) -> str:
        done = subprocess.run(
            self.command(*options), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        printed = done.stdout + done.stderr
        assert not [secret for secret in self.secrets if secret in printed]
        return printed

    def made(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path != self.answers)


@pytest.fixture
def newcomer(
    rabbitmq: Broker, slurm: SlurmCluster, upstream: Upstream, odd_folder: Path, tmp_path: Path
) -> Iterator[Newcomer]:
    crontab, folder, queue = Crontab(tmp_path / "cron"), odd_folder / "new", f"init-{os.urandom(4).hex()}"
    folder.mkdir()
    environment = {**cron_environment(slurm.environment()), "PATH": f"{crontab.bin}:/usr/bin:/bin"}
    environment["HOME"] = str(tmp_path)
    # A password of everything that a file format could trip over.
    upstream.password = f'it\'s "${{HOME}}" \\ #{upstream.password} %'
    made = Newcomer(folder, crontab, environment, (rabbitmq.password, upstream.password), queue)
    values = {
        "RABBITMQ_HOST": rabbitmq.host, "RABBITMQ_PORT": str(rabbitmq.port), "RABBITMQ_USER": rabbitmq.user,
        "RABBITMQ_PASSWORD": rabbitmq.password, "API_URL": upstream.url, "API_USER": upstream.user,
        "API_PASSWORD": upstream.password,
    }  # fmt: skip
    made.answers.touch(mode=0o600)
    made.answers.write_text(credentials_text(values) + f"QUEUE={queue}\nJOBS_DIR={folder.parent.parent}/jobs\n")
    requester = Requester(rabbitmq, queue, f"{queue}-results")
    yield made
    requester.channel.queue_delete(queue)
    requester.close()


def test_it_makes_both_files_from_a_file_of_answers_and_they_are_taken(newcomer: Newcomer, upstream: Upstream) -> None:
    printed = newcomer.init("--answers", str(newcomer.answers))

    assert newcomer.made() == ["credentials.env", "site.toml"]
    assert stat.S_IMODE(newcomer.credentials.stat().st_mode) == 0o600
    site, credentials, faults = read_separately(ROOT, newcomer.site, newcomer.credentials)
    assert [fault for fault in faults if "there is no program" not in fault.found] == []  # the workload is set up later
    assert site is not None and credentials is not None
    assert (site.queues[0].name, site.jobs_dir.name, site.slurm.accounting) == (newcomer.queue, "jobs", True)
    assert (site.queues[0].make, site.queues[0].durable, float(site.replies.expiration)) == (False, None, 3600.0)
    assert credentials.api_password.reveal() == upstream.password
    assert f"The queue {newcomer.queue} is there (classic), 0 messages wait." in printed
    assert re.search(r"Partitions: main \(default\) \(2 nodes, 64 CPUs, .*\), doomed \(1 node,", printed)
    assert "* * * * *" in printed and "Next: ./check.py doctor" in printed
    assert not newcomer.crontab.file.exists()


def test_what_it_made_is_what_the_doctor_wants(newcomer: Newcomer) -> None:
    # The checkout's own jobs folder would be that of whoever came first.
    newcomer.init("--answers", str(newcomer.answers), "--add", "--jobs-dir", str(newcomer.site.parent / "jobs"))
    argv = '["{python}", "{root}/tests/workloads/probe.py", "{job}"]'
    text = re.sub(r"(?m)^argv = .*$", f"argv = {argv}", newcomer.site.read_text())
    newcomer.site.write_text(f"python = {toml(sys.executable)}\n{text}")
    subprocess.run(newcomer.command()[:2] + newcomer.command()[3:], env=newcomer.environment, check=True)

    told = subprocess.run(
        newcomer.command(verb="doctor"), env=newcomer.environment, capture_output=True, text=True, encoding="utf-8"
    )

    assert told.returncode == 0, told.stdout


def test_a_queue_is_described_as_it_is(newcomer: Newcomer, rabbitmq: Broker) -> None:
    requester = Requester(rabbitmq, f"{newcomer.queue}-q", "unused")
    requester.channel.queue_delete(f"{newcomer.queue}-q")
    requester.channel.queue_declare(f"{newcomer.queue}-q", durable=True, arguments={"x-queue-type": "quorum"})

    newcomer.init("--answers", str(newcomer.answers), "--queue", f"{newcomer.queue}-q", "--service-declares", "no")

    requester.channel.queue_delete(f"{newcomer.queue}-q")
    requester.close()
    site, _, _ = read_separately(ROOT, newcomer.site, newcomer.credentials)
    assert site is not None
    assert (site.queues[0].durable, site.queues[0].arguments) == (True, {"x-queue-type": "quorum"})


@pytest.mark.parametrize(("option", "words"), [
    (("--service-declares", "perhaps"), "service_declares: must be yes or no"),
    (("--expiration", "soon"), "expiration: must be a duration"),
])  # fmt: skip
def test_an_answer_that_can_not_be_is_told(newcomer: Newcomer, option: tuple[str, str], words: str) -> None:
    assert words in newcomer.init("--answers", str(newcomer.answers), *option, expect=os.EX_USAGE)
    assert not newcomer.site.exists()


def test_a_queue_that_we_are_to_make_is_made_durable(newcomer: Newcomer, rabbitmq: Broker) -> None:
    option = ("--queue", f"{newcomer.queue}-new", "--service-declares", "no")
    printed = newcomer.init("--answers", str(newcomer.answers), *option)

    site, _, _ = read_separately(ROOT, newcomer.site, newcomer.credentials)
    assert site is not None and (site.queues[0].make, site.queues[0].durable) == (True, True)
    name = f"{newcomer.queue}-new"
    assert f"The queue {name} does not exist yet." in printed
    assert f"The queue {name} is made. What is published from now on waits in it." in printed
    assert "is made" not in newcomer.init()
    with connect(rabbitmq) as connection:
        connection.channel().queue_declare(name, passive=True)
        connection.channel().queue_delete(name)


@pytest.mark.unhurried
def test_the_queues_of_a_broker_with_its_management_plugin_are_listed(tmp_path: Path) -> None:
    broker = RabbitMQ(tmp_path / "rabbitmq")
    (port,) = free_ports(1)
    (broker.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    with (broker.folder / "rabbitmq.conf").open("a") as configuration:
        configuration.write(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n")
    with broker, connect(broker) as connection:
        connection.channel().queue_declare("hpc-jobs")
        connection.channel().queue_declare("hpc results")
        known = Credentials(
            broker.host, broker.port, broker.user, Secret(broker.password), "/", False, "http://x", "", Secret("")
        )

        found = Management(known, None, port).queues()
        refused = Management(replace(known, rabbitmq_password=Secret("wrong")), None, port).queues()

        policy = json.dumps({"pattern": "^hpc-jobs$", "definition": {"max-length": 5}}).encode()
        login = base64.b64encode(f"{broker.user}:{broker.password}".encode()).decode()
        url = f"http://127.0.0.1:{port}/api/policies/%2F/short"
        request = Request(url, policy, {"Authorization": f"Basic {login}"}, method="PUT")
        urlopen(request).close()  # noqa: S310
        assert poll(lambda: Management(known, None, port).policy_of("hpc-jobs") == {"max-length": 5})
        assert Management(known, None, port).policy_of("hpc results") == {}
        deprecated = Management(known, None, port).deprecated_in_use()
        assert (deprecated is None) == (version() < (3, 13)), "transient queues are in use"
        assert deprecated is None or "transient_nonexcl_queues" in deprecated

    assert sorted(found or []) == [("hpc results", 0), ("hpc-jobs", 0)] and refused is None


def test_files_that_exist_stay_as_they_are(newcomer: Newcomer) -> None:
    newcomer.credentials.write_text("mine\n")
    newcomer.site.write_text("mine too\n")

    printed = newcomer.init()
    refused = newcomer.init("--queue", "other", expect=os.EX_CANTCREAT)

    assert printed.count("exists; it stays as it is.") == 2
    assert "so queue would be lost" in refused and "--replace" in refused
    assert (newcomer.credentials.read_text(), newcomer.site.read_text()) == ("mine\n", "mine too\n")


def test_files_that_are_replaced_are_kept_beside(newcomer: Newcomer) -> None:
    newcomer.credentials.write_text("mine\n")
    newcomer.site.write_text("mine too\n")

    newcomer.init("--answers", str(newcomer.answers), "--replace")

    kept = [path for path in newcomer.folder.iterdir() if re.search(r"\.\d{8}-\d{6}-", path.name)]
    assert sorted(path.read_text() for path in kept) == ["mine\n", "mine too\n"]
    assert newcomer.queue in newcomer.site.read_text()


def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("somebody's")

    assert not create(tmp_path / "site.toml", "ours")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("site.toml", "somebody's")]


def test_all_that_is_missing_is_named_and_nothing_is_written(newcomer: Newcomer) -> None:
    printed = newcomer.init("--api-user", "me", expect=os.EX_USAGE)

    for name in ("RABBITMQ_HOST", "RABBITMQ_USER", "RABBITMQ_PASSWORD", "API_URL", "API_PASSWORD"):
        assert name in printed
    assert "API_USER" not in printed and newcomer.made() == []


@pytest.mark.parametrize(("mode", "line", "words"), [
    (0o640, "", "chmod 600"), (0o600, "QUEU=x\n", "unknown names: queu. Known are: rabbitmq_host"),
    (0o600, "its my\nS3cret\n", "unknown names: one that is no name. Known"),
])  # fmt: skip
def test_answers_that_can_not_be_taken(newcomer: Newcomer, mode: int, line: str, words: str) -> None:
    newcomer.answers.chmod(mode)
    newcomer.answers.write_text(newcomer.answers.read_text() + line)

    assert words in newcomer.init("--answers", str(newcomer.answers), expect=os.EX_USAGE)
    assert newcomer.made() == []


@pytest.mark.parametrize("flag", ["--rabbitmq-password", "--api-password"])
def test_there_is_no_flag_for_a_password(newcomer: Newcomer, flag: str) -> None:
    assert "unrecognized arguments" in newcomer.init(f"{flag}=x", expect=os.EX_USAGE)


def test_on_a_terminal_it_asks_and_shows_no_password(newcomer: Newcomer) -> None:
    given = read_variables(newcomer.answers)
    shown = answer_on_a_terminal(newcomer, {
        "rabbitmq_host": given["RABBITMQ_HOST"], "rabbitmq_port": given["RABBITMQ_PORT"],
        "rabbitmq_tls": "", "rabbitmq_vhost": "",
        "rabbitmq_user": given["RABBITMQ_USER"], "rabbitmq_password": given["RABBITMQ_PASSWORD"],
        "api_url": given["API_URL"], "api_user": given["API_USER"],
        "api_password": given["API_PASSWORD"], "queue": newcomer.queue, "service_declares": "", "expiration": "2h",
        "jobs_dir": str(newcomer.site.parent / "jobs"), "partition": "doomed", "account": "",
    })  # fmt: skip

    assert not [secret for secret in newcomer.secrets if secret in shown]
    site, credentials, _ = read_separately(ROOT, newcomer.site, newcomer.credentials)
    assert site is not None and (site.slurm.partition, site.jobs_dir) == ("doomed", newcomer.site.parent / "jobs")
    assert (site.queues[0].make, float(site.replies.expiration)) == (False, 7200.0)
    assert credentials is not None and credentials.api_password.reveal() == given["API_PASSWORD"]


def answer_on_a_terminal(newcomer: Newcomer, answers: dict[str, str], *options: str) -> str:
    """Everything that the terminal showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, newcomer.command(*options), newcomer.environment)
    shown, end = "", time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            piece = os.read(terminal, 4096).decode()
        except OSError:
            break
        shown += piece
        asked = re.search(r"(\w+): [^\n]*: $", shown)
        if asked and asked.group(1) in answers:
            os.write(terminal, f"{answers.pop(asked.group(1))}\n".encode())
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert answers == {}, shown
    return shown


# --- what starts the passes


def test_the_crontab_line_is_added_once_and_other_lines_stay(newcomer: Newcomer) -> None:
    newcomer.crontab.file.write_text("MAILTO=me\n5 4 * * * true")

    first = newcomer.init("--answers", str(newcomer.answers), "--add")
    second = newcomer.init("--add")

    text = newcomer.crontab.file.read_text()
    (line,) = pass_lines(text)
    assert "Added to the crontab." in first and "Line 3 of the crontab starts passes already" in second
    assert text.startswith("MAILTO=me\n5 4 * * * true\n") and text.count("run_check.log") == 1
    assert (line.root, line.site_file, line.cut_at_percent) == (ROOT, newcomer.site, False)


def test_a_crontab_that_can_not_be_read_is_not_written(newcomer: Newcomer) -> None:
    program = newcomer.crontab.bin / "crontab"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -l ] && {{ echo "you may not" >&2; exit 1; }}\ncp "$1" {newcomer.crontab.bin}/new\n'
    )

    printed = newcomer.init("--answers", str(newcomer.answers), "--add", expect=os.EX_CANTCREAT)

    assert "crontab -l failed: you may not" in printed and not (newcomer.crontab.bin / "new").exists()


def test_the_line_that_is_added_runs_as_cron_runs_it(newcomer: Newcomer) -> None:
    newcomer.init("--answers", str(newcomer.answers), "--add")
    (line,) = newcomer.crontab.file.read_text().splitlines()
    command = line.split(" ", 5)[5].replace("\\%", "%").replace(str(ROOT / "run_check"), "/bin/echo")

    log = ROOT / "logs" / "run_check.log"
    told = re.sub(r" >> '.*' 2>&1$", "", command)
    done = subprocess.run(["/bin/sh", "-c", told], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)

    assert done.stdout == f"--site {newcomer.site} --credentials {newcomer.credentials}\n"
    assert f">> '{log}' 2>&1" in line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_unit_is_one_that_systemd_takes(newcomer: Newcomer, tmp_path: Path) -> None:
    newcomer.init("--answers", str(newcomer.answers), "--schedule", "systemd", "--add")
    (unit,) = (tmp_path / ".config" / "systemd" / "user").iterdir()

    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip

    assert unit.name == "batchferry.service" and f"WorkingDirectory={ROOT}\n" in unit.read_text()
    assert verified.returncode == 0 and "batchferry" not in verified.stderr, verified.stderr


def test_the_unit_starts_the_watch_of_this_installation(tmp_path: Path) -> None:
    root = tmp_path / "it's 50% \\ $HOME"
    (root / "contrib").mkdir(parents=True)
    shutil.copy2(ROOT / "contrib" / "batchferry.service", root / "contrib")
    start = Start(root, tmp_path / "a site.toml", root / "credentials.env", "/etc/slurm 2/slurm.conf")

    lines = start.unit().splitlines()

    (command,) = (line.partition("=")[2] for line in lines if line.startswith("ExecStart="))
    # systemd.syntax(7): quotes and backslashes go, then %% and $$ are a single one.
    quoted = re.fullmatch(r'/bin/sh -c "(.*)"', command)
    assert quoted is not None
    plain = re.sub(r"\\(.)", r"\1", quoted.group(1)).replace("%%", "%").replace("$$", "$")
    words = shlex.split(plain.replace(">>", ">> "))
    assert words[:5] == ["exec", ".venv/bin/python", "-E", "check.py", "--watch"]
    assert words[5:] == ["--site", str(start.site_file), ">>", str(start.log), "2>&1"]
    assert f"WorkingDirectory={root}".replace("%", "%%") in lines
    assert 'Environment="SLURM_CONF=/etc/slurm 2/slurm.conf"' in lines and "Restart=always" in lines


def test_a_unit_that_says_something_else_stays(newcomer: Newcomer, tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    (folder / "batchferry.service").write_text("mine")

    newcomer.init("--answers", str(newcomer.answers), "--schedule", "systemd", "--add", expect=os.EX_CANTCREAT)

    assert (folder / "batchferry.service").read_text() == "mine"


def test_the_block_for_scrontab_is_a_line_of_cron_with_options_before_it() -> None:
    start = Start(Path("/a b/50%"), Path("/a b/50%/site.toml"), Path("/a b/50%/credentials.env"), "/etc/slurm.conf")

    options, line = start.scrontab_block().split("\n")

    (found,) = pass_lines(start.scrontab_block())
    assert options.startswith("#SCRON --job-name=") and (found.root, found.cut_at_percent) == (start.root, False)
    assert line.startswith("* * * * * SLURM_CONF=/etc/slurm.conf '/a b/50\\%/run_check' >> ")


# --- what it proposes


SMALL = Partition("small", False, True, 30, 2, 8, 3000)
OTHER = Partition("other", True, True, None, 1, 128, 900000)


def test_caps_are_no_more_than_a_node_has() -> None:
    assert _caps(OTHER) == {}
    assert {name: value for (_, name), value in _caps(SMALL).items()} == {
        "max_cpus": 8, "max_memory_mb": 3000, "memory_mb": 3000, "max_time": "30min", "time": "30min",
    }  # fmt: skip


def test_the_partition_is_the_one_asked_for_or_the_default_or_the_only_one() -> None:
    assert _choose([SMALL, OTHER], "small") is SMALL and _choose([SMALL, OTHER], "") is OTHER
    assert _choose([SMALL], "") is SMALL and _choose([SMALL, SMALL], "") is None and _choose([SMALL], "x") is None


def test_every_setting_that_is_proposed_has_its_place_in_the_example() -> None:
    example = (ROOT / "site.example.toml").read_text()
    settings = {
        **_caps(SMALL), ("", "jobs_dir"): 'a "folder"', ("", "ca_file"): "x", ("slurm", "partition"): "p",
        ("slurm", "account"): "a", ("slurm", "bin_dir"): "/b", ("slurm", "accounting"): False, ("slurm", "array_size"): 1,
        ("replies", "max_bytes"): 7, ("queues", "name"): "q", ("queues", "workload"): "binarize", ("queues", "durable"): True,
        ("queues", "arguments"): {"x-queue-type": "quorum"},
    }  # fmt: skip

    text = site_text(example, settings)

    changed = [new for old, new in zip(example.split("\n"), text.split("\n")) if old != new]
    assert len(changed) == len(settings) - 1  # the workload is the example's
    assert 'jobs_dir = "a \\"folder\\""' in changed and 'arguments = { "x-queue-type" = "quorum" }' in changed
    with pytest.raises(KeyError):
        site_text(example, {("slurm", "no such"): 1})


@pytest.mark.parametrize(("text", "minutes"), [
    ("7-00:00:00", 10080), ("12:30:00", 750), ("30:00", 30), ("1-02:03:04", 1563), ("UNLIMITED", None), ("INFINITE", None),
])  # fmt: skip
def test_a_time_limit_in_minutes(text: str, minutes: int | None) -> None:
    assert parse_minutes(text) == minutes


def test_nodes_that_differ_count_as_the_largest() -> None:
    told = (
        "PartitionName=a AllowGroups=ALL Default=YES MaxTime=1:00:00 State=UP\nPartitionName=b Default=NO State=DOWN\n"
    )

    first, second = parse_partitions(told, "a|8|16000|gpu:v100:2\na|64+|4000|(null)\nb|1|1|(null)\n")

    assert first == Partition("a", True, True, 60, 2, 64, 16000, ("gpu:v100:2",))
    assert (second.is_up, second.max_minutes, second.nodes) == (False, None, 1)


@pytest.mark.parametrize("value", ["it's", 'a"b', "back\\slash", "$HOME ${X}", "#x # y", " spaced ", "ünï", "a=b"])
def test_a_secret_comes_back_as_it_was(value: str, tmp_path: Path) -> None:
    (tmp_path / "credentials.env").write_text(credentials_text({"API_PASSWORD": value}))

    assert read_variables(tmp_path / "credentials.env") == {"API_PASSWORD": value}
