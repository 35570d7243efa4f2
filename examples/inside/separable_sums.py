"""
Sums that need no pairs
=======================

Some formulas are short sums of products of a row value and a column value. The squared distance is:

.. math::

    \\sum_j |x_i - y_j|^2 b_j = |x_i|^2 \\sum_j b_j - 2 \\Big( x_i \\Big| \\sum_j b_j y_j \\Big)
        + \\sum_j b_j |y_j|^2.

The sums on the right are computed once, so that M + N steps do what M N pairs would. The library
finds such formulas by itself. Here we let N grow, with and without.
"""

# %%
# Three formulas
# --------------
# ``explain`` says whether a formula is separable, and of how many products it consists.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred, settings

ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
FORMULAS = ("SqDist(x,y) * b", "Square((x|y) + 1) * b", "Exp(-SqDist(x,y)) * b")
rng = np.random.default_rng(0)


def arrays(count):
    """Points x and y, (count, 3), and numbers b, (count, 1)."""
    return [rng.random((count, size), dtype="float32") for size in (3, 3, 1)]


for formula in FORMULAS:
    separable = Genred(formula, ALIASES, axis=1).explain(*arrays(10_000)).separable
    print(f"{formula + ':':24} {separable}")

# %%
# They agree
# ----------

squared = Genred(FORMULAS[0], ALIASES, axis=1)
x, y, b = arrays(3000)
with settings(separable="always"):
    apart = squared(x, y, b)
with settings(separable="never"):
    pairs = squared(x, y, b)
dense = ((x[:, None].astype(float) - y) ** 2).sum(-1) @ b
for found in (apart, pairs):
    assert np.abs(found - dense).max() < 1e-5 * np.abs(dense).max()
gaps = [np.abs(found / dense - 1).max() for found in (apart, pairs)]
print(f"largest relative error: {gaps[0]:.1e} without pairs, {gaps[1]:.1e} over them")

# %%
# Times
# -----


def seconds(count, **options):
    """The least of three times of a call, after one that makes the code."""
    given, times = arrays(count), []
    with settings(**options):
        for _ in range(4):
            start = time.perf_counter()
            squared(*given)
            times.append(time.perf_counter() - start)
    return min(times[1:])


few = (2 ** np.arange(10, 16)).tolist()
many = (2 ** np.arange(10, 21)).tolist()
over_pairs = [seconds(count, separable="never") for count in few]
without = [seconds(count, separable="always") for count in many]
chosen = [seconds(count) for count in many]
assert without[-1] < over_pairs[-1] * (many[-1] / few[-1]) ** 2 / 100
N = many[-1]
print(
    f"{N} x {N} pairs, not met, in {without[-1]:.3f} s; over pairs "
    f"{over_pairs[-1] * (N / few[-1]) ** 2:.0f} s are to be expected; arrays of "
    f"{32 * N / 1e6:.0f} MB; the table alone would take {4 * N * N / 1e12:.1f} TB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, axis = plt.subplots(figsize=(7.2, 5.4), layout="constrained")
beyond = np.array([few[-1], N])
expected = over_pairs[-1] * (beyond / few[-1]) ** 2
axis.loglog(few, over_pairs, "o-", color="#D55E00", linewidth=2)
axis.loglog(beyond, expected, ":", color="#D55E00", linewidth=2)
axis.loglog(many, without, "s-", color="#0072B2", linewidth=2)
axis.loglog(many, chosen, "--", color="black", linewidth=1.5)
for count, value, words, colour in (
    (few[-1], over_pairs[-1] * 2, "over pairs", "#D55E00"),
    (N, expected[1], "expected", "#D55E00"),
    (N, without[-1] * 2, "without pairs", "#0072B2"),
):
    place = {"ha": "right", "va": "bottom"}
    axis.text(count, value, words + "  ", color=colour, **place)
axis.text(few[0], chosen[0] / 1.2, "by default (dashed)", va="top")
axis.set(xlabel="rows, and as many columns", ylabel="seconds")
axis.set_ylim(bottom=0.4 * min(*over_pairs, *without, *chosen))
axis.grid(color="0.9")
plt.show()
