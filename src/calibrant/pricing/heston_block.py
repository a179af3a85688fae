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

from ..arrays import Matrix, Vector
from ..compiled import inlined, kernel, reduction
from .nodes import (
    COS,
    HALVES,
    IMAG,
    LOG_IMAG,
    LOG_REAL,
    MAX_NODES,
    N_SHARED,
    PHI_IMAG,
    PHI_REAL,
    REAL,
    SIN,
    X,
    Y,
    growth,
    phi_times,
)
from .vector_math import atan2, cos_sin, exp, log1p, select

N_PARTS = 6
"""Integrals that price and gradient are made of: phi times 1, D, G, M, ixM and aN/d (see `heston_node`)."""
N_ROWS = 2 * (N_PARTS - 1)
"""Rows of the factor: those parts but the first, real and imaginary."""

_R1, _R2, _R3, _R4, _R5 = (np.uint64(m * MAX_NODES) for m in range(N_PARTS - 1))
_I1, _I2, _I3, _I4, _I5 = (np.uint64((N_PARTS - 1 + m) * MAX_NODES) for m in range(N_PARTS - 1))
"""Of the factor's own rows."""
_FIRST = np.uint64(N_SHARED * MAX_NODES)
"""Where those begin in a model of one factor."""

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
    x: float, y: float, expiry: float, kappa: float, theta: float, xi: float, rho: float, v0: float, calm: bool
) -> NodeParts:
    """log phi(x + iy - i/2) = (kappa theta / xi^2) G + v0 D, and the derivatives that all five parameters share.

    x, y    x > 0; y = 0, as a constant, leaves the shorter arithmetic of real nodes
    calm    of `is_calm`; False, as a constant, leaves the shorter arithmetic of M
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
    ndr = nr * idr - ni * idi
    ndi = nr * idi + ni * idr
    # M = dD/dbeta v0 + weight dG/dbeta + N beta / d
    b2r = b_r * b_r - b_i * b_i
    b2i = 2.0 * b_r * b_i
    if calm:
        # The weight's terms, T - 2 B - (T + 2 dL/dd) beta / d, cancel as xi vanishes; they are -r / d (T + 2 h / A)
        # with h = beta T E - F (1 + beta / d).
        qr = br * idr - bi * idi
        qi = br * idi + bi * idr
        hr = br * ter - bi * tei - fr * (1.0 + qr) - ei * qi
        hi = br * tei + bi * ter - fr * qi + ei * (1.0 + qr)
        pr = expiry + 2.0 * (hr * iar - hi * iai)
        pi = 2.0 * (hr * iai + hi * iar)
        rdr = rr * idr - ri * idi
        rdi = rr * idi + ri * idr
        mr = v0 * (a_r * b2r - a_i * b2i + dd_r * qr - dd_i * qi) - weight * (rdr * pr - rdi * pi)
        mi = v0 * (a_r * b2i + a_i * b2r + dd_r * qi + dd_i * qr) - weight * (rdr * pi + rdi * pr)
    else:
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


@inlined
def is_calm(kappa: float, xi: float) -> bool:
    """Whether the variance moves so little that the derivative by kappa loses two digits or more."""
    return xi * xi < 5e-3 * kappa * kappa


@kernel
def log_moment_of_heston(
    s: float, expiry: float, kappa: float, theta: float, xi: float, rho: float, v0: float
) -> float:
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
    work[_FIRST + _R1 + j] = fr * dr - fi * di
    work[_FIRST + _I1 + j] = fr * di + fi * dr
    work[_FIRST + _R2 + j] = fr * gr - fi * gi
    work[_FIRST + _I2 + j] = fr * gi + fi * gr
    work[_FIRST + _R3 + j] = mfr
    work[_FIRST + _I3 + j] = mfi
    work[_FIRST + _R4 + j] = -x * mfi - y * mfr
    work[_FIRST + _I4 + j] = x * mfr - y * mfi
    work[_FIRST + _R5 + j] = fr * nr - fi * ni
    work[_FIRST + _I5 + j] = fr * ni + fi * nr


@kernel
def heston_parts(
    first: int, last: int, step: float, expiry: float, params: Vector, variance: float, work: Vector
) -> None:
    """The six integrands of price and gradient at the nodes x = (j + 1/2) step, first <= j < last, times their weights.

    variance  of the control variate, whose characteristic function (real on this contour) is taken from the first part
    work      filled
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    for j in range(np.uint64(first), np.uint64(last)):
        x = HALVES[j] * step
        a = x * x + 0.25
        scale = step / a
        parts = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0, False)
        size = scale * exp(parts[8])
        cosine, sine = cos_sin(parts[9])
        fr = size * cosine
        fi = size * sine
        work[REAL + j] = fr - scale * exp(-0.5 * variance * a)
        work[IMAG + j] = fi
        _store_gradient(j, x, 0.0, fr, fi, parts, work)


