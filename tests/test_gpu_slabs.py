"""Host arrays on a GPU, in slabs: Triton's interpreter stands in for the GPU.

The cut is forced where sizes are small: workspaces then are larger than arrays.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checks import assert_close, assert_same_bits  # noqa: E402
from every_reduction import CASES  # noqa: E402
from products import every_pair, some  # noqa: E402

import pairfold.torch  # noqa: E402
from pairfold import Genred  # noqa: E402
from pairfold.arrays.numpy import NumpyArrays  # noqa: E402
from pairfold.arrays.torch_device import TorchDevice  # noqa: E402
from pairfold.cluster import from_matrix  # noqa: E402
from pairfold.errors import MemoryLimitError  # noqa: E402
from pairfold.frontends.devices import OnGpu  # noqa: E402
from pairfold.frontends.partial import finished, merged, partial  # noqa: E402
from pairfold.frontends.slabs import Cut, Slabs  # noqa: E402
from pairfold.settings import settings  # noqa: E402

ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "p = Pm(1)"]


def data(m=17, n=23, dtype=np.float32, batch=(), seed=0):
    random = np.random.default_rng(seed)
    shapes = ((*batch, m, 3), (*batch, n, 3), (n, 1), (1,))
    found = [random.standard_normal(shape).astype(dtype) for shape in shapes]
    found[3] = np.abs(found[3])
    return found


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """As in a process with TRITON_INTERPRET=1, whether the test runs a program or not."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with settings(tile="16x16x1"):
        yield


@pytest.fixture
def forced(monkeypatch, interpreter):
    """A function that fixes the cut, and a list of the slabs that were computed."""
    folded = []
    whole = Slabs._folded

    def force(rows, columns, batch=None):
        def cut(self, free, ranges):
            there = self.whole.batch
            most = there if batch is None else (batch,) * len(there)
            return Cut(most, min(rows, self.whole.rows), min(columns, self.whole.columns))

        monkeypatch.setattr(Slabs, "cut", cut)

    def watched(self, given, box, part, columns, ranges, step):
        folded.append((part, len(columns)))
        return whole(self, given, box, part, columns, ranges, step)

    monkeypatch.setattr(Slabs, "_folded", watched)
    return force, folded


def same(got, want, terms=23):
    got, want = ((x if isinstance(x, tuple) else (x,)) for x in (got, want))
    for one, other in zip(got, want, strict=True):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        if one.dtype in (np.int64, np.bool_, torch.int64, torch.bool):
            assert_same_bits(np.asarray(one), np.asarray(other))
        else:
            assert_close(np.asarray(one), np.asarray(other), terms=terms)


# ---- every reduction ---------------------------------------------------------------------------


# Cuts of both axes, of one, of none.
CUTS = [(9, 10), (7, 99), (99, 9), (99, 99)]


