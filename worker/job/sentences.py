"""What a requester reads when a job does not succeed: what happened, which limit, what to change. Pure.

The texts stand in the middle of another program's words, so each is one plain paragraph.
"""

from __future__ import annotations

from typing import Optional

from .spec import Resources


def of_end(
    outcome: str, had: Optional[Resources] = None, exit_code: str = "", by: str = "", asked: Optional[Resources] = None
) -> str:
    """The sentence for an attempt that ended without an answer of its own. `exit_code`: in the scheduler's words; `had`:
    what it was given; `asked`: what the message asked for."""
    if outcome == "out_of_memory":
        return out_of_memory(had, asked)
    if outcome == "timed_out":
        return timed_out(had)
    if outcome == "cancelled":
        return f"The job was cancelled on the cluster{f' by {by}' if by else ''}."
    if outcome == "node_failed":
        return "The computer that the job ran on failed. This was no fault of the job; run it again."
    if outcome == "preempted":
        return "The cluster stopped the job to make room for a more urgent one. Run it again."
    if outcome == "lost":
        return "The cluster lost track of the job and its result. Run it again."
    return without_result(exit_code)


def without_result(exit_code: str, begun: bool = False) -> str:
    """`begun`: its program is known to have begun."""
    number, _, signal = exit_code.partition(":")
    code = f" (signal {signal})" if signal not in ("", "0") else f" (exit code {number})" if number else ""
    when = " after its program had begun" if begun else ""
    return f"The job ended{code} without leaving a result{when}. Somebody who runs the service must look into it."


def never_began() -> str:
    return "The job ended before its program could begin. This was no fault of the job; run it again."


def disk_away(why: str) -> str:
    found = f" ({why})" if why else ""
    return (
        f"The program was not started, because the cluster's disk could not be used{found}. This was no fault of the job; "
        "run it again."
    )


def node_refused() -> str:
    return "The computer that was to run the job could not begin it. This was no fault of the job; run it again."


def out_of_memory(had: Optional[Resources], asked: Optional[Resources] = None) -> str:
    if had is None:
        return "The job used all of its memory and was stopped. Ask for more memory."
    how = "it asked for" if asked is None or asked.memory_mb == had.memory_mb else "it was given in the end"
    return f"The job used all of the {had.memory_mb} MB {how} and was stopped. Ask for more memory."


def no_place_to_work(why: str) -> str:
    found = f" ({why})" if why else ""
    return (
        f"The computer that the job was sent to had no place for its files{found}. This was no fault of the job; run it "
        "again. If this keeps happening, please report it to the people who run the service."
    )


def outputs_too_large(most: int, size: int) -> str:
    """`size`: bytes that they make; `most`: bytes that are allowed, or 0 where nobody says how many."""
    allowed = f", and at most {most} are allowed" if most else ""
    return f"The outputs are too large to be sent back: they make {size} bytes{allowed}."


def not_delivered(name: str, why: str) -> str:
    return f'The job has succeeded, but its output "{name}" could not be delivered: {why}.'


def outputs_not_taken(seconds: float) -> str:
    return f"The job has succeeded, but its outputs could not be delivered for {duration(seconds)}."


def kept_until(date: str) -> str:
    """To be added. `date`: in words."""
    return f" They are kept on the cluster, until {date} at the latest."


def program_not_started(why: str) -> str:
    found = f" ({why})" if why else ""
    return (
        f"The computer that the job was sent to could not start the program{found}. This was no fault of the job; run it "
        "again. If this keeps happening, please report it to the people who run the service."
    )


def no_sandbox(why: str) -> str:
    return (
        f"The computer that the job was sent to can't safely run code that jobs bring along ({why}), so it was not run. If "
        "this keeps happening, please report it to the people who run the service."
    )


def too_many(what: str, most: int) -> str:
    return f"The job had more than {most} {what}, which is the most that is allowed, and was stopped."


def hidden_files() -> str:
    return (
        "The job made folders that can't be looked into (closed ones, or very many one in the other), so that nobody could "
        "tell how much it took, and was stopped."
    )


