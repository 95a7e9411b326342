"""Two files become one frozen configuration, or a list of all that is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.examples import CREDENTIALS, SITE, read, write_files
from worker.config import parse_duration, read_config
from worker.errors import Misconfigured
from worker.toml_lines import line_of


def faults(folder: Path, site: str = SITE, credentials: str = CREDENTIALS, mode: int = 0o600) -> list[str]:
    with pytest.raises(Misconfigured) as error:
        read(folder, site, credentials, mode)
    return [str(fault) for fault in error.value.faults]


def with_line(line: str, after: str) -> str:
    """The site file with one more line after the one that holds `after`."""
    assert SITE.count(after) == 1
    return SITE.replace(after, f"{after}\n{line}")


def without(name: str, text: str = CREDENTIALS) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"{name}="))


# --- site.toml


def test_each_fault_is_told_with_its_line_and_one_does_not_hide_another(tmp_path: Path) -> None:
    site = SITE.replace("cpus = 2", "cpus = 49").replace('workload = "train"', 'workload = "train"\nfrobnicate = 1')

    assert faults(tmp_path, site) == [
        "site.toml: queues[0]: unknown setting 'frobnicate' (line 4)",
        "site.toml: queues.hpc-jobs.resources.cpus: the default is more than max_cpus (line 7)",
    ]


def test_every_line_that_is_no_toml_is_told_at_once(tmp_path: Path) -> None:
    site = (
        SITE.replace("cpus = 2", "cpus =")
        .replace("[workloads.train]", "[workloads.train")
        .replace("max_gpus", "gpus =")
    )
    site += "\n[queues.resources]\n"

    lines = [int(fault.rpartition("(line ")[2].rstrip(")")) for fault in faults(tmp_path, site)]

    wrong = ["cpus =", "gpus = = 4", "[workloads.train"]
    assert lines == [*(site.split("\n").index(line) + 1 for line in wrong), site.count("\n")]


@pytest.mark.parametrize(("path", "line"), [
    (("queues", 1, "resources", "names", "cpus"), 11), (("queues", 0, "resources", "cpus"), 5), (("queues", 0, "name"), 3),
    (("queues", 0, "resources", "names", "cpus"), 6), (("slurm", "array_size"), 13), (("queues", 1), 8), (("nowhere",), None),
    (("queues", 1, "resources", "no such"), 9), (("list", 2), 14),
])  # fmt: skip
def test_a_setting_is_found_however_it_is_written(path: tuple[str | int, ...], line: int | None) -> None:
    text = """# a comment
[[queues]]
name = "[no header]"
[queues.resources]
cpus = 1
names = { cpus = "CPUs" }

