"""Lazy tensors in Python's, NumPy's and torch's own words: `np.exp(K)`, `torch.where(K < 1, K, 0)`.

What has a meaning without the table of numbers is done by the tensor's own operators and methods;
all else raises, with the spelling that works. Nothing takes a lazy tensor for a scalar object.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeGuard

import numpy as np

from ..arrays.opaque import constant
from ..errors import ArrayTypeError, OptionError, UnknownAttributeError, closest
from .recording import made_now, recorded_as

if TYPE_CHECKING:
    from .complextensor import ComplexLazyTensor
    from .lazytensor import LazyTensor
    from .records import Record

    # What every lazy tensor is.
    Lazy: TypeAlias = LazyTensor | ComplexLazyTensor

_SPELLINGS = (
    "(0.5 < K) & (K < 2) for 0.5 < K < 2, ~(K > 0) for not; K.maximum(0) for max(K, 0);\n"
    "where(K > 0, K, 0) for a choice; K.any(1) for one truth value a row;\n"
    "`K is None`, not `K == None`; any(K is L for L in ...), not `K in [...]`"
)
_SORTED = "K.argKmin(10, axis=1), K.Kmin_argKmin(10, axis=1); of -K for the largest"
_HINTS = {
    **dict.fromkeys(("sort", "argsort", "topk", "partition", "argpartition", "kthvalue"), _SORTED),
    "std": "K.var(1) ** 0.5",
    "log_softmax": "K - Vi(K.logsumexp(axis=1))",
    **dict.fromkeys(("logaddexp", "logaddexp2"), "K.logsumexp(axis=1) over columns"),
    **dict.fromkeys(("nanmean", "average"), "K.mean(1)"),
    "count_nonzero": "K.count(1)",
    **dict.fromkeys(
        ("nonzero", "argwhere", "take", "gather", "index_select"),
        "K[k], K[:, :, k] are components; where(mask, K, 0) selects pairs",
    ),
    **dict.fromkeys(
        ("reshape", "view", "ravel", "flatten", "squeeze", "unsqueeze", "expand"),
        "shape the arrays that the tensor is made of: x[:, None, :], y[None, :, :]",
    ),
    **dict.fromkeys(
        ("numpy", "tolist", "item", "cpu", "cuda", "detach", "requires_grad"),
        "reduce first, K.sum(axis=1) or K @ v: results are arrays; so is K.dense(), or K.toarray()",
    ),
    **dict.fromkeys(("size", "len"), "K.shape"),
    **dict.fromkeys(("mm", "mv", "dot", "matmul"), "K @ v"),
    "expit": "K.sigmoid()",
    **dict.fromkeys(
        ("rint", "trunc", "fix", "round", "round_", "around"),
        "K.round(0), with halves away from zero; K.floor()",
    ),
    "einsum": "(K * L).sum(-1) for components, .sum(axis=1) for columns",
    "outer": "x.tensorprod(y)",
}
# What a lazy tensor is made of, and one with a record has not yet.
_DATA = {
    *("node", "leaves", "batch", "ni", "nj", "library", "real_dtype"),
    *("axis", "ranges", "backend"),
}
_DENSE = "reduce it, K.sum(axis=1) or K.argmin(axis=1); K.dense() is all of a small one"
_NO_TABLE = "a lazy tensor has no table of its numbers"


class Foreign:
    """What Python, NumPy and torch ask of an operand, for lazy tensors."""

    _record: Record | None = None  # where torch.compile traces: the calls that make it

    def __bool__(self) -> bool:
        raise ArrayTypeError(
            "a lazy tensor is neither true nor false: it has a value for every pair",
            found=repr(self),
            hint=_SPELLINGS,
        )

    def __contains__(self, x: object) -> bool:
        raise ArrayTypeError(
            "a lazy tensor does not contain single numbers: it has a value for every pair",
            found=f"{x!r} in {self!r}",
            hint=_SPELLINGS,
        )

    def _no_number(self) -> NoReturn:
        raise ArrayTypeError(
            "a lazy tensor is no number: it has a value for every pair",
            found=repr(self),
            hint=_DENSE,
        )

    __float__ = __int__ = __complex__ = _no_number

    def __len__(self) -> int:
        raise ArrayTypeError(
            "a lazy tensor has no length", found=repr(self), hint=f"K.shape; {_DENSE}"
        )

    def __array_ufunc__(
        self, ufunc: Callable[..., object], method: str, *inputs: object, **options: object
    ) -> object:
        name = ufunc.__name__
        if method != "__call__":
            _refuse(
                f"numpy.{name}.{method}", self, "K.sum(axis=1), K.max(axis=1), K.logsumexp(axis=1)"
            )
        if any(value is not None for value in options.values()):
            listed = ", ".join(options)
            _refuse(
                f"numpy.{name} with {listed}", self, "without it; results of reductions take out="
            )
        # NumPy makes arrays without axes of its scalars.
        inputs = tuple(x[()] if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs)
        return applied("numpy", name, inputs, {}, self)

    def __array_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object],
        options: Mapping[str, object],
    ) -> object:
        name = func.__name__
        if func.__module__ == "numpy.linalg" and name not in ("norm", "vector_norm"):
            name = f"linalg.{name}"
        return applied("numpy", name, args, options, self)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = name_of(func)
        return applied("torch", name, args, kwargs or {}, next(_tensors(args, kwargs or {}), None))

    # Type checkers would take any name for an attribute, and lazy tensors for arrays.
    if not TYPE_CHECKING:

        def __array__(self, *args: object, **options: object) -> NoReturn:
            raise ArrayTypeError(
                f"{_NO_TABLE}, and cannot become an array", found=repr(self), hint=_DENSE
            )

        def __getattr__(self, name: str) -> object:
            if self._record is not None and name in _DATA:
                return made_now(self, name)
            if name.startswith("_") or "node" not in self.__dict__:
                raise AttributeError(name)
            known = [word for word in dir(type(self)) if not word.startswith("_")]
            raise UnknownAttributeError(
                f"a {type(self).__name__} has no attribute {name!r}",
                hint=_HINTS.get(name) or closest(name, known),
            )


# The class of all lazy tensors: each is of one of two.
LAZY: type[Lazy] = Foreign  # pyright: ignore


@constant
def name_of(function: Callable[..., object]) -> str:
    """The name of one of torch's functions or methods."""
    return function.__name__.strip("_")


