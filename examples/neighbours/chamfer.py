"""
How far two surfaces are apart
==============================

The Chamfer distance of two clouds is the mean squared distance of each point to the nearest of the
other cloud, both ways:

.. math::

    C = \\frac{1}{M} \\sum_i \\min_j |x_i - y_j|^2 + \\frac{1}{N} \\sum_j \\min_i |x_i - y_j|^2.

Its gradient follows the pairs that were selected. By it a sphere is drawn onto a torus. How near
they are is also said by a search within a radius: the share of points that have one of the other
cloud near them.
"""

# %%
# Setup
# -----

import time

import matplotlib.pyplot as plt
import torch

from pairfold import Vi, Vj, radius

M, N, STEPS, NEAR = 3000, 4000, 80, 0.08
torch.manual_seed(0)
begin = torch.nn.functional.normalize(torch.randn(M, 3), dim=1) * 0.9
p, q = 2 * torch.pi * torch.rand(2, N)
ring = 0.75 + 0.3 * q.cos()
y = torch.stack([ring * p.cos(), ring * p.sin(), 0.3 * q.sin()], 1)

# %%
# The distance
# ------------


def chamfer(x, y):
    """The Chamfer distance, a number with a gradient."""
    apart = Vi(x).sqdist(Vj(y))
    return apart.min(axis=1).mean() + apart.min(axis=0).mean()


def covered(x, y):
    """The shares of x near y, and of y near x."""
    apart = Vi(x).sqdist(Vj(y))
    within = radius(x, y, NEAR)
    counts = [apart.count(axis=axis, where=within) for axis in (1, 0)]
    return [float((count > 0).double().mean()) for count in counts]


# %%
# The dense program for some of the points, value and gradient:

few = begin[:300].double().requires_grad_()
other = y[:400].double()
table = (few[:, None] - other).square().sum(2)
dense = table.min(1).values.mean() + table.min(0).values.mean()
(right,) = torch.autograd.grad(dense, few)
found = chamfer(few, other)
(ours,) = torch.autograd.grad(found, few)
assert torch.allclose(found, dense)
assert torch.allclose(ours, right)
print(f"relative difference of the gradient: {float((ours - right).norm() / right.norm()):.1e}")

# %%
# From a sphere to a torus
# ------------------------

x = begin.clone().requires_grad_()
descent = torch.optim.Adam([x], lr=0.02)
shares, values = [covered(begin, y)], []
start = time.perf_counter()
for _ in range(STEPS):
    descent.zero_grad()
    value = chamfer(x, y)
    value.backward()
    descent.step()
    values.append(float(value.detach()))
seconds = time.perf_counter() - start
shares.append(covered(x.detach(), y))
print(f"Chamfer distance from {values[0]:.4f} to {values[-1]:.6f}")
for name, (one, two) in zip(("before", "after"), shares):
    print(f"{name}: {100 * one:.0f} % of the sphere and {100 * two:.0f} % of the torus are near")
assert values[-1] < 0.05 * values[0]
assert min(shares[1]) > 0.9
print(
    f"{M} x {N} pairs, {STEPS} values and gradients in {seconds:.2f} s; arrays of "
    f"{(2 * x.nbytes + y.nbytes) / 1e6:.2f} MB, where the table of distances alone would take "
    f"{4 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# Points by the height at which they began.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(7.2, 7.2), layout="constrained")
grid = figure.add_gridspec(2, 2, height_ratios=[1.25, 1])
clouds = {"the sphere": begin, f"after {STEPS} steps": x.detach()}
for column, (title, cloud) in enumerate(clouds.items()):
    axis = figure.add_subplot(grid[0, column], projection="3d")
    axis.scatter(*cloud.T.numpy(), c=begin[:, 2], s=3, cmap="viridis", rasterized=True)
    axis.set_title(title, fontsize=13)
    axis.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), zlim=(-0.9, 0.9))
    axis.set_box_aspect((1, 1, 1), zoom=1.3)
    axis.view_init(elev=42)
    axis.set_axis_off()
axis = figure.add_subplot(grid[1, :])
axis.semilogy(values, color="#0072B2", linewidth=2.2)
axis.set(xlabel="step", ylabel="Chamfer distance", xlim=(0, STEPS))
plt.show()
