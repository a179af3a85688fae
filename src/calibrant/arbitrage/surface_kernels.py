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
expiries of all models and the inversion a product of matrices. With the few nodes it takes, 20 to 60 as a rule, that
costs no more than a fast Fourier transform (docs/results/arbitrage.md has one beside the whole check), and every expiry
takes the nodes and the period that it needs. By the addition theorems strikes at c + d and c - d share cos x d and
sin x d, which halves the table: what is read of it then stays in the first-level cache for most expiries.
"""

import math

import numpy as np

from ..arrays import Matrix, Vector
from ..compiled import careful, inlined, kernel
from ..pricing.vector_math import cos_sin, exp
from .products import N_ROWS, WIDTH, turned_sums
from .samples import IMAG, RATE_IMAG, RATE_REAL, REAL, natural_scales, sample_row
from .violations import BOUNDS, BUTTERFLY, CALENDAR, KINDS, VERTICAL

N_EXPIRIES, N_STRIKES = 50, 200
"""The dense grid."""
FIRST_STRIKES = 104
"""Those of a first look: about half as many, and as many as leave no block of the table part empty."""
LOOK_RATIO = 1.25
"""From one expiry that is looked at to the next, at most: what falls for a quarter of its time is seen falling."""
SPAN = 5.0
"""The strikes lie evenly in log-moneyness within +-SPAN standard deviations."""
MOST_DETAIL = 3.0
"""Radians that the highest frequency of an expiry's nodes may turn from strike to strike of a first look: below pi its
strikes determine the prices between them."""
PERIODS = tuple(16.0 * 1.12**level for level in range(34))
"""Periods L of the trapezoid rule in standard deviations: the longer, the heavier the tails may be."""
TABLE_LEVELS = 15
TABLE_NODES = 256
MAX_NODES = 4096
"""Nodes of one expiry, at most: what then remains is stated as error. 20 ms for the worst surface."""
TARGET_ERROR = 1e-8
"""An expiry is computed again, with more nodes, until its sizes are known to this, in units of the forward."""
LARGEST_ERROR = 1e-6
"""An expiry whose numbers are known no better than this, in units of the forward, is not known at all."""
FINEST = 0.9
"""The at-the-money standard deviation is between this and one times the scale that strikes are counted in."""
N_KINDS = len(KINDS)
_SEAMS = (0.85, 0.78, 0.72, 0.66, 0.5, 0.33)
"""How far below the forward the seams lie, in periods, as far as the strikes leave room for them.

