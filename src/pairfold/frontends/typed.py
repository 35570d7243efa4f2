"""What type checkers are told of lazy tensors beyond the annotations of their own methods.

At run time nothing here does anything: methods are made of the rows by `methods.py`, and a test
keeps those named here equal to them; options are checked where they are read; operators take all
that `operand` makes a lazy tensor of.
"""

# Overloads below overlap on purpose: the first that fits says what the result is.
# pyright: reportOverlappingOverload=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, cast, overload

if TYPE_CHECKING:
    from typing_extensions import Self

    from .complextensor import ComplexLazyTensor
    from .lazytensor import LazyTensor

    class RealMethods:
        """The methods of `LazyTensor` that rows of the table of operations make."""

        def sqnorm2(self) -> Self: ...
        def norm2(self) -> Self: ...
        def normalize(self) -> Self: ...
        def sqdist(self, other: object) -> Self: ...
        def concat(self, other: object) -> Self: ...
        def extract(self, i: int, d: int) -> Self: ...
        def elem(self, i: int) -> Self: ...
        def softdtw_sqdist(self, other: object, gamma: object) -> Self: ...
        def abs(self) -> Self: ...
        def inv(self) -> Self: ...
        def square(self) -> Self: ...
        def sqrt(self) -> Self: ...
        def rsqrt(self) -> Self: ...
        def powf(self, y: object) -> Self: ...
        def exp(self) -> Self: ...
        def log(self) -> Self: ...
        def sin(self) -> Self: ...
        def cos(self) -> Self: ...
        def tanh(self) -> Self: ...
        def asin(self) -> Self: ...
        def acos(self) -> Self: ...
        def atan(self) -> Self: ...
        def atan2(self, other: object) -> Self: ...
        def sign(self) -> Self: ...
        def step(self) -> Self: ...
        def relu(self) -> Self: ...
        def floor(self) -> Self: ...
        def sinxdivx(self) -> Self: ...
        def xlogx(self) -> Self: ...
        def ifelse(self, other1: object, other2: object) -> Self: ...
        def one_hot(self, D: int) -> Self: ...
        def matvecmult(self, other: object) -> Self: ...
        def vecmatmult(self, other: object) -> Self: ...
        def tensorprod(self, other: object) -> Self: ...
        def keops_tensordot(
            self,
            other: object,
            dimfa: Sequence[int],
            dimfb: Sequence[int],
            contfa: Sequence[int],
            contfb: Sequence[int],
            permute: Sequence[int] = (),
        ) -> Self: ...
        def keops_kron(
            self, other: object, dimfself: Sequence[int], dimfother: Sequence[int]
        ) -> Self: ...
        def grad(self, other: object, gradin: object) -> Self: ...
        def diff(self, other: object, diffin: object) -> Self: ...
        def grad_matrix(self, other: object) -> Self: ...
        def divergence(self, var: object) -> Self: ...
        def laplacian(self, var: object) -> Self: ...
        def factorize(self, other: object) -> Self: ...
        def auto_factorize(self) -> Self: ...

    class ComplexMethods:
        """The methods of `ComplexLazyTensor` that rows make."""

        def conj(self) -> Self: ...
        def exp(self) -> Self: ...
        def abs(self) -> LazyTensor: ...
        def angle(self) -> LazyTensor: ...

else:
    RealMethods = ComplexMethods = object

# What a reduction gives: an array of the class of the user's arrays, which no type of ours can
# name; several of them; and where something is missing, a reduction that waits for its call.
Result = Any


class CallOptions(TypedDict, total=False):
    """Options of a reduction's call; see `Genred.__call__`."""

    backend: str
    device_id: int | None
    ranges: object
    out: object


class ReducedOptions(CallOptions, total=False):
    """Options of the call of a lazy tensor's reduction."""

    keepdim: bool | None


class AccuracyOptions(TypedDict, total=False):
    """How sums are accumulated; see `Genred`."""

    dtype_acc: str
    use_double_acc: bool
    sum_scheme: str
    enable_chunks: bool
    use_fast_math: bool


class ReductionOptions(ReducedOptions, AccuracyOptions, total=False):
    """Options of a reduction beside its axis and its weight; two names of one, as NumPy's."""

    keepdims: bool | None


class MethodOptions(ReductionOptions, total=False):
    """Options of a reduction's own method; see `LazyTensor.reduction`."""

    call: bool
    is_complex: bool | None


class WeightedOptions(MethodOptions, total=False):
    """Options of a method that takes a weight, which `other` is another name for."""

    other: object


class ExplainOptions(ReductionOptions, total=False):
    """Options of a reduction that is explained; see `LazyTensor.explain`."""

    other: object
    opt_arg: int | None
    is_complex: bool | None


class SystemOptions(AccuracyOptions, total=False):
    """Options of a linear system; see `LazyTensor.solve`."""

    eps: float
    tol: float
    maxiter: int
    preconditioner: object
    rank: int
    method: str | Callable[..., object]
    callback: Callable[..., object]
    backend: str
    device_id: int | None
    ranges: object


class Binary(Protocol):
    """An operator of a real lazy tensor: complex where the other operand is known to be."""

    @overload
    def __call__(self, other: float) -> LazyTensor: ...
    @overload
    def __call__(self, other: complex | ComplexLazyTensor) -> ComplexLazyTensor: ...
    @overload
    def __call__(self, other: object) -> LazyTensor: ...


class Scaling(Protocol):
    """An operator that gives the number 0 for the number 0."""

    @overload
    def __call__(self, other: Literal[0]) -> Literal[0]: ...
    @overload
    def __call__(self, other: float) -> LazyTensor: ...
    @overload
    def __call__(self, other: complex | ComplexLazyTensor) -> ComplexLazyTensor: ...
    @overload
    def __call__(self, other: object) -> LazyTensor: ...


class ComplexScaling(Protocol):
    """The same of a complex lazy tensor."""

    @overload
    def __call__(self, other: Literal[0]) -> Literal[0]: ...
    @overload
    def __call__(self, other: object) -> ComplexLazyTensor: ...


def binary(method: Callable[..., object]) -> Binary:
    """The method, known to type checkers as an operator."""
    return cast(Binary, method)


def scaling(method: Callable[..., object]) -> Scaling:
    """The method, known to type checkers as an operator that gives 0 for 0."""
    return cast(Scaling, method)


def complex_scaling(method: Callable[..., object]) -> ComplexScaling:
    """The method, known to type checkers as a complex operator that gives 0 for 0."""
    return cast(ComplexScaling, method)
