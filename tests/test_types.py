"""What annotations say: to type checkers, to programs that read them, and of methods from rows."""

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import typing
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

import lazy_program
import pytest

import pairfold
import pairfold.numpy
from pairfold import ComplexLazyTensor, LazyTensor
from pairfold.frontends import reduced, typed
from pairfold.frontends.methods import signature_of
from pairfold.ops.table import OPERATIONS

ROOT = Path(pairfold.__file__).parent
PROGRAM = Path(lazy_program.__file__)


# -- methods from rows -----------------------------------------------------------------------------


def declared(name: str) -> dict[str, ast.FunctionDef]:
    """The methods that a class of `typed.py` declares, by name."""
    (found,) = (
        node
        for node in ast.walk(ast.parse(Path(typed.__file__).read_text()))
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {node.name: node for node in found.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("kind", "name"), [(LazyTensor, "RealMethods"), (ComplexLazyTensor, "ComplexMethods")]
)
def test_type_checkers_know_the_methods_that_rows_make(kind, name):
    made = {n: f for n, f in vars(kind).items() if hasattr(f, "__signature__")}
    written = declared(name)
    assert set(written) == set(made)
    for method, function in written.items():
        arguments = [(a.arg, None) for a in function.args.args]
        # Reads literals of our own source from its syntax tree; no code is run.
        defaults = [ast.literal_eval(d) for d in function.args.defaults]  # literals, no code
        for place, default in enumerate(defaults, len(arguments) - len(defaults)):
            arguments[place] = (arguments[place][0], default)
        wanted = [
            (p.name, None if p.default is p.empty else p.default)
            for p in made[method].__signature__.parameters.values()
        ]
        assert arguments == wanted, method


def test_rows_make_methods():
    rows = [op for op in OPERATIONS.values() if op.method == "sqdist"]
    assert [str(signature_of(op)) for op in rows] == [str(inspect.signature(LazyTensor.sqdist))]


# -- annotations when a program runs ---------------------------------------------------------------


@cache
def for_checkers(module: ModuleType) -> dict[str, object]:
    """The names that a module has for type checkers alone: imports, aliases."""
    found: dict[str, object] = {}
    for block in ast.parse(Path(str(module.__file__)).read_text()).body:
        if not isinstance(block, ast.If) or ast.unparse(block.test) != "TYPE_CHECKING":
            continue
        for node in block.body:
            if isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for name in node.names:
                    found[name.asname or name.name] = imported(source, name.name, module)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                names = [n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)]
                known = {**vars(module), **found}
                found[ast.unparse(target)] = typing.Union[tuple(known[n] for n in names)]  # noqa: UP007
    return found


def imported(source: str, name: str, module: ModuleType) -> object:
    """What an import gives; of what only checkers see, what it would be."""
    if source == "typing_extensions":
        return getattr(typing, name, list)  # before Python 3.11: anything that takes brackets
    if source == "torch":
        return getattr(pytest.importorskip("torch"), name)
    place = importlib.import_module(source, module.__package__)
    return getattr(place, name) if hasattr(place, name) else for_checkers(place)[name]


def functions_of(value: object) -> list[FunctionType]:
    """A function, or all that a class has from this package."""
    if isinstance(value, FunctionType):
        return [inspect.unwrap(value)]
    found: list[FunctionType] = []
    for kind in getattr(value, "__mro__", ()):
        for each in vars(kind).values() if kind.__module__.startswith("pairfold") else ():
            each = each.fget if isinstance(each, property) else getattr(each, "__func__", each)
            found += [inspect.unwrap(each)] if isinstance(each, FunctionType) else []
    return [f for f in found if f.__module__.startswith("pairfold")]


PUBLIC = {
    **{name: getattr(pairfold, name) for name in pairfold.__all__},
    **{f"numpy.{name}": getattr(pairfold.numpy, name) for name in pairfold.numpy.__all__},
    "Reduced": reduced.Reduced,
}


def test_annotations_can_be_resolved():
    unresolved = {}
    for function in {f: None for value in PUBLIC.values() for f in functions_of(value)}:
        names = for_checkers(sys.modules[function.__module__])
        try:
            typing.get_type_hints(function, localns=names)
        except NameError as error:
            unresolved[function.__qualname__] = str(error)
    assert not unresolved


def test_most_public_names_have_annotations():
    assert {name for name, value in PUBLIC.items() if not functions_of(value)} == {
        "__version__",
        "cluster",
        "linalg",
        "numpy.cluster",
    }


# -- type checkers ---------------------------------------------------------------------------------


def test_values_are_of_the_types_that_checkers_are_told():
    lazy_program.main()


def wrong_lines() -> set[int]:
    """The lines of the program that type checkers are to report, from 0."""
    lines = PROGRAM.read_text().splitlines()
    wanted = {n for n, line in enumerate(lines) if line.endswith("# error")}
    assert len(wanted) == 14
    return wanted


@pytest.mark.slow
def test_type_checkers_know_the_types_of_a_users_program(tmp_path):
    pytest.importorskip("pyright")
    options = {
        "include": [PROGRAM.name],
        "extraPaths": [str(ROOT.parent)],
        "pythonVersion": "3.10",
        "typeCheckingMode": "strict",
    }
    shutil.copy(PROGRAM, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {each["range"]["start"]["line"]: each["message"] for each in found}
    assert set(errors) == wrong_lines(), errors


@pytest.mark.product  # twenty seconds; .ci/run calls it by name
def test_mypy_knows_the_types_of_a_users_program(tmp_path):
    pytest.importorskip("mypy")
    shutil.copy(PROGRAM, tmp_path)
    settings = "strict = True\nfollow_imports = silent\nshow_error_codes = False\n"
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n{settings}mypy_path = {ROOT.parent}\n")
    command = [sys.executable, "-m", "mypy", PROGRAM.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^[^:]+:(\d+): error: ", done.stdout, re.MULTILINE)
    assert {int(line) - 1 for line in found} == wrong_lines(), done.stdout + done.stderr
