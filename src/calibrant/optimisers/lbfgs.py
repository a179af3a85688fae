"""L-BFGS with bounds, compiled whole, on the objective of the Levenberg-Marquardt stage; it can be interrupted.

Limited-memory BFGS (Nocedal 1980) on the parameters that no bound holds, positive ones by their logarithms, with a
search along the projected path (Bertsekas 1982): a step is shortened until it descends as its slope promises. The
variables are scaled by the curvature of the objective at the start: the method keeps its own estimate of the Hessian
and starts it at the identity, so without scaling it takes hundreds of steps along the kappa-theta valley.

It judges by the objective, so it never has all digits of the parameters: it brings a start near the optimum, and
whoever wants the digits goes on with `levenberg_marquardt`.
"""

import math

import numpy as np

from ..arrays import BoolVector, Matrix, Vector
from ..compiled import kernel
from .chart import bounds_in_chart, from_chart, stretch_equations, to_chart
from .objective import COARSE, NO_DESCENT, OUT_OF_ITERATIONS, SETTLED, Problem, evaluate, normal_equations

N_PAIRS = 12
"""Steps remembered."""
_ARMIJO = 1e-4
_SMALLEST_STEP = 1e-9
_GAIN = 1e-7
"""Share of the objective that a step must promise: below it the search ends."""
_FLOOR = 1e-9
"""Vol error that counts as none: where it ends on an exact fit."""
_BEGUN, _OBJECTIVE, _COUNT = range(3)
_N_NUMBERS = 3


def memory_for(n_params: int) -> Vector:
    """What a descent remembers from one call to the next; of zeros, it begins."""
    return np.zeros(_N_NUMBERS + (2 + 2 * N_PAIRS) * n_params)


