"""The Heston characteristic function and the parts of its gradient on a block of Fourier nodes, and their sums.

On Lewis's contour, u = x - i/2 with real x, the quantity a = u^2 + iu = x^2 + 1/4 is real, so that the discriminant
d^2 = beta^2 + xi^2 a has a positive real part. Off it, for x + iy with x > 0, d^2 still keeps off the negative real
axis, for its two zeros are imaginary: it is xi^2 (1 - rho^2) times (x + iy - i s1) (x + iy - i s2). So every square
root, logarithm and division below is away from its branch cut. The exponent is the "little trap" form (Albrecher et al.
2007); its gradient goes through the two quantities beta and d by which kappa, xi and rho enter (compare Cui et al.
2017).

The formula is written once, for one node, in real arithmetic; LLVM vectorises the loops that call it.
`models/heston.py` holds the readable complex form, which `tests/test_heston_block.py` holds against this one.
"""

import math

import numpy as np

from ..arrays import Vector
from ..compiled import inlined, kernel, reduction
from .vector_math import atan2, cos_sin, exp, log, log1p, select

EPSILON = 2.220446049250313e-16
N_PARTS = 6
"""Integrals that price and gradient are made of: phi times 1, D, G, M, ixM and aN/d (see `heston_node`)."""
# Rows a multiple of 4096 bytes apart would compete for the same lines of the first-level cache.
MAX_NODES = 520
N_ROWS = 2 * N_PARTS + 4

# One flat array of rows with a constant pitch, indexed without sign: so LLVM sees that rows do not overlap and that no
# index wraps around, and vectorises without a test at run time. Tests for 14 separate rows cost more than 8 nodes do.
_HALVES = np.arange(MAX_NODES) + 0.5
_R0, _R1, _R2, _R3, _R4, _R5 = (np.uint64(m * MAX_NODES) for m in range(N_PARTS))
_I0, _I1, _I2, _I3, _I4, _I5 = (np.uint64((N_PARTS + m) * MAX_NODES) for m in range(N_PARTS))
_COS, _SIN, _X, _Y = (np.uint64((2 * N_PARTS + m) * MAX_NODES) for m in range(4))
# Where `cos_sin` still returns numbers between -1 and 1, if not the right ones.
_LARGEST_ANGLE = 1e15
_LOG_NEAREST_POLE = 2.0

NodeParts = tuple[float, float, float, float, float, float, float, float, float, float]


@inlined
def exponent_rounding(expiry: float, kappa: float, theta: float, xi: float, rho: float) -> tuple[float, float]:
    """Units in the last place that log phi may be wrong by, c0 + c1 |x^2 + 1/4|: returns (c0, c1).

    The terms in kappa theta / xi^2 are differences of terms of size kappa theta T |x^2 + 1/4| / |beta + d|, and 1 - E
    loses 1 / dT, for all that follows, where dT is small.
    """
    beta = kappa - 0.5 * rho * xi
    d = math.sqrt(beta * beta + 0.25 * xi * xi)
    q = beta + d if beta > 0.0 else 0.25 * xi * xi / (d - beta)
    lost = 1.0 + 1.0 / (d * expiry)
    return lost, lost * kappa * theta * expiry / q


