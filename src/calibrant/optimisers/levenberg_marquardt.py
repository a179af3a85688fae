"""Levenberg-Marquardt with bounds and a secant for what Gauss-Newton leaves out, compiled whole; it can be interrupted.

Marquardt's scaling (1963), Nielsen's damping (1999), bounds by an active set, positive parameters by their logarithms.
Gauss-Newton's Hessian J'J lacks the residuals' own curvature, which a poor fit has in plenty: there its steps shrink by
half each. The missing term is learned from the gradients of the steps taken (Dennis, Gay & Welsch 1981, "An adaptive
nonlinear least-squares algorithm"), and counts while it foretells the objective far better than its absence.

The kernel is asked for no more digits than the step needs: `COARSE` while steps are large, `FINE` for the last ones,
where an error in the vols would become one in the parameters (xi and rho move by up to 2.8 % for 0.01 bp).
"""

import math

import numpy as np

from ..arrays import Matrix, Vector
from ..compiled import kernel, reduction
from .bounded_step import bounded_step
from .chart import bounds_in_chart, from_chart, stretch_equations, to_chart
from .objective import (
    COARSE,
    CONVERGED,
    FINE,
    NO_DESCENT,
    OUT_OF_ITERATIONS,
    ROUGH,
    SETTLED,
    Problem,
    evaluate,
    normal_equations,
)

_BEGUN, _OBJECTIVE, _DAMPING, _GROWTH, _FINE, _LAST_STEPS, _SECANT = range(7)
_N_NUMBERS = 7
_FORETOLD = 0.1
"""Share of the error of Gauss-Newton's forecast up to which the secant's may err, to count in the next step. Where the
residuals vanish it has learned nothing but the bend of the coordinates, and every step that it shortens is one more."""
_LONGEST_STEP = 1.5
"""In any coordinate: a parameter times e^1.5. Further out the linear model means nothing, and prices cost the most."""


def memory_for(n_params: int) -> Vector:
    """What a descent remembers from one call to the next; of zeros, it begins."""
    return np.zeros(memory_size(n_params))


@kernel
def memory_size(n_params: int) -> int:
    """The length of that array."""
    return _N_NUMBERS + 2 * n_params + 2 * n_params * n_params


