"""Levenberg-Marquardt with bounds, compiled whole: residuals, normal equations and steps in one call.

Residuals are implied-vol differences, not vega-scaled prices: the objective is the one that is reported. The Jacobian
is exact, dC/dp over the model's own vega. Marquardt's scaling (1963), Nielsen's damping (1999), and bounds by an active
set: a parameter on a bound whose gradient points outward is held for the step, and a step that would cross a bound ends
on it while the others are solved again.

The kernel is asked for no more digits than the step needs: `COARSE_BP` while steps are large, `FINE_BP` for the last
ones, where an error in the vols would become one in the parameters (xi and rho move by up to 2.8 % for 0.01 bp).
"""

import math
from typing import NamedTuple

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..pricing.heston_fit import time_values
from ..pricing.implied import refresh_implied_sd
from ..pricing.vector_math import kernel, reduction

COARSE = 1e-6
"""Vol error allowed at the vega floor while steps are large: 0.01 bp."""
FINE = 2e-10
"""The same for the last steps: 2e-6 bp."""

_LEAST_MODEL_VEGA = 1e-12
"""A trial at which a quote has no vega says nothing about the way back: its row of the Jacobian must stay finite."""

CONVERGED = 0
OUT_OF_ITERATIONS = 1
NO_DESCENT = 2
SETTLED = 3
"""At the minimum as far as the objective's rounding tells, but not to all digits of the parameters: see `newton`."""


class Problem(NamedTuple):
    """The quotes to fit, as the kernel wants them; all of float64 and contiguous."""

    expiries: Vector
    """(n_expiries,) years, ascending."""
    offsets: IntVector
    """(n_expiries + 1,) quotes offsets[e]:offsets[e + 1] belong to expiry e."""
    log_moneyness: Vector
    """(n_quotes,) ascending within an expiry."""
    vol: Vector
    """(n_quotes,) quoted mid vol."""
    root_weight: Vector
    """(n_quotes,) square root of the weight."""
    root_expiry: Vector
    """(n_quotes,) square root of the expiry."""
    least_vega: Vector
    """(n_expiries,) smallest vega among the quotes of the expiry, at the quoted vol."""
    lower: Vector
    """(n_params,) bounds; equal to `upper` where a parameter is held."""
    upper: Vector
    """(n_params,)"""
    prior_mean: Vector
    """(n_params,)"""
    prior_precision: Vector
    """(n_params,) one over the variance, in the units of the weighted residuals; zero without a prior."""


@kernel
def evaluate(
    params: Vector, problem: Problem, vol_error: float, model_vol: Vector, residual: Vector, jacobian: Matrix
) -> float:
    """The objective; fills the model's vols, the weighted residuals and, unless it is empty, their Jacobian.

    params     (n_params,)
    vol_error  error allowed in the vols of the quotes with the least vega
    model_vol  (n_quotes,), a guess on entry where positive
    residual   (n_quotes,)
    jacobian   (n_params, n_quotes), or (0, n_quotes)
    """
    n_nodes = np.empty(problem.expiries.size, np.int64)
    price_error = np.empty(problem.expiries.size)
    tolerance = vol_error * problem.least_vega
    time_values(
        params,
        problem.expiries,
        problem.offsets,
        problem.log_moneyness,
        tolerance,
        residual,
        jacobian,
        n_nodes,
        price_error,
    )
    for e in range(problem.expiries.size):
        # A trial far from the market can price a quote at nothing, or at noise: the floor gives it some small vol.
        floor = 1e-3 * tolerance[e]
        for q in range(problem.offsets[e], problem.offsets[e + 1]):
            residual[q] = max(residual[q], floor)
    n_quotes = model_vol.size
    sd = model_vol * problem.root_expiry
    density = np.empty(n_quotes)
    refresh_implied_sd(problem.log_moneyness, residual, sd, density)
    objective = 0.0
    for q in range(n_quotes):
        scale = problem.root_weight[q]
        model_vol[q] = sd[q] / problem.root_expiry[q]
        residual[q] = scale * (model_vol[q] - problem.vol[q])
        objective += residual[q] * residual[q]
        density[q] = scale / max(density[q] * problem.root_expiry[q], _LEAST_MODEL_VEGA)
    for i in range(jacobian.shape[0]):
        for q in range(n_quotes):
            jacobian[i, q] *= density[q]
    for i in range(params.size):
        away = params[i] - problem.prior_mean[i]
        objective += problem.prior_precision[i] * away * away
    return objective


