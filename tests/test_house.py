"""The rules of the house: who may import what, and what an empty pass does not pay for."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.installation import ROOT, Installation
from worker import build
from worker.job import stage
from worker.job.outcome import OUTCOMES
from worker.settings import Queue, Site

MODULES = sorted(path for room in ("scheduler", "slurm", "worker") for path in (ROOT / room).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in MODULES]

ONLY_IN = {
    "pika": {
        "worker/amqp/__init__.py",
        "worker/amqp/causes.py",
        "worker/amqp/requester.py",
        "worker/amqp/trial.py",
        "worker/sources/amqp.py",
        "worker/deliveries/message.py",
        "worker/deliveries/window.py",
    },
    "requests": {"worker/web.py"},
    "urllib3": {"worker/web.py", "worker/wire.py"},
    "subprocess": {
        "slurm/cluster.py",
        "scheduler/local.py",
        "worker/in_job/execute.py",
        "worker/in_job/git.py",
        "worker/in_job/sandbox.py",
        "worker/doctor/programs.py",
        "worker/login/other_place.py",
        "worker/pythons.py",
    },
    "tenacity": {"worker/in_job/fetch.py", "worker/in_job/publish.py", "worker/in_job/upload.py"},
    "sqlite3": {"worker/embedded.py"},
    "dotenv": {"worker/variables.py"},
    "tomllib": {"worker/config.py", "worker/toml_lines.py"},
    "tomli": {"worker/config.py", "worker/toml_lines.py"},
    "rich": {"worker/operate/screen.py", "worker/operate/status.py", "worker/operate/show.py"},
    "prometheus_client": {"worker/login/metrics.py"},
    "jinja2": {"worker/operate/page.py"},
    "markupsafe": {"worker/operate/page.py"},
}
PURE = {
    "scheduler/__init__.py", "slurm/commands.py", "slurm/details.py", "slurm/options.py", "slurm/states.py",
    "worker/job/facts.py", "worker/job/judge.py", "worker/job/names.py", "worker/job/outcome.py", "worker/job/own_code.py",
    "worker/job/retry.py", "worker/job/sentences.py", "worker/job/snapshot.py", "worker/job/spec.py", "worker/job/stage.py",
    "worker/login_answer.py",
    "worker/operate/blame.py", "worker/operate/history.py", "worker/operate/life.py", "worker/operate/sizing.py",
}  # fmt: skip
PURE_ENOUGH = {"scheduler", "worker.errors", "worker.settings"}
"""What pure modules take their types from; only dataclasses, exceptions and new names of types, which a test sees to."""
WITHOUT_EFFECT = {
    "__future__",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "enum",
    "html",
    "json",
    "math",
    "re",
    "typing",
    "urllib.parse",
}


def imports(name: str, source: str = "") -> Iterator[tuple[str, str]]:
    """Every import anywhere in a file: the module in full, and the name that is taken from it ("" for all)."""
    package = Path(name).parent.parts
    for node in ast.walk(ast.parse(source or (ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def reaches(name: str, package: str, source: str = "") -> bool:
    """`from package import name` may bring a module or something in it: both readings count."""
    found = {each for module, what in imports(name, source) for each in (module, f"{module}.{what}")}
    return any(module == package or module.startswith(f"{package}.") for module in found)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_imports_across_the_borders(name: str) -> None:
    forbidden = {
        "scheduler/": ["slurm", "worker", "tests"],
        "slurm/": ["worker", "tests"],
        "worker/": ["tests", "workloads", "check"],
        "worker/login/": ["worker.in_job", "slurm"],
        "worker/in_job/": ["worker.login", "slurm"],
        "worker/job/": ["worker.build", "slurm"],
        "worker/folder/": ["worker.build"],
        "worker/sources/": ["worker.deliveries", "worker.login", "worker.in_job", "worker.build"],
        "worker/deliveries/": ["worker.sources", "worker.login", "worker.in_job", "worker.build"],
        "worker/amqp/": ["worker.sources", "worker.deliveries", "worker.login", "worker.in_job", "worker.folder"],
    }

    for place, packages in forbidden.items():
        if name.startswith(place):
            assert not [package for package in packages if reaches(name, package)]


def test_slurm_takes_nothing_of_ours_but_what_any_scheduler_offers() -> None:
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()} | {path.stem for path in ROOT.glob("*.py")}
    for name in NAMES:
        taken = {module for module, _ in imports(name) if module.split(".")[0] in ours}
        if name.startswith("scheduler/"):
            assert taken <= {"scheduler"}, name
        elif name.startswith("slurm/"):
            assert {module for module in taken if module.split(".")[0] != "slurm"} <= {"scheduler"}, name


@pytest.mark.parametrize("kind", [
    "scheduler.local", "slurm.cluster", "worker.sources.amqp", "worker.sources.spool", "worker.embedded",
    "worker.deliveries.one_by_one",
])  # fmt: skip
def test_an_implementation_is_named_only_where_it_is_made(kind: str) -> None:
    makers = {name for name in NAMES if name.startswith("worker/") and reaches(name, kind)}

    assert makers <= {"worker/build.py"}


def compares(source: str, names: set[str]) -> list[str]:
    """Where something is held against one of these names, be it by `==`, `!=`, `in`, as a key, or by `match`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        words = {
            each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
        }
        if isinstance(node, ast.Compare) or type(node).__name__ == "match_case":
            asks_for_it = bool(words & names)
        else:
            asks_for_it = isinstance(node, ast.Subscript) and ".scheduler" in ast.unparse(node.slice)
        if asks_for_it:
            found.append(ast.unparse(node))
    return found


