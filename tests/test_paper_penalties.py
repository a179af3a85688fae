"""The paper's penalties are what the paper writes, and are not arbitrage."""

import numpy as np
import pytest

from calibrant.arbitrage import check_price_surface, check_surface
from calibrant.arbitrage.paper_penalties import paper_penalties
from calibrant.arrays import Matrix, Vector
from calibrant.black import call_price, implied_volatility_from_time_value
from calibrant.models import HESTON
from calibrant.pricing.fourier import otm_values

STRIKE = np.linspace(0.8, 1.2, 41)
EXPIRY = np.linspace(0.1, 2.0, 11)


def vols(total_variance: Matrix) -> Matrix:
    vol: Matrix = np.sqrt(total_variance / EXPIRY[:, None])
    return vol


def test_a_flat_surface_has_none() -> None:
    penalties = paper_penalties(np.full((11, 41), 0.2), STRIKE, EXPIRY)
    assert penalties.total == pytest.approx(0.0, abs=1e-9)
    assert (penalties.p1.shape, penalties.p2.shape, penalties.p3.shape) == ((11, 39), (10, 41), (11, 20))


def test_p1_is_the_curvature_where_total_variance_is_concave_in_the_strike() -> None:
    w = EXPIRY[:, None] * (0.09 - 0.3 * (STRIKE - 0.7) ** 2)
    penalties = paper_penalties(vols(w), STRIKE, EXPIRY)
    assert penalties.p1 == pytest.approx(np.repeat(0.6 * EXPIRY[:, None], 39, axis=1), rel=1e-9)
    assert not penalties.p2.any()
    assert not penalties.p3.any()
    assert not paper_penalties(vols(0.18 * EXPIRY[:, None] - w), STRIKE, EXPIRY).p1.any()


def test_p1_holds_on_uneven_strikes() -> None:
    uneven = np.sort(np.random.default_rng(1).uniform(0.8, 1.2, 41))
    w = EXPIRY[:, None] * (0.09 - 0.3 * (uneven - 0.7) ** 2)
    assert paper_penalties(vols(w), uneven, EXPIRY).p1 == pytest.approx(
        np.repeat(0.6 * EXPIRY[:, None], 39, axis=1), rel=1e-5
    )


def test_p2_is_the_fall_of_total_variance_with_expiry() -> None:
    w = np.repeat((0.3 - 0.05 * EXPIRY)[:, None], 41, axis=1)
    penalties = paper_penalties(vols(w), STRIKE, EXPIRY)
    assert penalties.p2 == pytest.approx(np.full((10, 41), 0.05), rel=1e-9)
    assert penalties.total == pytest.approx(0.05 * 410, rel=1e-6)


def test_p3_is_the_rise_with_the_strike_above_the_spot_alone() -> None:
    for spot, n_above in ((1.0, 20), (0.8, 40), (1.3, 0)):
        w = EXPIRY[:, None] * (0.04 + 0.1 * (STRIKE - 0.8))
        penalties = paper_penalties(vols(w), STRIKE, EXPIRY, spot)
        assert penalties.p3.shape == (11, n_above)
        assert penalties.p3 == pytest.approx(np.repeat(0.1 * EXPIRY[:, None], n_above, axis=1), rel=1e-9)


def heston_vols(params: Vector) -> Matrix:
    k, expiry = np.tile(np.log(STRIKE), EXPIRY.size), np.repeat(EXPIRY, STRIKE.size)
    values = otm_values(HESTON, k, expiry, params)
    return implied_volatility_from_time_value(values, k, expiry).volatility.reshape(11, 41)


def test_an_exact_heston_surface_breaks_them_without_arbitrage() -> None:
    # Little correlation and much vol of vol: a smile, which rises above the spot.
    params = np.array([2.0, 0.09, 0.9, -0.1, 0.09])
    assert paper_penalties(heston_vols(params), STRIKE, EXPIRY).p3.max() > 1e-3
    assert check_surface(HESTON, params, EXPIRY).free


def test_a_surface_with_arbitrage_passes_them() -> None:
    # Total variance a straight line, down to almost nothing at K = 1.2: convex, falling, rising with expiry.
    w = EXPIRY[:, None] * (0.001 + 0.5 * (1.2 - STRIKE))
    assert paper_penalties(vols(w), STRIKE, EXPIRY).total == pytest.approx(0.0, abs=1e-9)
    call = np.array([call_price(np.log(STRIKE), np.full(41, t), v) for t, v in zip(EXPIRY, vols(w), strict=True)])
    verdict = check_price_surface(np.log(STRIKE), EXPIRY, call)
    assert verdict.violations[0].kind == "butterfly"
    assert verdict.violations[0].size > 1e-4
