"""Workloads that misbehave, on real Slurm: whatever a program does to its outputs, its folder, its log or its worker, one
true answer comes, and the jobs beside it are not harmed.

The tables come first: a row is what the program does (Python that the probe runs) and what its requester gets.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import psutil
import pytest

from tests.faults.passes import (
    Operator,
    hold_back,
    is_slurm_id,
    job_of,
    let_start,
    program,
    runs,
    slurm_id_of,
    use_python,
    wait_until,
)
from tests.installation import ROOT
from tests.requester import Answer
from tests.scene import Scene
from tests.workloads.probe import output

MADE = output("Result", {"Image": b"a page of music"}, {})
NO_FILE = 'The output "Result" is not a plain file.'
NO_OUTPUT = 'The program did not make the output "Result".'


@dataclass(frozen=True)
class Row:
    """`headers`: what the reply's headers must say; `settings`: what the probe does."""

    what: str
    settings: dict[str, Any]
    outcome: str
    words: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    made: Optional[bytes] = MADE


def after(what: str, code: str, words: str = "", made: Optional[bytes] = MADE) -> Row:
    """Once its outputs are written."""
    outcome = "failed" if words else "succeeded"
    return Row(what, {"after": _SEEN + code}, outcome, words, {} if words else {"exit_code": 0}, made)


def before(what: str, code: str, outcome: str = "succeeded", words: str = "", **headers: Any) -> Row:
    """Before they are written."""
    return Row(what, {"before": _SEEN + code}, outcome, words, headers or ({} if words else {"exit_code": 0}))


_SEEN = "import glob, os, shutil, signal, socket, subprocess, sys, time; made = (glob.glob('outputs/*') or [''])[0]\n"
_AWAY = "os.unlink(made); "
# A process that no session, no group and no parent ties to the program.
_APART = "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  {}\n os._exit(0)\nos.wait()\ntime.sleep(0.5)"
_GROWS = _APART.format(
    "b = open(made, 'ab', buffering=0); ends = time.time() + 30\n"
    "  while time.time() < ends: b.write(b'x' * 4096); time.sleep(0.002)"
)

OUTPUTS = [
    after("an output is a link to another output", "os.rename(made, 'outputs/b'); os.symlink('b', made)", NO_FILE),
    after("an output is a link to an input", _AWAY + "os.symlink(os.path.abspath('job.json'), made)", NO_FILE),
    after("an output is a link to /etc/passwd", _AWAY + "os.symlink('/etc/passwd', made)", NO_FILE),
    after("an output is a link to nothing", _AWAY + "os.symlink('nothing', made)", NO_FILE),
    after("an output is a device", _AWAY + "os.mknod(made, 0o20666, os.makedev(1, 5))", NO_FILE),
    after("an output is a fifo", _AWAY + "os.mkfifo(made)", NO_FILE),
    after("an output is a folder", _AWAY + "os.mkdir(made)", NO_FILE),
    after("an output is a socket", _AWAY + "os.chdir('outputs'); "
          "socket.socket(socket.AF_UNIX).bind(os.path.basename(made))", NO_FILE),
    after("the outputs' folder is a link", "os.rename('outputs', 'b'); os.symlink('b', 'outputs')", NO_FILE),
    after("an output is a hole of 10 GB", "os.truncate(made, 10 << 30)", "The outputs are too large to be sent back"),
    after("an output grows while it is packed", _GROWS, made=None),
    after("an output is a hard link to an input",
          _AWAY + "os.link(glob.glob('inputs/*')[0], made)", "is a hard link to a file outside of the outputs"),
    after("an output is a hard link to another output", "os.link(made, 'outputs/b')"),
    after("other outputs than the declared ones",
          "open(b'outputs/\\xff\\n', 'w').close(); os.mkdir('outputs/more'); os.mkfifo('outputs/fifo')"),
]  # fmt: skip