@kernel
def heston_phi(
    first: int, last: int, step: float, expiry: float, params: Vector, variance: float, work: Vector
) -> None:
    """The first part of `heston_parts` alone: what prices need without their gradient."""
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    for j in range(np.uint64(first), np.uint64(last)):
        x = HALVES[j] * step
        a = x * x + 0.25
        scale = step / a
        _, _, _, _, _, _, _, _, pr, pi = heston_node(x, 0.0, expiry, kappa, theta, xi, rho, v0, False)
        size = scale * exp(pr)
        cosine, sine = cos_sin(pi)
        work[REAL + j] = size * cosine - scale * exp(-0.5 * variance * a)
        work[IMAG + j] = size * sine


@kernel
def heston_bent_parts(
    first: int, last: int, low: float, high: float, expiry: float, params: Vector, work: Vector
) -> None:
    """The six integrands at the nodes in the rows X and Y, whose weights are in the rows PHI_REAL and PHI_IMAG.

    low, high  strikes; what is filled holds |e^{-ixk}| of the one for which a node counts most: nothing overflows
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    for j in range(np.uint64(first), np.uint64(last)):
        x, y = work[X + j], work[Y + j]
        parts = heston_node(x, y, expiry, kappa, theta, xi, rho, v0, False)
        fr, fi = phi_times(work[PHI_REAL + j], work[PHI_IMAG + j], parts[8] - growth(0.0, y, low, high), parts[9])
        work[REAL + j] = fr
        work[IMAG + j] = fi
        _store_gradient(j, x, y, fr, fi, parts, work)


@kernel
def add_heston(
    first: int,
    last: int,
    straight: bool,
    with_gradient: bool,
    expiry: float,
    params: Vector,
    work: Vector,
    rows: Vector,
) -> None:
    """Add the factor's log phi to its row, and fill D, G, M and aN/d, of which `times_phi_heston` makes integrands.

    straight  whether the nodes are real ones
    rows      (N_ROWS * MAX_NODES,), the factor's
    """
    kappa, theta, xi, rho, v0 = params[0], params[1], params[2], params[3], params[4]
    if not with_gradient:
        if straight:
            for j in range(np.uint64(first), np.uint64(last)):
                _, _, _, _, _, _, _, _, pr, pi = heston_node(work[X + j], 0.0, expiry, kappa, theta, xi, rho, v0, False)
                work[LOG_REAL + j] += pr
                work[LOG_IMAG + j] += pi
        else:
            for j in range(np.uint64(first), np.uint64(last)):
                _, _, _, _, _, _, _, _, pr, pi = heston_node(
                    work[X + j], work[Y + j], expiry, kappa, theta, xi, rho, v0, False
                )
                work[LOG_REAL + j] += pr
                work[LOG_IMAG + j] += pi
    elif is_calm(kappa, xi):
        for j in range(np.uint64(first), np.uint64(last)):
            y = 0.0 if straight else work[Y + j]
            _keep(j, heston_node(work[X + j], y, expiry, kappa, theta, xi, rho, v0, True), work, rows)
    elif straight:
        for j in range(np.uint64(first), np.uint64(last)):
            _keep(j, heston_node(work[X + j], 0.0, expiry, kappa, theta, xi, rho, v0, False), work, rows)
    else:
        for j in range(np.uint64(first), np.uint64(last)):
            _keep(j, heston_node(work[X + j], work[Y + j], expiry, kappa, theta, xi, rho, v0, False), work, rows)


@inlined
def _keep(j: int, parts: NodeParts, work: Vector, rows: Vector) -> None:
    work[LOG_REAL + j] += parts[8]
    work[LOG_IMAG + j] += parts[9]
    rows[_R1 + j], rows[_I1 + j] = parts[0], parts[1]
    rows[_R2 + j], rows[_I2 + j] = parts[2], parts[3]
    rows[_R3 + j], rows[_I3 + j] = parts[4], parts[5]
    rows[_R5 + j], rows[_I5 + j] = parts[6], parts[7]


@kernel
def times_phi_heston(first: int, last: int, straight: bool, work: Vector, rows: Vector) -> None:
    """The factor's integrands: phi times its weight, times D, G, M, i (x + iy) M and aN/d."""
    for j in range(np.uint64(first), np.uint64(last)):
        fr, fi = work[PHI_REAL + j], work[PHI_IMAG + j]
        x = work[X + j]
        y = 0.0 if straight else work[Y + j]
        dr, di = rows[_R1 + j], rows[_I1 + j]
        gr, gi = rows[_R2 + j], rows[_I2 + j]
        mr, mi = rows[_R3 + j], rows[_I3 + j]
        nr, ni = rows[_R5 + j], rows[_I5 + j]
        mfr = fr * mr - fi * mi
        mfi = fr * mi + fi * mr
        rows[_R1 + j] = fr * dr - fi * di
        rows[_I1 + j] = fr * di + fi * dr
        rows[_R2 + j] = fr * gr - fi * gi
        rows[_I2 + j] = fr * gi + fi * gr
        rows[_R3 + j] = mfr
        rows[_I3 + j] = mfi
        rows[_R4 + j] = -x * mfi - y * mfr
        rows[_I4 + j] = x * mfr - y * mfi
        rows[_R5 + j] = fr * nr - fi * ni
        rows[_I5 + j] = fr * ni + fi * nr


