"""What XLA calls: machine code that takes a call frame of XLA and does the tasks of a reduction.

A handler reads which buffers there are, writes their addresses into a table of arguments, and runs
tasks, on threads of XLA where there is enough to do. Nothing of Python is entered. All kernels
share one handler, which is given the words of a target (what is known of the process: addresses of
code) and an attribute of the call (what is known of the sizes, equal in all processes).

The layout of frames is that of `xla/ffi/api/c_api.h`, a stable interface of XLA:
https://github.com/openxla/xla/blob/main/xla/ffi/api/c_api.h
"""

from __future__ import annotations

from ...lower.schedule import Machine
from . import ir
from .abi import ACROSS as ACROSS_AT
from .abi import (
    ACTIVE,
    ANSWERS,
    ARRAYS,
    AT_ONCE,
    BAILED_OUT,
    BLOCK,
    CHUNK,
    CONTROL,
    DONE,
    FIRST_RESULT,
    INTERVALS,
    NEXT,
    OFFSETS,
    PARTIALS,
    SPARSE_ROW_BLOCKS,
    STOP,
    TOTAL,
    WORDS_PER_ARRAY,
)
from .flow import BYTES, I64, i64
from .runtime import Body, RuntimeFunction, begun

# The version of XLA's interface for foreign functions that frames are laid out by.
MAJOR, MINOR = 0, 3

# The words of a target: functions of the C library, what an error is made of, then the code of a
# kernel, and of the same kernel without rearrangement.
MALLOC, FREE, YIELD, ERROR = range(4)
MAIN_CODE = 4
# What is known of code: entry points, bytes of scratch memory, its words of the table.
RUN, COMBINE, SCRATCH, OWN_WORDS = range(4)
CODE = OWN_WORDS + FIRST_RESULT - BLOCK

# The attribute of a call: where in it, in words, its parts lie (0: there is none), how many batch
# elements there are, and over how many axes. `BATCH`: the sizes of batch axes, then the byte
# strides of each array along them.
MAIN, LITERAL, BATCH, BATCHES, AXES = range(5)
HEAD = 5
# A part: tasks and threads of both entry points, partial states in bytes, and where among them
# those of columns begin; the words of the table, and the table. Its tables of row blocks, of
# intervals and of answers are numbers of words of the attribute, or 0.
TASKS, THREADS, MERGING, MERGING_THREADS, PARTIAL_BYTES, ACROSS, LENGTH = range(7)
TABLE = 7

# What a section of a call ends with.
_WELL, _BAILED, _NO_MEMORY = 0, 1, 2
# Memory of a call: arguments of XLA's functions, then a table, offsets, and partial states.
_MESSAGE_BYTES, _ALIGNED = 128, 64
# What threads share, which the last of them frees.
_REFS, _TARGET, _ENTRY, _TABLE_AT, _SCRATCH_BYTES = range(5)
_CONTROL_AT = 5
_JOB_WORDS = _CONTROL_AT + CONTROL
# More tasks than these times the threads are taken off the counter several at once.
_CHUNKS = 512

# Words of a frame and of what it refers to.
_EXTENSION, _API, _CONTEXT, _ARG_COUNT, _ARGS, _RESULT_COUNT, _RESULTS, _ATTRIBUTES = (
    *(1, 2, 3, 7, 9),
    *(12, 14, 20),
)
_ATTRIBUTE_DATA, _BUFFER_DATA, _METADATA = 2, 3, 3
_ERROR_CREATE, _ERROR_DESTROY, _SCHEDULE, _NUM_THREADS = 6, 8, 17, 18
_VERSION_BYTE, _TRAITS_BYTE = 24, 32

_I32 = ir.IntType(32)
_NULL = ir.Constant(BYTES, None)
_ASKED = ir.FunctionType(BYTES, (BYTES,))
_ALLOCATES = ir.FunctionType(BYTES, (I64,))
_FREES = ir.FunctionType(ir.VoidType(), (BYTES,))
_YIELDS = ir.FunctionType(_I32, ())
_ENTERED = ir.FunctionType(I64, (BYTES, BYTES, BYTES))
_SECTION = (BYTES, BYTES, BYTES, BYTES, BYTES)
_PHASE = (BYTES, BYTES, BYTES, BYTES, BYTES, I64, I64, I64)


def handler(machine: Machine) -> RuntimeFunction:
    """xla(frame, target): null, or an error of XLA."""
    return RuntimeFunction("xla", (BYTES, BYTES), BYTES, _write_handler, machine, rare=True)


