"""Triton's interpreter as the tests use it: programs for GPUs on tensors of the CPU.

Triton decides when it is imported whether its own functions (sums, maxima ...) are interpreted, and
torch may import it during any test. So this module, which conftest.py imports before all tests,
imports it as for the interpreter and then unsets the variable: only what runs within `repaired`
sees backend="GPU" as a process with TRITON_INTERPRET=1 does, all else sees what users see. What is
compiled for a real GPU needs a process of its own.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

SWITCH = "TRITON_INTERPRET"
_before = os.environ.get(SWITCH)
os.environ[SWITCH] = "1"
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as pairfold sets it; else triton warns
try:
    import triton
    import triton.runtime.interpreter as interpreter

    # The interpreter of those before rounds twice in fma, on which exact products rely; before 3.7
    # there are no products of float64 matrices either.
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        interpreter = None
except ImportError:
    interpreter = None
if _before is None:
    del os.environ[SWITCH]
else:
    os.environ[SWITCH] = _before

_execute = None if interpreter is None else interpreter.GridExecutor.__call__
_splat = None if interpreter is None else interpreter.InterpreterBuilder.create_splat
_dot = None if interpreter is None else interpreter.InterpreterBuilder.create_dot
_patch = None if interpreter is None else interpreter._patch_lang
_rewrite = None if interpreter is None else interpreter.FunctionRewriter.rewrite_ast
_numbers = None if interpreter is None else interpreter._get_np_dtype
_semantic = None if interpreter is None else type(interpreter.interpreter_semantic)
_broadcast = None if _semantic is None else _semantic.broadcast_impl_value
ran = 0
# The modules of the language that the program that runs has replaced functions of.
_replaced: set[str] | None = None
_FUNCTIONS = "interpreted functions"  # a name in the module of a program


def repair(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make the interpreter fast enough for tests, quiet, and right about masks and bfloat16."""
    assert interpreter is not None
    replace(interpreter.ReduceOps, "generic_reduce", _reduce)
    replace(interpreter.GridExecutor, "__call__", _run)
    replace(interpreter.InterpreterBuilder, "create_splat", _mask_too)
    replace(interpreter.InterpreterBuilder, "create_dot", _dot_too)
    replace(interpreter, "_patch_lang", _patch_once)
    replace(interpreter, "_patch_attr", _bind)
    replace(interpreter.FunctionRewriter, "rewrite_ast", _rewrite_printed)
    # What a type or a shape is, the interpreter finds out anew in each operation: half of its time.
    replace(interpreter, "_get_np_dtype", _numbers_of)
    replace(interpreter.tl.core.block_type, "__init__", _make_block_type)
    replace(interpreter.tl.core.tensor, "__init__", _make_tensor)
    replace(_semantic, "broadcast_impl_value", _broadcast_unequal)


def _run(self: Any, *given: Any, **named: Any) -> None:
    """Run a program; infinities, NaN and overflow are computed with on purpose, by NumPy."""
    global ran, _replaced
    ran += 1
    assert _execute is not None
    _replaced = set()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # extremes of rows of NaN alone
            _execute(self, *given, **named)
    finally:
        _replaced = None


def _patch_once(function: Any) -> Any:
    """Replace the language's functions by interpreted ones, once in each run of a program.

    The interpreter does so again whenever a program calls a function, which is a third of its time.
    """
    assert _patch is not None
    language = _languages(function)
    if _replaced is None:
        return _patch(function)
    if language <= _replaced:
        return interpreter._LangPatchScope()
    _replaced.update(language)
    return _patch(function)


@functools.cache
def _languages(function: Any) -> frozenset[str]:
    """The modules of the language that a function sees."""
    seen = [v for v in function.__globals__.values() if isinstance(v, types.ModuleType)]
    names = (interpreter.tl.__name__, interpreter.tl.core.__name__)
    return frozenset(module.__name__ for module in seen if module.__name__ in names)


# ---- programs ------------------------------------------------------------------------------------


def _rewrite_printed(self: Any) -> Any:
    """A function of a printed program, of which the interpreter makes tensors of what it assigns.

    The interpreter reads the text of each function three times and visits all of its expressions;
    here a program is read once, and only assignments are looked for: printed programs have no
    comparisons in a chain, which are the other thing that it rewrites.
    """
    assert _rewrite is not None
    program = self.fn.__globals__
    if not program["__name__"].startswith("pairfold.kernels."):
        return _rewrite(self)
    if _FUNCTIONS not in program:
        place = self.fn.__code__.co_filename
        tree = ast.parse("".join(linecache.getlines(place)))
        for function in tree.body:
            if isinstance(function, ast.FunctionDef):
                _assign_tensors(function.body)
        made = compile(tree, place, "exec", dont_inherit=True).co_consts
        program["interpreter_semantic"] = interpreter.interpreter_semantic
        program[_FUNCTIONS] = {
            each.co_name: each for each in made if isinstance(each, types.CodeType)
        }
    found = types.FunctionType(program[_FUNCTIONS][self.fn.__name__], program)
    found.__annotations__ = self.fn.__annotations__  # which arguments are constants
    return found


