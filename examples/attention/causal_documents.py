"""
Attention within documents, forward and backward
================================================

Many documents are packed into one sequence. Each position i means the values v_j of the positions
before it in its own document, with soft-max weights,

.. math::

    a_i = \\sum_{j \\in S_i} e^{(q_i | k_j) / \\sqrt{D}} v_j \\Big/
    \\sum_{j \\in S_i} e^{(q_i | k_j) / \\sqrt{D}}.

A mask says which positions S_i are. Blocks of pairs that it leaves out are not met, forward or
backward, so time follows the number of pairs that are left, and memory the number of positions.
"""

# %%
# Setup
# -----
# Documents of very different lengths, as texts have.

import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from pairfold import Vi, Vj, causal, lengths

D, SIZES, SMALL = 32, [512, 1024, 2048, 4096], 1024
rng = np.random.default_rng(0)
torch.manual_seed(0)


def cut(positions):
    """Lengths of documents that are as long together as `positions`."""
    sizes = []
    while sum(sizes) < positions:
        sizes.append(min(int(rng.lognormal(5, 1)) + 8, positions - sum(sizes)))
    return sizes


def masks(sizes):
    """Which pairs count, by name."""
    return {
        "all pairs": None,
        "causal": causal(),
        "causal, in documents": causal() & lengths(sizes),
    }


def tables(sizes):
    """The same as tables of truth values."""
    documents = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    i = torch.arange(len(documents))
    before, together = i[:, None] >= i, documents[:, None] == documents
    return [torch.ones_like(before), before, before & together]


# %%
# Values and gradients
# --------------------


def attention(q, k, v, mask=None):
    """The means, (N, D)."""
    scores = (Vi(q) | Vj(k)) / D**0.5
    return (scores.softmax(1) if mask is None else scores.softmax(1, where=mask)) @ v


def both(program, *tensors):
    """Values, and the gradients of the sum of their squares."""
    for tensor in tensors:
        tensor.grad = None
    values = program(*tensors)
    values.square().sum().backward()
    return [values.detach(), *(tensor.grad for tensor in tensors)]


def drawn(positions):
    """Queries, keys and values that ask for gradients."""
    return [torch.randn(positions, D, requires_grad=True) for _ in range(3)]


# %%
# First the same as torch's own attention with tables of truth values, in values and in gradients:

sizes = cut(SMALL)
tensors, gap = drawn(SMALL), 0.0
for mask, table in zip(masks(sizes).values(), tables(sizes)):
    ours = both(partial(attention, mask=mask), *tensors)
    dense = both(partial(scaled_dot_product_attention, attn_mask=table), *tensors)
    for one, other in zip(ours, dense):
        gap = max(gap, float((one - other).abs().max() / other.abs().max()))
print(f"largest relative difference from torch, values and gradients: {gap:.1e}")
assert gap < 1e-4

# %%
# Times as sequences become longer
# --------------------------------


def least(program, *tensors):
    """The least time of two calls after a first one, which makes code."""
    both(program, *tensors)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        both(program, *tensors)
        times.append(time.perf_counter() - start)
    return min(times)


times = {"torch, dense": []} | {name: [] for name in masks([1])}
for positions in SIZES:
    tensors, sizes = drawn(positions), cut(positions)
    for name, mask in masks(sizes).items():
        times[name].append(least(partial(attention, mask=mask), *tensors))
    dense = partial(scaled_dot_product_attention, attn_mask=tables(sizes)[-1])
    times["torch, dense"].append(least(dense, *tensors))
share = sum(size * (size + 1) / 2 for size in sizes) / SIZES[-1] ** 2
seconds = times["causal, in documents"][-1]
print(f"{len(sizes)} documents, {100 * share:.1f} % of the pairs")
print(
    f"{SIZES[-1]} x {SIZES[-1]} pairs, values and gradients in {seconds:.2f} s; arrays of "
    f"{7 * tensors[0].nbytes / 1e6:.0f} MB, where the table of weights alone would take "
    f"{4 * SIZES[-1] ** 2 / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The lengths of the documents, as blocks of the table of pairs; and the times.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (left, right) = plt.subplots(
    2, 1, figsize=(7.0, 9.6), layout="constrained", height_ratios=[1.1, 1]
)
ends = np.cumsum(sizes)
for end, size in zip(ends, sizes):
    corners = [(end - size, end - size), (end - size, end), (end, end)]
    left.add_patch(plt.Polygon(corners, color="#0072B2", linewidth=0.5))
left.plot([0, SIZES[-1]], [0, SIZES[-1]], color="#D55E00", linewidth=1)
left.text(
    0.97,
    0.95,
    f"{100 * share:.1f} % of the pairs\nare met",
    ha="right",
    va="top",
    transform=left.transAxes,
)
left.set(xlim=(0, SIZES[-1]), ylim=(SIZES[-1], 0), aspect="equal", xlabel="j", ylabel="i")
looks = {
    "torch, dense": "#CC79A7",
    "all pairs": "#D55E00",
    "causal": "#E69F00",
    "causal, in documents": "#0072B2",
}
for name, colour in looks.items():
    right.loglog(SIZES, times[name], "o-", color=colour, linewidth=2.2)
    right.text(1.08 * SIZES[-1], times[name][-1], name, color=colour, va="center")
right.set(xlabel="positions", ylabel="seconds, with gradients", xlim=(None, 4.5 * SIZES[-1]))
right.set_xticks(SIZES, [str(size) for size in SIZES])
right.minorticks_off()
plt.show()
