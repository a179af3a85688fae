import mpmath
import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.pricing import normal
from calibrant.pricing.normal import LOWEST, erfcx, erfcx_pair, normal_cdf


def _erfcx(x: float) -> mpmath.mpf:
    z = mpmath.mpf(x)
    return mpmath.exp(z * z) * mpmath.erfc(z)


def _arguments(n: int, seed: int) -> Vector:
    """From -1/2 up to where Black's formula leaves off, dense near zero."""
    rng = np.random.default_rng(seed)
    return np.concatenate((rng.uniform(LOWEST, 3.0, n), 10.0 ** rng.uniform(-8.0, 2.0, n), [LOWEST, 0.0]))


def test_coefficients_are_those_of_the_chebyshev_interpolant() -> None:
    degree = 26
    with mpmath.workdps(60):
        angles = [mpmath.pi * (j + mpmath.mpf(1) / 2) / (degree + 1) for j in range(degree + 1)]
        # q = (x - 3) / (x + 4) maps [-1/2, inf) to [-1, 1).
        nodes = [(3 + 4 * mpmath.cos(a)) / (1 - mpmath.cos(a)) for a in angles]
        values = [(1 + x) * mpmath.exp(x * x) * mpmath.erfc(x) for x in nodes]
        chebyshev = [
            2 * mpmath.fsum(v * mpmath.cos(n * a) for v, a in zip(values, angles, strict=True)) / (degree + 1)
            for n in range(degree + 1)
        ]
        chebyshev[0] /= 2
        monomials = [mpmath.mpf(0)] * (degree + 1)
        last, current = [mpmath.mpf(1)], [mpmath.mpf(0), mpmath.mpf(1)]
        monomials[0] += chebyshev[0]
        for coefficient in chebyshev[1:]:
            for i, c in enumerate(current):
                monomials[i] += coefficient * c
            following = [mpmath.mpf(0)] + [2 * c for c in current]
            for i, c in enumerate(last):
                following[i] -= c
            last, current = current, following
    np.testing.assert_array_equal(normal._C, [float(c) for c in monomials])


def test_erfcx_is_accurate_to_three_units_in_the_last_place() -> None:
    with mpmath.workdps(50):
        errors = [abs(float(erfcx(x) / _erfcx(x) - 1)) for x in _arguments(300, seed=1)]
    assert max(errors) < 3 * 2.22e-16


def test_differences_of_close_arguments_keep_their_relative_accuracy() -> None:
    rng = np.random.default_rng(2)
    worst_difference = worst_total = 0.0
    with mpmath.workdps(60):
        for x in _arguments(300, seed=2):
            y = x + float(10.0 ** rng.uniform(-12.0, 1.3))
            gap = float(mpmath.mpf(y) - mpmath.mpf(x))
            difference, total = erfcx_pair(x, y, gap)
            exact = _erfcx(x) - _erfcx(y)
            worst_difference = max(worst_difference, abs(float(difference / exact - 1)))
            worst_total = max(worst_total, abs(float(total / (_erfcx(x) + _erfcx(y)) - 1)))
    assert worst_difference < 1.5e-15
    assert worst_total < 1e-15


def test_the_difference_of_equal_arguments_is_zero() -> None:
    assert erfcx_pair(1.5, 1.5, 0.0)[0] == 0.0


@pytest.mark.parametrize("x", [-36.9, -20.0, -8.0, -1.0, -1e-9, 0.0, 0.3, 2.0, 8.0])
def test_normal_cdf_is_accurate_in_both_tails(x: float) -> None:
    with mpmath.workdps(50):
        exact = mpmath.ncdf(mpmath.mpf(x))
        assert abs(float(normal_cdf(x) / exact - 1)) < (2.0 + x * x) * 2.3e-16
