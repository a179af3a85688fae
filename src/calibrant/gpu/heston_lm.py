"""Levenberg-Marquardt on thousands of Heston panels at once: one block of threads a panel, float64.

The objective, the steps, the bounds and the tests of convergence are those of `optimisers/levenberg_marquardt.py`,
which explains them. It differs in two things: all evaluations are as accurate as that one's last (the coarse ones would
be no cheaper here, where a chunk of nodes is the least), and what does not suit a GPU is given back: the outcome says
why, and `calibrate` takes such a panel from its start.

A panel takes the same steps in whatever company, so its answer does not depend on the batch.
"""

import numpy as np
from numba import cuda

from ..arrays import IntVector, Matrix, Vector
from ..compiled import careful
from ..optimisers import objective as on_cpu
from .heston_device import (
    CHUNK,
    MAX_CHUNKS,
    N_PARTS,
    add_chunk,
    fill_chunk,
    finish_quotes,
    plan_expiry,
    tail_is_small,
)
from .target import ON_GPU, device

N_PARAMS = 5
N_SUMS = 21
"""Objective, J'r, and the lower triangle of J'J row by row."""
N_ROW = 7
THREADS = 64
"""Of a block: a chunk of nodes is one node a thread."""

RUNNING = -1
CONVERGED = on_cpu.CONVERGED
OUT_OF_ITERATIONS = on_cpu.OUT_OF_ITERATIONS
NO_DESCENT = on_cpu.NO_DESCENT
SETTLED = on_cpu.SETTLED
TOO_SLOW = 4
"""An expiry decays too slowly for equally spaced nodes: the CPU has a contour for it."""
_FINE = on_cpu.FINE

# Rows of `state`: parameters at hand, on trial, step, scale, J'r, bounds and prior, then J'J row by row.
_PARAMS, _TRIAL, _STEP, _SCALE, _SLOPE, _LOWER, _UPPER, _MEAN, _PRECISION, _HESSIAN = range(10)
N_STATE = _HESSIAN + N_PARAMS
# Entries of `control`.
_OBJECTIVE, _DAMPING, _GROWTH, _LAST_STEPS, _PREDICTED, _WEIGHT, _SETTLED = range(7)
N_CONTROL = 7
# Entries of `flags`.
_OUTCOME, _EVALUATIONS, _TAIL = range(3)
N_FLAGS = 3


@device
def add_up(lane: int, n_lanes: int, first: int, last: int, rows: Matrix, sums: Vector) -> None:
    """The sums over quotes that a step needs, an entry a thread: in the order of the quotes, so always the same."""
    for entry in range(lane, N_SUMS, n_lanes):
        # Entry 0 is (0, 0), 1..5 are (i, 0), then (1, 1), (2, 1), (2, 2), ... by columns of `rows`.
        i = 0
        j = 0
        if entry > N_PARAMS:
            rest = entry - N_PARAMS - 1
            i = 1
            while rest >= i:
                rest -= i
                i += 1
            j = rest + 1
        elif entry > 0:
            i = entry
        total = 0.0
        for q in range(first, last):
            total += rows[q, i] * rows[q, j]
        sums[entry] = total


@device
def _solve(matrix: Matrix, right: Vector) -> None:
    """As `levenberg_marquardt._solve`."""
    for i in range(N_PARAMS):
        for j in range(i):
            factor = matrix[i, j] / matrix[j, j]
            for m in range(j, N_PARAMS):
                matrix[i, m] -= factor * matrix[j, m]
            right[i] -= factor * right[j]
    for i in range(N_PARAMS - 1, -1, -1):
        for m in range(i + 1, N_PARAMS):
            right[i] -= matrix[i, m] * right[m]
        right[i] /= matrix[i, i]


@device
def _bounded_step(state: Matrix, damping: float, free: IntVector, matrix: Matrix, right: Vector) -> None:
    """As `levenberg_marquardt.bounded_step`; the last three are room to work in."""
    for i in range(N_PARAMS):
        state[_STEP, i] = 0.0
        at_lower = state[_PARAMS, i] <= state[_LOWER, i]
        at_upper = state[_PARAMS, i] >= state[_UPPER, i]
        held = (at_lower and at_upper) or (at_lower and state[_SLOPE, i] > 0.0) or (at_upper and state[_SLOPE, i] < 0.0)
        free[i] = 0 if held else 1
    for _ in range(N_PARAMS):
        for i in range(N_PARAMS):
            right[i] = -state[_SLOPE, i]
            for j in range(N_PARAMS):
                matrix[i, j] = state[_HESSIAN + i, j] if free[i] == 1 and free[j] == 1 else 0.0
                if free[j] == 0:
                    right[i] -= state[_HESSIAN + i, j] * state[_STEP, j]
            if free[i] == 1:
                matrix[i, i] = state[_HESSIAN + i, i] + damping * state[_SCALE, i]
            else:
                matrix[i, i] = 1.0
                right[i] = state[_STEP, i]
        _solve(matrix, right)
        worst = 0.0
        which = -1
        for i in range(N_PARAMS):
            if free[i] == 1:
                low = state[_LOWER, i] - state[_PARAMS, i]
                high = state[_UPPER, i] - state[_PARAMS, i]
                over = max(low - right[i], right[i] - high)
                if over > worst * (high - low):
                    worst = over / (high - low)
                    which = i
        if which < 0:
            for i in range(N_PARAMS):
                state[_STEP, i] = right[i]
            return
        free[which] = 0
        low = state[_LOWER, which] - state[_PARAMS, which]
        state[_STEP, which] = low if right[which] < low else state[_UPPER, which] - state[_PARAMS, which]


