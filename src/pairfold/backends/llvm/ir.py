"""LLVM IR as text: types, values, and a builder that writes instruction after instruction.

An instruction is a line, spelled when it is made; a value is a type and what later lines call it.
Only phi nodes, and what a function says of itself, are completed afterwards. Names are those of
llvmlite's module of this name, which keeps an object for each instruction, looks for a name for it
and spells it at the end: for a kernel that took as long as LLVM takes to write its machine code.

Operands are not checked here: LLVM's parser does that and says which line is wrong.
Language: LLVM Language Reference Manual, https://llvm.org/docs/LangRef.html.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

Number: TypeAlias = "int | float"

_SIGNED = {"<": "slt", "<=": "sle", ">": "sgt", ">=": "sge", "==": "eq", "!=": "ne"}
_UNSIGNED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "eq", "!=": "ne"}
_ORDERED = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq", "!=": "one"}
_UNORDERED = {"<": "ult", "<=": "ule", ">": "ugt", ">=": "uge", "==": "ueq", "!=": "une"}


class Type:
    """A type: its spelling, and how constants of it are spelled."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def spelled(self, number: Number) -> str:
        """A number as a constant of this type."""
        raise TypeError(f"{self} has no constants that are numbers")


class IntType(Type):
    """Integers of `width` bits."""

    __slots__ = ("width",)

    def __init__(self, width: int) -> None:
        super().__init__(f"i{width}")
        self.width = width

    def spelled(self, number: Number) -> str:
        """In decimal."""
        return str(int(number))


class FloatType(Type):
    """Floating-point numbers of 32 bits."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("float")

    def spelled(self, number: Number) -> str:
        """Rounded, then as the bits of a double."""
        return _bits(struct.unpack("f", struct.pack("f", number))[0])


class DoubleType(Type):
    """Floating-point numbers of 64 bits."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("double")

    def spelled(self, number: Number) -> str:
        """By its bits."""
        return _bits(number)


def _bits(number: Number) -> str:
    """The bits of a number in double precision, as LLVM wants those of both types."""
    return f"0x{struct.unpack('Q', struct.pack('d', number))[0]:016x}"


class VoidType(Type):
    """What a function returns that returns nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("void")


class PointerType(Type):
    """Addresses."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("ptr")


class VectorType(Type):
    """`count` numbers of one type."""

    __slots__ = ("count", "element")

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"<{count} x {element.text}>")
        self.element, self.count = element, count


class FunctionType(Type):
    """What a function returns and is given."""

    __slots__ = ("args", "returns")

    def __init__(self, returns: Type, args: Sequence[Type]) -> None:
        super().__init__(f"{returns} ({', '.join(map(str, args))})")
        self.returns, self.args = returns, tuple(args)


_I1, _I32, _POINTER, _VOID = IntType(1), IntType(32), PointerType(), VoidType()


class Value:
    """What an instruction gives, or is given: its type, and what lines call it."""

    __slots__ = ("name", "type")

    def __init__(self, type: Type, name: str) -> None:
        self.type, self.name = type, name

    def __str__(self) -> str:
        return f"{self.type.text} {self.name}"


class Constant(Value):
    """A number; of a vector type, one for each element, or the same for all.

    None is zero everywhere, or the address of nothing. `number` is the one that all elements are.
    """

    __slots__ = ("number",)

    def __init__(self, type: Type, value: Number | Sequence[Number] | None) -> None:
        self.number = value if isinstance(value, (int, float)) else 0 if value is None else None
        if value is None:
            name = "null" if isinstance(type, PointerType) else "zeroinitializer"
        elif not isinstance(type, VectorType):
            assert isinstance(value, (int, float))
            name = type.spelled(value)
        elif isinstance(value, (int, float)):
            name = f"splat ({type.element.text} {type.element.spelled(value)})"
        else:
            kind = type.element
            name = f"<{', '.join(f'{kind.text} {kind.spelled(each)}' for each in value)}>"
        super().__init__(type, name)


class Undefined(Value):
    """No value in particular: perhaps another one each time it is read."""

    __slots__ = ()

    def __init__(self, type: Type) -> None:
        super().__init__(type, "undef")


class InlineAsm(Value):
    """Assembly text that is called like a function."""

    __slots__ = ("function_type",)

    def __init__(
        self, kind: FunctionType, text: str, constraints: str, side_effect: bool = False
    ) -> None:
        effect = "sideeffect " if side_effect else ""
        super().__init__(_POINTER, f"asm {effect}{_quoted(text)}, {_quoted(constraints)}")
        self.function_type = kind


