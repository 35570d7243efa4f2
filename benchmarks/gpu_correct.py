"""Every reduction and its gradients on a device, against dense float64 programs on the CPU."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.case import KEPT
from benchmarks.gpu_measure import Budget, Device
from benchmarks.gpu_peers import first_line
from benchmarks.tables import table, yes

SIZE = (1000, 1037)
QUICK_SIZE = (60, 37)
BOUNDS = {"float32": (2e-5, 2e-4), "float64": (1e-12, 1e-11)}  # of results, of gradients
_APART = {"float32": 2e-5, "float64": 1e-13}  # values that are closer may change their order

_VECTOR = "Square(p*x-y)-3*x*y"
_FORMULAS = {"Prod": f"1+({_VECTOR})/300", "Any": "LessThan(x,y)", "All": "LessThan(x,y)",
             "Count": "LessThan(x,y)"}  # fmt: skip
_ALIASES = ("x = Vi(3)", "y = Vj(3)", "p = Pm(1)", "b = Vj(2)", "c = Vi(1)")
_WEIGHT = "b*c"

Tensor = Any
Dense = Callable[[Tensor, Tensor], list[Tensor]]


def _smallest(f: Tensor) -> Tensor:
    return f.topk(min(KEPT, f.shape[-2]), -2, largest=False).values


def _log(f: Tensor, g: Tensor) -> list[Tensor]:
    return [(f if g is None else f + g.log()).logsumexp(-2)]


def _shifted(f: Tensor, g: Tensor) -> list[Tensor]:
    top = f.amax(-2, keepdim=True)
    terms = (f - top).exp()
    whole = terms.sum(-2) if g is None else (terms * g).sum(-2)
    return [importlib.import_module("torch").cat([top.squeeze(-2), whole], -1)]


# The results of each reduction on the tables F (rows, columns, D) and G of all pairs; for an index,
# the value of the pair that it points at.
DENSE: dict[str, Dense] = {
    "Sum": lambda f, g: [f.sum(-2)],
    "Mean": lambda f, g: [f.mean(-2)],
    "Prod": lambda f, g: [f.prod(-2)],
    "Count": lambda f, g: [(f != 0).sum(-2)],
    "Any": lambda f, g: [(f != 0).any(-2)],
    "All": lambda f, g: [(f != 0).all(-2)],
    "Min": lambda f, g: [f.amin(-2)],
    "Max": lambda f, g: [f.amax(-2)],
    "ArgMin": lambda f, g: [f.amin(-2)],
    "ArgMax": lambda f, g: [f.amax(-2)],
    "Min_ArgMin": lambda f, g: [f.amin(-2), f.amin(-2)],
    "Max_ArgMax": lambda f, g: [f.amax(-2), f.amax(-2)],
    "KMin": lambda f, g: [_smallest(f)],
    "ArgKMin": lambda f, g: [_smallest(f)],
    "KMin_ArgKMin": lambda f, g: [_smallest(f), _smallest(f)],
    "LogSumExp": _log,
    "LogSumExpWeight": _log,
    "SumSoftMaxWeight": lambda f, g: [(f.softmax(-2) * g).sum(-2)],
    "Max_SumShiftExp": _shifted,
    "Max_SumShiftExpWeight": _shifted,
}


@dataclass(frozen=True)
class Task:
    """A reduction with or without a weight, along an axis, in a dtype."""

    name: str
    weighted: bool
    axis: int
    dtype: str

    @property
    def row(self) -> Any:
        """What the library knows about the reduction."""
        return importlib.import_module("pairfold.ops.reductions").REDUCTIONS[self.name]

    @property
    def differentiable(self) -> bool:
        """Whether it has gradients."""
        return not self.row.derivative.startswith("none")

    @property
    def says(self) -> str:
        """The reduction in a table."""
        return self.name + " of a weight" * (self.weighted and self.row.weighted == "may")


@dataclass
class Check:
    """The largest errors of a task; `failure` where it gave no results."""

    task: Task
    error: float = math.inf
    gradient: float | None = None
    failure: str = ""

    @property
    def right(self) -> bool:
        """Whether the errors are within their bounds."""
        bound, gradients = BOUNDS[self.task.dtype]
        return self.error <= bound and (self.gradient is None or self.gradient <= gradients)


def tasks() -> Iterator[Task]:
    """Every public reduction in float32 and float64, along both axes."""
    rows = importlib.import_module("pairfold.ops.reductions").REDUCTIONS.values()
    for axis, dtype in ((1, "float32"), (1, "float64"), (0, "float32"), (0, "float64")):
        for row in rows:
            if not row.internal:
                weights = {"no": (False,), "may": (False, True), "must": (True,)}[row.weighted]
                for weighted in weights:
                    yield Task(row.name, weighted, axis, dtype)


def data(torch: Any, size: tuple[int, int], dtype: str) -> dict[str, Tensor]:
    """Normal points, positive weights, on the CPU."""
    made = torch.Generator().manual_seed(0)
    rows, columns = size
    shapes = {"x": (rows, 3), "y": (columns, 3), "p": (1,), "b": (columns, 2), "c": (rows, 1)}
    kind = getattr(torch, dtype)
    found = {
        name: torch.randn(*shape, generator=made, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return {name: (t.exp() if name in "bc" else t).to(kind) for name, t in found.items()}


def formula(task: Task) -> str:
    """What is reduced: a vector, or a number where there is a weight."""
    if task.weighted or task.row.scalar:
        return f"Sum({_VECTOR})"
    return _FORMULAS.get(task.name, _VECTOR)


def pair_values(task: Task, v: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The formula and the weight for all pairs, (kept, reduced, D); no weight: None."""
    x, y, p = v["x"][:, None], v["y"][None], v["p"]
    if task.name in ("Any", "All", "Count"):
        f = (x < y).to(x.dtype)
    else:
        f = (p * x - y).square() - 3 * x * y
    if task.weighted or task.row.scalar:
        f = f.sum(-1, keepdim=True)
    elif task.name == "Prod":
        f = 1 + f / 300
    g = v["b"][None] * v["c"][:, None] if task.weighted else None
    if task.axis == 0:
        f, g = f.transpose(0, 1), None if g is None else g.transpose(0, 1)
    return f, g