@device
def _take_over(state: Matrix, sums: Vector) -> None:
    """Make the trial the point at hand, with its normal equations."""
    entry = N_PARAMS + 1
    for i in range(N_PARAMS):
        state[_PARAMS, i] = state[_TRIAL, i]
        state[_SLOPE, i] = sums[1 + i]
        for j in range(i + 1):
            state[_HESSIAN + i, j] = sums[entry]
            state[_HESSIAN + j, i] = sums[entry]
            entry += 1
        state[_HESSIAN + i, i] += state[_PRECISION, i]
        state[_SLOPE, i] += state[_PRECISION, i] * (state[_PARAMS, i] - state[_MEAN, i])


@device
def advance(
    state: Matrix,
    control: Vector,
    flags: IntVector,
    sums: Vector,
    max_evaluations: int,
    free: IntVector,
    matrix: Matrix,
    right: Vector,
) -> None:
    """Judge the trial that has been evaluated, and choose the next or end. One thread's work."""
    flags[_EVALUATIONS] += 1
    trial_objective = sums[0]
    for i in range(N_PARAMS):
        away = state[_TRIAL, i] - state[_MEAN, i]
        trial_objective += state[_PRECISION, i] * away * away
    if flags[_EVALUATIONS] == 1:
        control[_OBJECTIVE] = trial_objective
        _take_over(state, sums)
    elif trial_objective < control[_OBJECTIVE] or control[_SETTLED] > 0.0:
        gain = -1.0
        if control[_PREDICTED] > 0.0:
            gain = (control[_OBJECTIVE] - trial_objective) / (2.0 * control[_PREDICTED])
        control[_OBJECTIVE] = trial_objective
        _take_over(state, sums)
        if gain > 0.0:
            bend = 2.0 * gain - 1.0
            control[_DAMPING] = max(control[_DAMPING] * max(0.1, 1.0 - bend * bend * bend), 1e-15)
        control[_GROWTH] = 2.0
    else:
        control[_DAMPING] *= control[_GROWTH]
        control[_GROWTH] *= 2.0
        if control[_DAMPING] > 1e12:
            flags[_OUTCOME] = NO_DESCENT
            return
    if flags[_EVALUATIONS] >= max_evaluations:
        flags[_OUTCOME] = OUT_OF_ITERATIONS
        return
    for i in range(N_PARAMS):
        state[_SCALE, i] = max(state[_SCALE, i], state[_HESSIAN + i, i])
    _bounded_step(state, control[_DAMPING], free, matrix, right)
    predicted = 0.0
    moved = 0.0
    for i in range(N_PARAMS):
        curve = 0.0
        for j in range(N_PARAMS):
            curve += state[_HESSIAN + i, j] * state[_STEP, j]
        predicted -= state[_STEP, i] * (state[_SLOPE, i] + 0.5 * curve)
        moved += state[_STEP, i] * curve
    control[_PREDICTED] = predicted
    if control[_DAMPING] <= 1e-2 and moved <= 1e-20 * control[_OBJECTIVE] + 1e-24 * control[_WEIGHT]:
        flags[_OUTCOME] = CONVERGED
        return
    control[_SETTLED] = 0.0
    if moved <= 1e-9 * control[_OBJECTIVE] + 1e-17 * control[_WEIGHT]:
        control[_SETTLED] = 1.0
        control[_LAST_STEPS] += 1.0
        if control[_LAST_STEPS] > 3.0:
            flags[_OUTCOME] = SETTLED
            return
    for i in range(N_PARAMS):
        state[_TRIAL, i] = min(max(state[_PARAMS, i] + state[_STEP, i], state[_LOWER, i]), state[_UPPER, i])


@device
def begin(control: Vector, flags: IntVector) -> None:
    """Before the first evaluation, of the start in the row of the trial. One thread's work."""
    control[_DAMPING] = 1e-5
    control[_GROWTH] = 2.0
    control[_LAST_STEPS] = 0.0
    control[_SETTLED] = 0.0
    control[_PREDICTED] = 0.0
    flags[_OUTCOME] = RUNNING
    flags[_EVALUATIONS] = 0
    flags[_TAIL] = 0


