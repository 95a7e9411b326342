"""The report in a real browser, with a past that is as hostile as it can be: nothing runs, nothing is asked for, it fits."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing_told
from tests.report import reader
from tests.report.past import Job, Past, busy_weeks
from tests.services.present import require
from tests.worker.examples import SPEC, config_for
from worker.folder.facts import site_fault_of
from worker.folder.jobs import JobsFolder
from worker.job.facts import NotTaken, SiteFault
from worker.operate import page, report
from worker.settings import Config

pytestmark = pytest.mark.services

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")  # fmt: skip
ONE_PAGE = ("--enable-logging=stderr", "--virtual-time-budget=5000")
"""For a browser that opens one page and ends; one that is asked about its page would end before it has answered."""


class Site:
    """Serves what is put into `pages`, and notes what is asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                text = site.pages.get(self.path)
                self.send_response(200 if text is not None else 404)
                self.send_header("Content-Type", "text/html")  # the charset is the page's own to say
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Browser:
    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.said = ""
        """What it printed, messages of the page's console among it."""

    def open(self, address: str, *flags: str) -> str:
        """The page's elements, as HTML, once everything has been loaded and run."""
        argv = [self._program, *FLAGS, *ONE_PAGE, *flags, f"--user-data-dir={self._folder}", "--dump-dom", address]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
        self.said = done.stderr
        return done.stdout

    def tree(self, address: str, width: int) -> list[reader.Node]:
        """What a screen reader is given."""
        return reader.tree(self._program, FLAGS, self._folder, address, width)


@pytest.fixture
def browser(pytestconfig: pytest.Config, tmp_path: Path) -> Browser:
    with missing_told(pytestconfig):
        return Browser(require("A browser", {"chromium": "chromium"})["chromium"], tmp_path / "browser")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def payloads(address: str) -> list[str]:
    run = "document.title='it ran'"
    return [
        f"</script><script>{run}</script>",
        f'"><img src={address}/canary onerror="{run}">',
        f"<svg/onload={run}><image href={address}/canary></svg>",
        f"</style><style>@import url({address}/canary);body{{background:url({address}/canary)}}",
        f"</title><link rel=stylesheet href={address}/canary><base href={address}/canary/>",
        f"]]><iframe src=\"javascript:{run}\"></iframe><a href='javascript:{run}'>here</a>",
        f"{{{{ 7*7 }}}}{{% for x in y %}}<object data={address}/canary>",
        "\u202egnp.exe\u2066\u200f\x00\x1b[2J\x9b31m\ud800",
        "&lt;b&gt;&#60;script&#62;",
        "x" * 3000,
    ]


def hostile_past(config: Config, words: list[str]) -> None:
    """Each of these words wherever a message, a program, a node or an operator may have a say."""
    past = Past(JobsFolder(config.site.jobs_dir))
    for word in words:
        everywhere = Job(workload=word, reason=word, node=word, correlation_id=word, queue=word)
        for outcome in ("succeeded", "failed"):
            past.add(replace(everywhere, outcome=outcome))
        past.add(replace(everywhere, outcome=word[:200], step=word))  # words that are ours alone: damage
        past.add(replace(everywhere, outcome="rejected", place="rejected"))
        past.add(replace(everywhere, place="undelivered"))
        active = past.add_active(everywhere, progress=word)
        past.add_active(everywhere).unroutable.write(NotTaken(1.0, word, 1, 2.0))
        assert active.spec.path.exists() and SPEC.workload
    past.count()
    site_fault_of(past.jobs).write(SiteFault(words[1], words[0], 1.0))


@pytest.fixture
def hostile(site: Site, odd_folder: Path) -> str:
    """The page, as it is served."""
    config = config_for(odd_folder)
    hostile_past(config, [word.encode("utf-8", "replace").decode() for word in payloads(site.address)])
    made = page.page(report.gather(config, 14, 1000, offline=True))
    site.pages["/report.html"] = made
    return made


@pytest.mark.long(seconds=20)
def test_nothing_of_a_hostile_past_runs_or_is_asked_for(browser: Browser, site: Site, hostile: str) -> None:
    dom = browser.open(f"{site.address}/report.html")

    assert set(site.asked) <= {"/report.html", "/favicon.ico"}
    assert "<title>Batchferry" in dom and "it ran</title>" not in dom
    assert not re.search(r"<(script|img|iframe|object|link|base|image)\b", dom)
    assert not re.findall(r'<[^>]*\s(?:on\w+|style)=(?=")', re.sub(r'="[^"]*"', '=""', dom))
    assert "Content Security Policy" not in browser.said, (
        "its own style sheet is let in, and nothing has to be kept out"
    )
    assert "&lt;/script&gt;&lt;script&gt;document.title" in dom and "{{ 7*7 }}" in dom
    assert not set("\u202e\u2066\u200f\x00\x1b\x9b") & set(dom)
    assert dom.count("<figure") == 3


@pytest.mark.long(seconds=10)
def test_the_same_words_would_run_in_a_page_that_took_them_as_they_are(browser: Browser, site: Site) -> None:
    for number, word in enumerate(payloads(site.address)[:2]):
        site.pages[f"/{number}.html"] = f"<!doctype html><title>t</title><p>{word}"

        assert "<title>it ran</title>" in browser.open(f"{site.address}/{number}.html")
    assert "/canary" in site.asked


@pytest.mark.long(seconds=10)
def test_its_policy_would_keep_out_what_came_through_all_the_same(browser: Browser, site: Site, hostile: str) -> None:
    through = "".join(payloads(site.address)[:7])
    site.pages["/through.html"] = hostile.replace("</main>", f"{through}</main>")

    dom = browser.open(f"{site.address}/through.html")

    assert "<title>Batchferry" in dom and "/canary" not in site.asked
    assert "Content Security Policy" in browser.said


