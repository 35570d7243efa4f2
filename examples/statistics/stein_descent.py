"""
Stein variational gradient descent
==================================

Particles are to be spread as a density p, of which only the gradient of the logarithm is known.
Each is drawn uphill by what all others feel, and pushed away by them:

.. math::

    x_i \\leftarrow x_i + \\frac{\\tau}{M} \\sum_j k(x_i, x_j) \\Bigl(
        \\nabla \\log p(x_j) + \\frac{x_i - x_j}{h^2} \\Bigr), \\qquad
    k(x, y) = e^{-|x - y|^2 / 2 h^2}.

A step is one reduction of all pairs. Unlike random walks, particles end evenly spaced.
"""

# %%
# Setup
# -----
# A ring with three heavier parts, whose normalisation nobody knows.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from pairfold import Vi, Vj

M, STEPS, PACE, WIDTH = 1000, 300, 0.1, 0.25
torch.manual_seed(0)


def log_p(x):
    """The logarithm of the density, up to a constant, (...)."""
    radius = x.norm(dim=-1)
    wave = torch.cos(3 * torch.atan2(x[..., 1], x[..., 0]) - np.pi / 2)
    return -((radius - 1.5) ** 2) / (2 * 0.25**2) + wave


def slopes(x):
    """The gradient of log p at each particle, (M, 2)."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_p(x).sum(), x)[0]


def direction(x, uphill):
    """Where each particle goes, (M, 2)."""
    apart = Vi(x) - Vj(x)
    kernel = (-(apart**2).sum(-1) / (2 * WIDTH**2)).exp()
    return (kernel * (Vj(uphill) + apart / WIDTH**2)).sum(axis=1) / len(x)


# %%
# The descent
# -----------
# All particles begin in one corner. Steps are scaled by Adam, as is usual.

x = torch.tensor([1.0, -1.2]) + 0.3 * torch.randn(M, 2)
few = x[:300]
kernel = torch.exp(-((few[:, None] - few) ** 2).sum(-1) / (2 * WIDTH**2))
pushed = kernel.sum(1, keepdim=True) * few - kernel @ few
dense = (kernel @ slopes(few) + pushed / WIDTH**2) / len(few)
assert torch.allclose(direction(few, slopes(few)), dense, rtol=1e-3, atol=1e-3)

descent = torch.optim.Adam([x], lr=PACE)
shown = {0: x.clone()}
start = time.perf_counter()
for step in range(1, STEPS + 1):
    x.grad = -direction(x, slopes(x))
    descent.step()
    if step in (20, 80, STEPS):
        shown[step] = x.clone()
seconds = time.perf_counter() - start

# %%
# Means over the particles, beside integrals over a fine grid:

ticks = torch.linspace(-3, 3, 301)
grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
density = torch.softmax(log_p(grid).flatten(), 0).view(301, 301)
functions = {
    "x": lambda z: z[..., 0],
    "y": lambda z: z[..., 1],
    "|x|^2": lambda z: (z**2).sum(-1),
    "log p": log_p,
}
for name, function in functions.items():
    ours, right = float(function(x).mean()), float((density * function(grid)).sum())
    print(f"mean of {name + ':':7} {ours:7.3f}, of the density {right:7.3f}")
    assert abs(ours - right) < 0.25
print(
    f"{M} x {M} pairs, {STEPS} steps in {seconds:.2f} s; particles take {x.nbytes / 1e3:.0f} kB, "
    f"the table of pushes of one step would take {8 * M * M / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axes = plt.subplots(2, 2, figsize=(7.2, 7.6), layout="constrained")
for axis, (step, particles) in zip(axes.flat, shown.items()):
    axis.contourf(ticks.numpy(), ticks.numpy(), density.numpy(), 8, cmap="Blues", alpha=0.8)
    axis.plot(*particles.T.numpy(), ".", markersize=3, color="#D55E00", rasterized=True)
    axis.set_title(f"step {step}", fontsize=13)
    axis.set(aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[], yticks=[])
plt.show()
