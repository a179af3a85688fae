"""Compiled loops over particles: a time step, and the order in which they draw their numbers."""

import numpy as np
from numpy.typing import NDArray

from ..arrays import Vector
from ..compiled import kernel, reduction
from .heston_step import StepConstants, full_truncation, quadratic_exponential
from .local_vol import row_at
from .numbers import inverse_normal, mixed, uniform

BLOCK = 512
"""Particles that a step takes at a time: their random numbers stay in the nearest cache."""
_U, _Z_V, _Z, _LEVERAGE = 0, BLOCK, 2 * BLOCK, 3 * BLOCK
_LEVELS = 64
"""Of the variance, within a slice of spots."""
_REACH = 5.0
"""Standard deviations that the slices reach to either side."""
_GOLDEN_2D = (0.7548776662466927, 0.5698402909980532)
"""1 / p and 1 / p^2 of p^3 = p + 1: steps of the two-dimensional Kronecker sequence that fills the square most evenly
(Roberts 2018); so does every stretch of consecutive points."""


@kernel
def advance(
    x: Vector,
    v: Vector,
    row: Vector,
    start: float,
    inverse_step: float,
    constants: StepConstants,
    euler: bool,
    by_rank: bool,
    key: int,
) -> None:
    """Move every particle by a step.

    x, v                      (n,) ln(S / F) and variance, moved
    row, start, inverse_step  leverage over x, uniform nodes
    by_rank                   whether the particles are in order of rank, and draw consecutive points of one sequence;
                              else they draw independent numbers, the second half the first's mirrored
    key                       of the random numbers of this step
    """
    n = x.size
    half = (n + 1) // 2
    # One array, in sections: LLVM gives up vectorising a loop over as many arrays as these would be.
    work = np.empty(4 * BLOCK)
    first_shift = uniform(mixed(np.uint64(key)))
    second_shift = uniform(mixed(np.uint64(key) + np.uint64(1)))
    for begin in range(0, n, BLOCK):
        size = min(BLOCK, n - begin)
        # A slice, since of begin + j LLVM does not know that it is no index from the end.
        x_block, v_block = x[begin : begin + size], v[begin : begin + size]
        if by_rank:
            for j in range(size):
                place = begin + j
                first = first_shift + place * _GOLDEN_2D[0]
                second = second_shift + place * _GOLDEN_2D[1]
                work[_U + j] = min(max(first - np.floor(first), 1e-12), 1.0 - 1e-12)
                work[_Z + j] = inverse_normal(min(max(second - np.floor(second), 1e-12), 1.0 - 1e-12))
        else:
            for j in range(size):
                place = begin + j
                mirror = place >= half
                place = place - half if mirror else place
                first = uniform(mixed(np.uint64(key) + np.uint64(2 * place)))
                second = uniform(mixed(np.uint64(key) + np.uint64(2 * place + 1)))
                work[_U + j] = 1.0 - first if mirror else first
                work[_Z + j] = inverse_normal(1.0 - second if mirror else second)
        for j in range(size):
            work[_Z_V + j] = inverse_normal(work[_U + j])
        for j in range(size):
            work[_LEVERAGE + j] = row_at(row, start, inverse_step, x_block[j])
        if euler:
            for j in range(size):
                v_block[j], change, _ = full_truncation(
                    v_block[j], work[_LEVERAGE + j], work[_Z_V + j], work[_Z + j], constants
                )
                x_block[j] += change
        else:
            for j in range(size):
                v_block[j], change, _ = quadratic_exponential(
                    v_block[j], work[_LEVERAGE + j], work[_U + j], work[_Z_V + j], work[_Z + j], constants
                )
                x_block[j] += change


@reduction
def _mean(x: Vector) -> float:
    total = 0.0
    for i in range(x.size):
        total += x[i]
    return total / x.size


@reduction
def _mean_positive(x: Vector) -> float:
    total = 0.0
    for i in range(x.size):
        total += max(x[i], 0.0)
    return total / x.size


