"""Models nested in a model of several factors, and starts for it from their optima.

A model without one of its factors is nested in it: its optimum, with that factor absent, is a point of the larger model
and never worse than what a fit of that should end at. It is also where to look from: the factor that is missing is put
in at one of several sizes, what it adds to the variance taken from the factors that were there.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from .arrays import IntVector, Matrix, Vector
from .compiled import careful
from .layout import SIZES, VARIANCE
from .optimisers.objective import Problem
from .starts import smile_shapes

_ABSENT = (np.array([1.0, 0.0, 0.5, -0.5, 0.0]), np.array([0.0, -0.1, 0.1]))
"""Of each kind, the parameters with which a factor adds nothing."""
_USUAL_VOL = 0.2
"""At which the sizes of jumps below are meant; they grow with the vols of the panel."""
_JUMPS = np.array(
    [
        (lam, mean, deviation)
        for lam, deviation in ((0.1, 0.25), (0.4, 0.12), (1.5, 0.06), (6.0, 0.03))
        for mean in (-0.25, -0.1, -0.03, 0.04)
    ]
)
_CALMER = (1.0, 0.5)
"""Times the xi that did without jumps."""
_BOXES = (
    (np.array([0.1, 0.05, 0.1, -0.99, 0.05]), np.array([50.0, 4.0, 10.0, 0.99, 3.0])),
    (np.array([0.02, -0.5, 0.005]), np.array([10.0, 0.3, 0.5])),
)
"""Of each kind of factor: theta and v0 in units of the panel's variance, jumps at `_USUAL_VOL`."""
_EVEN = (np.array([False, False, False, True, False]), np.array([False, True, False]))
"""What is spread evenly there; the others are in their logarithms."""
_AWAY = 0.4
"""Standard deviation of a neighbour's parameter from the start's, of its logarithm or of its size."""
_SPEEDS = ((3.0, 1.0), (12.0, 1.0), (1.0, 0.25), (1.0, 0.05), (4.0, 0.3))
"""Speeds of mean reversion of the new factor and of the one it is split from, times the speed of that."""
_SHARES = ((0.3, 0.3), (0.7, 0.1), (0.5, 0.8))
"""Of v0 and of theta, that the new factor takes over."""
_SHAPES = ((1.0, 1.0), (2.0, 0.3), (0.5, -0.5))
"""xi and rho of the new factor, times those of the one it is split from."""


class Nested(NamedTuple):
    """A problem without one of its factors."""

    problem: Problem
    kept: IntVector
    """Of the parameters, those that are left."""
    absent: Vector
    """(n_params,) of the larger model, with the parameters of the factor that is missing."""
    kind: int
    """Of that factor."""

    def embedded(self, params: Vector) -> Vector:
        """Parameters of the larger model that price the same."""
        whole = self.absent.copy()
        whole[self.kept] = params
        return whole


def nested_in(problem: Problem) -> list[Nested]:
    """The problems without one factor, if the bounds allow that; of several factors alike, without the last."""
    kinds = problem.layout.tolist()
    ends = np.cumsum([0, *(SIZES[kind] for kind in kinds)]).tolist()
    found = []
    for i, kind in enumerate(kinds):
        left = kinds[:i] + kinds[i + 1 :]
        if kind in kinds[i + 1 :] or VARIANCE not in left:
            continue
        own = slice(ends[i], ends[i + 1])
        absent = np.minimum(np.maximum(_ABSENT[kind], problem.lower[own]), problem.upper[own])
        sizes = _ABSENT[kind] == 0.0
        if np.any(absent[sizes] != 0.0):
            continue
        kept = np.delete(np.arange(ends[-1]), own)
        whole = np.zeros(ends[-1])
        whole[own] = absent
        smaller = problem._replace(
            layout=np.array(left),
            lower=problem.lower[kept],
            upper=problem.upper[kept],
            prior_mean=problem.prior_mean[kept],
            prior_precision=problem.prior_precision[kept],
        )
        found.append(Nested(smaller, kept, whole, kind))
    return found


def extended(nested: Nested, problem: Problem, optimum: Vector) -> Matrix:
    """Starts of the larger problem from an optimum of the nested one, inside the bounds: (n_starts, n_params)."""
    whole = nested.embedded(optimum)
    starts = _with_jumps(problem, whole) if nested.kind != VARIANCE else _with_factor(problem, whole)
    return np.minimum(np.maximum(starts, problem.lower), problem.upper)


