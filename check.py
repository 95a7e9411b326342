#!/bin/sh
"""exec" python3 -E "$0" "$@"

The operator's one door. Without a verb: one pass, which takes one message from the jobs queue into Slurm.

To a shell the first line is a command: with a PYTHONHOME of somebody else's modules, python would not even begin without -E.
It is written in what Python 3.5 understands, so that an older `python3` can change over to the checkout's own.
"""

import argparse
import gc
import importlib
import importlib.util
import io
import logging
import os
import signal
import sys
import typing
from pathlib import Path

if typing.TYPE_CHECKING:
    from worker.settings import Config

ROOT = Path(__file__).resolve().parent
UNFORESEEN = "unforeseen error; jobs are safe on disk and in the queue"

HELP = """\
One pass: send answers that could not be sent, find out what earlier jobs came to, then take one message from the
jobs queue (once the API has let us in and Slurm answers), claim it on disk, acknowledge it and submit it to Slurm.

exit codes:
   0  all is well (also when the queue is empty, or a watch was told to stop)
  64  the command line is wrong
  65  a job's folder or a pause can't be read, its queue has left site.toml, or its workload can't start; the others went on
  69  the broker, the API, Slurm or the disk is away, or the broker refuses our login; jobs wait, nothing is lost
  70  an unforeseen error; please report the traceback
  73  the jobs folder can't be made or written, or is not the one of earlier passes (not mounted?)
  75  another pass is running and nothing was done, or this one took too long and was ended
  77  the API refuses our login; jobs wait, no message is taken
  78  credentials.env or site.toml is at fault; every fault is listed
"""
EXAMPLES = """\
examples:
  ./check.py                 take one message
  ./check.py --drain         go on until the queue is empty or max_in_flight is reached (what run_check does)
  ./check.py --watch         keep running: wake for each message and for each job that has answered
  ./check.py --dry-run       show what waits and what comes next for each claimed job; no message is taken or looked at
  ./check.py --dry-run --message job.json   show what a message with this body would become
  ./check.py init            make credentials.env and site.toml, and show what starts the passes
  ./check.py doctor          check everything that Batchferry needs, and say how to fix what is wrong
  ./check.py test            send one small job all the way through, and report each step
  ./check.py status          what is in flight, since when, and what waits; with --check: one line for a monitor
  ./check.py show JOB        one job's whole life, as a timeline
  ./check.py explain JOB     why it is where it is, and what happens next
  ./check.py cancel JOB      end it, and have it answered `cancelled`; retry, rerun and replay run jobs again
  ./check.py pause           take no new messages until `./check.py resume`; what is running goes on
  ./check.py pilots          jobs that share pilots: waiting, taken, done
  ./check.py report          a page to look at: whether all is well, the last days as charts, recent jobs
  ./check.py resend          show the answers that no queue took; `resend --all` sends them again
  ./check.py completion bash what your shell needs to complete all this

`./check.py VERB --help` explains each verb.
"""
VERBS = {
    "status": "worker.operate.status",
    "show": "worker.operate.show",
    "explain": "worker.operate.explain",
    "cancel": "worker.operate.cancel",
    "retry": "worker.operate.retry",
    "rerun": "worker.operate.rerun",
    "replay": "worker.operate.replay",
    "pilots": "worker.operate.pilots",
    "test": "worker.operate.one_job",
    "pause": "worker.operate.pause",
    "resume": "worker.operate.resume",
    "report": "worker.operate.report",
    "resend": "worker.operate.resend",
}
"""Where a verb's SUMMARY, HELP, EXAMPLES, add_arguments and run are; a module is imported only when it is needed."""
EARLY_VERBS = {
    "doctor": "worker.doctor.verb",
    "init": "worker.install.verb",
    "completion": "worker.operate.completion",
}
"""The same for those that come before the two files can be read."""
WITHOUT_JSON = ("init", "completion")


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if options.stay and (options.dry_run or options.verb):
        parser.error("--watch goes with no verb, and not with --dry-run")
    if options.message and not options.dry_run:
        parser.error("--message goes with --dry-run")
    os.umask(0o077)  # nothing here is for others; Slurm hands it on to the job's log
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # it was closed from the start
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text, and must end no pass
    logging.basicConfig(
        handlers=[_handler(options.log_format, to_stderr=bool(options.verb))],
        level=logging.DEBUG if options.verbose else logging.INFO,
    )
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs what it also raises, with tracebacks
    if options.verb or options.dry_run:
        from worker.operate.terminal import until_nobody_looks

        return until_nobody_looks(lambda: _answer(options))
    return _pass(options)


