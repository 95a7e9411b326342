"""Which job `check.py test` sends: the smallest that this site allows."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ..errors import InvalidSpec
from ..installed import why_stopped, workloads_of
from ..job.spec import JobSpec
from ..login.understand import understand
from ..requester import Requester
from ..settings import Config, Queue, ResourceRules

BLOCK = """\
[workloads.hello]
argv = ["{python}", "{root}/workloads/hello/hello.py", "{job}"]
[[workloads.hello.forms]]
required = []
outputs = { "Word" = ".txt" }
"""
_HELLO = "hello"
_MEMORY_MB, _SECONDS = 500, 300


class Failed(Exception):
    """The step in which it failed, what was found, what an operator does about it, and the exit code."""

    def __init__(self, step: str, found: str, fix: str, code: int = os.EX_UNAVAILABLE) -> None:
        super().__init__(f"{found}. {fix}")
        self.step, self.found, self.fix, self.code = step, found.rstrip("."), fix, code


@dataclass(frozen=True)
class SmallJob:
    """`word`: what it has to give back; empty where only the names of the outputs are known."""

    queue: Queue
    workload: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    word: str = ""

    @property
    def body(self) -> bytes:
        message: dict[str, Any] = {"inputs": dict(self.inputs), "settings": {}, "workload": self.workload}
        if self.word:
            message["settings"] = {"word": self.word}
        if not self.inputs:
            message["resources"] = _resources(self.queue.resources)
        return json.dumps(message).encode()

    def fault_of(self, answer: Mapping[str, Any], spec: JobSpec) -> str:
        """What is wrong with the body of an answer that speaks of success; empty where nothing is."""
        if set(answer) != set(spec.outputs):
            return f"it holds {', '.join(answer) or 'nothing'} instead of {', '.join(spec.outputs)}"
        if self.word and answer.get("Word") != base64.b64encode(self.word.encode()).decode():
            return "it is not what was asked for"
        return ""


def _resources(rules: ResourceRules) -> dict[str, Any]:
    """As little as gets a turn soon, and no more than may be asked for."""
    minutes, seconds = divmod(int(min(_SECONDS, rules.max_time)), 60)
    return {"cpus": 1, "memory_mb": min(_MEMORY_MB, rules.max_memory_mb), "time": f"{minutes}:{seconds:02d}", "gpus": 0}


def choose_queue(config: Config, name: str) -> Queue:
    """The first one that is no folder, or the one of this name. Raises Failed."""
    queues = [queue for queue in config.site.queues if not queue.in_folder and name in ("", queue.name)]
    if queues:
        return queues[0]
    if name and config.queue(name) is None:
        raise Failed("workload", f"site.toml has no queue {name}", "Choose one that it has.", os.EX_USAGE)
    raise Failed("workload", "its jobs are files in a folder", "Put one there: docs/sources.md.", os.EX_USAGE)


def choose_job(config: Config, queue: Queue, workload: str, inputs: Mapping[str, str]) -> SmallJob:
    """Raises Failed."""
    site = config.site
    ready = [name for name in workloads_of(site, queue) if not why_stopped(config.root, site, name)]
    chosen = workload or (queue.workload if inputs else "")
    if chosen:
        why = why_stopped(config.root, site, chosen)
        if why:
            raise Failed("workload", why, "Put that right, or choose another one.", os.EX_CONFIG)
    else:
        easy = [name for name in ready if any(not form.required for form in site.workloads[name].forms)]
        chosen = _HELLO if _HELLO in easy else next(iter(easy), "")
    if not chosen:
        raise Failed(
            "workload", "no workload of site.toml that is ready takes a job without an input",
            f"Add this block to site.toml (it lets a message have one word given back):\n\n{BLOCK}\n"
            f"or name inputs: ./check.py test --workload {queue.workload} --input NAME=ADDRESS", os.EX_CONFIG,
        )  # fmt: skip
    is_hello = not inputs and any(set(form.outputs) == {"Word"} for form in site.workloads[chosen].forms)
    return SmallJob(queue, chosen, inputs, secrets.token_hex(8) if is_hello else "")


def understood(config: Config, job: SmallJob, requester: Requester) -> JobSpec:
    """As a pass will read it. Raises Failed."""
    try:
        return understand(config, job.queue, requester.reply_to, job.body)
    except InvalidSpec as error:
        refusal = _refused_pattern(str(error), requester)
        fix = refusal or "Correct site.toml, or choose another workload or input: ./check.py test --help"
        raise Failed("message", str(error), fix, os.EX_CONFIG) from None


def _refused_pattern(words: str, requester: Requester) -> Optional[str]:
    if "replies.patterns" not in words:
        return None
    return (
        f'Add "{requester.pattern}" to patterns in [replies] of site.toml: it allows an address of the test\'s own, which '
        "nobody else reads."
    )
