"""Calibration: a panel of implied vols and some starts in, parameters with their error bars out."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .arrays import Matrix, Vector
from .caution import Caution
from .errors import InvalidInput, Problem
from .fits import IDENTIFIED, Fit, first_fits, judged, refined, room_again, room_for
from .group import PanelGroup
from .models.model import Model
from .optimisers.lbfgs import lbfgs
from .optimisers.levenberg_marquardt import CONVERGED, FINE, OUT_OF_ITERATIONS, SETTLED, evaluate
from .optimisers.levenberg_marquardt import Problem as FitProblem
from .optimisers.newton import polish
from .panel import Exclusion, OptionPanel, identifiable
from .starts import objective_at, surface_starts
from .steps import Progress, Steps, finish

StartName = Literal["network", "fallback", "given"]
Refine = Literal["lm", "lbfgs", "none"]
Loss = Literal["squared", "huber"]
Status = Literal["converged", "network_only", "budget_exhausted", "not_converged"]

MAX_WORK = 300_000.0
"""About a second's worth."""
_QUOTES_OF_A_BUDGET = 1000.0
_MAX_EVALUATIONS = 200
_TRUSTED_RMSE = 10e-4
"""A fit this good from a start inside the training domain needs no second opinion, whatever the network."""
_SAME_OPTIMUM = 1e-6
_UNSPECIFIED_NOISE = 10e-4
"""Noise of quotes with neither spread nor weight, against which a prior is weighed: 10 bp."""


class Start(NamedTuple):
    """Parameters to start from, and who proposes them."""

    name: StartName
    params: Vector


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A Gaussian prior; an infinite standard deviation says nothing of its parameter."""

    parameters: Vector
    standard_deviations: Vector
    noise_bp: float | None = None
    """Standard deviation of a quote of weight one, in basis points of vol; None: see the contract's default."""


class CalibrationOptions(NamedTuple):
    """What a request may ask for besides its quotes."""

    refine: Refine = "lm"
    bounds: Matrix | None = None
    """(n_params, 2), inside the admissible ones; None for those."""
    fixed: Mapping[str, float] | None = None
    """Parameters held at a value."""
    prior: Prior | None = None
    loss: Loss = "squared"
    max_work: float = MAX_WORK
    """Quote-evaluations after which a search ends with the best so far, for a panel of up to 1,000 quotes; a larger one
    has proportionally more."""
    trusted: bool = True
    """The first start comes from inside its training domain: a good fit from it needs no second opinion."""
    domain: Matrix | None = None
    """(n_params, 2), the training domain of a network that knows quotes no model fits: an answer inside it needs no
    second opinion, however poor the fit. None: a poor fit is always in doubt."""
    second_opinion: bool = True
    """Whether starts read off the surface may join the proposals; without proposals they always do."""


class Calibration(NamedTuple):
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
    cautions: tuple[Caution, ...] = ()
    """What a desk should look at: those of the panel and those of the fit."""
    noise_bp: float | None = None
    """Standard deviation of a quote of weight one that a prior was weighed against; None without a prior."""


class _Attempt(NamedTuple):
    """A start and where it led."""

    start: StartName
    fit: Fit


class _Work:
    """The work of one calibration, counted so that where it ends depends on nothing but the request."""

    def __init__(self, problem: FitProblem, options: CalibrationOptions) -> None:
        self._quotes = problem.vol.size
        self._spent = 0.0
        self._limit = options.max_work * max(1.0, self._quotes / _QUOTES_OF_A_BUDGET)
        self.ended = False
        """No more is to be spent: the budget is, or the driver has said that it is enough."""

    def step(self, evaluations: int) -> Generator[Progress, bool, bool]:
        """Count a step, and let the driver look up; whether the work is to go on."""
        self._spent += evaluations * self._quotes
        enough = yield Progress(self._spent, self._limit)
        self.ended = self.ended or enough is True or self._spent >= self._limit
        return not self.ended


def calibrate(
    panel: OptionPanel,
    model: Model,
    starts: Sequence[Start],
    options: CalibrationOptions | None = None,
    begun: Fit | None = None,
) -> Calibration:
    """Fit `model` to `panel` by least squares in implied vol.

    panel    the quotes; those whose vega is below the floor of `panel.identifiable` are left out and reported
    starts   proposals, the network's first; the best of them is refined. Without any, or where its answer is in doubt
             (see `_doubtful`), starts read off the surface join in
    begun    what `begin` made of this panel, starts and options
    returns  the best fit found; a fit that fails is a `status` and a `message`, never an exception
    raises   InvalidInput if no quote says anything, or an option contradicts the model's bounds
    """
    return finish(calibration_steps(panel, model, starts, options, begun))


