"""Measure the error of the SIMD elementary functions against a wider oracle.

Turns a function of `pairfold.backends.functions.approximations` into a machine-code kernel
for a chosen target, runs it over float32 bit patterns (all 2**32 by default when run
as a script: ``python tests/sweep_math.py [names...]``) and prints the worst error in
units in the last place.  The error is measured against the unrounded reference, never
against the reference rounded to the dtype.  It checks values only, never speed.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import mpmath
import numpy as np
import numpy.typing as npt
from scipy import special

from pairfold.backends.functions.approximations import FUNCTIONS
from pairfold.backends.llvm import ir
from pairfold.backends.llvm.machine import machine
from pairfold.backends.llvm.simd import Simd

Array = npt.NDArray[Any]

TWO_ARGUMENTS = ("pow", "atan2")
BOUND_ULP = {name: 2.0 if name in ("exp", "log", "rsqrt") else 4.0 for name in FUNCTIONS}

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_CPUS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "baseline": "x86-64"}
_AVX2 = frozenset({"sse2", "sse4.1", "avx", "avx2", "fma", "f16c", "bmi2"})
_FEATURES = {
    "avx512": _AVX2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"},
    "avx2": _AVX2,
    "baseline": frozenset({"sse2"}),
}


# ---- targets and kernels -----------------------------------------------------------------


def _host_features() -> frozenset[str]:
    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def available_targets() -> tuple[str, ...]:
    """The targets whose code this machine can run."""
    if not _X86:
        return ("native",)
    host = _host_features()
    return ("native", *(name for name in _CPUS if _FEATURES[name] <= host))


@dataclass(frozen=True)
class Target:
    """A CPU to compile for, with its features and its vector size in bytes."""

    cpu: str
    features: frozenset[str]
    vector_bytes: int


@cache
def find_target(name: str) -> Target:
    """Look a target up by name; "native" is whatever this machine offers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if name == "native":
        found = machine(name)
        return Target(found.cpu, found.has, found.vector_bytes)
    cpu, features = _CPUS[name], _FEATURES[name]
    wide = 32 if "avx2" in features else 16
    return Target(cpu, features, 64 if "avx512f" in features else wide)


def _machine(name: str) -> llvm.TargetMachine:
    target = find_target(name)
    flags = machine(name).features if name == "native" else ""
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=flags, opt=3, jit=True
    )


def build_ir(function: str, dtype: str, target: str, width: int) -> ir.Module:
    """The module of ``void f(out*, n, in*, ...)``, with n a multiple of the width."""
    arity = 2 if function in TWO_ARGUMENTS else 1
    module = ir.Module(function)
    pointer, i64 = ir.PointerType(), ir.IntType(64)
    signature = ir.FunctionType(ir.VoidType(), [pointer, i64] + [pointer] * arity)
    kernel = ir.Function(module, signature, "kernel")
    entry = kernel.append_basic_block("entry")
    loop = kernel.append_basic_block("loop")
    leave = kernel.append_basic_block("leave")
    builder = ir.IRBuilder(entry)
    builder.branch(loop)
    builder.position_at_end(loop)
    s = Simd(builder, dtype, width, find_target(target).features)
    index = builder.phi(i64)
    index.add_incoming(ir.Constant(i64, 0), entry)
    out, count, *inputs = kernel.args

    item = s.bits // 8

    def address(base: ir.Value) -> ir.Value:
        return builder.gep(base, builder.mul(index, ir.Constant(i64, item)))

    values = [builder.load(address(p), s.type, item) for p in inputs]
    builder.store(FUNCTIONS[function](s, *values), address(out), item)
    following = builder.add(index, ir.Constant(i64, width))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, leave)
    builder.position_at_end(leave)
    builder.ret_void()
    return module


