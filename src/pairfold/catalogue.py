"""The pages of operations and reductions, and of settings, written from their rows.

`python -m pairfold operations` and `settings` print them. Dimensions are found by trying: a row is
built on operands of many dimensions, and the first pattern that explains every answer is said.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence

from .calculus import operators as operators  # registers Grad, Diff ...
from .core.node import Axis
from .errors import DimError, Refusal
from .ops.reductions import ALIASES, GENERAL, REDUCTIONS, Reduction
from .ops.table import OPERATIONS, Op, build, variable
from .settings import describe

_TRIED = (1, 2, 3, 4, 6, 8, 9, 12, 16)
_HEAD = """# Operations and reductions

Written by `python -m pairfold operations` from the rows of the tables; do not edit.
`d`, `e`, `f` are dimensions; what has dimension 1 beside larger ones is repeated. Derivatives are
factors of the incoming gradient, in the order of the operands, unless they say otherwise.
"""
_SETTINGS = """# Settings

Written by `python -m pairfold settings` from their rows; do not edit. Settings are arguments of
`pairfold.settings(...)`, which holds from there on in its thread; of `with settings(...):`, which
holds inside; or environment variables, which are read once and hold for all threads. If none is
set, reductions run on as many threads as the process may use, or as `OMP_NUM_THREADS` says.

```python
import pairfold

with pairfold.settings(threads=1, rules="exact"):
    pass  # what is computed here
```

"""
_NOTATION = """`Genred(F, aliases, reduction_op, axis)` folds a formula F, of dimension D, over one
axis, called columns here, and keeps the other, R rows. A list has K places; G is a formula that
weighs the terms; `...` are batch axes.
"""

Answers = dict[tuple[int, ...], int]


def catalogue() -> str:
    """The page, in Markdown."""
    groups: dict[str, list[Op]] = {}
    for op in OPERATIONS.values():
        if not op.internal:
            groups.setdefault(_home(op), []).append(op)
    parts = [_HEAD]
    for module, rows in groups.items():
        parts.append(f"## {_title(module)}\n")
        head = ("operation", "dimensions", "meaning", "derivative", "conventions", "method")
        parts.append(_table(head, (_described(op) for op in rows)))
    rows = [row for row in REDUCTIONS.values() if not row.internal]
    parts += ["## Reductions\n", _general(rows)]
    head = ("`reduction_op`", "meaning", "dim F", "shape", "dtype", "derivative", "conventions")
    parts.append(_table(head, map(_reduced, rows)))
    return "\n".join(parts)


def settings_page() -> str:
    """The page of settings, in Markdown.

    >>> print(settings_page().splitlines()[0])
    # Settings
    """
    rows = [
        (f"`{name}`", f"`{variable}`", f"`{default!r}`", says)
        for name, variable, default, says in describe()
    ]
    return _SETTINGS + _table(("setting", "environment variable", "default", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def _home(op: Op) -> str:
    """The module that wrote the row."""
    written = (op.slopes, op.expand, op.value, op.pullback, op.dims)
    modules = [str(getattr(rule, "__module__", "")) for rule in written if rule is not None]
    return next((name for name in modules if not name.endswith("ops.table")), modules[-1])


def _title(module: str) -> str:
    """The first sentence of the module's docstring."""
    text = " ".join((sys.modules[module].__doc__ or module).split())
    return text.partition(". ")[0].rstrip(".")


# ----- operations --------------------------------------------------------------------------------


def _described(op: Op) -> list[str]:
    method = f"`.{op.method}`" if op.method else ""
    symbol = f" or `{op.symbol.text}`" if op.symbol else ""
    return [
        f"`{_signature(op)}`{symbol}",
        dimensions(op),
        op.says,
        op.derivative,
        op.conventions,
        method,
    ]


def _signature(op: Op) -> str:
    needed = len(op.args) - op.optional
    words = [*op.args[:needed]]
    words += [p.name if p.default is None else f"{p.name}={_default(p.default)}" for p in op.params]
    rest = "".join(f"[, {name}]" for name in op.args[needed:])
    return f"{op.name}({', '.join(words)}{rest})"


def _default(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)  # pyright: ignore


def dimensions(op: Op) -> str:
    """The dimensions of operands and result in words.

    >>> dimensions(OPERATIONS["Concat"]), dimensions(OPERATIONS["Mult"])
    ('d, e -> d + e', 'd or 1, d or 1 -> d')
    """
    params = {param.name: param.sample for param in op.params}
    answers = _answers(op, tuple(params.values()))
    numbers = {name: value for name, value in params.items() if isinstance(value, int)}
    for words, accepts in _OPERANDS.get(len(op.args), ()):
        if not answers or any(accepts(*dims) != (dims in answers) for dims in _tried(op)):
            continue
        for result, of in (*_RESULTS, *_parameter_results(numbers)):
            if all(of(*dims) == found for dims, found in answers.items()):
                return f"{words} -> {result}".removeprefix(" ")
    results = {dims: answers[dims] for dims in op.samples if dims in answers}
    shown = dict(list((results or answers).items())[:4])
    return "; ".join(
        f"{', '.join(map(str, dims)) or 'none'} -> {found}" for dims, found in shown.items()
    )


def _tried(op: Op) -> Iterable[tuple[int, ...]]:
    tried = _TRIED if len(op.args) < 4 else _TRIED[:4]
    return itertools.product(tried, repeat=len(op.args))


