"""Settings: as statements, in blocks, as decorators; what they refuse."""

from __future__ import annotations

import dataclasses
import gc
import threading
from contextvars import copy_context
from typing import Any, get_type_hints

import pytest

from pairfold.errors import OptionError
from pairfold.settings import (
    Options,
    Settings,
    available_cpus,
    current,
    settings,
    thread_count,
)


def test_type_checkers_know_the_settings_that_there_are() -> None:
    types = {"int": int, "str": str, "bool": bool}
    wanted = {field.name: types[str(field.type)] for field in dataclasses.fields(Settings)}
    assert get_type_hints(Options) == wanted


def test_a_statement_holds_from_there_on() -> None:
    def body() -> None:
        settings(threads=1)
        gc.collect()
        assert current().threads == thread_count() == 1
        settings(unroll=3)
        assert (current().threads, current().unroll) == (1, 3)
        with settings(threads=2):
            settings(threads=5)
            assert current().threads == 5
        assert (current().threads, current().unroll) == (1, 3)

    before = current()
    copy_context().run(body)
    assert current() is before


def _fail_unless(right: bool) -> None:
    assert right
    raise ZeroDivisionError


def test_a_block_brings_back_what_was_before() -> None:
    before = current()
    with settings(threads=3) as outer:
        assert current() is outer
        with pytest.raises(ZeroDivisionError), settings(unroll=2) as inner:
            _fail_unless(current() is inner and (inner.threads, inner.unroll) == (3, 2))
        assert current() is outer
    assert current() is before


def test_one_object_serves_several_blocks() -> None:
    before = current()
    with settings(threads=3) as first:
        pass
    again = settings(threads=2)
    with again as inside:
        assert current() is inside
    assert current() is before
    with settings(unroll=3) as around:
        with again:
            assert current().threads == 2
        assert current() is around
    assert current() is before
    assert first.threads == 3


def test_a_decorated_function_has_them_while_it_runs() -> None:
    before = current()

    @settings(threads=3)
    def inner() -> int:
        """What it says."""
        return current().threads

    assert current() is before
    assert [inner(), inner()] == [3, 3]
    assert inner.__doc__ == "What it says."
    assert current() is before


def test_other_threads_keep_theirs() -> None:
    seen: list[int] = []
    before = current().threads
    with settings(threads=7):
        thread = threading.Thread(target=lambda: seen.append(current().threads))
        thread.start()
        thread.join()
    assert seen == [before]


def test_a_block_whose_end_was_interrupted_ends_with_its_exception() -> None:
    before = current()

    def interrupted() -> None:
        block = settings(threads=3)
        block.__enter__()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert current() is before


@pytest.mark.parametrize("text", ["²", "9" * 5000, "٣", "-2", "0", " ", "1e3", "+"])
def test_what_is_no_number_of_threads_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == available_cpus()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("row_vectors", 5000), ("column_jam", 65), ("output_jam", 10**30), ("block", 2**40)],
        *[("row_tiles", 10**9), ("unroll", 10**6), ("unroll_pairs", 10**6), ("splits", 2**70)],
        *[("threads", 10**6), ("check", 3), ("threads", -1), ("unroll", 0), ("threads", "²")],
        *[("threads", "9" * 5000), ("thread", 1)],
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(name: str, value: Any) -> None:
    before = current()
    with pytest.raises(OptionError) as raised:
        settings(**{name: value})
    assert len(str(raised.value)) < 300
    assert current() is before


def test_where_there_is_no_affinity_python_is_asked_for_the_cpus_of_the_process(
    monkeypatch,
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.process_cpu_count", lambda: 3, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert available_cpus() == 3
    monkeypatch.delattr("os.process_cpu_count")
    assert available_cpus() == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert available_cpus() == 1
