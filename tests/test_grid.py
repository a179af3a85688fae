import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility
from calibrant.errors import InvalidInput
from calibrant.grid import EXPIRY_REACH, STRIKE_REACH, Grid, project, project_on_nodes
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import call_prices
from calibrant.quotes_csv import read_csv
from tests.shared import market_files, needs_shared

GRID = Grid(expiry=np.linspace(0.1, 2.0, 8), log_moneyness=np.log(np.linspace(0.8, 1.2, 10)))
ON_ROWS, ON_COLUMNS = (m.ravel() for m in np.meshgrid(GRID.expiry, GRID.log_moneyness, indexing="ij"))


def _irregular(n_expiries: int = 7, n_strikes: int = 17) -> tuple[Vector, Vector]:
    """Expiries and log-moneyness off the grid, strikes spread over three standard deviations of a 40 % vol."""
    expiry = np.repeat(np.geomspace(0.07, 2.4, n_expiries), n_strikes)
    k = np.tile(np.linspace(-3.0, 3.0, n_strikes), n_expiries) * 0.4 * np.sqrt(expiry)
    return expiry, k


def _panel(expiry: Vector, k: Vector, iv: Vector) -> OptionPanel:
    return OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=iv)


def test_a_panel_on_the_grid_is_copied_to_the_bit() -> None:
    iv = np.random.default_rng(1).uniform(0.1, 0.6, ON_ROWS.size)
    iv[[3, 40, 77]] = np.nan
    forward = 4468.17
    strike = forward * np.tile(np.linspace(0.8, 1.2, 10), 8)
    panel = OptionPanel.from_quotes(expiry=ON_ROWS, strike=strike, forward=forward, iv=iv)
    projection = project(panel, GRID)
    assert projection.on_grid
    np.testing.assert_array_equal(projection.iv, iv.reshape(GRID.shape))
    np.testing.assert_array_equal(projection.mask, np.isfinite(iv).reshape(GRID.shape))


def test_quotes_at_one_node_count_by_their_weights() -> None:
    k = GRID.log_moneyness[2]
    panel = OptionPanel.from_quotes(
        expiry=[0.1, 0.1, 0.1], log_moneyness=[k, k, k], iv=[0.2, 0.23, 0.3], weight=[2.0, 1.0, 1.0]
    )
    projection = project(panel, GRID)
    assert projection.mask.sum() == 1
    assert projection.iv[0, 2] == pytest.approx((2 * 0.2 + 0.23 + 0.3) / 4, rel=1e-14)


def test_expiries_that_differ_by_less_than_a_node_is_wide_share_its_row() -> None:
    k = GRID.log_moneyness
    expiry = np.repeat([0.1, 0.1 * (1.0 + 5e-10), 2.0], [k.size, 2, 3])
    iv = np.concatenate((np.full(k.size, 0.2), [0.3, 0.4], [0.5, 0.6, 0.7]))
    projection = project(_panel(expiry, np.concatenate((k, k[[2, 7]], k[[0, 4, 9]])), iv), GRID)
    assert projection.on_grid
    assert projection.n_filled == np.count_nonzero(projection.mask) == k.size + 3
    np.testing.assert_allclose(projection.iv[0, [1, 2, 7]], [0.2, 0.25, 0.3], rtol=1e-14)
    np.testing.assert_array_equal(projection.iv[7, [0, 4, 9]], [0.5, 0.6, 0.7])


def test_only_a_panel_on_the_nodes_is_projected_on_nodes() -> None:
    on = _panel(ON_ROWS, ON_COLUMNS, np.random.default_rng(12).uniform(0.1, 0.6, ON_ROWS.size))
    copied = project_on_nodes(on, GRID)
    assert copied is not None
    np.testing.assert_array_equal(copied.iv, project(on, GRID).iv)
    off = _panel(np.append(ON_ROWS, 2.0), np.append(ON_COLUMNS, 0.3), np.full(ON_ROWS.size + 1, 0.2))
    assert project_on_nodes(off, GRID) is None
    relative = Grid(expiry=GRID.expiry, log_moneyness=GRID.log_moneyness, standardised=True)
    assert project_on_nodes(on, relative) is None
    assert not project(on, relative).on_grid


@pytest.mark.parametrize("standardised", [False, True])
def test_a_row_of_nodes_is_filled_the_same_whatever_the_others_are(standardised: bool) -> None:
    expiry, k = _irregular()
    panel = _panel(expiry, k, np.random.default_rng(13).uniform(0.2, 0.3, k.size))
    rows = np.geomspace(0.05, 3.0, 12)
    columns = np.linspace(-1.0, 1.0, 11) * (7.0 if standardised else 0.75)
    whole = project(panel, Grid(expiry=rows, log_moneyness=columns, standardised=standardised))
    assert 0 < np.count_nonzero(whole.mask) < whole.mask.size
    for i in range(rows.size):
        alone = project(panel, Grid(expiry=rows[i : i + 1], log_moneyness=columns, standardised=standardised))
        np.testing.assert_array_equal(whole.iv[i], alone.iv[0])