def optimise(module: ir.Module, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """Parse, verify and optimise a module the way a compiler would."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return parsed


class Kernel:
    """A compiled function: call it with arrays to get an array."""

    def __init__(self, function: str, dtype: str, target: str, width: int = 0) -> None:
        machine = _machine(target)
        self.dtype = np.dtype(dtype)
        self.width = width or find_target(target).vector_bytes // self.dtype.itemsize
        parsed = optimise(build_ir(function, dtype, target, self.width), machine)
        self.assembly = machine.emit_assembly(parsed)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()
        arity = 2 if function in TWO_ARGUMENTS else 1
        pointer = ctypes.c_void_p
        prototype = ctypes.CFUNCTYPE(None, pointer, ctypes.c_int64, *[pointer] * arity)
        self._call = prototype(self._engine.get_function_address("kernel"))

    def __call__(self, *inputs: Array) -> Array:
        size = len(inputs[0])
        padding = -size % self.width
        padded = [np.pad(np.asarray(a, self.dtype), (0, padding)) for a in inputs]
        out = np.empty(size + padding, self.dtype)
        self._call(out.ctypes.data, len(out), *[a.ctypes.data for a in padded])
        return out[:size]


@cache
def kernel(function: str, dtype: str, target: str, width: int = 0) -> Kernel:
    """A `Kernel`, compiled once."""
    own = find_target(target).vector_bytes // np.dtype(dtype).itemsize
    if width == own:
        return kernel(function, dtype, target)
    return Kernel(function, dtype, target, width)


# ---- oracles -----------------------------------------------------------------------------

_WIDE: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "atan": np.arctan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan2": np.arctan2,
    "pow": np.power,
    "erf": special.erf,
    "erfc": special.erfc,
    "lgamma": lambda x: np.where(x == -np.inf, np.inf, special.gammaln(x)),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
}


def _exact_lgamma(x: Any) -> Any:
    if x > 0:
        return mpmath.loggamma(x)
    if x == mpmath.floor(x):
        return mpmath.inf
    return mpmath.log(mpmath.pi / abs(mpmath.sinpi(x))) - mpmath.loggamma(1 - x)


_EXACT: dict[str, Callable[..., Any]] = {
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.power(2, x),
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tanh": mpmath.tanh,
    "atan": mpmath.atan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan2": mpmath.atan2,
    "pow": mpmath.power,
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "lgamma": _exact_lgamma,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
}


@dataclass(frozen=True)
class Reference:
    """An unrounded value: `nearest` in the dtype plus `rest` units in its last place.

    `terms`: the size of what it is a difference of, where errors are relative to that.
    """

    nearest: Array
    rest: Array
    terms: Array | None = None


_PRECISION = {"float32": (23, -149, 128), "float64": (52, -1074, 1024)}


def ulp_exponent(value: Array) -> Array:
    """The exponent of the unit in the last place, at least that of the subnormals."""
    bits, smallest, overflow = _PRECISION[value.dtype.name]
    exponent = np.frexp(value)[1] - 1 - bits
    exponent = np.where(np.isfinite(value), exponent, overflow - 1 - bits)
    return np.where(value == 0, smallest, np.maximum(exponent, smallest))


def wide_reference(function: str, *inputs: Array) -> Reference:
    """The reference for float32 inputs, from the float64 function."""
    with np.errstate(all="ignore"):
        wide = _WIDE[function](*[a.astype(np.float64) for a in inputs])
        # Infinity stands for the first value that the format lacks.
        wide = np.clip(wide, -(2.0**128), 2.0**128)
        nearest = wide.astype(np.float32)
        base = np.clip(nearest.astype(np.float64), -(2.0**128), 2.0**128)
        rest = np.ldexp(wide - base, -ulp_exponent(nearest))
    return Reference(nearest, rest, _terms(function, inputs[0]))


def _terms(function: str, x: Array) -> Array | None:
    """The size of what a function is a difference of; 0 where it is none."""
    if function != "lgamma":
        return None
    with np.errstate(all="ignore"):
        return np.where(x < 0, np.maximum(special.gammaln(1 - x), 1), 0).astype(x.dtype)


def _exact_point(function: str, *inputs: float) -> tuple[float, float]:
    """One reference value in float64; NaN where the function is not real."""
    if any(v != v for v in inputs):
        return np.nan, 0.0
    if function == "rsqrt" and inputs[0] == 0:
        return np.copysign(np.inf, inputs[0]), 0.0  # mpmath has no negative zero
    # exp of a huge argument would cost mpmath a huge integer: the limits suffice.
    if function in ("exp", "exp2", "expm1", "erfc") and abs(inputs[0]) > 1e4:
        inputs = (np.copysign(1e4, inputs[0]),)
    try:
        exact = _EXACT[function](*[mpmath.mpf(v) for v in inputs])
    except (ZeroDivisionError, ValueError, OverflowError):
        return np.nan, 0.0
    if isinstance(exact, mpmath.mpc) or mpmath.isnan(exact):
        return np.nan, 0.0
    limit = mpmath.ldexp(1, 1024)
    exact = min(max(exact, -limit), limit)
    nearest = np.array(_round_float64(exact))
    base = exact if np.isinf(nearest) else mpmath.mpf(float(nearest))
    if np.isinf(nearest):
        base = limit if nearest > 0 else -limit
    rest = mpmath.ldexp(exact - base, -int(ulp_exponent(nearest)))
    return float(nearest), float(rest)


def _round_float64(exact: Any) -> float:
    """Round to nearest; float() of a tiny mpf truncates, so scale subnormals by hand."""
    if exact != 0 and abs(exact) < mpmath.ldexp(1, -1022):
        return float(np.ldexp(float(mpmath.nint(mpmath.ldexp(exact, 1074))), -1074))
    return float(exact)


def exact_reference(function: str, *inputs: Array) -> Reference:
    """The reference for float64 inputs, from mpmath (special values excepted)."""
    with mpmath.workprec(200):
        points = [_exact_point(function, *map(float, p)) for p in zip(*inputs)]
    nearest, rest = np.array(points, np.float64).reshape(-1, 2).T
    return Reference(nearest, rest, _terms(function, inputs[0]))


def ulp_error(got: Array, reference: Reference) -> Array:
    """The distance from the unrounded reference in its units in the last place.

    An infinity counts as the first value beyond the format, so that overflowing one
    step early or late costs what it should.  NaN against a number is infinitely wrong.
    """
    nearest = reference.nearest
    exponent = ulp_exponent(nearest).astype(np.int64)
    limit = 2.0 ** (_PRECISION[nearest.dtype.name][2] - 1)
    with np.errstate(all="ignore"):
        # Halve the large values, so that the value standing for infinity exists.
        half = np.where(np.abs(nearest) > 1, 0.5, 1.0)
        a = np.clip(got.astype(np.float64) * half, -limit, limit)
        b = np.clip(nearest.astype(np.float64) * half, -limit, limit)
        exponent -= (half == 0.5).astype(np.int64)
        error = np.abs(np.ldexp(a - b, -exponent) - reference.rest)
        if reference.terms is not None:
            own = ulp_exponent(nearest)
            error = np.ldexp(error, own - np.maximum(ulp_exponent(reference.terms), own))
    both = np.isnan(got) & np.isnan(nearest)
    return np.where(both, 0.0, np.where(np.isnan(error), np.inf, error))


# ---- the sweep ---------------------------------------------------------------------------


def float32_patterns(start: int, stop: int, stride: int = 1) -> Array:
    """The float32 values with bit patterns in the range."""
    return np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def worst(errors: Array, inputs: Array) -> tuple[float, float]:
    """The largest error and where it is."""
    at = int(np.argmax(errors))
    return float(errors[at]), float(inputs[at])


def _quick_errors(got: Array, wide: Array) -> Array:
    """`ulp_error` for a float32 sweep, with few passes over the arrays (overwrites wide)."""
    limit = 2.0**128
    np.clip(wide, -limit, limit, out=wide)
    units = (wide.view(np.int64) & 0x7FF0_0000_0000_0000).view(np.float64)
    units *= 2.0**-23
    np.clip(units, 2.0**-149, 2.0**104, out=units)
    error = np.clip(got.astype(np.float64), -limit, limit)
    error -= wide
    np.abs(error, out=error)
    error /= units
    wrong = np.isnan(error)
    if wrong.any():
        both = np.isnan(got) & np.isnan(wide)
        error = np.where(both, 0.0, np.where(wrong, np.inf, error))
    return error


def sweep(
    function: str, target: str, stride: int = 1, chunk: int = 1 << 14
) -> Iterator[tuple[float, float]]:
    """Yield (worst error, its input) for each chunk of the float32 bit patterns."""
    run, oracle = kernel(function, "float32", target), _WIDE[function]
    with np.errstate(all="ignore"):
        for start in range(0, 1 << 32, chunk * stride):
            x = float32_patterns(start, min(start + chunk * stride, 1 << 32), stride)
            yield worst(_quick_errors(run(x), oracle(x.astype(np.float64))), x)


def _progress(steps: Iterable[Any], total: int, label: str) -> Iterable[Any]:
    try:
        from tqdm import tqdm  # pyright: ignore
    except ImportError:
        return steps
    return tqdm(steps, total=total, desc=label, leave=False)


def main() -> int:
    """FusedReductions, print the table, and fail when a bound is broken."""
    one_argument = [name for name in FUNCTIONS if name not in TWO_ARGUMENTS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="functions (default: all of one argument)")
    parser.add_argument("--target", action="append", choices=available_targets())
    parser.add_argument("--stride", type=int, default=1, help="test every n-th bit pattern")
    options = parser.parse_args()
    unknown = set(options.names) - set(one_argument)
    if unknown:
        parser.error(f"not a function of one argument: {', '.join(sorted(unknown))}")
    failed = False
    print(f"{'function':10}{'dtype':10}{'target':10}{'worst ulp':>10}  at")
    for name in options.names or one_argument:
        for target in options.target or ["native"]:
            chunks = -(-(1 << 32) // ((1 << 14) * options.stride))
            steps = _progress(sweep(name, target, options.stride), chunks, name)
            error, at = max(steps)
            failed |= not error <= BOUND_ULP[name]
            where = f"{at!r} ({float.hex(at)})"
            print(f"{name:10}{'float32':10}{target:10}{error:10.4f}  {where}", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
