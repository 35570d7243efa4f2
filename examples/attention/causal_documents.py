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

D, N, SMALL = 32, 4096, 1024
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
# Times
# -----
# Torch's attention has the last of the masks as a table; it computes all pairs of it.


def least(program, *tensors):
    """The least time of two calls after a first one, which makes code."""
    both(program, *tensors)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        both(program, *tensors)
        times.append(time.perf_counter() - start)
    return min(times)


tensors, sizes = drawn(N), cut(N)
times = {
    name: least(partial(attention, mask=mask), *tensors) for name, mask in masks(sizes).items()
}
dense = partial(scaled_dot_product_attention, attn_mask=tables(sizes)[-1])
times["torch, with a table"] = least(dense, *tensors)
for name, seconds in times.items():
    print(f"{name + ':':21} {1e3 * seconds:6.1f} ms")
share = sum(size * (size + 1) / 2 for size in sizes) / N**2
seconds = times["causal, in documents"]
print(f"{len(sizes)} documents, {100 * share:.1f} % of the pairs count")
print(
    f"{N} x {N} pairs, values and gradients in {seconds:.2f} s; arrays of "
    f"{7 * tensors[0].nbytes / 1e6:.0f} MB, where the table of weights alone would take "
    f"{4 * N**2 / 1e6:.0f} MB"
)

# %%
# Figure
# ------
# The lengths of the documents, as blocks of the table of pairs; and the times.

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(
    2, 1, figsize=(7.0, 8.4), layout="constrained", height_ratios=[1.7, 1]
)
ends = np.cumsum(sizes)
for end, size in zip(ends, sizes):
    corners = [(end - size, end - size), (end - size, end), (end, end)]
    upper.add_patch(plt.Polygon(corners, color="#0072B2", linewidth=0.5))
upper.plot([0, N], [0, N], color="#D55E00", linewidth=1)
upper.text(
    0.97,
    0.95,
    f"{100 * share:.1f} % of the pairs\ncount",
    ha="right",
    va="top",
    transform=upper.transAxes,
)
upper.set(xlim=(0, N), ylim=(N, 0), aspect="equal", xlabel="j", ylabel="i")
milliseconds = 1e3 * np.array(list(times.values()))
colours = ["#E69F00", "#56B4E9", "#0072B2", "0.6"]
lower.barh(list(times), milliseconds, color=colours, height=0.7)
lower.bar_label(lower.containers[0], fmt="%.0f ms", padding=4)
lower.invert_yaxis()
lower.set(xlim=(0, 1.15 * milliseconds.max()), xticks=[])
lower.set_xlabel("values and gradients")
lower.spines["bottom"].set_visible(False)
lower.tick_params(left=False)
plt.show()
