"""Everything a site can set, as frozen dataclasses: the one definition that the reader, the example and the docs share.

Each field's metadata says what it means; docs/settings.md is made of it. Durations are seconds as float here; the site
file may say "90s", "15min", "1h" or "7d".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType, Optional

Seconds = NewType("Seconds", float)
Pattern = NewType("Pattern", str)
"""A name, or the beginning of one followed by `*`."""


class Secret:
    """A value that never shows itself: `reveal()` is the only way out."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<SECRET>"


MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
_YEAR = 366 * DAY
_MANY = 1_000_000
_MOST_CPUS = 65_000
"""Slurm keeps --cpus-per-task in 16 bits."""
_MOST_MB = 10**9
_MOST_BYTES = 10**15
_LONGEST_MESSAGE = 2**29
"""RabbitMQ's max_message_size can't be larger."""
_LONGEST_EXPIRATION = 49 * DAY
"""RabbitMQ refuses an expiration of 2^32 ms or more."""
_LONGEST_MARGIN = 18 * HOUR
"""sbatch refuses a --signal of more than 65,535 s before the end."""


def said(doc: str, default: Any = None, **more: Any) -> Any:
    """A setting with its documentation and default; tables and lists get a fresh empty default. Each number has a `least`
    and a `most`: what lies outside can only be a mistake, or would ruin the installation without a word."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"doc": doc, **more})
    return field(default=default, metadata={"doc": doc, **more})


def needed(doc: str, **more: Any) -> Any:
    return field(metadata={"doc": doc, **more})


@dataclass(frozen=True)
class GpuRule:
    """A row of the table from memory to GPUs."""

    up_to_mb: int = needed("this rule is for jobs that ask for at most this much memory", least=1, most=_MOST_MB)
    gres: str = needed('what such a job gets, in Slurm\'s words, e.g. "gpu:v100l:1"')


@dataclass(frozen=True)
class ResourceRules:
    """What a job of a queue gets when it asks for nothing, the most it may ask for, and under which names it asks."""

    # Slurm takes 0 for "all of it" or "without limit".
    cpus: int = said("CPUs, if the message does not say", 1, least=1, most=_MOST_CPUS)
    memory_mb: int = said("memory in MB, if the message does not say", 4000, least=1, most=_MOST_MB)
    time: Seconds = said("time limit, if the message does not say", HOUR, least=1, most=_YEAR)
    gpus: int = said("GPUs, if the message does not say", 0, least=0, most=_MOST_CPUS)
    max_cpus: int = said("the most CPUs a message may ask for", 64, least=1, most=_MOST_CPUS)
    max_memory_mb: int = said("the most memory", 257000, least=1, most=_MOST_MB)
    max_time: Seconds = said("the longest time limit", 7 * DAY, least=1, most=_YEAR)
    max_gpus: int = said("the most GPUs", 0, least=0, most=_MOST_CPUS)
    names: Mapping[str, str] = said(
        "where a service sends resources as settings: our name (cpus, memory_mb, time, gpus, email) = its name", dict
    )
    gpus_by_memory: tuple[GpuRule, ...] = said(
        "GPUs that follow from the memory asked for: the first rule that is large enough", ()
    )


@dataclass(frozen=True)
class PilotRules:
    """The pilots of a queue: Slurm jobs that work through many of its jobs."""

    cpus: int = said(
        "CPUs of one pilot: as many jobs run in it side by side, if they ask for one CPU each",
        1,
        least=1,
        most=_MOST_CPUS,
    )
    memory_mb: int = said("memory of one pilot, in MB", 4000, least=1, most=_MOST_MB)
    time: Seconds = said(
        "time limit of one pilot; a job that would not fit into what is left is not begun, so it must be longer than the "
        "time limit of a job",
        2 * HOUR,
        least=MINUTE,
        most=_YEAR,
    )
    most: int = said("the most pilots of this queue, running and waiting together", 10, least=1, most=10_000)
    jobs_per_pilot: int = said(
        "another pilot is started for each so many jobs that are not done", 500, least=1, most=_MANY
    )
    batch: int = said("how many jobs a pilot takes at once", 250, least=1, most=10_000)
    idle: Seconds = said("a pilot that finds no job for this long ends", MINUTE, least=1, most=DAY)
    max_open: int = said("the most jobs claimed for pilots and not yet answered", 10_000, least=1, most=_MANY)


MODES = JOB_MODE, _PILOT_MODE = "job", "pilot"


@dataclass(frozen=True)
class Queue:
    """One jobs queue."""

    name: str = needed("the queue that jobs are taken from")
    workload: str = needed("the workload of a message that names none")
    max_wait: Seconds = said(
        "a job that has not started after this long is answered `expired`; where it has run, and another try has waited "
        "for this long, it is answered as that run ended",
        7 * DAY,
        least=1,
        most=_YEAR,
    )
    source: str = said(
        'where it is: empty for the broker that `broker` names, or "spool" for a folder of JSON files',
        "",
        choices=("", "spool"),
    )  # fmt: skip
    folder: str = said("of a spool: the folder that jobs are put into, with its folder `answers`", "")
    priority: int = said(
        "a queue with a higher number is emptied before all others; queues of the same take turns for the places", 0,
        least=0, most=1000,
    )  # fmt: skip
    make: Optional[bool] = said(
        "whether a pass makes the queue if it does not exist; false where the service declares it itself, because whoever "
        "declares it second, and differently, is refused (406)"
    )
    durable: Optional[bool] = said(
        "how a pass makes it: whether it, and the jobs that wait in it, outlive a restart of the broker; one that exists is "
        "used as it is"
    )
    arguments: Mapping[str, Any] = said("its arguments if it does not exist, e.g. x-queue-type", dict)
    results: str = said(
        'how results go home if the message says that its sender can take them so: "inline" in the answer, "upload" to '
        'addresses that are asked for at `ask` in `[results]`, "auto" inline up to `inline_limit`; to all others inline',
        "inline",
        choices=("inline", "upload", "auto"),
    )
    inline_limit: int = said(
        'for "auto": the most bytes of all outputs together that still go in the answer',
        8 * 2**20,
        least=0,
        most=_LONGEST_MESSAGE,
    )
    resources: ResourceRules = said("resources of jobs from this queue", ResourceRules)
    mode: str = said(
        '"job": each job is a Slurm job of its own; "pilot": many short jobs share one', "job", choices=MODES
    )
    pilot: PilotRules = said("the pilots of this queue", PilotRules)

    @property
    def in_folder(self) -> bool:
        """Whether its jobs come from a folder of its own, and its answers go into it."""
        return self.source == "spool"


@dataclass(frozen=True)
class RetryPolicy:
    """When an attempt's end is not the job's end. Frozen into the job when it is claimed."""

    attempts: int = said("how often a job is tried in all", 3, least=1, most=100)
    on: tuple[str, ...] = said(
        "ends, and steps that failed for a cause outside the job, after which it is tried again; with out_of_memory or "
        "timed_out among them, the next attempt gets twice the memory or the time, up to the queue's caps; with no_result, "
        "also a job whose program had begun and that ended without a result, so that it may run to its end more than once",
        ("node_failed", "preempted", "fetch", "start"),
    )
    wait: float = said("time before the second attempt; doubled for each one after", 60.0, least=0, most=DAY)


@dataclass(frozen=True)
class Form:
    """One set of inputs and the outputs made of it. A name with `{n}` is a family: 0, 1, 2, ... without a gap."""

    required: tuple[str, ...] = needed("inputs that must be there")
    outputs: Mapping[str, str] = needed('the outputs, each with its file\'s suffix ("" for none)')
    optional: tuple[str, ...] = said("inputs that may be there", ())
    folders: tuple[str, ...] = said(
        "outputs that the program makes as folders; each goes home as one file, a zip of all that is in it", ()
    )
    family_max: int = said("the most members of a family", 10, least=1, most=10_000)


@dataclass(frozen=True)
class OwnCode:
    """What code that jobs bring along may do, and where it may come from. It runs in a sandbox: it sees /usr, its own folder
    and nothing of this installation."""

    sandbox: str = said("bubblewrap's program; where it does not work, such jobs are refused", "bwrap")
    unsandboxed: bool = said(
        "whether to run such code without a sandbox, as this user: it can read all that this user can, secrets too",
        False,
    )
    network: bool = said("whether it may use the network, with all that this node reaches", False)
    hosts: tuple[str, ...] = said(
        "hosts that archives and repositories may come from, over https, or whole origins; without any, a job brings the "
        "text of a script",
        (),
    )
    read_only: tuple[str, ...] = said("folders that it may read besides /usr, e.g. the site's software", ())
    environments: Mapping[str, tuple[str, ...]] = said(
        'further interpreters by name, as argv; a message picks one with "environment"', dict
    )
    work_bytes: int = said("bytes that its files may have while it runs", 10 * 2**30, least=1, most=_MOST_BYTES)
    work_files: int = said("files that it may have", 100_000, least=1, most=10**8)
    most_processes: int = said("processes and threads that it may have at once", 1000, least=2, most=_MANY)


PROGRAM, OWN_CODE = KINDS = "program", "own_code"


@dataclass(frozen=True)
class Workload:
    """One program that may run here. A message picks it by name and can never bring a command line, unless its kind is
    "own_code"."""

    argv: tuple[str, ...] = said(
        "the command, one word each; {root}, {job}, {work}, {cpus} and {python} are filled in; no shell is involved; of "
        "own_code the interpreter, or nothing where the files say it themselves (#!)",
        (),
        unless=("kind", OWN_CODE),
    )
    forms: tuple[Form, ...] = said(
        "what it takes and makes; the first form that fits the message's inputs counts; own_code takes any",
        (),
        unless=("kind", OWN_CODE),
    )
    prefix: tuple[str, ...] = said("words put before the command, e.g. a bwrap or apptainer call", ())
    environment: Mapping[str, str] = said("variables added to its environment", dict)
    path: str = said("its PATH", "/usr/local/bin:/usr/bin:/bin")
    stop_wait: Seconds = said("time between SIGTERM and SIGKILL when it must stop", 10.0, least=0, most=HOUR)
    mode: str = said('"job" or "pilot", whatever its queue says; if empty, the queue decides', "", choices=("", *MODES))
    retry: RetryPolicy = said("which ends are tried again", RetryPolicy)
    kind: str = said(
        '"program": the site\'s own; "own_code": what the job brings along, as `source` and `command`',
        PROGRAM,
        choices=KINDS,
    )
    code: OwnCode = said("of own_code: what it may do", OwnCode)

    def mode_in(self, queue: Queue) -> str:
        """How its jobs of this queue run. Code that jobs bring along shares a Slurm job with nobody."""
        return JOB_MODE if self.is_own_code else self.mode or queue.mode

    @property
    def is_own_code(self) -> bool:
        return self.kind == OWN_CODE


@dataclass(frozen=True)
class ApiSettings:
    """The upstream web API."""

    login_path: str = said("where the token comes from", "/api/auth/token/")
    username_field: str = said('how the login\'s form calls our user: "username", "email", ...', "username")
    password_field: str = said("how it calls our password", "password")
    input_hosts: tuple[str, ...] = said("further hosts inputs may come from; the token never goes there", ())
    proxy: str = said(
        'the HTTP proxy between here and the API and all hosts of inputs, e.g. "http://proxy.example.org:3128"; if empty, '
        "none, whatever http_proxy in the environment says",
        "",
    )
    connect_timeout: Seconds = said("time to connect", 10.0, least=1, most=10 * MINUTE)
    read_timeout: Seconds = said(
        "time without a byte; a whole login, and the head of a download, may take twice as long and the time to connect",
        60.0,
        least=1,
        most=HOUR,
    )
    least_rate: int = said(
        "bytes a second; a download that brings fewer for as long as read_timeout is started again, like a silent one",
        100,
        least=0,
        most=10**9,
    )
    unknown_length: bool = said(
        "whether to accept a download that does not say how long it is; one cut off looks whole", False
    )
    fetch_patience: Seconds = said(
        "how long a job keeps trying to fetch an input of which nothing more comes", 600.0, least=0, most=7 * DAY
    )
    fetch_at_once: int = said("how many inputs of one job are fetched at the same time", 4, least=1, most=64)


@dataclass(frozen=True)
class SlurmSettings:
    """How this site's Slurm is used."""

    bin_dir: str = said("folder of sbatch and squeue, if not in /usr/bin; cron knows no modules", "")
    account: str = said("--account", "")
    partition: str = said("--partition", "")
    extra_options: tuple[str, ...] = said(
        "more sbatch options, one word each; those that would undo our own (--clusters, --time, ...) are refused", ()
    )
    ask_memory: bool = said(
        "whether sbatch is given --mem; false where the site forbids it, and a job's memory is what the cluster gives it",
        True,
    )
    accounting: bool = said("whether sacct works here; without it a job that ended long ago is `lost`", True)
    array_size: int = said(
        "the most jobs submitted as one array; 1 for none, and never more than Slurm's MaxArraySize",
        1000,
        least=0,
        most=4_000_000,
    )
    array_limit: int = said(
        "how many jobs of one array may run at the same time; 0 for as many as fit", 0, least=0, most=_MANY
    )
    commands_per_second: float = said(
        "how many Slurm commands a second all passes together may use, over time",
        1.0,
        least=0.001,
        most=1000,
        is_rate=True,
    )
    commands_at_once: int = said(
        "how many of them may come one after the other; then work waits for the next pass", 20, least=3, most=_MANY
    )
    poll_fastest: Seconds = said("how often squeue is asked when something has just changed", 5.0, least=0, most=HOUR)
    poll_slowest: Seconds = said(
        "how often squeue is asked when nothing has changed for a while; passes in between don't ask it",
        60.0,
        least=0,
        most=2 * HOUR,
    )
    command_timeout: Seconds = said("the longest a Slurm command may take", 60.0, least=1, most=10 * MINUTE)