def _answers(op: Op, params: tuple[object, ...]) -> Answers:
    """The dimension of the result for every dimension of the operands that is not refused."""
    found: Answers = {}
    for dims in (*_tried(op), *(op.samples if op.args else ())):
        operands = [variable(place, dim, Axis.I) for place, dim in enumerate(dims)]
        try:
            found[dims] = (
                build(op, *operands, *params).dim if op.samples else op.dims(*dims, *params)
            )
        except (DimError, Refusal):
            continue
    return found


def _is_square(d: int) -> bool:
    return round(d**0.5) ** 2 == d


def _broadcast(*dims: int) -> bool:
    return all(dim in (1, max(dims)) for dim in dims)


def _complex_broadcast(d: int, e: int) -> bool:
    return d % 2 == e % 2 == 0 and (d == e or 2 in (d, e))


_OPERANDS: dict[int, tuple[tuple[str, Callable[..., bool]], ...]] = {
    0: (("", lambda: True),),
    1: (
        ("d", lambda d: True),
        ("1", lambda d: d == 1),
        ("2", lambda d: d == 2),
        ("d, even", lambda d: d % 2 == 0),
        ("d, a square", _is_square),
        ("d, a multiple of n", lambda d: d % 3 == 0),
        ("d, at least 2", lambda d: d >= 2),
        ("d, at least 3", lambda d: d >= 3),
    ),
    2: (
        ("d, e", lambda d, e: True),
        ("d or 1, d or 1", _broadcast),
        ("d, d", lambda d, e: d == e),
        ("d or 2, d or 2, even", _complex_broadcast),
        ("1, d", lambda d, e: d == 1),
        ("1 and d, even", lambda d, e: min(d, e) == 1 and max(d, e) % 2 == 0),
        ("d, e, a multiple of it", lambda d, e: e % d == 0),
        ("d, a multiple of e, and e", lambda d, e: d % e == 0),
        ("d*d, d", lambda d, e: d == e * e),
    ),
    3: (
        ("d, e, f", lambda d, e, f: True),
        ("d or 1, d or 1, d or 1", _broadcast),
        ("d, e, d", lambda d, e, f: d == f),
        ("d, e, e", lambda d, e, f: e == f),
        ("d, d, d", lambda d, e, f: d == e == f),
        ("d, e, 1", lambda d, e, f: f == 1),
        ("d, d, d or 1", lambda d, e, f: d == e and f in (1, d)),
    ),
    4: (("d, e, d or 1, e or 1", lambda d, e, f, g: f in (1, d) and g in (1, e)),),
}

_RESULTS: tuple[tuple[str, Callable[..., float]], ...] = (
    ("1", lambda *dims: 1),
    ("d", lambda *dims: max(dims, default=0)),
    ("d", lambda *dims: dims[0] if dims else 0),
    ("e", lambda *dims: dims[1] if len(dims) > 1 else 0),
    ("2*d", lambda *dims: 2 * dims[0] if dims else 0),
    ("d/2", lambda *dims: dims[0] / 2 if dims else 0),
    ("d*d", lambda *dims: dims[0] ** 2 if len(dims) == 1 else 0),
    ("root of d", lambda *dims: dims[0] ** 0.5 if dims else 0),
    ("d + e", lambda *dims: dims[0] + dims[1] if len(dims) == 2 else 0),
    ("d*e", lambda *dims: dims[0] * dims[1] if len(dims) == 2 else 0),
    ("d/e", lambda *dims: dims[0] / dims[1] if len(dims) == 2 else 0),
    ("e/d", lambda *dims: dims[1] / dims[0] if len(dims) == 2 else 0),
)


def _parameter_results(
    params: dict[str, int],
) -> Iterable[tuple[str, Callable[..., float]]]:
    """Results that a parameter has a part in."""
    for name, value in params.items():
        yield name, lambda *dims, value=value: value
        yield f"d*{name}", lambda *dims, value=value: dims[0] * value if dims else 0
        yield f"d/{name}", lambda *dims, value=value: dims[0] / value if dims else 0
    yield "2", lambda *dims: 2


# ----- reductions --------------------------------------------------------------------------------

_DTYPES = {"value": "the data's", "index": "int64", "truth": "bool"}


def called(row: Reduction) -> str:
    """The arguments of `Genred` that name the reduction and are its own.

    >>> called(REDUCTIONS["KMin"])
    '`"KMin"`, `opt_arg=K`'
    """
    names = [row.name, *(alias for alias, name in ALIASES.items() if name == row.name)]
    words = [" or ".join(f'`"{name}"`' for name in names)]
    if row.top_k:
        words.append("`opt_arg=K`")
    if row.weighted != "no":
        words.append("`formula2=G`" + " if weighted" * (row.weighted == "may"))
    return ", ".join(words)


def _scalar(row: Reduction) -> str:
    """Where F has to have dimension 1."""
    if row.scalar or row.weighted == "must":
        return "1"
    return "D; 1 if weighted" if row.weighted == "may" else "D"


def _reduced(row: Reduction) -> list[str]:
    dtypes = dict.fromkeys(_DTYPES[result.kind] for result in row.results)
    return [
        called(row),
        row.says,
        _scalar(row),
        row.shape,
        ", ".join(dtypes),
        row.derivative,
        row.conventions,
    ]


def _general(rows: Iterable[Reduction]) -> str:
    """What the table does not repeat for every row."""
    added = ", ".join(f"`{row.name}`" for row in rows if row.additive)
    lines = [*GENERAL, f"`dtype_acc`, `use_double_acc` and `sum_scheme` are for sums: {added}."]
    return _NOTATION + "\n" + "".join(f"- {line}\n" for line in lines)
