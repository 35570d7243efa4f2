"""
How much of a search is skipped
===============================

A search for nearest neighbours puts points in order along a curve and cuts them into blocks. Bounds
of the formula say which blocks of pairs may hold a neighbour; the others are skipped, and results
stay those of all pairs. How many that are depends on the data: near points are far from most
others in a plane, but in a space of many dimensions all points are about as far.

What counts is the dimension of what the points fill, not that of the space: we compare clouds that
fill a cube of D dimensions with a surface that is bent in D dimensions.
"""

# %%
# Setup
# -----

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred, settings

M, N, K = 6000, 12_000, 5
DIMENSIONS = [1, 2, 3, 4, 5, 6, 8]
rng = np.random.default_rng(0)


def cube(count, D):
    """Points that fill a cube, (count, D)."""
    return rng.random((count, D)).astype("float32")


def surface(count, D):
    """Points of a sphere in space, seen by D bent coordinates, (count, D)."""
    points = rng.standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ways = np.random.default_rng(D).standard_normal((3, D))
    return np.tanh(points @ ways).astype("float32")


# %%
# Blocks and times
# ----------------
# ``explain()`` makes the search and tells how many blocks were met. ``prune="always"`` does not ask
# whether it pays, ``prune="never"`` meets all pairs.


def searched(cloud, D):
    """The share of blocks that are met, and the least times with it and without."""
    x, y = cloud(M, D), cloud(N, D)
    search = Genred("SqDist(x,y)", [f"x = Vi({D})", f"y = Vj({D})"], "KMin", axis=1, opt_arg=K)
    results, times = [], []
    for prune in ("always", "never"):
        with settings(prune=prune):
            search(x, y)  # code is made in the first call
            each = []
            for _ in range(3):
                start = time.perf_counter()
                result = search(x, y)
                each.append(time.perf_counter() - start)
            results.append(result)
            times.append(min(each))
    assert np.array_equal(*results)
    some = np.arange(0, M, 200)
    table = ((x[some, None].astype(float) - y) ** 2).sum(2)
    assert np.allclose(results[0][some], np.sort(np.partition(table, K, 1)[:, :K], 1), rtol=1e-4)
    with settings(prune="always"):
        met, blocks = search.explain(x, y).subject.searched
    return met / blocks, *times


start = time.perf_counter()
found = {}
for name, cloud, dims in (("cube", cube, DIMENSIONS), ("surface", surface, DIMENSIONS[2:])):
    found[name] = np.array([searched(cloud, D) for D in dims])
    for D, (share, skipping, all_pairs) in zip(dims, found[name]):
        print(
            f"{name}, D = {D}: {100 * share:5.1f} % of blocks, {1e3 * skipping:4.0f} ms, all pairs "
            f"{1e3 * all_pairs:4.0f} ms"
        )
seconds = time.perf_counter() - start
assert (np.diff(found["cube"][:, 0]) > 0).all()
assert found["surface"][-1, 0] < 0.5 * found["cube"][-1, 0]
print(
    f"{M} x {N} pairs, {sum(map(len, found.values()))} clouds in {seconds:.2f} s; arrays of "
    f"{4 * (M + N) * DIMENSIONS[-1] / 1e6:.1f} MB at most, where the table alone would take "
    f"{4 * M * N / 1e6:.0f} MB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
figure, (upper, lower) = plt.subplots(2, 1, figsize=(7.0, 7.6), layout="constrained", sharex=True)
looks = {"cube": ("#D55E00", "points fill a cube"), "surface": ("#0072B2", "points of a surface")}
for name, (colour, words) in looks.items():
    dims = DIMENSIONS[-len(found[name]) :]
    share, skipping, all_pairs = found[name].T
    upper.plot(dims, 100 * share, "o-", color=colour, linewidth=2.2)
    upper.text(dims[-1], 100 * share[-1] + 4, words, color=colour, ha="right")
    lower.plot(dims, all_pairs / skipping, "o-", color=colour, linewidth=2.2)
lower.axhline(1, color="0.5", linestyle="--", linewidth=1)
lower.text(1, 1.08, "as long as all pairs", color="0.35")
upper.set(ylabel="% of blocks met", ylim=(0, 108))
lower.set(xlabel="dimensions of the space", ylabel="times faster", yscale="log")
lower.yaxis.set_major_formatter("{x:g}")
plt.show()
