"""
Systems with a kernel matrix
============================

A smooth surface through scattered samples b_j is a sum of kernels at the samples, whose weights a
solve a linear system:

.. math::

    (\\alpha I + K) a = b, \\qquad K_{ij} = e^{-|y_i - y_j|^2 / 2 \\sigma^2}.

``solve`` uses conjugate gradients, which multiply with K and never store it. How many steps they
need depends on K; a preconditioner, an approximate inverse made from few columns of K, makes them
few. Here are the residuals of each kind.
"""

# %%
# Setup
# -----
# Heights of hills at random places, with little noise.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj
from pairfold.errors import PairfoldError

N, SIGMA, ALPHA, SIDE = 3000, 0.25, 1e-3, 160
rng = np.random.default_rng(0)
y = rng.uniform(-1, 1, (N, 2))


def hills(p, q):
    return np.exp(-3 * (p**2 + q**2)) * np.cos(9 * p) * np.cos(7 * q) + 0.4 * p * q


b = hills(*y.T)[:, None] + 0.02 * rng.standard_normal((N, 1))
kernel = (-Vi(y).sqdist(Vj(y)) / (2 * SIGMA**2)).exp()

# %%
# Four solutions
# --------------
# ``callback`` is told the norms of the residuals at every step. ``"auto"`` is the default: it waits
# whether steps become many.

norm = float(np.linalg.norm(b))
residuals, times, solutions = {}, {}, {}
for name in (None, "auto", "nystrom", "pivoted-cholesky"):
    norms, clock = [norm], [0.0]
    start = time.perf_counter()

    def note(step, residual, norms=norms, clock=clock, start=start):
        norms.append(float(residual.max()))
        clock.append(time.perf_counter() - start)

    options = {"alpha": ALPHA, "tol": 1e-8, "maxiter": 600, "callback": note}
    words = "none" if name is None else name
    try:
        solutions[words] = kernel.solve(b, preconditioner=name, **options)
        ended = "solved"
    except PairfoldError as error:
        solutions[words] = error.solution
        ended = "not solved"
    times[words] = time.perf_counter() - start
    residuals[words] = np.array(norms) / norm, np.array(clock)
    print(f"{words + ':':18} {ended} after {len(norms) - 1} steps, {times[words]:.2f} s")

# %%
# The right solution, from the whole matrix:

table = np.exp(-((y[:, None] - y) ** 2).sum(-1) / (2 * SIGMA**2))
start = time.perf_counter()
dense = np.linalg.solve(table + ALPHA * np.eye(N), b)
densely = time.perf_counter() - start
weights = solutions["nystrom"]
gap = float(np.linalg.norm(table @ (weights - dense)) / np.linalg.norm(b))
print(f"difference of the surfaces: {gap:.1e} of the samples; dense solver {densely:.2f} s")
assert gap < 1e-5
least = min(times.values())
print(
    f"{N} x {N} pairs, a system in {least:.2f} s; arrays of "
    f"{(y.nbytes + 2 * b.nbytes) / 1e3:.0f} kB; the table alone takes {8 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.2, 9.4), layout="constrained")
upper, lower = figure.subplots(2, 1, height_ratios=[1, 1.25])
looks = {"none": "0.45", "auto": "#E69F00", "nystrom": "#0072B2", "pivoted-cholesky": "#009E73"}
for words, (norms, _) in residuals.items():
    upper.loglog(np.arange(1, len(norms)), norms[1:], color=looks[words], linewidth=2, label=words)
upper.set(xlabel="step", ylabel="residual", ylim=(3e-9, 30))
upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False, fontsize=12)
upper.grid(color="0.92")
ticks = np.linspace(-1, 1, SIDE)
places = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
surface = (-Vi(places).sqdist(Vj(y)) / (2 * SIGMA**2)).exp() @ weights
image = surface.reshape(SIDE, SIDE)
shown = lower.imshow(image, origin="lower", extent=(-1, 1, -1, 1), cmap="PuOr", vmin=-0.9, vmax=0.9)
lower.plot(*y.T, ",", color="black", alpha=0.6)
lower.set(aspect="equal", xticks=[], yticks=[])
lower.set_title(f"the surface through {N} samples", fontsize=13)
figure.colorbar(shown, ax=lower, shrink=0.8)
plt.show()
