"""The report of a jobs folder with a known past: its numbers are those of the past, and the page is whole and proper HTML."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.installation import ROOT
from tests.report.past import DAY, Job, Past, busy_weeks
from tests.worker.examples import config_for
from worker.folder.batches import Pool
from worker.folder.facts import JobFolder, site_fault_of
from worker.folder.jobs import JobsFolder
from worker.folder.paths import make_folder
from worker.folder.snapshot import read_facts
from worker.job.facts import SiteFault
from worker.job.snapshot import JobFacts
from worker.login import tally
from worker.operate import report
from worker.settings import Config


def options(**more: Any) -> argparse.Namespace:
    known = {"output": None, "mode": 0o600, "days": 14, "jobs": 1000, "offline": True, "json": False}
    return argparse.Namespace(**{**known, **more})


@pytest.fixture
def config(odd_folder: Path) -> Config:
    return config_for(odd_folder)


@pytest.fixture
def jobs(config: Config) -> JobsFolder:
    return JobsFolder(config.site.jobs_dir)


def told(config: Config, capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    assert report.run(config, options(json=True, **more)) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def written(config: Config, **more: Any) -> str:
    assert report.run(config, options(**more)) == 0
    return (more.get("output") or config.site.jobs_dir / "report.html").read_text(encoding="utf-8")


# --- the numbers


def test_jobs_are_told_by_day_outcome_cause_and_node(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    past = Past(jobs)
    for _ in range(12):
        past.add(Job())
    past.add(Job(outcome="failed", step="run", exit_code=3, reason="no staff lines", node="bad", earlier=("failed",)))
    past.add(Job(outcome="rejected", place="rejected", reason="no such workload", workload=""))
    past.add(Job(outcome="rejected", place="rejected", ago=30 * DAY))
    past.add_active(Job(node="n1"), progress="epoch 6/15")
    past.count()

    said = told(config, capsys)

    looked, (day,) = said["looked"], [i for i, each in enumerate(said["days"]) if len(each["outcomes"]) > 1]
    assert day >= 12 and said["days"][day]["outcomes"] == {"succeeded": 12, "failed": 1, "rejected": 1}
    assert (looked["jobs"], looked["kept"], looked["unreadable"]) == (14, 14, 0)
    assert [(each["cause"], each["jobs"]) for each in looked["causes"]] == [
        ("failed in run, exit code 3", 1),
        ("rejected", 1),
    ]
    assert looked["nodes"] == [{"node": "bad", "attempts": 2, "failed": 2}]
    (usage,) = looked["usage"]
    assert (usage["jobs"], usage["memory"]["asked"], usage["memory"]["needed"]) == (13, 16000, 1100)
    assert (usage["memory"]["enough"], usage["time"]["enough"], usage["memory"]["covers"]) == (1500, 600, 12)
    assert said["site_lines"] == [], "nothing of it was site.toml's"
    assert [(each["cause"], each["whose"]) for each in looked["causes"]] == [
        ("failed in run, exit code 3", "requester"), ("rejected", "requester"),
    ]  # fmt: skip
    assert looked["waits"][day]["queue"]["median"] == pytest.approx(20, abs=1)
    assert looked["waits"][day]["slurm"]["p90"] == pytest.approx(120, abs=1)
    (row,) = said["now"]["jobs"]
    assert (row["state"], row["node"], row["progress"], row["progress_words"]) == ("running", "n1", 0.4, "epoch 6/15")


def test_the_last_jobs_are_shown_with_their_timelines_the_latest_first(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    past = Past(jobs)
    made = [past.add(Job(ago=ago)).id for ago in (50, 10, 3 * DAY, 400)]
    lost = past.add(Job(ago=200, place="undelivered")).id

    recent = told(config, capsys)["recent"]

    assert [each["past"]["job"] for each in recent] == [made[1], made[0], lost, made[3], made[2]]
    assert [each["place"] for each in recent] == ["done", "done", "undelivered", "done", "done"]
    assert [event["what"] for event in recent[0]["timeline"]][:4] == ["sent", "claimed", "understood", "sbatch"]


def test_each_job_s_life_is_told_from_its_message_to_its_answer(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    Past(jobs).add(Job(queued=20, waited=120, ran=300))

    (job,) = told(config, capsys)["recent"]

    life = [(each["step"], round(each["seconds"])) for each in job["past"]["life"]]
    assert life[0][0] == "wait" and 140 <= life[0][1] <= 146, "in the queue, and in Slurm"
    assert life[1:4] == [("fetch", 2), ("run", 296), ("pack", 1)] and life[4][0] == "answer"


def test_a_job_that_a_cause_names_is_on_the_page_however_long_ago_it_was(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(jobs)
    failed = past.add(Job(outcome="failed", step="run", exit_code=3, ago=5 * DAY)).id
    for number in range(4):
        past.add(Job(ago=number))
    monkeypatch.setattr(report, "_RECENT", 2)

    assert [each["past"]["job"] for each in told(config, capsys)["examples"]] == [failed]
    page = written(config)
    assert f'href="#j-{failed}"' in page and f'id="j-{failed}"' in page


def test_what_site_toml_gives_is_set_against_what_its_jobs_needed(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    past = Past(jobs)
    for _ in range(12):
        past.add(Job(queue="hpc-jobs", asked_mb=8000, asked_seconds=7200))
    past.add(Job(queue="hpc-jobs", outcome="out_of_memory", asked_mb=500, asks=True))

    said = told(config, capsys)

    assert said["site_lines"] == [
        '# below name = "hpc-jobs"',
        "[queues.resources]",
        "memory_mb = 1500  # 8000 now; this would have covered 12 of 12 jobs",
        'time = "10min"  # "2h" now; this would have covered 12 of 12 jobs',
    ]
    assert [each["whose"] for each in said["looked"]["causes"]] == ["requester"]


def test_it_begins_with_whether_all_is_well(config: Config, jobs: JobsFolder) -> None:
    past = Past(jobs)
    assert "<h1>No pass has run yet.</h1>" in written(config)
    past.pass_ended(ago=30)
    assert "<h1>All is well, as far as the files tell.</h1>" in written(config)
    site_fault_of(jobs).write(SiteFault("slurm", "squeue: Unable to contact slurm controller", past.now - 7200))

    page = written(config)

    assert re.search(r"<h1>Slurm has been away since <time [^>]*>[^<]+</time>\.</h1>", page)
    assert "Unable to contact slurm controller" in page


def test_no_more_jobs_are_opened_than_allowed_and_the_page_says_so(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(jobs)
    for number in range(60):
        past.add(Job(ago=number / 10 * DAY))
    opened: list[JobFolder] = []

    def noted(job: JobFolder) -> Optional[JobFacts]:
        opened.append(job)
        return read_facts(job)

    monkeypatch.setattr("worker.operate.report.read_facts", noted)
    monkeypatch.setattr(report, "_RECENT", 5)

    looked = told(config, capsys, jobs=21)["looked"]

    assert (looked["jobs"], looked["kept"]) == (21, 60)
    assert len(opened) == 26
    days = [each["slurm"]["count"] for each in looked["waits"] if each["slurm"]]
    assert len(days) >= 6 and max(days) <= 5, "not all of them from one day"
    assert "of 21 jobs that were opened, chosen at random from the 60 that are kept" in written(config, jobs=21)


def test_a_job_that_can_not_be_read_is_counted_and_hides_no_other(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    past = Past(jobs)
    past.add(Job())
    past.add(Job()).outcome.path.write_text("{")
    past.add(Job()).message.path.unlink()

    looked = told(config, capsys)["looked"]

    assert (looked["jobs"], looked["unreadable"], looked["kept"]) == (1, 2, 3)
    assert "2 could not be read" in written(config)


def test_what_pilots_did_is_counted_too_and_the_names_of_their_batches_tell_of_what_no_pass_has_counted(
    config: Config, jobs: JobsFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = Pool(jobs, "hpc-jobs")
    pool.prepare()
    day = told(config, capsys)["days"][-1]["day"]
    for name in ("a.240.8.2", "b.100.0.0", "no batch", ".c.9.9.9"):
        make_folder(pool.done / day / name)
    make_folder(pool.todo / "d.250")
    tally.write(jobs.tally, tally.Tally(days={day: {"succeeded": 240, "timed_out": 8}}))

    said = told(config, capsys)

    assert said["days"][-1]["outcomes"] == {"succeeded": 240, "timed_out": 8, "unknown": 100}
    assert said["now"]["pilots"][0]["todo"] == 250
    assert "those done by pilots are not among them" in written(config)


def test_a_folder_without_any_job_makes_a_page_too(config: Config, jobs: JobsFolder) -> None:
    jobs.prepare()

    page = written(config)

    assert "No job is in flight." in page and "No job ended in these 14 days." in page and "<figure" not in page


# --- the file


def test_the_file_is_its_owner_s_alone_unless_a_mode_is_given_and_replaces_the_one_before(
    config: Config, jobs: JobsFolder, tmp_path: Path
) -> None:
    busy_weeks(jobs, count=5)
    output = tmp_path / "page.html"
    output.write_text("before")
    before = output.stat().st_ino

    written(config, output=output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600 and output.stat().st_ino != before
    written(config, output=output, mode=0o644)

    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) != [] and not list(tmp_path.glob(".page*")), "nothing is left aside"


def test_a_file_that_can_not_be_written_is_named_and_leaves_nothing(
    config: Config, jobs: JobsFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.prepare()
    (tmp_path / "taken").mkdir()

    for output in (tmp_path / "nowhere" / "page.html", tmp_path / "taken"):
        assert report.run(config, options(output=output)) == os.EX_CANTCREAT
        assert f"{output} can't be written" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("parse", "text"), [
    (report._mode, "9"), (report._mode, "rw"), (report._mode, "1777"), (report._mode, "0"), (report._count, "0"),
    (report._count, "-1"), (report._count, "many"), (report._count, "²"),
])  # fmt: skip
def test_a_bad_number_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        parse(text)


# --- the page


class Elements(HTMLParser):
    """Every element with its attributes and those it stands in."""

    VOID = ("meta", "rect", "circle", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Optional[str]], tuple[str, ...]]] = []
        self.words: list[tuple[tuple[str, ...], str]] = []
        self._inside: list[str] = []
        self.feed(text)
        assert not self._inside, "every element that was opened is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self._inside)))
        if tag not in self.VOID:
            self._inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self._inside)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((tuple(self._inside), data))

    def of(self, tag: str) -> Iterator[dict[str, Optional[str]]]:
        return (attributes for name, attributes, _ in self.found if name == tag)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = config_for(tmp_path_factory.mktemp("page"))
    jobs = JobsFolder(config.site.jobs_dir)
    make_folder(Pool(jobs, "hpc-jobs").done / "2026-11-20" / "a.240.8.2")
    busy_weeks(jobs, count=120)
    return written(config)


def test_the_page_has_no_script_and_leads_nowhere(page: str) -> None:
    elements = Elements(page)

    assert not {tag for tag, _, _ in elements.found} & {
        "script", "img", "iframe", "object", "embed", "link", "base", "form", "input", "use", "image", "foreignobject"
    }  # fmt: skip
    for tag, attributes, _ in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "xlink:href")], tag
    ids = {attributes["id"] for _, attributes, _ in elements.found if "id" in attributes}
    assert {attributes["href"] for attributes in elements.of("a")} <= {f"#{name}" for name in ids}
    assert not re.findall(r"https?://[^\s\"<]+", page)
    assert not re.search(r"url\((?!#)|@import|@font-face", page)


def test_its_policy_lets_nothing_in_but_its_own_style_sheet(page: str) -> None:
    (policy,) = [a["content"] for a in Elements(page).of("meta") if a.get("http-equiv") == "Content-Security-Policy"]

    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'", policy or ""
    )


def test_a_screen_reader_finds_its_way(page: str) -> None:
    elements = Elements(page)
    tags = [tag for tag, _, _ in elements.found]
    headings = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    ids = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]

    assert next(elements.of("html"))["lang"] == "en"
    assert headings[0] == 1 and headings.count(1) == 1 and all(b - a <= 1 for a, b in zip(headings, headings[1:]))
    assert {"header", "main", "nav", "footer"} <= set(tags)
    assert len(ids) == len(set(ids))
    assert tags.count("table") == tags.count("caption") > 5
    assert all(attributes.get("scope") in ("col", "row") for attributes in elements.of("th"))
    assert tags.count("figure") == tags.count("figcaption") == 3
    assert {attributes["aria-labelledby"] for attributes in elements.of("figure")} <= set(ids)
    assert all(attributes.get("aria-hidden") == "true" for attributes in elements.of("svg")), "the table tells the same"
    first_link = next(elements.of("a"))
    assert first_link["class"] == "skip" and first_link["href"] == "#main"


def test_each_chart_s_numbers_are_in_a_table_too(page: str) -> None:
    svgs, tables = page.count('class="plot"'), page.count("<summary>The same as a table</summary>")

    assert (svgs, tables) == (3, 3)
    assert all("aria-hidden" in each for each in Elements(page).of("svg")), "bars have their numbers beside them"


def test_a_cell_tells_its_column_where_the_table_folds(page: str) -> None:
    assert all(attributes.get("data-label") for attributes in Elements(page).of("td"))


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", css))


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_letters_and_bars_can_be_told_from_what_is_behind_them_by_day_and_by_night() -> None:
    bright, _, dark = (ROOT / "worker" / "operate" / "report.css").read_text().partition("prefers-color-scheme: dark")

    for palette in (colours(bright), {**colours(bright), **colours(dark.partition("\n}")[0])}):
        for behind in ("back", "card"):
            for letters in ("text", "soft", "link", "bad", "good"):
                assert contrast(palette[letters], palette[behind]) >= 4.5, (letters, behind, palette)
            for bar in ("c0", "c1", "c2", "c3", "c4", "c5", "asked"):
                assert contrast(palette[bar], palette[behind]) >= 3, (bar, behind, palette)
        for behind in ("warn", "alarm", "calm"):
            assert contrast(palette["text"], palette[behind]) >= 4.5, (behind, palette)
        for bar in ("c1", "c4"):
            assert contrast(palette[bar], palette["track"]) >= 3, (bar, palette)
    assert colours(bright) and set(colours(dark)) == set(colours(bright))
