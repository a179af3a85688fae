"""The nodes of one expiry in the fit kernel: where their rows lie, how they are placed and turned to a strike, and the
sums over them.

One flat array of rows with a constant pitch, indexed without sign: so LLVM sees that rows do not overlap and that no
index wraps around, and vectorises without a test at run time. Tests for 14 separate rows cost more than 8 nodes do.
"""

import numpy as np

from ..arrays import Vector
from ..compiled import inlined, kernel, reduction
from .vector_math import cos_sin, exp, select

EPSILON = 2.220446049250313e-16
# Rows a multiple of 4096 bytes apart would compete for the same lines of the first-level cache.
MAX_NODES = 520
N_SHARED = 11
"""Rows that all models have; those of the factors follow."""

HALVES = np.arange(MAX_NODES) + 0.5
COS, SIN, X, Y, REAL, IMAG, LOG_REAL, LOG_IMAG, PHI_REAL, PHI_IMAG, SLACK = (
    np.uint64(m * MAX_NODES) for m in range(N_SHARED)
)
"""Turn of a strike; node x + iy; what is added up for a price. For several factors besides: log phi, phi times its
weight, and by how much log |phi| may rise again."""
# Where `cos_sin` still returns numbers between -1 and 1, if not the right ones.
LARGEST_ANGLE = 1e15
LOG_NEAREST_POLE = 2.0


@inlined
def bent_weight(
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
def growth(k: float, y: float, low: float, high: float) -> float:
    """log |e^{-ixk}| less that of the strike between `low` and `high` for which |e^{-ixk}| e^{k/2} is largest."""
    less: float = (k - select(y > -0.5, high, low)) * y
    return less


@inlined
def phi_times(scale_r: float, scale_i: float, pr: float, pi: float) -> tuple[float, float]:
    """phi = e^(pr + i pi) times a complex weight. Beyond the largest angle it has no digits, and phi is none."""
    size = exp(min(pr, 690.0))
    cosine, sine = cos_sin(min(max(pi, -LARGEST_ANGLE), LARGEST_ANGLE))
    return size * (scale_r * cosine - scale_i * sine), size * (scale_r * sine + scale_i * cosine)


@inlined
def _squared(c: float, s: float) -> tuple[float, float]:
    """Cosine and sine of twice the angle."""
    return c * c - s * s, 2.0 * c * s


@kernel
def turn_evenly(k: float, step: float, begin: float, n_nodes: int, work: Vector) -> None:
    """cos and sin of x_j k at x_j = (begin + j + 1/2) step: one cosine and sine, then powers of it by doubling."""
    work[COS], work[SIN] = cos_sin(0.5 * step * k)
    # e^{i step k m} for m = 1, 2, 4, 8 fills the first sixteen nodes, and for m = 16 leads from sixteen to the next:
    # two vectors at once, since one alone would wait for its own arithmetic.
    c, s = _squared(work[COS], work[SIN])
    if begin > 0.0:
        work[COS], work[SIN] = cos_sin((begin + 0.5) * step * k)
    for done in (1, 2, 4, 8):
        for lane in range(done):
            x = work[COS + np.uint64(lane)]
            y = work[SIN + np.uint64(lane)]
            work[COS + np.uint64(done + lane)] = x * c - y * s
            work[SIN + np.uint64(done + lane)] = x * s + y * c
        c, s = _squared(c, s)
    for j in range(np.uint64(16), np.uint64(n_nodes)):
        x = work[COS + j - np.uint64(16)]
        y = work[SIN + j - np.uint64(16)]
        work[COS + j] = x * c - y * s
        work[SIN + j] = x * s + y * c


@kernel
def turn_bent(k: float, low: float, high: float, n_nodes: int, work: Vector) -> None:
    """Real part and minus the imaginary part of e^{-ixk} at the nodes of `bent_parts`, less what those hold of it."""
    for j in range(np.uint64(n_nodes)):
        size = exp(growth(k, work[Y + j], low, high))
        cosine, sine = cos_sin(min(max(k * work[X + j], -LARGEST_ANGLE), LARGEST_ANGLE))
        work[COS + j] = size * cosine
        work[SIN + j] = size * sine


@reduction
def sum_first(n_nodes: int, work: Vector) -> float:
    """sum_j Re[e^{-i x_j k} part_0] for the strike that `turn_evenly` or `turn_bent` was called for."""
    s0 = 0.0
    for j in range(np.uint64(n_nodes)):
        s0 += work[COS + j] * work[REAL + j] + work[SIN + j] * work[IMAG + j]
    return s0
