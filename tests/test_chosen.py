"""The backend that settings name: the interpreter against machine code, on any arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from checks import assert_close
from products import some

from pairfold import Genred, explain, settings
from pairfold.cluster import from_matrix
from pairfold.errors import DeviceError, OptionError
from pairfold.ops.reductions import REDUCTIONS

ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)", "p = Pm(1)"]
FORMULA = "Exp(-p*SqDist(x,y))"


def reduction(name: str, axis: int = 1) -> Genred:
    row = REDUCTIONS[name]
    options: dict[str, Any] = {"opt_arg": 3} if row.top_k else {}
    if row.weighted != "no":
        options["formula2"] = "b"
    formula = FORMULA if row.scalar or row.weighted != "no" else f"{FORMULA}*b"
    return Genred(formula, ALIASES, name, axis=axis, **options)


def points(dtype: str, batch: tuple[int, ...] = ()) -> list[Any]:
    """Arrays of 17 and 23 rows with strides of every sign."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(*batch, 17, 6)).astype(dtype)[..., ::-2]
    y = rng.normal(size=(23, 3)).astype(dtype)[::-1]
    b = np.asfortranarray(rng.normal(size=(23, 2)).astype(dtype))
    return [x, y, b, np.array([0.5], dtype)]


def agree(got: Any, want: Any) -> None:
    gots, wants = (r if isinstance(r, tuple) else (r,) for r in (got, want))
    for a, b in zip(gots, wants, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert_close(a, b, terms=23)


NAMES = [name for name, row in REDUCTIONS.items() if not row.internal]
DTYPES = ["float32", "float64", "float16"]


@some(
    "name,dtype",
    [(name, dtype) for name in NAMES for dtype in DTYPES],
    lambda entry: NAMES.index(entry[0]) % 3 == DTYPES.index(entry[1]),
)
def test_the_interpreter_computes_what_machine_code_does(name: str, dtype: str) -> None:
    given = points(dtype, (2, 1))
    for axis in (0, 1):
        called = reduction(name, axis)
        want = called(*given)
        with settings(backend="reference"):
            agree(called(*given), want)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", ["Sum", "Min_ArgMin", "LogSumExp"])
def test_arrays_of_no_or_one_row(name: str, rows: int) -> None:
    x, y, b, p = points("float64")
    for given in ([x[:rows], y, b, p], [x, y[:rows], b[:rows], p]):
        want = reduction(name)(*given)
        with settings(backend="reference"):
            agree(reduction(name)(*given), want)


def test_ranges_and_out() -> None:
    given = points("float64")
    cuts = [np.array([[0, 8], [8, size]]) for size in (17, 23)]
    ranges = from_matrix(*cuts, np.array([[True, False], [False, True]]))
    want = reduction("Sum")(*given, ranges=ranges)
    out = np.zeros((2, 17)).T
    with settings(backend="reference"):
        assert reduction("Sum")(*given, ranges=ranges, out=out) is out
    assert_close(out, want, terms=23)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_tensors_and_their_gradients(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    given = [torch.from_numpy(a.copy()).to(kind).requires_grad_() for a in points("float64")]

    def found() -> list[Any]:
        result = reduction("Sum")(*given)
        return [result, *torch.autograd.grad(result.sin().sum(), given)]

    want = found()
    with settings(backend="reference"):
        got = found()
    for a, b in zip(got, want, strict=True):
        assert a.dtype == kind
        # Of bfloat16 the gradients pass through results that may be rounded to either side.
        tolerance = 1e-12 if dtype == "float64" else 2**-6
        size = float(b.detach().abs().max())
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * size)


def test_nothing_is_compiled() -> None:
    code = (
        "import sys, numpy as np, pairfold\n"
        "g = pairfold.Genred('Exp(-SqDist(x,y))', ['x = Vi(3)', 'y = Vj(3)'], axis=1)\n"
        "print(g(np.ones((2, 3)), np.ones((4, 3))).tolist(), 'llvmlite.binding' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PAIRFOLD_BACKEND": "reference"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "[[4.0], [4.0]] False\n", done.stderr


def test_explanations_are_of_the_backend_that_runs() -> None:
    called = Genred(FORMULA, [*ALIASES[:2], "p = Pm(2,1)"], axis=1)
    kinds = {"auto": "Explanation", "llvm": "Explanation", "reference": "ReferenceExplanation"}
    for backend, kind in {**kinds, "triton": "GpuExplanation"}.items():
        if backend == "triton":
            pytest.importorskip("triton")
        with settings(backend=backend):
            assert type(explain(called)).__name__ == kind
    with settings(backend="reference"):
        text = str(called.explain())
    assert "interpreted by NumPy in float64" in text
    assert FORMULA in text


def test_backends_that_are_not_there_or_compute_elsewhere() -> None:
    with pytest.raises(OptionError, match="'llvm', 'triton', 'reference'"):
        settings(backend="numpy")
    for backend in ("llvm", "reference"):
        with settings(backend=backend), pytest.raises(DeviceError, match=f"backend='{backend}'"):
            reduction("Sum").explain(backend="GPU")


@pytest.mark.usefixtures("interpreter")
def test_triton_computes_arrays_of_the_host_on_a_gpu() -> None:
    given = points("float32")
    want = reduction("Sum")(*given)
    with settings(backend="triton"):
        agree(reduction("Sum")(*given), want)
    with settings(backend="llvm"), pytest.raises(DeviceError, match="in the host's memory"):
        reduction("Sum")(*given, backend="GPU")
