"""Rules of the house: quiet imports, one direction of imports, no eval, documented functions."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from planted import FAULTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "pairfold"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 700
MAX_FUNCTION_LINES = 60

# A file may import from its own level and from those before it.
LEVELS = [
    {"errors", "later", "version"},
    {"settings"},
    {"core"},
    {"ops"},
    {"calculus"},
    {"lower"},
    {"backends"},
    {"arrays"},
    {"frontends"},
    {"__init__", "cluster", "linalg", "signatures", "numpy", "torch", "jax"},
    {"dropin", "doctor", "catalogue", "__main__"},
]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


# -- importing does nothing ------------------------------------------------------------------------

WATCHED_IMPORT = """
import os, sys, threading
import numpy

happened = []

def watch(event, arguments):
    if event == "open":
        _, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
        if (flags or 0) & writes or any(letter in (mode or "") for letter in "wax+"):
            happened.append(f"opened {{arguments[0]}} for writing")
    elif event in ("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec",
                   "os.posix_spawn", "socket.connect", "os.mkdir", "os.remove", "os.rename"):
        happened.append(f"{{event}} {{arguments}}")

def threads():
    tasks = "/proc/self/task"
    native = len(os.listdir(tasks)) if os.path.isdir(tasks) else 0
    return threading.active_count(), native

before = threads()
sys.addaudithook(watch)
{code}
if threads() != before:
    happened.append(f"threads {{before}} became {{threads()}}")
