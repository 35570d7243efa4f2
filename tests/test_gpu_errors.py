"""Where a call computes, and what is said where it cannot: no GPU is needed."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest

import pairfold
from pairfold import Genred, KernelSolve
from pairfold.arrays.torch import TorchArrays
from pairfold.errors import ArrayTypeError, DeviceError, OptionError

ALIASES = ["x = Vi(3)", "y = Vj(3)"]
X, Y = np.zeros((17, 3)), np.ones((23, 3))


def distances(**options):
    return Genred("SqDist(x,y)", ALIASES, axis=1, **options)


@pytest.fixture
def no_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture
def two_gpus(monkeypatch, no_interpreter):
    """torch says that there are two GPUs."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return torch


def without(monkeypatch, name):
    """Imports of a module fail."""
    inner = builtins.__import__

    def refuse(wanted, *rest):
        if wanted.partition(".")[0] == name:
            raise ImportError(f"No module named {name!r}")
        return inner(wanted, *rest)

    for module in [m for m in sys.modules if m == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_device_errors_are_what_pykeops_raises():
    assert issubclass(DeviceError, ValueError)


def test_without_torch_no_array_can_go_to_a_gpu(monkeypatch, no_interpreter):
    without(monkeypatch, "torch")
    with pytest.raises(DeviceError, match=r"needs torch(.|\n)*try:"):
        distances()(X, Y, backend="GPU")


def test_without_triton_nothing_runs(monkeypatch, no_interpreter):
    pytest.importorskip("torch")
    from pairfold.backends.gpu import compiled

    without(monkeypatch, "triton")
    with pytest.raises(DeviceError, match=r"Triton, which is not installed(.|\n)*try:"):
        compiled.triton()


@pytest.mark.parametrize("backend", ["GPU", "GPU_1D", "GPU_2D_host", "GPU_1D_device"])
def test_without_a_gpu_the_message_says_what_torch_sees(monkeypatch, no_interpreter, backend):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"found: +torch.cuda.is_available\(\) is False"):
        distances()(X, Y, backend=backend)
    with pytest.raises(DeviceError, match="doctor"):
        distances()(torch.zeros(17, 3), torch.ones(23, 3), backend=backend)


@pytest.mark.parametrize(
    ("device_id", "error", "says"),
    [
        (2, DeviceError, "device_id=2, of 2 GPUs"),
        (-2, OptionError, "device_id=-2"),
        (True, OptionError, "device_id=True"),
        (0.0, OptionError, "device_id=0.0"),
        ("cuda:0", OptionError, "device_id='cuda:0'"),
    ],
)
def test_device_numbers_are_checked(two_gpus, device_id, error, says):
    with pytest.raises(error, match=says):
        distances()(X, Y, backend="GPU", device_id=device_id)


def test_device_numbers_choose_the_gpu(two_gpus, monkeypatch):
    from pairfold.frontends import devices

    places = []
    monkeypatch.setattr(devices.OnGpu, "elsewhere", lambda self, *_: places.append(self.target))
    for device_id in (-1, 0, 1, np.int64(1)):
        distances()(X, Y, backend="GPU", device_id=device_id)
    assert [str(place) for place in places] == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def test_host_arrays_stay_on_the_host_unless_a_call_says_otherwise(two_gpus):
    for options in ({}, {"backend": "auto"}, {"backend": "CPU"}, {"device_id": 0}):
        assert distances()(X, Y, **options).shape == (17, 1)


def test_unknown_backends_are_refused():
    with pytest.raises(OptionError, match="GPU_3D"):
        distances()(X, Y, backend="GPU_3D")


@pytest.mark.parametrize("options", [{"backend": "CPU"}, {"device_id": 0}])
def test_tensors_elsewhere_than_a_call_says_are_refused(two_gpus, options):
    torch = two_gpus
    x, y = torch.zeros(17, 3, device="meta"), torch.zeros(23, 3, device="meta")
    with pytest.raises(DeviceError, match="meta"):
        distances()(x, y, **options)


