"""Huber's loss: what lies far off counts linearly, so that a wrong quote pulls at a fit no harder than a bad one.

P. J. Huber, "Robust Estimation of a Location Parameter" (1964); errors by the sandwich formula, Huber (1967).
"""

import math

import numpy as np

from .arrays import Matrix, Vector
from .fits import Fit
from .optimisers.objective import FINE, Problem, evaluate
from .panel import LEAST_SPREAD, OptionPanel
from .uncertainty import WORST_CONDITION

LEAST_FREEDOM = 1e-6
"""One less the leverage of a quote that alone determines a parameter: below, it is rounding."""
_MEDIANS = 1.5
"""Threshold in median absolute residuals: that is one standard deviation of normal ones."""


def spread_thresholds(panel: OptionPanel) -> Vector:
    """Weighted residuals beyond which quotes count linearly, (n_quotes,), where weights come from spreads: a spread
    from the mid."""
    # Weighted by one over the squared spread, over the mean of these: a spread is the same for all.
    return np.full(panel.n_quotes, 1.0 / math.sqrt(panel.weight.mean()))


def residual_thresholds(fit: Fit, problem: Problem) -> Vector:
    """The same without spreads: 1.5 times the median absolute residual of a fit of `problem`."""
    weighted = np.abs(problem.root_weight * (fit.model_vol - problem.vol))
    return np.full(weighted.size, max(_MEDIANS * float(np.median(weighted)), LEAST_SPREAD * 1e-4))


def sandwich_errors(fit: Fit, problem: Problem) -> tuple[Vector, Matrix]:
    """Standard errors and correlation of an estimate by Huber's loss, (n_params,) and (n_params, n_params).

    A^-1 B A^-1 with A = J'PJ + prior, P one for quotes within their threshold and zero beyond, and B = J'Psi^2 J, Psi
    the residuals cut off at the threshold. The residual of a quote is taken as it were if the fit had not seen it, over
    one less its leverage (MacKinnon & White 1985, HC3): few quotes determine xi and rho, and a fit goes out of its way
    for those. With a prior B is what the noise and the prior say.
    """
    n_params, n = fit.params.size, problem.vol.size
    errors, correlation = np.full(n_params, np.nan), np.full((n_params, n_params), np.nan)
    held = problem.upper <= problem.lower
    n_free = n_params - int(held.sum())
    if n <= n_free and problem.noise_variance == 0.0:
        return errors, correlation
    squared = problem._replace(huber=np.full(n, np.inf))
    residual, jacobian = np.empty(n), np.empty((n_params, n))
    evaluate(fit.params, squared, FINE, fit.model_vol.copy(), residual, jacobian)
    within = np.abs(residual) <= problem.huber
    bread = (jacobian[:, within] @ jacobian[:, within].T) + np.diag(problem.prior_precision)
    seen = np.flatnonzero(~held & (np.diag(bread) > 0.0))
    if seen.size == 0:
        return errors, correlation
    size = np.sqrt(np.diag(bread)[seen])
    scaled = bread[np.ix_(seen, seen)] / np.outer(size, size)
    if not np.linalg.cond(scaled) <= WORST_CONDITION:
        return errors, correlation
    inverse = np.linalg.inv(scaled) / np.outer(size, size)
    columns = jacobian[seen]
    leverage = np.where(within, np.einsum("iq,ij,jq->q", columns, inverse, columns), 0.0)
    influence = np.clip(residual, -problem.huber, problem.huber) / np.maximum(1.0 - leverage, LEAST_FREEDOM)
    filling = (columns * influence**2) @ columns.T
    if problem.noise_variance > 0.0:
        filling += np.diag(problem.prior_precision[seen]) * problem.noise_variance
    covariance = inverse @ filling @ inverse
    shown = np.flatnonzero(~fit.on_bound[seen])
    deviations = np.sqrt(np.diag(covariance))
    errors[seen[shown]] = deviations[shown]
    correlation[np.ix_(seen[shown], seen[shown])] = (covariance / np.outer(deviations, deviations))[
        np.ix_(shown, shown)
    ]
    return errors, correlation
