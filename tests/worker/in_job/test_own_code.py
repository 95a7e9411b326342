"""Jobs that bring their own code along, in the real sandbox."""

from __future__ import annotations

import ast
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from tests.worker.in_job.own_job import OwnJobs, own_jobs
from worker.errors import InvalidSpec
from worker.in_job import git, sandbox
from worker.in_job.bounds import Bounds
from worker.in_job.sandbox import Places
from worker.job.own_code import Code
from worker.settings import Limits, OwnCode, Workload

pytestmark = pytest.mark.unhurried


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnJobs]:
    with own_jobs(tmp_path) as jobs:
        yield jobs


def test_what_a_script_makes_or_changes_beside_its_inputs_goes_home(own: OwnJobs) -> None:
    own.upstream.add("/page", b"a page")

    result = own.run(
        "import os, json\n"
        "job = json.load(open(os.environ['BATCHFERRY_JOB']))\n"
        "page = open('in/page').read()\n"
        "os.makedirs('out/deep')\n"
        "open('out/deep/new.txt', 'w').write(page + str(job['settings']['n']))\n"
        "open('in/page', 'a').write('!')\n"
        "os.symlink('/etc/passwd', 'link')\n",
        inputs={"in/page": "/page"}, settings={"n": 7},
    )  # fmt: skip

    assert result.outcome == "succeeded", result.reason
    assert own.answer(result) == {"in/page": b"a page!", "out/deep/new.txt": b"a page7"}
    assert result.provenance["code"].startswith("sha256:") and "bubblewrap" in result.provenance["sandbox"]


def test_outputs_that_a_message_names_are_those_that_go_home(own: OwnJobs) -> None:
    made = own.run("open('a', 'w').write('1'); open('b', 'w').write('2')", outputs=["b"])
    missing = own.run("pass", outputs=["c"])

    assert own.run("open('b', 'w')", outputs=["b"]).outcome == "succeeded"
    assert made.outputs.keys() == {"b"}
    assert (missing.outcome, missing.reason) == ("failed", 'The program did not make the output "c".')


def test_a_command_is_words_and_never_a_line_for_a_shell(own: OwnJobs) -> None:
    result = own.run("import sys; open('o', 'w').write(repr(sys.argv[1:]))", command="run.py $(id) ;ls  'a b'")

    assert own.answer(result)["o"].decode() == repr(["$(id)", ";ls", "'a", "b'"])


def test_code_without_an_interpreter_of_the_site_is_run_by_its_first_line(own: OwnJobs) -> None:
    own.interpreter = ()

    result = own.run("#!/bin/sh\necho $1 >said\n", command="job.sh hello")

    assert own.answer(result) == {"said": b"hello\n"}


def test_a_message_picks_one_of_the_sites_environments_by_name(own: OwnJobs) -> None:
    own.rules = replace(own.rules, environments={"sh": ("/bin/sh", "-e")})

    assert own.answer(own.run("echo x >o", command="a", environment="sh")) == {"o": b"x\n"}
    with pytest.raises(InvalidSpec, match='no environment named "perl"'):
        own.run("x", environment="perl")


def test_a_program_that_fails_says_so_and_what_it_made_stays_for_people(own: OwnJobs) -> None:
    result = own.run("open('half', 'w').write('x')\nraise SystemExit('no such thing')")

    assert (result.outcome, result.exit_code) == ("failed", 1)
    assert result.reason == "The program ended with exit code 1. Its last words: no such thing"
    assert [path.name for path in own.job.attempt(1).outputs.iterdir()] == ["00_half"]


PEEP = """
import os
def tried(what):
    try:
        return what()
    except BaseException as error:
        return type(error).__name__
"""
_FACTS = ("message.json", "outcome.json", "attempts/1/result.json", "attempts/1/started.json", "attempts/1/token",
          "attempts/1/reply-1.json", "attempts/1/begun.json", "attempts/1/cancel.json", "attempts/1/job.log")  # fmt: skip


