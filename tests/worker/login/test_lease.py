"""One pass at a time, also across login nodes: held, taken over when its holder is gone, and lost when somebody did."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.damage import OF_A_FILE
from tests.worker.examples import ROOT
from worker.login.lease import Held, Lost, began, hold

EXPIRES = 900.0
TAKER = """\
import sys
from pathlib import Path
from worker.login.lease import Held, Lost, hold
print("ready", flush=True)
sys.stdin.readline()
try:
    with hold(Path(sys.argv[1]), 900) as lease:
        print("tried", flush=True)
        sys.stdin.readline()
        lease.check()
        print("held it", flush=True)
except (Held, Lost) as error:
    print("tried", flush=True)
    print(type(error).__name__, flush=True)
"""


def leave(path: Path, host: str, pid: int, age: float = 0) -> Path:
    """A lease that somebody left there."""
    path.write_text(json.dumps({"host": host, "pid": pid}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_free_lease_is_held_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"

    with hold(path, EXPIRES) as lease:
        lease.check()
        held = json.loads(path.read_text())

    assert held == {"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}
    assert released(path)


@pytest.mark.parametrize(("host", "age"), [("elsewhere", 0), ("elsewhere", 899), (socket.gethostname(), 899)])
def test_a_lease_of_a_living_pass_is_left_alone(tmp_path: Path, host: str, age: float) -> None:
    path = leave(tmp_path / "lease.json", host, os.getppid(), age)

    with pytest.raises(Held, match=f"passes run on {host} \\(pid {os.getppid()}\\)"), hold(path, EXPIRES):
        pass

    assert json.loads(path.read_text())["host"] == host


def test_a_lease_whose_holder_on_this_host_is_dead_is_taken_over(tmp_path: Path) -> None:
    path = leave(tmp_path / "lease.json", socket.gethostname(), dead_pid())

    with hold(path, EXPIRES) as lease:
        lease.check()
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_pid_of_another_host_says_nothing(tmp_path: Path) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", dead_pid())

    with pytest.raises(Held), hold(path, EXPIRES):
        pass


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_a_lease_that_showed_no_life_for_too_long_is_taken_over(tmp_path: Path, host: str) -> None:
    path = leave(tmp_path / "lease.json", host, os.getppid(), age=901)

    with hold(path, EXPIRES):
        assert json.loads(path.read_text())["pid"] == os.getpid()

    assert released(path)


@pytest.mark.parametrize("content", ["", "{", '{"host": 1}'])
def test_a_lease_that_can_t_be_read_is_somebody_s_until_it_is_too_old(tmp_path: Path, content: str) -> None:
    path = leave(tmp_path / "lease.json", "x", 1)
    path.write_text(content)
    with pytest.raises(Held), hold(path, EXPIRES):
        pass

    os.utime(path, (time.time() - 901,) * 2)

    with hold(path, EXPIRES):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**64, 10**400])
def test_a_number_that_no_process_can_have_is_somebody_s_until_it_is_too_old(tmp_path: Path, pid: int) -> None:
    path = leave(tmp_path / "lease.json", socket.gethostname(), pid)
    with pytest.raises(Held), hold(path, EXPIRES):
        pass

    os.utime(path, (time.time() - 901,) * 2)

    with hold(path, EXPIRES):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(("began_then", "taken"), [("boot 1", True), ("", False), (began(os.getppid()), False)])
def test_a_number_that_lives_again_as_another_program_holds_nothing(
    tmp_path: Path, began_then: str, taken: bool
) -> None:
    path = leave(tmp_path / "lease.json", socket.gethostname(), os.getppid())
    path.write_text(json.dumps({**json.loads(path.read_text()), "began": began_then}))

    with contextlib.nullcontext() if taken else pytest.raises(Held), hold(path, EXPIRES):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_whatever_stands_in_the_place_of_a_lease_is_somebody_s_until_it_is_too_old(tmp_path: Path, damage: str) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", 1)
    OF_A_FILE[damage](path)
    os.utime(path, follow_symlinks=False)
    with pytest.raises(Held), hold(path, EXPIRES):
        pass

    os.utime(path, (time.time() - 901,) * 2, follow_symlinks=False)

    with hold(path, EXPIRES) as lease:
        lease.check()
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lease_of_the_future_is_nobody_s(tmp_path: Path) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", 1, age=-86400)

    with hold(path, EXPIRES):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_what_another_pass_is_writing_at_this_moment_stays(tmp_path: Path) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", 1, age=901)
    theirs, old = tmp_path / ".lease.json.1a2b3c4d", tmp_path / ".lease.json.5e6f7a8b"
    theirs.touch()
    leave(old, "x", 1, age=90_000)

    with hold(path, EXPIRES):
        assert theirs.exists() and not old.exists()


@pytest.mark.parametrize("quicker", ["another taker", "its holder, alive after all"])
def test_whoever_was_quicker_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quicker: str) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", 1, age=901)
    rename = os.rename

    def rename_too_late(source: Path, target: Path) -> None:
        if source == path and quicker == "another taker":
            path.unlink()
            leave(path, "a third host", 7)
        elif source == path:
            os.utime(path)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_too_late)

    with pytest.raises(Held, match="just now"), hold(path, EXPIRES):
        pass

    assert json.loads(path.read_text())["host"] == ("a third host" if quicker == "another taker" else "elsewhere")
    assert os.listdir(tmp_path) == ["lease.json"]


def test_a_holder_that_shows_life_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"

    with hold(path, EXPIRES) as lease:
        os.utime(path, (time.time() - 800,) * 2)
        before = path.stat().st_mtime
        lease.check()

        assert path.stat().st_mtime > before + 700
        assert lease.server_now == path.stat().st_mtime


def test_a_holder_finds_out_that_another_took_over(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"

    with hold(path, EXPIRES) as lease:
        path.unlink()
        leave(path, "elsewhere", 1)

        with pytest.raises(Lost):
            lease.check()

    assert json.loads(path.read_text())["host"] == "elsewhere", "the other's lease is not ours to remove"


def test_a_holder_finds_out_that_its_lease_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"

    with hold(path, EXPIRES) as lease:
        path.unlink()

        with pytest.raises(Lost):
            lease.check()


def test_where_a_file_that_was_taken_away_can_t_be_asked_any_more_the_lease_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease.json"
    stale_once_removed(monkeypatch)

    with pytest.raises(Lost), hold(path, EXPIRES) as lease:
        path.unlink()
        leave(path, "elsewhere", 1)
        lease.check()


def test_a_pass_whose_lease_was_taken_away_at_its_very_end_is_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease.json"
    stale_once_removed(monkeypatch)

    with hold(path, EXPIRES):
        path.unlink()
        leave(path, "elsewhere", 1)

    assert json.loads(path.read_text())["host"] == "elsewhere"


def stale_once_removed(patch: pytest.MonkeyPatch) -> None:
    """As NFS 3 and GlusterFS do it: what is asked of an open file that another host has removed says ESTALE."""
    fstat = os.fstat

    def stale(name: str) -> Callable[..., object]:
        right = getattr(os, name)

        def call(file: object, *more: object, **options: object) -> object:
            if isinstance(file, int) and fstat(file).st_nlink == 0:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return right(file, *more, **options)

        return call

    for name in ("fstat", "utime", "fchmod"):
        patch.setattr(os, name, stale(name))


def test_a_pass_that_fails_gives_its_lease_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), hold(tmp_path / "lease.json", EXPIRES):
        raise RuntimeError

    assert released(tmp_path / "lease.json")


def test_a_folder_that_can_t_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError), hold(tmp_path / "gone" / "lease.json", EXPIRES):
        pass


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_several_takers_one_wins(tmp_path: Path, left_behind: bool) -> None:
    path = tmp_path / "lease.json"
    if left_behind:
        leave(path, "elsewhere", 1, age=1000)
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, str(path)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        for _ in range(5)
    ]  # fmt: skip
    for taker in takers:
        assert taker.stdout and taker.stdout.readline() == "ready\n"

    for taker in takers:
        assert taker.stdin
        taker.stdin.write("go\n")
        taker.stdin.flush()
    for taker in takers:
        assert taker.stdout and taker.stdout.readline() == "tried\n"
    said = [taker.communicate("end\n", timeout=300)[0].strip() for taker in takers]

    assert said.count("held it") == 1, said
    assert released(path)


def test_another_login_node_rests_until_it_can_see_what_the_last_pass_wrote(tmp_path: Path) -> None:
    path = leave(tmp_path / "lease.json", "elsewhere", 7)
    path.chmod(0o400)

    with pytest.raises(Held), hold(path, EXPIRES, rest=90):
        pass
    with hold(path, EXPIRES, rest=0) as lease:
        lease.check()


def released(path: Path) -> bool:
    """Nothing but the lease is left, and it says that its pass has ended."""
    return os.listdir(path.parent) == [path.name] and path.stat().st_mode & 0o777 == 0o400


def test_what_a_killed_pass_left_in_another_folder_goes_once_its_lease_has_expired(tmp_path: Path) -> None:
    beside = tmp_path / "shapes"
    beside.mkdir()
    left, young = beside / ".a.json.0123abcd", beside / ".b.json.0123abcd"
    left.touch()
    young.touch()
    os.utime(left, (1.0, 1.0))
    with hold(tmp_path / "lease.json", 60):
        pass

    with hold(tmp_path / "lease.json", 60, beside=[beside, tmp_path / "missing"]):
        assert not left.exists() and young.exists()
