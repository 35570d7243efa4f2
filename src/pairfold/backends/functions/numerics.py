"""Building blocks of the elementary functions: constants, polynomials, error-free steps.

Everything works lane by lane on any target with IEEE arithmetic; a step that must be exact says so
and does not depend on a fused multiply-add being there.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .arithmetic import Arithmetic, V, round_to_format

_SCALE = 1 << 240
LN2 = Fraction(0xB17217F7D1CF79ABC9E3B39803F2F6AF40F343267298B62D8A0D175B8BAB, _SCALE)
LOG2E = Fraction(0x171547652B82FE1777D0FFDA0D23A7D11D6AEF551BAD2B4B1164A2CD9A342, _SCALE)
PI = Fraction(0x3243F6A8885A308D313198A2E03707344A4093822299F31D0082EFA98EC4E, _SCALE)

# Bits of the first part of ln 2.  Exponents have at most 8 or 11 bits, so that their
# products with it are exact with FMA or without.
LN2_BITS = {"float32": 16, "float64": 42}

INFINITY = float("inf")
NAN = float("nan")


def polynomial(s: Arithmetic[V], x: V, coefficients: Sequence[float]) -> V:
    """c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule, or by pairs.

    Where a fused operation overwrites its addend, Horner's rule copies every coefficient; pairs
    (c[k] + c[k+1] x) copy half as many, and are numbers of their own to add to.
    """
    if not s.has_neon or len(coefficients) < 3:
        return horner(s, x, coefficients)
    *pairs, last = _pairs(s, x, coefficients)
    square = s.mul(x, x)
    for pair in reversed(pairs):
        last = s.fma(square, last, pair)
    return last


def horner(s: Arithmetic[V], x: V, coefficients: Sequence[float]) -> V:
    """The same, by Horner's rule: where x is not small, with the smaller errors."""
    result = s.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = s.fma(result, x, s.constant(coefficient))
    return result


def _pairs(s: Arithmetic[V], x: V, coefficients: Sequence[float]) -> list[V]:
    """c[0] + c[1] x, c[2] + c[3] x, ...; of an odd number the last alone."""
    constants = [s.constant(c) for c in coefficients]
    pairs = zip(constants[::2], constants[1::2], strict=False)
    alone = constants[-1:] if len(constants) % 2 else []
    return [*(s.fma(x, high, low) for low, high in pairs), *alone]


def cut_in_parts(value: Fraction, dtype: str, *bits: int) -> list[Fraction]:
    """Cut a positive constant into parts of so many bits, and a rounded last part.

    Every part but the last is rounded towards zero, so that a product with an integer
    of few bits is exact (Cody and Waite, Software Manual for the Elementary Functions,
    1980), and all parts have the sign of the whole.
    """
    parts: list[Fraction] = []
    for count in bits:
        shift = count - (value.numerator.bit_length() - value.denominator.bit_length() + 1)
        unit = Fraction(2) ** -shift
        parts.append(value // unit * unit)
        value -= parts[-1]
    return [*parts, Fraction(round_to_format(value, dtype))]


def subtract_multiple(s: Arithmetic[V], x: V, n: V, parts: Sequence[Fraction]) -> V:
    """x - n (parts[0] + parts[1] + ...), from the largest part to the smallest."""
    for part in parts:
        x = s.fma(n, s.constant(-part), x)
    return x


def clamp(s: Arithmetic[V], x: V, low: float, high: float) -> V:
    """x moved into [low, high]; a NaN stays a NaN thanks to the order of operands."""
    return s.greater(s.constant(low), s.lesser(s.constant(high), x))


def two_product(s: Arithmetic[V], a: V, b: V) -> tuple[V, V]:
    """a * b as a rounded product and its exact error.

    One FMA gives the error; without it, split both factors in halves (Dekker, A
    floating-point technique for extending the available precision, 1971).
    """
    product = s.mul(a, b)
    if s.has_fma:
        return product, s.fused(a, b, s.neg(product))
    (ah, al), (bh, bl) = halves(s, a), halves(s, b)
    error = s.sub(s.mul(ah, bh), product)
    error = s.add(s.add(error, s.mul(ah, bl)), s.mul(al, bh))
    return product, s.add(error, s.mul(al, bl))


def halves(s: Arithmetic[V], a: V) -> tuple[V, V]:
    """a as a sum of two numbers of half the bits."""
    shifted = s.mul(a, s.constant((1 << (s.fraction_bits // 2 + 1)) + 1))
    high = s.sub(shifted, s.sub(shifted, a))
    return high, s.sub(a, high)


def ordered_sum(s: Arithmetic[V], a: V, b: V) -> tuple[V, V]:
    """a + b as a rounded sum and its exact error, given |a| >= |b| or a = 0."""
    total = s.add(a, b)
    return total, s.sub(b, s.sub(total, a))
