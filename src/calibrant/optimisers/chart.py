"""The coordinates in which steps are taken: logarithms of the parameters that are positive, the others as they are.

Where quotes do not tell two parameters apart they mostly tell their product: kappa theta on short expiries. In
logarithms such a valley is straight, and a step goes along it; in the parameters themselves it is a hyperbola, and it
took hundreds.
"""

import math

from ..arrays import Matrix, Vector
from ..compiled import kernel
from .objective import Problem


@kernel
def to_chart(params: Vector, problem: Problem, point: Vector, stretch: Vector) -> None:
    """Fill the coordinates and d params / d coordinate, (n_params,) each."""
    for i in range(params.size):
        if problem.lower[i] > 0.0:
            point[i] = math.log(params[i])
            stretch[i] = params[i]
        else:
            point[i] = params[i]
            stretch[i] = 1.0


@kernel
def from_chart(point: Vector, problem: Problem, params: Vector) -> None:
    """Fill the parameters, inside their bounds and exactly on them where the coordinates are."""
    for i in range(params.size):
        if problem.upper[i] <= problem.lower[i]:
            params[i] = problem.lower[i]
            continue
        if problem.lower[i] <= 0.0:
            params[i] = min(max(point[i], problem.lower[i]), problem.upper[i])
        # The exponential of a bound's logarithm is off the bound by rounding, and a rounding error off it is free.
        elif point[i] <= math.log(problem.lower[i]):
            params[i] = problem.lower[i]
        elif point[i] >= math.log(problem.upper[i]):
            params[i] = problem.upper[i]
        else:
            params[i] = min(max(math.exp(point[i]), problem.lower[i]), problem.upper[i])


@kernel
def bounds_in_chart(problem: Problem, lower: Vector, upper: Vector) -> None:
    """Fill the bounds of the coordinates, (n_params,) each."""
    for i in range(lower.size):
        positive = problem.lower[i] > 0.0
        lower[i] = math.log(problem.lower[i]) if positive else problem.lower[i]
        upper[i] = math.log(problem.upper[i]) if positive else problem.upper[i]


@kernel
def stretch_equations(stretch: Vector, hessian: Matrix, slope: Vector) -> None:
    """Turn J'J and J'r of the parameters into those of the coordinates."""
    for i in range(slope.size):
        slope[i] *= stretch[i]
        for j in range(slope.size):
            hessian[i, j] *= stretch[i] * stretch[j]
