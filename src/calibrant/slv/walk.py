"""The compiled walk of pricing paths: the log-spot at dates, and the probability of not having touched barriers.

Between two dates the log-spot is a Brownian bridge, so that a path that is on the right side of a barrier at both has
still touched it with probability exp(-2 (b - y0) (b - y1) / variation), y the log-spot, `variation` that of the step.
Each path carries, for each barrier, the product of what is left: its payoff is smooth, and continuous monitoring costs
no steps.
"""

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import inlined, kernel
from ..pricing.normal import normal_cdf
from ..pricing.vector_math import exp, select
from .heston_step import StepConstants, quadratic_exponential
from .local_vol import row_at

BLOCK = 512
"""Paths that are walked at a time, at most."""
FAR = 1e3
"""ln of a level that is nowhere."""
_U, _Z_V, _Z, _LEVERAGE = 0, BLOCK, 2 * BLOCK, 3 * BLOCK


@inlined
def _beyond(distance0: float, distance1: float, inverse: float) -> float:
    """Probability that a bridge touches a level at those distances from its ends; 1 if an end is beyond it.

    inverse  2 / variation
    """
    return exp(-max(distance0, 0.0) * max(distance1, 0.0) * inverse)


@inlined
def _outside(low: float, high: float, y0: float, y1: float, inverse: float) -> float:
    """Probability that a bridge from y0 to y1 leaves (low, high)."""
    width = high - low
    below0, below1, above0, above1 = y0 - low, y1 - low, high - y0, high - y1
    one = _beyond(below0, below1, inverse) + _beyond(above0, above1, inverse)
    # Images of second order: paths that touch both were counted twice.
    both = exp(-width * max(width + y1 - y0, 0.0) * inverse) + exp(-width * max(width + y0 - y1, 0.0) * inverse)
    back = _beyond(width + below0, width + below1, inverse) + _beyond(width + above0, width + above1, inverse)
    inside = (min(below0, below1) > 0.0) & (min(above0, above1) > 0.0)
    outside: float = select(inside, min(max(one - both + back, 0.0), 1.0), 1.0)
    return outside


@kernel
def walk(
    z_v: Matrix,
    z_s: Matrix,
    mirror: float,
    shift: float,
    v0: float,
    constants: Matrix,
    start: Vector,
    step: Vector,
    rows: Matrix,
    log_forward: Vector,
    low: Vector,
    high: Vector,
    until: IntVector,
    discount: Vector,
    watched: IntVector,
    out_log_spot: Matrix,
    out_alive: Matrix,
    out_paid: Matrix,
) -> None:
    """Walk a block of paths.

    z_v, z_s      (n_steps, n_paths) normal numbers for the variance, and for what of the spot is independent of it
    mirror        1 or -1, what the numbers are multiplied by
    shift         of the log-spot at the beginning
    constants     (n_steps, 10) `StepConstants` of each step
    start, step   (n_steps + 1,) of the rows, in ln S; `rows` (n_steps + 1, n_nodes) the leverage
    log_forward   (n_steps + 1,)
    low, high     (n_barriers,) ln of the levels; +-1e3 for none
    until         (n_barriers,) index of the date at which each ends
    discount      (n_steps + 1,) factor of domestic currency
    watched       (n_watched,) indices of dates, ascending, at which the log-spot is wanted
    out_log_spot  (n_watched, n_paths), filled
    out_alive     (n_barriers, n_paths), filled with the probability of not having touched
    out_paid      (n_barriers, n_paths), filled with the value today of 1 paid when it is first touched
    """
    n_paths = z_v.shape[1]
    y = np.full(n_paths, log_forward[0] + shift)
    v = np.full(n_paths, v0)
    before, inverse, lost = np.empty(n_paths), np.empty(n_paths), np.empty(n_paths)
    # The numbers of a step in one array: LLVM gives up vectorising a loop over as many arrays as these would be.
    work = np.empty(4 * BLOCK)
    out_alive[:] = 1.0
    out_paid[:] = 0.0
    next_watched = 0
    for i in range(z_v.shape[0]):
        c = constants[i]
        k = StepConstants(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9])
        normal_v, normal_s = z_v[i], z_s[i]
        drift = log_forward[i + 1] - log_forward[i]
        row = rows[i]
        inverse_step = 1.0 / step[i]
        for j in range(n_paths):
            work[_LEVERAGE + j] = row_at(row, start[i], inverse_step, y[j])
            before[j] = y[j]
        for j in range(n_paths):
            work[_Z_V + j] = mirror * normal_v[j]
            work[_Z + j] = mirror * normal_s[j]
        for j in range(n_paths):
            work[_U + j] = normal_cdf(work[_Z_V + j])
        for j in range(n_paths):
            v[j], change, variation = quadratic_exponential(
                v[j], work[_LEVERAGE + j], work[_U + j], work[_Z_V + j], work[_Z + j], k
            )
            y[j] += drift + change
            inverse[j] = 2.0 / max(variation, 1e-14)
        middle = np.sqrt(discount[i] * discount[i + 1])
        for b in range(low.size):
            if i + 1 > until[b]:
                continue
            alive, paid = out_alive[b], out_paid[b]
            if low[b] <= -FAR:
                for j in range(n_paths):
                    lost[j] = _beyond(high[b] - before[j], high[b] - y[j], inverse[j])
            elif high[b] >= FAR:
                for j in range(n_paths):
                    lost[j] = _beyond(before[j] - low[b], y[j] - low[b], inverse[j])
            else:
                for j in range(n_paths):
                    lost[j] = _outside(low[b], high[b], before[j], y[j], inverse[j])
            for j in range(n_paths):
                share = alive[j] * lost[j]
                alive[j] -= share
                paid[j] += share * middle
        if next_watched < watched.size and watched[next_watched] == i + 1:
            out_log_spot[next_watched] = y
            next_watched += 1
