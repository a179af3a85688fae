from functools import cache

import numpy as np
import pytest

from calibrant.arbitrage.surface_twin import durrleman
from calibrant.market import Market
from calibrant.slv.andreasen_huge import AndreasenHuge, fit_andreasen_huge
from calibrant.slv.essvi import Slice
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.pde import repricing_errors_bp
from calibrant.slv.surface import implied_vol

MARKET = Market.flat(81.0, 0.13, 0.002)
K = np.array([-1.3, -0.7, 0.0, 0.7, 1.3])
SKEWED = np.array([0.30, 0.312, 0.358, 0.434, 0.566])
"""Like the dollar in roubles on the eve of a war: no slice of three parameters has these."""


def slices() -> list[Slice]:
    return [
        Slice(t, K * 0.358 * np.sqrt(t), 0.358 + (SKEWED - 0.358) * fade, np.ones(5), np.arange(5))
        for t, fade in ((0.09, 1.0), (0.25, 0.9), (1.0, 0.7))
    ]


@cache
def fitted() -> AndreasenHuge:
    return fit_andreasen_huge(MARKET, slices())


def test_every_quote_is_met() -> None:
    for each in slices():
        off = implied_vol(fitted(), each.log_moneyness, each.expiry) - each.vol
        assert np.abs(off).max() < 1e-5


def test_there_is_no_arbitrage_on_and_between_the_expiries() -> None:
    t = np.geomspace(0.003, 1.0, 60)[:, np.newaxis]
    k = np.sqrt(fitted().total_variance(0.0, t).w) * np.linspace(-4.0, 4.0, 81)
    w, w_k, w_kk, w_t = fitted().total_variance(k, t)
    assert durrleman(k, w, w_k, w_kk).min() > 0.0
    assert w_t.min() > 0.0


def test_derivatives_are_those_of_its_values() -> None:
    generator = np.random.default_rng(1)
    # Away from the expiries, at which a diffusion of another local vol begins.
    t = np.concatenate((generator.uniform(0.01, 0.085, 40), generator.uniform(0.095, 0.24, 40)))
    k = generator.uniform(-2.0, 2.0, t.size) * 0.36 * np.sqrt(t)
    here = fitted().total_variance(k, t)
    h, s = 1e-4 * np.sqrt(t), 1e-5 * t
    up, down = fitted().total_variance(k + h, t), fitted().total_variance(k - h, t)
    np.testing.assert_allclose((up.w - down.w) / (2.0 * h), here.w_k, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose((up.w_k - down.w_k) / (2.0 * h), here.w_kk, rtol=1e-2, atol=1e-4)
    later, sooner = fitted().total_variance(k, t + s), fitted().total_variance(k, t - s)
    np.testing.assert_allclose((later.w - sooner.w) / (2.0 * s), here.w_t, rtol=1e-4)


def test_its_local_vol_reprices_the_quotes() -> None:
    each = slices()
    errors = repricing_errors_bp(fitted(), np.array([s.expiry for s in each]), [s.log_moneyness for s in each])
    assert np.abs(errors).max() < 0.5


def test_a_flat_smile_has_a_flat_local_vol() -> None:
    quotes = [Slice(t, K * 0.2 * np.sqrt(t), np.full(5, 0.2), np.ones(5), np.arange(5)) for t in (0.1, 1.0)]
    local_vol = LocalVolatility(surface=fit_andreasen_huge(MARKET, quotes))
    t = np.array([0.01, 0.1, 0.5, 1.0])[:, np.newaxis]
    np.testing.assert_allclose(local_vol.at(0.2 * np.sqrt(t) * np.linspace(-2.0, 2.0, 9), t).vol, 0.2, rtol=3e-3)


def test_quotes_that_disagree_are_met_between() -> None:
    k = np.array([-0.1, -0.1, 0.0, 0.0, 0.1, 0.1])
    vol = np.array([0.22, 0.24, 0.2, 0.22, 0.2, 0.22])
    quotes = Slice(0.5, k, vol, np.ones(6), np.arange(6))
    surface = fit_andreasen_huge(MARKET, [quotes])
    np.testing.assert_allclose(implied_vol(surface, k[::2], 0.5), [0.23, 0.21, 0.21], atol=2e-4)


@pytest.mark.parametrize("vol", [0.6, 0.05])
def test_a_quote_that_no_density_has_is_missed_and_the_surface_is_none_the_worse(vol: float) -> None:
    odd = np.full(5, 0.2)
    odd[3] = vol
    surface = fit_andreasen_huge(MARKET, [Slice(0.5, K * 0.2 * np.sqrt(0.5), odd, np.ones(5), np.arange(5))])
    assert abs(float(implied_vol(surface, K[3] * 0.2 * np.sqrt(0.5), 0.5)) - vol) > 0.01
    found = LocalVolatility(surface=surface).at(K * 0.2 * np.sqrt(0.5), np.array([[0.1], [0.5]]))
    assert np.isfinite(found.vol).all()
