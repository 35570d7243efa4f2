"""Products of tensors: matrices and tensors of any rank, flattened row by row (C order).

The pull-back of every product is a product of the same family, so derivatives of any order are
made of these rows. An operand that must be computed is computed once and kept while the product
reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.node import Node
from ..core.scalars import Index, Reader, Scalars, Value
from ..errors import refuse
from .table import Param, Rule, operation
from .vectors import scalprod

Floats = NDArray[np.float64]

Sizes = tuple[int, ...]


# ----- matrices and vectors ----------------------------------------------------------------------


def _whole_rows(matrix: int, vector: int, what: str) -> int:
    if matrix % vector:
        refuse(
            f"a matrix of {matrix} numbers has no whole number of {what} of length {vector}",
            f"a vector whose dimension divides {matrix}",
        )
    return matrix // vector


def _mat_vec(s: Scalars, k: Index, matrix: Reader, vector: Reader) -> Value:
    p = vector.dim
    return s.sum(p, lambda n: matrix(n + k * p) * vector(n))


mat_vec_mult = operation(
    "MatVecMult",
    "A b",
    "Matrix A (flattened row by row) times vector b.",
    dims=lambda da, db: _whole_rows(da, db, "rows"),
    value=_mat_vec,
    pullback=lambda g, out, a, b: [tensor_prod(g, b), vec_mat_mult(g, a)],
    rereads=True,
    rules=[
        Rule("MatVecMult(A, b) -> A*b for a scalar b", lambda a, b: a * b if b.dim == 1 else None),
        Rule(
            "MatVecMult(A, b) -> A|b for one row",
            lambda a, b: scalprod(a, b) if a.dim == b.dim else None,
        ),
    ],
    like=lambda a, b: np.einsum("...np,...p->...n", a.reshape(*a.shape[:-1], -1, b.shape[-1]), b),
    known=(((1, 2, 3, 4, 5, 6), (1, 10, 100), (321, 654)),),
    refuses=[((5, 3), (), "no whole number of rows of length 3")],
    method="matvecmult",
    derivative="TensorProd(g, b) and VecMatMult(g, A), for the incoming gradient g",
    samples=((6, 3), (1, 1), (3, 1), (3, 3), (34, 2), (34, 17)),
    sized=lambda d: ((d * min(d, 10), min(d, 10)), ()),
)

vec_mat_mult = operation(
    "VecMatMult",
    "b A",
    "Vector b times matrix A (flattened row by row).",
    dims=lambda db, da: _whole_rows(da, db, "columns"),
    value=lambda s, k, b, a: s.sum(b.dim, lambda n: b(n) * a(n * (a.dim // b.dim) + k)),
    pullback=lambda g, out, b, a: [mat_vec_mult(a, g), tensor_prod(b, g)],
    rereads=True,
    rules=[
        Rule("VecMatMult(b, A) -> b*A for a scalar b", lambda b, a: b * a if b.dim == 1 else None),
        Rule(
            "VecMatMult(b, A) -> b|A for one column",
            lambda b, a: scalprod(b, a) if a.dim == b.dim else None,
        ),
    ],
    like=lambda b, a: np.einsum("...n,...np->...p", b, a.reshape(*a.shape[:-1], b.shape[-1], -1)),
    known=(((1, 10), (1, 2, 3, 4, 5, 6), (41, 52, 63)),),
    refuses=[((3, 5), (), "no whole number of columns of length 3")],
    method="vecmatmult",
    derivative="MatVecMult(A, g) and TensorProd(b, g), for the incoming gradient g",
    samples=((3, 6), (1, 1), (1, 3), (3, 3), (2, 34), (17, 34)),
    sized=lambda d: ((min(d, 10), d * min(d, 10)), ()),
)

tensor_prod = operation(
    "TensorProd",
    "f g",
    "All products f[k]*g[l] of the components of two vectors, row by row.",
    dims=lambda df, dg: df * dg,
    value=lambda s, k, f, g: f(k // g.dim) * g(k % g.dim),
    pullback=lambda e, out, f, g: [mat_vec_mult(e, g), vec_mat_mult(f, e)],
    rereads=True,
    rules=[
        Rule(
            "TensorProd(f, g) -> f*g where one of them is a scalar",
            lambda f, g: f * g if 1 in (f.dim, g.dim) else None,
        ),
    ],
    like=lambda f, g: (f[..., :, None] * g[..., None, :]).reshape(*f.shape[:-1], -1),
    known=(((1, 2), (3, 4, 5), (3, 4, 5, 6, 8, 10)),),
    method="tensorprod",
    derivative="MatVecMult(e, g) and VecMatMult(f, e), for the incoming gradient e",
    samples=((2, 3), (1, 1), (1, 3), (3, 17), (17, 3), (4, 4)),
    sized=lambda d: ((d, min(d, 3)), ()),
)

# ----- tensors of any rank -----------------------------------------------------------------------


def _strides(sizes: Sizes) -> list[int]:
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _place(k: Index, sizes: Sizes, strides: Sequence[int]) -> Index:
    """Where entry k of a tensor of these sizes lies among numbers with these strides.

    Axes that stay next to each other, and axes of one entry, need no division of their own.
    """
    axes: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=True):
        if axes and axes[-1][1] == stride * size:
            axes[-1] = (axes[-1][0] * size, stride)
        elif size > 1:
            axes.append((size, stride))
    total: Index = 0
    below = math.prod(size for size, _ in axes)
    for place, (size, stride) in enumerate(axes):
        below //= size
        part = k // below if below > 1 else k
        if place:
            part = part % size
        part = part * stride if stride != 1 else part
        total = part if place == 0 else part + total
    return total


@dataclass(frozen=True)
class _Contraction:
    """Which axes of two tensors are summed against each other, and where the others go."""

    dimf: Sizes
    dimg: Sizes
    contf: Sizes
    contg: Sizes
    permute: Sizes

    @property
    def kept_f(self) -> Sizes:
        return tuple(axis for axis in range(len(self.dimf)) if axis not in self.contf)

    @property
    def kept_g(self) -> Sizes:
        return tuple(axis for axis in range(len(self.dimg)) if axis not in self.contg)

    @property
    def goes_to(self) -> Sizes:
        """The axis of the result that each kept axis becomes."""
        return self.permute or tuple(range(len(self.kept_f) + len(self.kept_g)))

    @property
    def summed(self) -> Sizes:
        return tuple(self.dimf[axis] for axis in self.contf)

    @property
    def result(self) -> Sizes:
        """The sizes of the result."""
        return self.spread([self.dimf[a] for a in self.kept_f], [self.dimg[a] for a in self.kept_g])

    def spread(self, of_f: Sequence[int], of_g: Sequence[int]) -> Sizes:
        """Numbers that belong to the kept axes, in the order of the result's axes."""
        found = dict(zip(self.goes_to, [*of_f, *of_g], strict=True))
        return tuple(found[axis] for axis in range(len(found)))

    def check(self, df: int, dg: int) -> int:
        """The dimension of the result."""
        _check_sizes("f", "dimf", self.dimf, df)
        _check_sizes("g", "dimg", self.dimg, dg)
        _check_axes("contf", self.contf, len(self.dimf))
        _check_axes("contg", self.contg, len(self.dimg))
        if self.summed != tuple(self.dimg[axis] for axis in self.contg):
            refuse("the axes contf of f and contg of g must have equal sizes, pair by pair")
        count = len(self.kept_f) + len(self.kept_g)
        if sorted(self.goes_to) != list(range(count)):
            refuse(
                f"permute must hold each of 0..{count - 1} once", "leave it out to keep the order"
            )
        return math.prod(self.result)


