"""One refinement from one start, and what is known of where it ended; of one panel, or of many in one compiled call."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .arrays import BoolVector, IntVector, Matrix, Vector
from .group import PanelGroup
from .models.model import Model
from .optimisers.levenberg_marquardt import Problem, levenberg_marquardt
from .uncertainty import Quality, fill_uncertainty, quality_of

SLICE = 20
"""Evaluations of Levenberg-Marquardt between two looks at the clock."""
IDENTIFIED = 0.5
"""Standard error, as a share of the parameter, up to which the quotes are said to identify it."""

_careful = njit(cache=True, nogil=True, error_model="numpy")


class Fit(NamedTuple):
    """The end of a refinement."""

    params: Vector
    objective: float
    evaluations: int
    outcome: int
    """Of `optimisers.levenberg_marquardt`."""
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
    standard_errors: Vector
    """(n_params,), NaN where there is none."""
    correlation: Matrix
    """(n_params, n_params), likewise."""


def refined(problem: Problem, information: Vector, start: Vector | Fit) -> Fit:
    """A slice of Levenberg-Marquardt.

    information  (n_params,), 1 / sd^2 of a Gaussian prior, for the standard errors
    start        (n_params,), which is brought inside the bounds; or the slice before, which this one goes on from
    """
    if isinstance(start, Fit):
        params, before, room = start.params.copy(), start.evaluations, room_again(start)
    else:
        # Whatever a start is made of: numba would compile the kernel anew for other arrays than its own.
        params, before, room = np.array(start, np.float64), 0, room_for(problem)
    model_vol, residual, jacobian = room
    on_bound, errors, correlation = _judgement(params.size)
    objective, evaluations, outcome, quality, n_on_bound, n_loose = _refine(
        params, problem, information, SLICE, model_vol, residual, jacobian, on_bound, errors, correlation
    )
    return Fit(
        params,
        objective,
        before + evaluations,
        outcome,
        model_vol,
        residual,
        jacobian,
        Quality(*quality),
        on_bound,
        n_on_bound,
        n_loose,
        errors,
        correlation,
    )


def judged(
    problem: Problem,
    information: Vector,
    params: Vector,
    objective: float,
    evaluations: int,
    outcome: int,
    arrays: tuple[Vector, Vector, Matrix],
) -> Fit:
    """Where another optimiser ended; `arrays` are the model's vols, the weighted residuals and their Jacobian there."""
    on_bound, errors, correlation = _judgement(params.size)
    quality, n_on_bound, n_loose = _judge(params, problem, information, *arrays, on_bound, errors, correlation)
    ended = params, objective, evaluations, outcome, *arrays
    return Fit(*ended, Quality(*quality), on_bound, n_on_bound, n_loose, errors, correlation)


def first_fits(group: PanelGroup, model: Model, starts: Sequence[Vector | None]) -> list[Fit | None]:
    """The first slice of many panels, each from its start, in one call that needs no interpreter.

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
    model_vol = group.mid.copy()
    residual, jacobian = np.empty(model_vol.size), np.empty(n * model_vol.size)
    counts, sizes = np.empty((which.size, 4), np.int64), np.empty((which.size, 4))
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
        params,
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
    rows = zip(asked, params, counts.tolist(), sizes.tolist(), on_bound, errors, correlation, strict=True)
    for i, at, (evaluations, outcome, n_on_bound, n_loose), (objective, *quality), bounded, error, correlated in rows:
        a, b = ends[i], ends[i + 1]
        filled = model_vol[a:b], residual[a:b], jacobian[n * a : n * b].reshape(n, b - a)
        ended = at, objective, evaluations, outcome, *filled
        fits[i] = Fit(*ended, Quality(*quality), bounded, n_on_bound, n_loose, error, correlated)
    return fits


def room_for(problem: Problem) -> tuple[Vector, Vector, Matrix]:
    """The arrays that an optimiser fills: vols, with the quoted ones for a guess, residuals and Jacobian."""
    n = problem.vol.size
    return problem.vol.copy(), np.empty(n), np.empty((problem.lower.size, n))


def room_again(fit: Fit) -> tuple[Vector, Vector, Matrix]:
    """The same for one that goes on from a fit."""
    return fit.model_vol.copy(), np.empty_like(fit.residual), np.empty_like(fit.jacobian)


def _judgement(n_params: int) -> tuple[BoolVector, Vector, Matrix]:
    return np.empty(n_params, np.bool_), np.empty(n_params), np.empty((n_params, n_params))


@_careful
def _judge(
    params: Vector,
    problem: Problem,
    information: Vector,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
    on_bound: BoolVector,
    errors: Vector,
    correlation: Matrix,
) -> tuple[tuple[float, float, float], int, int]:
    """How good the fit is there, which parameters a bound holds, and how well the quotes determine the others."""
    n_on_bound = 0
    free = np.empty(params.size, np.bool_)
    for i in range(params.size):
        low, high = problem.lower[i], problem.upper[i]
        close = 1e-9 * (high - low)
        on_bound[i] = high > low and (params[i] <= low + close or params[i] >= high - close)
        free[i] = high > low and not on_bound[i]
        n_on_bound += on_bound[i]
    fill_uncertainty(residual, jacobian, free, information, errors, correlation)
    n_loose = 0
    for i in range(params.size):
        n_loose += not errors[i] <= IDENTIFIED * abs(params[i])
    return quality_of(model_vol, problem.vol), n_on_bound, n_loose


@_careful
def _refine(
    params: Vector,
    problem: Problem,
    information: Vector,
    max_evaluations: int,
    model_vol: Vector,
    residual: Vector,
    jacobian: Matrix,
    on_bound: BoolVector,
    errors: Vector,
    correlation: Matrix,
) -> tuple[float, int, int, tuple[float, float, float], int, int]:
    """Objective, evaluations, outcome, `quality_of`, parameters on a bound and not identified; `params`, first brought
    inside the bounds, and `model_vol` and what follows are filled."""
    for i in range(params.size):
        # This way round a start that is no number stays what it is.
        if params[i] < problem.lower[i]:
            params[i] = problem.lower[i]
        elif params[i] > problem.upper[i]:
            params[i] = problem.upper[i]
    objective, evaluations, outcome = levenberg_marquardt(
        params, problem, max_evaluations, model_vol, residual, jacobian
    )
    quality, n_on_bound, n_loose = _judge(
        params, problem, information, model_vol, residual, jacobian, on_bound, errors, correlation
    )
    return objective, evaluations, outcome, quality, n_on_bound, n_loose


@_careful
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
    params: Matrix,
    model_vol: Vector,
    residual: Vector,
    jacobian: Vector,
    counts: NDArray[np.int64],
    sizes: Matrix,
    on_bound: BoolVector,
    errors: Matrix,
    correlation: Matrix,
) -> None:
    """`_refine` for the panels `which` of a `PanelGroup`; `params` and what follows are filled, a row a panel."""
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
        )
        objective, evaluations, outcome, quality, n_on_bound, n_loose = _refine(
            params[at],
            problem,
            nothing,
            SLICE,
            model_vol[a:b],
            residual[a:b],
            jacobian[n_params * a : n_params * b].reshape(n_params, b - a),
            on_bound[at],
            errors[at],
            correlation[at],
        )
        counts[at, 0], counts[at, 1], counts[at, 2], counts[at, 3] = evaluations, outcome, n_on_bound, n_loose
        sizes[at, 0] = objective
        sizes[at, 1], sizes[at, 2], sizes[at, 3] = quality
