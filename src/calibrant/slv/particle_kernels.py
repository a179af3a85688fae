"""Compiled loops over particles: a time step, and the order in which they draw their numbers."""

import numpy as np

from ..arrays import Vector
from ..compiled import kernel, reduction
from .heston_step import StepConstants, full_truncation, quadratic_exponential
from .local_vol import row_at
from .numbers import inverse_normal, mixed, uniform

BLOCK = 512
"""Particles that a step takes at a time: their random numbers stay in the nearest cache."""
_U, _Z_V, _Z, _LEVERAGE = 0, BLOCK, 2 * BLOCK, 3 * BLOCK
_LEVELS = 4096
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
    ranked: bool,
    key: int,
) -> None:
    """Move every particle by a step.

    x, v                      (n,) ln(S / F) and variance, moved
    row, start, inverse_step  leverage over x, uniform nodes
    ranked                    whether the particles are in order of rank, and draw consecutive points of one sequence;
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
        if ranked:
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
def mean_and_deviation(x: Vector) -> tuple[float, float]:
    total = 0.0
    for i in range(x.size):
        total += x[i]
    mean = total / x.size
    square = 0.0
    for i in range(x.size):
        square += (x[i] - mean) * (x[i] - mean)
    return mean, np.sqrt(square / x.size)


@kernel
def rank(x: Vector, v: Vector, mean: float, deviation: float, spare_x: Vector, spare_v: Vector) -> None:
    """Bring particles into the order in which they draw: by slices of x, and within a slice by v.

    There are as many slices as particles in each, about. Both orders are by counting, the second stable.
    """
    n = x.size
    largest = 0.0
    for i in range(n):
        largest = max(largest, v[i])
    n_slices = max(int(np.sqrt(n)), 2)
    _by_counting(v, 0.0, _LEVELS / max(largest, 1e-300), _LEVELS, x, v, spare_x, spare_v)
    low = mean - 5.0 * deviation
    _by_counting(spare_x, low, n_slices / max(10.0 * deviation, 1e-300), n_slices, spare_x, spare_v, x, v)


@kernel
def _by_counting(
    key: Vector, low: float, inverse: float, n_cells: int, x: Vector, v: Vector, out_x: Vector, out_v: Vector
) -> None:
    """Particles in the order of the cell that their key falls into, those of a cell in the order they came."""
    begins = np.zeros(n_cells + 1, np.int64)
    last = n_cells - 1.0
    for i in range(key.size):
        begins[int(min(max((key[i] - low) * inverse, 0.0), last)) + 1] += 1
    for j in range(1, n_cells + 1):
        begins[j] += begins[j - 1]
    for i in range(key.size):
        cell = int(min(max((key[i] - low) * inverse, 0.0), last))
        to = begins[cell]
        begins[cell] = to + 1
        out_x[to] = x[i]
        out_v[to] = v[i]


@kernel
def quantiles(x: Vector, tail: float) -> tuple[float, float]:
    """The quantiles of probability `tail` and 1 - `tail` of standardised data, to a hundredth of a deviation."""
    n_cells = 2000
    reach = 10.0
    counts = np.zeros(n_cells + 1)
    scale = n_cells / (2.0 * reach)
    for i in range(x.size):
        counts[int(min(max((x[i] + reach) * scale, 0.0), n_cells - 1.0))] += 1.0
    wanted = tail * x.size
    low = _quantile(counts, wanted, False)
    high = _quantile(counts, wanted, True)
    return low / scale - reach, high / scale - reach


@kernel
def _quantile(counts: Vector, wanted: float, from_above: bool) -> float:
    """Where, in cells, so many data lie beyond: linear within the cell."""
    n_cells = counts.size - 1
    gone = 0.0
    for j in range(n_cells):
        cell = n_cells - 1 - j if from_above else j
        if gone + counts[cell] >= wanted:
            share = (wanted - gone) / counts[cell] if counts[cell] > 0.0 else 0.0
            return cell + 1.0 - share if from_above else cell + share
        gone += counts[cell]
    return 0.0 if from_above else float(n_cells)
