"""The table of benchmark cases."""

from __future__ import annotations

from benchmarks import oracles, programs
from benchmarks.case import (
    BEYOND,
    CALLS,
    DIMS,
    KEPT,
    MEANS,
    NEAR,
    POINTS,
    PROGRAM,
    REDUCED,
    SEED,
    SOFT,
    THIN,
    Bar,
    Case,
    below,
    faster,
    limit,
)

_SEED = "Square(p-a)*Exp(x+y)"
_SEED_ALIASES = ("x = Vi(3)", "y = Vj(3)", "a = Vj(1)", "p = Pm(1)")
_GAUSSIAN = "Exp(-SqDist(x,y))*b"
_FORMULAS = {
    "gaussian": _GAUSSIAN,
    "laplacian": "Exp(-Norm2(x-y))*b",
    "matern": "(1+Norm2(x-y)+SqDist(x,y)/3)*Exp(-Norm2(x-y))*b",
    "cauchy": "b/(1+SqDist(x,y))",
    "coulomb": "Rsqrt(SqDist(x,y))*b",
}
_OTHERS = tuple(_FORMULAS)[1:]
_SIZES = {"1k": 1000, "10k": 10_000, "100k": 100_000}

_SHIPPED = "PyKeOps"
_FIRST = faster(1, "Python", "C++")  # no slower than any brute-force peer


def _aliases(dim: int, outputs: int) -> tuple[str, ...]:
    return (f"x = Vi({dim})", f"y = Vj({dim})", f"b = Vj({outputs})")


def _seed_cases() -> list[Case]:
    name, size = "seed.gradient", (3000, 5000)
    forward = (SEED, "seed", _SEED, _SEED_ALIASES, 1, *size, oracles.seed_data,
               oracles.seed_forward)  # fmt: skip
    bars = {"floor": faster(40, _SHIPPED), "aim": faster(80, _SHIPPED)}
    return [
        Case("seed.forward", *forward, **bars),
        Case("seed.forward.exact", *forward, rules="exact"),
        Case(f"{name}.autograd", SEED, "seed-gradient", _SEED, _SEED_ALIASES, 1, *size,
             oracles.seed_data, oracles.seed_gradient, what="gradient", wrt=("y",), front="torch",
             **bars),
        Case(f"{name}.formula", SEED, "seed-gradient", f"Grad({_SEED},y,e)",
             (*_SEED_ALIASES, "e = Vi(3)"), 0, *size, oracles.seed_data, oracles.seed_gradient,
             **bars),
    ]  # fmt: skip


