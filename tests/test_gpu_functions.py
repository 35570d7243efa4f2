"""Elementary functions as Triton programs, in Triton's interpreter: accuracy, special values.

A GPU's own instructions are not looked at here: 2^x, which flushes subnormal results, and square
roots, reciprocal roots and quotients in float32, which may be off by 2 ulp where a formula allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sweep_math import TWO_ARGUMENTS, ulp_error
from test_approximations import (
    ANGLES,
    POWERS,
    SPECIAL,
    assert_identical,
    assert_within,
    one_argument_case,
    per_dtype,
    two_argument_case,
)

from pairfold.backends.functions import approximations
from pairfold.backends.gpu.compiled import module_of
from pairfold.backends.gpu.text import Printed, Text
from pairfold.core.primitives import PRIMITIVES
from pairfold.numpy import Genred
from pairfold.settings import settings

pytestmark = pytest.mark.usefixtures("interpreter")
LANES = 1 << 16
# What a kernel may call; the others are parts of these.
CALLED = {row.llvm for row in PRIMITIVES.values()} & set(approximations.FUNCTIONS)
ONE = sorted(CALLED - set(TWO_ARGUMENTS))
TWO = sorted(CALLED & set(TWO_ARGUMENTS))


def computed(function: str, *inputs: Any) -> Any:
    """A function of all inputs, printed alone as a program."""
    text = Text()
    text.line("place = tl.program_id(0) * LANES + tl.arange(0, LANES)[None, :]")
    names = [text.let(f"tl.load(x{n} + place)") for n in range(len(inputs))]
    found = approximations.FUNCTIONS[function](Printed(text, inputs[0].dtype.name), *names)
    text.line(f"tl.store(out + place, {found})")
    arguments = ["out", *(f"x{n}" for n in range(len(inputs))), "LANES: tl.constexpr"]
    header = f"@triton.jit\ndef program({', '.join(arguments)}):\n"
    imports = "import triton\nimport triton.language as tl\n\n\n"
    module = module_of(imports + header + text.whole(), f"{function}_alone", True)
    size = inputs[0].size
    padded = [np.ones(-(-size // LANES) * LANES, array.dtype) for array in inputs]
    for long, array in zip(padded, inputs, strict=True):
        long[:size] = array
    tensors = [torch.as_tensor(array) for array in padded]
    out = torch.empty_like(tensors[0])
    module.program[(padded[0].size // LANES,)](out, *tensors, LANES=LANES)
    return out.numpy()[:size]


@per_dtype
@pytest.mark.parametrize("function", ONE)
def test_errors_stay_within_the_bound(function: str, dtype: str) -> None:
    x, reference = one_argument_case(function, dtype)
    assert_within(function, ulp_error(computed(function, x), reference), x)


@per_dtype
@pytest.mark.parametrize("function", TWO)
def test_errors_of_pairs_stay_within_the_bound(function: str, dtype: str) -> None:
    x, y, reference = two_argument_case(function, dtype)
    assert_within(function, ulp_error(computed(function, x, y), reference), x, y)


@per_dtype
def test_special_values_follow_c99(dtype: str) -> None:
    for function in ONE:
        x, expected = np.array(SPECIAL[function], dtype).T
        assert_identical(computed(function, x), expected, x)
    x, y, expected = np.array(POWERS, dtype).T
    assert_identical(computed("pow", x, y), expected, x, y)
    y, x, expected = np.array(ANGLES, dtype).T
    np.testing.assert_allclose(
        computed("atan2", y, x), expected, rtol=2 * np.finfo(dtype).eps, atol=0
    )


def test_functions_of_pairs_are_accurate_in_formulas() -> None:
    """In float32 an exponential may add to what rounding its argument did; nothing else may."""
    x = np.concatenate([np.linspace(-80, 80, 996), np.geomspace(1e-30, 80, 997)]).astype("float32")
    y = np.float32([[0.37]])
    x, eps = x[:, None], float(np.finfo("float32").eps)
    wide, one = x.astype("float64"), float(y[0, 0])
    plus, times = wide + one, wide * one
    with settings(tile="1024x1x1"):
        for formula, want, units in (
            ("Exp(x+y)", np.exp(plus), 4 + np.abs(plus)),
            ("Exp(-(x*y))", np.exp(-times), 4 + np.abs(times)),
            ("Exp(Max(Concat(x,y)))", np.exp(np.maximum(wide, one)), 4),
            ("Exp(-Max(Concat(x,y)))", np.exp(-np.maximum(wide, one)), 4),
            ("Sqrt(Abs(x*y))", np.sqrt(np.abs(times)), 4),
            ("Rsqrt(Abs(x*y))", 1 / np.sqrt(np.abs(times)), 4),
            ("y/x", one / wide, 4),
            ("Log(Abs(x*y))", np.log(np.abs(times)), 4 + 1 / np.abs(np.log(np.abs(times)))),
        ):
            got = Genred(formula, ["x = Vi(1)", "y = Vj(1)"], axis=1)(x, y, backend="GPU")
            error = np.abs(got - want) / (eps * np.abs(want))
            worst = np.argmax(error - units)
            assert (error <= units).all(), f"{formula} at {x[worst]}: {error[worst]} ulp"
