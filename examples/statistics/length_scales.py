"""
A Gaussian process that learns its length-scales
================================================

The kernel of a Gaussian process measures each input by a length-scale of its own,

.. math::

    K_{ij} = s^2 \\exp \\Bigl( -\\frac12 \\sum_d (x_{id} - x_{jd})^2 / \\ell_d^2 \\Bigr), \\qquad
    L = \\frac12 b^T (K + \\sigma^2)^{-1} b + \\frac12 \\log \\det (K + \\sigma^2),

and L is least where they fit the samples b. An input that does not matter gets a great length. The
gradient of the logarithm is a trace, whose mean is found from a few random vectors z of signs:

.. math::

    \\nabla L = -\\frac12 a^T (\\nabla K) a + \\frac12 \\, \\mathrm{mean}_z \\; u_z^T (\\nabla K) z,
    \\qquad (K + \\sigma^2) (a, u_z) = (b, z).

So one system with few right-hand sides is all that a step of learning needs, and no matrix.
"""

# %%
# Setup
# -----
# Four inputs, of which the third matters less, and the last not at all.

import time

import matplotlib.pyplot as plt
import torch

from pairfold import Vi, Vj

N, D, PROBES, STEPS, NOISE = 500, 4, 4, 30, 0.2
torch.manual_seed(0)
like = {"dtype": torch.float64}


def truth(x):
    """The function that is to be found, (...)."""
    return (
        torch.sin(9 * x[..., 0]) + 0.6 * (3 * x[..., 1] - 1) ** 2 + 0.4 * torch.cos(4 * x[..., 2])
    )


x = torch.rand(N, D, **like)
mean = truth(x).mean()
b = (truth(x) - mean + NOISE * torch.randn(N, **like))[:, None]
signs = torch.randint(2, (N, PROBES)).to(**like) * 2 - 1

# %%
# The gradient
# ------------


def kernel(x, y, theta):
    """A lazy tensor (M, N); theta has the logarithms of D lengths, of s and of sigma."""
    lengths, scale = theta[:D].exp(), theta[D].exp()
    return (-Vi(x / lengths).sqdist(Vj(y / lengths)) / 2).exp() * scale**2


def surrogate(theta, x, b, probes):
    """A number whose gradient is that of L."""
    given = torch.cat([b, probes], 1)
    noise = (2 * theta[D + 1]).exp()
    with torch.no_grad():
        solved = kernel(x, x, theta).solve(given, alpha=float(noise), eps=1e-3, preconditioner=None)
    product = kernel(x, x, theta) @ given[:, 1:] + noise * given[:, 1:]
    itself = kernel(x, x, theta) @ solved[:, :1] + noise * solved[:, :1]
    trace = (solved[:, 1:] * product).sum() / probes.shape[1]
    return (trace - (solved[:, :1] * itself).sum()) / 2


# %%
# With all unit vectors as probes the trace is exact. On some of the samples this is compared with
# the dense program, which factorises the matrix.

few = 150
theta = torch.tensor([-1.0] * D + [0.0, -1.0], requires_grad=True, **like)
unit = few**0.5 * torch.eye(few, **like)
(ours,) = torch.autograd.grad(surrogate(theta, x[:few], b[:few], unit), theta)
apart = (x[:few, None] - x[:few]) / theta[:D].exp()
table = (2 * theta[D]).exp() * (-(apart**2).sum(-1) / 2).exp()
table = table + (2 * theta[D + 1]).exp() * torch.eye(few, **like)
zero = torch.zeros(few, **like)
likely = torch.distributions.MultivariateNormal(zero, table, validate_args=False)
(dense,) = torch.autograd.grad(-likely.log_prob(b[:few, 0]), theta)
gap = float((ours - dense).abs().max() / dense.abs().max())
print(f"relative difference of the gradient from the dense one: {gap:.1e}")
assert gap < 1e-3

# %%
# Learning
# --------

theta = torch.tensor([-1.0] * D + [0.0, -1.0], requires_grad=True, **like)
descent = torch.optim.Adam([theta], lr=0.15)
way = [theta.detach().exp().clone()]
start = time.perf_counter()
for _ in range(STEPS):
    descent.zero_grad()
    surrogate(theta, x, b, signs).backward()
    descent.step()
    way.append(theta.detach().exp().clone())
seconds = time.perf_counter() - start
way = torch.stack(way).numpy()
print("lengths: " + ", ".join(f"{length:.2f}" for length in way[-1, :D]))
print(f"noise: {way[-1, D + 1]:.3f}, in truth {NOISE}")
assert way[-1, 0] < way[-1, 1] < way[-1, 2]
assert way[-1, 3] > 1 > way[-1, 1]
assert abs(way[-1, D + 1] / NOISE - 1) < 0.15

# %%
# Prediction along the first input, all others being 1/2, with its uncertainty:

ticks = torch.linspace(0, 1, 120, **like)
line = torch.full((len(ticks), D), 0.5, **like)
line[:, 0] = ticks
final = theta.detach()
noise = float((2 * final[D + 1]).exp())
across = kernel(x, line, final) @ torch.eye(len(ticks), **like)  # (N, 120)
solved = kernel(x, x, final).solve(torch.cat([b, across], 1), alpha=noise, eps=1e-5)
middle = across.T @ solved[:, 0] + mean
spread = ((2 * final[D]).exp() - (across * solved[:, 1:]).sum(0)).clamp(min=0).sqrt()
wrong = float((middle - truth(line)).square().mean().sqrt())
print(f"error along the line: {wrong:.3f}")
assert wrong < NOISE / 2
held = x.nbytes + b.nbytes + 2 * signs.nbytes
print(
    f"{N} x {N} pairs, {STEPS} steps in {seconds:.2f} s; arrays of {held / 1e6:.1f} MB, where the "
    f"matrix and its factor would take {2 * 8 * N * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(2, 1, figsize=(7.0, 7.8), layout="constrained")
names = ["input 1", "input 2", "input 3 (matters less)", "input 4 (does not matter)"]
colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
for number, (name, colour) in enumerate(zip(names, colours)):
    upper.semilogy(way[:, number], color=colour, linewidth=2.2)
    upper.text(STEPS + 0.5, way[-1, number], name, color=colour, va="center")
upper.set(
    xlabel="step", ylabel="length-scale", xlim=(0, 1.55 * STEPS), xticks=range(0, STEPS + 1, 10)
)
upper.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
upper.minorticks_off()
lower.fill_between(
    ticks, middle - 2 * spread, middle + 2 * spread, color="#56B4E9", alpha=0.5, linewidth=0
)
near = (x[:, 1:3] - 0.5).abs().max(1).values < 0.15
lower.plot(x[near, 0], b[near, 0] + mean, ".", color="0.6", markersize=5, label="samples nearby")
lower.plot(ticks, truth(line), "--", color="black", linewidth=1.5, label="the truth")
lower.plot(ticks, middle, color="#0072B2", linewidth=2.2, label="prediction")
lower.set(xlabel="input 1", ylabel="value", xlim=(0, 1))
lower.legend(frameon=False, fontsize=12, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))
plt.show()
