"""What is kept between calls: its bounds, its numbers, and that it can go at any moment."""

from __future__ import annotations

import gc
import linecache
import os
import pickle
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same_bits

import pairfold
from pairfold.backends.llvm import native
from pairfold.core import cache as caches
from pairfold.core.cache import Cache, Limit, cache_info, cached, clear_cache
from pairfold.numpy import Genred, Vi, Vj
from pairfold.settings import current, settings

ALIASES = ["x = Vi(3)", "y = Vj(3)"]
MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def _no_limits_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test makes are not among those of the library."""
    monkeypatch.setattr(caches, "_limits", dict(caches._limits))


def cloud(rows: int, seed: int = 0) -> Any:
    """Random points."""
    return np.random.default_rng(seed).random((rows, 3))


def gaussian(number: int) -> Genred:
    """A formula that no other number has."""
    return Genred(f"Exp(-{number + 0.125}*SqDist(x,y))", ALIASES, axis=1)


# -- one cache -------------------------------------------------------------------------------------


def test_what_was_used_least_recently_goes_first() -> None:
    cache: Cache[int] = Cache(Limit("test", 16))
    for n in range(16):
        cache.put(n, n)
    for n in (0, 1, 2, 0):
        assert cache.get(n) == n
    cache.put(16, 16)
    assert sorted(cache.table) == [0, 1, 2, *range(6, 17)]  # an eighth is free
    row = cache_info()["test"]
    assert (row.entries, row.bound, row.hits, row.misses, row.evictions) == (14, 16, 4, 0, 3)


def test_the_first_value_of_a_key_stays() -> None:
    cache: Cache[list[int]] = Cache(Limit("test", 4))
    first: list[int] = []
    assert cache.put("a", first) is first
    assert cache.put("a", []) is first
    assert cache.of("a", list) is first
    assert cache.of("b", lambda: [1]) == [1]
    cache.replace("b", [2])
    assert cache.peek("b") == [2]
    assert cache_info()["test"].hits == 1
    assert cache_info()["test"].misses == 1


def test_bytes_are_bounded_but_the_newest_value_always_fits() -> None:
    cache: Cache[str] = Cache(Limit("test", 100, 1000))
    for n in range(50):
        cache.put(n, "value", 90)
        assert cache_info()["test"].bytes <= 1000
    assert 49 in cache.table
    cache.put("large", "value", 5000)
    assert list(cache.table) == ["large"]
    cache.put("small", "value", 10)
    assert list(cache.table) == ["small"]


def test_caches_of_objects_share_a_limit_and_go_with_their_objects() -> None:
    limit = Limit("test", 40)
    held = [Cache[int](limit) for _ in range(10)]
    for n in range(6):
        for cache in held:
            cache.put(n, n)
    assert cache_info()["test"].entries <= 40
    assert all(5 in cache.table for cache in held), "what came last"
    del cache, held[3:]
    assert cache_info()["test"].entries == sum(map(len, held))
    assert len(limit.members) == 3
    for n in range(100):  # objects that come and go drop nothing of those that stay
        Cache[int](limit).put(n, n)
    assert all(5 in cache.table for cache in held)


def test_functions_are_called_once_for_the_same_arguments() -> None:
    calls: list[Any] = []

    @cached("test", 8, typed=True)
    def double(x: float) -> float:
        calls.append(x)
        return 2 * x

    assert [double(1), double(1), double(1.0), double(3)] == [2, 2, 2.0, 6]
    assert [type(x) for x in calls] == [int, float, int]
    for clear in (False, True):
        if clear:
            caches._limits["test"].clear()
        row = cache_info()["test"]
        assert (row.entries, row.bound, row.hits, row.misses) == (0 if clear else 3, 8, 1, 3)
    for n in range(12):
        double(n)
    row = cache_info()["test"]
    assert (row.entries, row.hits, row.misses, row.evictions) == (8, 1, 15, 4)


@pytest.mark.parametrize("step", range(45))
def test_an_exception_at_any_line_leaves_a_cache_in_order(step: int) -> None:
    """As an interrupt does, it comes between two lines of a full cache's `put`."""
    cache: Cache[int] = Cache(Limit("test", 8, 800))
    for n in range(8):
        cache.put(n, n, 100)
    left = step

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != caches.__file__:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        cache.put(8, 8, 100)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    for n in range(9, 30):
        cache.put(n, n, 100)
        assert all(cache.peek(key) == key for key in tuple(cache.table))
    row = cache_info()["test"]
    assert row.entries <= 8
    assert row.bytes == 100 * row.entries


