"""Merton's (1976) jumps: at rate `lam` a year ln S moves by N(mu_j, sigma_j^2), its expected drift taken out.

The readable form of what `pricing/jump_block.py` computes in vectorised real arithmetic.
"""

import math

import numpy as np

from ..arrays import ComplexMatrix, ComplexVector, Vector
from ..layout import JUMP
from .factor import Factor


def _pieces(u: ComplexVector, params: Vector) -> tuple[ComplexVector, ComplexVector, float]:
    """s = iu, E[e^{sX}] for the size X of a jump, and E[e^X]."""
    _, mu_j, sigma_j = params
    s = 1j * u
    return s, np.exp(s * (mu_j + 0.5 * sigma_j * sigma_j * s)), math.exp(mu_j + 0.5 * sigma_j * sigma_j)


def log_characteristic(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
    """lam T (E[e^{iuX}] - 1 - iu (E[e^X] - 1)).

    u        (n_u,), complex
    expiry   years, > 0
    params   (3,) lam, mu_j, sigma_j
    returns  (n_u,)
    """
    s, of_jump, mean = _pieces(u, params)
    result: ComplexVector = params[0] * expiry * (of_jump - 1.0 - s * (mean - 1.0))
    return result


def log_characteristic_gradient(u: ComplexVector, expiry: float, params: Vector) -> tuple[ComplexVector, ComplexMatrix]:
    """`log_characteristic` and its derivatives by lam, mu_j, sigma_j.

    returns  (n_u,), (3, n_u)
    """
    lam, _, sigma_j = params
    s, of_jump, mean = _pieces(u, params)
    by_lam = expiry * (of_jump - 1.0 - s * (mean - 1.0))
    by_mean = lam * expiry * s * (of_jump - mean)
    by_deviation = lam * expiry * sigma_j * s * (s * of_jump - mean)
    return lam * by_lam, np.stack([by_lam, by_mean, by_deviation])


def log_term(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
    """log(lam T E[e^{iuX}]): jumps of nearly one size turn long before they die out, and rare ones hardly show."""
    lam, mu_j, sigma_j = params
    s = 1j * u
    with np.errstate(divide="ignore"):
        result: ComplexVector = np.log(lam * expiry) + s * (mu_j + 0.5 * sigma_j * sigma_j * s)
    return result


def expected_variance(expiry: float, params: Vector) -> float:
    """Expected quadratic variation of the jumps until expiry: lam T (mu_j^2 + sigma_j^2)."""
    lam, mu_j, sigma_j = params
    return float(lam * expiry * (mu_j * mu_j + sigma_j * sigma_j))


def jump_factor() -> Factor:
    """The factor with its bounds."""
    return Factor(
        kind=JUMP,
        parameters=("lam", "mu_j", "sigma_j"),
        lower=np.array([0.0, -1.0, 0.001]),
        upper=np.array([20.0, 1.0, 1.0]),
        sizes=("lam",),
        noun="jumps",
        log_characteristic=log_characteristic,
        log_characteristic_gradient=log_characteristic_gradient,
        expected_variance=expected_variance,
        log_term=log_term,
    )
