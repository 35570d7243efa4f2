"""What is enqueued on a GPU, in which order and with what, on tensors that only say where they are.

Tensors on torch's device "meta" have shapes and strides, and no numbers: what reads one, or mixes
them with tensors of the host, fails, so nothing here waits for a GPU. Only the launch is replaced,
and what a driver is asked.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import pairfold.torch  # noqa: E402
from pairfold.arrays.torch import TorchArrays  # noqa: E402
from pairfold.arrays.torch_device import TorchDevice  # noqa: E402
from pairfold.backends.gpu import launch  # noqa: E402
from pairfold.backends.gpu.launch import GpuCall  # noqa: E402
from pairfold.cluster import from_matrix  # noqa: E402
from pairfold.frontends.ranges import Ranges  # noqa: E402
from pairfold.lower.kernel import Kernel  # noqa: E402
from pairfold.settings import settings  # noqa: E402

ALIASES = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
GAUSSIAN = "Exp(-SqDist(x,y))*b"
GPU = torch.device("meta")


class Gpu:
    """Launches in order: (function, grid, arguments by name, warps, the current device)."""

    def __init__(self):
        self.launched, self.devices, self.uploads = [], [], []
        self.processors = 1

    @property
    def kinds(self):
        return [(name, grid) for name, grid, *_ in self.launched]


@pytest.fixture
def gpu(monkeypatch):
    found = Gpu()
    monkeypatch.setenv("TRITON_INTERPRET", "0")

    def enqueue(self, function, program, programs, values, combine):
        source = program.source
        names = source.combine_arguments if combine else source.arguments
        given = {name: values[name] for name in names}
        kind = ("literal " if "wanted" in source.text else "") + ("merge" if combine else "fold")
        found.launched.append((kind, programs, given, program, found.devices[-1]))

    @contextlib.contextmanager
    def current(device):
        found.devices.append(device.place)
        try:
            yield
        finally:
            found.devices.pop()

    inner = TorchDevice.uploaded

    def uploaded(device, array):
        found.uploads.append(array)
        return inner(device, array)

    monkeypatch.setattr(GpuCall, "_enqueue", enqueue)
    monkeypatch.setattr(TorchDevice, "current", current)
    monkeypatch.setattr(TorchDevice, "processors", lambda device: found.processors)
    monkeypatch.setattr(TorchDevice, "uploaded", uploaded)
    for name in ("check_kind", "check_memory"):
        monkeypatch.setattr(TorchArrays, name, lambda array, label: None)
    monkeypatch.setattr("pairfold.frontends.torch.recorder", lambda: None)
    addresses = TorchArrays.addresses
    monkeypatch.setattr(
        TorchArrays,
        "addresses",
        lambda arrays, needs: addresses(arrays, needs) if arrays[0].is_cpu else [],
    )
    return found


def data(m=1000, n=2000, batch=(), device=GPU, dtype=torch.float32, **options):
    shapes = ((*batch, m, 3), (*batch, n, 3), (*batch, n, 1))
    return [torch.empty(shape, device=device, dtype=dtype, **options) for shape in shapes]


def reduction(formula=GAUSSIAN, name="Sum", axis=1, **options):
    return pairfold.torch.Genred(formula, ALIASES, reduction_op=name, axis=axis, **options)


# ---- what is enqueued --------------------------------------------------------------------------


def test_a_plain_reduction_is_one_launch(gpu):
    x, y, b = data()
    with settings(tile="32x64x4", splits=1, rules="exact"):
        out = reduction("Square(x)+b")(x, y, b)
    assert out.device == GPU
    assert tuple(out.shape) == (1000, 3)
    ((kind, grid, given, program, device),) = gpu.launched
    assert (kind, grid, device) == ("fold", (32, 1), GPU)
    assert given["o0"] is out
    assert given["x0"] is x
    assert (given["o0_r"], given["o0_c"], given["x0_r"], given["x0_c"]) == (3, 1, 3, 1)
    assert (given["M"], given["N"], given["splits"], given["row_blocks"]) == (1000, 2000, 1, 32)
    assert given["first_task"] == 0
    assert not {"partial", "offsets", "table", "scratch"} & given.keys()
    assert (program.tiling.rows, program.tiling.columns, program.tiling.warps) == (32, 64, 4)
    assert not gpu.uploads


def test_the_other_axis_has_the_other_rows(gpu):
    x, y, b = data()
    with settings(tile="32x64x4", splits=1):
        out = reduction("Square(x)*b", axis=0)(x, y, b)
    assert tuple(out.shape) == (2000, 3)
    assert {grid for _, grid in gpu.kinds} == {(63, 1)}
    assert gpu.launched[0][2]["N"] == 1000


def test_a_split_axis_is_folded_and_merged(gpu):
    with settings(tile="32x64x4", splits=5, rules="exact"):
        reduction("Square(x)+b")(*data())
    (fold, merge) = gpu.launched
    assert gpu.kinds == [("fold", (32 * 5, 1)), ("merge", (32, 1))]
    assert fold[2]["per_split"] == 7 * 64
    assert fold[2]["splits"] == merge[2]["splits"] == 5
    left = fold[2]["partial"]
    assert left.device == GPU
    assert left.dtype == torch.float64
    assert left.numel() == 32 * 5 * fold[3].source.entries * 32
    assert merge[2]["partial"].numel() == left.numel()
    assert merge[2]["o0"] is fold[2]["o0"]


def test_assumptions_are_checked_and_a_literal_program_follows(gpu):
    """The flag is read on the GPU alone."""
    with settings(tile="32x64x4", splits=1):
        reduction("x*b")(*data())
    assert [kind for kind, _ in gpu.kinds] == ["fold", "literal fold"]
    first, second = (given["flag"] for _, _, given, *_ in gpu.launched)
    assert first is second
    assert first.device == GPU
    assert first.dtype == torch.int32
    with settings(tile="32x64x4", splits=3):
        reduction("x*b")(*data())
    assert [kind for kind, _ in gpu.kinds[2:]] == [
        "fold", "merge", "literal fold", "literal merge",
    ]  # fmt: skip


def test_a_literal_program_shares_long_outputs_its_own_way(gpu):
    """Components in groups: of a product of matrices, or a few at a time."""
    found = pairfold.torch.Genred(
        "Exp(-Sum(x*y))*b", ["x = Vi(40)", "y = Vj(40)", "b = Vj(200)"], axis=1
    )
    arrays = [torch.empty(n, d, device=GPU) for n, d in ((100, 40), (90, 40), (90, 200))]
    with settings(splits=1):
        found(*arrays)
    for _, grid, _, program, _ in gpu.launched:
        assert grid[1] == -(-200 // program.tiling.group)


def test_batch_elements_are_read_at_offsets_that_are_kept(gpu):
    x, y, b = data(batch=(2, 3))
    x = x[:, :1]
    found = reduction("Square(x)+b", "Max")
    with settings(tile="32x64x4", splits=1):
        first = found(x, y, b)
        assert tuple(first.shape) == (2, 3, 1000, 3)
        (offsets,) = gpu.uploads
        assert offsets.shape == (6, 3)
        assert offsets[:, 0].tolist() == [3000 * k for k in range(6)]
        assert offsets[:, 1].tolist() == [0, 0, 0, *[3 * 3000] * 3]
        assert gpu.kinds == [("fold", (32 * 6, 1))]
        found(x, y, b)
    assert len(gpu.uploads) == 1
    one, two = (given["offsets"] for _, _, given, *_ in gpu.launched)
    assert one is two
    assert one.device == GPU


def ranges():
    clusters = np.array([[0, 500], [500, 1000]]), np.array([[0, 700], [700, 2000]])
    return from_matrix(*clusters, np.eye(2, dtype=bool))


def test_a_pattern_is_read_from_tables_that_are_kept_with_it(gpu):
    found, given = reduction("Square(x)+b", "Max"), Ranges(ranges())
    with settings(tile="32x64x4"):
        found(*data(), ranges=given)
        assert gpu.kinds == [("fold", (2 * 16, 1))]
        assert len(gpu.uploads) == 2
        found(*data(), ranges=given)
    assert len(gpu.uploads) == 2
    (one, two) = ((g["table"], g["intervals"]) for _, _, g, *_ in gpu.launched)
    assert all(a is b for a, b in zip(one, two, strict=True))


def test_tables_in_scratch_memory_come_in_waves(gpu, monkeypatch):
    found = pairfold.torch.Genred(
        "Sum(SoftDTW_SqDist(x,y,g))", ["x = Vi(6)", "y = Vj(6)", "g = Pm(1)"], axis=1
    )
    arrays = [torch.empty(n, 6, device=GPU) for n in (200, 300)]
    with settings(tile="16x16x1", splits=1, unroll=1):
        found(*arrays, torch.empty(1, device=GPU))
        folds = [one for one in gpu.launched if "scratch" in one[2]]
        cells = folds[0][3].source.cells
        assert folds[0][2]["scratch"].numel() == 13 * cells
        gpu.launched.clear()
        monkeypatch.setattr(launch, "_SCRATCH_BYTES", 5 * 4 * cells)
        found(*arrays, torch.empty(1, device=GPU))
    waves = [(grid, given["first_task"]) for _, grid, given, *_ in gpu.launched[:3]]
    assert waves == [((5, 1), 0), ((5, 1), 5), ((3, 1), 10)]


def test_processors_decide_how_the_axis_is_split(gpu):
    with settings(tile="32x64x4", rules="exact"):
        for gpu.processors, splits in ((1, 1), (20, 2), (132, 7)):
            gpu.launched.clear()
            reduction("Square(x)+b", "Max" if gpu.processors == 1 else "Min")(*data())
            assert gpu.launched[0][2]["splits"] == splits, gpu.processors
            pairfold.clear_cache()


def test_programs_are_enqueued_on_the_device_of_the_tensors(gpu):
    """Whichever of several; fake tensors say that they are on one."""
    found = reduction("Square(x)+b", "Mean")
    with FakeTensorMode(), settings(splits=3):
        for number in (0, 1, 0):
            where = torch.device("cuda", number)
            gpu.launched.clear()
            assert found(*data(device=where)).device == where
            assert {device for *_, device in gpu.launched} == {where}
            for _, _, given, *_ in gpu.launched:
                tensors = [value for value in given.values() if isinstance(value, torch.Tensor)]
                assert {tensor.device for tensor in tensors} == {where}
    assert not gpu.devices


def test_empty_results_launch_nothing(gpu):
    assert tuple(reduction()(*data(m=0)).shape) == (0, 1)
    assert tuple(reduction()(*data(batch=(0,))).shape) == (0, 1000, 1)
    assert not gpu.launched
    reduction()(*data(n=0))
    assert gpu.launched


@pytest.mark.parametrize("name", ["Sum", "Mean", "LogSumExp", "Prod", "Min", "KMin", "Max_ArgMax"])
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_stay_on_the_device(gpu, name, sparse):
    """Every tensor of a gradient is there: torch refuses to mix devices."""
    options = {"opt_arg": 3} if name == "KMin" else {}
    tensors = data(requires_grad=True)
    given = Ranges(ranges()) if sparse else None
    found = reduction(GAUSSIAN, name, **options)(*tensors, ranges=given)
    found = found[0] if isinstance(found, tuple) else found
    for gradient, tensor in zip(torch.autograd.grad(found.sum(), tensors), tensors, strict=True):
        assert gradient.device == tensor.device
        assert gradient.shape == tensor.shape


def test_lazy_tensors_and_their_numbers_stay_on_the_device(gpu):
    x, y, b = data()
    x_i, y_j = pairfold.torch.Vi(x), pairfold.torch.Vj(y)
    found = (-((x_i - y_j) ** 2).sum(-1) / 3.5).exp() @ b
    assert found.device == GPU
    assert x_i.device == GPU
    numbers = [
        value
        for _, _, given, *_ in gpu.launched
        for name, value in given.items()
        if isinstance(value, torch.Tensor)
    ]
    assert {value.device for value in numbers} == {GPU}


def test_out_is_filled_where_it_is(gpu, monkeypatch):
    monkeypatch.setattr(
        pairfold.frontends.reduction, "overlap", lambda *_: False
    )  # all at address 0
    x, y, b = data(batch=(4,))
    out = torch.empty(4, 1, 1000, device=GPU).transpose(1, 2)
    with settings(splits=1):
        assert reduction()(x, y, b, out=out) is out
        assert reduction()(x, y, b, out=out) is out
    assert gpu.launched[0][2]["o0"] is out
    assert gpu.launched[0][2]["o0_r"] == 1


# ---- memory, tuning ----------------------------------------------------------------------------


def test_after_a_lack_of_memory_all_is_usable(gpu, monkeypatch):
    """torch's own error passes through, wherever it comes up."""
    arrays, found = data(batch=(2,)), reduction()
    inner, left = torch.empty, [0]

    def scarce(*given, **options):
        left[0] -= 1
        if left[0] < 0:
            raise torch.cuda.OutOfMemoryError("no memory")
        return inner(*given, **options)

    launched = []
    with settings(tile="32x64x4", splits=3):
        for allowed in range(20):
            gpu.launched.clear()
            left[0] = allowed
            with monkeypatch.context() as patch:
                patch.setattr(torch, "empty", scarce)
                try:
                    found(*arrays)
                except torch.cuda.OutOfMemoryError:
                    launched.append(len(gpu.launched))
                    continue
            break
        assert launched == [0, 0]
        assert not gpu.devices
        want = gpu.kinds
        gpu.launched.clear()
        found(*arrays)
        assert gpu.kinds == want


