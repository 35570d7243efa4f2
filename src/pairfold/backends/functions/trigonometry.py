"""Sine, cosine, and inverse trigonometry on SIMD vectors.

Where coefficients come from: each table was computed for this file by a Remez exchange in 260-bit
arithmetic, rounding one coefficient at a time (lowest power first) and refitting the others;
"error 2^-k" is the worst weighted error left after rounding.
"""

from __future__ import annotations

from fractions import Fraction

from .arithmetic import Arithmetic, V
from .numerics import INFINITY, PI, cut_in_parts, horner, polynomial, subtract_multiple

# sin(r) = r (1 + c[0] z + c[1] z^2 + ...), z = r^2, on |r| <= 1.004 pi/2 (float32, error
# 2^-27.2) and 1.001 pi/2 (float64, error 2^-60.8), relative.
_SIN = {
    "float32": (
        -0.16666659712791443,
        0.008333067409694195,
        -0.00019809552759397775,
        2.6054581212520134e-06,
    ),
    "float64": (
        -0.16666666666666666,
        0.008333333333333207,
        -0.0001984126984121063,
        2.7557319210927812e-06,
        -2.5052106819907715e-08,
        1.6058935673367992e-10,
        -7.642857387273421e-13,
        2.719510220741643e-15,
    ),
}

# The largest magnitude that the fast path takes.
_SIN_BOUND = {"float32": 1.0e5, "float64": float(1 << 20)}


def _half_turns(s: Arithmetic[V], x: V, shift: bool) -> tuple[V, V]:
    """(r, t): x = k pi + r, or (k - 1/2) pi + r if `shift`, and t holds k in its low bits.

    Float64 takes pi in three parts, the first two of 33 bits: with the at most 20 bits
    of k or k - 1/2, all products before the last are exact, with FMA or without.  Float32
    with FMA takes three full parts: the first result is a multiple of 2^-23 below 2, thus
    exact, and later errors are relative to r.  Without FMA it goes through float64.
    """
    if s.dtype == "float32" and not s.has_fma:
        wide = s.resized("float64")
        r, t = _half_turns(wide, s.widened(x), shift)
        low = s.low_bits(wide.to_bits(t))
        return s.narrowed(r), s.from_bits(low)
    anchor = s.constant(3 << (s.fraction_bits - 1))
    if shift:
        t = s.add(s.fma(x, s.constant(1 / PI), s.constant(0.5)), anchor)
        k = s.sub(s.sub(t, anchor), s.constant(0.5))
    else:
        t = s.fma(x, s.constant(1 / PI), anchor)
        k = s.sub(t, anchor)
    bits = (24, 24) if s.dtype == "float32" else (33, 33)
    return subtract_multiple(s, x, k, cut_in_parts(PI, s.dtype, *bits)), t


def _is_far(s: Arithmetic[V], x: V) -> V:
    return s.compare(">", s.abs(x), s.constant(_SIN_BOUND[s.dtype]))


def sin(s: Arithmetic[V], x: V) -> V:
    """The sine; beyond 10^5 (float32) or 2^20 (float64), the C library's."""
    r, t = _half_turns(s, x, shift=False)
    z = s.mul(r, r)
    # r (1 + ...) rather than r + r z (...), so that -0 stays -0.
    value = s.mul(r, s.fma(horner(s, z, _SIN[s.dtype]), z, s.constant(1)))
    sign = s.shift_left(s.to_bits(t), s.bits - 1)
    fast = s.from_bits(s.int_xor(s.to_bits(value), sign))
    return s.rescue("sin", x, fast, _is_far(s, x))


def cos(s: Arithmetic[V], x: V) -> V:
    """The cosine, as sin(x + pi/2); far out, the C library's."""
    r, t = _half_turns(s, x, shift=True)
    z = s.mul(r, r)
    value = s.fma(s.mul(r, z), horner(s, z, _SIN[s.dtype]), r)
    # x = k pi - pi/2 + r, so cos(x) = cos(k pi) sin(r).
    sign = s.shift_left(s.to_bits(t), s.bits - 1)
    fast = s.from_bits(s.int_xor(s.to_bits(value), sign))
    return s.rescue("cos", x, fast, _is_far(s, x))


def half_wave(s: Arithmetic[V], r: V) -> V:
    """|sin(pi r)| / pi, for |r| <= 1/2."""
    size = s.abs(r)
    turned = s.mul(size, s.constant(PI))
    z = s.mul(turned, turned)
    return s.mul(size, s.fma(horner(s, z, _SIN[s.dtype]), z, s.constant(1)))