if ON_GPU:
    _ROOM_PARAMS = (N_PARAMS, N_PARAMS)
    _ROOM_NODES = (2 * N_PARTS, CHUNK)

    @cuda.jit
    def refine_blocks(
        expiry_offsets: IntVector,
        offsets: IntVector,
        expiries: Vector,
        least_vega: Vector,
        quotes: Matrix,
        states: Matrix,
        controls: Matrix,
        all_flags: IntVector,
        max_evaluations: int,
        parts: Matrix,
        rows: Matrix,
    ) -> None:
        """The kernel: a block a panel. `refine_one` is its twin for one thread."""
        nodes = cuda.shared.array(_ROOM_NODES, np.float64)
        plan = cuda.shared.array(3, np.float64)
        sums = cuda.shared.array(N_SUMS, np.float64)
        free = cuda.local.array(N_PARAMS, np.int64)
        matrix = cuda.local.array(_ROOM_PARAMS, np.float64)
        right = cuda.local.array(N_PARAMS, np.float64)
        panel = cuda.blockIdx.x
        lane = cuda.threadIdx.x
        n_lanes = cuda.blockDim.x
        state = states[panel]
        control = controls[panel]
        flags = all_flags[panel]
        params = state[_TRIAL]
        if lane == 0:
            begin(control, flags)
        cuda.syncthreads()
        while flags[_OUTCOME] == RUNNING:
            for e in range(expiry_offsets[panel], expiry_offsets[panel + 1]):
                first = offsets[e]
                last = offsets[e + 1]
                if lane == 0:
                    tolerance = _FINE * least_vega[e]
                    plan_expiry(expiries[e], quotes[0, first], quotes[0, last - 1], tolerance, params, plan)
                    flags[_TAIL] = 0
                cuda.syncthreads()
                chunk = 0
                while flags[_TAIL] == 0 and chunk < MAX_CHUNKS:
                    fill_chunk(lane, n_lanes, chunk, expiries[e], params, plan, nodes)
                    cuda.syncthreads()
                    add_chunk(lane, n_lanes, chunk, first, last, quotes[0], plan, nodes, parts)
                    chunk += 1
                    if lane == 0 and tail_is_small(plan[2], nodes):
                        flags[_TAIL] = 1
                    cuda.syncthreads()
                if flags[_TAIL] == 0:
                    break
                floor = 1e-3 * _FINE * least_vega[e]
                finish_quotes(lane, n_lanes, first, last, floor, params, plan, quotes, parts, rows)
                cuda.syncthreads()
            add_up(lane, n_lanes, offsets[expiry_offsets[panel]], offsets[expiry_offsets[panel + 1]], rows, sums)
            cuda.syncthreads()
            if lane == 0:
                if flags[_TAIL] == 0:
                    flags[_OUTCOME] = TOO_SLOW
                else:
                    advance(state, control, flags, sums, max_evaluations, free, matrix, right)
            cuda.syncthreads()

else:

    @careful
    def refine_one(
        panel: int,
        expiry_offsets: IntVector,
        offsets: IntVector,
        expiries: Vector,
        least_vega: Vector,
        quotes: Matrix,
        states: Matrix,
        controls: Matrix,
        all_flags: IntVector,
        max_evaluations: int,
        parts: Matrix,
        rows: Matrix,
    ) -> None:
        """The kernel's twin: the same functions in the same order, by one thread."""
        nodes = np.empty((2 * N_PARTS, CHUNK))
        plan = np.empty(3)
        sums = np.empty(N_SUMS)
        free = np.empty(N_PARAMS, np.int64)
        matrix = np.empty((N_PARAMS, N_PARAMS))
        right = np.empty(N_PARAMS)
        state, control, flags = states[panel], controls[panel], all_flags[panel]
        params = state[_TRIAL]
        begin(control, flags)
        while flags[_OUTCOME] == RUNNING:
            for e in range(expiry_offsets[panel], expiry_offsets[panel + 1]):
                first, last = offsets[e], offsets[e + 1]
                tolerance = _FINE * least_vega[e]
                plan_expiry(expiries[e], quotes[0, first], quotes[0, last - 1], tolerance, params, plan)
                flags[_TAIL] = 0
                chunk = 0
                while flags[_TAIL] == 0 and chunk < MAX_CHUNKS:
                    fill_chunk(0, 1, chunk, expiries[e], params, plan, nodes)
                    add_chunk(0, 1, chunk, first, last, quotes[0], plan, nodes, parts)
                    chunk += 1
                    if tail_is_small(plan[2], nodes):
                        flags[_TAIL] = 1
                if flags[_TAIL] == 0:
                    break
                finish_quotes(0, 1, first, last, 1e-3 * tolerance, params, plan, quotes, parts, rows)
            add_up(0, 1, offsets[expiry_offsets[panel]], offsets[expiry_offsets[panel + 1]], rows, sums)
            if flags[_TAIL] == 0:
                flags[_OUTCOME] = TOO_SLOW
            else:
                advance(state, control, flags, sums, max_evaluations, free, matrix, right)
