"""The handler that XLA calls, called with frames of our own: no JAX is needed.

What XLA does not do here on demand is done: it refuses threads, has none, runs them late, and there
is no memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pairfold import Genred, settings
from pairfold.arrays.registry import NUMPY
from pairfold.backends.llvm import xla
from pairfold.backends.llvm.abi import ANSWERS, INTERVALS, PATTERN_BLOCKS, SPARSE_ROW_BLOCKS

WORD = ctypes.c_int64
API_WORDS = 19


class Frame:
    """A call frame: buffers, one attribute, and functions of XLA written in Python."""

    def __init__(self, results: list[Any], arguments: list[Any], words: Any, pool: Pool) -> None:
        self.alive: list[Any] = [results, arguments, words, pool]
        array = self.words(0, len(words), words.ctypes.data)
        listed = self.words(array)
        context, api = self.words(7), self.words(*pool.api)
        self.frame = self.words(
            *(168, 0, api, context, 3),
            *(40, 0, len(arguments), 0, self.buffers(arguments)),
            *(40, 0, len(results), 0, self.buffers(results)),
            *(40, 0, 1, 0, 0, listed),
        )

    def words(self, *values: int) -> int:
        """The address of words that live as long as the frame."""
        self.alive.append((WORD * len(values))(*values))
        return ctypes.addressof(self.alive[-1])

    def buffers(self, arrays: list[Any]) -> int:
        return self.words(*(self.words(48, 0, 0, a.ctypes.data, a.ndim, 0) for a in arrays))


class Pool:
    """XLA's functions: how many threads there are, and what a schedule does with a task."""

    def __init__(self, threads: int, schedule: Callable[[Callable[[], None]], int]) -> None:
        self.offered, self.destroyed, self.errors = 0, 0, []
        self.threads, self.schedule = threads, schedule
        kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(WORD))
        self.task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        functions = {6: self.create, 8: self.destroy, 17: self.offer, 18: self.count}
        self.kept = {place: kind(function) for place, function in functions.items()}
        self.api = [0] * API_WORDS
        for place, function in self.kept.items():
            self.api[place] = ctypes.cast(function, ctypes.c_void_p).value or 0

    def create(self, args: Any) -> int:
        self.errors.append((ctypes.string_at(args[2]), args[3] & 0xFFFFFFFF))
        return 99

    def destroy(self, args: Any) -> int:
        assert args[2] == 5
        self.destroyed += 1
        return 0

    def offer(self, args: Any) -> int:
        self.offered += 1
        task, job = self.task(args[3]), args[4]
        return self.schedule(lambda: task(job))

    def count(self, args: Any) -> int:
        if self.threads < 0:
            return 5
        ctypes.cast(args[3], ctypes.POINTER(WORD))[0] = self.threads
        return 0


def at_once(task: Callable[[], None]) -> int:
    task()
    return 0


