"""
Transport that may leave mass behind
====================================

Between two clouds that do not have all parts in common, plain transport carries everything, also
what belongs nowhere. Unbalanced transport may destroy and create mass at a price: a point would
rather vanish than go farther than about a reach :math:`\\sqrt\\rho`. Only one line of Sinkhorn's
algorithm changes; after each soft minimum the potential is shrunk:

.. math::

    f_i \\leftarrow -\\frac{\\epsilon}{1 + \\epsilon / \\rho} \\log \\frac1N \\sum_j
        e^{(g_j - |x_i - y_j|^2 / 2) / \\epsilon}.

The mass that a point sends is again a sum over all pairs.
"""

# %%
# Setup
# -----
# A letter, and the same one moved and slanted; each has a spot that the other lacks.

import math
import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj

M, N, EPSILON, REACH = 1500, 1200, 0.1**2, 0.5
rng = np.random.default_rng(0)


def letter(count, spot):
    """Points (count, 2) of an F, and a tenth as many of a spot."""
    points = rng.uniform(-1, 1, (20 * count, 2)) * [0.8, 1]
    p, q = points.T
    upper = (q > 0.65) | ((q > 0) & (q < 0.32) & (p < 0.4))
    inside = points[(p < -0.45) | upper][:count]
    inside[: count // 10] = spot + 0.13 * rng.standard_normal((count // 10, 2))
    return inside


x = letter(M, [-1.5, 0.75]).astype("float32")
slanted = letter(N, [1.2, -0.7]) @ [[1, 0], [0.2, 1]] + [0.6, 0.1]
y = slanted.astype("float32")

# %%
# Potentials
# ----------


def exponents(x, y, g):
    """(potential of j - cost of i, j) / epsilon, a lazy tensor (M, N)."""
    return (Vj(g) - Vi(x).sqdist(Vj(y)) / 2) / EPSILON


def potentials(x, y, rho, iterations=150):
    """Those of x and of y, (M, 1) and (N, 1)."""
    f, g = np.zeros((len(x), 1), "float32"), np.zeros((len(y), 1), "float32")
    shrunk = EPSILON / (1 + EPSILON / rho)
    for _ in range(iterations):
        f = -shrunk * (exponents(x, y, g).logsumexp(axis=1) - math.log(len(y)))
        g = -shrunk * (exponents(y, x, f).logsumexp(axis=1) - math.log(len(x)))
    return f, g


def sent(x, y, f, g):
    """What each point of x sends, of 1, and where on average: (M, 1) and (M, 2)."""
    scores = exponents(x, y, g)
    mass = np.exp(f / EPSILON + scores.logsumexp(axis=1) - math.log(len(y)))
    return mass, scores.sumsoftmaxweight(Vj(y), axis=1)


# %%
# With and without a reach
# ------------------------

found = {}
start = time.perf_counter()
for name, rho in {"all is carried": math.inf, f"a reach of {REACH}": REACH**2}.items():
    f, g = potentials(x, y, rho)
    mass, images = sent(x, y, f, g)
    found[name] = mass[:, 0], images, sent(y, x, g, f)[0][:, 0]
    spot, rest = mass[: M // 10].mean(), mass[M // 10 :].mean()
    print(f"{name}: the spot sends {100 * spot:.0f} % of its mass, the letter {100 * rest:.0f} %")
seconds = time.perf_counter() - start
assert abs(found["all is carried"][0].mean() - 1) < 1e-3

# %%
# The masses once more, from the table of the plan in double precision:

costs = ((x[:, None].astype(float) - y) ** 2).sum(-1) / 2
plan = np.exp((f + g[:, 0] - costs) / EPSILON) / (M * N)
assert np.abs(plan.sum(1) * M - mass[:, 0]).max() < 1e-3

reductions = 2 * (2 * 150 + 3)
print(
    f"{M} x {N} pairs, {reductions} reductions in {seconds:.2f} s; potentials of "
    f"{(f.nbytes + g.nbytes) / 1e3:.0f} kB, where the plan alone would take "
    f"{4 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Arrows go from points to the mean place of their mass. Dark points send or receive what they
# have, light ones little of it.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 1, figsize=(6.6, 6.8), layout="constrained", sharex=True)
some = rng.permutation(M)[:110]
for axis, (name, (mass, images, received)) in zip(axes, found.items()):
    look = {"s": 9, "vmin": -0.3, "vmax": 1, "linewidths": 0, "rasterized": True}
    axis.scatter(*y.T, c=received, cmap="Oranges", **look)
    axis.scatter(*x.T, c=mass, cmap="Blues", **look)
    kept = some[mass[some] > 0.3]
    axis.quiver(
        *x[kept].T,
        *(images[kept] - x[kept]).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.003,
        color="0.3",
    )
    axis.set_title(name, fontsize=13)
    axis.set_aspect("equal")
    axis.set_axis_off()
plt.show()