@dataclass(frozen=True)
class Replies:
    """Where answers may go."""

    patterns: tuple[Pattern, ...] = said("reply queues that are allowed", (Pattern("*"),))
    create: tuple[Pattern, ...] = said("reply queues that may be created when they do not exist", ())
    create_durable: Optional[bool] = said("how such a queue is made: whether it outlives a restart of the broker")
    expiration: Seconds = said(
        "how long an unread answer lives in its queue", 7 * DAY, least=MINUTE, most=_LONGEST_EXPIRATION
    )
    max_bytes: int = said(
        "the largest answer; not more than the broker takes", 128 * 2**20, least=4096, most=_LONGEST_MESSAGE
    )
    retry_wait: Seconds = said(
        "time until an answer that the broker did not take is sent again; doubled each time, up to an hour",
        60.0,
        least=1,
        most=HOUR,
    )
    give_up_after: Seconds = said(
        "an answer whose queue is gone for this long moves to jobs/undelivered", DAY, least=0, most=_YEAR
    )


@dataclass(frozen=True)
class Results:
    """Where results go that are uploaded."""

    ask: str = said("the path on the API where the address for each output is asked for (docs/results.md)", "")
    output_hosts: tuple[str, ...] = said(
        "further hosts that outputs may be uploaded to; the token never goes there", ()
    )
    max_bytes: int = said(
        "bytes of all outputs of one job together that may be uploaded", 100 * 2**30, least=1024, most=_MOST_BYTES
    )
    upload_patience: Seconds = said(
        "an upload of which nothing more is taken for this long is given up; the answer is `failed`, and the outputs are kept",
        DAY,
        least=MINUTE,
        most=30 * DAY,
    )


