"""Out-of-the-money option values of an irregular panel and their gradient, compiled: the fit kernel of every model that
has a layout.

One expiry at a time, on Lewis's contour u = x - i/2 (Lewis 2001), with a Black-Scholes control variate of the same
expected variance w:

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
xi, chains with far wings), the expiry goes to the bent contour of `bent_contour.py`.

What the values of an expiry may be wrong by is stated with them: both errors, and rounding.

Speed and accuracy are measured by `benchmarks/kernel.py`; the accurate twin is `fourier.py`.
"""

import math

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..black import otm_and_vega
from ..compiled import inlined, kernel
from .bent_contour import bent_values
from .composed_block import (
    add_up,
    fill_even,
    fold,
    has_own_loop,
    integrated_variance,
    log_moment,
    one_heston,
    rounding_of,
    work_size,
)
from .heston_block import heston_parts, heston_phi, log_moment_of_heston, sum_parts
from .nodes import EPSILON, IMAG, MAX_NODES, REAL, SLACK, turn_evenly
from .vector_math import exp, log

BLOCK = 8
BENT = 100_000
"""Added to the number of nodes on the bent contour."""
_LEAST_MARCH = 48
"""Nodes after which the decay tells how many more it takes."""
_LARGEST_RISE = 300.0
"""In log |phi|; beyond it a trough is no end whatever follows."""
_MOST_PARTS = 64
"""Times MAX_NODES nodes on the real line, where no contour may bend."""
# Moments tried for the aliasing bound, in units of one over the standard deviation of the log-price.
_MOMENTS = (0.2, 0.5, 1.0, 1.8, 2.8, 4.0, 5.6, 8.0)


@kernel
def alias_length(
    layout: IntVector, expiry: float, params: Vector, sd: float, k_low: float, k_high: float, tolerance: float
) -> float:
    """The period L = 2 pi / h at which the images of the midpoint rule add less than `tolerance` at k_low..k_high."""
    log_tolerance = math.log(0.25 * tolerance)
    # Without any moment beyond [0, 1] the bounds are e^{-L/2}.
    length = 2.0 * (max(k_high, -k_low) - log_tolerance)
    for c in _MOMENTS:
        p = c / sd
        if one_heston(layout):
            # Only the heavier tail: both images have q = s^2 - s in common, at s = -p and s = 1 + p, so that is the one
            # with the smaller beta = kappa - rho xi s, the left for rho < 0, the right for rho > 0.
            s = -p if params[3] < 0.0 else 1.0 + p
            moment = log_moment_of_heston(s, expiry, params[0], params[1], params[2], params[3], params[4])
            moment += max(k_high * (1.0 + p), -k_low * p)
        else:
            left = log_moment(layout, -p, expiry, params) + k_high * (1.0 + p)
            right = log_moment(layout, 1.0 + p, expiry, params) - k_low * p
            moment = max(left, right)
        if moment >= 1e300:
            break
        bound = (moment + p * math.log(p) - (1.0 + p) * math.log(1.0 + p) - log_tolerance) / (p + 0.5)
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


@inlined
def _envelope(may_rise: bool, node: int, work: Vector) -> float:
    """The squared integrand of the price, or what it may rise to again."""
    j = np.uint64(node)
    square: float = work[REAL + j] * work[REAL + j] + work[IMAG + j] * work[IMAG + j]
    return square * float(exp(2.0 * min(work[SLACK + j], _LARGEST_RISE))) if may_rise else square


@kernel
def _march(
    layout: IntVector,
    expiry: float,
    params: Vector,
    variance: float,
    step: float,
    target: float,
    begin: float,
    most: int,
    patient: bool,
    with_gradient: bool,
    work: Vector,
) -> tuple[int, float, float]:
    """Fill blocks of nodes at x = (begin + j + 1/2) step until the tail of the integral is below `target`.

    patient  False gives up as soon as the decay says that it will take more than `most`
    returns (number of nodes, or 0 where it would take more than `most`; the tail; int |phi - phi_BS| dx, from above)
    """
    half = BLOCK // 2
    own_loop = has_own_loop(layout, params, with_gradient)
    may_rise = not one_heston(layout)
    spread = 0.0
    for first in range(0, most, BLOCK):
        if not own_loop:
            fill_even(layout, first, first + BLOCK, step, begin, expiry, params, variance, with_gradient, work)
        elif with_gradient:
            heston_parts(first, first + BLOCK, step, expiry, params, variance, work)
        else:
            heston_phi(first, first + BLOCK, step, expiry, params, variance, work)
        early = 0.0
        late = 0.0
        for j in range(first, first + half):
            early = max(early, _envelope(may_rise, j, work))
            late = max(late, _envelope(may_rise, j + half, work))
        early = math.sqrt(early)
        late = math.sqrt(late)
        end = (begin + first + BLOCK) * step
        spread += half * (early + late) * (end * end + 0.25)
        if late < target and late < early:
            # The envelope falls from half-block to half-block by this ratio or faster, so the tail is a geometric sum.
            ratio = late / early
            tail = half * late * ratio / (1.0 - ratio)
            if tail < target:
                return first + BLOCK, tail, spread
        elif late == 0.0:
            return first + BLOCK, 0.0, spread
        if first >= _LEAST_MARCH and not patient:
            decay = log(early / late)
            if log(late / target) * half > decay * (most - first - BLOCK):
                break
    return 0, 0.0, spread


