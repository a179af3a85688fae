"""Calibration: a panel of implied vols and some starts in, parameters with their error bars out."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numba import njit

from .arrays import BoolVector, Matrix, Vector
from .errors import InvalidInput, Problem
from .models.model import Model
from .optimisers.lbfgs import lbfgs
from .optimisers.levenberg_marquardt import (
    CONVERGED,
    FINE,
    OUT_OF_ITERATIONS,
    SETTLED,
    evaluate,
    levenberg_marquardt,
)
from .optimisers.levenberg_marquardt import Problem as FitProblem
from .optimisers.newton import polish
from .panel import Exclusion, OptionPanel, identifiable
from .starts import objective_at, surface_starts
from .uncertainty import Quality, quality_of, uncertainty

StartName = Literal["network", "fallback", "given"]
Refine = Literal["lm", "lbfgs", "none"]
Status = Literal["converged", "network_only", "budget_exhausted", "not_converged"]

_MAX_EVALUATIONS = 200
_SLICE = 20
"""Evaluations between two looks at the clock."""
_TRUSTED_RMSE = 10e-4
"""A fit this good from a start inside the training domain needs no second opinion, whatever the network."""
_SAME_OPTIMUM = 1e-6
_UNSPECIFIED_NOISE = 10e-4
"""Noise of quotes with neither spread nor weight, against which a prior is weighed: 10 bp."""
_IDENTIFIED = 0.5


class Start(NamedTuple):
    """Parameters to start from, and who proposes them."""

    name: StartName
    params: Vector


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A Gaussian prior; an infinite standard deviation says nothing of its parameter."""

    parameters: Vector
    standard_deviations: Vector


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What a request may ask for besides its quotes."""

    refine: Refine = "lm"
    bounds: Matrix | None = None
    """(n_params, 2), inside the admissible ones; None for those."""
    fixed: Mapping[str, float] | None = None
    """Parameters held at a value."""
    prior: Prior | None = None
    deadline: float | None = None
    """`time.perf_counter()` at which refinement ends with the best so far."""
    cancelled: Callable[[], bool] | None = None
    """Asked now and then where there is a deadline, and true once nobody wants the answer: what has begun then ends as
    at its deadline."""
    trusted: bool = True
    """The first start comes from inside its training domain: a good fit from it needs no second opinion."""
    domain: Matrix | None = None
    """(n_params, 2), the training domain of a network that knows quotes no model fits: an answer inside it needs no
    second opinion, however poor the fit. None: a poor fit is always in doubt."""
    second_opinion: bool = True
    """Whether starts read off the surface may join the proposals; without proposals they always do."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The fitted parameters and all that is known of their quality."""

    model: Model
    parameters: Vector
    standard_errors: Vector
    """(n_params,), NaN where there is none."""
    correlation: Matrix
    """(n_params, n_params), NaN where there is none."""
    panel: OptionPanel
    """The quotes used."""
    model_iv: Vector
    """(n_quotes,) in the order of `panel`."""
    objective: float
    """Sum of weight (model vol - mid vol)^2, and the prior's term."""
    rmse_bp: float
    max_abs_bp: float
    mape_pct: float
    n_quotes: int
    excluded: tuple[Exclusion, ...]
    feller_ratio: float
    status: Status
    message: str | None
    start: StartName
    iterations: int
    """Evaluations of the objective and its gradient by the refinement that led to the answer."""
    n_refinements: int
    """Starts refined: more than one where the first answer was not beyond doubt."""
    at_bounds: tuple[str, ...]


class _Fit(NamedTuple):
    start: StartName
    params: Vector
    objective: float
    evaluations: int
    outcome: int
    expired: bool
    model_vol: Vector
    residual: Vector
    jacobian: Matrix
    quality: Quality
    on_bound: BoolVector
    """(n_params,), True where a bound keeps the parameter from moving on; held ones are on no bound."""
    free: BoolVector
    """(n_params,), neither held nor on a bound."""
    n_on_bound: int


