"""Reductions on a real GPU. Without one every test here skips itself, by name."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from checks import assert_close, assert_same_bits  # noqa: E402
from test_gpu_slabs import ALIASES, CASES, ranges_of  # noqa: E402

import pairfold.torch  # noqa: E402
from pairfold import Genred  # noqa: E402
from pairfold.arrays.torch_device import TorchDevice  # noqa: E402
from pairfold.frontends.ranges import Ranges  # noqa: E402
from pairfold.frontends.slabs import Slabs  # noqa: E402
from pairfold.settings import settings  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False"
)
second_gpu = pytest.mark.skipif(
    torch.cuda.device_count() == 1, reason="one GPU: torch.cuda.device_count() is 1"
)
GAUSSIAN = "Exp(-p*SqDist(x,y))*b"


def data(m=1003, n=2017, dtype=torch.float32, device="cuda", batch=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((*batch, m, 3), (*batch, n, 3), (n, 1), (1,))
    found = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    found[3] = found[3].abs() + 0.1
    return [tensor.to(dtype).to(device) for tensor in found]


def reduction(formula=GAUSSIAN, name="Sum", axis=1, **options):
    return pairfold.torch.Genred(formula, ALIASES, reduction_op=name, axis=axis, **options)


def wide(tensors):
    """On the host, in float64."""
    return [tensor.detach().cpu().double() for tensor in tensors]


def compare(got, want, terms, dtype=torch.float32):
    """Values within the dtype's tolerance; truth values and counts exactly."""
    got, want = ((x if isinstance(x, tuple) else (x,)) for x in (got, want))
    for one, other in zip(got, want, strict=True):
        assert one.is_cuda
        if one.dtype == torch.bool:
            assert_same_bits(one.cpu().numpy(), other.numpy())
        elif one.dtype.is_floating_point:
            eps = {torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}.get(dtype)
            found = one.cpu().double().numpy() if eps else one.cpu().numpy()
            assert_close(found, other.numpy(), terms=terms, rtol=eps)


# ---- values and gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [1, 0])
@pytest.mark.parametrize(("name", "formula", "options"), CASES)
def test_every_reduction_equals_the_cpu_in_float64(name, formula, options, axis, dtype):
    reduce = reduction(formula, name, axis, **options)
    tensors = data(dtype=dtype)
    if name == "Prod":
        tensors = data(20, 30, dtype=dtype)
    want = reduce(*wide(tensors))
    for splits in (0, 1, 3):
        with settings(splits=splits):
            got = reduce(*tensors)
        compare(got, want, tensors[1 if axis == 1 else 0].shape[0])
    again = reduce(*tensors)
    first = reduce(*tensors)
    for one, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (first, again))):
        assert torch.equal(one, other)


@pytest.mark.parametrize("axis", [1, 0])
def test_indices_are_those_of_the_cpu(axis):
    """Whole numbers are exact in any dtype, and there are ties."""
    x, y = (torch.randint(0, 9, (n, 3)).float() for n in (1003, 2017))
    for name, options in (("ArgMin", {}), ("Max_ArgMax", {}), ("KMin_ArgKMin", {"opt_arg": 7})):
        pair = pairfold.torch.Genred("SqDist(x,y)", ALIASES[:2], name, axis=axis, **options)
        got, want = pair(x.cuda(), y.cuda()), pair(x, y)
        for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want))):
            assert torch.equal(one.cpu(), other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["Sum", "LogSumExp", "Min"])
def test_half_precision_is_storage(name, dtype):
    tensors = data(dtype=dtype)
    reduce = reduction(GAUSSIAN, name)
    compare(reduce(*tensors), reduce(*wide(tensors)), 2017, dtype)


@pytest.mark.parametrize("dims", [1, 3, 20, 64, 200])
def test_many_components_and_long_outputs(dims):
    aliases = [f"x = Vi({dims})", f"y = Vj({dims})", f"b = Vj({dims})"]
    tensors = [torch.randn(n, dims, device="cuda") for n in (517, 733, 733)]
    for formula in (f"Exp(-SqDist(x,y)/{4 * dims})*b", f"Exp(-SqDist(x,y)/{4 * dims})"):
        reduce = pairfold.torch.Genred(formula, aliases, axis=1)
        compare(reduce(*tensors), reduce(*wide(tensors)), 733 * dims)


