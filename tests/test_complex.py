"""Complex operations against NumPy's complex arrays and the complex autograd of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_close
from products import some

from pairfold.arrays.numpy import NumpyArrays
from pairfold.calculus.derive import pull_back
from pairfold.core.node import Axis, Node, topological
from pairfold.errors import DimError
from pairfold.frontends.parse import parse
from pairfold.frontends.reduction import FormulaReduction
from pairfold.ops.complex import as_complex, as_pairs
from pairfold.ops.table import OPERATIONS, build, variable
from pairfold.settings import settings

ROWS, COLUMNS = 17, 23
ALIASES = ["x = Vi(6)", "y = Vj(6)", "z = Vj(2)", "r = Vi(3)", "s = Vj(1)", "p = Pm(6)"]
SHAPES = {"x": (ROWS, 6), "y": (COLUMNS, 6), "z": (COLUMNS, 2), "r": (ROWS, 3), "s": (COLUMNS, 1)}
KINDS = {"x": Axis.I, "y": Axis.J, "z": Axis.J, "r": Axis.I, "s": Axis.J, "p": Axis.PARAMETER}
SHAPES["p"] = (6,)
REAL = ("r", "s")

# formula text, and what it means on complex tensors x, y, z, p and real ones r, s
CASES = {
    "Real2Complex(r)": lambda t, x, y, z, r, s, p: r + 0j * y,
    "Imag2Complex(r*s)": lambda t, x, y, z, r, s, p: 1j * r * s,
    "ComplexMult(Conj(x),y)": lambda t, x, y, z, r, s, p: x.conj() * y,
    "ComplexSquareAbs(ComplexSubtract(x,y))": lambda t, x, y, z, r, s, p: (
        ((x - y) * (x - y).conj()).real
    ),
    "ComplexAbs(ComplexAdd(x,z))": lambda t, x, y, z, r, s, p: t.abs(x + z),
    "ComplexAngle(ComplexMult(x,y))": lambda t, x, y, z, r, s, p: t.angle(x * y),
    "ComplexExp(ComplexMult(x,z))": lambda t, x, y, z, r, s, p: t.exp(x * z),
    "ComplexMult(ComplexExp1j(r),y)": lambda t, x, y, z, r, s, p: t.exp(1j * r) * y,
    "ComplexDivide(x,ComplexAdd(y,p))": lambda t, x, y, z, r, s, p: x / (y + p),
    "ComplexDivide(z,x)": lambda t, x, y, z, r, s, p: z / x,
    "ComplexRealScal(s,x)": lambda t, x, y, z, r, s, p: s * x,
    "ComplexRealScal(ComplexMult(x,y),s)": lambda t, x, y, z, r, s, p: s * x * y,
    "ComplexSum(ComplexMult(x,y))": lambda t, x, y, z, r, s, p: (x * y).sum(-1, keepdims=True),
    "ComplexMult(ComplexSumT(z,6),x)": lambda t, x, y, z, r, s, p: z * x,
    "ComplexReal(ComplexMult(x,y))": lambda t, x, y, z, r, s, p: (x * y).real,
    "ComplexImag(ComplexMult(x,Conj(y)))*r": lambda t, x, y, z, r, s, p: (x * y.conj()).imag * r,
    "ComplexSubtract(ComplexMult(x,y),Real2Complex(r))": lambda t, x, y, z, r, s, p: x * y - r,
    "ComplexMult(Real2Complex(s),y)": lambda t, x, y, z, r, s, p: s * y + 0 * x,
    "Conj(x)*Exp(-ComplexSquareAbs(z))": lambda t, x, y, z, r, s, p: (
        x.conj() * t.exp(-(t.abs(z) ** 2))
    ),
    "IfElse(s,ComplexMult(x,y),ComplexExp(y))": lambda t, x, y, z, r, s, p: t.where(
        s >= 0, x * y, t.exp(y)
    ),
}


def arrays_of(seed: int) -> dict[str, Any]:
    """Random arguments, away from 0 where they are complex."""
    rng = np.random.default_rng(seed)
    found = {n: rng.uniform(0.3, 1.3, s) * rng.choice([-1, 1], s) for n, s in SHAPES.items()}
    return {name: found[name] for name in "xyzrsp"}


def folded(node: Node, arrays: dict[str, Any], kept: Axis, **options: Any) -> Any:
    """The sum by machine code; checked against the interpreter."""
    values = list(arrays.values())
    dims = [a.shape[-1] for a in values]
    kinds = [KINDS.get(name, Axis.I) for name in arrays]
    variables = [variable(n, d, k) for n, (d, k) in enumerate(zip(dims, kinds, strict=True))]
    used = {v.params[0] for v in topological([node]) if v.op.name == "Var"}
    assert used <= set(range(len(variables)))
    with settings(check=2, **options):
        return FormulaReduction(node, variables, "Sum", kept)(NumpyArrays, values)


@some(
    "text,unroll",
    [(text, unroll) for text in CASES for unroll in (16, 2)],
    lambda entry: (entry[1] == 2) == list(CASES).index(entry[0]) % 2,
)
def test_complex_operations_are_those_of_numpy(text: str, unroll: int) -> None:
    arrays = arrays_of(1)
    x, p = as_complex(arrays["x"])[:, None], as_complex(arrays["p"])
    y, z = as_complex(arrays["y"])[None], as_complex(arrays["z"])[None]
    r, s = arrays["r"][:, None], arrays["s"][None]
    pairs = CASES[text](np, x, y, z, r, s, p)
    pairs = as_pairs(pairs) if np.iscomplexobj(pairs) else pairs
    pairs = np.broadcast_to(pairs, (ROWS, COLUMNS, pairs.shape[-1]))
    node = parse(text, ALIASES).node
    for kept, axis in ((Axis.I, 1), (Axis.J, 0)):
        got = folded(node, arrays, kept, unroll=unroll)
        assert_close(got, pairs.sum(axis), terms=COLUMNS, formula=text)


def tensors(torch: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """Leaves that want gradients: complex tensors of the pairs, real ones as they are."""
    return {
        name: torch.tensor(a if name in REAL else as_complex(a), requires_grad=True)
        for name, a in arrays.items()
    }


def real_pairs(torch: Any, tensor: Any, dim: int) -> Any:
    """A tensor as pairs of real numbers, if it is complex."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj()).flatten(-2)
    return tensor.expand(*tensor.shape[:-1], dim)


