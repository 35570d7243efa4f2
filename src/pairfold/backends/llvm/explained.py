"""Explanations of machine code: stages, loop nest, cost, and the code on request."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.dtypes import DTYPES
from ...core.scalars import STAGES
from ...lower.cost import Estimate, registers
from ...lower.kernel import COLUMN, ONCE, PAIR, ROW, Kernel
from ...lower.pattern import sparse_partition
from ...lower.schedule import Plan, frontier
from ...settings import Settings
from ..shown import Explained, Subject, flops, operations, states
from .launch import Launcher

if TYPE_CHECKING:
    from .native import Native

_TAKEN_IN = {
    "running": "pair values; accumulate in registers",
    "max-shifted": "terms e^(F - maximum); accumulate in registers",
    "top-k": "pair values; compared with the last of the list, inserted where smaller",
}


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Explained):
    """How one reduction is computed by machine code; print it, or read its fields.

    `stages` says what is computed how often, `plan` how the loops are cut. `flops_per_pair` counts
    arithmetic as written (an exponential is one); `bytes_per_pair` is memory traffic from beyond
    the L1 cache; `registers` estimates the vectors alive in the inner loop; `estimates` are the
    plans that the settings leave open, with cycles per pair on one thread, the chosen one first
    (settings such as `lanes` and `row_vectors` force any). `llvm()`, `assembly()` and
    `inner_loop()` give the code.
    """

    stages: dict[str, list[str]]
    plan: Plan
    tasks: int
    splits: int
    pairs: int
    flops_per_pair: float
    bytes_per_pair: float
    registers: int
    estimates: tuple[Estimate, ...]
    native: Native
    shared: int
    across: int
    forms: tuple[str, ...]

    @property
    def sparse(self) -> bool:
        """Whether there are ranges."""
        return self.subject.pattern is not None

    @property
    def _cost(self) -> str:
        """The dtype, and cycles."""
        return f" {self.plan.dtype}, about {self.estimates[0].cycles:.3g} cycles per pair"

    def llvm(self) -> str:
        """The LLVM IR, after optimisation."""
        return self.native.llvm()

    def assembly(self) -> str:
        """The machine code as assembly text."""
        return self.native.assembly()

    def inner_loop(self) -> list[str]:
        """The instructions of the innermost loop over pairs."""
        return innermost_loop(self.assembly())

    def instructions_per_vector(self) -> float:
        """Instructions of the innermost loop per vector of pairs (component loops: per pass)."""
        return len(self.inner_loop()) / (self.plan.vectors * self.plan.jam)

    def _section(self) -> list[str]:
        """Stages, the loop nest, what a pair costs, the plans that were compared."""
        p = self.plan
        lines = ["", "stages"]
        for stage, values in self.stages.items():
            lines.append(f"  {stage:<7}{', '.join(values) or '-'}")
        lines += ["", f"loops for {self.rows} rows x {self.columns} columns, {p.dtype}{self._cut}"]
        lines += [f"  {line}" for line in self._nest()]
        lines += [
            "",
            states(p.accumulation, "block"),
            f"per pair   {self.flops_per_pair:g} operations, {self.bytes_per_pair:.3g} bytes",
            f"registers  about {self.registers} of {p.machine.registers} vectors",
            f"machine    {p.machine.cpu}, {8 * p.machine.vector_bytes}-bit vectors",
            f"compiled   in {1e3 * self.native.seconds:.1f} ms",
            "",
            "estimated cycles per pair, on one thread",
        ]
        return lines + [f"  {e.name:<34} {e}" for e in self.estimates]

    @property
    def _cut(self) -> str:
        return f"; the average block of {self.pairs} pairs in ranges" if self.sparse else ""

    def _nest(self) -> list[str]:
        p = self.plan
        lines = [
            f"for task in {self.tasks} tasks ({self.splits} splits of the columns):  # threads"
        ]
        lines.append(f"  for block of {p.block} columns:  # packed, column values computed")
        if p.lanes == "row":
            lines.append(f"    for tile of {p.lane_count} rows ({p.vectors} vectors of {p.width}):")
            jam = f", {p.jam} at a time" if p.jam > 1 else ""
            columns = f"      for column in block{jam}:  # row values in lanes"
        else:
            lines.append("    for row in row block:")
            columns = f"      for {p.lane_count} columns in block:  # column values in lanes"
        if p.screen is not None:
            lines.append("      bounds of all pairs; of columns that they rule out, nothing more")
        if "max-shifted" in self.forms:
            lines += [columns, "        exponents, into a buffer in L1"]
            lines.append("      their largest moves the maximum up, if it is larger")
        lines.append(columns)
        if self.shared:
            lines.append("        pair values that all components share, into a buffer in L1")
            lines.append(f"      for {p.output_jam} components of {self.dim}:")
            lines.append("        for column in block: accumulate in registers")
        else:
            lines += [f"        {_TAKEN_IN[form]}" for form in self.forms]
        if self.across:
            lines.append(f"        {self.across} values for columns: into their states, in memory")
        if self.forms != ("top-k",):
            lines.append("      add the block to the row's state")
        return lines


def explain(subject: Subject, launcher: Launcher, options: Settings) -> Explanation:
    """How machine code does it; it is compiled."""
    kernel, pattern, dtype = launcher.kernel, subject.pattern, launcher.stored
    rows, columns, batches = subject.rows, subject.columns, subject.batches
    estimates = launcher.alternatives(*subject.sizes, options)
    plan = estimates[0].plan
    if pattern is None:
        parts = launcher.parts(plan, max(1, rows), max(1, columns), batches, options)
    else:
        parts = sparse_partition(plan, pattern, rows, batches)
    reread = kernel.stages[COLUMN].raw_size * DTYPES[dtype].bytes / parts.rows_per_task
    of_pairs = (a for a in kernel.arguments if a.stage == PAIR)
    reread += sum(1 if a.truth else a.dim * DTYPES[dtype].bytes for a in of_pairs)
    return Explanation(
        subject,
        stages=_stages(kernel, subject),
        plan=plan,
        tasks=parts.tasks,
        splits=parts.splits,
        pairs=batches * (rows * columns if pattern is None else pattern.pairs),
        flops_per_pair=flops(kernel),
        bytes_per_pair=reread,
        registers=registers(kernel, plan),
        estimates=tuple(estimates),
        native=launcher.native(plan),
        shared=0 if kernel.fused else len(frontier(kernel)),
        across=kernel.across,
        forms=tuple(dict.fromkeys(each.rule.form for each in kernel.accumulators)),
    )


def _stages(kernel: Kernel, subject: Subject) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for stage in (ONCE, ROW, COLUMN):
        names = _arguments(kernel, subject, stage)
        counted = Counter(value.what for value in kernel.stages[stage].computed)
        names += [f"{what} x{count}" for what, count in counted.items()]
        found[STAGES[stage]] = names
    found["pair"] = _arguments(kernel, subject, PAIR)
    found["pair"] += [f"{what} x{count}" for what, count in operations(kernel).items()]
    if kernel.output_loop is not None:
        found["shared"] = [value.what for value in frontier(kernel)]
    found["leaves"] = (
        [f"{len(kernel.factors) - kernel.factors.count(None)} factors leave the sum"]
        if any(factor is not None for factor in kernel.factors)
        else []
    )
    return found


def _arguments(kernel: Kernel, subject: Subject, stage: int) -> list[str]:
    """The arguments that a stage reads, and their components."""
    return [
        f"{subject.names.get(a.position, f'#{a.position}')}[{a.dim}]"
        for a in kernel.arguments
        if a.stage == stage
    ]


# Comments begin with one of these; on AArch64 "#12" is a number.
_COMMENT = re.compile(r"(//|;|#(?![-\d])).*")
_JUMP = re.compile(r"(?:j\w+|b\.\w+|cbn?z|tbn?z)\s(?:.*[\s,])?([\w.$]+)")
# Additions and multiplications of vectors: of x86, of AArch64.
_ARITHMETIC = re.compile(
    r"v?(fn?m(add|sub)|mul|add|sub)\w*p[sd]\s|f(ml[as]|mul|add|sub)(\.\d[sd])?\s+v\d"
)


def innermost_loop(assembly: str) -> list[str]:
    """The instructions of the loop body without inner jumps that has the most vector arithmetic.

    Reads assembly of x86 and AArch64 as LLVM writes it for any system: a block of the function
    `tile` that ends in a conditional jump to its own label.
    """
    best: list[str] = []
    most = 0
    label, body = "", list[str]()
    inside = ""
    for line in assembly.splitlines():
        code = _COMMENT.sub("", line).strip()
        if re.match(r"^[\w.$]+:", code):
            label, body = code.split(":")[0], []
            if not label.startswith((".", "LBB")):
                inside = label.lstrip("_")
            continue
        if not code or code.startswith("."):
            continue
        body.append(code)
        jump = _JUMP.fullmatch(code)
        if jump and jump.group(1) == label and inside == "tile":
            weight = sum(1 for instruction in body if _ARITHMETIC.match(instruction))
            if weight > most:
                best, most = list(body), weight
    return best
