"""Faults planted into a copy of the tree, one at a time: the tests that run by default notice each.

python tests/planted.py            all of them, a minute each at most
python tests/planted.py topk ties  those whose name contains a word

A fault is one line of one file, changed so that the program still runs. The tests named with it are
those that someone would look at; the first failure is enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/pairfold")


@dataclass(frozen=True)
class Fault:
    """`old` stands once in the file; `tests` are names of files without test_ and .py."""

    name: str
    path: str
    old: str
    new: str
    tests: str


FAULTS = [
    Fault(
        "ties of merged extremes",
        "ops/reductions.py",
        "s.both(s.eq(b[0], a[0]), s.lt(b[1], a[1]))",
        "s.both(s.eq(b[0], a[0]), s.lt(a[1], b[1]))",
        "reductions partial",
    ),
    Fault(
        "ties of merged lists",
        "ops/reductions.py",
        "s.both(s.eq(a[0], b[0]), s.lt(a[1], b[1]))",
        "s.both(s.eq(a[0], b[0]), s.lt(b[1], a[1]))",
        "reductions",
    ),
    Fault(
        "gradient of a soft-max misses the mean",
        "ops/reductions.py",
        'OPERATIONS["Scalprod"](g - _where_some(whole, out), sent)',
        'OPERATIONS["Scalprod"](g, sent)',
        "reductions_torch",
    ),
    Fault(
        "product of two zeros",
        "ops/reductions.py",
        "both, nothing = rest * (others - f)",
        "both, nothing = rest * others",
        "reductions_torch differentiation",
    ),
    Fault(
        "sign of a slope",
        "ops/functions.py",
        "return [x / length, -(y / length)]",
        "return [x / length, y / length]",
        "derivatives",
    ),
    Fault(
        "a gradient that comes twice",
        "calculus/derive.py",
        "part if known is None else sum_of_gradients(known, part)",
        "part",
        "derivatives",
    ),
    Fault(
        "a rule that hides NaN",
        "ops/elementwise.py",
        'Rule("x - x -> 0", lambda x, y: zero(x.dim) if x is y else None, "domain")',
        'Rule("x - x -> 0", lambda x, y: zero(x.dim) if x is y else None)',
        "rules",
    ),
    Fault(
        "sign of a factor that leaves a sum",
        "lower/factors.py",
        "outside.append(s.constant(-1))",
        "outside.append(s.constant(1))",
        "rows backends",
    ),
    Fault(
        "columns of a split",
        "lower/schedule.py",
        "splits = max(1, -(-columns // per_split))",
        "splits = max(1, columns // per_split)",
        "reductions backends",
    ),
    Fault(
        "rows of a row block of ranges",
        "lower/pattern.py",
        "found[:, 1] = np.minimum(most, found[:, 1] - number * most)",
        "found[:, 1] = np.minimum(most, found[:, 1])",
        "ranges",
    ),
    Fault(
        "rounding error of a sum",
        "backends/llvm/states.py",
        "lost = simd.add(simd.sub(a[0], simd.sub(high, back)), simd.sub(b[0], back))",
        "lost = simd.add(simd.sub(a[0], simd.sub(high, back)), simd.sub(back, b[0]))",
        "reductions",
    ),
    Fault(
        "lanes of a list that are joined",
        "backends/llvm/topk.py",
        "n < shift for n in range(self.plan.width)",
        "n <= shift for n in range(self.plan.width)",
        "reductions",
    ),
    Fault(
        "a factor that is not finite",
        "backends/llvm/outputs.py",
        "code.bail_out(self.args, simd.isnan(simd.sub(found, found)))",
        "code.bail_out(self.args, simd.isnan(found))",
        "backends exponents",
    ),
    Fault(
        "maxima that several share move twice",
        "backends/llvm/shifted.py",
        "if not self.code.row_major and not self.accumulator.shares:",
        "if not self.code.row_major:",
        "accumulators",
    ),
    Fault(
        "maxima of a program for GPUs move without all of their sums",
        "backends/gpu/folding.py",
        "place, top, measured[top], instance.inside",
        "place, top, states, instance.inside",
        "accumulators",
    ),
    Fault(
        "gradients of several results read those of others",
        "frontends/derivatives.py",
        "found += own if number in numbers and part.saves else []",
        "found += own if part.saves else []",
        "together",
    ),
    Fault(
        "reductions of other sizes in the pass of all",
        "frontends/passes.py",
        "found.add(number)",
        "found.discard(number)",
        "together",
    ),
    Fault(
        "lanes beyond the last row of a fused pass",
        "backends/llvm/fused.py",
        "states[n] = b.select(mask, after, states[n])",
        "states[n] = after",
        "fused",
    ),
    Fault(
        "the last bit of ln 2",
        "backends/functions/numerics.py",
        "LN2 = ",
        "LN2 = (1 + Fraction(1, 2**45)) * ",
        "approximations functions",
    ),
    Fault(
        "columns after the last of a tile on a GPU",
        "backends/gpu/source.py",
        'line("inside = tl.cast(block, tl.int64) + lanes < stop")',
        'line("inside = tl.cast(block, tl.int64) + lanes <= stop")',
        "gpu_reductions",
    ),
    Fault(
        "the smallest of a list on a GPU",
        "backends/gpu/folding.py",
        'value = text.let(f"tl.min(l{n}, 1, keep_dims=True)")',
        'value = text.let(f"tl.max(l{n}, 1, keep_dims=True)")',
        "gpu_reductions",
    ),
    Fault(
        "offsets of batch elements on a GPU",
        "backends/gpu/source.py",
        'batch * {len(names)} + {n})"',
        'batch * {len(names)} + {max(n - 1, 0)})"',
        "gpu_reductions",
    ),
    Fault(
        "the last part of a split axis on a GPU",
        "backends/gpu/source.py",
        "for part in range(0, splits):",
        "for part in range(0, splits - 1):",
        "gpu_reductions",
    ),
    Fault(
        "columns of a lane are counted in a chunk",
        "backends/gpu/source.py",
        'line("here = tl.cast(c - start, tl.int32)")',
        'line("here = tl.cast(c - low, tl.int32)")',
        "gpu_reductions",
    ),
    Fault(
        "what totals round off on a GPU",
        "backends/gpu/folding.py",
        "({total} - ({after} - {other})) + ({state} - {other})",
        "({total} - ({after} - {other})) - ({state} - {other})",
        "gpu_reductions",
    ),
    Fault(
        "distances of near points on a GPU",
        "backends/gpu/values.py",
        "_FAR = 0.125",
        "_FAR = -1.0",
        "gpu_formulas",
    ),
    Fault(
        "columns of slabs are counted",
        "frontends/slabs.py",
        "found = partial(fold, library, tensors, part.start)",
        "found = partial(fold, library, tensors, 0)",
        "gpu_slabs",
    ),
    Fault(
        "rows that ranges leave out",
        "frontends/ranges.py",
        "mine = [np.clip(blocks, start, stop) - start, ends, intervals]",
        "mine = [np.clip(blocks, start, stop), ends, intervals]",
        "gpu_slabs",
    ),
    Fault(
        "columns of a part are numbered",
        "ops/states.py",
        "library.where(empty, state, state + float(start))",
        "library.where(empty, state, state + 0.0)",
        "partial gpu_slabs",
    ),
    Fault(
        "maxima of parts",
        "ops/states.py",
        "ours, theirs = (library.exp(part[count] - top) for part in (a, b))",
        "ours, theirs = (library.exp(top - part[count]) for part in (a, b))",
        "partial",
    ),
    Fault(
        "what least recently used means",
        "core/cache.py",
        "found.sort(key=lambda each: each[0])",
        "found.sort(key=lambda each: -each[0])",
        "cache",
    ),
    Fault(
        "batch axes that are repeated",
        "arrays/checks.py",
        "0 if size == 1 else stride",
        "stride",
        "batches reductions",
    ),
    Fault(
        "states of the second of several reductions",
        "lower/kernel.py",
        "first, result = found[-1].stop, result + len(folded.rule.results)",
        "first, result = found[-1].stop, result + 1",
        "accumulators",
    ),
    Fault(
        "columns beyond the last in lanes",
        "backends/llvm/states.py",
        "current[n * vectors + r] = block.only_counted(after, before, at, instance, local)",
        "current[n * vectors + r] = after",
        "backends reductions",
    ),
    Fault(
        "numbers that exponents are made of are checked",
        "backends/llvm/copying.py",
        "lane.next = [simd.mask_or(lane.values[0], excessive(simd, value))]",
        "lane.next = [excessive(simd, value)]",
        "bounds exponents",
    ),
    Fault(
        "corrections of compensated sums of no columns",
        "backends/llvm/empty.py",
        "yield Fill((step * n + 1) * row, row, 0)",
        "yield Fill(step * n * row, row, 0)",
        "parts reductions",
    ),
    Fault(
        "a parameter is no whole vector of rows",
        "backends/llvm/copying.py",
        "even = b.or_(b.sub(whole, i64(1)), i64(own.format.width - 1))",
        "even = b.sub(whole, i64(1))",
        "parts",
    ),
    Fault(
        "where the slots of an argument begin",
        "backends/llvm/packing.py",
        "found += [word, place, argument.dim, held.raw[argument.position] * spacing]",
        "found += [word, place, argument.dim, 0]",
        "genred reductions",
    ),
    Fault(
        "precedence in a formula",
        "ops/elementwise.py",
        'symbol=Symbol("-", 30),',
        'symbol=Symbol("-", 40),',
        "parse",
    ),
    Fault(
        "sides of products in programs that are traced",
        "frontends/records.py",
        "reflected[operator.matmul] = Tensor.__rmatmul__",
        "reflected[operator.matmul] = Tensor.__matmul__",
        "compile_lazy",
    ),
    Fault(
        "calls of a record that are taken for one",
        "frontends/records.py",
        "calls.setdefault(json.dumps(moved), len(calls))",
        "calls.setdefault(json.dumps(moved[:1]), len(calls))",
        "compile_lazy",
    ),
    Fault(
        "a rotation that turns the wrong way",
        "frontends/minres.py",
        "above = sine * self.middle + older * cosine * self.length",
        "above = sine * self.middle - older * cosine * self.length",
        "minres",
    ),
    Fault(
        "numbers without axes that keep their dtype",
        "frontends/lazy.py",
        "weak or dtype",
        "dtype",
        "promotion",
    ),
    Fault(
        "the side that a soft-max is on",
        "frontends/softmax.py",
        'reflected = (name == "matmul") != (args[0] is found)',
        'reflected = (name == "matmul") == (args[0] is found)',
        "summaries",
    ),
    Fault(
        "the correction of a variance",
        "frontends/summaries.py",
        "less = ddof if correction is None else correction",
        "less = ddof",
        "summaries",
    ),
    Fault(
        "pairs outside of ranges in a table",
        "frontends/tables.py",
        "found = _within(found, ranges.table(rows, columns))",
        "found = _within(found, ranges.table(rows, columns)) if False else found",
        "lazytensor_tables",
    ),
    Fault(
        "the adjoint of a product of operators",
        "frontends/linearoperators.py",
        "return (self.T @ v.swapaxes(-1, -2)).swapaxes(-1, -2)",
        "return (self @ v.swapaxes(-1, -2)).swapaxes(-1, -2)",
        "linearoperators",
    ),
    Fault(
        "which rows of an array of pairs a tile reads",
        "backends/llvm/tasks.py",
        "packed = (b.add(first, done), here), (base, columns)",
        "packed = (first, here), (base, columns)",
        "pair_operands",
    ),
    Fault(
        "an array of pairs where columns are kept",
        "arrays/checks.py",
        "return (*strides[-3::2], strides[-2]) if kept == Axis.I else (*strides[-2:], strides[-3])",
        "return (*strides[-3::2], strides[-2])",
        "pair_operands",
    ),
    Fault(
        "gradients to an array of pairs that batch elements share",
        "frontends/everypair.py",
        "if math.prod(batches[position]) != 1 or math.prod(batch) == 1:",
        "if math.prod(batch) == 1:",
        "pair_operands",
    ),
    Fault(
        "groups of blocks where some truth values hold are said to be whole",
        "lower/blocks.py",
        "all_true = _grouped(np.bitwise_and, all_true, height, axis)",
        "all_true = _grouped(np.bitwise_or, all_true, height, axis)",
        "truth_masks",
    ),
    Fault(
        "truth values that come first are to say the dtype of results",
        "frontends/leaves.py",
        "key=lambda leaf: leaf.truth",
        "key=lambda leaf: False",
        "truth_masks",
    ),
    Fault(
        "labels: a block has two parts for one run of rows",
        "lower/labels.py",
        "runs = _within_blocks(pieces, grid)",
        "runs = pieces",
        "labels",
    ),
    Fault(
        "labels: blocks under a mask begin where its columns do",
        "backends/llvm/tasks.py",
        "b.sub(start, b.srem(start, block)) if self.parts.mask else start",
        "start",
        "labels",
    ),
    Fault(
        "labels: changes are looked for in the first component alone",
        "backends/llvm/masked_launch.py",
        "return [view[:, k] for k in range(argument.dim)]",
        "return [view[:, 0]]",
        "labels",
    ),
    Fault(
        "labels: the largest of a block is compared with the largest",
        "backends/llvm/apart.py",
        "simd.compare(_COMPARED[test.what], x.low, y.high)",
        "simd.compare(_COMPARED[test.what], x.high, y.high)",
        "apart",
    ),
    Fault(
        "labels: of two tests of which one has to hold, one is known to fail",
        "backends/llvm/apart.py",
        'if not parts or (mask.what == "either" and len(parts) < len(found)):',
        "if not parts:",
        "apart",
    ),
    Fault(
        "a mask that may hold is said to hold everywhere",
        "lower/blocks.py",
        "(found.possible & found.certain)",
        "found.possible",
        "blocks",
    ),
    Fault(
        "blocks with other answers are joined",
        "lower/blocks.py",
        "| (word[1:] != word[:-1])",
        "| (word[1:] < 0)",
        "blocks",
    ),
    Fault(
        "tested blocks of a mask are not tested",
        "backends/llvm/tasks.py",
        '((TESTED, "tile"), (WHOLE_BLOCK, "tile_whole"))',
        '((TESTED, "tile_whole"), (WHOLE_BLOCK, "tile_whole"))',
        "blocks",
    ),
    Fault(
        "the last column of a tested block is left out",
        "backends/llvm/masks.py",
        "stop = b.select(met, b.add(column, i64(block.step())), stop)",
        "stop = b.select(met, column, stop)",
        "blocks",
    ),
    Fault(
        "numbers of rows in the second vector of lanes",
        "backends/llvm/block.py",
        "shift = i64(instance[1] * self.code.plan.width)\n        first =",
        "shift = i64(0)\n        first =",
        "blocks masks",
    ),
    Fault(
        "a bound of a sum from its wrong end",
        "lower/boxes.py",
        "t.rounded(a.low + b.low, a.high + b.high)",
        "t.rounded(a.low + b.high, a.high + b.high)",
        "pruning",
    ),
    Fault(
        "a bound without its rounding",
        "lower/boxes.py",
        "lower = low - (s.abs(low) * slack + tiny)",
        "lower = low + (s.abs(low) * slack + tiny) * 64",
        "pruning",
    ),
    Fault(
        "ties of lists in another order than that of columns",
        "backends/llvm/topk.py",
        'closer = "<=" if self.plan.pruned else "<"',
        'closer = "<"',
        "pruning",
    ),
    Fault(
        "the last block bounds what it cannot fill",
        "backends/llvm/pruning.py",
        "simd.select(there, high, simd.constant(math.inf))",
        "high",
        "pruning",
    ),
    Fault(
        "a last group of blocks that lacks columns, among those near a tile",
        "backends/llvm/pruning.py",
        'whole = b.sub(near, b.zext(b.icmp_signed("<", memory.full, memory.boxes), I64))',
        "whole = near",
        "pruning",
    ),
    Fault(
        "boxes of near groups beside those of others",
        "backends/llvm/pruning.py",
        "(flow.times(b.add(start, each), item) for each in (number, count))",
        "(flow.times(b.add(start, each), item) for each in (count, count))",
        "pruning",
    ),
    Fault(
        "row blocks between those that were tried",
        "backends/llvm/boxed.py",
        "between = b.add(b.add(which, b.sdiv(which, b.neg(each))), i64(1))",
        "between = b.add(b.add(which, b.sdiv(which, b.neg(each))), i64(2))",
        "pruning",
    ),
    Fault(
        "sums leave out what is not a number",
        "backends/llvm/boxed.py",
        "float(end) if selects else math.nan",
        "float(end)",
        "certified",
    ),
    Fault(
        "an error for each pair, not for all",
        "backends/llvm/pruned_launch.py",
        "share = self.launcher.rtol / self.columns",
        "share = self.launcher.rtol",
        "certified",
    ),
    Fault(
        "terms of both signs taken for terms of one",
        "backends/llvm/certified.py",
        "sign = b.select(some_below, sign, i64(_POSITIVE))",
        "sign = i64(_POSITIVE)",
        "certified",
    ),
    Fault(
        "columns of a block out of order",
        "backends/llvm/pruned_launch.py",
        "own = sorted_in_blocks(order, block)",
        "own = order",
        "pruning",
    ),
    Fault(
        "pairs under a mask are taken for all pairs",
        "backends/llvm/pruning.py",
        "> self.plan.block or self.kernel.keep is not None:",
        "> self.plan.block:",
        "pruning",
    ),
    Fault(
        "a number of a row below one that is not whole",
        "core/wholes.py",
        'limit = above if first == (name == "lt") else below',
        "limit = below",
        "blocks",
    ),
    Fault(
        "a soft-max of which nothing is left",
        "ops/reductions.py",
        "return s.select(s.eq(ends.total, 0), 0, ends.state[0] / ends.total)",
        "return ends.state[0] / ends.total",
        "masks",
    ),
    Fault(
        "gradients of pairs that are absent",
        "frontends/reduction.py",
        "given = (self.names, self.accuracy, weight, length, self.asked, self.where)",
        "given = (self.names, self.accuracy, weight, length, self.asked, None)",
        "masks",
    ),
    Fault(
        "moments of halves at the middle of the whole",
        "frontends/proxies.py",
        "scale[..., None] * grid + shift[..., None]",
        "scale[..., None] * grid",
        "farfield",
    ),
    Fault(
        "far boxes measured from the far side of rows",
        "frontends/meeting.py",
        "np.abs(own[nodes, k] - centers[rows, k]) - halves[rows, k]",
        "np.abs(own[nodes, k] - centers[rows, k]) + halves[rows, k]",
        "farfield",
    ),
    Fault(
        "rows of a treecode in the order of its tree",
        "frontends/farfield.py",
        "result[found.far.order] = rows",
        "result[:] = rows",
        "farfield",
    ),
    Fault(
        "proxies of any error",
        "frontends/farplan.py",
        "if error <= MARGIN * rtol:",
        "if error <= 1:",
        "farfield",
    ),
    Fault(
        "gradients of treecodes with the wrong positions",
        "frontends/farfield.py",
        "if kept == self.kept else (columns, rows)",
        "if kept == self.kept else (rows, columns)",
        "farfield",
    ),
    Fault(
        "equal products are counted once",
        "calculus/separable.py",
        "coefficient=before.coefficient + p.coefficient",
        "coefficient=p.coefficient",
        "separable",
    ),
    Fault(
        "products that cancel leave no trace",
        "calculus/separable.py",
        "size = before.magnitude + p.magnitude",
        "size = abs(before.coefficient + p.coefficient)",
        "separable",
    ),
    Fault(
        "an exponential of a product is taken apart",
        "calculus/separable.py",
        "if p.row and p.column:",
        "if p.row and p.column and len(p.row) > 1:",
        "separable",
    ),
    Fault(
        "lost digits are not noticed",
        "frontends/separated.py",
        "found[..., dim:] == dim",
        "found[..., dim:] >= 0",
        "separable",
    ),
    Fault(
        "sums of signed terms hide what they cancel",
        "frontends/separated.py",
        "return [_joined(library, sums), _joined(library, sizes)]",
        "return [_joined(library, sums), abs(_joined(library, sums))]",
        "separable",
    ),
    Fault(
        "data are not centred",
        "frontends/separated.py",
        "moved.update((node, node - centres[-1]) for node in group)",
        "moved.update((node, node) for node in group)",
        "separable",
    ),
    Fault(
        "rows over pairs stand in other rows",
        "frontends/separated.py",
        "lost.append(start + np.flatnonzero(~good))",
        "lost.append(np.flatnonzero(~good))",
        "separable",
    ),
    Fault(
        "moments of the last columns alone",
        "frontends/separated.py",
        "total = [a + b for a, b in zip(total, some, strict=True)] if total else some",
        "total = some",
        "separable",
    ),
    Fault(
        "sums without pairs where results are to be exact",
        "frontends/separated.py",
        '(("separable", "never"), ("rules", "exact"))',
        '(("separable", "never"),)',
        "separable",
    ),
    Fault(
        "blocks past the last one have answers",
        "lower/blocks.py",
        "self._answers(below, rows, columns) * there",
        "self._answers(below, rows, columns)",
        "blocks",
    ),
    Fault(
        "an array of pairs with one column is that of columns",
        "frontends/spread.py",
        "(False, True): Axis.I,",
        "(False, True): Axis.J,",
        "pair_broadcast",
    ),
    Fault(
        "a reduction whose arrays of pairs broadcast keeps its old mask",
        "frontends/spread.py",
        "for root in (fold.formula, fold.weight, fold.where)",
        "for root in (fold.formula, fold.weight, None)",
        "pair_broadcast",
    ),
]


def planted(copy: Path, fault: Fault) -> str:
    """What the tests say of a fault, in a copy of the tree that is mended afterwards."""
    path = copy / PACKAGE / fault.path
    text = path.read_text()
    if text.count(fault.old) != 1:
        return f"the line stands {text.count(fault.old)} times"
    path.write_text(text.replace(fault.old, fault.new))
    tests = [f"tests/test_{name}.py" for name in fault.tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy / "src")},
            capture_output=True,
            text=True,
        )
    finally:
        path.write_text(text)
    if done.returncode == 0:
        return "NOT NOTICED"
    if done.returncode < 0:
        return f"the tests die of signal {-done.returncode}"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].removeprefix("FAILED tests/")[:90] if failed else "an error"


def main(words: list[str]) -> int:
    """Plant the faults; the number of those that nothing noticed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".hypothesis", "build")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for fault in FAULTS:
            if words and not any(word in fault.name for word in words):
                continue
            start = time.perf_counter()
            found = planted(copy, fault)
            missed += found.startswith(("NOT", "the line"))
            print(f"{time.perf_counter() - start:5.0f} s  {fault.name}: {found}", flush=True)
    print(f"{missed} not noticed")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