def test_batches_strides_and_parameters():
    x, y, b, p = data(m=101, n=203, batch=(2, 3))
    reduce = reduction()
    strided = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    for tensors in (
        (x, y, b, p),
        (x[:, :1], y[0], b, p),
        (strided, y.flip(-2), b[:1].expand(203, 1), p),
    ):
        compare(reduce(*tensors), reduce(*wide(tensors)), 203)


@pytest.mark.parametrize("name", ["Sum", "Mean", "LogSumExp", "Min", "Prod"])
def test_gradients_equal_those_of_the_cpu(name):
    tensors = [t.requires_grad_() for t in data(53, 71)]
    reduce = reduction(GAUSSIAN, name)
    host = [t.requires_grad_() for t in wide(tensors)]
    got = torch.autograd.grad(reduce(*tensors).sum(), tensors)
    want = torch.autograd.grad(reduce(*host).sum(), host)
    for one, other in zip(got, want, strict=True):
        compare(one, other, 53 * 71)


def test_ranges():
    tensors = data(17, 23)
    for name in ("Sum", "Mean", "Min", "LogSumExp"):
        reduce = reduction(GAUSSIAN, name)
        want = reduce(*wide(tensors), ranges=ranges_of())
        compare(reduce(*tensors, ranges=ranges_of()), want, 23)
        there = tuple(torch.from_numpy(part).cuda() for part in ranges_of())
        compare(reduce(*tensors, ranges=there), want, 23)


def test_refused_factors_are_computed_again():
    x, y = torch.randn(101, 1, device="cuda"), torch.rand(203, 1, device="cuda")
    x[7], x[9] = torch.inf, torch.nan
    reduce = pairfold.torch.Genred("x*y", ["x = Vi(1)", "y = Vj(1)"], axis=1)
    compare(reduce(x, y), reduce(*wide((x, y))), 203)


def test_systems_are_solved():
    x, b = data(300, 300)[0], torch.randn(300, 1, device="cuda")
    solve = pairfold.torch.KernelSolve("Exp(-SqDist(x,y))*b", ALIASES[:3], "b", axis=1)
    got = solve(x, x, b, alpha=1.0)
    assert_close(got.cpu().numpy(), solve(*wide((x, x, b)), alpha=1.0).numpy(), rtol=1e-4)


def test_results_are_checked_against_the_reference():
    with settings(check=2):
        reduction()(*data(17, 23))


# ---- streams, graphs, compilation --------------------------------------------------------------