@reduction
def sum_heston(n_nodes: int, work: Vector, rows: Vector) -> tuple[float, float, float, float, float]:
    """sum_j Re[e^{-i x_j k} part] of the factor's five parts, for the strike that the nodes are turned to."""
    s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(np.uint64(n_nodes)):
        c = work[COS + j]
        s = work[SIN + j]
        s1 += c * rows[_R1 + j] + s * rows[_I1 + j]
        s2 += c * rows[_R2 + j] + s * rows[_I2 + j]
        s3 += c * rows[_R3 + j] + s * rows[_I3 + j]
        s4 += c * rows[_R4 + j] + s * rows[_I4 + j]
        s5 += c * rows[_R5 + j] + s * rows[_I5 + j]
    return s1, s2, s3, s4, s5


@reduction
def sum_parts(n_nodes: int, work: Vector) -> tuple[float, float, float, float, float, float]:
    """The same for all six parts of a model of this one factor."""
    s0, s1, s2, s3, s4, s5 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(np.uint64(n_nodes)):
        c = work[COS + j]
        s = work[SIN + j]
        s0 += c * work[REAL + j] + s * work[IMAG + j]
        s1 += c * work[_FIRST + _R1 + j] + s * work[_FIRST + _I1 + j]
        s2 += c * work[_FIRST + _R2 + j] + s * work[_FIRST + _I2 + j]
        s3 += c * work[_FIRST + _R3 + j] + s * work[_FIRST + _I3 + j]
        s4 += c * work[_FIRST + _R4 + j] + s * work[_FIRST + _I4 + j]
        s5 += c * work[_FIRST + _R5 + j] + s * work[_FIRST + _I5 + j]
    return s0, s1, s2, s3, s4, s5


@inlined
def fold_heston(factor: float, sums: Matrix, params: Vector, p: int, gradient: Matrix, q: int) -> None:
    """Turn the sums of quote q into its derivatives by kappa, theta, xi, rho, v0, which are the parameters from p on.

    factor    -e^{k/2} / pi
    sums      (n_quotes, 1 + n_params), the factor's from 1 + p on
    gradient  (n_params, n_quotes), filled at q
    """
    kappa, theta, xi, rho = params[p], params[p + 1], params[p + 2], params[p + 3]
    s_d = factor * sums[q, p + 1]
    s_g = factor * sums[q, p + 2]
    s_m = factor * sums[q, p + 3]
    # d beta / d(rho xi) = -(1/2 + ix) on this contour.
    s_z = 0.5 * s_m + factor * sums[q, p + 4]
    gradient[p, q] = theta / (xi * xi) * s_g + s_m
    gradient[p + 1, q] = kappa / (xi * xi) * s_g
    gradient[p + 2, q] = -2.0 * kappa * theta / (xi * xi * xi) * s_g - rho * s_z + xi * factor * sums[q, p + 5]
    gradient[p + 3, q] = -xi * s_z
    gradient[p + 4, q] = s_d
