"""Arrays that nobody changes: what is found out about one holds for as long as there is it."""

from __future__ import annotations

import itertools
import weakref

from .library import Array

_numbers = itertools.count(1)
_known: dict[int, tuple[weakref.ref[Array], int]] = {}


def mark(array: Array) -> Array:
    """The array, which is known from here on never to change; none that users have."""
    place = id(array)
    _known[place] = weakref.ref(array, lambda _: _known.pop(place, None)), next(_numbers)
    return array


def number_of(array: object) -> int | None:
    """The number of an array that nobody changes, which no other ever has; None of others.

    >>> import numpy as np
    >>> x = mark(np.ones(2))
    >>> number_of(x) == number_of(x), number_of(np.ones(2))
    (True, None)
    """
    found = _known.get(id(array))
    return found[1] if found is not None and found[0]() is array else None