@dataclass(frozen=True)
class Limits:
    """The most that one message may bring or cause."""

    message_bytes: int = said("the largest job message", 2**20, least=1024, most=_LONGEST_MESSAGE)
    inputs: int = said("inputs of one job", 50, least=1, most=10_000)
    input_bytes: int = said("bytes of all inputs of one job together", 20 * 2**30, least=1024, most=_MOST_BYTES)
    output_bytes: int = said(
        "bytes of all outputs of one job together that an answer may carry, before base64",
        90 * 2**20,
        least=1024,
        most=_MOST_BYTES,
    )
    kept_bytes: int = said(
        "bytes of all outputs together that `keep_outputs` keeps in jobs/done; the oldest go first",
        50 * 2**30,
        least=2**20,
        most=_MOST_BYTES,
    )
    done_bytes: int = said(
        "bytes that are kept of each kind: jobs in jobs/done, pilots' batches, rejected messages; the oldest days go first",
        50 * 2**30,
        least=2**20,
        most=_MOST_BYTES,
    )


@dataclass(frozen=True)
class Timing:
    """How long things may take before something else is done about them."""

    login_patience: Seconds = said(
        "claimed jobs wait this long while the API refuses our login", HOUR, least=1, most=_YEAR
    )
    patience: Seconds = said(
        "claimed jobs wait this long while anything else of the site is away, or while Slurm declines jobs like them",
        DAY,
        least=1,
        most=_YEAR,
    )
    visible_after: Seconds = said(
        "a file that another host should have written is believed missing after this, once its folder was looked at anew",
        90.0,
        least=0,
        most=HOUR,
    )
    publish_patience: Seconds = said(
        "how long a finished job tries to reach the broker itself", 120.0, least=0, most=DAY
    )
    cut_off_after: Seconds = said("a job on a failed node may still answer for this long", 300.0, least=0, most=DAY)
    adopt_after: Seconds = said(
        "an unclear sbatch is repeated after this at the earliest; a declined one then, and after pauses that double",
        120.0,
        least=0,
        most=DAY,
    )
    lost_after: Seconds = said("a job that Slurm does not know for this long is `lost`", 600.0, least=1, most=7 * DAY)
    hopeless_after: Seconds = said("a job that can never start is cancelled after this", HOUR, least=1, most=_YEAR)
    end_margin: Seconds = said(
        "a job is stopped this long before its time limit, at most a fifth of it", 300.0, least=0, most=_LONGEST_MARGIN
    )
    lease_expires: Seconds = said(
        "a pass on another login node that shows no life for this long is ignored", 900.0, least=1, most=DAY
    )
    keep_done: Seconds = said(
        "how long what is over is kept: delivered jobs, pilots' batches, rejected messages that were answered",
        14 * DAY,
        least=HOUR,
        most=9999 * DAY,
    )
    keep_ids: Seconds = said(
        "how long the ids of jobs are known, also of those no longer kept: a message that comes again is not run again",
        30 * DAY,
        least=HOUR,
        most=9999 * DAY,
    )

    keep_outputs: Seconds = said(
        "how long outputs that were uploaded, or that no answer carried, stay in jobs/done, and not longer than their jobs",
        14 * DAY,
        least=0,
        most=9999 * DAY,
    )

    def margin(self, time_limit: float) -> float:
        """How long before its time limit a job is stopped, in seconds."""
        return min(self.end_margin, time_limit / 5)


