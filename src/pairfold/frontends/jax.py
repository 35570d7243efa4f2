"""JAX's side: every fold as a primitive of JAX, which compiled programs call as machine code.

What the derivatives are is said in `derivatives.py`, for any library; here JAX's transformations
are told of them: the forward derivative of a fold is its push-forwards, the transpose of what is
linear its pull-backs, a batch one more axis. Each is again a fold, called through the same
primitive, so transformations compose to any depth.

Programs are lowered to a call of XLA's foreign function interface, whose target is the kernel's
machine code: no Python runs with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypedDict, cast

import jax
import jax.core
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..arrays.library import ArrayLibrary
from ..arrays.numpy import stand_in
from ..arrays.registry import JAX, NUMPY
from ..backends.interface import CallForXla, XlaTarget
from ..core.dtypes import RESULTS
from ..core.library import Array, NumpyArray, Results
from ..errors import DeviceError, DTypeError, InternalError, UnsupportedError
from ..settings import Settings, current, settings
from .derivatives import all_tangents, batched, by_part, differentiable, gradients
from .fused import fused_pass
from .ranges import Ranges, checked_ranges
from .reduction import Binding, FormulaReduction

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .solve import Request, System


class Params(TypedDict):
    """What a program knows of a fold beside its arrays.

    `wide`: whether JAX has 64-bit numbers. Machine code writes indices in 64 bits; where JAX has
    none, they are pairs of 32 bits to it.
    """

    fold: FormulaReduction
    ranges: Ranges | None
    options: Settings
    wide: bool


fold_p = Primitive("pairfold")
fold_p.multiple_results = True

# Names that XLA knows. It keeps what it is given as long as the process lives.
_registered: set[str] = set()


# ----- calls -------------------------------------------------------------------------------------


def call(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    out: object,
    ranges: object = None,
) -> Results:
    """Reduce arrays; the result is differentiable.

    Raises:
        UnsupportedError: `out`, or settings that JAX's programs cannot have.
        DeviceError: a call that is to be computed on a GPU.
    """
    if out is not None:
        raise UnsupportedError("JAX arrays cannot be filled", found="out=", hint="out=None")
    if library.elsewhere is not None:
        raise DeviceError(
            "arrays of JAX are computed with on CPUs only",
            found='backend="GPU"',
            hint='backend="CPU"',
        )
    if fold.far:
        raise UnsupportedError(
            "treecodes of JAX arrays are not made: their plan depends on values",
            found="method='treecode'",
            hint="method='exact'",
        )
    _, sizes, _ = fold.check(arrays, library.name)
    pairs = None if ranges is None else checked_ranges(ranges)
    for part in fold.apart:
        if pairs is not None:
            pairs.pattern(part.kept, sizes.i, sizes.j)
    return fold.shaped(library, differentiable(fold, library, arrays, pairs, apply_fold))


def apply_fold(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
) -> tuple[Array, ...]:
    """The results of one fold, under the settings in force."""
    return apply_with(fold, library, arrays, ranges, options=current())


def apply_with(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    options: Settings,
) -> tuple[Array, ...]:
    """The results of one fold, with indices as JAX has them."""
    wide = _is_wide()
    found = _bound(fold, library, arrays, ranges, options)
    return tuple(
        array if wide or result.kind != "index" else array[..., ::2]
        for array, result in zip(found, fold.results, strict=True)
    )


def _bound(
    fold: FormulaReduction,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    ranges: Ranges | None,
    options: Settings,
) -> tuple[Array, ...]:
    """What the primitive gives."""
    if options.backend not in ("auto", "llvm"):
        raise UnsupportedError(
            "programs of JAX run machine code of the CPU",
            found=f"settings(backend={options.backend!r})",
            hint='settings(backend="auto")',
        )
    params = Params(fold=fold, ranges=ranges, options=options, wide=_is_wide())
    wanted = _wanted(fold, [(tuple(a.shape), str(a.dtype)) for a in arrays], params["wide"])
    if all(0 in shape for shape, _ in wanted):
        return tuple(jax.numpy.zeros(shape, dtype) for shape, dtype in wanted)
    return tuple(fold_p.bind(*varying(arrays), **params))


def _is_wide() -> bool:
    return jax.dtypes.canonicalize_dtype("int64").itemsize == 8


def varying(arrays: Sequence[Array]) -> list[Array]:
    """Arrays that differ along the same axes of a mesh, as the operands of all operations must."""
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset[str]().union(*axes)
    return [
        array if own == every else jax.lax.pcast(array, tuple(every - own), to="varying")
        for array, own in zip(arrays, axes, strict=True)
    ]


def _wanted(
    fold: FormulaReduction, given: Sequence[tuple[tuple[int, ...], str]], wide: bool
) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and dtypes of what the primitive gives for arrays of such shapes and dtypes.

    Raises:
        DTypeError: partial states, which are float64, where JAX has no such numbers.
        ArgumentError, ShapeError, DTypeError: arrays that do not fit.
    """
    _, sizes, dtype = fold.check([_stand_in(*each) for each in given], NUMPY.name)
    found: list[tuple[tuple[int, ...], str]] = []
    for shape, result in zip(fold.out_shapes(sizes), fold.results, strict=True):
        if result.kind == "state" and not wide:
            raise DTypeError(
                "partial states are float64",
                found="JAX without 64-bit numbers",
                hint='jax.config.update("jax_enable_x64", True)',
            )
        if result.kind == "index" and not wide:
            found.append(((*shape[:-1], 2 * shape[-1]), "int32"))
        else:
            found.append((shape, RESULTS.get(result.kind, dtype)))
    return found


