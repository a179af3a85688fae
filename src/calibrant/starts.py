"""Starts without a network: Heston parameters read off the shape of the quoted surface.

Each expiry's smile is summed up by a weighted quadratic in log-moneyness: level, slope and curvature at the money.
Then, for each of a few speeds of mean reversion,

* v0 and theta follow from the term structure of at-the-money variance, which is linear in them,
* rho xi from the slopes: dsigma/dk = rho xi / (2 sigma) * (1/(kappa T)) (1 - (1 - e^{-kappa T}) / (kappa T)),
* xi from the curvatures, by the short-expiry expansion sigma'' = ((2 - 5 rho^2) xi^2 / (24 sigma^3)) damped alike
  (Durrleman 2004; Forde & Jacquier 2009).

The formulas are rough; the one whose vols are nearest to the quotes is the start, and the others are the further starts
of a panel with several optima. kappa is enumerated because it is what the surface tells least about.
"""

import math

import numpy as np

from .arrays import Matrix, Vector
from .optimisers.levenberg_marquardt import COARSE, Problem, evaluate

_SPEEDS = (0.3, 1.0, 3.0, 8.0, 20.0, 45.0)


def smile_shapes(problem: Problem) -> Matrix:
    """Level, slope, curvature of each smile at the money and the weight of the expiry: (n_expiries, 4)."""
    shapes = np.zeros((problem.expiries.size, 4))
    for e in range(problem.expiries.size):
        quotes = slice(problem.offsets[e], problem.offsets[e + 1])
        k, vol = problem.log_moneyness[quotes], problem.vol[quotes]
        nearest = vol[np.argmin(np.abs(k))]
        spread = max(float(nearest * math.sqrt(problem.expiries[e])), 1e-6)
        z = k / spread
        # The wings bend away from any parabola: quotes beyond a standard deviation or so count for less and less.
        weight = np.exp(-0.5 * (z / 1.5) ** 2) + 1e-6
        terms = min(3, np.unique(z).size)
        basis = np.vander(z, terms, increasing=True)
        fit = np.linalg.lstsq(basis * np.sqrt(weight)[:, None], vol * np.sqrt(weight), rcond=None)[0]
        shapes[e, :terms] = fit / spread ** np.arange(terms)
        shapes[e, 2] *= 2.0
        shapes[e, 0] = min(max(shapes[e, 0], 0.5 * vol.min()), 2.0 * vol.max())
        shapes[e, 3] = math.sqrt(k.size)
    return shapes


def surface_starts(problem: Problem) -> Matrix:
    """Starts for each speed of mean reversion, inside the bounds: (n_starts, 5), best first by their objective."""
    shapes = smile_shapes(problem)
    starts = np.array([_start_at(kappa, problem.expiries, shapes) for kappa in _SPEEDS])
    starts = np.clip(starts, problem.lower, problem.upper)
    order = np.argsort([objective_at(problem, start) for start in starts], kind="stable")
    ordered: Matrix = starts[order]
    return ordered


def objective_at(problem: Problem, params: Vector) -> float:
    """The objective of a start, with the kernel's coarse error."""
    n = problem.vol.size
    return float(evaluate(params, problem, COARSE, problem.vol.copy(), np.empty(n), np.empty((0, n))))


def _start_at(kappa: float, expiry: Vector, shapes: Matrix) -> Vector:
    level, slope, curvature, weight = shapes.T
    speed = kappa * expiry
    mean = -np.expm1(-speed) / speed
    # Weighted least squares for sigma^2 = v0 m + theta (1 - m), each kept at a tenth of the lowest variance or more.
    variance = level * level
    lowest = 0.1 * float(variance.min())
    basis = np.column_stack([mean, 1.0 - mean]) * weight[:, None]
    v0, theta = np.linalg.lstsq(basis, variance * weight, rcond=None)[0]
    if v0 < lowest:
        v0, theta = lowest, max(lowest, _through(basis[:, 1], variance * weight - lowest * basis[:, 0]))
    elif theta < lowest:
        v0, theta = max(lowest, _through(basis[:, 0], variance * weight - lowest * basis[:, 1])), lowest
    damping = (1.0 - mean) / speed
    # At short expiries the smile says most about rho xi and xi: weight by the effect itself.
    product = _through(damping / (2.0 * level) * weight, slope * weight)
    squared = _through(
        4.0 * damping * damping / (24.0 * level**3) * weight, (curvature + product**2 / (4.0 * level**3)) * weight
    )
    xi = math.sqrt(max(0.5 * squared, 1.6 * product * product, 0.01))
    return np.array([kappa, theta, xi, min(max(product / xi, -0.9), 0.9), v0])


def _through(x: Vector, y: Vector) -> float:
    """Slope of the least-squares line through the origin."""
    return float(x @ y / max(float(x @ x), 1e-300))
