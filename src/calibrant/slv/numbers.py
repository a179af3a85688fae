"""Uniform and normal numbers as plain arithmetic, so that the loops that draw them vectorise.

`inverse_normal` is Giles's (2012) single-precision form of erfinv, evaluated in double precision. It is within 2e-7 of
the value to 5.4 standard deviations, within 1e-4 to 6 and within 1 % to 7, which none of a billion numbers reaches.
"""

import numpy as np

from ..compiled import inlined
from ..pricing.vector_math import log, select

_SQRT2 = 1.4142135623730951


@inlined
def inverse_normal(u: float) -> float:
    """The standard normal number with probability u below it, 1e-16 < u < 1 - 1e-16."""
    x = 2.0 * u - 1.0
    w = -log(4.0 * u * (1.0 - u))
    c = w - 2.5
    p = 2.81022636e-08
    p = p * c + 3.43273939e-07
    p = p * c - 3.5233877e-06
    p = p * c - 4.39150654e-06
    p = p * c + 0.00021858087
    p = p * c - 0.00125372503
    p = p * c - 0.00417768164
    p = p * c + 0.246640727
    p = p * c + 1.50140941
    d = np.sqrt(max(w, 5.0)) - 3.0
    q = -0.000200214257
    q = q * d + 0.000100950558
    q = q * d + 0.00134934322
    q = q * d - 0.00367342844
    q = q * d + 0.00573950773
    q = q * d - 0.0076224613
    q = q * d + 0.00943887047
    q = q * d + 1.00167406
    q = q * d + 2.83297682
    normal: float = _SQRT2 * x * select(w < 5.0, p, q)
    return normal


@inlined
def mixed(key: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): consecutive keys give numbers without any pattern."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@inlined
def uniform(key: np.uint64) -> float:
    """In (0, 1), a multiple of 2^-52 off its ends by half of one."""
    return (np.float64(np.int64(key >> np.uint64(12))) + 0.5) * 2.220446049250313e-16