def _stand_in(shape: Sequence[int], dtype: str) -> Array:
    """An array of NumPy in the place of one of JAX."""
    return stand_in(shape, jax.numpy.dtype(dtype))


def solve(
    system: System,
    library: ArrayLibrary,
    arrays: Sequence[Array],
    alpha: Array | None,
    request: Request,
) -> Array:
    """The solution of a system; it is differentiable.

    Raises:
        SolveError: see `conjugate_gradients`.
    """
    from .jaxsolve import solve_arrays

    return solve_arrays(system, library, arrays, alpha, request)


# ----- what JAX asks of a primitive --------------------------------------------------------------


def _abstract(*avals: jax.core.ShapedArray, **params: Unpack[Params]) -> list[object]:
    """The shapes and dtypes of results, which differ along the axes of a mesh that operands do."""
    found: list[object] = []
    for shape, name in _wanted(params["fold"], _shapes(avals), params["wide"]):
        whole = jax.sharding.PartitionSpec(*[None] * len(shape))
        sharding = jax.sharding.NamedSharding(avals[0].sharding.mesh, whole)
        dtype = jax.numpy.dtype(name)
        found.append(avals[0].update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding))
    return found


@partial(jax.jit, static_argnames=("fold", "ranges", "options", "wide"))
def _compiled(*arrays: Array, **params: Unpack[Params]) -> list[Array]:
    return fold_p.bind(*arrays, **params)


def _jvp(
    primals: Sequence[Array], along: Sequence[Array], **params: Unpack[Params]
) -> tuple[list[Array], list[object]]:
    """Results, and their derivatives along tangents."""
    fold, ranges = params["fold"], params["ranges"]
    apply = partial(apply_with, options=params["options"])
    results = fold_p.bind(*primals, **params)
    moving = {n: t for n, t in enumerate(along) if type(t) is not ad.Zero}
    found: Sequence[Array | None] = [None] * len(results)
    if fold.has_derivatives:
        saved = [*primals, *results] if fold.saves else primals
        found = all_tangents(fold, JAX, [*moving], saved, [*moving.values()], ranges, apply)
    return results, [
        ad.Zero(jax.typeof(result).to_tangent_aval()) if tangent is None else tangent
        for result, tangent in zip(results, found, strict=True)
    ]


class Linear(Protocol):
    """What stands for an argument of something linear, or an argument."""

    aval: jax.core.ShapedArray


def _transpose(incoming: Sequence[Array], *args: Linear, **params: Unpack[Params]) -> list[object]:
    """Gradients to the arguments that a fold is linear in."""
    fold, ranges, options = params["fold"], params["ranges"], params["options"]
    apply = partial(apply_with, options=options)
    moving = [n for n, a in enumerate(args) if ad.is_undefined_primal(a)]
    known = undefined(args)
    found: list[object] = [ad.Zero(a.aval) if n in moving else None for n, a in enumerate(args)]
    given: list[Array | None] = []
    for _, own in by_part(fold, incoming):
        nothing = all(type(g) is ad.Zero for g in own)
        given += [None if nothing else ad.instantiate_zeros(g) for g in own]
    if any(g is not None for g in given):
        rest = (known, given, ranges, apply, partial(_fused, options=options))
        for n, gradient in zip(moving, gradients(fold, JAX, moving, *rest), strict=True):
            found[n] = gradient
    return found


