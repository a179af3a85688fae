"""Panels whose parameters are where the refinement ends."""

from itertools import pairwise

import numpy as np
import pytest

from calibrant.arrays import Matrix
from calibrant.calibration import Calibration, calibrate
from calibrant.fit_problem import fit_problem
from calibrant.grid import project
from calibrant.options import CalibrationOptions, Start
from calibrant.panel import OptionPanel
from calibrant.starts import objective_at
from training.domain import MARKET, PAPER
from training.fitted_panels import FITTED_DRAWS, bent_quotes, fitted_panel
from training.loss import unpack_metric
from training.market_panels import REFERENCE_VOL
from training.panels import irregular_panels, make_fitted_panels

torch = pytest.importorskip("torch", reason="the train extra is not installed")

N = 60
RECORDS = make_fitted_panels(MARKET, 9, 0, N)
DRAWS = np.random.default_rng(8).random((200, FITTED_DRAWS))


def own_and_bent() -> tuple[Matrix, Matrix]:
    """Draws of panels that are the model's own surfaces, and of the others."""
    own, bent = DRAWS.copy(), DRAWS.copy()
    own[:, FITTED_DRAWS - 52], bent[:, FITTED_DRAWS - 52] = 0.0, 1.0
    return own, bent


def calibrated(panel: OptionPanel) -> Calibration:
    return calibrate(panel, MARKET.model, [], CalibrationOptions())


def test_any_range_can_be_made_anywhere() -> None:
    for start, stop in ((0, 1), (7, 12), (N - 1, N), (5, 5)):
        assert make_fitted_panels(MARKET, 9, start, stop).tobytes() == RECORDS[start:stop].tobytes()
    with pytest.raises(ValueError, match="are quoted on its grid"):
        make_fitted_panels(PAPER, 9, 0, 1)


def test_vols_are_the_panel_s_as_the_library_projects_it_and_parameters_no_worse_than_any_other_start_s() -> None:
    low, high = MARKET.output_box()
    panels = [panel for panel in irregular_panels(MARKET, 9, 0, N) if panel.n_quotes > 12]
    judged = 0
    for record in RECORDS:
        if np.isnan(record["iv"]).all():
            continue
        seen = [panel for panel in panels if _same(project(panel, MARKET.network_grid()).iv, record["iv"])]
        if not seen:
            continue
        again = calibrated(seen[0])
        problem = fit_problem(again.panel, MARKET.model, CalibrationOptions())
        inside = bool(((low < record["params"]) & (record["params"] < high)).all())
        if inside and again.status == "converged":
            assert objective_at(problem, record["params"]) <= again.objective * 1.001 + 1e-10 * again.n_quotes
            judged += 1
    assert judged > N // 2


def _same(some: Matrix, others: Matrix) -> bool:
    return bool(np.allclose(some, others, rtol=1e-6, equal_nan=True))


def test_own_surfaces_fit_as_well_as_their_noise_and_the_others_do_not() -> None:
    own, bent = own_and_bent()
    params = MARKET.draw(DRAWS[:, :5])
    own[:, 15] = 0.0  # without noise
    rmse: list[list[float]] = [[], []]
    for kind, draws in enumerate((own[:40], bent[:40])):
        for p, draw in zip(params[:40], draws, strict=True):
            panel = fitted_panel(p, draw, MARKET)
            if panel is not None and panel.n_quotes > 20:
                found = calibrate(panel, MARKET.model, [Start("given", p)], CalibrationOptions())
                rmse[kind].append(found.rmse_bp / found.panel.mid.mean())
    assert min(map(len, rmse)) > 20
    assert np.quantile(rmse[0], 0.9) < 0.1, "a thousandth of a percent: far wings are priced to a few basis points"
    assert np.median(rmse[1]) > 50.0, "half a percent of the vol"


def test_slices_are_butterfly_free_near_the_money_and_levels_stay_within_reason() -> None:
    _, bent = own_and_bent()
    bent[:, FITTED_DRAWS - 52 + 12] = 0.0  # without noise
    for draw in bent:
        found = bent_quotes(draw)
        np.testing.assert_array_equal(found.iv, found.exact_iv)
        assert ((found.iv > 0.0) & (found.iv < 4.0)).all()
        order = np.lexsort((found.log_moneyness, found.expiry))
        np.testing.assert_array_equal(order, np.arange(order.size))
    sizes = [np.unique(bent_quotes(draw).expiry).size for draw in bent]
    assert min(sizes) <= 1
    assert max(sizes) >= 10


def test_weights_of_half_the_panels_fall_towards_the_wings() -> None:
    params = MARKET.draw(DRAWS[:, :5])
    panels = [panel for p, d in zip(params, DRAWS, strict=True) if (panel := fitted_panel(p, d, MARKET)) is not None]
    even = [bool(np.ptp(panel.weight) == 0.0) for panel in panels if panel.n_quotes > 5]
    assert 0.35 < np.mean(even) < 0.65
    falls = []
    for panel in panels:
        for first, last in pairwise(panel.offsets.tolist()):
            k, weight = panel.log_moneyness[first:last], panel.weight[first:last]
            if k.size > 5 and np.ptp(weight) > 0.0:
                falls.append(weight[np.argmin(np.abs(k))] > max(weight[0], weight[-1]))
    assert len(falls) > 100
    assert np.mean(falls) > 0.9


def test_the_metric_is_the_excess_over_the_fit_of_a_small_parameter_error() -> None:
    step = 1e-3 * np.array([1.0, -0.5, 0.7, 0.4, -1.0])
    panels = [panel for panel in irregular_panels(MARKET, 9, 0, N) if panel.n_quotes > 12]
    checked = 0
    for record in RECORDS:
        if np.isnan(record["iv"]).all():
            continue
        seen = [panel for panel in panels if _same(project(panel, MARKET.network_grid()).iv, record["iv"])]
        if not seen:
            continue
        found = calibrated(seen[0])
        at, moved = record["params"], record["params"] + MARKET.output_slope(record["params"][None])[0] * step
        if found.at_bounds or not ((MARKET.model.lower < moved) & (moved < MARKET.model.upper)).all():
            continue
        problem = fit_problem(found.panel, MARKET.model, CalibrationOptions())
        # Both ways, so that what is left of the slope cancels.
        back = 2.0 * at - moved
        excess = 0.5 * (objective_at(problem, moved) + objective_at(problem, back)) - objective_at(problem, at)
        level = REFERENCE_VOL**2 / np.mean(problem.vol**2)
        matrix = unpack_metric(torch.from_numpy(record["metric"][None].astype(np.float64))).numpy()[0]
        expected = float(step @ matrix @ step)
        # With residuals as large as real ones the Hessian is more than J'J.
        if found.rmse_bp < 20.0:
            assert excess * level / found.n_quotes == pytest.approx(expected, rel=0.1, abs=1e-14)
            checked += 1
    assert checked > 5