[[queues]]
[queues.resources]
memory_mb = 1
names.cpus = "x"
[ slurm ]
"array_size" = 3
list = [
    1,
]
"""
    assert line_of(text, path if path[0] != "list" else ("slurm", *path)) == line


def test_a_short_site_file_gets_the_defaults(tmp_path: Path) -> None:
    config = read(tmp_path)

    assert config.site.jobs_dir == tmp_path / "jobs"
    assert config.site.python == tmp_path / ".venv/bin/python"
    assert float(config.site.timing.visible_after) == 90
    assert config.site.workloads["train"].retry.on == ("node_failed", "preempted", "fetch", "start")
    assert (config.queue("hpc-jobs"), config.queue("other")) == (config.site.queues[0], None)


def test_all_faults_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    site = with_line('max_wait = "soon"\nfrobnicate = 1', 'workload = "train"').replace("cpus = 2", 'cpus = "2"')

    found = faults(tmp_path, site + "[workloads.other]\nargv = 'x'\n", "RABBITMQ_PORT=x\nRABBITMQ_TLS=maybe\n")

    for words in (
        "site.toml: queues[0]: unknown setting 'frobnicate'",
        'site.toml: queues[0].max_wait: must be a duration such as "90s"',
        "resources: cpus: must be a whole number",
        "workloads.other: argv: must be a list",
        "workloads.other: forms is missing",
        "RABBITMQ_HOST is missing (the broker's host name)",
        "API_PASSWORD is missing",
        "RABBITMQ_PORT must be a port number",
        "RABBITMQ_TLS must be true or false",
    ):
        assert any(words.replace("queues[0].max_wait", "queues[0]: max_wait") in fault for fault in found), (
            words,
            found,
        )


@pytest.mark.parametrize(("old", "new", "words"), [
    ("cpus = 2", "cpus = 49", "resources.cpus: the default is more than max_cpus"),
    ("memory_mb = 8000", "memory_mb = 257001", "resources.memory_mb: the default is more than max_memory_mb"),
    ('time = "2h"', 'time = "8d"', "resources.time: the default is more than max_time"),
    ("max_gpus = 4", "gpus = 5\nmax_gpus = 4", "resources.gpus: the default is more than max_gpus"),
    ("cpus = 2", "cpus = 0", "resources: cpus: must be from 1 to 65,000"),
    ("memory_mb = 8000", "memory_mb = 0", "resources: memory_mb: must be from 1 to 1,000,000,000"),
    ('time = "2h"', 'time = "0s"', 'resources: time: must be from "1s" to "366d"'),
    ('cpus = "CPUs"', 'cores = "CPUs"', "resources.names.cores: must be one of"),
    ('"Background Model" = ".h5", "Model {n}"', '"error" = ".h5", "Model {n}"', "an output can't be named \"error\""),
    ('"Model {n}" = ".h5"', '"Model {n}" = "/x"', "an output's suffix can't hold a slash"),
    ('"Model {n}" = ".h5" }', '"Model {n}" = ".h5" }\nfolders = ["Model"]', "folders: 'Model' is no output of this form"),
    ("[[queues]]", '[[queues]]\nresults = "upload"', "queues: to upload results, [results] needs ask"),
    ("[[queues]]", 'results = { ask = "x" }\n[[queues]]', "results.ask: must begin with a slash"),
    ("[[queues]]", 'results = { ask = "/x" }\n[[queues]]\nresults = "auto"\nmode = "pilot"', "share a pilot go inline"),
    ('argv = ["/bin/true"]', "argv = []", "workloads.train: argv is empty"),
    ("[[queues]]", '[[queues]]\nname = "hpc-jobs"\nworkload = "train"\n[[queues]]', "queues: two have the same name"),
    ("[[queues]]", 'installation = "a-b"\n[[queues]]', "installation: must be at most 12 letters and digits"),
    ("[[queues]]", 'slurm = { extra_options = ["qos"] }\n[[queues]]', 'each must be one word such as "--qos=short"'),
    ("[[queues]]", 'slurm = { extra_options = [""] }\n[[queues]]', 'each must be one word such as "--qos=short"'),
    ("[[queues]]", 'slurm = { extra_options = ["--qos=x", "-Mb"] }\n[[queues]]', "'-Mb': --clusters would undo what"),
    ("[[queues]]", 'slurm = { extra_options = ["--gres=x"] }\n[[queues]]', "set gpus or gpus_by_memory in [queues.resources]"),
    ("[[queues]]", 'slurm = { account = "a", extra_options = ["-Ab"] }\n[[queues]]', "set account in [slurm] alone"),
    ("[[queues]]", 'scheduler = "pbs"\n[[queues]]', "scheduler: must be one of"),
    ("[[queues]]", 'broker = "kafka"\n[[queues]]', "broker: must be one of"),
    ("[[queues]]", "max_in_flight = -1\n[[queues]]", "max_in_flight: must be from 1 to 1,000,000"),
    ("[[queues]]", "max_in_flight = true\n[[queues]]", "max_in_flight: must be a whole number"),
    ("[[queues]]", 'timing = { patience = "nan" }\n[[queues]]', "timing: patience: must be a duration"),
    ("[[queues]]", "timing = { patience = nan }\n[[queues]]", "timing: patience: must be a duration"),
    ("[[queues]]", "timing = 7\n[[queues]]", "timing: must be a table"),
    ("[[queues]]", "jobs_dir = 7\n[[queues]]", "jobs_dir: must be a text in quotes"),
    ("[[queues]]", "replies = { create_durable = 1 }\n[[queues]]", "create_durable: must be true or false"),
    ("[[queues]]", "[[queues]", "site.toml: "),
    ('name = "hpc-jobs"', 'name = ""', "queues: a name must have 1 to 255 bytes"),
    ('name = "hpc-jobs"', f'name = "{"é" * 128}"', "queues: a name must have 1 to 255 bytes"),
    ("[[queues]]", 'scratch = "tmp"\n[[queues]]', 'scratch: must be "folder", or a folder on the node that begins with'),
    ("[[queues]]", 'scratch = ""\n[[queues]]', 'scratch: must be "folder", or a folder on the node that begins with'),
    ("[[queues]]", 'api = { login_path = "token" }\n[[queues]]', "api.login_path: must begin with a slash"),
    ("[[queues]]", 'slurm = { account = "a\\u0000b" }\n[[queues]]', "account: holds a character of code 0"),
    ("[[queues]]", 'jobs_dir = "a\\u0000b"\n[[queues]]', "jobs_dir: holds a character of code 0"),
    ('argv = ["/bin/true"]', 'argv = ["/bin/true"]\nenvironment = { "A=B" = "x" }', "'A=B' can't be the name of a variable"),
    ('argv = ["/bin/true"]', 'argv = ["/bin/true"]\nenvironment = { "" = "x" }', "'' can't be the name of a variable"),
    ("up_to_mb = 128000, ", "", "gpus_by_memory[0]: up_to_mb is missing"),
    ("{ up_to_mb = 128000, gres = \"gpu:1\" }", "7", "gpus_by_memory[0]: must be a table"),
])  # fmt: skip
def test_a_fault_of_the_site_file_is_told_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert SITE.count(old) == 1, old
    found = faults(tmp_path, SITE.replace(old, new))

    assert any(words in fault for fault in found), found


def test_a_workload_without_a_form_could_never_run(tmp_path: Path) -> None:
    site = SITE[: SITE.index("[[workloads.train.forms]]")] + "forms = []\n"

    assert faults(tmp_path, site) == ["site.toml: workloads.train: has no form, so no message could fit it (line 28)"]


def test_a_retry_policy_names_ends_that_there_are(tmp_path: Path) -> None:
    site = with_line('retry = { on = ["node_fail", "fetch"] }', 'argv = ["/bin/true"]')

    (fault,) = faults(tmp_path, site)

    assert "workloads.train.retry.on: must be of" in fault


def test_a_site_file_that_is_missing_says_what_to_copy(tmp_path: Path) -> None:
    _, credentials = write_files(tmp_path)

    with pytest.raises(
        Misconfigured, match="gone.toml is not there yet. Run: ./check.py init .*copy site.example.toml"
    ):
        read_config(tmp_path, tmp_path / "gone.toml", credentials)


def test_a_site_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    site, credentials = write_files(tmp_path)
    site.write_bytes(b"\xff\xfe")

    with pytest.raises(Misconfigured, match=r"site.toml: is not UTF-8 text \(line 1\)"):
        read_config(tmp_path, site, credentials)


def test_the_installation_has_a_word_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, again, other = read(tmp_path / "a"), read(tmp_path / "a"), read(tmp_path / "b")

    assert first.site.installation == again.site.installation != other.site.installation
    assert first.site.installation.isalnum() and len(first.site.installation) <= 12


def test_ssl_cert_file_is_only_the_default_of_ca_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert read(tmp_path).ca_file is None

    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ca.pem")

    assert read(tmp_path).ca_file == "/etc/ca.pem"
    assert read(tmp_path, 'ca_file = "/my/ca.pem"\n' + SITE).ca_file == "/my/ca.pem"


@pytest.mark.parametrize(("text", "seconds"), [
    ("90s", 90), ("15min", 900), ("1h", 3600), ("7d", 604800), ("1.5 h", 5400), ("0s", 0), (5, 5), (0.5, 0.5),
])  # fmt: skip
def test_a_duration_is_a_number_with_a_unit(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "1m", "1 hour", "-1s", "1e3s", "1s ", -1, True, None, [], 10**9, "99999d",
                                  float("nan"), float("inf"), "²s"])  # fmt: skip
def test_everything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@given(st.text() | st.floats() | st.integers() | st.none())
def test_a_duration_is_a_number_or_a_fault(value: object) -> None:
    try:
        assert 0 <= parse_duration(value) < 10**9
    except ValueError as error:
        assert "must be a duration" in str(error)


# --- credentials.env


def test_an_existing_file_with_older_names_and_exports_works_unchanged(tmp_path: Path) -> None:
    credentials = read(tmp_path, credentials=(
        "# our service\n"
        "export RABBITMQ_HOST=mq.example.org\n"
        "export RABBITMQ_USER=mary\n"
        "export RABBITMQ_PASSWORD='a $HOME `x` \"q\" #1'\n"
        "\n"
        "export RODAN_HOST=service.example.org\n"
        "export RODAN_USER=anna\n"
        'export RODAN_PASSWORD="p # w"\n'
    )).credentials  # fmt: skip

    assert (credentials.rabbitmq_host, credentials.rabbitmq_port, credentials.rabbitmq_tls) == (
        "mq.example.org",
        5671,
        True,
    )
    assert (credentials.api_url, credentials.api_user) == ("https://service.example.org", "anna")
    assert credentials.rabbitmq_password.reveal() == 'a $HOME `x` "q" #1'
    assert credentials.api_password.reveal() == "p # w"


@pytest.mark.parametrize("line", ["RABBITMQ_PASSWORD='a$HOME${USER}'", "RABBITMQ_PASSWORD=a$HOME${USER}"])
def test_a_secret_is_taken_literally(tmp_path: Path, line: str) -> None:
    credentials = read(tmp_path, credentials=f"{without('RABBITMQ_PASSWORD')}{line}\n").credentials

    assert credentials.rabbitmq_password.reveal() == "a$HOME${USER}"


def test_newer_names_win_over_older_ones(tmp_path: Path) -> None:
    credentials = read(tmp_path, credentials=f"RODAN_HOST=old.example.org\n{CREDENTIALS}").credentials

    assert credentials.api_url == "https://api.example.org"


def test_an_empty_newer_name_does_not_hide_an_older_one(tmp_path: Path) -> None:
    text = f"{without('API_URL')}API_URL=\nRODAN_HOST=old.example.org\n"

    assert read(tmp_path, credentials=text).credentials.api_url == "https://old.example.org"


@pytest.mark.parametrize("name", ["RABBITMQ_HOST", "RABBITMQ_USER", "RABBITMQ_PASSWORD", "API_URL", "API_USER",
                                  "API_PASSWORD"])  # fmt: skip
@pytest.mark.parametrize("line", ["", "{}=\n", "{}\n"])
def test_what_is_missing_is_named(tmp_path: Path, name: str, line: str) -> None:
    found = faults(tmp_path, credentials=without(name) + line.format(name))

    assert len(found) == 1 and f"credentials.env: {name} is missing" in found[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601, 0o777])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    (fault,) = faults(tmp_path, mode=mode)

    assert fault == "credentials.env can be read by others. Run: chmod 600 credentials.env"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_only_we_can_read_is_taken(tmp_path: Path, mode: int) -> None:
    assert read(tmp_path, mode=mode).credentials.api_user == "anna"


def test_a_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    site, _ = write_files(tmp_path)

    with pytest.raises(
        Misconfigured, match="gone.env is not there yet. Run: ./check.py init .*copy credentials.env.example"
    ):
        read_config(tmp_path, site, tmp_path / "gone.env")


def test_credentials_that_are_no_text_are_a_fault(tmp_path: Path) -> None:
    site, credentials = write_files(tmp_path)
    credentials.write_bytes(b"API_PASSWORD=canary\xff\n")

    with pytest.raises(Misconfigured, match="credentials.env is not UTF-8 text") as error:
        read_config(tmp_path, site, credentials)
    assert "canary" not in repr(error.value)


@pytest.mark.parametrize(("lines", "tls", "port"), [
    ({}, True, 5671),
    ({"RABBITMQ_TLS": "true"}, True, 5671),
    ({"RABBITMQ_TLS": "TRUE"}, True, 5671),
    ({"RABBITMQ_TLS": "false"}, False, 5672),
    ({"RABBITMQ_PORT": "5672"}, True, 5672),
    ({"RABBITMQ_PORT": "5672", "RABBITMQ_TLS": "false"}, False, 5672),
    ({"RABBITMQ_HOST": "localhost"}, False, 5672),
    ({"RABBITMQ_HOST": "127.0.0.1"}, False, 5672),
    ({"RABBITMQ_HOST": "::1"}, False, 5672),
    ({"RABBITMQ_HOST": "localhost", "RABBITMQ_PORT": "12345"}, False, 12345),
    ({"RABBITMQ_HOST": "localhost", "RABBITMQ_PORT": "5671"}, True, 5671),
    ({"RABBITMQ_HOST": "localhost", "RABBITMQ_TLS": "true"}, True, 5671),
    ({"RABBITMQ_HOST": "localhost.example.org"}, True, 5671),
    ({"RABBITMQ_HOST": "127.0.0.1.example.org"}, True, 5671),
])  # fmt: skip
def test_tls_is_the_default_except_on_this_machine(tmp_path: Path, lines: dict[str, str], tls: bool, port: int) -> None:
    text = CREDENTIALS + "".join(f"{name}={value}\n" for name, value in lines.items())

    credentials = read(tmp_path, credentials=text).credentials

    assert (credentials.rabbitmq_tls, credentials.rabbitmq_port) == (tls, port)


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", "5671.0", "²", "5671 5672"])
def test_a_port_is_a_port_number(tmp_path: Path, port: str) -> None:
    assert faults(tmp_path, credentials=f"{CREDENTIALS}RABBITMQ_PORT={port}\n") == [
        "credentials.env: RABBITMQ_PORT must be a port number"
    ]


@pytest.mark.parametrize(("value", "url"), [
    ("service.example.org", "https://service.example.org"),
    ("service.example.org/", "https://service.example.org"),
    ("https://service.example.org/", "https://service.example.org"),
    ("http://service.example.org", "http://service.example.org"),
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("localhost:8443", "https://localhost:8443"),
    ("https://[::1]:8443", "https://[::1]:8443"),
])  # fmt: skip
def test_plain_http_is_spoken_only_when_asked_for_by_name(tmp_path: Path, value: str, url: str) -> None:
    assert read(tmp_path, credentials=f"{CREDENTIALS}API_URL={value}\n").credentials.api_url == url


@pytest.mark.parametrize("value", [
    "ftp://x", "https://", "https:///x", "https://x/path", "https://x?q=1", "https://x#f", "https://user:word@x", "file:///x",
    "https://[::1", "https://x:port", "https://x:99999",
])  # fmt: skip
def test_what_is_no_scheme_and_host_is_refused(tmp_path: Path, value: str) -> None:
    (fault,) = faults(tmp_path, credentials=f"{CREDENTIALS}API_URL='{value}'\n")

    assert fault == "credentials.env: API_URL must be a scheme and a host, such as https://service.example.org"


def test_nothing_enters_the_process_environment(tmp_path: Path) -> None:
    before = dict(os.environ)

    read(tmp_path)

    assert dict(os.environ) == before


def test_a_secret_is_in_no_text_of_the_configuration(tmp_path: Path) -> None:
    config = read(tmp_path)

    texts = (repr(config), str(config), f"{config}", f"{config.credentials}", str(vars(config.credentials)))
    assert all("<SECRET>" in text and "canary" not in text for text in texts)


def test_faults_hold_no_secret(tmp_path: Path) -> None:
    text = CREDENTIALS.replace("API_URL=https://api.example.org", "API_URL=https://anna:canary@x")

    assert "canary" not in str(faults(tmp_path, credentials=f"{text}RABBITMQ_PORT=canary\nRABBITMQ_TLS=canary\n"))
