"""The shape of the code: sizes, names, doors to clock and environment. Each rule is shown to bite on a planted case."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"])
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
PARAMETERS_MAX = 7
# Properties and special methods are what a class looks like, not what it does.
METHODS_MAX = 15
BANNED_MODULES = {"utils", "helpers", "common", "misc", "manager", "base", "impl"}
# Spelled in halves, so that this file does not break its own rule.
BANNED_WORDS = ("last_" + "offset", "TO" + "DO", "FIX" + "ME")
# Run by people or by Python itself, not imported.
ENTRANCES = {"compose/__main__.py", "compose/bootstrap.py"}
CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}


@dataclass(frozen=True)
class Source:
    """A module: `path` relative to the root."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


Rule = Callable[[Source], Iterator[str]]


def functions_of(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def attributes_of(source: Source) -> Iterator[tuple[str, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def rule_function_length(source: Source) -> Iterator[str]:
    for node in functions_of(source):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{node.name} has {lines} lines"


def rule_module_length(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{lines} lines"


def rule_parameters(source: Source) -> Iterator[str]:
    for node in functions_of(source):
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > PARAMETERS_MAX:
            yield f"{node.name} takes {count} parameters"


def is_method(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("__"):
        return False
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    return not names & {"property", "cached_property"}


def rule_methods(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            count = sum(is_method(item) for item in node.body)
            if count > METHODS_MAX:
                yield f"{node.name} has {count} methods"


def rule_module_name(source: Source) -> Iterator[str]:
    banned = BANNED_MODULES & set(source.path.removesuffix(".py").split("/"))
    if banned:
        yield f"says nothing: {banned}"


def rule_docstring(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield "has no docstring"


def rule_environment(source: Source) -> Iterator[str]:
    if source.path != "compose/config.py":
        for name, attribute in attributes_of(source):
            if name == "os" and attribute in ("environ", "getenv", "environb"):
                yield f"reads the environment: os.{attribute}"


def rule_clock(source: Source) -> Iterator[str]:
    if not source.path.startswith("compose/"):
        for name, attribute in attributes_of(source):
            if (name, attribute) in CLOCKS:
                yield f"reads the clock: {name}.{attribute}"


def rule_print(source: Source) -> Iterator[str]:
    if not source.path.startswith("compose/cli"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"prints in line {node.lineno}"


def rule_swallowed_error(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            yield f"swallows an error in line {node.lineno}"


def rule_words(source: Source) -> Iterator[str]:
    for word in BANNED_WORDS:
        if word in source.text:
            yield f"says {word}"


def rule_local_store(source: Source) -> Iterator[str]:
    if source.path not in ("compose/wiring.py", "indexer/snapshots/store.py"):
        for _, name in attributes_of(source):
            if name == "LocalStore":
                yield "chooses a store, which is the business of compose.wiring"


CODE_RULES: tuple[Rule, ...] = (
    rule_clock,
    rule_docstring,
    rule_environment,
    rule_function_length,
    rule_local_store,
    rule_methods,
    rule_module_length,
    rule_module_name,
    rule_parameters,
    rule_print,
    rule_swallowed_error,
    rule_words,
)
PLANTED: tuple[tuple[Rule, Source], ...] = (
    (rule_clock, Source("indexer/x.py", "import time\nt = time.time()\n")),
    (rule_clock, Source("indexer/x.py", "from time import time\n")),
    (rule_clock, Source("schemas/x.py", "from datetime import datetime\nt = datetime.now()\n")),
    (rule_docstring, Source("schemas/x.py", "import os\n")),
    (rule_environment, Source("producer/x.py", "import os\nhome = os.environ['HOME']\n")),
    (rule_environment, Source("compose/x.py", "from os import getenv\n")),
    (rule_function_length, Source("schemas/x.py", "def f():\n" + "    a = 1\n" * FUNCTION_LINES_MAX)),
    (rule_local_store, Source("query_api/x.py", "from indexer.snapshots.store import LocalStore\n")),
    (rule_methods, Source("schemas/x.py", "class A:\n" + "    def f(self): ...\n" * (METHODS_MAX + 1))),
    (rule_methods, Source("schemas/x.py", "class A:\n" + "    def _f(self): ...\n" * (METHODS_MAX + 1))),
    (rule_module_length, Source("schemas/x.py", "\n" * (MODULE_LINES_MAX + 1))),
    (rule_module_name, Source("schemas/utils.py", "")),
    (rule_module_name, Source("indexer/common/x.py", "")),
    (rule_parameters, Source("schemas/x.py", "class A:\n    def f(self, a, b, c, d, *, e, f, g, h): ...\n")),
    (rule_print, Source("indexer/x.py", "print(1)\n")),
    (rule_swallowed_error, Source("indexer/x.py", "try:\n    f()\nexcept ValueError:\n    pass\n")),
    *((rule_words, Source("indexer/x.py", f"# {word}\n")) for word in BANNED_WORDS),
)


def sources() -> list[Source]:
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [
        Source(path.relative_to(ROOT).as_posix(), path.read_text())
        for path in paths
        if not path.name.endswith("_pb2.py")
    ]


def imported_modules(found: list[Source]) -> set[str]:
    """Return the dotted names that any of the sources import, packages of names imported from them included."""
    names: set[str] = set()
    for source in found:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def dead_modules(found: list[Source]) -> list[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
    alive = imported_modules(found) | {script.partition(":")[0] for script in scripts}
    return [
        source.path
        for source in found
        if source.path not in ENTRANCES
        and not source.path.endswith("/__init__.py")
        and source.path.removesuffix(".py").replace("/", ".") not in alive
    ]


@pytest.mark.parametrize("rule", CODE_RULES, ids=lambda rule: rule.__name__)
def test_code_keeps_rule(rule):
    """Modules and functions stay small, and clock, environment, output and store have one door."""
    broken = [f"{source.path}: {what}" for source in sources() for what in rule(source)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("rule", "source"), PLANTED, ids=lambda case: getattr(case, "__name__", None))
def test_planted_violation_is_found(rule, source):
    """A rule that was never seen failing proves nothing."""
    assert list(rule(source))


def test_every_rule_has_a_planted_violation():
    """No rule goes unproven."""
    assert {rule for rule, _ in PLANTED} == set(CODE_RULES)


def test_no_module_is_dead():
    """Every module is imported by another, or is an entrance."""
    assert not dead_modules(sources())


def test_planted_dead_module_is_found():
    """A module that nobody imports is named."""
    assert dead_modules([*sources(), Source("indexer/forgotten.py", '"""Nobody imports this."""\n')]) != dead_modules(
        sources()
    )


def test_committed_text_says_no_banned_word():
    """The words are banned everywhere: one name for one thing, and nothing left for later without an entry."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    broken = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".proto", ".yml", ".json", ".c", ".txt"} and path.is_file():
            broken += [f"{name}: {what}" for what in rule_words(Source(name, path.read_text()))]
    assert not broken, "\n".join(broken)