def test_autotune_keeps_the_fastest_for_a_size(gpu, monkeypatch):
    import triton.testing

    timed = []

    def do_bench(run, *_):
        run()
        timed.append(gpu.launched[-1][3].tiling)
        return {2: 1.0}.get(len(timed), 2.0 + len(timed))

    monkeypatch.setattr(triton.testing, "do_bench", do_bench)
    found = reduction("Square(x)-b", "Min")
    with settings(autotune=True, splits=1):
        out = found(*data())
        assert len({(t.rows, t.columns, t.warps) for t in timed}) == 4
        assert gpu.launched[-1][3].tiling == timed[1]
        gpu.launched.clear()
        found(*data())
        found(*data(), out=out)
        x, y, b = data()
        found(x.T.contiguous().T, y, b)  # other strides, the same size
        assert [one[3].tiling for one in gpu.launched] == [timed[1]] * 3
        assert len(timed) == 4
        found(*data(m=999))
        assert len(timed) == 8
    with settings(splits=1):
        found(*data())
    assert len(timed) == 8


def test_nothing_is_tuned_while_a_graph_is_recorded(gpu, monkeypatch):
    import triton.testing

    monkeypatch.setattr(triton.testing, "do_bench", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(TorchDevice, "recording", lambda device: True)
    with settings(autotune=True):
        reduction("Square(x)-2*b", "Min")(*data())
    assert gpu.launched


def test_workspaces_are_counted(gpu):
    with settings(tile="32x64x4", splits=5):
        reduction()(*data())
    fold = reduction()._fold
    with settings(tile="32x64x4", splits=5):
        binding = fold.binding(TorchArrays, data())
        bound = fold.bound(binding, None)
    left = [g["partial"].numel() for k, _, g, *_ in gpu.launched if k.endswith("fold")]
    assert bound.workspace() == 8 * max(left)
    assert isinstance(bound.program.kernel, Kernel)
