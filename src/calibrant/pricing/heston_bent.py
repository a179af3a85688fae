"""One expiry of the fit kernel by the accurate pricer's method, compiled: where equally spaced nodes would be too many.

The contour, the choice of its side and the doubling of the nodes are those of `fourier.py`, which explains them; this
form is for Heston alone, fills the same sums as the fast kernel and stops at the tolerance it is given. It is called
rarely (docs/results/kernel.md says how rarely), so the nodes are plain complex arithmetic; only the strikes vectorise.
"""

import cmath
import math

import numpy as np
from numba import njit

from ..arrays import ComplexVector, Matrix, Vector
from .vector_math import cos_sin, exp, kernel

_ANGLE = 0.3
_FIRST_NODES = 48
MAX_BENT_NODES = 8192
_EPSILON = 2.220446049250313e-16
_Y_STEP = 0.25
_Y_POINTS = 240

# Far out, values overflow and underflow on purpose: IEEE rules, not the `kernel` flags.
careful = njit(cache=True, nogil=True, error_model="numpy")


@careful
def _log1p(z: complex) -> complex:
    return complex(0.5 * math.log1p(z.real * (2.0 + z.real) + z.imag * z.imag), math.atan2(z.imag, 1.0 + z.real))


@careful
def _log_parts(u: complex, expiry: float, params: Vector, out: ComplexVector) -> complex:
    """log phi(u); fills D, G, M, ixM and aN/d of `heston_node`: the parts after the first, before the factor phi."""
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
    log_phi: complex = weight * g - v0 * a * b
    return log_phi


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
    rounding: Vector,
) -> None:
    """For each strike, where its integrand is negligible on the contour, what the contour costs there, and what
    rounding adds: the integrand may grow before it decays.
    """
    b = 0.5 / math.sqrt(variance)
    scratch = np.empty(5, np.complex128)
    end[:] = 0.0
    peak = np.zeros(k.size)
    turns = np.zeros(k.size)
    open_ = k.size
    for i in range(1, _Y_POINTS):
        z = complex(i * _Y_STEP, angle)
        x = b * (cmath.sinh(z) - complex(0.0, math.sin(angle)))
        size = max(_log_parts(x - 0.5j, expiry, params, scratch).real, -0.5 * variance * (x * x + 0.25).real)
        size += math.log(abs(b * cmath.cosh(z) / (x * x + 0.25)))
        for q in range(k.size):
            if end[q] == 0.0:
                here = size + k[q] * x.imag
                if here > peak[q]:
                    peak[q] = here
                    turns[q] = abs(k[q] * x)
                if not here > negligible or i == _Y_POINTS - 1:
                    end[q] = i * _Y_STEP
                    cost[q] = end[q] + 10.0 * peak[q]
                    rounding[q] = _EPSILON * end[q] * math.exp(peak[q]) * (4.0 + turns[q])
                    open_ -= 1
        if open_ == 0:
            return


@kernel
def _add_node(k: Vector, x_real: float, x_imag: float, real: Vector, imag: Vector, sums: Matrix) -> None:
    """Add Re[e^{-ixk} part] of one node to every strike's sums, (n_parts, n_strikes)."""
    a0, b0 = real[0], imag[0]
    if sums.shape[0] == 1:
        for q in range(k.size):
            size = exp(min(k[q] * x_imag, 690.0))
            c, s = cos_sin(k[q] * x_real)
            sums[0, q] += size * (c * a0 + s * b0)
        return
    a1, b1 = real[1], imag[1]
    a2, b2 = real[2], imag[2]
    a3, b3 = real[3], imag[3]
    a4, b4 = real[4], imag[4]
    a5, b5 = real[5], imag[5]
    for q in range(k.size):
        size = exp(min(k[q] * x_imag, 690.0))
        c, s = cos_sin(k[q] * x_real)
        c *= size
        s *= size
        sums[0, q] += c * a0 + s * b0
        sums[1, q] += c * a1 + s * b1
        sums[2, q] += c * a2 + s * b2
        sums[3, q] += c * a3 + s * b3
        sums[4, q] += c * a4 + s * b4
        sums[5, q] += c * a5 + s * b5


@careful
def _side_sums(
    expiry: float, params: Vector, variance: float, k: Vector, angle: float, end: float, target: float, sums: Matrix
) -> tuple[int, float]:
    """The sums of the strikes that share a side, (n_parts, n_strikes).

    returns (nodes taken, negative without agreement; the last change)
    """
    n_parts = sums.shape[0]
    b = 0.5 / math.sqrt(variance)
    parts = np.empty(5, np.complex128)
    real = np.empty(n_parts)
    imag = np.empty(n_parts)
    before = np.empty(k.size)
    taken = 0
    worst = math.inf
    n = _FIRST_NODES
    while n <= MAX_BENT_NODES:
        before[:] = sums[0]
        sums[:] = 0.0
        step = end / n
        for j in range(n):
            z = complex((j + 0.5) * step, angle)
            x = b * (cmath.sinh(z) - complex(0.0, math.sin(angle)))
            c = x * x + 0.25
            scale = step * b * cmath.cosh(z) / c
            phi = scale * cmath.exp(_log_parts(x - 0.5j, expiry, params, parts))
            added = phi - scale * cmath.exp(-0.5 * variance * c)
            real[0] = added.real
            imag[0] = added.imag
            for m in range(1, n_parts):
                part = phi * parts[m - 1]
                real[m] = part.real
                imag[m] = part.imag
            _add_node(k, x.real, x.imag, real, imag, sums)
        taken += n
        if n > _FIRST_NODES:
            worst = 0.0
            for q in range(k.size):
                change = abs(sums[0, q] - before[q])
                worst = max(worst, change if change == change else math.inf)
            if worst <= target:
                return taken, worst
        n *= 2
    return -taken, worst


@careful
def bent_sums(
    expiry: float, params: Vector, variance: float, k: Vector, target: float, sums: Matrix
) -> tuple[int, float]:
    """Fill `sums` as the fast kernel does, for all strikes of one expiry.

    k        (n_strikes,)
    target   error allowed in the first sum
    sums     (n_strikes, 1 or 6), filled
    returns  (nodes taken, negative where MAX_BENT_NODES did not bring agreement; error of the first sum)
    """
    ends = np.empty((2, k.size))
    costs = np.empty((2, k.size))
    roundings = np.empty((2, k.size))
    negligible = math.log(1e-3 * target)
    for side in range(2):
        _extents(
            expiry, params, variance, k, _ANGLE * (2 * side - 1), negligible, ends[side], costs[side], roundings[side]
        )
    taken = 0
    error = 0.0
    agreed = True
    for side in range(2):
        chosen = np.flatnonzero((costs[1] < costs[0]) == (side == 1))
        if chosen.size > 0:
            side_sums = np.empty((sums.shape[1], chosen.size))
            end = ends[side][chosen].max()
            nodes, change = _side_sums(
                expiry, params, variance, k[chosen], _ANGLE * (2 * side - 1), end, target, side_sums
            )
            agreed = agreed and nodes > 0
            taken += abs(nodes)
            # What lies beyond the end is a few times `negligible`; two results may agree better than they are good.
            error = max(error, 4.0 * change + 1e-2 * target + roundings[side][chosen].max())
            for i in range(chosen.size):
                for m in range(sums.shape[1]):
                    sums[chosen[i], m] = side_sums[m, i]
    return taken if agreed else -taken, error