@kernel
def levenberg_marquardt(
    params: Vector,
    problem: Problem,
    max_evaluations: int,
    exact: bool,
    memory: Vector,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
) -> tuple[float, int, int]:
    """Minimise the objective of `evaluate` from `params`, which is moved to the optimum.

    params     (n_params,), on entry the start, inside the bounds
    exact      False is for telling basins apart: vols to `ROUGH`, and the end where a step promises a millionth of the
               objective
    memory     (memory_size(n_params),): of zeros to begin; as it was left, with all arrays below, to go on
    model_vol  (n_quotes,), a guess on entry where positive; residual, jacobian: filled, at the optimum
    returns    (objective, evaluations of this call, CONVERGED | SETTLED | OUT_OF_ITERATIONS | NO_DESCENT)

    Converged means: no step predicts a change of the residuals above 1e-8 of their root mean square (1e-5 where there
    is one expiry and no prior, 1e-4 for a model of several factors), or above 1e-12 in vol (1e-10 for such a model).
    Settled: at 3e-5 of it, three steps on end did not get there.
    """
    n = params.size
    n_quotes = residual.size
    scale = memory[_N_NUMBERS : _N_NUMBERS + n]
    slope = memory[_N_NUMBERS + n : _N_NUMBERS + 2 * n]
    first = _N_NUMBERS + 2 * n
    hessian = memory[first : first + n * n].reshape(n, n)
    secant = memory[first + n * n : first + 2 * n * n].reshape(n, n)
    point, stretch = np.empty(n), np.empty(n)
    lower, upper = np.empty(n), np.empty(n)
    step = np.empty(n)
    trial, trial_point, trial_stretch = np.empty(n), np.empty(n), np.empty(n)
    curvature = np.empty((n, n))
    trial_slope = np.empty(n)
    bend = np.empty(n)
    trial_vol = np.empty(n_quotes)
    trial_residual = np.empty(n_quotes)
    trial_jacobian = np.empty((n, n_quotes))
    weight = 0.0
    for q in range(n_quotes):
        weight += problem.root_weight[q] * problem.root_weight[q]
    bounds_in_chart(problem, lower, upper)
    to_chart(params, problem, point, stretch)
    # One smile tells three numbers: along the other two the steps may go on for long, and the fit no longer moves. Nor
    # do quotes tell all parameters of several factors: a thousandth of a standard error is left in their valleys.
    flat = problem.expiries.size == 1 and problem.noise_variance == 0.0
    nothing, least = (1e-10 if flat else 1e-16), 1e-24
    if problem.layout.size > 1:
        nothing, least = 1e-8, 1e-20
    evaluations = 0
    if memory[_BEGUN] == 0.0:
        memory[_BEGUN], memory[_DAMPING], memory[_GROWTH] = 1.0, 1e-5, 2.0
        memory[_OBJECTIVE] = evaluate(params, problem, COARSE if exact else ROUGH, model_vol, residual, jacobian)
        evaluations = 1
        normal_equations(params, problem, residual, jacobian, hessian, slope)
        stretch_equations(stretch, hessian, slope)
    while evaluations < max_evaluations:
        objective = memory[_OBJECTIVE]
        fine = memory[_FINE] > 0.0
        for i in range(n):
            scale[i] = max(scale[i], hessian[i, i])
            for j in range(n):
                curvature[i, j] = hessian[i, j] + (secant[i, j] if memory[_SECANT] > 0.0 else 0.0)
        bounded_step(point, lower, upper, curvature, slope, memory[_DAMPING], scale, step)
        longest = 0.0
        for i in range(n):
            longest = max(longest, abs(step[i]))
        if longest > _LONGEST_STEP:
            for i in range(n):
                step[i] *= _LONGEST_STEP / longest
        descent = 0.0
        moved = 0.0
        bent = 0.0
        for i in range(n):
            descent -= step[i] * slope[i]
            for j in range(n):
                moved += step[i] * hessian[i, j] * step[j]
                bent += step[i] * secant[i, j] * step[j]
        plain = descent - 0.5 * moved
        predicted = plain - (0.5 * bent if memory[_SECANT] > 0.0 else 0.0)
        if memory[_SECANT] > 0.0 and not predicted > 0.0:
            # Not the Hessian of a minimum.
            memory[_SECANT] = 0.0
            continue
        # `moved` is the squared change of the weighted residuals that the step predicts.
        if exact and fine and memory[_DAMPING] <= 1e-2 and moved <= nothing * objective + least * weight:
            return objective, evaluations, CONVERGED
        if not exact and moved <= 1e-6 * objective + 1e-10 * weight:
            return objective, evaluations, CONVERGED
        # Below this the objective's own rounding decides which of two points looks lower.
        settled = fine and moved <= 1e-9 * objective + 1e-17 * weight
        if settled:
            memory[_LAST_STEPS] += 1.0
            if memory[_LAST_STEPS] > 3.0:
                return objective, evaluations, SETTLED
        allowance = 0.0
        if exact and not fine and moved <= 1e-4 * objective + 1e-11 * weight:
            # Small enough for the kernel's coarse error to matter: from here on with all digits. The objective at hand
            # still carries that error, so the first fine one may exceed it by as much.
            fine = True
            memory[_FINE] = 1.0
            allowance = COARSE * (2.0 * math.sqrt(objective * weight) + COARSE * weight)
            if moved <= 1e-10 * objective + 1e-17 * weight:
                memory[_OBJECTIVE] = evaluate(params, problem, FINE, model_vol, residual, jacobian)
                evaluations += 1
                normal_equations(params, problem, residual, jacobian, hessian, slope)
                stretch_equations(stretch, hessian, slope)
                continue
        for i in range(n):
            trial_point[i] = min(max(point[i] + step[i], lower[i]), upper[i])
            step[i] = trial_point[i] - point[i]
        from_chart(trial_point, problem, trial)
        trial_vol[:] = model_vol
        vol_error = (FINE if fine else COARSE) if exact else ROUGH
        trial_objective = evaluate(trial, problem, vol_error, trial_vol, trial_residual, trial_jacobian)
        evaluations += 1
        gained = 0.5 * (objective - trial_objective)
        gain = gained / predicted if predicted > 0.0 else -1.0
        if trial_objective < objective + allowance or settled:
            to_chart(trial, problem, trial_point, trial_stretch)
            _bend(params, trial, problem, stretch, trial_stretch, trial_residual, jacobian, trial_jacobian, bend)
            params[:] = trial
            point[:] = trial_point
            stretch[:] = trial_stretch
            memory[_OBJECTIVE] = trial_objective
            model_vol[:] = trial_vol
            residual[:] = trial_residual
            jacobian[:] = trial_jacobian
            normal_equations(params, problem, residual, jacobian, hessian, trial_slope)
            stretch_equations(stretch, hessian, trial_slope)
            _learn(step, slope, trial_slope, bend, secant)
            slope[:] = trial_slope
            learned = 0.0
            for i in range(n):
                for j in range(n):
                    learned += step[i] * secant[i, j] * step[j]
            with_secant = min(abs(gained - (plain - 0.5 * learned)), abs(gained - (plain - 0.5 * bent)))
            memory[_SECANT] = 1.0 if with_secant <= _FORETOLD * abs(gained - plain) else 0.0
            memory[_DAMPING] *= max(0.1, 1.0 - (2.0 * gain - 1.0) ** 3) if gain > 0.0 else 1.0
            memory[_DAMPING] = max(memory[_DAMPING], 1e-15)
            memory[_GROWTH] = 2.0
        elif memory[_SECANT] > 0.0:
            memory[_SECANT] = 0.0
        else:
            memory[_DAMPING] *= memory[_GROWTH]
            memory[_GROWTH] *= 2.0
            if memory[_DAMPING] > 1e12:
                return objective, evaluations, NO_DESCENT
    return memory[_OBJECTIVE], evaluations, OUT_OF_ITERATIONS


