"""
A curve is deformed into another
================================

Points q of a curve move with velocities that are smooth, since they are sums over kernels that the
points carry:

.. math::

    \\dot q_i = \\sum_j e^{-|q_i - q_j|^2 / 2 \\sigma^2} p_j, \\qquad
    \\dot p_i = -\\nabla_{q_i} H, \\qquad
    H(q, p) = \\frac12 \\sum_{i,j} e^{-|q_i - q_j|^2 / 2 \\sigma^2} (p_i | p_j).

The momenta p at the beginning decide all of the motion, which has no folds, whatever they are. We
look for those that carry one curve to another, by gradient descent through the flow. How far
two curves are apart is a kernel's distance of the measures of their segments: neither need have as
many points as the other, nor a numbering that fits.
"""

# %%
# Setup
# -----
# A circle, and the outline of a rounded star, of other numbers of points.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from pairfold import Vi, Vj

M, N, SIGMA, STEPS, ROUNDS = 500, 700, 0.3, 8, 30


def closed(count, radius):
    """A closed curve (count, 2) in polar coordinates."""
    angle = torch.linspace(0, 2 * np.pi, count + 1, dtype=torch.float64)[:-1]
    return radius(angle)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


source = closed(M, lambda angle: torch.ones_like(angle))
target = closed(N, lambda angle: 1.05 + 0.3 * (5 * angle + 0.5).sin() + 0.15 * (2 * angle).cos())

# %%
# The flow
# --------
# The Hamiltonian is a reduction, and its derivatives are two others. They are written down by
# torch: ``create_graph=True`` keeps them differentiable.


def energy(q, p):
    """H(q, p), a number."""
    kernel = (-Vi(q).sqdist(Vj(q)) / (2 * SIGMA**2)).exp()
    return (p * (kernel @ p)).sum() / 2


def flow(q, p):
    """The curve on its way, STEPS + 1 of them, by the midpoint rule."""
    way, pace = [q], 1 / STEPS

    def slopes(q, p):
        to_q, to_p = torch.autograd.grad(energy(q, p), (q, p), create_graph=True)
        return to_p, -to_q

    for _ in range(STEPS):
        half = [z + pace / 2 * slope for z, slope in zip((q, p), slopes(q, p))]
        q, p = (z + pace * slope for z, slope in zip((q, p), slopes(*half)))
        way.append(q)
    return way, p


# %%
# The distance of two curves
# --------------------------
# Each segment is a point, its middle, that weighs as much as it is long.


def segments(curve):
    """Middles (N, 2) and lengths (N, 1)."""
    after = curve.roll(-1, 0)
    return (curve + after) / 2, (after - curve).norm(dim=1, keepdim=True)


def product(first, second, width):
    """The sum over all pairs of segments of a smooth function of their distance."""
    (x, a), (y, b) = first, second
    kernel = 1 / (1 + Vi(x).sqdist(Vj(y)) / width**2)
    return (a * (kernel @ b)).sum()


def apart(curve, other, width=0.15):
    """The squared distance of two curves."""
    first, second = segments(curve), segments(other)
    cross = product(first, second, width)
    return product(first, first, width) + product(second, second, width) - 2 * cross


# %%
# Descent
# -------

q = source.clone().requires_grad_()
p = torch.zeros_like(q, requires_grad=True)
search = torch.optim.LBFGS([p], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")
history = []


def loss():
    """The distance at the end, with a small price of the motion."""
    search.zero_grad()
    way, _ = flow(q, p)
    value = apart(way[-1], target) + 1e-4 * energy(q, p)
    value.backward()
    history.append(float(apart(way[-1], target).detach()))
    return value


start = time.perf_counter()
search.step(loss)
seconds = time.perf_counter() - start
way, momenta = flow(q, p)
begun, ended = float(energy(q, p).detach()), float(energy(way[-1], momenta).detach())
print(f"distance {history[0]:.3f} -> {history[-1]:.5f} in {len(history)} flows")
print(f"the energy of the motion is kept to {abs(ended / begun - 1):.1e} of it")
assert history[-1] < 0.02 * history[0]
assert abs(ended / begun - 1) < 0.05

# %%
# One velocity field from its table:

table = torch.exp(-((source[:, None] - source) ** 2).sum(-1) / (2 * SIGMA**2))
ours = (-Vi(source).sqdist(Vj(source)) / (2 * SIGMA**2)).exp() @ p.detach()
assert torch.allclose(ours, table @ p.detach(), rtol=1e-10)
per_flow = 2 * STEPS * 8 * M * M
print(
    f"{M} points, {len(history)} flows of {2 * STEPS} reductions and their gradients in "
    f"{seconds:.2f} s; p takes {p.nbytes / 1e3:.0f} kB, the tables of kernels of one flow would "
    f"take {per_flow / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# A grid goes with the curve, carried by the same velocities.

ticks = torch.linspace(-1.7, 1.7, 35, dtype=torch.float64)
grid = torch.cartesian_prod(ticks, ticks)
with torch.no_grad():
    moving = [z.detach() for z in (q, p)]
for _ in range(STEPS):
    points, momentum = (z.requires_grad_() for z in moving)
    to_q, to_p = torch.autograd.grad(energy(points, momentum), (points, momentum))
    with torch.no_grad():
        velocity = (-Vi(grid).sqdist(Vj(points)) / (2 * SIGMA**2)).exp() @ momentum
        grid = grid + velocity / STEPS
        moving = [points + to_p / STEPS, momentum - to_q / STEPS]

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(figsize=(6.6, 6.6), layout="constrained")
lines = grid.view(len(ticks), len(ticks), 2).numpy()
for some in (lines, lines.swapaxes(0, 1)):
    axis.plot(some[..., 0].T, some[..., 1].T, color="0.8", linewidth=0.7)


def outline(curve, **look):
    ends = torch.cat([curve, curve[:1]]).detach()
    axis.plot(*ends.T.numpy(), **look)


outline(source, color="0.4", linewidth=1.5, label="beginning")
for step in range(1, STEPS):
    outline(way[step], color="#56B4E9", linewidth=0.9, label="on the way" if step == 1 else None)
outline(target, color="#E69F00", linewidth=6, alpha=0.6, label="target")
outline(way[-1], color="#0072B2", linewidth=1.8, label="end")
axis.legend(loc="upper right", framealpha=0.9)
axis.set(aspect="equal", xlim=(-1.8, 1.8), ylim=(-1.8, 1.8))
axis.set_axis_off()
plt.show()
