"""The Heston characteristic function and the parts of its gradient, on a block of real Fourier nodes.

On Lewis's contour, u = x - i/2 with real x, the quantity a = u^2 + iu = x^2 + 1/4 is real, so that the discriminant
d^2 = beta^2 + xi^2 a has a positive real part and every square root, logarithm and division below is away from its
branch cut. The exponent is the "little trap" form (Albrecher et al. 2007); its gradient goes through the two
quantities beta and d by which kappa, xi and rho enter (compare Cui et al. 2017).

The formula is written once, for one node, in real arithmetic; LLVM vectorises the loops that call it.
`models/heston.py` holds the readable complex form, which `tests/test_heston_block.py` holds against this one.
"""

import math

import numpy as np

from ..arrays import Vector
from .vector_math import atan2, cos_sin, exp, inlined, kernel, log1p, reduction, select

N_PARTS = 6
"""Integrals that price and gradient are made of: phi times 1, D, G, M, ixM and aN/d (see `heston_node`)."""
# Rows a multiple of 4096 bytes apart would compete for the same lines of the first-level cache.
MAX_NODES = 1544
N_ROWS = 2 * N_PARTS + 2

# One flat array of rows with a constant pitch, indexed without sign: so LLVM sees that rows do not overlap and that no
# index wraps around, and vectorises without a test at run time. Tests for 14 separate rows cost more than 8 nodes do.
_HALVES = np.arange(MAX_NODES) + 0.5
_R0, _R1, _R2, _R3, _R4, _R5 = (np.uint64(m * MAX_NODES) for m in range(N_PARTS))
_I0, _I1, _I2, _I3, _I4, _I5 = (np.uint64((N_PARTS + m) * MAX_NODES) for m in range(N_PARTS))
_COS, _SIN = (np.uint64((2 * N_PARTS + m) * MAX_NODES) for m in range(2))