def _apart(torch: Any, task: Task, f: Tensor, like: Tensor) -> Tensor:
    """1 where the selected values are far from those that come next, else 0.

    Rounding may select another pair elsewhere, whose value is as good and whose gradient is not.
    """
    row = task.row
    if not (row.selects or row.joined):
        return torch.ones_like(like)
    count = min(KEPT if row.top_k else 1, f.shape[-2])
    signed = -f if task.name.startswith("Max") else f
    near = signed.topk(min(count + 1, f.shape[-2]), -2, largest=False).values
    gaps = torch.nn.functional.pad(near.diff(dim=-2), (0, 0, 1, 1), value=math.inf)
    far = (gaps[..., :count, :] > _APART[task.dtype]) & (
        gaps[..., 1 : count + 1, :] > _APART[task.dtype]
    )
    return (far if row.top_k else far.squeeze(-2)).to(like.dtype).expand_as(like)


def relative(got: Tensor, want: Tensor) -> float:
    """max|got - want| / max|want|; infinite where that is no number."""
    got = got.detach().double().cpu().reshape(want.shape)
    found = float((got - want).abs().max() / want.abs().max().clamp_min(1e-300))
    return found if math.isfinite(found) else math.inf


class Checker:
    """Reductions on a device beside dense programs."""

    def __init__(self, device: Device, size: tuple[int, int]) -> None:
        self.device, self.torch, self.size = device, device.torch, size

    def check(self, task: Task) -> Check:
        """The errors of one task; an exception is one, too."""
        found = Check(task)
        try:
            self._check(task, found)
        except Exception as error:
            found.failure = first_line(error)
            found.error = math.inf
        finally:
            self.device.free()
        return found

    def _check(self, task: Task, found: Check) -> None:
        torch, v = self.torch, data(self.torch, self.size, task.dtype)
        ours = {n: t.clone().to(self.device.device).requires_grad_(task.differentiable)
                for n, t in v.items()}  # fmt: skip
        exact = {n: t.double().requires_grad_(task.differentiable) for n, t in v.items()}
        f, g = pair_values(task, exact)
        want = DENSE[task.name](f, g)
        got = reduced(task, ours)
        values = self._values(task, f.detach(), got)
        found.error = max(
            relative(a, b.detach().double()) for a, b in zip(values, want, strict=True)
        )
        if not task.differentiable:
            return
        made = torch.Generator().manual_seed(1)
        e = torch.randn(*want[0].shape, generator=made, dtype=torch.float64)
        e = e.to(v["x"].dtype).double() * _apart(torch, task, f.detach(), want[0])
        right = _gradients(torch, want[0], exact, e)
        theirs = _gradients(torch, got[0], ours, e.to(got[0]).reshape(got[0].shape))
        found.gradient = max(relative(theirs[n], right[n]) for n in v if right[n].abs().max() > 0)

    def _values(self, task: Task, f: Tensor, got: Sequence[Tensor]) -> list[Tensor]:
        """Results, with indices read as the values of the pairs that they point at."""
        values = []
        for result, kind in zip(got, task.row.results):
            if task.row.selects and kind.kind == "index":
                index = result.cpu().reshape(f.shape[0], -1, f.shape[-1])
                valid = (index >= 0) & (index < f.shape[1])
                at = f.gather(1, index.where(valid, 0))
                result = at.where(valid, math.nan).reshape(result.shape)
            values.append(result)
        return values


