"""site.toml in the support archive: whatever the spelling, no secret of it is there or in the texts beside it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from worker.doctor.hider import Hider
from worker.doctor.site_shown import site_as_shown

CANARY = "canary-5f4e/9d+8A"
SPELLINGS = [
    'argv = ["/bin/true", "--token=@@"]',
    'argv = ["/bin/true", "--token", "@@"]',
    'argv = ["/bin/true", "@@"]',
    'argv = ["env", "TOKEN=@@", "/bin/true"]',
    'argv = ["TOKEN=@@"]',
    'argv = ["/bin/true", "-p@@"]',
    'argv = ["/bin/true", "-p", "@@"]',
    'argv = ["/bin/true", "--url=https://u:@@@host/x"]',
    "argv = ['/bin/true', 'https://u:@@@h/x']",
    "argv = ['sh', '-c', 'curl -H \"X-Key: @@\" https://h']",
    'argv = [\n  "/bin/true",\n  # a comment\n  "@@",\n]',
    'argv = ["/bin/true", """\n{"token":\n"@@"}"""]',
    'prefix = ["bwrap", "--setenv", "KEY", "@@"]',
    "prefix = ['''\n@@''']",
    'environment = { A = "@@" }',
    'environment.A = "@@"',
    '"environment".A = "@@"',
    'environment = "A=@@"',
    '[workloads.w.environment]\nA = "@@"',
    "[workloads.\"w\".'environment']\nA = '''\n@@'''",
    '[workloads.w.environment]\nA = "-----BEGIN KEY-----\\n@@\\n-----END KEY-----"',
    'pasword = "@@"',
    '[slurm]\nextra_options = ["--export=ALL,TOKEN=@@"]',
    '[slurm]\nextra_options = ["--comment=@@", "--qos=short"]',
    '[slurm]\npassword = "@@"',
    '[api]\ninput_hosts = ["http://u:@@@files.internal"]',
    '[api]\ninput_hosts = ["https://files.internal/?sig=@@"]',
    '[made.up]\nkey = [{ a = ["@@"] }]',
    '[[queues]]\nname = "q"\narguments = { "x-token" = "@@" }',
]
"""@@ stands for the secret."""


@pytest.mark.parametrize("line", SPELLINGS)
def test_a_secret_is_hidden_there_and_in_the_log_however_it_is_written(line: str) -> None:
    shown, secrets = site_as_shown("[workloads.w]\n" + line.replace("@@", CANARY))

    encoded = base64.b64encode(f"u:{CANARY}".encode()).decode()
    text = Hider(secrets)(f"{shown}\nran: tool {CANARY} x\n{json.dumps([CANARY])} {quote(CANARY, safe='')} {encoded}")
    assert [form for form in (CANARY, "9d+8A", quote(CANARY, safe=""), encoded[8:20]) if form in text] == []


def test_a_comment_is_left_out() -> None:
    shown, _ = site_as_shown("[slurm]\n# password = canary-12\n#account = 'canary-12'\n")

    assert "canary-12" not in shown


@pytest.mark.parametrize("broken", ['argv = ["a", "canary-12"\n', 'x = "canary-12"\na = """\n', "password = canary-12"])
def test_of_a_file_that_can_not_be_read_only_names_are_shown(broken: str) -> None:
    shown, secrets = site_as_shown(f'[slurm]\naccount = "sesame"\n{broken}')

    assert "[slurm] # line 1" in shown and "account = <SECRET> # line 2" in shown
    assert "sesame" not in shown and "canary-12" not in shown
    assert "sesame" in secrets and ("canary-12" in secrets or '"' not in broken)


def test_what_helps_stays() -> None:
    shown, secrets = site_as_shown(
        """max_in_flight = 7
[slurm]
extra_options = ["--qos=short", "--constraint=a100&nvlink"]
[workloads.w]
argv = ["{python}", "{root}/w/run.py", "--threads", "4", "--config=/etc/w.toml", "{job}"]
environment = { OMP_NUM_THREADS = "4", LD_LIBRARY_PATH = "/opt/cuda/lib64:/opt/lib" }
[[workloads.w.forms]]
required = ["Page"]
outputs = { "Clean Page" = ".png" }
"""
    )

    for line in (
        "max_in_flight = 7",
        'extra_options = ["--qos=short", "--constraint=a100&nvlink"]',
        'argv = ["{python}", "{root}/w/run.py", "--threads", "4", "--config=/etc/w.toml", "{job}"]',
        "[workloads.w.environment]",
        'OMP_NUM_THREADS = "<SECRET>"',
        "[[workloads.w.forms]]",
        '"Clean Page" = ".png"',
    ):
        assert line in shown
    assert secrets == set()


@pytest.mark.parametrize(("url", "as_shown"), [
    ("https://files.internal:8080/a", "https://files.internal:8080/a"), ("https://u:p@h/a", "https://<SECRET>@h/a"),
    ("https://u:p?q@h/a", "https://<SECRET>@h/a"), ("https://u:p@q/r@h", "https://<SECRET>@h"),
    ("https://h/a?sig=abcdefgh", "https://h/a?<SECRET>"),
])  # fmt: skip
def test_of_an_address_neither_the_login_nor_the_query_is_shown(url: str, as_shown: str) -> None:
    shown, _ = site_as_shown(f'[api]\ninput_hosts = ["{url}"]')

    assert f'input_hosts = ["{as_shown}"]' in shown
