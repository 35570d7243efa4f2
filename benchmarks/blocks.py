"""How often each block of machine code runs.

`python -m benchmarks.blocks SIZE CASE...` prints JSON.

Every module that pairfold compiles is given counters, one per block of its LLVM IR. The machine
code without them is printed with the names of the blocks, and so the instructions of a block get
the number of times that it runs, whatever loops a plan consists of.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.case import Case

ROOT = Path(__file__).resolve().parents[1]
_LARGEST = 6e9  # pairs times dimensions of a case that is looked at


@dataclass(frozen=True)
class Block:
    """Instructions that run together: where, how often, and whether they are a whole loop."""

    name: str
    count: int
    instructions: list[str]
    loop: bool


@dataclass
class _Module:
    """Counters of one module, its assembly with names, and the places of its blocks."""

    counters: Any
    places: dict[tuple[str, str], int]
    assembly: str


def looked_at(case: Case, largest: int) -> tuple[int, int]:
    """The sizes at which a case is looked at: not more than it takes to see its loops."""
    rows, columns = min(largest, case.rows), min(largest, case.columns)
    if case.rows == 1 or case.columns == 1:
        return min(case.rows, 1_000_000), min(case.columns, 1_000_000)
    while rows * columns * sum(case.dims.values()) > _LARGEST:
        rows, columns = (rows // 2, columns) if rows >= columns else (rows, columns // 2)
    return rows, columns


def _counted(text: str, address: int) -> tuple[str, dict[tuple[str, str], int]]:
    """LLVM IR with a counter at the start of each block, and the blocks' places among them."""
    places: dict[tuple[str, str], int] = {}
    lines, function, waiting = [], "", -1
    for line in text.splitlines():
        started = re.match(r"define .*?@\"?([\w.$]+)\"?\(", line)
        label = re.match(r"\"?([\w.$-]+)\"?:", line)
        if started:
            function = started.group(1)
        elif waiting >= 0 and line.strip() and " = phi " not in line:
            lines += _increment(address + 8 * waiting, waiting)
            waiting = -1
        lines.append(line)
        if label and function:
            waiting = places[function, label.group(1)] = len(places)
    return "\n".join(lines), places


def _increment(address: int, number: int) -> Iterator[str]:
    at = f"inttoptr (i64 {address} to ptr)"
    yield f"  %count.{number} = load i64, ptr {at}, align 8"
    yield f"  %more.{number} = add i64 %count.{number}, 1"
    yield f"  store i64 %more.{number}, ptr {at}, align 8"


@contextlib.contextmanager
def counting() -> Generator[list[_Module], None, None]:
    """Count in every module that is compiled meanwhile; the list grows with them."""
    import llvmlite.binding as llvm

    from pairfold.backends.llvm import native
    from pairfold.backends.llvm.machine import new_target_machine
    from pairfold.backends.llvm.runtime import shared_module

    made: list[_Module] = []
    plain, code = native.optimized, native.shared_code

    def counted(text: str, which: Any) -> Any:
        module = plain(text, which)
        machine = new_target_machine(which)
        machine.set_asm_verbosity(True)
        source = str(module)
        counters = (ctypes.c_int64 * (source.count("\n") + 1))()
        changed, places = _counted(source, ctypes.addressof(counters))
        made.append(_Module(counters, places, machine.emit_assembly(module)))
        return llvm.parse_assembly(changed)

    def counted_shared(functions: Iterable[Any]) -> list[bytes]:
        found: list[bytes] = []
        for own in functions:
            module = counted(str(shared_module([own])), own.machine)
            found.append(new_target_machine(own.machine).emit_object(module))
        return found

    native.optimized, native.shared_code = counted, counted_shared
    try:
        yield made
    finally:
        native.optimized, native.shared_code = plain, code


def _blocks(module: _Module) -> list[Block]:
    """The blocks of a module that have run."""
    found: list[Block] = []
    function = label = name = ""
    body: list[str] = []

    def close() -> None:
        place = module.places.get((function, name))
        if body and place is not None and module.counters[place]:
            jump = re.match(r"(?:j\w+|b\.\w+|cbn?z)\s.*?([\w.$]+)$", body[-1])
            jumps = [re.match(r"j\w+\s+([\w.$]+)$", code) for code in body]
            back = any(j and j.group(1) == label for j in jumps) or (
                jump is not None and jump.group(1) == label
            )
            found.append(Block(f"{function}:{name}", module.counters[place], list(body), back))

    for line in module.assembly.splitlines():
        code, _, remark = (part.strip() for part in line.partition("#"))
        begins = re.match(r"([\w.$]+):$", code)
        if begins or re.match(r"%bb\.\d+:", remark):
            close()
            body = []
            if begins and not code.startswith("."):
                function = code[:-1].strip('"')
            label = code[:-1] if begins else ""
            name = ""
        named = re.match(r"(?:%bb\.\d+:)?\s*%\"?([\w.$-]+)\"?$", remark)
        if named and not name:
            name = named.group(1)
        if code and not begins and not code.startswith("."):
            body.append(re.sub(r"\s+", " ", code))
    close()
    return found


def count(case: Case, size: tuple[int, int], made: Sequence[_Module]) -> list[Block]:
    """The blocks that run when a case is done once, on one thread; compilation apart."""
    from benchmarks.peers.genred import GenredPeer
    from pairfold import settings

    work = GenredPeer("pairfold").prepare(case, case.arrays(0, *size))
    with settings(threads=1, separable="never"):
        work()
        for module in made:
            ctypes.memset(module.counters, 0, ctypes.sizeof(module.counters))
        work()
    return [block for module in made for block in _blocks(module)]


def measure(names: Sequence[str], largest: int) -> dict[str, list[Block]]:
    """The blocks of each case, counted in a process of its own; no case that fails there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "benchmarks.blocks", str(largest), *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {}
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: [Block(**block) for block in blocks] for name, blocks in found.items()}


def main() -> None:
    """Count, and print."""
    from benchmarks.cases import CASES

    found = {}
    with counting() as made:
        for name in sys.argv[2:]:
            case = CASES[name]
            blocks = count(case, looked_at(case, int(sys.argv[1])), made)
            found[name] = [vars(block) for block in blocks]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