def torch_sum(torch: Any, text: str, leaves: dict[str, Any], dim: int) -> Any:
    """The sum over j, as pairs."""
    x, y, z = leaves["x"][:, None], leaves["y"][None], leaves["z"][None]
    r, s, p = leaves["r"][:, None], leaves["s"][None], leaves["p"]
    pairs = CASES[text](torch, x, y, z, r, s, p)
    return real_pairs(torch, pairs, dim).expand(ROWS, COLUMNS, dim).sum(1)


@pytest.mark.parametrize("text", CASES)
def test_gradients_are_the_conjugate_ones_of_torch_twice(text: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    arrays = arrays_of(3)
    node = parse(text, ALIASES).node
    e = rng.normal(size=(ROWS, node.dim))
    ve = variable(len(arrays), node.dim, Axis.I)
    leaves = tensors(torch, arrays)
    total = (torch_sum(torch, text, leaves, node.dim) * torch.tensor(e)).sum()
    wanted = list(leaves.values())
    firsts = torch.autograd.grad(total, wanted, allow_unused=True, create_graph=True)
    for place, (name, leaf, first) in enumerate(zip(arrays, wanted, firsts, strict=True)):
        dim = arrays[name].shape[-1]
        v = variable(place, dim, KINDS[name])
        back = pull_back(node, [v], ve)[0]
        if back is None:
            assert first is None or not bool(first.abs().max() > 0)
            continue
        kept = Axis.J if KINDS[name] == Axis.J else Axis.I
        got = folded(back, {**arrays, "e": e}, kept)
        got = got.sum(0) if name == "p" else got
        want = real_pairs(torch, first, dim)
        assert_close(got, want.detach().numpy(), rtol=1e-12, formula=back)
        if name == "p" or not want.requires_grad:
            continue
        weights = rng.normal(size=got.shape)
        vw = variable(len(arrays) + 1, dim, KINDS[name])
        again = torch.autograd.grad(
            (want * torch.tensor(weights)).sum(), leaf, allow_unused=True, retain_graph=True
        )[0]
        second = pull_back(back, [v], vw)[0]
        if second is None or again is None:
            assert second is None or not np.any(second_value(second, arrays, e, weights, name))
            assert again is None or not bool(again.abs().max() > 1e-12)
            continue
        got = second_value(second, arrays, e, weights, name)
        assert_close(got, real_pairs(torch, again, dim).numpy(), rtol=1e-11, formula=second)


def second_value(node: Node, arrays: dict[str, Any], e: Any, w: Any, name: str) -> Any:
    """A second gradient to argument `name`, along weights of that argument."""
    values = [*arrays.values(), e, w]
    kinds = [*(KINDS[n] for n in arrays), Axis.I, KINDS[name]]
    variables = [
        variable(n, a.shape[-1], k) for n, (a, k) in enumerate(zip(values, kinds, strict=True))
    ]
    with settings(check=2):
        return FormulaReduction(node, variables, "Sum", KINDS[name])(NumpyArrays, values)


@pytest.mark.parametrize("text", ["ComplexAbs(x)", "ComplexAngle(x)"])
def test_gradients_at_zero_are_zero(text: str) -> None:
    arrays = {"x": np.zeros((1, 4)), "e": np.ones((1, 2))}
    node = parse(text, ["x = Vi(4)"]).node
    vx, ve = variable(0, 4, Axis.I), variable(1, 2, Axis.I)
    back = pull_back(node, [vx], ve)[0]
    assert back is not None
    assert_close(folded(back, arrays, Axis.I), np.zeros((1, 4)))


def test_a_chain_of_complex_operations_is_real_arithmetic() -> None:
    text = "ComplexReal(ComplexMult(ComplexExp1j(r),ComplexAdd(y,ComplexMult(y,x))))"
    names = {node.op.name for node in topological([parse(text, ALIASES).node])}
    assert "Complex" not in names


def test_gradients_to_both_parts_stay_one_vector() -> None:
    vx, ve = variable(0, 6, Axis.I), variable(6, 3, Axis.I)
    node = parse("ComplexSquareAbs(x)", ALIASES).node
    back = pull_back(node, [vx], ve)[0]
    assert back is not None
    assert [n.op.name for n in topological([back])].count("Complex") == 1


def test_odd_dimensions_are_refused_in_words() -> None:
    with pytest.raises(DimError, match="even number"):
        build(OPERATIONS["ComplexMult"], variable(0, 3, Axis.I), variable(1, 3, Axis.J))


def test_a_long_complex_vector_stays_a_loop() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(5, 400)), rng.normal(size=(7, 400))
    vx, vy = variable(0, 400, Axis.I), variable(1, 400, Axis.J)
    node = build(OPERATIONS["ComplexMult"], vx, vy)
    want = as_pairs((as_complex(x)[:, None] * as_complex(y)[None]).sum(1))
    with settings(check=2):
        got = FormulaReduction(node, [vx, vy], "Sum", Axis.I)(NumpyArrays, [x, y])
    assert_close(got, want, terms=14)
