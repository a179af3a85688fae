"""One refinement from one start, and what is known of where it ended; of one panel, or of many in one compiled call."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import BoolVector, IntVector, Matrix, Vector
from .compiled import careful
from .group import PanelGroup
from .models.model import Model
from .optimisers import lbfgs as limited_memory
from .optimisers import levenberg_marquardt as least_squares
from .optimisers.lbfgs import lbfgs
from .optimisers.levenberg_marquardt import levenberg_marquardt, memory_for
from .optimisers.objective import OUT_OF_ITERATIONS, Problem
from .uncertainty import Quality, fill_uncertainty, quality_of

Method = Literal["lm", "lbfgs"]

SLICE = 20
"""Evaluations of a step, at most."""
SLICE_QUOTES = 16_000
"""Quote-evaluations of a step, roughly: three milliseconds where a chain has thousands of quotes."""
IDENTIFIED = 0.5
"""Standard error, as a share of the parameter, up to which the quotes are said to identify it."""


class Fit(NamedTuple):
    """Where a refinement stands. What is known of its quality is known only where it has ended: see `judged`."""

    params: Vector
    objective: float
    evaluations: int
    outcome: int
    """Of `optimisers.objective`."""
    memory: Vector
    """Of the optimiser, to go on."""
    model_vol: Vector
    """(n_quotes,)"""
    residual: Vector
    """(n_quotes,), weighted."""
    jacobian: Matrix
    """(n_params, n_quotes), of the weighted residuals."""
    quality: Quality
    on_bound: BoolVector
    """(n_params,), True where a bound keeps the parameter from moving on; held ones are on no bound."""
    n_on_bound: int
    n_loose: int
    """Parameters that are not identified, those without a standard error among them."""
    n_unknown: int
    """Quotes that the fit kernel cannot price at these parameters."""
    standard_errors: Vector
    """(n_params,), NaN where there is none."""
    correlation: Matrix
    """(n_params, n_params), likewise."""


def refined(problem: Problem, start: Vector | Fit, method: Method = "lm") -> Fit:
    """A step of a refinement.

    start   (n_params,), which is brought inside the bounds; or the step before, which this one goes on from
    """
    if isinstance(start, Fit):
        params, memory, before, arrays = start.params.copy(), start.memory.copy(), start.evaluations, room_again(start)
    else:
        # Whatever a start is made of: numba would compile the kernel anew for other arrays than its own.
        params, before, arrays = np.array(start, np.float64), 0, room_for(problem)
        memory = (least_squares if method == "lm" else limited_memory).memory_for(params.size)
    n = params.size
    on_bound, errors, correlation = np.empty(n, np.bool_), np.empty(n), np.empty((n, n))
    objective, evaluations, outcome, quality, n_on_bound, n_loose, n_unknown = _refine(
        params, problem, method == "lbfgs", memory, *arrays, on_bound, errors, correlation
    )
    stands = params, objective, before + evaluations, outcome, memory, *arrays
    return Fit(*stands, Quality(*quality), on_bound, n_on_bound, n_loose, n_unknown, errors, correlation)


def judged(
    problem: Problem,
    params: Vector,
    objective: float,
    evaluations: int,
    outcome: int,
    memory: Vector,
    arrays: tuple[Vector, Vector, Matrix],
) -> Fit:
    """Where an optimiser stands; `arrays` are the model's vols, the weighted residuals and their Jacobian there."""
    n = params.size
    on_bound, errors, correlation = np.empty(n, np.bool_), np.empty(n), np.empty((n, n))
    quality, n_on_bound, n_loose, n_unknown = _judge(params, problem, *arrays, on_bound, errors, correlation)
    stands = params, objective, evaluations, outcome, memory, *arrays
    return Fit(*stands, Quality(*quality), on_bound, n_on_bound, n_loose, n_unknown, errors, correlation)