@reduction
def _mean_square(x: Vector, mean: float) -> float:
    total = 0.0
    for i in range(x.size):
        total += (x[i] - mean) * (x[i] - mean)
    return total / x.size


@kernel
def ranked(
    x: Vector, v: Vector, tail: float, out_x: Vector, out_v: Vector, out_y: Vector
) -> tuple[float, float, float, float, float]:
    """Particles in the order in which they draw: by slices of x, and within a slice by v, to and fro.

    About as many slices as particles in each. The order is by counting cells of (x, v).

    tail          probability, see below
    out_x, out_v  (n,), filled with the particles in order
    out_y         (n,), filled with x standardised, in order
    returns       mean and standard deviation of x, mean of v where positive, and the quantiles of y of probability
                  `tail` and 1 - `tail`
    """
    n = x.size
    mean = _mean(x)
    deviation = np.sqrt(_mean_square(x, mean))
    alive = _mean_positive(v)
    n_slices = max(int(np.sqrt(n)), 64)
    scale = n_slices / (2.0 * _REACH * max(deviation, 1e-300))
    low = mean - _REACH * deviation
    cell = np.empty(n, np.int32)
    for i in range(n):
        slice_of = np.int32(min(max((x[i] - low) * scale, 0.0), n_slices - 1.0))
        variance = max(v[i], 0.0)
        level = np.int32(_LEVELS * variance / (variance + alive + 1e-300))
        level ^= -(slice_of & 1) & (_LEVELS - 1)
        cell[i] = slice_of * _LEVELS + level
    begins = np.zeros(n_slices * _LEVELS + 1, np.int32)
    for i in range(n):
        begins[cell[i] + 1] += 1
    for j in range(n_slices * _LEVELS):
        begins[j + 1] += begins[j]
    # Before the places are taken: cumulative counts of whole slices are what quantiles need.
    first = _quantile(begins, n_slices, tail * n)
    last = _quantile(begins, n_slices, n - tail * n)
    inverse = 1.0 / max(deviation, 1e-300)
    for i in range(n):
        to = begins[cell[i]]
        begins[cell[i]] = to + 1
        out_x[to] = x[i]
        out_v[to] = v[i]
    for i in range(n):
        out_y[i] = (out_x[i] - mean) * inverse
    unit = 2.0 * _REACH / n_slices
    return mean, deviation, alive, first * unit - _REACH, last * unit - _REACH


@kernel
def _quantile(begins: NDArray[np.int32], n_slices: int, wanted: float) -> float:
    """Where, in slices, so many particles lie below: linear within the slice."""
    low, high = 0, n_slices
    while high - low > 1:
        middle = (low + high) // 2
        if begins[middle * _LEVELS] <= wanted:
            low = middle
        else:
            high = middle
    below, upto = begins[low * _LEVELS], begins[(low + 1) * _LEVELS]
    share: float = (wanted - below) / max(upto - below, 1)
    return low + share


@kernel
def leverage_row(
    local_vol: Vector,
    start: float,
    inverse_step: float,
    curve: Vector,
    least: float,
    log_spot: float,
    step: float,
    floor: float,
    cap: float,
    out: Vector,
) -> int:
    """sigma_LV / sqrt(E[v | S]) at the nodes of a row.

    local_vol, start, inverse_step  a row of local vols over uniform ln S
    curve                           (n_nodes,) E[v | S], taken as `least` where it is less
    log_spot, step                  first node and spacing
    floor, cap                      of local vols
    out                             (n_nodes,), filled
    returns                         how many of the local vols are clipped
    """
    n_clipped = 0
    for i in range(curve.size):
        vol = row_at(local_vol, start, inverse_step, log_spot + step * i)
        n_clipped += (vol <= floor * 1.000001) | (vol >= cap * 0.999999)
        out[i] = vol / np.sqrt(max(curve[i], least))
    return n_clipped
