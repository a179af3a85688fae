"""Model vols of a panel and their gradient, cut up for the threads of a block: what `pricing/fit_kernel.py` and
`optimisers/levenberg_marquardt.evaluate` do on the CPU.

The same integral on the same contour with the same step rule and the same control of the tail. What differs is the
order of the work. All threads take an expiry together: `CHUNK` nodes at a time, one or two a thread, until the tail is
below the tolerance; then a strike's sum is cut into `SLICES`, added up by a thread each. The count of nodes is thus
uniform over an expiry and a multiple of `CHUNK`, at least that of the CPU kernel, and so is the accuracy.

An expiry that `MAX_CHUNKS` do not satisfy wants the bent contour, whose branches suit no GPU: such a panel is left to
the CPU, and says so.

Every function takes `lane` and `n_lanes`: the thread's number in its block and how many there are. Between two calls
that write and read the same array there is a barrier.
"""

import math

from ..arrays import Matrix, Vector
from ..pricing import composed_block, fit_kernel, heston_block
from .target import cos_sin, device, from_cpu, select

N_PARTS = heston_block.N_PARTS
CHUNK = 64
SLICES = 4
_SLICE = CHUNK // SLICES
MAX_CHUNKS = 24
_TAIL = fit_kernel.BLOCK
_HALF_TAIL = _TAIL // 2
_LARGEST_SD = 10.0
_LEAST_SD = 1e-9
_LEAST_VEGA = 1e-12
"""As in `evaluate`: a trial at which a quote has no vega says nothing about the way back."""
_MAX_INVERSION_STEPS = 40
_SQRT_HALF = 0.7071067811865476
_INVERSE_SQRT_2PI = 0.3989422804014327

_node = from_cpu(
    heston_block.heston_node, exp=device(lambda x: math.exp(x)), log1p=device(lambda x: math.log1p(x)),
    atan2=device(lambda y, x: math.atan2(y, x)), cos_sin=cos_sin, select=select,
)  # fmt: skip
_log_moment_of_heston = from_cpu(heston_block.log_moment_of_heston)
_variance = from_cpu(composed_block.heston_variance)


@device
def _log_moment(_: int, s: float, expiry: float, params: Vector) -> float:
    moment: float = _log_moment_of_heston(s, expiry, params[0], params[1], params[2], params[3], params[4])
    return moment


_alias_length = from_cpu(
    fit_kernel.alias_length,
    log_moment=_log_moment,
    log_moment_of_heston=_log_moment_of_heston,
    one_heston=device(lambda _: True),
)
"""The layout is always Heston's here: a number stands for it."""


@device
def plan_expiry(expiry: float, k_low: float, k_high: float, tolerance: float, params: Vector, plan: Vector) -> None:
    """Fill (variance of the control variate, step between nodes, error allowed in the sums) of one expiry."""
    variance = _variance(expiry, params[0], params[1], params[4])
    length = _alias_length(0, expiry, params, math.sqrt(variance), k_low, k_high, tolerance)
    plan[0] = variance
    plan[1] = 2.0 * math.pi / length
    plan[2] = 0.5 * math.pi * tolerance * math.exp(-0.5 * max(k_high, 0.0))


@device
def fill_chunk(lane: int, n_lanes: int, chunk: int, expiry: float, params: Vector, plan: Vector, nodes: Matrix) -> None:
    """The integrands of `heston_block.heston_parts` at the nodes of a chunk: (2 N_PARTS, CHUNK), real ones first."""
    variance = plan[0]
    step = plan[1]
    for j in range(lane, CHUNK, n_lanes):
        x = (chunk * CHUNK + j + 0.5) * step
        a = x * x + 0.25
        scale = step / a
        dr, di, gr, gi, mr, mi, nr, ni, pr, pi = _node(
            x, 0.0, expiry, params[0], params[1], params[2], params[3], params[4], False
        )
        size = scale * math.exp(pr)
        fr = size * math.cos(pi)
        fi = size * math.sin(pi)
        mfr = fr * mr - fi * mi
        mfi = fr * mi + fi * mr
        nodes[0, j] = fr - scale * math.exp(-0.5 * variance * a)
        nodes[1, j] = fr * dr - fi * di
        nodes[2, j] = fr * gr - fi * gi
        nodes[3, j] = mfr
        nodes[4, j] = -x * mfi
        nodes[5, j] = fr * nr - fi * ni
        nodes[6, j] = fi
        nodes[7, j] = fr * di + fi * dr
        nodes[8, j] = fr * gi + fi * gr
        nodes[9, j] = mfi
        nodes[10, j] = x * mfr
        nodes[11, j] = fr * ni + fi * nr


@device
def tail_is_small(target: float, nodes: Matrix) -> bool:
    """Whether the integral beyond this chunk is below `target`, by the rule of `fit_kernel._march`."""
    early = 0.0
    late = 0.0
    for j in range(CHUNK - _TAIL, CHUNK - _HALF_TAIL):
        i = j + _HALF_TAIL
        early = max(early, nodes[0, j] * nodes[0, j] + nodes[N_PARTS, j] * nodes[N_PARTS, j])
        late = max(late, nodes[0, i] * nodes[0, i] + nodes[N_PARTS, i] * nodes[N_PARTS, i])
    if late == 0.0:
        return True
    if late < target * target and late < early:
        ratio = math.sqrt(late / early)
        return _HALF_TAIL * math.sqrt(late) * ratio < target * (1.0 - ratio)
    return False