@reduction
def normal_equations(
    params: Vector, problem: Problem, residual: Vector, jacobian: Matrix, hessian: Matrix, slope: Vector
) -> None:
    """J'J and J'r, the prior included."""
    n = params.size
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for q in range(residual.size):
                total += jacobian[i, q] * jacobian[j, q]
            hessian[i, j] = total
            hessian[j, i] = total
        total = 0.0
        for q in range(residual.size):
            total += jacobian[i, q] * residual[q]
        hessian[i, i] += problem.prior_precision[i]
        slope[i] = total + problem.prior_precision[i] * (params[i] - problem.prior_mean[i])


@kernel
def bounded_step(
    params: Vector, problem: Problem, hessian: Matrix, slope: Vector, damping: float, scale: Vector, step: Vector
) -> None:
    """Solve (J'J + damping diag) step = -J'r with every bound respected."""
    n = params.size
    free = np.empty(n, np.bool_)
    for i in range(n):
        step[i] = 0.0
        at_lower = params[i] <= problem.lower[i]
        at_upper = params[i] >= problem.upper[i]
        free[i] = not ((at_lower and at_upper) or (at_lower and slope[i] > 0.0) or (at_upper and slope[i] < 0.0))
    matrix = np.empty((n, n))
    right = np.empty(n)
    for _ in range(n):
        # Held parameters keep their step (to their bound); the rows of the free ones move it to the right-hand side.
        for i in range(n):
            right[i] = -slope[i]
            for j in range(n):
                matrix[i, j] = hessian[i, j] if free[i] and free[j] else 0.0
                if not free[j]:
                    right[i] -= hessian[i, j] * step[j]
            matrix[i, i] = hessian[i, i] + damping * scale[i] if free[i] else 1.0
            if not free[i]:
                right[i] = step[i]
        _solve(matrix, right)
        worst = 0.0
        which = -1
        for i in range(n):
            if free[i]:
                low = problem.lower[i] - params[i]
                high = problem.upper[i] - params[i]
                over = max(low - right[i], right[i] - high)
                if over > worst * (high - low):
                    worst = over / (high - low)
                    which = i
        if which < 0:
            for i in range(n):
                step[i] = right[i]
            return
        free[which] = False
        low = problem.lower[which] - params[which]
        step[which] = low if right[which] < low else problem.upper[which] - params[which]
    return


@kernel
def _solve(matrix: Matrix, right: Vector) -> None:
    """Solve the symmetric positive system in place (LDL', no pivoting: the damping keeps the pivots positive)."""
    n = right.size
    for i in range(n):
        for j in range(i):
            factor = matrix[i, j] / matrix[j, j]
            for m in range(j, n):
                matrix[i, m] -= factor * matrix[j, m]
            right[i] -= factor * right[j]
    for i in range(n - 1, -1, -1):
        for m in range(i + 1, n):
            right[i] -= matrix[i, m] * right[m]
        right[i] /= matrix[i, i]


