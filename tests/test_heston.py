import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import ComplexVector, Vector
from calibrant.black import call_price
from calibrant.models import HESTON
from calibrant.pricing.fourier import call_prices


def test_characteristic_function_of_a_martingale_is_one_at_zero_and_at_minus_i() -> None:
    for params in paper_box.draws(50, seed=1):
        u = np.array([0.0, -1.0j])
        np.testing.assert_allclose(HESTON.log_characteristic(u, 1.3, params), 0.0, atol=1e-13)


def test_characteristic_function_is_hermitian() -> None:
    u = np.linspace(0.1, 80.0, 200) - 0.5j
    for params in paper_box.draws(20, seed=2):
        here = HESTON.log_characteristic(u, 0.7, params)
        there = HESTON.log_characteristic(-u.conj(), 0.7, params)
        np.testing.assert_allclose(here, there.conj(), rtol=1e-12)


@pytest.mark.parametrize("expiry", [0.02, 1.0, 30.0])
def test_characteristic_function_solves_the_riccati_equations(expiry: float) -> None:
    # d log phi / dT = kappa theta D + v0 (1/2 xi^2 D^2 - beta D - a / 2), and D is the derivative by v0.
    params = np.array([1.5, 0.04, 0.6, -0.7, 0.05])
    kappa, theta, xi, rho, v0 = params
    u = np.linspace(0.1, 40.0, 60) - 0.5j
    step = 1e-5 * expiry
    change = HESTON.log_characteristic(u, expiry + step, params) - HESTON.log_characteristic(u, expiry - step, params)
    d = HESTON.log_characteristic_gradient(u, expiry, params)[1][4]
    beta = kappa - 1j * rho * xi * u
    a = u * u + 1j * u
    expected = kappa * theta * d + v0 * (0.5 * xi**2 * d * d - beta * d - 0.5 * a)
    np.testing.assert_allclose(change / (2.0 * step), expected, rtol=3e-6, atol=1e-9)


def _derivative(u: ComplexVector, expiry: float, params: Vector, i: int) -> ComplexVector:
    """Central difference of sixth order."""
    step = 2e-3 * abs(params[i])
    total: ComplexVector = np.zeros(u.size, np.complex128)
    for shift, weight in ((1, 45.0), (2, -9.0), (3, 1.0)):
        for sign in (1.0, -1.0):
            moved = params.copy()
            moved[i] += sign * shift * step
            total += sign * weight * HESTON.log_characteristic(u, expiry, moved)
    result: ComplexVector = total / (60.0 * step)
    return result


@pytest.mark.parametrize("i", range(5))
def test_gradient_of_the_log_characteristic_is_its_derivative(i: int) -> None:
    u = np.linspace(0.05, 60.0, 100) - 0.5j
    for params in paper_box.draws(20, seed=3):
        exact = HESTON.log_characteristic_gradient(u, 0.8, params)[1][i]
        np.testing.assert_allclose(exact, _derivative(u, 0.8, params, i), rtol=1e-7, atol=1e-9)


def test_heston_tends_to_black_as_xi_vanishes() -> None:
    k = np.linspace(-0.5, 0.5, 11)
    t = np.full(k.size, 1.0)
    flat = np.array([2.0, 0.04, 0.001, -0.5, 0.04])
    np.testing.assert_allclose(call_prices(HESTON, k, t, flat), call_price(k, t, 0.2), atol=3e-5)
    # The distance falls in proportion to xi (its first-order term is the skew).
    wide, narrow = (
        np.abs(call_prices(HESTON, k, t, np.array([2.0, 0.04, xi, -0.5, 0.04])) - call_price(k, t, 0.2)).max()
        for xi in (0.04, 0.004)
    )
    assert 9.0 < wide / narrow < 11.0


def test_expected_variance_is_minus_twice_the_mean_of_the_log_price() -> None:
    for params in paper_box.draws(20, seed=4):
        u = np.array([1e-5 + 0.0j])
        mean = (HESTON.log_characteristic(u, 1.7, params) / (1j * u)).real[0]
        assert HESTON.expected_variance(1.7, params) == pytest.approx(-2.0 * mean, rel=1e-6)