@reduction
def _bend(
    params: Vector,
    trial: Vector,
    problem: Problem,
    stretch: Vector,
    trial_stretch: Vector,
    trial_residual: Vector,
    jacobian: Matrix,
    trial_jacobian: Matrix,
    bend: Vector,
) -> None:
    """How the Jacobian's change over a step turns the new residuals' slope, those of the prior included."""
    for i in range(bend.size):
        total = 0.0
        for q in range(trial_residual.size):
            total += (trial_stretch[i] * trial_jacobian[i, q] - stretch[i] * jacobian[i, q]) * trial_residual[q]
        away = trial[i] - problem.prior_mean[i]
        bend[i] = total + problem.prior_precision[i] * away * (trial_stretch[i] - stretch[i])


@kernel
def _learn(step: Vector, slope: Vector, new_slope: Vector, bend: Vector, secant: Matrix) -> None:
    """Dennis, Gay & Welsch's update: `secant` then maps the step to `bend`, which is overwritten."""
    n = step.size
    along = 0.0
    before = 0.0
    after = 0.0
    secant_step = np.zeros(n)
    change = np.empty(n)
    for i in range(n):
        change[i] = new_slope[i] - slope[i]
        for j in range(n):
            secant_step[i] += secant[i, j] * step[j]
    for i in range(n):
        along += step[i] * change[i]
        before += step[i] * secant_step[i]
        after += step[i] * bend[i]
    if not along > 0.0:
        return
    # What was learned far away is too large near the minimum of a better fit: sized down, never up.
    size = min(abs(after / before), 1.0) if before != 0.0 else 1.0
    rest = 0.0
    for i in range(n):
        bend[i] -= size * secant_step[i]
        rest += bend[i] * step[i]
    for i in range(n):
        for j in range(n):
            secant[i, j] = (
                size * secant[i, j]
                + (bend[i] * change[j] + change[i] * bend[j]) / along
                - rest * change[i] * change[j] / (along * along)
            )