def spread_out(problem: Problem, n_starts: int) -> Matrix:
    """Starts all over the parameters that markets show, inside the bounds, the same ones for every panel but for the
    size of its vols: (n_starts, n_params). Where a panel fits poorly its best optimum may be nobody's neighbour."""
    n = problem.lower.size
    variance = float(np.median(smile_shapes(problem)[:, 0])) ** 2
    unit = _even(n_starts, n)
    low, high = (np.concatenate([box[end] for box in (_BOXES[kind] for kind in problem.layout)]) for end in (0, 1))
    even = np.concatenate([_EVEN[kind] for kind in problem.layout])
    flat = low + unit * (high - low)
    with np.errstate(all="ignore"):
        starts = np.where(even, flat, low * (high / low) ** unit)
    at = 0
    for kind in problem.layout:
        if kind == VARIANCE:
            starts[:, [at + 1, at + 4]] *= variance
        else:
            starts[:, [at + 1, at + 2]] *= np.sqrt(variance) / _USUAL_VOL
        at += SIZES[kind]
    inside: Matrix = np.minimum(np.maximum(starts, problem.lower), problem.upper)
    return inside


def neighbours(problem: Problem, start: Vector, n_starts: int) -> Matrix:
    """Starts around another, inside the bounds: (n_starts, n_params)."""
    normal = ndtri(_even(n_starts, start.size))
    even = np.concatenate([_EVEN[kind] for kind in problem.layout])
    moved = np.where(even, start + _AWAY * normal * np.maximum(np.abs(start), _AWAY), start * np.exp(_AWAY * normal))
    inside: Matrix = np.minimum(np.maximum(moved, problem.lower), problem.upper)
    return inside


def _even(n_points: int, n_dimensions: int) -> Matrix:
    """Points that fill the unit cube: a Kronecker sequence (Roberts 2018), as even in many dimensions as in one."""
    root = 2.0
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (n_dimensions + 1.0))
    points: Matrix = (
        0.5 + np.arange(1, n_points + 1)[:, np.newaxis] * root ** -np.arange(1.0, n_dimensions + 1.0)
    ) % 1.0
    return points


@careful
def _offset_of(layout: IntVector, wanted: int, last: bool) -> int:
    """Where the parameters of the first, or the last, factor of a kind begin."""
    at, found = 0, -1
    for kind in layout:
        if kind == wanted and (found < 0 or last):
            found = at
        at += 5 if kind == VARIANCE else 3
    return found


@careful
def _with_jumps(problem: Problem, whole: Vector) -> Matrix:
    at = _offset_of(problem.layout, 1, True)
    shapes = smile_shapes(problem)
    vol = np.median(shapes[:, 0])
    starts = np.empty((len(_CALMER) * _JUMPS.shape[0], whole.size))
    n = 0
    for jump in _JUMPS:
        for calmer in _CALMER:
            start = starts[n]
            start[:] = whole
            start[at] = jump[0]
            start[at + 1] = jump[1] * vol / _USUAL_VOL
            start[at + 2] = jump[2] * vol / _USUAL_VOL
            added = jump[0] * (start[at + 1] ** 2 + start[at + 2] ** 2)
            # What variance the jumps bring the factors give up in proportion, up to four fifths of theirs.
            now, later = 1e-300, 1e-300
            p = 0
            for kind in problem.layout:
                if kind == VARIANCE:
                    now += whole[p + 4]
                    later += whole[p + 1]
                p += 5 if kind == VARIANCE else 3
            p = 0
            for kind in problem.layout:
                if kind == VARIANCE:
                    start[p + 4] *= max(1.0 - added / now, 0.2)
                    start[p + 1] *= max(1.0 - added / later, 0.2)
                    start[p + 2] *= calmer
                p += 5 if kind == VARIANCE else 3
            n += 1
    return starts


@careful
def _with_factor(problem: Problem, whole: Vector) -> Matrix:
    """The first factor split in two."""
    one = _offset_of(problem.layout, VARIANCE, False)
    new = _offset_of(problem.layout, VARIANCE, True)
    starts = np.empty((len(_SPEEDS) * len(_SHARES) * len(_SHAPES), whole.size))
    n = 0
    # A speed beyond what the expiries can tell would make of both factors one.
    longest, shortest = problem.expiries[-1], problem.expiries[0]
    speed = min(max(whole[one], 0.3 / longest), 3.0 / shortest)
    for fast, slow in _SPEEDS:
        for of_v0, of_theta in _SHARES:
            for steeper, turn in _SHAPES:
                start = starts[n]
                start[:] = whole
                start[new] = speed * fast if fast != 1.0 else speed * slow
                start[one] = speed * slow if fast != 1.0 else speed
                start[new + 4] = of_v0 * whole[one + 4]
                start[one + 4] = (1.0 - of_v0) * whole[one + 4]
                start[new + 1] = of_theta * whole[one + 1]
                start[one + 1] = (1.0 - of_theta) * whole[one + 1]
                start[new + 2] = whole[one + 2] * steeper
                start[new + 3] = min(max(turn * whole[one + 3], -0.95), 0.95)
                n += 1
    return starts
