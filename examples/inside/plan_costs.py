"""
How a sum is computed
=====================

Before a formula is compiled, several plans are compared: do the lanes of a vector hold rows or
columns, and how many vectors are kept in registers at once? For each, cycles per pair are
estimated. ``explain()`` says what was chosen. We read it for

.. math::

    s_i = \\sum_j e^{-|x_i - y_j|^2} b_j,

then force each plan by ``settings`` and measure it.
"""

# %%
# An explanation
# --------------
# *formula* is what was written, *by rules* the same after simplification. *stages* say what is
# computed once, once a row, once a column and for each pair. *loops* are the loop nest with its
# tiles; *states* how terms are added up; *per pair* arithmetic and traffic of memory; *registers*
# what the innermost loop keeps. The plans come last, the one that is used first.

import statistics
import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred, settings

M, N = 6000, 6000
rng = np.random.default_rng(0)
x, y = (rng.random((count, 3)).astype("float32") for count in (M, N))
b = rng.standard_normal((N, 1)).astype("float32")
gaussian = Genred("Exp(-SqDist(x,y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)
plan = gaussian.explain(x, y, b)
print(plan)

# %%
# Fields hold the same numbers, and the innermost loop is there as assembly:

print(f"{plan.flops_per_pair:.0f} operations a pair, {plan.registers} registers of vectors")
print(f"the innermost loop has {len(plan.inner_loop())} lines of assembly")

# %%
# Estimates and measurements
# --------------------------
# On one thread; how long a cycle takes is the machine's own business.

found = np.exp(-((x[:50, None].astype(float) - y) ** 2).sum(-1)) @ b
estimates = [each for each in plan.estimates if each.plan.screen is None]
measured = []
for each in estimates:
    forced = {"lanes": each.plan.lanes, "row_vectors": each.plan.vectors}
    with settings(threads=1, **forced):
        out = gaussian(x, y, b)
        assert np.abs(out[:50] - found).max() < 1e-4 * np.abs(found).max()
        times = []
        for _ in range(7):
            start = time.perf_counter()
            gaussian(x, y, b)
            times.append(time.perf_counter() - start)
    measured.append(1e9 * statistics.median(times) / (M * N))
    print(f"{each.name + ':':32} {each.cycles:.2f} cycles expected, {measured[-1]:.3f} ns measured")
start = time.perf_counter()
gaussian(x, y, b)
seconds = time.perf_counter() - start
held = sum(array.nbytes for array in (x, y, b, out))
print(
    f"{M} x {N} pairs in {seconds:.3f} s; arrays of {held / 1e3:.0f} kB; "
    f"the table alone would take {4 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(2, 1, figsize=(7.2, 7.4), layout="constrained")
names = [each.name.replace("lanes of ", "").replace(", ", ",\n") for each in estimates]
places = np.arange(len(names))
ends = np.zeros(len(names))
colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
parts = [part for part in estimates[0].parts if any(each.parts[part] > 0 for each in estimates)]
for part, colour in zip(parts, colours):
    lengths = np.array([each.parts[part] for each in estimates])
    upper.barh(places, lengths, left=ends, color=colour, label=part)
    ends += lengths
upper.set(xlabel="cycles per pair, estimated")
upper.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=4, frameon=False, fontsize=12)
lower.barh(places, measured, color="0.5")
lower.set(xlabel="nanoseconds per pair, measured on one thread")
for axis in (upper, lower):
    axis.set_yticks(places, names, fontsize=12)
    axis.invert_yaxis()
plt.show()