def test_threads_may_use_a_cache_at_once() -> None:
    cache: Cache[int] = Cache(Limit("test", 64))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        chosen = np.random.default_rng(seed).integers(0, 300, 3000).tolist()
        try:
            for place, n in enumerate(chosen):
                if cache.of(n, lambda n=n: n) != n:
                    wrong.append(n)
                if place % 500 == 499:
                    cache.limit.clear()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert len(cache) <= 70


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_caches_in_order() -> None:
    cache: Cache[int] = Cache(Limit("test", 16))
    done = threading.Event()

    def work() -> None:
        n = 0
        while not done.is_set():
            n += 1
            cache.put(n, n)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                for n in range(100):
                    cache.put(-n, -n)
                fine = len(cache) <= 17 and all(cache.peek(n) == n for n in tuple(cache.table))
                os._exit(0 if fine else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()


# -- those of the library --------------------------------------------------------------------------


def executable_regions() -> int:
    """Regions of memory that hold code, but are no part of a file."""
    lines = MAPS.read_text().splitlines()
    return sum("r-xp" in line and len(line.split()) == 5 for line in lines)


@pytest.mark.skipif(not MAPS.exists(), reason="a Linux kernel says where code is")
def test_machine_code_that_is_dropped_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(17), cloud(23, 1)
    clear_cache()
    assert cache_info()["machine code"].bytes == 0
    start = executable_regions()
    each = 60_000
    monkeypatch.setattr(native._CODE, "most_bytes", 8 * each)
    made = [gaussian(n) for n in range(30)]
    want = [genred(x, y) for genred in made]
    row = cache_info()["machine code"]
    assert 4 <= row.entries <= 8
    assert 4 * each <= row.bytes <= 8 * each
    # Code that is linked from several objects may lie in two regions.
    assert 0 < executable_regions() - start <= 2 * row.entries + 1
    for genred, result in zip(made, want, strict=True):
        assert_same_bits(genred(x, y), result)
    clear_cache()
    assert cache_info()["machine code"].bytes == 0
    assert executable_regions() <= start
    assert_same_bits(made[0](x, y), want[0])


def test_a_kernel_that_is_held_by_nobody_goes_with_the_caches() -> None:
    x = cloud(11)
    genred = gaussian(77)
    genred(x, x)
    kernel = weakref.ref(genred._fold.launcher("float64", current()).kernel)
    assert kernel() is not None
    clear_cache()
    gc.collect()
    assert kernel() is None
    assert cache_info().entries == 0


def test_everything_works_after_the_caches_were_cleared() -> None:
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(cloud(n, n), requires_grad=True) for n in (17, 23))
    genred = pairfold.Genred("Exp(-SqDist(x,y))", ALIASES, axis=1)

    def results() -> list[Any]:
        tensor = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
        given = genred(x, y).sum() + tensor.logsumexp(axis=0).sum()
        return [a.detach().numpy() for a in (given, *torch.autograd.grad(given, [x, y]))]

    want = results()
    assert cache_info().entries
    clear_cache()
    for _ in range(2):
        for got, before in zip(results(), want, strict=True):
            assert_same_bits(got, before)


def test_the_code_of_a_running_call_stays_until_it_is_over() -> None:
    x, y = cloud(3000), cloud(20_000, 1)
    genred = gaussian(99)
    with settings(threads=2):
        want = genred(x, y)
    found: list[Any] = []

    def work() -> None:
        with settings(threads=2):
            found.append(genred(x, y))

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            clear_cache()
            thread.join(0.01)
    assert len(found) == 3
    for result in found:
        assert_same_bits(result, want)


def test_calls_are_counted() -> None:
    x = cloud(9)
    genred = gaussian(123)
    genred(x, x)
    before = cache_info()
    for _ in range(5):
        genred(x, x)
    after = cache_info()
    for name in ("bindings", "machine code"):
        assert after[name].hits - before[name].hits == 5, name
        assert after[name].misses == before[name].misses, name
    with pytest.raises(KeyError):
        after["no such cache"]


def test_the_information_prints_as_a_table() -> None:
    gaussian(5)(cloud(3), cloud(4))
    lines = repr(cache_info()).splitlines()
    titles = ["cache", "entries", "bound", "memory", "bound", "hits", "misses", "evicted"]
    assert lines[0].split() == titles
    assert len({len(line) for line in lines}) == 1
    assert any(line.startswith("machine code") and "64.0 MB" in line for line in lines)


def test_modules_of_gpu_programs_are_forgotten_where_python_finds_them() -> None:
    pytest.importorskip("triton")
    from pairfold.backends.gpu.compiled import module_of

    clear_cache()
    module = module_of("number = 17\n", "nothing", False)
    name, filename = module.__name__, module.__spec__.origin  # type: ignore[union-attr]
    assert module_of("number = 17\n", "nothing", False) is module
    assert sys.modules[name] is module
    assert linecache.getline(filename, 1) == "number = 17\n"
    clear_cache()
    assert name not in sys.modules
    assert filename not in linecache.cache
    assert module.number == 17


def test_settings_are_equal_and_hashed_alike_in_every_process() -> None:
    with settings(threads=3, target="baseline") as some:
        pass
    hash(some)
    again = pickle.loads(pickle.dumps(some))
    assert again == some
    assert hash(again) == hash(some)
    assert hash(some) != hash(current())
    assert b"_hash" not in pickle.dumps(some)