@dataclass(frozen=True)
class Site:
    """The site file, site.toml: everything about this site that is not secret."""

    queues: tuple[Queue, ...] = needed("the jobs queues")
    workloads: Mapping[str, Workload] = needed("what may run here, by name")
    jobs_dir: Path = said("where jobs are kept; on a file system that the compute nodes share", Path("jobs"))
    purged_after: Seconds = said(
        "where old files there are removed, as on scratch space: after how long without being read; 0 where they are not. "
        "Passes touch what is in flight once a day; ./check.py doctor says what may be lost",
        0.0,
        least=0,
        most=9999 * DAY,
    )
    python: Path = said("the python that the worker runs with on a compute node", Path(".venv/bin/python"))
    installation: str = said("a word that tells this installation's Slurm jobs from others; made up if empty", "")
    max_in_flight: int = said("the most jobs claimed and not yet answered", 100, least=1, most=_MANY)
    scheduler: str = said('"slurm", or "local" for one machine without it', "slurm", choices=("slurm", "local"))
    broker: str = said(
        '"rabbitmq", or "embedded" for one machine without it', "rabbitmq", choices=("rabbitmq", "embedded")
    )
    broker_file: Path = said("the file of the embedded broker; on a local disk", Path("jobs/broker.sqlite"))
    ca_file: str = said("certificates that TLS trusts; if empty, SSL_CERT_FILE or the system's", "")
    metrics_file: str = said(
        "where metrics for Prometheus's textfile collector are written, e.g. "
        '"/var/lib/node_exporter/batchferry.prom"; empty for none',
        "",
    )
    scratch: str = said(
        'where jobs work: "folder" (the job\'s own) or a folder on the node, e.g. "/tmp"; variables and ~ are those of the '
        'node, e.g. "$SLURM_TMPDIR"',
        "folder",
    )
    api: ApiSettings = said("", ApiSettings)
    slurm: SlurmSettings = said("", SlurmSettings)
    replies: Replies = said("", Replies)
    results: Results = said("", Results)
    limits: Limits = said("", Limits)
    timing: Timing = said("", Timing)

    @property
    def has_broker(self) -> bool:
        """Whether any of its queues is at the broker."""
        return not self.queues or not all(queue.source for queue in self.queues)


@dataclass(frozen=True)
class Credentials:
    """credentials.env: addresses and secrets."""

    rabbitmq_host: str
    rabbitmq_port: int
    rabbitmq_user: str
    rabbitmq_password: Secret
    rabbitmq_vhost: str
    rabbitmq_tls: bool
    api_url: str
    """Scheme and host, without a slash at its end."""
    api_user: str
    api_password: Secret
    proxy_user: str = ""
    proxy_password: Secret = Secret("")  # noqa: RUF009  # never changed


@dataclass(frozen=True)
class Config:
    """All there is to know before work begins."""

    root: Path
    site_file: Path
    credentials_file: Path
    site: Site
    credentials: Credentials
    site_text: str = ""
    """The site file as it was read, to be frozen with what is submitted."""

    @property
    def ca_file(self) -> Optional[str]:
        return self.site.ca_file or None

    @property
    def job_script(self) -> Path:
        return self.root / "slurm" / "job.sh"

    def queue(self, name: str) -> Optional[Queue]:
        return next((queue for queue in self.site.queues if queue.name == name), None)
