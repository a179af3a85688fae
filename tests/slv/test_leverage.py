"""The leverage by particles: against what it must be, and against the reference's."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.market import Market
from calibrant.slv.estimators import ESTIMATORS
from calibrant.slv.heston_surface import HestonSurface
from calibrant.slv.leverage import Leverage
from calibrant.slv.local_vol import LocalVolatility
from calibrant.slv.particles import Heston, ParticleLeverage, ParticleOptions, leverage_steps
from calibrant.slv.surface import ClosedForm, Surface
from calibrant.slv.time_grid import time_grid
from calibrant.steps import finish
from tests.shared import needs_shared
from tests.slv import reference

MARKET = Market.flat(1.2, 0.03, 0.01)
SKEWED = ClosedForm(market=MARKET, s0=0.11, sinf=0.15, b=0.9, r0=0.3, rinf=0.4, a=1.0, eta=1.0, gam=0.48, th0=0.0012)
HESTON = Heston(kappa=2.0, theta=0.02, xi=0.35, rho=-0.3, v0=0.015)


def calibrated(
    surface: Surface, heston: Heston, maturity: float, options: ParticleOptions | None = None
) -> ParticleLeverage:
    return finish(leverage_steps(LocalVolatility(surface=surface), heston, maturity, options))


@pytest.mark.parametrize(
    "heston",
    [
        Heston(kappa=3.0, theta=0.0074, xi=0.265, rho=-0.02, v0=0.0051),
        Heston(kappa=1.5, theta=0.04, xi=0.4, rho=-0.6, v0=0.04),
    ],
    ids=["currency", "equity"],
)
def test_the_surface_of_the_model_itself_has_a_leverage_of_one(heston: Heston) -> None:
    params = np.array([heston.kappa, heston.theta, heston.xi, heston.rho, heston.v0])
    surface = HestonSurface(market=MARKET, params=params)
    found = [
        calibrated(surface, heston, 0.1, ParticleOptions(n_particles=16_384, seed=seed)).leverage for seed in range(20)
    ]
    dates = found[0].expiry[1:]
    inside = []
    for date in dates:
        row = found[0].log_spot[found[0].expiry == date][0]
        # The rows reach from the 0.05 % to the 99.95 % quantile, 3.3 deviations off: 2.33 are the 1 % and the 99 %.
        middle, half = 0.5 * (row[0] + row[-1]), 0.5 * (row[-1] - row[0]) * 2.33 / 3.3
        inside.append([leverage.row(float(date), np.linspace(middle - half, middle + half, 31)) for leverage in found])
    values = np.array(inside)
    error = np.abs(values.mean(axis=1) - 1.0)
    allowed = 3.0 * values.std(axis=1, ddof=1) / np.sqrt(len(found)) + 0.003
    assert np.mean(error > allowed) <= 0.01


def test_without_vol_of_variance_the_leverage_is_the_local_vol() -> None:
    found = calibrated(SKEWED, HESTON.mixed(0.0), 0.3, ParticleOptions(n_particles=1000))
    leverage = found.leverage
    expected = HESTON.theta + (HESTON.v0 - HESTON.theta) * np.exp(-HESTON.kappa * leverage.expiry)
    local_vol = LocalVolatility(surface=SKEWED)(leverage.log_spot[1:], leverage.expiry[1:, np.newaxis])
    np.testing.assert_allclose(leverage.value[1:] * np.sqrt(expected[1:, np.newaxis]), local_vol, rtol=4e-4)


def test_today_the_leverage_is_the_local_vol_over_the_vol() -> None:
    found = calibrated(SKEWED, HESTON, 0.1).leverage
    today = LocalVolatility(surface=SKEWED)(np.log(MARKET.spot), 0.0) / np.sqrt(HESTON.v0)
    np.testing.assert_allclose(found.at([1.0, 1.2, 2.0], 0.0), today, rtol=1e-12)


@needs_shared
@pytest.mark.parametrize(
    ("name", "column", "within"),
    [
        ("EURUSD_SYN18_6M", "ql_fdm_L1", 0.015),
        ("EURBRL_SYN18_6M", "ql_fdm_L1", 0.015),
        ("EURUSD_CLARK_1Y", "particle_250k", 0.02),
    ],
)
def test_the_leverage_is_the_references(name: str, column: str, within: float) -> None:
    entry = reference.case(name)
    rows = [row for row in reference.rows("leverage.csv") if row["case"] == name and abs(float(row["z_std"])) <= 2.0]
    t, spot, value = (np.array([float(row[key]) for row in rows]) for key in ("t", "S", column))
    maturity = entry["days"] / 365.0
    found = [
        calibrated(
            reference.surface(entry["surface"]),
            reference.heston(name).mixed(entry["mixing"]),
            maturity,
            ParticleOptions(n_particles=60_000, pillars=tuple(np.unique(t)), seed=seed),
        ).leverage.at(spot, t)
        for seed in range(3)
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), value, rtol=within)


def test_the_same_seed_gives_the_same_digits_whatever_runs_beside_it() -> None:
    options = ParticleOptions(n_particles=3000, seed=5)

    def work(seed: int) -> Leverage:
        return calibrated(SKEWED, HESTON, 0.15, replace(options, seed=seed)).leverage

    alone = work(5)
    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(work, (5, 6, 5, 7)))
    assert np.array_equal(alone.value, beside[0].value)
    assert np.array_equal(alone.value, beside[2].value)
    assert not np.array_equal(alone.value, beside[1].value)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_calibrates_near_the_default(name: str) -> None:
    reached = np.log(MARKET.forward(0.15)) + 0.11 * np.sqrt(0.15) * np.linspace(-1.5, 1.5, 13)
    rows = []
    for estimator in (ESTIMATORS["binned_local_linear"], ESTIMATORS[name]):
        options = ParticleOptions(n_particles=4096, estimator=estimator)
        rows.append(
            np.mean(
                [
                    calibrated(SKEWED, HESTON, 0.15, replace(options, seed=seed)).leverage.row(0.15, reached)
                    for seed in (1, 2)
                ],
                axis=0,
            )
        )
    np.testing.assert_allclose(rows[1], rows[0], rtol=0.06)


@pytest.mark.parametrize("numbers", ["ranked", "antithetic"])
@pytest.mark.parametrize("scheme", ["qe", "euler"])
def test_the_particles_mean_is_the_forward(scheme: str, numbers: str) -> None:
    options = ParticleOptions(n_particles=20_000, scheme=scheme, numbers=numbers)  # type: ignore[arg-type]
    relative = [
        np.exp(calibrated(SKEWED, HESTON, 0.25, replace(options, seed=seed)).log_spot).mean() / MARKET.forward(0.25)
        for seed in range(8)
    ]
    assert abs(np.mean(relative) - 1.0) < 3.5 * np.std(relative, ddof=1) / np.sqrt(len(relative))


def test_numbers_by_rank_scatter_less_than_independent_ones() -> None:
    reached = np.log(MARKET.forward(0.3)) + 0.12 * np.sqrt(0.3) * np.linspace(-1.0, 1.0, 9)

    def noise(numbers: str) -> float:
        options = ParticleOptions(n_particles=4096, numbers=numbers)  # type: ignore[arg-type]
        runs = [
            calibrated(SKEWED, HESTON, 0.3, replace(options, seed=seed)).leverage.row(0.3, reached)
            for seed in range(12)
        ]
        return float(np.sqrt(np.var(runs, axis=0, ddof=1).mean()))

    assert noise("ranked") < 0.75 * noise("antithetic")


def test_clips_are_counted() -> None:
    steep = replace(SKEWED, eta=9.0)
    assert calibrated(SKEWED, HESTON, 0.1).n_clipped == 0
    assert calibrated(steep, HESTON, 0.1).n_clipped > 0


def test_a_step_is_told_for_every_date() -> None:
    options = ParticleOptions(n_particles=500)
    progress = list(leverage_steps(LocalVolatility(surface=SKEWED), HESTON, 0.2, options))
    n_steps = time_grid(0.2).size - 1
    assert [step.done for step in progress] == list(range(1, n_steps + 1))
    assert {step.total for step in progress} == {n_steps}


@pytest.mark.parametrize("maturity", [1e-4, 0.01, 0.3, 2.0])
def test_dates_meet_every_pillar_and_keep_to_the_largest_step(maturity: float) -> None:
    pillars = (1e-5, 0.004, 0.0041, 30.0 / 365.0, 0.25, 1.1, 3.0)
    dates = time_grid(maturity, pillars, 5.0)
    assert dates[0] == 0.0
    assert dates[-1] == maturity
    assert set(dates) >= {pillar for pillar in pillars if pillar < maturity}
    assert np.all(np.diff(dates) > 0.0)
    assert np.diff(dates).max() < 1.21 * 5.0 / 365.0
    if maturity > 0.1:
        assert np.diff(dates)[dates[:-1] < 5.0 / 365.0].max() < 1.5 / 365.0


def grid() -> Leverage:
    return Leverage(
        expiry=np.array([0.0, 0.5, 1.0]),
        start=np.array([-0.1, -0.2, -0.3]),
        step=np.array([0.1, 0.2, 0.3]),
        value=np.array([[1.0, 1.0, 1.0], [1.2, 1.0, 1.1], [1.4, 1.0, 1.3]]),
    )


def test_the_leverage_is_linear_between_nodes_and_flat_beyond_them() -> None:
    leverage = grid()
    assert leverage.at(np.exp(-0.1), 0.5) == pytest.approx(1.1)
    assert leverage.at(np.exp(-5.0), 0.5) == pytest.approx(1.2)
    assert leverage.at(np.exp(5.0), 3.0) == pytest.approx(1.3)
    assert leverage.at(np.exp(-0.1), 0.25) == pytest.approx(0.5 * (1.0 + 1.1))


def test_the_leverage_comes_back_from_the_wire_and_from_other_dates() -> None:
    leverage = grid()
    again = Leverage.from_dict(leverage.to_dict())
    spot: Vector = np.exp(np.linspace(-0.5, 0.5, 31))
    for t in (0.0, 0.3, 0.5, 1.0):
        np.testing.assert_allclose(again.at(spot, t), leverage.at(spot, t), rtol=1e-12)
    finer = leverage.resampled(np.array([0.0, 0.5, 1.0, 1.5]))
    np.testing.assert_allclose(finer.at(spot, 0.5), leverage.at(spot, 0.5), rtol=1e-12)
    assert [column.shape for column in leverage.columns().values()] == [(9,)] * 3
