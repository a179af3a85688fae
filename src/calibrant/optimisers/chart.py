"""The coordinates in which steps are taken: logarithms of the parameters that are positive, the others as they are; of
those that may vanish the logarithm a little beyond zero, so that they can reach it.

Where quotes do not tell two parameters apart they mostly tell their product: kappa theta on short expiries. In
logarithms such a valley is straight, and a step goes along it; in the parameters themselves it is a hyperbola, and it
took hundreds.
"""

import math

from ..arrays import Matrix, Vector
from ..compiled import inlined, kernel
from .objective import Problem

_BEYOND = 2.5e-4
"""Of the upper bound: what is added to a parameter that may vanish."""


@inlined
def _added(lower: float, upper: float) -> float:
    """What is added before the logarithm is taken; negative where none is."""
    if lower < 0.0 or not upper > lower:
        return -1.0
    return 0.0 if lower > 0.0 else _BEYOND * upper


@kernel
def to_chart(params: Vector, problem: Problem, point: Vector, stretch: Vector) -> None:
    """Fill the coordinates and d params / d coordinate, (n_params,) each."""
    for i in range(params.size):
        added = _added(problem.lower[i], problem.upper[i])
        if added >= 0.0:
            point[i] = math.log(params[i] + added)
            stretch[i] = params[i] + added
        else:
            point[i] = params[i]
            stretch[i] = 1.0


@kernel
def from_chart(point: Vector, problem: Problem, params: Vector) -> None:
    """Fill the parameters, inside their bounds and exactly on them where the coordinates are."""
    for i in range(params.size):
        low, high = problem.lower[i], problem.upper[i]
        if high <= low:
            params[i] = low
            continue
        added = _added(low, high)
        if added < 0.0:
            params[i] = min(max(point[i], low), high)
        # The exponential of a bound's logarithm is off the bound by rounding, and a rounding error off it is free.
        elif point[i] <= math.log(low + added):
            params[i] = low
        elif point[i] >= math.log(high + added):
            params[i] = high
        else:
            params[i] = min(max(math.exp(point[i]) - added, low), high)


@kernel
def bounds_in_chart(problem: Problem, lower: Vector, upper: Vector) -> None:
    """Fill the bounds of the coordinates, (n_params,) each."""
    for i in range(lower.size):
        added = _added(problem.lower[i], problem.upper[i])
        lower[i] = math.log(problem.lower[i] + added) if added >= 0.0 else problem.lower[i]
        upper[i] = math.log(problem.upper[i] + added) if added >= 0.0 else problem.upper[i]


@kernel
def stretch_equations(stretch: Vector, hessian: Matrix, slope: Vector) -> None:
    """Turn J'J and J'r of the parameters into those of the coordinates."""
    for i in range(slope.size):
        slope[i] *= stretch[i]
        for j in range(slope.size):
            hessian[i, j] *= stretch[i] * stretch[j]
