"""Cache: what was computed once and is kept, with a bound, a count of its uses, and an end.

Everything that the library keeps between calls is in a `Cache`. A cache belongs to a `Limit`, which
has a name and says how many entries, and about how many bytes, all caches of that name may hold
together: that of a module is one, those of objects (a reduction's bindings, say) are as many as
there are objects, and go with them. Beyond the limit the least recently used eighth of all entries
is dropped. `cache_info` shows all limits and `clear_cache` empties all caches.

A plain attribute is enough for what goes with its object and is few by nature: the calls of one
binding, the row blocks of a pattern, the two halves of ranges. Facts of the process (its settings,
LLVM's target machines and passes) are no caches. Formulas are not kept at all: their table
(`core.node`) refers to them weakly.

There is no lock. Every change of a table is one step for the interpreter, so that another thread,
a fork or an exception that arrives between two steps finds it in order, and a value may at worst be
computed twice. Numbers of uses and the running totals may miss a few where threads meet; totals are
counted anew before anything is dropped.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

V = TypeVar("V")
P = ParamSpec("P")

# Of what a full cache holds, one part in so many is dropped at once.
_PART = 8
_limits: dict[str, Limit] = {}


class Entry(Generic[V]):
    """A value in a cache; `used` is the time on its limit's clock when it was last used."""

    __slots__ = ("bytes", "used", "value")

    def __init__(self, value: V, used: int, size: int) -> None:
        self.value, self.used, self.bytes = value, used, size


class Limit:
    """What the caches of one name may hold together.

    Args:
        name: what `cache_info` calls them; no two limits share one.
        most: how many entries.
        most_bytes: how many bytes, by the sizes that entries are kept with; 0: any.
        emptied: called after `clear_cache` emptied the caches.
    """

    __slots__ = (
        *("bytes", "clock", "emptied", "entries", "evictions", "members"),
        *("misses", "most", "most_bytes", "name", "puts"),
    )

    def __init__(
        self,
        name: str,
        most: int,
        most_bytes: int = 0,
        emptied: Callable[[], object] | None = None,
    ) -> None:
        self.name, self.most, self.most_bytes, self.emptied = name, most, most_bytes, emptied
        self.clock = self.puts = self.misses = self.evictions = self.entries = self.bytes = 0
        self.members: set[weakref.ref[SomeCache]] = set()
        _limits[name] = self

    def counts(self) -> tuple[int, int, int]:
        """How often a value was there, was not, and was dropped: the clock counts puts, too."""
        return self.clock - self.puts, self.misses, self.evictions

    def caches(self) -> Iterator[SomeCache]:
        """The caches that are alive."""
        for reference in tuple(self.members):
            cache = reference()
            if cache is not None:
                yield cache

    def held(self) -> tuple[int, int]:
        """(entries, bytes) of all caches, counted."""
        entries = size = 0
        for cache in self.caches():
            for entry in cache.table.copy().values():
                entries += 1
                size += entry.bytes
        return entries, size

    def exceeded(self) -> bool:
        """Whether there is too much, by the running totals."""
        return self.entries > self.most or self.bytes > self.most_bytes > 0

    def shrink(self, newest: object) -> None:
        """Drop the entries used least recently, but not the newest, where there are too many."""
        self.entries, self.bytes = self.held()
        if not self.exceeded():
            return
        found = [
            (entry.used, cache.table, key, entry)
            for cache in self.caches()
            for key, entry in cache.table.copy().items()
            if entry is not newest
        ]
        found.sort(key=lambda each: each[0])
        few, small = self.most - self.most // _PART, self.most_bytes - self.most_bytes // _PART
        for _, table, key, entry in found:
            if self.entries <= few and (self.bytes <= small or not self.most_bytes):
                break
            if table.pop(key, None) is not None:
                self.entries -= 1
                self.bytes -= entry.bytes
                self.evictions += 1

    def clear(self) -> None:
        """Empty all caches."""
        for cache in self.caches():
            cache.table.clear()
        self.entries, self.bytes = self.held()
        if self.emptied is not None:
            self.emptied()