def beside_one_without_memory() -> str:
    return "A job beside this one ran out of memory, so it is not certain how this one ended. Run it again."


def pilot_ended(state: str) -> str:
    return f"The Slurm job that ran this job and others ended before this one was done ({state}). Run it again."


def timed_out(had: Optional[Resources], while_fetching: bool = False, progress: str = "") -> str:
    """`progress`: how far the program said it was."""
    if had is None:
        return "The job reached its time limit and was stopped. Ask for more time."
    limit = f"The job reached its time limit of {duration(had.time_seconds)}"
    if while_fetching:
        return f"{limit} while its inputs were still being downloaded. Somebody who runs the service must look into it."
    return f"{limit} and was stopped{f' at {progress}' if progress else ''}. Ask for more time."


def cancelled_by_operator(why: str) -> str:
    return f"The job was cancelled by those who run the service{f': {why}' if why else '.'}"


def hopeless(words: str) -> str:
    return f"The cluster will never start this job: {words}."


def refused(words: str) -> str:
    return f"The cluster can not run this job: {words}. Ask for less."


def declined(words: str) -> str:
    """`words`: the cluster's own."""
    return f"The cluster does not accept this job ({words}). Ask for less, or ask the people who run the service."


def waited_too_long(seconds: float) -> str:
    return f"The job did not start within {duration(seconds)} and was withdrawn. Run it again later."


def retry_waited_too_long(seconds: float) -> str:
    """For the log and for operators: the requester is told how the attempt before ended."""
    return (
        f"The next try did not start within {duration(seconds)}, so the end of the one before is what the job came to."
    )


def deadline_passed() -> str:
    return "The job's deadline passed before it could start."


def site_away(what: str, seconds: float) -> str:
    return f"The job could not be started for {duration(seconds)}, because {what}. Run it again later."


def installation_at_fault(seconds: float) -> str:
    return (
        f"The job could not be started for {duration(seconds)}, because the service's installation is at fault. Please "
        "report this to the people who run the service."
    )


def not_fetched(name: str, seconds: float, why: str) -> str:
    return f'The input "{name}" could not be downloaded within {duration(seconds)} ({why}).'


def no_room_for_input(name: str, size: int, free: int) -> str:
    return f'The input "{name}" could not be stored: {size} bytes follow, and there is room for {free}.'


def another_size(name: str, size: Optional[int], said: int) -> str:
    """`size`: bytes, where they are known; `said`: by the message."""
    has = "more than" if size is None else f"{size} bytes, not"
    return f'The input "{name}" has {has} the {said} bytes that the job message says.'


def another_digest(name: str) -> str:
    return f'The input "{name}" is not the file that the job message describes: its SHA-256 digest is another one.'


def exited(exit_code: int, tail: str) -> str:
    return f"The program ended with exit code {exit_code}. {last_words(tail)}"


def killed(signal_name: str, tail: str) -> str:
    return f"The program was ended by the signal {signal_name}. {last_words(tail)}"


def last_words(tail: str) -> str:
    return f"Its last words: {tail}" if tail else "It left no message."


def duration(seconds: float) -> str:
    """In the largest unit that keeps it a short number: "90 s", "15 min", "6 h", "2 days"."""
    number, unit = _in_unit(seconds)
    return f"{number:.3g} {unit}"


def about(seconds: float) -> str:
    """The same for what was measured: two digits say enough ("0.9 s", "2.8 h", "45 min")."""
    number, unit = _in_unit(seconds)
    return f"{f'{number:.0f}' if number >= 9.95 else f'{number:.1f}'.replace('.0', '')} {unit}"


def _in_unit(seconds: float) -> tuple[float, str]:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or seconds == size:
            return seconds / size, unit if seconds != 86400 else "day"
    return seconds, "s"


def counted(number: int, what: str, several: str = "") -> str:
    """A number and its noun: "1 job", "2 jobs", "0 batches"; `several`: where its plural does not end in s."""
    return f"{number} {what if number == 1 else several or f'{what}s'}"