def _tensors(args: Sequence[object], options: Mapping[str, object]) -> Iterator[Foreign]:
    """The lazy tensors among arguments, and in lists among them."""
    for arg in (*args, *options.values()):
        if isinstance(arg, Foreign):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from (part for part in arg if isinstance(part, Foreign))


def _refuse(what: str, tensor: object, hint: str) -> NoReturn:
    raise ArrayTypeError(f"{what} is not defined for lazy tensors", found=repr(tensor), hint=hint)


@recorded_as("applied")
def applied(
    library: str,
    name: str,
    args: Sequence[object],
    options: Mapping[str, object],
    tensor: object,
) -> object:
    """A function of NumPy or torch, by the operators and methods of lazy tensors."""
    options = {k: value for k, value in options.items() if value is not None and value is not False}
    does = _ONLY[library].get(name) or _BOTH.get(name)
    if does is None:
        method = _RENAMED.get(name, name)
        if len(args) != 1 or options or method not in _UNARY:
            _refuse(f"{library}.{name}", tensor, _HINTS.get(name, _DENSE))
        return getattr(args[0], method)()
    try:
        return does(*args, **options)
    except TypeError as error:
        if isinstance(error, ValueError):  # one of ours
            raise
        _refuse(
            f"{library}.{name} with these arguments ({error})", tensor, _HINTS.get(name, _DENSE)
        )


# ----- what functions do -------------------------------------------------------------------------


def _binary(forward: Callable[..., object], reflected: str) -> Callable[[object, object], object]:
    """An operator; a tensor on the right alone is asked for the reflected one."""

    def apply(x: object, y: object) -> object:
        return forward(x, y) if isinstance(x, Foreign) else getattr(y, reflected)(x)

    return apply


def _swapped(does: Callable[[object, object], object]) -> Callable[[object, object], object]:
    return lambda x, y: does(y, x)


def _is_lazy(x: object) -> TypeGuard[LazyTensor]:
    """Whether x is a lazy tensor; complex ones have the methods of real ones too, or refuse."""
    return isinstance(x, Foreign)


def _first(x: object, *others: object) -> LazyTensor:
    """x as a lazy tensor, where another operand is one."""
    if _is_lazy(x):
        return x
    made = next(filter(_is_lazy, others))._made(x)  # pyright: ignore[reportPrivateUsage]
    assert _is_lazy(made)
    return made


def _where(condition: object, x: object, y: object) -> object:
    return _first(x, condition, y).where(condition, y)


