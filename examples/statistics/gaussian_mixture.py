"""
A mixture of Gaussians, fitted by gradients
===========================================

The logarithm of a mixture's density is a logarithm of a sum of exponentials over its components,

.. math::

    \\log p(x_i) = \\log \\sum_j w_j \\, |\\det L_j| \\, e^{-|L_j (x_i - m_j)|^2 / 2}
    - \\log 2 \\pi, \\qquad \\sum_j w_j = 1.

Its mean over the points is made as large as possible, by gradients to weights w, middles m and
matrices L. No rule of the EM algorithm is needed: torch differentiates the reduction.
"""

# %%
# Setup
# -----
# Points along a crossing curve, some parts of which are thick.

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse
from sklearn.mixture import GaussianMixture

from pairfold import Vi, Vj

N, PARTS, STEPS = 20_000, 20, 150
rng = np.random.default_rng(0)
torch.manual_seed(0)
angle = rng.uniform(0, 2 * np.pi, N)
curve = np.stack([1.4 * np.sin(angle), np.sin(2 * angle)], 1)
thick = 0.04 + 0.05 * (1 + np.cos(angle))
x = torch.tensor(curve + thick[:, None] * rng.standard_normal((N, 2)), dtype=torch.float32)

# %%
# The mixture
# -----------
# L is a lower triangle whose diagonal is positive.


def entries(raw):
    """The four numbers of each L, (PARTS, 4), and the logarithm of its determinant, (PARTS, 1)."""
    first, below, last = raw.unbind(1)
    zero = torch.zeros_like(below)
    matrices = torch.stack([first.exp(), zero, below, last.exp()], 1)
    return matrices, (first + last)[:, None]


def log_density(x, weights, middles, raw):
    """The logarithm of the density at each point, (N, 1)."""
    matrices, volume = entries(raw)
    heights = torch.log_softmax(weights, 0) + volume - math.log(2 * math.pi)
    apart = Vj(matrices).matvecmult(Vi(x) - Vj(middles))
    return (Vj(heights) - apart.sqnorm2() / 2).logsumexp(axis=1)


weights = torch.zeros(PARTS, 1, requires_grad=True)
middles = x[torch.randperm(N)[:PARTS]].clone().requires_grad_()
raw = torch.tensor([[1.2, 0.0, 1.2]]).repeat(PARTS, 1).requires_grad_()

# %%
# The density of some of the points, and its gradients, by torch's own mixture:

few = x[:500]
lower = entries(raw)[0].view(-1, 2, 2)
parts = torch.distributions.MultivariateNormal(middles, precision_matrix=lower.mT @ lower)
chosen = torch.distributions.Categorical(logits=weights[:, 0])
dense = torch.distributions.MixtureSameFamily(chosen, parts).log_prob(few)
ours = log_density(few, weights, middles, raw)[:, 0]
assert torch.allclose(ours, dense, atol=1e-4)
for mine, right in zip(
    torch.autograd.grad(ours.mean(), (weights, middles, raw)),
    torch.autograd.grad(dense.mean(), (weights, middles, raw)),
):
    assert torch.allclose(mine, right, atol=1e-4)

# %%
# Fitting
# -------

descent = torch.optim.Adam([weights, middles, raw], lr=0.05)
scores = []
start = time.perf_counter()
for _ in range(STEPS):
    descent.zero_grad()
    loss = -log_density(x, weights, middles, raw).mean()
    loss.backward()
    descent.step()
    scores.append(-float(loss.detach()))
seconds = time.perf_counter() - start

# %%
# scikit-learn fits the same model by the EM algorithm:

start = time.perf_counter()
peer = GaussianMixture(PARTS, random_state=0).fit(x.numpy())
longer = time.perf_counter() - start
score = float(peer.score(x.numpy()))
print(f"mean log-density {scores[-1]:.4f} in {seconds:.2f} s; EM: {score:.4f} in {longer:.2f} s")
assert abs(scores[-1] - score) < 0.05
held = x.nbytes + sum(part.nbytes for part in (weights, middles, raw))
print(
    f"{N} x {PARTS} pairs, {STEPS} steps in {seconds:.2f} s; arrays of {held / 1e6:.2f} MB, where "
    f"tables of differences and exponents would take {4 * 3 * N * PARTS / 1e6:.0f} MB, and as "
    "much again for gradients"
)

# %%
# Figure
# ------
# Ellipses hold two standard deviations. Those with much weight are dark.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(7.2, 7.8), layout="constrained", height_ratios=[2.4, 1]
)
upper.plot(*x[:6000].T.numpy(), ".", markersize=2, color="0.6", alpha=0.6, rasterized=True)
with torch.no_grad():
    matrices = entries(raw)[0].view(-1, 2, 2)
    values, axes = (part.numpy() for part in torch.linalg.eigh(matrices.mT @ matrices))
    shares = torch.softmax(weights, 0)[:, 0].numpy()
for middle, value, axis, share in zip(middles.detach().numpy(), values, axes, shares):
    width, height = 4 / np.sqrt(value)
    tilt = np.degrees(np.arctan2(axis[1, 0], axis[0, 0]))
    strength = min(1.0, 0.15 + 0.7 * share / shares.max())
    look = {"facecolor": ("#0072B2", strength), "edgecolor": "black", "linewidth": 1.2}
    upper.add_patch(Ellipse(tuple(middle), width, height, angle=tilt, **look))
upper.set(aspect="equal", xticks=[], yticks=[])
upper.spines[["bottom", "left"]].set_visible(False)
lower.plot(scores, color="#0072B2", linewidth=2.2)
lower.axhline(score, color="#D55E00", linestyle="--", linewidth=1.5)
lower.text(0, score, "by the EM algorithm", color="#D55E00", va="bottom")
lower.set(xlabel="step", ylabel="mean log-density", ylim=(scores[4], score + 0.12))
plt.show()