ENDS = [
    before("a line of 10 MB, and a bad end", "print('y' * 10_000_000 + 'the last word'); sys.exit(3)",
           "failed", "yyythe last word", exit_code=3),
    before("a line of 10 MB, and a good end", "print('y' * 10_000_000)"),
    before("binary garbage and terminal escapes in the log",
           "sys.stdout.buffer.write(bytes(range(256)) * 9 + b'\\x1b[2J\\x1b]0;owned\\x07the end\\n'); "
           "sys.stdout.flush(); sys.exit(4)", "failed", "exit code 4. Its last words:", exit_code=4),
    before("stdout and stderr are closed", "os.close(1); os.close(2)"),
    before("it changes its priority", "os.nice(19)"),
    before("it is killed by SIGKILL", "os.kill(os.getpid(), 9)", "failed", "was ended by the signal SIGKILL", signal=9),
    before("it kills its own process group", "os.killpg(0, 9)", "failed", "was ended by the signal SIGKILL", signal=9),
    before("it sends SIGUSR1 and SIGALRM to the worker",
           "os.kill(os.getppid(), signal.SIGUSR1); os.kill(os.getppid(), signal.SIGALRM)"),
    before("it deletes its inputs before it reads them", "shutil.rmtree('inputs')", "failed", "exit code 1.", exit_code=1),
    before("it deletes job.json", "os.unlink('job.json')"),
]  # fmt: skip
LEFT = [
    after("it deletes its inputs", "shutil.rmtree('inputs')"),
    after("it deletes its work folder", "shutil.rmtree(os.getcwd())", NO_OUTPUT),
    after("it makes its work folder unreadable", "os.chmod('.', 0); os.chmod('outputs', 0)"),
]


def marked(rows: Sequence[Row], moment: str) -> Callable[[Any], Any]:
    """One mark for each row: they run side by side in one test, because most of a job is waiting."""

    def mark(test: Any) -> Any:
        for row in rows:
            test = pytest.mark.fault(what=row.what, moment=moment)(test)
        return test

    return mark


@marked(OUTPUTS, "when its outputs are packed")
@pytest.mark.long(seconds=30)
def test_outputs_that_are_no_plain_files_are_refused_and_all_others_come_as_they_are(
    scene: Scene, tmp_path: Path
) -> None:
    answers = run_side_by_side(scene, OUTPUTS, tmp_path)

    for row in OUTPUTS:
        matches(row, answers[row.what], scene)
    (grown,) = (answers[row.what] for row in OUTPUTS if row.made is None)
    assert len(grown.output("Result")) > len(MADE)
    assert b"root:" not in b"".join(base64.b64decode(a.body.get("Result", "")) for a in answers.values())


@marked(ENDS, "while it runs")
@marked(LEFT, "after its outputs are written")
@pytest.mark.long(seconds=30)
def test_whatever_a_program_does_to_itself_and_its_folder_is_answered_once(scene: Scene, tmp_path: Path) -> None:
    answers = run_side_by_side(scene, ENDS + LEFT, tmp_path)

    for row in ENDS + LEFT:
        matches(row, answers[row.what], scene)
    # Of what was written, the requester gets the end, and the operator all.
    (long_line,) = (
        job_of(scene, answers[row.what].correlation_id) for row in ENDS if row.headers.get("exit_code") == 3
    )
    assert long_line.attempt(1).log.stat().st_size > 10_000_000


def run_side_by_side(scene: Scene, rows: Sequence[Row], records: Path) -> dict[str, Answer]:
    """Each row's job once; what it was answered, by what it does."""
    asked = {row.what: scene.ask(**row.settings, record=str(records / f"{n}.record")) for n, row in enumerate(rows)}
    operator = Operator(scene)

    answers = operator.answers(asked.values(), 150)

    assert "unforeseen" not in operator.log and " ERROR " not in operator.log
    for n, row in enumerate(rows):
        assert (row.what, runs(records / f"{n}.record")) == (row.what, 1)
        archived = f"archived job={job_of(scene, asked[row.what]).id} outcome={row.outcome} "
        assert archived in operator.log
    return {what: answers[correlation_id] for what, correlation_id in asked.items()}


