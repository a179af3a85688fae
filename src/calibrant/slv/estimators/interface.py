"""What an estimator of E[v | S] is to those that use it: particles in, a curve over the spot out.

x      (n,), standardised log-spot of the particles: (ln S - mean) / standard deviation, in any order
v      (n,), their variance, the response
at     (n_nodes,), where the curve is wanted, in the unit of x, ascending

Outside the particles' 0.05 % and 99.95 % quantiles a curve is continued flat, and nowhere does it fall to zero
(`conditional_variance`): a regression line may cross zero where a mean of variances cannot.
"""

from typing import NamedTuple, Protocol

import numpy as np

from ...arrays import Vector

TAIL = 5e-4
"""Probability beyond which too few particles are left to estimate anything from, on either side."""
LEAST_SHARE = 1e-3
"""Of the mean variance, below which no estimate may fall."""


class Estimator(Protocol):
    """A way to estimate E[v | x]; its options are the fields of a frozen dataclass."""

    def __call__(self, x: Vector, v: Vector, at: Vector) -> Vector:
        """(n_nodes,) estimates of E[v | x] at `at`, without floor, and beyond the particles as the method has it."""
        ...


class ConditionalVariance(NamedTuple):
    """E[v | S] along a row of nodes, from the lower to the upper quantile of the spot."""

    log_spot: Vector
    """(n_nodes,) evenly spaced; beyond its ends the curve is flat."""
    value: Vector
    """(n_nodes,) > 0."""


def conditional_variance(
    estimator: Estimator, log_spot: Vector, variance: Vector, n_nodes: int = 97, tail: float = TAIL
) -> ConditionalVariance:
    """E[v | S] of particles by any of the estimators.

    log_spot, variance  (n_particles,), in any order
    tail                probability beyond the first and beyond the last node
    """
    mean, deviation = float(log_spot.mean()), float(log_spot.std())
    if not deviation > 0.0:
        return ConditionalVariance(np.full(n_nodes, mean), np.full(n_nodes, variance.mean()))
    x = (log_spot - mean) / deviation
    low, high = np.quantile(x, (tail, 1.0 - tail))
    nodes = np.linspace(low, high, n_nodes)
    value = floored(estimator(x, variance, nodes), float(variance.mean()))
    return ConditionalVariance(mean + deviation * nodes, value)


def floored(value: Vector, mean: float) -> Vector:
    """Estimates with those that are no variance at all brought up to a small one."""
    return np.maximum(value, LEAST_SHARE * mean)