def test_no_fact_of_the_job_can_be_read_made_or_linked_from_inside(own: OwnJobs) -> None:
    """Its log is open as its output; that is all it has of it."""
    own.run("pass")
    folder = own.job.path
    places = [str(folder / name) for name in _FACTS] + [str(own.folder / "credentials.env"), str(own.folder)]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}

    result = own.run(
        PEEP + f"for path in {places!r}:\n"
        "    for act in (lambda: open(path).read(), lambda: os.listdir(path), lambda: os.link(path, 'linked')):\n"
        "        print(tried(act))\n"
        f"for path in {places!r}:\n"
        "    tried(lambda: os.makedirs(os.path.dirname(path))), tried(lambda: open(path, 'w'))\n"
        "print(os.listdir('/'))\n"
    )  # fmt: skip

    assert result.outcome == "succeeded", own.log()
    *tries, root = own.log().splitlines()[-len(places) * 3 - 1 :]
    assert set(tries) <= {"FileNotFoundError", "PermissionError", "OSError"}
    assert not {"home", "root", "work", "srv", "var", own.folder.parts[2]} & set(ast.literal_eval(root))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert not own.job.attempt(1).outputs.exists()


@pytest.mark.parametrize(
    "peep, expected",
    [
        ("os.listdir(os.path.expanduser('~root'))", "FileNotFoundError"),
        ("open('/etc/shadow').read()", "FileNotFoundError"),
        ("os.listdir('/run/munge')", "FileNotFoundError"),
        ("os.listdir('/home')", "FileNotFoundError"),
        ("open('/usr/bin/new', 'w')", "OSError"),
        ("os.mknod('sda', 0o60600, os.makedev(8, 0))", "PermissionError"),
        ("__import__('socket').create_connection(('127.0.0.1', {port}), 2)", "OSError"),
        ("__import__('socket').getaddrinfo('example.org', 80)", "gaierror"),
        ("os.kill({pid}, 0)", "ProcessLookupError"),
        ("open('/proc/{pid}/environ').read()", "FileNotFoundError"),
        ("sorted(os.environ)", "['BATCHFERRY_JOB', 'BATCHFERRY_PROGRESS', 'HOME', 'LANG', 'MKL_NUM_THREADS', "
         "'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'PWD', 'TMPDIR']"),
        ("[name for name in os.listdir('/dev') if name.startswith(('sd', 'vd', 'mem', 'kmsg', 'nvidia'))]", "[]"),
        ("os.setuid(12345)", "OSError"),
        ("__import__('subprocess').run(['sbatch', '--wrap', 'id'], capture_output=True).returncode", "FileNotFoundError|1"),
    ],
)  # fmt: skip
def test_from_inside_nothing_of_the_node_can_be_reached(own: OwnJobs, peep: str, expected: str) -> None:
    port = own.upstream.url.rpartition(":")[2]
    code = peep.format(port=port, pid=os.getpid())

    result = own.run(PEEP + f"print('found:', tried(lambda: {code}))")

    assert result.outcome == "succeeded", own.log()
    found = own.log().rpartition("found: ")[2].strip()
    assert found in expected.split("|") or (
        expected == "OSError" and found in ("ConnectionRefusedError", "PermissionError")
    )


def test_a_folder_that_is_shown_shows_nothing_of_this_installation(own: OwnJobs, tmp_path: Path) -> None:
    shown, link = tmp_path / "shown", tmp_path / "link"
    installation, secret = shown / "installation", shown / "secret"
    (installation / "tools").mkdir(parents=True)
    for file in (installation / "tools" / "tool", installation / "fact", secret):
        file.write_text(f"{file.name}\n")
    link.symlink_to(shown)
    places = Places(tmp_path / "home", tmp_path / "temporary", tmp_path / "read_only", (installation, secret))
    rules = OwnCode(read_only=(str(installation / "tools"), str(link), str(shown)))

    see = 'cd "$0"; cat */secret; cat */*/tools/*; ls link/installation shown/installation; ! touch shown/*/x'
    words = [*sandbox.inside("/usr/bin/bwrap", rules, places, {}), "/bin/sh", "-c", see, str(tmp_path)]
    seen = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert seen == "tool\nlink/installation:\n\nshown/installation:\ntools\n"