def _sum(
    name: str,
    kernel: str = "gaussian",
    group: str = POINTS,
    size: tuple[int, int] = (20_000, 20_000),
    dim: int = 3,
    outputs: int = 1,
    shift: float = 0.0,
    **options: object,
) -> Case:
    draw = oracles.points(dim, outputs, shift, same=kernel == "coulomb")
    return Case(
        name, group, kernel, _FORMULAS[kernel], _aliases(dim, outputs), 1, *size, draw,
        oracles.radial(kernel), **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _gradient(name: str, group: str, size: tuple[int, int], **options: object) -> Case:
    return Case(
        name, group, "gaussian-gradient", _GAUSSIAN, _aliases(3, 1), 1, *size,
        oracles.points(3, upstream=True), oracles.gaussian_gradients, wrt=("x", "y", "b"),
        front="torch", **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _point_cases() -> list[Case]:
    single = {"floor": faster(40, _SHIPPED) + faster(4, "Python") + faster(1, "C++"),
              "aim": limit(1.2)}  # fmt: skip
    double = {"dtype": "float64", "floor": faster(20, _SHIPPED) + _FIRST, "aim": limit(1.25)}
    base = "gaussian.float32"
    return [
        _sum(base, **single),
        _sum("gaussian.float64", **double),
        _gradient("gaussian.backward", POINTS, (20_000, 20_000), what="gradient",
                  floor=(Bar("multiple", 2, base), *_FIRST), aim=(Bar("multiple", 1.5, base),)),
        *(_sum(f"{kernel}.float32", kernel, **single) for kernel in _OTHERS),
        *(_sum(f"{kernel}.float64", kernel, **double) for kernel in _OTHERS),
        _sum("gaussian.shifted-by-100", shift=100.0, floor=faster(40, _SHIPPED)),
        *(_sum(f"{kernel}.{name}", kernel, size=(count, count), floor=_FIRST)
          for kernel in _FORMULAS for name, count in _SIZES.items()),
    ]  # fmt: skip


def _dim_cases() -> list[Case]:
    ten = (10_000, 10_000)
    floor = faster(20, _SHIPPED) + _FIRST
    return [
        *(_sum(f"gaussian.dim{d}", group=DIMS, size=ten, dim=d, floor=floor, aim=limit(1.35))
          for d in (10, 64, 100, 784)),
        *(_sum(f"gaussian.outputs{e}", group=DIMS, size=ten, outputs=e, floor=_FIRST)
          for e in (10, 100)),
    ]  # fmt: skip


def _soft_cases() -> list[Case]:
    floor, aim = faster(40, _SHIPPED) + _FIRST, faster(80, _SHIPPED)
    large, square = (20_000, 20_000), (8192, 8192)
    return [
        Case("sinkhorn", SOFT, "sinkhorn", "(b-SqDist(x,y))*100", _aliases(3, 1), 1, *large,
             oracles.cube, oracles.sinkhorn, reduction_op="LogSumExp", floor=floor, aim=aim),
        Case("attention", SOFT, "attention", "(x|y)", _aliases(64, 64), 1, *square,
             oracles.queries(64), oracles.attention, reduction_op="SumSoftMaxWeight", formula2="b",
             floor=floor, aim=aim + below(0.1)),
    ]  # fmt: skip


def _nearest(
    name: str, group: str, op: str, size: tuple[int, int], dim: int, count: int, **options: object
) -> Case:
    kernel = "squared-argmin" if count == 1 else "squared-argkmin"
    return Case(
        name, group, kernel, "SqDist(x,y)", _aliases(dim, 1)[:2], 1, *size, oracles.normal(dim),
        oracles.neighbours(count), reduction_op=op, opt_arg=count if op == "ArgKMin" else None,
        read=oracles.read_neighbours(count), **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _near_cases() -> list[Case]:
    ten = (10_000, 10_000)
    bars = {"floor": _FIRST, "aim": limit(1.35)}
    means = {"2x100": (1_000_000, 100, 2), "2x1000": (1_000_000, 1000, 2),
             "100x100": (100_000, 100, 100), "100x1000": (100_000, 1000, 100)}  # fmt: skip
    return [
        *(_nearest(f"knn.dim{d}.k{k}", NEAR, "ArgKMin", ten, d, k, **bars)
          for d in (3, 16, 64, 128) for k in (1, 10, 100)),
        *(_nearest(f"kmeans.{name}", MEANS, "ArgMin", size, dim, 1, **bars)
          for name, (*size, dim) in means.items()),
    ]  # fmt: skip


def _small_cases() -> list[Case]:
    small = (100, 100)
    return [
        _sum("thin.one-row", group=THIN, size=(1, 10_000_000), floor=_FIRST),
        _sum("thin.one-column", group=THIN, size=(10_000_000, 1), floor=_FIRST),
        _sum("call.numpy", group=CALLS, size=small, floor=below(30e-6), aim=below(15e-6)),
        _sum("call.torch", group=CALLS, size=small, front="torch", floor=below(60e-6),
             aim=below(30e-6)),
        _gradient("call.torch-backward", CALLS, small, what="both"),
    ]  # fmt: skip


def _reduction(
    name: str,
    formula: str = "SqDist(x,y)",
    weights: int = 0,
    suffix: str = "",
    group: str = REDUCED,
    **options: object,
) -> Case:
    kernel = f"squared-{name.replace('_', '-').lower()}{suffix.replace('.', '-')}"
    aliases = _aliases(3, weights) if weights else _aliases(3, 1)[:2]
    return Case(
        f"reduction.{name}{suffix}", group, kernel, formula, aliases, 1, 20_000, 20_000,
        oracles.weighted_points(weights), oracles.reduction(name, formula), reduction_op=name,
        formula2="b" if weights else None, read=oracles.reader(name, formula),
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _reduction_cases() -> list[Case]:
    minus = "-SqDist(x,y)"
    plain = ("Min", "Max", "ArgMin", "ArgMax", "Min_ArgMin", "Max_ArgMax")
    lists = ("KMin", "ArgKMin", "KMin_ArgKMin")
    beyond = {
        "Mean": "SqDist(x,y)",
        "Prod": "1+SqDist(x,y)/20000",
        "Any": "LessThan(SqDist(x,y),0.01)",
        "All": "LessThan(SqDist(x,y),9)",
        "Count": "LessThan(SqDist(x,y),1)",
    }
    return [
        _reduction("Sum", floor=faster(20, _SHIPPED)),
        _reduction("LogSumExp", minus, floor=faster(20, _SHIPPED)),
        _reduction("LogSumExp", minus, 3, ".weighted", floor=faster(20, _SHIPPED)),
        _reduction("SumSoftMaxWeight", minus, 3, floor=faster(20, _SHIPPED)),
        _reduction("Max_SumShiftExp", minus, floor=faster(20, _SHIPPED)),
        _reduction("Max_SumShiftExpWeight", minus, 3, floor=faster(20, _SHIPPED)),
        *(_reduction(name, floor=faster(20, _SHIPPED)) for name in plain),
        *(_reduction(name, opt_arg=KEPT, floor=faster(10, _SHIPPED)) for name in lists),
        *(_reduction(name, formula, group=BEYOND) for name, formula in beyond.items()),
    ]


def _program(name: str, program: str, says: str, size: tuple[int, int], **options: object) -> Case:
    return Case(
        name, PROGRAM, program, says, _aliases(3, 1), 1, *size, programs.draw(program),
        programs.oracle(program), program=program, **options,  # type: ignore[arg-type]
    )  # fmt: skip


def _program_cases() -> list[Case]:
    gaussian = "(-((x_i - y_j)**2).sum(-1)).exp()"
    large, floor = (20_000, 20_000), faster(20, _SHIPPED)
    return [
        _program("lazytensor.call", "lazy", f"{gaussian} @ b", (100, 100)),
        _program("lazytensor.gaussian", "lazy", f"{gaussian} @ b", large, floor=floor),
        _program("batch.64x500", "batched", f"{gaussian} @ b, 64 problems", (32_000, 500)),
        _program("ranges.gaussian", "sparse", "Exp(-SqDist(x,y))*b over near blocks", large),
        _program("solve.gaussian", "system", f"{gaussian}.solve(b, alpha=1)", (5000, 5000),
                 dtype="float64"),
    ]  # fmt: skip


_GROUPS = (
    _seed_cases,
    _point_cases,
    _dim_cases,
    _soft_cases,
    _near_cases,
    _small_cases,
    _program_cases,
    _reduction_cases,
)
CASES = {case.name: case for group in _GROUPS for case in group()}