The best one is where puts and the images of calls are about equal: at 0.65 to 0.85 where the left tail is the heavier
one, mirrored where the right one is.
"""
_SUMS = 4 * N_ROWS
_ROOTS, _SEAM_ROOTS = _SUMS + 4, _SUMS + 5
WORK_SHAPE = (_SUMS + 6, TABLE_NODES + 8)
"""Rows of room to work in: weights of nodes and sums of halves, sums, square roots of strikes and of seams."""
_LANES = 4
_EPSILON = 2.2e-16
_ROOT_EIGHT = 2.0**1.5


@inlined
def spacing_of(n_strikes: int) -> float:
    """Standard deviations from strike to strike."""
    return 2.0 * SPAN / (n_strikes - 1)


def turn_table(n_strikes: int) -> tuple[Matrix, Matrix, Vector]:
    """cos and sin of what the nodes are turned by, at the nodes of the first periods.

    Strikes go in pairs, at c + d and c - d with c in the middle of those above the forward: cos and sin of x d serve
    both. With a seam goes another one, so that there are half of n_columns pairs, a multiple of WIDTH.

    n_strikes  a multiple of 8
    returns    places (n_periods, n_columns) in standard deviations: the strikes above the forward, the seams below it,
               and (negative) what is paired with the seams;
               centre (2, TABLE_LEVELS, TABLE_NODES), cos and sin of x c;
               table (TABLE_LEVELS * 2 * n_pairs * TABLE_NODES,), cos and sin of x d, WIDTH pairs together
    """
    half = n_strikes // 2
    middle = 0.5 * half * spacing_of(n_strikes)
    n_pairs = half // 2 + len(_SEAMS)
    periods = np.array(PERIODS)
    seams = np.clip(np.outer(periods, _SEAMS), SPAN, periods[:, None] - SPAN)
    places = np.empty((periods.size, 2 * n_pairs))
    places[:, :half] = (np.arange(half) + 0.5) * spacing_of(n_strikes)
    places[:, half:] = np.hstack([seams, 2.0 * middle - seams])
    distances = np.empty((TABLE_LEVELS, n_pairs))
    distances[:, : half // 2] = (np.arange(half // 2) + 0.5) * spacing_of(n_strikes)
    distances[:, half // 2 :] = seams[:TABLE_LEVELS] - middle
    nodes = np.arange(TABLE_NODES) * (2.0 * math.pi / periods[:TABLE_LEVELS, None])
    angles = distances.reshape(TABLE_LEVELS, n_pairs // WIDTH, 1, WIDTH) * nodes[:, None, :, None]
    # On a line of the cache, so that no two loads share one.
    table = _on_a_line(2 * angles.size)
    table.reshape(TABLE_LEVELS, 2, *angles.shape[1:])[:] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return places, np.stack([np.cos(middle * nodes), np.sin(middle * nodes)]), table


def _on_a_line(size: int) -> Vector:
    room = np.empty(size + 8)
    first = -room.ctypes.data % 64 // 8
    return room[first : first + size]


@inlined
def _add_turned(weight: Vector, rate: Vector, j: int, turned: Matrix, sums: Vector, rate_sums: Vector) -> None:
    # Four nodes at a time: what is added to is loaded and stored once, and what they are turned by serves both sums.
    w0, w1, w2, w3 = weight[j], weight[j + 1], weight[j + 2], weight[j + 3]
    r0, r1, r2, r3 = rate[j], rate[j + 1], rate[j + 2], rate[j + 3]
    t0, t1, t2, t3 = turned[0], turned[1], turned[2], turned[3]
    # Every product is added as it comes: four fused multiply-adds a sum.
    for i in range(t0.size):
        sums[i] = (((sums[i] + w0 * t0[i]) + w1 * t1[i]) + w2 * t2[i]) + w3 * t3[i]
        rate_sums[i] = (((rate_sums[i] + r0 * t0[i]) + r1 * t1[i]) + r2 * t2[i]) + r3 * t3[i]


@kernel
def _add_far(samples: Matrix, first: int, last: int, step: float, places: Vector, sums: Matrix) -> None:
    """What the table does, for the nodes beyond it: heavy tails, or a characteristic function that hardly decays."""
    turned = np.empty((2, 4, places.size))
    turn = np.empty((2, places.size))
    for i in range(places.size):
        turn[0, i], turn[1, i] = cos_sin(4.0 * step * places[i])
        for m in range(4):
            turned[0, m, i], turned[1, m, i] = cos_sin((first + m) * step * places[i])
    for j in range(first, last, 4):
        _add_turned(samples[REAL], samples[RATE_REAL], j, turned[0], sums[0], sums[2])
        _add_turned(samples[IMAG], samples[RATE_IMAG], j, turned[1], sums[1], sums[3])
        for m in range(4):
            for i in range(places.size):
                x = turned[0, m, i]
                y = turned[1, m, i]
                turned[0, m, i] = x * turn[0, i] - y * turn[1, i]
                turned[1, m, i] = x * turn[1, i] + y * turn[0, i]


@kernel
def _sum_tabled(
    samples: Matrix,
    n: int,
    level: int,
    n_columns: int,
    centre: Matrix,
    table: Vector,
    weights: Matrix,
    halves: Matrix,
    sums: Matrix,
) -> None:
    """sum_j Re phi_j cos x_j k, sum_j Im phi_j sin x_j k, and the same of the rates, over the nodes of the table.

    weights, halves  (2 * N_ROWS, >= n) and (2 * N_ROWS, >= n_pairs), room to work in
    sums             (4, >= n_columns), filled: at k = c +- d (see `turn_table`) from sums of cos x_j d and of sin x_j d
    """
    n_pairs = n_columns // 2
    quarter = n_pairs - len(_SEAMS)
    for j in range(np.uint64(n)):
        cosine = centre[0, level, j]
        sine = centre[1, level, j]
        weights[0, j] = samples[REAL, j] * cosine
        weights[1, j] = samples[IMAG, j] * sine
        weights[2, j] = samples[RATE_REAL, j] * cosine
        weights[3, j] = samples[RATE_IMAG, j] * sine
        weights[4, j] = -samples[REAL, j] * sine
        weights[5, j] = samples[IMAG, j] * cosine
        weights[6, j] = -samples[RATE_REAL, j] * sine
        weights[7, j] = samples[RATE_IMAG, j] * cosine
    at = 2 * level * n_pairs * TABLE_NODES
    for row in (0, N_ROWS):
        for block in range(n_pairs // WIDTH):
            turned_sums(weights, row, n, table, at, halves, block * WIDTH)
            at += TABLE_NODES * WIDTH
    for part in range(4):
        from_cosines, from_sines, total = halves[part], halves[N_ROWS + part], sums[part]
        for i in range(np.uint64(quarter)):
            total[np.uint64(quarter) + i] = from_cosines[i] + from_sines[i]
            total[np.uint64(quarter - 1) - i] = from_cosines[i] - from_sines[i]
        for i in range(np.uint64(quarter), np.uint64(n_pairs)):
            total[np.uint64(quarter) + i] = from_cosines[i] + from_sines[i]
            total[np.uint64(n_pairs) + i] = from_cosines[i] - from_sines[i]


@kernel
def _weigh(samples: Matrix, n: int, step: float, interval: float) -> tuple[float, float, float]:
    """Samples to weighted values; their sum at the forward, and the sums of the sizes of values and of rates."""
    forward_sum = 0.0
    size = 0.0
    rate_size = 0.0
    samples[REAL, 0] *= 0.5
    samples[RATE_REAL, 0] *= 0.5
    for j in range(np.uint64(n)):
        x = j * step
        weight = step / (math.pi * (x * x + 0.25))
        rate_weight = -interval * weight
        samples[REAL, j] *= weight
        samples[IMAG, j] *= weight
        samples[RATE_REAL, j] *= rate_weight
        samples[RATE_IMAG, j] *= rate_weight
    # In order: sums that LLVM may rearrange differ in their last bits between a kernel just compiled and one read back.
    for j in range(np.uint64(n)):
        forward_sum += samples[REAL, j]
        size += abs(samples[REAL, j]) + abs(samples[IMAG, j])
        rate_size += abs(samples[RATE_REAL, j]) + abs(samples[RATE_IMAG, j])
    return forward_sum, size, rate_size


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
    centre: Matrix,
    table: Vector,
    work: Matrix,
    strike: Vector,
    capped: Vector,
    growth: Vector,
) -> tuple[float, float, float]:
    """M and interval dC/dT on the strikes of one expiry.

    samples..rate_tail  of `sample_row` with the step 2 pi / (PERIODS[level] scale); samples become weighted values
    scale               the standard deviation that strikes and nodes are counted in
    interval            years
    places..table       of `turn_table`
    work                WORK_SHAPE, room to work in
    strike              (n_strikes,), filled, in units of the forward
    capped, growth      (n_strikes,), filled with M and interval dC/dT
    returns             the call at the forward; what any size computed from `capped` and `growth` may be wrong by, and
                        how much of that the images are
    """
    period = PERIODS[level]
    step = 2.0 * math.pi / (period * scale)
    n_columns = places.shape[1]
    half = strike.size // 2
    # Square roots of the strikes above the forward, a few at a time from those before.
    roots = work[_ROOTS]
    apart = math.exp(0.25 * spacing_of(strike.size) * scale)
    ratio = apart * apart
    roots[0] = apart
    for m in range(1, _LANES):
        roots[m] = roots[m - 1] * ratio
    ratio *= ratio
    ratio *= ratio
    for first in range(_LANES, half, _LANES):
        for lane in range(_LANES):
            roots[first + lane] = roots[first + lane - _LANES] * ratio
    root_high = roots[half - 1]
    forward_sum, size, rate_size = _weigh(samples, n, step, interval)
    sums = work[_SUMS : _SUMS + 4]
    even, odd, rate_even, rate_odd = sums[0], sums[1], sums[2], sums[3]
    n_tabled = min(n, TABLE_NODES) if level < TABLE_LEVELS else 0
    _sum_tabled(samples, n_tabled, level, n_columns, centre, table, work[: 2 * N_ROWS], work[2 * N_ROWS :], sums)
    if n > n_tabled:
        _add_far(samples, n_tabled, n, 2.0 * math.pi / period, places[level], sums)

    images = 1.0 / math.expm1(0.5 * period * scale)
    rounding = (8.0 * _EPSILON + noise) * size + 4.0 * _EPSILON * images * root_high
    rate_rounding = (8.0 * _EPSILON + noise) * rate_size
    alias = 1e300
    rate_alias = 1e300
    # e^{k_max - L/2}
    beyond = root_high * root_high * (images / (1.0 + images))
    seam_roots = work[_SEAM_ROOTS]
    for i in range(np.uint64(half), np.uint64(n_columns)):
        seam_roots[i] = exp(-0.5 * scale * abs(places[level, i]))
    for i in range(half, n_columns):
        if abs(places[level, i]) < SPAN:
            continue
        side = math.copysign(1.0, places[level, i])
        root = seam_roots[i]
        square = root * root
        put = square - (root * (even[i] - side * odd[i]) - images * (1.0 + square))
        put_growth = root * (rate_even[i] - side * rate_odd[i])
        factor = max(1.0, beyond / square)
        alias = min(alias, factor * (abs(put) + rounding))
        rate_alias = min(rate_alias, factor * (abs(put_growth) + rate_rounding))
    # A size is a difference of two prices, or one growth.
    error = 2.0 * (alias + root_high * (tail + rounding))
    rate_error = rate_alias + root_high * (interval * rate_tail + rate_rounding)

    up_from, down_from = np.uint64(half), np.uint64(half - 1)
    for m in range(np.uint64(half)):
        root = roots[m]
        up = root * root
        strike[up_from + m] = up
        capped[up_from + m] = root * (even[m] + odd[m]) - images * (1.0 + up)
        growth[up_from + m] = root * (rate_even[m] + rate_odd[m])
    for m in range(np.uint64(half)):
        root = 1.0 / roots[m]
        down = root * root
        strike[down_from - m] = down
        capped[down_from - m] = root * (even[m] - odd[m]) - images * (1.0 + down)
        growth[down_from - m] = root * (rate_even[m] - rate_odd[m])
    return 1.0 - (forward_sum - 2.0 * images), max(error, rate_error), max(2.0 * alias, rate_alias)


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
    # What the images add falls about exponentially with the period, by a decade or so a level.
    return min(level + 1 + int(1.4 * math.log10(min(error, 1.0) / TARGET_ERROR)), len(PERIODS) - 1)


@kernel
def level_ahead(level: int, alias_before: float, alias: float) -> int:
    """The period to start the next expiry with, from what the images were at the last two expiries, both with `level`.

    An expiry whose period turns out too short is computed again, one whose period is too long takes too many nodes.
    """
    if alias < 0.005 * TARGET_ERROR:
        return max(level - 1, 0)
    # Half of the target is for the images; that they grow again by as much is likely.
    if alias * alias > 0.5 * TARGET_ERROR * alias_before:
        return min(level + 1, len(PERIODS) - 1)
    return level


@kernel
def detail_of(level: int, n: int, n_strikes: int) -> float:
    """Radians that the wave of the last of n nodes turns from strike to strike."""
    return 2.0 * math.pi / PERIODS[level] * (n - 1) * spacing_of(n_strikes)


@kernel
def interval_after(expiry: Vector, i: int) -> float:
    """Years to the next expiry; of the last one, from the one before."""
    interval: float = expiry[i + 1] - expiry[i] if i + 1 < expiry.size else expiry[i] - expiry[i - 1]
    return interval


@inlined
def _row_excess(capped: Vector, growth: Vector, strike: Vector, excess: Matrix) -> None:
    """What each kind of condition is missed by at each strike of one expiry; negative where it holds.

    excess  (n_kinds, n_strikes), filled
    """
    half = np.uint64(strike.size // 2)
    last = np.uint64(strike.size - 1)
    one = np.uint64(1)
    ratio = strike[half + one] / strike[half]
    low = ratio / (1.0 + ratio)
    bounds, vertical, butterfly, calendar = excess[BOUNDS], excess[VERTICAL], excess[BUTTERFLY], excess[CALENDAR]
    for m in range(strike.size):
        bounds[m] = max(capped[m] - min(1.0, strike[m]), -capped[m])
        calendar[m] = -growth[m]
    # Below the forward the dear option of a vertical spread is the put of the lower strike, above it the call of the
    # higher one.
    for m in range(half):
        vertical[m] = (capped[m + one] - capped[m]) - (strike[m + one] - strike[m])
    for m in range(half, last + one):
        vertical[m] = capped[m - one] - capped[m]
    for m in range(one, last):
        butterfly[m] = low * capped[m - one] + (1.0 - low) * capped[m + one] - capped[m]
    # The left wing: a butterfly with strike zero below. The right wing is the last vertical, and no butterfly.
    butterfly[0] = capped[1] / ratio - capped[0]
    butterfly[last] = 0.0


@inlined
def _count_between(row: Vector, first: int, last: int, limit: float) -> int:
    count = 0
    one = np.uint64(1)
    for m in range(np.uint64(first), np.uint64(last)):
        count += 1.5 * row[m] - 0.25 * (row[m - one] + row[m + one]) > limit
    return count


@inlined
def _count_above(excess: Matrix, limit: float, between: bool) -> int:
    """How many conditions of one expiry are missed by more than `limit`, at the strikes or, if asked, between them.

    From its strikes to a peak between them an excess rises by an eighth of its second difference at most, and half the
    step that a butterfly is taken over adds a sixteenth: a quarter is more than both.
    """
    count = 0
    half = excess.shape[1] // 2
    for kind in range(N_KINDS):
        row = excess[kind]
        for m in range(row.size):
            count += row[m] > limit
        if between:
            # Not beside the left wing, whose butterfly is of another size, nor where puts give way to calls.
            seam = 1 if kind == VERTICAL else 0
            count += _count_between(row, 2, half - seam, limit)
            count += _count_between(row, half + seam, row.size - 1, limit)
    return count


@kernel
def count_on_grid(capped: Matrix, growth: Matrix, strike: Matrix, error: Vector, between: bool) -> int:
    """`_count_above` of a whole grid, each expiry by its own error."""
    excess = np.empty((N_KINDS, strike.shape[1]))
    count = 0
    for i in range(error.size):
        _row_excess(capped[i], growth[i], strike[i], excess)
        count += _count_above(excess, error[i], between)
    return count


@kernel
def price_grid_kernel(
    code: int,
    params: Vector,
    expiry: Vector,
    places: Matrix,
    centre: Matrix,
    table: Vector,
    scale: Vector,
    strike: Matrix,
    capped: Matrix,
    growth: Matrix,
    error: Vector,
    detail: Vector,
    most_detail: float,
    largest_error: float,
    between: bool,
) -> tuple[int, int]:
    """`surface.price_grid` for a compiled model; the six from `scale` on, one row an expiry, are filled.

    strike, capped, growth  with a row each, or with a single one that all expiries share: who only counts does not fill
                            the caches with what it never reads
    most_detail             the sweep ends at an expiry that has more: its strikes are too few
    largest_error           and at one with a larger error: it is not known
    between                 count what may be missed between strikes as well
    returns                 how many expiries were swept, less the one that ended it; how many conditions are missed by
                            more than the error of their expiry
    """
    samples = np.empty((4, MAX_NODES))
    work = np.empty(WORK_SHAPE)
    natural = np.empty(expiry.size)
    natural_scales(code, params, expiry, natural)
    excess = np.empty((N_KINDS, strike.shape[1]))
    n_missed = 0
    n = 0
    level = 0
    level_before = -1
    alias_before = 0.0
    ratio = 1.001
    for i in range(expiry.size):
        row = i % strike.shape[0]
        interval = interval_after(expiry, i)
        wanted = ratio * natural[i]
        for _ in range(2 * len(PERIODS)):
            scale[i] = wanted
            step = 2.0 * math.pi / (PERIODS[level] * wanted)
            n, noise, tail, rate_tail = sample_row(
                code, params, expiry[i], step, tail_target(wanted), interval, n, samples
            )
            at_the_money, error[i], alias = invert_row(
                samples,
                n,
                noise,
                tail,
                rate_tail,
                wanted,
                interval,
                level,
                places,
                centre,
                table,
                work,
                strike[row],
                capped[row],
                growth[row],
            )
            wanted = fitting_scale(at_the_money, wanted)
            detail[i] = detail_of(level, n, strike.shape[1])
            after = next_level(level, n, error[i])
            if wanted == scale[i] and after == level:
                break
            level = after
        if detail[i] > most_detail or error[i] > largest_error:
            return i, n_missed
        # Neighbouring expiries are alike.
        ratio = scale[i] / natural[i]
        if level != level_before:
            alias_before = alias
        level_before = level
        level = level_ahead(level, alias_before, alias)
        alias_before = alias
        _row_excess(capped[row], growth[row], strike[row], excess)
        n_missed += _count_above(excess, error[i], between)
    return expiry.size, n_missed


@careful
def spread_expiries(shortest: float, longest: float, n_expiries: int) -> Vector:
    """(n_expiries,), from half the shortest to one and a half times the longest, evenly spaced in their logarithm."""
    low = math.log(0.5 * shortest)
    high = math.log(1.5 * longest)
    expiry = np.empty(n_expiries)
    for i in range(n_expiries):
        expiry[i] = math.exp(low + i / (n_expiries - 1) * (high - low))
    return expiry


@careful
def count_missed(
    code: int,
    params: Vector,
    shortest: float,
    longest: float,
    n_expiries: int,
    n_strikes: int,
    places: Matrix,
    centre: Matrix,
    table: Vector,
    most_detail: float,
    between: bool,
) -> tuple[int, int, float]:
    """`price_grid_kernel` without the prices, until an expiry is not known.

    shortest, longest  the quoted expiries, as `spread_expiries` takes them
    returns            as `price_grid_kernel`, and the largest error: above `LARGEST_ERROR`, of the one that ended it
    """
    expiry = spread_expiries(shortest, longest, n_expiries)
    scale, error, detail = np.empty(n_expiries), np.zeros(n_expiries), np.empty(n_expiries)
    strike, capped, growth = np.empty((1, n_strikes)), np.empty((1, n_strikes)), np.empty((1, n_strikes))
    n_swept, n_missed = price_grid_kernel(
        code,
        params,
        expiry,
        places,
        centre,
        table,
        scale,
        strike,
        capped,
        growth,
        error,
        detail,
        most_detail,
        LARGEST_ERROR,
        between,
    )
    worst = 0.0
    for i in range(n_expiries):
        # A NaN or an infinity, from parameters that no model has, is more than any bound as well.
        if not error[i] <= LARGEST_ERROR:
            return i, n_missed, error[i]
        worst = max(worst, error[i])
    return n_swept, n_missed, worst


@kernel
def excess_of(capped: Matrix, growth: Matrix, strike: Matrix, excess: Matrix) -> None:
    """What each condition is missed by; excess (n_expiries, n_kinds, n_strikes), filled."""
    for i in range(capped.shape[0]):
        _row_excess(capped[i], growth[i], strike[i], excess[i])
