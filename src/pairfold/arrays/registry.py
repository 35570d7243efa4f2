"""The array libraries that are known, and which of them an array belongs to.

A library is known to a call only if the user has imported it: none is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ..core.cache import Cache, Limit
from ..core.library import NumpyArray
from ..errors import ArrayTypeError
from .advice import kind_name, label_of, to_array
from .jax import JaxArrays
from .library import SUPPORTED, ArrayLibrary, LibraryOf
from .numpy import NumpyArrays
from .torch import TorchArrays

if TYPE_CHECKING:
    import jax
    from torch import Tensor

# Each has all that a library has, for arrays of its own class; which class that is is forgotten
# here, since it is `owns` that says so when a program runs.
_numpy: LibraryOf[NumpyArray] = NumpyArrays
_torch: LibraryOf[Tensor] = TorchArrays
_jax: LibraryOf[jax.Array] = JaxArrays
NUMPY = cast(ArrayLibrary, _numpy)
TORCH = cast(ArrayLibrary, _torch)
JAX = cast(ArrayLibrary, _jax)
LIBRARIES = (NUMPY, TORCH, JAX)

_NUMBERS = (int, float, np.number)
_known: Cache[ArrayLibrary | None] = Cache(Limit("array classes", 256))


def library_for(x: object) -> ArrayLibrary | None:
    """The library of an array, None for what is not an array."""
    known = _known.table.get(type(x))  # used so often that it is not counted
    if known is not None:
        return known.value
    owner = next((library for library in LIBRARIES if library.owns(x)), None)
    return _known.put(type(x), owner)


def library_of(
    arrays: Sequence[object], names: Mapping[int, str], name: str | None
) -> ArrayLibrary:
    """The one library that all arrays belong to.

    Raises:
        ArrayTypeError: arrays of different libraries, of another than that of a name, or none.
    """
    allowed = [library for library in LIBRARIES if name in (None, library.name)]
    found: ArrayLibrary | None = None
    # Numbers last: parameters may be numbers, so that another argument is more likely the mistake.
    for position, array in sorted(
        enumerate(arrays), key=lambda pair: isinstance(pair[1], _NUMBERS)
    ):
        owner = next((library for library in allowed if library.owns(array)), None)
        if owner is None or (found is not None and owner is not found):
            owners = (library for x in arrays for library in allowed if library.owns(x))
            first = next(owners, None) if found is None else found
            wanted = first.name if first is not None else " or ".join(a.name for a in allowed)
            dtypes = [first.dtype(x) for x in arrays if first is not None and first.owns(x)]
            dtype = next((dtype for dtype in dtypes if dtype in SUPPORTED), None)
            raise ArrayTypeError(
                "all arguments must be arrays of one library",
                found=f"{label_of(position, names)} is {kind_name(array)}, expected {wanted}",
                hint=to_array(array, names.get(position, "x"), wanted, dtype),
            )
        found = owner
    assert found is not None
    return found