def _check_sizes(name: str, param: str, sizes: Sizes, dim: int) -> None:
    if any(size < 1 for size in sizes) or math.prod(sizes) != dim:
        refuse(
            f"{name} has dimension {dim}, which is not the product of {param} = {list(sizes)}",
            f"sizes whose product is {dim}",
        )


def _check_axes(param: str, axes: Sizes, rank: int) -> None:
    if len(set(axes)) < len(axes) or not all(0 <= axis < rank for axis in axes):
        refuse(f"{param} must hold different axes of a tensor of rank {rank}")


def _tensor_dot(s: Scalars, k: Index, f: Reader, g: Reader, *params: Sizes) -> Value:
    c = _Contraction(*params)
    in_f, in_g = _strides(c.dimf), _strides(c.dimg)
    kept_f, kept_g = [in_f[axis] for axis in c.kept_f], [in_g[axis] for axis in c.kept_g]
    start_f = _place(k, c.result, c.spread(kept_f, [0] * len(kept_g)))
    start_g = _place(k, c.result, c.spread([0] * len(kept_f), kept_g))

    def product(n: Index) -> Value:
        along_f = _place(n, c.summed, [in_f[axis] for axis in c.contf])
        along_g = _place(n, c.summed, [in_g[axis] for axis in c.contg])
        return f(along_f + start_f) * g(along_g + start_g)

    return s.sum(math.prod(c.summed), product)