happened += [f"imported {{m}}" for m in ("torch", "jax", "llvmlite.binding") if m in sys.modules]
sys.stderr.write("; ".join(happened))
"""


@pytest.mark.parametrize(
    "code",
    [
        "import pairfold",
        "import pairfold.numpy",
        "import pairfold.dropin, pairfold.doctor",
        "from pairfold.numpy import Genred; Genred('Exp(x-y)', ['x = Vi(2)', 'y = Vj(2)'])",
    ],
)
def test_importing_starts_nothing_and_says_nothing(code):
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED_IMPORT.format(code=code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


# -- imports point one way -------------------------------------------------------------------------


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name below pairfold) of every import that runs, also those in functions."""
    package = ["pairfold", *path.relative_to(PACKAGE).parts[:-1]]
    found: list[tuple[int, str]] = []
    todo: list[ast.AST] = [tree_of(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        todo.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            place = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{place}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target.startswith("pairfold."):
                found.append((node.lineno, target.removeprefix("pairfold.")))
    return found


def level_of(name: str) -> int:
    """The level of a module, from its dotted name; public names of the package count as its own."""
    first = name.partition(".")[0]
    return next((n for n, level in enumerate(LEVELS) if first in level), len(LEVELS) - 1)


def test_files_import_only_from_their_level_and_those_before_it():
    own = {path: level_of(name_of(path).removesuffix(".py").replace("/", ".")) for path in FILES}
    wrong = [
        f"{name_of(path)}:{line}: {name}"
        for path in FILES
        for line, name in imported(path)
        if level_of(name) > own[path]
    ]
    assert not wrong, "imports from a later level: " + "; ".join(wrong)


LLVMLITE = r"import llvmlite|from llvmlite"
KNOW_BACKENDS = ("doctor.py", "backends/chosen.py")  # looks at the machine; chooses one


def test_backends_are_known_by_their_interface_alone():
    """Only machine code knows llvmlite; who is no backend does not know which there are."""
    wrong: list[str] = []
    for path in FILES:
        name = name_of(path)
        if name in KNOW_BACKENDS:
            continue
        own = re.match(r"backends/(llvm|gpu|reference)/", name)
        if own is None or own[1] != "llvm":
            wrong += [f"{name}: {line}" for line in re.findall(LLVMLITE, path.read_text())]
        wrong += [
            f"{name}:{line}: {target}"
            for line, target in imported(path)
            for kind in re.findall(r"^backends\.(llvm|gpu|reference)\b", target)
            if own is None or kind != own[1]
        ]
    assert not wrong, "imports of a backend: " + "; ".join(wrong)


# Where files outside arrays/ ask an object what it has, or look among modules, and why.
PROBED = {
    "errors.py: sys.modules": "frames of torch in tracebacks, below all that knows libraries",
    "errors.py: torch is None": "the same",
    "later.py: sys.modules": "the module whose names are imported later",
    "settings.py: hasattr(os, 'sched_getaffinity')": "what the system has",
    "core/locks.py: hasattr(os, 'register_at_fork')": "what the system has",
    "backends/llvm/native.py: sys.modules": "the module for logging, where somebody may listen",
    "backends/llvm/pool.py: hasattr(os, 'register_at_fork')": "what the system has",
    "backends/gpu/compiled.py: sys.modules": "printed programs, which are modules to Triton",
    "frontends/explain.py: hasattr(type(reduction), 'explain')": "whatever can be explained",
    "frontends/lazy.py: hasattr(x, 'reduction_op')": "reductions, imported after lazy tensors",
    "frontends/methods.py: hasattr(cls, op.method)": "methods that a class has of its own",
    "frontends/reduced.py: hasattr(type(tensor), name)": "methods that a reduction refuses",
    "catalogue.py: sys.modules": "what modules of rows say of themselves",
    "dropin/__init__.py: sys.modules": "the modules of PyKeOps, which it puts there",
    "dropin/__init__.py: hasattr(present, _MARK)": "whether one there is its own",
    "dropin/config.py: sys.modules": "a name in a module of PyKeOps",
    "dropin/messages.py: sys.modules": "flags in modules of PyKeOps",
    "dropin/common.py: lang == 'numpy'": "tools for a library that a program names",
}


def probes(path: Path) -> Iterator[str]:
    """Where a file looks for a library, or tells libraries apart, other than by their protocol."""
    for node in nodes_of(path):
        asks = isinstance(node, (ast.Attribute, ast.Call, ast.Compare))
        text = ast.unparse(node) if asks else ""
        if text == "sys.modules" or re.match(r"hasattr\(|getattr\(.*'requires_grad'", text):
            yield text
        elif isinstance(node, ast.Compare):
            sides = {ast.unparse(side) for side in (node.left, *node.comparators)}
            if sides & {"'numpy'", "'torch'", "'jax'", "np", "torch", "jax"}:
                yield text


def test_array_libraries_are_known_by_their_protocol_alone():
    outside = (path for path in FILES if not name_of(path).startswith("arrays/"))
    found = {f"{name_of(path)}: {probe}" for path in outside for probe in probes(path)}
    assert found == set(PROBED)


def test_what_compiles_and_runs_kernels_imports_no_array_library_but_numpy():
    wrong: list[str] = []
    for path in FILES:
        if name_of(path).startswith(("core/", "ops/", "calculus/", "lower/", "backends/")):
            nodes = nodes_of(path)
            names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
            names |= {
                n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level
            }
            if {"torch", "jax"} & {name.partition(".")[0] for name in names}:
                wrong.append(name_of(path))
    assert not wrong, "imports a library: " + "; ".join(wrong)


def test_every_file_has_a_level():
    unknown = {name_of(p).removesuffix(".py").partition("/")[0] for p in FILES} - set().union(
        *LEVELS
    )
    assert not unknown


def laid_out() -> list[str]:
    """Dotted names of the files in the tree of docs/layout.md, in its order."""
    tree = (ROOT / "docs" / "layout.md").read_text().partition("src/pairfold/\n")[2]
    found: list[str] = []
    folder = ""
    for line in tree.partition("\ndropin/ ")[0].splitlines():
        if not line.startswith("    "):
            folder = ""
        names = re.match(r" +(\S+?/|\S+\.py(?:, \S+\.py)*)(?:  |$)", line)
        assert names, line
        if names[1].endswith("/"):
            folder = names[1].removesuffix("/").replace("/", ".") + "."
            continue
        found += [folder + name.removesuffix(".py") for name in names[1].split(", ")]
    return found


def test_the_layout_lists_every_file_below_those_that_it_imports():
    order = laid_out()
    names = {name_of(p).removesuffix(".py").replace("/", "."): p for p in FILES}
    written = {n: p for n, p in names.items() if not n.endswith("__init__")}
    assert sorted(order) == sorted(set(written) - {"dropin.__main__"})
    late: list[str] = []
    for place, name in enumerate(order):
        lines = written[name].read_text().splitlines()
        for number, target in imported(written[name]):
            if lines[number - 1].startswith(" "):  # in a function: imported when it is called
                continue
            later = [other for other in order[place + 1 :] if f"{target}.".startswith(f"{other}.")]
            late += [f"{name} before {other}" for other in later]
    assert not late, "; ".join(late)


# -- what no file contains -------------------------------------------------------------------------


def test_nothing_is_evaluated_or_printed():
    found: list[str] = []
    for path in FILES:
        forbidden = {"eval", "exec", "compile", "print", "__import__", "breakpoint"}
        if path.name == "__main__.py":
            forbidden.remove("print")
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in forbidden:
                    found.append(f"{name_of(path)}:{node.lineno}: {node.func.id}(...)")
            elif isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                found.append(f"{name_of(path)}:{node.lineno}: import *")
    assert not found, "; ".join(found)


def tracked_text_files() -> list[Path]:
    """Text files that are, or could be, under version control; elsewhere, all but products."""
    files: list[Path] = []
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    if not files:
        products = re.compile(r"(^|/)(\.(?!ci/)[^/]*|build|dist|[^/]*egg-info|__pycache__|v?env)/")
        found = (f for f in ROOT.rglob("*") if f.is_file())
        files = [f for f in found if not products.search(f.relative_to(ROOT).as_posix())]
    texts = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".cpp", ".json", ".csv", ""}
    return [f for f in files if f.suffix in texts and f.is_file()]


def test_no_file_contains_a_path_of_some_machine():
    folders = "home|root|tmp|work|Users|opt|mnt|scratch|usr/local|var/folders"
    absolute = re.compile(rf"(?<![\w.)\]}}/*-])/(?:{folders})/\w|\b[A-Z]:\\\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:90]}"
        for path in tracked_text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if absolute.search(line)
    ]
    assert not found, "\n".join(found)


# -- what every file owes --------------------------------------------------------------------------


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """(dotted name, function, public) of every function.

    Nested ones are private, and those that only type checkers see: what runs says what it does.
    """
    todo: list[tuple[str, ast.AST, bool]] = [("", tree_of(path), True)]
    while todo:
        prefix, node, public = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                shown = public and not child.name.startswith("_")
                todo.append((f"{prefix}{child.name}.", child, shown))
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                unseen = any(ast.unparse(each) == "overload" for each in child.decorator_list)
                shown = public and not unseen and not child.name.startswith("_")
                yield f"{prefix}{child.name}", child, shown
                todo.append((f"{prefix}{child.name}.", child, False))
            elif not isinstance(child, ast.expr):
                unseen = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
                todo.append((prefix, child, public and not unseen))


def unannotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    a = function.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    bare = [x.arg for x in arguments if x.annotation is None and x.arg not in ("self", "cls")]
    return bare + ["return"] * (function.returns is None)


def test_public_functions_are_documented_and_annotated():
    wrong: list[str] = []
    for path in FILES:
        for name, function, public in functions(path):
            if not public:
                continue
            if not ast.get_docstring(function):
                wrong.append(f"{name_of(path)}: {name} has no docstring")
            if bare := unannotated(function):
                wrong.append(f"{name_of(path)}: {name} lacks annotations of {', '.join(bare)}")
    assert not wrong, "; ".join(wrong)


def test_modules_say_what_they_are():
    silent = [name_of(path) for path in FILES if not ast.get_docstring(tree_of(path))]
    assert not silent, "no docstring: " + "; ".join(silent)


def test_files_are_short():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    long = [f"{name} ({count} lines)" for name, count in lines.items() if count >= MAX_FILE_LINES]
    assert not long, "may hold two ideas: " + "; ".join(long)


def test_functions_are_short():
    long: list[str] = []
    for path in FILES:
        for name, function, _ in functions(path):
            assert function.end_lineno is not None
            lines = function.end_lineno - function.lineno + 1
            if lines >= MAX_FUNCTION_LINES:
                long.append(f"{name_of(path)}: {name} ({lines} lines)")
    assert not long, "; ".join(long)


# -- what types say --------------------------------------------------------------------------------

# How often each folder says `Any`, which asks nothing of a value: no more than it does now. It is
# for what has no types to be said (names that stubs leave out, values whose type another value
# says); `object` is for what is looked at before it is used, `UserArray` for arrays of users.
ANY = {
    "arrays": 0,
    "backends": 5,
    "calculus": 0,
    "core": 8,
    "dropin": 56,
    "frontends": 40,
    "lower": 0,
    "ops": 2,
    "": 4,  # files of no folder
}


def test_values_of_any_type_do_not_become_more():
    found = dict.fromkeys(ANY, 0)
    for path in FILES:
        folder = name_of(path).rpartition("/")[0].partition("/")[0]
        found[folder] += len(re.findall(r"\bAny\b", path.read_text()))
    more = [
        f"{folder or '(top)'}: {found[folder]}, not {ANY[folder]}"
        for folder in ANY
        if found[folder] > ANY[folder]
    ]
    assert not more, "; ".join(more)


# -- what is kept between calls --------------------------------------------------------------------

# Facts of the process; tables that are complete after the import, or that hold nothing alive.
KEPT = {
    *("backends/llvm/machine.py: _llvm", "backends/llvm/machine.py: target_machine"),
    *("backends/llvm/native.py: _passes", "arrays/numpy.py: _objects_are_read"),
    *("frontends/hooks.py: hooks_of", "core/cache.py: _limits", "core/node.py: _interned"),
    *("ops/table.py: OPERATIONS", "ops/reductions.py: REDUCTIONS"),
    "ops/states.py: _states_row",  # as many as there are reductions
    "core/constants.py: _known",  # as long as the arrays
    "backends/llvm/xla_target.py: _targets",  # XLA may call what it was given until the end
}


def kept(path: Path) -> Iterator[str]:
    """Functions whose results functools keeps, and empty tables of a module."""
    for node in nodes_of(path):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if any(re.search(r"\b(lru_)?cache\b", ast.unparse(each)) for each in decorators):
            assert isinstance(node, ast.FunctionDef)
            yield node.name
    for node in tree_of(path).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        if ast.unparse(node.value) in ("{}", "dict()", "OrderedDict()"):
            yield ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def test_what_is_kept_between_calls_has_a_limit():
    found = {f"{name_of(path)}: {name}" for path in FILES for name in kept(path)}
    assert found == KEPT


def test_faults_can_be_planted():
    for fault in FAULTS:
        text = (PACKAGE / fault.path).read_text()
        assert text.count(fault.old) == 1, fault.name


# -- the examples ------------------------------------------------------------------------------


# One process for all of them: torch and matplotlib are imported once.
RUN_PROGRAMS = """
import runpy, sys

for program in sys.argv[1:]:
    sys.argv = [program]
    runpy.run_path(program, run_name="__main__")
"""


@pytest.mark.slow
def test_the_examples_run_without_a_display(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    programs = [Path(shutil.copy(file, tmp_path)) for file in (ROOT / "examples").glob("*.py")]
    assert len(programs) > 2
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT / "dropin" / "src")])
    done = subprocess.run(
        [sys.executable, "-c", RUN_PROGRAMS, *map(str, programs)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^max relative difference: (\S+)$", done.stdout, re.MULTILINE)
    assert len(found) == len(programs), done.stdout
    assert all(float(each) < 1e-5 for each in found)
    for program in programs:
        assert program.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
