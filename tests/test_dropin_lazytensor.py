"""The classes of `pykeops`: internal names, results of these classes again, raw results, flags."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import test_complex_tensor as complexes
import test_lazytensor_methods as methods
import torch
from checks import assert_close
from test_lazytensor import D, M, N, X, Y, agree

import pairfold
import pairfold.dropin.numpy
import pairfold.dropin.torch
from pairfold.dropin.genred import Genred, KernelSolve
from pairfold.dropin.lazytensor import (
    ComplexLazyTensor,
    GenericLazyTensor,
    LazyTensor,
    Pm,
    Var,
    Vi,
    Vj,
)
from pairfold.errors import FormulaError, OptionError, ShapeError, UnknownNameError

Z = X - Y
Z1 = X - 1j


# -- what other libraries read, call and write -----------------------------------------------------


def test_attributes_of_the_plumbing() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    f = x.sqdist(y) * 0.5 + Vi(3, 1)
    assert LazyTensor.__GenericLazyTensor__
    assert ComplexLazyTensor.__GenericLazyTensor__
    assert np.exp(f).node is f.exp().node
    assert (f.Genred, f.KernelSolve, f.formula2) == (Genred, KernelSolve, None)
    assert f.tools is x.tools
    assert f.tools.name == "numpy"
    assert Pm(2.0).tools is None
    assert f.variables[0] is x.variables[0]
    assert [v.shape for v in f.variables[:2]] == [(M, D), (N, D)]
    assert np.shares_memory(f.variables[0], X)
    assert (len(f.variables), f.variables[2]) == (3, [0.5])
    assert f.symbolic_variables == ((3, 1, 0),)
    assert (f.new_variable_index(), x.new_variable_index()) == (4, 0)
    assert f.get_tools() is None
    assert f.fixvariables() is None
    assert f.separate_kwargs({"dtype_acc": "float64", "backend": "CPU"}) == (
        {"dtype_acc": "float64"},
        {"backend": "CPU"},
    )
    assert (x + x).variables == x.variables


def test_formulas_may_be_written_by_hand() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    made = x.join(y)
    assert (made.ni, made.nj, made.dtype, made.ndim) == (M, N, "float64", 1)
    made.formula = f"Exp(-SqDist({x.formula},{y.formula})) * {y.formula}"
    agree(made, np.exp(-(Z**2).sum(-1, keepdims=True)) * Y)
    alone = x.init()
    assert (alone.ni, alone.nj, alone.variables) == (M, None, x.variables)
    alone.formula = f"Square({x.formula})"
    agree(alone, X**2)
    with pytest.raises(FormulaError):
        alone.formula = f"Square({y.formula})"
    assert x.init(is_complex=True).is_complex
    assert x.join(y, is_complex=True).is_complex


def test_promote_takes_what_it_is_told() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    found = x.promote(y, ("nj", "_dtype", "tools", "Genred"))
    assert (found.ni, found.nj, found.dtype) == (M, N, "float64")
    assert x.promote(y, ("ni",)).nj is None
    with pytest.raises(ShapeError):
        x.promote(LazyTensor(X[:3]), ("ni",))


def test_operations_by_name() -> None:
    x, y = LazyTensor(X), LazyTensor(Y)
    agree(x.unary("Exp"), np.exp(X))
    agree(x.unary("Pow", opt_arg=3), X**3)
    agree(x.unary("Extract", dimres=2, opt_arg=1, opt_arg2=2), X[..., 1:])
    agree(x.unary("SqNorm2", dimres=1), (X**2).sum(-1, keepdims=True))
    agree(x.binary(y, "Subtract"), X - Y)
    agree(x.binary(y, "-", is_operator=True), X - Y)
    agree(x.binary(y, "-", rversion=True), Y - X)
    agree(x.binary(2.0, "Powf", dimcheck="vecand1"), X**2)
    both = np.concatenate([X + 0 * Y, Y + 0 * X], -1)
    agree(x.binary(y, "Concat", dimres=6, dimcheck=None), both)
    agree(x.binary(y, "SqDist", dimres=1, dimcheck="same"), (Z**2).sum(-1, keepdims=True))
    agree(x.ternary(y, 2.0, "Clamp"), np.clip(X, Y, 2.0))
    assert type(x.unary("ComplexExp1j", dimres=6, is_complex=True)) is ComplexLazyTensor
    z = LazyTensor(X + 1j)
    agree(z.unary("ComplexImag", dimres=3, is_complex=False), X**0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x, y: x.unary("Expp"), UnknownNameError),
        (lambda x, y: x.unary("Var"), UnknownNameError),
        (lambda x, y: x.unary("Exp", dimres=1), ShapeError),
        (lambda x, y: x.unary("Exp", opt_arg=1), FormulaError),
        (lambda x, y: x.binary(y[:2], "Add"), ShapeError),
        (lambda x, y: x.binary(y[:2], "Concat"), ShapeError),
        (lambda x, y: x.binary(y[0], "Add", dimcheck="same"), ShapeError),
        (lambda x, y: x.binary(y, "Powf", dimcheck="vecand1"), ShapeError),
        (lambda x, y: x.binary(y, "Add", dimcheck="some"), OptionError),
        (lambda x, y: x.binary(y, "Add", opt_pos="first"), OptionError),
        (lambda x, y: x.ternary(y, y[:2], "IfElse"), ShapeError),
    ],
)
def test_operations_by_name_are_checked(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        call(LazyTensor(X), LazyTensor(Y))
    assert isinstance(caught.value, ValueError)


# -- results are of these classes again ------------------------------------------------------------


@pytest.fixture
def in_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases of other files, on these classes."""
    monkeypatch.setattr(methods, "LazyTensor", LazyTensor)
    monkeypatch.setattr(methods, "Vi", Vi)
    monkeypatch.setattr(methods, "Vj", Vj)


