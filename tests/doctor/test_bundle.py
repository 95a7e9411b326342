"""The support archive says what helps, and holds no secret, in whatever form one was planted."""

from __future__ import annotations

import base64
import json
import os
import stat
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.worker.examples import CREDENTIALS, SITE, write_files
from worker.config import read_config
from worker.doctor.bundle import write_bundle
from worker.doctor.hider import Hider
from worker.doctor.report import Finding
from worker.doctor.subject import Subject, read_subject

PASSWORD, API, TOKEN, KEY = 'kühe & "Quark"/7', "api-canary's", "9f8e7d6c5b4a39281706", "workload-canary-1234"


def planted(folder: Path) -> Subject:
    """An installation whose files are full of secrets."""
    credentials = CREDENTIALS.replace("mq-canary", f"'{PASSWORD}'").replace("api-canary", f'"{API}"')
    site = SITE.replace('argv = ["/bin/true"]', f'argv = ["/bin/true"]\nenvironment = {{ KEY = "{KEY}" }}')
    site += '\n[workloads.second]\nargv = ["/bin/true"]\nforms = [{ required = ["A"], outputs = { "B" = "" } }]\n'
    site += f'[workloads.second.environment]\nOTHER = "{KEY}"\n# password = {API}\n'
    files = write_files(folder, site, credentials)
    read_config(folder, *files)
    attempt = folder / "jobs" / "active" / "0a1b" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "token").write_text(TOKEN)
    (folder / "logs").mkdir()
    lines = [
        "2026-11-21 10:00:00 INFO    claimed job=0a1b", f"Authorization: Token {TOKEN}", f"said {PASSWORD!r}",
        f"amqp://mary:{quote(PASSWORD)}@mq.example.org", json.dumps({"password": PASSWORD, "x": API}),
        base64.b64encode(f"mary:{PASSWORD}".encode()).decode(), "Authorization: Bearer unknown-canary-12345",
        "https://anna:unknown-canary-12345@api.example.org/x", "api_key=unknown-canary-12345",
        f"form username=anna&password={quote(API, safe='')}",
    ]  # fmt: skip
    (folder / "logs" / "run_check.log").write_text("\n".join(lines) + "\n")
    return read_subject(folder, *files, "")


def archive(folder: Path) -> dict[str, str]:
    subject = planted(folder)
    found = [Finding("broker", "login", "fault", f"the broker said {PASSWORD} to https://u:{API}@host", "Mend it.")]

    names = write_bundle(folder / "support.tar.gz", subject, found, "0.0")

    texts = opened(folder)
    assert sorted(texts) == sorted(names)
    return texts


def opened(folder: Path) -> dict[str, str]:
    texts = {}
    with tarfile.open(folder / "support.tar.gz") as archived:
        for member in archived.getmembers():
            content = archived.extractfile(member)
            assert content is not None
            texts[member.name.partition("/")[2]] = content.read().decode()
    return texts


def test_no_planted_secret_is_in_it(tmp_path: Path) -> None:
    texts = archive(tmp_path)

    forms = [secret for plain in (PASSWORD, API) for secret in (
        plain, quote(plain), quote(plain, safe=""), json.dumps(plain)[1:-1], base64.b64encode(plain.encode()).decode()[:8],
    )]  # fmt: skip
    forms += [TOKEN, KEY, "unknown-canary", base64.b64encode(f"mary:{PASSWORD}".encode()).decode()[8:20]]
    assert [(name, form) for name, text in texts.items() for form in forms if form in text] == []


def test_it_says_what_helps(tmp_path: Path) -> None:
    texts = archive(tmp_path)

    assert json.loads(texts["doctor.json"])[0]["found"].startswith("the broker said <SECRET> to https://")
    assert "claimed job=0a1b" in texts["run_check.log"]
    assert 'name = "hpc-jobs"' in texts["site.toml"] and "max_memory_mb = 257000" in texts["site.toml"]
    assert "RABBITMQ_HOST=mq.example.org" in texts["credentials.txt"]
    assert "RABBITMQ_PASSWORD=<SECRET>" in texts["credentials.txt"]
    assert "batchferry 0.0" in texts["versions.txt"] and "pika " in texts["versions.txt"]
    assert "active 1" in texts["jobs.txt"]


