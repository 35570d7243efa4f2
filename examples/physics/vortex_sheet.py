"""
A vortex sheet rolls up
=======================

Where two streams slide along each other, a line of vortices lies between them. Each vortex moves
with the velocity that all others give it. On a strip of period 1, and smoothed at a length
:math:`\\delta` (Krasny, J. Comput. Phys. 65, 1986),

.. math::

    \\dot x_i = -\\frac{1}{2N} \\sum_j \\frac{\\sinh 2 \\pi (y_i - y_j)}{D_{ij}}, \\quad
    \\dot y_i = \\frac{1}{2N} \\sum_j \\frac{\\sin 2 \\pi (x_i - x_j)}{D_{ij}}, \\quad
    D_{ij} = \\cosh 2 \\pi (y_i - y_j) - \\cos 2 \\pi (x_i - x_j) + \\delta^2.

Any small bend of the line grows to a spiral. The flow has an energy, the sum of log D over all
pairs, which the computation should keep.
"""

# %%
# Setup
# -----

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred

N, DELTA, PACE, STEPS = 1600, 0.1, 0.02, 100
parameter = np.arange(N) / N
wave = 0.01 * np.sin(2 * np.pi * parameter)
vortices = np.stack([parameter + wave, -wave], 1)

# %%
# Velocities
# ----------
# Both components in one formula string: ``Elem`` takes coordinates, and ``Concat`` joins results.

ALIASES = ["x = Vi(2)", "y = Vj(2)", "d = Pm(1)", "tau = Pm(1)"]
ACROSS, UP = "tau*(Elem(x,0)-Elem(y,0))", "tau*(Elem(x,1)-Elem(y,1))"
NEARNESS = f"(Cosh({UP}) - Cos({ACROSS}) + Square(d))"
swirl = Genred(f"Concat(-Sinh({UP}), Sin({ACROSS})) / {NEARNESS}", ALIASES, axis=1)
depth = Genred(f"Log({NEARNESS})", ALIASES, axis=1)
CONSTANTS = np.array([DELTA]), np.array([2 * np.pi])


def velocity(points):
    """That of places (M, 2) by all vortices, (M, 2)."""
    return swirl(points, vortices, *CONSTANTS) / (2 * N)


def energy():
    """The mean over all pairs of log D."""
    return float(depth(vortices, vortices, *CONSTANTS).sum()) / N**2


across, up = (2 * np.pi * np.subtract.outer(part[:40], part) for part in vortices.T)
table = np.cosh(up) - np.cos(across) + DELTA**2
dense = np.stack([-(np.sinh(up) / table).sum(1), (np.sin(across) / table).sum(1)], 1) / (2 * N)
assert np.abs(velocity(vortices)[:40] - dense).max() < 1e-10

# %%
# Steps of Runge and Kutta
# ------------------------

begun, shown = energy(), {0: vortices.copy()}
start = time.perf_counter()
for step in range(1, STEPS + 1):
    before, slopes = vortices, []
    for part in (0, 0.5, 0.5, 1):
        vortices = before + part * PACE * slopes[-1] if slopes else before
        slopes.append(velocity(vortices))
    vortices = before + PACE / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])
    if step % (STEPS // 2) == 0:
        shown[step] = vortices.copy()
seconds = time.perf_counter() - start
drift = abs(energy() / begun - 1)
print(f"the energy is kept to {drift:.1e} of it")
assert drift < 1e-3
print(
    f"{N} x {N} pairs, {STEPS} steps of 4 velocities in {seconds:.2f} s; vortices take "
    f"{vortices.nbytes / 1e3:.0f} kB, the table of one velocity would take "
    f"{16 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The sheet at three times, and at the end the speed of the fluid around it. Colours are places
# along the sheet.

ticks, heights = np.linspace(-0.5, 1.5, 240), np.linspace(-0.34, 0.34, 82)
places = np.stack(np.meshgrid(ticks, heights), -1).reshape(-1, 2)
speed = np.linalg.norm(velocity(places), axis=1).reshape(len(heights), -1)

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(4, 1, figsize=(7.2, 9.6), layout="constrained", sharex=True)
for axis, (step, points) in zip(axes, shown.items()):
    for shift in (-1, 0, 1):
        axis.scatter(
            *(points + np.array([shift, 0])).T, c=parameter, s=2, cmap="viridis", linewidths=0
        )
    axis.set_title(f"time {PACE * step:g}", fontsize=13)
image = axes[3].pcolormesh(ticks, heights, speed, cmap="cividis", rasterized=True)
figure.colorbar(image, ax=axes[3], orientation="horizontal", aspect=40)
axes[3].set_title("speed at the end", fontsize=13)
for axis in axes:
    axis.set(aspect="equal", xlim=(-0.5, 1.5), ylim=(-0.34, 0.34))
    axis.set_axis_off()
plt.show()