@some(
    "reduction,formula,options,axis,cut",
    [(*entry, axis, cut) for entry in CASES for axis in (1, 0) for cut in CUTS],
    lambda entry: (
        CASES.index(entry[:3]) % 2 == entry[3]
        and (entry[4] == CUTS[0] or CUTS.index(entry[4]) == CASES.index(entry[:3]) // 2 % 4)
    ),
)
def test_slabs_of_rows_and_columns_give_what_the_cpu_gives(
    forced, reduction, formula, options, axis, cut
):
    force, folded = forced
    reduce = Genred(formula, ALIASES, reduction_op=reduction, axis=axis, **options)
    want = reduce(*data())
    force(*cut)
    same(reduce(*data(), backend="GPU"), want)
    rows, columns = (17, 23) if axis == 1 else (23, 17)
    pieces = -(-columns // min(cut[1], columns))
    assert [count for _, count in folded] == [pieces] * -(-rows // cut[0])


@pytest.mark.parametrize("cut", [(9, 10), (7, 99), (99, 9)])
@pytest.mark.parametrize("axis", [1, 0])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_slabs_of_arrays_of_pairs(forced, batch, axis, cut):
    force, folded = forced
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((n, 3)).astype(np.float32) for n in (17, 23))
    bias = random.standard_normal((*batch, 23, 17, 2)).astype(np.float32).swapaxes(-3, -2)
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vij(2)"]
    reduce = Genred("Exp(b - SqDist(x,y))", aliases, "LogSumExp", axis=axis)
    want = reduce(x, y, bias)
    force(*cut, *(2 for _ in batch))
    same(reduce(x, y, bias, backend="GPU"), want)
    assert len(folded) == (2 if batch else 1) * -(-(17 if axis == 1 else 23) // cut[0])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize(("reduction", "formula", "options"), [CASES[0], CASES[16], CASES[17]])
def test_slabs_of_other_dtypes(forced, reduction, formula, options, dtype):
    forced[0](9, 10)
    reduce = Genred(formula, ALIASES, reduction_op=reduction, axis=1, **options)
    arrays = data(dtype=dtype)
    same(reduce(*arrays, backend="GPU"), reduce(*arrays))


def test_slabs_of_bfloat16_tensors(forced):
    forced[0](9, 10)
    reduce = pairfold.torch.Genred("SqDist(x,y)", ALIASES, axis=1)
    arrays = [torch.from_numpy(array).bfloat16() for array in data()]
    got, want = reduce(*arrays, backend="GPU"), reduce(*arrays)
    assert got.dtype == torch.bfloat16
    assert_close(got.double().numpy(), want.double().numpy(), rtol=2.0**-7)


@every_pair(
    ("cut", [(99, 99, 1), (9, 99, 2), (9, 10, 1), (99, 10, 3)]),
    ("reduction,formula,options", [CASES[0], CASES[7], CASES[12]]),
    ("shapes", ["alike", "repeated", "fewer axes"]),
)
def test_slabs_of_batches(forced, reduction, formula, options, cut, shapes):
    forced[0](*cut)
    reduce = Genred(formula, ALIASES, reduction_op=reduction, axis=1, **options)
    x, y, b, p = data(batch=(2, 3))
    if shapes == "repeated":
        x = x[:, :1]
    if shapes == "fewer axes":
        y, p = y[0], np.abs(x[:, :, 0, :1])
    same(reduce(x, y, b, p, backend="GPU"), reduce(x, y, b, p))


@pytest.mark.parametrize(
    ("reduction", "formula"),
    [
        ("Sum", "Exp(-SqDist(x,y)/20)*b"),
        ("Max_ArgMax", "b-Sum(x*y)"),
        ("Sum", "Exp(-Sum(x*y)/20)*(b+x)"),
    ],
)
def test_long_outputs_and_long_products_come_in_slabs(forced, reduction, formula):
    random = np.random.default_rng(3)
    arrays = [random.standard_normal((k, 20)).astype(np.float32) for k in (17, 23, 23)]
    reduce = Genred(formula, ["x = Vi(20)", "y = Vj(20)", "b = Vj(20)"], reduction, axis=1)
    forced[0](9, 10)
    same(reduce(*arrays, backend="GPU"), reduce(*arrays))


def test_a_refused_slab_is_computed_again_without_assumptions(forced):
    """Factors leave the sum where they are finite: inf times a sum of zeros would be NaN."""
    forced[0](9, 10)
    reduce = Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    x, y = data()[0][:, :1].copy(), data()[1][:, :1].copy()
    x[3], x[5], y[:] = np.inf, np.nan, np.abs(y)
    y[20] = 1e30
    got = reduce(x, y, backend="GPU")
    want = (x[:, None].astype(float) * y[None]).sum(1)
    assert_close(got, want, terms=23)
    assert np.isinf(got[3])


@some(
    "reduction,formula,options",
    [CASES[n] for n in (0, 3, 5, 12, 17)],
    lambda entry: entry in (CASES[3], CASES[12], CASES[17]),
)
def test_gradients_come_in_slabs(forced, reduction, formula, options):
    force, folded = forced
    reduce = pairfold.torch.Genred(formula, ALIASES, reduction_op=reduction, axis=1, **options)

    def gradients(backend):
        tensors = [torch.from_numpy(a).requires_grad_() for a in data(seed=1)]
        found = reduce(*tensors, backend=backend)
        found = found[0] if isinstance(found, tuple) else found
        return torch.autograd.grad(found.square().sum(), tensors, allow_unused=True)

    want = gradients("CPU")
    force(9, 10)
    for got, other in zip(gradients("GPU"), want, strict=True):
        assert (got is None) == (other is None)
        if got is not None:
            assert got.device.type == "cpu"
            assert_close(got.numpy(), other.numpy(), terms=17 * 23)
    assert len(folded) > 3


def test_transforms_of_torch_func_pass(forced):
    forced[0](9, 10)
    reduce = pairfold.torch.Genred("Exp(-SqDist(x,y))", ALIASES[:2], axis=1)
    x, y = (torch.from_numpy(a) for a in data()[:2])

    def total(backend):
        return lambda x: reduce(x, y, backend=backend).sum()

    got, want = (torch.func.grad(total(backend))(x) for backend in ("GPU", "CPU"))
    assert_close(got.numpy(), want.numpy(), terms=23)


# ---- ranges ------------------------------------------------------------------------------------


def ranges_of(m=17, n=23):
    rows, columns = np.array([[0, 5], [5, 6], [8, m]]), np.array([[0, 9], [9, 11], [14, n]])
    return from_matrix(rows, columns, np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool))


@every_pair(
    ("reduction,formula,options", [CASES[0], CASES[3], CASES[12], CASES[17]]),
    ("rows", [99, 7, 2]),
    ("axis", [1, 0]),
)
def test_ranges_are_cut_with_their_rows(forced, reduction, formula, options, rows, axis):
    reduce = Genred(formula, ALIASES, reduction_op=reduction, axis=axis, **options)
    forced[0](rows, 99)
    got = reduce(*data(), ranges=ranges_of(), backend="GPU")
    same(got, reduce(*data(), ranges=ranges_of()))


def test_gradients_with_ranges_are_cut_with_their_rows(forced):
    forced[0](7, 99)
    reduce = pairfold.torch.Genred(CASES[0][1], ALIASES, axis=1)
    found = []
    for backend in ("GPU", "CPU"):
        tensors = [torch.from_numpy(a).requires_grad_() for a in data()]
        total = reduce(*tensors, ranges=ranges_of(), backend=backend).sum()
        found.append(torch.autograd.grad(total, tensors))
    for got, want in zip(*found, strict=True):
        assert_close(got.numpy(), want.numpy(), terms=17 * 23)


def test_columns_of_ranges_that_do_not_fit_are_an_error(monkeypatch):
    monkeypatch.setattr(TorchDevice, "free_memory", lambda device: 3000)
    reduce = Genred("SqDist(x,y)", ALIASES[:2], axis=1)
    x, y = data(n=2300)[:2]
    with pytest.raises(MemoryLimitError, match="block-sparse"):
        reduce(x, y, ranges=ranges_of(17, 2300), backend="GPU")


# ---- how it is cut -----------------------------------------------------------------------------


def cut_for(free, m, n, d, batch=()):
    """The cut for so much memory."""
    fold = Genred("Sum(x*y)", [f"x = Vi({d})", f"y = Vj({d})"], axis=1)._fold
    adapter = OnGpu(NumpyArrays, TorchDevice(torch.device("cpu")))
    arrays = [np.broadcast_to(np.float32(0), (*batch, k, d)) for k in (m, n)]
    made = Slabs(fold, arrays, fold.binding(adapter, arrays), None, None, None)
    found = made.cut(free, None)
    assert sum(made.bytes(found)) <= free
    return found


def test_what_fits_is_not_cut():
    assert cut_for(10**6, 1000, 200, 100) == Cut((), 1000, 200)


def test_rows_are_cut_where_columns_fit():
    found = cut_for(10**6, 100_000, 200, 100)
    assert found.columns == 200
    assert 500 < found.rows < 2500


def test_columns_are_cut_where_they_do_not_fit():
    found = cut_for(10**6, 200, 100_000, 100)
    assert found.rows in (200, 100)
    assert 200 < found.columns <= 2500


def test_both_are_cut_where_both_do_not_fit():
    found = cut_for(10**6, 100_000, 100_000, 100)
    assert 100 < found.rows < 2500
    assert 100 < found.columns < 2500


def test_batch_elements_are_cut_first():
    found = cut_for(10**6, 1000, 200, 100, batch=(5, 4))
    assert found == Cut((1, 2), 1000, 200)


def test_memory_decides(monkeypatch, forced):
    """All together, by the memory that is free."""
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((k, 300)).astype(np.float32) for k in (40, 60))
    reduce = Genred("Sum(x*y)", ["x = Vi(300)", "y = Vj(300)"], reduction_op="Min", axis=1)
    monkeypatch.setattr(TorchDevice, "free_memory", lambda device: 50_000)
    same(reduce(x, y, backend="GPU"), (x @ y.T).min(1, keepdims=True), terms=300)
    assert [part.stop for part, _ in forced[1]] == [20, 40]
    assert {count for _, count in forced[1]} == {4}


# ---- arrays, results, what is shown ------------------------------------------------------------


def test_results_keep_library_dtype_and_come_into_out(forced):
    forced[0](9, 10)
    reduce = Genred("x-y", ALIASES[:2], axis=1)
    x, y = data()[:2]
    want = reduce(x, y)
    out = np.zeros((17, 3, 2), np.float32)[..., 1]
    assert reduce(x, y, backend="GPU", out=out) is out
    assert_close(out, want, terms=23)
    both = Genred("x-y", ALIASES[:2], "Max_ArgMax", axis=1)
    outs = np.zeros((17, 3), np.float32), np.zeros((17, 3), np.int64)
    both(x, y, backend="GPU", out=outs)
    same(outs, both(x, y))


def test_arrays_of_any_strides_and_read_only_ones(forced):
    forced[0](9, 10)
    reduce = Genred("Exp(-SqDist(x,y))*b", ALIASES[:3], axis=1)
    x, y, b, _ = data(34, 46)
    x, y, b = x[::-2], np.asfortranarray(y[1::2]), np.broadcast_to(b[:1], (23, 1))
    x.flags.writeable = False
    same(reduce(x, y, b, backend="GPU"), reduce(x, y, b))
    tensors = [torch.from_numpy(np.array(a)) for a in (x, y, b)]
    turned = (tensors[0].T.contiguous().T, tensors[1].flip(0), tensors[2][:1].expand(23, 1))
    reduce = pairfold.torch.Genred("Exp(-SqDist(x,y))*b", ALIASES[:3], axis=1)
    same(reduce(*turned, backend="GPU"), reduce(*turned))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("m", "n"), [(0, 23), (17, 0), (0, 0), (1, 1)])
