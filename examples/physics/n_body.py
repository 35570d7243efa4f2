"""
Two galaxies collide
====================

Bodies attract each other by gravity, softened at a length :math:`\\epsilon` so that no two of them
meet in a point:

.. math::

    \\ddot x_i = \\sum_j m_j \\, (x_j - x_i) \\, / \\, (|x_i - x_j|^2 + \\epsilon^2)^{3/2}.

Each step of the leapfrog scheme is one reduction over all pairs. The energy, another reduction,
shows how good the steps are.
"""

# %%
# Setup
# -----
# Two discs of bodies that circle around heavy centres, on a course that misses a hit.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Vi, Vj

N, SOFT, PACE, STEPS = 4000, 0.05, 0.01, 300
rng = np.random.default_rng(0)


def galaxy(count, place, velocity, tilt, mass):
    """Places, velocities (count, 3) and masses (count, 1); body 0 is the centre."""
    radius = 0.15 + 0.6 * np.sqrt(rng.random(count))
    angle = rng.uniform(0, 2 * np.pi, count)
    flat = np.stack([np.cos(angle), np.sin(angle), 0.02 * rng.standard_normal(count)], 1)
    around = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], 1)
    x, v = (
        radius[:, None] * flat,
        np.sqrt(mass * radius**2 / (radius**2 + SOFT**2) ** 1.5)[:, None] * around,
    )
    x[0], v[0] = 0, 0
    turned = [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    m = np.full((count, 1), 0.1 * mass / count)
    m[0] = mass
    return x @ turned + place, v @ turned + velocity, m


first = galaxy(N // 2, [-1.0, -0.6, 0], [0.45, 0.0, 0], 0.4, 1.0)
second = galaxy(N // 2, [1.0, 0.6, 0], [-0.45, 0.0, 0], -0.9, 1.0)
x, v, m = (np.concatenate(parts) for parts in zip(first, second))
m = m.astype("float32")

# %%
# Forces and energy
# -----------------
# Places are kept in float64. The forces are sums of differences, for which float32 is enough.


def acceleration(x):
    """(N, 3), from all pairs."""
    places = x.astype("float32")
    apart = Vj(places) - Vi(places)
    squared = (apart**2).sum(-1) + SOFT**2
    return (Vj(m) * apart * squared.rsqrt() * squared.inv()).sum(axis=1)


def energy(x, v):
    """Kinetic and potential energy together, in float64; a body does not meet itself."""
    weights = m.astype(float)
    inverse = (Vi(x).sqdist(Vj(x)) + SOFT**2).rsqrt() @ weights - weights / SOFT
    return 0.5 * float((weights * (v**2).sum(1, keepdims=True) - weights * inverse).sum())


apart = x[:50, None] - x
dense = -(m[:, 0] / ((apart**2).sum(-1) + SOFT**2) ** 1.5)[..., None] * apart
assert np.abs(acceleration(x)[:50] - dense.sum(1)).max() < 1e-4 * np.abs(dense.sum(1)).max()

# %%
# Leapfrog
# --------

begun = energy(x, v)
times, drift, shown = [], [], {0: x.copy()}
start = time.perf_counter()
force = acceleration(x)
for step in range(1, STEPS + 1):
    v += 0.5 * PACE * force
    x += PACE * v
    force = acceleration(x)
    v += 0.5 * PACE * force
    if step % 5 == 0:
        times.append(PACE * step)
        drift.append(energy(x, v) / begun - 1)
    if step % (STEPS // 3) == 0:
        shown[step] = x.copy()
seconds = time.perf_counter() - start

worst = max(abs(part) for part in drift)
print(f"energy {begun:.4f}, kept to {worst:.1e} of it over {STEPS} steps")
assert worst < 0.02
print(
    f"{N} x {N} pairs, {STEPS} steps in {seconds:.2f} s, {1e3 * seconds / STEPS:.1f} ms each; "
    f"bodies take {(x.nbytes + v.nbytes + m.nbytes) / 1e3:.0f} kB, the table of forces of one "
    f"step would take {12 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.2, 8.6), layout="constrained")
grid = figure.add_gridspec(3, 2, height_ratios=[1, 1, 0.45])
for place, (step, bodies) in zip((grid[0, 0], grid[0, 1], grid[1, 0], grid[1, 1]), shown.items()):
    axis = figure.add_subplot(place, facecolor="black")
    for half, colour in ((bodies[: N // 2], "#56B4E9"), (bodies[N // 2 :], "#E69F00")):
        axis.scatter(*half[:, :2].T, s=1.5, color=colour, linewidths=0, rasterized=True)
        axis.scatter(*half[0, :2], s=18, color="white")
    axis.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal", xticks=[], yticks=[])
    axis.set_title(f"time {PACE * step:.1f}", fontsize=13)
axis = figure.add_subplot(grid[2, :])
axis.plot(times, 1e3 * np.array(drift), color="#0072B2", linewidth=1.5)
axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
axis.set(xlabel="time", ylabel="drift of the\nenergy, in 1/1000", xlim=(0, PACE * STEPS))
plt.show()
