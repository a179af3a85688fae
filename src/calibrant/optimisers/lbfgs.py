"""L-BFGS-B (Byrd, Lu, Nocedal & Zhu 1995, scipy's) on the objective of the Levenberg-Marquardt stage, exact gradient.

The variables are scaled by the curvature of the objective at the start: the method keeps its own estimate of the
Hessian and starts it at the identity, so without scaling it takes hundreds of steps along the kappa-theta valley.
"""

import numpy as np
from scipy.optimize import minimize

from ..arrays import Matrix, Vector
from .levenberg_marquardt import FINE, NO_DESCENT, OUT_OF_ITERATIONS, SETTLED, Problem, evaluate


def lbfgs(
    params: Vector,
    problem: Problem,
    max_evaluations: int,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
) -> tuple[float, int, int]:
    """Minimise from `params`; arguments and result as `levenberg_marquardt`."""
    free = problem.upper > problem.lower
    evaluate(params, problem, FINE, model_vol, residual, jacobian)
    scale = 1.0 / np.sqrt(np.maximum((jacobian * jacobian).sum(axis=1) + problem.prior_precision, 1e-300))
    scale = np.where(free, scale, 1.0)
    best = params.copy()
    best_objective = np.inf
    count = 1

    def objective(x: Vector) -> tuple[float, Vector]:
        nonlocal best, best_objective, count
        trial = np.clip(x * scale, problem.lower, problem.upper)
        value = float(evaluate(trial, problem, FINE, model_vol, residual, jacobian))
        count += 1
        if value < best_objective:
            best, best_objective = trial, value
        slope = 2.0 * (jacobian @ residual + problem.prior_precision * (trial - problem.prior_mean))
        return value, slope * scale

    bounds = list(zip(problem.lower / scale, problem.upper / scale, strict=True))
    found = minimize(
        objective,
        params / scale,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxfun": max_evaluations, "maxiter": max_evaluations, "maxcor": 20, "ftol": 1e-16, "gtol": 1e-14},
    )
    # It judges by the objective, so it never has all digits. Its line search gives up ("ABNORMAL") where rounding
    # hides all descent: that too is the optimum it can see.
    outcome = SETTLED if found.status == 0 else OUT_OF_ITERATIONS if found.status == 1 else NO_DESCENT
    params[:] = best
    value = float(evaluate(params, problem, FINE, model_vol, residual, jacobian))
    return value, count + 1, outcome
