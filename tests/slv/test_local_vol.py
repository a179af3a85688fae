import json

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.compiled import careful
from calibrant.market import Curve, Market
from calibrant.slv.local_vol import LocalVolatility, row_at
from calibrant.slv.surface import ClosedForm, implied_vol
from tests.shared import needs_shared
from tests.slv import reference

FLAT = ClosedForm(
    market=Market.flat(1.25, 0.03, 0.01), s0=0.2, sinf=0.2, b=1.0, r0=0.0, rinf=0.0, a=1.0, eta=0.0, gam=0.0, th0=1e-4
)
CURVED = ClosedForm(
    market=Market.flat(4.05, 0.08, -0.003),
    s0=0.118, sinf=0.16, b=0.9, r0=0.33, rinf=0.52, a=1.0, eta=1.1, gam=0.48, th0=0.0012,
)  # fmt: skip


def test_derivatives_of_the_closed_form_are_those_of_its_values() -> None:
    generator = np.random.default_rng(1)
    t = np.exp(generator.uniform(np.log(0.02), np.log(5.0), 200))
    k = generator.uniform(-3.0, 3.0, 200) * 0.15 * np.sqrt(t)
    here = CURVED.total_variance(k, t)
    h, s = 1e-5 * np.sqrt(t), 1e-5 * t
    up, down = CURVED.total_variance(k + h, t), CURVED.total_variance(k - h, t)
    later, sooner = CURVED.total_variance(k, t + s), CURVED.total_variance(k, t - s)
    np.testing.assert_allclose((up.w - down.w) / (2.0 * h), here.w_k, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose((up.w_k - down.w_k) / (2.0 * h), here.w_kk, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose((later.w - sooner.w) / (2.0 * s), here.w_t, rtol=1e-6, atol=1e-8)


def test_local_vol_of_a_flat_surface_is_its_vol() -> None:
    vol, below, above = LocalVolatility(surface=FLAT).at(
        np.linspace(-1.0, 1.0, 41), np.array([[0.0], [1e-3], [1.0], [9.0]])
    )
    np.testing.assert_allclose(vol, 0.2, rtol=1e-10)
    assert (below, above) == (0, 0)


def test_local_vol_is_continuous_at_time_zero() -> None:
    local_vol = LocalVolatility(surface=CURVED)
    k = np.linspace(-0.3, 0.3, 31)
    np.testing.assert_allclose(local_vol.at(k, 0.0).vol, local_vol.at(k, 1e-3).vol, rtol=5e-3)


@needs_shared
def test_local_vol_is_that_of_the_reference() -> None:
    cases = json.loads((reference.FOLDER / "cases.json").read_text())
    for row in reference.rows("leverage.csv"):
        local_vol = LocalVolatility(surface=reference.surface(cases[row["case"]]["surface"]))
        assert local_vol(np.log(float(row["S"])), float(row["t"])) == pytest.approx(
            float(row["sigma_dupire"]), rel=3e-5
        )


def test_clips_are_counted_by_side() -> None:
    local_vol = LocalVolatility(surface=CURVED, floor=0.12, cap=0.15)
    k = np.linspace(-0.4, 0.4, 81)
    free = LocalVolatility(surface=CURVED).at(k, 1.0)
    assert (free.below, free.above) == (0, 0)
    clipped = local_vol.at(k, 1.0)
    assert (clipped.below, clipped.above) == ((free.vol < 0.12).sum(), (free.vol > 0.15).sum())
    assert clipped.below > 0
    assert clipped.above > 0
    np.testing.assert_array_equal(clipped.vol, np.clip(free.vol, 0.12, 0.15))


def test_arbitrage_is_clipped_and_counted_and_never_a_nan() -> None:
    # A wing that is steeper than any density allows, and a vol that falls faster than 1 / t.
    steep = ClosedForm(
        market=Market.flat(1.0, 0.0, 0.0),
        s0=0.3, sinf=0.01, b=9.0, r0=-0.9, rinf=-0.9, a=1.0, eta=40.0, gam=0.5, th0=1e-4,
    )  # fmt: skip
    vol, below, above = LocalVolatility(surface=steep).at(np.linspace(-1.0, 1.0, 201), np.array([[0.1], [1.0], [3.0]]))
    assert np.isfinite(vol).all()
    assert above > 0
    assert below + above < vol.size


@careful
def _read(row: Vector, start: float, inverse_step: float, places: Vector, out: Vector) -> None:
    for i in range(places.size):
        out[i] = row_at(row, start, inverse_step, places[i])


def test_rows_of_a_grid_give_the_local_vol_back_between_their_nodes() -> None:
    local_vol = LocalVolatility(surface=CURVED)
    grid = local_vol.grid(np.array([0.0, 0.05, 1.0, 5.0]))
    assert grid.n_clipped == 0
    generator = np.random.default_rng(2)
    for i, t in enumerate(grid.expiry):
        lowest, highest = grid.log_spot[i, [0, -1]]
        x = generator.uniform(lowest, highest, 500)
        out = np.empty(x.size)
        _read(grid.vol[i], grid.start[i], 1.0 / grid.step[i], x, out)
        np.testing.assert_allclose(out, local_vol(x, t), rtol=2e-3)
        ends = np.empty(2)
        _read(grid.vol[i], grid.start[i], 1.0 / grid.step[i], np.array([lowest - 1.0, highest + 1.0]), ends)
        np.testing.assert_array_equal(ends, grid.vol[i, [0, -1]])


def test_a_curve_has_its_rates_at_its_pillars_and_constant_forward_rates_between() -> None:
    curve = Curve(expiry=np.array([0.5, 2.0]), zero=np.array([0.01, 0.03]))
    np.testing.assert_allclose(
        curve.integral([0.25, 0.5, 1.0, 2.0, 4.0]), [0.0025, 0.005, 0.005 + 0.055 / 3.0, 0.06, 0.12]
    )
    market = Market(spot=2.0, domestic=curve, foreign=Curve.flat(0.01))
    np.testing.assert_allclose(market.forward(2.0), 2.0 * np.exp(0.04))
    np.testing.assert_allclose(market.discount(2.0), np.exp(-0.06))


def test_implied_vol_is_the_root_of_total_variance_over_expiry() -> None:
    np.testing.assert_allclose(implied_vol(CURVED, 0.0, 1e-6), 0.118, rtol=1e-5)