@kernel
def lbfgs(
    params: Vector,
    problem: Problem,
    max_evaluations: int,
    memory: Vector,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
) -> tuple[float, int, int]:
    """Minimise from `params`; arguments and result as `levenberg_marquardt`.

    It ends `SETTLED` where a step promises less than 1e-7 of the objective, or with `NO_DESCENT` where rounding hides
    all descent.
    """
    n = params.size
    n_quotes = residual.size
    scale = memory[_N_NUMBERS : _N_NUMBERS + n]
    slope = memory[_N_NUMBERS + n : _N_NUMBERS + 2 * n]
    pairs = memory[_N_NUMBERS + 2 * n :].reshape(2, N_PAIRS, n)
    unused = np.empty((n, n))
    direction = np.empty(n)
    trial = np.empty(n)
    trial_slope = np.empty(n)
    trial_vol = np.empty(n_quotes)
    trial_residual = np.empty(n_quotes)
    trial_jacobian = np.empty((n, n_quotes))
    free = np.empty(n, np.bool_)
    point, stretch = np.empty(n), np.empty(n)
    trial_point, trial_stretch = np.empty(n), np.empty(n)
    lower, upper = np.empty(n), np.empty(n)
    bounds_in_chart(problem, lower, upper)
    to_chart(params, problem, point, stretch)
    floor = 0.0
    for q in range(n_quotes):
        floor += (_FLOOR * problem.root_weight[q]) ** 2
    evaluations = 0
    if memory[_BEGUN] == 0.0:
        memory[_BEGUN] = 1.0
        memory[_OBJECTIVE] = evaluate(params, problem, COARSE, model_vol, residual, jacobian)
        evaluations = 1
        normal_equations(params, problem, residual, jacobian, unused, slope)
        stretch_equations(stretch, unused, slope)
        for i in range(n):
            scale[i] = 1.0 / math.sqrt(unused[i, i]) if unused[i, i] > 0.0 else upper[i] - lower[i]
    while evaluations < max_evaluations:
        objective = memory[_OBJECTIVE]
        for i in range(n):
            outward = (point[i] <= lower[i] and slope[i] > 0.0) or (point[i] >= upper[i] and slope[i] < 0.0)
            free[i] = upper[i] > lower[i] and not outward
        _direct(slope, scale, pairs, int(memory[_COUNT]), free, direction)
        promised = 0.0
        for i in range(n):
            promised -= direction[i] * slope[i]
        if not promised > 0.0:
            memory[_COUNT] = 0.0
            _direct(slope, scale, pairs, 0, free, direction)
            promised = 0.0
            for i in range(n):
                promised -= direction[i] * slope[i]
        if promised <= _GAIN * objective + floor:
            return objective, evaluations, SETTLED
        length = 1.0
        while True:
            promised = 0.0
            for i in range(n):
                trial_point[i] = min(max(point[i] + length * direction[i], lower[i]), upper[i])
                promised -= (trial_point[i] - point[i]) * slope[i]
            from_chart(trial_point, problem, trial)
            trial_vol[:] = model_vol
            trial_objective = evaluate(trial, problem, COARSE, trial_vol, trial_residual, trial_jacobian)
            evaluations += 1
            # The objective is a sum of squares: its slope is twice `slope`.
            if trial_objective <= objective - 2.0 * _ARMIJO * promised:
                break
            # The minimum of the parabola through what is known, kept away from both ends.
            fraction = promised / max(trial_objective - objective + 2.0 * promised, 1e-300)
            length *= min(max(fraction, 0.1), 0.5)
            if length < _SMALLEST_STEP:
                if memory[_COUNT] == 0.0:
                    return objective, evaluations, NO_DESCENT
                break
        if length < _SMALLEST_STEP:
            # The remembered steps mislead: begin anew from the gradient.
            memory[_COUNT] = 0.0
            continue
        to_chart(trial, problem, trial_point, trial_stretch)
        normal_equations(trial, problem, trial_residual, trial_jacobian, unused, trial_slope)
        stretch_equations(trial_stretch, unused, trial_slope)
        along = 0.0
        steps = 0.0
        turns = 0.0
        for i in range(n):
            step = (trial_point[i] - point[i]) / scale[i]
            turn = (trial_slope[i] - slope[i]) * scale[i]
            along += step * turn
            steps += step * step
            turns += turn * turn
        if along > 1e-10 * math.sqrt(steps * turns):
            place = int(memory[_COUNT]) % N_PAIRS
            for i in range(n):
                pairs[0, place, i] = (trial_point[i] - point[i]) / scale[i]
                pairs[1, place, i] = (trial_slope[i] - slope[i]) * scale[i]
            memory[_COUNT] += 1.0
        params[:] = trial
        point[:] = trial_point
        stretch[:] = trial_stretch
        slope[:] = trial_slope
        memory[_OBJECTIVE] = trial_objective
        model_vol[:] = trial_vol
        residual[:] = trial_residual
        jacobian[:] = trial_jacobian
    return memory[_OBJECTIVE], evaluations, OUT_OF_ITERATIONS


@kernel
def _direct(slope: Vector, scale: Vector, pairs: Matrix, count: int, free: BoolVector, direction: Vector) -> None:
    """The two loops over the remembered steps (Nocedal 1980), in the subspace of the free parameters."""
    n = slope.size
    known = min(count, N_PAIRS)
    share = np.empty(N_PAIRS)
    along = np.empty(N_PAIRS)
    for i in range(n):
        direction[i] = slope[i] * scale[i] if free[i] else 0.0
    first = 1.0
    for back in range(known):
        place = (count - 1 - back) % N_PAIRS
        along[place] = 0.0
        size = 0.0
        share[place] = 0.0
        for i in range(n):
            if free[i]:
                along[place] += pairs[0, place, i] * pairs[1, place, i]
                size += pairs[1, place, i] * pairs[1, place, i]
                share[place] += pairs[0, place, i] * direction[i]
        if not along[place] > 0.0:
            # Bounds that have come in since leave nothing of this step.
            along[place] = 0.0
            continue
        if back == 0:
            first = along[place] / size
        share[place] /= along[place]
        for i in range(n):
            if free[i]:
                direction[i] -= share[place] * pairs[1, place, i]
    for i in range(n):
        direction[i] *= first
    for back in range(known - 1, -1, -1):
        place = (count - 1 - back) % N_PAIRS
        if along[place] > 0.0:
            turned = 0.0
            for i in range(n):
                if free[i]:
                    turned += pairs[1, place, i] * direction[i]
            turned /= along[place]
            for i in range(n):
                if free[i]:
                    direction[i] += (share[place] - turned) * pairs[0, place, i]
    for i in range(n):
        direction[i] *= -scale[i] if free[i] else 0.0
