"""A model of any factors on a block of Fourier nodes: what the contours of the fit kernel ask of it.

The factors add their parts to the row of log phi, and their derivatives to rows of their own; then phi is taken once
and multiplied into those. A model of one variance factor keeps the loop that does all of it at once, which is a quarter
quicker; `tests/test_composed_block.py` holds the two against each other.

Every function takes the `layout` of a model, see `calibrant.layout`, and its `params`.
"""

import math

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import inlined, kernel
from ..layout import VARIANCE
from .heston_block import (
    N_PARTS,
    add_heston,
    exponent_rounding,
    fold_heston,
    heston_bent_parts,
    is_calm,
    log_moment_of_heston,
    sum_heston,
    sum_parts,
    times_phi_heston,
)
from .heston_block import N_ROWS as _HESTON_ROWS
from .jump_block import N_ROWS as _JUMP_ROWS
from .jump_block import add_jumps, fold_jumps, jump_rounding, log_moment_of_jumps, sum_jumps, times_phi_jumps
from .nodes import (
    HALVES,
    IMAG,
    LOG_IMAG,
    LOG_NEAREST_POLE,
    LOG_REAL,
    MAX_NODES,
    N_SHARED,
    PHI_IMAG,
    PHI_REAL,
    REAL,
    SLACK,
    X,
    Y,
    bent_weight,
    growth,
    phi_times,
    sum_first,
)
from .vector_math import cos_sin, exp, log

_LEAST_VARIANCE = 1e-12
"""Total variance of a model of which nothing moves."""


@inlined
def one_heston(layout: IntVector) -> bool:
    """Whether the model has a loop of its own."""
    return layout.size == 1 and layout[0] == VARIANCE


@kernel
def work_size(layout: IntVector) -> int:
    """Length of the array `work` that the functions below fill."""
    rows = N_SHARED
    for kind in layout:
        rows += _HESTON_ROWS if kind == VARIANCE else _JUMP_ROWS
    return rows * MAX_NODES


@kernel
def integrated_variance(layout: IntVector, expiry: float, params: Vector) -> float:
    """Expected quadratic variation until expiry: the total variance of the control variate."""
    total = 0.0
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            total += heston_variance(expiry, params[p], params[p + 1], params[p + 4])
            p += 5
        else:
            total += params[p] * expiry * (params[p + 1] * params[p + 1] + params[p + 2] * params[p + 2])
            p += 3
    return max(total, _LEAST_VARIANCE)


@inlined
def heston_variance(expiry: float, kappa: float, theta: float, v0: float) -> float:
    """E[int_0^T v dt] of a variance factor."""
    return theta * expiry - (v0 - theta) * math.expm1(-kappa * expiry) / kappa


@kernel
def log_moment(layout: IntVector, s: float, expiry: float, params: Vector) -> float:
    """log E[(S_T/F)^s] for real s, or 1e300 where the moment has exploded."""
    total = 0.0
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            total += log_moment_of_heston(
                s, expiry, params[p], params[p + 1], params[p + 2], params[p + 3], params[p + 4]
            )
            p += 5
        else:
            total += log_moment_of_jumps(s, expiry, params[p], params[p + 1], params[p + 2])
            p += 3
    return min(total, 1e300)


@kernel
def rounding_of(layout: IntVector, expiry: float, params: Vector) -> tuple[float, float]:
    """Units in the last place that log phi may be wrong by, c0 + c1 |x^2 + 1/4|: returns (c0, c1)."""
    of_turn = 0.0
    of_square = 0.0
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            turn, square = exponent_rounding(expiry, params[p], params[p + 1], params[p + 2], params[p + 3])
            p += 5
        else:
            turn, square = jump_rounding(expiry, params[p], params[p + 1], params[p + 2])
            p += 3
        of_turn += turn
        of_square += square
    return of_turn, of_square


@kernel
def balanced_strike(layout: IntVector, expiry: float, params: Vector) -> float:
    """The log-moneyness at which e^{-ixk} phi turns neither way far out: strikes on its two sides want other bends."""
    balanced = 0.0
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            balanced -= params[p + 3] * (params[p + 4] + params[p] * params[p + 1] * expiry) / params[p + 2]
            p += 5
        else:
            balanced -= params[p] * expiry * math.expm1(params[p + 1] + 0.5 * params[p + 2] * params[p + 2])
            p += 3
    return balanced