@pytest.mark.usefixtures("in_other_tests")
@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_keeps_to_these_classes(name: str) -> None:
    cases = {**methods.METHODS, **methods._derivatives()}[name]
    for made, _ in cases:
        assert type(made()) in (LazyTensor, ComplexLazyTensor)


@pytest.mark.parametrize("name", complexes.FUNCTIONS)
def test_every_function_of_complex_numbers_keeps_to_these_classes(name: str) -> None:
    made, dense = complexes.FUNCTIONS[name]
    found = made(LazyTensor(complexes.Z))
    wanted = ComplexLazyTensor if np.iscomplexobj(dense(complexes.Z)) else LazyTensor
    assert type(found) is wanted


OPERATIONS: dict[str, Any] = {
    "number first": lambda x, z: 2 - x,
    "array first": lambda x, z: Y - x,
    "complex number": lambda x, z: 1j * x,
    "real and complex": lambda x, z: x / z,
    "complex and real": lambda x, z: z - x,
    "power": lambda x, z: x ** (1 + 1j),
    "comparison": lambda x, z: (x < 1) & ~(x == Y),
    "scalar product": lambda x, z: x | [1.0, 2.0, 3.0],
    "component": lambda x, z: x[0].concat(x[1:]),
    "selection": lambda x, z: pairfold.where(x < 0, 1.0, x),
    "selection from numbers": lambda x, z: pairfold.where(x < 0, 1.0, 0.0),
    "complex selection": lambda x, z: pairfold.where(x < 0, z, 1.0),
    "numpy": lambda x, z: np.exp(np.maximum(Y, x)),
    "numpy's where": lambda x, z: np.where(x < 0, 0.0, x),
    "joined": lambda x, z: np.concatenate([Y, x], axis=-1),
    "joined by the class": lambda x, z: LazyTensor.concatenate((Y, x)),
    "complex by the class": lambda x, z: ComplexLazyTensor.cat((x, z)),
    "parts": lambda x, z: z.real + abs(z) + z.angle() + x.imag,
    "polar": lambda x, z: z.sqrt() ** 0.3,
    "transposed": lambda x, z: (x - Y).t() + z.T.real,
    "copy": lambda x, z: copy.copy(x) + copy.deepcopy(x),
    "pickle": lambda x, z: pickle.loads(pickle.dumps(z * x)),
    "moved": lambda x, z: x.to("float64"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_to_these_classes(name: str) -> None:
    found = OPERATIONS[name](LazyTensor(X), LazyTensor(Z1))
    assert type(found) is (ComplexLazyTensor if found.is_complex else LazyTensor)
    ours = OPERATIONS[name](pairfold.LazyTensor(X), pairfold.LazyTensor(Z1))
    if "class" not in name:
        assert not isinstance(ours, GenericLazyTensor)
        np.testing.assert_array_equal(found.sum(axis=1), ours.sum(axis=1))


def test_variables_are_of_these_classes() -> None:
    x, y = X[:, 0], Y[0]
    made = (Vi(x), Vj(y), Pm(x[0]), Pm(2.0), Vi(0, 3), Var(y, cat=1), Var(1, 2, 2), Vi(2))
    assert {type(variable) for variable in made} == {LazyTensor}
    assert type(Vi(x + 1j)) is ComplexLazyTensor
    assert type(Pm(1j)) is ComplexLazyTensor
    for variable, wanted in ((Vi(0, 3), 0), (Vj(1, 3), 1), (Pm(2, 3), 2), (Var(4, 3, 1), 1)):
        assert variable.symbolic_variables == ((variable.ind, 3, wanted),)
    assert LazyTensor((4, 3, 1)).ind == 4
    with pytest.raises(AttributeError):
        _ = LazyTensor(X).ind
    with pytest.raises(TypeError):
        Vi(None)


def test_classes_that_derive_from_these_still_make_real_tensors() -> None:
    class Mine(LazyTensor):
        def addop(self, other: Any, **options: Any) -> Any:
            return super().addop(other, **options).exp()

    agree(Mine(X) + LazyTensor(Y), np.exp(X + Y))
    agree(Mine(X) - LazyTensor(Y), X - Y)
    assert isinstance(Mine(X) * 2.0, Mine)


def test_tensors_of_pairfold_and_these_mix() -> None:
    x, y = LazyTensor(X), pairfold.LazyTensor(Y)
    assert isinstance(x, pairfold.LazyTensor)
    assert isinstance(LazyTensor(X + 1j), pairfold.ComplexLazyTensor)
    agree(x - y, Z)
    agree(y - x, -Z)
    assert type(x - y) is LazyTensor


def test_modules_that_hold_these_are_saved() -> None:
    file = io.BytesIO()
    torch.save(Vi(torch.tensor(X[:, 0])) * 2, file)
    file.seek(0)
    found = torch.load(file, weights_only=False)
    assert type(found) is LazyTensor
    agree(found, 2 * X)


def test_pairfolds_own_classes_are_free_of_them() -> None:
    for name in ("formula", "variables", "tools", "unary", "lt_constructor", "addop", "Genred"):
        assert hasattr(LazyTensor, name)
        assert not hasattr(pairfold.LazyTensor, name)
        assert not hasattr(pairfold.ComplexLazyTensor, name)
    assert not hasattr(pairfold.Genred("x", ["x = Vi(1)"]), "optional_flags")


# -- reductions that wait --------------------------------------------------------------------------


def test_reductions_that_wait_show_what_their_tensor_is_made_of() -> None:
    f = Vi(0, 3).sqdist(Vj(1, 3))
    waiting = f.sum(axis=1, call=False)
    assert waiting.symbolic_variables == ((0, 3, 0), (1, 3, 1))
    assert (waiting.formula, waiting.tools, waiting.variables) == (f.formula, None, ())
    ours = pairfold.Vi(0, 3).sum(axis=1, call=False)
    assert not hasattr(ours, "symbolic_variables")


def test_out_may_have_the_raw_layout() -> None:
    f = -LazyTensor(X).sqdist(LazyTensor(Y))
    raw = np.empty((M, 2))
    found = f.logsumexp(axis=1, out=raw)
    np.testing.assert_allclose(raw[:, :1] + np.log(raw[:, 1:]), f.logsumexp(axis=1), 1e-14)
    assert found.shape == (M, 1)
    with pytest.raises(ShapeError, match="out must have shape"):
        pairfold.Vi(X[:, 0]).sqdist(pairfold.Vj(Y[0])).logsumexp(axis=1, out=raw)


def test_systems_have_the_name_of_what_computes() -> None:
    x = X[:, 0]
    waiting = (-Vi(x).sqdist(Vj(x))).exp().solve(np.ones((M, 1)), call=False, alpha=1.0)
    assert waiting.callfun is waiting
    again = pickle.loads(pickle.dumps(waiting))
    assert again.callfun is again
    assert_close(again(), waiting())


# -- Genred and KernelSolve ------------------------------------------------------------------------


@pytest.mark.parametrize("place", [pairfold.dropin.numpy, pairfold.dropin.torch])
def test_flags_tell_how_a_reduction_was_built(place: Any) -> None:
    made = place.Genred(
        "x*y", ["x = Vi(1)", "y = Vj(1)"], "Sum", 1, use_double_acc=True, enable_chunks=False
    )
    system = place.KernelSolve(
        "x*y*b", ["x=Vi(1)", "y=Vj(1)", "b=Vj(1)"], "b", sum_scheme="kahan_scheme"
    )
    for one in (made, pickle.loads(pickle.dumps(made))):
        assert type(one) is place.Genred
        assert one.optional_flags == {
            "dtype_acc": "float64",
            "sum_scheme": "auto",
            "use_fast_math": True,
            "enable_chunks": False,
        }
        assert one.rec_multVar_highdim is False
        assert one.formula == "Sum_Reduction(x*y,0)"
    for one in (system, pickle.loads(pickle.dumps(system))):
        assert one.optional_flags["sum_scheme"] == "kahan_scheme"
        assert (one.formula, one.rec_multVar_highdim) == ("x*y*b", None)
