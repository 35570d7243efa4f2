"""Programs of JAX that leave the process, and the modules of JAX that are not quite public."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed")
import jax

# Versions that all tests of JAX passed with.
TESTED = ("0.10.2",)
# What `frontends/jax.py` and `jaxsolve.py` take from modules that JAX may change without notice.
TAKEN = {
    "jax.extend.core": ("Primitive",),
    "jax.interpreters.ad": (
        *("Zero", "add_tangents", "instantiate_zeros", "is_undefined_primal"),
        *("primitive_jvps", "primitive_transposes"),
    ),
    "jax.interpreters.batching": ("primitive_batchers",),
    "jax.interpreters.mlir": ("lower_fun", "register_lowering", "LoweringRuleContext"),
    "jax.core": ("ShapedArray", "Tracer"),
    "jax.ffi": ("ffi_lowering", "pycapsule", "register_ffi_target"),
}


def test_the_version_of_jax_is_one_that_was_tested():
    """Fails with a new version: run all tests of JAX, then add it here."""
    assert jax.__version__ in TESTED
    for name, parts in TAKEN.items():
        module = importlib.import_module(name)
        assert not [part for part in parts if not hasattr(module, part)], name
    kind = jax.typeof(jax.numpy.zeros((2, 3)))
    assert kind.manual_axis_type.varying == frozenset()
    assert kind.update(shape=(2, 3), weak_type=False) is not None


PROGRAM = """
import sys
import numpy as np
import jax
import jax.numpy as jnp
from pairfold.jax import Genred, target_names

gauss = Genred("Exp(-SqDist(x,y))*b", ["x=Vi(3)", "y=Vj(3)", "b=Vj(1)"], axis=1)
program = jax.jit(jax.value_and_grad(lambda x, y, b: jnp.sin(gauss(x, y, b)).sum()))
x, y, b = jnp.arange(51.0).reshape(17, 3) / 50, jnp.ones((23, 3)), jnp.ones((23, 1))
what, path = sys.argv[1:]
if what == "save":
    program.lower(x, y, b)  # names what it calls
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in target_names()]
    exported = jax.export.export(program, disabled_checks=allowed)(x, y, b)
    open(path, "wb").write(exported.serialize())
    sys.exit()
exported = jax.export.deserialize(bytearray(open(path, "rb").read()))
try:
    jax.block_until_ready(exported.call(x, y, b))
    raise AssertionError("nothing was lowered here")
except jax.errors.JaxRuntimeError as error:
    assert "pairfold_" in str(error)
program.lower(x, y, b)
for one, other in zip(exported.call(x, y, b), program(x, y, b)):
    np.testing.assert_array_equal(one, other)
"""


def test_programs_are_saved_and_loaded_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="JAX saves programs with it")
    path = str(tmp_path / "program")
    for what in ("save", "load"):
        command = [sys.executable, "-c", PROGRAM, what, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_a_program_that_is_exported_says_what_it_calls():
    from pairfold.jax import Genred

    doubled = Genred("SqDist(x,y)*2", ["x=Vi(3)", "y=Vj(3)"], axis=1)
    point = jax.ShapeDtypeStruct((5, 3), "float32")
    with pytest.raises(ValueError, match="pairfold_"):
        jax.export.export(jax.jit(doubled))(point, point)


def test_the_benchmark_runs(capsys, monkeypatch):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks import jax_pairs

    problems = {name: jax_pairs.PROBLEMS[name] for name in ("RBF sum",)}
    monkeypatch.setattr(jax_pairs, "PROBLEMS", problems)
    monkeypatch.setattr(jax_pairs, "MODES", {"reverse mode": jax_pairs.reverse})
    jax_pairs.main(["--sizes", "40", "--repeats", "1"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" |")]
    errors = [float(row.split("|")[-2]) for row in rows if row.count("|") == 9 and "e-" in row]
    assert len(errors) == 1
    assert max(errors) < 1e-4
