"""Genred: a reduction written as a formula string, called on arrays.

The class checks its options and parses its formula when it is built, so a wrong program fails
where it was written. It holds no data and can be pickled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

from ..arrays.advice import kind_name
from ..arrays.checks import check_count
from ..arrays.library import ArrayLibrary
from ..arrays.opaque import traced_as
from ..arrays.registry import LIBRARIES, library_of
from ..core.node import Axis
from ..errors import FormulaError, OptionError, attempted, check_option, closest
from ..ops.reductions import ALIASES, REDUCTIONS, Reduction
from ..settings import current
from .accuracy import ACCUMULATORS, DEFAULT_RTOL, METHODS, SCHEMES, Accuracy, may_leave_out
from .declarations import parse_aliases
from .devices import ANY_DEVICE, AUTO, placed
from .given import BAILED_OUT, completed
from .hooks import hooks_of
from .parse import parse_many
from .ranges import checked_ranges
from .recording import made_now, recorded_as
from .reduction import FormulaReduction
from .typed import Result

if TYPE_CHECKING:
    from .explain import Explained
    from .records import Record

# What `Genred.__call__` takes beside arrays.
CALL_OPTIONS = ("backend", "device_id", "ranges", "out")


class Genred:
    """A reduction over all pairs, from a formula string.

    Args:
        formula: what to reduce, for example `"Square(p-a)*Exp(x+y)"`.
        aliases: one declaration per array, for example `["x = Vi(3)", "y = Vj(3)"]`: `Vi(d)` is
            indexed by i, `Vj(d)` by j, `Pm(d)` by neither, `Vij(d)` by both.
        reduction_op: the name of a reduction: "Sum", "LogSumExp", "ArgKMin" ...; all of them are
            in the documentation of operations and reductions.
        axis: the index that is reduced: 0 for i (one row per j), 1 for j (one row per i).
        opt_arg: K, for KMin, ArgKMin and KMin_ArgKMin.
        formula2: the weight, for LogSumExp and SumSoftMaxWeight.
        where: which pairs count, as NumPy's `where`: a formula of the same aliases, as
            `"SqDist(x,y) <= 0.25"` or `"Ind(j) <= Ind(i)"`, which holds where it is not 0; or
            whatever lazy tensors take: `pairfold.causal()`, an array (M, N) of truth values, a
            sparse matrix. The others are absent: a mean counts the
            rest, a minimum of nothing is inf, and no NaN comes out of them.
        dtype_acc: dtype of the accumulators: "auto", "float32" or "float64". "auto" sums float32
            data in float32 over short blocks and adds the blocks in float64; float64 data with
            compensation.
        use_double_acc: the same as `dtype_acc="float64"`.
        sum_scheme: "auto", "block_sum", "direct_sum" or "kahan_scheme" (compensated every eight
            terms).
        method: "exact": every pair is met, or all that matter to `rtol`. "treecode": columns far
            from a row are met as few proxies, for sums of K(x, y)*b, K being smooth away from x = y
            and x, y having at most four coordinates; see the documentation of far fields.
        rtol: of Sum, Mean, LogSumExp and SumSoftMaxWeight, the most that pairs may be which are
            left out: all of them together are less than this part of the row's sum of terms (of
            exponentials). That is proved, not measured; terms must have one sign, else all pairs
            are met. Of a treecode, the relative error, 1e-5 by default. It is measured at some
            rows, whose sums are computed exactly, and is no bound for the others.

    >>> import numpy as np
    >>> squared = Genred("SqDist(x,y)", ["x = Vi(2)", "y = Vj(2)"], axis=1)
    >>> squared(np.zeros((3, 2)), np.ones((4, 2)))
    array([[8.],
           [8.],
           [8.]])

    Raises:
        FormulaError: the formula or an alias cannot be read (DimError, UnknownNameError).
        OptionError: an option has a value that it cannot have.
        UnsupportedError: a treecode of more than four coordinates.
    """

    library: str | None = None
    # What a call computes: `call_fold`; a class that derives from this one may fill `out` its way.
    _compute: ClassVar[Callable[..., Any]]
    _record: Record | None = None  # where torch.compile traces: the calls that make it

    @recorded_as("__init__")
    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        reduction_op: str = "Sum",
        axis: int = 0,
        *,
        opt_arg: SupportsIndex | None = None,
        formula2: str | None = None,
        dtype_acc: str = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
        where: object = None,
        method: str = "exact",
        rtol: float | None = None,
    ) -> None:
        check_axis(axis)
        name, row = checked_reduction(reduction_op)
        length = checked_length(row, opt_arg)
        checked_weight(row, formula2)
        sums = (dtype_acc, use_double_acc, sum_scheme)
        accuracy = checked_accuracy(row, *sums, method, rtol, where is not None)
        aliases = listed_aliases(aliases)
        texts = [formula] if formula2 is None or not is_given(formula2) else [formula, formula2]
        if isinstance(where, str):
            texts.append(where)
        parsed, *weight = parse_many(texts, aliases)
        self._has_arrays = False
        if isinstance(where, str):
            mask = weight.pop().node
        else:
            from .masks import mask_node  # of lazy tensors

            mask, self._has_arrays = mask_node(where)
        self._text = formula
        self.axis = axis
        self.reduction_op = reduction_op
        self.opt_arg = opt_arg
        self.formula2 = formula2
        self.where = where
        self.aliases = aliases
        self.accuracy = accuracy
        self.nargs = len(parsed.variables)
        self._fold = FormulaReduction(
            parsed.node,
            parsed.variables,
            name,
            Axis.I if axis == 1 else Axis.J,
            parsed.names,
            accuracy,
            weight[0].node if weight else None,
            length,
            where=mask,
        )

    @property
    def formula(self) -> str:
        """The formula, as it was given."""
        return self._text

    @recorded_as("__call__")
    def __call__(
        self,
        *args: object,
        backend: str = "auto",
        device_id: int | None = -1,
        ranges: object = None,
        out: object = None,
    ) -> Result:
        """Reduce.

        Args:
            args: one array per variable: `Vi(d)`: (..., M, d); `Vj(d)`: (..., N, d);
                `Pm(d)`: (..., d); `Vij(d)`: (..., M, N, d). The last axis may be left out where d
                is 1; a parameter is then a number or an array without axes. Leading batch axes
                broadcast, and so do the M and N of arrays of pairs. Any strides; float32, float64,
                float16 or bfloat16 (the latter two are computed with in float32).
            backend: "auto": the device that holds the arrays; "CPU"; "GPU": arrays of the host
                are copied to a GPU, in slabs where they do not fit, and the results back.
                PyKeOps' longer names, as "GPU_1D", mean "GPU".
            device_id: the number of the GPU; -1 or None: that of the arrays, or 0.
            ranges: the pairs to go over, None being all: six arrays of whole numbers (ranges_i,
                slices_i, redranges_j, ranges_j, slices_j, redranges_i). Rows ranges_i[k, 0] to
                ranges_i[k, 1] meet the intervals redranges_j[slices_i[k - 1] : slices_i[k]] of
                columns, a column of two intervals counting twice; rows of no block meet none. The
                last three say the same with i and j swapped; they make results on j, and
                gradients to variables indexed by j, which are refused where both halves do not
                mean the same pairs. All batch elements have the same pairs.
                `pairfold.cluster.from_matrix` makes them.
            out: an array (for two results, a tuple) of the result's shape and dtype to fill; it
                is returned.

        Returns:
            (..., M, D) for axis 1, (..., N, D) for axis 0, in the arrays' library and dtype;
            indices are int64, truth values bool. Min_ArgMin, Max_ArgMax and KMin_ArgKMin give a
            tuple (values, indices); lists have shape (..., M, K, D), or (..., M, K) where D is 1.

        Raises:
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError,
                RangeError: what does not fit, before anything is computed.
        """
        if self._has_arrays:
            from .masked import masked_reduction  # of lazy tensors

            given = {"backend": backend, "device_id": device_id, "ranges": ranges, "out": out}
            return masked_reduction(self, args, **given)()
        return self._compute(self._fold, args, self.library, backend, device_id, ranges, out)

    def explain(
        self, *args: object, dtype: str = "float32", backend: str = "auto", ranges: object = None
    ) -> Explained:
        """How the reduction is computed: formula, stages, loops, cost, and the code on request.

        Args:
            args: arrays as in a call, to explain the plan for their sizes; none for large sizes.
            dtype: the dtype to explain when no arrays are given.
            backend: "GPU": on a GPU, which need not be there; tensors on one are explained so.
            ranges: as in a call, with the arrays that they cut.

        Raises:
            OptionError: an unknown dtype or backend.
            ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, RangeError: arrays
                or ranges that a call would refuse.
        """
        from .explain import explain_fold

        if self._has_arrays and args:
            from .masked import masked_reduction  # of lazy tensors

            return masked_reduction(self, args, ranges=ranges).explain(backend=backend)
        return explain_fold(self._fold, args, dtype, self._text, backend, ranges)

    # Type checkers would take any name for an attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if self._record is None:
                raise AttributeError(f"a {type(self).__name__} has no attribute {name!r}")
            return made_now(self, name)

    def __repr__(self) -> str:
        kept = "i" if self.axis == 1 else "j"
        reduced = "j" if self.axis == 1 else "i"
        return (
            f"<Genred: out_{kept} = {self.reduction_op}_{reduced} {self._text}, "
            f"dim {self._fold.formula.dim}, {', '.join(map(str, self.aliases))}>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        names = ("aliases", "reduction_op", "axis", "opt_arg", "formula2", "where")
        options = {"formula": self._text, **{name: getattr(self, name) for name in names}}
        accuracy: dict[str, object]
        accuracy = {"dtype_acc": self.accuracy.dtype, "sum_scheme": self.accuracy.scheme}
        if self.accuracy.rtol is not None:
            accuracy |= {"method": self.accuracy.method, "rtol": self.accuracy.rtol}
        return _rebuild, (type(self), {**options, **accuracy})


def _call_traced(*args: object, **options: object) -> object:
    from .traced import call_traced

    return call_traced(*args, **options)  # pyright: ignore (those of `call_fold`)


@traced_as(_call_traced)
def call_fold(
    fold: FormulaReduction,
    args: Sequence[Any],
    name: str | None,
    backend: str = "auto",
    device_id: int | None = -1,
    ranges: object = None,
    out: Result = None,
) -> Result:
    """A fold called as users call reductions; see `Genred.__call__`.

    Raises:
        ArgumentError, ArrayTypeError, ShapeError, DTypeError, DeviceError, OptionError: what
            does not fit, before anything is computed.
    """
    if len(args) != len(fold.variables) or not args:
        check_count(len(fold.variables), len(args), fold.names)
    try:
        library = _library(args, fold, name)
        if backend is not AUTO or device_id is not ANY_DEVICE or current().backend == "triton":
            library = placed(library, args, backend, device_id)
        if library.differentiates:
            return hooks_of(library.name).call(fold, library, args, out, ranges)
        return fold(library, args, out, None if ranges is None else checked_ranges(ranges))
    except BAILED_OUT:
        found = completed(fold, args, name)
        if found is None:
            raise
    return call_fold(*found, name, backend, device_id, ranges, out)


Genred._compute = staticmethod(call_fold)  # pyright: ignore[reportPrivateUsage]


def _library(args: Sequence[object], fold: FormulaReduction, name: str | None) -> ArrayLibrary:
    for library in LIBRARIES:
        if name in (None, library.name) and args and library.owns(args[0]):
            return library
    return library_of(args, fold.names, name)


def _rebuild(kind: type[Genred], options: dict[str, Any]) -> Genred:
    return kind(**options)


# What other programs call reductions.
_SYNONYMS = {
    "average": "Mean",
    "avg": "Mean",
    "product": "Prod",
    "lse": "LogSumExp",
    "minimum": "Min",
    "maximum": "Max",
    "nearest": "ArgKMin",
    "knn": "ArgKMin",
    "topk": "ArgKMin",
    "attention": "SumSoftMaxWeight",
}


def listed_aliases(aliases: Sequence[str]) -> list[str]:
    """Aliases as a list of its own; what is in it is checked where it is read.

    Raises:
        FormulaError: one string, or what is no list.
    """
    if isinstance(aliases, (str, bytes)):
        parse_aliases(aliases)  # refuses, with the list that was meant
    found: list[str] | None = attempted(list, aliases, None)
    if found is None:
        raise FormulaError(
            "aliases must be a list of strings",
            found=kind_name(aliases),
            hint="['x = Vi(3)', 'y = Vj(3)']",
        )
    return found


def is_given(option: object) -> bool:
    """Whether an option that may be None, "" or 0 is something; arrays and the like are."""
    return attempted(bool, option, True)


def check_axis(axis: object) -> None:
    """Raise unless an axis is one of pairs.

    Raises:
        OptionError: another value than 0 or 1.
    """
    if isinstance(axis, bool) or not attempted((0, 1).__contains__, axis, False):
        raise OptionError(
            "axis must be 0 (reduce over i) or 1 (reduce over j)",
            found=f"axis={axis!r}",
            hint="axis=1 for one result per row of i, axis=0 for one per row of j",
        )


def checked_reduction(name: str) -> tuple[str, Reduction]:
    """The row of a reduction by a name that users know."""
    known = [row.name for row in REDUCTIONS.values() if not row.internal] + list(ALIASES)
    if not isinstance(name, str) or name not in known:
        other = _SYNONYMS.get(str(name).lower())
        raise OptionError(
            f"there is no reduction called {name!r}",
            hint=f"did you mean {other}?"
            if other
            else closest(str(name), known) or f"available: {', '.join(sorted(known))}",
        )
    name = ALIASES.get(name, name)
    return name, REDUCTIONS[name]


def checked_length(row: Reduction, opt_arg: SupportsIndex | None) -> int:
    """The K of a list; 0 for other reductions."""
    if not row.top_k:
        if is_given(opt_arg):
            raise OptionError(
                f"{row.name} takes no opt_arg",
                found=f"opt_arg={opt_arg!r}",
                hint="KMin, ArgKMin and KMin_ArgKMin take one: how many to keep",
            )
        return 0
    length = 0
    if opt_arg is not None and not isinstance(opt_arg, bool):
        length = attempted(operator.index, opt_arg, 0)
    if length < 1:
        raise OptionError(
            f"{row.name} needs opt_arg, how many to keep: a whole number from 1",
            found=f"opt_arg={opt_arg!r}",
            hint="opt_arg=10",
        )
    return length


def checked_weight(row: Reduction, formula2: object) -> None:
    """Raise where a weight is missing or not wanted.

    Raises:
        OptionError: naming the reduction.
    """
    if row.weighted == "must" and not is_given(formula2):
        raise OptionError(
            f"{row.name} needs formula2, the weight",
            found=f"formula2={formula2!r}",
            hint='formula2="b", a formula of the same aliases',
        )
    if row.weighted == "no" and is_given(formula2):
        raise OptionError(
            f"{row.name} takes no formula2",
            found=f"formula2={formula2!r}",
            hint=f'the product in the formula: "({formula2})*..."' if row.additive else None,
        )


def checked_accuracy(
    row: Reduction,
    dtype_acc: str = "auto",
    use_double_acc: bool = False,
    sum_scheme: str = "auto",
    method: str = "exact",
    rtol: float | None = None,
    masked: bool = False,
) -> Accuracy:
    """How sums are accumulated, and to which error; `masked`: whether pairs are left out.

    Raises:
        OptionError: an unknown value, or one that the reduction cannot have.
    """
    check_option("dtype_acc", dtype_acc, ACCUMULATORS)
    check_option("sum_scheme", sum_scheme, SCHEMES)
    use_double_acc = is_given(use_double_acc)
    if not row.additive and sum_scheme in ("block_sum", "kahan_scheme"):
        raise OptionError(
            f"{row.name} adds nothing up, so it has no sum_scheme",
            found=f"sum_scheme={sum_scheme!r}",
            hint="'auto'",
        )
    if not row.additive and (use_double_acc or dtype_acc != "auto"):
        raise OptionError(
            f"{row.name} adds nothing up, so its accumulators cannot be chosen",
            found="use_double_acc=True" if use_double_acc else f"dtype_acc={dtype_acc!r}",
            hint="dtype_acc='auto'",
        )
    if use_double_acc:
        if dtype_acc != "auto":
            raise OptionError(
                "give either dtype_acc or use_double_acc",
                found=f"dtype_acc={dtype_acc!r} and use_double_acc=True",
                hint="dtype_acc='float64', which is the same as use_double_acc=True",
            )
        dtype_acc = "float64"
    return Accuracy(dtype_acc, sum_scheme, _checked_rtol(row, method, rtol, masked), method)


def _checked_rtol(row: Reduction, method: str, rtol: float | None, masked: bool) -> float | None:
    """The relative error that sums may have; None where all pairs are met."""
    check_option("method", method, METHODS)
    if method == "exact":
        if rtol is not None and not may_leave_out(row):
            raise OptionError(
                "rtol is an error of sums",
                found=f"rtol={rtol!r} of {row.name}",
                hint="Sum, Mean, LogSumExp, SumSoftMaxWeight, or no rtol",
            )
        return None if rtol is None else _part(rtol)
    if row.name != "Sum":
        raise OptionError(
            "a treecode is a sum", found=f"method='treecode' of {row.name}", hint="method='exact'"
        )
    if masked:
        raise OptionError(
            "a treecode is of all pairs",
            found="method='treecode' and where=",
            hint="method='exact'; where the formula is 0, pairs need no mask",
        )
    return _part(DEFAULT_RTOL if rtol is None else rtol)


def _part(given: float) -> float:
    """A number between 0 and 1."""
    found = 0.0 if isinstance(given, bool) else attempted(float, given, 0.0)
    if not 0 < found < 1:
        raise OptionError(
            "rtol is a number between 0 and 1", found=f"rtol={given!r}", hint="rtol=1e-5"
        )
    return found
