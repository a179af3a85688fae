import numpy as np
import pytest

from calibrant.arbitrage.surface_twin import durrleman
from calibrant.arrays import Vector
from calibrant.market import Market
from calibrant.slv.essvi import Essvi, Slice, fit_essvi
from calibrant.slv.surface import implied_vol

MARKET = Market.flat(1.2, 0.02, 0.0)
EXPIRY = np.array([1.0 / 12.0, 0.25, 0.5, 1.0, 2.0, 5.0])


def drawn(generator: np.random.Generator, expiry: Vector = EXPIRY) -> Essvi:
    """A surface within the constraints, some of them binding."""
    n = expiry.size
    up, down = (
        0.05 * np.exp(np.cumsum(generator.choice([0.0, 1.0], n) * generator.uniform(0.0, 0.8, n))) for _ in "ab"
    )
    phi = 6.0 * np.exp(-np.cumsum(generator.choice([0.0, 1.0], n) * generator.uniform(0.0, 0.8, n)))
    return Essvi(market=MARKET, expiry=expiry, theta=0.5 * (up + down) / phi, up=up, down=down)


def quoted(surface: Essvi, noise_bp: float = 0.0, seed: int = 0) -> list[Slice]:
    """Five quotes an expiry."""
    generator = np.random.default_rng(seed)
    slices = []
    for t in surface.expiry.tolist():
        k = np.array([-1.3, -0.7, 0.0, 0.7, 1.3]) * float(np.sqrt(surface.total_variance(0.0, t).w))
        vol = implied_vol(surface, k, t) + 1e-4 * noise_bp * generator.standard_normal(5)
        slices.append(Slice(t, k, vol, np.ones(5), np.arange(5)))
    return slices


def least_of_arbitrage(surface: Essvi) -> tuple[float, float]:
    """The smallest g, and the smallest growth of w over that at the money, within six deviations and between slices."""
    t = np.geomspace(surface.expiry[0] / 30.0, surface.expiry[-1], 150)[:, np.newaxis]
    k = np.sqrt(surface.total_variance(0.0, t).w) * np.linspace(-6.0, 6.0, 81)
    w, w_k, w_kk, w_t = surface.total_variance(k, t)
    return float(durrleman(k, w, w_k, w_kk).min()), float((w_t / (w / t)).min())


@pytest.mark.parametrize("seed", range(12))
def test_a_surface_within_the_constraints_has_no_arbitrage_on_and_between_its_slices(seed: int) -> None:
    g, growth = least_of_arbitrage(drawn(np.random.default_rng(seed)))
    assert g > 0.0
    assert growth > -1e-9


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_to_noisy_quotes_has_no_arbitrage(seed: int) -> None:
    surface = fit_essvi(MARKET, quoted(drawn(np.random.default_rng(seed)), 60.0, seed))
    g, growth = least_of_arbitrage(surface)
    assert g > 0.0
    assert growth > -1e-9


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_gives_the_surface_of_exact_quotes_back(seed: int) -> None:
    true = drawn(np.random.default_rng(seed))
    fitted = fit_essvi(MARKET, quoted(true))
    for name in ("theta", "up", "down"):
        np.testing.assert_allclose(getattr(fitted, name), getattr(true, name), rtol=1e-5)


def test_no_surface_nearby_within_the_constraints_is_nearer_to_noisy_quotes() -> None:
    generator = np.random.default_rng(3)
    slices = quoted(drawn(generator), 40.0)
    fitted = fit_essvi(MARKET, slices)

    def squares(surface: Essvi) -> float:
        off = (implied_vol(surface, each.log_moneyness, each.expiry) - each.vol for each in slices)
        return float(sum((1e8 * each @ each for each in off), 0.0))

    least = squares(fitted)
    tried = 0
    for size in np.repeat([1e-4, 1e-3, 1e-2], 100):
        up, down = (
            np.maximum.accumulate(wing * np.exp(size * generator.standard_normal(6)))
            for wing in (fitted.up, fitted.down)
        )
        phi = 0.5 * (fitted.up + fitted.down) / fitted.theta
        phi = np.minimum.accumulate(phi * np.exp(size * generator.standard_normal(6)))
        other = Essvi(market=MARKET, expiry=EXPIRY, theta=0.5 * (up + down) / phi, up=up, down=down)
        assert squares(other) > least * (1.0 - 1e-7)
        tried += 1
    assert tried == 300


def test_derivatives_are_those_of_its_values_and_have_no_jump_at_a_slice() -> None:
    surface = drawn(np.random.default_rng(5))
    generator = np.random.default_rng(6)
    t = np.concatenate((np.exp(generator.uniform(np.log(0.01), np.log(4.9), 100)), EXPIRY[:-1] * (1.0 + 1e-9)))
    k = generator.uniform(-2.0, 2.0, t.size) * np.sqrt(surface.total_variance(0.0, t).w)
    here = surface.total_variance(k, t)
    h, s = 1e-5 * np.sqrt(t), 1e-6 * t
    up, down = surface.total_variance(k + h, t), surface.total_variance(k - h, t)
    np.testing.assert_allclose((up.w - down.w) / (2.0 * h), here.w_k, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose((up.w_k - down.w_k) / (2.0 * h), here.w_kk, rtol=1e-5, atol=1e-7)
    later, sooner = surface.total_variance(k, t + s), surface.total_variance(k, t - s)
    np.testing.assert_allclose((later.w - sooner.w) / (2.0 * s), here.w_t, rtol=1e-4, atol=1e-6)


def test_before_the_first_slice_the_vol_at_the_money_stays() -> None:
    surface = drawn(np.random.default_rng(7))
    np.testing.assert_allclose(implied_vol(surface, 0.0, 1e-4), implied_vol(surface, 0.0, 1e-2), rtol=1e-12)


def test_an_expiry_of_one_quote_takes_its_smile_from_its_neighbours() -> None:
    theta, psi = 0.01 * EXPIRY**1.05, 0.1 * EXPIRY**0.6
    slices = quoted(Essvi(market=MARKET, expiry=EXPIRY, theta=theta, up=0.8 * psi, down=1.2 * psi))
    lone = slices[2]
    slices[2] = Slice(lone.expiry, lone.log_moneyness[2:3], lone.vol[2:3], np.ones(1), np.zeros(1, np.int64))
    off = implied_vol(fit_essvi(MARKET, slices), lone.log_moneyness, lone.expiry) - lone.vol
    assert abs(off[2]) < 1e-7
    assert np.abs(off).max() < 5e-4


def test_quotes_at_the_money_alone_are_a_surface_without_a_smile() -> None:
    vols = np.linspace(0.1, 0.14, 6)
    slices = [
        Slice(t, np.zeros(1), np.array([v]), np.ones(1), np.zeros(1, np.int64))
        for t, v in zip(EXPIRY.tolist(), vols, strict=True)
    ]
    fitted = fit_essvi(MARKET, slices)
    for t, v in zip(EXPIRY.tolist(), vols, strict=True):
        np.testing.assert_allclose(implied_vol(fitted, np.array([-0.1, 0.0, 0.1]), t), v, rtol=5e-3)