def _assign_tensors(lines: Iterable[ast.stmt]) -> None:
    """Write `name = interpreter_semantic.to_tensor(value, False)` for every `name = value`."""
    for line in lines:
        if isinstance(line, ast.Assign):
            at = {key: getattr(line.value, key) for key in line.value._attributes}
            name = ast.Name("interpreter_semantic", ast.Load(), **at)
            function = ast.Attribute(name, "to_tensor", ast.Load(), **at)
            line.value = ast.Call(function, [line.value, ast.Constant(False, **at)], [], **at)
        elif isinstance(line, (ast.For, ast.While, ast.If)):
            _assign_tensors(line.body)
            _assign_tensors(line.orelse)


def _bind(place: Any, name: str, member: Any, _: Any, scope: Any) -> None:
    """Give a function of the language the interpreter: `_patch_attr`, with one call less."""
    function = getattr(member, "__wrapped__", member)  # without the check that it was given one

    def bound(*given: Any, **named: Any) -> Any:
        named["_semantic"] = interpreter.interpreter_semantic
        return function(*given, **named)

    scope.set_attr(place, name, bound)


# ---- types and shapes ----------------------------------------------------------------------------


@functools.cache
def _shape(sizes: tuple[int, ...]) -> tuple[Any, int, str, tuple[Any, Any]]:
    """A shape, its numbers and its text, as types have them; the first two as tensors have them."""
    core = interpreter.tl.core
    count, shape = core.validate_block_shape(sizes), core.tuple(sizes)
    known = core.tuple([core.constexpr(size) for size in sizes]), core.constexpr(count)
    return shape, count, str(shape), known


def _make_block_type(self: Any, element: Any, shape: Any) -> None:
    """The type of a tensor: `block_type.__init__`."""
    sizes = tuple(shape.values if isinstance(shape, interpreter.tl.core.tuple) else shape)
    if not sizes:
        raise TypeError("a tensor without axes has the type of its number")
    try:
        found = _shape(sizes)
    except TypeError:  # constants of the program
        found = _shape(tuple(getattr(size, "value", size) for size in sizes))
    self.element_ty = element
    self.shape, self.numel, text, self.of_tensors = found
    self.name = f"<{text}, {element.name}>"


def _make_tensor(self: Any, handle: Any, kind: Any) -> None:
    """A tensor: `tensor.__init__`."""
    self.handle, self.type, self.dtype = handle, kind, kind.scalar
    self.shape, self.numel = kind.of_tensors if kind.is_block() else _shape(())[3]


def _broadcast_unequal(self: Any, a: Any, b: Any) -> Any:
    """Tensors of one shape, which most have already, or of which one is a number."""
    assert _broadcast is not None
    if not a.type.is_block():
        return (_repeated(self, a, b.type), b) if b.type.is_block() else (a, b)
    if not b.type.is_block():
        return a, _repeated(self, b, a.type)
    if a.type.shape.values == b.type.shape.values:
        return a, b
    return _broadcast(self, a, b)


def _repeated(self: Any, number: Any, like: Any) -> Any:
    """A number in all places of a shape."""
    kind = interpreter.tl.core.block_type(number.dtype, like.shape)
    return self.make_tensor(self.builder.create_splat(kind, number.handle), kind)


_known: dict[str, Any] = {}


def _numbers_of(kind: Any) -> Any:
    """NumPy's type for the numbers of a type."""
    assert _numbers is not None
    found = _known.get(kind.name)
    if found is None:
        found = _known[kind.name] = _numbers(kind)
    return found


# ---- operations ----------------------------------------------------------------------------------


def _mask_too(self: Any, kind: Any, number: Any) -> Any:
    """One number in all places; of a mask the interpreter forgets that it is one."""
    assert _splat is not None
    if number.data.dtype == np.bool_:
        number = interpreter.TensorHandle(number.data, interpreter.tl.int1)
    return _splat(self, kind, number)


def _dot_too(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    """A product of matrices; those of bfloat16 are patterns, which the interpreter forgets."""
    assert _dot is not None
    return _dot(self, _widened(a), _widened(b), *rest)


def _widened(handle: Any) -> Any:
    language = interpreter.tl
    if handle.dtype.scalar != language.bfloat16:
        return handle
    wide = (handle.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(wide, language.float32)


def _reduce(self: Any, given: Any) -> list[Any]:
    """`tl.reduce` with a function of the program's own, by halves, as lanes of a GPU do it.

    The interpreter takes one number after another; a test would take minutes.
    """
    axis = self.axis
    assert axis is not None
    parts = [(tensor.handle.data, tensor.dtype) for tensor in given]
    while (size := parts[0][0].shape[axis]) > 1:
        assert size % 2 == 0
        halves = [np.split(data, 2, axis) for data, _ in parts]
        sides = [
            self.to_tensor(half[side], dtype)
            for side in (0, 1)
            for half, (_, dtype) in zip(halves, parts, strict=True)
        ]
        found = self.combine_fn.fn(*sides)
        found = found if isinstance(found, tuple) else (found,)
        parts = [
            (np.asarray(tensor.handle.data, data.dtype), dtype)
            for tensor, (data, dtype) in zip(found, parts, strict=True)
        ]
    if not self.keep_dims:
        parts = [(data.squeeze(axis), dtype) for data, dtype in parts]
    return [self.to_tensor(data, dtype) for data, dtype in parts]
