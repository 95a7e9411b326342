"""sbatch options that a site may add to ours, and those that would undo ours. Pure.

Names and letters: sbatch(1) of Slurm 22.05, with what newer ones added. Like every program that uses getopt_long(3), sbatch
takes the beginning of a long name for the whole one, and letters that are glued together ("-HQ", "-Mother").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Optional

_OURS = {
    "array": "array_size and array_limit in [slurm] say how jobs are put together",
    "chdir": "a job begins in the folder of this installation",
    "clusters": "jobs are looked for on this cluster alone",
    "cpus-per-gpu": "set cpus in [queues.resources]",
    "cpus-per-task": "set cpus in [queues.resources]",
    "deadline": "set max_wait of the queue",
    "dependency": "--dependency=singleton keeps a job from running twice",
    "error": "what Slurm itself says of a job goes to jobs/groups",
    "help": "it submits nothing",
    "het-group": "a job is one node's",
    "hold": "a job that is held never starts",
    "immediate": "a job may wait; max_wait of the queue says for how long",
    "input": "a job has no input of this kind",
    "job-name": "jobs are found by their name; set installation for a word in it",
    "mem": "set memory_mb in [queues.resources], or ask_memory = false in [slurm]",
    "mem-per-cpu": "set memory_mb in [queues.resources], or ask_memory = false in [slurm]",
    "mem-per-gpu": "set memory_mb in [queues.resources], or ask_memory = false in [slurm]",
    "no-requeue": "it is always given",
    "nodes": "a job has one node",
    "ntasks": "a job has one task; set cpus in [queues.resources]",
    "open-mode": "what Slurm itself says of a job is added to its log",
    "output": "what Slurm itself says of a job goes to jobs/groups",
    "pack-group": "a job is one node's",
    "parsable": "it is always given",
    "quiet": "sbatch must say which number a job got",
    "requeue": "set retry of the workload: attempts are counted here",
    "signal": "set end_margin in [timing]",
    "test-only": "it submits nothing",
    "time": "set time in [queues.resources]",
    "time-min": "set time in [queues.resources]: a job has to know its limit",
    "uid": "jobs are looked for among our own",
    "usage": "it submits nothing",
    "version": "it submits nothing",
    "wait": "sbatch must not wait until a job has ended",
    "wrap": "the job's script is our own",
}
"""What undoes an option of ours, or what we rely on, and what to do instead."""
_VALUED = frozenset("""
    account acctg-freq batch bb bbf begin cluster-constraint comment constraint container container-id core-spec
    cores-per-socket cpu-freq delay-boot distribution exclude export export-file extra extra-node-info gid gpu-bind
    gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint kill-on-invalid-dep licenses
    mail-type mail-user mcs-label mem-bind mincpus network nodefile nodelist ntasks-per-core ntasks-per-gpu
    ntasks-per-node ntasks-per-socket partition power prefer priority profile qos reservation segment sockets-per-node
    switches thread-spec threads-per-core tmp tres-bind tres-per-task wait-all-nodes wckey
""".split())  # fmt: skip
"""Without one in the same word, they would take our next word for it."""
_FLAGS = frozenset("""
    contiguous exclusive get-user-env ignore-pbs nice no-kill overcommit oversubscribe propagate reboot share spread-job
    stepmgr use-min-nodes verbose
""".split())  # fmt: skip
_LETTERS = {
    "a": "array", "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task", "C": "constraint",
    "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus", "h": "help", "H": "hold", "i": "input",
    "I": "immediate", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution", "M": "clusters", "n": "ntasks",
    "N": "nodes", "o": "output", "O": "overcommit", "p": "partition", "P": "dependency", "q": "qos", "Q": "quiet",
    "s": "oversubscribe", "S": "core-spec", "t": "time", "u": "usage", "v": "verbose", "V": "version", "w": "nodelist",
    "W": "wait", "x": "exclude",
}  # fmt: skip
_LETTERS_WITHOUT_VALUE = frozenset("hHIOQuvVW")


def refusal(word: str, taken: Mapping[str, str]) -> Optional[str]:
    """Why a site can't add this option, and what to do instead; None for one that it can add.

    `taken`: further names that are ours at this site, with what to do instead.
    """
    if not word.startswith("-") or word in ("-", "--"):
        return 'each must be one word such as "--qos=short"'
    for name in _names(word):
        instead = taken.get(name, _OURS.get(name))
        if instead is not None:
            return f"--{name} would undo what Batchferry relies on: {instead}"
        if name in _VALUED and not _has_value(word):
            return f'--{name} needs its value in the same word, such as "--qos=short"'
    return None


def value_of(name: str, words: tuple[str, ...]) -> str:
    """What the last of these options gives to `name`; empty where none does."""
    letter = next((letter for letter, long in _LETTERS.items() if long == name), None)
    given = ""
    for word in words:
        if word.startswith("--") and list(_names(word)) == [name]:
            given = word.partition("=")[2]
        elif letter and word.startswith(f"-{letter}"):
            given = word[2:]
    return given


def _names(word: str) -> Iterator[str]:
    """The long names that a word may stand for: several letters, or a beginning that several names have."""
    if word.startswith("--"):
        given = word[2:].partition("=")[0]
        known = {*_OURS, *_VALUED, *_FLAGS}
        yield from [given] if given in known else sorted(name for name in known if name.startswith(given))
        return
    for letter in word[1:]:
        name = _LETTERS.get(letter)
        if name is not None:
            yield name
        if letter not in _LETTERS_WITHOUT_VALUE:
            return  # what follows is its value


def _has_value(word: str) -> bool:
    if word.startswith("--"):
        return word.partition("=")[1] == "="
    flags = len(word[1:]) - len(word[1:].lstrip("".join(_LETTERS_WITHOUT_VALUE)))
    return len(word) > 2 + flags