def entry_module(machine: Machine, words: int) -> ir.Module:
    """A module with `entry(frame)`: the handler of a target whose words are at an address."""
    module = ir.Module("entry")
    body = Body(begun(module, "entry", BYTES, returns=BYTES))
    target = body.builder.inttoptr(i64(words), BYTES)
    found = body.builder.call(handler(machine).declared(module), [*body.given, target])
    body.done(found)
    return module


def _write_handler(body: Body, own: RuntimeFunction) -> None:
    module = body.function.module
    share = _write_share(module)
    phase = _write_phase(module, share, _write_help(module, share))
    section = _write_section(module, phase)
    frame, target = body.given
    b, flow = body.builder, body.flow
    asked, called = b.append_basic_block("asked"), b.append_basic_block("called")
    extension = flow.pointer(frame, _EXTENSION)
    b.cbranch(b.icmp_signed("==", extension, _NULL), called, asked)
    b.position_at_end(asked)
    about = flow.pointer(extension, _METADATA)
    for place, number in enumerate((MAJOR, MINOR)):
        flow.store(ir.Constant(_I32, number), flow.at(about, i64(_VERSION_BYTE + 4 * place)), 4)
    flow.store(ir.Constant(_I32, 0), flow.at(about, i64(_TRAITS_BYTE)), 4)
    b.ret(_NULL)
    b.position_at_end(called)
    first = flow.pointer(flow.pointer(frame, _ATTRIBUTES), 0)
    attribute = flow.pointer(first, _ATTRIBUTE_DATA)
    done, failed = b.append_basic_block("done"), b.append_basic_block("failed")
    literal = b.append_basic_block("literal")
    found = _run_section(body, section, attribute, MAIN, MAIN_CODE)
    known = b.icmp_signed("!=", flow.word(attribute, LITERAL), i64(0))
    again = b.and_(b.icmp_signed("==", found, i64(_BAILED)), known)
    finished = b.append_basic_block("finished")
    b.cbranch(again, literal, finished)
    b.position_at_end(finished)
    b.cbranch(b.icmp_signed("==", found, i64(_NO_MEMORY)), failed, done)
    b.position_at_end(literal)
    found = _run_section(body, section, attribute, LITERAL, MAIN_CODE + CODE)
    b.cbranch(b.icmp_signed("==", found, i64(_NO_MEMORY)), failed, done)
    b.position_at_end(failed)
    create = ir.Pointed(_ASKED, flow.pointer(flow.pointer(frame, _API), _ERROR_CREATE))
    b.ret(b.call(create, [flow.pointer(target, ERROR)]))
    b.position_at_end(done)
    b.ret(_NULL)


def _run_section(
    body: Body, section: ir.Function, attribute: ir.Value, part: int, code: int
) -> ir.Value:
    flow, (frame, target) = body.flow, body.given
    words = flow.at(attribute, flow.times(flow.word(attribute, part), 8))
    given = [frame, target, flow.at(target, i64(8 * code)), attribute, words]
    return body.builder.call(section, given)


def _internal(module: ir.Module, name: str, returns: ir.Type | None, *kinds: ir.Type) -> Body:
    body = Body(begun(module, name, *kinds, returns=returns))
    body.function.linkage = "internal"
    return body


def _taken(body: Body, target: ir.Value, size: ir.Value) -> ir.Value:
    """New memory, perhaps null."""
    allocate = ir.Pointed(_ALLOCATES, body.flow.pointer(target, MALLOC))
    return body.builder.call(allocate, [size])


def _freed(body: Body, target: ir.Value, memory: ir.Value) -> None:
    body.builder.call(ir.Pointed(_FREES, body.flow.pointer(target, FREE)), [memory])


def _aligned(body: Body, address: ir.Value) -> ir.Value:
    """The next address that is a multiple of what vectors need."""
    b = body.builder
    number = b.add(b.ptrtoint(address, I64), i64(_ALIGNED - 1))
    return b.inttoptr(b.and_(number, i64(-_ALIGNED)), BYTES)


# ----- threads -----------------------------------------------------------------------------------


