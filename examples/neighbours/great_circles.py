"""
The nearest station on a globe
==============================

Distances on a globe follow great circles. Of places with latitude and longitude in radians, the
haversine formula gives the angle d between them, without loss of digits for near ones:

.. math::

    \\sin^2 \\frac{d}{2} = \\sin^2 \\frac{p_i - p_j}{2}
    + \\cos p_i \\cos p_j \\sin^2 \\frac{q_i - q_j}{2}.

It is a formula as any other. Searches look at its bounds over boxes of places, so that most pairs
are never computed, without a tree that knows great circles.
"""

# %%
# Setup
# -----
# Stations lie in groups. Places are those of a grid over the whole globe.

import time

import matplotlib.pyplot as plt
import numpy as np

from pairfold import Genred

STATIONS, TALL, WIDE, RADIUS = 4000, 181, 360, 6371.0
rng = np.random.default_rng(2)


def sphere(points):
    """Latitudes and longitudes of points, (N, 2)."""
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return np.stack([np.arcsin(points[:, 2]), np.arctan2(points[:, 1], points[:, 0])], 1)


groups = rng.standard_normal((14, 3))
groups /= np.linalg.norm(groups, axis=1, keepdims=True)
around = groups[rng.integers(0, 14, STATIONS)]
stations = sphere(around + rng.gamma(1.5, 0.12, (STATIONS, 1)) * rng.standard_normal((STATIONS, 3)))
latitudes = np.linspace(-np.pi / 2, np.pi / 2, TALL)
longitudes = np.linspace(-np.pi, np.pi, WIDE + 1)
places = np.stack(np.meshgrid(latitudes, longitudes, indexing="ij"), -1).reshape(-1, 2)

# %%
# The search
# ----------
# ``Elem(x,0)`` is the latitude. Of sines of halves squared only the least is looked for, which is
# that of the least angle.

HAVERSINE = (
    "Square(Sin((Elem(x,0)-Elem(y,0))/2))"
    "+ Cos(Elem(x,0))*Cos(Elem(y,0))*Square(Sin((Elem(x,1)-Elem(y,1))/2))"
)
search = Genred(HAVERSINE, ["x = Vi(2)", "y = Vj(2)"], "Min_ArgMin", axis=1)
search(places, stations)  # code is made in the first call
start = time.perf_counter()
least, nearest = search(places, stations)
seconds = time.perf_counter() - start
apart = 2 * RADIUS * np.arcsin(np.sqrt(least[:, 0]))
print(next(line for line in str(search.explain(places, stations)).splitlines() if "search" in line))

# %%
# Some of the places again, from angles between unit vectors in space:


def vectors(places):
    """Unit vectors, (N, 3)."""
    p, q = places.T
    return np.stack([np.cos(p) * np.cos(q), np.cos(p) * np.sin(q), np.sin(p)], 1)


some = rng.choice(len(places), 500, replace=False)
chords = np.linalg.norm(vectors(places[some])[:, None] - vectors(stations), axis=2)
right = 2 * RADIUS * np.arcsin(chords.min(1) / 2)
print(f"largest difference from unit vectors: {np.abs(apart[some] - right).max():.1e} km")
assert np.allclose(apart[some], right, rtol=1e-9, atol=1e-6)
print(f"the loneliest place is {apart.max():.0f} km from any station")
print(
    f"{len(places)} x {STATIONS} pairs in {seconds:.2f} s; arrays of "
    f"{(places.nbytes + stations.nbytes + least.nbytes + nearest.nbytes) / 1e6:.1f} MB, where the "
    f"table alone would take {8 * len(places) * STATIONS / 1e9:.1f} GB"
)

# %%
# Figure
# ------

plt.rcParams.update({"font.size": 13})
figure, axis = plt.subplots(
    figsize=(7.2, 5.0), layout="constrained", subplot_kw={"projection": "mollweide"}
)
picture = apart.reshape(TALL, WIDE + 1)
drawn = axis.contourf(longitudes, latitudes, picture, 16, cmap="cividis_r")
axis.plot(*stations.T[::-1], ".", markersize=1.5, color="#D55E00", rasterized=True)
lonely = places[apart.argmax()]
axis.plot(*lonely[::-1], "*", markersize=16, color="white", markeredgecolor="black")
axis.set(xticks=[], yticks=[])
figure.suptitle("distance to the nearest of the stations (dots)", fontsize=13)
figure.colorbar(drawn, label="km", orientation="horizontal", shrink=0.7, ticks=range(0, 2000, 500))
plt.show()
