"""Out-of-the-money option values of an irregular panel and their gradient under Heston, compiled: the fit kernel.

One expiry at a time, on Lewis's contour u = x - i/2 (Lewis 2001), with a Black-Scholes control variate of the same
expected variance w = E[int v dt]:

    C(k) = C_BS(k; w) + e^{k/2}/pi  int_0^inf Re[ e^{-ixk} (phi_BS - phi)(x - i/2) ] / (x^2 + 1/4) dx

The control variate takes away both poles, so that the integrand is analytic in the whole strip of finite moments and
the midpoint rule converges exponentially. Its two errors are controlled separately, and neither needs a second pass:

* Step. The midpoint rule with step h = 2 pi / L adds the true function at k + mL, m = +-1, ..., with weights of
  modulus one. Those images are option values L beyond the strike, which moments bound (Chernoff):
  P(k) <= E[S^-p] e^{(1+p)k} p^p / (1+p)^(1+p). `alias_length` picks L from a few moments, so it is a bound and no guess.
* Length. Nodes are taken in blocks of `BLOCK` until the envelope of the integrand, extrapolated at its own rate of
  decay, adds less than the tolerance.

The tolerance is a price for each expiry: the wanted error in vol times the smallest vega among its quotes. Equal
steps let e^{-ixk} advance by one complex multiplication a strike, and the characteristic function is shared by all
strikes. Where decay is so slow that `MAX_NODES` do not reach the tolerance (short expiries with a tiny variance and a
large xi), the expiry switches to the bent contour of `heston_bent.py`, whose nodes are doubled until two results agree.

Speed and accuracy are measured by `benchmarks/kernel.py`; the accurate twin is `fourier.py`.
"""

import math

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..black import otm_and_vega
from .heston_bent import bent_sums
from .heston_block import N_PARTS, heston_parts, heston_phi
from .vector_math import cos_sin, exp, kernel, reduction

BLOCK = 8
MAX_NODES = 768
# Moments tried for the aliasing bound, in units of one over the standard deviation of the log-price.
_MOMENTS = (0.2, 0.5, 1.0, 1.8, 2.8, 4.0, 5.6, 8.0)


@kernel
def integrated_variance(expiry: float, kappa: float, theta: float, v0: float) -> float:
    """E[int_0^T v dt]: the total variance of the control variate."""
    return theta * expiry - (v0 - theta) * math.expm1(-kappa * expiry) / kappa


@kernel
def log_moment(s: float, expiry: float, kappa: float, theta: float, xi: float, rho: float, v0: float) -> float:
    """log E[(S_T/F)^s] for real s, or +inf where the moment has exploded (Andersen & Piterbarg 2007)."""
    beta = kappa - rho * xi * s
    q = s * s - s
    d2 = beta * beta - xi * xi * q
    weight = kappa * theta / (xi * xi)
    if d2 < 0.0:
        w = math.sqrt(-d2)
        half = 0.5 * w * expiry
        # Before the first zero of cos + (beta/w) sin; the margin keeps clear of the explosion itself.
        if half >= 0.9999 * math.atan2(w, -beta):
            return 1e300
        sine = math.sin(half) / w
        a = math.cos(half) + beta * sine
        return weight * (beta * expiry - 2.0 * math.log(a)) + v0 * q * sine / a
    d = math.sqrt(d2)
    e = math.exp(-d * expiry)
    a = beta * (1.0 - e) + d * (1.0 + e)
    if a <= 1e-8 * d:
        return 1e300
    r = xi * xi * q / (beta + d) if beta > 0.0 else beta - d
    return weight * (r * expiry - 2.0 * math.log(0.5 * a / d)) + v0 * q * (1.0 - e) / a