class Cache(Generic[V]):
    """A table of values by key, one of those that a limit bounds.

    >>> squares: Cache[int] = Cache(Limit("squares", 100))
    >>> squares.get(3), squares.put(3, 9), squares.get(3)
    (None, 9, 9)
    """

    __slots__ = ("__weakref__", "limit", "table")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.table: dict[Hashable, Entry[V]] = {}
        limit.members.add(weakref.ref(self, limit.members.discard))

    def __len__(self) -> int:
        return len(self.table)

    def get(self, key: Hashable) -> V | None:
        """The value of a key, None where there is none."""
        entry, limit = self.table.get(key), self.limit
        if entry is None:
            limit.misses += 1
            return None
        entry.used = limit.clock = limit.clock + 1
        return entry.value

    def peek(self, key: Hashable) -> V | None:
        """The value of a key, or None; not counted as a use."""
        entry = self.table.get(key)
        return None if entry is None else entry.value

    def put(self, key: Hashable, value: V, size: int = 0) -> V:
        """Keep a value of so many bytes; what is kept: another one that was there before."""
        limit = self.limit
        mine = Entry(value, limit.clock + 1, size)
        entry = self.table.setdefault(key, mine)
        if entry is mine:
            limit.clock += 1
            limit.puts += 1
            limit.entries += 1
            limit.bytes += size
            if limit.entries > limit.most or limit.bytes > limit.most_bytes > 0:
                limit.shrink(mine)
        return entry.value

    def replace(self, key: Hashable, value: V) -> None:
        """Keep a value instead of the one that there was."""
        self.table.pop(key, None)
        self.put(key, value)

    def of(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of a key, made and kept where there is none."""
        entry, limit = self.table.get(key), self.limit
        if entry is None:
            limit.misses += 1
            return self.put(key, make())
        entry.used = limit.clock = limit.clock + 1
        return entry.value

    def clear(self) -> None:
        """Forget all values."""
        self.table.clear()


SomeCache = Cache[Any]  # what its values are does not matter to a limit


class _Counts(Protocol):
    """What functools says of a cache."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def currsize(self) -> int: ...


class _Kept(Protocol):
    """The cache of a function, as functools makes it."""

    def cache_info(self) -> _Counts: ...
    def cache_clear(self) -> None: ...


class _Results(Limit):
    """The cache of a function: functools keeps it, as fast as C is; counts outlast `clear`."""

    __slots__ = ("kept",)

    def __init__(self, name: str, most: int, kept: _Kept) -> None:
        super().__init__(name, most)
        self.kept = kept

    def held(self) -> tuple[int, int]:
        return self.kept.cache_info().currsize, 0

    def counts(self) -> tuple[int, int, int]:
        found = self.kept.cache_info()
        dropped = max(0, found.misses - found.currsize)
        return self.clock + found.hits, self.misses + found.misses, self.evictions + dropped

    def clear(self) -> None:
        self.clock, self.misses, self.evictions = self.counts()
        self.kept.cache_clear()


def cached(name: str, most: int, typed: bool = False) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """Keep what a function returned for the `most` arguments that were used last.

    `typed`: arguments of different types are different, as 1 and 1.0.
    """

    def decorate(function: Callable[P, V]) -> Callable[P, V]:
        kept = functools.lru_cache(maxsize=most, typed=typed)(function)
        _Results(name, most, kept)
        return cast("Callable[P, V]", kept)

    return decorate


# -- what users see --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheRow:
    """The caches of one name: what they hold, may hold, and how often they had what was wanted.

    `bytes` are counted, about, where entries are large: `byte_bound` is 0 elsewhere.
    """

    name: str
    entries: int
    bound: int
    bytes: int
    byte_bound: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True, repr=False)
class CacheInfo:
    """What the library keeps in memory, by the name of its caches; prints as a table."""

    rows: tuple[CacheRow, ...]

    def __getitem__(self, name: str) -> CacheRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def entries(self) -> int:
        """Entries of all caches."""
        return sum(row.entries for row in self.rows)

    @property
    def bytes(self) -> int:
        """Bytes that are counted, of machine code and lowered formulas."""
        return sum(row.bytes for row in self.rows)

    def __repr__(self) -> str:
        titles = ("cache", "entries", "bound", "memory", "bound", "hits", "misses", "evicted")
        lines: list[tuple[str, ...]] = [titles]
        for row in self.rows:
            sizes = (_size(row.bytes), _size(row.byte_bound)) if row.byte_bound else ("-", "-")
            counts = (row.hits, row.misses, row.evictions)
            lines.append((row.name, str(row.entries), str(row.bound), *sizes, *map(str, counts)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                text.rjust(width) if place else text.ljust(width)
                for place, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB"


def cache_info() -> CacheInfo:
    """What the library keeps between calls: a row for each kind of cache.

    Formulas are lowered and compiled once; what was learnt of sizes, strides and settings is kept,
    too. Each kind of cache has a bound, beyond which what was used least recently is dropped. Parts
    of the library that were not used yet have no row.

    >>> info = cache_info()
    >>> all(row.entries <= row.bound for row in info.rows)
    True
    """
    rows: list[CacheRow] = []
    for limit in tuple(_limits.values()):
        bounds = limit.most, limit.most_bytes
        entries, size = limit.held()
        rows.append(CacheRow(limit.name, entries, bounds[0], size, bounds[1], *limit.counts()))
    return CacheInfo(tuple(rows))


def clear_cache() -> None:
    """Forget everything that `cache_info` shows, and free the machine code that no call runs.

    Reductions stay as they are and compile again when they are called next. CUDA graphs that
    recorded a reduction must be recorded again before they are replayed.

    >>> clear_cache()
    >>> cache_info().entries
    0
    """
    for limit in tuple(_limits.values()):
        limit.clear()
