"""A site without any broker: jobs come from a folder of files, and answers go into it; on one machine, end to end."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.scene import IMAGE
from tests.services.upstream import Upstream
from tests.test_alone import NO_RABBITMQ
from tests.worker.in_job.own_job import require_sandbox
from tests.workloads.probe import output

pytestmark = pytest.mark.unhurried

RESULT = output("Result", {"Image": b"a page of music"}, {})
CREDENTIALS = "API_URL={}\nAPI_USER={}\nAPI_PASSWORD={}\n"


class Spooled:
    def __init__(self, folder: Path, upstream: Upstream) -> None:
        upstream.add(IMAGE, b"a page of music")
        self.folder = folder / "spool"
        self.installation = Installation(
            folder, NO_RABBITMQ, upstream.url, upstream.user, upstream.password, {"PATH": "/usr/bin:/bin"}, "jobs"
        )
        site = self.installation.site_file
        site.write_text('scheduler = "local"\n' + site.read_text())
        where = f'source = "spool"\nfolder = {json.dumps(str(self.folder))}\n'
        self.installation.change_site('visible_after = "3s"', 'visible_after = "0s"')
        self.installation.change_site("[[queues]]\n", f"[[queues]]\n{where}")
        self.installation.write_credentials(CREDENTIALS.format(upstream.url, upstream.user, upstream.password))

    def ask(self, name: str, message: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f".{name}").write_text(json.dumps(message))
        os.rename(self.folder / f".{name}", self.folder / f"{name}.json")

    def answer(self, name: str) -> dict[str, Any]:
        file = self.folder / "answers" / f"{name}.json"
        self.installation.passes_until(file.exists, 300)
        self.installation.passes_until(lambda: not self.installation.active())
        answer: dict[str, Any] = json.loads(file.read_bytes())
        return answer


@pytest.fixture
def spooled(odd_folder: Path, upstream: Upstream) -> Spooled:
    return Spooled(odd_folder, upstream)


def test_a_file_becomes_a_job_and_its_answer_lies_beside_it(spooled: Spooled) -> None:
    spooled.ask("page-1", {"inputs": {"Image": IMAGE}, "settings": {}})
    spooled.ask("page-2", {"inputs": {}, "settings": {}})

    good, bad = spooled.answer("page-1"), spooled.answer("page-2")

    assert good["about"]["outcome"] == "succeeded" and base64.b64decode(good["answer"]["Result"]) == RESULT
    assert bad["about"]["outcome"] == "rejected" and "error" in bad["answer"]
    assert [name for name in os.listdir(spooled.folder) if name != "answers"] == []


def test_the_same_name_again_is_another_job(spooled: Spooled) -> None:
    spooled.ask("page", {"inputs": {"Image": IMAGE}, "settings": {}})
    first = spooled.answer("page")
    (spooled.folder / "answers" / "page.json").unlink()
    spooled.ask("page", {"inputs": {"Image": IMAGE}, "settings": {}})

    second = spooled.answer("page")

    assert second["answer"] == first["answer"] and second["about"]["job_id"] != first["about"]["job_id"]


@pytest.mark.on_disk
def test_the_doctor_asks_for_no_broker_and_looks_at_the_folder(spooled: Spooled) -> None:
    spooled.installation.check("--drain")
    (spooled.folder / "answers").rmdir()

    told = spooled.installation.check("doctor", "--json", expect=None, stderr=False)

    lines = {line["check"]: line for line in json.loads(told)["findings"]}
    assert "no queue is at one" in lines["broker"]["found"]
    assert lines["queue jobs"]["mark"] == "fault" and "answers is not there" in lines["queue jobs"]["found"]


def test_a_job_that_brings_its_own_code_along_goes_the_whole_way(tmp_path: Path) -> None:
    require_sandbox(tmp_path)
    with Upstream() as upstream:
        site = Spooled(tmp_path, upstream)
        with open(site.installation.site_file, "a", encoding="utf-8") as file:
            file.write('\n[workloads.code]\nkind = "own_code"\nargv = ["/usr/bin/python3"]\n')
        source = "import sys; open('o', 'w').write(open('page').read() + sys.argv[1])"
        site.ask("mine", {"workload": "code", "inputs": {"page": IMAGE}, "settings": {}, "source": source,
                          "command": "run.py !"})  # fmt: skip

        answer = site.answer("mine")

    assert answer["about"]["outcome"] == "succeeded", answer
    assert base64.b64decode(answer["answer"]["o"]) == b"a page of music!"
    assert set(answer["about"]["provenance"]) == {"code", "sandbox"}
