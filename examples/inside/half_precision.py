"""
Half precision: what it saves and what it costs
===============================================

Arrays may be stored in float16 or bfloat16, with two bytes a number instead of four. The library
reads them as they are and computes in float32, so that only the rounding of the data is felt, never
that of the sums. We compare

.. math::

    s_i = \\sum_j e^{-|x_i - y_j|^2 / 2} b_j

in three storages with double precision.
"""

# %%
# Setup
# -----

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from pairfold import Vi, Vj

M, N, D = 4000, 20_000, 16
torch.manual_seed(0)
x, y, b = (torch.rand(size, D, dtype=torch.float64) for size in (M, N, N))
b = b[:, :1] - 0.5


def lazily(x, y, b):
    """Sums (M, 1) over all pairs, in the dtype of the arrays."""
    return ((-Vi(x).sqdist(Vj(y)) / 2).exp() * Vj(b)).sum(axis=1)


right = lazily(x, y, b)
dense = (-((x[:50, None] - y) ** 2).sum(-1) / 2).exp() @ b
assert torch.allclose(right[:50], dense, rtol=1e-9, atol=1e-9)

# %%
# Storages
# --------

scale = float(right.square().mean().sqrt())


def distances(found):
    """How far sums are from the right ones, relative to the size that sums have, (M,)."""
    return ((found.double() - right) / scale).abs()[:, 0].numpy()


errors, rounded, sizes, times = {}, {}, {}, {}
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    name = str(dtype).removeprefix("torch.")
    stored = [array.to(dtype) for array in (x, y, b)]
    for _ in range(2):  # code is made in the first turn
        start = time.perf_counter()
        found = lazily(*stored)
        times[name] = time.perf_counter() - start
    sizes[name] = sum(array.nbytes for array in (*stored, found))
    if dtype == torch.float64:
        continue
    errors[name] = distances(found)
    print(
        f"{name + ':':10} {sizes[name] / 1e6:.1f} MB, {1e3 * times[name]:.0f} ms, "
        f"median error {np.median(errors[name]):.1e}"
    )

# %%
# Only the rounding of data
# -------------------------
# The best that is possible: data are rounded, all else is computed in double precision, and the
# result is rounded. The library's errors are the same.

for dtype in (torch.float16, torch.bfloat16):
    name = str(dtype).removeprefix("torch.")
    best = lazily(*(array.to(dtype).double() for array in (x, y, b))).to(dtype)
    rounded[name] = distances(best)
    print(f"{name + ':':10} median error {np.median(rounded[name]):.1e} at best")
    assert np.median(errors[name]) < 1.02 * np.median(rounded[name])
assert errors["float32"].max() < 1e-5
print(
    f"{M} x {N} pairs in {times['float16']:.2f} s; in float16 arrays of "
    f"{sizes['float16'] / 1e6:.1f} MB; the table alone would take {2 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The share of rows whose error is below a bound: curves that lie further left are better.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(7.2, 7.6), layout="constrained", height_ratios=[1.7, 1]
)
colours = {"float64": "0.5", "float32": "#009E73", "float16": "#0072B2", "bfloat16": "#D55E00"}
share = np.linspace(0, 100, M)
for name, values in errors.items():
    upper.semilogx(np.sort(values), share, color=colours[name], linewidth=4, alpha=0.6, label=name)
for name, values in rounded.items():
    look = {"linestyle": "--", "color": "black", "linewidth": 1.2}
    upper.semilogx(np.sort(values), share, label="at best" * (name == "float16"), **look)
upper.set(xlabel="error", ylabel="% of rows below", ylim=(0, 100), xlim=(1e-9, 0.1))
upper.legend(frameon=False, fontsize=12, loc="upper left")
places = np.arange(len(sizes))
lower.barh(places, [size / 1e6 for size in sizes.values()], color=[colours[n] for n in sizes])
lower.set_yticks(places, sizes)
lower.invert_yaxis()
lower.set(xlabel="MB of arrays")
plt.show()
