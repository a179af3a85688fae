"""Starts without a network: Heston parameters read off the shape of the quoted surface.

Each expiry's smile is summed up by a weighted quadratic in log-moneyness: level, slope and curvature at the money.
Then, for each of a few speeds of mean reversion,

* v0 and theta follow from the term structure of at-the-money variance, which is linear in them,
* rho xi from the slopes: dsigma/dk = rho xi / (2 sigma) * (1/(kappa T)) (1 - (1 - e^{-kappa T}) / (kappa T)),
* xi from the curvatures, by the short-expiry expansion sigma'' = ((2 - 5 rho^2) xi^2 / (24 sigma^3)) damped alike
  (Durrleman 2004; Forde & Jacquier 2009).

The formulas are rough; which start is the best, and which lead to further optima, `search` finds out. kappa is
enumerated because it is what the surface tells least about.
"""

import math

import numpy as np

from .arrays import Matrix, Vector
from .compiled import careful
from .optimisers.objective import COARSE, Problem, evaluate

_SPEEDS = (4.0, 0.1, 0.1, 55.0)
_CALMNESS = (1.0, 1.0, 0.15, 1.0)
N_KINDS = len(_SPEEDS)
"""Speeds of mean reversion, and the share of the xi read off the curvatures: an overnight smile may bend for reasons of
its own, and then the best fit of the others is a calmer one. Of 1,699 poor fits of odd panels from a network's start 64
had a better optimum; one or another of these, of 24 tried, led to it in all 64."""


@careful
def smile_shapes(problem: Problem) -> Matrix:
    """Level, slope, curvature of each smile at the money and the weight of the expiry: (n_expiries, 4)."""
    shapes = np.zeros((problem.expiries.size, 4))
    for e in range(problem.expiries.size):
        first, last = problem.offsets[e], problem.offsets[e + 1]
        k = problem.log_moneyness[first:last]
        vol = problem.vol[first:last]
        spread = max(vol[np.argmin(np.abs(k))] * math.sqrt(problem.expiries[e]), 1e-6)
        # Normal equations of vol = level + slope z + curvature z^2 / 2 in z = k / spread. The wings bend away from any
        # parabola: quotes count for less beyond a standard deviation or so. The ridge settles smiles of one or two
        # strikes, whose slope or curvature it leaves at zero.
        moments = np.zeros(5)
        right = np.zeros(3)
        for q in range(k.size):
            z = k[q] / spread
            weight = math.exp(-0.5 * (z / 1.5) ** 2) + 1e-6
            power = weight
            for m in range(5):
                moments[m] += power
                if m < 3:
                    right[m] += power * vol[q]
                power *= z
        matrix = np.empty((3, 3))
        for a in range(3):
            for b in range(3):
                matrix[a, b] = moments[a + b]
            if a > 0:
                matrix[a, a] += 1e-6 * moments[0]
        fit = np.linalg.solve(matrix, right)
        shapes[e, 0] = min(max(fit[0], 0.5 * vol.min()), 2.0 * vol.max())
        shapes[e, 1] = fit[1] / spread
        shapes[e, 2] = 2.0 * fit[2] / (spread * spread)
        shapes[e, 3] = math.sqrt(k.size)
    return shapes


@careful
def _fill_start(kappa: float, expiry: Vector, shapes: Matrix, start: Vector) -> None:
    n = expiry.size
    mean = np.empty(n)
    variance = np.empty(n)
    for e in range(n):
        speed = kappa * expiry[e]
        mean[e] = -math.expm1(-speed) / speed
        variance[e] = shapes[e, 0] ** 2
    # Weighted least squares for sigma^2 = v0 m + theta (1 - m), each kept at a tenth of the lowest variance or more.
    lowest = 0.1 * variance.min()
    aa, ab, bb, ay, by = 0.0, 0.0, 0.0, 0.0, 0.0
    for e in range(n):
        weight = shapes[e, 3] ** 2
        a, b = mean[e], 1.0 - mean[e]
        aa += weight * a * a
        ab += weight * a * b
        bb += weight * b * b
        ay += weight * a * variance[e]
        by += weight * b * variance[e]
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        v0 = (ay * bb - by * ab) / determinant
        theta = (by * aa - ay * ab) / determinant
    else:
        # One expiry: it tells a mean of the two.
        v0 = (ay + by) / max(aa + 2.0 * ab + bb, 1e-300)
        theta = v0
    if v0 < lowest:
        v0 = lowest
        theta = max(lowest, (by - ab * v0) / max(bb, 1e-300))
    elif theta < lowest:
        theta = lowest
        v0 = max(lowest, (ay - ab * theta) / max(aa, 1e-300))
    # At short expiries the smile says most about rho xi and xi: both fits weigh by the effect itself.
    up, down = 0.0, 1e-300
    for e in range(n):
        effect = (1.0 - mean[e]) / (kappa * expiry[e]) / (2.0 * shapes[e, 0]) * shapes[e, 3]
        up += effect * shapes[e, 1] * shapes[e, 3]
        down += effect * effect
    product = up / down
    up, down = 0.0, 1e-300
    for e in range(n):
        damping = (1.0 - mean[e]) / (kappa * expiry[e])
        cube = shapes[e, 0] ** 3
        effect = damping * damping / (6.0 * cube) * shapes[e, 3]
        up += effect * (shapes[e, 2] + product * product / (4.0 * cube)) * shapes[e, 3]
        down += effect * effect
    xi = math.sqrt(max(0.5 * up / down, 1.6 * product * product, 0.01))
    start[0] = kappa
    start[1] = theta
    start[2] = xi
    start[3] = min(max(product / xi, -0.9), 0.9)
    start[4] = v0


def surface_starts(problem: Problem) -> Matrix:
    """Starts of each kind, inside the bounds: (N_KINDS, 5)."""
    starts = np.empty((N_KINDS, 5))
    fill_surface_starts(problem, starts)
    return starts


@careful
def fill_surface_starts(problem: Problem, starts: Matrix) -> None:
    """`surface_starts`, to be called by kernels."""
    shapes = smile_shapes(problem)
    for i in range(N_KINDS):
        _fill_start(_SPEEDS[i], problem.expiries, shapes, starts[i])
        starts[i, 2] *= _CALMNESS[i]
        for j in range(5):
            starts[i, j] = min(max(starts[i, j], problem.lower[j]), problem.upper[j])


def objective_at(problem: Problem, params: Vector) -> float:
    """The objective of a start, with the kernel's coarse error."""
    n = problem.vol.size
    return float(evaluate(params, problem, COARSE, problem.vol.copy(), np.empty(n), np.empty((0, n))))