def reduced(task: Task, v: dict[str, Tensor]) -> Sequence[Tensor]:
    """The reduction by the library, as a user writes it."""
    library = importlib.import_module("pairfold.torch")
    fold = library.Genred(
        formula(task),
        list(_ALIASES),
        task.name,
        axis=task.axis,
        opt_arg=KEPT if task.row.top_k else None,
        formula2=_WEIGHT if task.weighted else None,
    )
    found = fold(*v.values())
    return found if isinstance(found, tuple) else (found,)


def _gradients(
    torch: Any, out: Tensor, v: dict[str, Tensor], upstream: Tensor
) -> dict[str, Tensor]:
    found = torch.autograd.grad(out, list(v.values()), upstream, allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(v.items(), found)}


def run(
    checker: Checker, wanted: Sequence[Task], budget: Budget, say: Callable[[str], None]
) -> tuple[list[Check], list[Task]]:
    """The checks that were done, and the tasks that were not reached."""
    done: list[Check] = []
    for number, task in enumerate(wanted):
        if not budget.allows():
            return done, list(wanted[number:])
        say(f"{task.says}, axis {task.axis}, {task.dtype}")
        done.append(checker.check(task))
    return done, []


def text(done: Sequence[Check], late: Sequence[Task], size: tuple[int, int]) -> str:
    """A table with a row per reduction, and what went wrong or was not reached."""
    runs = list(dict.fromkeys((c.task.dtype, c.task.axis) for c in done))
    rows: dict[str, dict[tuple[str, int], Check]] = {}
    for c in done:
        rows.setdefault(c.task.says, {})[c.task.dtype, c.task.axis] = c
    cells = [
        [name, *(_cell(found.get(key)) for key in runs), yes(all(c.right for c in found.values()))]
        for name, found in rows.items()
    ]
    head = ["reduction", *(f"{dtype}, axis {axis}" for dtype, axis in runs), "right?"]
    about = (
        f"M = {size[0]}, N = {size[1]}: error of the results / of the gradients for all variables, "
        "max|out - exact| / max|exact| against dense float64 programs; an index counts as the "
        "value of its pair.\n"
    )
    lines = [f"- {named(c.task)}: {c.failure}" for c in done if c.failure]
    lines += [f"- {named(task)}: not reached" for task in late]
    return "\n".join([about, table(head, cells), *lines]) + "\n"


def named(task: Task) -> str:
    """A task in a list."""
    return f"{task.says}, axis {task.axis}, {task.dtype}"


def _cell(found: Check | None) -> str:
    if found is None:
        return "-"
    if found.failure:
        return "**failed**"
    shown = f"{found.error:.1e}" + (
        f" / {found.gradient:.1e}" if found.gradient is not None else ""
    )
    return shown if found.right else f"**{shown}**"