def test_what_it_prints_is_kept_up_to_a_limit_and_it_never_has_the_log_itself(
    own: OwnJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.in_job.printed._MOST", 10_000)

    result = own.run(
        "import os, stat\nprint('first', stat.S_ISREG(os.fstat(1).st_mode), stat.S_ISREG(os.fstat(2).st_mode))\n"
        "for _ in range(10_000): print('x' * 100)\nraise SystemExit('my last words')"
    )

    assert result.reason.endswith("my last words")
    assert own.log().startswith("first False False\n") and len(own.log()) < 15_000


def test_nothing_that_it_starts_outlives_it(own: OwnJobs) -> None:
    mark = f"sleep-{os.getpid()}"

    result = own.run(
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execv('/bin/sh', ['{mark}', '-c', 'while :; do sleep 1; done'])\n"
        "    os._exit(0)\n"
    )

    assert result.outcome == "succeeded"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{mark} -c" not in listed


@pytest.mark.parametrize("unsandboxed", [False, True])
def test_a_program_that_is_to_stop_may_save_first(own: OwnJobs, unsandboxed: bool) -> None:
    """SIGTERM reaches it, and not the sandbox around it, which would end it at once."""
    own.rules = replace(own.rules, unsandboxed=unsandboxed)
    result = own.run(
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    open('saved', 'w').write('x'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "while True: time.sleep(0.1)\n",
        seconds=2,
    )

    assert result.outcome == "timed_out"
    assert [path.name for path in own.job.attempt(1).outputs.iterdir()] == ["00_saved"]


@pytest.mark.parametrize(
    "source, rules, words",
    [
        ("import os, time\nfor _ in range(200):\n    if os.fork() == 0: time.sleep(60)\ntime.sleep(60)",
         {"most_processes": 50}, "more than 50 processes"),
        ("import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(60,)).start()",
         {"most_processes": 50}, "more than 50 processes"),
        ("import time\nfor n in range(500): open(f'{n}', 'w')\ntime.sleep(60)", {"work_files": 100}, "more than 100 files"),
        ("import os, time\nfor n in range(20): open(f'/tmp/{n}', 'wb').write(os.urandom(2**20))\ntime.sleep(60)",
         {"work_bytes": 10 * 2**20}, "more than 10485760 bytes in its files"),
        ("for n in range(500): open(f'{n}', 'w')", {"work_files": 100}, "more than 100 files"),
    ],
)  # fmt: skip
def test_what_it_takes_too_much_of_ends_it_with_a_sentence(
    own: OwnJobs, source: str, rules: dict[str, int], words: str
) -> None:
    own.rules = replace(own.rules, **rules)  # type: ignore[arg-type]

    result = own.run(source)

    assert (result.outcome, result.step) == ("failed", "run")
    assert words in result.reason and "most that is allowed" in result.reason


def test_one_file_can_not_grow_beyond_what_all_may_have(own: OwnJobs) -> None:
    own.rules = replace(own.rules, work_bytes=10**6)

    result = own.run("open('large', 'wb').write(bytes(10**8))")

    assert result.outcome == "failed" and own.job.attempt(1).path.exists()


def test_what_lies_where_nobody_can_count_it_ends_the_job(own: OwnJobs) -> None:
    result = own.run("import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nopen('f', 'w').write('x')")

    assert (result.outcome, result.step) == ("failed", "run")
    assert "can't be looked into" in result.reason and not own.job.attempt(1).work.exists()


def test_a_folder_that_is_closed_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)  # root may look everywhere
    bounds = Bounds([tmp_path], OwnCode())
    bounds.look()

    assert "can't be looked into" in bounds.broken


@pytest.mark.parametrize("left", ["closed folders", "strange names"])
def test_whatever_it_leaves_is_removed_and_harms_nobody(own: OwnJobs, left: str) -> None:
    source = {
        "closed folders": "import os\nos.makedirs('a/b/c'); open('a/b/c/f', 'w')\nos.chmod('a/b', 0); os.chmod('a', 0)",
        "strange names": "for name in (b'\\xff\\xfe', b'new\\nline', b'-rf', b' ', b'a' * 255): open(name, 'w').write('x')",
    }[left]

    result = own.run(source)

    assert result.outcome == "succeeded", result.reason
    assert not own.job.attempt(1).work.exists()
    assert own.answer(result).keys() <= {" ", "a" * 255, "a/b/c/f"}


@pytest.mark.parametrize("kind", ["fifo", "socket", "link out", "hard link", "folder"])
def test_what_is_no_plain_file_is_no_output(own: OwnJobs, kind: str) -> None:
    make = {
        "fifo": "os.mkfifo('o')",
        "socket": "import socket; socket.socket(socket.AF_UNIX).bind('o')",
        "link out": "os.symlink('/etc/passwd', 'o')",
        "hard link": "os.link('/etc/passwd', 'o')",
        "folder": "os.mkdir('o')",
    }[kind]

    result = own.run(f"import os\ntry:\n    {make}\nexcept OSError: pass", outputs=["o"])

    assert result.outcome == "failed" and '"o"' in result.reason


def test_without_a_working_sandbox_it_is_refused_and_tried_elsewhere(own: OwnJobs, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    for name in (str(broken), "no-such-bwrap"):
        own.rules = replace(own.rules, sandbox=name)

        result = own.run("open('ran', 'w')")

        assert (result.outcome, result.step, result.may_work_again) == ("failed", "start", True)
        assert "so it was not run" in result.reason and not own.job.attempt(1).begun.is_there()


def test_a_site_may_let_it_run_without_a_sandbox(own: OwnJobs) -> None:
    own.rules = replace(own.rules, unsandboxed=True, sandbox="no-such-bwrap")

    result = own.run("import os; open('o', 'w').write(open(os.environ['BATCHFERRY_JOB']).read()[:1])")

    assert own.answer(result) == {"o": b"{"} and result.provenance["sandbox"] == "none"


def test_what_is_too_large_to_be_sent_is_kept_and_the_answer_says_until_when(own: OwnJobs) -> None:
    own.limits = Limits(output_bytes=1024)

    result = own.run("for name in 'ab': open(name, 'wb').write(bytes(1000))")

    assert "at most 1024 are allowed. They are kept on the cluster, until" in result.reason
    assert {path.name for path in own.job.attempt(1).outputs.iterdir()} == {"00_a", "01_b"}


def test_a_file_that_is_called_error_is_not_taken_for_a_failure(own: OwnJobs) -> None:
    """In an answer that word alone marks one."""
    assert own.answer(own.run("open('error', 'w').write('x')")) == {"./error": b"x"}
    with pytest.raises(InvalidSpec, match="marks a failure"):
        own.run("pass", outputs=["./error"])


@pytest.mark.parametrize("meanwhile", [
    Workload(argv=("/usr/bin/python3", "site.py")), Workload(kind="own_code", argv=("/usr/bin/python3",)),
])  # fmt: skip
def test_what_the_site_no_longer_runs_that_way_is_not_run_another_way(own: OwnJobs, meanwhile: Workload) -> None:
    own.rules = replace(own.rules, environments={"sh": ("/bin/sh", "-e")})
    own.meanwhile = meanwhile

    result = own.run("echo x >o", environment="sh")

    assert (result.outcome, result.step, result.may_work_again) == ("failed", "start", True)
    assert "no longer installed" in result.reason


# --- archives


def _zip(
    members: dict[str, bytes],
    change: Callable[[zipfile.ZipInfo], None] = lambda _: None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            change(info)
            archive.writestr(info, content)
    return made.getvalue()


def _tar(members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            change(info)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


RUN = b"import helper; open('o', 'w').write(helper.WORD)"


@pytest.mark.parametrize("ending, pack", [("zip", _zip), ("tar.gz", _tar), ("tgz", _tar)])
def test_code_comes_as_an_archive(own: OwnJobs, ending: str, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    own.host.files[f"/code.{ending}"] = pack({"main.py": RUN, "helper/__init__.py": b"WORD = 'hello'"})

    result = own.run(f"{own.host.url}/code.{ending}", command="main.py")

    assert result.outcome == "succeeded", result.reason
    assert own.answer(result)["o"] == b"hello"


def _as(kind: bytes, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "bad":
            info.type, info.linkname, info.size = kind, link, 0

    return change


def _setuid(info: tarfile.TarInfo) -> None:
    info.mode = 0o4755


def _zip_link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def _twice() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", "1")
        with pytest.warns(UserWarning):
            archive.writestr("a", "2")
    return made.getvalue()


def _overlapping_bomb() -> bytes:
    """Says that it is small, and is not."""
    return _zip({"run.py": b"", "bomb": bytes(50 * 10**6)})


def _long_header() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("run.py")
        info.pax_headers = {"comment": "x" * (9 << 20)}
        archive.addfile(info)
    return made.getvalue()


def _outside_of_itself() -> bytes:
    """Its directory begins later than it says, so that its first file would begin before the archive."""
    made = bytearray(_zip({"run.py": b""}))
    end = made.rindex(b"PK\5\6")
    made[end + 16 : end + 20] = (int.from_bytes(made[end + 16 : end + 20], "little") + 1000).to_bytes(4, "little")
    return bytes(made)


_ok = {"run.py": b"", "bad": b""}
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "up, zip": ("zip", lambda: _zip({"../x": b""}), 'holds "../x", which no file of it may be called'),
    "up, tar": ("tar.gz", lambda: _tar({"a/../../x": b""}), "which no file of it may be called"),
    "absolute": ("tar.gz", lambda: _tar({"/etc/x": b""}), 'holds "/etc/x"'),
    "absolute, zip": ("zip", lambda: _zip({"/etc/x": b""}), 'holds "/etc/x"'),
    "an option": ("zip", lambda: _zip({"-rf": b""}), 'holds "-rf"'),
    "a control character": ("zip", lambda: _zip({"a\nb": b""}), 'holds "a?b"'),
    "a long name": ("zip", lambda: _zip({"a" * 300: b""}), "which no file of it may be called"),
    "deep": ("zip", lambda: _zip({"a/" * 30 + "x": b""}), "which no file of it may be called"),
    "a link": ("tar.gz", lambda: _tar(_ok, _as(tarfile.SYMTYPE, "/etc/passwd")), 'holds "bad", which is no plain file'),
    "a hard link": ("tar.gz", lambda: _tar(_ok, _as(tarfile.LNKTYPE, "run.py")), 'holds "bad", which is no plain file'),
    "a device": ("tar.gz", lambda: _tar(_ok, _as(tarfile.CHRTYPE)), 'holds "bad", which is no plain file'),
    "a fifo": ("tar.gz", lambda: _tar(_ok, _as(tarfile.FIFOTYPE)), 'holds "bad", which is no plain file'),
    "a link, zip": ("zip", lambda: _zip({"bad": b"/etc/passwd"}, _zip_link), 'holds "bad", which is no plain file'),
    "setuid": ("tar.gz", lambda: _tar({"bad": b""}, _setuid), 'holds "bad", which is no plain file'),
    "twice": ("zip", _twice, 'holds "a" twice'),
    "twice, tar": ("tar.gz", lambda: _tar({"a": b"1", "./a": b"2"}), 'holds "a" twice'),
    "a file as folder": ("tar.gz", lambda: _tar({"a": b"1", "a/b": b"2"}), "as a file and as a folder"),
    "a bomb": ("zip", _overlapping_bomb, "unpacks to more than the 10000000 bytes"),
    "a bomb, tar": ("tar.gz", lambda: _tar({"bomb": bytes(50 * 10**6)}), "unpacks to more than the 10000000 bytes"),
    "many files": ("zip", lambda: _zip({f"f{n}": b"" for n in range(300)}), "more than the 200 files"),
    "many folders": ("zip", lambda: _zip({f"d{n}/f": b"" for n in range(150)}), "more than the 200 files"),
    "a long header": ("tar.gz", _long_header, "is no archive that can be read"),
    "cut": ("tar.gz", lambda: _tar({"run.py": os.urandom(10**5)})[:5000], "is no archive that can be read"),
    "cut, zip": ("zip", lambda: _zip({"run.py": os.urandom(10**5)})[:5000], "is no archive that can be read"),
    "in one piece": ("zip", lambda: _zip({"run.py": bytes(10**6)}, compression=zipfile.ZIP_BZIP2), "packed in a way"),
    "outside of itself": ("zip", _outside_of_itself, "is no archive that can be read"),
    "a page": ("zip", lambda: b"<!DOCTYPE html><html>Not here", "it is a web page"),
    "another kind": ("zip", lambda: _tar({"run.py": b""}), "is no archive that can be read"),
    "empty": ("zip", lambda: _zip({}), "holds no file"),
    "nothing": ("tgz", lambda: b"", "is no archive that can be read"),
    "without its command": ("zip", lambda: _zip({"main.py": b""}), 'has no file "run.py"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_a_sentence(own: OwnJobs, name: str) -> None:
    ending, made, words = HOSTILE[name]
    own.rules = replace(own.rules, work_bytes=10**7, work_files=200)
    own.host.files[f"/code.{ending}"] = made()

    result = own.run(f"{own.host.url}/code.{ending}")

    assert (result.outcome, result.step, result.may_work_again) == ("failed", "fetch", False), result.reason
    assert words in result.reason
    assert not own.job.attempt(1).work.exists()


def test_an_archive_that_is_not_there_is_not_taken_for_one(own: OwnJobs) -> None:
    result = own.run(f"{own.host.url}/gone.zip")

    assert result.outcome == "failed" and "the archive of the code" in result.reason


def test_an_archive_is_redirected_to_where_code_may_come_from_and_nowhere_else(own: OwnJobs) -> None:
    own.host.files["/real.zip"] = _zip({"run.py": b"open('o', 'w')"})
    own.host.redirects = {"/code.zip": "/real.zip", "/api.zip": f"{own.upstream.url}/real.zip"}
    own.upstream.add("/real.zip", own.host.files["/real.zip"])

    assert own.run(f"{own.host.url}/code.zip").outcome == "succeeded"
    elsewhere = own.run(f"{own.host.url}/api.zip")
    with pytest.raises(InvalidSpec, match='would be "the archive of the code"'):
        own.run(f"{own.host.url}/code.zip", inputs={"the archive of the code": "/real.zip"})
    assert elsewhere.outcome == "failed" and "redirected to an address that is not allowed" in elsewhere.reason


def test_an_input_never_takes_the_place_of_a_file_of_the_code(own: OwnJobs) -> None:
    own.upstream.add("/x", b"x")
    own.host.files["/code.zip"] = _zip({"run.py": b"", "lib/a": b""})

    for name in ("lib/a", "run.py", "lib/a/b", "lib"):
        result = own.run(f"{own.host.url}/code.zip", inputs={name: "/x"})
        assert (result.outcome, result.reason) == ("failed", f'The input "{name}" has the name of a file of the code.')


# --- repositories, over HTTP


@pytest.fixture
def repository(own: OwnJobs, tmp_path: Path) -> Path:
    """A bare one, served as plain files: no shallow clones, no single commits."""
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    _git(tmp_path, "init", "-q", "-b", "main", str(work))
    (work / "run.py").write_text("open('o', 'w').write('main')")
    _git(work, "add", ".")
    _git(work, "commit", "-qm", "1")
    _git(work, "checkout", "-qb", "other")
    (work / "run.py").write_text("open('o', 'w').write('other')")
    _git(work, "commit", "-qam", "2")
    _git(work, "checkout", "-q", "main")
    publish(own, work, bare)
    return work


def publish(own: OwnJobs, work: Path, bare: Path) -> None:
    shutil.rmtree(bare, ignore_errors=True)
    _git(work, "clone", "-q", "--bare", str(work), str(bare))
    _git(bare, "update-server-info")
    for path in bare.rglob("*"):
        if path.is_file():
            own.host.files[f"/code.git/{path.relative_to(bare)}"] = path.read_bytes()


def _git(folder: Path, *words: str) -> str:
    mine = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *mine, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_code_comes_from_a_repository_by_branch_or_commit(own: OwnJobs, repository: Path) -> None:
    url = f"{own.host.url}/code.git"
    commits = {name: _git(repository, "rev-parse", name) for name in ("main", "other")}

    for address, word in (
        (url, "main"), (f"{url}#other", "other"), (f"{url}@{commits['other']}", "other"),
        (f"{url}@{commits['main'][:12]}", "main"),
    ):  # fmt: skip
        result = own.run(address)
        assert result.outcome == "succeeded", result.reason
        assert own.answer(result) == {"o": word.encode()}
        assert result.provenance["commit"] == commits[word]


def test_what_a_repository_could_run_or_lead_to_is_off(own: OwnJobs, repository: Path) -> None:
    (repository / ".gitattributes").write_text("*.py filter=evil\n")
    (repository / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = file:///etc\n')
    (repository / "link").symlink_to("/etc/passwd")
    _git(repository, "add", ".")
    _git(repository, "commit", "-qm", "evil")
    publish(own, repository, repository.parent / "bare.git")

    result = own.run(f"{own.host.url}/code.git", outputs=["o"])

    assert result.outcome == "succeeded", result.reason


@pytest.mark.parametrize(
    "address, words",
    [
        ("/gone.git", "could not be fetched"),
        ("/gone.git?key=sesame", "could not be fetched"),
        ("/code.git#nope", 'no branch or commit "nope"'),
    ],
)
def test_a_repository_that_is_not_there_is_a_sentence(own: OwnJobs, repository: Path, address: str, words: str) -> None:
    result = own.run(own.host.url + address)

    assert (result.outcome, result.step) == ("failed", "fetch") and words in result.reason
    assert str(own.folder) not in result.reason and "sesame" not in result.reason


# --- what is refused before anything is fetched


@pytest.mark.parametrize(
    "source, words",
    [
        ("file:///etc/passwd", 'can\'t come by "file"'),
        ("ftp://example.org/x.zip", 'can\'t come by "ftp"'),
        ("git@github.com:a/b.git", 'can\'t come by "ssh"'),
        ("ssh://git@github.com/a/b", 'can\'t come by "ssh"'),
        ("ext::sh -c id", ""),
        ("https://example.org/a.zip", '"example.org", which is not allowed here'),
        ("http://127.0.0.1:1/a.zip", '"127.0.0.1", which is not allowed here'),
        ("https://user:secret@example.org/a.zip", "a user's name or a password"),
        ("https://example.org/a b.git", ""),
        ("https://example.org:99999/a.git", "can't come by"),
        ("", 'has no "source"'),
        ("print('\ud800')", "can't be written as UTF-8"),
    ],
)  # fmt: skip
def test_an_address_that_code_may_not_come_from_is_refused(own: OwnJobs, source: str, words: str) -> None:
    if not words:  # the text of a script, which fails by itself
        assert own.run(source).outcome == "failed"
        return
    with pytest.raises(InvalidSpec) as refused:
        own.run(source)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "more, words",
    [
        ({"command": ""}, '"command"'),
        ({"command": "/bin/sh -c id"}, '"/bin/sh" can\'t be the name of a command'),
        ({"command": "../run.py"}, '"../run.py" can\'t be'),
        ({"command": ["run.py", 1]}, '"command"'),
        ({"command": ["run.py", "a\0b"]}, "code 0"),
        ({"command": ["run.py", "\ud800"]}, "is no text"),
        ({"command": ["run.py", "\U0001f600" * 40_000]}, "is too long"),
        ({"command": ["./-c", "import os"]}, '"./-c" can\'t be the name of a command'),
        ({"inputs": {"../x": "/x"}}, '"../x" can\'t be the name of an input'),
        ({"inputs": {"run.py": "/x"}}, 'Two files of the job would be "run.py"'),
        ({"inputs": {"a": "/x", "a/b": "/x"}}, "Two files of the job would be"),
        ({"inputs": {"./a": "/x", "a": "/x"}}, "Two files of the job would be"),
        ({"outputs": "x"}, '"outputs"'),
        ({"outputs": ["/etc/passwd"]}, '"/etc/passwd" can\'t be the name of an output'),
    ],
)  # fmt: skip
def test_a_name_that_no_file_of_the_job_may_have_is_refused(own: OwnJobs, more: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        own.run("pass", **more)  # type: ignore[arg-type]
    assert words in str(refused.value)


def test_of_what_git_says_only_the_end_is_kept(tmp_path: Path) -> None:
    """A server may have it say as much as it likes; and a warning is no part of a commit."""
    home, digits = tmp_path / "home", "0123456789" * 4
    home.mkdir()
    bare = git._Git(Code("git", "https://example.org/x", ("run.py",)), home, (), Bounds([home], OwnCode()))
    bare._git = ["/bin/sh", "-c", f"head -c 10000000 /dev/zero; echo; echo 'warning: cafe'; echo {digits}", "sh"]

    assert bare.output("rev-parse") == digits and len(bare._said) == 4096