def calibrate(
    panel: OptionPanel, model: Model, starts: Sequence[Start], options: CalibrationOptions | None = None
) -> Calibration:
    """Fit `model` to `panel` by least squares in implied vol.

    panel    the quotes; those whose vega is below the floor of `panel.identifiable` are left out and reported
    starts   proposals, the network's first; the best of them is refined. Without any, or where its answer is in doubt
             (see `_doubtful`), starts read off the surface join in
    returns  the best fit found; a fit that fails is a `status` and a `message`, never an exception
    raises   InvalidInput if no quote says anything, or an option contradicts the model's bounds
    """
    options = options or CalibrationOptions()
    used = identifiable(panel)
    problem = fit_problem(used, model, options)
    proposals = [Start(s.name, np.minimum(np.maximum(s.params, problem.lower), problem.upper)) for s in starts]
    if options.refine == "none":
        fit = _unrefined(problem, proposals)
        return _report(fit, used, model, problem, options, "network_only", 0)
    fits = _fits(problem, proposals, options)
    # Of starts that lead to one optimum the first is named, whatever the rounding of the last digits says.
    best = fits[0]
    for fit in fits[1:]:
        if fit.objective < best.objective * (1.0 - _SAME_OPTIMUM):
            best = fit
    if any(fit.expired for fit in fits):
        status: Status = "budget_exhausted"
    else:
        if best.outcome != CONVERGED:
            best = _polished(best, problem)
        status = "converged" if best.outcome in (CONVERGED, SETTLED) else "not_converged"
    return _report(best, used, model, problem, options, status, len(fits))


def _fits(problem: FitProblem, proposals: list[Start], options: CalibrationOptions) -> list[_Fit]:
    """The fit of the best proposal and, while there is doubt and time, those of the starts read off the surface."""
    fits = []
    if proposals:
        best = min(proposals, key=lambda s: objective_at(problem, s.params)) if len(proposals) > 1 else proposals[0]
        fits.append(_refine(problem, best, options))
        if not (options.second_opinion and _doubtful(fits[0], options)):
            return fits
        fits[0] = _expired_if_late(fits[0], options)
        if fits[0].expired:
            return fits
    first, *others = surface_starts(problem)
    fits.append(_refine(problem, Start("fallback", first), options))
    if _settled(fits, options):
        return fits
    for params in others:
        fits[-1] = _expired_if_late(fits[-1], options)
        if fits[-1].expired:
            break
        fits.append(_refine(problem, Start("fallback", params), options))
    return fits


def _settled(fits: list[_Fit], options: CalibrationOptions) -> bool:
    """Whether the first start read off the surface ends the search: by itself, or by agreeing with the proposal."""
    if len(fits) == 1:
        return not _doubtful(fits[0], options)
    proposed, opinion = fits
    agreed = abs(proposed.objective - opinion.objective) <= _SAME_OPTIMUM * proposed.objective
    # Noise alone may end a good fit on a bound; a poor one there suggests that the best lies elsewhere.
    return agreed and not (_poor(opinion) and opinion.n_on_bound > 0)


def fit_problem(panel: OptionPanel, model: Model, options: CalibrationOptions) -> FitProblem:
    """The quotes, bounds and prior as the compiled optimisers want them."""
    lower, upper = model.lower, model.upper
    if options.bounds is not None:
        lower, upper = np.maximum(lower, options.bounds[:, 0]), np.minimum(upper, options.bounds[:, 1])
        for i, name in enumerate(model.parameters):
            if not lower[i] < upper[i] or lower[i] > options.bounds[i, 0] or upper[i] < options.bounds[i, 1]:
                raise InvalidInput(
                    Problem.at(
                        ("bounds", name),
                        f"must be an interval inside [{model.lower[i]:g}, {model.upper[i]:g}], "
                        f"but is {options.bounds[i].tolist()}.",
                    )
                )
    if options.fixed:
        lower, upper = lower.copy(), upper.copy()
    for name, value in (options.fixed or {}).items():
        if name not in model.parameters:
            raise InvalidInput(Problem.at(("fixed", name), f"must be one of {', '.join(model.parameters)}."))
        i = model.parameters.index(name)
        if not lower[i] <= value <= upper[i]:
            raise InvalidInput(
                Problem.at(("fixed", name), f"must be between {lower[i]:g} and {upper[i]:g}, but is {value}.")
            )
        lower[i] = upper[i] = value
    mean, precision = np.zeros(model.n_params), np.zeros(model.n_params)
    if options.prior is not None:
        mean = options.prior.parameters
        # Explicit weights and spreads are taken for inverse variances; quotes without either have a stated noise.
        noise = 1.0 if panel.explicit_weight else _UNSPECIFIED_NOISE**2
        precision = noise / options.prior.standard_deviations**2
    scales = panel.scales
    return FitProblem(
        scales.expiries,
        scales.offsets,
        panel.log_moneyness,
        panel.mid,
        scales.root_weight,
        scales.root_expiry,
        scales.least_vega,
        lower,
        upper,
        mean,
        precision,
    )