def test_the_current_stream_is_used():
    """Work on another stream waits for what was enqueued there before."""
    reduce, tensors = reduction(), data()
    want = reduce(*tensors)
    stream = torch.cuda.Stream()
    x = torch.zeros_like(tensors[0])
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.copy_(tensors[0])
        got = reduce(x, *tensors[1:])
    stream.synchronize()
    assert torch.equal(got, want)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_graph_is_recorded_and_replayed(sparse):
    reduce, tensors = reduction(), data(17, 23, batch=(2,))
    given = Ranges(ranges_of()) if sparse else None
    out = reduce(*tensors, ranges=given)
    reduce(*tensors, ranges=given, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = reduce(*tensors, ranges=given)
        reduce(*tensors, ranges=given, out=out)
    for seed in (1, 2):
        for tensor, fresh in zip(tensors, data(17, 23, batch=(2,), seed=seed), strict=True):
            tensor.copy_(fresh)
        graph.replay()
        want = reduce(*tensors, ranges=given)
        assert torch.equal(made, want)
        assert torch.equal(out, want)


def test_a_step_of_training_is_recorded():
    reduce = reduction()
    tensors = [t.requires_grad_() for t in data(101, 203)]
    for _ in range(3):
        reduce(*tensors).sum().backward()
    torch.cuda.synchronize()
    for tensor in tensors:
        tensor.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        reduce(*tensors).sum().backward()
    graph.replay()
    host = [t.requires_grad_() for t in wide(tensors)]
    reduce(*host).sum().backward()
    for one, other in zip(tensors, host, strict=True):
        compare(one.grad, other.grad, 101 * 203)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_programs_compile():
    reduce = reduction()

    def program(x, y, b, p):
        return (reduce(x.sin(), y, b, p) * 2).tanh()

    tensors = data()
    torch._dynamo.reset()
    got = torch.compile(program)(*tensors)
    assert_close(got.cpu().numpy(), program(*tensors).cpu().numpy(), terms=2017)


def test_nothing_waits_for_the_gpu():
    """torch raises at any synchronisation of a warm call."""
    reduce, tensors = reduction(), data()
    reduce(*tensors)
    torch.cuda.set_sync_debug_mode("error")
    try:
        reduce(*tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- memory ------------------------------------------------------------------------------------


def test_memory_is_torchs_and_a_lack_of_it_torchs_error():
    reduce, tensors = reduction(), data(50_000, 100)
    want = reduce(*tensors)
    before = torch.cuda.memory_allocated()
    share = (torch.cuda.memory_reserved() + 2**20) / torch.cuda.get_device_properties(
        0
    ).total_memory
    torch.cuda.empty_cache()
    hoard = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(max(hoard, 1) / (hoard + 2**20) * share)
    try:
        big = torch.empty(1, 3, device="cuda").expand(1 << 28, 3)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            reduce(big, *tensors[1:])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(reduce(*tensors), want)
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_host_arrays_go_there_and_back():
    arrays = [tensor.numpy() for tensor in data(device="cpu")]
    for name, formula, options in CASES:
        reduce = Genred(formula, ALIASES, name, axis=1, **options)
        if name == "Prod":
            continue
        got, want = reduce(*arrays, backend="GPU"), reduce(*[a.astype(float) for a in arrays])
        for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want))):
            assert isinstance(one, np.ndarray)
            if one.dtype == np.float32:
                assert_close(one, other, terms=2017)
    tensors = data(device="cpu")
    got = reduction()(*tensors, backend="GPU", device_id=0)
    assert not got.is_cuda


def test_host_arrays_come_in_slabs(monkeypatch):
    cuts, inner = [], Slabs.cut
    monkeypatch.setattr(Slabs, "cut", lambda *a: cuts.append(inner(*a)) or cuts[-1])
    monkeypatch.setattr(TorchDevice, "free_memory", lambda device: 2_000_000)
    x, y = (np.random.default_rng(0).standard_normal((n, 100)).astype("f4") for n in (7000, 9000))
    reduce = Genred("Sum(x*y)", ["x = Vi(100)", "y = Vj(100)"], "Max", axis=1)
    got = reduce(x, y, backend="GPU")
    assert cuts[-1].rows < 7000
    assert cuts[-1].columns < 9000
    assert_close(got, (x.astype(float) @ y.T).max(1, keepdims=True), terms=100)


def test_free_memory_is_known():
    assert 0 < TorchDevice(torch.device("cuda", 0)).free_memory() < 1 << 50


# ---- several GPUs, tuning ----------------------------------------------------------------------


@second_gpu
def test_two_gpus_in_one_process():
    reduce = reduction()
    found = [reduce(*data(device=f"cuda:{number}")) for number in (0, 1, 0)]
    assert [out.device.index for out in found] == [0, 1, 0]
    assert torch.allclose(found[0].cpu(), found[1].cpu())
    assert torch.cuda.current_device() == 0
    host = reduce(*data(device="cpu"), backend="GPU", device_id=1)
    assert torch.allclose(host, found[1].cpu())


def test_autotune_finds_a_tiling():
    reduce, tensors = reduction(), data()
    want = reduce(*wide(tensors))
    with settings(autotune=True):
        for _ in range(2):
            compare(reduce(*tensors), want, 2017)