def test_it_is_ours_alone_and_never_replaces_a_file(tmp_path: Path) -> None:
    archive(tmp_path)
    target = tmp_path / "support.tar.gz"
    before = target.read_bytes()

    with pytest.raises(FileExistsError):
        write_bundle(target, read_subject(tmp_path, tmp_path / "site.toml", tmp_path / "credentials.env", ""), [], "0")

    assert stat.S_IMODE(target.stat().st_mode) == 0o600 and target.read_bytes() == before


def test_it_is_made_of_an_installation_whose_files_are_broken(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "site.toml").write_text(f"[broken\npassword = {API}\n")
    os.chmod(tmp_path / "credentials.env", 0o644)

    subject = read_subject(tmp_path, tmp_path / "site.toml", tmp_path / "credentials.env", "")
    write_bundle(tmp_path / "support.tar.gz", subject, [], "0.0")

    content = "".join(opened(tmp_path).values())
    assert "[broken" in content and API not in content and PASSWORD not in content


@pytest.mark.parametrize("text", [
    "claimed job=bbd927a4cc35773223477c15bfd72038 queue=demo-jobs", "tokens are removed after fetch", "max_wait = \"7d\"",
    "https://service.example.org/uploads/page.png", "the token expires in a job",
])  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert Hider(["canary"])(text) == text


@pytest.mark.parametrize("line", [
    "RABBITMQ_PASSWORD: canary-77", "canary-77", "RABBITMQ_PASSWORD='canary-77", "export API_PASSWORD=canary-77",
    "# API_PASSWORD=canary-77", 'API_PASSWORD="first\ncanary-77"', "API_URL=https://anna:canary-77@api.example.org",
    "MY_OWN=canary-77", "API_PASSWORD=canary-77 # mine",
])  # fmt: skip
def test_a_secret_of_a_credentials_file_with_a_slip_is_hidden(tmp_path: Path, line: str) -> None:
    files = write_files(tmp_path, SITE, f"RABBITMQ_HOST=mq.example.org\n{line}\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run_check.log").write_text("said canary-77 and went\n")

    write_bundle(tmp_path / "support.tar.gz", read_subject(tmp_path, *files, ""), [], "0.0")

    assert not [name for name, text in opened(tmp_path).items() if "canary-77" in text]


def test_a_secret_that_the_beginning_of_the_log_cuts_in_half_is_left_out(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run_check.log").write_text("said mq-canary and went\n" + "x" * 199_983 + "\n")

    write_bundle(tmp_path / "support.tar.gz", read_subject(tmp_path, *files, ""), [], "0.0")

    assert opened(tmp_path)["run_check.log"].startswith("xxxx")


def test_a_log_that_is_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs" / "run_check.log")

    write_bundle(tmp_path / "support.tar.gz", read_subject(tmp_path, *files, ""), [], "0.0")

    assert len(opened(tmp_path)["run_check.log"]) < 100


@pytest.mark.parametrize("said", [
    "tool --api-token canary-9", "tool '--password' 'canary-9'", "Proxy-Authorization: Basic canary-9xyz",
    "-----BEGIN RSA PRIVATE KEY-----\ncanary-9\n-----END RSA PRIVATE KEY-----", "amqp://u:p@canary-9@host/",
    "Set-Cookie: canary-9",
])  # fmt: skip
def test_what_looks_like_a_secret_is_hidden_though_nobody_knows_it(said: str) -> None:
    assert "canary-9" not in Hider([])(said)


@pytest.mark.parametrize("written", ["&lt;a&amp;b&#x27;c&gt;", "%3ca%26b%27c%3e", "3C61266227633E"])
def test_a_secret_is_found_in_the_ways_in_which_others_write_it(written: str) -> None:
    assert Hider(["<a&b'c>"])(f"said {written}!") == "said <SECRET>!"
