"""The compiled part of the surface check, the same for every model: samples to prices, prices to violations.

With A(x) = phi(x - i/2) / (x^2 + 1/4), Lewis (2001) gives the capped forward, in units of the forward,

    M(k) = E[min(S, K)] / F = 1 - C(k) = e^k - P(k) = e^{k/2}/pi int_0^inf Re[ e^{-ixk} A(x) ] dx,    K = F e^k,

of which every condition is plain: M is concave in K, its slope lies in [0, 1], 0 <= M <= min(1, K), and it falls with
expiry at fixed k. The trapezoid rule with step h = 2 pi / L gives, instead of M, the sum of the images

    e^{k/2} sum_m e^{-(k + mL)/2} M(k + mL),    m = 0, +-1, +-2, ...

Far out M is 1 or K, less a small call or put; summed, the ones and the Ks are G (1 + K) with G = 1 / (e^{L/2} - 1) and
are subtracted. So no control variate is needed: what remains is M less e^{-mL/2} C(k + mL) and e^{mL/2} P(k - mL).
All of these are positive, hence bounded by what the same sum gives at a seam k_s where put and call should both be
nothing: V = K_s - M(k_s) is P(k_s) plus all of its images. P/K rises and C falls with K, so the images at k_lo..k_hi
add at most max(1, e^{k_hi - L/2 - k_s}) V for any k_s in [k_hi - L, k_lo]. The error of the rule is measured, not
guessed. The images of dC/dT are bounded likewise, taking it for granted that they too die out beyond the seam.

Nodes and strikes are both counted in standard deviations of their expiry, so that e^{-ixk} is one table for all
expiries of all models and the inversion a product of matrices. With the few nodes it takes, 24 to 64 as a rule, that
costs no more than a fast Fourier transform (docs/results/arbitrage.md has one beside the whole check), and every expiry
takes the nodes and the period that it needs.
"""

import math

import numpy as np

from ..arrays import Matrix, Vector
from ..pricing.vector_math import cos_sin, inlined, kernel
from .samples import IMAG, RATE_IMAG, RATE_REAL, REAL, sample_row
from .violations import BOUNDS, BUTTERFLY, CALENDAR, KINDS, VERTICAL

N_STRIKES = 200
HALF = N_STRIKES // 2
SPAN = 5.0
"""The strikes lie evenly in log-moneyness within +-SPAN standard deviations."""
SPACING = 2.0 * SPAN / (N_STRIKES - 1)
PERIODS = tuple(16.0 * 1.25**level for level in range(18))
"""Periods L of the trapezoid rule in standard deviations: the longer, the heavier the tails may be."""
TABLE_LEVELS = 8
TABLE_NODES = 256
MAX_NODES = 4096
"""Nodes of one expiry, at most: what then remains is stated as error. 4 ms for the worst expiry, 30 for a surface."""
TARGET_ERROR = 1e-8
"""An expiry is computed again, with more nodes, until its sizes are known to this, in units of the forward."""
FINEST = 0.9
"""The at-the-money standard deviation is between this and one times the scale that strikes are counted in."""
N_KINDS = len(KINDS)
_SEAMS = 4
_COLUMNS = HALF + _SEAMS
_LANES = 4
_EPSILON = 2.2e-16
_ROOT_EIGHT = 2.0**1.5


def turn_table() -> tuple[Matrix, Matrix]:
    """cos and sin of x k at nodes, for positive strikes and then the distances of the seams below zero.

    returns  places (n_periods, _COLUMNS) in standard deviations; table (2, TABLE_LEVELS, TABLE_NODES, _COLUMNS)
    """
    periods = np.array(PERIODS)
    places = np.empty((periods.size, _COLUMNS))
    places[:, :HALF] = (np.arange(HALF) + 0.5) * SPACING
    places[:, HALF:] = np.stack(
        [periods - SPAN - 1.0, periods - SPAN - 3.0, 0.5 * periods, np.full(periods.size, SPAN + 2.0)], axis=1
    )
    nodes = np.arange(TABLE_NODES) * (2.0 * math.pi / periods[:TABLE_LEVELS, None])
    angles = nodes[:, :, None] * places[:TABLE_LEVELS, None, :]
    return places, np.stack([np.cos(angles), np.sin(angles)])


