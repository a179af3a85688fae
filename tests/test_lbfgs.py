import numpy as np

from benchmarks import paper_box
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions
from tests.descents import solve
from tests.exact_vols import exact_panel, starts_nearby

MANY = paper_box.draws(20, seed=91)
NEAR = starts_nearby(MANY, seed=92)


def test_scaling_by_curvature_keeps_the_number_of_evaluations_low() -> None:
    counts = []
    for truth, start in zip(MANY, NEAR, strict=True):
        problem = fit_problem(exact_panel(truth), HESTON, CalibrationOptions())
        found = solve("lbfgs", problem, start)
        np.testing.assert_allclose(found.params, truth, rtol=1e-3)
        counts.append(found.evaluations)
    assert np.median(counts) < 60


def test_held_parameters_are_returned_to_the_last_bit() -> None:
    options = CalibrationOptions(fixed={"kappa": 1.7, "rho": -1.0 / 3.0})
    problem = fit_problem(exact_panel(MANY[1]), HESTON, options)
    params = solve("lbfgs", problem, NEAR[1]).params
    assert params[0] == 1.7
    assert params[3] == -1.0 / 3.0