@kernel
def _rounding(layout: IntVector, expiry: float, params: Vector, variance: float, k_far: float, spread: float) -> float:
    """What rounding may do to the integrals of an expiry, times e^{-k/2} of a value.

    phi is at most one on the contour, so that int |phi| / a dx <= pi, a = x^2 + 1/4, and an error in log phi counts
    with that weight; the phase of e^{-ixk} loses x k besides.

    spread  int |phi - phi_BS| dx
    """
    of_turn, of_square = rounding_of(layout, expiry, params)
    # int |phi| dx
    width = spread + 1.2533141373155003 / math.sqrt(variance)
    lost: float = EPSILON * (4.0 + k_far * math.log1p(width) + of_turn + of_square * width)
    return lost


@kernel
def _long_sums(
    layout: IntVector,
    expiry: float,
    params: Vector,
    variance: float,
    step: float,
    target: float,
    k: Vector,
    work: Vector,
    sums: Matrix,
) -> tuple[int, float, float]:
    """The integrals by more nodes on the real line than there is room for at once; returns as `_march`."""
    sums[:] = 0.0
    more = np.empty((1, sums.shape[1]))
    spread = 0.0
    for part in range(_MOST_PARTS):
        begin = part * MAX_NODES
        count, tail, wider = _march(
            layout, expiry, params, variance, step, target, float(begin), MAX_NODES, True, sums.shape[1] > 1, work
        )
        spread += wider
        n = count if count > 0 else MAX_NODES
        for q in range(k.size):
            turn_evenly(k[q], step, float(begin), n, work)
            add_up(layout, n, work, more, 0)
            for i in range(more.size):
                sums[q, i] += more[0, i]
        if count > 0:
            return begin + count, tail, spread
    return 0, 0.0, spread


@kernel
def _expiry_sums(
    layout: IntVector,
    expiry: float,
    k: Vector,
    tolerance: float,
    params: Vector,
    variance: float,
    work: Vector,
    base: Vector,
    sums: Matrix,
) -> tuple[int, float]:
    """The integrals of every strike of one expiry, (n_strikes, 1 or 1 + n_params); `base` is the bent contour's.

    returns (nodes taken, error of the values): see `time_values`
    """
    length = alias_length(layout, expiry, params, math.sqrt(variance), k[0], k[-1], tolerance)
    growth = math.exp(0.5 * max(k[-1], 0.0))
    target = 0.5 * math.pi * tolerance / growth
    step = 2.0 * math.pi / length
    count, tail, spread = _march(
        layout, expiry, params, variance, step, target, 0.0, _most_nodes(k.size), False, sums.shape[1] > 1, work
    )
    if count == 0:
        taken, error = bent_values(layout, expiry, params, variance, k, tolerance, work, base, sums)
        if taken < 0 and not one_heston(layout):
            # Jumps of nearly one size leave no contour that bends.
            count, tail, spread = _long_sums(layout, expiry, params, variance, step, target, k, work, sums)
            if count > 0:
                rounding = _rounding(layout, expiry, params, variance, max(k[-1], -k[0]), spread)
                return count, 0.5 * tolerance + growth * (rounding + tail / math.pi)
        return (taken + BENT if taken > 0 else taken - BENT), error
    rounding = _rounding(layout, expiry, params, variance, max(k[-1], -k[0]), spread)
    if one_heston(layout) and sums.shape[1] > 1:
        # As `add_up` does, without asking at every strike.
        for q in range(k.size):
            turn_evenly(k[q], step, 0.0, count, work)
            sums[q, 0], sums[q, 1], sums[q, 2], sums[q, 3], sums[q, 4], sums[q, 5] = sum_parts(count, work)
    else:
        for q in range(k.size):
            turn_evenly(k[q], step, 0.0, count, work)
            add_up(layout, count, work, sums, q)
    return count, 0.5 * tolerance + growth * (rounding + tail / math.pi)


@kernel
def time_values(
    layout: IntVector,
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

    layout         (n_factors,) the kinds of the model's factors, see `calibrant.layout`
    params         (n_params,)
    expiries       (n_expiries,) years, ascending
    offsets        (n_expiries + 1,) quotes offsets[e]:offsets[e + 1] belong to expiry e, ascending in log-moneyness
    log_moneyness  (n_quotes,)
    tolerance      (n_expiries,) price error allowed
    out            (n_quotes,), filled: the put for log_moneyness < 0, else the call
    gradient       (n_params, n_quotes), filled; (0, n_quotes) for prices alone
    n_nodes        (n_expiries,), filled: nodes taken; above BENT where the expiry switched to the bent contour,
                   negative where even that does not reach the tolerance
    error          (n_expiries,), filled: what the values of the expiry may be wrong by, rounding included
    """
    n_parts = 1 + gradient.shape[0]
    work = np.empty(work_size(layout))
    sums = np.empty((log_moneyness.size, n_parts))
    sd = np.empty(log_moneyness.size)
    density = np.empty(log_moneyness.size)
    unpriced = 0
    for e in range(expiries.size):
        first, last = offsets[e], offsets[e + 1]
        variance = integrated_variance(layout, expiries[e], params)
        n_nodes[e], error[e] = _expiry_sums(
            layout,
            expiries[e],
            log_moneyness[first:last],
            tolerance[e],
            params,
            variance,
            work,
            out[first:last],
            sums[first:last],
        )
        if abs(n_nodes[e]) > BENT:
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
            fold(layout, factor, sums, params, gradient, q)