@device
def add_chunk(
    lane: int,
    n_lanes: int,
    chunk: int,
    first: int,
    last: int,
    log_moneyness: Vector,
    plan: Vector,
    nodes: Matrix,
    sums: Matrix,
) -> None:
    """Add sum_j Re[e^{-i x_j k} part_j] of a chunk to the sums of the quotes first..last.

    sums  (n_quotes * SLICES, N_PARTS), a row for each quote and slice of a chunk
    """
    step = plan[1]
    for item in range(lane, (last - first) * SLICES, n_lanes):
        q = first + item // SLICES
        begin = (item % SLICES) * _SLICE
        k = log_moneyness[q]
        angle = (chunk * CHUNK + begin + 0.5) * step * k
        c = math.cos(angle)
        s = math.sin(angle)
        turn_c = math.cos(step * k)
        turn_s = math.sin(step * k)
        s0, s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(begin, begin + _SLICE):
            s0 += c * nodes[0, j] + s * nodes[6, j]
            s1 += c * nodes[1, j] + s * nodes[7, j]
            s2 += c * nodes[2, j] + s * nodes[8, j]
            s3 += c * nodes[3, j] + s * nodes[9, j]
            s4 += c * nodes[4, j] + s * nodes[10, j]
            s5 += c * nodes[5, j] + s * nodes[11, j]
            c, s = c * turn_c - s * turn_s, c * turn_s + s * turn_c
        row = first * SLICES + item
        if chunk == 0:
            sums[row, 0] = s0
            sums[row, 1] = s1
            sums[row, 2] = s2
            sums[row, 3] = s3
            sums[row, 4] = s4
            sums[row, 5] = s5
        else:
            sums[row, 0] += s0
            sums[row, 1] += s1
            sums[row, 2] += s2
            sums[row, 3] += s3
            sums[row, 4] += s4
            sums[row, 5] += s5


@device
def time_value(k: float, sd: float) -> float:
    """Black's out-of-the-money value in units of the forward. The error, 1e-16, is absolute as the model's own is."""
    a = abs(k)
    value = 0.5 * (
        math.erfc((a / sd - 0.5 * sd) * _SQRT_HALF) - math.exp(a) * math.erfc((a / sd + 0.5 * sd) * _SQRT_HALF)
    )
    return max(value, 0.0) * math.exp(min(k, 0.0))


@device
def density(k: float, sd: float) -> float:
    """Its derivative in the total standard deviation."""
    h = k / sd
    return _INVERSE_SQRT_2PI * math.exp(0.5 * (k - h * h - 0.25 * sd * sd))


@device
def implied_sd(k: float, target: float, guess: float) -> float:
    """The total standard deviation of a time value: Newton on its logarithm, kept inside a shrinking bracket."""
    low = _LEAST_SD
    high = _LARGEST_SD
    sd = min(max(guess, 1e-4), 5.0)
    for _ in range(_MAX_INVERSION_STEPS):
        value = time_value(k, sd)
        if value < target:
            low = sd
        else:
            high = sd
        slope = density(k, sd)
        trial = sd
        if value > 0.0 and slope > 0.0:
            trial = sd + value / slope * math.log(target / value)
        if not (low <= trial <= high) or value <= 0.0 or slope <= 0.0:
            trial = 0.5 * (low + high)
        change = abs(trial - sd)
        sd = trial
        if change <= 1e-15 * sd:
            return sd
        if change <= 1e-7 * sd:
            # Newton doubles the digits: one step more has them all.
            value = time_value(k, sd)
            slope = density(k, sd)
            if value > 0.0 and slope > 0.0:
                sd += value / slope * math.log(target / value)
            return sd
    return sd


@device
def finish_quotes(
    lane: int,
    n_lanes: int,
    first: int,
    last: int,
    floor: float,
    params: Vector,
    plan: Vector,
    quotes: Matrix,
    sums: Matrix,
    rows: Matrix,
) -> None:
    """Vols, weighted residuals and their derivatives of the quotes first..last of one expiry.

    floor   least price: a trial far from the market can price a quote at nothing, or at noise
    quotes  (4, n_quotes): log-moneyness, vol, root of the weight, root of the expiry
    rows    (n_quotes, 7): weighted residual, its derivative by each parameter, the model's vol (a guess on entry)
    """
    kappa, theta, xi, rho = params[0], params[1], params[2], params[3]
    for q in range(first + lane, last, n_lanes):
        k = quotes[0, q]
        root = quotes[3, q]
        s0, s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(q * SLICES, (q + 1) * SLICES):
            s0 += sums[row, 0]
            s1 += sums[row, 1]
            s2 += sums[row, 2]
            s3 += sums[row, 3]
            s4 += sums[row, 4]
            s5 += sums[row, 5]
        factor = math.exp(0.5 * k) * (-1.0 / math.pi)
        value = time_value(k, math.sqrt(plan[0])) + factor * s0
        sd = implied_sd(k, max(value, floor), rows[q, 6] * root)
        rows[q, 6] = sd / root
        rows[q, 0] = quotes[2, q] * (rows[q, 6] - quotes[1, q])
        # d vol / d price, weighted; then as at the end of `heston_block.fold_heston`.
        factor *= quotes[2, q] / max(density(k, sd) * root, _LEAST_VEGA)
        s_z = 0.5 * s3 + s4
        rows[q, 1] = factor * (theta / (xi * xi) * s2 + s3)
        rows[q, 2] = factor * kappa / (xi * xi) * s2
        rows[q, 3] = factor * (-2.0 * kappa * theta / (xi * xi * xi) * s2 - rho * s_z + xi * s5)
        rows[q, 4] = -factor * xi * s_z
        rows[q, 5] = factor * s1
