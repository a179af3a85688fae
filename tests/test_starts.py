import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import COARSE, Problem, evaluate
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel, identifiable
from calibrant.quotes_csv import read_csv
from calibrant.starts import objective_at, smile_shapes, surface_starts
from tests.exact_vols import exact_panel, exact_vols
from tests.shared import market_files, needs_shared

MANY = paper_box.draws(100, seed=101)


def _problem(k: Vector, t: Vector, vols: Vector) -> Problem:
    panel = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols)
    return fit_problem(identifiable(panel), HESTON, CalibrationOptions())


def test_level_slope_and_curvature_of_a_parabola_are_read_exactly() -> None:
    k, t = np.tile(np.linspace(-0.2, 0.2, 11), 2), np.repeat([0.25, 1.0], 11)
    vols = np.where(t < 0.5, 0.3 - 0.2 * k + 0.5 * k * k, 0.25 - 0.1 * k + 0.2 * k * k)
    shapes = smile_shapes(_problem(k, t, vols))
    # The ridge that settles smiles of one strike takes a millionth or so.
    np.testing.assert_allclose(shapes[:, :3], [[0.3, -0.2, 1.0], [0.25, -0.1, 0.4]], rtol=1e-4)


def test_a_smile_of_one_strike_has_a_level_and_no_shape() -> None:
    shapes = smile_shapes(_problem(np.array([0.0]), np.array([0.5]), np.array([0.2])))
    assert shapes[0, 0] == pytest.approx(0.2, rel=1e-5)
    np.testing.assert_allclose(shapes[0, 1:3], 0.0, atol=1e-12)


def test_flat_vols_give_that_variance_at_both_ends() -> None:
    k, t = np.tile(np.linspace(-0.2, 0.2, 7), 4), np.repeat([0.1, 0.5, 1.0, 2.0], 7)
    starts = surface_starts(_problem(k, t, np.full(28, 0.3)))
    np.testing.assert_allclose(starts[:, [1, 4]], 0.09, rtol=1e-4)


def test_a_skew_turned_round_turns_the_sign_of_rho() -> None:
    k, t = np.tile(np.linspace(-0.2, 0.2, 7), 3), np.repeat([0.1, 0.5, 1.0], 7)
    down, up = (surface_starts(_problem(k, t, 0.3 - s * 0.2 * k)) for s in (1.0, -1.0))
    assert (down[:, 3] < -0.1).all()
    assert (up[:, 3] > 0.1).all()


def test_starts_come_inside_the_bounds() -> None:
    bounds = np.array([[0.5, 5.0], [0.02, 0.2], [0.2, 1.0], [-0.8, -0.2], [0.02, 0.2]])
    for params in MANY[:20]:
        problem = fit_problem(exact_panel(params), HESTON, CalibrationOptions(bounds=bounds))
        starts = surface_starts(problem)
        assert (starts >= problem.lower).all()
        assert (starts <= problem.upper).all()


def test_they_lead_to_the_parameters_of_every_panel_of_the_paper_s_box() -> None:
    for params in MANY:
        np.testing.assert_allclose(calibrate(exact_panel(params), HESTON, []).parameters, params, rtol=1e-5)


def test_the_best_is_within_a_few_vol_points_of_the_surface() -> None:
    away = []
    for params in MANY:
        problem = fit_problem(exact_panel(params), HESTON, CalibrationOptions())
        best = min(objective_at(problem, start) for start in surface_starts(problem))
        away.append(np.sqrt(best / problem.vol.size))
    assert np.median(away) < 0.02
    assert np.max(away) < 0.1


def test_the_objective_of_a_start_is_that_of_the_fit() -> None:
    problem = fit_problem(exact_panel(MANY[0]), HESTON, CalibrationOptions())
    n = problem.vol.size
    expected = evaluate(MANY[1], problem, COARSE, problem.vol.copy(), np.empty(n), np.empty((5, n)))
    assert objective_at(problem, MANY[1]) == pytest.approx(expected, rel=1e-6)


def test_starts_are_finite_on_the_smallest_panels() -> None:
    k, t = np.array([-0.1, 0.0, 0.1, 0.05]), np.array([0.1, 0.1, 0.1, 1.0])
    for keep in ([0], [0, 1], [1, 3], [0, 1, 2, 3], [2, 2, 2]):
        vols = exact_vols(k[keep], t[keep], MANY[2])
        assert np.isfinite(surface_starts(_problem(k[keep], t[keep], vols))).all()


@needs_shared
def test_starts_on_real_panels_are_finite_and_near_the_quotes() -> None:
    seen = 0
    for path in market_files():
        if path.stem in ("spx_20260731_quantflow", "spx_20110124_cboe"):
            continue  # thousands of quotes, and far wings that no start comes near
        if not _has_strikes(path.stem):
            continue
        for label, panel in read_csv(path):
            problem = fit_problem(identifiable(panel), HESTON, CalibrationOptions())
            starts = surface_starts(problem)
            assert np.isfinite(starts).all(), label
            best = min(objective_at(problem, start) for start in starts)
            assert np.sqrt(best / problem.vol.size) < 0.25, label
            seen += 1
    assert seen > 60


def _has_strikes(stem: str) -> bool:
    return not stem.startswith(("eur", "gbp", "usd"))
