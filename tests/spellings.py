"""The formulas of random programs as strings for Genred, and as expressions of lazy tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from dense_torch import Expr, words

from pairfold import LazyTensor, Pm, Vi, Vj
from pairfold.ops.truth import is_truth

Array = Any

# ----- strings -----------------------------------------------------------------------------------

_INFIX = {
    "Add": "+", "Subtract": "-", "Mult": "*", "Divide": "/", "Scalprod": "|", "LessThan": "<",
    "LessOrEqual": "<=", "Equal": "==", "NotEqual": "!=",
}  # fmt: skip
_PREFIX = {"p": "Pm", "i": "Vi", "j": "Vj"}


def text(f: Expr, style: int) -> str:
    """A formula as a string; the style says where operators are written as names."""
    if f.op == "Leaf":
        return f"v{f.params[0]}"
    if f.op == "Number":
        return f"({f.params[0]})" if f.params[0] < 0 else str(f.params[0])
    parts = [text(x, style // 2) for x in f.args]
    if f.op in _INFIX and style % 4:
        return f"({f' {_INFIX[f.op]} '.join(parts)})"
    if f.op == "Minus" and style % 4:
        return f"(-{parts[0]})"
    if f.op == "Square" and style % 8 > 4:
        return f"({parts[0]}**2)"
    return f"{f.op}({', '.join(parts + [_parameter(p) for p in f.params])})"


def _parameter(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def aliases(arguments: Sequence[Any]) -> list[str]:
    """Declarations v0, v1 ..."""
    return [f"v{k} = {_PREFIX[a.kind]}({a.dim})" for k, a in enumerate(arguments)]


# ----- lazy tensors ------------------------------------------------------------------------------


def _padded(x: Any, before: int, after: int) -> Any:
    zeros = [LazyTensor([0.0] * n) for n in (before, after) if n]
    parts = [x, *zeros[-1:]] if not before else [zeros[0], x, *zeros[1:]]
    return LazyTensor.cat(parts) if zeros else x


_METHODS: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "Mult": operator.mul,
    "Divide": operator.truediv,
    "Scalprod": lambda x, y: (x * y).sum(-1) if _are_truths(x, y) else x | y,
    "LessThan": operator.lt,
    "LessOrEqual": operator.le,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "Minus": operator.neg,
    "Square": lambda x: x**2,
    "Pow": lambda x, m: x**m,
    "Powf": operator.pow,
    "Inv": lambda x: 1 / x,
    "Abs": abs,
    "ReLU": lambda x: x.relu(),
    "Sum": lambda x: x.sum(-1),
    "Max": lambda x: x.max(-1),
    "Min": lambda x: x.min(-1),
    "ArgMax": lambda x: x.argmax(-1),
    "ArgMin": lambda x: x.argmin(-1),
    "IfElse": lambda c, x, y: c.ifelse(x, y),
    "Where": lambda mask, x, y: x.where(mask, y),
    "Clamp": lambda x, a, b: x.clamp(a, b),
    "ClampInt": lambda x, a, b: x.clamp(a, b),
    "Mod": lambda x, n, o: x.mod(n, o),
    "Elem": lambda x, m: x[m] if x.ndim > 1 else x.elem(m),
    "Extract": lambda x, start, n: x[start : start + n],
    "Concat": lambda x, y: LazyTensor.cat((x, y), -1),
    "OneHot": lambda x, n: x.one_hot(n),
    "WeightedSqNorm": lambda s, x: x.weightedsqnorm(s),
    "WeightedSqDist": lambda s, x, y: x.weightedsqdist(y, s),
    "TensorDot": lambda x, y, *how: x.keops_tensordot(y, *how),
    "Kron": lambda x, y, *how: x.keops_kron(y, *how),
    "SumT": lambda x, n: x * LazyTensor([1.0] * n),
    "ExtractT": lambda x, start, n: _padded(x, start, n - start - x.ndim),
    "ElemT": lambda x, n, m: _padded(x, m, n - m - 1),
    "Tile": lambda x, n: LazyTensor([1.0] * n).tensorprod(x),
    "Stretch": lambda x, n: x.tensorprod(LazyTensor([1.0] * n)),
    "ComplexAdd": operator.add,
    "ComplexSubtract": operator.sub,
    "ComplexMult": operator.mul,
    "ComplexRealScal": operator.mul,
    "ComplexReal": lambda z: z.real,
    "ComplexImag": lambda z: z.imag,
    "ComplexAbs": abs,
    "ComplexSquareAbs": lambda z: (z * z.conj()).real,
    "ComplexAngle": lambda z: z.angle(),
    "ComplexSum": lambda z: z.sum(-1),
    "ComplexExp": lambda z: z.exp(),
    "ComplexExp1j": lambda x: x.exp1j(),
    "Real2Complex": lambda x: x.real2complex(),
    "Imag2Complex": lambda x: x.imag2complex(),
    "ComplexDivide": operator.truediv,
    "Conj": lambda z: z.conj(),
    "Maximum": lambda x, y: x.maximum(y) if isinstance(x, LazyTensor) else y.maximum(x),
    "Minimum": lambda x, y: x.minimum(y) if isinstance(x, LazyTensor) else y.minimum(x),
}
_SAME_NAME = words("""
    Sqrt Rsqrt Exp Log Sin Cos Tanh Sign Step Asin Acos Atan Atan2 Floor Round SinXDivX
    XLogX SqNorm2 Norm2 SqDist Normalize MatVecMult VecMatMult TensorProd SoftDTW_SqDist
    Grad Diff Divergence Laplacian Sigmoid Softplus Erf Asinh""")


class NotLazy(Exception):
    """The formula has an operation that lazy tensors have no method for."""


def _are_truths(*operands: Any) -> bool:
    """Whether x | y means that one of them holds."""
    return all(isinstance(x, LazyTensor) and is_truth(x.node) for x in operands)


def _method(name: str) -> Callable[..., Any]:
    if name in _METHODS:
        return _METHODS[name]
    if name in _SAME_NAME:
        return lambda x, *rest: getattr(x, name.lower())(*rest)
    raise NotLazy(name)


def lazy(f: Expr, leaves: Sequence[Any], known: dict[int, Any]) -> Any:
    """A formula of lazy tensors; what occurs twice is one object, in half of the cases."""
    if f.op == "Leaf":
        return leaves[f.params[0]]
    if f.op == "Number":
        return f.params[0]
    if id(f) not in known:
        operands = [lazy(x, leaves, known) for x in f.args]
        if f.op == "ComplexSum" and f.args[0].dim == 2:
            raise NotLazy("a sum of one complex number")
        known[id(f)] = _method(f.op)(*operands, *f.params)
    return known[id(f)]


def leaf(array: Array, kind: str, style: int) -> Any:
    """A lazy tensor of an argument (..., M, D), (..., N, D) or (..., D), in one of the ways."""
    plain = array.ndim == (1 if kind == "p" else 2)
    sized = kind == "p" or array.shape[-2] != 1
    if plain and (style % 2 or not sized):
        return {"i": Vi, "j": Vj, "p": Pm}[kind](array)
    if plain and style % 3 == 0:
        return LazyTensor(array, axis={"i": 0, "j": 1, "p": 2}[kind])
    if not sized:
        raise NotLazy("an axis of one row among batches")
    if kind == "p":
        return LazyTensor(array[..., None, None, :])
    return LazyTensor(array[..., :, None, :] if kind == "i" else array[..., None, :, :])


def symbol(position: int, dim: int, kind: str) -> Any:
    """A lazy tensor of an argument that is given later."""
    return {"i": Vi, "j": Vj, "p": Pm}[kind](position, dim)


def literal(array: Array) -> str:
    """A NumPy array as Python text that makes it again."""
    values = np.array2string(array, separator=", ", threshold=10**9, floatmode="unique")
    return f"np.array({values}, dtype={array.dtype.name!r})"