@kernel
def alias_length(expiry: float, params: Vector, sd: float, k_low: float, k_high: float, tolerance: float) -> float:
    """The period L = 2 pi / h at which the images of the midpoint rule add less than `tolerance` at k_low..k_high.

    Only the heavier tail is looked at. Both images have q = s^2 - s in common, at s = -p and s = 1 + p, so the heavier
    one is that with the smaller beta = kappa - rho xi s: the left for rho < 0, the right for rho > 0.
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    log_tolerance = math.log(0.25 * tolerance)
    # Without any moment beyond [0, 1] the bounds are e^{-L/2}.
    length = 2.0 * (max(k_high, -k_low) - log_tolerance)
    for c in _MOMENTS:
        p = c / sd
        moment = log_moment(-p if rho < 0.0 else 1.0 + p, expiry, kappa, theta, xi, rho, v0)
        if moment >= 1e300:
            break
        shift = max(k_high * (1.0 + p), -k_low * p)
        bound = (moment + p * math.log(p) - (1.0 + p) * math.log(1.0 + p) + shift - log_tolerance) / (p + 0.5)
        if bound > length:
            break
        length = bound
    return max(length, k_high - k_low + 2.0 * sd)


@reduction
def _sum_parts(real: Matrix, imag: Matrix, n_nodes: int, turn: Matrix, sums: Vector) -> None:
    """Add sum_j Re[e^{-i x_j k} part_j] of one strike to `sums`, for as many parts as `sums` is long (1 or N_PARTS).

    real, imag  (N_PARTS, n_nodes or more)
    turn        (2, n_nodes or more), cos and sin of x_j k
    """
    s0, s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if sums.size == 1:
        for j in range(n_nodes):
            s0 += turn[0, j] * real[0, j] + turn[1, j] * imag[0, j]
        sums[0] += s0
        return
    for j in range(n_nodes):
        c = turn[0, j]
        s = turn[1, j]
        s0 += c * real[0, j] + s * imag[0, j]
        s1 += c * real[1, j] + s * imag[1, j]
        s2 += c * real[2, j] + s * imag[2, j]
        s3 += c * real[3, j] + s * imag[3, j]
        s4 += c * real[4, j] + s * imag[4, j]
        s5 += c * real[5, j] + s * imag[5, j]
    sums[0] += s0
    sums[1] += s1
    sums[2] += s2
    sums[3] += s3
    sums[4] += s4
    sums[5] += s5


@kernel
def _turn_evenly(k: float, step: float, n_nodes: int, turn: Matrix) -> None:
    """e^{ixk} at x_j = (j + 1/2) step: one block exactly, then a rotation from block to block."""
    for j in range(BLOCK):
        turn[0, j], turn[1, j] = cos_sin((j + 0.5) * step * k)
    c, s = cos_sin(BLOCK * step * k)
    for first in range(BLOCK, n_nodes, BLOCK):
        for lane in range(BLOCK):
            x = turn[0, first - BLOCK + lane]
            y = turn[1, first - BLOCK + lane]
            turn[0, first + lane] = x * c - y * s
            turn[1, first + lane] = x * s + y * c


@kernel
def _fill(
    first: int, last: int, expiry: float, params: Vector, variance: float, nodes: Matrix, real: Matrix, imag: Matrix
) -> None:
    """The integrands (phi - phi_BS) / (x^2 + 1/4) and those of the gradient, times the quadrature weights.

    nodes  (2, n_nodes), x and its weight; the weight is divided by x^2 + 1/4 here
    """
    for j in range(first, last):
        nodes[1, j] /= nodes[0, j] * nodes[0, j] + 0.25
    if real.shape[0] == 1:
        heston_phi(nodes, first, last, expiry, params, real, imag)
    else:
        heston_parts(nodes, first, last, expiry, params, real, imag)
    for j in range(first, last):
        # On this contour the control variate's characteristic function is real.
        real[0, j] -= nodes[1, j] * exp(-0.5 * variance * (nodes[0, j] * nodes[0, j] + 0.25))


@kernel
def _march(
    expiry: float,
    params: Vector,
    variance: float,
    step: float,
    target: float,
    nodes: Matrix,
    real: Matrix,
    imag: Matrix,
) -> int:
    """Fill blocks of nodes at x = (j + 1/2) step until the tail of the integral is below `target`.

    returns the number of nodes, or 0 where `MAX_NODES` do not suffice
    """
    half = BLOCK // 2
    for first in range(0, MAX_NODES, BLOCK):
        for j in range(first, first + BLOCK):
            nodes[0, j] = (j + 0.5) * step
            nodes[1, j] = step
        _fill(first, first + BLOCK, expiry, params, variance, nodes, real, imag)
        early = 0.0
        late = 0.0
        for j in range(first, first + half):
            early = max(early, real[0, j] * real[0, j] + imag[0, j] * imag[0, j])
            late = max(late, real[0, j + half] * real[0, j + half] + imag[0, j + half] * imag[0, j + half])
        if late < target * target and late < early:
            # The envelope falls from half-block to half-block by this ratio or faster, so the tail is a geometric sum.
            ratio = math.sqrt(late / early)
            if half * math.sqrt(late) * ratio < target * (1.0 - ratio):
                return first + BLOCK
        elif late == 0.0:
            return first + BLOCK
    return 0


@kernel
def price_expiry(
    expiry: float,
    k: Vector,
    tolerance: float,
    params: Vector,
    nodes: Matrix,
    real: Matrix,
    imag: Matrix,
    turn: Matrix,
    sums: Matrix,
) -> tuple[float, int]:
    """Sums over the integrands for the strikes of one expiry: see `time_values`.

    returns (total variance of the control variate, nodes taken: negative where the tolerance was not reached)
    """
    variance = integrated_variance(expiry, params[0], params[1], params[4])
    k_low = k[0]
    k_high = k[-1]
    length = alias_length(expiry, params, math.sqrt(variance), k_low, k_high, tolerance)
    target = 0.5 * math.pi * tolerance * math.exp(-0.5 * max(k_high, 0.0))
    step = 2.0 * math.pi / length
    count = _march(expiry, params, variance, step, target, nodes, real, imag)
    if count == 0:
        taken = bent_sums(expiry, params, variance, k, target, sums)
        return variance, taken + MAX_NODES if taken > 0 else taken
    sums[:] = 0.0
    for q in range(k.size):
        _turn_evenly(k[q], step, count, turn)
        _sum_parts(real, imag, count, turn, sums[q])
    return variance, count


@kernel
def time_values(
    params: Vector,
    expiries: Vector,
    offsets: IntVector,
    log_moneyness: Vector,
    tolerance: Vector,
    out: Vector,
    gradient: Matrix,
    n_nodes: IntVector,
) -> None:
    """Out-of-the-money option values (units of the forward, undiscounted) and their gradient, for a whole panel.

    params         (5,) kappa, theta, xi, rho, v0
    expiries       (n_expiries,) years, ascending
    offsets        (n_expiries + 1,) quotes offsets[e]:offsets[e + 1] belong to expiry e, ascending in log-moneyness
    log_moneyness  (n_quotes,)
    tolerance      (n_expiries,) price error allowed
    out            (n_quotes,), filled: the put for log_moneyness < 0, else the call
    gradient       (5, n_quotes), filled; (0, n_quotes) for prices alone
    n_nodes        (n_expiries,), filled: nodes taken; above MAX_NODES where the expiry switched to the bent contour,
                   negative where even that did not reach the tolerance
    """
    kappa, theta, xi, rho = params[0], params[1], params[2], params[3]
    n_parts = N_PARTS if gradient.shape[0] > 0 else 1
    nodes = np.empty((2, MAX_NODES))
    real = np.empty((n_parts, MAX_NODES))
    imag = np.empty((n_parts, MAX_NODES))
    turn = np.empty((2, MAX_NODES))
    sums = np.empty((log_moneyness.size, n_parts))
    sd = np.empty(log_moneyness.size)
    for e in range(expiries.size):
        first, last = offsets[e], offsets[e + 1]
        variance, n_nodes[e] = price_expiry(
            expiries[e], log_moneyness[first:last], tolerance[e], params, nodes, real, imag, turn, sums[first:last]
        )
        sd[first:last] = math.sqrt(variance)
    otm_and_vega(log_moneyness, sd, out, np.empty(log_moneyness.size))
    for q in range(log_moneyness.size):
        factor = exp(0.5 * log_moneyness[q]) * (-1.0 / math.pi)
        out[q] += factor * sums[q, 0]
        if n_parts > 1:
            s_d = factor * sums[q, 1]
            s_g = factor * sums[q, 2]
            s_m = factor * sums[q, 3]
            # d beta / d(rho xi) = -(1/2 + ix) on this contour.
            s_z = 0.5 * s_m + factor * sums[q, 4]
            gradient[0, q] = theta / (xi * xi) * s_g + s_m
            gradient[1, q] = kappa / (xi * xi) * s_g
            gradient[2, q] = -2.0 * kappa * theta / (xi * xi * xi) * s_g - rho * s_z + xi * factor * sums[q, 5]
            gradient[3, q] = -xi * s_z
            gradient[4, q] = s_d