# atan(t) = t (1 + c[0] z + c[1] z^2 + ...), z = t^2, on |t| <= tan(pi/8), relative error
# 2^-30.4 (float32) and 2^-59.1 (float64).
_ATAN = {
    "float32": (
        -0.33333316445350647,
        0.19998528063297272,
        -0.14244389533996582,
        0.1059914380311966,
        -0.0608995221555233,
    ),
    "float64": (
        -0.333333333333332,
        0.19999999999953652,
        -0.14285714280180087,
        0.11111110781625216,
        -0.09090897682197181,
        0.07692058591704728,
        -0.06663083804174903,
        0.05847737892235922,
        -0.05038637535742044,
        0.038048665627441185,
        -0.01789151025143192,
    ),
}


def _angle(s: Arithmetic[V], a: V, b: V) -> V:
    """atan(a/b) in [0, pi/2] for non-negative a and b, not both subnormal or huge.

    Three ranges of a/b, cut at tan(pi/8) and its inverse:
    atan(a/b), pi/4 + atan((a - b)/(a + b)), pi/2 + atan(-b/a).  0/0 counts as 0.
    """
    cut = s.constant(Fraction(41421356, 100000000))
    steep = s.compare(">", s.mul(a, cut), b)
    middle = s.compare(">", a, s.mul(b, cut))

    def choose(first: V, second: V, third: V) -> V:
        return s.select(steep, first, s.select(middle, second, third))

    smallest = Fraction(2) ** (-149 if s.dtype == "float32" else -1074)
    over = choose(s.neg(b), s.sub(a, b), a)
    under = s.greater(s.constant(smallest), choose(a, s.add(a, b), b))
    t = s.div(over, under)
    z = s.mul(t, t)
    high, low = cut_in_parts(PI / 2, s.dtype, s.fraction_bits + 1)
    zero = s.constant(0)
    base = choose(s.constant(high), s.constant(high / 2), zero)
    rest = choose(s.constant(low), s.constant(low / 2), zero)
    series = polynomial(s, z, _ATAN[s.dtype])
    return s.add(base, s.add(s.fma(s.mul(t, z), series, rest), t))


def atan(s: Arithmetic[V], x: V) -> V:
    """The arc tangent."""
    return s.copysign(_angle(s, s.abs(x), s.constant(1)), x)


def _obtuse(s: Arithmetic[V], angle: V, sign: V) -> V:
    """The angle, or pi minus the angle where `sign` has its sign bit set."""
    high, low = cut_in_parts(PI, s.dtype, s.fraction_bits + 1)
    other = s.sub(s.constant(high), s.sub(angle, s.constant(low)))
    is_negative = s.int_compare("<", s.to_bits(sign), s.int_constant(0))
    return s.select(is_negative, other, angle)


def atan2(s: Arithmetic[V], y: V, x: V) -> V:
    """The angle of the point (x, y), with the special cases of C99 F.9.1.4."""
    a, b = s.abs(y), s.abs(x)
    # Both infinite: the angle of a diagonal.
    infinity = s.constant(INFINITY)
    both = s.mask_and(s.compare("==", a, infinity), s.compare("==", b, infinity))
    a, b = (s.select(both, s.constant(1), v) for v in (a, b))
    # Scale both so that a + b is finite and the comparisons of _angle are not made with
    # subnormal products; a partner that becomes subnormal by this is negligible.
    limit = 100 if s.dtype == "float32" else 1000
    larger = s.greater(a, b)
    huge = s.compare(">", larger, s.constant(2.0**limit))
    tiny = s.compare("<", larger, s.constant(2.0**-limit))
    factor = s.select(tiny, s.constant(2.0**64), s.constant(1))
    factor = s.select(huge, s.constant(2.0**-64), factor)
    angle = _angle(s, s.mul(a, factor), s.mul(b, factor))
    return s.copysign(_obtuse(s, angle, x), y)


def _cathetus(s: Arithmetic[V], x: V) -> V:
    """sqrt(1 - x^2) without cancellation; NaN beyond 1."""
    one = s.constant(1)
    return s.sqrt(s.mul(s.sub(one, x), s.add(one, x)))


def asin(s: Arithmetic[V], x: V) -> V:
    """The arc sine: the angle of the point (sqrt(1 - x^2), x)."""
    return s.copysign(_angle(s, s.abs(x), _cathetus(s, x)), x)


def acos(s: Arithmetic[V], x: V) -> V:
    """The arc cosine: the angle of the point (x, sqrt(1 - x^2))."""
    return _obtuse(s, _angle(s, _cathetus(s, x), s.abs(x)), x)
