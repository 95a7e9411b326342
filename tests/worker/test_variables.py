"""A file of secrets, as people, shells and editors write it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.worker.examples import CREDENTIALS, SITE, read, write_files
from worker.config import read_config
from worker.errors import Misconfigured
from worker.variables import read_lines


def password(folder: Path, line: str) -> str:
    """Of a file that ends with this line."""
    text = "".join(each for each in CREDENTIALS.splitlines(True) if not each.startswith("API_PASSWORD="))
    return read(folder, credentials=f"{text}{line}\n").credentials.api_password.reveal()


def faults(folder: Path, credentials: str) -> list[str]:
    with pytest.raises(Misconfigured) as error:
        read(folder, SITE, credentials)
    return [str(fault) for fault in error.value.faults]


@pytest.mark.parametrize("word", [
    r'"pa\$s"', r'"pa\`s"', r'"pa\\s"', r'"pa\"s"', r'"pa\ns\t"', r'"pa\\\$s"', '"pa#s" # note', r"pa\$s", r"pa\ s\'\"",
    r"'it'\''s'", '"a"b', "'pa'\"ss\"", r"'pa\\s'", r"'pa\s'", "plain", "pa#s", "'a b' ", r"pa\\s # note",
])  # fmt: skip
def test_a_line_with_export_is_read_as_the_shell_does(tmp_path: Path, word: str) -> None:
    line = f"export API_PASSWORD={word}"
    shells = subprocess.run(
        ["/bin/sh", "-c", f'{line}\nprintf "%s" "$API_PASSWORD"'], env={"PATH": os.defpath}, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip

    # dash's own printf takes no escapes in an argument of %s.
    assert password(tmp_path, line) == shells


@pytest.mark.parametrize(("word", "value"), [
    (r'"pa\$s"', "pa$s"), (r"'it\'s'", "it's"), (r"'pa\\s'", r"pa\s"), (r'"it\'s"', "it's"), ("a$HOME`x`", "a$HOME`x`"),
    (r"DOMAIN\anna", r"DOMAIN\anna"), ('pa"ss', 'pa"ss'), (r"'pa\$s'", r"pa\$s"), (r'"a\\\'b"', r"a\'b"),
    (r"'it'\''s'", "it's"),
])  # fmt: skip
def test_without_export_what_only_a_shell_escapes_is_read_as_it_does_and_all_else_as_ever(
    tmp_path: Path, word: str, value: str
) -> None:
    assert password(tmp_path, f"API_PASSWORD={word}") == value


@pytest.mark.parametrize(("lines", "line", "words"), [
    (r"API_PASSWORD=pa\$s", 2, "API_PASSWORD: a shell would read this value otherwise than it stands there"),
    (r"export API_PASSWORD=pa\ s more", 2, "API_PASSWORD: a shell would read this value otherwise than it stands there"),
    ('API_PASSWORD="canary', 2, "API_PASSWORD: is not NAME=VALUE, or a quote is not closed"),
    ('\n\nAPI_PASSWORD="canary\nAPI_URL=x"\n', 4, "API_PASSWORD: is not NAME=VALUE, or a quote is not closed"),
    ("my canary is\n", 2, "the line is not NAME=VALUE, or a quote is not closed"),
])  # fmt: skip
def test_a_line_that_can_not_be_understood_is_named_and_not_shown(
    tmp_path: Path, lines: str, line: int, words: str
) -> None:
    found = faults(tmp_path, f"# a comment\n{lines}\n")

    assert found[0] == f"credentials.env: {words}. Write the value in single quotes, as it is meant (line {line})"
    assert "canary" not in str(found)


@pytest.mark.parametrize(("wrong", "right"), [
    ("RABITMQ_HOST", "RABBITMQ_HOST"), ("RABBITMQ_USERNAME", "RABBITMQ_USER"), ("API_PASS", "API_PASSWORD"),
    ("api_user", "API_USER"),
])  # fmt: skip
def test_a_misspelt_name_is_told_with_the_one_that_is_meant(tmp_path: Path, wrong: str, right: str) -> None:
    (found,) = faults(tmp_path, CREDENTIALS.replace(f"{right}=", f"{wrong}="))

    assert found.startswith(f"credentials.env: unknown name {wrong}, did you mean {right} (") and "(line " in found


def test_so_is_one_that_need_not_be_there(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, f"{CREDENTIALS}RABBITMQ_TSL=false\n")

    assert "unknown name RABBITMQ_TSL, did you mean RABBITMQ_TLS" in found


@pytest.mark.parametrize(
    "line", ["export LANG=C", "RABBITMQ_NODENAME=x", "RABBITMQ_VHOSTS=/\nRABBITMQ_VHOST=/", "S3cret"]
)
def test_what_is_somebody_else_s_does_no_harm(tmp_path: Path, line: str) -> None:
    read(tmp_path, credentials=f"{CREDENTIALS}{line}\n")


def test_a_mark_at_the_beginning_of_either_file_is_no_part_of_it(tmp_path: Path) -> None:
    site, credentials = write_files(tmp_path)
    for file in (site, credentials):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    config = read_config(tmp_path, site, credentials)

    assert config.credentials.rabbitmq_host == "mq.example.org" and config.site.queues[0].name == "hpc-jobs"
    assert next(iter(read_lines(credentials).lines.items())) == ("RABBITMQ_HOST", 1)
