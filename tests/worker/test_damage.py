"""Whatever is damaged, and however: it is left alone and reported with its whole path, and everything else goes on."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.damage import OF_A_FILE, OF_A_FOLDER, OF_A_NAME
from tests.worker.busy import Busy
from worker.doctor import disk
from worker.doctor.report import Report
from worker.doctor.subject import Subject
from worker.errors import Damaged
from worker.folder.records import Fact
from worker.job.facts import Group, Origin, Started
from worker.job.spec import JobSpec
from worker.login import metrics, resend, tally
from worker.operate import explain, pilots, places, report, show, status

pytestmark = pytest.mark.unhurried

ITSELF = {"installation.json": (os.EX_CANTCREAT,), "lease.json": (os.EX_OK, os.EX_TEMPFAIL)}
"""Files of which no pass may be sure: it does nothing, and says what to do."""
MAY_STOP_ALL = ("active", "done", "rejected", "undelivered", "groups")
"""Folders without which nothing can be claimed."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    return Busy(tmp_path_factory.mktemp("busy") / "site")


def every(busy: Busy, some: list[Path], turn: int, of: int) -> Iterator[Path]:
    """A part of them, another one for each damage; over all damages, each one several times."""
    for number, path in enumerate(some):
        if (number + turn) % of == 0:
            yield path
            busy.restore()


