import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.black import implied_volatility_from_time_value
from calibrant.market import Market
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.pde import PdeGrid, call_prices, repricing_errors_bp
from tests.shared import needs_shared
from tests.slv import reference
from tests.slv.test_local_vol import CURVED, FLAT

STRIKES = ("K_P10", "K_P25", "K_atm", "K_C25", "K_C10")


def pillars(name: str) -> tuple[Vector, list[Vector]]:
    """Expiries and log-moneyness of the quotes of a reference surface."""
    quotes = reference.given(name)["implied_quotes"]
    k = [np.log(np.array([row[strike] for strike in STRIKES]) / row["F"]) for row in quotes]
    return np.array([row["T"] for row in quotes]), k


@needs_shared
@pytest.mark.parametrize("name", reference.SURFACES)
def test_the_pde_reprices_every_reference_surface(name: str) -> None:
    errors = repricing_errors_bp(reference.surface(name), *pillars(name))
    assert np.abs(errors).max() < 0.1


@needs_shared
def test_the_error_falls_with_the_square_of_the_grid() -> None:
    surface, (expiry, k) = reference.surface("EURBRL_SYN18"), pillars("EURBRL_SYN18")
    coarse, fine = (
        np.abs(repricing_errors_bp(surface, expiry, k, PdeGrid(n_nodes=n + 1, n_steps=n // 3))).max()
        for n in (300, 600)
    )
    assert 3.0 < coarse / fine < 5.0


def test_a_surface_of_heston_is_repriced_from_its_local_vol() -> None:
    surface = HestonSurface(market=Market.flat(1.2, 0.02, 0.0), params=np.array([3.0, 0.025, 0.576, 0.454, 0.015]))
    expiry = np.array([0.25, 1.0])
    k = [np.array([-0.1, 0.0, 0.1]) * np.sqrt(t) for t in expiry]
    errors = repricing_errors_bp(surface, expiry, k, PdeGrid(n_nodes=401, n_steps=60))
    assert np.abs(errors).max() < 1.0


def test_a_flat_local_vol_gives_black_and_another_one_its_own() -> None:
    k = [np.linspace(-0.3, 0.3, 7)]
    assert np.abs(repricing_errors_bp(FLAT, np.array([1.0]), k)).max() < 0.05
    (call,) = call_prices(LocalVolatility(surface=FLAT, cap=0.19), np.array([1.0]), k)
    vol = implied_volatility_from_time_value(call - np.maximum(-np.expm1(k[0]), 0.0), k[0], np.ones(7)).volatility
    np.testing.assert_allclose(vol, 0.19, atol=5e-6)


def test_expiries_between_change_no_price() -> None:
    k = np.linspace(-0.2, 0.2, 5)
    (alone,) = call_prices(LocalVolatility(surface=CURVED), np.array([1.0]), [k])
    *_, beside = call_prices(LocalVolatility(surface=CURVED), np.array([0.1, 0.3, 1.0]), [k, k, k])
    np.testing.assert_allclose(alone, beside, atol=2e-7)
