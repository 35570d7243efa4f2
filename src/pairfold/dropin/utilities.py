"""The modules of PyKeOps beside its reductions: module -> name -> where pairfold has it.

A place is a module of pairfold, or `module:attribute` where the attribute has another name.
"""

from __future__ import annotations

_CONFIG = "dropin.config"
_DESCRIBING = "dropin.describing"
_MESSAGES = "dropin.messages"
_OPTIONS = "dropin.options"
_LAYOUTS = "dropin.layouts"
_AUTOGRAD = "dropin.autograd"
_KERNELS = "dropin.kernels"
_COMMON = "dropin.common"
_LAZY = ("LazyTensor", "ComplexLazyTensor", "Var", "Vi", "Vj", "Pm")

_FLAGS = ("auto_factorize", "debug_ops", "debug_ops_at_exec", "cuda_block_size")
_CORE = ("clean_keops", "check_health", "set_build_folder", "show_cuda_status")
_NUMPY_KERNELS = (
    "squared_distances",
    "differences",
    "np_kernel",
    "log_np_kernel",
    "grad_np_kernel",
    "np_kernel_sphere",
    "log_sum_exp",
    "chain_rules",
    "WarmUpGpu",
)
_FOUND = ("numpy_found", "torch_found", "get_build_folder", "show_cuda_status")
_FOLDERS = ("set_build_folder", "clean_pykeops", "check_health", "default_device_id")


# Objects that describe an installation, and how they are asked for.
_DESCRIBED = ("config", "cuda_config", "openmp_config", "platform_detector")
_ASKED = ("get_config", "get_cuda_config", "get_openmp_config", "get_platform_config")
_PYKEOPS_CONFIG = (
    "pykeops_base",
    "pykeops_cuda",
    "pykeops_openmp",
    "pykeops_nvrtc_name",
    "pykeops_cpp_name",
    "python_includes",
)
_PRINTING = ("pyKeOps_Print", "pyKeOps_Message", "pyKeOps_Warning")
_CORE_PRINTING = ("KeOps_Print", "KeOps_Message", "KeOps_Warning", "KeOps_Error")
_MARKS = ("CHECK_MARK", "CROSS_MARK")
_HALF = (
    "half2half2",
    "half22half",
    "make_even_size",
    "make_odd_cat",
    "ranges2half2",
    "preprocess_half2",
    "postprocess_half2",
)
_AUTOGRADS = ("GenredAutograd", "GenredAutograd_fun", "GenredAutograd_base")
_PARAMETERS = ("Genred_parameters", "check_AD_supported")

# The operations of `keopscore.formulas.maths`.
_MATHS = """
    Abs Acos Add ArgMax ArgMin Asin Atan Atan2 BSpline Clamp ClampInt Concat Cos DiffClampInt
    Divide Elem ElemT Equal Exp Extract ExtractT GradMatrix Floor IfElse IntInv Inv Kron
    LessOrEqual LessThan Log MatVecMult Max Min Minus Mod Mult Norm2 Normalize NotEqual OneHot
    Pow Powf ReLU Round Rsqrt Scalprod Sign Sin SinXDivX SoftDTW_SqDist SqDist SqNorm2 SqNormDiag
    SqNormIso Sqrt Square Step Subtract Sum SumT SymSqNorm TensorDot TensorProd VecMatMult
    WeightedSqDist WeightedSqNorm XLogX
"""
MATHS = tuple(_MATHS.split())


def _for_arrays(library: str) -> dict[str, dict[str, str]]:
    """What both `pykeops.numpy` and `pykeops.torch` have."""
    base = f"pykeops.{library}"
    bindings = {f"test_{library}_bindings": "dropin"}
    return {
        f"{base}.generic.generic_red": {
            "Genred": f"dropin.{library}",
            "axis2cat": _COMMON,
            "complete_aliases": _COMMON,
            "get_sizes": _COMMON,
            "get_optional_flags": _OPTIONS,
            "get_tag_backend": _OPTIONS,
            "preprocess": _LAYOUTS,
            "postprocess": _LAYOUTS,
            "pyKeOps_Warning": _MESSAGES,
            "default_device_id": _CONFIG,
        },
        f"{base}.lazytensor": {},
        f"{base}.lazytensor.LazyTensor": dict.fromkeys(_LAZY, f"dropin.{library}"),
        f"{base}.test_install": bindings,
    }


