"""An optimiser run from beginning to end, as the tests of optimisers want it."""

from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.optimisers import lbfgs, levenberg_marquardt
from calibrant.optimisers.objective import Problem

SOLVERS = ("lm", "lbfgs")


class Solved(NamedTuple):
    params: Vector
    objective: float
    evaluations: int
    outcome: int
    model_vol: Vector
    residual: Vector
    jacobian: Matrix


def solve(name: str, problem: Problem, start: Vector, max_evaluations: int = 1000) -> Solved:
    """From a start, brought inside the bounds."""
    params = np.clip(start, problem.lower, problem.upper)
    n = problem.vol.size
    arrays = problem.vol.copy(), np.empty(n), np.empty((params.size, n))
    if name == "lm":
        memory = levenberg_marquardt.memory_for(params.size)
        found = levenberg_marquardt.levenberg_marquardt(params, problem, max_evaluations, True, memory, *arrays)
    else:
        found = lbfgs.lbfgs(params, problem, max_evaluations, lbfgs.memory_for(params.size), *arrays)
    return Solved(params, *found, *arrays)