class Late:
    """Runs tasks when it is told: after the call is over."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []

    def __call__(self, task: Callable[[], None]) -> int:
        self.tasks.append(task)
        return 0


def in_threads(task: Callable[[], None]) -> int:
    threading.Thread(target=task).start()
    return 0


def refused(task: Callable[[], None]) -> int:
    return 5


def prepared(
    formula: str,
    arrays: list[Any],
    reduction: str = "Sum",
    where: str | None = None,
    **options: Any,
) -> tuple[Any, Any, Any, list[Any]]:
    """The target of a reduction, its attribute; results as they are without XLA; new results."""
    fold = Genred(formula, ["x=Vi(3)", "y=Vj(3)"], reduction, axis=1, where=where)._fold
    with settings(**options):
        wanted = fold.run(NUMPY, arrays)
        binding = fold.binding(NUMPY, arrays)
        results = [np.full_like(w, 77) for w in wanted]
        strides, along = fold.strides(NUMPY, results, arrays, binding)
        bound = fold.bound(binding, None)
        call = binding.launcher.call(bound, binding.rows, binding.columns, strides)
        target, words = call.for_xla(binding.sizes.batch, along)
    return target, words, wanted, results


def points(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape)


POOLS = {
    "no threads": (1, refused, 0),
    "not said": (-1, refused, 0),
    "refused": (3, refused, 2),
    "at once": (3, at_once, 2),
    "in threads": (4, in_threads, 3),
    "late": (3, Late(), 2),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("splits", [1, 3])
def test_all_is_done_whatever_threads_do(name, splits):
    threads, schedule, offered = POOLS[name]
    pool = Pool(threads, schedule)
    arrays = [points(2, 900, 3), points(700, 3)]
    given = {"threads": 8, "splits": splits}
    target, words, wanted, results = prepared("Exp(-SqDist(x,y))", arrays, **given)
    assert target.entry(Frame(results, arrays, words, pool).frame) is None
    np.testing.assert_array_equal(results[0], wanted[0])
    assert pool.offered >= offered
    assert (pool.destroyed > 0) == (name in ("not said", "refused"))
    if isinstance(schedule, Late):
        assert schedule.tasks
        while schedule.tasks:
            schedule.tasks.pop()()


@pytest.mark.parametrize("lanes", ["row", "column"])
@pytest.mark.parametrize(
    ("where", "known"),
    [
        ("Ind(j) <= Ind(i)", True),
        ("LogicalAnd(Abs(Ind(i)-Ind(j)) <= 30, Elem(x,0)+Exp(Elem(y,0)) <= 1)", True),
        ("Ind(j) <= Elem(x,0) * 100", False),
        ("Elem(x,0) <= Elem(y,0)", False),
    ],
)
def test_blocks_of_masks_are_skipped_whatever_arrays_hold(
    where: str, known: bool, lanes: str
) -> None:
    arrays = [points(2, 170, 3), points(210, 3)]
    options = {"lanes": lanes, "block": 16, "blocks": "always", "rules": "exact"}
    target, words, wanted, results = prepared("SqDist(x,y)", arrays, where=where, **options)
    table = words[words[xla.MAIN] + xla.TABLE :]
    assert bool(table[ANSWERS]) == known
    if known:
        row_blocks = words[table[SPARSE_ROW_BLOCKS] :][: 5 * table[PATTERN_BLOCKS]].reshape(-1, 5)
        assert row_blocks[:, 1].sum() == 170
        intervals = words[table[INTERVALS] :][: 2 * row_blocks[-1, 3]].reshape(-1, 2)
        assert (intervals[:, 1] - intervals[:, 0]).min() < 200
    frame = Frame(results, arrays, words, Pool(3, at_once))
    assert not target.entry(frame.frame)
    assert (results[0] == wanted[0]).all()
    *_, tested, _ = prepared("SqDist(x,y)", arrays, where=where, **{**options, "blocks": "test"})
    assert (results[0] == tested[0]).all()


def test_a_kernel_that_bails_out_is_run_again_as_it_is_written():
    arrays = [np.full((5, 3), 1e300), np.full((9, 3), -1e300)]
    arrays[0][2] = np.nan
    target, words, wanted, results = prepared("Exp(-SqDist(x,y))", arrays)
    assert words[xla.LITERAL]
    assert target.entry(Frame(results, arrays, words, Pool(1, refused)).frame) is None
    np.testing.assert_array_equal(results[0], wanted[0])
    assert not prepared("SqDist(x,y)", arrays)[1][xla.LITERAL]


@pytest.mark.parametrize("allowed", range(3))
def test_without_memory_there_is_an_error_and_none_is_lost(allowed):
    """Memory runs out at the table, at what threads share, or at the scratch memory of a task."""
    arrays = [points(5, 3), points(7, 3)]
    target, words, _, results = prepared("SqDist(x,y)+1", arrays)
    held: dict[int, Any] = {}

    def take(size: int) -> int:
        if len(held) == allowed:
            return 0
        memory = ctypes.create_string_buffer(size)
        held[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    given = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(take)
    freed = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(held.pop)
    before = target._words[xla.MALLOC], target._words[xla.FREE]
    for place, function in ((xla.MALLOC, given), (xla.FREE, freed)):
        target._words[place] = ctypes.cast(function, ctypes.c_void_p).value
    pool = Pool(1, refused)
    try:
        assert target.entry(Frame(results, arrays, words, pool).frame) == 99
    finally:
        target._words[xla.MALLOC], target._words[xla.FREE] = before
    assert pool.errors == [(b"pairfold: there is no memory", 8)]
    assert not held


def test_a_handler_says_which_version_it_is_of():
    arrays = [points(5, 3), points(7, 3)]
    target, words, _, results = prepared("SqDist(x,y)+1", arrays)
    frame = Frame(results, arrays, words, Pool(1, refused))
    about = (WORD * 6)(48, 24, 0, -1, -1, 0)
    extension = frame.words(32, 1, 0, ctypes.addressof(about))
    ctypes.cast(frame.frame, ctypes.POINTER(WORD))[1] = extension
    assert target.entry(frame.frame) is None
    numbers = np.frombuffer(about, np.int32)
    assert numbers[6:9].tolist() == [xla.MAJOR, xla.MINOR, 0]
    assert (results[0] == 77).all()


def test_the_name_of_a_target_is_that_of_its_code():
    arrays = [points(5, 3), points(7, 3)]
    one = prepared("SqDist(x,y)*2", arrays)
    other = prepared("SqDist(x,y)*3", arrays)
    assert one[0].name != other[0].name
    assert prepared("SqDist(x,y)*2", arrays)[0] is one[0]
    native = one[0]._natives[0]  # compiled again, the same code has the same name
    native.targets.clear()
    native.bails_out.clear()
    assert prepared("SqDist(x,y)*2", arrays)[0] is one[0]


@pytest.mark.parametrize("reduction", ["Sum", "ArgMin"])
def test_what_differs_in_anything_has_another_name(reduction):
    """Code may be the same where plans or dtypes are not: what drivers are told counts, too."""
    names: set[str] = set()
    choices = [(dtype, tiles) for dtype in ("float16", "float32", "float64") for tiles in (1, 2, 3)]
    for dtype, tiles in choices:
        arrays = [points(60, 3).astype(dtype), points(50, 3).astype(dtype)]
        given = ("SqDist(x,y)", arrays, reduction)
        target, words, wanted, results = prepared(*given, row_tiles=tiles, block=64)
        assert target.entry(Frame(results, arrays, words, Pool(1, refused)).frame) is None
        np.testing.assert_array_equal(results[0], wanted[0])
        names.add(target.name)
    assert len(names) == len(choices)
