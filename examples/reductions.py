"""
Reductions other than the sum
=============================

What is nearest, what is near on average, and how far away it is: three folds of the squared
distance between places x_i of a grid and points y_j of a spiral, which carry numbers b_j.

- *the K nearest points*, by ``ArgKMin``;
- *interpolation*: a mean of the b_j with weights :math:`e^{-|x_i - y_j|^2 / s}`, by
  ``SumSoftMaxWeight``;
- *the soft minimum* of the squared distances, by ``LogSumExp``:

.. math::

    m_i = -s \\log \\sum_{j=1}^{N} e^{-|x_i - y_j|^2 / s}.

It is smooth; next to it we compute the minimum itself, by ``Min``, with its gradient, which points
away from the nearest point.

The table of all M x N distances is never stored. At the end it is, by NumPy in double precision,
and everything is computed once more.

The program exits with status 1 if the two differ by more than 1e-5.
"""

# %%
# Setup
# -----
# ``pykeops`` is provided by pairfold here. PyKeOps itself runs this program up to the gradient:
# it does not differentiate ``Min``.

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pykeops.torch import Genred
from torch.autograd import grad

options = argparse.ArgumentParser(description="Nearest points, interpolation, soft minima.")
options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
options.add_argument("--device", default="cpu", help="where the tensors live (default: cpu)")
chosen = options.parse_args()

SIDE, N, K = 80, 400, 6
like = {"dtype": getattr(torch, chosen.dtype), "device": chosen.device}
if chosen.device == "cpu" and torch.cuda.is_available():
    print("torch sees a GPU: --device cuda computes on it.")

torch.manual_seed(1)
angle = 4 * torch.pi * torch.rand(N, 1, **like).sqrt()
y = angle / 13 * torch.cat([angle.cos(), angle.sin()], 1) + 0.03 * torch.randn(N, 2, **like)
b = (angle / 2).sin()
ticks = torch.linspace(-1, 1, SIDE, **like)
x = torch.cartesian_prod(ticks, ticks)
s = torch.tensor([0.02], **like)

# %%
# Three reductions
# ----------------
# The index that disappears is j: ``axis=1``. A list is told its length by ``opt_arg``, a weighted
# reduction its weight by ``formula2``.

points = ["x = Vi(2)", "y = Vj(2)", "b = Vj(1)", "s = Pm(1)"]
nearest = Genred("SqDist(x,y)", points[:2], reduction_op="ArgKMin", axis=1, opt_arg=K)
interpolate = Genred(
    "-SqDist(x,y)/s", points, reduction_op="SumSoftMaxWeight", axis=1, formula2="b"
)
log_sum = Genred("-SqDist(x,y)/s", [points[0], points[1], "s = Pm(1)"], "LogSumExp", axis=1)
smallest = Genred("SqDist(x,y)", points[:2], reduction_op="Min", axis=1)

neighbours = nearest(y, y)
field = interpolate(x, y, b, s)
soft = -s * log_sum(x, y, s)
print(f"neighbours: {tuple(neighbours.shape)}, {neighbours.dtype}, from {N} x {N} pairs")
print(f"field: {tuple(field.shape)}, from {len(x)} x {N} pairs")

# %%
# A gradient through the minimum
# ------------------------------
# Only the selected pairs contribute to it.

x.requires_grad_()
y.requires_grad_()
hard = smallest(x, y)
to_x, to_y = grad(hard.sum(), [x, y])
x, y = x.detach(), y.detach()

# %%
# The same with all pairs in memory
# ---------------------------------
# NumPy, in double precision, from the same numbers.

X, Y, B, S = (array.cpu().double().numpy() for array in (x, y, b, s))


def distances(these, those):
    """All squared distances."""
    return ((these[:, None, :] - those[None, :, :]) ** 2).sum(-1)


table = distances(X, Y)
weights = np.exp(-table / S)
first = table.argmin(1)
dense_to_x = 2 * (X - Y[first])
dense_to_y = np.zeros_like(Y)
np.add.at(dense_to_y, first, -dense_to_x)
found = neighbours.cpu().numpy()
checks = {
    "distances of the K nearest": (
        np.take_along_axis(distances(Y, Y), found, 1),
        np.sort(distances(Y, Y), 1)[:, :K],
    ),
    "interpolation": (field.cpu().numpy(), weights @ B / weights.sum(1, keepdims=True)),
    "soft minimum": (soft.cpu().numpy(), -S * np.log(weights.sum(1, keepdims=True))),
    "minimum": (hard.detach().cpu().numpy(), table.min(1, keepdims=True)),
    "gradient to x": (to_x.cpu().numpy(), dense_to_x),
    "gradient to y": (to_y.cpu().numpy(), dense_to_y),
}
difference = 0.0
for name, (ours, dense) in checks.items():
    relative = np.abs(ours - dense).max() / np.abs(dense).max()
    print(f"{name + ':':<28}{relative:.2e}")
    difference = max(difference, relative)
print(f"max relative difference: {difference:.2e}")

# %%
# Timings
# -------
# Medians of five more runs, beside the dense table alone.


def milliseconds(routine, repeats=5):
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        routine()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[repeats // 2]


x32, y32 = x.cpu().numpy(), y.cpu().numpy()
print(f"K nearest:       {milliseconds(lambda: nearest(x, y)):8.2f} ms")
print(f"interpolation:   {milliseconds(lambda: interpolate(x, y, b, s)):8.2f} ms")
print(f"soft minimum:    {milliseconds(lambda: log_sum(x, y, s)):8.2f} ms")
print(f"the dense table: {milliseconds(lambda: distances(x32, y32)):8.2f} ms (NumPy)")
print(f"{len(x)} x {N} pairs; the table alone would take {len(x) * N * x32.itemsize / 1e6:.0f} MB")

# %%
# A picture
# ---------
# Left: every point and its nearest neighbours. Middle: the field between the points. Right: level
# lines of the soft minimum, and steps against the gradient of the minimum, half a gradient long,
# which lead to the nearest point.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    ends = np.stack([np.repeat(Y, K, 0), Y[found.ravel()]], 1)
    left.plot(*ends.transpose(2, 1, 0), color="tab:gray", linewidth=0.6)
    left.scatter(*Y.T, c=B[:, 0], s=12, zorder=2)
    left.set_title(f"{N} points and their {K - 1} nearest neighbours")
    square = (SIDE, SIDE)
    across, up = X[:, 0].reshape(square), X[:, 1].reshape(square)
    shown = middle.pcolormesh(across, up, field.cpu().numpy().reshape(square))
    middle.scatter(*Y.T, c=B[:, 0], s=12, edgecolors="white", linewidths=0.3)
    figure.colorbar(shown, ax=middle, shrink=0.8)
    middle.set_title("interpolation by soft-max weights")
    right.contour(across, up, soft.cpu().numpy().reshape(square), 20, linewidths=0.6)
    some = np.arange(SIDE**2).reshape(square)[3::7, 3::7].ravel()
    steps = -0.5 * to_x.cpu().numpy()[some]
    right.quiver(*X[some].T, *steps.T, angles="xy", scale_units="xy", scale=1, width=0.003)
    right.scatter(*Y.T, s=4, color="tab:red")
    right.set_title("soft minimum; steps to the nearest point")
    for axis in (left, middle, right):
        axis.set_aspect("equal")
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(place, dpi=120)
        print(f"no window can be shown here; the figure is {place.name}, beside this program")
    else:
        plt.show()

if not difference < 1e-5:
    sys.exit("the reductions differ from the dense table")