class Pointed(Value):
    """A function that is called by its address."""

    __slots__ = ("function_type",)

    def __init__(self, kind: FunctionType, address: Value) -> None:
        super().__init__(_POINTER, address.name)
        self.function_type = kind


def _quoted(text: str) -> str:
    """A string of LLVM: all but plain characters by their codes."""
    plain = (c if c.isprintable() and c.isascii() and c not in '"\\' else None for c in text)
    return '"' + "".join(p or f"\\{ord(c):02x}" for p, c in zip(plain, text, strict=True)) + '"'


class Phi(Value):
    """The value that belongs to the block from which its own was entered."""

    __slots__ = ("incoming",)

    def __init__(self, type: Type, name: str) -> None:
        super().__init__(type, name)
        self.incoming: list[str] = []

    def add_incoming(self, value: Value, block: Block) -> None:
        """Its value if `block` was left last."""
        self.incoming.append(f"[{value.name}, %{block.name}]")

    def line(self) -> str:
        """The instruction, once all is known."""
        return f"{self.name} = phi {self.type.text} {', '.join(self.incoming)}"


class Block:
    """Instructions that are done one after the other."""

    __slots__ = ("function", "lines", "name")

    def __init__(self, function: Function, name: str) -> None:
        self.function, self.name = function, name
        self.lines: list[str | Phi] = []

    def __str__(self) -> str:
        lines = (line if isinstance(line, str) else line.line() for line in self.lines)
        return "\n  ".join((f"{self.name}:", *lines))


class Function(Value):
    """A function of a module; without blocks, it is declared and defined elsewhere."""

    __slots__ = (
        "args",
        "attributes",
        "blocks",
        "function_type",
        "labels",
        "linkage",
        "module",
        "numbers",
    )

    def __init__(self, module: Module, kind: FunctionType, name: str) -> None:
        super().__init__(_POINTER, f"@{name}")
        self.module, self.function_type = module, kind
        self.args = tuple(Value(each, f"%a{n}") for n, each in enumerate(kind.args))
        self.blocks: list[Block] = []
        self.labels: set[str] = set()
        self.attributes: set[str] = set()
        self.linkage = ""
        self.numbers = 0  # of names that were given
        module.add(name, self)

    def number(self) -> int:
        """A number that no name of the function has yet."""
        self.numbers += 1
        return self.numbers

    def append_basic_block(self, name: str = "block") -> Block:
        """A new block at the end. Where the name is taken, a number is added."""
        block = Block(self, f"{name}.{self.number()}" if name in self.labels else name)
        self.labels.add(name)
        self.blocks.append(block)
        return block

    def __str__(self) -> str:
        word = "define" if self.blocks else "declare"
        args = ", ".join(map(str, self.args))
        head = [word, self.linkage, f"{self.function_type.returns} {self.name}({args})"]
        line = " ".join(filter(None, [*head, *sorted(self.attributes)]))
        return "\n".join((line, "{", *map(str, self.blocks), "}")) if self.blocks else line


