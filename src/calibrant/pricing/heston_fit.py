"""Out-of-the-money option values of an irregular panel and their gradient under Heston, compiled: the fit kernel.

One expiry at a time, on Lewis's contour u = x - i/2 (Lewis 2001), with a Black-Scholes control variate of the same
expected variance w = E[int v dt]:

    C(k) = C_BS(k; w) + e^{k/2}/pi  int_0^inf Re[ e^{-ixk} (phi_BS - phi)(x - i/2) ] / (x^2 + 1/4) dx

The control variate takes away both poles, so that the integrand is analytic in the whole strip of finite moments and
the midpoint rule converges exponentially. Its two errors are controlled separately, and neither needs a second pass:

* Step. The midpoint rule with step h = 2 pi / L adds the true function at k + mL, m = +-1, ..., with weights of
  modulus one. Those images are option values L beyond the strike, which moments bound (Chernoff):
  P(k) <= E[S^-p] e^{(1+p)k} p^p / (1+p)^(1+p). `alias_length` picks L from a few moments: a bound, no guess.
* Length. Nodes are taken in blocks of `BLOCK` until the envelope of the integrand, extrapolated at its own rate of
  decay, adds less than the tolerance.

The tolerance is a price for each expiry: the wanted error in vol times the smallest vega among its quotes. Equal
steps let e^{-ixk} advance by one complex multiplication a strike, and the characteristic function is shared by all
strikes. Where decay is so slow that it would take more nodes than pay (short expiries with a small variance and a large
xi, chains with far wings), the expiry goes to the bent contour of `heston_bent.py`.

What the values of an expiry may be wrong by is stated with them: both errors, and rounding.

Speed and accuracy are measured by `benchmarks/kernel.py`; the accurate twin is `fourier.py`.
"""

import math

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..black import otm_and_vega
from ..compiled import kernel
from .heston_bent import bent_values
from .heston_block import (
    EPSILON,
    MAX_NODES,
    N_PARTS,
    N_ROWS,
    exponent_rounding,
    heston_parts,
    heston_phi,
    log_moment,
    sum_first,
    sum_parts,
    turn_evenly,
)
from .vector_math import exp, log

BLOCK = 8
_LEAST_MARCH = 48
"""Nodes after which the decay tells how many more it takes."""
# Moments tried for the aliasing bound, in units of one over the standard deviation of the log-price.
_MOMENTS = (0.2, 0.5, 1.0, 1.8, 2.8, 4.0, 5.6, 8.0)


@kernel
def integrated_variance(expiry: float, kappa: float, theta: float, v0: float) -> float:
    """E[int_0^T v dt]: the total variance of the control variate."""
    return theta * expiry - (v0 - theta) * math.expm1(-kappa * expiry) / kappa


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


@kernel
def _most_nodes(n_strikes: int) -> int:
    """Nodes on the real line from which the bent contour is the cheaper one.

    In nanoseconds, as timed on one AVX-512 processor: the bent contour takes 8 us beforehand and some 50 nodes,
    each 25 and 2.5 a strike; a node here takes 20 and 1.2 a strike.
    """
    return min(int((9250.0 + 125.0 * n_strikes) / (20.0 + 1.2 * n_strikes)), MAX_NODES)


@kernel
def _march(
    expiry: float,
    params: Vector,
    variance: float,
    step: float,
    target: float,
    most: int,
    with_gradient: bool,
    work: Vector,
) -> tuple[int, float, float]:
    """Fill blocks of nodes at x = (j + 1/2) step until the tail of the integral is below `target`.

    returns (number of nodes, or 0 where it would take more than `most`; the tail; int |phi - phi_BS| dx, from above)
    """
    half = BLOCK // 2
    spread = 0.0
    for first in range(0, most, BLOCK):
        if with_gradient:
            heston_parts(first, first + BLOCK, step, expiry, params, variance, work)
        else:
            heston_phi(first, first + BLOCK, step, expiry, params, variance, work)
        early = 0.0
        late = 0.0
        for j in range(first, first + half):
            imag = j + N_PARTS * MAX_NODES
            early = max(early, work[j] * work[j] + work[imag] * work[imag])
            late = max(late, work[j + half] * work[j + half] + work[imag + half] * work[imag + half])
        early = math.sqrt(early)
        late = math.sqrt(late)
        end = (first + BLOCK) * step
        spread += half * (early + late) * (end * end + 0.25)
        if late < target and late < early:
            # The envelope falls from half-block to half-block by this ratio or faster, so the tail is a geometric sum.
            ratio = late / early
            tail = half * late * ratio / (1.0 - ratio)
            if tail < target:
                return first + BLOCK, tail, spread
        elif late == 0.0:
            return first + BLOCK, 0.0, spread
        if first >= _LEAST_MARCH:
            decay = log(early / late)
            if log(late / target) * half > decay * (most - first - BLOCK):
                break
    return 0, 0.0, spread