@inlined
def heston_node(
    x: float, y: float, expiry: float, kappa: float, theta: float, xi: float, rho: float, v0: float
) -> NodeParts:
    """log phi(x + iy - i/2) = (kappa theta / xi^2) G + v0 D, and the derivatives that all five parameters share.

    x, y    x > 0; y = 0, as a constant, leaves the shorter arithmetic of real nodes
    returns (D, G, M, aN/d, log phi), each as real and imaginary part:
    D, G    as above
    M       d log phi / d beta, with beta = kappa - rho xi (1/2 + i (x + iy))
    aN/d    d log phi / d (xi^2/2) at fixed beta, where N = d log phi / d d
    """
    square = x * x - y * y
    cross = x * y
    a_r = square + 0.25
    a_i = 2.0 * cross
    weight = kappa * theta / (xi * xi)
    # beta, and d^2 = beta^2 + xi^2 a written out: near rho = +-1 the terms in x^2 would cancel.
    level = kappa - 0.5 * rho * xi
    slope = rho * xi
    br = level + slope * y
    bi = -slope * x
    steep = xi * xi * ((1.0 - rho) * (1.0 + rho))
    d2r = steep * square + level * (level + 2.0 * slope * y) + 0.25 * xi * xi
    d2i = 2.0 * (steep * cross - level * slope * x)
    # sqrt d^2, whichever of its parts is the larger first. The real part of d^2 is positive at real nodes.
    straight = y == 0.0
    modulus = math.sqrt(d2r * d2r + d2i * d2i)
    large2 = 0.5 * (modulus + abs(d2r))
    large = math.sqrt(large2)
    inverse = 1.0 / (large2 * modulus)
    small = 0.5 * d2i * large * (modulus * inverse)
    wide = straight | (d2r >= 0.0)
    dr = select(wide, large, abs(small))
    di = select(wide, small, select(d2i < 0.0, -large, large))
    # 1 / d, by the same division
    inverse *= large2
    idr = dr * inverse
    idi = -di * inverse
    # E = exp(-d T)
    size = exp(-dr * expiry)
    cosine, sine = cos_sin(di * expiry)
    er = size * cosine
    ei = -size * sine
    # r = beta - d; where it cancels, from r (beta + d) = -xi^2 a.
    falling = select(straight, br, br * dr + bi * di) >= 0.0
    sign = select(falling, 1.0, -1.0)
    tr = br + sign * dr
    ti = bi + sign * di
    scale = -xi * xi / (tr * tr + ti * ti)
    rr = select(falling, scale * (a_r * tr + a_i * ti), tr)
    ri = select(falling, scale * (a_i * tr - a_r * ti), ti)
    # F = 1 - E, A = 2 d + r F, and B = F / A
    fr = 1.0 - er
    rfr = rr * fr + ri * ei
    rfi = ri * fr - rr * ei
    ar = 2.0 * dr + rfr
    ai = 2.0 * di + rfi
    inverse = 1.0 / (ar * ar + ai * ai)
    iar = ar * inverse
    iai = -ai * inverse
    b_r = fr * iar + ei * iai
    b_i = fr * iai - ei * iar
    # L = log(A / 2d) = log1p(r F / 2d): as xi vanishes so does L, while its factor grows as 1 / xi^2.
    yr = 0.5 * (rfr * idr - rfi * idi)
    yi = 0.5 * (rfr * idi + rfi * idr)
    lr = 0.5 * log1p(yr * (2.0 + yr) + yi * yi)
    li = atan2(yi, 1.0 + yr)
    gr = rr * expiry - 2.0 * lr
    gi = ri * expiry - 2.0 * li
    # N = dD/dd v0 + weight dG/dd
    ter = expiry * er
    tei = expiry * ei
    e2r = er * er - ei * ei
    e2i = 2.0 * er * ei
    hr = 2.0 * (dr * ter - di * tei) - 1.0 + e2r
    hi = 2.0 * (dr * tei + di * ter) + e2i
    ia2r = iar * iar - iai * iai
    ia2i = 2.0 * iar * iai
    hir = hr * ia2r - hi * ia2i
    hii = hr * ia2i + hi * ia2r
    dd_r = a_i * hii - a_r * hir
    dd_i = -(a_r * hii + a_i * hir)
    sr = 1.0 + er + ter * rr - tei * ri
    si = ei + ter * ri + tei * rr
    dl_r = sr * iar - si * iai - idr
    dl_i = sr * iai + si * iar - idi
    nr = v0 * dd_r - weight * (expiry + 2.0 * dl_r)
    ni = v0 * dd_i - 2.0 * weight * dl_i
    # M = dD/dbeta v0 + weight dG/dbeta + N beta / d
    ndr = nr * idr - ni * idi
    ndi = nr * idi + ni * idr
    b2r = b_r * b_r - b_i * b_i
    b2i = 2.0 * b_r * b_i
    mr = v0 * (a_r * b2r - a_i * b2i) + weight * (expiry - 2.0 * b_r) + ndr * br - ndi * bi
    mi = v0 * (a_r * b2i + a_i * b2r) - 2.0 * weight * b_i + ndr * bi + ndi * br
    cap_dr = a_i * b_i - a_r * b_r
    cap_di = -(a_r * b_i + a_i * b_r)
    return (
        cap_dr,
        cap_di,
        gr,
        gi,
        mr,
        mi,
        a_r * ndr - a_i * ndi,
        a_r * ndi + a_i * ndr,
        weight * gr + v0 * cap_dr,
        weight * gi + v0 * cap_di,
    )


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


