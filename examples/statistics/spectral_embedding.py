"""
The circle in pictures of a digit
=================================

Pictures of one digit, turned by angles that nobody tells us, are points of a space of 256
dimensions. They lie on a closed curve there. Spectral embedding finds it: the first eigenvectors
but one of

.. math::

    S = D^{-1/2} K D^{-1/2}, \\qquad K_{ij} = e^{-|x_i - x_j|^2 / 2 \\sigma^2}, \\qquad
    D = \\mathrm{diag}(K 1),

are new coordinates of the pictures. SciPy's ``eigsh`` finds them from products with a lazy tensor.
"""

# %%
# Setup
# -----
# One of scikit-learn's digits, enlarged, turned, and with noise on every pixel.

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.ndimage import rotate, zoom
from scipy.sparse.linalg import eigsh
from sklearn.datasets import load_digits

from pairfold import Vi, Vj, exclude_self
from pairfold.linalg import aslinearoperator

N, SIDE, NOISE = 2000, 16, 0.08
rng = np.random.default_rng(0)
digits = load_digits()
digit = zoom(digits.images[digits.target == 5][0] / 16, SIDE / 8, order=1)
turns = rng.uniform(0, 2 * np.pi, N)
images = np.stack([rotate(digit, np.degrees(turn), reshape=False, order=1) for turn in turns])
images += NOISE * rng.standard_normal(images.shape)
x = images.reshape(N, -1).astype("float32")

# %%
# The width
# ---------
# It is the mean distance of the tenth neighbour, so that every picture is linked to some others,
# and to no more.

squared = Vi(x).sqdist(Vj(x))
tenth = squared.Kmin(10, axis=1, where=exclude_self())[:, -1]
width = float(np.sqrt(tenth).mean())
print(f"width {width:.2f}; distances are up to {float(np.sqrt(squared.max(axis=1).max())):.1f}")

# %%
# The embedding
# -------------

kernel = (-squared / (2 * width**2)).exp()
scale = kernel.sum(axis=1) ** -0.5
start = time.perf_counter()
values, vectors = eigsh(aslinearoperator(Vi(scale) * kernel * Vj(scale)), 4, tol=1e-4)
seconds = time.perf_counter() - start
order = np.argsort(-values)
values, vectors = values[order], vectors[:, order] * scale
print("eigenvalues: " + " ".join(f"{value:.4f}" for value in values))

some = np.arange(300)
table = ((x[some, None].astype(float) - x[some]) ** 2).sum(-1)
ours = (-Vi(x[some]).sqdist(Vj(x[some])) / (2 * width**2)).exp() @ vectors[some, 1:3]
assert np.allclose(ours, np.exp(-table / (2 * width**2)) @ vectors[some, 1:3], atol=1e-5)

# %%
# The angle in the plane of two eigenvectors is that of the digit, but for where it begins and for
# its sense:

plane = vectors[:, 1:3] / np.abs(vectors[:, 1:3]).max(0)
found = np.arctan2(plane[:, 1], plane[:, 0])
sense = max((1, -1), key=lambda sign: abs(np.exp(1j * (found - sign * turns)).mean()))
offset = np.exp(1j * (found - sense * turns)).mean()
wrong = np.abs(np.angle(np.exp(1j * (found - sense * turns)) / offset))
print(f"mean error of the angle: {np.degrees(wrong.mean()):.1f} degrees")
assert np.degrees(wrong.mean()) < 25
print(
    f"{N} x {N} pairs of {x.shape[1]} numbers, 4 eigenvectors in {seconds:.2f} s, into "
    f"{vectors.nbytes / 1e3:.0f} kB; the matrix alone would take {4 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Points are pictures, in the colour of their angle, which the method did not know.

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(figsize=(7.2, 7.6), layout="constrained")
shown = axis.scatter(*plane.T, c=np.degrees(turns), cmap="twilight", s=10, vmin=0, vmax=360)
for direction in np.linspace(-np.pi, np.pi, 16, endpoint=False):
    nearest = np.abs(np.angle(np.exp(1j * (found - direction)))).argmin()
    box = AnnotationBbox(
        OffsetImage(images[nearest], zoom=2.6, cmap="gray_r"),
        plane[nearest],
        1.45 * np.array([np.cos(direction), np.sin(direction)]),
        arrowprops={"arrowstyle": "-", "color": "0.6"},
        pad=0.1,
    )
    axis.add_artist(box)
axis.set(aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7))
axis.set(xticks=[], yticks=[], xlabel="eigenvector 2", ylabel="eigenvector 3")
figure.colorbar(
    shown, label="angle of the digit", ticks=range(0, 361, 90), location="top", shrink=0.6
)
plt.show()