def _arrays(problem: FitProblem) -> tuple[Vector, Vector, Matrix]:
    n = problem.vol.size
    return problem.vol.copy(), np.empty(n), np.empty((problem.lower.size, n))


def _unrefined(problem: FitProblem, proposals: list[Start]) -> _Fit:
    start = proposals[0] if proposals else Start("fallback", surface_starts(problem)[0])
    arrays = _arrays(problem)
    objective = float(evaluate(start.params, problem, FINE, *arrays))
    return _judged(problem, start.name, start.params, objective, 0, OUT_OF_ITERATIONS, False, arrays)


def _refine(problem: FitProblem, start: Start, options: CalibrationOptions) -> _Fit:
    params = start.params.copy()
    arrays = _arrays(problem)
    if options.refine == "lbfgs":
        objective, total, outcome = lbfgs(params, problem, 5 * _MAX_EVALUATIONS, *arrays, lambda: _late(options))
        expired = _late(options)
        return _judged(problem, start.name, params, objective, total, outcome, expired, arrays)
    total = 0
    outcome = OUT_OF_ITERATIONS
    expired = False
    objective = math.inf
    while outcome == OUT_OF_ITERATIONS and total < _MAX_EVALUATIONS and not expired:
        slice_ = _SLICE if options.deadline is not None else _MAX_EVALUATIONS
        objective, evaluations, outcome = levenberg_marquardt(params, problem, slice_, *arrays)
        total += evaluations
        expired = outcome == OUT_OF_ITERATIONS and _late(options)
    return _judged(problem, start.name, params, float(objective), total, outcome, expired, arrays)


def _polished(fit: _Fit, problem: FitProblem) -> _Fit:
    """The fit with all its digits; where there are no more to be had, as it was."""
    params = fit.params.copy()
    arrays = fit.model_vol.copy(), np.empty_like(fit.residual), np.empty_like(fit.jacobian)
    objective, evaluations, outcome = polish(params, problem, *arrays)
    if outcome != CONVERGED and fit.outcome != SETTLED:
        outcome = fit.outcome
    total = fit.evaluations + evaluations
    return _judged(problem, fit.start, params, float(objective), total, outcome, fit.expired, arrays)


def _judged(
    problem: FitProblem,
    start: StartName,
    params: Vector,
    objective: float,
    evaluations: int,
    outcome: int,
    expired: bool,
    arrays: tuple[Vector, Vector, Matrix],
) -> _Fit:
    """Where an optimiser ended, with how good it is there and which parameters a bound holds."""
    on_bound, free = np.empty((2, params.size), np.bool_)
    sizes, n_on_bound = _judge(params, problem.lower, problem.upper, arrays[0], problem.vol, on_bound, free)
    return _Fit(
        start, params, objective, evaluations, outcome, expired, *arrays, Quality(*sizes), on_bound, free, n_on_bound
    )


@njit(cache=True, error_model="numpy")
def _judge(
    params: Vector,
    lower: Vector,
    upper: Vector,
    model_vol: Vector,
    vol: Vector,
    on_bound: BoolVector,
    free: BoolVector,
) -> tuple[tuple[float, float, float], int]:
    """One call for what numpy would take a dozen for: a fifth of what the refinement itself takes.

    Too short to be worth giving the interpreter lock away, which another thread would not give back as soon.
    """
    n_on_bound = 0
    for i in range(params.size):
        width = upper[i] - lower[i]
        close = 1e-9 * width
        on_bound[i] = width > 0.0 and (params[i] <= lower[i] + close or params[i] >= upper[i] - close)
        free[i] = width > 0.0 and not on_bound[i]
        n_on_bound += on_bound[i]
    return quality_of(model_vol, vol), n_on_bound


def _late(options: CalibrationOptions) -> bool:
    if options.deadline is None:
        return False
    return time.perf_counter() >= options.deadline or (options.cancelled is not None and options.cancelled())