UTILITIES: dict[str, dict[str, str]] = {
    "pykeops": {
        **dict.fromkeys((*_FOUND, *_FOLDERS, "keops_get_build_folder"), _CONFIG),
        "pykeops_nvrtc_name": _DESCRIBING,
    },
    "pykeops.config": {
        **dict.fromkeys((*_FOUND, "gpu_available"), _CONFIG),
        **dict.fromkeys((*_DESCRIBED, *_ASKED, *_PYKEOPS_CONFIG), _DESCRIBING),
    },
    "pykeops.common": {},
    "pykeops.common.lazy_tensor": {
        "GenericLazyTensor": "dropin.lazytensor",
        "ComplexGenericLazyTensor": "dropin.lazytensor:ComplexLazyTensor",
        **dict.fromkeys(
            ("same_or_one_test", "is_scalar_and_equals", "is_complex_lazytensor"), _COMMON
        ),
    },
    "pykeops.common.utils": dict.fromkeys(
        ("axis2cat", "cat2axis", "get_tools", "max_tuple", "check_broadcasting", "c_type"), _COMMON
    )
    | {"WarmUpGpu": "dropin.common"}
    | dict.fromkeys(_PRINTING, _MESSAGES),
    "pykeops.common.parse_type": {
        **dict.fromkeys(("categories", "get_type", "get_sizes", "complete_aliases"), _COMMON),
        **dict.fromkeys(("get_optional_flags", "parse_dtype_acc"), _OPTIONS),
    },
    "pykeops.common.get_options": dict.fromkeys(("SetBackend", "get_tag_backend"), _OPTIONS),
    "pykeops.common.operations": {
        **dict.fromkeys(("ConjugateGradientSolver", "KernelLinearSolver"), "frontends.linear"),
        **dict.fromkeys(("preprocess", "postprocess"), _LAYOUTS),
    },
    "pykeops.common.gpu_utils": {"get_gpu_number": _COMMON, "get_gpu_props": "dropin.binders"},
    "pykeops.common.keops_io": {"keops_binder": "dropin.binders"},
    "pykeops.common.keops_io.LoadKeOps": {"LoadKeOps": "dropin.binders"},
    **_for_arrays("numpy"),
    **_for_arrays("torch"),
    "pykeops.numpy.utils": {
        **dict.fromkeys(_NUMPY_KERNELS, _KERNELS),
        "numpytools": "dropin.tools",
    },
    "pykeops.torch.utils": {
        **dict.fromkeys(("squared_distances", "torch_kernel", "is_on_device"), _KERNELS),
        "torchsolve": _KERNELS,
        "torchtools": "dropin.tools",
    },
    "pykeops.torch.half2_convert": dict.fromkeys(_HALF, "dropin.half"),
    "pykeops.torch.operations": {"KernelSolve": "dropin.torch", "KernelSolveAutograd": _AUTOGRAD},
    "keopscore": {
        **dict.fromkeys((*_FLAGS, *_CORE), _CONFIG),
        **dict.fromkeys((*_DESCRIBED, *_ASKED, "show_gpu_config"), _DESCRIBING),
        **dict.fromkeys(_MARKS, _MESSAGES),
    },
    "keopscore.config": dict.fromkeys((*_DESCRIBED, *_ASKED), _DESCRIBING),
    "keopscore.formulas": {},
    "keopscore.formulas.maths": dict.fromkeys(MATHS, "dropin.formulas"),
    "keopscore.utils": {},
    "keopscore.utils.misc_utils": dict.fromkeys((*_CORE_PRINTING, *_MARKS), _MESSAGES),
    "keopscore.utils.gpu_utils": {"get_gpu_props": "dropin.binders"},
}
UTILITIES["pykeops.torch.generic.generic_red"] |= {
    **dict.fromkeys((*_AUTOGRADS, *_PARAMETERS), _AUTOGRAD),
    "get_type": _COMMON,
    "set_device": _OPTIONS,
}
