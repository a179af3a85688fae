import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.market import Market
from calibrant.models import HESTON
from calibrant.pricing.fourier import otm_values
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.local_vol import LocalVolatility

MARKET = Market.flat(1.2, 0.02, 0.0)
PARAMS = [
    [3.0, 0.025, 0.576, 0.454, 0.015],
    [2.0, 0.039, 0.822, -0.101, 0.053],
    [1.0, 0.09, 0.9, -0.8, 0.04],
    [0.4, 0.06, 1.5, 0.3, 0.1],
    [8.0, 0.01, 0.05, 0.0, 0.01],
]


def exact(k: Vector, t: Vector, params: Vector) -> Vector:
    """Total variance by the accurate pricer alone."""
    vol = implied_volatility_from_time_value(otm_values(HESTON, k, t, params), k, t).volatility
    return np.asarray(vol**2 * t)


@pytest.mark.parametrize("params", PARAMS)
def test_derivatives_are_those_of_the_accurate_pricer(params: list[float]) -> None:
    p = np.array(params)
    surface = HestonSurface(market=MARKET, params=p)
    t = np.repeat([0.1, 0.5, 2.0], 4)
    k = np.tile([-0.4, -0.1, 0.05, 0.4], 3) * np.sqrt(t)
    here = surface.total_variance(k, t)
    h, s = 2e-3 * np.sqrt(t), 1e-3 * t
    up, down = exact(k + h, t, p), exact(k - h, t, p)
    np.testing.assert_allclose(here.w, exact(k, t, p), rtol=1e-9)
    np.testing.assert_allclose(here.w_k, (up - down) / (2.0 * h), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(here.w_kk, (up - 2.0 * here.w + down) / h**2, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(here.w_t, (exact(k, t + s, p) - exact(k, t - s, p)) / (2.0 * s), rtol=1e-4)


@pytest.mark.parametrize("params", PARAMS)
def test_local_vol_is_smooth_and_free_of_clips_seven_deviations_out_and_down_to_today(params: list[float]) -> None:
    surface = HestonSurface(market=MARKET, params=np.array(params))
    grid = LocalVolatility(surface=surface).grid(np.array([0.0, 1.0 / 365.0, 0.05, 1.0]), n_nodes=81)
    assert grid.n_clipped == 0
    assert np.abs(np.diff(np.log(grid.vol), 2, axis=1)).max() < 0.35
    assert grid.vol[0, 40] == pytest.approx(np.sqrt(params[4]), rel=5e-3), "today's is sqrt(v0) at the spot"


def test_local_vol_is_the_root_of_expected_variance_as_xi_vanishes() -> None:
    kappa, theta, v0 = 2.0, 0.09, 0.03
    surface = HestonSurface(market=MARKET, params=np.array([kappa, theta, 1e-3, 0.0, v0]))
    t = np.array([0.1, 1.0, 3.0])
    expected = theta + (v0 - theta) * np.exp(-kappa * t)
    np.testing.assert_allclose(LocalVolatility(surface=surface).at(0.0, t).vol, np.sqrt(expected), rtol=1e-5)


@pytest.mark.parametrize("params", PARAMS)
def test_local_vol_far_out_is_that_of_differences_of_exact_prices(params: list[float]) -> None:
    p = np.array(params)
    surface = HestonSurface(market=MARKET, params=p)
    t = np.repeat([0.05, 1.0], 4)
    deviation = np.sqrt(surface.total_variance(0.0, t).w)
    k = np.tile([-5.0, -3.0, 3.0, 5.0], 2) * deviation
    h, s = 3e-3 * deviation, 1e-3 * t
    here, up, down = (otm_values(HESTON, x, t, p) for x in (k, k + h, k - h))
    by_t = (otm_values(HESTON, k, t + s, p) - otm_values(HESTON, k, t - s, p)) / (2.0 * s)
    density = (up - 2.0 * here + down) / h**2 - (up - down) / (2.0 * h)
    np.testing.assert_allclose(LocalVolatility(surface=surface).at(k, t).vol, np.sqrt(2.0 * by_t / density), rtol=1e-3)