@inlined
def _store_gradient(j: int, x: float, y: float, fr: float, fi: float, parts: NodeParts, work: Vector) -> None:
    """The parts after the first: phi times its weight, (fr, fi), times D, G, M, i (x + iy) M and aN/d."""
    dr, di, gr, gi, mr, mi, nr, ni, _, _ = parts
    mfr = fr * mr - fi * mi
    mfi = fr * mi + fi * mr
    work[_R1 + j] = fr * dr - fi * di
    work[_I1 + j] = fr * di + fi * dr
    work[_R2 + j] = fr * gr - fi * gi
    work[_I2 + j] = fr * gi + fi * gr
    work[_R3 + j] = mfr
    work[_I3 + j] = mfi
    work[_R4 + j] = -x * mfi - y * mfr
    work[_I4 + j] = x * mfr - y * mfi
    work[_R5 + j] = fr * nr - fi * ni
    work[_I5 + j] = fr * ni + fi * nr


@kernel
def heston_parts(
    first: int, last: int, step: float, expiry: float, params: Vector, variance: float, work: Vector
) -> None:
    """The six integrands of price and gradient at the nodes x = (j + 1/2) step, first <= j < last, times their weights.

    variance  of the control variate, whose characteristic function (real on this contour) is taken from the first part
    work      (N_ROWS * MAX_NODES,), rows m (real) and N_PARTS + m (imaginary) of part m filled
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    for j in range(np.uint64(first), np.uint64(last)):
        x = _HALVES[j] * step
        a = x * x + 0.25
        scale = step / a
        parts = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0)
        size = scale * exp(parts[8])
        cosine, sine = cos_sin(parts[9])
        fr = size * cosine
        fi = size * sine
        work[_R0 + j] = fr - scale * exp(-0.5 * variance * a)
        work[_I0 + j] = fi
        _store_gradient(j, x, 0.0, fr, fi, parts, work)


@kernel
def heston_phi(
    first: int, last: int, step: float, expiry: float, params: Vector, variance: float, work: Vector
) -> None:
    """The first part of `heston_parts` alone: what prices need without their gradient."""
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    for j in range(np.uint64(first), np.uint64(last)):
        x = _HALVES[j] * step
        a = x * x + 0.25
        scale = step / a
        _, _, _, _, _, _, _, _, pr, pi = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0)
        size = scale * exp(pr)
        cosine, sine = cos_sin(pi)
        work[_R0 + j] = size * cosine - scale * exp(-0.5 * variance * a)
        work[_I0 + j] = size * sine


@inlined
def _bent_weight(
    t: float, step: float, centre: float, width: float, bend_cos: float, bend_sin: float
) -> tuple[float, float, float, float]:
    """The node x = i centre + width sinh(t + i bend), and its weight step dx/dt / (x^2 + 1/4)."""
    rise = exp(t)
    fall = 1.0 / rise
    sinh = 0.5 * (rise - fall)
    cosh = 0.5 * (rise + fall)
    x = width * sinh * bend_cos
    y = centre + width * cosh * bend_sin
    slope_r = step * width * cosh * bend_cos
    slope_i = step * width * sinh * bend_sin
    a_r = x * x - y * y + 0.25
    a_i = 2.0 * x * y
    inverse = 1.0 / (a_r * a_r + a_i * a_i)
    return x, y, inverse * (slope_r * a_r + slope_i * a_i), inverse * (slope_i * a_r - slope_r * a_i)


@inlined
def _growth(k: float, y: float, low: float, high: float) -> float:
    """log |e^{-ixk}| less that of the strike between `low` and `high` for which |e^{-ixk}| e^{k/2} is largest."""
    less: float = (k - select(y > -0.5, high, low)) * y
    return less


@inlined
def _bent_phi(scale_r: float, scale_i: float, pr: float, pi: float) -> tuple[float, float]:
    """phi times a complex weight. Beyond the largest angle cosine and sine have no digits, and phi is negligible."""
    size = exp(min(pr, 690.0))
    cosine, sine = cos_sin(min(max(pi, -_LARGEST_ANGLE), _LARGEST_ANGLE))
    return size * (scale_r * cosine - scale_i * sine), size * (scale_r * sine + scale_i * cosine)


@kernel
def bent_parts(
    first: int, last: int, step: float, centre: float, width: float, bend: float, low: float, high: float,
    expiry: float, params: Vector, work: Vector,
) -> None:  # fmt: skip
    """The six integrands at the nodes x = i centre + width sinh((j + 1/2) step + i bend), times their weights.

    low, high  strikes; what is filled holds |e^{-ixk}| of the one for which a node counts most: nothing overflows
    work       (N_ROWS * MAX_NODES,), filled as by `heston_parts`, without a control variate; and the nodes themselves
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    bend_cos, bend_sin = math.cos(bend), math.sin(bend)
    for j in range(np.uint64(first), np.uint64(last)):
        x, y, scale_r, scale_i = _bent_weight(_HALVES[j] * step, step, centre, width, bend_cos, bend_sin)
        parts = heston_node(x, y, expiry, kappa, theta, xi, rho, v0)
        fr, fi = _bent_phi(scale_r, scale_i, parts[8] - _growth(0.0, y, low, high), parts[9])
        work[_X + j] = x
        work[_Y + j] = y
        work[_R0 + j] = fr
        work[_I0 + j] = fi
        _store_gradient(j, x, y, fr, fi, parts, work)