def test_one_quote_off_the_grid_makes_the_panel_irregular() -> None:
    iv = np.full(ON_ROWS.size + 1, 0.2)
    panel = _panel(np.append(ON_ROWS, 0.3), np.append(ON_COLUMNS, 0.05), iv)
    projection = project(panel, GRID)
    assert not projection.on_grid
    np.testing.assert_allclose(projection.iv, 0.2, rtol=1e-12)


def test_a_flat_surface_stays_flat() -> None:
    expiry, k = _irregular()
    projection = project(_panel(expiry, k, np.full(expiry.size, 0.37)), GRID)
    assert projection.mask.all()
    np.testing.assert_allclose(projection.iv, 0.37, rtol=1e-12)


def test_parabolas_in_total_variance_are_reproduced_at_quoted_expiries() -> None:
    def total_variance(t: Vector, k: Vector) -> Vector:
        return 0.04 * t * (1.0 - 0.6 * k + 1.7 * k * k)

    expiry = np.repeat(GRID.expiry, 9)
    k = np.tile(np.linspace(-0.25, 0.2, 9), 8)
    projection = project(_panel(expiry, k, np.sqrt(total_variance(expiry, k) / expiry)), GRID)
    assert not projection.on_grid
    assert projection.mask.all()
    expected = np.sqrt(total_variance(ON_ROWS, ON_COLUMNS) / ON_ROWS).reshape(GRID.shape)
    np.testing.assert_allclose(projection.iv, expected, rtol=1e-10)


def test_the_at_the_money_level_is_a_cubic_in_time_and_not_a_chord() -> None:
    # Total variance theta t + (v0 - theta)(1 - e^{-kappa t}) / kappa, from four expiries: chords miss by 50 bp.
    expiry = np.repeat([0.08, 0.5, 1.2, 2.2], 9)
    k = np.tile(np.linspace(-1.5, 1.5, 9), 4) * np.sqrt(expiry)

    def vol(t: Vector) -> Vector:
        return np.sqrt(0.09 + (0.02 - 0.09) * (1.0 - np.exp(-2.0 * t)) / (2.0 * t))

    found = project(_panel(expiry, k, vol(expiry)), GRID).iv
    assert np.abs(found - vol(GRID.expiry)[:, np.newaxis]).max() < 25e-4


def _heston_vols(params: Vector, expiry: Vector, k: Vector) -> Vector:
    calls = call_prices(HESTON, k, expiry, params)
    return implied_volatility(calls, k, expiry, price_error=1e-13).volatility


def test_exact_heston_surfaces_are_met_within_basis_points() -> None:
    expiry, k = _irregular()
    errors: list[Matrix] = []
    for params in paper_box.draws(20, seed=8):
        projection = project(_panel(expiry, k, _heston_vols(params, expiry, k)), GRID)
        exact = _heston_vols(params, ON_ROWS, ON_COLUMNS).reshape(GRID.shape)
        errors.append(1e4 * np.abs(projection.iv - exact)[projection.mask & np.isfinite(exact)])
    away_bp = np.concatenate(errors)
    assert away_bp.size > 1000
    assert np.median(away_bp) < 2.0
    assert np.quantile(away_bp, 0.9) < 12.0


def test_noise_in_a_dense_chain_is_averaged_out() -> None:
    expiry, k = _irregular(n_strikes=201)
    noise = 20e-4 * np.random.default_rng(9).normal(size=k.size)
    away = project(_panel(expiry, k, 0.4 + noise), GRID).iv - 0.4
    assert np.sqrt(np.mean(away * away)) < 8e-4


def test_a_wild_quote_does_not_throw_the_surface_beyond_its_neighbours() -> None:
    expiry, k = _irregular()
    iv = np.full(expiry.size, 0.3)
    iv[40] = 4.0
    projection = project(_panel(expiry, k, iv), GRID)
    assert projection.mask.all()
    assert projection.iv.min() > 0.15
    assert projection.iv.max() < 6.0


def test_tight_quotes_count_more_than_wide_ones() -> None:
    expiry, k = np.full(10, 1.2), np.repeat(np.linspace(-0.3, 0.3, 5), 2)
    iv = np.tile([0.20, 0.30], 5)
    tight = OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=iv, weight=np.tile([1e8, 1e4], 5))
    even = OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=iv)
    assert np.nanmax(project(tight, GRID).iv) < 0.203
    assert np.nanmin(project(even, GRID).iv) > 0.24


