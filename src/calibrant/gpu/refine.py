"""Many panels refined in one call: what the host does around the kernel of `heston_lm`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ..arrays import IntVector, Matrix, Vector
from ..models import HESTON
from ..optimisers.objective import Problem
from . import heston_lm as lm
from .heston_device import N_PARTS, SLICES
from .target import ON_GPU

MAX_EVALUATIONS = 200
PANELS_AT_A_TIME = 4096
"""One launch; its room on the GPU is some 16 KB for a panel of 80 quotes."""


class Refined(NamedTuple):
    """Where the panels ended, in their order."""

    params: Matrix
    """(n_panels, 5), the best found."""
    objective: Vector
    """(n_panels,) the weighted sum of squares with the prior's term, as `calibrate` defines it."""
    outcome: IntVector
    """(n_panels,) CONVERGED, SETTLED, OUT_OF_ITERATIONS, NO_DESCENT or TOO_SLOW of `heston_lm`."""
    evaluations: IntVector
    """(n_panels,) of the objective and its gradient."""
    model_vol: Vector
    """(all quotes,) of the last point tried: of a converged panel that of its parameters to all digits."""


def refine(problems: Sequence[Problem], starts: Matrix, max_evaluations: int = MAX_EVALUATIONS) -> Refined:
    """Minimise the objective of each panel from its start, on the GPU.

    problems  as `fit_problem` makes them, of the Heston model
    starts    (n_panels, 5), clipped to the bounds
    returns   panels whose outcome is not CONVERGED are the CPU's: `calibrate` takes them from their start
    raises    ValueError if the lengths differ, there is no panel, or one is of another model
    """
    if not problems:
        raise ValueError("`problems` must hold at least one panel.")
    if not all(np.array_equal(problem.layout, HESTON.layout) for problem in problems):
        raise ValueError("The GPU refines Heston only: other models are refined on the processor.")
    if starts.shape != (len(problems), lm.N_PARAMS):
        raise ValueError(f"`starts` must be ({len(problems)}, {lm.N_PARAMS}), but is {starts.shape}.")
    groups = [
        _refine_group(problems[at : at + PANELS_AT_A_TIME], starts[at : at + PANELS_AT_A_TIME], max_evaluations)
        for at in range(0, len(problems), PANELS_AT_A_TIME)
    ]
    return Refined(*(np.concatenate(parts) for parts in zip(*groups, strict=True)))


def _refine_group(problems: Sequence[Problem], starts: Matrix, max_evaluations: int) -> Refined:
    n_panels = len(problems)
    expiry_offsets = np.cumsum([0, *(problem.expiries.size for problem in problems)], dtype=np.int64)
    sizes = np.concatenate([np.diff(problem.offsets) for problem in problems])
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    quotes = np.stack(
        [
            np.concatenate([getattr(problem, name) for problem in problems])
            for name in ("log_moneyness", "vol", "root_weight", "root_expiry")
        ]
    )
    states = np.zeros((n_panels, lm.N_STATE, lm.N_PARAMS))
    controls = np.zeros((n_panels, lm.N_CONTROL))
    for state, control, problem, start in zip(states, controls, problems, starts, strict=True):
        state[lm._LOWER], state[lm._UPPER] = problem.lower, problem.upper
        state[lm._MEAN], state[lm._PRECISION] = problem.prior_mean, problem.prior_precision
        state[lm._TRIAL] = np.clip(start, problem.lower, problem.upper)
        control[lm._WEIGHT] = float(np.sum(problem.root_weight**2))
    flags = np.zeros((n_panels, lm.N_FLAGS), np.int64)
    rows = np.zeros((quotes.shape[1], lm.N_ROW))
    rows[:, -1] = quotes[1]
    given = (
        expiry_offsets,
        offsets,
        np.concatenate([problem.expiries for problem in problems]),
        np.concatenate([problem.least_vega for problem in problems]),
        quotes,
    )
    room = (quotes.shape[1] * SLICES, N_PARTS)
    run = _on_gpu if ON_GPU else _on_cpu
    run(given, states, controls, flags, max_evaluations, room, rows)
    return Refined(
        states[:, lm._PARAMS].copy(),
        controls[:, lm._OBJECTIVE].copy(),
        flags[:, lm._OUTCOME].copy(),
        flags[:, lm._EVALUATIONS].copy(),
        rows[:, -1].copy(),
    )


def _on_gpu(
    given: tuple[Any, ...],
    states: Matrix,
    controls: Matrix,
    flags: IntVector,
    max_evaluations: int,
    room: tuple[int, int],
    rows: Matrix,
) -> None:
    """Copy in, run, copy back; on one stream, which the last copies wait for."""
    stream = cuda.stream()
    read = [cuda.to_device(array, stream=stream) for array in given]
    written = [cuda.to_device(array, stream=stream) for array in (states, controls, flags, rows)]
    parts = cuda.device_array(room, np.float64, stream=stream)
    kernel = lm.refine_blocks[len(states), lm.THREADS, stream]
    kernel(*read, *written[:3], max_evaluations, parts, written[3])
    for array, on_device in zip((states, controls, flags, rows), written, strict=True):
        on_device.copy_to_host(array, stream=stream)
    stream.synchronize()


def _on_cpu(
    given: tuple[Any, ...],
    states: Matrix,
    controls: Matrix,
    flags: IntVector,
    max_evaluations: int,
    room: tuple[int, int],
    rows: Matrix,
) -> None:
    """The twin, panel by panel: what tests run where there is no GPU. For answers, `calibrate` is faster."""
    parts = np.empty(room)
    run: Callable[..., None] = lm.refine_one
    for panel in range(len(states)):
        run(panel, *given, states, controls, flags, max_evaluations, parts, rows)
