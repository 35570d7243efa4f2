"""The benchmarks: every case is right, a wrong result is noticed, blocks are counted."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import blocks, bound, first_call, fresh, headline, report
from benchmarks.case import Bar, sample_rows
from benchmarks.cases import CASES
from benchmarks.harness import Result
from benchmarks.peers.eager import TorchPeer
from benchmarks.peers.genred import GenredPeer
from benchmarks.worker import _flat

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
APPROXIMATE = {"solve.gaussian": 1e-5}  # conjugate gradients stop there
SMALL = (37, 530)  # more columns than the largest K


def error_of(peer, case, size=SMALL):
    arrays = case.arrays(0, *size)
    results = _flat(peer.prepare(case, arrays)())
    sampled = [np.asarray(result)[sample_rows(len(result))] for result in results]
    return case.error(arrays, sampled, case.exact(arrays))


def distinct():
    """The cases whose names say another size only are left out."""
    return [case for case in CASES.values() if not bound.in_sizes(case)]


@pytest.mark.parametrize("case", distinct(), ids=lambda case: case.name)
def test_every_case_agrees_with_its_oracle(case):
    if case.front == "torch":
        pytest.importorskip("torch")
    allowed = APPROXIMATE.get(case.name, TOLERANCE[case.dtype])
    assert error_of(GenredPeer("pairfold"), case) < allowed


@pytest.mark.parametrize("name", ["gaussian.float64", "knn.dim16.k10", "sinkhorn", "attention"])
def test_a_peer_agrees_with_the_oracle(name):
    pytest.importorskip("torch")
    assert error_of(TorchPeer("products"), CASES[name]) < 1e-4


def test_wrong_neighbours_are_noticed():
    case = CASES["knn.dim3.k10"]
    arrays = case.arrays(0, *SMALL)
    exact = case.exact(arrays)
    (right,) = GenredPeer("pairfold").prepare(case, arrays)()
    assert case.error(arrays, [right], exact) < 1e-5
    other, twice, outside = (np.array(right) for _ in range(3))
    other[5, 9] = np.setdiff1d(np.arange(SMALL[1]), right[5])[0]
    twice[5, 9] = twice[5, 8]
    outside[5, 9] = SMALL[1]
    assert case.error(arrays, [other], exact) > 1e-3
    assert case.error(arrays, [twice], exact) == np.inf
    assert case.error(arrays, [outside], exact) == np.inf


def test_a_case_of_many_pairs_is_tried_in_part_first():
    assert CASES["gaussian.100k"].heavy(100_000, 100_000)
    assert not CASES["gaussian.100k"].heavy(500, 500)


def test_floors_and_aims_are_judged():
    results = {
        "gaussian.float32": {
            "pairfold": Result("pairfold", samples=[1.0], disturbed=[False]),
            "PyKeOps": Result("PyKeOps", samples=[30.0], disturbed=[False]),
            "PyKeOps tuned": Result("PyKeOps tuned", samples=[0.1], disturbed=[False]),
            "numba": Result("numba", samples=[5.0], disturbed=[False]),
            "SciPy cKDTree": Result("SciPy cKDTree", samples=[0.5], disturbed=[False]),
            "C++": Result("C++", estimate=2.0),
        }
    }
    judged = {text: met for _, text, met in report.verdicts(results, {}, [], False)}
    assert judged == {"40 x PyKeOps (30)": False, "4 x Python (5 numba)": True, "1 x C++ (2)": True}
    slower = report.findings(results, []).splitlines()[0]
    assert slower == "- Slower than a brute-force peer: gaussian.float32 (PyKeOps tuned, 10 x)."


def test_every_case_that_a_bar_names_is_there():
    bars = [bar for case in CASES.values() for bar in (*case.floor, *case.aim)]
    assert bars
    assert all(isinstance(bar, Bar) for bar in bars)
    assert {bar.of for bar in bars if bar.kind == "multiple"} <= set(CASES)


def test_blocks_are_counted():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    counters = (ctypes.c_int64 * 8)()
    source = str(llvm.parse_assembly(bound.chain_source(3)))
    text, places = blocks._counted(source, ctypes.addressof(counters))
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
    kind(engine.get_function_address("chain"))(10, 3, 5)
    counted = {name: counters[place] for (_, name), place in places.items()}
    assert counted == {"entry": 1, "loop": 10, "done": 1}


def test_first_calls_of_two_trees_are_compared(capsys, monkeypatch):
    monkeypatch.setattr(first_call, "_PAIRS", 1)
    tree, case = str(first_call.ROOT), "^Sum 100 x 100, threads 1$"
    first_call.main(["--beside", tree, "--rounds", "1", "--repeats", "2", "--cases", case])
    rows = [re.findall(r"[^|]+", line) for line in capsys.readouterr().out.splitlines()]
    tables = [[cell.strip() for cell in row] for row in rows if len(row) > 3]
    names = [row[:-3] for row in tables if not row[0].startswith("---")]
    times = (fresh.IMPORT, fresh.FIRST, fresh.SECOND, fresh.WARM)
    kinds = [[name, kind] for name in times for kind in ("clock", "processor")]
    assert names == [["fresh process, ms", "by"], *kinds, ["warm call, us"], [case[1:-1]]]
    measured = [row[-3:] for row in tables if row[-1] != "ratio" and "---" not in row[0]]
    assert all(float(cell) > 0 for row in measured for cell in row)


def _unusual():
    """A case whose formula no other test has compiled."""
    return dataclasses.replace(CASES["gaussian.float32"], formula="Exp(-SqDist(x,y)*(7/16))*b")


def test_loops_over_pairs_are_found_in_machine_code():
    with blocks.counting() as made:
        found = blocks.count(_unusual(), (640, 512), made)
    loops = [block for block in found if block.loop and block.name.endswith(":pairs")]
    assert loops
    assert all(block.instructions for block in loops)


SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def seconds(cell: str) -> float | None:
    """The time at the beginning of a cell of a table of speed, bold or not."""
    found = re.match(r"\W*(?:about )?([\d.]+) (us|ms|s)\b", cell)
    return float(found[1]) * SECONDS[found[2]] if found else None


def rows_of(page: str) -> list[list[str]]:
    table = page.partition("| Case | pairfold |")[2].partition("<!-- speed:end -->")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


@pytest.mark.parametrize("page", headline.PAGES, ids=lambda page: page.name)
def test_tables_of_speed_are_up_to_date(page):
    rows = headline.summary(headline.RESULTS.read_text())
    assert page.read_text() == headline.written(page, rows), "python -m benchmarks.headline"


@pytest.mark.parametrize("page", headline.PAGES, ids=lambda page: page.name)
def test_tables_of_speed_mark_every_peer_that_is_faster(page):
    rows = rows_of(page.read_text())
    assert len(rows) > 12
    for name, ours, *peers in rows:
        for peer in filter(seconds, peers):
            faster = seconds(peer) < seconds(ours)
            assert peer.startswith("**") == faster, f"{name}: {peer} beside {ours}"


def test_the_readme_has_losses_first():
    readme = next(page for page in headline.PAGES if page.name == "README.md")
    lost = [any(cell.startswith("**") for cell in row) for row in rows_of(readme.read_text())]
    assert any(lost)
    assert lost == sorted(lost, reverse=True)


def test_durations_are_written_in_the_unit_that_suits():
    times = [37.2, 1.0, 0.9999, 0.905, 0.0187, 8.88e-5, 5.06e-6]
    texts = [headline.duration(time) for time in times]
    assert texts == ["37.2 s", "1 s", "1 s", "905 ms", "18.7 ms", "88.8 us", "5.06 us"]