def _tensor_dot_pullback(e: Node, out: Node, f: Node, g: Node, *params: Sizes) -> list[Node]:
    """The incoming gradient contracted with the other operand over that one's kept axes."""
    c = _Contraction(*params)
    of_f, of_g = c.goes_to[: len(c.kept_f)], c.goes_to[len(c.kept_f) :]
    # What is left of the gradient are the axes of one operand, in the order of the result; what
    # is left of the other operand are its contracted axes, in its own order.
    to_f = [axis for _, axis in sorted(zip(of_f, c.kept_f, strict=True))]
    to_f += [axis for _, axis in sorted(zip(c.contg, c.contf, strict=True))]
    to_g = [axis for _, axis in sorted(zip(c.contf, c.contg, strict=True))]
    to_g += [axis for _, axis in sorted(zip(of_g, c.kept_g, strict=True))]
    return [
        tensor_dot(e, g, c.result, c.dimg, of_g, c.kept_g, tuple(to_f)),
        tensor_dot(f, e, c.dimf, c.result, c.kept_f, of_f, tuple(to_g)),
    ]


def _tensor_dot_like(f: Floats, g: Floats, *params: Sizes) -> object:
    dimf, dimg, contf, contg, permute = params
    lead = f.shape[:-1]
    rows = [
        np.tensordot(f[at].reshape(dimf), g[at].reshape(dimg), (contf, contg))
        for at in np.ndindex(*lead)
    ]
    if permute:
        rows = [np.transpose(row, np.argsort(permute)) for row in rows]
    found = np.array([row.ravel() for row in rows])
    return found.reshape(*lead, -1)


tensor_dot = operation(
    "TensorDot",
    "f g",
    "Two tensors summed over pairs of axes; kept axis k becomes axis permute[k] of the result.",
    params=[
        Param("dimf", (2, 3), kind="list"),
        Param("dimg", (3, 4), kind="list"),
        Param("contf", (1,), kind="list"),
        Param("contg", (0,), kind="list"),
        Param("permute", (1, 0), kind="list", default=()),
    ],
    dims=lambda df, dg, *params: _Contraction(*params).check(df, dg),
    value=_tensor_dot,
    pullback=_tensor_dot_pullback,
    rereads=True,
    like=_tensor_dot_like,
    known=(
        ((1, 2, 3, 4), (1, 10), (2, 2), (2,), (1,), (0,), (), (21, 43)),
        ((1, 2), (1, 10, 100), (2,), (3,), (), (), (1, 0), (1, 2, 10, 20, 100, 200)),
    ),
    refuses=[
        ((5, 12), ((2, 3), (3, 4), (1,), (0,), ()), "not the product of dimf"),
        ((6, 11), ((2, 3), (3, 4), (1,), (0,), ()), "not the product of dimg"),
        ((6, 12), ((2, 3), (3, 4), (0,), (0,), ()), "equal sizes"),
        ((6, 12), ((2, 3), (3, 4), (1,), (), ()), "equal sizes"),
        ((6, 12), ((2, 3), (3, 4), (2,), (0,), ()), "different axes of a tensor of rank 2"),
        ((6, 12), ((2, 3), (3, 4), (1,), (0,), (0, 0)), "each of 0..1 once"),
    ],
    method="keops_tensordot",
    derivative="again products of this kind",
    conventions="the order of axes is that of numpy.tensordot, then permuted",
    samples=((6, 12),),
    sized=lambda d: ((d * 2, d * 2), ((d, 2), (2, d), (0,), (1,), (1, 0))),
)


def _kron(f: Node, g: Node, dimf: Sizes, dimg: Sizes) -> Node:
    if len(dimf) != len(dimg):
        refuse("needs two tensors of equal rank", "sizes may be 1")
    rank = len(dimf)
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
    return tensor_dot(f, g, dimf, dimg, (), (), order)


def _kron_like(f: Floats, g: Floats, dimf: Sizes, dimg: Sizes) -> object:
    lead = f.shape[:-1]
    found = [np.kron(f[at].reshape(dimf), g[at].reshape(dimg)).ravel() for at in np.ndindex(*lead)]
    return np.array(found).reshape(*lead, -1)


kron = operation(
    "Kron",
    "f g",
    "Kronecker product of two tensors of equal rank.",
    params=[Param("dimf", (2, 3), kind="list"), Param("dimg", (2, 2), kind="list")],
    dims=lambda df, dg, dimf, dimg: df * dg,
    expand=_kron,
    like=_kron_like,
    known=(((1, 2), (3, 4), (1, 2), (2, 1), (3, 6, 4, 8)),),
    refuses=[
        ((6, 4), ((2, 3), (4,)), "equal rank"),
        ((6, 4), ((2, 2), (2, 2)), "not the product of dimf"),
    ],
    method="keops_kron",
    derivative="products of tensors",
    samples=((6, 4),),
    sized=lambda d: ((d, 2), ((d, 1), (1, 2))),
)
