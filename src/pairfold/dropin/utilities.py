"""The modules of PyKeOps beside its reductions: module -> name -> where pairfold has it.

A place is a module of pairfold, or `module:attribute` where the attribute has another name.
"""

from __future__ import annotations

_CONFIG = "dropin.config"
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


def _for_arrays(library: str) -> dict[str, dict[str, str]]:
    """What both `pykeops.numpy` and `pykeops.torch` have."""
    base = f"pykeops.{library}"
    bindings = {f"test_{library}_bindings": "dropin"}
    return {
        f"{base}.lazytensor": {},
        f"{base}.lazytensor.LazyTensor": dict.fromkeys(_LAZY, library),
        f"{base}.test_install": bindings,
    }


UTILITIES: dict[str, dict[str, str]] = {
    "pykeops": dict.fromkeys((*_FOUND, *_FOLDERS, "keops_get_build_folder"), _CONFIG),
    "pykeops.config": dict.fromkeys((*_FOUND, "gpu_available"), _CONFIG),
    "pykeops.common": {},
    "pykeops.common.lazy_tensor": {
        "GenericLazyTensor": "frontends.reducing:Reducing",
        "ComplexGenericLazyTensor": "frontends.complextensor:ComplexLazyTensor",
        **dict.fromkeys(
            ("same_or_one_test", "is_scalar_and_equals", "is_complex_lazytensor"), _COMMON
        ),
    },
    "pykeops.common.utils": dict.fromkeys(
        ("axis2cat", "cat2axis", "get_tools", "max_tuple", "check_broadcasting", "c_type"), _COMMON
    )
    | {"WarmUpGpu": "dropin.common"},
    "pykeops.common.parse_type": dict.fromkeys(("categories", "get_type", "get_sizes"), _COMMON),
    "pykeops.common.gpu_utils": {"get_gpu_number": _COMMON},
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
    "keopscore": dict.fromkeys((*_FLAGS, *_CORE), _CONFIG),
}
