"""
Formulas as text, and their derivatives
=======================================

A formula is a line of text: variables of rows, of columns and parameters, and operations on them.
It may contain derivatives, which are worked out symbolically before anything runs. From the
potential of a few charges,

.. math::

    V(x) = \\sum_j q_j \\, / \\sqrt{|x - y_j|^2 + s^2},

we take the field :math:`-\\nabla V` by ``Grad``, the charge density that belongs to it,
:math:`-\\Delta V / 4 \\pi`, by ``Laplacian``, and the same as a ``Divergence``.
"""

# %%
# Setup
# -----
# Charges in a plane of space, and a grid of places in it.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred
from pairfold.errors import PairfoldError

SIDE, N = 240, 7
rng = np.random.default_rng(3)
y = np.concatenate([rng.uniform(-1, 1, (N, 2)), np.zeros((N, 1))], 1)
q = np.where(np.arange(N) % 2, 1.0, -1.0)[:, None]
s = np.array([0.12])
ticks = np.linspace(-1.4, 1.4, SIDE)
x = np.concatenate([np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)] * 2, 1)[:, :3]
x[:, 2] = 0

# %%
# Formulas
# --------
# ``Vi`` is a vector of row i, ``Vj`` one of row j, ``Pm`` a parameter; the number is a dimension.
# Text may be put together as any text.

ALIASES = ["x = Vi(3)", "y = Vj(3)", "q = Vj(1)", "s = Pm(1)"]
POTENTIAL = "q * Rsqrt(SqDist(x,y) + Square(s))"
formulas = {
    "potential": POTENTIAL,
    "field": f"-Grad({POTENTIAL}, x, 1)",
    "density": f"-Laplacian({POTENTIAL}, x)",
    "the same": f"Divergence(-Grad({POTENTIAL}, x, 1), x)",
}
start, found = time.perf_counter(), {}
for name, formula in formulas.items():
    reduction = Genred(formula, ALIASES, axis=1)
    found[name] = reduction(x, y, q, s)
    print(f"{name + ':':10} {found[name].shape}   {reduction.explain().simplified}")
seconds = time.perf_counter() - start

# %%
# A formula that is wrong says where:

try:
    Genred("q * Rsqrt(SqDist(x,z) + Square(s))", ALIASES, axis=1)
except PairfoldError as error:
    print(error)

# %%
# By hand, from tables
# --------------------

apart = x[:, None] - y
r = np.sqrt((apart**2).sum(-1) + s**2)
checks = {
    "potential": (q[:, 0] / r).sum(1, keepdims=True),
    "field": ((q[:, 0] / r**3)[..., None] * apart).sum(1),
    "density": 3 * s**2 * (q[:, 0] / r**5).sum(1, keepdims=True),
}
checks["the same"] = checks["density"]
for name, dense in checks.items():
    assert np.abs(found[name] - dense).max() < 1e-10 * np.abs(dense).max()
held = sum(array.nbytes for array in (x, y, q, *found.values()))
print(
    f"four formulas of {len(x)} x {N} pairs, made and computed in {seconds:.2f} s; arrays of "
    f"{held / 1e6:.1f} MB; the table of differences alone takes {apart.nbytes / 1e6:.1f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(figsize=(6.8, 6.4), layout="constrained")
square = (SIDE, SIDE)
potential = found["potential"].reshape(square)
limit = 0.6 * np.abs(potential).max()
image = axis.pcolormesh(
    ticks, ticks, potential, cmap="PuOr", vmin=-limit, vmax=limit, rasterized=True
)
across, up = (found["field"][:, part].reshape(square) for part in (0, 1))
axis.streamplot(ticks, ticks, across, up, color="0.35", linewidth=0.7, arrowsize=0.8, density=1.4)
density = found["density"].reshape(square)
axis.contour(ticks, ticks, np.abs(density), [0.2 * np.abs(density).max()], colors="black")
axis.set_title("potential, field, and where the charges are", fontsize=13)
axis.set(aspect="equal", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
axis.set_axis_off()
figure.colorbar(image, ax=axis, shrink=0.8)
plt.show()
