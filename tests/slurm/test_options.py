"""What a site may add to sbatch's options: not what undoes ours, however it is written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scheduler import BatchRequest
from slurm import options
from slurm.commands import sbatch
from slurm.options import refusal, value_of
from tests.services.slurm import SlurmCluster

LETTERS = {name: letter for letter, name in options._LETTERS.items()}
WITHOUT_VALUE = {"help", "hold", "no-requeue", "parsable", "quiet", "requeue", "test-only", "usage", "version", "wait"}


@pytest.mark.parametrize("name", sorted(options._OURS))
def test_an_option_that_undoes_ours_is_refused_in_each_spelling(name: str) -> None:
    spellings = [f"--{name}=x", f"--{name}", *(f"-{letter}x" for letter in [LETTERS.get(name)] if letter)]
    shorter = [name[:length] for length in range(2, len(name))]
    for beginning in shorter:
        exact = beginning in options._VALUED or beginning in options._FLAGS or beginning in options._OURS
        spellings += [] if exact else [f"--{beginning}", f"--{beginning}=x"]

    for word in spellings:
        assert refusal(word, {}), word


@pytest.mark.parametrize(("word", "name"), [
    ("--clusters=other", "clusters"), ("-Mother", "clusters"), ("--clus=x", "clusters"), ("--cluster=x", "clusters"),
    ("-Jmine", "job-name"), ("--job=x", "job-name"), ("-a0-3", "array"), ("-t10", "time"), ("--tim=1", "time"),
    ("-QW", "quiet"), ("-vW", "wait"), ("-OH", "hold"), ("-vvQ", "quiet"), ("--mem=1G", "mem"), ("-n2", "ntasks"),
    ("-N2", "nodes"), ("--wrap=ls", "wrap"), ("-o/tmp/x", "output"), ("-M", "clusters"), ("--hol", "hold"),
])  # fmt: skip
def test_the_refusal_names_what_it_stands_for(word: str, name: str) -> None:
    said = refusal(word, {})

    assert said and said.startswith(f"--{name} would undo")


@pytest.mark.parametrize("word", [
    "--qos=short", "-qshort", "--constraint=a&b", "-Ca|b", "--reservation=x", "--exclude=n1", "-xn1", "-wn[1-3]", "-pfast",
    "--partition=fast", "-Amine", "--account=mine", "--exclusive", "--exclusive=user", "--nice=10", "--nice", "-s", "-O",
    "--licenses=a:1", "-La:1", "--export=NONE", "--mail-type=FAIL", "--gres=scratch:10", "--comment=-M x --hold",
    "--comment=--clusters=x", "-LM", "-CM", "-qH", "--tmp=10G", "--wckey=a", "--no-kill", "-k", "--new-option-of-27",
    "--mincpus=4", "--cluster-constraint=a", "--mem-bind=local", "--ntasks-per-node=1", "--wait-all-nodes=1",
])  # fmt: skip
def test_other_options_are_a_site_s_own_business(word: str) -> None:
    assert refusal(word, {}) is None


@pytest.mark.parametrize("word", ["", "-", "--", "qos", "qos=short", ":", "script.sh"])
def test_what_is_no_option_is_refused(word: str) -> None:
    assert refusal(word, {}) == 'each must be one word such as "--qos=short"'


@pytest.mark.parametrize("word", ["--qos", "-q", "--constraint", "-Op", "--part", "--comment"])
def test_an_option_without_its_value_would_take_our_next_word_for_it(word: str) -> None:
    said = refusal(word, {})

    assert said and "needs its value in the same word" in said


def test_further_names_may_be_taken_at_a_site() -> None:
    taken = {"partition": "set partition in [slurm] alone"}

    assert [bool(refusal(word, taken)) for word in ("-pfast", "--partition=x", "--parti=x", "--qos=x")] == [
        True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("words", "value"), [
    ((), ""), (("--qos=x",), ""), (("--partition=a",), "a"), (("-pa,b",), "a,b"), (("--part=a", "-pb"), "b"),
])  # fmt: skip
def test_what_an_option_says_can_be_read(words: tuple[str, ...], value: str) -> None:
    assert value_of("partition", words) == value


def test_every_option_of_our_own_is_one_that_a_site_cannot_undo() -> None:
    request = BatchRequest("n", "s", [], "/", "/o", 1, 1, 1, 1, gres="gpu:1", email="a@b", elements=[0, 1])
    mail = ("--mail-user=", "--mail-type=")  # the last one holds, and that is ours

    for word in sbatch(request, None, None, (), at_a_time=1)[1:-1]:
        taken = {"gres": "instead"}
        assert refusal(word, taken) or word.startswith(mail), word


def test_sbatch_knows_no_option_that_we_do_not(tmp_path: Path, slurm: SlurmCluster) -> None:
    """So that an abbreviation stands for the same here and there."""
    done = subprocess.run(
        ["sbatch", "--help"], env=slurm.environment(), capture_output=True, text=True, check=True, timeout=300
    )

    told = set(re.findall(r"(?m)^  (?:-\w,? +|    ) ?--([a-z-]+)", done.stdout))
    letters = dict(re.findall(r"(?m)^  -(\w),? +--([a-z-]+)", done.stdout))

    assert len(told) > 70 and told <= {*options._OURS, *options._VALUED, *options._FLAGS}
    assert letters.items() <= options._LETTERS.items()
