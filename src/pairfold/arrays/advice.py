"""What to try with an array that cannot be taken: expressions that work on the user's own array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..core.library import Array

_EXACT_IN_FLOAT32 = ("bool", "int8", "uint8", "int16", "uint16")
_WHOLE_IN_FLOAT32 = 2**24


def label_of(position: int, names: Mapping[int, str]) -> str:
    """How messages call an argument: `argument 0 (x)`.

    >>> label_of(0, {0: "x"})
    'argument 0 (x)'
    """
    return (
        f"argument {position} ({names[position]})"
        if position in names
        else (f"argument {position}")
    )


def kind_name(x: object) -> str:
    """The type of an argument, as messages call it.

    >>> kind_name([1.0])
    'a list'
    """
    kind = type(x)
    if kind.__module__ == "builtins":
        return "None" if x is None else f"a{'n' * (kind.__name__[0] in 'aeio')} {kind.__name__}"
    return f"a {kind.__module__}.{kind.__qualname__}"


def to_array(x: object, name: str, library: str, dtype: str | None = None) -> str | None:
    """How to make an array of a library of something that is none; None where nothing helps.

    `library` is the name of one, or of several ("numpy or torch"); `dtype` that of the other
    arguments.

    >>> to_array([1.0], "x", "numpy", "float32")
    "numpy.array(x, 'float32')"
    """
    of = dtype or "float64"
    if isinstance(x, np.ma.MaskedArray):
        return _for(f"{name}.filled(0)", library) + "; a weight of 0 leaves out what is masked"
    if isinstance(x, (np.ndarray, np.generic)):
        return _for(name, library) if library in _TAKES_NUMPY else f"torch.as_tensor({name})"
    if hasattr(x, "toarray"):  # SciPy's sparse arrays and matrices
        return _for(f"{name}.toarray()", library)
    if hasattr(x, "requires_grad") and hasattr(x, "detach"):
        return f"{name}.numpy(force=True), or tensors for all arguments: torch.as_tensor"
    if hasattr(x, "leaves") or hasattr(x, "reduction_op"):
        return "reductions of lazy tensors are their methods: K.sum(axis=1); Genred takes arrays"
    new = "jax.numpy" if library == "jax" else "numpy"
    torch = library == "torch"
    if hasattr(x, "__cuda_array_interface__"):  # of another library, on a GPU
        return f"torch.as_tensor({name}, device='cuda')"
    if hasattr(x, "__dlpack__"):
        device: Callable[[], tuple[int, int]] | None = getattr(x, "__dlpack_device__", None)
        elsewhere = device is not None and device()[0] != 1  # 1 is the host
        return f"torch.from_dlpack({name})" if torch or elsewhere else f"{new}.from_dlpack({name})"
    if hasattr(x, "__array_interface__"):
        return _for(f"numpy.asarray({name})", library)
    if hasattr(x, "__sym_max__"):  # a size where torch records
        return f"torch.full((1,), {name}, dtype=torch.{of})"
    if isinstance(x, (list, tuple)):
        return (
            f"torch.tensor({name}, dtype=torch.{of})" if torch else f"{new}.array({name}, {of!r})"
        )
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return f"torch.tensor([{name}])" if torch else f"{new}.array([{name}], {of!r})"
    if hasattr(x, "to_numpy"):  # data frames
        return _for(f"{name}.to_numpy({of!r})", library)
    if hasattr(x, "__array__") or isinstance(x, (bytearray, memoryview)):
        return _for(f"numpy.asarray({name})", library)
    return None


# What makes an array of a library of one of NumPy.
_TAKES_NUMPY = {"torch": "torch.as_tensor", "jax": "jax.numpy.asarray"}


def _for(array: str, library: str) -> str:
    return f"{_TAKES_NUMPY[library]}({array})" if library in _TAKES_NUMPY else array


def to_dtype(x: Array, name: str, dtype: str, others: Sequence[str] = ()) -> str | None:
    """How to make an array that can be computed with of one of another dtype.

    Args:
        x: the array.
        name: what to call it.
        dtype: the name of its dtype, as its library has it.
        others: the dtypes of the other arguments.
    """
    if dtype.startswith("complex"):
        return f"{name}.real and {name}.imag as two arguments, or LazyTensor for complex numbers"
    native = dtype.removesuffix(" in foreign byte order")
    if native != dtype and native in ("float16", "float32", "float64"):
        return cast(x, name, next((o for o in others if o in ("float32", "float64")), native))
    if dtype.startswith("q"):
        return f"{name}.dequantize()"
    wanted = next((other for other in others if other in ("float32", "float64")), None)
    small = native in _EXACT_IN_FLOAT32 or native.startswith("float8")
    if native.startswith(("int", "uint")) and not small:
        small = wanted != "float64" and _fits_float32(x)
    if native.startswith("float") and not native.startswith("float8"):  # longer than float64
        small = False
    target = "float32" if small and wanted != "float64" else "float64"
    others_too = wanted is not None and wanted != target
    more = f", and all other arrays too: float32 would round {name}" if others_too else ""
    if native in ("object",) or native.startswith(("str", "bytes")):
        more = f", if {name} holds numbers alone"
    if native.startswith(("datetime", "timedelta", "void")):
        return None
    return cast(x, name, target) + more


def cast(x: object, name: str, dtype: str) -> str:
    """The array in another dtype, in the words of its library."""
    return f"{name}.astype({dtype!r})" if hasattr(x, "astype") else f"{name}.to(torch.{dtype})"


def _fits_float32(x: Array) -> bool:
    """Whether float32 holds all these whole numbers."""
    try:
        return not len(x) or max(abs(int(x.max())), abs(int(x.min()))) <= _WHOLE_IN_FLOAT32
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return False


def to_one_dtype(arrays: Sequence[object], dtypes: Sequence[str], names: Sequence[str]) -> str:
    """Casts that leave one dtype: the one of most arrays, the widest of as many."""
    order = {"float64": 3, "float32": 2, "bfloat16": 1, "float16": 0}
    target = max(dtypes, key=lambda dtype: (dtypes.count(dtype), order.get(dtype, 0)))
    parts = [
        cast(array, name, target)
        for array, dtype, name in zip(arrays, dtypes, names, strict=True)
        if dtype != target
    ]
    return ", ".join(parts)