def _write_share(module: ir.Module) -> ir.Function:
    """share(job): do tasks until none is left to take; 0 if there was no memory for it."""
    body = _internal(module, "share", I64, BYTES)
    b, flow, (job,) = body.builder, body.flow, body.given
    control, target = flow.at(job, i64(8 * _CONTROL_AT)), flow.pointer(job, _TARGET)
    going, some, none = (b.append_basic_block(name) for name in ("going", "some", "none"))
    idle = b.append_basic_block("idle")
    following = b.load_atomic(flow.at(control, i64(8 * NEXT)), "monotonic", 8, I64)
    b.cbranch(b.icmp_signed("<", following, flow.word(control, TOTAL)), going, idle)
    b.position_at_end(going)
    memory = _taken(body, target, b.add(flow.word(job, _SCRATCH_BYTES), i64(_ALIGNED)))
    b.cbranch(b.icmp_signed("==", memory, _NULL), none, some)
    b.position_at_end(some)
    entry = ir.Pointed(_ENTERED, flow.pointer(job, _ENTRY))
    b.call(entry, [flow.pointer(job, _TABLE_AT), _aligned(body, memory), control])
    _freed(body, target, memory)
    b.branch(idle)
    b.position_at_end(none)
    b.ret(i64(0))
    b.position_at_end(idle)
    return body.done(i64(1))


def _drop(body: Body, job: ir.Value) -> None:
    """Be done with a job; the last thread frees it."""
    b, flow = body.builder, body.flow
    before = b.atomic_rmw("sub", flow.at(job, i64(8 * _REFS)), i64(1), "acq_rel")
    with flow.when(b.icmp_signed("==", before, i64(1))):
        _freed(body, flow.pointer(job, _TARGET), job)


def _write_help(module: ir.Module, share: ir.Function) -> ir.Function:
    """help(job): what XLA calls in other threads, perhaps when all is done."""
    body = _internal(module, "help", None, BYTES)
    body.builder.call(share, body.given)
    _drop(body, body.given[0])
    return body.done()


def _write_phase(module: ir.Module, share: ir.Function, helping: ir.Function) -> ir.Function:
    """phase(frame, target, code, message, table, entry, tasks, threads): 0 if there is no memory.

    `message` is memory for the arguments of XLA's functions.
    """
    body = _internal(module, "phase", I64, *_PHASE)
    b, flow = body.builder, body.flow
    frame, target, code, message, table, entry, tasks, threads = body.given
    begin, fail = b.append_basic_block("begin"), b.append_basic_block("fail")
    job = _taken(body, target, i64(8 * _JOB_WORDS))
    b.cbranch(b.icmp_signed("==", job, _NULL), fail, begin)
    b.position_at_end(fail)
    b.ret(i64(0))
    b.position_at_end(begin)
    api = flow.pointer(frame, _API)
    helpers = _helpers(body, api, frame, message, threads)
    several = b.add(i64(1), b.sdiv(tasks, i64(_CHUNKS)))
    chunk = b.select(b.icmp_signed("==", helpers, i64(0)), tasks, several)
    control = {NEXT: i64(0), STOP: i64(0), TOTAL: tasks, DONE: i64(0), CHUNK: chunk, ACTIVE: i64(0)}
    words = {_REFS: i64(1), _TARGET: target, _ENTRY: entry, _TABLE_AT: table}
    words[_SCRATCH_BYTES] = flow.word(code, SCRATCH)
    words.update((_CONTROL_AT + place, word) for place, word in control.items())
    for place, word in words.items():
        flow.store(word, flow.at(job, i64(8 * place)), 8)
    _offer(body, api, job, helping, helpers)
    shared = flow.at(job, i64(8 * _CONTROL_AT))
    with flow.when(b.icmp_signed("==", b.call(share, [job]), i64(0)), rare=True):
        b.atomic_rmw("xchg", flow.at(shared, i64(8 * STOP)), i64(AT_ONCE), "acq_rel")
        b.fence("seq_cst")
    _wait(body, job, shared)
    done = b.load_atomic(flow.at(shared, i64(8 * DONE)), "acquire", 8, I64)
    _drop(body, job)
    return body.done(b.zext(b.icmp_signed("==", done, tasks), I64))


