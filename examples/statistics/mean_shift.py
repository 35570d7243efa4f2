"""
Mean shift of the pixels of a picture
=====================================

Each pixel is a point of five numbers, its place and its colour. A copy x_i of it climbs to where
pixels are dense: again and again it moves to the mean of the pixels y_j around it,

.. math::

    x_i \\leftarrow \\sum_j e^{-|x_i - y_j|^2 / 2} y_j \\Bigl/ \\sum_j e^{-|x_i - y_j|^2 / 2}.

Pixels of one thing end in one place and take its colour. What is smooth becomes flat, while edges
stay sharp.
"""

# %%
# Setup
# -----
# A photograph that scikit-learn brings along. Places and colours are measured in the widths that
# the kernel is to have in each.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from pairfold import Vi, Vj

PLACE, COLOUR, ROUNDS, MISSING = 12, 0.09, 12, 1e-2  # widths in pixels and in 0 to 1
image = load_sample_image("flower.jpg")[30:400:4, 100:580:4].astype("float32") / 255
places = np.stack(np.indices(image.shape[:2]), -1)
y = np.concatenate([places / PLACE, image / COLOUR], 2).reshape(-1, 5).astype("float32")
N = len(y)

# %%
# The climb
# ---------
# Far pixels count for little. ``rtol=`` leaves out whole blocks of them, which are together less
# than this part of all weights.


def shifted(x):
    """The mean of the pixels around each x, (N, 5)."""
    return (-Vi(x).sqdist(Vj(y)) / 2).sumsoftmaxweight(Vj(y), axis=1, rtol=MISSING)


x, steps = y, []
start = time.perf_counter()
for _ in range(ROUNDS):
    before, x = x, shifted(x)
    steps.append(float(np.linalg.norm(x - before, axis=1).mean()))
seconds = time.perf_counter() - start
print("mean steps: " + " ".join(f"{step:.2f}" for step in steps))
assert steps[-1] < 0.3 * steps[0]

# %%
# The first step of some pixels from the table:

some = np.arange(0, N, N // 100)
table = np.exp(-((y[some, None].astype(float) - y) ** 2).sum(-1) / 2)
right = table @ y / table.sum(1, keepdims=True)
gap = np.abs(shifted(y)[some] - right).max()
print(f"largest difference: {gap:.1e} of a width")
assert gap < 5 * MISSING

# %%
# How flat the picture has become: the mean difference of pixels that are side by side.

painted = (COLOUR * x[:, 2:]).reshape(image.shape).clip(0, 1)


def rough(picture):
    return np.abs(np.diff(picture, axis=1)).max(2)


flat = [100 * np.mean(rough(picture) < 0.01) for picture in (image, painted)]
print(f"{flat[0]:.0f} % of pixels are like their neighbour before, {flat[1]:.0f} % after")
assert flat[1] > 2 * flat[0]
print(
    f"{N} x {N} pairs, {ROUNDS} rounds in {seconds:.2f} s; arrays of "
    f"{(x.nbytes + y.nbytes) / 1e6:.1f} MB, where the table of weights would take "
    f"{4 * N * N / 1e9:.1f} GB"
)

# %%
# Figure
# ------
# Below: steps between neighbours, dark where there are none.

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.0), layout="constrained")
for pair, (title, picture) in zip(axes.T, {"before": image, "after": painted}.items()):
    pair[0].imshow(picture)
    pair[0].set_title(title, fontsize=13)
    shown = pair[1].imshow(rough(picture), cmap="cividis", vmin=0, vmax=0.2)
    for axis in pair:
        axis.set_axis_off()
figure.colorbar(shown, ax=axes[1], label="step of colours", shrink=0.9)
plt.show()