def first_fits(group: PanelGroup, model: Model, starts: Sequence[Vector | None]) -> list[Fit | None]:
    """The first step of many panels, each from its start, in one call that needs no interpreter.

    group    quotes that are all to be fitted (see `panel.identifiable`)
    starts   (n_params,) each; None for a panel that is not to be refined here
    returns  what `refined` says of the panel by itself, to the last digit, within the model's admissible bounds and
             without a prior
    """
    asked = [i for i, start in enumerate(starts) if start is not None]
    fits: list[Fit | None] = [None] * len(starts)
    if not asked:
        return fits
    which, n = np.array(asked), model.n_params
    params = np.concatenate([start for start in starts if start is not None], dtype=np.float64).reshape(-1, n)
    memory = np.zeros((which.size, memory_for(n).size))
    model_vol = group.mid.copy()
    residual, jacobian = np.empty(model_vol.size), np.empty(n * model_vol.size)
    counts, sizes = np.empty((which.size, 5), np.int64), np.empty((which.size, 4))
    on_bound = np.empty((which.size, n), np.bool_)
    errors, correlation = np.empty((which.size, n)), np.empty((which.size, n, n))
    _refine_all(
        which,
        group.first,
        group.n_expiries,
        group.log_moneyness,
        group.mid,
        group.scales.expiries,
        group.scales.offsets,
        group.scales.root_weight,
        group.scales.root_expiry,
        group.scales.least_vega,
        model.lower,
        model.upper,
        np.zeros(n),
        np.full(model_vol.size, np.inf),
        params,
        memory,
        model_vol,
        residual,
        jacobian,
        counts,
        sizes,
        on_bound,
        errors,
        correlation,
    )
    ends = group.first.tolist()
    rows = zip(asked, params, memory, counts.tolist(), sizes.tolist(), on_bound, errors, correlation, strict=True)
    for i, at, kept, counted, sized, bounded, error, correlated in rows:
        a, b = ends[i], ends[i + 1]
        objective, *quality = sized
        evaluations, outcome, n_on_bound, n_loose, n_unknown = counted
        filled = model_vol[a:b], residual[a:b], jacobian[n * a : n * b].reshape(n, b - a)
        stands = at, objective, evaluations, outcome, kept, *filled
        fits[i] = Fit(*stands, Quality(*quality), bounded, n_on_bound, n_loose, n_unknown, error, correlated)
    return fits


def room_for(problem: Problem) -> tuple[Vector, Vector, Matrix]:
    """The arrays that an optimiser fills: vols, with the quoted ones for a guess, residuals and Jacobian."""
    n = problem.vol.size
    return problem.vol.copy(), np.empty(n), np.empty((problem.lower.size, n))


def room_again(fit: Fit) -> tuple[Vector, Vector, Matrix]:
    """The same for one that goes on from a fit."""
    return fit.model_vol.copy(), fit.residual.copy(), fit.jacobian.copy()


