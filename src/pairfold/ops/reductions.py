"""The table of reductions: each a monoid with one step per pair, a merge and a finish.

The rules are written in scalar values, like operations, so every backend folds, splits the reduced
axis and combines partial results by the same rows. There are three forms:

- *running*: every component of the formula has its own small state (Sum, Min, ArgMin ...);
- *max-shifted*: terms e^(F - top) are summed, where the maximum `top` is the largest F so far; when
  it moves, the sums so far are rescaled (LogSumExp, soft-max weights);
- *top-k*: every component keeps a sorted list of the K smallest (value, index) pairs.

What holds for all of them is said in `GENERAL`, and what is special in their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ..core.dtypes import DTYPES
from ..core.library import Array, ArrayOperations
from ..core.node import Node
from ..core.scalars import Scalars, Value
from .differentiation import Composition, Differentiation, PullBack, Selection
from .table import OPERATIONS, constant, fit

if TYPE_CHECKING:
    from typing_extensions import Required, Unpack

State = Sequence[Value]

# What the page of operations says above the table of reductions.
GENERAL = (
    "NaN: extrema, lists and their indices never select it; Count, Any and All take it for a "
    "number that is not 0; everything else propagates it.",
    "Ties: the lowest index is selected; equal values of a list are in the order of their indices. "
    "What is equal is decided by values as they are computed, half precision in float32: two ways "
    "to write one formula may round differently, and then order what is nearly equal differently.",
    "Infinities: a result is the limit where there is one, else NaN. inf for Min, -inf for Max is "
    "the same as nothing to select: its index is 0.",
    "No columns, or no rows: an axis that is reduced may be empty; the conventions say what comes "
    "out, as they do for rows where NaN left nothing to select.",
    "Indices are counted along the reduced axis, from 0, and are exact up to 2^53.",
    "Derivatives of any order are torch's; derivatives of selected values are those of the formula "
    "at the selected pairs.",
)


@dataclass(frozen=True)
class Result:
    """One array that a reduction gives.

    `kind`: value (the data's dtype), index (int64), truth (bool) or state (float64). `per`: whether
    it has one entry per folded component, per maximum, or per component and place of a list.
    """

    kind: str = "value"
    per: str = "component"


@dataclass(frozen=True)
class Ends:
    """What `finish` may read: one component's state, its maximum, the unweighted sum, the count."""

    state: State
    top: Value
    total: Value
    count: Value


@dataclass(frozen=True, eq=False)
class Reduction:
    """Everything the package knows about one reduction over pairs.

    `identity` is the state of an empty row; `kinds` says which parts of a state are numbers of
    columns. `step(s, state, x, j)` takes in value x of column number j; `merge(s, a, b)` joins
    two states in any order; `finish(s, ends)` gives one component of each result.
    `linear`: factors of the row may leave it. `additive`: states are summed, so a summation scheme
    applies. `weighted`: whether a second formula multiplies the terms ("no", "may", "must").
    `selects`: results are values of selected pairs. `single` is the reduction that a list of one
    place is, `masked` that which stands for it where a mask leaves pairs out and that matters.
    `differentiated` is the way that derivatives
    take, `derivative` the same in words.
    """

    name: str
    says: str
    identity: tuple[float | str, ...]
    step: Callable[[Scalars, State, Value, Value], State]
    merge: Callable[[Scalars, State, State], State]
    finish: Callable[[Scalars, Ends], Sequence[Value]]
    kinds: tuple[str, ...] = ("value",)
    results: tuple[Result, ...] = (Result(),)
    linear: bool = False
    additive: bool = False
    max_shifted: bool = False
    totals: bool = False
    top_k: bool = False
    single: str = ""
    weighted: str = "no"
    scalar: bool = False
    selects: bool = False
    joined: bool = False
    wide: bool = False
    internal: bool = False
    masked: str = ""
    differentiated: Differentiation | None = None
    shape: str = "(..., R, D)"
    derivative: str = "none"
    conventions: str = ""

    def __repr__(self) -> str:
        return f"<reduction {self.name}>"

    @property
    def form(self) -> str:
        """running, max-shifted or top-k."""
        return "max-shifted" if self.max_shifted else "top-k" if self.top_k else "running"

    @property
    def saves(self) -> bool:
        """Whether derivatives read the results."""
        return isinstance(self.differentiated, PullBack) and self.differentiated.saves

    @property
    def constant(self) -> bool:
        """Whether results are constants to every derivative: whole numbers and truth values."""
        return all(result.kind != "value" for result in self.results)


class _Fold(TypedDict, total=False):
    """What reductions of one form have in common."""

    identity: Required[tuple[float | str, ...]]
    step: Required[Callable[[Scalars, State, Value, Value], State]]
    merge: Required[Callable[[Scalars, State, State], State]]
    additive: bool
    max_shifted: bool


class Fields(_Fold, total=False):
    """What is said of a row beside its name and words: see `Reduction`."""

    finish: Required[Callable[[Scalars, Ends], Sequence[Value]]]
    kinds: tuple[str, ...]
    results: tuple[Result, ...]
    linear: bool
    totals: bool
    top_k: bool
    single: str
    weighted: str
    scalar: bool
    selects: bool
    joined: bool
    wide: bool
    internal: bool
    masked: str
    differentiated: Differentiation | None
    shape: str
    derivative: str
    conventions: str


REDUCTIONS: dict[str, Reduction] = {}
ALIASES = {"SoftMax": "SumSoftMaxWeight"}


def reduction(name: str, says: str, **fields: Unpack[Fields]) -> Reduction:
    """Add a row to the table of reductions."""
    row = Reduction(name, says, **fields)
    REDUCTIONS[name] = row
    return row


# ----- sums --------------------------------------------------------------------------------------


def _added(s: Scalars, a: State, b: State) -> State:
    return [x + y for x, y in zip(a, b, strict=True)]


_SUM: _Fold = {
    "identity": (0.0,),
    "step": lambda s, state, x, j: [state[0] + x],
    "merge": _added,
    "additive": True,
}

total = reduction(
    "Sum",
    "The sum.",
    **_SUM,
    finish=lambda s, ends: [ends.state[0]],
    linear=True,
    differentiated=PullBack(lambda f, g, results, incoming: (incoming[0], None)),
    derivative="the sum of the formula's derivative",
    conventions="0 without columns",
)


def _divided(
    library: ArrayOperations, parts: Sequence[Sequence[Array]], count: Callable[[], Array | float]
) -> Sequence[Array]:
    total = parts[0][0]
    return [library.cast(total / count(), library.dtype(total))]


reduction(
    "Mean",
    "The mean.",
    **_SUM,
    finish=lambda s, ends: [ends.state[0] / ends.count],
    linear=True,
    differentiated=Composition(("Sum",), _divided),
    derivative="the mean of the formula's derivative",
    conventions="NaN without columns",
    masked="Mean of some",
)

reduction(
    "Mean of some",
    "The mean of the pairs that a mask leaves.",
    identity=(0.0, 0.0),
    kinds=("value", "value"),
    step=lambda s, state, x, j: [state[0] + x, state[1] + 1],
    merge=_added,
    additive=True,
    finish=lambda s, ends: [ends.state[0] / ends.state[1]],
    internal=True,
    differentiated=Composition(("Sum",), _divided),
)

reduction(
    "Count",
    "The number of columns where the formula is not 0.",
    identity=(0.0,),
    step=lambda s, state, x, j: [state[0] + s.select(s.ne(x, 0), 1, 0)],
    merge=_added,
    additive=True,
    finish=lambda s, ends: [ends.state[0]],
    results=(Result("index"),),
    conventions="0 without columns",
)

reduction(
    "Prod",
    "The product.",
    identity=(1.0,),
    step=lambda s, state, x, j: [state[0] * x],
    merge=lambda s, a, b: [a[0] * b[0]],
    finish=lambda s, ends: [ends.state[0]],
    wide=True,
    differentiated=Composition(("ProdParts",)),
    derivative="the product of the other columns, times the formula's derivative",
    conventions="1 without columns; multiplied in float64; third derivatives at three zeros are 0",
)


def _unless_zero(f: Node, x: Node, at_zero: Node) -> Node:
    return OPERATIONS["IfElse"](-OPERATIONS["Equal"](f, constant(0)), x, at_zero)


def _of_the_others(f: Node, whole: Node, rest: Node, zeros: Node, others: Node) -> Node:
    """The product of all columns but one, at that one's F.

    F != 0: whole/F. F = 0: the product `rest` of what is not 0, if this is the only zero; if there
    are two, that product times the other zero, which `others` less F is: it varies with it.
    """
    both, nothing = rest * (others - f), OPERATIONS["Zero"](rest.dim)
    at_two = OPERATIONS["IfElse"](constant(2) - zeros, both, nothing)
    at_zero = OPERATIONS["IfElse"](constant(1) - zeros, rest, at_two)
    return _unless_zero(f, whole / f, at_zero)


def _product_pullback(
    f: Node, g: Node | None, results: Sequence[Node], incoming: Sequence[Node]
) -> tuple[Node | None, Node | None]:
    whole, rest, zeros, others = results
    nothing = OPERATIONS["Zero"](rest.dim)
    first = _of_the_others(f, whole, rest, zeros, others) * incoming[0]
    first = first + _unless_zero(f, rest / f * incoming[1], nothing)
    return first + _unless_zero(f, nothing, incoming[3]), None


def _product_parts(s: Scalars, state: State, x: Value, j: Value) -> State:
    zero = s.eq(x, 0)
    return [s.select(zero, state[0], state[0] * x), state[1] + s.select(zero, 1, 0)]


reduction(
    "ProdParts",
    "The product, that of the factors that are not 0, how many are 0, and the sum of these.",
    identity=(1.0, 0.0),
    kinds=("value", "value"),
    step=_product_parts,
    merge=lambda s, a, b: [a[0] * b[0], a[1] + b[1]],
    finish=lambda s, ends: [
        s.select(s.lt(0, ends.state[1]), 0 * ends.state[0], ends.state[0]),
        ends.state[0],
        ends.state[1],
        0 * ends.state[1],
    ],
    results=(Result(), Result(), Result(), Result()),
    wide=True,
    internal=True,
    differentiated=PullBack(_product_pullback, saves=True),
)

reduction(
    "Any",
    "Whether the formula differs from 0 in any column.",
    identity=(0.0,),
    step=lambda s, state, x, j: [s.select(s.ne(x, 0), 1, state[0])],
    merge=lambda s, a, b: [s.select(s.lt(a[0], b[0]), b[0], a[0])],
    finish=lambda s, ends: [ends.state[0]],
    results=(Result("truth"),),
    conventions="False without columns",
)

reduction(
    "All",
    "Whether the formula differs from 0 in all columns.",
    identity=(1.0,),
    step=lambda s, state, x, j: [s.select(s.eq(x, 0), 0, state[0])],
    merge=lambda s, a, b: [s.select(s.lt(b[0], a[0]), b[0], a[0])],
    finish=lambda s, ends: [ends.state[0]],
    results=(Result("truth"),),
    conventions="True without columns",
)

# ----- extrema -----------------------------------------------------------------------------------

_TO_SELECTED = "flows to the selected pair"


def _less(s: Scalars, x: Value, y: Value) -> Value:
    return s.lt(x, y)


def _more(s: Scalars, x: Value, y: Value) -> Value:
    return s.lt(y, x)


def _extreme(name: str, says: str, better: Callable[..., Value], worst: str, gives: str) -> None:
    """Rows for the extreme value, its index, or both; the state holds an index only if needed."""
    located = gives != "value"

    def step(s: Scalars, state: State, x: Value, j: Value) -> State:
        found = better(s, x, state[0])
        after = [s.select(found, x, state[0])]
        return [*after, s.select(found, j, state[1])] if located else after

    def merge(s: Scalars, a: State, b: State) -> State:
        found = better(s, b[0], a[0])
        if not located:
            return [s.select(found, b[0], a[0])]
        tied = s.both(s.eq(b[0], a[0]), s.lt(b[1], a[1]))
        found = s.either(found, tied)
        return [s.select(found, y, x) for x, y in zip(a, b, strict=True)]

    taken = {"value": [0], "index": [1], "both": [0, 1]}[gives]
    kinds = ("value", "index")
    both = "Min_ArgMin" if worst == "inf" else "Max_ArgMax"
    reduction(
        name,
        says,
        identity=(worst, 0.0) if located else (worst,),
        kinds=kinds if located else kinds[:1],
        step=step,
        merge=merge,
        finish=lambda s, ends: [ends.state[place] for place in taken],
        results=tuple(Result(kinds[place]) for place in taken),
        selects=True,
        differentiated=None if gives == "index" else Selection(both),
        shape="two arrays (..., R, D)" if gives == "both" else "(..., R, D)",
        derivative="none" if gives == "index" else _TO_SELECTED,
        conventions=", ".join((worst, "index 0")[place] for place in taken) + " without columns",
    )


_extreme("Min", "The smallest value.", _less, "inf", "value")
_extreme("Max", "The largest value.", _more, "-inf", "value")
_extreme("ArgMin", "The column of the smallest value.", _less, "inf", "index")
_extreme("ArgMax", "The column of the largest value.", _more, "-inf", "index")
_extreme("Min_ArgMin", "The smallest value and its column.", _less, "inf", "both")
_extreme("Max_ArgMax", "The largest value and its column.", _more, "-inf", "both")

# ----- K smallest --------------------------------------------------------------------------------


def comes_first(s: Scalars, a: State, b: State) -> Value:
    """Whether (value, index) a comes before b in a list: smaller, or equal and earlier."""
    return s.either(s.lt(a[0], b[0]), s.both(s.eq(a[0], b[0]), s.lt(a[1], b[1])))


def _smaller(s: Scalars, a: State, b: State) -> Value:
    """Whether (value, index) a comes before b, where a is known to have the later index."""
    return s.lt(a[0], b[0])


def _inserted(
    s: Scalars, order: Callable[..., Value], before: State, here: State, new: State
) -> State:
    """What place l holds after `new` joined the sorted list, from places l-1 and l.

    Places after the new entry take their predecessor's; the new one stands where it comes before
    what is here but not before its predecessor.
    """
    later = order(s, new, before)
    now = order(s, new, here)
    return [
        s.select(later, old, s.select(now, fresh, same))
        for old, fresh, same in zip(before, new, here, strict=True)
    ]


def _smallest(name: str, says: str, gives: str) -> None:
    taken = {"value": [0], "index": [1], "both": [0, 1]}[gives]
    kinds = ("value", "index")
    reduction(
        name,
        says,
        identity=("inf", 0.0),
        kinds=kinds,
        step=lambda s, state, x, j: _inserted(s, _smaller, state[:2], state[2:4], [x, j]),
        merge=lambda s, a, b: _inserted(s, comes_first, a[:2], a[2:4], b),
        finish=lambda s, ends: [ends.state[place] for place in taken],
        results=tuple(Result(kinds[place], "list") for place in taken),
        top_k=True,
        single=name.replace("KMin", "Min"),
        selects=True,
        differentiated=None if gives == "index" else Selection("KMin_ArgKMin"),
        shape=f"{'two arrays ' * (gives == 'both')}(..., R, K, D), or (..., R, K) where D is 1",
        derivative="none" if gives == "index" else _TO_SELECTED,
        conventions="ascending; padded with "
        + " and ".join(("inf", "index 0")[place] for place in taken),
    )


_smallest("KMin", "The K smallest values.", "value")
_smallest("ArgKMin", "The columns of the K smallest values.", "index")
_smallest("KMin_ArgKMin", "The K smallest values and their columns.", "both")

# ----- exponentials ------------------------------------------------------------------------------


def _terms(f: Node, top: Node) -> Node:
    """e^(F - top), from the very F that the sums were made of: it is rounded as it was there."""
    return OPERATIONS["Exp"](OPERATIONS["Apart"](f, top))


def _where_some(whole: Node, x: Node) -> Node:
    """x in rows whose sum is not 0, and 0 in the others: nothing is sent into them."""
    empty = OPERATIONS["Equal"](whole, constant(0))
    return OPERATIONS["IfElse"](fit(-empty, x.dim), x, OPERATIONS["Zero"](x.dim))


def _log_pullback(
    f: Node, g: Node | None, results: Sequence[Node], incoming: Sequence[Node]
) -> tuple[Node | None, Node | None]:
    _, top, whole = results
    terms = _terms(f, top)
    # The maximum is a constant: nothing that is made of it and the sum depends on where it is.
    to_sum = _where_some(whole, incoming[0] / whole) + incoming[2]
    if g is None:
        return terms * to_sum, None
    return terms * OPERATIONS["Scalprod"](to_sum, g), terms * to_sum


def _softmax_pullback(
    f: Node, g: Node | None, results: Sequence[Node], incoming: Sequence[Node]
) -> tuple[Node | None, Node | None]:
    assert g is not None
    out, top, whole = results
    terms = _terms(f, top)
    sent = _where_some(whole, incoming[0] / whole)
    to_f = OPERATIONS["Scalprod"](g - _where_some(whole, out), sent) + incoming[2]
    return terms * to_f, terms * sent


def _log(s: Scalars, ends: Ends, x: Value) -> Value:
    """log(x e^top), -inf for x = 0 whatever the maximum."""
    return ends.top + s.log(x)


def _raw_top(s: Scalars, top: Value) -> Value:
    """The maximum as the largest value it stands for: it is kept within the finite numbers."""
    top = s.select(s.le(top, s.constant("lowest")), s.constant("-inf"), top)
    return s.select(s.le(s.constant("largest"), top), s.constant("inf"), top)


def _maximum(s: Scalars, top: Value) -> Value:
    """The maximum; 0 where there is nothing to measure from it."""
    return s.select(s.le(top, s.constant("lowest")), 0, top)


_NO_TERMS = "-inf without columns or where all F are -inf; inf where some F is inf"
_SHIFTED: _Fold = {**_SUM, "max_shifted": True}

reduction(
    "LogSumExp",
    "The logarithm of the sum of exponentials, log sum_j e^F; weighted: log sum_j e^F G.",
    **_SHIFTED,
    finish=lambda s, ends: [_log(s, ends, ends.state[0])],
    differentiated=Composition(("LogParts",)),
    weighted="may",
    shape="(..., R, D), weighted (..., R, dim G)",
    derivative="soft-max weighted sums of the formulas' derivatives",
    conventions=_NO_TERMS,
)

reduction(
    "LogSumExpWeight",
    "The same as LogSumExp with a weight: log sum_j e^F G; of a vector F component by component.",
    **_SHIFTED,
    finish=lambda s, ends: [_log(s, ends, ends.state[0])],
    differentiated=Composition(("LogParts",)),
    weighted="must",
    shape="(..., R, dim G)",
    derivative="soft-max weighted sums of the formulas' derivatives",
    conventions=_NO_TERMS,
)

reduction(
    "SumSoftMaxWeight",
    "Soft-max weighted mean: sum_j e^F G / sum_j e^F; of a vector F component by component.",
    **_SHIFTED,
    totals=True,
    finish=lambda s, ends: [ends.state[0] / ends.total],
    differentiated=Composition(("SoftMaxParts",)),
    weighted="must",
    shape="(..., R, dim G)",
    derivative="again soft-max weighted sums",
    conventions="NaN without columns, where all F are -inf or some F is inf; 0 where a mask leaves"
    " nothing of a row",
    masked="SumSoftMaxWeight of some",
)


def _mean_of_some(s: Scalars, ends: Ends) -> Value:
    """The weighted mean; 0 where the weights of the pairs that a mask leaves add up to nothing."""
    return s.select(s.eq(ends.total, 0), 0, ends.state[0] / ends.total)


reduction(
    "SumSoftMaxWeight of some",
    "The soft-max weighted mean of the pairs that a mask leaves.",
    **_SHIFTED,
    totals=True,
    finish=lambda s, ends: [_mean_of_some(s, ends)],
    weighted="must",
    internal=True,
    differentiated=Composition(("SoftMaxParts",)),
)

# What derivatives need besides: the maximum, and the sum of what was measured from it.
_PARTS = (Result(), Result("value", "maximum"))
MAXIMUM = 1  # the place of the maximum among them

reduction(
    "LogParts",
    "LogSumExp, the maximum, and the sum of e^(F - maximum), weighted or not.",
    **_SHIFTED,
    finish=lambda s, ends: [
        _log(s, ends, ends.state[0]),
        _maximum(s, ends.top),
        ends.state[0],
    ],
    results=(*_PARTS, Result()),
    weighted="may",
    joined=True,
    internal=True,
    differentiated=PullBack(_log_pullback, saves=True),
)

reduction(
    "SoftMaxParts",
    "SumSoftMaxWeight, the maximum, and the sum of e^(F - maximum).",
    **_SHIFTED,
    totals=True,
    finish=lambda s, ends: [
        ends.state[0] / ends.total,
        _maximum(s, ends.top),
        ends.total,
    ],
    results=(*_PARTS, Result("value", "maximum")),
    weighted="must",
    internal=True,
    masked="SoftMaxParts of some",
    differentiated=PullBack(_softmax_pullback, saves=True),
)

reduction(
    "SoftMaxParts of some",
    "The same of the pairs that a mask leaves.",
    **_SHIFTED,
    totals=True,
    finish=lambda s, ends: [
        _mean_of_some(s, ends),
        _maximum(s, ends.top),
        ends.total,
    ],
    results=(*_PARTS, Result("value", "maximum")),
    weighted="must",
    internal=True,
    differentiated=PullBack(_softmax_pullback, saves=True),
)


def _largest_and_sum(
    library: ArrayOperations, parts: Sequence[Sequence[Array]], count: Callable[[], Array | float]
) -> Sequence[Array]:
    """m = max F, and sum e^(F - m) G, which varies with m too."""
    (top,), (_, _, total) = parts
    # As in the kernel the maximum is finite: -inf and inf then need no special case.
    limit = DTYPES[library.dtype(top)].largest
    maximum = library.clamped(top, -limit, limit)
    return top, total * library.exp(library.detached(maximum) - maximum)


for _name, _weighted, _shape in (
    ("Max_SumShiftExp", "no", "(..., R, 2)"),
    ("Max_SumShiftExpWeight", "must", "(..., R, 1 + dim G)"),
):
    reduction(
        _name,
        "The largest value m, followed by sum_j e^(F - m)" + " G" * (_weighted == "must") + ".",
        **_SHIFTED,
        finish=lambda s, ends: [_raw_top(s, ends.top), ends.state[0]],
        results=(Result("value", "maximum"), Result()),
        differentiated=Composition(("Max", "LogParts"), _largest_and_sum),
        weighted=_weighted,
        scalar=True,
        joined=True,
        shape=_shape,
        derivative="that of its two parts, Max and LogSumExp",
        conventions="-inf and 0 without columns",
    )
