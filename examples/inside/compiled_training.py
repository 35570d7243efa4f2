"""
A training loop, compiled
=========================

``torch.compile`` takes functions with reductions in them as one graph, forward and backward. The
model here is a sum of K bumps in the plane, whose places, widths and heights are all learned,

.. math::

    f(x) = \\sum_k h_k \\, / \\, (1 + w_k |x - c_k|^2)^2, \\qquad h_k \\in R^3,

and the data are the pixels of a picture: f(x) is a colour. No step stores the table of pixels and
bumps, nor do its gradients.
"""

# %%
# Setup
# -----
# The flower that scikit-learn brings along, at a quarter of its width, as pixels with places.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_image

from pairfold import Vi, Vj

K, STEPS, PACE = 1000, 100, 0.02
torch.manual_seed(0)
picture = load_sample_image("flower.jpg")[::4, ::4].astype("float32") / 255
height, width = picture.shape[:2]
down, right = np.mgrid[:height, :width]
x = torch.tensor(np.stack([right, down], -1).reshape(-1, 2) / width, dtype=torch.float32)
colours = torch.tensor(picture.reshape(-1, 3))

# %%
# The model
# ---------


def model(x, centres, widths, heights):
    """Colours (M, 3) at places (M, 2); ``widths`` are logarithms of w."""
    bumps = (1 + Vi(x).sqdist(Vj(centres)) * Vj(widths.exp())).inv().square()
    return 0.5 + bumps @ heights


def loss(x, colours, centres, widths, heights):
    """The mean squared error."""
    return ((model(x, centres, widths, heights) - colours) ** 2).mean()


chosen = torch.randperm(len(x))[:K]
parameters = [
    x[chosen].clone(),
    torch.full((K, 1), np.log(2 * K)),
    0.3 * (colours[chosen] - 0.5),
]
for parameter in parameters:
    parameter.requires_grad_()

# %%
# Compilation
# -----------
# ``fullgraph=True`` would say so if something had to stay outside of the graph. The backend
# ``"aot_eager"`` makes both passes graphs without a C++ compiler; ``"inductor"``, torch's default,
# also compiles what lies between the reductions, and needs one.

start = time.perf_counter()
compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
first = compiled(x, colours, *parameters)
slopes = torch.autograd.grad(first, parameters)
compilation = time.perf_counter() - start

plain = torch.autograd.grad(loss(x, colours, *parameters), parameters)
for ours, theirs in zip(slopes, plain):
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))
some = torch.arange(0, len(x), 400)
squared = ((x[some, None] - parameters[0]) ** 2).sum(-1)
table = (1 + squared * parameters[1].exp().T) ** -2
dense = 0.5 + table @ parameters[2]
assert torch.allclose(model(x[some], *parameters), dense, atol=1e-4)

# %%
# Training
# --------

search = torch.optim.Adam(parameters, lr=PACE)
history = []
start = time.perf_counter()
for step in range(STEPS):
    for group in search.param_groups:
        group["lr"] = PACE * (1 - step / STEPS)
    search.zero_grad()
    value = compiled(x, colours, *parameters)
    value.backward()
    search.step()
    history.append(float(value.detach()))
seconds = time.perf_counter() - start
painted = model(x, *parameters).detach().numpy().reshape(picture.shape).clip(0, 1)
learned = sum(parameter.nbytes for parameter in parameters)
print(f"error {history[0] ** 0.5:.3f} -> {history[-1] ** 0.5:.3f} of a colour's range")
assert history[-1] < 0.1 * history[0]
print(
    f"compiled in {compilation:.1f} s; {STEPS} steps over {len(x)} x {K} pairs in {seconds:.2f} s; "
    f"{learned / 1e3:.0f} kB are learned, the table of one step would take "
    f"{4 * len(x) * K / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure = plt.figure(figsize=(6.2, 10.4), layout="constrained")
pictures = {"the picture": picture, f"{K} bumps": painted}
axes = figure.subplots(3, 1, height_ratios=[1, 1, 0.5])
for axis, (title, image) in zip(axes, pictures.items()):
    axis.imshow(image)
    axis.set_title(title, fontsize=13)
    axis.set_axis_off()
axes[2].semilogy(np.sqrt(history), color="#0072B2", linewidth=2)
axes[2].set(xlabel="step", ylabel="error", xlim=(0, STEPS))
plt.show()