def _clip(
    x: object,
    low: object = None,
    high: object = None,
    *,
    min: object = None,
    max: object = None,
    **names: object,
) -> object:
    low, high = names.pop("a_min", low), names.pop("a_max", high)
    low, high = min if low is None else low, max if high is None else high
    if names and any(value is not None for value in names.values()):
        raise TypeError(", ".join(names))
    numbers = [limit for limit in (low, high) if isinstance(limit, (int, float))]
    if len(numbers) == 2 - (low is None) - (high is None) and numbers == sorted(numbers):
        return _first(x).clamp(low, high)
    found = _first(x, low, high)
    found = found if low is None else found.maximum(low)
    return found if high is None else found.minimum(high)


def _over(method: str) -> Callable[..., object]:
    """A reduction, or one over the components, by its axis."""

    def apply(x: Lazy, axis: object = None, keepdim: object = False, **options: object) -> object:
        axis = options.pop("dim", axis)
        keepdim = options.pop("keepdims", keepdim)
        options = {name: value for name, value in options.items() if value is not None}
        corrected = _CORRECTIONS if method == "var" else set[str]()
        if set(options) - corrected - {"where"}:
            raise TypeError(", ".join(options))
        last = x.nbatchdims + 2
        listed = axis if isinstance(axis, (tuple, list)) else [axis]
        hidden = len(x.shape) <= last and any(isinstance(a, int) and a < 0 for a in listed)
        if hidden or (axis is None and method in ("argmin", "argmax", "logsumexp")):
            raise OptionError(
                f"{method} of a lazy tensor needs {'axes from the start' if hidden else 'an axis'}",
                found=f"axis={axis!r}, shape {x.shape}",
                hint=f"{last - 2} over i, {last - 1} over j, {last} over the components",
            )
        if axis not in (last, -1) and keepdim is True:
            options["keepdim"] = True
        return getattr(x, method)(axis=axis, **options)

    return apply


_CORRECTIONS = {"ddof", "correction"}


def _norm(x: Lazy, ord: object = None, dim: int | None = None, **options: int | None) -> Lazy:
    dim = options.pop("axis", dim)
    if options or ord not in (None, 2, "fro") or dim not in (-1, x.nbatchdims + 2) or x.ndim == 1:
        raise TypeError("only of the components: axis=-1")
    return x.norm(dim)


def _joined(parts: Sequence[object], axis: int = 0, **options: int) -> Lazy:
    found = next(filter(_is_lazy, parts))
    return found.concatenate(tuple(parts), axis=options.pop("dim", axis), **options)


def _extreme_pair(method: str, both: str) -> Callable[..., object]:
    """torch's max and min: of two tensors, or over an axis, with indices."""

    def apply(x: object, *args: object, **options: object) -> object:
        if (args and isinstance(args[0], Foreign)) or not isinstance(x, LAZY):
            return _BOTH[f"{method}imum"](x, *args, **options)
        axis = options.pop("dim", options.pop("axis", args[0] if args else None))
        if axis is None:
            return _over(method)(x)
        if axis in (-1, x.nbatchdims + 2):
            return _over(method)(x, axis), _over(f"arg{method}")(x, axis)
        return getattr(x, both)(axis=axis, **options)

    return apply


_UNARY = {
    *("exp", "log", "sin", "cos", "tanh", "asin", "acos", "atan", "abs", "sqrt"),
    *("square", "sign", "relu", "floor", "conj", "angle", "sinc", "t"),
    *("expm1", "log1p", "sigmoid", "softplus", "tan", "sinh", "cosh", "asinh", "acosh", "atanh"),
    *("erf", "erfc", "lgamma", "digamma"),
}
_RENAMED = {
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "absolute": "abs",
    "fabs": "abs",
    "conjugate": "conj",
    "transpose": "t",
}
_ADD, _SUB = _binary(operator.add, "__radd__"), _binary(operator.sub, "__rsub__")
_MUL, _DIV = _binary(operator.mul, "__rmul__"), _binary(operator.truediv, "__rtruediv__")
_POW, _MOD = _binary(operator.pow, "__rpow__"), _binary(operator.mod, "__rmod__")
_FLOORED, _MATMUL = (
    _binary(operator.floordiv, "__rfloordiv__"),
    _binary(operator.matmul, "__rmatmul__"),
)
_AND, _OR = _binary(operator.and_, "__rand__"), _binary(operator.or_, "__ror__")
_LT, _GT = _binary(operator.lt, "__gt__"), _binary(operator.gt, "__lt__")
_LE, _GE = _binary(operator.le, "__ge__"), _binary(operator.ge, "__le__")
_EQ, _NE = _binary(operator.eq, "__eq__"), _binary(operator.ne, "__ne__")