@pytest.mark.parametrize("options", [{}, {"backend": "GPU"}])
def test_tensors_without_values_have_results_without_values(two_gpus, options):
    torch = two_gpus
    x, y = torch.zeros(17, 3, device="meta"), torch.zeros(23, 3, device="meta")
    found = distances()(x, y, **options)
    assert (found.device.type, tuple(found.shape), found.dtype) == ("meta", (17, 1), x.dtype)


@pytest.fixture
def on(monkeypatch, two_gpus):
    """Makes tensors that say that they are on a GPU, and have no memory there."""
    torch = two_gpus
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    # Tensors without values are refused as such: here only where they are is of interest.
    for check in ("check_kind", "check_memory"):
        monkeypatch.setattr(TorchArrays, check, staticmethod(lambda array, label: None))

    def make(device, *shape):
        values = torch.empty(*shape, device="meta")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)  # nor is the driver asked
            return FakeTensor(FakeTensorMode(), values, torch.device(device))

    return make


def test_tensors_on_several_devices_are_refused(two_gpus, on):
    torch = two_gpus
    x, y = on("cuda:0", 17, 3), on("cuda:1", 23, 3)
    for options in ({}, {"backend": "GPU"}):
        with pytest.raises(DeviceError, match=r"argument 1 \(y\) is on cuda:1"):
            distances()(x, y, **options)
        with pytest.raises(DeviceError, match=r"argument 1 \(y\) is on cpu"):
            distances()(x, torch.zeros(23, 3), **options)


def test_tensors_on_a_gpu_are_not_moved(on):
    x, y = on("cuda:0", 17, 3), on("cuda:0", 23, 3)
    with pytest.raises(DeviceError, match=r'backend="CPU"(.|\n)*x.cpu\(\)'):
        distances()(x, y, backend="CPU")
    with pytest.raises(DeviceError, match=r'x.to\("cuda:1"\)'):
        distances()(x, y, backend="GPU", device_id=1)


def test_results_go_where_the_arguments_are(two_gpus, on):
    torch = two_gpus
    x, y = torch.zeros(17, 3), torch.zeros(23, 3)
    out = on("cuda:0", 17, 1)
    with pytest.raises(DeviceError, match="out is on cuda:0"):
        distances()(x, y, out=out)
    both = Genred("SqDist(x,y)", ALIASES, "Min_ArgMin", axis=1)
    outs = out, on("cuda:0", 17, 1)
    with pytest.raises(DeviceError, match="out is on cuda:0"):
        both(x, y, out=outs)


def test_mixed_libraries_are_named_before_devices(two_gpus):
    torch = two_gpus
    with pytest.raises(ArrayTypeError, match="argument 1"):
        distances()(torch.zeros(17, 3), Y, backend="GPU")


def test_ranges_on_other_devices_are_refused(two_gpus):
    torch = two_gpus
    ranges = tuple(torch.zeros(1, 2, device="meta", dtype=torch.int64) for _ in range(6))
    with pytest.raises(DeviceError, match="ranges_i"):
        distances()(X, Y, ranges=ranges)


def test_systems_and_lazy_tensors_say_the_same(monkeypatch, no_interpreter):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    solve = KernelSolve("Exp(-SqDist(x,y))*b", [*ALIASES, "b = Vj(1)"], "b", axis=1)
    with pytest.raises(DeviceError, match="no GPU"):
        solve(X, X, np.ones((17, 1)), backend="GPU")
    with pytest.raises(OptionError, match="backend"):
        solve(X, X, np.ones((17, 1)), backend="TPU")
    x, y = pairfold.Vi(X), pairfold.Vj(Y)
    with pytest.raises(DeviceError, match="no GPU"):
        ((x - y) ** 2).sum(-1).sum(axis=1, backend="GPU")
    with pytest.raises(DeviceError, match="no GPU"):
        ((x - y) ** 2).sum(-1).min(axis=1, backend="GPU")