def undefined(args: Sequence[Linear]) -> list[Array]:
    """Arguments, zeros standing for those that something linear is to be transposed for."""
    return [
        jax.numpy.zeros(a.aval.shape, a.aval.dtype)
        if ad.is_undefined_primal(a)
        else cast("Array", a)
        for a in args
    ]


def _fused(
    fold: FormulaReduction,
    positions: Sequence[int],
    library: ArrayLibrary,
    arrays: Sequence[Array],
    options: Settings,
) -> list[Array] | None:
    """Gradients to several arguments from one pass, where it is best; differentiable, too."""
    with in_force(options):
        shapes = [_stand_in(tuple(array.shape), str(array.dtype)) for array in arrays]
        found = fused_pass(fold, positions, NUMPY, shapes)
    if found is None:
        return None
    one, _ = found
    return one.in_order(apply_with(one, library, arrays, None, options))


def _batch(
    args: Sequence[Array], axes: Sequence[int | None], **params: Unpack[Params]
) -> tuple[tuple[Array, ...], list[int]]:
    """The results for one more batch axis."""
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    apply = partial(_bound, options=params["options"])
    found = batched(params["fold"], JAX, args, axes, size, params["ranges"], apply)
    return found, [0] * len(found)


# ----- lowering ----------------------------------------------------------------------------------


def in_force(options: Settings) -> settings:
    """A context with exactly these settings."""
    return settings(**{f.name: getattr(options, f.name) for f in dataclasses.fields(options)})


def prepared(arrays: Sequence[Array], params: Params) -> tuple[XlaTarget, NumpyArray, Binding]:
    """What XLA is to call for arrays of such shapes, its attribute, and what is known of them."""
    fold = params["fold"]
    with in_force(params["options"]):
        binding = fold.binding(NUMPY, arrays)
        results = [
            _stand_in(shape, RESULTS.get(result.kind, binding.dtype))
            for shape, result in zip(binding.out_shapes, fold.results, strict=True)
        ]
        alive = [arrays[position] for position, _ in binding.positions]
        strides, along = fold.strides(NUMPY, results, alive, binding)
        bound = fold.bound(binding, params["ranges"])
        made = binding.launcher.call(bound, binding.rows, binding.columns, strides)
        target, words = cast(CallForXla, made).for_xla(binding.sizes.batch, along)
    return target, words, binding


def _lower(
    ctx: mlir.LoweringRuleContext, *operands: mlir.Value, **params: Unpack[Params]
) -> Sequence[object]:
    """A call of the kernel's machine code."""
    given, results = _shapes(ctx.avals_in), _shapes(ctx.avals_out)
    target, words, binding = prepared([_stand_in(*each) for each in given], params)
    if results != _wanted(params["fold"], given, params["wide"]):
        raise InternalError(
            "this is a bug in pairfold: results are not what machine code writes",
            found=str(results),
        )
    register(target)
    used = [position for position, _ in binding.positions]
    rule = jax.ffi.ffi_lowering(target.name)
    own = ctx.replace(avals_in=[ctx.avals_in[position] for position in used])
    return rule(own, *(operands[position] for position in used), words=words)


def _shapes(avals: Sequence[object]) -> list[tuple[tuple[int, ...], str]]:
    known = cast("Sequence[jax.core.ShapedArray]", avals)
    return [(tuple(a.shape), str(a.dtype)) for a in known]


def register(target: XlaTarget) -> None:
    """Tell XLA what to call by the name of a target."""
    if target.name not in _registered:
        code = jax.ffi.pycapsule(target.entry)
        jax.ffi.register_ffi_target(target.name, code, platform="cpu", api_version=1)
        _registered.add(target.name)


def _refuse(
    ctx: mlir.LoweringRuleContext, *operands: mlir.Value, **params: object
) -> Sequence[object]:
    """Programs for other devices.

    Raises:
        DeviceError: always.
    """
    raise DeviceError(
        "reductions in JAX's programs run on CPUs only",
        found=f"a program for {', '.join(ctx.module_context.platforms)}",
        hint='jax.jit(f, backend="cpu"), or arrays on jax.devices("cpu")[0]',
    )


fold_p.def_abstract_eval(_abstract)  # JAX's name for shapes; no text is evaluated
fold_p.def_impl(_compiled)
ad.primitive_jvps[fold_p] = _jvp
ad.primitive_transposes[fold_p] = _transpose
batching.primitive_batchers[fold_p] = _batch
mlir.register_lowering(fold_p, _refuse)
mlir.register_lowering(fold_p, _lower, platform="cpu")


def target_names() -> list[str]:
    """The names by which programs lowered so far in this process call machine code."""
    return sorted(_registered)