def _helpers(
    body: Body, api: ir.Value, frame: ir.Value, message: ir.Value, threads: ir.Value
) -> ir.Value:
    """How many threads of XLA are to help: fewer than it has, and none where it says nothing."""
    b, flow = body.builder, body.flow
    there = flow.at(message, i64(40))
    flow.store(i64(1), there, 8)
    with flow.when(b.icmp_signed(">", threads, i64(1))):
        words = (i64(32), i64(0), flow.word(frame, _CONTEXT), there)
        for place, word in enumerate(words):
            flow.store(word, flow.at(message, i64(8 * place)), 8)
        asked = ir.Pointed(_ASKED, flow.pointer(api, _NUM_THREADS))
        error = b.call(asked, [message])
        with flow.when(b.icmp_signed("!=", error, _NULL), rare=True):
            _destroy(body, api, message, error)
            flow.store(i64(1), there, 8)
    count = flow.minimum(threads, flow.word(there, 0))
    # What a schedule is told; the rest of it depends on the job.
    for place, word in enumerate((i64(40), i64(0), flow.word(frame, _CONTEXT))):
        flow.store(word, flow.at(message, i64(8 * place)), 8)
    return b.sub(b.select(b.icmp_signed("<", count, i64(1)), i64(1), count), i64(1))


def _destroy(body: Body, api: ir.Value, message: ir.Value, error: ir.Value) -> None:
    """Free an error of XLA; `message` is overwritten."""
    flow = body.flow
    for place, word in enumerate((i64(24), i64(0), error)):
        flow.store(word, flow.at(message, i64(8 * place)), 8)
    destroy = ir.Pointed(
        ir.FunctionType(ir.VoidType(), (BYTES,)), flow.pointer(api, _ERROR_DESTROY)
    )
    body.builder.call(destroy, [message])


def _offer(
    body: Body, api: ir.Value, job: ir.Value, helping: ir.Function, helpers: ir.Value
) -> None:
    """Ask XLA for threads. What it refuses is done by those that are there."""
    b, flow = body.builder, body.flow
    frame, message = body.given[0], body.given[3]
    with flow.loop(i64(0), helpers, name="helpers"):
        address = ir.Value(BYTES, helping.name)
        words = (i64(40), i64(0), flow.word(frame, _CONTEXT), address, job)
        for place, word in enumerate(words):
            flow.store(word, flow.at(message, i64(8 * place)), 8)
        b.atomic_rmw("add", flow.at(job, i64(8 * _REFS)), i64(1), "acq_rel")
        error = b.call(ir.Pointed(_ASKED, flow.pointer(api, _SCHEDULE)), [message])
        with flow.when(b.icmp_signed("!=", error, _NULL), rare=True):
            _destroy(body, api, message, error)
            b.atomic_rmw("sub", flow.at(job, i64(8 * _REFS)), i64(1), "acq_rel")


def _wait(body: Body, job: ir.Value, control: ir.Value) -> None:
    """Return when no thread touches what tasks read and write any more."""
    b, flow = body.builder, body.flow
    look, rest, over = (b.append_basic_block(name) for name in ("look", "rest", "over"))
    b.branch(look)
    b.position_at_end(look)
    entry = ir.Pointed(_ENTERED, flow.pointer(job, _ENTRY))
    left = b.call(entry, [flow.pointer(job, _TABLE_AT), _NULL, control])
    b.cbranch(b.icmp_signed("==", left, i64(0)), over, rest)
    b.position_at_end(rest)
    b.call(ir.Pointed(_YIELDS, flow.pointer(flow.pointer(job, _TARGET), YIELD)), [])
    b.branch(look)
    b.position_at_end(over)


# ----- tables ------------------------------------------------------------------------------------


