"""What the checks of client libraries share: cases, errors, rows. See `clients.py`.

Runs in the interpreter that has the clients; knows nothing of pairfold.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

Values = Sequence[torch.Tensor]
Run = Callable[..., Any]
DTYPES = ("float64", "float32")
EPSILON = 2.0**-52


@dataclass
class Row:
    """One line of the table: what was compared with what, how often, and how far apart.

    `errors` and `dense`: dtype -> worst relative errors of values and gradients, of the client on
    pairfold, and of what it is compared with: in float32 when that runs in float32 itself, in
    float64, where `moves` is not 0, when its data move by rounding. Up to `moves` times as far is
    then allowed.
    """

    client: str
    check: str
    reference: str
    limits: dict[str, float]
    moves: int = 0
    cases: int = 0
    errors: dict[str, list[float]] = field(default_factory=dict[str, "list[float]"])
    dense: dict[str, list[float]] = field(default_factory=dict[str, "list[float]"])
    failed: list[str] = field(default_factory=list[str])

    def case(
        self, label: str, dtype: str, run: Run, truth: Run, inputs: Sequence[torch.Tensor]
    ) -> None:
        """Compare a computation of inputs with the truth: float64 on the numbers of this dtype."""
        self.cases += 1
        wanted_type = getattr(torch, dtype)
        try:
            given = [x.detach().to(wanted_type) for x in inputs]
            wide = [x.to(torch.float64) for x in given]
            want = outcome(truth, wide)
            found = distances(outcome(run, given), want)
            limits = [self.limits[dtype]] * 2
            if dtype != "float64":
                worsen(self.dense, dtype, distances(outcome(truth, given), want))
            elif self.moves:
                shifts = [[x * (1 + s * EPSILON) for x in wide] for s in (1, -2)]
                moved = [distances(outcome(truth, shifted), want) for shifted in shifts]
                for one in moved:
                    worsen(self.dense, dtype, one)
                limits = [
                    a + self.moves * max(m)
                    for a, m in zip(limits, zip(*moved, strict=True), strict=True)
                ]
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            text = str(error).partition("\n")[0][:120]
            self.failed.append(f"{label}, {dtype}: {type(error).__name__}: {text} ({where})")
            return
        worsen(self.errors, dtype, found)
        if not all(a <= b for a, b in zip(found, limits, strict=True)):
            shown = " and ".join(f"{a:.1e} of {b:.1e}" for a, b in zip(found, limits, strict=True))
            self.failed.append(f"{label}, {dtype}: {shown}")

    def cases_of(
        self,
        label: str,
        run: Run,
        truth: Run,
        inputs: Sequence[torch.Tensor],
        dtypes: Sequence[str] = DTYPES,
    ) -> None:
        """The same case in these dtypes, where they have a limit."""
        for dtype in dtypes:
            if dtype in self.limits:
                self.case(label, dtype, run, truth, inputs)


def worsen(errors: dict[str, list[float]], dtype: str, found: Sequence[float]) -> None:
    """Keep the larger errors."""
    old = errors.setdefault(dtype, [0.0, 0.0])
    errors[dtype] = [b if not b <= a else a for a, b in zip(old, found, strict=True)]


@dataclass
class Within:
    """A computation whose gradients, too, are computed with some settings."""

    run: Run
    around: Callable[[], AbstractContextManager[None]]

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The results alone."""
        return self.run(*inputs)


def outcome(run: Run, inputs: Sequence[torch.Tensor]) -> tuple[Values, Values]:
    """The results of a computation, and the gradients of their sum with fixed random weights."""
    with run.around() if isinstance(run, Within) else nullcontext():
        return differentiated(run, inputs)


def differentiated(run: Run, inputs: Sequence[torch.Tensor]) -> tuple[Values, Values]:
    """What `outcome` returns."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = run(*leaves)
    values = list(found) if isinstance(found, (tuple, list)) else [found]
    noise = torch.Generator().manual_seed(7)
    total: Any = 0.0
    for value in values:
        weights = 0.5 + torch.rand(value.shape, generator=noise, dtype=torch.float64)
        total = total + (value * weights.to(value.dtype)).sum()
    if not isinstance(total, torch.Tensor) or not total.requires_grad:
        return [v.detach() for v in values], []
    slopes = torch.autograd.grad(total, leaves, allow_unused=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, slopes, strict=True)]
    return [v.detach() for v in values], filled


def distances(got: tuple[Values, Values], want: tuple[Values, Values]) -> tuple[float, float]:
    """The worst relative errors of values and of gradients."""
    return worst(got[0], want[0]), worst(got[1], want[1])


def worst(got: Values, want: Values) -> float:
    """The largest difference of two lists of tensors, each relative to its largest number."""
    if len(got) != len(want):
        raise ValueError(f"{len(got)} tensors instead of {len(want)}")
    errors = [0.0]
    for a, b in zip(got, want, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"shape {tuple(a.shape)} instead of {tuple(b.shape)}")
        if not a.numel():
            continue
        off = (a.to(torch.float64) - b).abs().max().item()
        size = b.abs().max().item()
        errors.append(off / size if size > 0 else off)
    return math.nan if any(math.isnan(e) for e in errors) else max(errors)


def spread(number: int, *shape: int) -> torch.Tensor:
    """Random numbers between 0 and 1, the same for the same number."""
    seeded = torch.Generator().manual_seed(number)
    return torch.rand(shape, generator=seeded, dtype=torch.float64)


def emit(rows: Iterable[Row], versions: dict[str, str]) -> None:
    """Print the rows, as they come, for `clients.py` to read: JSON on lines of their own."""
    sys.stdout.write(json.dumps({"versions": versions}) + "\n")
    for row in rows:
        sys.stdout.write(json.dumps({"row": asdict(row)}) + "\n")
        sys.stdout.flush()
