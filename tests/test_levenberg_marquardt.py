import numpy as np
import pytest
from scipy.optimize import lsq_linear

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.bounded_step import bounded_step
from calibrant.optimisers.objective import (
    COARSE,
    CONVERGED,
    FINE,
    Problem,
    evaluate,
    normal_equations,
)
from calibrant.options import CalibrationOptions
from tests.descents import solve
from tests.exact_vols import exact_panel, exact_vols, noisy_panel

PARAMS = paper_box.draws(12, seed=81)


def _problem(params: Vector) -> Problem:
    return fit_problem(exact_panel(params), HESTON, CalibrationOptions())


@pytest.mark.parametrize("i", range(len(PARAMS)))
def test_vols_are_as_exact_as_asked_for(i: int) -> None:
    problem = _problem(PARAMS[i])
    n = problem.vol.size
    expiry = np.repeat(problem.expiries, np.diff(problem.offsets))
    params = PARAMS[i] * np.array([1.05, 0.95, 1.05, 0.95, 1.05])
    exact = exact_vols(problem.log_moneyness, expiry, params)
    for vol_error in (COARSE, FINE):
        vols = problem.vol.copy()
        evaluate(params, problem, vol_error, vols, np.empty(n), np.empty((0, n)))
        # The vega at the quoted vol, which sets the tolerance, differs a little from that at the model's.
        assert np.abs(vols - exact).max() < 2.0 * vol_error


def test_the_objective_does_not_depend_on_the_guess_of_the_vols() -> None:
    problem = _problem(PARAMS[0])
    n = problem.vol.size
    params = 1.1 * PARAMS[0]
    values = []
    for factor in (0.5, 1.0, 2.0):
        vols = factor * problem.vol
        values.append(evaluate(params, problem, FINE, vols, np.empty(n), np.empty((0, n))))
    np.testing.assert_allclose(values, values[0], rtol=1e-9)


@pytest.mark.parametrize("i", range(4))
def test_the_jacobian_is_that_of_the_weighted_residuals(i: int) -> None:
    weight = np.random.default_rng(82).uniform(0.1, 10.0, paper_box.EXPIRY.size)
    problem = fit_problem(noisy_panel(PARAMS[i], 83, 10.0, weight), HESTON, CalibrationOptions())
    n = problem.vol.size
    jacobian = np.empty((5, n))
    evaluate(PARAMS[i], problem, FINE, problem.vol.copy(), np.empty(n), jacobian)
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-4 * abs(PARAMS[i][j])
        up, down = np.empty(n), np.empty(n)
        evaluate(PARAMS[i] + step, problem, FINE, problem.vol.copy(), up, np.empty((0, n)))
        evaluate(PARAMS[i] - step, problem, FINE, problem.vol.copy(), down, np.empty((0, n)))
        numerical = (up - down) / (2.0 * step[j])
        np.testing.assert_allclose(jacobian[j], numerical, atol=2e-5 * np.abs(jacobian[j]).max())


@pytest.mark.parametrize("seed", range(40))
def test_a_step_solves_the_bounded_linear_problem(seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix, target = generator.standard_normal((30, 5)), generator.standard_normal(30)
    lower, upper = -0.1 * generator.random(5), 0.1 * generator.random(5)
    step = np.empty(5)
    bounded_step(np.zeros(5), lower, upper, matrix.T @ matrix, -matrix.T @ target, 0.0, np.ones(5), step)
    assert (step >= lower).all()
    assert (step <= upper).all()
    best = lsq_linear(matrix, target, (lower, upper)).cost
    here = 0.5 * float(np.sum((matrix @ step - target) ** 2))
    # An active set that never lets go of a bound need not find the best corner, only a good one.
    assert here <= 0.5 * float(target @ target)
    assert here <= best + 0.2 * (0.5 * float(target @ target) - best)


def test_without_binding_bounds_a_step_solves_the_damped_normal_equations() -> None:
    generator = np.random.default_rng(84)
    matrix, target = generator.standard_normal((30, 5)), generator.standard_normal(30)
    lower, upper = np.full(5, -1e9), np.full(5, 1e9)
    scale, step = generator.random(5), np.empty(5)
    bounded_step(np.zeros(5), lower, upper, matrix.T @ matrix, -matrix.T @ target, 0.3, scale, step)
    expected = np.linalg.solve(matrix.T @ matrix + 0.3 * np.diag(scale), matrix.T @ target)
    np.testing.assert_allclose(step, expected, rtol=1e-10)


def test_normal_equations_include_the_prior() -> None:
    generator = np.random.default_rng(85)
    residual, jacobian = generator.standard_normal(80), generator.standard_normal((5, 80))
    mean, precision = generator.standard_normal(5), generator.random(5)
    problem = _problem(PARAMS[0])._replace(prior_mean=mean, prior_precision=precision)
    hessian, slope, params = np.empty((5, 5)), np.empty(5), generator.standard_normal(5)
    normal_equations(params, problem, residual, jacobian, hessian, slope)
    np.testing.assert_allclose(hessian, jacobian @ jacobian.T + np.diag(precision), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slope, jacobian @ residual + precision * (params - mean), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("i", range(len(PARAMS)))
def test_a_start_at_the_optimum_is_recognised_in_a_few_evaluations(i: int) -> None:
    found = solve("lm", _problem(PARAMS[i]), PARAMS[i], 100)
    assert found.outcome == CONVERGED
    assert found.evaluations <= 4
    np.testing.assert_allclose(found.params, PARAMS[i], rtol=1e-7)


def test_trials_far_from_the_market_do_not_break_it() -> None:
    problem = _problem(PARAMS[3])
    for corner in range(32):
        start = np.where([(corner >> j) & 1 for j in range(5)], problem.upper, problem.lower)
        found = solve("lm", problem, start, 30)
        assert np.isfinite(found.objective)
        assert np.isfinite(found.params).all()
        assert (found.params >= problem.lower).all()
        assert (found.params <= problem.upper).all()