class Module:
    """Functions, by their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.globals: dict[str, Function] = {}
        self._weights: dict[tuple[int, int], str] = {}

    def add(self, name: str, function: Function) -> None:
        """Enter a function."""
        if name in self.globals:
            raise ValueError(f"two functions named {name}")
        self.globals[name] = function

    def declared(self, name: str, kind: FunctionType) -> Function:
        """The function of this name, which is declared if it is not there."""
        found = self.globals.get(name)
        return Function(self, kind, name) if found is None else found

    def weights(self, yes: int, no: int) -> str:
        """What a branch says that is taken `yes` times for `no` times that it is not."""
        return self._weights.setdefault((yes, no), f"!{len(self._weights)}")

    def __str__(self) -> str:
        weights = (
            f'{name} = !{{!"branch_weights", i32 {yes}, i32 {no}}}'
            for (yes, no), name in self._weights.items()
        )
        return "\n\n".join((f"; {self.name}", *map(str, self.globals.values()), *weights)) + "\n"


class IRBuilder:
    """Writes instructions at the end of a block."""

    __slots__ = ("_add", "block", "function", "module")

    def __init__(self, block: Block) -> None:
        self.position_at_end(block)

    def position_at_end(self, block: Block) -> None:
        """Go on in this block."""
        self.block, self.function = block, block.function
        self.module = self.function.module
        self._add = block.lines.append

    def append_basic_block(self, name: str = "block") -> Block:
        """A new block of the function, to be gone on in later."""
        return self.function.append_basic_block(name)

    def _value(self, kind: Type, instruction: str) -> Value:
        function = self.function
        function.numbers = number = function.numbers + 1
        name = f"%v{number}"
        self._add(f"{name} = {instruction}")
        return Value(kind, name)

    # -- arithmetic -----------------------------------------------------------------------------

    def _binary(self, what: str, a: Value, b: Value) -> Value:
        return self._value(a.type, f"{what} {a.type.text} {a.name}, {b.name}")

    def add(self, a: Value, b: Value) -> Value:
        """a + b of integers."""
        return self._binary("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b of integers."""
        return self._binary("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a b of integers."""
        return self._binary("mul", a, b)

    def sdiv(self, a: Value, b: Value) -> Value:
        """a / b of signed integers, towards zero."""
        return self._binary("sdiv", a, b)

    def srem(self, a: Value, b: Value) -> Value:
        """What `sdiv` leaves."""
        return self._binary("srem", a, b)

    def shl(self, a: Value, b: Value) -> Value:
        """Bits moved up."""
        return self._binary("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        """Bits moved down, zeros moved in."""
        return self._binary("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        """Bits moved down, the sign moved in."""
        return self._binary("ashr", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        """Bits of both."""
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        """Bits of either."""
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        """Bits of one of them."""
        return self._binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        """The other bits."""
        return self.xor(a, Constant(a.type, -1))

    def neg(self, a: Value) -> Value:
        """-a of an integer."""
        return self.sub(Constant(a.type, 0), a)

    def fadd(self, a: Value, b: Value, flags: str = "") -> Value:
        """a + b."""
        return self._binary(f"fadd{flags}", a, b)

    def fsub(self, a: Value, b: Value, flags: str = "") -> Value:
        """a - b."""
        return self._binary(f"fsub{flags}", a, b)

    def fmul(self, a: Value, b: Value, flags: str = "") -> Value:
        """a b."""
        return self._binary(f"fmul{flags}", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self._binary("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        """-a."""
        return self._value(a.type, f"fneg {a}")

    # -- comparisons and choices ----------------------------------------------------------------

    def _compared(self, what: str, a: Value, b: Value) -> Value:
        kind = VectorType(_I1, a.type.count) if isinstance(a.type, VectorType) else _I1
        return self._value(kind, f"{what} {a.type.text} {a.name}, {b.name}")

    def icmp_signed(self, op: str, a: Value, b: Value) -> Value:
        """A comparison of signed integers, by its sign in C."""
        return self._compared(f"icmp {_SIGNED[op]}", a, b)

    def icmp_unsigned(self, op: str, a: Value, b: Value) -> Value:
        """A comparison of integers without a sign."""
        return self._compared(f"icmp {_UNSIGNED[op]}", a, b)

    def fcmp_ordered(self, op: str, a: Value, b: Value) -> Value:
        """A comparison that is false if one is NaN."""
        return self._compared(f"fcmp {_ORDERED[op]}", a, b)

    def fcmp_unordered(self, op: str, a: Value, b: Value) -> Value:
        """A comparison that is true if one is NaN; "uno" is true then only."""
        return self._compared(f"fcmp {_UNORDERED.get(op, op)}", a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """`a` where the condition holds, `b` elsewhere."""
        return self._value(a.type, f"select {condition}, {a}, {b}")

    # -- other types ----------------------------------------------------------------------------

    def _cast(self, what: str, a: Value, kind: Type) -> Value:
        return a if a.type == kind else self._value(kind, f"{what} {a} to {kind.text}")

    def zext(self, a: Value, kind: Type) -> Value:
        """An integer with zeros above its bits."""
        return self._cast("zext", a, kind)

    def trunc(self, a: Value, kind: Type) -> Value:
        """The low bits of an integer."""
        return self._cast("trunc", a, kind)

    def sitofp(self, a: Value, kind: Type) -> Value:
        """A signed integer as a floating-point number."""
        return self._cast("sitofp", a, kind)

    def uitofp(self, a: Value, kind: Type) -> Value:
        """An integer without a sign as a floating-point number."""
        return self._cast("uitofp", a, kind)

    def fptosi(self, a: Value, kind: Type) -> Value:
        """A floating-point number as a signed integer, towards zero."""
        return self._cast("fptosi", a, kind)

    def fptoui(self, a: Value, kind: Type) -> Value:
        """A floating-point number as an integer without a sign, towards zero."""
        return self._cast("fptoui", a, kind)

    def fpext(self, a: Value, kind: Type) -> Value:
        """The same number in a wider format."""
        return self._cast("fpext", a, kind)

    def fptrunc(self, a: Value, kind: Type) -> Value:
        """The nearest number of a narrower format."""
        return self._cast("fptrunc", a, kind)

    def bitcast(self, a: Value, kind: Type) -> Value:
        """The same bits as another type."""
        return self._cast("bitcast", a, kind)

    def inttoptr(self, a: Value, kind: Type) -> Value:
        """An integer as an address."""
        return self._cast("inttoptr", a, kind)

    def ptrtoint(self, a: Value, kind: Type) -> Value:
        """An address as an integer."""
        return self._cast("ptrtoint", a, kind)

    # -- elements of vectors --------------------------------------------------------------------

    def insert_element(self, vector: Value, element: Value, place: Value) -> Value:
        """The vector with another element in this place."""
        return self._value(vector.type, f"insertelement {vector}, {element}, {place}")

    def extract_element(self, vector: Value, place: Value) -> Value:
        """The element in this place."""
        assert isinstance(vector.type, VectorType)
        return self._value(vector.type.element, f"extractelement {vector}, {place}")

    def shuffle_vector(self, a: Value, b: Value, places: Value) -> Value:
        """Elements of two vectors: those of the second are counted on from the first's."""
        assert isinstance(a.type, VectorType)
        assert isinstance(places.type, VectorType)
        kind = VectorType(a.type.element, places.type.count)
        return self._value(kind, f"shufflevector {a}, {b}, {places}")

    # -- memory ---------------------------------------------------------------------------------

    def gep(self, base: Value, offset: Value) -> Value:
        """The address so many bytes after another."""
        return self._value(_POINTER, f"getelementptr i8, ptr {base.name}, {offset}")

    def load(self, address: Value, typ: Type, align: int) -> Value:
        """What is at an address, a multiple of `align` bytes."""
        return self._value(typ, f"load {typ.text}, ptr {address.name}, align {align}")

    def store(self, value: Value, address: Value, align: int) -> None:
        """Put a value at an address, a multiple of `align` bytes."""
        self._add(f"store {value}, ptr {address.name}, align {align}")

    def load_atomic(self, address: Value, ordering: str, align: int, typ: Type) -> Value:
        """What is at an address that other threads write to."""
        text = f"load atomic {typ.text}, ptr {address.name} {ordering}, align {align}"
        return self._value(typ, text)

    def atomic_rmw(self, what: str, address: Value, value: Value, ordering: str) -> Value:
        """What was at an address, which is changed in one step ("add", "sub", "xchg")."""
        return self._value(value.type, f"atomicrmw {what} ptr {address.name}, {value} {ordering}")

    def fence(self, ordering: str) -> None:
        """Order what other threads see."""
        self._add(f"fence {ordering}")

    # -- ways on --------------------------------------------------------------------------------

    def phi(self, kind: Type) -> Phi:
        """The value that belongs to the block from which this one was entered."""
        found = Phi(kind, f"%v{self.function.number()}")
        self._add(found)
        return found

    def call(self, function: Function | InlineAsm | Pointed, args: Sequence[Value]) -> Value:
        """What a function returns."""
        returns = function.function_type.returns
        text = f"call {returns.text} {function.name}({', '.join(map(str, args))})"
        if returns != _VOID:
            return self._value(returns, text)
        self._add(text)
        return Value(returns, "")

    def branch(self, block: Block) -> None:
        """Go on there."""
        self._add(f"br label %{block.name}")

    def cbranch(
        self, condition: Value, yes: Block, no: Block, weights: tuple[int, int] | None = None
    ) -> None:
        """Go on in one of two blocks; `weights`: how often, in proportion, in each."""
        told = "" if weights is None else f", !prof {self.module.weights(*weights)}"
        self._add(f"br i1 {condition.name}, label %{yes.name}, label %{no.name}{told}")

    def ret(self, value: Value) -> None:
        """Return a value."""
        self._add(f"ret {value}")

    def ret_void(self) -> None:
        """Return."""
        self._add("ret void")

    def unreachable(self) -> None:
        """Say that nothing gets here."""
        self._add("unreachable")
