"""`check.py completion bash`: what a shell needs to complete our command line, from the parsers themselves."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SUMMARY = "what bash or zsh needs to complete verbs, options, their values and job ids"
HELP = """\
Prints a script for your shell to read: put the line shown below into ~/.bashrc or ~/.zshrc. The Tab key then completes
check.py's verbs, options and their values, and ids of active jobs, which are read from the jobs folder each time
(`jobs` prints them).
"""
EXIT_CODES = {0: "the script, or the ids, were printed", 69: "the jobs folder can't be read (`jobs`)"}
EXAMPLES = """\
examples:
  eval "$(/shared/home/me/batchferry/check.py completion bash)"     in ~/.bashrc
  eval "$(/shared/home/me/batchferry/check.py completion zsh)"      in ~/.zshrc
"""
_MOST_IDS = 200
_FILES, _JOBS = "FILE", "JOB"
"""Metavars whose values are the shell's files, or ids."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", choices=("bash", "zsh", "jobs"), help="your shell; or `jobs` for the ids of active jobs"
    )


def run(root: Path, options: argparse.Namespace) -> int:
    """Returns an exit code."""
    if options.what == "jobs":
        return _print_ids(root, options)
    print(_script(options.what, list(_lines(options.parser)), str(root / "check.py")))
    return os.EX_OK


def _print_ids(root: Path, options: argparse.Namespace) -> int:
    from ..config import read_config
    from ..errors import Misconfigured
    from ..folder.jobs import JobsFolder
    from .naming import LAST, Ids
    from .places import names

    try:
        jobs = JobsFolder(read_config(root, options.site.resolve(), options.credentials.resolve()).site.jobs_dir)
        ids, active = Ids.in_folders(jobs), names(jobs.active)[:_MOST_IDS]
    except (Misconfigured, OSError):
        return os.EX_UNAVAILABLE  # a shell that completes has no use for words
    print(*map(ids.short, active), LAST, sep="\n")
    return os.EX_OK


# --- what the parsers take


@dataclass(frozen=True)
class Line:
    """What may stand behind one verb, or behind the command alone (`verb` is empty)."""

    verb: str
    about: str
    options: dict[str, str] = field(default_factory=dict)
    """By name, what it is for."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """Of the options that take one: the words that are allowed; none where it is free, FILE for a file's name."""
    words: list[str] = field(default_factory=list)
    """What stands without an option: choices, JOB or FILE."""


def _lines(parser: argparse.ArgumentParser) -> Iterator[Line]:
    whole = _line(parser, "", "")
    verbs = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    about = {each.dest: each.help or "" for each in verbs._choices_actions}
    yield whole
    for name, inner in verbs.choices.items():
        yield _line(inner, name, about.get(name, ""))


def _line(parser: argparse.ArgumentParser, verb: str, about: str) -> Line:
    line = Line(verb, about)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        allowed = list(map(str, action.choices or ())) or [word for word in (_FILES, _JOBS) if word == action.metavar]
        if not action.option_strings:
            line.words.extend(allowed)
        for name in action.option_strings:
            line.options[name] = " ".join((action.help or "").replace("%(default)s", str(action.default)).split())
            if action.nargs not in (0, "?"):
                line.values[name] = allowed
    return line


# --- for each shell


def _script(shell: str, lines: list[Line], command: str) -> str:
    template, files, of_words = _SHELLS[shell]
    cases, words = [], []
    for line in lines:
        for name, allowed in line.values.items():
            offered = files if allowed == [_FILES] else of_words.format(shlex.join(allowed)) if allowed else ""
            cases.append(f"        {shlex.quote(f'{line.verb} {name}')}) {offered} return ;;")
        words.append(f"        {shlex.quote(line.verb)}) offered=({' '.join(_described(line, lines, shell))}) ;;")
    return template.format(
        verbs="|".join(line.verb for line in lines if line.verb), takers="|".join(lines[0].values),
        cases="\n".join(cases), words="\n".join(words), command=shlex.quote(command),
        with_jobs=_with(_JOBS, lines), with_files=_with(_FILES, lines),
    )  # fmt: skip


def _described(line: Line, lines: list[Line], shell: str) -> Iterator[str]:
    """Every word that may come next; zsh also shows what it is for."""
    verbs = {each.verb: each.about for each in lines if each.verb and not line.verb}
    words = [*verbs, *(word for word in line.words if word not in (_FILES, _JOBS)), *line.options]
    for word in words:
        about = verbs.get(word) or line.options.get(word)
        yield shlex.quote(f"{word}:{about}" if about and shell == "zsh" else word)


def _with(what: str, lines: list[Line]) -> str:
    """The verbs behind which such a word may stand, as a pattern that is never empty."""
    return "|".join([line.verb for line in lines if what in line.words] or ["none"])


_BASH = """\
# batchferry: completion for bash, made by `check.py completion bash`
_batchferry() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb="" offered=() i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {takers}) i=$((i + 1)) ;;
            {verbs}) verb=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    COMPREPLY=()
    case "$verb $before" in
{cases}
    esac
    case "$verb" in
{words}
    esac
    COMPREPLY=($(compgen -W "${{offered[*]}}" -- "$word"))
    [[ $word == -* ]] && return
    case "$verb" in
        {with_jobs}) COMPREPLY+=($(compgen -W "$({command} completion jobs 2>/dev/null)" -- "$word")) ;;
        {with_files}) COMPREPLY+=($(compgen -f -- "$word")) ;;
    esac
}}
complete -F _batchferry check.py"""

_ZSH = """\
# batchferry: completion for zsh, made by `check.py completion zsh`
_batchferry() {{
    local before=$words[CURRENT-1] word=$words[CURRENT] verb="" i
    local -a offered
    for ((i = 2; i < CURRENT; i++)); do
        case $words[i] in
            {takers}) i=$((i + 1)) ;;
            {verbs}) verb=$words[i]; break ;;
        esac
    done
    case "$verb $before" in
{cases}
    esac
    case "$verb" in
{words}
    esac
    _describe 'check.py' offered
    [[ $word == -* ]] && return
    case "$verb" in
        {with_jobs}) compadd -- ${{(f)"$({command} completion jobs 2>/dev/null)"}} ;;
        {with_files}) _files ;;
    esac
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef _batchferry check.py"""

_SHELLS = {
    "bash": (_BASH, 'COMPREPLY=($(compgen -f -- "$word"));', 'COMPREPLY=($(compgen -W "{}" -- "$word"));'),
    "zsh": (_ZSH, "_files;", "compadd -- {};"),
}
"""Its script, and how it offers files and words."""
