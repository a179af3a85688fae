"""Huber's loss against the formulas of the textbook, written out in numpy."""

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Matrix, Vector
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.fits import Fit, judged, room_for
from calibrant.models import HESTON
from calibrant.optimisers.levenberg_marquardt import memory_for
from calibrant.optimisers.objective import FINE, OUT_OF_ITERATIONS, Problem, evaluate, normal_equations
from calibrant.options import CalibrationOptions, Prior, Start
from calibrant.panel import OptionPanel
from calibrant.robust import residual_thresholds, sandwich_errors, spread_thresholds
from tests.exact_vols import exact_panel, exact_vols, noisy_panel

TRUTHS = paper_box.draws(6, seed=141)
EASY = np.array([2.0, 0.09, 0.6, -0.6, 0.05])


def _problem(truth: Vector, seed: int, prior: Prior | None = None) -> Problem:
    """Weighted quotes with noise of 20 bp, of which about a third lie beyond their threshold."""
    generator = np.random.default_rng(seed)
    weight = np.exp(generator.uniform(-1.0, 1.0, paper_box.EXPIRY.size))
    problem = fit_problem(noisy_panel(truth, seed, 20.0, weight), HESTON, CalibrationOptions(prior=prior))
    return problem._replace(huber=generator.uniform(5e-4, 40e-4, problem.vol.size))


def _evaluated(params: Vector, problem: Problem) -> tuple[float, Vector, Vector, Matrix]:
    """Objective, vols, residuals, Jacobian."""
    model_vol, residual, jacobian = room_for(problem)
    objective = evaluate(params, problem, FINE, model_vol, residual, jacobian)
    return objective, model_vol, residual, jacobian


def _fit_at(params: Vector, problem: Problem) -> Fit:
    arrays = room_for(problem)
    objective = evaluate(params, problem, FINE, *arrays)
    return judged(problem, params, objective, 1, OUT_OF_ITERATIONS, memory_for(params.size), arrays)


@pytest.mark.parametrize("seed", range(6))
def test_the_objective_is_quadratic_within_the_threshold_and_linear_beyond(seed: int) -> None:
    problem = _problem(TRUTHS[seed], seed)
    objective, model_vol, residual, _ = _evaluated(TRUTHS[seed], problem)
    away = np.abs(problem.root_weight * (model_vol - problem.vol))
    beyond = away > problem.huber
    assert 0.1 < beyond.mean() < 0.9
    loss = np.where(beyond, 2.0 * problem.huber * away - problem.huber**2, away**2)
    assert objective == pytest.approx(loss.sum(), rel=1e-12)
    np.testing.assert_allclose(residual**2, loss, rtol=1e-12, atol=1e-24)


@pytest.mark.parametrize("seed", range(6))
def test_its_gradient_is_that_of_differences(seed: int) -> None:
    truth = TRUTHS[seed]
    prior = Prior(parameters=1.02 * truth, standard_deviations=0.1 * np.abs(truth), noise_bp=20.0)
    problem = _problem(truth, seed, prior)
    params = truth * (1.0 + 0.01 * np.random.default_rng(seed).standard_normal(5))
    _, _, residual, jacobian = _evaluated(params, problem)
    hessian, slope = np.empty((5, 5)), np.empty(5)
    normal_equations(params, problem, residual, jacobian, hessian, slope)
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-5 * abs(params[i])
        up, down = (_evaluated(params + s * step, problem)[0] for s in (1.0, -1.0))
        # The sum of squares has twice that slope; the loss has no second derivative at its thresholds.
        size = np.sqrt(hessian[i, i] * (residual @ residual))
        assert (up - down) / (4.0 * step[i]) == pytest.approx(slope[i], abs=1e-5 * size)


def test_a_wide_threshold_changes_nothing() -> None:
    problem = _problem(TRUTHS[0], 0)
    squared = _evaluated(TRUTHS[0], problem._replace(huber=np.full(problem.vol.size, np.inf)))
    wide = _evaluated(TRUTHS[0], problem._replace(huber=np.full(problem.vol.size, 1.0)))
    assert wide[0] == squared[0]
    np.testing.assert_array_equal(wide[3], squared[3])