def _answer(options: argparse.Namespace) -> int:
    """What a verb has to say; with --json this is one object, whatever happens."""
    if not options.json:
        return _verb(options)
    from worker.as_json import LastWords

    with LastWords() as last:
        return last.close_with(_verb(options))


def _verb(options: argparse.Namespace) -> int:
    if options.verb in EARLY_VERBS:
        return int(importlib.import_module(EARLY_VERBS[options.verb]).run(ROOT, options))
    config = _read(options)
    if isinstance(config, int):
        return config
    if options.verb in VERBS:
        return int(importlib.import_module(VERBS[options.verb]).run(config, options))
    from worker.operate.dry_run import dry_run, dry_run_message

    if options.message:
        return dry_run_message(config, options.message, options.message_queue, options.json)
    return dry_run(config, options.drain, options.json)


def _pass(options: argparse.Namespace) -> int:
    config = _read(options)
    if isinstance(config, int):
        return config
    signal.signal(signal.SIGALRM, _took_too_long)
    if options.stay:
        from worker.login.watch import watch

        return watch(config)
    from worker.login.guard import guarded_pass

    signal.alarm(max(1, int(config.site.timing.lease_expires)))
    return guarded_pass(config, options.drain)


def _read(options: argparse.Namespace) -> "typing.Union[Config, int]":
    """Both files; where they are at fault, that is said, and this is the exit code."""
    from worker.config import read_config
    from worker.errors import Misconfigured

    try:
        return read_config(ROOT, options.site.resolve(), options.credentials.resolve())
    except Misconfigured as error:
        if options.verb == "status" and options.check:
            from worker.operate.health import at_fault

            return at_fault(error.faults, options.json)
        if options.json:
            from worker.as_json import of_files

            return of_files(error.faults, os.EX_CONFIG)
        for fault in error.faults:
            print("check.py:", fault, file=sys.stderr)
        return os.EX_CONFIG


def _handler(form: str, to_stderr: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr if to_stderr else sys.stdout)
    if form == "json":
        from worker.log_lines import JsonLines

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    return handler


_PACKAGES = (
    *("pika", "requests", "urllib3", "dotenv", "tenacity", "rich", "prometheus_client", "jinja2"),
    *(("tomli",) if sys.version_info < (3, 11) else ()),
)


_OF_OTHER_PYTHONS = ("HOME", "PATH", "SAFEPATH", "STARTUP", "OPTIMIZE", "INSPECT", "USERBASE", "PLATLIBDIR", "WARNINGS",
                     "DEVMODE", "NOUSERSITE", "BREAKPOINT", "PROFILEIMPORTTIME", "VERBOSE", "DEBUG")  # fmt: skip
"""What modules and other people's set-ups say to python (PYTHONHOME, ...). What concerns only how it writes may stay."""


def _begin_without_other_pythons() -> None:
    """Before anything is imported that they could replace; and our children are not to see them either."""
    found = [name for name in ("PYTHON" + word for word in _OF_OTHER_PYTHONS) if name in os.environ]
    for name in found:
        del os.environ[name]
    if found and not sys.flags.ignore_environment:
        os.execv(sys.executable, [sys.executable, *sys.argv])


def _main_with_packages() -> int:
    """Where packages are missing, the checkout's own python does the work; where that lacks them too, says what to do."""
    if sys.version_info < (3, 9):  # noqa: UP036  # it may be so, and has to be said
        from worker.pythons import change_over_if_too_old

        sys.exit(change_over_if_too_old(str(ROOT)))
    _begin_with_own_python()
    try:
        return main()
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        from worker.pythons import install

        return _fail("the package " + str(error.name) + " is missing", os.EX_CONFIG, "Run: " + install(str(ROOT)))


def _begin_with_own_python() -> None:
    """Before any work: half of it done by one process and half by another would be asked twice, or counted never."""
    python = str(ROOT / ".venv" / "bin" / "python")
    if sys.executable == python or "again" in sys._xoptions or not os.access(python, os.X_OK):
        return  # under cron this is so, and nothing is looked for
    if any(importlib.util.find_spec(name) is None for name in _PACKAGES) and _is_new_enough(python):
        os.execv(python, [python, "-X", "again", *sys.argv])


