"""Panels as a market quotes them: drawn, priced, disturbed, projected."""

import numpy as np
import pytest

from calibrant.arrays import Matrix
from calibrant.black import implied_volatility
from calibrant.grid import project
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import call_prices
from training.domain import DOMAINS, MARKET, PAPER
from training.exact import exact_iv_panels
from training.market_panels import DRAWS, REFERENCE_VOL, MarketQuotes, market_panels, market_quotes

N = 200
UNIFORM = np.random.default_rng(5).random((N, DRAWS))
PARAMS = MARKET.draw(UNIFORM[:, : MARKET.n_params])
CLEAN = UNIFORM[:, 15] < 0.25


def quotes(i: int) -> MarketQuotes:
    return market_quotes(PARAMS[i], UNIFORM[i])


def test_parameters_stay_in_the_box_with_both_signs_of_rho_and_any_feller_ratio() -> None:
    low, high = MARKET.sampled_box()
    assert (low <= PARAMS).all()
    assert (high >= PARAMS).all()
    kappa, theta, xi, rho, _ = PARAMS.T
    assert 0.4 < np.mean(rho > 0.0) < 0.6
    feller = 2.0 * kappa * theta / xi**2
    assert np.quantile(feller, 0.1) < 0.1
    assert np.quantile(feller, 0.9) > 5.0


def test_vols_are_those_of_the_accurate_pricer() -> None:
    checked = 0
    for i in np.flatnonzero(CLEAN)[:20]:
        found = quotes(i)
        np.testing.assert_array_equal(found.iv, found.exact_iv)
        prices = call_prices(HESTON, found.log_moneyness, found.expiry, PARAMS[i])
        expected = implied_volatility(prices, found.log_moneyness, found.expiry).volatility
        # A price error of 1e-9 on a quote worth 1e-6 of the forward: a few basis points of vol.
        worth = prices - np.maximum(-np.expm1(found.log_moneyness), 0.0) > 1e-5
        np.testing.assert_allclose(found.iv[worth], expected[worth], rtol=2e-4)
        checked += int(worth.sum())
    assert checked > 500


def test_expiries_and_strikes_range_as_markets_do() -> None:
    drawn = [quotes(i) for i in range(N)]
    n_expiries = np.array([np.unique(found.expiry).size for found in drawn])
    assert n_expiries.min() <= 1
    assert n_expiries.max() >= 11
    shortest = np.array([found.expiry.min() for found in drawn if found.expiry.size])
    assert shortest.min() < 7 / 365
    assert np.median(shortest) < 0.25
    assert max(found.expiry.max() for found in drawn if found.expiry.size) > 3.0
    for found in drawn:
        order = np.lexsort((found.log_moneyness, found.expiry))
        np.testing.assert_array_equal(order, np.arange(order.size))


def test_noise_is_relative_and_some_panels_have_none() -> None:
    away = [np.std(q.iv / q.exact_iv - 1.0) for q in map(quotes, range(N)) if q.iv.size > 20]
    assert 0.1 < np.mean(np.array(away) == 0.0) < 0.4
    noisy = np.array([a for a in away if a > 0.0])
    assert noisy.min() < 1e-3
    assert 1e-2 < noisy.max() < 0.2


def test_a_panel_is_its_quotes_as_the_library_projects_them() -> None:
    iv, _ = market_panels(PARAMS[:50], MARKET, UNIFORM[:50])
    grid = MARKET.network_grid()
    for i in range(50):
        found = quotes(i)
        if found.iv.size < 2:
            continue
        panel = OptionPanel.from_quotes(expiry=found.expiry, log_moneyness=found.log_moneyness, iv=found.iv)
        np.testing.assert_allclose(project(panel, grid).iv, iv[i], rtol=1e-9)


def test_the_metric_predicts_the_vol_error_of_a_small_parameter_error() -> None:
    chosen = np.flatnonzero(CLEAN)[:20]
    _, metric = market_panels(PARAMS[chosen], MARKET, UNIFORM[chosen])
    slope = MARKET.output_slope(PARAMS[chosen])
    step = 1e-4 * np.array([1.0, -0.5, 0.7, 0.4, -1.0])
    for row, i in enumerate(chosen):
        found = quotes(i)
        if found.iv.size == 0:
            continue
        moved = vols(found, PARAMS[i] + slope[row] * step)
        base = vols(found, PARAMS[i])
        relative = REFERENCE_VOL * np.log(moved / base)
        expected = np.sqrt(np.mean(relative**2))
        matrix = np.zeros((5, 5))
        matrix[np.tril_indices(5)] = metric[row]
        matrix = matrix + np.tril(matrix, -1).T
        assert np.sqrt(step @ matrix @ step) == pytest.approx(expected, rel=2e-2)


def vols(found: MarketQuotes, params: Matrix) -> Matrix:
    prices = call_prices(HESTON, found.log_moneyness, found.expiry, params)
    result: Matrix = implied_volatility(prices, found.log_moneyness, found.expiry).volatility
    return result


def test_of_a_domain_with_ladders_a_share_has_the_same_strikes_at_evenly_spaced_expiries() -> None:
    domain = DOMAINS["double_heston_jump_market"]
    params = domain.draw(UNIFORM[:, : domain.n_params])
    n_ladders = 0
    for p, draw in zip(params, UNIFORM, strict=True):
        plain, found = (market_quotes(p, draw, domain.model, share) for share in (0.0, domain.laddered))
        if np.array_equal(plain.log_moneyness, found.log_moneyness):
            continue
        n_ladders += 1
        expiries = np.unique(found.expiry)
        # An expiry all of whose quotes are worth nothing is not quoted, and what is left need not be even.
        gaps = np.diff(expiries)
        np.testing.assert_allclose(gaps / gaps.min(), np.round(gaps / gaps.min()), atol=1e-6)
        last = set(found.log_moneyness[found.expiry == expiries[-1]])
        assert set(found.log_moneyness) <= last
        assert 0.64 < np.exp(min(last)) < 1.0 < np.exp(max(last)) < 1.41
    assert 0.4 < n_ladders / N < 0.6


def test_each_generator_refuses_the_other_s_domain() -> None:
    with pytest.raises(ValueError, match="no fixed strikes"):
        exact_iv_panels(PARAMS[:1], MARKET)
    assert exact_iv_panels(np.array([[2.0, 0.04, 0.5, -0.7, 0.04]]), PAPER).iv.shape == (1, 8, 10)
