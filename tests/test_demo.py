"""run_demo with a site's own RabbitMQ and Slurm: the whole chain, or at once a sentence that says what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import __main__ as demo
from demo import setting
from demo.beside import as_lines, taken_over
from slurm.survey import Survey
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Play = Callable[..., tuple[int, str]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Play]:
    """Returns the exit status and all that is shown; a page stands in for the workload's own."""
    (tmp_path / ".demo").mkdir()
    page = tmp_path / "workload" / "lib" / "python3.x" / "site-packages" / "skimage" / "data" / "page.png"
    page.parent.mkdir(parents=True)
    page.write_bytes(b"")
    monkeypatch.setattr(setting, "FOLDER", tmp_path / ".demo")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def with_words(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["run_demo", *words])
        if not next(setting._ENVIRONMENT.glob("lib/python3*/site-packages/skimage/data/page.png"), None):
            monkeypatch.setattr(setting, "_ENVIRONMENT", tmp_path / "workload")
        return demo.main(), "".join(capfd.readouterr())

    yield with_words
    for number, handler in before.items():
        signal.signal(number, handler)


def credentials(folder: Path, **lines: object) -> str:
    file = folder / "credentials.env"
    file.write_text("".join(f"RABBITMQ_{name.upper()}={value}\n" for name, value in lines.items()))
    return str(file)


def test_without_a_slurm_that_answers_it_says_so_before_anything_else(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("slurm.cluster._STANDARD_PATH", str(tmp_path))

    code, said = play("--slurm")

    assert code == os.EX_UNAVAILABLE
    assert said.startswith("run_demo: --slurm needs a Slurm that answers here: ") and said.count("\n") == 1, said


def test_a_broker_that_is_not_there_is_a_sentence(play: Play, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        file = credentials(tmp_path, host="127.0.0.1", port=port, user="me", password="x")

        code, said = play("--credentials", file)

    assert code == os.EX_UNAVAILABLE
    assert "run_demo: the broker can't be reached or refused: " in said and "Traceback" not in said


def test_a_file_that_lacks_something_is_told_in_the_doctor_s_words(play: Play, tmp_path: Path) -> None:
    code, said = play("--credentials", credentials(tmp_path, host="mq"))

    assert code == os.EX_CONFIG
    assert "run_demo: credentials.env: RABBITMQ_USER is missing (our user there)\n" in said


def test_a_wrong_password_is_a_sentence(play: Play, tmp_path: Path, rabbitmq: Broker) -> None:
    file = credentials(tmp_path, host=rabbitmq.host, port=rabbitmq.port, user=rabbitmq.user, password="wrong")

    code, said = play("--credentials", file)

    assert code == os.EX_UNAVAILABLE
    assert "run_demo: the broker refuses our user or password" in said and "Correct RABBITMQ_USER" in said


def test_how_to_use_slurm_is_taken_over_from_the_site_file_beside_the_credentials(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        'jobs_dir = "j"\nca_file = "/ca.pem"\n[slurm]\npartition = "odd \\"one"\nextra_options = ["--qos=x"]\n'
    )

    site = taken_over(tmp_path / "credentials.env")

    slurm = {"partition": 'odd "one', "extra_options": ["--qos=x"]}
    assert tomllib.loads(as_lines(site)) == site == {"ca_file": "/ca.pem", "slurm": slurm}
    assert taken_over(tmp_path / "elsewhere" / "credentials.env") == {}


@pytest.mark.parametrize(("line", "host"), [
    ("SlurmctldHost[0]        = login1(10.0.0.7)", "10.0.0.7"), ("SlurmctldHost[0] = login1", "login1"), ("", ""),
])  # fmt: skip
def test_the_controller_is_where_slurm_s_configuration_says(
    monkeypatch: pytest.MonkeyPatch, line: str, host: str
) -> None:
    monkeypatch.setattr(
        Survey, "_ask", lambda self, argv: f"SelectType = select/cons_tres\n{line}\nSlurmUser = slurm\n"
    )

    assert Survey().controller() == host


@pytest.mark.long(seconds=20)
@pytest.mark.skipif(not (setting._ENVIRONMENT / "bin" / "python").exists(), reason="the workload has no packages here")
def test_the_whole_chain_on_the_real_slurm_and_rabbitmq(
    play: Play, tmp_path: Path, rabbitmq: Broker, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "site.toml").write_text(f'python = "{sys.executable}"\n[slurm]\npartition = "main"\n')
    file = credentials(tmp_path, host=rabbitmq.host, port=rabbitmq.port, user=rabbitmq.user, password=rabbitmq.password)

    code, said = play("--slurm", "--credentials", file)

    assert code == 0, said
    assert "outcome=succeeded" in said and "before and after, side by side" in said