@inlined
def _add_turned(weight: Vector, rate: Vector, j: int, table: Matrix, row: int, sums: Vector, rate_sums: Vector) -> None:
    # Four nodes at a time: what is added to is loaded and stored once, and the table serves both sums.
    w0, w1, w2, w3 = weight[j], weight[j + 1], weight[j + 2], weight[j + 3]
    r0, r1, r2, r3 = rate[j], rate[j + 1], rate[j + 2], rate[j + 3]
    t0, t1, t2, t3 = table[row], table[row + 1], table[row + 2], table[row + 3]
    for i in range(sums.size):
        sums[i] += w0 * t0[i] + w1 * t1[i] + w2 * t2[i] + w3 * t3[i]
        rate_sums[i] += r0 * t0[i] + r1 * t1[i] + r2 * t2[i] + r3 * t3[i]


@kernel
def _add_far(samples: Matrix, first: int, last: int, step: float, places: Vector, sums: Matrix) -> None:
    """What the table does, for the nodes beyond it: heavy tails, or a characteristic function that hardly decays."""
    turned = np.empty((2, 4, _COLUMNS))
    turn = np.empty((2, _COLUMNS))
    for i in range(_COLUMNS):
        turn[0, i], turn[1, i] = cos_sin(4.0 * step * places[i])
        for m in range(4):
            turned[0, m, i], turned[1, m, i] = cos_sin((first + m) * step * places[i])
    for j in range(first, last, 4):
        _add_turned(samples[REAL], samples[RATE_REAL], j, turned[0], 0, sums[0], sums[2])
        _add_turned(samples[IMAG], samples[RATE_IMAG], j, turned[1], 0, sums[1], sums[3])
        for m in range(4):
            for i in range(_COLUMNS):
                x = turned[0, m, i]
                y = turned[1, m, i]
                turned[0, m, i] = x * turn[0, i] - y * turn[1, i]
                turned[1, m, i] = x * turn[1, i] + y * turn[0, i]


