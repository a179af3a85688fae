"""What every optimiser here minimises, compiled: squared differences of implied vols, a prior, bounds beside them.

    sum_i rho(root_weight_i (model vol_i - mid vol_i)) + sum_j prior_precision_j (p_j - prior_mean_j)^2

with rho(r) = r^2, or Huber's (1964) r^2 within `huber_i` of zero and 2 huber_i |r| - huber_i^2 beyond. Residuals are
implied-vol differences, not vega-scaled prices: the objective is the one that is reported. The Jacobian is exact,
dC/dp over the model's own vega. Weights are relative, their mean over the quotes is one.

A residual that the arithmetic cannot know must not steer: where the model's price of a quote is lost in the kernel's
own error, the quote's vol is taken at that error, which is nearer to the market than the truth, and its row of the
Jacobian is zero.
"""

import math
from typing import NamedTuple

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import kernel, reduction
from ..pricing.heston_fit import time_values
from ..pricing.implied import refresh_implied_sd

ROUGH = 1e-5
"""Vol error allowed at the vega floor where basins are told apart: 0.1 bp."""
COARSE = 1e-6
"""The same while steps are large: 0.01 bp."""
FINE = 2e-10
"""The same for the last steps: 2e-6 bp."""

CONVERGED = 0
OUT_OF_ITERATIONS = 1
NO_DESCENT = 2
SETTLED = 3
"""At the minimum as far as the objective's rounding tells, but not to all digits of the parameters: see `newton`."""

_UNKNOWN = 2.0
"""Times the kernel's error below which a price tells nothing of its vol."""


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
    """(n_params,) noise_variance over the prior's variance; zero without a prior."""
    huber: Vector
    """(n_quotes,) weighted residual beyond which a quote counts linearly; infinite for least squares."""
    noise_variance: float
    """Of the mid vol of a quote of weight one, where a prior is weighed against it; zero without a prior."""


@kernel
def evaluate(
    params: Vector, problem: Problem, vol_error: float, model_vol: Vector, residual: Vector, jacobian: Matrix
) -> float:
    """The objective; fills the model's vols, the weighted residuals and, unless it is empty, their Jacobian.

    params     (n_params,)
    vol_error  error allowed in the vols of the quotes with the least vega
    model_vol  (n_quotes,), a guess on entry where positive
    residual   (n_quotes,); squared they sum up to the objective less the prior's part, by Huber's loss too
    jacobian   (n_params, n_quotes) of these residuals, or (0, n_quotes); zero for a quote whose vol is not known
    """
    n_expiries = problem.expiries.size
    n_nodes = np.empty(n_expiries, np.int64)
    error = np.empty(n_expiries)
    tolerance = vol_error * problem.least_vega
    time_values(
        params, problem.expiries, problem.offsets, problem.log_moneyness, tolerance, residual, jacobian, n_nodes, error
    )
    n_quotes = model_vol.size
    unknown = np.zeros(n_quotes, np.bool_)
    for e in range(n_expiries):
        floor = max(_UNKNOWN * error[e], 1e-3 * tolerance[e])
        for q in range(problem.offsets[e], problem.offsets[e + 1]):
            unknown[q] = not residual[q] > floor
            residual[q] = floor if unknown[q] else residual[q]
    sd = model_vol * problem.root_expiry
    density = np.empty(n_quotes)
    refresh_implied_sd(problem.log_moneyness, residual, sd, density)
    objective = 0.0
    for e in range(n_expiries):
        for q in range(problem.offsets[e], problem.offsets[e + 1]):
            scale = problem.root_weight[q]
            model_vol[q] = sd[q] / problem.root_expiry[q]
            away = scale * (model_vol[q] - problem.vol[q])
            density[q] = 0.0 if unknown[q] else scale / (density[q] * problem.root_expiry[q])
            if abs(away) > problem.huber[q]:
                # As the root of the loss: its square and its slope are then those of the loss.
                size = math.sqrt(problem.huber[q] * (2.0 * abs(away) - problem.huber[q]))
                density[q] *= problem.huber[q] / size
                away = math.copysign(size, away)
            residual[q] = away
            objective += away * away
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