def _expired_if_late(fit: _Fit, options: CalibrationOptions) -> _Fit:
    """The fit, marked as cut short where no time is left for the second opinion that it wants."""
    return fit._replace(expired=fit.expired or _late(options))


def _poor(fit: _Fit) -> bool:
    return fit.quality.rmse > _TRUSTED_RMSE


def _doubtful(fit: _Fit, options: CalibrationOptions) -> bool:
    """Whether an answer wants a second opinion. It uses nothing but the request, the network and the fit.

    Real panels are fitted poorly as a rule, and by the best optimum there is; a worse one was always found to lie on a
    bound or outside the network's domain (16 of 924 disturbed panels of `shared/market`).
    """
    if not options.trusted or fit.outcome not in (CONVERGED, SETTLED) or fit.n_on_bound > 0:
        return True
    if options.domain is None:
        return _poor(fit)
    inside = (fit.params >= options.domain[:, 0]) & (fit.params <= options.domain[:, 1])
    return not bool(inside.all())


def _report(
    fit: _Fit,
    panel: OptionPanel,
    model: Model,
    problem: FitProblem,
    options: CalibrationOptions,
    status: Status,
    n_refinements: int,
) -> Calibration:
    prior = problem.prior_precision if options.prior is None else options.prior.standard_deviations**-2.0
    errors, correlation = uncertainty(fit.residual, fit.jacobian, fit.free, prior)
    at_bounds: tuple[str, ...] = ()
    if fit.n_on_bound:
        at_bounds = tuple(name for name, on in zip(model.parameters, fit.on_bound, strict=True) if on)
    return Calibration(
        model=model,
        parameters=fit.params,
        standard_errors=errors,
        correlation=correlation,
        panel=panel,
        model_iv=fit.model_vol,
        objective=fit.objective,
        rmse_bp=1e4 * fit.quality.rmse,
        max_abs_bp=1e4 * fit.quality.max_abs,
        mape_pct=100.0 * fit.quality.mean_relative,
        n_quotes=panel.n_quotes,
        excluded=panel.excluded,
        feller_ratio=model.feller_ratio(fit.params),
        status=status,
        message=_message(fit, panel, model, errors, at_bounds, status, problem),
        start=fit.start,
        iterations=fit.evaluations,
        n_refinements=n_refinements,
        at_bounds=at_bounds,
    )


def _message(
    fit: _Fit,
    panel: OptionPanel,
    model: Model,
    errors: Vector,
    at_bounds: tuple[str, ...],
    status: Status,
    problem: FitProblem,
) -> str | None:
    """What a user should know before trusting the numbers; None when there is nothing."""
    sentences = []
    if status == "not_converged":
        sentences.append(
            f"Not converged after {fit.evaluations} evaluations: "
            "give a `start`, tighter `bounds` or a `prior`, or look for bad quotes among the largest residuals."
        )
    elif status == "budget_exhausted":
        sentences.append("The time budget ended the refinement: these are the best parameters so far.")
    if at_bounds:
        sentences.append(f"{', '.join(at_bounds)} ended on a bound and has no standard error.")
    # Plain floats: numpy takes ten times as long over five numbers.
    error = errors.tolist()
    bounds = zip(problem.lower.tolist(), problem.upper.tolist(), strict=True)
    free = [i for i, (low, high) in enumerate(bounds) if high > low]
    if panel.n_quotes <= model.n_params:
        sentences.append(
            f"{panel.n_quotes} quotes cannot determine {model.n_params} parameters: no standard errors; "
            "hold some parameters with `fixed`, or give a `prior`."
        )
    elif len(at_bounds) < len(free) and all(math.isnan(error[i]) for i in free):
        sentences.append("The Jacobian is singular: the quotes do not determine the parameters; no standard errors.")
    else:
        size = fit.params.tolist()
        loose = [i for i in free if error[i] > _IDENTIFIED * abs(size[i])]
        if loose:
            relative = [100.0 * error[i] / abs(size[i]) if size[i] else math.inf for i in loose]
            named = [f"{model.parameters[i]} ({share:.0f} %)" for i, share in zip(loose, relative, strict=True)]
            sentences.append(f"The panel does not identify {', '.join(named)}: standard error in brackets.")
    if panel.expiries.size == 1 and len(free) > 2:
        sentences.append("One expiry does not tell kappa and theta apart from v0.")
    return " ".join(sentences) or None