def calibration_steps(
    panel: OptionPanel,
    model: Model,
    starts: Sequence[Start],
    options: CalibrationOptions | None = None,
    begun: Fit | None = None,
) -> Steps[Calibration]:
    """`calibrate`, a step at a time: told that it is enough, it ends with the best so far, `budget_exhausted`."""
    options = options or CalibrationOptions()
    used = identifiable(panel)
    if begun is not None and begun.outcome == CONVERGED and not (options.second_opinion and _doubtful(begun, options)):
        return _report(_Attempt(starts[0].name, begun), used, model, options, "converged", 1)
    problem = fit_problem(used, model, options)
    if options.refine == "none":
        return _report(_unrefined(problem, starts, options), used, model, options, "network_only", 0)
    work = _Work(problem, options)
    attempts = yield from _attempts(problem, starts, options, begun, work)
    # Of starts that lead to one optimum the first is named, whatever the rounding of the last digits says.
    best = attempts[0]
    for attempt in attempts:
        if attempt.fit.objective < best.fit.objective * (1.0 - _SAME_OPTIMUM):
            best = attempt
    if work.ended:
        status: Status = "budget_exhausted"
    else:
        if best.fit.outcome != CONVERGED:
            best = best._replace(fit=_polished(best.fit, problem, options))
        status = "converged" if best.fit.outcome in (CONVERGED, SETTLED) else "not_converged"
    return _report(best, used, model, options, status, len(attempts))


def begin(
    group: PanelGroup, model: Model, starts: Sequence[Vector | None], options: Sequence[CalibrationOptions]
) -> list[Fit | None]:
    """What `calibrate` does first, for many panels in one compiled call: it leaves the interpreter to other threads.

    starts   of each panel the parameters of its only start; None for a panel with another number of them
    options  of each panel, as `calibrate` takes them
    returns  for each panel what `calibrate` goes on from, which changes nothing but where the time is spent; None where
             the panel or its options are out of the ordinary
    """
    whole: list[Vector | None] = [None] * len(group)
    trimmed: dict[int, tuple[OptionPanel, Vector]] = {}
    for i, (panel, start, o) in enumerate(zip(group.panels, starts, options, strict=True)):
        if start is None or o.refine != "lm" or o.bounds is not None or o.fixed or o.prior is not None:
            continue
        try:
            used = identifiable(panel)
        except InvalidInput:
            continue
        if used is panel:
            whole[i] = start
        else:
            trimmed[i] = used, start
    fits = first_fits(group, model, whole)
    if trimmed:
        panels, from_there = zip(*trimmed.values(), strict=True)
        for i, fit in zip(trimmed, first_fits(PanelGroup(panels), model, from_there), strict=True):
            fits[i] = fit
    return fits


def _attempts(
    problem: FitProblem, proposals: Sequence[Start], options: CalibrationOptions, begun: Fit | None, work: _Work
) -> Steps[list[_Attempt]]:
    """The fit of the best proposal and, while there is doubt, those of the starts read off the surface."""
    attempts = []
    if proposals:
        best = proposals[0]
        if len(proposals) > 1:
            best = min(proposals, key=lambda s: objective_at(problem, _inside(s.params, problem)))
        attempts.append((yield from _refine(problem, best, options, work, begun)))
        if work.ended or not (options.second_opinion and _doubtful(attempts[0].fit, options)):
            return attempts
    first, *others = surface_starts(problem)
    attempts.append((yield from _refine(problem, Start("fallback", first), options, work)))
    if _settled(attempts, options):
        return attempts
    for params in others:
        if work.ended:
            break
        attempts.append((yield from _refine(problem, Start("fallback", params), options, work)))
    return attempts


def _settled(attempts: list[_Attempt], options: CalibrationOptions) -> bool:
    """Whether the first start read off the surface ends the search: by itself, or by agreeing with the proposal."""
    if len(attempts) == 1:
        return not _doubtful(attempts[0].fit, options)
    proposed, opinion = (attempt.fit for attempt in attempts)
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
        for name, value in options.fixed.items():
            if name not in model.parameters:
                raise InvalidInput(Problem.at(("fixed", name), f"must be one of {', '.join(model.parameters)}."))
            i = model.parameters.index(name)
            if not lower[i] <= value <= upper[i]:
                raise InvalidInput(
                    Problem.at(("fixed", name), f"must be between {lower[i]:g} and {upper[i]:g}, but is {value}.")
                )
            lower[i] = upper[i] = value
    if options.prior is None:
        mean = precision = np.zeros(model.n_params)
    else:
        mean = options.prior.parameters
        # Explicit weights and spreads are taken for inverse variances; quotes without either have a stated noise.
        noise = 1.0 if panel.weights_from != "nothing" else _UNSPECIFIED_NOISE**2
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


def _information(problem: FitProblem, options: CalibrationOptions) -> Vector:
    """What a prior adds to that of the quotes when standard errors are estimated: there the noise is the fit's own."""
    return problem.prior_precision if options.prior is None else options.prior.standard_deviations**-2.0


def _inside(params: Vector, problem: FitProblem) -> Vector:
    """A copy inside the bounds."""
    return np.minimum(np.maximum(params, problem.lower), problem.upper)


def _unrefined(problem: FitProblem, proposals: Sequence[Start], options: CalibrationOptions) -> _Attempt:
    start = proposals[0] if proposals else Start("fallback", surface_starts(problem)[0])
    params, arrays = _inside(start.params, problem), room_for(problem)
    objective = float(evaluate(params, problem, FINE, *arrays))
    information = _information(problem, options)
    return _Attempt(start.name, judged(problem, information, params, objective, 0, OUT_OF_ITERATIONS, arrays))