def check_a_pass(busy: Busy, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    busy.broker.ask(name="the next one")
    before = len(busy.cluster.jobs)

    code = busy.guarded_pass()

    assert not [record for record in caplog.records if record.exc_info], f"{path}: {caplog.text}"
    if path.name in ITSELF:
        assert code in ITSELF[path.name], f"{path}: {caplog.text}"
        return
    assert code in (os.EX_OK, os.EX_DATAERR), f"{path}: {code} {caplog.text}"
    waits = (
        path.parts[0] == "pilots" and len(path.parts) < 4 and code == os.EX_DATAERR
    )  # its queue is the place to wait
    assert waits or len(busy.cluster.jobs) > before, f"{path}: the next job was not submitted\n{caplog.text}"
    if code == os.EX_DATAERR:
        told = caplog.text.replace("\\'", "'")
        assert str(busy.jobs.path) in told and path.name in told, f"{path}: {told}"


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_one_damaged_file_stops_no_other_job(busy: Busy, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    busy.restore()
    for path in every(busy, busy.files(), list(OF_A_FILE).index(damage), of=4):
        OF_A_FILE[damage](busy.jobs.path / path)

        check_a_pass(busy, path, caplog)


@pytest.mark.parametrize("damage", OF_A_FOLDER)
def test_something_else_in_a_folder_s_place_stops_no_other_job(
    busy: Busy, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    busy.restore()
    folders = [path for path in busy.folders() if str(path) not in MAY_STOP_ALL]
    for path in every(busy, folders, list(OF_A_FOLDER).index(damage), of=2):
        OF_A_FOLDER[damage](busy.jobs.path / path)

        check_a_pass(busy, path, caplog)


@pytest.mark.parametrize("lost", range(4))
def test_one_lost_file_stops_no_other_job(busy: Busy, caplog: pytest.LogCaptureFixture, lost: int) -> None:
    busy.restore()
    for path in every(busy, [each for each in busy.files() if each.name not in ITSELF], lost, of=4):
        (busy.jobs.path / path).unlink()

        check_a_pass(busy, path, caplog)


Keys = tuple[object, ...]
NAMES: tuple[tuple[str, Keys], ...] = (
    ("intent.json", ("group",)),
    ("intent.json", ("name",)),
    ("submission.json", ("slurm_id",)),
    ("spec.json", ("outputs", "Model 0")),
    ("spec.json", ("inputs", "Image", "file")),
    ("outcome.json", ("reply",)),
    ("outcome.json", ("outcome",)),
    ("result.json", ("outcome",)),
    ("result.json", ("step",)),
    ("ended.json", ("end",)),
    ("cancel.json", ("outcome",)),
)
"""Of which a path, a name in Slurm or a word of a command line is made; each pass reads them."""
IN_A_WORD = ("a path upwards", "a path from the root", "an option", "a dot")
"""Harmless behind the name of an option."""
READ_LATER: tuple[tuple[str, Keys, Any, tuple[str, ...]], ...] = (
    ("groups/*.json", ("members", "0", 0), Group, ()),
    ("active/*/origin.json", ("of",), Origin, ()),
    ("pilots/crew/*/attempts/1/started.json", ("slurm_id",), Started, ("nothing",)),
    ("active/*/spec.json", ("resources", "gres"), JobSpec, IN_A_WORD),
    ("active/*/spec.json", ("resources", "email"), JobSpec, IN_A_WORD),
)
MAY_BE_EMPTY = ("step",)


def words_in(value: Any, above: Keys = ()) -> Iterator[Keys]:
    """Where in a fact a text stands."""
    if isinstance(value, str):
        yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from words_in(each, (*above, key))


def put(path: Path, keys: Keys, word: str) -> None:
    """The file's time stays: it is a fact too."""
    fact, times = json.loads(path.read_text()), path.stat()
    inner = fact
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = word
    path.write_text(json.dumps(fact))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


class Ways:
    """Which paths this process uses that lead elsewhere (audit hooks are never removed)."""

    def __init__(self) -> None:
        self.used: list[str] = []
        self.watching = False
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.watching and event.partition(".")[0] in ("open", "os", "shutil"):
            self.used += [f"{event} {each}" for each in map(str, arguments) if "elsewhere" in each]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        self.used, self.watching = [], True
        try:
            yield
        finally:
            self.watching = False


@pytest.fixture(scope="module")
def ways() -> Ways:
    return Ways()


@pytest.mark.parametrize("hostile", OF_A_NAME)
def test_no_name_in_a_fact_leads_elsewhere(
    busy: Busy, ways: Ways, caplog: pytest.LogCaptureFixture, hostile: str
) -> None:
    busy.restore()
    word, turn = OF_A_NAME[hostile], list(OF_A_NAME).index(hostile)
    facts = [path for path in busy.files() if path.suffix == ".json" and path.name not in ITSELF]
    kinds = {
        (path.name, keys): path for path in facts for keys in words_in(json.loads((busy.jobs.path / path).read_text()))
    }
    for (_, keys), path in list(kinds.items())[turn :: len(OF_A_NAME)]:
        put(busy.jobs.path / path, keys, word)

        with ways.watched():
            check_a_pass(busy, path, caplog)

        assert not ways.used, f"{path} {keys}: {ways.used}"
        busy.restore()


@pytest.mark.parametrize("hostile", OF_A_NAME)
def test_a_fact_with_a_name_that_is_none_is_named_and_left_alone(
    busy: Busy, ways: Ways, caplog: pytest.LogCaptureFixture, hostile: str
) -> None:
    word = OF_A_NAME[hostile]
    for name, keys in NAMES:
        if word == "" and keys[-1] in MAY_BE_EMPTY:
            continue
        busy.restore()
        path = max(busy.jobs.active.rglob(name), key=is_about_to_be_put_away)
        put(path, keys, word)
        damaged = path.read_bytes()

        with ways.watched():
            code = busy.guarded_pass()

        assert not ways.used, f"{path} {keys}: {ways.used}"
        assert code == os.EX_DATAERR, f"{path} {keys}: {caplog.text}"
        assert str(path) in caplog.text
        assert path.read_bytes() == damaged
        caplog.clear()


def is_about_to_be_put_away(path: Path) -> bool:
    """Then all its files are used."""
    return any((above / "delivered.json").exists() for above in path.parents)


@pytest.mark.parametrize("hostile", OF_A_NAME)
def test_a_name_that_is_none_is_found_where_its_fact_is_read(busy: Busy, hostile: str) -> None:
    word = OF_A_NAME[hostile]
    for pattern, keys, kind, allowed in READ_LATER:
        busy.restore()
        path = next(busy.jobs.path.glob(pattern))
        assert Fact(path, kind).read() is not None
        put(path, keys, word)

        if hostile in allowed:
            continue
        with pytest.raises(Damaged, match=re.escape(str(path))):
            Fact(path, kind).read()


@pytest.mark.parametrize(
    "changed",
    [{"attempt": 2}, {"outcome": "succeeded", "body": ""}],
    ids=["of another attempt", "a success without its reply"],
)
def test_a_result_that_can_t_be_of_its_attempt_is_left_alone(
    busy: Busy, caplog: pytest.LogCaptureFixture, changed: dict[str, Any]
) -> None:
    busy.restore()
    job = next(busy.jobs.active.glob("*/unroutable.json")).parent
    (job / "outcome.json").unlink()
    path = job / "attempts/1/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    assert busy.guarded_pass() == os.EX_DATAERR

    assert f"{path} is not what was written there" in caplog.text


def said(verb: object, *words: str) -> Callable[[Busy], int]:
    def run(busy: Busy) -> int:
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser)  # type: ignore[attr-defined]
        for option in ("--json", "--dry-run"):
            with contextlib.suppress(argparse.ArgumentError):
                parser.add_argument(option, action="store_true")
        return int(verb.run(busy.config, parser.parse_args([*words, "--json"])))  # type: ignore[attr-defined]

    return run


def of_each_job(verb: object) -> Callable[[Busy], int]:
    def run(busy: Busy) -> int:
        names = [*places.names(busy.jobs.active), *(f"{number:032x}" for number in range(1, 7))]
        return max(said(verb, name, "--offline")(busy) for name in names)

    return run


def wrote_metrics(busy: Busy) -> int:
    metrics.write(busy.jobs.path.parent / "metrics.prom", busy.jobs, tally.read(busy.jobs.tally), 0, 1.0)
    return 0


def doctor(busy: Busy) -> int:
    files = (busy.config.root, busy.config.site_file, busy.config.credentials_file)
    disk.look_at_jobs_folder(Report("jobs folder"), Subject(*files, site=busy.config.site, credentials=None))
    return 0


def resend_shown(busy: Busy) -> int:
    return resend.resend(busy.config, [], everything=False, dry_run=True, in_json=False)


VERBS: dict[str, Callable[[Busy], int]] = {
    "resend": resend_shown,
    "status": said(status, "--offline"),
    "status of the done": said(status, "--offline", "--state", "done", "--outcome", "failed"),
    "pilots": said(pilots),
    "pilots, those in error": said(pilots, "--list", "error"),
    "pilots, those locked": said(pilots, "--list", "locked"),
    "pilots, those ended": said(pilots, "--list", "ended"),
    "report": said(report, "--offline"),
    "show": of_each_job(show),
    "explain": of_each_job(explain),
    "metrics": wrote_metrics,
    "doctor": doctor,
}


@pytest.mark.parametrize("part", range(5))
def test_what_people_ask_is_answered_whatever_is_damaged(
    busy: Busy, capsys: pytest.CaptureFixture[str], part: int
) -> None:
    busy.restore()
    damages, others = list(OF_A_FILE.items()), list(OF_A_FOLDER.items())
    kinds = [(path, *damages[number % len(damages)]) for number, path in enumerate(busy.files())]
    kinds += [(path, *others[number % len(others)]) for number, path in enumerate(busy.folders())]
    wrong = []
    for path, name, damage in kinds[part::5]:
        damage(busy.jobs.path / path)
        for verb, run in VERBS.items():
            try:
                code = run(busy)
            except Exception as error:  # noqa: BLE001  # all of them are told
                wrong.append(f"{verb}, {path}, {name}: {error!r}")
            else:
                if code not in (os.EX_OK, os.EX_DATAERR):
                    wrong.append(f"{verb}, {path}, {name}: exit code {code}")
            capsys.readouterr()
        busy.restore_one(path)
    assert not wrong, "\n".join(wrong)
