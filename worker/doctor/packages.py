"""Python and the packages of requirements.txt, here and for the worker."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Optional

from .. import pythons
from ..pythons import NEWEST, OLDEST
from .programs import run
from .report import Report
from .subject import Subject

MODULES = {
    "pika": "pika", "requests": "requests", "urllib3": "urllib3", "python-dotenv": "dotenv", "tenacity": "tenacity",
    "rich": "rich", "prometheus-client": "prometheus_client", "jinja2": "jinja2",
    **({"tomli": "tomli"} if sys.version_info < (3, 11) else {}),
}  # fmt: skip
"""What nothing works without: distribution -> module."""
_WORKER = "import sys, pika, requests, dotenv, tenacity, worker.config; print('%d.%d.%d' % sys.version_info[:3])"


def missing() -> list[str]:
    """The distributions without which only a few checks can be made."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module) is None]


def install(root: Path) -> str:
    return pythons.install(str(root))


def look_at_python(report: Report, root: Path) -> None:
    report.begin("version")
    version, found = sys.version_info[:2], f"{sys.version.split()[0]} ({sys.executable})"
    if version < OLDEST:
        report.fault(found, f"Make .venv with Python 3.9 or newer: {install(root)}")
    elif version > NEWEST:
        newest = ".".join(map(str, NEWEST))
        report.warn(f"{found} is newer than {newest}, the newest it was tested with",
                    f"If something odd happens, use {newest}.")  # fmt: skip
    else:
        report.ok(found)
    report.begin("packages")
    absent = missing()
    unfit = [] if absent else _unfit(root / "requirements.txt")
    if absent:
        report.fault(f"missing: {', '.join(absent)}", f"Run: {install(root)}")
    elif unfit:
        report.fault(f"not as requirements.txt asks: {', '.join(unfit)}", f"Run: {install(root)}")
    else:
        report.ok(", ".join(f"{name} {metadata.version(name)}" for name in MODULES))


def look_at_workers_python(report: Report, subject: Subject) -> None:
    report.begin("python of the jobs")
    if subject.site is None:
        report.skip("site.toml can't be read")
        return
    python = subject.site.python
    if not os.access(python, os.X_OK):
        report.fault(f"there is no program {python}", f"Make it, or set python in site.toml. {install(subject.root)}")
        return
    answer = run([str(python), "-c", _WORKER], environment={"PYTHONPATH": str(subject.root)})
    if answer is None:
        report.fault(f"{python} gives no answer", "Set python in site.toml to one that runs on the compute nodes.")
    elif answer.code:
        words = (answer.complained.strip().splitlines() or ["nothing"])[-1]
        report.fault(f"{python} can't run the worker: {words}", f"Run: {install(subject.root)}")
    else:
        report.ok(f"{answer.said.strip()} ({python})")


def _unfit(requirements: Path) -> list[str]:
    """Packages whose version is outside of the range that requirements.txt gives."""
    found = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9-]+)((?:[<>]=?[0-9.]+,?)+)", line)
        if match and (version := _version(match.group(1))) and not _fits(version, match.group(2)):
            found.append(f"{match.group(1)} {version} ({match.group(2)})")
    return found


def _version(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, ranges: str) -> bool:
    have = _numbers(version)
    pairs = re.findall(r"([<>]=?)([0-9.]+)", ranges)
    compare = {">=": lambda a, b: a >= b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, "<": lambda a, b: a < b}
    return all(compare[sign](have, _numbers(bound)) for sign, bound in pairs)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
