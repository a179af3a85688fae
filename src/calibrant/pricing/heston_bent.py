"""One expiry of the fit kernel by the accurate pricer's method, compiled: where equally spaced nodes would be too many.

The contour, the choice of its side and the doubling of the nodes are those of `fourier.py`, which explains them; this
form is for Heston alone, fills the same sums as the fast kernel and stops at the tolerance it is given. It is called
rarely (docs/results/kernel.md says how rarely), so it is plain complex arithmetic, one node at a time.
"""

import cmath
import math

import numpy as np
from numba import njit

from ..arrays import ComplexVector, Matrix, Vector

_ANGLE = 0.3
_FIRST_NODES = 48
MAX_BENT_NODES = 8192
_Y_STEP = 0.25
_Y_POINTS = 240

# Far out, values overflow and underflow on purpose: IEEE rules, not the `kernel` flags.
careful = njit(cache=True, nogil=True, error_model="numpy")


@careful
def _log1p(z: complex) -> complex:
    return complex(0.5 * math.log1p(z.real * (2.0 + z.real) + z.imag * z.imag), math.atan2(z.imag, 1.0 + z.real))


@careful
def _log_parts(u: complex, expiry: float, params: Vector, out: ComplexVector) -> complex:
    """log phi(u); fills D, G, M, iu M / ... as `heston_parts` defines them: derivatives before the factor phi."""
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    weight = kappa * theta / (xi * xi)
    a = u * u + 1j * u
    beta = kappa - 1j * rho * xi * u
    d = cmath.sqrt(beta * beta + xi * xi * a)
    e = cmath.exp(-d * expiry)
    r = -xi * xi * a / (beta + d) if beta.real >= 0.0 else beta - d
    big_a = beta * (1.0 - e) + d * (1.0 + e)
    b = (1.0 - e) / big_a
    g = r * expiry - 2.0 * _log1p(r * (1.0 - e) / (2.0 * d))
    dd_by_d = -a * (2.0 * expiry * d * e - (1.0 - e * e)) / (big_a * big_a)
    dl_by_d = (1.0 + e + expiry * e * r) / big_a - 1.0 / d
    by_d = v0 * dd_by_d - weight * (expiry + 2.0 * dl_by_d)
    by_beta = v0 * a * b * b + weight * (expiry - 2.0 * b) + by_d * beta / d
    out[0] = -a * b
    out[1] = g
    out[2] = by_beta
    # iu = 1/2 + ix: the sum that the caller forms is 1/2 M + ixM.
    out[3] = (1j * u - 0.5) * by_beta
    out[4] = a / d * by_d
    return weight * g - v0 * a * b


@careful
def _extents(
    expiry: float,
    params: Vector,
    variance: float,
    k: Vector,
    angle: float,
    negligible: float,
    end: Vector,
    cost: Vector,
) -> None:
    """For each strike, where its integrand is negligible on the contour, and what the contour costs there."""
    b = 0.5 / math.sqrt(variance)
    scratch = np.empty(5, np.complex128)
    end[:] = 0.0
    peak = np.zeros(k.size)
    open_ = k.size
    for i in range(1, _Y_POINTS):
        z = complex(i * _Y_STEP, angle)
        x = b * (cmath.sinh(z) - complex(0.0, math.sin(angle)))
        size = max(_log_parts(x - 0.5j, expiry, params, scratch).real, -0.5 * variance * (x * x + 0.25).real)
        size += math.log(abs(b * cmath.cosh(z) / (x * x + 0.25)))
        for q in range(k.size):
            if end[q] == 0.0:
                here = size + k[q] * x.imag
                peak[q] = max(peak[q], here)
                if not here > negligible or i == _Y_POINTS - 1:
                    end[q] = i * _Y_STEP
                    cost[q] = end[q] + 10.0 * peak[q]
                    open_ -= 1
        if open_ == 0:
            return


@careful
def bent_sums(expiry: float, params: Vector, variance: float, k: Vector, target: float, sums: Matrix) -> int:
    """Fill `sums` as the fast kernel does, for all strikes of one expiry.

    k        (n_strikes,)
    target   error allowed in the first sum
    sums     (n_strikes, 1 or 6), filled
    returns  nodes taken, negative where MAX_BENT_NODES did not bring agreement
    """
    n_parts = sums.shape[1]
    ends = np.empty((2, k.size))
    costs = np.empty((2, k.size))
    negligible = math.log(1e-3 * target)
    for side in range(2):
        _extents(expiry, params, variance, k, _ANGLE * (2 * side - 1), negligible, ends[side], costs[side])
    b = 0.5 / math.sqrt(variance)
    parts = np.empty(5, np.complex128)
    before = np.empty(k.size)
    total = 0
    agreed = True
    for side in range(2):
        angle = _ANGLE * (2 * side - 1)
        end = 0.0
        for q in range(k.size):
            if (costs[1, q] < costs[0, q]) == (side == 1):
                end = max(end, ends[side, q])
        if end == 0.0:
            continue
        n = _FIRST_NODES
        settled = False
        first = True
        while not settled and n <= MAX_BENT_NODES:
            for q in range(k.size):
                if (costs[1, q] < costs[0, q]) == (side == 1):
                    before[q] = sums[q, 0]
                    sums[q] = 0.0
            step = end / n
            for j in range(n):
                z = complex((j + 0.5) * step, angle)
                x = b * (cmath.sinh(z) - complex(0.0, math.sin(angle)))
                c = x * x + 0.25
                scale = step * b * cmath.cosh(z) / c
                log_phi = _log_parts(x - 0.5j, expiry, params, parts)
                log_black = -0.5 * variance * c
                for q in range(k.size):
                    if (costs[1, q] < costs[0, q]) == (side == 1):
                        turn = -1j * x * k[q]
                        weighted = scale * cmath.exp(log_phi + turn)
                        sums[q, 0] += (weighted - scale * cmath.exp(log_black + turn)).real
                        for m in range(1, n_parts):
                            sums[q, m] += (weighted * parts[m - 1]).real
            total += n
            if not first:
                settled = True
                for q in range(k.size):
                    if (costs[1, q] < costs[0, q]) == (side == 1) and not abs(sums[q, 0] - before[q]) <= target:
                        settled = False
            first = False
            n *= 2
        agreed = agreed and settled
    return total if agreed else -total
