"""What is wrong with a site file though each value alone is fine. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Union

from .settings import ApiSettings, Queue, Site, Workload

Path = tuple[Union[str, int], ...]
"""Where a setting stands, as in `("queues", 0, "resources", "cpus")`."""

_MAY_PASS = ("node_failed", "preempted", "lost", "out_of_memory", "timed_out", "fetch", "pack", "start",
             "no_result")  # fmt: skip
"""Ends, and steps that failed for a cause outside the job, after which another attempt makes sense."""


def contradictions(site: Site) -> Iterator[tuple[Path, str]]:
    """Each with the place that has to be changed."""
    if not site.queues:
        yield ("queues",), "queues: there is none, so nothing would ever be taken"
    for number, queue in enumerate(site.queues):
        if not 0 < len(queue.name.encode()) < 256:  # to RabbitMQ, no name is the queue that was declared last
            yield ("queues", number, "name"), "queues: a name must have 1 to 255 bytes"
        if queue.name in [other.name for other in site.queues[:number]]:
            yield ("queues", number, "name"), "queues: two have the same name"
        if queue.in_folder and not queue.folder.startswith("/"):
            yield ("queues", number, "folder"), 'queues: a spool needs its folder, a path that begins with "/"'
        yield from _of_resources(number, queue)
        if queue.results != "inline" and not site.results.ask:
            yield ("queues", number, "results"), "queues: to upload results, [results] needs ask"
        if queue.results != "inline" and queue.mode == "pilot":
            yield ("queues", number, "results"), "queues: results of jobs that share a pilot go inline"
    for name, workload in site.workloads.items():
        yield from _of_workload(("workloads", name), workload)
    if not re.fullmatch(r"[A-Za-z0-9]{0,12}", site.installation):
        yield ("installation",), "installation: must be at most 12 letters and digits"
    if site.scratch != "folder" and not site.scratch.startswith(("/", "~", "$")):
        words = 'must be "folder", or a folder on the node that begins with "/", "~" or a variable such as "$TMPDIR"'
        yield ("scratch",), f"scratch: {words}"
    yield from _of_api(site.api)
    if site.results.ask and not site.results.ask.startswith("/"):
        yield ("results", "ask"), "results.ask: must begin with a slash"
    yield from _of_options(site)


def _of_api(api: ApiSettings) -> Iterator[tuple[Path, str]]:
    if not api.login_path.startswith("/"):
        yield ("api", "login_path"), "api.login_path: must begin with a slash"
    if "@" in api.proxy:
        words = "a user and a password belong in credentials.env, as PROXY_USER and PROXY_PASSWORD"
        yield ("api", "proxy"), f"api.proxy: {words}"
    elif api.proxy and not re.fullmatch(r"http://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?", api.proxy, re.ASCII):
        yield ("api", "proxy"), 'api.proxy: must be of the form "http://host:port"'


def _of_options(site: Site) -> Iterator[tuple[Path, str]]:
    if not site.slurm.extra_options:
        return
    from slurm.options import refusal

    taken = {name: f"set {name} in [slurm] alone" for name in ("account", "partition") if getattr(site.slurm, name)}
    if any(queue.resources.max_gpus or queue.resources.gpus_by_memory for queue in site.queues):
        gpus = ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")
        taken.update(dict.fromkeys(gpus, "set gpus or gpus_by_memory in [queues.resources]"))
    for number, option in enumerate(site.slurm.extra_options):
        why = refusal(option, taken)
        if why:
            yield ("slurm", "extra_options", number), f"slurm.extra_options: {option!r}: {why}"


def _of_resources(number: int, queue: Queue) -> Iterator[tuple[Path, str]]:
    rules, where = queue.resources, f"queues.{queue.name}.resources"
    here = ("queues", number, "resources")
    pairs: tuple[tuple[str, float, float], ...] = (
        ("cpus", rules.cpus, rules.max_cpus),
        ("memory_mb", rules.memory_mb, rules.max_memory_mb),
        ("time", rules.time, rules.max_time),
        ("gpus", rules.gpus, rules.max_gpus),
    )
    for name, value, most in pairs:
        if value > most:
            yield (*here, name), f"{where}.{name}: the default is more than max_{name}"
    known = ("cpus", "memory_mb", "time", "gpus", "email")
    for ours in rules.names:
        if ours not in known:
            yield (*here, "names", ours), f"{where}.names.{ours}: must be one of {known}"


def _of_own_code(here: Path, workload: Workload) -> Iterator[tuple[Path, str]]:
    where = ".".join(map(str, here))
    if workload.forms:
        yield (*here, "forms"), f"{where}: code that jobs bring along has no forms; it takes any inputs"
    if workload.mode == "pilot":
        yield (*here, "mode"), f'{where}: code that jobs bring along can\'t run in pilots; its mode must be "job"'
    for path in workload.code.read_only:
        if not path.startswith("/") or os.path.normpath(path) == "/":
            yield (
                (*here, "code", "read_only"),
                f"{where}.code.read_only: {path!r} must be a folder's full path, and not /",
            )


def _of_workload(here: Path, workload: Workload) -> Iterator[tuple[Path, str]]:
    where = ".".join(map(str, here))
    if workload.is_own_code:
        yield from _of_own_code(here, workload)
    elif not workload.argv:
        yield (*here, "argv"), f"{where}: argv is empty"
    elif not workload.forms:
        yield (*here, "forms"), f"{where}: has no form, so no message could fit it"
    if not set(workload.retry.on) <= set(_MAY_PASS):
        yield (*here, "retry", "on"), f"{where}.retry.on: must be of {', '.join(_MAY_PASS)}"
    for name in workload.environment:
        if name == "" or "=" in name or "\0" in name:
            yield (*here, "environment"), f"{where}.environment: {name!r} can't be the name of a variable"
    for number, form in enumerate(workload.forms):
        there = (*here, "forms", number, "outputs")
        if "error" in form.outputs:
            yield there, f'{where}: an output can\'t be named "error"; that word marks a failure'
        if any("/" in suffix for suffix in form.outputs.values()):
            yield there, f"{where}: an output's suffix can't hold a slash"
        for name in sorted(set(form.folders) - set(form.outputs)):
            yield (*here, "forms", number, "folders"), f"{where}: folders: {name!r} is no output of this form"