_BOTH: dict[str, Callable[..., object]] = {
    "add": _ADD,
    "radd": _ADD,
    "iadd": _ADD,
    "mul": _MUL,
    "rmul": _MUL,
    "multiply": _MUL,
    "imul": _MUL,
    "sub": _SUB,
    "subtract": _SUB,
    "isub": _SUB,
    "rsub": _swapped(_SUB),
    "div": _DIV,
    "divide": _DIV,
    "true_divide": _DIV,
    "truediv": _DIV,
    "idiv": _DIV,
    "rdiv": _swapped(_DIV),
    "rtruediv": _swapped(_DIV),
    "itruediv": _DIV,
    "pow": _POW,
    "power": _POW,
    "float_power": _POW,
    "rpow": _swapped(_POW),
    "remainder": _MOD,
    "mod": _MOD,
    "rmod": _swapped(_MOD),
    "floor_divide": _FLOORED,
    "floordiv": _FLOORED,
    "rfloordiv": _swapped(_FLOORED),
    "matmul": _MATMUL,
    "rmatmul": _swapped(_MATMUL),
    "dot": _MATMUL,
    "mv": _MATMUL,
    "mm": _MATMUL,
    "bmm": _MATMUL,
    "negative": operator.neg,
    "neg": operator.neg,
    "positive": operator.pos,
    "less": _LT,
    "lt": _LT,
    "greater": _GT,
    "gt": _GT,
    "less_equal": _LE,
    "le": _LE,
    "greater_equal": _GE,
    "ge": _GE,
    "equal": _EQ,
    "eq": _EQ,
    "not_equal": _NE,
    "ne": _NE,
    "bitwise_and": _AND,
    "and": _AND,
    "rand": _swapped(_AND),
    "bitwise_or": _OR,
    "or": _OR,
    "ror": _swapped(_OR),
    "bitwise_not": operator.invert,
    "invert": operator.invert,
    "logical_and": lambda x, y: _first(_NE(x, 0)).logical_and(_NE(y, 0)),
    "logical_or": lambda x, y: _first(_NE(x, 0)).logical_or(_NE(y, 0)),
    "logical_not": lambda x: x == 0,
    "isnan": lambda x: x != x,
    "isinf": lambda x: abs(x) == math.inf,
    "isfinite": lambda x: abs(x) < math.inf,
    "ceil": lambda x: -(-x).floor(),
    "log2": lambda x: x.log() * (1 / math.log(2)),
    "log10": lambda x: x.log() * (1 / math.log(10)),
    "exp2": lambda x: (x * math.log(2)).exp(),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / x.sqrt(),
    "maximum": lambda x, y: _first(x, y).maximum(y),
    "minimum": lambda x, y: _first(x, y).minimum(y),
    "arctan2": lambda x, y: _first(x, y).atan2(y),
    "atan2": lambda x, y: _first(x, y).atan2(y),
    "hypot": lambda x, y: _first(x, y).hypot(y),
    "polygamma": lambda n, x: x.polygamma(n),
    "where": _where,
    **dict.fromkeys(("clip", "clamp"), _clip),
    "clamp_min": lambda x, min: _clip(x, min),
    "clamp_max": lambda x, max: _clip(x, None, max),
    **{name: _over(name) for name in ("sum", "argmin", "argmax", "logsumexp", "var")},
    **{name: _over(name) for name in ("mean", "prod", "any", "all")},
    "count_nonzero": _over("count"),
    "softmax": lambda x, dim: x.softmax(dim),
    "amin": _over("min"),
    "amax": _over("max"),
    **dict.fromkeys(("norm", "vector_norm"), _norm),
    **dict.fromkeys(("concatenate", "concat", "cat"), _joined),
    **dict.fromkeys(("diag", "diagonal"), lambda x: x.diag()),
    "trace": lambda x: x.trace(),
    "real": lambda x: x.real,
    "imag": lambda x: x.imag,
    "shape": lambda x: x.shape,
}
_ONLY: dict[str, dict[str, Callable[..., object]]] = {
    "numpy": {"min": _over("min"), "max": _over("max")},
    "torch": {
        "min": _extreme_pair("min", "min_argmin"),
        "max": _extreme_pair("max", "max_argmax"),
        "norm": lambda x, p=2, dim=None, **options: _norm(x, p, dim, **options),
    },
}