@kernel
def jumps_matter(layout: IntVector, expiry: float, params: Vector) -> bool:
    """Whether there are jumps to keep a contour from bending far: e^{s^2 sigma^2 / 2} grows beyond 45 degrees."""
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            p += 5
        elif params[p] * expiry > 1e-14:
            return True
        else:
            p += 3
    return False


@kernel
def _add_factors(
    layout: IntVector, first: int, last: int, straight: bool, with_gradient: bool, expiry: float, params: Vector,
    work: Vector,
) -> None:  # fmt: skip
    """Fill the rows of log phi and of the factors, from the nodes in the rows X and Y."""
    for j in range(np.uint64(first), np.uint64(last)):
        work[LOG_REAL + j] = 0.0
        work[LOG_IMAG + j] = 0.0
        work[SLACK + j] = 0.0
    p = 0
    row = N_SHARED * MAX_NODES
    for kind in layout:
        if kind == VARIANCE:
            add_heston(first, last, straight, with_gradient, expiry, params[p : p + 5], work, work[row:])
            p += 5
            row += _HESTON_ROWS * MAX_NODES
        else:
            add_jumps(first, last, straight, with_gradient, expiry, params[p : p + 3], work, work[row:])
            p += 3
            row += _JUMP_ROWS * MAX_NODES


@kernel
def _times_phi(layout: IntVector, first: int, last: int, straight: bool, work: Vector) -> None:
    row = N_SHARED * MAX_NODES
    for kind in layout:
        if kind == VARIANCE:
            times_phi_heston(first, last, straight, work, work[row:])
            row += _HESTON_ROWS * MAX_NODES
        else:
            times_phi_jumps(first, last, work, work[row:])
            row += _JUMP_ROWS * MAX_NODES


@inlined
def has_own_loop(layout: IntVector, params: Vector, with_gradient: bool) -> bool:
    """Whether `heston_parts`, `heston_phi` and `heston_bent_parts` do all at once."""
    return one_heston(layout) and not (with_gradient and is_calm(params[0], params[2]))


@kernel
def fill_even(
    layout: IntVector, first: int, last: int, step: float, begin: float, expiry: float, params: Vector,
    variance: float, with_gradient: bool, work: Vector,
) -> None:  # fmt: skip
    """The integrands of price and gradient at x = (begin + j + 1/2) step, first <= j < last, times their weights.

    begin     nodes that went before
    variance  of the control variate, whose characteristic function (real on this contour) is taken from the price's
    """
    for j in range(np.uint64(first), np.uint64(last)):
        work[X + j] = (begin + HALVES[j]) * step
    _add_factors(layout, first, last, True, with_gradient, expiry, params, work)
    for j in range(np.uint64(first), np.uint64(last)):
        x = work[X + j]
        a = x * x + 0.25
        scale = step / a
        size = scale * exp(work[LOG_REAL + j])
        cosine, sine = cos_sin(work[LOG_IMAG + j])
        fr = size * cosine
        fi = size * sine
        work[PHI_REAL + j] = fr
        work[PHI_IMAG + j] = fi
        work[REAL + j] = fr - scale * exp(-0.5 * variance * a)
        work[IMAG + j] = fi
    if with_gradient:
        _times_phi(layout, first, last, True, work)


