"""Merton's jumps on a block of Fourier nodes, as `heston_block.py` has the variance factor.

At s = 1/2 - y + ix, on Lewis's contour and off it, a jump of size X has E[e^{sX}] = e^{s mu + s^2 sigma^2 / 2}. Where
jumps are nearly alike it turns for long before it dies out, so |phi| may rise again where it has fallen: by how much at
most is stated at every node, that a trough is not taken for the tail.

`models/jump_factor.py` holds the readable complex form.
"""

import math

import numpy as np

from ..arrays import Matrix, Vector
from ..compiled import inlined, kernel, reduction
from .nodes import COS, LARGEST_ANGLE, LOG_IMAG, LOG_REAL, MAX_NODES, PHI_IMAG, PHI_REAL, SIN, SLACK, X, Y
from .vector_math import cos_sin, exp

N_ROWS = 6
"""Rows of the factor: derivatives of log phi by lam, mu_j and sigma_j, real and imaginary."""

_R1, _R2, _R3, _I1, _I2, _I3 = (np.uint64(m * MAX_NODES) for m in range(N_ROWS))
_LARGEST_EXPONENT = 300.0
"""Beyond it E[e^{sX}] is as good as infinite, and its exponential too."""


@inlined
def log_moment_of_jumps(s: float, expiry: float, lam: float, mu_j: float, sigma_j: float) -> float:
    """The jumps' part of log E[(S_T/F)^s] for real s."""
    exponent = s * (mu_j + 0.5 * sigma_j * sigma_j * s)
    if exponent > _LARGEST_EXPONENT:
        return 1e300 if lam > 0.0 else 0.0
    mean = math.expm1(mu_j + 0.5 * sigma_j * sigma_j)
    return lam * expiry * (math.expm1(exponent) - s * mean)


@inlined
def jump_rounding(expiry: float, lam: float, mu_j: float, sigma_j: float) -> tuple[float, float]:
    """Units in the last place that log phi may be wrong by, as `exponent_rounding` of the variance factor."""
    size = lam * expiry * max(1.0, math.exp(0.5 * mu_j + 0.125 * sigma_j * sigma_j))
    return 4.0 * size, size * abs(mu_j)


@inlined
def jump_node(x: float, sr: float, mu_j: float, sigma_j: float) -> tuple[float, float, float]:
    """E[e^{sX}] at s = sr + ix: real and imaginary part, absolute value."""
    square = sigma_j * sigma_j
    size = exp(min(sr * mu_j + 0.5 * square * (sr * sr - x * x), _LARGEST_EXPONENT))
    cosine, sine = cos_sin(min(max(x * (mu_j + square * sr), -LARGEST_ANGLE), LARGEST_ANGLE))
    return size * cosine, size * sine, size


@kernel
def add_jumps(
    first: int,
    last: int,
    straight: bool,
    with_gradient: bool,
    expiry: float,
    params: Vector,
    work: Vector,
    rows: Vector,
) -> None:
    """Add the jumps' log phi to the row of it, and fill its derivatives and the row SLACK.

    straight  whether the nodes are real ones
    rows      (N_ROWS * MAX_NODES,), the factor's
    """
    lam, mu_j, sigma_j = params[0], params[1], params[2]
    mean = math.exp(mu_j + 0.5 * sigma_j * sigma_j)
    drift = math.expm1(mu_j + 0.5 * sigma_j * sigma_j)
    rate = lam * expiry
    for j in range(np.uint64(first), np.uint64(last)):
        x = work[X + j]
        sr = 0.5 if straight else 0.5 - work[Y + j]
        jr, ji, size = jump_node(x, sr, mu_j, sigma_j)
        by_r, by_i = jr - 1.0 - sr * drift, ji - x * drift
        work[LOG_REAL + j] += rate * by_r
        work[LOG_IMAG + j] += rate * by_i
        work[SLACK + j] += rate * (size - jr)
        if with_gradient:
            # s (J - m) and s (s J - m)
            lr, li = jr - mean, ji
            sjr, sji = sr * jr - x * ji - mean, sr * ji + x * jr
            rows[_R1 + j], rows[_I1 + j] = expiry * by_r, expiry * by_i
            rows[_R2 + j], rows[_I2 + j] = rate * (sr * lr - x * li), rate * (sr * li + x * lr)
            rows[_R3 + j], rows[_I3 + j] = (
                rate * sigma_j * (sr * sjr - x * sji),
                rate * sigma_j * (sr * sji + x * sjr),
            )


@kernel
def times_phi_jumps(first: int, last: int, work: Vector, rows: Vector) -> None:
    """The factor's integrands: phi times its weight, times those derivatives."""
    for j in range(np.uint64(first), np.uint64(last)):
        fr, fi = work[PHI_REAL + j], work[PHI_IMAG + j]
        ar, ai = rows[_R1 + j], rows[_I1 + j]
        br, bi = rows[_R2 + j], rows[_I2 + j]
        cr, ci = rows[_R3 + j], rows[_I3 + j]
        rows[_R1 + j] = fr * ar - fi * ai
        rows[_I1 + j] = fr * ai + fi * ar
        rows[_R2 + j] = fr * br - fi * bi
        rows[_I2 + j] = fr * bi + fi * br
        rows[_R3 + j] = fr * cr - fi * ci
        rows[_I3 + j] = fr * ci + fi * cr


@reduction
def sum_jumps(n_nodes: int, work: Vector, rows: Vector) -> tuple[float, float, float]:
    """sum_j Re[e^{-i x_j k} part] of the factor's three parts, for the strike that the nodes are turned to."""
    s1, s2, s3 = 0.0, 0.0, 0.0
    for j in range(np.uint64(n_nodes)):
        c = work[COS + j]
        s = work[SIN + j]
        s1 += c * rows[_R1 + j] + s * rows[_I1 + j]
        s2 += c * rows[_R2 + j] + s * rows[_I2 + j]
        s3 += c * rows[_R3 + j] + s * rows[_I3 + j]
    return s1, s2, s3


@inlined
def fold_jumps(factor: float, sums: Matrix, p: int, gradient: Matrix, q: int) -> None:
    """Turn the sums of quote q into its derivatives by lam, mu_j, sigma_j: as `fold_heston`."""
    for i in range(3):
        gradient[p + i, q] = factor * sums[q, p + 1 + i]
