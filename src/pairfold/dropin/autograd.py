"""torch's functions inside PyKeOps' Genred and KernelSolve, for programs that call them directly.

They take an object of parameters first: what `Genred` and `KernelSolve` know of a call.
"""

from __future__ import annotations

from ..frontends.devices import CallOptions
from ..frontends.solve import KernelSolve
from .common import get_type
from .layouts import RawReduction
from .options import OptionalFlags


class Genred_parameters:
    """The parameters of a call, as attributes.

    Read are `formula` (the text of the whole reduction), `aliases`, and where they are set
    `backend`, `device_id_request`, `ranges`, `out` and `optional_flags`; for `KernelSolveAutograd`
    also `varinvpos`, `alpha` and `eps`. Others may be set.
    """

    formula: str
    aliases: list[str]
    backend: str = "auto"
    device_id_request: int = -1
    ranges: object = None
    out: object = None
    optional_flags: OptionalFlags = {}
    varinvpos: int
    alpha: object = None
    eps: float = 1e-6


def GenredAutograd_fun(params: Genred_parameters, *args: object) -> object:
    """The raw result of a reduction of tensors; differentiable to any order."""
    reduction = RawReduction(params.formula, params.aliases, "torch", params.optional_flags)
    options: CallOptions = {"backend": params.backend, "device_id": params.device_id_request}
    options["ranges"] = params.ranges
    return reduction(*args, out=params.out, **options)


class GenredAutograd_base:
    """What `GenredAutograd` computes."""

    @staticmethod
    def _forward(params: Genred_parameters, *args: object) -> object:
        return GenredAutograd_fun(params, *args)


class GenredAutograd(GenredAutograd_base):
    """`GenredAutograd.apply(params, *args)`: the same as `GenredAutograd_fun`."""

    @staticmethod
    def apply(params: Genred_parameters, *args: object) -> object:
        """The raw result of a reduction of tensors."""
        return GenredAutograd_fun(params, *args)


class KernelSolveAutograd:
    """`KernelSolveAutograd.apply(params, *args)`: the solution of a system."""

    @staticmethod
    def apply(params: Genred_parameters, *args: object) -> object:
        """The solution for tensors; see `KernelSolve.__call__`."""
        reduction = RawReduction(params.formula, params.aliases, "torch", params.optional_flags)
        place = params.varinvpos
        _, category, dim, position = get_type(params.aliases[place], place)
        unknown = f"Var({position},{dim},{category})"
        axis = reduction.genred.axis
        solver = KernelSolve(reduction.formula, params.aliases, unknown, axis)
        return solver(
            *args,
            backend=params.backend,
            device_id=params.device_id_request,
            alpha=params.alpha,
            eps=params.eps,
            ranges=params.ranges,
        )


def check_AD_supported(formula: str) -> None:
    """Nothing is refused: reductions of every kind have their derivatives."""
