"""The normal distribution as plain arithmetic, so that numba vectorises the loops that call it.

Everything rests on erfcx(x) = exp(x^2) erfc(x), which neither underflows in the wings nor has a cancellation. Its one
approximation, (1 + x) erfcx(x) as a polynomial of degree 26 in q = (x - 3) / (x + 4), holds on the whole of
x >= -1/2 (the map of Shepherd & Laframboise 1981, shifted); no branch is needed. The coefficients are those of the
Chebyshev interpolant in q on [-1, 1], computed with 60 digits; `tests/test_normal.py` recomputes them.

Black prices are differences erfcx(x1) - erfcx(x2) of arguments that may lie close together. Subtracting the two values
would lose what they have in common, so `erfcx_pair` evaluates the divided difference of the polynomial instead
(Horner's scheme differentiated "discretely"), and the difference comes out to the same relative accuracy as the values.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..compiled import inlined
from .vector_math import exp, select

# (1 + x) erfcx(x) = sum of _C[i] q^i.
_C = (
    0.7160046047255598,
    -0.26941522193111067,
    0.1796807850522005,
    -0.06866325733580497,
    -0.02349416518080858,
    0.0714464932937405,
    -0.07507989406089198,
    0.05290941742519719,
    -0.026497529711869906,
    0.008519150454607868,
    -0.0007611605402217752,
    -0.0008036101427363415,
    0.0003842630369562175,
    2.400481448237171e-06,
    -5.872326957203047e-05,
    1.1789747083566924e-05,
    7.633145445123208e-06,
    -3.001136098045564e-06,
    -1.0391819819903282e-06,
    6.025400516039579e-07,
    1.655164339050241e-07,
    -1.0838536375628077e-07,
    -2.981203387282464e-08,
    1.5791446154566647e-08,
    4.796057307901593e-09,
    -1.32422250045496e-09,
    -4.4575532101391e-10,
)
LOWEST = -0.5
_SQRT_HALF = 0.7071067811865476


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once: `fma(a, b, -a * b)` is the exact error of the product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@inlined
def _even_part(u: float) -> float:
    p = _C[26]
    p = p * u + _C[24]
    p = p * u + _C[22]
    p = p * u + _C[20]
    p = p * u + _C[18]
    p = p * u + _C[16]
    p = p * u + _C[14]
    p = p * u + _C[12]
    p = p * u + _C[10]
    p = p * u + _C[8]
    p = p * u + _C[6]
    p = p * u + _C[4]
    p = p * u + _C[2]
    return p * u + _C[0]


@inlined
def _odd_part(u: float) -> float:
    p = _C[25]
    p = p * u + _C[23]
    p = p * u + _C[21]
    p = p * u + _C[19]
    p = p * u + _C[17]
    p = p * u + _C[15]
    p = p * u + _C[13]
    p = p * u + _C[11]
    p = p * u + _C[9]
    p = p * u + _C[7]
    p = p * u + _C[5]
    p = p * u + _C[3]
    return p * u + _C[1]


@inlined
def _even_difference(u: float, w: float) -> tuple[float, float]:
    """(divided difference of the even part between u and w, the even part at w)."""
    p = _C[26]
    d = p
    p = p * w + _C[24]
    d = d * u + p
    p = p * w + _C[22]
    d = d * u + p
    p = p * w + _C[20]
    d = d * u + p
    p = p * w + _C[18]
    d = d * u + p
    p = p * w + _C[16]
    d = d * u + p
    p = p * w + _C[14]
    d = d * u + p
    p = p * w + _C[12]
    d = d * u + p
    p = p * w + _C[10]
    d = d * u + p
    p = p * w + _C[8]
    d = d * u + p
    p = p * w + _C[6]
    d = d * u + p
    p = p * w + _C[4]
    d = d * u + p
    p = p * w + _C[2]
    d = d * u + p
    return d, p * w + _C[0]


@inlined
def _odd_difference(u: float, w: float) -> tuple[float, float]:
    """(divided difference of the odd part between u and w, the odd part at w)."""
    p = _C[25]
    d = p
    p = p * w + _C[23]
    d = d * u + p
    p = p * w + _C[21]
    d = d * u + p
    p = p * w + _C[19]
    d = d * u + p
    p = p * w + _C[17]
    d = d * u + p
    p = p * w + _C[15]
    d = d * u + p
    p = p * w + _C[13]
    d = d * u + p
    p = p * w + _C[11]
    d = d * u + p
    p = p * w + _C[9]
    d = d * u + p
    p = p * w + _C[7]
    d = d * u + p
    p = p * w + _C[5]
    d = d * u + p
    p = p * w + _C[3]
    d = d * u + p
    return d, p * w + _C[1]


@inlined
def erfcx(x: float) -> float:
    """exp(x^2) erfc(x) for x >= -1/2, within 3 units in the last place."""
    q = (x - 3.0) / (x + 4.0)
    u = q * q
    return (_even_part(u) + q * _odd_part(u)) / (1.0 + x)


@inlined
def erfcx_pair(x: float, y: float, gap: float) -> tuple[float, float]:
    """(erfcx(x) - erfcx(y), erfcx(x) + erfcx(y)) for y >= x >= -1/2 and gap = y - x, each within 1e-15 relative.

    The gap is an argument of its own because the callers know it more accurately than y - x gives it.
    """
    inverse = 1.0 / ((x + 4.0) * (y + 4.0))
    qx = (x - 3.0) * (y + 4.0) * inverse
    qy = (y - 3.0) * (x + 4.0) * inverse
    dq = -7.0 * gap * inverse
    ux = qx * qx
    uy = qy * qy
    even_slope, even = _even_difference(ux, uy)
    odd_slope, odd = _odd_difference(ux, uy)
    py = even + qy * odd
    # f(x) - f(y) of f = (1 + .) erfcx; both terms of the difference below are positive: nothing cancels.
    rise = ((qx + qy) * (even_slope + qx * odd_slope) + odd) * dq
    inverse = 1.0 / ((1.0 + x) * (1.0 + y))
    difference = (rise * (1.0 + y) + py * gap) * inverse
    total = ((py + rise) * (1.0 + y) + py * (1.0 + x)) * inverse
    return difference, total


@inlined
def normal_cdf(x: float) -> float:
    """Probability that a standard normal variable is below x, |x| < 37; relative error below (2 + x^2) 2.3e-16."""
    z = abs(x) * _SQRT_HALF
    tail = 0.5 * exp(-0.5 * x * x) * erfcx(z)
    return select(x > 0.0, 1.0 - tail, tail)
