"""The error function and its complement, and the logarithm of the gamma function.

Where coefficients come from: those of erf from a Remez exchange in 260-bit arithmetic; the others
from weighted least squares at Chebyshev points in that arithmetic, rounding one coefficient at a
time (lowest power first) and refitting the others. "Error 2^-k" is the worst weighted error left
after rounding.
"""

from __future__ import annotations

import math
from fractions import Fraction

from .arithmetic import Arithmetic, V
from .exponentials import exp, exp_of_pair, log
from .numerics import INFINITY, polynomial, two_product
from .trigonometry import half_wave

# ---- the error function ------------------------------------------------------------------

# erf(x) = x + x (c[0] + c[1] z + ...), z = x^2, on |x| <= 1: relative error 2^-28.6 and
# 2^-55.4 (coefficients rounded all at once).
_ERF_SMALL = {
    "float32": (
        0.12837916612625122,
        -0.3761262595653534,
        0.1128358542919159,
        -0.026853812858462334,
        0.005188327748328447,
        -0.0008010191959328949,
        7.853852002881467e-05,
    ),
    "float64": (
        0.12837916709551256,
        -0.3761263890318352,
        0.11283791670944185,
        -0.026866170643111375,
        0.005223977606117625,
        -0.000854832592927142,
        0.00012055293575569572,
        -1.4924712275907062e-05,
        1.6447131245010192e-06,
        -1.6206311241554742e-07,
        1.371096948098858e-08,
        -7.779448129042074e-10,
    ),
}

# -log(erfc(x)) = c[0] + c[1] x + ... on [1, 4] and [1, 6], where erf becomes 1; error
# weighted by erfc(x), because it is erf that must be accurate: 2^-30.7 and 2^-55.6.
_ERF_LARGE = {
    "float32": (
        -0.0001880294003058225,
        1.1295783519744873,
        0.6332200169563293,
        0.10841847211122513,
        -0.02520819380879402,
        0.0042045386508107185,
        -0.00044133179471828043,
        2.1686466425308026e-05,
    ),
    "float64": (
        5.132420138450029e-07,
        1.1283739917078934,
        0.6366440551043433,
        0.10270228981024446,
        -0.01898804210135801,
        -0.00041353642503076405,
        0.001918945431110929,
        -0.0007730428995924403,
        0.00013655406495204469,
        1.9523875207258245e-05,
        -2.2533284448042244e-05,
        8.578907655842928e-06,
        -2.1148293504946973e-06,
        3.695705676191985e-07,
        -4.593385721903124e-08,
        3.890068633301437e-09,
        -2.0203719649435614e-10,
        4.865172130591888e-12,
    ),
}


def erf(s: Arithmetic[V], x: V) -> V:
    """The error function."""
    magnitude = s.abs(x)
    z = s.mul(magnitude, magnitude)
    small = s.fma(magnitude, polynomial(s, z, _ERF_SMALL[s.dtype]), magnitude)
    bounded = s.lesser(s.constant(4 if s.dtype == "float32" else 6), magnitude)
    exponent = s.neg(polynomial(s, bounded, _ERF_LARGE[s.dtype]))
    large = s.sub(s.constant(1), exp(s, exponent))
    result = s.select(s.compare("<", magnitude, s.constant(1)), small, large)
    return s.copysign(result, x)


# e^(x^2) erfc(x) (x + k) = c[0] + c[1] t + ..., t = (x - k)/(x + k), from x = 0.499 to where
# erfc(x) rounds to 0: k = 1, error 2^-28.7 (float32), and k = 5/2, error 2^-54.1 (float64),
# relative.
_ERFC_MIDDLE = {"float32": 1, "float64": Fraction(5, 2)}
_ERFC_END = {"float32": 11, "float64": 28}
_ERFC = {
    "float32": (
        0.8551671504974365,
        -0.23768089711666107,
        -0.09555632621049881,
        0.01390795223414898,
        0.025395015254616737,
        0.009571954607963562,
        -0.001263983896933496,
        -0.003915448673069477,
        -0.001622714102268219,
        -0.0002646025095600635,
        -0.002537894994020462,
        0.004592965357005596,
        -0.001602811855264008,
    ),
    "float64": (
        1.054031820305718,
        -0.8046518494391489,
        0.45391411664808873,
        -0.17125114524604176,
        0.02836155013231391,
        0.008393044302255553,
        -0.004818785529802927,
        -0.00043920826147924647,
        0.0007026937992818515,
        5.830771671476665e-05,
        -0.00011260534980070088,
        -1.9531422009174638e-05,
        1.8246560920546743e-05,
        6.75027653543722e-06,
        -2.3379372556686167e-06,
        -1.950635586080669e-06,
        2.3390713961140117e-09,
        4.266296490547682e-07,
        1.3257272878280095e-07,
        -4.889232964958708e-08,
        -5.3014828218632286e-08,
        -3.765604485905024e-09,
        1.1762566698314778e-08,
    ),
}