@kernel
def invert_row(
    samples: Matrix,
    n: int,
    noise: float,
    tail: float,
    rate_tail: float,
    scale: float,
    interval: float,
    level: int,
    places: Matrix,
    table: Matrix,
    strike: Vector,
    capped: Vector,
    growth: Vector,
) -> tuple[float, float]:
    """M and interval dC/dT on the strikes of one expiry.

    samples..rate_tail  of `sample_row` with the step 2 pi / (PERIODS[level] scale); samples become weighted values
    scale               the standard deviation that strikes and nodes are counted in
    interval            years
    places, table       of `turn_table`
    strike              (N_STRIKES,), filled, in units of the forward
    capped, growth      (N_STRIKES,), filled with M and interval dC/dT
    returns             the call at the forward; what any size computed from `capped` and `growth` may be wrong by
    """
    period = PERIODS[level]
    step = 2.0 * math.pi / (period * scale)
    k_max = SPAN * scale
    root_high = math.exp(0.5 * k_max)
    a, b, c, d = samples[REAL], samples[IMAG], samples[RATE_REAL], samples[RATE_IMAG]
    for j in range(n):
        x = j * step
        weight = step / (math.pi * (x * x + 0.25))
        a[j] *= weight
        b[j] *= weight
        c[j] *= -interval * weight
        d[j] *= -interval * weight
    a[0] *= 0.5
    c[0] *= 0.5
    forward_sum = 0.0
    size = 0.0
    rate_size = 0.0
    for j in range(n):
        forward_sum += a[j]
        size += abs(a[j]) + abs(b[j])
        rate_size += abs(c[j]) + abs(d[j])

    sums = np.zeros((4, _COLUMNS))
    even, odd, rate_even, rate_odd = sums[0], sums[1], sums[2], sums[3]
    n_tabled = min(n, TABLE_NODES) if level < TABLE_LEVELS else 0
    for j in range(0, n_tabled, 4):
        _add_turned(a, c, j, table[0, level], j, even, rate_even)
        _add_turned(b, d, j, table[1, level], j, odd, rate_odd)
    if n > n_tabled:
        _add_far(samples, n_tabled, n, 2.0 * math.pi / period, places[level], sums)

    half_period = 0.5 * period * scale
    images = 1.0 / math.expm1(half_period)
    rounding = (8.0 * _EPSILON + noise) * size + 4.0 * _EPSILON * images * root_high
    rate_rounding = (8.0 * _EPSILON + noise) * rate_size
    alias = 1e300
    rate_alias = 1e300
    for i in range(HALF, _COLUMNS):
        k = -scale * places[level, i]
        root = math.exp(0.5 * k)
        put = root * root - (root * (even[i] - odd[i]) - images * (1.0 + root * root))
        put_growth = root * (rate_even[i] - rate_odd[i])
        factor = max(1.0, math.exp(k_max - half_period - k))
        alias = min(alias, factor * (abs(put) + rounding))
        rate_alias = min(rate_alias, factor * (abs(put_growth) + rate_rounding))
    # A size is a difference of two prices, or one growth.
    error = 2.0 * (alias + root_high * (tail + rounding))
    rate_error = rate_alias + root_high * (interval * rate_tail + rate_rounding)

    # Square roots of the strikes above the forward, a few at a time from those before.
    roots = np.empty(HALF)
    for m in range(_LANES):
        roots[m] = math.exp(0.5 * SPACING * scale * (m + 0.5))
    ratio = math.exp(0.5 * SPACING * scale * _LANES)
    for m in range(_LANES, HALF, _LANES):
        for lane in range(_LANES):
            roots[m + lane] = roots[m + lane - _LANES] * ratio
    for m in range(HALF):
        root = roots[m]
        up = root * root
        strike[HALF + m] = up
        capped[HALF + m] = root * (even[m] + odd[m]) - images * (1.0 + up)
        growth[HALF + m] = root * (rate_even[m] + rate_odd[m])
    for m in range(HALF):
        root = 1.0 / roots[m]
        down = root * root
        strike[HALF - 1 - m] = down
        capped[HALF - 1 - m] = root * (even[m] - odd[m]) - images * (1.0 + down)
        growth[HALF - 1 - m] = root * (rate_even[m] - rate_odd[m])
    return 1.0 - (forward_sum - 2.0 * images), max(error, rate_error)


@kernel
def fitting_scale(at_the_money: float, scale: float) -> float:
    """The scale itself if the at-the-money standard deviation is FINEST..1 times it; else one that should do.

    at_the_money  the call at the forward: erf(sd / sqrt 8)
    """
    if math.erf(FINEST * scale / _ROOT_EIGHT) <= at_the_money <= math.erf(scale / _ROOT_EIGHT):
        return scale
    low, high = 0.1 * scale, 2.0 * scale
    for _ in range(20):
        middle = 0.5 * (low + high)
        if math.erf(middle / _ROOT_EIGHT) < at_the_money:
            low = middle
        else:
            high = middle
    # The middle of the room there is, in view of the error of this first price.
    fitted: float = 2.0 / (1.0 + FINEST) * high
    return fitted


@kernel
def tail_target(scale: float) -> float:
    """`target` of `sample_row` at which truncation takes half of the target error, and leaves the images the other."""
    return 0.25 * TARGET_ERROR * math.exp(-0.5 * SPAN * scale)


@kernel
def next_level(level: int, n: int, error: float) -> int:
    """The period to try after one that took n nodes and left this error; the same one where there is no more to try."""
    if error <= TARGET_ERROR or n == MAX_NODES:
        return level
    # What the images add falls about exponentially with the period.
    return min(level + 1 + int(0.7 * math.log10(min(error, 1.0) / TARGET_ERROR)), len(PERIODS) - 1)


@kernel
def interval_after(expiry: Vector, i: int) -> float:
    """Years to the next expiry; of the last one, from the one before."""
    interval: float = expiry[i + 1] - expiry[i] if i + 1 < expiry.size else expiry[i] - expiry[i - 1]
    return interval


