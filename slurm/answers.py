"""What a no of Slurm's commands means, told by its words. Of sbatch's there are three. Pure.

- It blames the job (`blame`): no node will ever have what it asks for. A short list, because such a job is not tried again.
- It is unclear (`is_unclear`): the words are those of a connection or of a retry, so that sbatch, or the site's wrapper
  around it, may have submitted the job before it failed.
- Every other no is clear, and may be about this kind of job or about the site. sbatch puts the same words before all of
  them ("Batch job submission failed:"), and a site's plugins have words of their own, so no list tells the two apart.

Words decide only who waits. They never prove that Slurm does not have the job: a second try inside one call may be declined
because the first one went in.
"""

from __future__ import annotations

import re
from typing import Optional

_BLAMES_THE_JOB = (
    (r"[Rr]equested node configuration is not available", "no node of the cluster has what it asks for"),
    (r"[Mm]emory specification can ?not be satisfied", "no node of the cluster has the memory it asks for"),
    (r"CPU count per node can ?not be satisfied", "no node of the cluster has the CPUs it asks for"),
    (r"More processors requested than permitted", "it asks for more CPUs than are allowed"),
    (r"[Rr]equested time limit is invalid", "it asks for more time than the cluster allows"),
    (r"Invalid generic resource \(gres\) specification", "the cluster does not have the GPUs it asks for"),
    (r"Node count specification invalid", "it asks for more nodes than are allowed"),
)

_NO_CONFIGURATION = r"configuration source"
"""src/common/read_config.c and fetch_config.c: no slurm.conf, and nobody to ask for it."""

_NO_ACCOUNTING = r"(?i)accounting storage is disabled|not running a supported accounting_storage plugin"
"""src/sacct/options.c; src/sacctmgr/sacctmgr.c."""
_NO_CONTROLLER = (
    r"Unable to contact slurm controller|[Cc]onnection (refused|reset|timed out)|Socket timed out"
    r"|standby mode|[Nn]o route to host"
)

_UNCLEAR = (
    # src/sbatch/sbatch.c: what sbatch prints before it tries again, up to 15 times in one call (EAGAIN, a full table of
    # jobs, busy nodes); of the first retry it prints the words, of the later ones nothing.
    r"sleeping and retry",
    r"\bretrying\b",
    r"temporarily (disabled|unable)",
    r"job queue full",
    r"Unable to create job record, try again",
    r"Requested nodes are busy",
    # src/common/slurm_errno.c, "General Message error codes", "communication failures to/from slurmctld", "socket specific
    # Slurm communications error", "slurm_auth errors": the request, or its answer, was lost on the way.
    r"Unable to contact slurm controller",
    r"Slurm backup controller in standby mode|Controller is in standby mode",
    r"Rate limit exceeded",
    r"Communication (connection|shutdown) failure",
    r"Message (send|receive) failure",
    r"Unexpected message received",
    r"Unexpected missing socket",
    r"Unable to process (incoming|outgoing)",
    r"Insane message length",
    r"Header lengths are longer than data received",
    r"Zero Bytes were transmitted or received",
    r"delayed socket error",
    r"(Read|Write) would block",
    r"Incompatible versions of client and server",
    r"Protocol authentication error",
    r"[Aa]uthentication credential|Cannot unpack credential",
    r"[Mm]unge (en|de)code failed",
    r"shutting down",
    r"Slurm internal error",
    r"I/O error writing script",
    _NO_CONFIGURATION,
    # Of the C library (strerror), in what sbatch prints with "%m", and of wrappers that reach sbatch over a network.
    r"timed? ?out\b",
    r"[Cc]onnection (refused|reset|rejected|forced|closed)",
    r"[Nn]etwork is (unreachable|down)",
    r"[Nn]o route to host",
    r"[Bb]roken pipe",
    r"[Tt]ransport endpoint",
    r"[Rr]esource temporarily unavailable",
    r"[Ii]nterrupted system call",
    r"[Nn]ame or service not known|[Tt]emporary failure in name resolution",
    r"[Cc]annot allocate memory",
)
_SAID_BY_THE_SHELL = 126
"""An exit code from here on is not sbatch's own: a command that is missing or may not run, or one that was killed; 255 is
sbatch's for options that it can't read, and of ssh for a connection that broke."""
_SBATCH_USAGE = 255
_MOST_WORDS = 400


def blame(said: str) -> Optional[str]:
    """Why sbatch says that this job can never run, in words; None where it does not blame the job."""
    return next((words for pattern, words in _BLAMES_THE_JOB if re.search(pattern, said)), None)


def is_unclear(exit_code: int, said: str) -> bool:
    """Whether a call that ended so may have submitted the job all the same: then nothing follows from its no."""
    own_code = 0 <= exit_code < _SAID_BY_THE_SHELL or (exit_code == _SBATCH_USAGE and "sbatch: " in said)
    return not own_code or not said.strip() or any(re.search(pattern, said) for pattern in _UNCLEAR)


def words_of(said: str) -> str:
    """Slurm's own words without what sbatch puts before them: one line, of a length that fits into a sentence."""
    found = []
    for line in said.splitlines():
        line = re.sub(r"^(sbatch: )?((error|fatal): )?", "", line.strip())
        line = re.sub(r"^(Batch job submission failed|allocation failure): ", "", line)
        line = "".join(letter for letter in line if letter.isprintable()).strip()
        if line and line not in found:
            found.append(line)
    text = " / ".join(found)
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]} ..."


def is_about_one_job(said: str) -> bool:
    """Whether the limit that sbatch names is on a single job, as in QOSMaxCpuPerJobLimit."""
    return "PerJob" in said


def has_no_accounting(said: str) -> bool:
    """Whether sacct or sacctmgr says that there is none here, and not that it is away."""
    return re.search(_NO_ACCOUNTING, said) is not None


def fix_of(command: str, said: str) -> str:
    """What an operator does about a command that failed with these words; without a full stop."""
    if re.search(_NO_CONFIGURATION, said):
        return "Set SLURM_CONF to the cluster's slurm.conf, in the crontab as in your login shell"
    if re.search(_NO_ACCOUNTING, said):
        return "This cluster keeps no accounting: set accounting = false in [slurm] of site.toml"
    if re.search(r"[Mm]unge|[Aa]uthentication", said):
        return "Is munge running on this host (systemctl status munge), and is its clock right? Tell its administrators"
    if command in ("sacct", "sacctmgr"):
        return "Slurm's accounting (slurmdbd) is away: tell the cluster's administrators. It goes on when that is back"
    if re.search(_NO_CONTROLLER, said):
        return "Slurm's controller (slurmctld) is away: tell the cluster's administrators. It goes on when that is back"
    return "Run the command by hand; if it fails there too, ask the cluster's administrators"


def knows_no_such_job(said: str) -> bool:
    """Whether squeue was asked about a job that it does not show any more: slurm_errno.c, ESLURM_INVALID_JOB_ID."""
    return "Invalid job id" in said