def test_axes_may_be_empty(m, n):
    for reduction in ("Sum", "LogSumExp", "Max_ArgMax"):
        reduce = Genred("SqDist(x,y)", ALIASES[:2], reduction_op=reduction, axis=1)
        x, y = data(m, n)[:2]
        same(reduce(x, y, backend="GPU"), reduce(x, y))


def test_the_reference_checks_results_of_slabs(forced, monkeypatch):
    forced[0](9, 10)
    reduce = Genred("SqDist(x,y)", ALIASES[:2], axis=1)
    with settings(check=2):
        reduce(*data()[:2], backend="GPU")
        monkeypatch.setattr(Slabs, "run", lambda self, results, ranges: results[0].fill(7))
        with pytest.raises(pairfold.errors.InternalError, match="reference"):
            reduce(*data()[:2], backend="GPU")


def test_cpu_and_gpu_do_not_share_what_they_learnt(monkeypatch, interpreter):
    """In the interpreter tensors of both are on the CPU: their calls must not be mixed up."""
    from pairfold.backends.gpu.launch import GpuCall

    launched = []
    inner = GpuCall._enqueue
    monkeypatch.setattr(
        GpuCall, "_enqueue", lambda self, *given: launched.append(1) or inner(self, *given)
    )
    reduce = pairfold.torch.Genred("SqDist(x,y)", ALIASES[:2], axis=1)
    x, y = (torch.from_numpy(a) for a in data()[:2])
    for backend, count in (("CPU", 0), ("GPU", 1), ("CPU", 1), ("GPU", 2), ("auto", 2)):
        reduce(x, y, backend=backend)
        assert bool(launched) == bool(count)
        assert len(launched) >= count


