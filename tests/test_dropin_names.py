"""Every name that programs import from PyKeOps and keopscore, and what it does."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
from elsewhere import python

import pairfold.numpy
from pairfold import dropin
from pairfold.dropin import (
    autograd,
    binders,
    common,
    config,
    describing,
    formulas,
    half,
    layouts,
    messages,
    options,
    tools,
)
from pairfold.errors import PairfoldError
from pairfold.ops.reductions import REDUCTIONS

Array = Any
pytestmark = pytest.mark.usefixtures("interpreted_kernels")

# Module -> names, from the reference of PyKeOps 2.3; "torch" and "numpy" in place of *.
NAMES = {
    "pykeops": "__version__ verbose set_verbose default_device_id clean_pykeops set_build_folder "
    "get_build_folder check_health test_numpy_bindings test_torch_bindings numpy_found torch_found "
    "config show_cuda_status keops_get_build_folder pykeops_nvrtc_name common numpy torch",
    "pykeops.config": "gpu_available numpy_found torch_found get_build_folder pykeops_cuda "
    "pykeops_openmp pykeops_base pykeops_nvrtc_name pykeops_cpp_name python_includes config "
    "cuda_config openmp_config platform_detector get_config get_cuda_config get_openmp_config "
    "get_platform_config",
    "pykeops.*": "Genred KernelSolve LazyTensor ComplexLazyTensor Vi Vj Pm generic_sum "
    "generic_logsumexp generic_argmin generic_argkmin cluster generic lazytensor operations utils "
    "test_install",
    "pykeops.*.cluster": "grid_cluster sort_clusters cluster_ranges cluster_centroids "
    "cluster_ranges_centroids from_matrix swap_axes",
    "pykeops.*.cluster.grid_cluster": "grid_cluster",
    "pykeops.*.cluster.matrix": "from_matrix",
    "pykeops.*.cluster.utils": "sort_clusters cluster_ranges cluster_centroids swap_axes "
    "cluster_ranges_centroids",
    "pykeops.*.generic.generic_red": "Genred axis2cat complete_aliases get_sizes preprocess "
    "postprocess get_optional_flags get_tag_backend pyKeOps_Warning default_device_id",
    "pykeops.torch.generic.generic_red": "GenredAutograd GenredAutograd_fun GenredAutograd_base "
    "Genred_parameters check_AD_supported set_device get_type",
    "pykeops.*.generic.generic_ops": "generic_sum generic_logsumexp generic_argmin generic_argkmin",
    "pykeops.*.operations": "KernelSolve",
    "pykeops.torch.operations": "KernelSolveAutograd",
    "pykeops.*.lazytensor.LazyTensor": "LazyTensor ComplexLazyTensor Var Vi Vj Pm",
    "pykeops.*.test_install": "",
    "pykeops.numpy.test_install": "test_numpy_bindings",
    "pykeops.torch.test_install": "test_torch_bindings",
    "pykeops.torch.half2_convert": "half2half2 half22half make_even_size make_odd_cat ranges2half2 "
    "preprocess_half2 postprocess_half2",
    "pykeops.numpy.utils": "numpytools squared_distances differences np_kernel log_np_kernel "
    "grad_np_kernel np_kernel_sphere chain_rules log_sum_exp WarmUpGpu",
    "pykeops.torch.utils": "torchtools is_on_device torchsolve squared_distances torch_kernel",
    "pykeops.common.lazy_tensor": "GenericLazyTensor ComplexGenericLazyTensor same_or_one_test "
    "is_scalar_and_equals is_complex_lazytensor",
    "pykeops.common.utils": "axis2cat cat2axis get_tools WarmUpGpu max_tuple check_broadcasting "
    "pyKeOps_Print pyKeOps_Message pyKeOps_Warning c_type",
    "pykeops.common.parse_type": "categories get_type get_sizes complete_aliases "
    "get_optional_flags parse_dtype_acc",
    "pykeops.common.get_options": "SetBackend get_tag_backend",
    "pykeops.common.operations": "ConjugateGradientSolver KernelLinearSolver preprocess "
    "postprocess",
    "pykeops.common.gpu_utils": "get_gpu_number get_gpu_props",
    "pykeops.common.keops_io": "keops_binder LoadKeOps",
    "keopscore": "verbose auto_factorize debug_ops debug_ops_at_exec clean_keops check_health "
    "set_build_folder cuda_block_size show_cuda_status show_gpu_config build_folder config "
    "__version__ formulas utils",
    "keopscore.config": "config cuda_config openmp_config platform_detector",
    "keopscore.formulas": "maths",
    "keopscore.utils.misc_utils": "KeOps_Print KeOps_Message KeOps_Warning KeOps_Error",
    "keopscore.utils.gpu_utils": "get_gpu_props",
}
TOOLS = (
    "norm arraysum exp log Genred KernelSolve swap_axes arraytype float_types is_tensor copy eq "
    "transpose permute contiguous numpy tile solve size view long dtype detect_complex "
    "view_as_complex view_as_real dtypename rand randn zeros empty eye array get_pointer device "
    "device_type_index"
)


def wanted(library: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for module, names in NAMES.items():
        if library not in module and "*" not in module and library == "torch":
            continue
        if library == "numpy" and "torch" in module:
            continue
        found += [(module.replace("*", library), name) for name in names.split()]
    return found


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_name_of_the_reference_can_be_imported(installed, library):
    pytest.importorskip(library)
    names = wanted(library)
    assert len(names) > 60
    code = "".join(
        f"try:\n    import {module}\n    from {module} import {name}\n"
        f"except Exception as error:\n    print('{module} {name}', error)\n"
        for module, name in names
    )
    assert installed(code) == ""


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_both_sets_of_tools_have_every_name(library):
    pytest.importorskip(library)
    found = common.get_tools(library)
    missing = [name for name in TOOLS.split() if not hasattr(found, name)]
    assert missing == []
    assert found.Genred is importlib.import_module(f"pairfold.dropin.{library}").Genred
    assert found.KernelSolve is importlib.import_module(f"pairfold.dropin.{library}").KernelSolve


# -- tools -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_tools_compute_the_same_for_both_libraries(library):
    pytest.importorskip(library)
    t = common.get_tools(library)
    kind = np.dtype("float64") if library == "numpy" else importlib.import_module("torch").float64
    x = t.array([[4.0, 1.0], [1.0, 3.0]], kind)
    host = np.asarray(x)
    assert t.is_tensor(x)
    assert not t.is_tensor([1.0])
    assert isinstance(x, t.arraytype)
    checks = {
        "norm": (t.norm(x), np.linalg.norm(host)),
        "arraysum": (t.arraysum(x), 9.0),
        "arraysum along an axis": (t.arraysum(x, 0), [5.0, 4.0]),
        "exp": (t.exp(x), np.exp(host)),
        "log": (t.log(x), np.log(host)),
        "copy": (t.copy(x), host),
        "eq": (t.eq(x, x), np.ones((2, 2), bool)),
        "transpose": (t.transpose(x[:1]), host[:1].T),
        "permute": (t.permute(x[None], 2, 0, 1), host[None].transpose(2, 0, 1)),
        "contiguous": (t.contiguous(t.transpose(x)), host.T),
        "numpy": (t.numpy(x), host),
        "tile": (t.tile(x, (2, 1)), np.tile(host, (2, 1))),
        "solve": (t.solve(x, x[:, :1]), [[1.0], [0.0]]),
        "size": (t.size(x), 4),
        "view": (t.view(x, (4, 1)), host.reshape(4, 1)),
        "long": (t.long(x), host.astype(np.int64)),
        "dtypename": (np.array(t.dtypename(t.dtype(x)) == "float64"), True),
        "zeros": (t.zeros((2, 1), kind), np.zeros((2, 1))),
        "eye": (t.eye(3, kind), np.eye(3)),
        "view_as_complex": (t.view_as_complex(x), host[:, :1] + 1j * host[:, 1:]),
        "view_as_real": (t.view_as_real(t.view_as_complex(x)), host),
    }
    for name, (got, want) in checks.items():
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-14, err_msg=name)
    for made in (t.rand(3, 2, kind), t.randn(3, 2, kind), t.empty((3, 2), kind)):
        assert tuple(made.shape) == (3, 2)
        assert made.dtype == kind
    assert t.get_pointer(x) == host.ctypes.data
    assert str(t.device(x)) == "cpu"
    assert t.device_type_index(x) == ("cpu", None)
    assert t.device_dict(x) == {"cat": "cpu"}
    assert t.detect_complex(1j)
    assert t.detect_complex([1.0, 1j])
    assert t.detect_complex(t.view_as_complex(x))
    assert not t.detect_complex(x)
    assert t.swap_axes((1, 2, 3, 4, 5, 6)) == (4, 5, 6, 1, 2, 3)
    assert float in t.float_types


def test_a_library_that_is_none_is_refused():
    with pytest.raises(PairfoldError, match="numpy, torch"):
        common.get_tools("jax")
    assert common.get_tools("numpy") is tools.numpytools


# -- aliases, options ------------------------------------------------------------------------------


def test_aliases_are_completed_with_the_variables_of_the_formula():
    formula = "Var(3, 1, 1) * Var(2,2,0) * x * Var(0,3,0) + Var(2,2,0)"
    given = ["x = Vi(3)", "y = Vj(3)"]
    found = common.complete_aliases(formula, given)
    assert found == ["x = Vi(3)", "y = Vj(3)", "Var(2,2,0)", "Var(3,1,1)"]
    assert given == ["x = Vi(3)", "y = Vj(3)"]
    for wrong in ("Var(3,1,1)", "Var(2,1,1)*Var(2,2,1)"):
        with pytest.raises(PairfoldError, match="one position each"):
            common.complete_aliases(wrong, given)


def test_types_of_aliases():
    assert common.get_type("b = Pm(4, 2)") == ("b", 2, 2, 4)
    assert common.get_type("Vj(2)") == (None, 1, 2, None)
    with pytest.warns(DeprecationWarning, match="Vx"):
        assert common.get_type("x = Vx(3)", 0) == ("x", 0, 3, 0)
    with pytest.raises(ValueError, match="alias"):
        common.get_type("x = Vk(3)")


def test_sizes_are_those_of_the_arrays_or_one():
    x, y = np.ones((2, 5, 3)), np.ones((2, 7, 3))
    assert common.get_sizes(["x = Vi(3)", "y = Vj(3)"], x, y) == (5, 7)
    assert common.get_sizes(["y = Vj(1,3)", "x = Vi(0,3)"], x, y) == (5, 7)
    assert common.get_sizes(["x = Vi(3)"], x) == (5, 1)
    assert common.get_sizes(["p = Pm(3)"], x[0, 0]) == (1, 1)


def test_small_functions():
    assert [common.axis2cat(n) for n in (0, 1)] == [common.cat2axis(n) for n in (0, 1)] == [1, 0]
    for function in (common.axis2cat, common.cat2axis):
        with pytest.raises(ValueError, match=r"0 or 1|Vi or Vj"):
            function(2)
    assert common.max_tuple((1, 5), (3, 2)) == (3, 5)
    assert common.check_broadcasting((2, 1), (4, 1, 3)) == (4, 2, 3)
    assert common.check_broadcasting(None, (2,)) == common.check_broadcasting((2,), None) == (2,)
    assert common.check_broadcasting(None, None) is None
    with pytest.raises(ValueError, match="Incompatible batch dimensions"):
        common.check_broadcasting((2,), (3,))
    assert common.same_or_one_test(3, 1, 3)
    assert not common.same_or_one_test(3, 2)
    assert common.is_scalar_and_equals(1.0, 1)
    assert not common.is_scalar_and_equals(np.ones(2), 1)
    common.WarmUpGpu("numpy")
    assert common.get_gpu_number() == 0
    assert binders.get_gpu_props() == (0, "")
    assert dict(common.categories) == {"Vi": 0, "Vj": 1, "Pm": 2}
    assert list(common.c_type) == ["float16", "float32", "float64"]


@pytest.mark.parametrize(
    ("backend", "tags", "names"),
    [
        ("auto", (0, 0, 0), ("CPU", "1D", "host")),
        ("CPU", (0, 0, 0), ("CPU", "1D", "host")),
        ("GPU", (1, 0, 0), ("GPU", "1D", "host")),
        ("GPU_2D", (1, 1, 0), ("GPU", "2D", "host")),
        ("GPU_1D_device", (1, 0, 1), ("GPU", "1D", "device")),
        ("GPU_2D_host", (1, 1, 0), ("GPU", "2D", "host")),
    ],
)
def test_backends_as_numbers_and_as_names(backend, tags, names):
    arrays = [np.ones(3), np.ones(2)]
    assert options.get_tag_backend(backend, arrays) == tags
    assert options.get_tag_backend(backend, arrays, str=True) == names
    assert backend in options.SetBackend.possible_options_list


def test_backends_that_are_refused():
    with pytest.raises(ValueError, match="backend"):
        options.get_tag_backend("TPU", [])
    with pytest.raises(TypeError, match="numpy arrays or torch tensors"):
        options.get_tag_backend("auto", [np.ones(3), [1.0]])
    torch = pytest.importorskip("torch")
    assert options.get_tag_backend("auto", [torch.ones(3)]) == (0, 0, 0)
    with pytest.raises(TypeError, match="numpy arrays or torch tensors"):
        options.get_tag_backend("auto", [np.ones(3), torch.ones(3)])


def test_devices():
    torch = pytest.importorskip("torch")
    x = torch.ones(3)
    assert options.set_device(0, 0, -1, x, x) == (-1, x.device)
    assert options.set_device(1, 0, 2, x) == (2, x.device)
    with pytest.raises(ValueError, match="same device"):
        options.set_device(0, 0, -1, x, x.to("meta"))


def test_flags_of_accuracy():
    flags = options.get_optional_flags("Sum", "auto", False, "auto", True, False)
    assert flags == {
        "dtype_acc": "auto",
        "sum_scheme": "block_sum",
        "use_fast_math": 0,
        "enable_chunks": 1,
    }
    assert options.get_optional_flags("Max_SumShiftExp", "float64", False, "kahan_scheme", 0, 1)
    assert options.get_optional_flags("Min", "auto", 0, "auto", 1, 1)["sum_scheme"] == "direct_sum"
    for wrong in (
        ("Sum", "float64", True, "auto"),
        ("Sum", "auto", False, "pairwise"),
        ("Min", "float64", False, "auto"),
        ("Min", "auto", False, "kahan_scheme"),
        ("Sumo", "auto", False, "auto"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            options.get_optional_flags(*wrong, True, True)


def test_names_of_accumulators():
    known = {
        ("auto", "float16"): "half2",
        ("float32", "float16"): "float2",
        ("auto", "float32"): "float",
        ("float64", "float32"): "double",
        ("auto", "float64"): "double",
    }
    for given, want in known.items():
        assert options.parse_dtype_acc(*given) == want
    for wrong in (("float32", "float64"), ("float16", "float32"), ("auto", "int64")):
        with pytest.raises(ValueError, match="dtype"):
            options.parse_dtype_acc(*wrong)


# -- raw results -----------------------------------------------------------------------------------

VISIBLE = [name for name, row in REDUCTIONS.items() if not row.internal]


def whole(name: str, formula: str, length: int, axis: int, weight: str | None) -> str:
    parts = [formula, *([str(length)] if length else []), str(1 - axis)]
    return f"{name}_Reduction({','.join(parts + ([weight] if weight else []))})"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", [*VISIBLE, "SoftMax"])
def test_finished_raw_results_are_results(name, library, batch, axis):
    pytest.importorskip(library)
    module = importlib.import_module(f"pairfold.{library}")
    row = REDUCTIONS[{"SoftMax": "SumSoftMaxWeight"}.get(name, name)]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(*batch, n, 2)) for n in (5, 7)]
    truth = "bool" if library == "torch" else "bool_"
    if library == "torch":
        arrays = [importlib.import_module("torch").from_numpy(a) for a in arrays]
    aliases = ["x = Vi(2)", "y = Vj(2)"]
    cases = [("x-y", None), ("(x|y)", None), ("(x|y)", "x*x+y*y")]
    for formula, weight in cases:
        scalar = row.scalar or row.max_shifted
        if (formula == "x-y" and scalar) or {"no": weight, "must": not weight}.get(row.weighted):
            continue
        length = 3 if row.top_k else 0
        given = {"opt_arg": length} if length else {}
        want = module.Genred(formula, aliases, name, axis, formula2=weight, **given)(*arrays)
        raw = layouts.RawReduction(whole(name, formula, length, axis, weight), aliases, library)
        found = raw(*arrays)
        assert found.ndim == len(batch) + 2
        assert found.dtype == arrays[0].dtype
        finished = layouts.postprocess(found, library, name, 2, length, "float64")
        results = (finished, want) if isinstance(want, tuple) else ((finished,), (want,))
        for got, expected in zip(*results, strict=True):
            assert got.shape == expected.shape
            if expected.dtype in (bool, getattr(importlib.import_module(library), truth)):
                got = got == 1
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=1e-12)


def test_what_reductions_are_made_of():
    assert layouts.preprocess("Sum", None) == ("Sum", None)
    assert layouts.preprocess("LogSumExp", None) == ("Max_SumShiftExp", None)
    assert layouts.preprocess("LogSumExp", "b") == ("Max_SumShiftExpWeight", "b")
    assert layouts.preprocess("LogSumExpWeight", "b") == ("Max_SumShiftExpWeight", "b")
    soft = ("Max_SumShiftExpWeight", "Concat(IntCst(1),b)")
    assert layouts.preprocess("SoftMax", "b") == layouts.preprocess("SumSoftMaxWeight", "b") == soft
    with pytest.raises(ValueError, match="weight"):
        layouts.preprocess("LogSumExpWeight", None)
    with pytest.raises(ValueError, match="no reduction"):
        layouts.preprocess("Sumo", None)


@pytest.mark.parametrize(
    "text", ["x*y", "Sum_Reduction(x*y)", "Sum_Reduction(x*y,2)", "KMin_Reduction(x,0)", "Sum(x,0)"]
)
def test_texts_that_are_no_reductions_are_refused(text):
    with pytest.raises(ValueError, match="reduction"):
        layouts.RawReduction(text, ["x = Vi(1)", "y = Vj(1)"], "numpy")


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_binder_computes_raw_results(library):
    pytest.importorskip(library)
    x = np.linspace(0, 1, 10).reshape(5, 2)
    out: Any = np.zeros((5, 2))
    given: tuple[Any, ...] = (x, x)
    if library == "torch":
        out, *given = map(importlib.import_module("torch").from_numpy, (out, x, x))
    text, aliases = "LogSumExp_Reduction((x|y),0)", ["x = Vi(2)", "y = Vj(2)"]
    flags = options.get_optional_flags("Sum", "auto", False, "auto", True, True)
    known = (0, 0, 0, False, -1, text, aliases, 2, "float64", library, flags)
    module = binders.keops_binder["cpp"](*known).import_module()
    function = module.genred_numpy if library == "numpy" else module.genred_pytorch
    raw = function("cpu", (), 5, 5, 0, None, *given)
    assert function("cpu", (), 5, 5, 0, out, *given) is out
    logs = np.log(np.exp(x @ x.T).sum(1))
    for found in (np.asarray(raw), np.asarray(out)):
        np.testing.assert_allclose(found[:, 0] + np.log(found[:, 1]), logs, rtol=1e-12)
    assert binders.LoadKeOps(1, *known[1:]).call["backend"] == "GPU"
    assert list(binders.keops_binder) == ["cpp"]


def test_torch_functions_of_reductions_have_gradients():
    torch = pytest.importorskip("torch")
    params = autograd.Genred_parameters()
    params.formula, params.aliases = "Max_SumShiftExp_Reduction((x|y),0)", ["x=Vi(2)", "y=Vj(2)"]
    x, y = (torch.rand(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 6))
    (want,) = torch.autograd.grad((x @ y.T).logsumexp(1).sin().sum(), x)
    for function in (
        autograd.GenredAutograd_fun,
        autograd.GenredAutograd.apply,
        autograd.GenredAutograd_base._forward,
    ):
        raw = function(params, x, y)
        assert raw.shape == (4, 2)
        logs = raw[:, 0] + raw[:, 1].log()
        torch.testing.assert_close(torch.autograd.grad(logs.sin().sum(), x)[0], want)
    params.out = torch.zeros(4, 2, dtype=torch.float64)
    with torch.no_grad():
        assert autograd.GenredAutograd_fun(params, x, y) is params.out
    assert params.out[:, 1].min() >= 1
    for name in REDUCTIONS:
        autograd.check_AD_supported(f"{name}_Reduction(x,0)")


def test_the_torch_function_of_systems():
    torch = pytest.importorskip("torch")
    params = autograd.Genred_parameters()
    params.formula = "Sum_Reduction(Exp(-SqDist(x,y))*b,0)"
    params.aliases, params.varinvpos = ["x=Vi(2)", "y=Vj(2)", "b=Vj(1)"], 2
    params.alpha, params.eps = 0.5, 1e-12
    x = torch.rand(5, 2, dtype=torch.float64)
    b = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
    found = autograd.KernelSolveAutograd.apply(params, x, x, b)
    table = (-(torch.cdist(x, x) ** 2)).exp() + 0.5 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(found, torch.linalg.solve(table, b))
    found.sum().backward()
    torch.testing.assert_close(b.grad, torch.linalg.solve(table, torch.ones_like(b)))


def test_half_precision_needs_no_packing():
    torch = pytest.importorskip("torch")
    x, y = torch.rand(5, 3).half(), torch.rand(8, 3).half()
    aliases = ["x = Vi(3)", "y = Vj(3)"]
    args, ranges, dummy, length = half.preprocess_half2((x, y), aliases, 1, None, 5, 8)
    genred = importlib.import_module("pairfold.torch").Genred("SqDist(x,y)", aliases, axis=1)
    packed = half.half2half2(genred(*args, ranges=ranges))
    out = half.postprocess_half2(half.half22half(packed), dummy, "Sum", length)
    torch.testing.assert_close(out, genred(x, y))
    assert length == 8
    assert half.preprocess_half2((x, y), aliases, 0, None, 5, 8)[3] == 5
    assert half.make_even_size(x) == (x, False)
    assert half.make_odd_cat(y) == (y, 8)
    assert half.ranges2half2(ranges, 8) is ranges


# -- what an installation says ---------------------------------------------------------------------


def test_printing_follows_the_flags(installed):
    code = (
        "import pykeops, keopscore\n"
        "from pykeops.common.utils import pyKeOps_Print, pyKeOps_Message, pyKeOps_Warning\n"
        "from keopscore.utils.misc_utils import *\n"
        "def all():\n"
        "    pyKeOps_Print('one', end=';')\n"
        "    pyKeOps_Message('two')\n"
        "    pyKeOps_Message('three', use_tag=False, flush=True)\n"
        "    pyKeOps_Warning('four')\n"
        "    KeOps_Print('five'); KeOps_Message('six'); KeOps_Warning('seven', newline=True)\n"
        "all()\n"
        "pykeops.set_verbose(False)\n"
        "all()\n"
        "KeOps_Print('eight', force_print=True)\n"
        "print(pykeops.verbose, keopscore.verbose)"
    )
    said = installed(code)
    want = ["one;[pyKeOps] two", "three", "[pyKeOps] Warning : four", "five", "[KeOps] six", ""]
    want += ["[KeOps] Warning : seven", "eight", "False False"]
    assert said.splitlines() == want


@pytest.mark.parametrize(
    ("variable", "flags"), [("PYKEOPS_VERBOSE", "False False"), ("KEOPS_VERBOSE", "True False")]
)
def test_environment_variables_of_the_flags(variable, flags):
    code = f"import os\nos.environ[{variable!r}] = '0'\nimport pairfold.dropin as d\nd.install()\n"
    code += "import pykeops, keopscore\nprint(pykeops.verbose, keopscore.verbose)"
    assert python("-c", code).stdout.strip() == flags


def test_an_error_of_keopscore_is_a_value_error_with_its_line():
    with pytest.raises(ValueError, match=r"too bad.*test_dropin_names\.py"):
        messages.KeOps_Error("too bad")
    with pytest.raises(ValueError, match=r"too bad$"):
        messages.KeOps_Error("too bad", show_line_number=False)


def test_build_folders_follow_the_environment_and_programs(installed, monkeypatch, tmp_path):
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(tmp_path / "cache"))
    assert config.get_build_folder() == str(tmp_path / "cache" / "pairfold-build")
    code = (
        "import pykeops, keopscore, os\n"
        f"before = os.getcwd()\nos.chdir({str(tmp_path)!r})\n"
        "from pykeops.config import pykeops_base, pykeops_nvrtc_name, pykeops_cpp_name\n"
        "pykeops_base.set_different_build_folder('there')\n"
        "print(pykeops.get_build_folder(), keopscore.build_folder, pykeops_base.build_folder)\n"
        "print(os.path.basename(pykeops_nvrtc_name()), pykeops_cpp_name('a', '.so'))\n"
        "pykeops.set_build_folder()\n"
        "print(keopscore.build_folder == pykeops.keops_get_build_folder(), os.listdir('.'))\n"
        "pykeops.clean_pykeops(); keopscore.clean_keops(verbose=False)\n"
        "os.chdir(before)"
    )
    said = installed(code).splitlines()
    assert said == ["there there there", "pykeops_nvrtc.cpp there/pykeops_cpp_a.so", "True []"]


def test_descriptions_answer_by_attributes_and_by_functions(capsys):
    for thing in (
        describing.config,
        describing.cuda_config,
        describing.openmp_config,
        describing.platform_detector,
    ):
        for fact in thing._facts:
            assert getattr(thing, fact) == getattr(thing, f"get_{fact}")()
            getattr(thing, f"print_{fact}")()
            assert fact in capsys.readouterr().out
            assert {fact, f"get_{fact}", f"set_{fact}", f"print_{fact}"} <= set(dir(thing))
        thing.print_all()
        assert capsys.readouterr().out.count("\n") == len(thing._facts)
        with pytest.raises(AttributeError, match="nonsense"):
            thing.get_nonsense()
    cuda = describing.get_cuda_config()
    assert cuda.get_use_cuda() is False
    assert cuda.get_cuda_version(out_type="tuple") is None
    cuda.set_cuda_block_size(256)
    assert cuda.cuda_block_size == 256
    cuda.set_cuda_block_size(192)
    assert describing.get_config() is describing.pykeops_base
    assert describing.get_openmp_config().get_use_OpenMP() is False
    assert re.match(r"3\.\d+", describing.get_platform_config().get_python_version())
    assert "pairfold" in repr(cuda)


@pytest.mark.parametrize("part", ["all", "base", "cuda", "openmp", "platform"])
def test_the_check_of_health_prints(part, capsys):
    config.check_health(part)
    assert "pairfold" in capsys.readouterr().out
    with pytest.raises(ValueError, match="config_type"):
        config.check_health("weather")


# -- operations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", dropin.utilities.MATHS)
def test_every_operation_of_keopscore_can_be_tried(name):
    """As keopscore's own tests do: a formula, its gradient, and torch's function."""
    torch = pytest.importorskip("torch")
    op = getattr(formulas, name)
    assert op is getattr(formulas, name)
    assert op.string_id == name
    if not op.enable_test:
        assert name in ("GradMatrix", "IntInv")
        return
    torch.manual_seed(0)
    arrays = []
    for n, dim in enumerate(op.test_argdims):
        low, high = op.test_ranges[n] if hasattr(op, "test_ranges") else (-1, 1)
        values = torch.rand(4 + n % 2, dim, dtype=torch.float64) * (high - low) + low
        arrays.append(values.requires_grad_())
    inside = [*(f"v{n}" for n in range(op.nargs)), *map(str, op.test_params)]
    kinds = ["Vi", "Vj"]
    aliases = [f"v{n} = {kinds[n % 2]}({dim})" for n, dim in enumerate(op.test_argdims)]
    genred = importlib.import_module("pairfold.torch").Genred
    out = genred(f"{name}({','.join(inside)})", aliases, axis=1)(*arrays)
    gradients = torch.autograd.grad(out, arrays, torch.ones_like(out))
    function = op.torch_op()
    if function is None:
        return
    spread = [a[:, None] if n % 2 == 0 else a[None] for n, a in enumerate(arrays)]
    want = function(*spread, *op.test_params).sum(1)
    torch.testing.assert_close(out, want)
    for got, other in zip(
        gradients, torch.autograd.grad(want, arrays, torch.ones_like(want)), strict=True
    ):
        torch.testing.assert_close(got, other)


def test_there_are_no_other_operations():
    assert len(dropin.utilities.MATHS) == 67
    with pytest.raises(AttributeError, match="Sinus"):
        _ = formulas.Sinus
    assert "Exp" in repr(formulas.Exp)
    assert not math.isnan(pairfold.numpy.Genred("Exp(v0,)", ["v0 = Vi(1)"])(np.ones((1, 1)))[0, 0])


def test_nothing_warns_when_the_modules_are_imported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (autograd, binders, describing, formulas, half, layouts, messages, options):
            importlib.reload(module)