def _write_section(module: ir.Module, phase: ir.Function) -> ir.Function:
    """section(frame, target, code, attribute, part): how it went."""
    body = _internal(module, "section", I64, *_SECTION)
    b, flow = body.builder, body.flow
    frame, target, code, attribute, part = body.given
    arrays = flow.word(code, OWN_WORDS + ARRAYS - BLOCK)
    length, partials = flow.word(part, LENGTH), flow.word(part, PARTIAL_BYTES)
    batches = flow.word(attribute, BATCHES)
    words = b.add(length, b.mul(arrays, batches))
    size = flow.sum(flow.times(words, 8), partials, i64(_MESSAGE_BYTES + _ALIGNED))
    begin, fail = b.append_basic_block("begin"), b.append_basic_block("fail")
    memory = _taken(body, target, size)
    b.cbranch(b.icmp_signed("==", memory, _NULL), fail, begin)
    b.position_at_end(fail)
    b.ret(i64(_NO_MEMORY))
    b.position_at_end(begin)
    table = flow.at(memory, i64(_MESSAGE_BYTES))
    _fill_table(body, table, length)
    offsets = flow.at(table, flow.times(length, 8))
    flow.store(offsets, flow.at(table, i64(8 * OFFSETS)), 8)
    _fill_offsets(body, offsets, arrays, batches)
    states = _aligned(body, flow.at(table, flow.times(words, 8)))
    flow.store(states, flow.at(table, i64(8 * PARTIALS)), 8)
    of_columns = flow.at(states, flow.word(part, ACROSS))
    flow.store(of_columns, flow.at(table, i64(8 * ACROSS_AT)), 8)
    given = [frame, target, code, memory, table]
    run = [flow.pointer(code, RUN), flow.word(part, TASKS), flow.word(part, THREADS)]
    well = b.call(phase, [*given, *run])
    kept = flow.at(memory, i64(48))
    flow.store(well, kept, 8)
    merging = flow.word(part, MERGING)
    with flow.when(b.icmp_signed(">", b.mul(merging, well), i64(0))):
        entry = [flow.pointer(code, COMBINE), merging, flow.word(part, MERGING_THREADS)]
        flow.store(b.call(phase, [*given, *entry]), kept, 8)
    bailed = b.icmp_signed("!=", flow.word(table, BAILED_OUT), i64(0))
    failed = b.icmp_signed("==", flow.word(kept, 0), i64(0))
    _freed(body, target, memory)
    found = b.select(bailed, i64(_BAILED), i64(_WELL))
    return body.done(b.select(failed, i64(_NO_MEMORY), found))


def _fill_table(body: Body, table: ir.Value, length: ir.Value) -> None:
    """The table of arguments: the attribute's, the words of the code, addresses of buffers."""
    b, flow = body.builder, body.flow
    frame, _, code, attribute, part = body.given
    with flow.loop(i64(0), length, name="words") as each:
        shift = flow.times(each.index, 8)
        word = flow.word(flow.at(part, shift), TABLE)
        flow.store(word, flow.at(table, shift), 8)
    for place in range(BLOCK, FIRST_RESULT):
        word = flow.word(code, OWN_WORDS + place - BLOCK)
        flow.store(word, flow.at(table, i64(8 * place)), 8)
    for place in (SPARSE_ROW_BLOCKS, INTERVALS, ANSWERS):
        word = flow.word(table, place)
        with flow.when(b.icmp_signed("!=", word, i64(0))):
            flow.store(flow.at(attribute, flow.times(word, 8)), flow.at(table, i64(8 * place)), 8)
    results = flow.word(frame, _RESULT_COUNT)
    for first, count, listed in (
        (i64(0), results, flow.pointer(frame, _RESULTS)),
        (results, flow.word(frame, _ARG_COUNT), flow.pointer(frame, _ARGS)),
    ):
        with flow.loop(i64(0), count, name="buffers") as each:
            buffer = flow.pointer(flow.at(listed, flow.times(each.index, 8)), 0)
            place = flow.times(b.add(first, each.index), 8 * WORDS_PER_ARRAY)
            data = flow.word(buffer, _BUFFER_DATA)
            flow.store(data, flow.at(table, b.add(place, i64(8 * FIRST_RESULT))), 8)


def _fill_offsets(body: Body, offsets: ir.Value, arrays: ir.Value, batches: ir.Value) -> None:
    """Byte offsets of each array in each batch element."""
    b, flow = body.builder, body.flow
    attribute = body.given[3]
    axes = flow.word(attribute, AXES)
    sizes = flow.at(attribute, flow.times(flow.word(attribute, BATCH), 8))
    with (
        flow.loop(i64(0), batches, name="batches") as batch,
        flow.loop(i64(0), arrays, name="arrays") as array,
    ):
        own = flow.at(sizes, flow.times(b.mul(axes, b.add(array.index, i64(1))), 8))
        carried = [batch.index, i64(0)]
        with flow.loop(i64(0), axes, carried=carried, name="axes") as axis:
            rest, total = axis.values
            place = flow.times(b.sub(b.sub(axes, i64(1)), axis.index), 8)
            size, stride = flow.word(flow.at(sizes, place), 0), flow.word(flow.at(own, place), 0)
            step = b.mul(b.srem(rest, size), stride)
            axis.next = [b.sdiv(rest, size), b.add(total, step)]
        here = b.add(b.mul(batch.index, arrays), array.index)
        flow.store(axis.results[1], flow.at(offsets, flow.times(here, 8)), 8)
