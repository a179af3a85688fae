"""Standard errors of fitted parameters and the figures of merit of a fit, compiled: they are part of every answer."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .arrays import BoolVector, Matrix, Vector

# Too short to be worth giving the interpreter lock away, which another thread would not give back as soon.
_brief = njit(cache=True, error_model="numpy")

_SINGULAR = 1e-14
"""Smallest pivot of the scaled information matrix that still determines a parameter."""


class Uncertainty(NamedTuple):
    """How well the quotes determine the parameters, to first order."""

    standard_errors: Vector
    """(n_params,), NaN where there is none."""
    correlation: Matrix
    """(n_params, n_params), NaN where there is none."""


class Quality(NamedTuple):
    """Unweighted sizes of the residuals."""

    rmse: float
    max_abs: float
    mean_relative: float


def uncertainty(residual: Vector, jacobian: Matrix, free: BoolVector, prior_precision: Vector) -> Uncertainty:
    """Standard errors sqrt diag(s^2 (J'WJ)^-1) with s^2 = sum of weighted squares / (n - n_params).

    residual         (n_quotes,), weighted: sqrt(weight) (model vol - mid vol)
    jacobian         (n_params, n_quotes), of the weighted residuals
    free             (n_params,), False for parameters held or on a bound, which have no error
    prior_precision  (n_params,), 1 / sd^2 of a Gaussian prior, zero without; it adds to the information J'WJ / s^2
    returns          NaN throughout where n_quotes <= n_params or the information is singular
    """
    errors, correlation = np.empty(free.size), np.empty((free.size, free.size))
    fill_uncertainty(residual, jacobian, free, prior_precision, errors, correlation)
    return Uncertainty(errors, correlation)


def quality(model_vol: Vector, vol: Vector) -> Quality:
    """Root mean square, largest and mean relative difference of two sets of vols, (n_quotes,) each."""
    return Quality(*quality_of(model_vol, vol))


@_brief
def quality_of(model_vol: Vector, vol: Vector) -> tuple[float, float, float]:
    """`quality`, to be called by kernels."""
    square, largest, relative = 0.0, 0.0, 0.0
    for i in range(vol.size):
        away = abs(model_vol[i] - vol[i])
        square += away * away
        largest = max(largest, away)
        relative += away / vol[i]
    return math.sqrt(square / vol.size), largest, relative / vol.size


@_brief
def fill_uncertainty(
    residual: Vector, jacobian: Matrix, free: BoolVector, prior_precision: Vector, errors: Vector, correlation: Matrix
) -> None:
    """`uncertainty`, to be called by kernels; the last two are filled."""
    n_params = free.size
    errors[:] = np.nan
    correlation[:] = np.nan
    if residual.size <= n_params:
        return
    which = np.flatnonzero(free)
    n = which.size
    total = 0.0
    for q in range(residual.size):
        total += residual[q] * residual[q]
    variance = total / (residual.size - n_params)
    information = np.empty((n, n))
    for a in range(n):
        for b in range(a + 1):
            product = 0.0
            for q in range(residual.size):
                product += jacobian[which[a], q] * jacobian[which[b], q]
            information[a, b] = product
            information[b, a] = product
        information[a, a] += variance * prior_precision[which[a]]
    size = np.empty(n)
    for a in range(n):
        size[a] = math.sqrt(information[a, a])
        if not size[a] > 0.0:
            return
    # Gauss-Jordan on the information scaled to a unit diagonal, so that a pivot is what the others leave undetermined.
    inverse = np.eye(n)
    for a in range(n):
        for b in range(n):
            information[a, b] /= size[a] * size[b]
    for a in range(n):
        pivot = information[a, a]
        if not pivot > _SINGULAR:
            return
        for b in range(n):
            information[a, b] /= pivot
            inverse[a, b] /= pivot
        for c in range(n):
            if c != a:
                factor = information[c, a]
                for b in range(n):
                    information[c, b] -= factor * information[a, b]
                    inverse[c, b] -= factor * inverse[a, b]
    for a in range(n):
        errors[which[a]] = math.sqrt(variance * inverse[a, a]) / size[a]
        for b in range(n):
            correlation[which[a], which[b]] = inverse[a, b] / math.sqrt(inverse[a, a] * inverse[b, b])
