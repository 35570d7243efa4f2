"""
Sum reduction
=============

A sum over all pairs (i, j), and its gradient, from a formula given as a string.

For points x_i and y_j in space, numbers a_j and one number p we compute, for every i,

.. math::

    c_i = \\sum_{j=1}^{N} (p - a_j)^2 \\exp(x_i + y_j),

where the exponential acts on each of the three coordinates, so every c_i has three of them too.
The table of all M x N terms is never stored. Then we ask torch for the gradient with respect
to y, and compare it with the same gradient computed by plain torch on the whole table.

The program exits with status 1 if the two differ by more than 1e-5.
"""

# %%
# Setup
# -----
# ``pykeops`` is provided by pairfold here: the program is written for PyKeOps and runs unchanged.

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from pykeops.torch import Genred
from torch.autograd import grad

options = argparse.ArgumentParser(description="A sum over all pairs, and its gradient.")
options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
options.add_argument("--device", default="cpu", help="where the tensors live (default: cpu)")
chosen = options.parse_args()

M, N = 3000, 5000
like = {"dtype": getattr(torch, chosen.dtype), "device": chosen.device}
if chosen.device == "cpu" and torch.cuda.is_available():
    print("torch sees a GPU: --device cuda computes on it.")

torch.manual_seed(1)
x = torch.randn(M, 3, **like)
y = torch.randn(N, 3, **like, requires_grad=True)
a = torch.randn(N, 1, **like)
p = torch.randn(1, **like)

# %%
# The reduction
# -------------
# A formula, what its variables are (indexed by i, by j, or parameters, with their dimensions),
# and which index disappears: ``axis=1`` is j.

my_routine = Genred(
    "Square(p-a)*Exp(x+y)",
    ["x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)"],
    reduction_op="Sum",
    axis=1,
)
c = my_routine(x, y, a, p)
print(f"c has shape {tuple(c.shape)}, from {M} x {N} pairs")

# %%
# Its gradient
# ------------
# ``c`` is an ordinary tensor with a history; the gradient is again a reduction, compiled from the
# derivative of the formula.

e = torch.rand_like(c)
g = grad(c, y, e)[0]

# %%
# The same by broadcasting
# ------------------------
# Plain torch stores several tables of M x N x 3 numbers on the way.


def plain_routine(x, y, a, p):
    """The same sum, with all pairs in memory."""
    return ((p - a) ** 2 * torch.exp(x[:, None, :] + y[None, :, :])).sum(1)


g_plain = grad(plain_routine(x, y, a, p), y, e)[0]
difference = ((g - g_plain).abs() / g_plain.abs()).max().item()
print(f"max relative difference: {difference:.2e}")

# %%
# Timings
# -------
# Everything ran once already; these are the median of five more runs, and one of the long run.


def milliseconds(routine, repeats=5):
    """Median time of the sum and its gradient together."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        grad(routine(x, y, a, p), y, e)
        if chosen.device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


ours, plain = milliseconds(my_routine), milliseconds(plain_routine, 1)
print(f"sum and gradient, pairfold:           {ours:8.1f} ms")
print(f"sum and gradient, torch broadcasting: {plain:8.1f} ms")
print(f"{M} x {N} pairs; the table alone would take {M * N * x.element_size() / 1e6:.0f} MB")

# %%
# A picture
# ---------
# The first 40 rows of each column of the gradient, both ways: the curves lie on each other.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for column, axis in enumerate(axes):
        axis.plot(g[:40, column].cpu(), "-", linewidth=3, label="pairfold")
        axis.plot(g_plain[:40, column].cpu(), "--", label="torch broadcasting")
        axis.set_title(f"gradient, column {column}")
        axis.set_xlabel("row")
    axes[0].legend()
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(place, dpi=120)
        print(f"no window can be shown here; the figure is {place.name}, beside this program")
    else:
        plt.show()

if not difference < 1e-5:
    sys.exit("the two gradients differ")
