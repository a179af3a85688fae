"""Forward and discount of an expiry by put-call parity, in the presence of bad quotes.

C - P = D (F - K) is a line in the strike. Its start is Siegel's repeated median (1982), which half of the pairs may
spoil; then Tukey's biweight gives pairs far from the line no say, and the others theirs by the width of their quotes.
"""

from typing import NamedTuple

import numpy as np

from ..arrays import BoolVector, Vector

LEAST_PAIRS = 3
"""From which a slope can be told from a bad quote."""
_MOST_STARTING = 400
"""Pairs of which the start is taken: it costs their square."""
_BIWEIGHT = 4.685
"""Standard deviations beyond which a pair has no say: 95 % efficient for normal errors."""
_TO_DEVIATION = 1.4826
"""Of a median absolute deviation."""
_ROUNDS = 50
_LEAST_SLOPE = 1e-12


class Parity(NamedTuple):
    """What the pairs of an expiry say."""

    forward: float
    """NaN where calls less puts do not fall with the strike at all."""
    forward_error: float | None
    """Standard error; None where there are too few pairs."""
    discount: float
    discount_error: float | None
    """None too where the discount was given."""
    n_pairs: int
    """That had a say."""
    residual: Vector
    """(n_pairs,) Of each pair, C - P - D (F - K), those without a say included."""
    tolerance: Vector
    """(n_pairs,) Beyond which a residual is no noise."""


def by_parity(
    strike: Vector,
    difference: Vector,
    noise: Vector,
    *,
    discount: float | None = None,
    forward: float | None = None,
    rounding: float = 0.0,
) -> Parity:
    """The line through the pairs; through one where discount or forward is given.

    strike      (n,)
    difference  (n,) Call less put.
    noise       (n,) Standard deviation of each difference, as far as it is known; relative to each other it weighs them
    discount    held, where it is known; then one pair is enough
    forward     held, where it is known
    rounding    of the differences: pairs apart by no more agree. Without it those that happen to lie on one line to the
                last digit would be all that counts
    """
    centre = float(np.average(strike, weights=1.0 / noise**2))
    x = strike - centre
    slope, intercept = _start(x, difference, noise, discount, forward, centre)
    weight = np.ones(strike.size)
    tolerance = noise
    least = max(rounding, 1e-12 * float(np.max(np.abs(difference))), 1e-300)
    for _ in range(_ROUNDS):
        residual = difference - (intercept + slope * x)
        # Of those near: pairs far off would widen what they are measured by.
        scale = _TO_DEVIATION * float(np.median(np.abs(residual / noise)))
        tolerance = _BIWEIGHT * np.maximum(scale * noise, least)
        ratio = np.abs(residual) / tolerance
        weight = np.where(ratio < 1.0, (1.0 - np.minimum(ratio, 1.0) ** 2) ** 2, 0.0)
        before = slope, intercept
        found = _line(x, difference, weight / noise**2, discount, forward, centre)
        if found is None:
            break
        slope, intercept = found
        if abs(slope - before[0]) <= 1e-14 and abs(intercept - before[1]) <= 1e-14 * max(abs(intercept), 1.0):
            break
    residual = difference - (intercept + slope * x)
    return _summed_up(x, centre, residual, noise, weight, slope, intercept, tolerance, discount, forward)


def _start(
    x: Vector, y: Vector, noise: Vector, discount: float | None, forward: float | None, centre: float
) -> tuple[float, float]:
    if discount is not None:
        return -discount, float(np.median(y + discount * x))
    if forward is not None:
        far = np.abs(forward - centre - x) > 0.0
        slope = -float(np.median(y[far] / (forward - centre - x[far]))) if far.any() else -1.0
        return slope, -slope * (forward - centre)
    if x.size > _MOST_STARTING:
        # The best known: the others are refined upon.
        near = np.argsort(noise, kind="stable")[:_MOST_STARTING]
        x, y = x[near], y[near]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (y[:, np.newaxis] - y) / (x[:, np.newaxis] - x)
    slopes[~np.isfinite(slopes)] = np.nan
    slope = float(np.median(np.nanmedian(slopes, axis=1)))
    return slope, float(np.median(y - slope * x))


def _line(
    x: Vector, y: Vector, weight: Vector, discount: float | None, forward: float | None, centre: float
) -> tuple[float, float] | None:
    """Weighted least squares; None where the pairs with a weight are no line."""
    if discount is not None and forward is not None:
        return -discount, discount * (forward - centre)
    total = float(weight.sum())
    if discount is not None:
        return -discount, float(weight @ (y + discount * x)) / total
    if forward is not None:
        along = forward - centre - x
        if not weight @ along**2 > 0.0:
            return None
        slope = -float(weight @ (along * y)) / float(weight @ along**2)
        return slope, -slope * (forward - centre)
    x_mean, y_mean = float(weight @ x) / total, float(weight @ y) / total
    spread = float(weight @ (x - x_mean) ** 2)
    if not spread > 0.0:
        return None
    slope = float(weight @ ((x - x_mean) * (y - y_mean))) / spread
    return slope, y_mean - slope * x_mean


def _summed_up(
    x: Vector,
    centre: float,
    residual: Vector,
    noise: Vector,
    weight: Vector,
    slope: float,
    intercept: float,
    tolerance: Vector,
    discount: float | None,
    forward: float | None,
) -> Parity:
    """With the asymptotic errors of an M-estimator (Huber 1981, chapter 7): those of least squares would take the say
    that pairs lost for certainty."""
    has_say: BoolVector = weight > 0.0
    n = int(np.count_nonzero(has_say))
    found = -slope
    if abs(found) < _LEAST_SLOPE:
        return Parity(np.nan, None, np.nan, None, n, residual, tolerance)
    level = forward if forward is not None else centre + intercept / found
    n_free = int(discount is None) + int(forward is None)
    forward_error = discount_error = None
    if n > n_free > 0:
        x, scaled, w = x[has_say], residual[has_say] / noise[has_say], 1.0 / noise[has_say] ** 2
        square = (residual[has_say] / tolerance[has_say]) ** 2
        bend = float(np.mean((1.0 - square) * (1.0 - 5.0 * square)))
        variance = float(np.sum((weight[has_say] * scaled) ** 2)) / (n - n_free) / max(bend, 0.1) ** 2
        if discount is None and forward is None:
            total, first, second = float(w.sum()), float(w @ x), float(w @ x**2)
            determinant = total * second - first**2
            if determinant > 0.0:
                # Of (intercept, slope); F = centre + intercept / D.
                covariance = variance / determinant * np.array([[second, -first], [-first, total]])
                gradient = np.array([1.0 / found, intercept / found**2])
                forward_error = float(np.sqrt(gradient @ covariance @ gradient))
                discount_error = float(np.sqrt(covariance[1, 1]))
        elif discount is not None:
            forward_error = float(np.sqrt(variance / float(w.sum()))) / discount
        else:
            discount_error = float(np.sqrt(variance / float(w @ (level - centre - x) ** 2)))
    return Parity(float(level), forward_error, float(found), discount_error, n, residual, tolerance)