def matches(row: Row, answer: Answer, scene: Scene) -> None:
    told = {name: answer.headers.get(name) for name in ("outcome", "attempt", *row.headers)}
    assert (row.what, told, answer.error) == (
        row.what, {"outcome": row.outcome, "attempt": 1, **row.headers}, answer.error
    )  # fmt: skip
    assert is_slurm_id(answer.headers["slurm_job_id"])
    if row.outcome != "succeeded":
        assert answer.error is not None and row.words in answer.error, (row.what, answer.error)
        assert len(answer.error) < 1000 and answer.error.isprintable(), (row.what, answer.error)
        assert str(scene.installation.folder) not in answer.error and str(ROOT) not in answer.error
        return
    made, facts = answer.output("Result"), answer.headers["outputs"]["Result"]
    assert (row.what, made) == (row.what, made if row.made is None else row.made)
    assert (facts["size"], facts["sha256"]) == (len(made), hashlib.sha256(made).hexdigest())


@pytest.mark.fault(what="a program leaves processes in other sessions", moment="when it ends well")
def test_what_a_program_left_running_is_gone_when_its_job_is_and_the_answer_does_not_wait(
    scene: Scene, tmp_path: Path
) -> None:
    left, record = tmp_path / "left", tmp_path / "record"
    stays = f"open({str(left)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    correlation_id = scene.ask(after=_SEEN + _APART.format(stays), record=str(record))

    answer = Operator(scene).answer(correlation_id)

    assert (answer.headers["outcome"], answer.output("Result")) == ("succeeded", MADE)
    assert runs(record) == 1
    wait_until(lambda: not psutil.pid_exists(int(left.read_text())))


@pytest.mark.parametrize(
    ("number", "outcome", "words"),
    [
        pytest.param(
            "KILL", "failed", "The job ended without leaving a result",
            marks=pytest.mark.fault(what="a program sends SIGKILL to the worker", moment="while it runs"),
        ),
        pytest.param(
            "TERM", "node_failed", "The computer that the job ran on failed",
            marks=pytest.mark.fault(what="a program sends SIGTERM to the worker", moment="while it runs"),
        ),
    ],
)  # fmt: skip
def test_a_program_that_ends_its_worker_gets_an_answer_from_the_login_side(
    scene: Scene, tmp_path: Path, number: str, outcome: str, words: str
) -> None:
    record = tmp_path / "record"
    code = f"{_SEEN}os.kill(os.getppid(), signal.SIG{number}); time.sleep(60)"
    correlation_id = scene.ask(before=code, record=str(record))

    answer = Operator(scene).answer(correlation_id)

    assert (answer.headers["outcome"], answer.headers["attempt"]) == (outcome, 1)
    assert answer.error is not None and words in answer.error
    assert runs(record) == 1


@pytest.mark.fault(what="a program stops its worker with SIGSTOP", moment="while it runs")
@pytest.mark.long(seconds=120)
@pytest.mark.slow
def test_a_worker_that_its_program_froze_is_woken_by_slurm_at_the_limit_and_tells_the_truth(
    scene: Scene, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    code = f"{_SEEN}os.kill(os.getppid(), signal.SIGSTOP); time.sleep(600)"
    correlation_id = scene.ask(before=code, record=str(record), **{"Maximum time (D-HH:MM)": "0-00:01"})

    answer = Operator(scene).answer(correlation_id, 240)

    assert answer.headers["outcome"] == "timed_out"
    assert answer.error == "The job reached its time limit of 1 min and was stopped. Ask for more time."
    assert runs(record) == 1


@pytest.mark.parametrize(
    "above",
    [
        pytest.param(
            "'..'",
            marks=pytest.mark.fault(what="a program deletes what is in ..", moment="after its outputs are written"),
        ),
        pytest.param(
            "os.path.dirname(os.getcwd())",
            marks=pytest.mark.fault(
                what="a program deletes its attempt's folder", moment="after its outputs are written"
            ),
        ),
    ],
)
def test_a_program_that_deletes_the_facts_about_it_runs_once_and_is_answered(
    scene: Scene, tmp_path: Path, above: str
) -> None:
    record = tmp_path / "record"
    correlation_id = scene.ask(after=f"{_SEEN}shutil.rmtree({above}, ignore_errors=True)", record=str(record))

    answer = Operator(scene).answer(correlation_id, 40)

    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
    assert runs(record) == 1


@pytest.mark.fault(what="an output can't be read by its own user", moment="when its outputs are packed")
def test_an_output_that_may_not_be_read_is_named(scene: Scene, tmp_path: Path) -> None:
    no_root = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable]
    use_python(scene, program(tmp_path / "python", no_root))
    correlation_id = scene.ask(after=f"{_SEEN}os.chmod(made, 0)")

    answer = Operator(scene).answer(correlation_id)

    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("failed", 1)
    assert answer.error is not None and '"Result"' in answer.error