def _is_new_enough(python: str) -> bool:
    from worker.pythons import is_new_enough

    return is_new_enough(python)


def _took_too_long(*_: object) -> None:
    """A service that drips may hold a pass for ever, and with it the queue; every step may be the last."""
    logging.getLogger().error("pass took longer than lease_expires, ended; the next one goes on")
    sys.exit(os.EX_TEMPFAIL)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="check.py", description=HELP, epilog=EXAMPLES, formatter_class=_Help)
    parser.add_argument(
        "--drain", action="store_true", help="take messages until the queue is empty or max_in_flight is reached"
    )
    parser.add_argument(
        "--watch",
        dest="stay",  # a verb has a --watch of its own
        action="store_true",
        help="pass after pass until SIGTERM or SIGINT; no other pass runs beside it",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what the next pass would do, and do nothing")
    parser.add_argument("--message", default="", metavar="FILE", help="with --dry-run: what this body (- for standard "
                        "input) would become")  # fmt: skip
    parser.add_argument("--queue", dest="message_queue", default="", metavar="NAME",
                        help="with --message: as if it came from this queue (default: the first)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with --dry-run: as JSON")
    parser.add_argument("--site", type=Path, default=ROOT / "site.toml", metavar="FILE", help=_SITE)
    parser.add_argument("--credentials", type=Path, default=ROOT / "credentials.env", metavar="FILE", help=_CREDENTIALS)
    parser.add_argument("--verbose", action="store_true", help="also say what each job waits for")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="log lines for people, or a JSON object each"
    )
    parser.add_argument("--version", action="version", version="batchferry " + _version())
    _add_verbs(parser)
    parser.set_defaults(parser=parser)
    return parser


def _version() -> str:
    from worker import VERSION

    return VERSION


_SITE = "the site file (default: %(default)s)"
_CREDENTIALS = "addresses and secrets (default: %(default)s)"


def _add_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name, module in {**EARLY_VERBS, **VERBS}.items():
        if {name, "-h", "--help", "completion"} & set(sys.argv[1:]):
            _add_verb(verbs, name, module)
        else:
            verbs.add_parser(name)  # so that a word that is no verb is told what would be


def _add_verb(verbs: "argparse._SubParsersAction[_Parser]", name: str, module: str) -> None:
    from worker.help_text import exit_codes

    about = importlib.import_module(module)
    text = about.HELP + ("\n" + exit_codes(about.EXIT_CODES) if hasattr(about, "EXIT_CODES") else "")
    verb = verbs.add_parser(
        name, help=about.SUMMARY, description=text, epilog=about.EXAMPLES,
        formatter_class=_Help,
    )  # fmt: skip
    about.add_arguments(verb)
    _add_common(verb, with_json=name not in WITHOUT_JSON)


def _add_common(verb: argparse.ArgumentParser, with_json: bool = True) -> None:
    if with_json:
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
    verb.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    _add_files(verb)


def _add_files(verb: argparse.ArgumentParser) -> None:
    """Where these stand must not matter, and not given here they must not undo what stood before the verb."""
    for option, text in (("--site", _SITE), ("--credentials", _CREDENTIALS)):
        verb.add_argument(option, type=Path, default=argparse.SUPPRESS, metavar="FILE", help=text.partition(" (")[0])


class _Help(argparse.RawDescriptionHelpFormatter):
    """Our texts have lines of their own, which are cut to what the terminal has."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        from worker.help_text import filled

        return filled(text, width)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> "typing.NoReturn":
        """argparse's own code, 2, says nothing that sysexits(3) does not say better."""
        if "--json" not in sys.argv:
            self.print_usage(sys.stderr)
        sys.exit(_fail(message, os.EX_USAGE, "See ./" + self.prog + " --help"))


def _fail(words: str, code: int, fix: str = "") -> int:
    from worker.as_json import fail

    return fail(words, code, "--json" in sys.argv, fix)


if __name__ == "__main__":
    # Collecting garbage while modules load, and once more at the end, would be a sixth of an empty pass.
    _begin_without_other_pythons()
    gc.set_threshold(50000)
    try:
        code = _main_with_packages()
        gc.freeze()
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        logging.getLogger().exception(UNFORESEEN)
        sys.exit(_fail(UNFORESEEN, os.EX_SOFTWARE) if "--json" in sys.argv else os.EX_SOFTWARE)