def _refine(
    problem: FitProblem, start: Start, options: CalibrationOptions, work: _Work, begun: Fit | None = None
) -> Steps[_Attempt]:
    information = _information(problem, options)
    if options.refine == "lbfgs":
        params, arrays = _inside(start.params, problem), room_for(problem)
        ended = lbfgs(params, problem, 5 * _MAX_EVALUATIONS, *arrays)
        fit = judged(problem, information, params, *ended, arrays)
        yield from work.step(fit.evaluations)
        return _Attempt(start.name, fit)
    fit = refined(problem, information, start.params) if begun is None else begun
    going_on = yield from work.step(fit.evaluations)
    while going_on and fit.outcome == OUT_OF_ITERATIONS and fit.evaluations < _MAX_EVALUATIONS:
        before = fit.evaluations
        fit = refined(problem, information, fit)
        going_on = yield from work.step(fit.evaluations - before)
    return _Attempt(start.name, fit)


def _polished(fit: Fit, problem: FitProblem, options: CalibrationOptions) -> Fit:
    """The fit with all its digits; where there are no more to be had, as it was."""
    params, arrays = fit.params.copy(), room_again(fit)
    objective, evaluations, outcome = polish(params, problem, *arrays)
    if outcome != CONVERGED and fit.outcome != SETTLED:
        outcome = fit.outcome
    total = fit.evaluations + evaluations
    return judged(problem, _information(problem, options), params, float(objective), total, outcome, arrays)


def _poor(fit: Fit) -> bool:
    return fit.quality.rmse > _TRUSTED_RMSE


def _doubtful(fit: Fit, options: CalibrationOptions) -> bool:
    """Whether an answer wants a second opinion. It uses nothing but the request, the network and the fit.

    Real panels are fitted poorly as a rule, and by the best optimum there is; a worse one was always found to lie on a
    bound or outside the network's domain (16 of 924 disturbed panels of `shared/market`).
    """
    if not options.trusted or fit.outcome not in (CONVERGED, SETTLED) or fit.n_on_bound > 0:
        return True
    if options.domain is None:
        return _poor(fit)
    return not all(
        low <= value <= high for value, (low, high) in zip(fit.params.tolist(), options.domain.tolist(), strict=True)
    )


def _report(
    attempt: _Attempt,
    panel: OptionPanel,
    model: Model,
    options: CalibrationOptions,
    status: Status,
    n_refinements: int,
) -> Calibration:
    fit = attempt.fit
    at_bounds: tuple[str, ...] = ()
    if fit.n_on_bound:
        at_bounds = tuple(name for name, on in zip(model.parameters, fit.on_bound, strict=True) if on)
    return Calibration(
        model=model,
        parameters=fit.params,
        standard_errors=fit.standard_errors,
        correlation=fit.correlation,
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
        message=_message(fit, panel, model, at_bounds, status, options),
        start=attempt.start,
        iterations=fit.evaluations,
        n_refinements=n_refinements,
        at_bounds=at_bounds,
    )


def _message(
    fit: Fit,
    panel: OptionPanel,
    model: Model,
    at_bounds: tuple[str, ...],
    status: Status,
    options: CalibrationOptions,
) -> str | None:
    """What a user should know before trusting the numbers; None when there is nothing."""
    several = panel.expiries.size > 1
    if status == "converged" and several and fit.n_loose == 0:
        return None
    # Plain floats: numpy takes ten times as long over five numbers.
    error, size = fit.standard_errors.tolist(), fit.params.tolist()
    sentences = []
    if status == "not_converged":
        sentences.append(
            f"Not converged after {fit.evaluations} evaluations: "
            "give a `start`, tighter `bounds` or a `prior`, or look for bad quotes among the largest residuals."
        )
    elif status == "budget_exhausted":
        sentences.append("The budget ended the refinement: these are the best parameters so far.")
    if at_bounds:
        sentences.append(f"{', '.join(at_bounds)} ended on a bound and has no standard error.")
    free = [i for i, name in enumerate(model.parameters) if name not in (options.fixed or ())]
    if panel.n_quotes <= model.n_params:
        sentences.append(
            f"{panel.n_quotes} quotes cannot determine {model.n_params} parameters: no standard errors; "
            "hold some parameters with `fixed`, or give a `prior`."
        )
    elif len(at_bounds) < len(free) and all(math.isnan(error[i]) for i in free):
        sentences.append("The Jacobian is singular: the quotes do not determine the parameters; no standard errors.")
    else:
        loose = [i for i in free if error[i] > IDENTIFIED * abs(size[i])]
        if loose:
            relative = [100.0 * error[i] / abs(size[i]) if size[i] else math.inf for i in loose]
            named = [f"{model.parameters[i]} ({share:.0f} %)" for i, share in zip(loose, relative, strict=True)]
            sentences.append(f"The panel does not identify {', '.join(named)}: standard error in brackets.")
    if not several and len(free) > 2:
        sentences.append("One expiry does not tell kappa and theta apart from v0.")
    return " ".join(sentences) or None
