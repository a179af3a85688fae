"""Prices by paths, and leverage and touches as they are asked for."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.fx.conventions import Conventions
from calibrant.market import Curve, Market
from calibrant.slv.barriers import Barrier, at_the_money_vol, black_scholes
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.particles import Heston, ParticleOptions
from calibrant.slv.paths import PathOptions
from calibrant.slv.pricing import ModelName, TouchPrice
from calibrant.slv.requests import (
    CalibratedLeverage,
    LeverageRequest,
    QuotedTouch,
    TouchRequest,
    leverage_work,
    touch_work,
)
from calibrant.slv.surface import ClosedForm, Surface
from calibrant.steps import finish
from tests.shared import needs_shared, published_values
from tests.slv import reference

MARKET = Market.flat(1.2, 0.03, 0.01)
SKEWED = ClosedForm(market=MARKET, s0=0.11, sinf=0.15, b=0.9, r0=0.3, rinf=0.4, a=1.0, eta=1.0, gam=0.48, th0=0.0012)
FLAT = replace(SKEWED, s0=0.12, sinf=0.12, eta=1e-9)
HESTON = Heston(kappa=2.0, theta=0.02, xi=0.35, rho=-0.3, v0=0.015)
FEW = PathOptions(n_paths=8192)
BOTH_SIDES = (
    Barrier(expiry=0.5, level=1.3, direction="up"),
    Barrier(expiry=0.25, level=1.25, direction="up", paid="at_hit"),
    Barrier(expiry=0.5, level=1.1, direction="down", payout="foreign"),
    Barrier(expiry=0.5, level=1.12, direction="down", paid="at_hit", payout="foreign"),
    Barrier(expiry=0.4, level=1.1, direction="down", kind="no_touch"),
    Barrier(expiry=0.4, level=1.3, direction="up", kind="no_touch", payout="foreign"),
    Barrier(expiry=0.5, levels=(1.1, 1.35), kind="no_touch"),
    Barrier(expiry=0.1, levels=(1.17, 1.24), kind="no_touch", payout="foreign"),
)


def calibrated(surface: Surface, heston: Heston | None, maturity: float, **settings: Any) -> CalibratedLeverage:
    request = LeverageRequest(surface=surface, heston=heston, maturity=maturity, paths=FEW)
    return finish(leverage_work(replace(request, **settings)))


def priced(
    surface: Surface,
    barriers: tuple[Barrier, ...],
    model: ModelName,
    found: CalibratedLeverage | None = None,
    **more: Any,
) -> list[TouchPrice]:
    request = TouchRequest(surface=surface, barriers=barriers, model=model, calibrated=found, paths=FEW)
    return finish(touch_work(replace(request, **more))).prices


@pytest.mark.parametrize("model", ["lv", "slv"])
def test_on_a_flat_surface_paths_give_the_closed_form(model: ModelName) -> None:
    found = calibrated(FLAT, HESTON, 0.5, mixing=0.0)
    prices = priced(FLAT, BOTH_SIDES, model, found, greeks=True)
    exact = priced(FLAT, BOTH_SIDES, "bs", greeks=True)
    for price, right in zip(prices, exact, strict=True):
        assert price.tv == right.price
        assert price.price == pytest.approx(right.price, abs=4.0 * price.se + 2e-4)
        assert price.delta is not None
        assert price.delta_se is not None
        assert price.delta == pytest.approx(right.delta, abs=4.0 * price.delta_se + 0.02)


def test_black_scholes_greeks_are_the_derivatives() -> None:
    for barrier, price in zip(BOTH_SIDES, priced(FLAT, BOTH_SIDES, "bs", greeks=True), strict=True):
        at = [black_scholes(barrier, FLAT, spot=1.2 + move) for move in (1e-3, 0.0, -1e-3)]
        assert price.delta == pytest.approx((at[0] - at[2]) / 2e-3, rel=1e-3, abs=1e-4)
        assert price.gamma == pytest.approx((at[0] - 2.0 * at[1] + at[2]) / 1e-6, rel=0.01, abs=0.1)


def test_rates_that_change_with_expiry_make_the_forward() -> None:
    curve = Curve(expiry=np.array([0.1, 0.5]), zero=np.array([0.01, 0.06]))
    surface = replace(SKEWED, market=Market(spot=1.2, domestic=curve, foreign=Curve.flat(0.02)))
    martingale = calibrated(surface, HESTON, 0.5).martingale
    assert martingale is not None
    assert np.all(np.abs(martingale.error) < 3.5 * martingale.se)


def test_a_flat_surface_is_repriced_flat_and_the_forward_is_a_martingale() -> None:
    found = calibrated(FLAT, HESTON, 0.5, particles=ParticleOptions(n_particles=20_000))
    repriced, martingale = found.repriced, found.martingale
    assert repriced is not None
    assert martingale is not None
    np.testing.assert_allclose(repriced.target_iv, 0.12, rtol=1e-6)
    assert np.all(np.abs(repriced.error_bp) < 4.0 * repriced.se_bp + 4.0)
    assert np.all(np.abs(martingale.error) < 3.5 * martingale.se)


def test_a_skewed_surface_is_repriced() -> None:
    errors, noise = [], []
    for seed in range(4):
        particles, paths = ParticleOptions(n_particles=2048, seed=seed), PathOptions(n_paths=32_768, seed=seed)
        repriced = calibrated(SKEWED, HESTON, 0.5, particles=particles, paths=paths).repriced
        assert repriced is not None
        errors.append(repriced.error_bp)
        noise.append(repriced.se_bp)
    left = float(np.mean(np.square(errors)) - np.mean(np.square(noise)))
    assert left < 6.0**2


@needs_shared
@pytest.mark.parametrize("name", ["EURUSD_SYN18_6M", "EURBRL_SYN18_6M", "EURUSD_CLARK_1Y"])
def test_touches_are_the_references(name: str) -> None:
    entry = reference.case(name)
    surface, t = reference.surface(entry["surface"]), entry["days"] / 365.0
    rows = [row for row in reference.rows("one_touch.csv") if row["case"] == name]
    barriers = tuple(
        Barrier(expiry=t, level=float(row["H"]), direction="up" if row["side"] == "up" else "down") for row in rows
    )
    found = calibrated(
        surface, reference.heston(name), t, mixing=entry["mixing"], particles=ParticleOptions(n_particles=20_000)
    )
    columns: dict[ModelName, tuple[str, str]] = {
        "lv": ("LV", "LV_err"),
        "slv": ("SLV_mc", "SLV_mc_se"),
        "heston": ("HES_mc", "HES_mc_se"),
    }
    for model, (value, error) in columns.items():
        for price, row in zip(priced(surface, barriers, model, found), rows, strict=True):
            allowed = 1e-3 + 3.0 * math.hypot(price.se, float(row[error]))
            assert abs(price.price - float(row[value])) < allowed, (model, row["side"], row["tv_frac_of_DF"])


@needs_shared
def test_double_no_touches_differ_from_black_scholes_as_published() -> None:
    published = published_values()["slv_moustache"]
    heston = Heston(xi=published["sigma"], **{name: published[name] for name in ("kappa", "theta", "rho", "v0")})
    params = np.array([heston.kappa, heston.theta, heston.xi, heston.rho, heston.v0])
    spot = published["S"]
    surface = HestonSurface(market=Market.flat(spot, published["r"], published["q"]), params=params)
    barriers = tuple(
        Barrier(expiry=1.0, levels=(spot - half, spot + half), kind="no_touch") for half in published["half_width"]
    )
    found = calibrated(
        surface, heston, 1.0, mixing=published["eta"], particles=ParticleOptions(n_particles=8192), pillars=(1.0,)
    )
    at_the_spot = Conventions(premium_adjusted=False, atm="spot")
    prices = priced(surface, barriers, "slv", found, paths=PathOptions(n_paths=16_384), conventions=at_the_spot)
    for price, difference in zip(prices, published["slv_minus_bs_double_no_touch"], strict=True):
        assert price.price - price.tv == pytest.approx(difference, abs=published["tol"])


@needs_shared
@pytest.mark.parametrize("name", ["EURUSD_SYN18_6M", "EURBRL_SYN18_6M"])
def test_prices_are_monotone_in_the_mixing(name: str) -> None:
    entry = reference.case(name)
    surface, t = reference.surface(entry["surface"]), entry["days"] / 365.0
    barriers = tuple(
        Barrier(expiry=t, level=level, direction="up" if side == "up" else "down")
        for side, fraction, level in entry["barriers"]
        if fraction in (0.25, 0.5)
    )
    prices = [
        priced(
            surface,
            barriers,
            "slv",
            calibrated(
                surface,
                reference.heston(name),
                t,
                mixing=mixing,
                particles=ParticleOptions(n_particles=8192),
                pillars=(t,),
            ),
        )
        for mixing in (0.0, 0.33, 0.66, 1.0)
    ]
    values = np.array([[price.price for price in row] for row in prices])
    # The same numbers at every mixing: what is left of the error is less than that of one price.
    error = np.array([[price.se for price in row] for row in prices]).max(axis=0)
    steps = np.diff(values, axis=0)
    assert np.all(np.min(steps * np.sign(steps.sum(axis=0)), axis=0) > -3.0 * error)
    assert np.all(np.abs(steps.sum(axis=0)) > 3.0 * error)


def test_the_mixing_is_found_from_a_price() -> None:
    barrier = Barrier(expiry=0.3, level=1.17, direction="down")
    fixed = calibrated(SKEWED, HESTON, 0.3, mixing=0.4)
    [price] = priced(SKEWED, (barrier,), "slv", fixed)
    found = calibrated(SKEWED, HESTON, 0.3, mixing=QuotedTouch(barrier=barrier, price=price.price))
    # The particles' ranks change with the mixing, and with them the price in the fourth digit.
    assert found.mixing == pytest.approx(0.4, abs=0.1)
    [again] = priced(SKEWED, (barrier,), "slv", found)
    assert again.price == pytest.approx(price.price, abs=4e-4)
    with pytest.raises(InvalidInput, match=r"`mixing.fit_to.price` must lie between .* but is 0.99"):
        calibrated(SKEWED, HESTON, 0.3, mixing=QuotedTouch(barrier=barrier, price=0.99))


def test_heston_is_fitted_where_it_is_not_given() -> None:
    truth = Heston(kappa=2.0, theta=0.02, xi=0.3, rho=-0.2, v0=0.015)
    surface = HestonSurface(market=MARKET, params=np.array([2.0, 0.02, 0.3, -0.2, 0.015]))
    pillars = (0.1, 0.25, 0.5)
    free = calibrated(surface, None, 0.5, pillars=pillars, particles=ParticleOptions(n_particles=500))
    assert free.fit.rmse_bp == pytest.approx(0.0, abs=0.01)
    assert free.fit.heston.xi == pytest.approx(truth.xi, rel=1e-3)
    held = calibrated(surface, None, 0.5, kappa=1.0, pillars=pillars, particles=ParticleOptions(n_particles=500))
    assert held.fit.heston.kappa == 1.0


def test_the_answer_has_the_shape_of_the_contract() -> None:
    found = calibrated(SKEWED, HESTON, 0.2, particles=ParticleOptions(n_particles=500, seed=7))
    answer = found.to_dict()
    leverage = answer["leverage"]
    assert len(leverage["expiry"]) == len(leverage["spot"]) == len(leverage["value"])
    assert len(leverage["spot"][3]) == len(leverage["value"][3])
    assert set(answer["repricing"][0]) == {"expiry", "strike", "target_iv", "model_iv", "error_bp", "se_bp"}
    assert set(answer["martingale"][0]) == {"expiry", "error", "se"}
    assert answer["settings"]["seed"] == 7
    assert answer["heston"]["xi"] == HESTON.xi
    assert answer["n_clipped"] == 0
    touched = finish(touch_work(TouchRequest(surface=SKEWED, barriers=BOTH_SIDES[7:], calibrated=found, paths=FEW)))
    assert set(touched.to_dict()["prices"][0]) >= {"price", "se", "tv", "delta", "gamma"}


def test_progress_rises_to_the_end() -> None:
    request = LeverageRequest(
        surface=SKEWED, heston=HESTON, maturity=0.2, particles=ParticleOptions(n_particles=500), paths=FEW
    )
    done = [step.done / step.total for step in leverage_work(request)]
    assert np.all(np.diff(done) >= 0.0)
    assert done[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixing": 1.2}, r"`mixing` must lie within \[0, 1\], but is 1.2"),
        ({"mixing": math.nan}, r"`mixing` must lie within \[0, 1\], but is nan"),
        ({"maturity": 0.0}, "`maturity` must be > 0 years, but is 0"),
        ({"maturity": 9.0}, "`maturity` must not lie beyond the surface's last expiry, 5 years, but is 9"),
        ({"kappa": -1.0}, "`kappa` must be > 0 a year, but is -1"),
        ({"particles": ParticleOptions(n_particles=3)}, r"`n_particles` must lie within \[100, .*\], but is 3"),
        ({"particles": ParticleOptions(step_days=0.0)}, r"`step_days` must lie within .*, but is 0"),
    ],
)
def test_a_setting_that_nothing_can_be_calibrated_by_is_named(changed: dict[str, Any], message: str) -> None:
    surface = replace(SKEWED, last_expiry=5.0)
    request = replace(LeverageRequest(surface=surface, heston=HESTON, maturity=0.1), **changed)
    with pytest.raises(InvalidInput, match=message):
        finish(leverage_work(request))


@pytest.mark.parametrize(
    ("barrier", "message"),
    [
        (
            Barrier(expiry=0.1, level=1.1, direction="up"),
            r"`barriers\[0\].level` must lie above the spot, 1.2, .* already hit",
        ),
        (
            Barrier(expiry=0.1, level=1.2, direction="down"),
            r"`barriers\[0\].level` must lie below the spot, 1.2, .* already hit",
        ),
        (Barrier(expiry=0.1, levels=(1.25, 1.3), kind="no_touch"), r"`barriers\[0\].levels` .* already hit"),
        (Barrier(expiry=0.1, levels=(1.3, 1.1), kind="no_touch"), r"`barriers\[0\].levels` must be a rising pair"),
        (Barrier(expiry=0.1, levels=(1.1, 1.3)), r"`barriers\[0\].kind` must be `no_touch`"),
        (Barrier(expiry=0.1), r"`barriers\[0\].level` is required"),
        (Barrier(expiry=-0.1, level=1.3, direction="up"), r"`barriers\[0\].expiry` must be > 0 years"),
        (Barrier(expiry=0.1, level=math.nan, direction="up"), r"`barriers\[0\].level` must be a spot > 0"),
        (
            Barrier(expiry=0.1, level=1.3, direction="up", kind="no_touch", paid="at_hit"),
            r"`barriers\[0\].paid` must be `at_expiry` of a no-touch",
        ),
    ],
)
def test_a_barrier_that_is_none_is_named(barrier: Barrier, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        priced(SKEWED, (barrier,), "bs")


def test_slv_needs_a_leverage_that_reaches_the_barriers() -> None:
    barrier = Barrier(expiry=0.5, level=1.3, direction="up")
    with pytest.raises(InvalidInput, match="`leverage` is required by the model `slv`"):
        priced(SKEWED, (barrier,), "slv")
    short = calibrated(SKEWED, HESTON, 0.1, particles=ParticleOptions(n_particles=500))
    with pytest.raises(InvalidInput, match=r"`barriers\[0\].expiry` must not lie beyond what is calibrated, 0.1 years"):
        priced(SKEWED, (barrier,), "slv", short)


def test_at_the_money_follows_the_conventions() -> None:
    t = 0.5
    forward = float(MARKET.log_forward(t)) - math.log(MARKET.spot)
    for conventions, where in (
        (Conventions(premium_adjusted=False, atm="forward"), lambda vol: 0.0),
        (Conventions(premium_adjusted=False, atm="spot"), lambda vol: -forward),
        (Conventions(premium_adjusted=False), lambda vol: 0.5 * vol**2 * t),
        (Conventions(premium_adjusted=True), lambda vol: -0.5 * vol**2 * t),
    ):
        vol = at_the_money_vol(SKEWED, t, conventions)
        assert vol**2 * t == pytest.approx(float(SKEWED.total_variance(where(vol), t).w), rel=1e-9)
