"""
Attention to some of the positions
==================================

A sequence of positions, some documents of different lengths one after the other. Each position i
has a query q_i, and means the values v_j of those that it may look at, with soft-max weights:

.. math::

    a_i = \\sum_{j \\in S_i} e^{(q_i | k_j)} v_j \\, / \\sum_{j \\in S_i} e^{(q_i | k_j)}.

Which pairs count is a mask, ``where=``:

- *causal*: those before a position, and itself;
- *a window*: those that are near;
- *documents*: those of the same document, ``same``;
- *all of these*, joined by ``&``.

No mask is ever stored: it is a formula of i, j and the labels, blocks of pairs that it leaves out
are not met, and it works backward as it does forward. At the end everything is computed again from
dense tables, by NumPy in double precision; the gradients by torch.

The program exits with status 1 if the two differ by more than 1e-5.
"""

# %%
# Setup
# -----

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.autograd import grad

import pairfold as pf
from pairfold import Vi, Vj

options = argparse.ArgumentParser(description="Causal, banded and document attention.")
options.add_argument("--dtype", choices=["float32", "float64"], default="float32")
chosen = options.parse_args()

LENGTHS, D, WIDTH = [400, 250, 500, 50, 300], 16, 80
N = sum(LENGTHS)
like = {"dtype": getattr(torch, chosen.dtype)}
torch.manual_seed(0)
walk = torch.randn(N, D, **like).cumsum(0) / 16  # neighbours are alike
q, k = (walk + 0.3 * torch.randn(N, D, **like) for _ in range(2))
v = torch.randn(N, 4, **like)
for tensor in (q, k, v):
    tensor.requires_grad_()

# %%
# Masks
# -----
# ``lengths(LENGTHS)`` is the same as ``same(labels, labels)``.

labels = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
masks = {
    "causal": pf.causal(),
    "a window": pf.band(WIDTH),
    "documents": pf.same(labels, labels),
    "all of these": pf.causal() & pf.band(WIDTH) & pf.lengths(LENGTHS),
}

# %%
# Attention
# ---------
# One lazy tensor of scores; a soft-max for each mask.

scores = (Vi(q) | Vj(k)) / D**0.5
found, slopes = {}, {}
for name, mask in [*masks.items()] * 2:  # code is made in the first turn
    start = time.perf_counter()
    found[name] = scores.softmax(1, where=mask) @ v
    slopes[name] = grad(found[name].square().sum(), (q, k, v))
    milliseconds = 1e3 * (time.perf_counter() - start)
    print(f"{name + ':':14} {milliseconds:7.1f} ms for values and gradients, {N} positions")
print(f"{N} x {N} pairs; the table alone would take {N * N * q.element_size() / 1e6:.0f} MB")

# %%
# The same from dense tables
# --------------------------

i, j = torch.arange(N)[:, None], torch.arange(N)
tables = {
    "causal": j <= i,
    "a window": (i - j).abs() <= WIDTH,
    "documents": labels[:, None] == labels,
}
tables["all of these"] = tables["causal"] & tables["a window"] & tables["documents"]
wide = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
difference = 0.0
for name, keep in tables.items():
    table = wide[0] @ wide[1].T / D**0.5
    dense = torch.softmax(table.masked_fill(~keep, -torch.inf), 1) @ wide[2]
    pairs = [(found[name], dense), *zip(slopes[name], grad(dense.square().sum(), wide))]
    for ours, theirs in pairs:
        gap = (ours.detach().double() - theirs.detach()).abs().max() / theirs.detach().abs().max()
        difference = max(difference, float(gap))
print(f"max relative difference: {difference:.2e}")

# %%
# Figure
# ------
# The weights, of which no other line of this program computes any.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no figure: matplotlib is not installed")
else:
    figure, axes = plt.subplots(1, 4, figsize=(16, 4.4), layout="constrained")
    table = (q @ k.T / D**0.5).detach().double()
    for axis, (name, keep) in zip(axes, tables.items()):
        weights = torch.softmax(table.masked_fill(~keep, -torch.inf), 1)
        shown = np.ma.masked_where(~keep.numpy(), weights.clamp(min=1e-6).log10().numpy())
        axis.imshow(shown, vmin=-5, vmax=0, cmap="viridis", interpolation="nearest")
        axis.set_title(f"{name}: {keep.double().mean():.0%} of the pairs")
        axis.set_xlabel("j")
    axes[0].set_ylabel("i")
    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        place = Path(sys.argv[0]).with_suffix(".png")
        figure.savefig(place, dpi=110)
        print(f"no window can be shown here; the figure is {place.name}, beside this program")
    else:
        plt.show()

if not difference < 1e-5:
    sys.exit("the results differ from the dense tables")