def test_a_scheduler_is_known_by_its_name_only_where_it_is_made() -> None:
    names = set(next(field for field in dataclasses.fields(Site) if field.name == "scheduler").metadata["choices"])
    assert names >= {"slurm", "local"}

    for name in [*NAMES, "check.py"]:
        if name != "worker/build.py":
            assert compares((ROOT / name).read_text(encoding="utf-8"), names) == [], name


def test_a_source_is_known_by_its_name_only_where_it_is_made_or_chosen() -> None:
    source = next(field for field in dataclasses.fields(Queue) if field.name == "source")
    names = set(source.metadata["choices"]) - {""}

    named = {name for name in NAMES if compares((ROOT / name).read_text(encoding="utf-8"), names)}

    assert names == {"spool"} and named == {"worker/build.py", "worker/settings.py"}


@pytest.mark.parametrize("source", [
    'if site.scheduler == "local": pass', 'x = "slurm" != site.scheduler', 'if site.scheduler in ("local", "pbs"): pass',
    "x = {}[site.scheduler]", 'x = not site.scheduler == "slurm"',
])  # fmt: skip
def test_a_name_that_is_compared_is_seen(source: str) -> None:
    assert compares(source, {"slurm", "local"})


@pytest.mark.parametrize("word", ["slurm", "local"])
def test_what_is_said_of_a_scheduler_holds_of_the_one_that_is_made(word: str, tmp_path: Path) -> None:
    site = Site(queues=(), workloads={}, scheduler=word, jobs_dir=tmp_path)

    assert build.traits(site) == build.open_scheduler(site).traits


