"""This project's compiled objective for other people's optimisers: they compare algorithms, not pricers."""

from typing import NamedTuple

import numpy as np

from benchmarks import paper_box
from calibrant.arrays import Matrix, Vector
from calibrant.optimisers.objective import FINE, Problem, evaluate

POPULATION = 14
"""Of CMA-ES, the paper's."""


class Objective:
    """Sum of squared vol errors with its analytic gradient, as a user of the kernel would write it.

    unit  of the vol errors: 1e-4 for basis points
    """

    def __init__(self, problem: Problem, unit: float) -> None:
        n = problem.vol.size
        self._problem, self._unit = problem, unit
        self._vol, self._residual = problem.vol.copy(), np.empty(n)
        self._jacobian, self._empty = np.empty((5, n)), np.empty((0, n))
        self.count = 0

    def value(self, params: Vector) -> float:
        self.count += 1
        return evaluate(params, self._problem, FINE, self._vol, self._residual, self._empty) / self._unit**2

    def value_and_gradient(self, params: Vector) -> tuple[float, Vector]:
        self.count += 1
        value = evaluate(params, self._problem, FINE, self._vol, self._residual, self._jacobian)
        return value / self._unit**2, 2.0 * (self._jacobian @ self._residual) / self._unit**2

    def residual(self, params: Vector) -> Vector:
        self.count += 1
        evaluate(params, self._problem, FINE, self._vol, self._residual, self._jacobian)
        return self._residual / self._unit

    def jacobian(self, params: Vector) -> Matrix:
        # Called by least_squares at points where `residual` has just been.
        evaluate(params, self._problem, FINE, self._vol, self._residual, self._jacobian)
        jacobian: Matrix = self._jacobian.T / self._unit
        return jacobian


class Minimum(NamedTuple):
    """Where an optimiser ended."""

    params: Vector
    """(5,)."""
    evaluations: int


def cma_es(problem: Problem, start: Vector, step: float, seed: int) -> Minimum:
    """CMA-ES (Hansen & Ostermeier 2001), population 14, in units of the paper's box, inside the problem's bounds.

    step  first standard deviation, in those units
    """
    import cma

    unit = paper_box.UPPER - paper_box.LOWER
    objective = Objective(problem, 1e-4)
    strategy = cma.CMAEvolutionStrategy(
        (start - paper_box.LOWER) / unit,
        step,
        {
            "popsize": POPULATION,
            "bounds": [
                ((problem.lower - paper_box.LOWER) / unit).tolist(),
                ((problem.upper - paper_box.LOWER) / unit).tolist(),
            ],
            "seed": seed,
            "maxfevals": 20_000,
            "tolfun": 1e-6,
            "tolx": 1e-9,
            "verbose": -9,
        },
    )
    strategy.optimize(lambda x: objective.value(np.clip(paper_box.LOWER + unit * x, problem.lower, problem.upper)))
    params = np.clip(paper_box.LOWER + unit * np.asarray(strategy.result.xbest), problem.lower, problem.upper)
    return Minimum(params, objective.count)
