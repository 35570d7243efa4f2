"""Stack pages on Windows, which must be touched in order.

Windows gives a thread the page below those it has used, and ends a process that jumps over it. So
LLVM calls `__chkstk` before it makes room for more than 4096 bytes, as kernels with many spilled
vectors do. The C library that has the function need not be in the process: it is written here, into
every module for Windows, under that name.
"""

from __future__ import annotations

from . import ir

# rax: the bytes to make room for; only r10, r11 and the flags may change.
_X86 = """
    leaq 8(%rsp), %r10
    movq %r10, %r11
    subq %rax, %r11
0:  subq $$4096, %r10
    cmpq %r11, %r10
    jbe 1f
    testb %al, (%r10)
    jmp 0b
1:  testb %al, (%r11)
    retq
"""
# x15: the bytes to make room for, divided by 16; only x16, x17 and the flags may change.
_AARCH64 = """
    sub x17, sp, x15, lsl #4
    mov x16, sp
0:  sub x16, x16, #4096
    cmp x16, x17
    b.ls 1f
    ldrb wzr, [x16]
    b 0b
1:  ldrb wzr, [x17]
    ret
"""


def write_probe(module: ir.Module, triple: str) -> None:
    """Define `__chkstk` in a module for Windows; nothing in others."""
    if "windows" not in triple:
        return
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "__chkstk")
    for attribute in ("naked", "noinline", "nounwind"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block())
    text = _AARCH64 if triple.startswith(("aarch64", "arm64")) else _X86
    builder.call(ir.InlineAsm(function.function_type, text, "", side_effect=True), [])
    builder.unreachable()
