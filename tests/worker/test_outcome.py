"""What a job came to, and what a requester may see of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.job.outcome import Output, Result, failure_body, headers, readable_tail


def test_headers_hold_what_is_known_and_nothing_else() -> None:
    result = Result("failed", 2, "words", exit_code=3, slurm_job_id="7", started_at=10.9, ended_at=20.1, node="n1")

    assert headers(result, "abc") == {
        "job_id": "abc", "outcome": "failed", "attempt": 2, "slurm_job_id": "7", "exit_code": 3, "started_at": 10,
        "ended_at": 20, "outputs": {},
    }  # fmt: skip


def test_an_exit_code_of_zero_is_a_fact() -> None:
    result = Result("succeeded", 1, exit_code=0, outputs={"Model 0": Output(3, "aa")})

    assert headers(result, "abc") == {
        "job_id": "abc", "outcome": "succeeded", "attempt": 1, "exit_code": 0,
        "outputs": {"Model 0": {"size": 3, "sha256": "aa"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", "x" * 255, "x" * 256, "ä" * 128, "x" + "ä" * 127, "x" + "ä" * 128, "\U0001f600" * 64]
)
def test_a_header_s_name_fits_into_a_short_string(name: str) -> None:
    (short,) = headers(Result("succeeded", 1, outputs={name: Output(1, "")}), "abc")["outputs"]

    assert len(short.encode()) <= 255 and name.startswith(short) and len(short) >= min(len(name), 63)


def test_very_many_outputs_are_only_counted_in_the_head_of_an_answer_which_is_one_frame() -> None:
    several = {f"output {number}": Output(1, "a" * 64, "image/png") for number in range(300)}
    many = {f"output {number}": Output(1, "a" * 64, "image/png") for number in range(1000)}

    assert len(headers(Result("succeeded", 1, outputs=several), "abc")["outputs"]) == 300
    told = headers(Result("succeeded", 1, outputs=many), "abc")
    assert "outputs" not in told and told["outputs_untold"] == 1000
    alike = {f"{'x' * 300}{number}": Output(1, "") for number in range(2)}
    assert headers(Result("succeeded", 1, outputs=alike), "abc")["outputs_untold"] == 2


def test_a_failure_is_one_sentence_under_the_key_error() -> None:
    assert json.loads(failure_body(Result("failed", 1, "It broke."))) == {"error": "It broke."}


def test_a_later_attempt_says_which_it_was_and_what_came_before() -> None:
    earlier = [Result("failed", 1, step="fetch"), Result("out_of_memory", 2)]

    body = json.loads(failure_body(Result("failed", 3, "It broke."), earlier))

    assert body == {"error": "It broke. (This was attempt 3; before: failed to fetch, out of memory.)"}
    assert headers(Result("succeeded", 3), "abc", earlier)["earlier_attempts"] == ["failed", "out_of_memory"]


def test_an_end_without_a_sentence_still_says_something() -> None:
    assert json.loads(failure_body(Result("node_failed", 1))) == {"error": "node failed"}


# --- the last lines of a program

TRACEBACK = """\
loading
Traceback (most recent call last):
  File "/home/mary/work/train.py", line 12, in <module>
    main()
    ~~~~^^
  File "/home/mary/work/train.py", line 5, in main
    open("/scratch/mary/model.h5")
FileNotFoundError: [Errno 2] No such file or directory: '/scratch/mary/model.h5'
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/home/mary/work/train.py", line 3, in <module>
  |     raise ExceptionGroup("several", faults)
  | ExceptionGroup: several (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: the image is empty
    +------------------------------------
"""


def test_of_a_traceback_only_the_words_at_its_end_are_told() -> None:
    assert readable_tail(TRACEBACK) == "loading / FileNotFoundError: [Errno 2] No such file or directory: 'model.h5'"


def test_of_a_group_of_exceptions_the_frames_are_not_told() -> None:
    tail = readable_tail(GROUP)

    assert "ValueError: the image is empty" in tail
    assert "train.py" not in tail and "Traceback" not in tail


@pytest.mark.parametrize(("line", "told"), [
    ("can't open /home/mary/a.txt now", "can't open a.txt now"),
    ("PATH=/home/mary/bin:/usr/local/bin", "PATH=bin:bin"),
    ("config:/home/mary/c.toml", "config:c.toml"),
    ("see file:///home/mary/c.toml", "see c.toml"),
    ("//home//mary//c.toml", "c.toml"),
    ("(/home/mary/)", "()"),
    ("/scratch is full", "scratch is full"),
    ("'/home/mary/a b.txt'", "'a b.txt'"),
    ("/home/mary/été/x.py:3: warning", "x.py:3: warning"),
    ("and/or 1/2 n/a 3 / 4", "and/or 1/2 n/a 3 / 4"),
    ("see https://example.org/help/faq.html", "see https://example.org/help/faq.html"),
    ("relative a/b/c ./d/e ../f", "relative a/b/c ./d/e ../f"),
])  # fmt: skip
def test_no_path_of_the_cluster_is_told(line: str, told: str) -> None:
    assert readable_tail(line) == told


def test_only_the_last_lines_are_told() -> None:
    assert readable_tail("\n\n".join("abcdefgh"), lines=3) == "f / g / h"


def test_a_long_tail_is_cut_at_its_beginning() -> None:
    tail = readable_tail("x" * 1000 + "end")

    assert tail.startswith("...x") and tail.endswith("end") and len(tail) == 603


@given(st.text(max_size=3000))
def test_a_tail_is_one_short_printable_line(text: str) -> None:
    tail = readable_tail(text)

    assert tail.isprintable() and len(tail) <= 603
