"""Newton's method with bounds: the last digits where a poor fit leaves Gauss-Newton to converge slowly or not at all.

Gauss-Newton drops the residuals' own curvature. Near a fit of hundreds of basis points that is most of the Hessian in
the weak directions, steps shrink by half each or swing, and where they stop depends on the rounding of the strikes. The
full Hessian, from differences of the exact gradient, costs one evaluation a parameter and ends that: each step leaves
about a ten-thousandth of the error.
"""

import math

import numpy as np

from ..arrays import Matrix, Vector
from ..compiled import kernel
from .bounded_step import bounded_step
from .objective import CONVERGED, FINE, SETTLED, Problem, evaluate, normal_equations

_VOL_CHANGE = 1e-6
"""Root mean square change of the vols over a difference: far above the kernel's error, far below the curvature."""
_MAX_STEPS = 6
_CLOSE = 1e-12
"""Of the interval between the bounds."""


@kernel
def polish(
    params: Vector, problem: Problem, model_vol: Vector, residual: Vector, jacobian: Matrix
) -> tuple[float, int, int]:
    """Move `params` from near a minimum onto it; where that fails they stay where they were.

    params     (n_params,), on entry near a minimum, inside the bounds
    model_vol  (n_quotes,), a guess on entry where positive; residual, jacobian: filled, at the minimum
    returns    (objective, evaluations, CONVERGED | SETTLED)

    Converged means: the last step predicts a change of the residuals below 1e-8 of their root mean square, or below
    1e-12 in vol.
    """
    n = params.size
    n_quotes = residual.size
    gauss_newton = np.empty((n, n))
    unused = np.empty((n, n))
    hessian = np.zeros((n, n))
    slope = np.empty(n)
    trial_slope = np.empty(n)
    step = np.empty(n)
    trial_vol = model_vol.copy()
    trial_residual = np.empty(n_quotes)
    trial_jacobian = np.empty((n, n_quotes))
    weight = 0.0
    for q in range(n_quotes):
        weight += problem.root_weight[q] * problem.root_weight[q]
    for i in range(n):
        # A rounding error off its bound a parameter would count as free, and the step would be led astray by it.
        close = _CLOSE * (problem.upper[i] - problem.lower[i])
        if params[i] <= problem.lower[i] + close:
            params[i] = problem.lower[i]
        elif params[i] >= problem.upper[i] - close:
            params[i] = problem.upper[i]
    objective = evaluate(params, problem, FINE, model_vol, residual, jacobian)
    evaluations = 1
    normal_equations(params, problem, residual, jacobian, gauss_newton, slope)
    for i in range(n):
        if problem.upper[i] <= problem.lower[i] or gauss_newton[i, i] <= 0.0:
            hessian[i, i] = 1.0
            continue
        distance = min(
            _VOL_CHANGE * math.sqrt(weight / gauss_newton[i, i]), 0.5 * (problem.upper[i] - problem.lower[i])
        )
        if params[i] + distance > problem.upper[i]:
            distance = -distance
        trial = params.copy()
        trial[i] += distance
        trial_vol[:] = model_vol
        evaluate(trial, problem, FINE, trial_vol, trial_residual, trial_jacobian)
        evaluations += 1
        normal_equations(trial, problem, trial_residual, trial_jacobian, unused, trial_slope)
        for j in range(n):
            hessian[j, i] = (trial_slope[j] - slope[j]) / (trial[i] - params[i])
    for i in range(n):
        for j in range(i):
            hessian[i, j] = 0.5 * (hessian[i, j] + hessian[j, i])
            hessian[j, i] = hessian[i, j]
    outcome = SETTLED
    last_moved = math.inf
    for _ in range(_MAX_STEPS):
        bounded_step(params, problem.lower, problem.upper, hessian, slope, 0.0, slope, step)
        descent = 0.0
        moved = 0.0
        for i in range(n):
            descent -= step[i] * slope[i]
            for j in range(n):
                moved += step[i] * gauss_newton[i, j] * step[j]
        # Not a minimum's Hessian, or steps that no longer shrink because the gradient is rounding.
        if not (descent >= 0.0 and moved < 0.25 * last_moved):
            break
        last_moved = moved
        if moved <= 1e-16 * objective + 1e-24 * weight:
            outcome = CONVERGED
        if moved <= 1e-24 * objective + 1e-28 * weight:
            break
        trial = params + step
        for i in range(n):
            trial[i] = min(max(trial[i], problem.lower[i]), problem.upper[i])
        trial_vol[:] = model_vol
        trial_objective = evaluate(trial, problem, FINE, trial_vol, trial_residual, trial_jacobian)
        evaluations += 1
        if not trial_objective <= objective * (1.0 + 1e-9):
            outcome = SETTLED
            break
        params[:] = trial
        objective = trial_objective
        model_vol[:] = trial_vol
        residual[:] = trial_residual
        jacobian[:] = trial_jacobian
        normal_equations(params, problem, residual, jacobian, unused, slope)
    return objective, evaluations, outcome
