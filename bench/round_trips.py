"""File calls below jobs/ that a network file system would have to ask its server for: `python -m bench.round_trips`.

A pass claims and submits 10 jobs, and another one 110: the difference, by 100, is what a job costs. Then one worker runs one
of them. Counted with strace: what is opened, looked at, made, linked, renamed, removed, listed (once) or synced by its name
or its folder. What was opened is read and closed for nothing, more or less. Of what isn't there, the names are shown.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika

from bench import ground
from bench.ground import ENVIRONMENT, Ground, prepared
from tests.services.upstream import Upstream

_CALLS = (
    "open,openat,stat,lstat,newfstatat,statx,access,faccessat,faccessat2,mkdir,mkdirat,rmdir,unlink,unlinkat,link,linkat,"
    "rename,renameat,renameat2,utimensat,chmod,fchmodat,readlink,readlinkat,getdents64,fsync,fdatasync,statfs"
)
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)(?:<[^>]*>)? ?(E\w+)?")
_FEW, _MANY = 10, 110
_BODY = '{{"inputs": {{"Image": "{path}"}}, "settings": {{}}}}'


def main() -> int:
    options = _parser().parse_args()
    with Upstream() as upstream:
        few, many = (_claimed(count, upstream) for count in (_FEW, _MANY))
        worker = _worked(upstream)
    per_job = {call: round((many[call] - few[call]) / (_MANY - _FEW), 2) for call in sorted(many)}
    facts: dict[str, Any] = {
        "claim_and_submit": round(sum(per_job.values()), 1),
        "of_them_for_nothing": round(sum(n for call, n in per_job.items() if call.endswith("for nothing")), 1),
        "worker_facts": sum(worker.values()),
        "of_these_for_nothing": sum(n for call, n in worker.items() if call.endswith("for nothing")),
    }
    if options.calls:
        facts["claim_calls"] = {call: n for call, n in per_job.items() if n}
        facts["worker_calls"] = dict(sorted(worker.items()))
    ground.show(facts, options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.round_trips", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", action="store_true", help="each call by its kind")
    parser.add_argument("--json", action="store_true")
    return parser


def _claimed(count: int, upstream: Upstream) -> Counter[str]:
    with prepared(None, "") as place:
        _set_up(place, count, upstream)
        _publish(place, [])
        subprocess.run(place.check(), env=ENVIRONMENT, check=True, capture_output=True)  # makes what is made once
        _publish(place, [f"/{number}" for number in range(count)])
        return _counted(place, place.check("--drain"))


def _worked(upstream: Upstream) -> Counter[str]:
    with prepared(None, "") as place:
        _set_up(place, 1, upstream)
        path, source = f"/{uuid.uuid4()}", place.folder / "input"
        source.write_bytes(b"x" * 1000)
        upstream.add(path, source)
        with pika.BlockingConnection(place.broker.parameters()) as connection:
            replies = connection.channel().queue_declare("", exclusive=True).method.queue
            _publish(place, [path], replies)
            subprocess.run(place.check("--drain"), env=ENVIRONMENT, check=True, capture_output=True)
            _root, python, site, credentials, group = place.sbatch_arguments()[-5:]
            where = ["--site", site, "--credentials", credentials, "--group", group, "--element", "0"]
            started = [python, "-m", "worker", "run", *where, "--scheduler-id", "1", "--confined", "yes"]
            return _counted(place, started)


def _set_up(place: Ground, count: int, upstream: Upstream) -> None:
    place.write_site('head -c 1000 /dev/urandom >"$0"/outputs/00_Result.bin')
    place.site_file.write_text(
        place.site_file.read_text()
        .replace("[slurm]\n", "[slurm]\narray_size = 1000\ncommands_at_once = 1000000\n")
        .replace("jobs_dir", f"max_in_flight = {count}\njobs_dir", 1)
    )
    place.write_credentials(
        place.credentials_file, api_url=upstream.url, api_user=upstream.user, api_password=upstream.password
    )
    scontrol = place.shims / "scontrol"
    scontrol.write_text("#!/bin/sh\necho scontrol >>\"${0%/*}/calls\"\necho 'MaxArraySize            = 1001'\n")
    scontrol.chmod(0o755)


def _publish(place: Ground, paths: list[str], replies: str = "nobody") -> None:
    with pika.BlockingConnection(place.broker.parameters()) as connection:
        channel = connection.channel()
        channel.queue_declare(place.queue, durable=True)
        for number, path in enumerate(paths):
            properties = pika.BasicProperties(reply_to=replies, correlation_id=str(number), delivery_mode=2)
            channel.basic_publish("", place.queue, _BODY.format(path=path).encode(), properties)


def _counted(place: Ground, argv: list[str]) -> Counter[str]:
    """By kind of call; what found nothing is counted by itself, with the file's name."""
    trace = place.folder / "trace"
    strace = ["strace", "-f", "-y", "-s", "400", "-e", f"trace={_CALLS}", "-o", str(trace)]
    done = subprocess.run([*strace, *argv], env=ENVIRONMENT, cwd=ground.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {argv[1]} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return Counter(_calls(trace, str(place.jobs.path)))


def _calls(trace: Path, jobs: str) -> Iterator[str]:
    listed: set[str] = set()
    for line in _whole(trace):
        found = _LINE.match(line)
        if found is None or not _below(jobs, found[2]):
            continue
        call, arguments, error = found[1], found[2], found[4]
        if call == "getdents64":
            if arguments in listed:  # the second time, it says that there is no more
                listed.remove(arguments)
                continue
            listed.add(arguments)
        if call in ("newfstatat", "statx") and ('""' in arguments or "AT_EMPTY_PATH" in arguments):
            continue  # of what is open
        if error == "ENOENT":
            name = re.findall(r'"([^"]*)"', arguments)[-1]
            yield f"{call} {_plain(Path(name).name)} for nothing"
        else:
            yield call


def _below(jobs: str, arguments: str) -> bool:
    """Of a file that is open, strace says the path; a relative name is below such a one. Not in `work`, the job's own place,
    which `scratch` may put on the node's disk."""
    if re.search(r"/attempts/\d+/work\b", arguments):
        return False
    named = re.findall(r'"([^"]*)"', arguments)
    return any(name.startswith(jobs) for name in named) or (
        f"<{jobs}" in arguments and not any(name.startswith("/") for name in named)
    )


def _plain(name: str) -> str:
    return re.sub(r"[0-9a-f]{8,}", "...", name)


def _whole(trace: Path) -> Iterator[str]:
    """What strace cut in two, because another thread called meanwhile, put together again."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line[: -len("<unfinished ...>")].rstrip()
        elif (resumed := re.match(r"^\d+ +<\.\.\. \w+ resumed>(.*)$", line)) is not None:
            yield begun.pop(pid, "") + resumed[1]
        else:
            yield line


if __name__ == "__main__":
    sys.exit(main())
