"""Random parameters and panels for models of several factors, for tests.

The box: kappa 0.02..40, theta and v0 0.005..0.5, xi 0.02..5, lam 0.02..10 a year and sigma_j 0.005..0.6, uniform in the
logarithm; rho -0.98..0.98, mu_j -0.8..0.4, uniform. Expiries from a day to five years, strikes from three standard
deviations of the log-price below the forward to two and a half above.
"""

from typing import Any

import numpy as np

from calibrant.arrays import Vector
from calibrant.layout import VARIANCE
from calibrant.models import Model

ORDINARY = {
    "kappa": 2.0,
    "theta": 0.04,
    "xi": 0.5,
    "rho": -0.7,
    "v0": 0.05,
    "kappa1": 6.0,
    "theta1": 0.02,
    "xi1": 0.5,
    "rho1": -0.4,
    "v01": 0.03,
    "kappa2": 0.5,
    "theta2": 0.04,
    "xi2": 0.3,
    "rho2": -0.8,
    "v02": 0.02,
    "lam": 0.5,
    "mu_j": -0.1,
    "sigma_j": 0.15,
}
"""Parameters of all models, as a quiet market shows them."""
EXPIRIES = np.array([1.0 / 365.0, 7.0 / 365.0, 1.0 / 12.0, 0.25, 0.5, 1.0, 2.0, 5.0])
N_STRIKES = 10
OFFSETS = np.arange(EXPIRIES.size + 1) * N_STRIKES


def draw(model: Model, generator: np.random.Generator) -> Vector:
    """Parameters from the box."""

    def between(low: float, high: float) -> float:
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))

    drawn: list[Any] = []
    for factor in model.factors:
        if factor.kind == VARIANCE:
            drawn += [between(0.02, 40.0), between(0.005, 0.5), between(0.02, 5.0), generator.uniform(-0.98, 0.98)]
            drawn += [between(0.005, 0.5)]
        else:
            drawn += [between(0.02, 10.0), generator.uniform(-0.8, 0.4), between(0.005, 0.6)]
    return np.array(drawn)


def strikes(model: Model, params: Vector, expiry: float) -> Vector:
    """(N_STRIKES,) log-moneyness."""
    k: Vector = np.linspace(-3.0, 2.5, N_STRIKES) * np.sqrt(model.expected_variance(expiry, params))
    return k