@pytest.mark.fault(what="100,000 files", moment="while it runs")
@pytest.mark.long(seconds=60)
@pytest.mark.slow
def test_100_000_files_in_the_work_folder_are_removed_and_the_answer_is_the_output(
    scene: Scene, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    code = f"{_SEEN}for n in range(100_000): open(f'tmp/{{n}}', 'w').close()"
    correlation_id = scene.ask(before=code, record=str(record))

    answer = Operator(scene).answer(correlation_id, 240)

    assert (answer.headers["outcome"], answer.output("Result")) == ("succeeded", MADE)
    assert not job_of(scene, correlation_id).attempt(1).work.exists()
    assert runs(record) == 1


# --- the installation itself changes under its jobs


class Checkout:
    """A copy of the code that an installation runs from, to be replaced by another version."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("worker", "scheduler", "slurm", "tests/workloads"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "check.py", place / "check.py")

    def upgrade(self) -> None:
        """Another version takes its place, as `git pull` or a new folder under the old name does it: modules have other
        names, facts have more to say, and nothing of the old code is left."""
        self.place.rename(self.place.with_name("old"))
        Checkout(self.place)
        shutil.rmtree(self.place.with_name("old"))
        self._rename("worker/in_job/pack.py", "worker/in_job/packing.py", "from .pack import", "from .packing import")
        self._rename(
            "worker/deliveries/message.py",
            "worker/deliveries/one.py",
            "deliveries.message import",
            "deliveries.one import",
        )
        facts, after = self.place / "worker" / "job" / "facts.py", "\n\n@dataclass(frozen=True)\nclass Submission:"
        assert after in facts.read_text()
        facts.write_text(facts.read_text().replace(after, f'    made_by: str = "the new version"\n{after}'))

    def _rename(self, old: str, new: str, words: str, new_words: str) -> None:
        (self.place / old).rename(self.place / new)
        users = [file for file in self.place.rglob("*.py") if words in file.read_text()]
        assert users, f"nobody says {words}"
        for file in users:
            file.write_text(file.read_text().replace(words, new_words))


@pytest.fixture
def checkout(odd_folder: Path) -> Checkout:
    return Checkout(odd_folder / "checkout")


class OtherCheckout(Operator):
    """Passes of that copy."""

    def __init__(self, scene: Scene, checkout: Checkout) -> None:
        super().__init__(scene)
        self._check = checkout.place / "check.py"

    def command(self, through: Sequence[str] = ()) -> list[str]:
        return [str(self._check) if word == str(ROOT / "check.py") else word for word in super().command(through)]


@pytest.mark.fault(what="the installation is upgraded", moment="while jobs wait in Slurm")
def test_a_job_that_the_old_version_submitted_runs_with_the_new_one(
    scene: Scene, checkout: Checkout, tmp_path: Path
) -> None:
    operator, record = OtherCheckout(scene, checkout), tmp_path / "record"
    hold_back(scene)
    correlation_id = scene.ask(record=str(record))
    operator.one_pass()
    slurm_id = slurm_id_of(scene, correlation_id)

    checkout.upgrade()
    let_start(scene, correlation_id)

    answer = operator.answer(correlation_id)
    assert (answer.headers["outcome"], answer.headers["slurm_job_id"]) == ("succeeded", slurm_id)
    assert (answer.output("Result"), runs(record)) == (MADE, 1)


@pytest.mark.fault(what="the installation is upgraded", moment="while a job runs")
def test_a_job_whose_code_is_replaced_while_it_runs_is_answered_once(
    scene: Scene, checkout: Checkout, tmp_path: Path
) -> None:
    operator, record = OtherCheckout(scene, checkout), tmp_path / "record"
    correlation_id = scene.ask(sleep=4, record=str(record))
    operator.one_pass()
    wait_until(record.exists)

    checkout.upgrade()

    answer = operator.answer(correlation_id)
    assert (answer.headers["outcome"], answer.headers["attempt"]) == ("succeeded", 1)
    assert (answer.output("Result"), runs(record)) == (MADE, 1)
