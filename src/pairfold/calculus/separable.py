"""Formulas that are short sums of products f(row) g(column), found on the graph.

Then sum_j F(i, j) = sum_r f_r(i) sum_j g_r(j): moments of the columns, and a formula of each row
with the moments as parameters, O(M + N) in place of O(M N). Going from arguments to users, what
does not depend on both indices is a factor; sums join lists of products, products multiply them
out, exponentials and waves of (row value + column value) are products, and equal products are one.
Which formulas can be so is algebra alone; whether digits are lost is seen from numbers, beside
which their magnitude is computed: the same sum with the absolute value of every product.

The first terms of an expansion are computed like this by the fast Gauss transform (Greengard
and Strain, SIAM J. Sci. Stat. Comput. 12, 1991, section 2) and by linear attention (Katharopoulos
et al., ICML 2020, equations 4 to 6); here the sum is finite and exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from ..core.node import Axis, Node, topological
from ..ops.table import OPERATIONS, constant, fit, variable

# Products of a formula; moments that they have in all; components written out as products of
# numbers, beyond which a scalar product stays one.
MOST_PRODUCTS = 64
MOST_MOMENTS = 4096
_SHORT = 8
_KEEP_SIGN = ("Mult", "Sum", "Add", "Extract", "ExtractT", "SumT", "TensorProd", "Inv", "Divide")
_BOTH = Axis.I.bits | Axis.J.bits
# Added to magnitudes: what products that round to 0, or to few digits, may have lost.
TINY = Fraction(1, 10**200)

# Factors and their powers, which are positive.
Monomial = tuple[tuple[Node, int], ...]


class NotSeparable(Exception):
    """Why a formula is no short sum of products."""


class Product(NamedTuple):
    """coefficient * row * column, and the scalar product of two vectors `dot` (row's, column's).

    Factors have one component or as many as the formula. `magnitude` is that of the coefficients
    which add up to the coefficient.
    """

    coefficient: Fraction
    magnitude: Fraction
    row: Monomial
    column: Monomial
    dot: tuple[Node, Node] | None = None


class Table(NamedTuple):
    """R * n moments sum u_r v_k of two vectors of columns, as a sum over pairs of few rows.

    Its rows are the R unit vectors `units`, which pick u_r; `value` are the terms, `size` those of
    the absolute values.
    """

    units: Node
    value: Node
    size: Node


class Moment(NamedTuple):
    """Where the moments of one g_r are: a table, or `dim` components of `Separation.moments`.

    The sums of values begin at `start`, those of absolute values at `size`.
    """

    dim: int
    start: int = 0
    size: int = 0
    table: Table | None = None


@dataclass(frozen=True)
class Separation:
    """A formula as sum_r f_r(row) g_r(column).

    `rank` counts the products; `count` the moments, of which a vector g_r has several. `moments`
    is a formula of columns and parameters, None where all of `layout` are tables.
    `rows` is one of rows and parameters, among them `sums` and `magnitudes`, the sums of g_r and of
    |g_r| over columns, and `limits`, three numbers: the components of the formula, then how many of
    them may be trusted: their magnitude, the sum of the absolute values of all products, is at most
    the first limit times their own absolute value and the second, and that is at most the third.
    `centred` are groups of variables that occur in differences within their group alone. Variables
    of positions from `free` on are in none of the formulas.
    """

    rank: int
    count: int
    layout: tuple[Moment, ...]
    moments: Node | None
    rows: Node
    sums: Node
    magnitudes: Node
    limits: Node
    centred: tuple[tuple[Node, ...], ...]
    free: int


def separate(formula: Node, kept: Axis, position: int) -> Separation:
    """The formula as a short sum of products; `position` is the first that no variable has.

    Args:
        formula: of any dimension; nothing is asked of its variables.
        kept: the index of rows; columns have the other one.

    >>> x, y = variable(0, 3, Axis.I), variable(1, 3, Axis.J)
    >>> separate(OPERATIONS["SqDist"](x, y), Axis.I, 2).rank
    5

    Raises:
        NotSeparable: says why it is none.
    """
    search = _Search(kept)
    return _assembled(search.of(formula), formula, kept, position)


# ----- finding -----------------------------------------------------------------------------------


class _Search:
    """The products of each node, arguments before users."""

    def __init__(self, kept: Axis) -> None:
        self.rows, self.columns = kept.bits, kept.other.bits
        self._known: dict[Node, list[Product]] = {}
        self._numbers: dict[Node, int] = {}

    def of(self, formula: Node) -> list[Product]:
        for node in topological([formula]):
            if node.op.name == "Ind":
                raise NotSeparable("it has numbers of rows or columns")
            if node.op.name == "Var" and node.variable.kind == Axis.PAIR:
                raise NotSeparable("it has arrays of pairs")
        for node in topological([formula]):
            if node.kinds & _BOTH == _BOTH:
                found = self._merged(self._combined(node))
                if len(found) > MOST_PRODUCTS:
                    raise NotSeparable(f"more than {MOST_PRODUCTS} products")
                self._known[node] = found
        return self._of(formula)

    def _of(self, node: Node) -> list[Product]:
        """The products of an argument that was met before, or that is one factor."""
        return self._known[node] if node in self._known else [self._factor(node)]

    def _factor(self, node: Node) -> Product:
        """A node that depends on one index at most."""
        coefficient = Fraction(1)
        powers: dict[Node, int] = {}
        todo = [node]
        while todo:
            part = todo.pop()
            name = part.op.name
            if name == "Mult" and len(todo) < MOST_PRODUCTS:
                todo += part.args
            elif name == "Minus":
                coefficient = -coefficient
                todo.append(part.args[0])
            elif name == "Square" and part.args[0].op.name not in ("Mult", "Minus"):
                powers[part.args[0]] = powers.get(part.args[0], 0) + 2
            elif name == "Constant" and isinstance(part.params[0], Fraction):
                coefficient *= part.params[0]
            else:
                powers[part] = powers.get(part, 0) + 1
        found = self._monomial(powers)
        sides = ((), found) if node.kinds & self.columns else (found, ())
        return Product(coefficient, abs(coefficient), *sides)

    def _monomial(self, powers: dict[Node, int]) -> Monomial:
        """Factors in the order in which they were met, whatever process it is."""
        for node in powers:
            self._numbers.setdefault(node, len(self._numbers))
        return tuple(sorted(powers.items(), key=lambda item: self._numbers[item[0]]))

    def _combined(self, node: Node) -> list[Product]:
        """The products of a node that depends on both indices."""
        name, args = node.op.name, node.args
        if name in ("Add", "Subtract"):
            sign = 1 if name == "Add" else -1
            return [*self._of(args[0]), *(_scaled(p, sign) for p in self._of(args[1]))]
        if name == "Minus":
            return [_scaled(product, -1) for product in self._of(args[0])]
        if name == "Mult":
            return self._product(self._of(args[0]), self._of(args[1]))
        if name == "Square":
            return self._power(self._of(args[0]), 2)
        if name == "Pow" and node.params[0] > 0:
            return self._power(self._of(args[0]), node.params[0])
        if name in ("Divide", "Inv"):
            inverse = [self._inverse(args[-1])]
            return inverse if name == "Inv" else self._product(self._of(args[0]), inverse)
        if name in ("Exp", "Cos", "Sin"):
            return self._of_a_sum(name, args[0])
        if name == "Sum":
            return [part for p in self._of(args[0]) for part in self._summed(p, args[0].dim)]
        if name == "SumT":
            return self._of(args[0])
        if name in ("Extract", "ExtractT"):
            return self._moved(node)
        if name == "Complex":
            return [*self._part(node, 0), *self._part(node, 1)]
        if name in ("Concat", "TensorProd", "VecMatMult", "MatVecMult"):
            return self._joined(node)
        raise NotSeparable(f"{name} of both a row and a column")

    def _expanded(self, products: Iterable[Product]) -> list[Product]:
        """Products without `dot`: its components written out."""
        found: list[Product] = []
        for p in products:
            if p.dot is None:
                found.append(p)
                continue
            if p.dot[0].dim > MOST_PRODUCTS:
                raise NotSeparable(f"more than {MOST_PRODUCTS} products")
            for k in range(p.dot[0].dim):
                one = self._factor(_component(p.dot[0], k))
                other = self._factor(_component(p.dot[1], k))
                found.append(self._times(self._times(p._replace(dot=None), one), other))
        return found

    def _times(self, one: Product, other: Product) -> Product:
        return Product(
            one.coefficient * other.coefficient,
            one.magnitude * other.magnitude,
            self._joint(one.row, other.row),
            self._joint(one.column, other.column),
            one.dot or other.dot,
        )

    def _joint(self, one: Monomial, other: Monomial) -> Monomial:
        powers = dict(one)
        for node, power in other:
            powers[node] = powers.get(node, 0) + power
        return self._monomial(powers)

    def _product(self, one: Sequence[Product], other: Sequence[Product]) -> list[Product]:
        if any(p.dot for p in one) and any(p.dot for p in other):
            one, other = self._expanded(one), self._expanded(other)
        if len(one) * len(other) > MOST_PRODUCTS**2:
            raise NotSeparable(f"more than {MOST_PRODUCTS} products")
        return [self._times(p, q) for p in one for q in other]

    def _power(self, products: Sequence[Product], power: int) -> list[Product]:
        found = products = self._expanded(products)
        if power > MOST_PRODUCTS:
            raise NotSeparable(f"more than {MOST_PRODUCTS} products")
        for _ in range(power - 1):
            found = self._merged(self._product(found, products))
        return list(found)

    def _inverse(self, node: Node) -> Product:
        products = self._of(node)
        if len(products) != 1 or products[0].dot is not None or not products[0].coefficient:
            raise NotSeparable("a quotient by a sum of rows and columns")
        (p,) = products
        inverse = OPERATIONS["Inv"]
        row, column = (
            self._monomial({inverse(n): k for n, k in side}) for side in (p.row, p.column)
        )
        return Product(1 / p.coefficient, abs(1 / p.coefficient), row, column)

    def _of_a_sum(self, name: str, node: Node) -> list[Product]:
        """Exp, Cos or Sin of (row value + column value)."""
        row, column = self._apart(name, node)
        if name == "Exp":
            pairs = [("Exp", "Exp", 1)]
        elif name == "Cos":
            pairs = [("Cos", "Cos", 1), ("Sin", "Sin", -1)]
        else:
            pairs = [("Sin", "Cos", 1), ("Cos", "Sin", 1)]
        return [
            Product(
                Fraction(sign),
                Fraction(1),
                self._monomial({OPERATIONS[one](row): 1}),
                self._monomial({OPERATIONS[other](column): 1}),
            )
            for one, other, sign in pairs
        ]

    def _apart(self, name: str, node: Node) -> tuple[Node, Node]:
        """The row value and the column value whose sum a node is."""
        parts: list[Node | None] = [None, None]
        for p in self._expanded(self._of(node)):
            if p.row and p.column:
                raise NotSeparable(f"{name} of a product of a row and a column")
            side = 1 if p.column else 0
            term = _scaled_node(p.coefficient, _written(p.column or p.row))
            before = parts[side]
            parts[side] = term if before is None else before + term
        row, column = (constant(0) if part is None else part for part in parts)
        return row, column

    def _summed(self, p: Product, dim: int) -> list[Product]:
        """The sum over the components of vectors."""
        row, column = (_split(side) for side in (p.row, p.column))
        if row[1] and column[1]:
            vectors = _written(row[1]), _written(column[1])
            one = p._replace(row=row[0], column=column[0])
            if p.dot is None:
                one = one._replace(dot=vectors)
                return [one] if dim > _SHORT else self._expanded([one])
            found = self._expanded([one._replace(dot=vectors)]) if dim <= MOST_PRODUCTS else []
            if not found:
                raise NotSeparable(f"more than {MOST_PRODUCTS} products")
            return [each._replace(dot=p.dot) for each in found]
        if not row[1] and not column[1]:
            return [_scaled(p, dim)]
        summed = self._factor(OPERATIONS["Sum"](_written(row[1] or column[1])))
        rest = Product(p.coefficient, p.magnitude, row[0], column[0], p.dot)
        # A vector of constants has no index of its own.
        if column[1] and not summed.column:
            summed = summed._replace(row=(), column=summed.row)
        return [self._times(rest, summed)]

    def _moved(self, node: Node) -> list[Product]:
        """Some components, or components placed among zeros."""
        (vector,) = node.args
        dim = node.dim if node.op.name == "Extract" else vector.dim
        return [self._vectors(p, vector.dim, node, dim) for p in self._of(vector)]

    def _vectors(self, p: Product, dim: int, node: Node, length: int) -> Product:
        """The product with `node`'s operation applied to each factor that is a vector."""
        sides: list[Monomial] = []
        for side in (p.row, p.column):
            numbers, vectors = _split(side)
            powers = dict(numbers)
            if vectors:
                moved = node.op(_written(vectors), *node.params)
                powers[moved] = powers.get(moved, 0) + 1
            sides.append(self._monomial(powers))
        if node.op.name == "ExtractT" and not any(_split(side)[1] for side in (p.row, p.column)):
            ones = node.op(fit(constant(1), length), *node.params)
            sides[0] = self._monomial({**dict(sides[0]), ones: 1})
        return p._replace(row=sides[0], column=sides[1])

    def _part(self, node: Node, place: int) -> list[Product]:
        """The real or the imaginary parts of complex numbers, among zeros."""
        nothing = OPERATIONS["Zero"](node.dim // 2)
        parts = [nothing, nothing]
        parts[place] = fit(constant(1), node.dim // 2)
        ones = self._factor(node.op(*parts))
        found: list[Product] = []
        for p in self._of(node.args[place]):
            row, column = (
                self._monomial({v if v.dim == 1 else node.op(v, v): k for v, k in side})
                for side in (p.row, p.column)
            )
            found.append(self._times(p._replace(row=row, column=column), ones))
        return found

    def _joined(self, node: Node) -> list[Product]:
        """Vectors joined, and products of matrices, as sums of vectors and their parts."""
        name, (one, other) = node.op.name, node.args
        pieces: list[Node] = []
        if name == "Concat":
            pieces = [
                OPERATIONS["ExtractT"](one, 0, node.dim),
                OPERATIONS["ExtractT"](other, one.dim, node.dim),
            ]
        elif name == "TensorProd" and one.dim * other.dim <= MOST_PRODUCTS:
            for k in range(one.dim):
                part = _component(one, k) * other
                pieces.append(OPERATIONS["ExtractT"](part, k * other.dim, node.dim))
        elif name == "VecMatMult" and one.dim <= MOST_PRODUCTS:
            n = node.dim
            pieces = [
                _component(one, k) * OPERATIONS["Extract"](other, k * n, n) for k in range(one.dim)
            ]
        elif name == "MatVecMult" and one.dim <= MOST_PRODUCTS:
            for k in range(node.dim):
                row = OPERATIONS["Extract"](one, k * other.dim, other.dim)
                part = OPERATIONS["Scalprod"](row, other)
                pieces.append(OPERATIONS["ElemT"](part, node.dim, k))
        else:
            raise NotSeparable(f"more than {MOST_PRODUCTS} products")
        return [p for piece in pieces for p in self._subgraph(piece)]

    def _subgraph(self, root: Node) -> list[Product]:
        """The products of a node that was made here."""
        for node in topological([root]):
            if node.kinds & _BOTH == _BOTH and node not in self._known:
                self._known[node] = self._merged(self._combined(node))
        return self._of(root)

    def _merged(self, products: Iterable[Product]) -> list[Product]:
        """Equal products, each once; those that cancel keep their magnitude."""
        found: dict[tuple[object, ...], Product] = {}
        for p in products:
            key = (p.row, p.column, p.dot)
            before = found.get(key)
            if before is not None:
                size = before.magnitude + p.magnitude
                p = p._replace(coefficient=before.coefficient + p.coefficient, magnitude=size)
            found[key] = p
        return list(found.values())


def _scaled(p: Product, by: int) -> Product:
    return p._replace(coefficient=p.coefficient * by, magnitude=p.magnitude * abs(by))


def _split(side: Monomial) -> tuple[Monomial, Monomial]:
    """The factors that are numbers, and those that are vectors."""
    numbers = tuple(item for item in side if item[0].dim == 1)
    return numbers, tuple(item for item in side if item[0].dim > 1)


def _component(node: Node, k: int) -> Node:
    return OPERATIONS["Elem"](node, k)


# ----- writing -----------------------------------------------------------------------------------


def _written(side: Monomial) -> Node:
    found: Node | None = None
    for node, power in side:
        if power == 2:
            node = OPERATIONS["Square"](node)
        elif power > 1:
            node = OPERATIONS["Pow"](node, power)
        found = node if found is None else found * node
    return constant(1) if found is None else found


def _scaled_node(coefficient: Fraction, node: Node) -> Node:
    return node if coefficient == 1 else constant(coefficient) * node


def _is_positive(node: Node) -> bool:
    """Whether a formula is nowhere below 0, as far as its operations say."""
    known: dict[Node, bool] = {}
    for part in topological([node]):
        name = part.op.name
        if name == "Constant":
            known[part] = isinstance(part.params[0], Fraction) and part.params[0] >= 0
        elif name in _KEEP_SIGN:
            known[part] = all(known[arg] for arg in part.args)
        else:
            even = name == "Pow" and part.params[0] % 2 == 0
            known[part] = even or name in ("Exp", "Square", "Abs", "Zero")
    return known[node]


def _absolute(node: Node) -> Node:
    return node if _is_positive(node) else OPERATIONS["Abs"](node)


def _assembled(products: Sequence[Product], formula: Node, kept: Axis, position: int) -> Separation:
    """The formulas that are evaluated."""
    groups: dict[tuple[Monomial, tuple[Node, Node] | None], list[Product]] = {}
    for p in products:
        groups.setdefault((p.column, p.dot), []).append(p)
    dims = [_written(c).dim * (1 if dot is None else dot[1].dim) for c, dot in groups]
    count = sum(dims)
    if count > MOST_MOMENTS:
        raise NotSeparable(f"more than {MOST_MOMENTS} moments")
    sums, magnitudes = (variable(position + k, count, Axis.PARAMETER) for k in range(2))
    limits = variable(position + 2, 3, Axis.PARAMETER)
    value: Node | None = None
    bound = constant(TINY) * OPERATIONS["Sum"](magnitudes)
    start = 0
    for ((_, dot), own), dim in zip(groups.items(), dims, strict=True):
        row, size = _rows_of(own)
        part = row * _contracted(dot and dot[0], sums, start, dim)
        value = part if value is None else value + part
        other = dot and _absolute(dot[0])
        bound = bound + size * _contracted(other, magnitudes, start, dim)
        start += dim
    assert value is not None
    layout, moments = _laid_out(list(groups), kept, position + 3)
    trusted = _trusted(value, bound, [_component(limits, k) for k in range(3)])
    return Separation(
        sum(1 if dot is None else dot[0].dim for _, dot in groups),
        count,
        layout,
        moments,
        _concatenated([fit(value, formula.dim), OPERATIONS["Sum"](fit(trusted, formula.dim))]),
        sums,
        magnitudes,
        limits,
        _differences(formula),
        position + 4,
    )


def _rows_of(products: Sequence[Product]) -> tuple[Node, Node]:
    """The sum of products' parts of rows, and that of their absolute values."""
    row = size = None
    for p in products:
        written = _written(p.row)
        part = _scaled_node(p.coefficient, written)
        row = part if row is None else row + part
        part = _scaled_node(p.magnitude, _absolute(written))
        size = part if size is None else size + part
    assert row is not None
    assert size is not None
    return row, size


def _laid_out(
    groups: Sequence[tuple[Monomial, tuple[Node, Node] | None]], kept: Axis, position: int
) -> tuple[tuple[Moment, ...], Node | None]:
    """Where the moments of each group are, and the formula of those that are in no table."""
    layout: list[Moment] = []
    values: list[Node] = []
    length = 0
    for column, dot in groups:
        written = _written(column)
        if dot is not None and written.dim > 1:
            units = variable(position, dot[1].dim, kept)
            terms = [
                OPERATIONS["Scalprod"](units, vector) * other
                for vector, other in ((dot[1], written), (_absolute(dot[1]), _absolute(written)))
            ]
            layout.append(Moment(dot[1].dim * written.dim, table=Table(units, *terms)))
            continue
        written = written if dot is None else dot[1] * written
        both = [written] if _is_positive(written) else [written, _absolute(written)]
        layout.append(Moment(written.dim, length, length + written.dim * (len(both) - 1)))
        values += both
        length += written.dim * len(both)
    return tuple(layout), _concatenated(values) if values else None


def _trusted(value: Node, bound: Node, limits: Sequence[Node]) -> Node:
    """1 where digits are left, 0 elsewhere, where something is not a number, too."""
    size, at_most = OPERATIONS["Abs"](value), OPERATIONS["LessOrEqual"]
    return at_most(bound, limits[0] * size + limits[1]) * at_most(size, limits[2])


def _contracted(dot: Node | None, sums: Node, start: int, dim: int) -> Node:
    part = OPERATIONS["Extract"](sums, start, dim)
    if dot is None:
        return part
    if dot.dim == dim:
        return OPERATIONS["Scalprod"](dot, part)
    return OPERATIONS["VecMatMult"](dot, part)


def _concatenated(nodes: Sequence[Node]) -> Node:
    """Vectors joined, by halves: no deep graph."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return OPERATIONS["Concat"](_concatenated(nodes[:half]), _concatenated(nodes[half:]))


# ----- differences -------------------------------------------------------------------------------


def _differences(formula: Node) -> tuple[tuple[Node, ...], ...]:
    """Groups of variables that occur in differences x - y within their group alone.

    What is added to all of a group, the formula does not notice.
    """
    group: dict[Node, set[Node]] = {}
    fixed: set[Node] = set()
    for node in topological([formula]):
        ends = [_coordinates(arg) for arg in node.args]
        if _coordinates(node) is not None:
            continue
        one, other = ends if len(ends) == 2 else (None, None)
        alike = one is not None and other is not None and one[1:] == other[1:]
        if node.op.name == "Subtract" and one is not None and other is not None and alike:
            joined = group.setdefault(one[0], {one[0]}) | group.setdefault(other[0], {other[0]})
            for each in joined:
                group[each] = joined
        else:
            fixed.update(end[0] for end in ends if end is not None)
    whole = _coordinates(formula)
    fixed.update([] if whole is None else [whole[0]])
    found = {id(each): each for each in group.values() if len(each) > 1 and not each & fixed}
    return tuple(
        tuple(sorted(each, key=lambda node: node.variable.position)) for each in found.values()
    )


def _coordinates(node: Node) -> tuple[Node, int, tuple[object, ...]] | None:
    """(the variable, its dimension, which components) of a variable or of a part of one."""
    if node.op.name == "Var":
        return node, node.dim, ()
    if node.op.name == "Extract" and node.args[0].op.name == "Var":
        return node.args[0], node.args[0].dim, node.params
    return None