@kernel
def fill_bent(
    layout: IntVector, first: int, last: int, step: float, centre: float, width: float, bend: float, low: float,
    high: float, expiry: float, params: Vector, with_gradient: bool, work: Vector,
) -> None:  # fmt: skip
    """The integrands at the nodes x = i centre + width sinh((j + 1/2) step + i bend), times their weights.

    low, high  strikes; what is filled holds |e^{-ixk}| of the one for which a node counts most: nothing overflows
    work       filled as by `fill_even`, without a control variate; and the nodes themselves
    """
    bend_cos, bend_sin = math.cos(bend), math.sin(bend)
    for j in range(np.uint64(first), np.uint64(last)):
        work[X + j], work[Y + j], work[PHI_REAL + j], work[PHI_IMAG + j] = bent_weight(
            HALVES[j] * step, step, centre, width, bend_cos, bend_sin
        )
    if with_gradient and has_own_loop(layout, params, True):
        heston_bent_parts(first, last, low, high, expiry, params, work)
        return
    _add_factors(layout, first, last, False, with_gradient, expiry, params, work)
    for j in range(np.uint64(first), np.uint64(last)):
        pr = work[LOG_REAL + j] - growth(0.0, work[Y + j], low, high)
        fr, fi = phi_times(work[PHI_REAL + j], work[PHI_IMAG + j], pr, work[LOG_IMAG + j])
        work[PHI_REAL + j] = fr
        work[PHI_IMAG + j] = fi
        work[REAL + j] = fr
        work[IMAG + j] = fi
    if with_gradient:
        _times_phi(layout, first, last, False, work)


@kernel
def bent_sizes(
    layout: IntVector, first: int, last: int, step: float, centre: float, width: float, bend: float, expiry: float,
    params: Vector, work: Vector, sizes: Vector, heights: Vector,
) -> None:  # fmt: skip
    """log |phi dx/dt / (x^2 + 1/4)| and Im x at t = j step, first <= j < last; no pole counts as very near.

    What the factors may rise again, SLACK, counts as risen.
    """
    bend_cos, bend_sin = math.cos(bend), math.sin(bend)
    for j in range(np.uint64(first), np.uint64(last)):
        work[X + j], work[Y + j], work[PHI_REAL + j], work[PHI_IMAG + j] = bent_weight(
            j * step, 1.0, centre, width, bend_cos, bend_sin
        )
    _add_factors(layout, first, last, False, False, expiry, params, work)
    for j in range(np.uint64(first), np.uint64(last)):
        square = work[PHI_REAL + j] * work[PHI_REAL + j] + work[PHI_IMAG + j] * work[PHI_IMAG + j]
        sizes[j] = work[LOG_REAL + j] + work[SLACK + j] + min(0.5 * log(square), LOG_NEAREST_POLE)
        heights[j] = work[Y + j]


@kernel
def add_up(layout: IntVector, n_nodes: int, work: Vector, sums: Matrix, q: int) -> None:
    """The sums of quote q, to whose strike the nodes are turned: the price's, and if there is room the factors'.

    sums  (n_quotes, 1 or 1 + n_params), row q is filled
    """
    if sums.shape[1] == 1:
        sums[q, 0] = sum_first(n_nodes, work)
        return
    if one_heston(layout):
        sums[q, 0], sums[q, 1], sums[q, 2], sums[q, 3], sums[q, 4], sums[q, 5] = sum_parts(n_nodes, work)
        return
    sums[q, 0] = sum_first(n_nodes, work)
    at = 1
    row = N_SHARED * MAX_NODES
    for kind in layout:
        # A factor has as many sums as it has parameters.
        if kind == VARIANCE:
            sums[q, at], sums[q, at + 1], sums[q, at + 2], sums[q, at + 3], sums[q, at + 4] = sum_heston(
                n_nodes, work, work[row:]
            )
            at += N_PARTS - 1
            row += _HESTON_ROWS * MAX_NODES
        else:
            sums[q, at], sums[q, at + 1], sums[q, at + 2] = sum_jumps(n_nodes, work, work[row:])
            at += 3
            row += _JUMP_ROWS * MAX_NODES


@inlined
def fold(layout: IntVector, factor: float, sums: Matrix, params: Vector, gradient: Matrix, q: int) -> None:
    """Turn the sums of quote q into its derivatives by the parameters, column q of (n_params, n_quotes)."""
    if one_heston(layout):
        fold_heston(factor, sums, params, 0, gradient, q)
        return
    p = 0
    for kind in layout:
        if kind == VARIANCE:
            fold_heston(factor, sums, params, p, gradient, q)
            p += 5
        else:
            fold_jumps(factor, sums, p, gradient, q)
            p += 3
