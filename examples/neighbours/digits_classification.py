"""
Digits by their nearest neighbours
==================================

A picture x_i is given the label that most of its K nearest known pictures y_j have,

.. math::

    \\operatorname{argmin}_j^{(K)} \\, |x_i - y_j|^2.

``Kmin_argKmin`` finds them, with their distances. More known pictures make the vote better: we add
copies that are moved by a pixel, and look at the mistakes that are left.
"""

# %%
# Setup
# -----
# scikit-learn's digits: the first half is known, the second is to be read.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from pairfold import Vi, Vj

K = 5
digits = load_digits()
half = len(digits.target) // 2
known, labels = digits.images[:half], digits.target[:half]
asked, truth = digits.images[half:], digits.target[half:]
moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
more, more_labels = np.concatenate([np.roll(known, m, (1, 2)) for m in moves]), np.tile(labels, 9)


def flat(pictures):
    """Pixels in a row, (N, 64)."""
    return pictures.reshape(len(pictures), -1).astype("float32")


# %%
# The vote
# --------


def read(pictures, known, labels):
    """What the neighbours say, their squared distances, and which they are, (M, K)."""
    apart, near = Vi(flat(pictures)).sqdist(Vj(flat(known))).Kmin_argKmin(K, axis=1)
    votes = (labels[near][..., None] == np.arange(10)).sum(1)
    return votes.argmax(1), apart, near


said, apart, _ = read(asked, known, labels)
start = time.perf_counter()
said_by_more, _, near = read(asked, more, more_labels)
seconds = time.perf_counter() - start
first, second = np.mean(said == truth), np.mean(said_by_more == truth)
print(f"{100 * first:.1f} % are right with {half} known pictures")
print(f"{100 * second:.1f} % are right with {len(more)} known pictures")
assert 0.9 < first < second

# %%
# scikit-learn's classifier finds neighbours at the same distances, and reads the same digits but
# where several pictures are equally near.

peer = KNeighborsClassifier(K, algorithm="brute").fit(flat(known), labels)
assert np.allclose(np.sqrt(apart), peer.kneighbors(flat(asked))[0], rtol=1e-5)
assert np.mean(peer.predict(flat(asked)) == said) > 0.99
print(
    f"{len(asked)} x {len(more)} pairs of 64 numbers in {seconds:.2f} s; arrays of "
    f"{(flat(asked).nbytes + flat(more).nbytes + near.nbytes) / 1e6:.1f} MB, where the table of "
    f"distances alone would take {4 * len(asked) * len(more) / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Some mistakes, with the neighbours that voted, those for another digit in orange.

mistakes = np.flatnonzero(said_by_more != truth)
print(f"{len(mistakes)} mistakes are left")
shown = mistakes[:6]
plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(len(shown), K + 1, figsize=(7.2, 8.4), layout="constrained")
for place, row in zip(shown, axes):
    pictures = [asked[place], *more[near[place]]]
    names = [truth[place], *more_labels[near[place]]]
    for axis, picture, name in zip(row, pictures, names):
        axis.imshow(picture, cmap="gray_r" if axis is row[0] else "Blues")
        right = name == truth[place]
        axis.set_title(name, fontsize=13, color="black" if right else "#D55E00", pad=2)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
    row[0].set_ylabel(f"read as {said_by_more[place]}", color="#D55E00")
axes[-1, 0].set_xlabel("asked")
axes[-1, 3].set_xlabel("its nearest neighbours")
plt.show()
