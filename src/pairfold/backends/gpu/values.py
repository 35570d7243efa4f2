"""Scalar values as lines of Triton.

A value of the pair stage is a tile (ROWS, COLUMNS); of the row stage a column of numbers (ROWS, 1),
of the column stage a row of them (1, COLUMNS), and what is computed once is a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence

from ...core.numbers import to_float
from ...core.primitives import MOST_WHOLE, PRIMITIVES
from ...core.scalars import Index, Loop, Value, reachable_through
from ...errors import InternalError
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.products import Scalar, scalar_product, squared_distance
from ...lower.tiling import Tiling, power_of_two_above
from ..functions import approximations
from ..functions.numerics import LOG2E
from .text import Printed, Text

Known = dict[Value, str]

SHAPES = {ONCE: "()", ROW: "(ROWS, 1)", COLUMN: "(1, COLUMNS)", PAIR: "(ROWS, COLUMNS)"}
LETTERS = {ONCE: "p", ROW: "x", COLUMN: "y", PAIR: "z"}
_ROUNDED = {"add", "sub", "apart", "mul", "div", "sqrt", "result", "memory"}
_OPERATORS = {
    "add": "+", "sub": "-", "apart": "-", "mul": "*", "lt": "<", "le": "<=", "eq": "==", "ne": "!=",
}  # fmt: skip
_MASKS = {"both": "&", "either": "|"}
# The numbers of the rows and columns of a tile.
_NUMBERS = {"row_number": "r", "column_number": "c"}
_JUMPS = {"floor", "lt", "le", "eq", "ne"}
# Exponents that e^x e^y may be computed from instead of e^(x+y), far from the dtype's range.
_SAFE_EXPONENT = {"float32": 16, "float64": 128}
# Components that the tiles of a scalar product hold at a time.
_WIDTH = 16
# Turns of a component loop from which on four are written out together.
_LONG = 16
# Distances are taken from products where they are at least this share of the norms.
_FAR = 0.125
_INVERSES = 2.0**24


class Values:
    """Prints scalar values of one kernel.

    `mask` names what a tail of columns may read, `counted` which pairs of a block count, "" where
    all do.
    """

    def __init__(self, text: Text, kernel: Kernel, tiling: Tiling) -> None:
        self.text, self.kernel, self.tiling = text, kernel, tiling
        self.simd = Printed(text, tiling.dtype)
        self.stages = {argument.position: argument.stage for argument in kernel.arguments}
        self.truths = {a.position for a in kernel.arguments if a.truth}
        self.dims = {argument.position: argument.dim for argument in kernel.arguments}
        self.mask = self.counted = ""
        self.prelude: Known = {}
        self.checks = False
        # Rules of reductions are printed without approximations of any kind.
        self.plain = False
        self.cells = 0
        self.centres: list[int] = []
        self._norms: dict[Value, str] = {}
        self._exponents: dict[Value, tuple[Value, str]] = {}
        self._jumps = tiling.relaxed and any(v.what in _JUMPS for v in self._all())
        self.half = tiling.stored != tiling.dtype

    def _all(self) -> list[Value]:
        kernel = self.kernel
        factors = [factor for factor in kernel.factors if factor is not None]
        targets = (*kernel.pair_values, *factors)
        return reachable_through(targets, lambda value: value.args)

    # ---- what pairs read that does not change with columns -----------------------------

    def before(self) -> None:
        """Print everything that depends on rows or parameters alone."""
        targets = [
            value
            for value in self._all()
            if not value.stage & COLUMN
            and not value.loops
            and not value.running
            and value.kind in ("real", "mask", "table")
        ]
        self.emit(targets, self.prelude)
        for value in self._all():
            if value.what == "exp" and value.stage == PAIR:
                self._scale(value)
            if self.by_tiles(value) and squared_distance(value):
                self._norms[value] = self._own_norms(value)

    def _scale(self, exponential: Value) -> None:
        """Where exponents are a product of a pair and a row: the row's factor, times log2(e)."""
        exponent = exponential.args[0]
        negative = exponent.what == "neg"
        product = exponent.args[0] if negative else exponent
        if product.what != "mul" or not self._is_relaxed(exponential):
            return
        for factor, other in (product.args, product.args[::-1]):
            if factor in self.prelude and other.stage == PAIR:
                scale = self.simd.constant(-LOG2E if negative else LOG2E)
                self._exponents[exponential] = (
                    other,
                    self.text.let(f"{self.prelude[factor]} * {scale}"),
                )
                return

    def count(self, known: Known) -> None:
        """Find which pairs of a block count: of columns that there are, where a mask holds."""
        keep = self.kernel.keep
        self.counted = "inside" if self.mask else ""
        if keep is not None:
            (holds,) = self.emit([keep], known)
            self.counted = self.text.let(f"{holds} & inside") if self.mask else holds

    # ---- values ------------------------------------------------------------------------

    def emit(
        self, targets: Iterable[Value], known: Known, inside: frozenset[Loop] = frozenset()
    ) -> list[str]:
        """Print the targets, and what they need; their names."""
        wanted = list(targets)

        def below(value: Value) -> Sequence[Value]:
            return () if value in known else self._below(value)

        for value in reachable_through(wanted, below):
            if value not in known and value.loops <= inside:
                self._emit_one(value, known, inside)
        return [known[target] for target in wanted]

    def _below(self, value: Value) -> Sequence[Value]:
        """What a value is printed from."""
        if value in self._exponents:
            return (self._exponents[value][0],)
        return () if self.by_tiles(value) else value.args

    def by_tiles(self, value: Value) -> Scalar | None:
        """The scalar product or squared distance that is computed by products of tiles."""
        small = min(self.tiling.rows, self.tiling.columns) < 16
        if value.what != "result" or small or self.tiling.dtype != "float32":
            return None
        return scalar_product(value) or squared_distance(value)

    def _emit_one(self, value: Value, known: Known, inside: frozenset[Loop]) -> None:
        if value.what == "result":
            if not self.by_tiles(value):
                self._loop(value, known, inside)
            elif scalar_product(value):
                known[value] = self._products(value)[0]
            else:
                known[value] = self._distance(value, known, inside)
        elif value.what == "table":
            self._table(value, known, inside)
        else:
            known[value] = self._value(value, known)

    def _value(self, value: Value, known: Known) -> str:
        what, s = value.what, self.simd
        if what == "const":
            # The extremes of the finite numbers are those of the data, also in wider states.
            data = value.number
            return s.constant(to_float(data, self.tiling.dtype) if isinstance(data, str) else data)
        if what == "load":
            position, k = value.loaded
            return self.load(position, k if k is not None else known[value.args[0]])
        args = [known[arg] for arg in value.args if arg in known]
        if what == "exp":
            return self._exponential(value, known)
        if what in _NUMBERS:
            return self.text.let(f"tl.broadcast_to({_NUMBERS[what]}, (ROWS, COLUMNS))")
        if what == "whole":
            return self.text.let(f"tl.full((), {value.integer}, tl.int64)")
        if what == "real":
            return s.cast(args[0])
        if what in PRIMITIVES:
            return self._primitive(value, args)
        if what == "entry":
            where = self._cell(value.args[0], args[0], value.integer if len(args) == 1 else args[1])
            return self.text.let(f"tl.load({where})")
        if what == "position":
            return s.cast(args[0])
        if what == "index_below":
            return self.text.let(f"{args[0]} < {value.integer}")
        if value.kind == "index":
            right = args[1] if len(args) > 1 else value.integer
            return self._index(what, args[0], right)
        raise InternalError(f"no Triton for {value}")

    def _index(self, what: str, x: str, y: int | str) -> str:
        operators = {
            "index_add": "+", "index_sub": "-", "index_mul": "*", "index_floordiv": "//",
            "index_mod": "%",
        }  # fmt: skip
        if what in operators:
            return self.text.let(f"{x} {operators[what]} {y}", "k")
        return self.text.let(f"tl.{what.removeprefix('index_')}imum({x}, {y})", "k")

    def load(self, position: int, k: Index | str) -> str:
        """Component k of an argument, as a number to compute with."""
        stage = self.stages[position]
        name = f"{LETTERS[stage]}{position}"
        inside = " & inside" if self.mask else ""
        own = f", mask=own{inside if stage == PAIR else ''}, other=0.0"
        mask = {ONCE: "", ROW: own, COLUMN: self.mask, PAIR: own}[stage]
        shift = "" if k == 0 else f" + {k} * {name}_c"
        read = f"tl.load({name}_at{shift}{mask})"
        return self.text.let(
            f"tl.cast({read}, {self.simd.triton})"
            if self.half or position in self.truths
            else read,
            f"{name}_",
        )

    # ---- functions -----------------------------------------------------------------------

    def _is_relaxed(self, exponential: Value) -> bool:
        """Whether an exponential may add to the rounding error that its argument has already."""
        argument = exponential.args[0]
        while argument.what in ("neg", "entry", "table"):
            argument = argument.args[0]
        single = self.simd.dtype == "float32" and self.tiling.relaxed and not self.plain
        return single and argument.what in _ROUNDED

    def _exponential(self, value: Value, known: Known) -> str:
        """e^x; half of a separated exponential refuses an x that is out of its safe range."""
        if value in self.kernel.guarded:
            limit = self.simd.constant(_SAFE_EXPONENT[self.simd.dtype])
            size = self.simd.abs(known[value.args[0]])
            self.bail_out(f"({size} <= {limit}) == 0", value.stage)
        if not self._is_relaxed(value):
            return approximations.FUNCTIONS["exp"](self.simd, known[value.args[0]])
        if value in self._exponents:
            other, scale = self._exponents[value]
            return self.power_of_two(f"{known[other]} * {scale}")
        argument, sign = value.args[0], 1
        while argument.what == "neg" and argument.args[0] in known:
            argument, sign = argument.args[0], -sign
        return self.power_of_two(f"{known[argument]} * {self.simd.constant(sign * LOG2E)}")

    def power_of_two(self, exponent: str) -> str:
        """2^x by the GPU's instruction: 2 ulp, subnormal results are zero."""
        return self.text.let(f"tl.exp2({exponent})")

    def bail_out(self, condition: str, stage: int) -> None:
        """Note that the assumptions of this kernel do not hold, so that another one is used."""
        if not self.checks:
            return
        if stage == COLUMN:
            inside = " & inside" if self.mask else ""
            self.text.line(f"refused_columns |= tl.cast(({condition}){inside}, tl.int32)")
            return
        found = f"tl.cast(({condition}) & own, tl.int32)"
        self.text.line(f"refused = tl.maximum(refused, tl.max(tl.ravel({found})))")

    def _whole_of(self, x: str) -> str:
        """A number rounded down, kept within the limits; 0 for NaN."""
        limit = f"{float(MOST_WHOLE)}"
        found = self.text.let(f"tl.floor(tl.where({x} == {x}, {x}, 0))")
        found = self.text.let(f"tl.minimum(tl.maximum({found}, -{limit}), {limit})")
        return self.text.let(f"tl.cast({found}, tl.int64)")

    def _primitive(self, value: Value, args: Sequence[str]) -> str:
        if value.what == "whole_of":
            return self._whole_of(args[0])
        what, s = value.what.removeprefix("whole_"), self.simd
        if value.what != what and what in ("neg", "abs"):
            opposite = f"0 - {args[0]}"
            return self.text.let(
                opposite if what == "neg" else f"tl.maximum({args[0]}, {opposite})"
            )
        if what in _OPERATORS:
            return self.text.let(f"{args[0]} {_OPERATORS[what]} {args[1]}")
        if what in _MASKS:
            return self.text.let(f"{args[0]} {_MASKS[what]} {args[1]}")
        if what == "select":
            return s.select(*args)
        single = s.dtype == "float32"
        fast = single and self.tiling.relaxed and value.stage == PAIR
        fast = fast and not self._jumps and not self.plain
        if what == "div":
            found = self.text.let(f"{args[0]} / {args[1]}") if fast else s.div(*args)
            if value in self.kernel.scalars.inverses:
                self._check_inverse(value, found, args[1])
            return found
        if what == "sqrt" and fast:
            return self.text.let(f"tl.sqrt({args[0]})")
        if what == "rsqrt" and single:
            return self.text.let(f"tl.rsqrt({args[0]})")
        spelling = PRIMITIVES[what].llvm
        written = approximations.FUNCTIONS.get(spelling)
        if written is not None:
            return written(s, *args)
        return getattr(s, spelling)(*args)

    def _check_inverse(self, value: Value, inverse: str, divisor: str) -> None:
        """z/c is finite where 1/c may not be."""
        limit = self.simd.constant(_INVERSES)
        sizes = [self.simd.abs(inverse), self.simd.abs(divisor)]
        self.bail_out(" | ".join(f"(({size} <= {limit}) == 0)" for size in sizes), value.stage)

    # ---- component loops -----------------------------------------------------------------

    def _loop(self, result: Value, known: Known, inside: frozenset[Loop], most: int = 4) -> None:
        loop = result.loop
        # What the body needs but does not vary in it is computed before it.
        self.emit(loop.inits, known, inside)
        self.shared(loop.nexts, known, inside)
        names = [self.text.name("s") for _ in loop.inits]
        for name, init in zip(names, loop.inits, strict=True):
            self.text.line(f"{name} = {self._shaped(known[init], result.stage)}")
        index = self.text.name("k")
        turns = most if loop.n >= _LONG else 1
        with self.text.block(f"for {index} in tl.range(0, {loop.n}, loop_unroll_factor={turns}):"):
            local = {**known, loop.index: index}
            local.update(zip(loop.carries, names, strict=True))
            nexts = self.emit(loop.nexts, local, inside | {loop})
            if len(names) > 1:
                nexts = [self.text.let(name) for name in nexts]
            for name, after, value in zip(names, nexts, loop.nexts, strict=True):
                same = value.stage == result.stage
                self.text.line(f"{name} = {after if same else self._shaped(after, result.stage)}")
        known.update(zip(loop.results, names, strict=True))

    def shared(self, targets: Sequence[Value], known: Known, inside: frozenset[Loop]) -> None:
        """What the targets need and no loop beyond those around changes."""

        def below(value: Value) -> Sequence[Value]:
            return () if value in known else self._below(value)

        for value in reachable_through(targets, below):
            if value not in known and value.loops <= inside:
                self._emit_one(value, known, inside)

    def _shaped(self, name: str, stage: int) -> str:
        return f"tl.broadcast_to({name}, {SHAPES[stage]})" if stage != ONCE else name

    # ---- tables --------------------------------------------------------------------------

    def _table(self, table: Value, known: Known, inside: frozenset[Loop]) -> None:
        """The components into memory, in order; what is known of a table is its place."""
        loop = table.loop
        memory, value = loop.carries[0], loop.nexts[0]
        self.shared([value], known, inside)
        place = f"scratch_at + {self.cells}"
        rows, columns = self.tiling.rows, self.tiling.columns
        size = {ONCE: 1, ROW: rows, COLUMN: columns, PAIR: rows * columns}[table.stage]
        self.cells += loop.n * size
        known[table] = self.text.let(place, "t")
        index = self.text.name("k")
        self.text.line("tl.debug_barrier()")  # others may still read what was here
        with self.text.block(f"for {index} in range(0, {loop.n}):"):
            local = {**known, loop.index: index, memory: known[table]}
            (found,) = self.emit([value], local, inside | {loop})
            where = self._cell(table, known[table], index)
            self.text.line(f"tl.store({where}, {self._shaped(found, table.stage)})")
            self.text.line("tl.debug_barrier()")

    def _cell(self, table: Value, place: str, k: int | str) -> str:
        """Where component k of a table is, for every pair, row or column."""
        lanes = {ONCE: "", ROW: "own_lanes", COLUMN: "lanes", PAIR: "own_lanes * COLUMNS + lanes"}
        size = {ONCE: "1", ROW: "ROWS", COLUMN: "COLUMNS", PAIR: "(ROWS * COLUMNS)"}[table.stage]
        own = lanes[table.stage]
        return f"{place} + {k} * {size}" + (f" + {own}" if own else "")

    # ---- products of matrices --------------------------------------------------------------

    def _products(self, value: Value) -> tuple[str, str]:
        """(scalar products, squared norms of columns), a tile of components after the other.

        The numbers of a distance are measured from a centre.
        """
        text, scalar = self.text, self.by_tiles(value)
        assert scalar is not None
        distance = value in self._norms
        total = text.let("tl.zeros((ROWS, COLUMNS), tl.float32)", "s")
        norms = text.let("tl.zeros((1, COLUMNS), tl.float32)", "s") if distance else ""
        with self._components(scalar.dim) as at:
            x = self._own_tile(scalar, at, distance)
            name = f"y{scalar.column}"
            there = f"({at}[:, None] < {scalar.dim})" + (" & inside" if self.mask else "")
            y = self._tile(f"{name}_at + {at}[:, None] * {name}_c", there)
            if distance:
                y = self._centred(y, scalar, f"{at}[:, None]", there)
                text.line(f"{norms} = {norms} + tl.sum({y} * {y}, 0, keep_dims=True)")
            text.line(f"{total} = {self.dot(x, y, total, exact=not distance)}")
        return total, norms

    @contextlib.contextmanager
    def _components(self, dim: int) -> Generator[str, None, None]:
        """A loop over tiles of components: their indices."""
        width = min(_WIDTH, max(16, power_of_two_above(dim)))
        first = self.text.name("k")
        with self.text.block(f"for {first} in range(0, {dim}, {width}):"):
            yield self.text.let(f"{first} + tl.arange(0, {width})", "k")

    def _own_tile(self, scalar: Scalar, at: str, centred: bool) -> str:
        """Components of this program's rows."""
        name, here = f"x{scalar.row}", f"own & ({at}[None, :] < {scalar.dim})"
        x = self._tile(f"{name}_at + {at}[None, :] * {name}_c", here)
        return self._centred(x, scalar, f"{at}[None, :]", here) if centred else x

    def _tile(self, where: str, mask: str) -> str:
        return self.text.let(f"tl.load({where}, mask={mask}, other=0.0)")

    def _centred(self, tile: str, scalar: Scalar, at: str, mask: str) -> str:
        """A tile measured from the centre of the rows' points; 0 where there is nothing."""
        if scalar.row not in self.centres:
            self.centres.append(scalar.row)
        centre = f"tl.load(centre{scalar.row} + {at}, mask={at} < {scalar.dim}, other=0.0)"
        return self.text.let(f"tl.where({mask}, tl.cast({tile}, tl.float32) - {centre}, 0.0)")

    def _own_norms(self, value: Value) -> str:
        """Squared norms of this program's rows, measured from the centre."""
        scalar = self.by_tiles(value)
        assert scalar is not None
        norms = self.text.let("tl.zeros((ROWS, 1), tl.float32)", "s")
        with self._components(scalar.dim) as at:
            x = self._own_tile(scalar, at, True)
            self.text.line(f"{norms} = {norms} + tl.sum({x} * {x}, 1, keep_dims=True)")
        return norms

    def _distance(self, value: Value, known: Known, inside: frozenset[Loop]) -> str:
        """|x - y|^2 as |x|^2 + |y|^2 - 2 (x|y), measured from a centre.

        Its rounding error is a few units of |x|^2 + |y|^2. Where some distance of the tile is not
        at least an eighth of that, the tile's are computed again from differences.
        """
        text = self.text
        products, others = self._products(value)
        norms = text.let(f"{self._norms[value]} + {others}", "s")
        found = text.let(f"{norms} - 2.0 * {products}", "s")
        valid = "own & inside" if self.mask else "own"
        near = text.let(f"(({found} >= {norms} * {_FAR}) == 0) & ({valid})")
        with text.block(f"if tl.max(tl.ravel(tl.cast({near}, tl.int32))) > 0:"):
            local = dict(known)
            self._loop(value, local, inside, 1)
            text.line(f"{found} = {local[value]}")
        return found

    def dot(self, x: str, y: str, total: str, exact: bool = True) -> str:
        """total + x y, as matrices; halves as they are stored are multiplied exactly."""
        how = self.tiling.dot
        if self.half and exact:
            return f"tl.dot({x}, {y}, {total})"
        if how == "bf16":
            narrow = [f"tl.cast({part}, tl.bfloat16)" for part in (x, y)]
            return f"tl.dot({', '.join(narrow)}, {total})"
        if self.half:
            y = f"tl.cast({y}, tl.float32)"
        return f'tl.dot({x}, {y}, {total}, input_precision="{how}")'