def test_the_threshold_is_each_quote_s_own_spread() -> None:
    generator = np.random.default_rng(142)
    spread = 1e-4 * np.exp(generator.uniform(np.log(2.0), np.log(100.0), paper_box.EXPIRY.size))
    vols = exact_vols(paper_box.LOG_MONEYNESS, paper_box.EXPIRY, TRUTHS[1])
    panel = OptionPanel.from_quotes(
        expiry=paper_box.EXPIRY, log_moneyness=paper_box.LOG_MONEYNESS, bid_iv=vols - spread, ask_iv=vols + spread
    )
    root_weight = fit_problem(panel, HESTON, CalibrationOptions()).root_weight
    np.testing.assert_allclose(spread_thresholds(panel) / root_weight, panel.ask - panel.bid, rtol=1e-9)


def test_without_spreads_it_is_one_and_a_half_median_residuals() -> None:
    problem = _problem(TRUTHS[2], 2)
    fit = _fit_at(TRUTHS[2], problem)
    median = np.median(np.abs(problem.root_weight * (fit.model_vol - problem.vol)))
    np.testing.assert_allclose(residual_thresholds(fit, problem), 1.5 * median, rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("held", [(), ("kappa",), ("theta", "rho")])
def test_errors_are_the_sandwich_with_derivatives_by_differences(seed: int, held: tuple[str, ...]) -> None:
    truth = TRUTHS[seed]
    problem = _problem(truth, seed)
    free = np.array([name not in held for name in HESTON.parameters])
    problem = problem._replace(lower=np.where(free, problem.lower, truth), upper=np.where(free, problem.upper, truth))
    errors, correlation = sandwich_errors(_fit_at(truth, problem), problem)
    k, t = problem.log_moneyness, problem.root_expiry**2
    residual = problem.root_weight * (exact_vols(k, t, truth) - problem.vol)
    rows = []
    for i in np.flatnonzero(free):
        step = np.zeros(5)
        step[i] = 1e-4 * abs(truth[i])
        rows.append(problem.root_weight * (exact_vols(k, t, truth + step) - exact_vols(k, t, truth - step)))
        rows[-1] /= 2.0 * step[i]
    jacobian = np.array(rows)
    within = np.abs(residual) <= problem.huber
    bread = np.linalg.inv(jacobian @ np.diag(within) @ jacobian.T)
    # HC3: each residual over one less the leverage of its quote.
    leverage = within * np.diag(jacobian.T @ bread @ jacobian)
    influence = np.clip(residual, -problem.huber, problem.huber) / (1.0 - leverage)
    covariance = bread @ jacobian @ np.diag(influence**2) @ jacobian.T @ bread
    expected = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(errors[free], expected, rtol=1e-4)
    np.testing.assert_allclose(
        correlation[np.ix_(free, free)], covariance / np.outer(expected, expected), rtol=0.0, atol=1e-4
    )
    assert np.isnan(errors[~free]).all()


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_a_wrong_quote_hardly_moves_the_answer(factor: float) -> None:
    panel = noisy_panel(EASY, 143, 5.0)
    iv = panel.mid.copy()
    iv[37] *= factor
    wrong = OptionPanel.from_quotes(expiry=panel.expiry, log_moneyness=panel.log_moneyness, iv=iv)
    start = [Start("network", EASY)]
    sound = calibrate(panel, HESTON, start)
    robust = calibrate(wrong, HESTON, start, CalibrationOptions(loss="huber"))
    squared = calibrate(wrong, HESTON, start)
    # One of 80 quotes pulls no harder than one at 1.5 deviations, however far off it is.
    assert (np.abs(robust.parameters - sound.parameters) < 0.7 * sound.standard_errors).all()
    assert np.abs((squared.parameters - sound.parameters) / sound.standard_errors).max() > 3.0


def test_an_exact_panel_is_recovered_by_huber_s_loss_too() -> None:
    fit = calibrate(exact_panel(EASY), HESTON, [Start("network", 1.1 * EASY)], CalibrationOptions(loss="huber"))
    np.testing.assert_allclose(fit.parameters, EASY, rtol=1e-5)
    assert fit.status == "converged"
