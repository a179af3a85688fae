"""Heston's variance factor: dv = kappa (theta - v) dt + xi sqrt(v) dB, d<W, B> = rho dt, v(0) = v0, which moves the
asset by sqrt(v) dW.

The readable form of what `pricing/heston_block.py` computes in vectorised real arithmetic.
"""

import math

import numpy as np

from ..arrays import ComplexMatrix, ComplexVector, Vector
from ..layout import VARIANCE
from .factor import Factor


def _log1p(z: ComplexVector) -> ComplexVector:
    """log(1 + z) that keeps its digits for small z; numpy's complex one does not."""
    x, y = z.real, z.imag
    result: ComplexVector = 0.5 * np.log1p(x * (2.0 + x) + y * y) + 1j * np.arctan2(y, 1.0 + x)
    return result


def _pieces(u: ComplexVector, expiry: float, params: Vector) -> tuple[ComplexVector, ...]:
    """beta, d, E = exp(-dT), 1 - E, A = beta (1 - E) + d (1 + E), r = beta - d, log(A / 2d) and a = u^2 + iu.

    Each without the cancellation that its formula has: in d^2 = beta^2 + xi^2 a for rho near +-1, in 1 - E for short
    expiries, in beta + d or beta - d, whose product is -xi^2 a, and in A where beta is near -d and E vanishes.
    """
    kappa, _, xi, rho, _ = params
    s = 1j * u
    a = u * u + s
    beta = kappa - rho * xi * s
    d = np.sqrt(kappa * (kappa - 2.0 * rho * xi * s) + xi * xi * s * (1.0 - (1.0 - rho) * (1.0 + rho) * s))
    exponent = -d * expiry
    e = np.exp(exponent)
    lost: ComplexVector = -np.expm1(exponent)
    ahead = beta.real * d.real + beta.imag * d.imag >= 0.0
    larger = beta + d if ahead.all() else np.where(ahead, beta + d, beta - d)
    smaller = -xi * xi * a / larger
    r = np.where(ahead, smaller, larger)
    # log1p keeps the digits as xi -> 0.
    grown = r * lost / (2.0 * d)
    logarithm = _log1p(grown)
    big_a = 2.0 * d + r * lost
    far = ~(np.abs(grown) < 0.5)
    if far.any():
        big_a = np.where(far, np.where(ahead, larger, smaller) - r * e, big_a)
        logarithm = np.where(far, np.log(big_a / (2.0 * d)), logarithm)
    return beta, d, e, lost, big_a, r, logarithm, a


def log_characteristic(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
    """log E[exp(iu ln(S_T/F))] in the "little trap" form (Albrecher et al. 2007), which has no branch to follow.

    u        (n_u,), complex, inside the strip of finite moments
    expiry   years, > 0
    params   (5,) kappa, theta, xi, rho, v0
    returns  (n_u,)
    """
    kappa, theta, xi, _, v0 = params
    _, _, _, lost, big_a, r, logarithm, a = _pieces(u, expiry, params)
    result: ComplexVector = kappa * theta / (xi * xi) * (r * expiry - 2.0 * logarithm) - v0 * a * lost / big_a
    return result


def log_characteristic_gradient(u: ComplexVector, expiry: float, params: Vector) -> tuple[ComplexVector, ComplexMatrix]:
    """`log_characteristic` and its derivatives by kappa, theta, xi, rho, v0.

    kappa, xi and rho enter through beta and d alone (besides the factor 1 / xi^2), so the chain rule runs through the
    derivatives by those two (compare Cui, del Bano Rollin & Germano 2017, section 3).

    returns  (n_u,), (5, n_u)
    """
    kappa, theta, xi, rho, v0 = params
    beta, d, e, lost, big_a, r, logarithm, a = _pieces(u, expiry, params)
    weight = kappa * theta / (xi * xi)
    g = r * expiry - 2.0 * logarithm
    b = lost / big_a
    log_phi = weight * g - v0 * a * b
    dd_by_d = -a * (2.0 * expiry * d * e - lost * (1.0 + e)) / (big_a * big_a)
    dl_by_d = (1.0 + e + expiry * e * r) / big_a - 1.0 / d
    by_d = v0 * dd_by_d - weight * (expiry + 2.0 * dl_by_d)
    # T - 2 B - (T + 2 dL/dd) beta / d, whose terms cancel as xi vanishes while the weight grows as 1 / xi^2.
    ahead = beta / d
    small = -r / d * (expiry + 2.0 / big_a * (beta * expiry * e - lost * (1.0 + ahead)))
    by_beta = v0 * (a * b * b + dd_by_d * ahead) + weight * small
    gradient = np.stack(
        [
            theta / (xi * xi) * g + by_beta,
            kappa / (xi * xi) * g,
            -2.0 * weight / xi * g - 1j * rho * u * by_beta + xi * a / d * by_d,
            -1j * xi * u * by_beta,
            -a * b,
        ]
    )
    return log_phi, gradient


def expected_variance(expiry: float, params: Vector) -> float:
    """E[int_0^T v dt], in units of total variance."""
    kappa, theta, _, _, v0 = params
    return float(theta * expiry - (v0 - theta) * math.expm1(-kappa * expiry) / kappa)


def feller_ratio(params: Vector) -> float:
    """2 kappa theta / xi^2: above 1 the variance never reaches zero (Feller 1951)."""
    # Plain floats: numpy takes ten times as long over five numbers.
    kappa, theta, xi, _, _ = params.tolist()
    ratio: float = 2.0 * kappa * theta / (xi * xi)
    return ratio


def variance_factor(*, may_vanish: bool = False) -> Factor:
    """The factor with its bounds.

    may_vanish  whether theta and v0 may be zero: among several factors
    """
    least = 0.0 if may_vanish else 1e-4
    return Factor(
        kind=VARIANCE,
        parameters=("kappa", "theta", "xi", "rho", "v0"),
        lower=np.array([0.001, least, 0.001, -0.9999, least]),
        upper=np.array([60.0, 4.0, 15.0, 0.9999, 4.0]),
        sizes=("theta", "v0"),
        noun="variance factor",
        merged=("kappa", "theta", "v0"),
        log_characteristic=log_characteristic,
        log_characteristic_gradient=log_characteristic_gradient,
        expected_variance=expected_variance,
        feller_ratio=feller_ratio,
    )
