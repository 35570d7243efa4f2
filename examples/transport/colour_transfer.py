"""
The colours of one picture in another
=====================================

The pixels of a picture are points in the cube of red, green and blue. A transport plan from the
colours x of one picture to the colours y of another says which colour becomes which; every pixel
then takes the mean of the colours that it is sent to,

.. math::

    T(x_i) = \\sum_j e^{(g_j - |x_i - y_j|^2 / 2) / \\epsilon} y_j \\Big/
             \\sum_j e^{(g_j - |x_i - y_j|^2 / 2) / \\epsilon}.

The potential g is computed by Sinkhorn's algorithm from some of the pixels. The formula holds for
any colour, so that all pixels are mapped by one more reduction.
"""

# %%
# Setup
# -----
# Two photographs that scikit-learn brings along, every second row and column of them.

import math
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from pairfold import Vi, Vj

SAMPLE, EPSILON = 4000, 0.04**2
rng = np.random.default_rng(0)
temple, flower = (
    image[:420:2, :630:2].astype("float32") / 255 for image in load_sample_images().images
)


def colours(image, count):
    """Some pixels of an image, (count, 3), without repetition."""
    pixels = image.reshape(-1, 3)
    return pixels[rng.choice(len(pixels), count, replace=False)]


x, y = colours(temple, SAMPLE), colours(flower, SAMPLE)

# %%
# The plan
# --------


def exponents(x, y, potential, epsilon):
    """(potential of j - cost of i, j) / epsilon, a lazy tensor (M, N)."""
    return (Vj(potential) - Vi(x).sqdist(Vj(y)) / 2) / epsilon


start = time.perf_counter()
f, g = np.zeros((SAMPLE, 1), "float32"), np.zeros((SAMPLE, 1), "float32")
for epsilon in [*np.geomspace(1, EPSILON, 10).tolist(), *[EPSILON] * 8]:
    to_x = -epsilon * (exponents(x, y, g, epsilon).logsumexp(axis=1) - math.log(SAMPLE))
    to_y = -epsilon * (exponents(y, x, f, epsilon).logsumexp(axis=1) - math.log(SAMPLE))
    f, g = (f + to_x) / 2, (g + to_y) / 2
plan = time.perf_counter() - start

# %%
# All pixels
# ----------

pixels = temple.reshape(-1, 3)
start = time.perf_counter()
mapped = exponents(pixels, y, g, EPSILON).sumsoftmaxweight(Vj(y), axis=1)
seconds = time.perf_counter() - start
painted = mapped.reshape(temple.shape).clip(0, 1)

some = rng.choice(len(pixels), 100, replace=False)
table = g[:, 0] - ((pixels[some, None].astype(float) - y) ** 2).sum(-1) / 2
weights = np.exp((table - table.max(1, keepdims=True)) / EPSILON)
assert np.abs(mapped[some] - weights @ y / weights.sum(1, keepdims=True)).max() < 1e-3

for name, image in (("the picture", temple), ("the colours", flower), ("the result", painted)):
    print(f"mean of {name}: " + ", ".join(f"{part:.2f}" for part in image.mean((0, 1))))
bytes_ = 4 * len(pixels) * SAMPLE
print(
    f"plan of {SAMPLE} x {SAMPLE} pairs in {plan:.2f} s; {len(pixels)} x {SAMPLE} pairs in "
    f"{seconds:.2f} s, into {mapped.nbytes / 1e6:.1f} MB; the table alone would take "
    f"{bytes_ / 1e9:.1f} GB"
)

# %%
# Figure
# ------
# Beside the pictures: their colours, by red and green.

plt.rcParams.update({"font.size": 12})
figure, axes = plt.subplots(
    3, 2, figsize=(7.2, 8.2), layout="constrained", gridspec_kw={"width_ratios": [2.2, 1]}
)
rows = {"the picture": temple, "the colours": flower, "the picture in these colours": painted}
for (left, right), (title, image) in zip(axes, rows.items()):
    left.imshow(image)
    left.set_title(title, fontsize=13)
    left.set_axis_off()
    points = colours(image, 3000)
    right.scatter(points[:, 0], points[:, 1], s=4, c=points, linewidths=0, rasterized=True)
    right.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xticks=[0, 1], yticks=[0, 1])
    right.set_xlabel("red", labelpad=-8)
    right.set_ylabel("green", labelpad=-8)
    right.set_facecolor("0.9")
plt.show()