@inlined
def _row_excess(capped: Vector, growth: Vector, strike: Vector, excess: Matrix) -> None:
    """What each kind of condition is missed by at each strike of one expiry; negative where it holds.

    excess  (n_kinds, N_STRIKES), filled
    """
    ratio = strike[HALF + 1] / strike[HALF]
    low = ratio / (1.0 + ratio)
    bounds, vertical, butterfly, calendar = excess[BOUNDS], excess[VERTICAL], excess[BUTTERFLY], excess[CALENDAR]
    last = N_STRIKES - 1
    for m in range(N_STRIKES):
        bounds[m] = max(capped[m] - min(1.0, strike[m]), -capped[m])
        calendar[m] = -growth[m]
    # Below the forward the dear option of a vertical spread is the put of the lower strike, above it the call of the
    # higher one.
    for m in range(HALF):
        vertical[m] = (capped[m + 1] - capped[m]) - (strike[m + 1] - strike[m])
    for m in range(HALF, N_STRIKES):
        vertical[m] = capped[m - 1] - capped[m]
    for m in range(1, last):
        butterfly[m] = low * capped[m - 1] + (1.0 - low) * capped[m + 1] - capped[m]
    # The left wing: a butterfly with strike zero below. The right wing is the last vertical, and no butterfly.
    butterfly[0] = capped[1] / ratio - capped[0]
    butterfly[last] = 0.0


@inlined
def _count_above(excess: Matrix, limit: float) -> int:
    count = 0
    for kind in range(N_KINDS):
        row = excess[kind]
        for m in range(N_STRIKES):
            count += row[m] > limit
    return count


@kernel
def price_grid_kernel(
    code: int,
    params: Vector,
    expiry: Vector,
    places: Matrix,
    table: Matrix,
    scale: Vector,
    strike: Matrix,
    capped: Matrix,
    growth: Matrix,
    error: Vector,
) -> int:
    """`surface.price_grid` for a compiled model; the last five, one row an expiry, are filled.

    strike, capped, growth  with a row each, or with a single one that all expiries share: who only counts does not fill
                            the caches with what it never reads
    returns                 how many conditions are missed by more than the error of their expiry
    """
    samples = np.empty((4, MAX_NODES))
    origin = np.empty((4, 1))
    excess = np.empty((N_KINDS, N_STRIKES))
    n_missed = 0
    level = 0
    ratio = 1.001
    for i in range(expiry.size):
        row = i % strike.shape[0]
        interval = interval_after(expiry, i)
        sample_row(code, params, expiry[i], 0.0, 0.0, interval, origin)
        # E[sqrt(S/F)] = e^{-w/8} for a lognormal S: a scale that any model has, a little above the at-the-money one.
        natural = math.sqrt(-8.0 * math.log(origin[0, 0]))
        wanted = ratio * natural
        for _ in range(2 * len(PERIODS)):
            scale[i] = wanted
            step = 2.0 * math.pi / (PERIODS[level] * wanted)
            n, noise, tail, rate_tail = sample_row(
                code, params, expiry[i], step, tail_target(wanted), interval, samples
            )
            at_the_money, error[i] = invert_row(
                samples,
                n,
                noise,
                tail,
                rate_tail,
                wanted,
                interval,
                level,
                places,
                table,
                strike[row],
                capped[row],
                growth[row],
            )
            wanted = fitting_scale(at_the_money, wanted)
            after = next_level(level, n, error[i])
            if wanted == scale[i] and after == level:
                break
            level = after
        # Neighbouring expiries are alike.
        ratio = scale[i] / natural
        if error[i] < 0.01 * TARGET_ERROR:
            level = max(level - 1, 0)
        _row_excess(capped[row], growth[row], strike[row], excess)
        n_missed += _count_above(excess, error[i])
    return n_missed


@kernel
def excess_of(capped: Matrix, growth: Matrix, strike: Matrix, excess: Matrix) -> None:
    """What each condition is missed by; excess (n_expiries, n_kinds, N_STRIKES), filled."""
    for i in range(capped.shape[0]):
        _row_excess(capped[i], growth[i], strike[i], excess[i])