@careful
def _slice_of(n_quotes: int) -> int:
    return max(min(SLICE, SLICE_QUOTES // max(n_quotes, 1)), 1)


@careful
def _judge(
    params: Vector,
    problem: Problem,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
    on_bound: BoolVector,
    errors: Vector,
    correlation: Matrix,
) -> tuple[tuple[float, float, float], int, int, int]:
    """How good the fit is there, which parameters a bound holds, and how well the quotes determine the others."""
    n_on_bound = 0
    held = np.empty(params.size, np.bool_)
    for i in range(params.size):
        low, high = problem.lower[i], problem.upper[i]
        close = 1e-9 * (high - low)
        held[i] = not high > low
        on_bound[i] = high > low and (params[i] <= low + close or params[i] >= high - close)
        n_on_bound += on_bound[i]
    fill_uncertainty(
        residual, jacobian, held, on_bound, problem.prior_precision, problem.noise_variance, errors, correlation
    )
    n_loose = 0
    for i in range(params.size):
        n_loose += not errors[i] <= IDENTIFIED * abs(params[i])
    n_unknown = 0
    for q in range(problem.vol.size):
        known = False
        for i in range(params.size):
            known = known or jacobian[i, q] != 0.0
        n_unknown += not known
    return quality_of(model_vol, problem.vol), n_on_bound, n_loose, n_unknown


@careful
def _bring_inside(params: Vector, problem: Problem) -> None:
    for i in range(params.size):
        # This way round a start that is no number stays what it is.
        if params[i] < problem.lower[i]:
            params[i] = problem.lower[i]
        elif params[i] > problem.upper[i]:
            params[i] = problem.upper[i]


@careful
def _refine(
    params: Vector,
    problem: Problem,
    with_lbfgs: bool,
    memory: Vector,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
    on_bound: BoolVector,
    errors: Vector,
    correlation: Matrix,
) -> tuple[float, int, int, tuple[float, float, float], int, int, int]:
    """Objective, evaluations, outcome and, unless it is to go on, `quality_of`, parameters on a bound, parameters not
    identified and quotes not known; `params`, first brought inside the bounds, and all arrays are filled."""
    _bring_inside(params, problem)
    most = _slice_of(residual.size)
    # By a flag: numba caches no kernel that is handed another.
    if with_lbfgs:
        ended = lbfgs(params, problem, most, memory, model_vol, residual, jacobian)
    else:
        ended = levenberg_marquardt(params, problem, most, True, memory, model_vol, residual, jacobian)
    objective, evaluations, outcome = ended
    if outcome == OUT_OF_ITERATIONS:
        return objective, evaluations, outcome, (math.nan, math.nan, math.nan), 0, 0, 0
    quality, n_on_bound, n_loose, n_unknown = _judge(
        params, problem, model_vol, residual, jacobian, on_bound, errors, correlation
    )
    return objective, evaluations, outcome, quality, n_on_bound, n_loose, n_unknown


@careful
def _refine_all(
    which: IntVector,
    first: IntVector,
    n_expiries: IntVector,
    log_moneyness: Vector,
    mid: Vector,
    expiries: Vector,
    offsets: IntVector,
    root_weight: Vector,
    root_expiry: Vector,
    least_vega: Vector,
    lower: Vector,
    upper: Vector,
    nothing: Vector,
    never: Vector,
    params: Matrix,
    memory: Matrix,
    model_vol: Vector,
    residual: Vector,
    jacobian: Vector,
    counts: NDArray[np.int64],
    sizes: Matrix,
    on_bound: BoolVector,
    errors: Matrix,
    correlation: Matrix,
) -> None:
    """`refined` for the panels `which` of a `PanelGroup`; `params` and what follows are filled, a row a panel."""
    n_params = lower.size
    for at in range(which.size):
        i = which[at]
        a, b, m = first[i], first[i + 1], n_expiries[i]
        problem = Problem(
            expiries[a : a + m],
            offsets[a + i : a + i + m + 1],
            log_moneyness[a:b],
            mid[a:b],
            root_weight[a:b],
            root_expiry[a:b],
            least_vega[a : a + m],
            lower,
            upper,
            nothing,
            nothing,
            never[a:b],
            0.0,
        )
        objective, evaluations, outcome, quality, n_on_bound, n_loose, n_unknown = _refine(
            params[at],
            problem,
            False,
            memory[at],
            model_vol[a:b],
            residual[a:b],
            jacobian[n_params * a : n_params * b].reshape(n_params, b - a),
            on_bound[at],
            errors[at],
            correlation[at],
        )
        counts[at, 0], counts[at, 1], counts[at, 2] = evaluations, outcome, n_on_bound
        counts[at, 3], counts[at, 4] = n_loose, n_unknown
        sizes[at, 0] = objective
        sizes[at, 1], sizes[at, 2], sizes[at, 3] = quality
