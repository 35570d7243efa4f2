"""Elementary functions as functions of the module, for formulas that use many of them.

Written out where it is used, a sine is some forty instructions: fast to run, slow to compile a
hundred times over. A call costs about a tenth more than the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import ir
from .simd import Simd


def call(
    simd: Simd, name: str, function: Callable[..., ir.Value], args: Sequence[ir.Value]
) -> ir.Value:
    """function(simd, *args), by a call; the module's own copy of it is written at first use."""
    module = simd.builder.module
    full = f"{name}.{simd.dtype}.{simd.width}"
    callee = module.globals.get(full)
    if callee is None:
        kind = ir.FunctionType(simd.type, [simd.type] * len(args))
        callee = ir.Function(module, kind, full)
        callee.linkage = "internal"
        callee.attributes.add("noinline")
        callee.attributes.add("nounwind")
        builder = ir.IRBuilder(callee.append_basic_block("entry"))
        inside = Simd(builder, simd.dtype, simd.width, simd.features)
        builder.ret(function(inside, *callee.args))
    return simd.builder.call(callee, args)
