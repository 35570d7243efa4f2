"""A kernel as a Triton program: readable, complete, one function (two where the axis is split)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ...lower.accumulators import Accumulator
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Argument, Kernel
from ...lower.pattern import ROW_BLOCK_WORDS
from ...lower.tiling import Tiling
from .folding import Folding, Foldings, Instance, MaxShifted, TopK, merge_functions
from .matrix import Matrix
from .results import Results
from .text import Text
from .values import LETTERS, Values

_HEADER = "import triton\nimport triton.language as tl\n\n\n"
_LONGEST = 48
# Numbers that are not compiled in, whatever their values: a new size never recompiles.
SIZES = ("M", "N", "first_task", "row_blocks", "splits", "per_split")


@dataclass(frozen=True)
class Source:
    """A printed program: its text, the names of its functions and of their arguments.

    `centres`: positions of row arguments whose mean it reads, as `centre0` and so on. `entries`:
    numbers per row that a part of the reduced axis leaves; `cells`: numbers of scratch
    memory that one program uses; `checked`: whether it may bail out.
    """

    text: str
    name: str
    arguments: tuple[str, ...]
    combine_arguments: tuple[str, ...]
    entries: int
    cells: int
    checked: bool
    centres: tuple[int, ...] = ()


def title(kernel: Kernel) -> str:
    """A name for a kernel, from its reductions and formulas.

    Equal names are told apart by a few digits that depend on the whole formula.
    """
    words = str(kernel)
    plain = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower()
    mark = hashlib.sha256(f"{words} {kernel.kept}".encode()).hexdigest()[:6]
    return f"{plain[:_LONGEST].strip('_')}_{mark}"


def source(kernel: Kernel, tiling: Tiling, guarded: bool = False) -> Source:
    """The program of a kernel.

    `guarded`: it works only where the word at `flag` is set, because another program refused its
    data; all others may set it.
    """
    return _Program(kernel, tiling, guarded).printed()


class _Program:
    def __init__(self, kernel: Kernel, tiling: Tiling, guarded: bool) -> None:
        self.kernel, self.tiling, self.guarded = kernel, tiling, guarded
        self.name = title(kernel)
        self.checked = not guarded and _may_bail_out(kernel, tiling)
        self.start(Text())

    def start(self, text: Text) -> None:
        """Print into a new text."""
        self.text, self.after_where = text, 0
        self.values = Values(text, self.kernel, self.tiling)
        self.values.checks = self.checked
        self.results = Results(text, self.kernel, self.tiling)
        forms: dict[type[Folding], list[Accumulator]] = {}
        for each in self.kernel.accumulators:
            forms.setdefault(self._form(each), []).append(each)
        # What needs no memory nor branches comes first.
        ordered = [form for form in (Folding, Matrix, MaxShifted, TopK) if form in forms]
        self.foldings = Foldings([self._folding(form, forms[form]) for form in ordered])

    def _form(self, accumulator: Accumulator) -> type[Folding]:
        if self.tiling.product is not None:
            return Matrix
        return {"max-shifted": MaxShifted, "top-k": TopK, "running": Folding}[accumulator.rule.form]

    def _folding(self, form: type[Folding], accumulators: list[Accumulator]) -> Folding:
        owner = self.kernel.owner
        instances = [each for each in self._instances() if owner(each.place) in accumulators]
        return form(self.values, accumulators, instances)

    def _instances(self) -> list[Instance]:
        """The components that one program folds."""
        loop = self.kernel.output_loop
        if self.tiling.product is not None and loop is not None:
            return [Instance(0, 0, "component", {loop.index: "readable"})]
        if loop is None:
            return [
                Instance(n, n, str(n - each.first))
                for each in self.kernel.accumulators
                for n in each.numbers
            ]
        return [
            Instance(n, 0, f"component{n}", {loop.index: f"read{n}"})
            for n in range(self.tiling.group)
        ]

    # ---- arguments -------------------------------------------------------------------------

    def pointers(self) -> list[str]:
        """Results, then arguments, each with its strides, in elements; then those of columns."""
        names: list[str] = []
        for n in range(len(self.kernel.results)):
            names += [f"o{n}", f"o{n}_r", f"o{n}_c"]
        for argument in self.kernel.arguments:
            name = f"{LETTERS[argument.stage]}{argument.position}"
            names += [name, f"{name}_r", f"{name}_c"]
        for argument in self._of_pairs():
            names.append(f"{LETTERS[PAIR]}{argument.position}_j")
        return names

    def _of_pairs(self) -> list[Argument]:
        """The arguments that every pair has: they have a stride of columns, too."""
        return [argument for argument in self.kernel.arguments if argument.stage == PAIR]

    def arguments(self) -> list[str]:
        """All arguments of the program."""
        names = [*self.pointers(), *SIZES]
        names += ["offsets"] * self.tiling.batched
        names += ["table", "intervals"] * self.tiling.sparse
        names += ["partial"] * self.tiling.split
        names += ["flag"] * (self.checked or self.guarded)
        return names

    def _signature(self, name: str, arguments: list[str]) -> str:
        constants = ["ROWS", "COLUMNS", "CHUNK", "PLACES"]
        listed = ", ".join([*arguments, *(f"{c}: tl.constexpr" for c in constants)])
        return f"@triton.jit(do_not_specialize={list(SIZES)})\ndef {name}({listed}):\n"

    # ---- the program -----------------------------------------------------------------------

    def printed(self) -> Source:
        """Text and what its caller must know."""
        texts = [f'"""{self._says()}"""\n\n{_HEADER.rstrip()}\n']
        texts += merge_functions(self.kernel, self.tiling)
        self._main()
        centres, cells = tuple(self.values.centres), [self.values.cells]
        arguments = [self._function(self.name, [f"centre{n}" for n in centres], texts)]
        if self.tiling.split:
            self.start(Text())
            self._combine()
            cells.append(self.values.cells)
            arguments.append(self._function(f"{self.name}_combine", [], texts))
        text = "\n\n".join(texts).replace("CELLS", str(max(cells)))
        entries = self.foldings.entry_count()
        return Source(
            text, self.name, arguments[0], arguments[-1], entries, max(cells), self.checked, centres
        )

    def _function(self, name: str, more: list[str], texts: list[str]) -> tuple[str, ...]:
        """Add a function with all that was printed; its arguments."""
        arguments = [*self.arguments(), *more]
        if self.values.cells:  # this program's tables
            arguments.append("scratch")
            self.text.lines[self.after_where : self.after_where] = [
                "    program = tl.program_id(0) + tl.num_programs(0) * tl.program_id(1)",
                "    scratch_at = scratch + tl.cast(program, tl.int64) * CELLS",
            ]
        texts.append(self._signature(name, arguments) + self.text.whole())
        return tuple(arguments)

    def _says(self) -> str:
        kernel = self.kernel
        kept = "i" if kernel.kept.name == "I" else "j"
        parts = ", ".join(_says(each) for each in kernel.accumulators)
        says = f"{parts}; rows are {kept}."
        return says.replace("\\", "") + (
            f"\n\n{self.tiling.name}, {self.tiling.stored or self.tiling.dtype}.\n"
        )

    def _where(self, parts: bool = True) -> None:
        """Which rows, columns and components this program has, and which part of the columns."""
        line, tiling = self.text.line, self.tiling
        line("task = first_task + tl.cast(tl.program_id(0), tl.int64)")
        line("row_block = task % row_blocks")
        line("rest_of_task = task // row_blocks")
        if parts:
            line("split = rest_of_task % splits")
            line("batch = rest_of_task // splits")
        else:
            line("batch = rest_of_task")
        line("own_lanes = tl.arange(0, ROWS)[:, None]")
        line("lanes = tl.arange(0, COLUMNS)[None, :]")
        wanted = ""
        if self.guarded:
            line("wanted = tl.load(flag)")
            wanted = " * wanted"
        if tiling.sparse:
            line(f"first_row = tl.load(table + row_block * {ROW_BLOCK_WORDS})")
            line(f"here_rows = tl.load(table + row_block * {ROW_BLOCK_WORDS} + 1)")
            line("r = first_row + own_lanes")
            line(f"own = own_lanes < here_rows{wanted}")
            line(f"seen = tl.load(table + row_block * {ROW_BLOCK_WORDS} + 4)")
        else:
            line("r = row_block * ROWS + own_lanes")
            line(f"own = r < M{wanted}")
            line("seen = N")
        line(f"count = tl.cast(seen, tl.{tiling.accumulation.outer})")
        if self.checked:
            line("refused = tl.full((), 0, tl.int32)")
            line("refused_columns = tl.full((1, COLUMNS), 0, tl.int32)")
        self._components()
        self._bases()

    def _components(self) -> None:
        loop = self.kernel.output_loop
        if loop is None:
            return
        group, line = self.tiling.group, self.text.line
        if self.tiling.product is not None:
            line(f"component = tl.program_id(1) * {group} + tl.arange(0, {group})[None, :]")
            line(f"readable = tl.minimum(component, {loop.n - 1})")
            return
        for n in range(group):
            line(f"component{n} = tl.program_id(1) * {group} + {n}")
            line(f"read{n} = tl.minimum(component{n}, {loop.n - 1})")

    def _bases(self) -> None:
        """Where this batch element's arrays begin, and the rows that are read."""
        line = self.text.line
        names = [name for name in self.pointers() if "_" not in name]
        for n, name in enumerate(names):
            start = f" + tl.load(offsets + batch * {len(names)} + {n})"
            base = name + start * self.tiling.batched
            kind = name[0]
            line(f"{name}_c = tl.cast({name}_c, tl.int64)")
            if kind == "o" or kind == LETTERS[ROW]:
                line(f"{name}_at = {base} + r * {name}_r")
            elif kind == LETTERS[ONCE]:
                line(f"{name}_at = {base}")
            elif kind == LETTERS[PAIR]:
                line(f"{name}_of = {base} + r * {name}_r")
            else:
                line(f"{name}_of = {base}")

    def _main(self) -> None:
        text, line = self.text, self.text.line
        self._where()
        self.after_where = len(self.text.lines)
        self.values.before()
        self.foldings.begin()
        if self.tiling.sparse:
            line(f"first_interval = tl.load(table + row_block * {ROW_BLOCK_WORDS} + 2)")
            line(f"after_intervals = tl.load(table + row_block * {ROW_BLOCK_WORDS} + 3)")
            if self.guarded:
                line("after_intervals = tl.where(wanted > 0, after_intervals, first_interval)")
            with text.block("for interval in range(first_interval, after_intervals):"):
                line("low = tl.load(intervals + 2 * interval)")
                line("high = tl.load(intervals + 2 * interval + 1)")
                self._columns()
        else:
            line("low = split * per_split")
            line("high = tl.minimum(low + per_split, N)")
            if self.guarded:
                line("high = tl.where(wanted > 0, high, low)")
            self._columns()
        if self.tiling.split:
            line(f"left = {self._task_of('split')}")
            self.foldings.leave()
        else:
            self.foldings.write(self.results)
        if self.checked:
            line("refused = tl.maximum(refused, tl.max(tl.ravel(refused_columns)))")
            with text.block("if refused > 0:"):
                line("tl.store(flag, 1)")

    def _columns(self) -> None:
        """The columns low to high, chunk after chunk."""
        text, line = self.text, self.text.line
        with text.block("for start in range(low, high, CHUNK):"):
            line("stop = tl.minimum(start + CHUNK, high)")
            line("whole = stop - (stop - start) % COLUMNS")
            self.foldings.reset()
            cells = self.values.cells
            with text.block("for block in range(start, whole, COLUMNS):"):
                self._block()
            self.values.cells = cells  # the tail uses the same memory
            with text.block("for block in range(whole, stop, COLUMNS):"):
                line("inside = tl.cast(block, tl.int64) + lanes < stop")
                self.values.mask = ", mask=inside, other=0.0"
                self._block()
                self.values.mask = ""
            self.foldings.flush()

    def _block(self) -> None:
        line = self.text.line
        line("c = tl.cast(block, tl.int64) + lanes")
        others = [each for each in self.kernel.accumulators if not each.rule.top_k]
        if any("index" in each.rule.kinds for each in others):
            line("here = tl.cast(c - start, tl.int32)")
        for argument in self.kernel.arguments:
            if argument.stage == COLUMN:
                name = f"{LETTERS[COLUMN]}{argument.position}"
                line(f"{name}_at = {name}_of + c * {name}_r")
        for argument in self._of_pairs():
            name = f"{LETTERS[PAIR]}{argument.position}"
            line(f"{name}_at = {name}_of + c * {name}_j")
        known = dict(self.values.prelude)
        self.values.count(known)
        self.foldings.fold(known)

    # ---- what comes out ----------------------------------------------------------------------

    def _task_of(self, split: str) -> str:
        """Where the entries of a split begin."""
        number = f"((batch * splits + {split}) * row_blocks + row_block)"
        if self.kernel.output_loop is not None:
            number = f"({number} * tl.num_programs(1) + tl.program_id(1))"
        return f"partial + {number} * {self.foldings.entry_count()} * ROWS"

    def _combine(self) -> None:
        """The second pass: what the parts left, in order."""
        line = self.text.line
        self._where(parts=False)
        self.after_where = len(self.text.lines)
        self.foldings.begin()
        with self.text.block("for part in range(0, splits):"):
            line(f"left = {self._task_of('part')}")
            self.foldings.join_parts()
        self.foldings.write(self.results)
        if self.checked:
            line("refused = tl.maximum(refused, tl.max(tl.ravel(refused_columns)))")
            with self.text.block("if refused > 0:"):
                line("tl.store(flag, 1)")


def _says(accumulator: Accumulator) -> str:
    folded = accumulator.folded
    weight = "" if folded.weight is None else f", weight {folded.weight}"
    where = "" if folded.where is None else f", where {folded.where}"
    return f"{folded.rule.name} of {folded.formula}{weight}{where}"


def _may_bail_out(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether a kernel makes assumptions on its data."""
    rearranged = bool(kernel.guarded) or bool(kernel.scalars.inverses)
    multiplied = kernel.keep is not None and tiling.product is not None
    return rearranged or multiplied or any(factor is not None for factor in kernel.factors)