def test_a_progress_bar_counts_slabs(forced, monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto")
    made = []

    class Bar:
        def __init__(self, total, **_):
            made.append(self)
            self.total, self.n, self.closed = total, 0, False

        def update(self, more):
            self.n += more

        def close(self):
            self.closed = True

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    reduce = Genred("SqDist(x,y)", ALIASES[:2], axis=1)
    with settings(progress=True):
        reduce(*data()[:2], backend="GPU")
        assert not made
        forced[0](9, 10)
        reduce(*data()[:2], backend="GPU")
    (bar,) = made
    assert bar.n == bar.total == 6
    assert bar.closed


@pytest.mark.parametrize(("reduction", "formula", "options"), [CASES[12], CASES[14], CASES[18]])
def test_states_of_host_arrays_come_in_slabs_too(forced, reduction, formula, options):
    """Parts of parts: a process has some of the columns, and its GPU holds some of these."""
    force, folded = forced
    fold = Genred(formula, ALIASES, reduction_op=reduction, axis=1, **options)._fold
    x, y, b, p = data()
    library = OnGpu(NumpyArrays, TorchDevice(torch.device("cpu")))
    force(9, 5)
    parts = [
        partial(fold, library, [x, y[part], b[part], p], part.start)
        for part in (slice(0, 14), slice(14, 23))
    ]
    assert [count for _, count in folded] == [3, 3, 2, 2]
    found = finished(fold, NumpyArrays, merged(fold, NumpyArrays, *parts), 23, "float32")
    for one, other in zip(found, fold.run(NumpyArrays, [x, y, b, p]), strict=True):
        assert_close(one, other, terms=23)
