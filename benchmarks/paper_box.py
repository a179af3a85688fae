"""Random draws of the paper's box (its section 4.4) and its grid."""

import math

import numpy as np

from calibrant.arrays import Matrix, Vector

LOWER = np.array([0.5, 0.02, 0.1, -0.95, 0.01])
UPPER = np.array([8.0, 0.5, 1.5, -0.05, 0.4])
EXPIRIES = np.linspace(0.1, 2.0, 8)
LOG_STRIKES = np.log(np.linspace(0.8, 1.2, 10))
EXPIRY = np.repeat(EXPIRIES, LOG_STRIKES.size)
LOG_MONEYNESS = np.tile(LOG_STRIKES, EXPIRIES.size)


def draws(n: int, seed: int) -> Matrix:
    """(n, 5) parameter vectors, uniform in the box."""
    drawn: Matrix = LOWER + (UPPER - LOWER) * np.random.default_rng(seed).random((n, 5))
    return drawn


def admissible_draws(n: int, seed: int) -> Matrix:
    """(n, 5) parameter vectors over the admissible bounds, all but rho uniform in the logarithm."""
    low, high = np.log([0.001, 1e-4, 0.001, 1.0, 1e-4]), np.log([60.0, 4.0, 15.0, 1.0, 4.0])
    generator = np.random.default_rng(seed)
    params = np.exp(low + (high - low) * generator.random((n, 5)))
    params[:, 3] = generator.uniform(-0.9999, 0.9999, n)
    return params


def extreme_draws(n: int, seed: int) -> list[tuple[Vector, Vector]]:
    """(parameters, quoted expiries) from all over the admissible bounds, a day to ten years."""
    rng = np.random.default_rng(seed)
    return [
        (params, np.exp(rng.uniform(math.log(1.0 / 365.0), math.log(10.0), int(rng.integers(1, 6)))))
        for params in admissible_draws(n, seed)
    ]


def expiries(n: int, seed: int) -> Vector:
    """(n,) expiries from 7 days to 5 years, uniform in the logarithm."""
    drawn: Vector = np.exp(np.random.default_rng(seed).uniform(np.log(7 / 365), np.log(5.0), n))
    return drawn