MEASURE = """\
<!doctype html><title>not measured</title>
<iframe id="f" src="/report.html" width="{width}" height="800"></iframe>
<script>
f.onload = () => {{
  const page = f.contentDocument;
  for (const each of page.querySelectorAll('details')) each.open = true;
  const root = page.documentElement, body = f.contentWindow.getComputedStyle(page.body);
  const skip = page.querySelector('.skip'), far = skip.getBoundingClientRect().right;
  skip.focus();
  const near = skip.getBoundingClientRect().left, job = page.querySelector('.job summary');
  job.focus({{focusVisible: true}});
  document.title = JSON.stringify({{
    width: root.scrollWidth, room: root.clientWidth, back: body.backgroundColor, far: far, near: near,
    outline: f.contentWindow.getComputedStyle(job).outlineStyle,
    letters: Math.min(...[...page.querySelectorAll('.plot text')].map(
      t => parseFloat(f.contentWindow.getComputedStyle(t).fontSize) * t.getScreenCTM().a)),
    rows: page.querySelector('td').getBoundingClientRect().width,
    filled: [...page.querySelectorAll('.plot')].map(p => p.getBoundingClientRect().width / p.parentNode.clientWidth),
    labels: [...page.querySelectorAll('.plot')].map(p => [...p.querySelectorAll('text')].map(
      t => t.getBoundingClientRect()).filter(r => r.width).map(r => [r.left, r.top, r.right, r.bottom])),
    inside: [...page.querySelectorAll('.plot text')].every(t => t.getBoundingClientRect().right <= f.clientWidth),
  }});
}};
</script>
"""


def measured(browser: Browser, site: Site, width: int, *flags: str) -> dict[str, Any]:
    site.pages["/measure.html"] = MEASURE.format(width=width)
    dom = browser.open(f"{site.address}/measure.html", *flags)
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    told: dict[str, Any] = json.loads(title[1])
    return told


@pytest.mark.long(seconds=20)
@pytest.mark.parametrize("width", [1280, 800, 360, 320])
def test_it_fits_into_a_screen_without_scrolling_sideways(
    browser: Browser, site: Site, hostile: str, width: int
) -> None:
    found = measured(browser, site, width)

    assert found["width"] <= found["room"] <= width
    assert found["letters"] >= 9
    assert (found["rows"] > 200) == (width < 700), "where it is narrow, a cell is a line of its own"


def test_labels_are_few_and_none_touches_another_and_charts_fill_their_width(
    browser: Browser, site: Site, odd_folder: Path
) -> None:
    config = config_for(odd_folder)
    busy_weeks(JobsFolder(config.site.jobs_dir), count=60, days=30)
    site.pages["/report.html"] = page.page(report.gather(config, 30, 1000, offline=True))

    for width in (390, 1400):
        found = measured(browser, site, width)

        assert len(found["labels"]) == 3 and found["inside"] and min(found["filled"]) > 0.75
        for labels in found["labels"]:
            assert 5 <= len(labels) <= 13
            for one, other in itertools.combinations(labels, 2):
                apart = one[2] + 4 <= other[0] or other[2] + 4 <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, (width, one, other)


def test_a_link_to_a_job_opens_its_timeline(browser: Browser, site: Site, odd_folder: Path) -> None:
    config = config_for(odd_folder)
    failed = Past(JobsFolder(config.site.jobs_dir)).add(Job(outcome="failed", step="run", exit_code=3)).id
    site.pages["/report.html"] = page.page(report.gather(config, 14, 1000, offline=True))

    assert browser.open(f"{site.address}/report.html").count('<details class="job" open') == 0
    assert '<details class="job" open' in browser.open(f"{site.address}/report.html#j-{failed}")


@pytest.mark.parametrize("width", [390, 1400])
def test_a_screen_reader_is_given_headings_tables_with_their_headers_and_names_for_links(
    browser: Browser, site: Site, odd_folder: Path, width: int
) -> None:
    config = config_for(odd_folder)
    busy_weeks(JobsFolder(config.site.jobs_dir), count=60)
    site.pages["/report.html"] = page.page(report.gather(config, 14, 1000, offline=True))

    given = browser.tree(f"{site.address}/report.html", width)

    headings = [name for role, name in given if role == "heading"]
    assert headings[0] == "1 answer could not be delivered." and {"Failures", "In flight", "Jobs"} <= set(headings)
    headers = [name for role, name in given if role == "columnheader"]
    assert headers[:3] == ["Job", "State", "For"], "also where a narrow screen folds the table"
    assert any(role == "table" and name.startswith("Active jobs") for role, name in given)
    links = [name for role, name in given if role == "link"]
    assert links[0] == "Skip to the content" and any(name.startswith("Timeline of job ") for name in links)
    assert all(name for role, name in given if role in ("link", "heading", "table", "region", "figure"))
    assert {"banner", "navigation", "main", "contentinfo"} <= {role for role, _ in given}


@pytest.mark.long(seconds=10)
def test_it_is_dark_where_the_reader_s_screen_is(browser: Browser, site: Site, hostile: str) -> None:
    bright = measured(browser, site, 800, "--blink-settings=preferredColorScheme=1")
    dark = measured(browser, site, 800, "--blink-settings=preferredColorScheme=0")

    assert (bright["back"], dark["back"]) == ("rgb(245, 246, 248)", "rgb(20, 23, 27)")


@pytest.mark.long(seconds=10)
def test_by_keyboard_the_focus_is_seen_and_the_first_link_skips_to_the_content(
    browser: Browser, site: Site, hostile: str
) -> None:
    found = measured(browser, site, 800)

    assert found["far"] <= 0 <= found["near"] and found["outline"] == "solid"