def test_the_builder_loads_a_kind_only_when_it_is_asked_for() -> None:
    tree = ast.parse((ROOT / "worker" / "build.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]

    assert {node.module for node in top if isinstance(node, ast.ImportFrom)} == {"__future__", "typing"}
    assert len(top) == 2
    of_slurm = "from worker import build, settings; build.traits(settings.Site(queues=(), workloads={}))"
    assert not loaded(of_slurm) & {"slurm.cluster", "scheduler.local", "subprocess"}


@pytest.mark.parametrize("name", NAMES)
def test_what_both_sides_use_knows_neither(name: str) -> None:
    shared = name.count("/") == 1 and name.startswith("worker/") and name != "worker/__main__.py"
    if shared or name.startswith(("worker/job/", "worker/folder/")):
        assert not reaches(name, "worker.login") and not reaches(name, "worker.in_job")
        # What a site adds to sbatch's options is checked where its file is read, and Slurm's words stand in slurm/ alone.
        at_home = name == "worker/build.py" or (name == "worker/contradictions.py" and reaches(name, "slurm.options"))
        assert at_home or not reaches(name, "slurm")


def test_the_folder_knows_the_job_and_the_job_knows_no_folder() -> None:
    for name in NAMES:
        if name.startswith("worker/job/"):
            assert not reaches(name, "worker.folder"), name
        elif name.startswith("worker/folder/"):
            ours = {module for module, _ in imports(name) if module.startswith("worker.")}
            rooms = {".".join(module.split(".")[:2]) for module in ours}
            assert rooms <= {"worker.errors", "worker.settings", "worker.job", "worker.folder", "worker.deliveries"}, (
                name
            )


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_only_at_its_edge(library: str) -> None:
    users = {name for name in NAMES if reaches(name, library)}

    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_imports_nothing_with_an_effect(name: str) -> None:
    pure = {path[:-3].replace("/", ".") for path in PURE}

    for module, what in imports(name):
        if f"{module}.{what}" not in pure and module not in pure | WITHOUT_EFFECT:
            assert module in PURE_ENOUGH, f"{module}.{what}"
            assert is_a_type(module, what), f"{module}.{what}"


def is_a_type(module: str, name: str) -> bool:
    value = getattr(importlib.import_module(module), name)
    is_new_name = type(value).__name__ in ("NewType", "function") and hasattr(value, "__supertype__")
    return dataclasses.is_dataclass(value) or isinstance(value, type) or is_new_name


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_opens_prints_and_runs_nothing(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    effects = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}
    assert effects <= set(dir(builtins))

    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert not used & effects


@pytest.mark.parametrize(("source", "package"), [
    ("from ..in_job import run", "worker.in_job"), ("from .. import in_job", "worker.in_job"),
    ("import worker.in_job.run", "worker.in_job"), ("from worker.in_job.run import run", "worker.in_job"),
    ("def f():\n    import requests.auth", "requests"), ("from slurm.cluster import Slurm", "slurm"),
    ("if TYPE_CHECKING:\n    from ..api import Api", "worker.api"), ("from . import judge", "worker.login"),
])  # fmt: skip
def test_a_border_that_is_crossed_is_seen(source: str, package: str) -> None:
    assert reaches("worker/login/claim.py", package, source)
    assert not reaches("worker/login/claim.py", package[:-1], source)


@pytest.mark.parametrize("name", [*NAMES, "check.py"])
def test_no_module_shadows_the_standard_library(name: str) -> None:
    stdlib = sysconfig.get_path("stdlib")
    standard = {module.name for module in pkgutil.iter_modules([stdlib, f"{stdlib}/lib-dynload"])}
    standard |= set(sys.builtin_module_names)
    assert {"json", "sys", "selectors", "_json"} <= standard

    path = Path(name)
    stem = path.parent.name if path.name == "__init__.py" else path.stem
    assert stem == "__main__" or stem not in standard


MOST_USERS = 12


def users_of_own(sources: Iterable[str]) -> Counter[str]:
    """How many functions are handed an object of each class that these modules make."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    own = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    arguments = [arg for node in nodes if isinstance(node, ast.FunctionDef) for arg in node.args.args]
    return Counter(name for arg in arguments if arg.annotation and (name := ast.unparse(arg.annotation)) in own)


def test_no_object_of_the_login_side_is_handed_to_everybody() -> None:
    users = users_of_own(
        (ROOT / name).read_text(encoding="utf-8") for name in NAMES if name.startswith("worker/login/")
    )

    assert {name: count for name, count in users.items() if count > MOST_USERS} == {}
    everywhere = "\n".join(f"def f{number}(tools: Tools) -> int: ..." for number in range(MOST_USERS + 1))
    assert users_of_own(["class Tools: ...", everywhere]) == {"Tools": MOST_USERS + 1}


# --- what is paid for, and when


def loaded(code: str) -> set[str]:
    """Which modules are in memory after `code` has run in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_the_door_opens_with_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "check.py"), "--version"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("batchferry ")


def test_the_door_imports_the_rest_only_when_it_is_needed() -> None:
    tree = ast.parse((ROOT / "check.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]

    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}

    assert "argparse" in names and not {
        name for name in names if name.split(".")[0] in ("worker", "scheduler", "slurm")
    }


HEAVY = {
    *(
        "requests",
        "urllib3",
        "tenacity",
        "subprocess",
        "sqlite3",
        "asyncio",
        "rich",
        "prometheus_client",
        "jinja2",
    ),
    *("worker.api", "worker.web", "worker.in_job", "scheduler.local", "slurm.cluster"),
}


KINDS = {"worker.embedded", "worker.sources.amqp", "worker.sources.spool"}
NOT_YET = ("worker.job", "worker.deliveries", "worker.folder.records", "worker.folder.facts", "worker.login.one_pass",
           "scheduler", "slurm")  # fmt: skip
MOST = 17
SAYS_WHO_IS_AWAY = {"worker.amqp.causes", "worker.causes", "worker.bounded"}


@pytest.mark.parametrize(("broker", "kind", "library", "code"), [
    ("embedded", "worker.embedded", "sqlite3", os.EX_OK),
    ("rabbitmq", "worker.sources.amqp", "pika", os.EX_UNAVAILABLE),
])  # fmt: skip
def test_an_empty_pass_loads_one_source_no_delivery_no_codec_and_few_modules_of_ours(
    broker: str, kind: str, library: str, code: int, tmp_path: Path
) -> None:
    """A RabbitMQ that is away is asked by the same code as one that has nothing."""
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        away = SimpleNamespace(host="127.0.0.1", user="u", password="p", vhost="/")
        installation = Installation(tmp_path / "place", away, "http://127.0.0.1:9", "u", "p", {}, "jobs",
                                    rabbitmq_port=nobody_listens.getsockname()[1])  # fmt: skip
        broker_file = json.dumps(str(tmp_path / "broker.sqlite"))
        site = installation.site_file
        site.write_text(f'broker = "{broker}"\nbroker_file = {broker_file}\n{site.read_text()}')
        installation.check(expect=code)
        files = ["--site", str(site), "--credentials", str(installation.credentials_file)]

        modules = loaded(f"import check, sys\nsys.argv[1:] = {files}\nassert check.main() == {code}")

    ours = {name for name in modules if name.split(".")[0] in ("worker", "scheduler", "slurm")}
    assert len(ours - SAYS_WHO_IS_AWAY) <= MOST, sorted(ours)
    assert ours & KINDS == {kind}
    assert not [name for name in ours if name.startswith(NOT_YET)]
    assert library in modules and not modules & (HEAVY - loaded(f"import {library}"))


def test_reading_the_configuration_needs_no_network() -> None:
    assert not loaded("import worker.config") & (HEAVY | {"pika", "socket", "ssl"})


def test_a_pass_with_jobs_imports_the_api_only_to_log_in() -> None:
    modules = loaded("import worker.login.one_pass")

    assert "worker.job.judge" in modules and not modules & (HEAVY | {"pika"})


# --- words


NOT_ABOUT_A_JOB = {
    ("worker/login/touch.py", "done"),  # a folder's name
    ("worker/login/submit.py", "declined"),  # what a log line says
    ("worker/in_job/own_code.py", "error"),  # a file's name
}


def written_out(node: ast.AST | None) -> Iterator[str]:
    """What an expression may come to, as far as it is written there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.IfExp, ast.BoolOp)):
        yield from (word for inner in ast.iter_child_nodes(node) for word in written_out(inner))
    elif isinstance(node, ast.Dict):
        yield from (word for inner in node.values for word in written_out(inner))


def decided(source: str) -> Iterator[str]:
    """Every text that is compared with, assigned or returned; and what a stage is made of. To show one is no decision."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            yield from (word for each in (node.left, *node.comparators) for word in written_out(each))
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.Return)):
            yield from written_out(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Stage":
            yield "Stage()"


def test_where_a_job_stands_is_decided_in_one_file() -> None:
    words = {*stage.STATES, *stage.ENDED_STATES, *stage.BATCH_STATES} - set(OUTCOMES)
    texts = {name: set(decided((ROOT / name).read_text(encoding="utf-8"))) for name in NAMES}
    about_jobs = [name for name in NAMES if name.startswith(("worker/operate/", "worker/login/", "worker/in_job/"))]

    assert {(name, word) for name in about_jobs for word in texts[name] & words} == NOT_ABOUT_A_JOB
    assert [name for name in NAMES if "Stage()" in texts[name]] == ["worker/job/stage.py"]


@pytest.mark.parametrize("source", [
    "x = found.word == 'running'", "y = word in ('a', 'running')", "state = 'running' if begun else 'b'",
    "WORDS = {1: 'running'}", "def f():\n    return 'b', 'running'", "if (word := 'running'): pass", "x: str = 'running'",
])  # fmt: skip
def test_whoever_decides_where_a_job_stands_is_seen(source: str) -> None:
    assert "running" in set(decided(source))
    assert set(decided("COLOURS = {'running': 'cyan'}\nshow('running', folder / 'running')")) == {"cyan"}


TEXTS = {"args", "found", "fix", "reason"}
"""What of an error is made for people."""
CUTS = {"startswith", "endswith", "find", "rfind", "index", "count", "split", "partition", "rpartition", "removeprefix",
        "removesuffix", "search", "match", "fullmatch", "findall", "finditer", "sub"}  # fmt: skip


def asked_of_words(source: str) -> list[str]:
    """Where the text of an error that was caught decides something, or is taken apart; and where a sentence is cut in two."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if is_cut(node) and "'. '" in map(ast.unparse, ast.iter_child_nodes(node)):
            found.add(ast.unparse(node))
        if isinstance(node, ast.FunctionDef):
            caught = {each.name for each in ast.walk(node) if isinstance(each, ast.ExceptHandler) and each.name}
            named = named_texts(node, caught) if caught else set()
            found |= {ast.unparse(each) for each in ast.walk(node) if caught and asks(each, caught, named)}
    return sorted(found)


def asks(node: ast.AST, caught: set[str], named: set[str]) -> bool:
    """Whether it is told before (`is_news`) may be asked."""
    decides = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].startswith(("is_", "has_", "knows_"))
    if isinstance(node, ast.Compare) or is_cut(node) or (decides and "is_news" not in ast.unparse(node)):
        return has_text(node, caught, named)
    return False


def is_cut(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CUTS


def has_text(node: ast.AST, caught: set[str], named: set[str]) -> bool:
    """Whether the text of one of these errors, or what one of these names stands for, is part of an expression."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in ("str", "repr"):
            of = each.args
        elif isinstance(each, ast.FormattedValue):
            of = [each.value]
        elif isinstance(each, ast.Attribute) and each.attr in TEXTS:
            of = [each.value]
        else:
            of = []
        if any(isinstance(inner, ast.Name) and inner.id in caught for inner in of):
            return True
        if isinstance(each, ast.Name) and each.id in named:
            return True
    return False


def named_texts(scope: ast.AST, caught: set[str]) -> set[str]:
    """Variables that such a text is given to."""
    named: set[str] = set()
    for node in ast.walk(scope):
        if isinstance(node, (ast.Assign, ast.NamedExpr)) and has_text(node.value, caught, set()):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            flat = [each for target in targets for each in getattr(target, "elts", [target])]
            named |= {each.id for each in flat if isinstance(each, ast.Name)}
    return named


SAID_IN_WORDS_ALONE = {"worker/toml_lines.py"}
"""The standard reader of TOML tells the place of a fault in its text, before Python 3.14."""


def test_nobody_recognises_an_error_by_its_words() -> None:
    """The texts of errors may be changed without anything else: what counts stands in their types and fields, and what
    other programs say is looked at where they are called."""
    asked = {name: asked_of_words((ROOT / name).read_text(encoding="utf-8")) for name in [*NAMES, "check.py"]}

    assert {name for name, found in asked.items() if found} == SAID_IN_WORDS_ALONE, asked


@pytest.mark.parametrize("act", [
    'if "vhost" in str(error): pass', 'x = str(error).startswith("sbatch")', 'y = "a" not in f"{error}"',
    'z = "a" in error.args[0]', 'words = str(error)\n    if words == "gone": pass', 'if not is_too_wide(str(error)): raise',
    're.search("x", error.found)', 'head, _, tail = str(error).partition(":")', 'a = how().partition(". ")',
])  # fmt: skip
def test_an_error_that_is_recognised_by_its_words_is_seen(act: str) -> None:
    assert asked_of_words(f"def f():\n  try: g()\n  except E as error:\n    {act}") != []


@pytest.mark.parametrize("act", [
    "log.warning('away why=%r', str(error))", "x = str(error) or type(error).__name__", "if error.errno == 2: raise",
    "if isinstance(error, F): raise", "raise G(f'{error}') from None", "if error.reply_code in (404, 405): pass",
])  # fmt: skip
def test_an_error_that_is_shown_or_known_by_its_fields_is_not(act: str) -> None:
    assert asked_of_words(f"def f():\n  try: g()\n  except E as error:\n    {act}") == []


def test_the_first_service_is_known_only_by_its_older_variable_names() -> None:
    files = [*MODULES, ROOT / "check.py", ROOT / "run_check", ROOT / "slurm" / "job.sh"]

    lines = {
        (path.relative_to(ROOT).as_posix(), line.strip())
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if "rodan" in line.lower()
    }

    assert {name for name, _ in lines} == {"worker/config.py"}
    assert all("RODAN_" in line and "rodan" not in line for _, line in lines)


@pytest.mark.parametrize("name", [*NAMES, "check.py"])
def test_every_file_begins_with_a_sentence_that_says_what_it_is(name: str) -> None:
    sentence = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8"))) or ""

    assert sentence and sentence.rstrip()[-1] in ".`:"