def test_nodes_far_outside_the_quotes_are_masked() -> None:
    expiry, reach = GRID.expiry[3], 0.1
    k = np.linspace(-reach, reach, 9)
    projection = project(_panel(np.full(9, expiry), k, np.full(9, 0.2)), GRID)
    sd = 0.2 * np.sqrt(expiry)
    near = np.abs(GRID.log_moneyness) <= reach + STRIKE_REACH * sd
    assert 0 < near.sum() < near.size
    np.testing.assert_array_equal(projection.mask[3], near)
    rows = (GRID.expiry >= expiry / EXPIRY_REACH) & (GRID.expiry <= expiry * EXPIRY_REACH)
    np.testing.assert_array_equal(projection.mask.any(axis=1), rows)
    np.testing.assert_allclose(projection.iv[projection.mask], 0.2, rtol=1e-12)


def test_beyond_the_last_quote_the_smile_goes_on_straight_in_total_variance() -> None:
    expiry = GRID.expiry[4]
    k = np.linspace(-0.15, 0.15, 13)
    projection = project(_panel(np.full(13, expiry), k, np.sqrt(0.04 - 0.1 * k)), GRID)
    expected = np.sqrt(0.04 - 0.1 * GRID.log_moneyness)
    np.testing.assert_allclose(projection.iv[4], expected, rtol=1e-9)


def test_a_single_quote_fills_the_nodes_beside_it() -> None:
    projection = project(_panel(np.array([0.9]), np.array([0.02]), np.array([0.25])), GRID)
    assert 0 < projection.mask.sum() < projection.mask.size
    np.testing.assert_allclose(projection.iv[projection.mask], 0.25, rtol=1e-12)


def test_a_panel_far_from_every_node_leaves_all_of_them_masked() -> None:
    projection = project(_panel(np.full(5, 0.01), np.linspace(-0.1, 0.1, 5), np.full(5, 0.3)), GRID)
    assert not projection.mask.any()
    assert np.isnan(projection.iv).all()


def test_the_order_of_the_quotes_and_the_unit_of_strikes_leave_no_trace() -> None:
    rng = np.random.default_rng(10)
    expiry, k = _irregular()
    iv = rng.uniform(0.2, 0.3, k.size)
    strike = 100.0 * np.exp(k)
    first = project(OptionPanel.from_quotes(expiry=expiry, strike=strike, forward=100.0, iv=iv), GRID).iv
    order = rng.permutation(k.size)
    shuffled = OptionPanel.from_quotes(expiry=expiry[order], strike=strike[order], forward=100.0, iv=iv[order])
    np.testing.assert_array_equal(project(shuffled, GRID).iv, first)
    scaled = OptionPanel.from_quotes(expiry=expiry, strike=1000.0 * strike, forward=1e5, iv=iv)
    np.testing.assert_allclose(project(scaled, GRID).iv, first, rtol=1e-10)


def test_ten_thousand_quotes_with_duplicates_are_projected() -> None:
    rng = np.random.default_rng(11)
    expiry = rng.choice(np.geomspace(0.05, 3.0, 40), 10_000)
    k = rng.choice(np.linspace(-0.6, 0.6, 25), 10_000)
    projection = project(_panel(expiry, k, 0.3 + 10e-4 * rng.normal(size=10_000)), GRID)
    assert projection.mask.all()
    assert np.abs(projection.iv - 0.3).max() < 20e-4


@needs_shared
def test_every_market_panel_is_projected_within_the_range_of_its_vols() -> None:
    n_panels = 0
    for path in market_files():
        try:
            panels = read_csv(path)
        except InvalidInput:
            continue
        for label, panel in panels:
            projection = project(panel, GRID)
            np.testing.assert_array_equal(projection.mask, np.isfinite(projection.iv))
            vols = projection.iv[projection.mask]
            assert ((vols > 0.5 * panel.mid.min()) & (vols < 1.5 * panel.mid.max())).all(), label
            n_panels += 1
    assert n_panels == 16 + 64


@pytest.mark.parametrize(
    ("expiry", "log_moneyness", "name"),
    [
        ([0.1, 0.1], [0.0], "expiry"),
        ([0.0, 1.0], [0.0], "expiry"),
        ([0.1, np.nan], [0.0], "expiry"),
        ([0.1, 1.0], [0.1, 0.0], "log_moneyness"),
        ([0.1, 1.0], [], "log_moneyness"),
        ([[0.1], [1.0]], [0.0], "expiry"),
    ],
)
def test_a_grid_without_ascending_nodes_is_refused(expiry: list[float], log_moneyness: list[float], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        Grid(expiry=np.array(expiry), log_moneyness=np.array(log_moneyness))
