"""
Dots for a picture, under JAX
=============================

``pairfold.jax`` has reductions that are primitives of JAX: ``jit``, ``grad`` and ``lax.scan``
compose with them, and compiled programs call their machine code without Python. We draw a picture
with N equal dots: dots are drawn to bright pixels p_j of weights w_j and push each other away, by
the energy

.. math::

    E(x) = \\frac1N \\sum_{i,j} w_j |x_i - p_j| - \\frac1{2N^2} \\sum_{i,j} |x_i - x_j|.

Its minimum spreads the dots as the light is spread.
"""

# %%
# Setup
# -----
# A photograph that scikit-learn brings along; weights are how bright its pixels are.

import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from pairfold.jax import Vi, Vj

N, STEPS, PACE = 3000, 120, 1.0
rng = np.random.default_rng(0)
grey = load_sample_image("flower.jpg")[:420, 80:560].mean(-1) / 255
blocks = grey.reshape(105, 4, 120, 4).mean((1, 3))
rows, columns = blocks.shape
light = blocks.ravel() ** 1.8 + 0.005
weights = jnp.asarray((light / light.sum())[:, None], dtype=jnp.float32)
down, right = np.mgrid[:rows, :columns]
places = np.stack([right + 0.5, rows - down - 0.5], -1).reshape(-1, 2) / columns
pixels = jnp.asarray(places, dtype=jnp.float32)
begun = places[rng.choice(len(places), N, p=light / light.sum())]
begun = jnp.asarray(begun + rng.uniform(-0.5, 0.5, (N, 2)) / columns, dtype=jnp.float32)

# %%
# Energy and descent
# ------------------
# Distances have no derivative at 0, where it is taken as 0: a dot does not push itself. Those to
# pixels are softened at the width of a pixel, so that dots do not settle in their centres.


def energy(x):
    """E of dots (N, 2), a number."""
    drawn = (Vi(x).sqdist(Vj(pixels)) + 1 / columns**2).sqrt() @ weights
    pushed = Vi(x).sqdist(Vj(x)).sqrt().sum(axis=1)
    return drawn.mean() - pushed.mean() / (2 * N)


def step(x, pace):
    """The next dots, and the energy of these."""
    value, slope = jax.value_and_grad(energy)(x)
    return x - pace * N * slope, value


paces = PACE * jnp.linspace(1, 0.05, STEPS)
program = jax.jit(lambda x: jax.lax.scan(step, x, paces))
start = time.perf_counter()
program = program.lower(begun).compile()
compilation = time.perf_counter() - start
start = time.perf_counter()
dots, values = jax.block_until_ready(program(begun))
seconds = time.perf_counter() - start

# %%
# The energy and its gradient from tables, by JAX itself, for some of the dots:

few = begun[:300]


def dense(x):
    """The same from tables; the root's derivative at 0 is left out."""
    drawn = jnp.sqrt(((x[:, None] - pixels) ** 2).sum(-1) + 1 / columns**2) @ weights
    squared = ((x[:, None] - x) ** 2).sum(-1)
    same = squared == 0
    pushed = jnp.where(same, 0, jnp.sqrt(jnp.where(same, 1, squared))).sum(1)
    return drawn.mean() - pushed.mean() / (2 * N)


for ours, theirs in zip(jax.value_and_grad(energy)(few), jax.value_and_grad(dense)(few)):
    assert jnp.abs(ours - theirs).max() < 1e-4 * jnp.abs(theirs).max()
assert values[-1] < values[0]
print(f"energy {float(values[0]):.5f} -> {float(values[-1]):.5f}")
print(
    f"compiled in {compilation:.1f} s; {STEPS} steps over {N} x {len(pixels) + N} pairs in "
    f"{seconds:.2f} s; dots and pixels of {(dots.nbytes + pixels.nbytes) / 1e3:.0f} kB, the tables "
    f"of one step would take {4 * N * (len(pixels) + N) / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 1, figsize=(6.2, 10.8), layout="constrained", facecolor="white")
for axis, points, title in ((axes[0], begun, "drawn at random"), (axes[1], dots, "at the end")):
    axis.scatter(*np.asarray(points).T, s=5, color="#E69F00", linewidths=0)
    axis.set(aspect="equal", xlim=(0, 1), ylim=(0, rows / columns), xticks=[], yticks=[])
    axis.set_facecolor("black")
    axis.set_title(f"{N} dots, {title}", fontsize=13)
plt.show()