@inlined
def heston_node(
    x: float, expiry: float, kappa: float, theta: float, xi: float, rho: float, v0: float
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """log phi(x - i/2) = (kappa theta / xi^2) G + v0 D, and the derivatives that all five parameters share.

    returns (D, G, M, aN/d, log phi), each as real and imaginary part:
    D, G    as above
    M       d log phi / d beta, with beta = kappa - rho xi (1/2 + ix)
    aN/d    d log phi / d (xi^2/2) at fixed beta, where N = d log phi / d d
    """
    a = x * x + 0.25
    weight = kappa * theta / (xi * xi)
    # beta and d
    br = kappa - 0.5 * rho * xi
    bi = -rho * xi * x
    # Near rho = +-1 the difference x^2 - rho^2 x^2 would cancel.
    d2r = br * br + xi * xi * ((1.0 - rho) * (1.0 + rho) * x * x + 0.25)
    d2i = 2.0 * br * bi
    dr = math.sqrt(0.5 * (math.sqrt(d2r * d2r + d2i * d2i) + d2r))
    di = 0.5 * d2i / dr
    # E = exp(-d T)
    size = exp(-dr * expiry)
    cosine, sine = cos_sin(di * expiry)
    er = size * cosine
    ei = -size * sine
    # q = beta + d and r = beta - d, the one that cancels from q r = -xi^2 a.
    falling = br >= 0.0
    sign = select(falling, 1.0, -1.0)
    tr = br + sign * dr
    ti = bi + sign * di
    scale = -xi * xi * a / (tr * tr + ti * ti)
    rr = select(falling, scale * tr, tr)
    ri = select(falling, -scale * ti, ti)
    # F = 1 - E; A = q - r E = 2 d + r F, and B = F / A
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
    # 1 / d, and L = log(A / 2d) = log1p(r F / 2d): as xi vanishes so does L, while its factor grows as 1 / xi^2.
    inverse = 1.0 / (dr * dr + di * di)
    idr = dr * inverse
    idi = -di * inverse
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
    dd_r = -a * (hr * ia2r - hi * ia2i)
    dd_i = -a * (hr * ia2i + hi * ia2r)
    sr = 1.0 + er + ter * rr - tei * ri
    si = ei + ter * ri + tei * rr
    dl_r = sr * iar - si * iai - idr
    dl_i = sr * iai + si * iar - idi
    nr = v0 * dd_r - weight * (expiry + 2.0 * dl_r)
    ni = v0 * dd_i - 2.0 * weight * dl_i
    # M = dD/dbeta v0 + weight dG/dbeta + N beta / d
    ndr = nr * idr - ni * idi
    ndi = nr * idi + ni * idr
    mr = v0 * a * (b_r * b_r - b_i * b_i) + weight * (expiry - 2.0 * b_r) + ndr * br - ndi * bi
    mi = 2.0 * v0 * a * b_r * b_i - 2.0 * weight * b_i + ndr * bi + ndi * br
    cap_dr = -a * b_r
    cap_di = -a * b_i
    return (
        cap_dr,
        cap_di,
        gr,
        gi,
        mr,
        mi,
        a * ndr,
        a * ndi,
        weight * gr + v0 * cap_dr,
        weight * gi + v0 * cap_di,
    )


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
        dr, di, gr, gi, mr, mi, nr, ni, pr, pi = heston_node(x, expiry, kappa, theta, xi, rho, v0)
        size = scale * exp(pr)
        cosine, sine = cos_sin(pi)
        fr = size * cosine
        fi = size * sine
        mfr = fr * mr - fi * mi
        mfi = fr * mi + fi * mr
        work[_R0 + j] = fr - scale * exp(-0.5 * variance * a)
        work[_I0 + j] = fi
        work[_R1 + j] = fr * dr - fi * di
        work[_I1 + j] = fr * di + fi * dr
        work[_R2 + j] = fr * gr - fi * gi
        work[_I2 + j] = fr * gi + fi * gr
        work[_R3 + j] = mfr
        work[_I3 + j] = mfi
        work[_R4 + j] = -x * mfi
        work[_I4 + j] = x * mfr
        work[_R5 + j] = fr * nr - fi * ni
        work[_I5 + j] = fr * ni + fi * nr


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
        _, _, _, _, _, _, _, _, pr, pi = heston_node(x, expiry, kappa, theta, xi, rho, v0)
        size = scale * exp(pr)
        cosine, sine = cos_sin(pi)
        work[_R0 + j] = size * cosine - scale * exp(-0.5 * variance * a)
        work[_I0 + j] = size * sine


@inlined
def _squared(c: float, s: float) -> tuple[float, float]:
    """Cosine and sine of twice the angle."""
    return c * c - s * s, 2.0 * c * s


@kernel
def turn_evenly(k: float, step: float, n_nodes: int, work: Vector) -> None:
    """cos and sin of x_j k at x_j = (j + 1/2) step: one cosine and sine, then powers of it by doubling."""
    work[_COS], work[_SIN] = cos_sin(0.5 * step * k)
    # e^{i step k m} for m = 1, 2, 4 fills the first eight nodes, and for m = 8 leads from eight nodes to the next.
    c, s = _squared(work[_COS], work[_SIN])
    for done in (1, 2, 4):
        for lane in range(done):
            x = work[_COS + np.uint64(lane)]
            y = work[_SIN + np.uint64(lane)]
            work[_COS + np.uint64(done + lane)] = x * c - y * s
            work[_SIN + np.uint64(done + lane)] = x * s + y * c
        c, s = _squared(c, s)
    for j in range(np.uint64(8), np.uint64(n_nodes)):
        x = work[_COS + j - np.uint64(8)]
        y = work[_SIN + j - np.uint64(8)]
        work[_COS + j] = x * c - y * s
        work[_SIN + j] = x * s + y * c


@reduction
def sum_first(n_nodes: int, work: Vector) -> float:
    """sum_j Re[e^{-i x_j k} part_0] for the strike that `turn_evenly` was called for."""
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
