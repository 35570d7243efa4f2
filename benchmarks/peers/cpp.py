"""Hand-written C++, and the time that memory alone takes."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.case import THIN, Array, Arrays, Case
from benchmarks.peers.base import Skip, Work


class CppPeer:
    """The hand-written C++ of `reference.cpp`, compiled by the driver and loaded with ctypes."""

    _TYPES = {"float32": "float", "float64": "double"}

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)

    def versions(self) -> dict[str, str]:
        """Nothing: the driver knows the compiler."""
        return {}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """The entry of the kernel, for the dimension and dtype of the case."""
        kernel = "gaussian" if case.program == "lazy" else case.kernel.replace("-", "_")
        if len(arrays["x"]) == 1:
            kernel += "_row"
        name = f"{kernel}_{case.dims['x']}_{self._TYPES[case.dtype]}"
        if not hasattr(self.library, name) or case.dims.get("b", 1) > 1:
            raise Skip
        if case.what == "both" or case.program not in ("", "lazy"):
            raise Skip
        names = ["x", "y", "a", "p", "e"] if kernel.startswith("seed") else ["x", "y", "b", "e"]
        given = [arrays[name] for name in names if name in arrays]
        outs = self._outs(case, arrays)
        entry = self.library[name]
        pointers = (ctypes.c_void_p * len(given))(*(a.ctypes.data for a in given))
        results = (ctypes.c_void_p * len(outs))(*(a.ctypes.data for a in outs))
        rows, columns = ctypes.c_long(len(arrays["x"])), ctypes.c_long(len(arrays["y"]))

        def work(_keep: Any = given) -> Sequence[Array]:
            entry(pointers, results, rows, columns)
            return outs

        return work

    @staticmethod
    def _outs(case: Case, arrays: Arrays) -> list[Array]:
        like = {
            "seed": ["x"],
            "seed-gradient": ["y"],
            "gaussian-gradient": ["x", "y", "b"],
        }
        if case.kernel in like:
            return [np.zeros_like(arrays[name]) for name in like[case.kernel]]
        dtype = np.int64 if case.kernel.endswith("argmin") else case.dtype
        return [np.zeros((len(arrays["x"]), 1), dtype)]


class MemoryPeer:
    """Reads every input byte and writes every output byte, on all cores, and nothing else."""

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")

    def versions(self) -> dict[str, str]:
        """torch does the reading."""
        return {"torch": str(self.torch.__version__)}

    def prepare(self, case: Case, arrays: Arrays) -> Work:
        """One sum over the inputs, one fill of the outputs."""
        if case.group != THIN:
            raise Skip
        given = self.torch.cat([self.torch.from_numpy(a).reshape(-1) for a in arrays.values()])
        out = self.torch.empty(len(arrays["x"]), dtype=given.dtype)

        def work() -> Sequence[Any]:
            out.fill_(1.0)
            given.sum()
            return ()

        return work