@kernel
def bent_phi(
    first: int, last: int, step: float, centre: float, width: float, bend: float, low: float, high: float,
    expiry: float, params: Vector, work: Vector,
) -> None:  # fmt: skip
    """The first part of `bent_parts` alone."""
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    bend_cos, bend_sin = math.cos(bend), math.sin(bend)
    for j in range(np.uint64(first), np.uint64(last)):
        x, y, scale_r, scale_i = _bent_weight(_HALVES[j] * step, step, centre, width, bend_cos, bend_sin)
        _, _, _, _, _, _, _, _, pr, pi = heston_node(x, y, expiry, kappa, theta, xi, rho, v0)
        fr, fi = _bent_phi(scale_r, scale_i, pr - _growth(0.0, y, low, high), pi)
        work[_X + j] = x
        work[_Y + j] = y
        work[_R0 + j] = fr
        work[_I0 + j] = fi


@kernel
def bent_sizes(
    first: int, last: int, step: float, centre: float, width: float, bend: float, expiry: float, params: Vector,
    sizes: Vector, heights: Vector,
) -> None:  # fmt: skip
    """log |phi dx/dt / (x^2 + 1/4)| and Im x at t = j step, first <= j < last; no pole counts as very near."""
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    bend_cos, bend_sin = math.cos(bend), math.sin(bend)
    for j in range(np.uint64(first), np.uint64(last)):
        x, y, scale_r, scale_i = _bent_weight(j * step, 1.0, centre, width, bend_cos, bend_sin)
        _, _, _, _, _, _, _, _, pr, _ = heston_node(x, y, expiry, kappa, theta, xi, rho, v0)
        sizes[j] = pr + min(0.5 * log(scale_r * scale_r + scale_i * scale_i), _LOG_NEAREST_POLE)
        heights[j] = y


