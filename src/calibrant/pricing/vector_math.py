"""Elementary functions as plain arithmetic, so that numba vectorises the loops that call them.

A call into libm stops LLVM from vectorising a loop; these forms (argument reduction, then a polynomial or a rational
function) compile to the same few instructions on every lane. Coefficients: Cephes Math Library (Moshier 1989),
whose double-precision error bounds are about 2 units in the last place; `tests/test_vector_math.py` measures them.

Loops that call these functions are compiled with `compiled.kernel`: contraction to fused multiply-adds is allowed,
re-association is not, because the argument reductions below depend on the order of their operations.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..compiled import inlined

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93145751953125e-1
_LN2_LOW = 1.42860682030941723212e-6
_TWO_OVER_PI = 0.6366197723675814
# pi/2 in three parts of 33 bits or fewer: n * part is exact while |n| < 2^20.
_PIO2_1 = 2.0 * 7.85398125648498535156e-1
_PIO2_2 = 2.0 * 3.77489470793079817668e-8
_PIO2_3 = 2.0 * 2.69515142907905952645e-15
_SQRT_HALF = 0.7071067811865476
_TAN_PI_8 = 0.41421356237309503
# Adding 1.5 * 2^52 rounds to an integer and leaves that integer in the low bits: AVX2 converts no 64-bit integers.
_ROUND = 6755399441055744.0
_ROUND_BITS = 0x4338000000000000
_MANTISSA = 0x000FFFFFFFFFFFFF
_EXPONENT_OF_HALF = 0x3FE0000000000000


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def _float_of(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@intrinsic
def select(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`, both evaluated: a conditional expression would become a branch."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return types.float64(types.boolean, types.float64, types.float64), generate


@inlined
def exp(x: float) -> float:
    """e^x for x < 700; below -700 the result is e^-700, which no price can tell from zero."""
    x = max(x, -700.0)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    # Taylor to r^13: |r| <= ln(2)/2 leaves 4e-18.
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _float_of((_bits_of(shifted) + 1023) << 52)


@inlined
def cos_sin(x: float) -> tuple[float, float]:
    """(cos x, sin x) for |x| < 1e6."""
    shifted = x * _TWO_OVER_PI + _ROUND
    n = shifted - _ROUND
    r = ((x - n * _PIO2_1) - n * _PIO2_2) - n * _PIO2_3
    z = r * r
    s = 1.58962301576546568060e-10
    s = s * z - 2.50507477628578072866e-8
    s = s * z + 2.75573136213857245213e-6
    s = s * z - 1.98412698295895385996e-4
    s = s * z + 8.33333333332211858878e-3
    s = s * z - 1.66666666666666307295e-1
    sine = r + r * z * s
    c = -1.13585365213876817300e-11
    c = c * z + 2.08757008419747316778e-9
    c = c * z - 2.75573141792967388112e-7
    c = c * z + 2.48015872888517045348e-5
    c = c * z - 1.38888888888730564116e-3
    c = c * z + 4.16666666666665929218e-2
    cosine = 1.0 - 0.5 * z + z * z * c
    quadrant = _bits_of(shifted)
    swap = (quadrant & 1) != 0
    a = select(swap, sine, cosine)
    b = select(swap, cosine, sine)
    # Quadrants 1 and 2 flip the cosine, 2 and 3 the sine: the sign bit is moved into place.
    a = _float_of(_bits_of(a) ^ (((quadrant + 1) & 2) << 62))
    b = _float_of(_bits_of(b) ^ ((quadrant & 2) << 62))
    return a, b


@inlined
def _log_with_remainder(x: float, remainder: float) -> float:
    """log(x + remainder), where the remainder is what rounding took from x: it is heeded for x between 1/sqrt 2 and
    sqrt 2, beyond which it is below the rounding of the result.
    """
    bits = _bits_of(x)
    e = _float_of(((bits >> 52) & 0x7FF) + _ROUND_BITS) - (_ROUND + 1022.0)
    m = _float_of((bits & _MANTISSA) | _EXPONENT_OF_HALF)
    small = m < _SQRT_HALF
    m = select(small, m + m, m)
    e = select(small, e - 1.0, e)
    # log m = 2 artanh s; |s| <= 0.1716, so the series to s^21 leaves 1e-18.
    s = (m - 1.0 + select(e == 0.0, remainder, 0.0)) / (m + 1.0)
    z = s * s
    p = 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    p = p * z + 1.0 / 3.0
    return e * _LN2_HIGH + (2.0 * s + (2.0 * s * z * p + e * _LN2_LOW))


@inlined
def log(x: float) -> float:
    """Natural logarithm of a positive, normal x."""
    return _log_with_remainder(x, 0.0)


@inlined
def log1p(x: float) -> float:
    """log(1 + x) for x > -1, which keeps its digits for small x."""
    y = 1.0 + x
    return _log_with_remainder(y, x - (y - 1.0))


@inlined
def atan2(y: float, x: float) -> float:
    """The angle of x + iy in (-pi, pi]; x and y not both zero."""
    ax = abs(x)
    ay = abs(y)
    steep = ay > ax
    low = select(steep, ax, ay)
    high = select(steep, ay, ax)
    # The octant's upper half is turned by 45 degrees, written so that one division serves both.
    upper = low > _TAN_PI_8 * high
    t = select(upper, low - high, low) / select(upper, low + high, high)
    z = t * t
    p = -8.750608600031904122785e-1
    p = p * z - 1.615753718733365076637e1
    p = p * z - 7.500855792314704667340e1
    p = p * z - 1.228866684490136173410e2
    p = p * z - 6.485021904942025371773e1
    q = z + 2.485846490142306297962e1
    q = q * z + 1.650270098316988542046e2
    q = q * z + 4.328810604912902668951e2
    q = q * z + 4.853903996359136964868e2
    q = q * z + 1.945506571482613964425e2
    angle = t + t * z * (p / q) + select(upper, 0.7853981633974483, 0.0)
    angle = select(steep, 1.5707963267948966 - angle, angle)
    angle = select(x < 0.0, 3.141592653589793 - angle, angle)
    return select(y < 0.0, -angle, angle)