@kernel
def levenberg_marquardt(
    params: Vector, problem: Problem, max_iterations: int, model_vol: Vector, residual: Vector, jacobian: Matrix
) -> tuple[float, int, int]:
    """Minimise the objective of `evaluate` from `params`, which is moved to the optimum.

    params     (n_params,), on entry the start, inside the bounds
    model_vol  (n_quotes,), a guess on entry where positive; residual, jacobian: filled, at the optimum
    returns    (objective, evaluations, CONVERGED | SETTLED | OUT_OF_ITERATIONS | NO_DESCENT)

    Converged means: no step predicts a change of the residuals above 1e-10 of their root mean square, or above
    1e-12 in vol; from there the parameters move by less than 1e-8 of themselves. Settled: at 3e-5 of it, three steps on
    end did not get there, as happens where the fit is poor.
    """
    n = params.size
    n_quotes = residual.size
    hessian = np.empty((n, n))
    slope = np.empty(n)
    scale = np.zeros(n)
    step = np.empty(n)
    trial = np.empty(n)
    trial_vol = model_vol.copy()
    trial_residual = np.empty(n_quotes)
    trial_jacobian = np.empty((n, n_quotes))
    weight = 0.0
    for q in range(n_quotes):
        weight += problem.root_weight[q] * problem.root_weight[q]
    fine = False
    vol_error = COARSE
    objective = evaluate(params, problem, vol_error, model_vol, residual, jacobian)
    evaluations = 1
    damping = 1e-5
    growth = 2.0
    last_steps = 0
    normal_equations(params, problem, residual, jacobian, hessian, slope)
    while evaluations < max_iterations:
        for i in range(n):
            scale[i] = max(scale[i], hessian[i, i])
        bounded_step(params, problem, hessian, slope, damping, scale, step)
        predicted = 0.0
        moved = 0.0
        for i in range(n):
            predicted -= step[i] * slope[i]
            curve = 0.0
            for j in range(n):
                curve += hessian[i, j] * step[j]
            predicted -= 0.5 * step[i] * curve
            moved += step[i] * curve
        # `moved` is the squared change of the weighted residuals that the step predicts.
        if fine and damping <= 1e-2 and moved <= 1e-20 * objective + 1e-24 * weight:
            return objective, evaluations, CONVERGED
        # Below this the objective's own rounding decides which of two points looks lower.
        settled = fine and moved <= 1e-9 * objective + 1e-17 * weight
        if settled:
            last_steps += 1
            if last_steps > 3:
                return objective, evaluations, SETTLED
        allowance = 0.0
        if not fine and moved <= 1e-4 * objective + 1e-11 * weight:
            # Small enough for the kernel's coarse error to matter: from here on with all digits. The objective at hand
            # still carries that error, so the first fine one may exceed it by as much.
            fine = True
            vol_error = FINE
            allowance = COARSE * (2.0 * math.sqrt(objective * weight) + COARSE * weight)
            if moved <= 1e-10 * objective + 1e-17 * weight:
                objective = evaluate(params, problem, vol_error, model_vol, residual, jacobian)
                evaluations += 1
                normal_equations(params, problem, residual, jacobian, hessian, slope)
                continue
        for i in range(n):
            trial[i] = min(max(params[i] + step[i], problem.lower[i]), problem.upper[i])
        trial_vol[:] = model_vol
        trial_objective = evaluate(trial, problem, vol_error, trial_vol, trial_residual, trial_jacobian)
        evaluations += 1
        gain = (objective - trial_objective) / (2.0 * predicted) if predicted > 0.0 else -1.0
        if trial_objective < objective + allowance or settled:
            params[:] = trial
            objective = trial_objective
            model_vol[:] = trial_vol
            residual[:] = trial_residual
            jacobian[:] = trial_jacobian
            normal_equations(params, problem, residual, jacobian, hessian, slope)
            damping *= max(0.1, 1.0 - (2.0 * gain - 1.0) ** 3) if gain > 0.0 else 1.0
            damping = max(damping, 1e-15)
            growth = 2.0
        else:
            damping *= growth
            growth *= 2.0
            if damping > 1e12:
                return objective, evaluations, NO_DESCENT
    return objective, evaluations, OUT_OF_ITERATIONS