@kernel
def bent_bounds(
    first: int, last: int, low: float, high: float, expiry: float, params: Vector, work: Vector, bounds: Vector,
    losses: Vector,
) -> None:  # fmt: skip
    """What nodes of `bent_parts` add at most to the value of a strike between `low` and `high`, and rounding's share.

    bounds, losses  (MAX_NODES,), first:last filled
    """
    kappa, theta, xi, rho = params[0], params[1], params[2], params[3]
    far = max(high, -low)
    of_turn, of_square = exponent_rounding(expiry, kappa, theta, xi, rho)
    for j in range(np.uint64(first), np.uint64(last)):
        x = work[_X + j]
        y = work[_Y + j]
        fr = work[_R0 + j]
        fi = work[_I0 + j]
        bound = (1.0 / math.pi) * exp(0.5 * select(y > -0.5, high, low)) * math.sqrt(fr * fr + fi * fi)
        square = x * x + y * y + 0.25
        bounds[j] = bound
        losses[j] = EPSILON * bound * (4.0 + far * (abs(x) + abs(y)) + of_turn + of_square * square)


@inlined
def _squared(c: float, s: float) -> tuple[float, float]:
    """Cosine and sine of twice the angle."""
    return c * c - s * s, 2.0 * c * s


@kernel
def turn_evenly(k: float, step: float, n_nodes: int, work: Vector) -> None:
    """cos and sin of x_j k at x_j = (j + 1/2) step: one cosine and sine, then powers of it by doubling."""
    work[_COS], work[_SIN] = cos_sin(0.5 * step * k)
    # e^{i step k m} for m = 1, 2, 4, 8 fills the first sixteen nodes, and for m = 16 leads from sixteen to the next:
    # two vectors at once, since one alone would wait for its own arithmetic.
    c, s = _squared(work[_COS], work[_SIN])
    for done in (1, 2, 4, 8):
        for lane in range(done):
            x = work[_COS + np.uint64(lane)]
            y = work[_SIN + np.uint64(lane)]
            work[_COS + np.uint64(done + lane)] = x * c - y * s
            work[_SIN + np.uint64(done + lane)] = x * s + y * c
        c, s = _squared(c, s)
    for j in range(np.uint64(16), np.uint64(n_nodes)):
        x = work[_COS + j - np.uint64(16)]
        y = work[_SIN + j - np.uint64(16)]
        work[_COS + j] = x * c - y * s
        work[_SIN + j] = x * s + y * c


@kernel
def turn_bent(k: float, low: float, high: float, n_nodes: int, work: Vector) -> None:
    """Real part and minus the imaginary part of e^{-ixk} at the nodes of `bent_parts`, less what those hold of it."""
    for j in range(np.uint64(n_nodes)):
        size = exp(_growth(k, work[_Y + j], low, high))
        cosine, sine = cos_sin(min(max(k * work[_X + j], -_LARGEST_ANGLE), _LARGEST_ANGLE))
        work[_COS + j] = size * cosine
        work[_SIN + j] = size * sine


@reduction
def sum_first(n_nodes: int, work: Vector) -> float:
    """sum_j Re[e^{-i x_j k} part_0] for the strike that `turn_evenly` or `turn_bent` was called for."""
    s0 = 0.0
    for j in range(np.uint64(n_nodes)):
        s0 += work[_COS + j] * work[_R0 + j] + work[_SIN + j] * work[_I0 + j]
    return s0


@reduction
def sum_parts(n_nodes: int, work: Vector) -> tuple[float, float, float, float, float, float]:
    """The same for all six parts."""
    s0, s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(np.uint64(n_nodes)):
        c = work[_COS + j]
        s = work[_SIN + j]
        s0 += c * work[_R0 + j] + s * work[_I0 + j]
        s1 += c * work[_R1 + j] + s * work[_I1 + j]
        s2 += c * work[_R2 + j] + s * work[_I2 + j]
        s3 += c * work[_R3 + j] + s * work[_I3 + j]
        s4 += c * work[_R4 + j] + s * work[_I4 + j]
        s5 += c * work[_R5 + j] + s * work[_I5 + j]
    return s0, s1, s2, s3, s4, s5