def erfc(s: Arithmetic[V], x: V) -> V:
    """1 - erf(x), accurate where that is small.

    From 1/2 on it is e^(-x^2) times a slowly varying factor; what rounding takes from x^2 is put
    back. Such rational variables are those of Schonfelder, Chebyshev expansions for the error and
    related functions, Mathematics of Computation 32, 1978.
    """
    one, size = s.constant(1), s.abs(x)
    small = s.fma(x, polynomial(s, s.mul(size, size), _ERF_SMALL[s.dtype]), x)
    bounded = s.lesser(s.constant(_ERFC_END[s.dtype]), size)
    middle = s.constant(_ERFC_MIDDLE[s.dtype])
    divisor = s.add(bounded, middle)
    t = s.div(s.sub(bounded, middle), divisor)
    square, rest = two_product(s, bounded, bounded)
    factor = s.div(polynomial(s, t, _ERFC[s.dtype]), divisor)
    far = s.mul(exp_of_pair(s, s.neg(square), s.neg(rest)), factor)
    far = s.select(s.compare("<", x, s.constant(0)), s.sub(s.constant(2), far), far)
    near = s.compare("<", size, s.constant(0.5))
    return s.select(near, s.sub(one, small), far)


# ---- the gamma function ------------------------------------------------------------------

# log gamma(2 + t) = t (c[0] + c[1] t + ...) on -3/4 <= t <= 1/2, relative error 2^-54.
_LOG_GAMMA = (
    0.42278433509846713,
    0.32246703342411326,
    -0.06735230105319989,
    0.02058080842777418,
    -0.007385551028502159,
    0.002890510331383695,
    -0.0011927539179523957,
    0.0005096695054915424,
    -0.00022315464669130103,
    9.945783913330653e-05,
    -4.4927323253898135e-05,
    2.0503882702645786e-05,
    -9.433730911910839e-06,
    4.395623759794621e-06,
    -2.0532766649484134e-06,
    8.781963368636073e-07,
    -4.5172517222650804e-07,
    3.66529171043464e-07,
    -1.736660316326268e-08,
    -7.727327530285385e-08,
    -1.4427747303509595e-07,
)

# log gamma(x) = (x - 1/2) (log(x) - 1) + (log(2 pi) - 1)/2 + (c[0] + c[1] w + ...)/x, w = 1/x^2,
# from x = 8 on: relative error 2^-67.
_STIRLING = (
    0.08333333333333333,
    -0.0027777777777667255,
    0.0007936507860017699,
    -0.0005952357539057148,
    0.0008413806410703496,
    -0.0018857589325041754,
    0.004973956031063723,
)
_STIRLING_START = 8
_STIRLING_CONSTANT = (math.log(2 * math.pi) - 1) / 2


def lgamma(s: Arithmetic[V], x: V) -> V:
    """The logarithm of the absolute value of the gamma function; float32 by way of float64.

    Below zero it is a difference, log(pi / |sin(pi x)|) - log gamma(1 - x), and its error is
    relative to those two: it has zeros between the poles.
    """
    if s.dtype == "float32":
        wide = s.resized("float64")
        return s.narrowed(lgamma(wide, s.widened(x)))
    zero, one = s.constant(0), s.constant(1)
    below = s.compare("<", x, zero)
    result = _lgamma_positive(s, s.select(below, s.sub(one, x), x))
    nearest = s.floor(s.add(x, s.constant(0.5)))
    reflected = s.sub(s.neg(log(s, half_wave(s, s.sub(x, nearest)))), result)
    pole = s.compare("==", x, s.floor(x))  # -inf among them
    reflected = s.select(pole, s.constant(INFINITY), reflected)
    return s.select(below, reflected, result)


def _lgamma_positive(s: Arithmetic[V], x: V) -> V:
    """The same of x >= 0: Stirling's series from 8 on, elsewhere from an interval around 2.

    gamma(x) is gamma(2 + t) times or over a product of numbers x - k, whose logarithm is one. From
    5/4 on there is none: the difference of two would lose digits on the way to 3/2.
    """
    one = s.constant(1)
    far = s.compare(">=", x, s.constant(_STIRLING_START))
    first, second = (s.compare("<", x, s.constant(end)) for end in (0.5, 1.25))
    t = s.select(first, x, s.select(second, s.sub(x, one), s.sub(x, s.constant(2))))
    product = s.select(first, s.mul(x, s.add(x, one)), s.select(second, x, one))
    for k in range(1, _STIRLING_START - 1):
        above = s.compare(">=", x, s.constant(Fraction(2 * k + 3, 2)))
        t = s.select(above, s.sub(x, s.constant(k + 2)), t)
        product = s.select(above, s.mul(product, s.sub(x, s.constant(k))), product)
    logarithm = log(s, s.select(far, x, product))
    signed = s.select(second, s.neg(logarithm), logarithm)
    near = s.fma(t, polynomial(s, t, _LOG_GAMMA), signed)
    inverse = s.div(one, x)
    series = polynomial(s, s.mul(inverse, inverse), _STIRLING)
    rest = s.fma(inverse, series, s.constant(_STIRLING_CONSTANT))
    large = s.fma(s.sub(x, s.constant(0.5)), s.sub(logarithm, one), rest)
    return s.select(far, large, near)
