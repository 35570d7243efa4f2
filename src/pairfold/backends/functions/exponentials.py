"""Exponentials, logarithms, powers and roots on SIMD vectors.

Where coefficients come from: each table was computed for this file by a Remez exchange in 260-bit
arithmetic, rounding one coefficient at a time (lowest power first) and refitting the others;
"error 2^-k" is the worst weighted error left after rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from .arithmetic import Arithmetic, V, round_to_format
from .numerics import (
    INFINITY,
    LN2,
    LN2_BITS,
    LOG2E,
    NAN,
    clamp,
    cut_in_parts,
    ordered_sum,
    polynomial,
    subtract_multiple,
    two_product,
)

# ---- exponentials ------------------------------------------------------------------------

# e^r = 1 + r + c[0] r^2 + c[1] r^3 + ... on |r| <= ln(2)/2, relative error
# 2^-28.2 (float32, degree 6) and 2^-57.6 (float64, degree 11).
_EXP = {
    "float32": (
        0.4999999403953552,
        0.1666652113199234,
        0.04166826605796814,
        0.00836869515478611,
        0.0013820512685924768,
    ),
    "float64": (
        0.5000000000000011,
        0.16666666666666458,
        0.04166666666652429,
        0.008333333333458176,
        0.0013888888945790458,
        0.00019841269603621426,
        2.4801490262010898e-05,
        2.7557482351906683e-06,
        2.7631449017310585e-07,
        2.503853739679475e-08,
    ),
}

# The same on |r| <= ln(2)/32, relative error 2^-29.2 (degree 3) and 2^-56.2 (degree 6).
_EXP_SHORT = {
    "float32": (0.5000162124633789, 0.16666816174983978),
    "float64": (
        0.4999999999999959,
        0.16666666664414612,
        0.041666666694491546,
        0.008333472027298358,
        0.0013888573954001318,
    ),
}

# Below the first bound the result rounds to zero, above the second to infinity.
_EXP_RANGE = {"float32": (-104.0, 89.0), "float64": (-746.0, 710.0)}


# 2^r = 1 + r (c[0] + c[1] r) on |r| <= 1/64, relative error 2^-24.1.
_BASE_TWO_SHORTER = (0.6931573748588562, 0.24022699892520905)


def _powers_of_root(halvings: int) -> tuple[Fraction, ...]:
    """2^(j/n) for j < n = 2^halvings, to about 100 bits."""
    root = 2 << (100 << halvings)
    for _ in range(halvings):
        root = isqrt(root)
    return tuple(Fraction(root**j, 1 << (100 * j)) for j in range(1 << halvings))


_SIXTEENTHS, _THIRTY_SECONDS = _powers_of_root(4), _powers_of_root(5)


# 2^r = 1 + r (c[0] + c[1] r + ...) on |r| <= 1/32: the table above with powers of ln 2.
def _base_two(dtype: str) -> tuple[float, ...]:
    return tuple(
        round_to_format(Fraction(c) * LN2 ** (k + 1), dtype)
        for k, c in enumerate((1.0, *_EXP_SHORT[dtype]))
    )


def exp_of_rounded(s: Arithmetic[V], x: V) -> V:
    """e^x for an x that is itself the rounded result of an operation.

    Such an x is off by up to 2^-24 |x| (float32), and e^x with it. Reducing by a log2(e) of
    one part instead of two adds 2^-26.2 |x| (float64: 2^-53 against 2^-55.9), a quarter of
    that, and saves an operation. Without the table this is `exp`.
    """
    if not has_table(s):
        return exp(s, x)
    anchor = s.constant(Fraction(3 << (s.fraction_bits - 1), 16))
    t = s.fma(x, s.constant(LOG2E), anchor)
    n = s.sub(t, anchor)
    r = s.fma(x, s.constant(LOG2E), s.neg(n))
    return _exp_table(s, t, n, r, _base_two(s.dtype))


# Exponents within +-this are safe for `exp_of_bounded`: nothing on the way to the result overflows.
BOUNDED = 2.0**86


def exp_of_bounded(s: Arithmetic[V], x: V, scale: V | None = None) -> V:
    """e^x for a rounded x with |x| <= `BOUNDED`, or e^(x scale), for such a product.

    As `exp_of_rounded`, without guarding r. Far out, where n has lost the last bits of x and r is
    anything, the even polynomial is still positive and finite, and n decides that the result is
    zero or infinite. In float32 a table of twice the length saves a degree; its error is 2^-24.1.
    With a scale, rounding scale log2(e) once takes the place of rounding each product.
    """
    if not has_table(s):
        return exp_of_rounded(s, x if scale is None else s.mul(x, scale))
    single = s.dtype == "float32"
    factor = s.constant(LOG2E) if scale is None else s.mul(scale, s.constant(LOG2E))
    anchor = s.constant(Fraction(3 << (s.fraction_bits - 1), 32 if single else 16))
    t = s.fma(x, factor, anchor)
    n = s.sub(t, anchor)
    r = s.fma(x, factor, s.neg(n))
    if single:
        table, coefficients = s.lookup(s.to_bits(t), _THIRTY_SECONDS), _BASE_TWO_SHORTER
    else:
        table, coefficients = s.lookup(s.to_bits(t), _SIXTEENTHS), _base_two(s.dtype)
    return s.scaled(_from_table(s, table, r, coefficients), n)


def _from_table(s: Arithmetic[V], table: V, r: V, coefficients: Sequence[float]) -> V:
    """table + (table r) (c[0] + c[1] r + ...), with the two factors computed side by side."""
    first = s.mul(table, r)
    return s.fma(first, polynomial(s, r, coefficients), table)


def _exp_table(s: Arithmetic[V], t: V, n: V, r: V, coefficients: Sequence[float]) -> V:
    """Finish e^x = 2^n e^r on AVX-512, where n is a multiple of 1/16 and t holds 16 n.

    2^n = 2^floor(n) 2^(j/16): the low bits of t are j, and VSCALEF takes the floor of n,
    overflows and underflows by itself.  Huge, infinite or NaN x make n huge, infinite or
    NaN, which decides the result provided that the other factor is positive; hence the
    single VRANGE, which replaces a meaningless r (NaN included) by one of its sign within
    1/16.
    """
    r = s.limited(r, s.constant(0.0625))
    table = s.lookup(s.to_bits(t), _SIXTEENTHS)
    return s.scaled(_from_table(s, table, r, coefficients), n)


def _scale(s: Arithmetic[V], p: V, t: V) -> V:
    """p 2^n, where the low bits of t hold i = n + 2 bias.

    2^n may be out of range though the result is not, so multiply by 2^floor(n/2) and
    2^ceil(n/2), whose biased exponents are i >> 1 and i - (i >> 1).  Only the second
    product can round, so that subnormal results are right.  The shift to the left drops
    whatever the high bits of t were.
    """
    i = s.to_bits(t)
    half = s.shift_right_zero(i, 1)
    first = s.shift_left(half, s.fraction_bits)
    second = s.shift_left(s.int_sub(i, half), s.fraction_bits)
    return s.mul(s.mul(p, s.from_bits(first)), s.from_bits(second))


def has_table(s: Arithmetic[V]) -> bool:
    """Whether exponentials read powers of two from registers, which takes AVX-512."""
    return s.has_avx512 and "avx512dq" in s.features


def _exp_parts(s: Arithmetic[V], x: V, base_two: bool, sign: int) -> tuple[V, V, V]:
    """(t, n, r) with sign x = n ln 2 + sign r, or sign x = n + sign r / ln 2 if base_two.

    Adding a large "magic" number rounds to its last place, which is 1/16 for the table
    and 1 otherwise; the sum t then carries n in its low bits.
    """
    if has_table(s):
        magic = Fraction(3 << (s.fraction_bits - 1), 16)
    else:
        bias = 127 if s.dtype == "float32" else 1023
        magic = Fraction((3 << (s.fraction_bits - 1)) + 2 * bias)
    anchor = s.constant(magic)
    if base_two:
        t = s.add(x, anchor)
        n = s.sub(t, anchor)
        return t, n, s.mul(s.sub(x, n), s.constant(LN2))
    t = s.fma(x, s.constant(sign * LOG2E), anchor)
    n = s.sub(t, anchor)
    parts = [sign * part for part in cut_in_parts(LN2, s.dtype, LN2_BITS[s.dtype])]
    return t, n, subtract_multiple(s, x, n, parts)


def _exp(s: Arithmetic[V], x: V, low: V | None = None, base_two: bool = False, sign: int = 1) -> V:
    """e^(sign x + low) for a tiny correction `low`, or 2^x."""
    if not has_table(s):
        bounds = _EXP_RANGE[s.dtype]
        if base_two:
            bounds = (-151.0, 129.0) if s.dtype == "float32" else (-1076.0, 1025.0)
        x = clamp(s, x, *sorted(sign * bound for bound in bounds))
    t, n, r = _exp_parts(s, x, base_two, sign)
    if low is not None:
        r = s.add(r, low)
    if has_table(s):
        return _exp_table(s, t, n, r, (1.0, *_EXP_SHORT[s.dtype]))
    return _scale(s, _exp_small(s, r, sign), t)


def _exp_small(s: Arithmetic[V], r: V, sign: int) -> V:
    """e^(sign r) for |r| <= ln(2)/2."""
    rest = [c * sign**k for k, c in enumerate(_EXP[s.dtype])]
    if not s.has_neon:
        return polynomial(s, r, (1.0, float(sign), *rest))
    # The same rounding errors as Horner's rule, but no constant is overwritten:
    # 1 + sign (r + sign r^2 (...)).
    more = polynomial(s, r, rest)
    u = s.fma(s.mul(r, r), more if sign > 0 else s.neg(more), r)
    return s.add(s.constant(1), u) if sign > 0 else s.sub(s.constant(1), u)


def exp_of_negative(s: Arithmetic[V], x: V) -> V:
    """e^-x, the same as `exp` of the negative; without the table that takes no operation."""
    return exp(s, s.neg(x)) if has_table(s) else _exp(s, x, sign=-1)


def exp(s: Arithmetic[V], x: V) -> V:
    """e^x."""
    return _exp(s, x)


def exp_of_pair(s: Arithmetic[V], x: V, low: V) -> V:
    """e^(x + low), where low is what rounding took from x."""
    return _exp(s, x, low)


def exp2(s: Arithmetic[V], x: V) -> V:
    """2^x."""
    return _exp(s, x, base_two=True)


def _expm1_parts(s: Arithmetic[V], x: V) -> tuple[V, V, V]:
    """(n, q, i): e^x - 1 = 2^n (1 + q) - 1, and i holds n + bias in its low bits."""
    bias = 127 if s.dtype == "float32" else 1023
    anchor = s.constant((3 << (s.fraction_bits - 1)) + bias)
    t = s.fma(x, s.constant(LOG2E), anchor)
    n = s.sub(t, anchor)
    parts = cut_in_parts(LN2, s.dtype, LN2_BITS[s.dtype])
    r = subtract_multiple(s, x, n, parts)
    # q = r + r^2 (1/2 + ...): the leading term is exact, so q is good to an ulp.
    q = s.fma(s.mul(r, r), polynomial(s, r, _EXP[s.dtype]), r)
    return n, q, s.to_bits(t)


def expm1(s: Arithmetic[V], x: V) -> V:
    """e^x - 1, accurate near zero."""
    low, high = (-20.0, 89.0) if s.dtype == "float32" else (-50.0, 710.0)
    n, q, i = _expm1_parts(s, clamp(s, x, low, high))
    # 2 (2^(n-1) q + 2^(n-1) - 1/2), because 2^n can overflow when the result does not.
    one = s.int_constant(1)
    half = s.from_bits(s.shift_left(s.int_sub(i, one), s.fraction_bits))
    result = s.fma(half, q, s.sub(half, s.constant(0.5)))
    result = s.mul(result, s.constant(2))
    # For n = 0 the value is q; halving it would round subnormals.
    result = s.select(s.compare("==", n, s.constant(0)), q, result)
    return s.copysign(result, x)


def tanh(s: Arithmetic[V], x: V) -> V:
    """The hyperbolic tangent.

    tanh(x) = t / (t + 2) with t = e^(2x) - 1, on |x| to keep t from cancelling.  A
    rational approximation needs as many multiplications, but rounds worse just below 1,
    where this quotient forgets the errors of t.  Past the bound the result rounds to 1.
    """
    bound = 10 if s.dtype == "float32" else 22
    magnitude = s.lesser(s.constant(bound), s.abs(x))
    _, q, i = _expm1_parts(s, s.add(magnitude, magnitude))
    power = s.from_bits(s.shift_left(i, s.fraction_bits))
    t = s.fma(power, q, s.sub(power, s.constant(1)))
    return s.copysign(s.div(t, s.add(t, s.constant(2))), x)


# ---- logarithms --------------------------------------------------------------------------

# log(1 + f) = f - f^2/2 + c[0] f^3 + c[1] f^4 + ... on [-1/4, 1/2], error 2^-27.6.
_LOG_FLOAT32 = (
    0.3333345055580139,
    -0.25000110268592834,
    0.19990848004817963,
    -0.1664687842130661,
    0.14477629959583282,
    -0.13163940608501434,
    0.10472572594881058,
    -0.04515252262353897,
)

# log((1 + s)/(1 - s)) = 2 s + s z (c[0] + c[1] z + ...), z = s^2, for the same range of
# (1 + s)/(1 - s), relative error 2^-55.9.
_LOG_FLOAT64 = (
    0.6666666666667271,
    0.39999999996159163,
    0.2857142939583631,
    0.22222138451536644,
    0.18186358279856776,
    0.15250141910796888,
    0.15368568602804797,
)

# The same with c[0] = 2/3 exactly, from c[1] on: relative error 2^-69.
_LOG_LONG = (
    0.39999999999999725,
    0.28571428571577323,
    0.22222222191246596,
    0.18181821526222644,
    0.1538440663267196,
    0.13341145240568186,
    0.1159234241718781,
    0.12571557980608306,
)


def _split(s: Arithmetic[V], x: V) -> tuple[V, V]:
    """(e, m) with x = 2^e m and m in [3/4, 3/2), for positive finite x.

    AVX-512 has instructions for it, which also give e = +-inf, m = 1 for infinity and
    zero, and m = NaN below zero.  Elsewhere integer arithmetic does it, on x 2^k for
    subnormal x; zero, infinities, negative numbers and NaN come out as finite garbage.
    """
    if s.has_avx512:
        e = s.exponent(x)
        m = s.mantissa(x)
        return s.sub(e, s.exponent(m)), m
    bits, bias = s.fraction_bits, 1 << (s.bits - 2 - s.fraction_bits)
    smallest = Fraction(2) ** (2 - bias)
    tiny = s.compare("<", x, s.constant(smallest))
    x = s.select(tiny, s.mul(x, s.constant(1 << (bits + 1))), x)
    i = s.to_bits(x)
    # Subtract the pattern of 3/4 and add bias 2^bits to stay positive; the exponent
    # field is then e + bias, and becomes a float as the last bits of 2^bits + e + bias.
    three_quarters = ((bias - 2) << bits) + (1 << (bits - 1))
    u = s.int_add(i, s.int_constant((bias << bits) - three_quarters))
    field = s.shift_right_zero(u, bits)
    anchor = (bias - 1 + bits) << bits
    e = s.from_bits(s.int_or(field, s.int_constant(anchor)))
    offset = (1 << bits) + bias
    e = s.sub(e, s.select(tiny, s.constant(offset + bits + 1), s.constant(offset)))
    removed = s.int_sub(s.shift_left(field, bits), s.int_constant(bias << bits))
    return e, s.from_bits(s.int_sub(i, removed))


def _log_sum(s: Arithmetic[V], e: V, f: V) -> V:
    """e ln 2 + log(1 + f).

    ln 2 comes in two parts of which e times the first is exact.  In float64,
    2 s = f - s f for s = f/(2 + f), so that log(1 + f) = f - s (f - z (c[0] + ...))
    and the leading term f is exact.
    """
    high, low = cut_in_parts(LN2, s.dtype, LN2_BITS[s.dtype])
    start = s.fma(e, s.constant(low), f)
    if s.dtype == "float32":
        q = s.fma(polynomial(s, f, _LOG_FLOAT32), f, s.constant(-0.5))
        result = s.fma(s.mul(f, f), q, start)
    else:
        ratio = s.div(f, s.add(f, s.constant(2)))
        z = s.mul(ratio, ratio)
        rest = s.sub(s.mul(z, polynomial(s, z, _LOG_FLOAT64)), f)
        result = s.fma(ratio, rest, start)
    return s.fma(e, s.constant(high), result)


def _log_special(s: Arithmetic[V], x: V, result: V) -> V:
    """Put in the logarithms of zero, negative numbers, infinity and NaN."""
    zero, infinity = s.constant(0), s.constant(INFINITY)
    result = s.select(s.compare("<", x, infinity), result, x)
    result = s.select(s.compare("==", x, zero), s.constant(-INFINITY), result)
    return s.select(s.compare("<", x, zero), s.constant(NAN), result)


def log(s: Arithmetic[V], x: V) -> V:
    """The natural logarithm."""
    e, m = _split(s, x)
    result = _log_sum(s, e, s.sub(m, s.constant(1)))
    return result if s.has_avx512 else _log_special(s, x, result)


def log1p(s: Arithmetic[V], x: V) -> V:
    """log(1 + x), accurate near zero.

    With 2^e m = 1 + x (rounded), f = 2^-e (1 + x) - 1 = 2^-e x + (2^-e - 1) has one
    rounding.  Past 2^60 the one does not matter, and 2^-e could be subnormal.
    """
    one = s.constant(1)
    u = s.add(x, one)
    e, m = _split(s, u)
    bias = 127 if s.dtype == "float32" else 1023
    anchor = (3 << (s.fraction_bits - 1)) + bias
    field = s.to_bits(s.sub(s.constant(anchor), e))
    power = s.from_bits(s.shift_left(field, s.fraction_bits))
    f = s.fma(x, power, s.sub(power, one))
    f = s.select(s.compare("<", x, s.constant(2.0**60)), f, s.sub(m, one))
    result = s.copysign(_log_sum(s, e, f), x)
    return _log_special(s, u, result)


# ---- powers ------------------------------------------------------------------------------


def _log_pair(s: Arithmetic[V], x: V) -> tuple[V, V]:
    """log(x) as an unevaluated sum, relative error about 2^-63, for positive finite x.

    log(x) = e ln 2 + 2 s + s z (2/3 + z R(z)), s = f/(2 + f), z = s^2 <= 0.04, and every
    quantity but R is a pair.  z R is at most 0.017, so its rounding errors reach the
    result scaled by z/2 times that, hence the eleven bits gained.
    """
    e, m = _split(s, x)
    f = s.sub(m, s.constant(1))
    d, dl = ordered_sum(s, s.constant(2), f)
    sh = s.div(f, d)
    p, pl = two_product(s, sh, d)
    sl = s.div(s.sub(s.sub(s.sub(f, p), pl), s.mul(sh, dl)), d)
    zh, zl = two_product(s, sh, sh)
    zl = s.add(zl, s.mul(s.add(sh, sh), sl))
    third, third_low = cut_in_parts(Fraction(2, 3), s.dtype, s.fraction_bits + 1)
    tail = s.mul(zh, polynomial(s, zh, _LOG_LONG))
    wh, wl = ordered_sum(s, s.constant(third), tail)
    wl = s.add(wl, s.constant(third_low))
    vh, vl = two_product(s, zh, wh)
    vl = s.add(vl, s.add(s.mul(zh, wl), s.mul(zl, wh)))
    gh, gl = ordered_sum(s, s.constant(2), vh)
    gl = s.add(gl, vl)
    lh, ll = two_product(s, sh, gh)
    ll = s.add(ll, s.add(s.mul(sh, gl), s.mul(sl, gh)))
    high, low = cut_in_parts(LN2, s.dtype, LN2_BITS[s.dtype])
    total, error = ordered_sum(s, s.mul(e, s.constant(high)), lh)
    error = s.add(error, s.add(s.mul(e, s.constant(low)), ll))
    return ordered_sum(s, total, error)


def _pow_magnitude(s: Arithmetic[V], x: V, y: V) -> V:
    """x^y for positive finite x.

    |log x| >= 2^-54 unless it is zero, so clamping y to 2^70 changes no result, and
    turns 1^inf into 1.
    """
    y = clamp(s, y, -(2.0**70), 2.0**70)
    if s.dtype == "float32":
        wide = s.resized("float64")
        x, y = (s.widened(v) for v in (x, y))
        e, m = _split(wide, x)
        logarithm = _log_sum(wide, e, wide.sub(m, wide.constant(1)))
        return s.narrowed(_exp(wide, wide.mul(y, logarithm)))
    high, low = _log_pair(s, x)
    p, pl = two_product(s, y, high)
    pl = s.fma(y, low, pl)
    # Where exp saturates the correction is not small, and not wanted.
    small = s.compare("<", s.abs(p), s.constant(1024))
    return _exp(s, p, s.select(small, pl, s.constant(0)))


def _is_integer(s: Arithmetic[V], magnitude: V) -> V:
    """Whether a non-negative number is an integer; true for infinity."""
    anchor = s.constant(1 << s.fraction_bits)
    rounded = s.sub(s.add(magnitude, anchor), anchor)
    large = s.compare(">=", magnitude, anchor)
    return s.mask_or(large, s.compare("==", rounded, magnitude))


def pow(s: Arithmetic[V], x: V, y: V) -> V:
    """x^y, with the special cases of C99 F.9.4.4."""
    zero, one, infinity = s.constant(0), s.constant(1), s.constant(INFINITY)
    ax, ay = s.abs(x), s.abs(y)
    result = _pow_magnitude(s, ax, y)
    # Zero and infinity: the power is zero or infinity.
    is_zero, is_infinite = s.compare("==", ax, zero), s.compare("==", ax, infinity)
    negative = s.compare("<", y, zero)
    from_zero = s.select(negative, infinity, zero)
    from_infinity = s.select(negative, zero, infinity)
    result = s.select(is_zero, from_zero, s.select(is_infinite, from_infinity, result))
    # Negative x: an odd y gives the sign; a fractional y gives NaN for finite x.
    whole = _is_integer(s, ay)
    odd = s.mask_and(whole, s.mask_not(_is_integer(s, s.mul(ay, s.constant(0.5)))))
    result = s.select(odd, s.copysign(result, x), result)
    finite = s.mask_and(s.compare("<", x, zero), s.mask_not(is_infinite))
    invalid = s.mask_and(finite, s.mask_not(whole))
    result = s.select(invalid, s.constant(NAN), result)
    # NaN goes through, except that 1^y = x^0 = 1.
    either = s.add(x, y)
    unordered = s.mask_or(s.isnan(x), s.isnan(y))
    result = s.select(unordered, either, result)
    trivial = s.mask_or(s.compare("==", x, one), s.compare("==", y, zero))
    return s.select(trivial, one, result)


def rsqrt(s: Arithmetic[V], x: V) -> V:
    """1 / sqrt(x): infinity with the sign of a zero, NaN below zero."""
    if s.has_root_steps:
        return _rsqrt_neon(s, x)
    if not s.has_avx512:
        return s.div(s.constant(1), s.sqrt(x))
    y = s.root_estimate(x)
    # With e = 1 - x y^2, |e| < 2^-12.9:  1/sqrt(x) = y (1 - e)^(-1/2)
    #   = y + y e (1/2 + 3/8 e + 5/16 e^2 + ...), one term for float32, three for float64.
    e = s.fma(s.neg(s.mul(x, y)), y, s.constant(1))
    # x = 0 and x = inf have e = NaN; any positive number keeps y = inf and y = 0.
    e = s.lesser(e, s.constant(2.0**-10))
    terms = (0.5,) if s.dtype == "float32" else (0.5, 0.375, 0.3125)
    return s.fma(s.mul(y, e), polynomial(s, e, terms), y)


def _rsqrt_neon(s: Arithmetic[V], x: V) -> V:
    """An estimate of 8 bits, then y (3 - x y^2)/2, which doubles them, the last time as
    y + y (1 - x y^2)/2, which leaves less than an ulp.

    x y comes first: y^2 overflows for subnormal x. Zero times infinity is NaN there, and any
    positive factor or term keeps y = inf and y = 0.
    """
    y = s.root_estimate(x)
    for _ in range(1 if s.dtype == "float32" else 2):
        step = s.root_step(s.mul(x, y), y)
        y = s.mul(y, s.lesser(step, s.constant(2)))
    e = s.fma(s.neg(s.mul(x, y)), y, s.constant(1))
    return s.fma(s.mul(y, s.lesser(e, s.constant(2.0**-10))), s.constant(0.5), y)
