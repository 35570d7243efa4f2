"""PyKeOps' process: reads requests as JSON lines, answers with arrays as JSON lines.

A request is a pack of formulas to sum, or one reduction, with gradients or without.

Needs only NumPy and pykeops. Whatever the library and its compiler print goes to the error stream.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

_KINDS = ("Vi", "Vj", "Pm")


def _refusal(formula: str, aliases: list[str], axis: int) -> str | None:
    """What PyKeOps says against the formula before anything is compiled."""
    from keopscore.formulas.GetReduction import GetReduction

    literals: list[str] = []
    for place, alias in enumerate(aliases):
        name, kind, dim = alias.replace("(", " ").replace(")", " ").replace("=", " ").split()
        literals.append(f"{name}=Var({place},{dim},{_KINDS.index(kind)})")
    try:
        GetReduction(f"Sum_Reduction({formula},{1 - axis})", literals)
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip()
    return None


def _packed(formulas: list[str]) -> str:
    """Scalars as one vector: Concat takes exactly two operands."""
    whole = formulas[-1]
    for formula in reversed(formulas[:-1]):
        whole = f"Concat({formula},{whole})"
    return whole


def _sums(formula: str, aliases: list[str], axis: int, arrays: list[Any]) -> Any:
    from pykeops.numpy import Genred

    return Genred(formula, list(aliases), reduction_op="Sum", axis=axis)(*arrays, backend="CPU")


def _answer(request: dict[str, Any], arrays: list[Any]) -> list[Any]:
    """For each formula its sums, or what went wrong."""
    aliases, axis = request["aliases"], request["axis"]
    found: list[Any] = [_refusal(f, aliases, axis) for f in request["formulas"]]
    good = [place for place, refusal in enumerate(found) if refusal is None]
    formulas = [request["formulas"][place] for place in good]
    if not formulas:
        return found
    try:
        columns = _sums(_packed(formulas), aliases, axis, arrays).T
        if len(columns) != len(formulas):
            raise ValueError("the pack has another dimension")
        for place, column in zip(good, columns, strict=True):
            found[place] = column.tolist()
    except Exception as error:
        sys.stderr.write(f"pack failed: {type(error).__name__}\n")
        for place, formula in zip(good, formulas, strict=True):
            try:
                found[place] = _sums(formula, aliases, axis, arrays)[:, 0].tolist()
            except Exception as error:
                found[place] = f"{type(error).__name__}: {error}".strip()
    return found


def _reduced(request: dict[str, Any], stored: dict[str, Any]) -> Any:
    """The results of one reduction, or what went wrong; with `wrt`, gradients through torch."""
    arrays = [stored[name].astype(request["dtype"]) for name in request["arrays"]]
    try:
        if "wrt" in request:
            return _gradients(request, arrays)
        from pykeops.numpy import Genred

        found = Genred(*request["args"], **request["options"])(*arrays, backend="CPU")
        found = found if isinstance(found, tuple) else (found,)
        return [{"dtype": str(a.dtype), "data": a.tolist()} for a in found]
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip()


def _gradients(request: dict[str, Any], arrays: list[Any]) -> Any:
    """Gradients of the scalar product of the result with `upstream(its shape)`."""
    import torch
    from pykeops.torch import Genred

    tensors = [torch.from_numpy(a) for a in arrays]
    for place in request["wrt"]:
        tensors[place].requires_grad_()
    found = Genred(*request["args"], **request["options"])(*tensors, backend="CPU")
    steps = torch.arange(found.numel(), dtype=found.dtype).reshape(found.shape)
    (found * torch.cos(steps)).sum().backward()
    return [{"dtype": "", "data": tensors[place].grad.tolist()} for place in request["wrt"]]


def main() -> None:
    """Serve requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import pykeops

    pykeops.set_verbose(False)
    with np.load(sys.argv[1]) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for line in sys.stdin:
        request = json.loads(line)
        if "formulas" in request:
            answer = _answer(request, list(arrays.values()))
        else:
            answer = _reduced(request, arrays)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
