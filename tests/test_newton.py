import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.newton import polish
from calibrant.optimisers.objective import CONVERGED, SETTLED, Problem
from calibrant.options import CalibrationOptions
from tests.descents import solve
from tests.exact_vols import exact_panel, noisy_panel

TRUTH = np.array([2.0, 0.09, 0.6, -0.6, 0.05])


def _near_minimum(problem: Problem) -> Vector:
    return solve("lm", problem, TRUTH, 200).params


def _polished(problem: Problem, start: Vector) -> tuple[Vector, int]:
    n = problem.vol.size
    params = start.copy()
    _, _, outcome = polish(params, problem, problem.vol.copy(), np.empty(n), np.empty((5, n)))
    return params, outcome


@pytest.mark.parametrize("noise_bp", [1.0, 30.0, 300.0, 1000.0])
def test_points_around_a_minimum_are_moved_onto_the_same_digits(noise_bp: float) -> None:
    problem = fit_problem(noisy_panel(TRUTH, 93, noise_bp), HESTON, CalibrationOptions())
    minimum = _near_minimum(problem)
    generator = np.random.default_rng(94)
    ends = []
    for _ in range(5):
        end, outcome = _polished(problem, minimum * (1.0 + 1e-4 * generator.standard_normal(5)))
        assert outcome == CONVERGED
        ends.append(end)
    np.testing.assert_allclose(np.array(ends), np.tile(ends[0], (5, 1)), rtol=1e-9)
    np.testing.assert_allclose(ends[0], minimum, rtol=1e-4)


def test_a_bound_reached_up_to_rounding_is_a_bound() -> None:
    # 2 is chosen for being exact: next to it lie its neighbours in floating point.
    bounds = np.column_stack([HESTON.lower, HESTON.upper])
    bounds[0, 0] = 2.0
    panel = noisy_panel(np.array([1.0, 0.09, 0.6, -0.6, 0.05]), 95, 100.0)
    problem = fit_problem(panel, HESTON, CalibrationOptions(bounds=bounds))
    minimum = _near_minimum(problem)
    assert minimum[0] == 2.0
    off = minimum.copy()
    off[0] = np.nextafter(2.0, 3.0)
    exact, outcome = _polished(problem, minimum)
    nudged, other = _polished(problem, off)
    assert outcome == other == CONVERGED
    assert nudged[0] == 2.0
    np.testing.assert_allclose(nudged, exact, rtol=1e-9)


def test_far_from_any_minimum_nothing_is_made_worse() -> None:
    problem = fit_problem(exact_panel(TRUTH), HESTON, CalibrationOptions())
    n = problem.vol.size
    for start in (np.array([30.0, 2.0, 5.0, 0.5, 2.0]), np.array([0.1, 0.01, 3.0, 0.9, 0.5])):
        vols, residual, jacobian = problem.vol.copy(), np.empty(n), np.empty((5, n))
        params = start.copy()
        objective, _, outcome = polish(params, problem, vols, residual, jacobian)
        before = solve("lm", problem, start, 1).objective
        assert outcome == SETTLED
        assert objective <= before * (1.0 + 1e-6)


def test_held_parameters_stay() -> None:
    problem = fit_problem(noisy_panel(TRUTH, 96, 30.0), HESTON, CalibrationOptions(fixed={"xi": 0.7, "v0": 0.06}))
    end, outcome = _polished(problem, _near_minimum(problem))
    assert outcome == CONVERGED
    assert end[2] == 0.7
    assert end[4] == 0.06