@kernel
def _rounding(expiry: float, params: Vector, variance: float, k_far: float, spread: float) -> float:
    """What rounding may do to the integrals of an expiry, times e^{-k/2} of a value.

    phi is at most one on the contour, so that int |phi| / a dx <= pi, a = x^2 + 1/4, and an error in log phi counts
    with that weight; the phase of e^{-ixk} loses x k besides.

    spread  int |phi - phi_BS| dx
    """
    of_turn, of_square = exponent_rounding(expiry, params[0], params[1], params[2], params[3])
    # int |phi| dx
    width = spread + 1.2533141373155003 / math.sqrt(variance)
    lost: float = EPSILON * (4.0 + k_far * math.log1p(width) + of_turn + of_square * width)
    return lost


@kernel
def _expiry_sums(
    expiry: float,
    k: Vector,
    tolerance: float,
    params: Vector,
    variance: float,
    work: Vector,
    base: Vector,
    sums: Matrix,
) -> tuple[int, float]:
    """The integrals of every strike of one expiry, (n_strikes, 1 or N_PARTS); `base` is filled on the bent contour.

    returns (nodes taken, error of the values): see `time_values`
    """
    length = alias_length(expiry, params, math.sqrt(variance), k[0], k[-1], tolerance)
    growth = math.exp(0.5 * max(k[-1], 0.0))
    target = 0.5 * math.pi * tolerance / growth
    step = 2.0 * math.pi / length
    count, tail, spread = _march(expiry, params, variance, step, target, _most_nodes(k.size), sums.shape[1] > 1, work)
    if count == 0:
        taken, error = bent_values(expiry, params, variance, k, tolerance, work, base, sums)
        return (taken + MAX_NODES if taken > 0 else taken - MAX_NODES), error
    rounding = _rounding(expiry, params, variance, max(k[-1], -k[0]), spread)
    for q in range(k.size):
        turn_evenly(k[q], step, count, work)
        if sums.shape[1] == 1:
            sums[q, 0] = sum_first(count, work)
        else:
            sums[q, 0], sums[q, 1], sums[q, 2], sums[q, 3], sums[q, 4], sums[q, 5] = sum_parts(count, work)
    return count, 0.5 * tolerance + growth * (rounding + tail / math.pi)


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
    error: Vector,
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
                   negative where even that does not reach the tolerance
    error          (n_expiries,), filled: what the values of the expiry may be wrong by, rounding included
    """
    kappa, theta, xi, rho = params[0], params[1], params[2], params[3]
    n_parts = N_PARTS if gradient.shape[0] > 0 else 1
    work = np.empty(N_ROWS * MAX_NODES)
    sums = np.empty((log_moneyness.size, n_parts))
    sd = np.empty(log_moneyness.size)
    density = np.empty(log_moneyness.size)
    unpriced = 0
    for e in range(expiries.size):
        first, last = offsets[e], offsets[e + 1]
        variance = integrated_variance(expiries[e], kappa, theta, params[4])
        n_nodes[e], error[e] = _expiry_sums(
            expiries[e],
            log_moneyness[first:last],
            tolerance[e],
            params,
            variance,
            work,
            out[first:last],
            sums[first:last],
        )
        if abs(n_nodes[e]) > MAX_NODES:
            # The control variates of the expiries before it; the bent contour has none.
            otm_and_vega(log_moneyness[unpriced:first], sd[unpriced:first], out[unpriced:first], density)
            unpriced = last
        else:
            sd[first:last] = math.sqrt(variance)
    otm_and_vega(log_moneyness[unpriced:], sd[unpriced:], out[unpriced:], density)
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
