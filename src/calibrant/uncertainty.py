"""Standard errors of fitted parameters and the figures of merit of a fit, compiled: they are part of every answer."""

import math
from typing import NamedTuple

import numpy as np

from .arrays import BoolVector, Matrix, Vector
from .compiled import brief, reduction

WORST_CONDITION = 1e10
"""Of the information matrix, its columns scaled to one: beyond, a direction of the parameters is not determined."""


class Uncertainty(NamedTuple):
    """How well the quotes, and the prior, determine the parameters, to first order."""

    standard_errors: Vector
    """(n_params,), NaN where there is none."""
    correlation: Matrix
    """(n_params, n_params), NaN where there is none."""


class Quality(NamedTuple):
    """Unweighted sizes of the residuals."""

    rmse: float
    max_abs: float
    mean_relative: float


def uncertainty(
    residual: Vector,
    jacobian: Matrix,
    held: BoolVector,
    on_bound: BoolVector,
    prior_precision: Vector | None = None,
    noise_variance: float = 0.0,
) -> Uncertainty:
    """Standard errors sqrt diag(s^2 (J'WJ)^-1), s^2 = weighted sum of squares / (n_quotes - parameters not held).

    With a prior they are those of the posterior, sqrt diag((J'WJ / noise^2 + diag(1 / sd^2))^-1), whatever the number
    of quotes. A parameter on a bound has no error of its own, but it is not known either: the errors of the others
    count it as free, for those conditional on the bound are too small by up to a thousand.

    residual         (n_quotes,), weighted: sqrt(weight) (model vol - mid vol)
    jacobian         (n_params, n_quotes), of the weighted residuals
    held             (n_params,), True for parameters that are given
    on_bound         (n_params,), True for parameters that a bound keeps from moving on
    prior_precision  (n_params,), noise^2 / sd^2 of a Gaussian prior, zero for what it does not name; None without
    noise_variance   of the vol of a quote of weight one: with a prior; else 0
    returns          NaN for held parameters, those on a bound and those that the quotes do not see at all; NaN
                     throughout where n_quotes <= parameters not held and there is no prior, or where the information is
                     conditioned worse than `WORST_CONDITION`
    """
    errors, correlation = np.empty(held.size), np.empty((held.size, held.size))
    precision = np.zeros(held.size) if prior_precision is None else prior_precision
    fill_uncertainty(residual, jacobian, held, on_bound, precision, noise_variance, errors, correlation)
    return Uncertainty(errors, correlation)


def quality(model_vol: Vector, vol: Vector) -> Quality:
    """Root mean square, largest and mean relative difference of two sets of vols, (n_quotes,) each."""
    return Quality(*quality_of(model_vol, vol))


@brief
def quality_of(model_vol: Vector, vol: Vector) -> tuple[float, float, float]:
    """`quality`, to be called by kernels."""
    square, largest, relative = 0.0, 0.0, 0.0
    for i in range(vol.size):
        away = abs(model_vol[i] - vol[i])
        square += away * away
        largest = max(largest, away)
        relative += away / vol[i]
    return math.sqrt(square / vol.size), largest, relative / vol.size


@brief
def fill_uncertainty(
    residual: Vector,
    jacobian: Matrix,
    held: BoolVector,
    on_bound: BoolVector,
    prior_precision: Vector,
    noise_variance: float,
    errors: Vector,
    correlation: Matrix,
) -> None:
    """`uncertainty`, to be called by kernels; the last two are filled."""
    errors[:] = np.nan
    correlation[:] = np.nan
    n_free = held.size - int(held.sum())
    variance = noise_variance
    if variance == 0.0:
        if residual.size <= n_free:
            return
        variance = _product(residual, residual) / (residual.size - n_free)
    information = np.zeros((held.size, held.size))
    for a in range(held.size):
        for b in range(a + 1):
            if not held[a] and not held[b]:
                information[a, b] = information[b, a] = _product(jacobian[a], jacobian[b])
        information[a, a] += prior_precision[a]
    # What no quote sees, a factor or a jump of no weight, is left out: the others are determined all the same.
    seen = np.zeros(held.size, np.bool_)
    for a in range(held.size):
        seen[a] = not held[a] and information[a, a] > 0.0
    which = np.flatnonzero(seen)
    n = which.size
    if n == 0:
        return
    size = np.empty(n)
    for a in range(n):
        size[a] = math.sqrt(information[which[a], which[a]])
    scaled = np.empty((n, n))
    for a in range(n):
        for b in range(n):
            scaled[a, b] = information[which[a], which[b]] / (size[a] * size[b])
    inverse = _inverse(scaled)
    trace = 0.0
    for a in range(n):
        if not inverse[a, a] > 0.0:
            return
        trace += inverse[a, a]
    # The traces bound the condition from above: the eigenvalues are asked for only where that does not decide.
    if not n * trace <= WORST_CONDITION:
        eigenvalues = np.linalg.eigvalsh(scaled)
        if not eigenvalues[n - 1] <= WORST_CONDITION * eigenvalues[0]:
            return
    for a in range(n):
        if on_bound[which[a]]:
            continue
        errors[which[a]] = math.sqrt(variance * inverse[a, a]) / size[a]
        for b in range(n):
            if not on_bound[which[b]]:
                correlation[which[a], which[b]] = inverse[a, b] / math.sqrt(inverse[a, a] * inverse[b, b])


@reduction
def _product(one: Vector, other: Vector) -> float:
    total = 0.0
    for q in range(one.size):
        total += one[q] * other[q]
    return total


@brief
def _inverse(matrix: Matrix) -> Matrix:
    """Of a symmetric positive matrix with a unit diagonal, by Gauss-Jordan; not positive on its diagonal where it is
    singular."""
    n = matrix.shape[0]
    left = matrix.copy()
    inverse = np.eye(n)
    for a in range(n):
        pivot = left[a, a]
        if not pivot > 0.0:
            inverse[a, a] = -1.0
            return inverse
        for b in range(n):
            left[a, b] /= pivot
            inverse[a, b] /= pivot
        for c in range(n):
            if c != a:
                factor = left[c, a]
                for b in range(n):
                    left[c, b] -= factor * left[a, b]
                    inverse[c, b] -= factor * inverse[a, b]
    return inverse
