"""Chi-squared distance to the Breeden-Litzenberger density on strike bins of 1 % of the forward.

The density of S_T / F is the second derivative of the call price by the strike (Breeden & Litzenberger 1978). On a
ladder of strikes K_0 .. K_m, h = 1 % apart from 80 % to 120 %, its second differences

    q_i = (C(K_{i-1}) - 2 C(K_i) + C(K_{i+1})) / h,    0 < i < m,

are the probabilities of triangular bins, each the expectation of a hat around K_i, and what the hats leave over is two
more bins, the tails

    q_0 = 1 + (C(K_1) - C(K_0)) / h,    q_m = (C(K_{m-1}) - C(K_m)) / h.

They add up to one whatever the prices. The distance of an answer's p from the exact q at one expiry is

    chi^2 = sum_i (p_i - q_i)^2 / max(q_i, 1e-6):

below one in a million a bin holds rounding of the prices (1e-12 / h) and no density.
"""

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.models import Model

from .surfaces import Surfaces, otm

BIN = 0.01
"""Width, of the forward."""
STRIKES = np.linspace(0.8, 1.2, 41)
SMALLEST_MASS = 1e-6


def bin_masses(model: Model, params: Matrix, expiry: Vector) -> Surfaces:
    """Probabilities of the bins, the tails first and last: (n, n_expiries, 41).

    params  (n, n_params)
    expiry  (n_expiries,), years
    """
    k = np.log(STRIKES)
    value = otm(model, params, np.broadcast_to(k, (len(params), expiry.size, k.size)), expiry)
    return masses(value + np.maximum(-np.expm1(k), 0.0))


def masses(calls: Surfaces) -> Surfaces:
    """The same from undiscounted call prices at `STRIKES` (..., 41), in units of the forward."""
    slope = np.diff(calls, axis=-1) / BIN
    return np.concatenate((1.0 + slope[..., :1], np.diff(slope, axis=-1), -slope[..., -1:]), axis=-1)


def chi_squared(found: Surfaces, exact: Surfaces) -> Matrix:
    """Distance at each expiry, (n, n_expiries), of probabilities (n, n_expiries, n_bins)."""
    distance: Matrix = ((found - exact) ** 2 / np.maximum(exact, SMALLEST_MASS)).sum(axis=-1)
    return distance
