"""Every optimiser on every problem: a new one is an entry of `descents.SOLVERS`, a new problem one of PROBLEMS."""

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.newton import polish
from calibrant.optimisers.objective import COARSE, CONVERGED, FINE, OUT_OF_ITERATIONS, SETTLED, Problem, evaluate
from calibrant.options import CalibrationOptions, Prior
from calibrant.panel import OptionPanel
from tests.descents import SOLVERS, Solved, solve
from tests.exact_vols import exact_panel, exact_vols, noisy_panel

TRUTH = np.array([2.0, 0.09, 0.6, -0.6, 0.05])


def slope(problem: Problem, found: Solved) -> Vector:
    """Cosine between each column of the Jacobian (the prior's row included) and the residuals."""
    gradient = found.jacobian @ found.residual + problem.prior_precision * (found.params - problem.prior_mean)
    size = np.sqrt((found.jacobian**2).sum(axis=1) + problem.prior_precision)
    cosine: Vector = gradient / (size * np.sqrt(found.objective))
    return cosine


def _noiseless() -> Problem:
    return fit_problem(exact_panel(TRUTH), HESTON, CalibrationOptions())


def _noisy() -> Problem:
    return fit_problem(noisy_panel(TRUTH, 71, 0.5), HESTON, CalibrationOptions())


def _poor_fit() -> Problem:
    return fit_problem(noisy_panel(TRUTH, 72, 300.0), HESTON, CalibrationOptions())


def _weighted() -> Problem:
    weight = np.exp(np.random.default_rng(73).uniform(-3.0, 3.0, paper_box.EXPIRY.size))
    return fit_problem(noisy_panel(TRUTH, 74, 20.0, weight), HESTON, CalibrationOptions())


def _on_bounds() -> Problem:
    bounds = np.column_stack([HESTON.lower, HESTON.upper])
    bounds[1, 0], bounds[3, 1] = 0.1, -0.7
    return fit_problem(noisy_panel(TRUTH, 75, 5.0), HESTON, CalibrationOptions(bounds=bounds))


def _held() -> Problem:
    return fit_problem(noisy_panel(TRUTH, 76, 5.0), HESTON, CalibrationOptions(fixed={"kappa": 3.0, "rho": -0.5}))


def _one_expiry_and_a_prior() -> Problem:
    k, t = np.linspace(-0.4, 0.4, 21), np.full(21, 0.5)
    vols = exact_vols(k, t, TRUTH) + 5e-4 * np.random.default_rng(77).standard_normal(21)
    prior = Prior(parameters=1.2 * TRUTH, standard_deviations=np.array([1.0, 0.05, np.inf, np.inf, 0.05]))
    panel = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols)
    return fit_problem(panel, HESTON, CalibrationOptions(prior=prior))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "noiseless": _noiseless,
    "noisy": _noisy,
    "poor fit": _poor_fit,
    "weighted": _weighted,
    "on bounds": _on_bounds,
    "held": _held,
    "one expiry and a prior": _one_expiry_and_a_prior,
}
STARTS = {"near": 1.1 * TRUTH, "far": np.array([6.0, 0.3, 1.3, -0.1, 0.3])}
FLAT = {"lm": 1e-6, "lbfgs": 1e-3}
"""Cosine left at the end: an objective flat to its last digit has a slope of the root of that, and L-BFGS judges by a
ten-millionth of the objective."""
VOL_ERROR = {"lm": FINE, "lbfgs": COARSE}
"""Of the vols that come with the answer."""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_minimum_inside_the_bounds_is_found(solver: str, problem: str, start: str) -> None:
    fit = PROBLEMS[problem]()
    found = solve(solver, fit, STARTS[start])
    assert (found.params >= fit.lower).all()
    assert (found.params <= fit.upper).all()
    if problem == "noiseless":
        np.testing.assert_allclose(found.params, TRUTH, rtol=1e-5 if solver == "lm" else 1e-3)
        return
    assert found.outcome != OUT_OF_ITERATIONS
    cosine = slope(fit, found)
    inside = (found.params > fit.lower) & (found.params < fit.upper)
    assert (np.abs(cosine[inside]) < FLAT[solver]).all()
    assert (cosine[(found.params == fit.lower) & (fit.upper > fit.lower)] > 0.0).all()
    assert (cosine[(found.params == fit.upper) & (fit.upper > fit.lower)] < 0.0).all()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_returned_belongs_to_the_parameters_returned(solver: str, problem: str) -> None:
    fit = PROBLEMS[problem]()
    found = solve(solver, fit, STARTS["near"])
    n = fit.vol.size
    vols, residual, jacobian = fit.vol.copy(), np.empty(n), np.empty((5, n))
    objective = evaluate(found.params, fit, VOL_ERROR[solver], vols, residual, jacobian)
    assert found.objective == pytest.approx(objective, rel=1e-9, abs=1e-18)
    np.testing.assert_allclose(found.model_vol, vols, rtol=0.0, atol=1e-11)
    np.testing.assert_allclose(found.residual, fit.root_weight * (vols - fit.vol), rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found.jacobian, jacobian, rtol=1e-7, atol=1e-9 * np.abs(jacobian).max())
    exact = fit.vol.copy()
    evaluate(found.params, fit, FINE, exact, residual, jacobian)
    np.testing.assert_allclose(found.model_vol, exact, rtol=0.0, atol=10.0 * VOL_ERROR[solver])


@pytest.mark.parametrize("problem", ["noisy", "poor fit", "weighted", "on bounds", "held", "one expiry and a prior"])
def test_all_optimisers_agree_on_the_optimum(problem: str) -> None:
    fit = PROBLEMS[problem]()
    polished = []
    for name in SOLVERS:
        near = solve(name, fit, STARTS["near"])
        found = solve("lm", fit, near.params)
        assert near.objective <= found.objective * (1.0 + 1e-2)
        params = found.params.copy()
        polish(params, fit, found.model_vol, found.residual, found.jacobian)
        np.testing.assert_allclose(found.params, params, rtol=1e-4)
        polished.append(params)
    np.testing.assert_allclose(polished[1], polished[0], rtol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_number_of_evaluations_is_bounded_and_what_was_gained_is_kept(solver: str) -> None:
    fit = PROBLEMS["noisy"]()
    n = fit.vol.size
    at_start = evaluate(STARTS["far"], fit, FINE, fit.vol.copy(), np.empty(n), np.empty((0, n)))
    found = solve(solver, fit, STARTS["far"], max_evaluations=4)
    assert found.outcome == OUT_OF_ITERATIONS
    assert found.evaluations <= 4 + 22  # a line search may end its round
    assert found.objective < at_start


@pytest.mark.parametrize("problem", ["noiseless", "noisy"])
def test_levenberg_marquardt_reaches_all_digits_by_itself_where_the_fit_is_good(problem: str) -> None:
    assert solve("lm", PROBLEMS[problem](), STARTS["near"]).outcome == CONVERGED


@pytest.mark.parametrize("solver", SOLVERS)
def test_starting_on_a_bound_that_is_not_binding_does_no_harm(solver: str) -> None:
    fit = PROBLEMS["noisy"]()
    start = TRUTH.copy()
    start[[1, 3]] = fit.lower[1], -0.9
    found = solve(solver, fit, start)
    assert found.outcome in (CONVERGED, SETTLED) or np.abs(slope(fit, found)).max() < 1e-6
    rtol = 1e-5 if solver == "lm" else 1e-2
    np.testing.assert_allclose(found.params, solve("lm", fit, STARTS["near"]).params, rtol=rtol)
