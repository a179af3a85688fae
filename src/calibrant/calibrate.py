"""Calibration: a panel of implied vols and some starts in, parameters with their error bars out.

The first proposal is refined on the panel as it is. A good fit from inside a network's training domain is the answer;
any other is in doubt, whoever proposed it: real panels are fitted poorly as a rule, and no poor fit tells of itself
whether there is a better one. Then `search` races all starts on a sketch of the panel, and what it finds besides is
refined too. Where a panel is large the race comes first, and only its winners are refined on all quotes.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .arrays import Matrix, Vector
from .black import implied_volatility_from_time_value
from .caution import Caution
from .errors import InvalidInput, Problem
from .fits import Fit, Method, first_fits, judged, refined, room_again, room_for
from .group import PanelGroup
from .models.model import Model
from .nesting import extended, nested_in
from .optimisers.levenberg_marquardt import memory_for
from .optimisers.newton import polish
from .optimisers.objective import CONVERGED, FINE, OUT_OF_ITERATIONS, SETTLED, evaluate
from .optimisers.objective import Problem as FitProblem
from .panel import Exclusion, OptionPanel, identifiable
from .pricing.fourier import value_steps
from .quote_cautions import tallied
from .remarks import cautions_of, message_of
from .robust import residual_thresholds, sandwich_errors, spread_thresholds
from .search import Optimum, distinct_optima
from .starts import N_KINDS, objective_at, surface_starts
from .steps import Progress, Steps, finish

StartName = Literal["network", "fallback", "given"]
Refine = Literal["lm", "lbfgs", "none"]
Loss = Literal["squared", "huber"]
Status = Literal["converged", "network_only", "budget_exhausted", "not_converged"]

MAX_WORK = 300_000.0
"""About a second's worth."""
_QUOTES_OF_A_BUDGET = 1000.0
_MAX_EVALUATIONS = 200
"""Of one refinement."""
_TRUSTED_RMSE = 10e-4
"""A fit this good from a start inside the training domain needs no second opinion."""
_SAME_OPTIMUM = 1e-6
_UNSPECIFIED_NOISE = 10e-4
"""Noise of quotes without spreads, against which a prior is weighed: 10 bp."""
_LEAST_DEVIATION = 1e-6
"""Of a prior, as a share of its parameter's range: below, it is a parameter held, for which there is `fixed`."""
_LARGE_PANEL = 120
"""Quotes from which on the race comes first: it costs what two or three evaluations of such a panel do."""
_SETTLED = 1e3
"""Times its own error that a price of the accurate pricer must be for its vol to be one."""
_RESCALINGS = 6
_SAME_SCALE = 0.01


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
    """Sum of weight (model vol - mid vol)^2, or Huber's loss, and the prior's term; the mean weight is one."""
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
    n_starts: int
    """Starts tried, on the panel or on a sketch of it: more than one where the first answer was not beyond doubt."""
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

    def __init__(self, n_quotes: int, most: float) -> None:
        self._spent = 0.0
        self._limit = most * max(1.0, n_quotes / _QUOTES_OF_A_BUDGET)
        self.ended = False
        """No more is to be spent: the budget is, or the driver has said that it is enough."""

    def step(self, quote_evaluations: float) -> Generator[Progress, bool, None]:
        """Count a step, and let the driver look up."""
        self._spent += quote_evaluations
        enough = yield Progress(self._spent, self._limit)
        self.ended = self.ended or enough is True or self._spent >= self._limit


def calibrate(
    panel: OptionPanel,
    model: Model,
    starts: Sequence[Start],
    options: CalibrationOptions | None = None,
    begun: Fit | None = None,
) -> Calibration:
    """Fit `model` to `panel` by least squares in implied vol.

    panel    the quotes; those whose vega is below the floor of `panel.identifiable` are left out and reported
    starts   proposals, the network's first. Without any, or where the answer of the best of them is in doubt (see
             `_doubtful`), starts read off the surface join in
    begun    what `begin` made of this panel, starts and options
    returns  the best fit found; a fit that fails is a `status` and a `message`, never an exception
    raises   InvalidInput if the quotes are fewer than the parameters to be found and there is no prior, or if an option
             contradicts the model's bounds
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
    _require_enough(used, model, options)
    if begun is not None and begun.outcome == CONVERGED and not (options.second_opinion and _doubtful(begun, options)):
        return _report(_Attempt(starts[0].name, begun), used, model, options, "converged", 1, None)
    problem = fit_problem(used, model, options)
    if options.refine == "none":
        return _report(_unrefined(problem, starts), used, model, options, "network_only", 0, problem)
    work = _Work(used.n_quotes, options.max_work)
    if options.loss == "huber" and used.weights_from == "spreads":
        problem = problem._replace(huber=spread_thresholds(used))
    attempts, n_starts = yield from _attempts(problem, starts, options, begun, work)
    best = _best(attempts)
    if options.loss == "huber" and used.weights_from != "spreads":
        problem, best = yield from _rescaled(problem, best, options, work)
    if best.fit.outcome != CONVERGED and not work.ended:
        best = best._replace(fit=_polished(best.fit, problem))
    if work.ended:
        status: Status = "budget_exhausted"
    else:
        status = "converged" if best.fit.outcome in (CONVERGED, SETTLED) else "not_converged"
    return _report(best, used, model, options, status, n_starts, problem)


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
    plain = CalibrationOptions()
    for i, (panel, start, o) in enumerate(zip(group.panels, starts, options, strict=True)):
        ordinary = (o.refine, o.loss) == (plain.refine, plain.loss) and o.bounds is None and o.prior is None
        if start is None or not ordinary or o.fixed or _race_first(panel, o):
            continue
        try:
            used = identifiable(panel)
        except InvalidInput:
            continue
        if used is panel:
            whole[i] = start
        elif not _race_first(used, o):
            trimmed[i] = used, start
    fits = first_fits(group, model, whole)
    if trimmed:
        panels, from_there = zip(*trimmed.values(), strict=True)
        for i, fit in zip(trimmed, first_fits(PanelGroup(panels), model, from_there), strict=True):
            fits[i] = fit
    return fits


def fit_problem(panel: OptionPanel, model: Model, options: CalibrationOptions) -> FitProblem:
    """The quotes, bounds and prior as the compiled optimisers want them.

    raises  InvalidInput if an option contradicts the model's bounds
    """
    lower, upper = _limits(model, options)
    mean = precision = np.zeros(model.n_params)
    noise = 0.0
    if options.prior is not None:
        noise = _noise(panel, options.prior)
        mean, deviations = _checked(options.prior, model)
        precision = (noise / deviations) ** 2
    scales = panel.scales
    return FitProblem(
        model.layout,
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
        np.full(panel.n_quotes, np.inf),
        noise * noise,
    )


def _limits(model: Model, options: CalibrationOptions) -> tuple[Vector, Vector]:
    """Lower and upper bounds, equal for what is held."""
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
    return lower, upper


def _noise(panel: OptionPanel, prior: Prior) -> float:
    """Standard deviation of the vol of a quote of weight one: as given, else half the spreads, else 10 bp."""
    if prior.noise_bp is not None:
        if not 0.0 < prior.noise_bp < math.inf:
            raise InvalidInput(
                Problem.at(("prior", "noise_bp"), f"must be a finite number > 0, but is {prior.noise_bp}.")
            )
        return 1e-4 * prior.noise_bp
    if panel.weights_from == "spreads":
        return 0.5 / math.sqrt(panel.weight.mean())
    return _UNSPECIFIED_NOISE


def _checked(prior: Prior, model: Model) -> tuple[Vector, Vector]:
    """Means and standard deviations."""
    problems = []
    for i, name in enumerate(model.parameters):
        mean, deviation = float(prior.parameters[i]), float(prior.standard_deviations[i])
        if deviation == math.inf:
            continue
        low, high = float(model.lower[i]), float(model.upper[i])
        if not low <= mean <= high:
            needed = f"must be within [{low:g}, {high:g}], but is {mean:g}."
            problems.append(Problem.at(("prior", "parameters", name), needed))
        if not deviation >= _LEAST_DEVIATION * (high - low):
            needed = (
                f"must be at least {_LEAST_DEVIATION * (high - low):g}, a millionth of the parameter's range, but is "
                f"{deviation:g}; `fixed` holds a parameter."
            )
            problems.append(Problem.at(("prior", "standard_deviations", name), needed))
    if problems:
        raise InvalidInput(*problems)
    return np.where(np.isfinite(prior.standard_deviations), prior.parameters, 0.0), prior.standard_deviations


def _require_enough(panel: OptionPanel, model: Model, options: CalibrationOptions) -> None:
    """raises  InvalidInput where there are fewer quotes than parameters to be found, and no prior"""
    n_free = model.n_params - len(options.fixed or ())
    if panel.n_quotes >= n_free or options.prior is not None:
        return
    counts = tallied(exclusion.reason for exclusion in panel.excluded)
    left_out = f" ({len(panel.excluded)} left out: {counts})" if counts else ""
    raise InvalidInput(
        Problem.at(
            ("quotes",),
            f"must hold at least {n_free} usable quotes for {n_free} free parameters, but holds {panel.n_quotes}"
            f"{left_out}. Hold some parameters with `fixed`, or give a `prior`.",
        )
    )


def _attempts(
    problem: FitProblem, proposals: Sequence[Start], options: CalibrationOptions, begun: Fit | None, work: _Work
) -> Steps[tuple[list[_Attempt], int]]:
    """The fits of all optima that may be the best, as many of them as there is time for, one at least; and the starts
    that were tried."""
    n_quotes = problem.vol.size
    starts = list(proposals)
    if options.prior is not None:
        # Where the prior is narrow the optimum is beside its means, wherever the network starts.
        named = problem.prior_precision > 0.0
        starts += [s._replace(params=np.where(named, problem.prior_mean, s.params)) for s in proposals]
    attempts: list[_Attempt] = []
    if starts and (begun is not None or not options.second_opinion or n_quotes < _LARGE_PANEL):
        best = starts[0]
        if len(starts) > 1:
            best = min(starts, key=lambda s: objective_at(problem, _inside(s.params, problem)))
            yield from work.step(n_quotes * len(starts))
        attempts.append((yield from _refine(problem, best, options, work, begun)))
        if work.ended or not (options.second_opinion and _doubtful(attempts[0].fit, options)):
            return attempts, 1
        # Where it led stands in the race for where it began.
        starts = [Start(best.name, attempts[0].fit.params)]
    embedded, candidates = yield from _from_nested(problem, work)
    starts += [Start("fallback", params) for params in embedded]
    proposed = np.array([_inside(start.params, problem) for start in starts]).reshape(-1, problem.lower.size)
    optima, spent = distinct_optima(problem, proposed, candidates)
    yield from work.step(spent)
    for optimum in optima:
        if attempts and (work.ended or not _promises(problem, optimum, attempts[0].fit)):
            continue
        name = starts[optimum.start].name if optimum.start < len(starts) else "fallback"
        start = Start(name, optimum.params)
        attempts.append((yield from _refine(problem, start, options, work)))
    lowest = min(attempt.fit.objective for attempt in attempts)
    for params in embedded:
        # A smaller model's optimum is one of this model's fits: the answer is never worse.
        if objective_at(problem, params) < lowest * (1.0 + _SAME_OPTIMUM) and not work.ended:
            attempts.append((yield from _refine(problem, Start("fallback", params), options, work)))
    return attempts, len(starts) + (N_KINDS if candidates is None else len(candidates))


def _from_nested(problem: FitProblem, work: _Work) -> Steps[tuple[list[Vector], Matrix | None]]:
    """The optima of the models nested in this one, as its parameters, and starts from there; None without any."""
    if problem.layout.size == 1:
        return [], None
    embedded, candidates = [], []
    for nested in nested_in(problem):
        optimum = yield from _optimum(nested.problem, work)
        embedded.append(nested.embedded(optimum))
        candidates.append(extended(nested, problem, optimum))
    return embedded, np.concatenate(candidates)


def _optimum(problem: FitProblem, work: _Work) -> Steps[Vector]:
    """The best fit of a nested model, from nothing but the surface."""
    plain = CalibrationOptions()
    attempts, _ = yield from _attempts(problem, [], plain, None, work)
    return _best(attempts).fit.params


def _promises(problem: FitProblem, optimum: Optimum, first: Fit) -> bool:
    """Whether an optimum of the sketch may be better than the first fit: another, or one that came of it and left."""
    if optimum.start > 0:
        return True
    return objective_at(problem, optimum.params) < first.objective * (1.0 - _SAME_OPTIMUM)


def _race_first(panel: OptionPanel, options: CalibrationOptions) -> bool:
    """Whether a panel is too large to be refined from a start that may turn out to be the wrong one."""
    return options.second_opinion and panel.n_quotes >= _LARGE_PANEL


def _best(attempts: Sequence[_Attempt]) -> _Attempt:
    """Of starts that lead to one optimum the first is named, whatever the rounding of the last digits says."""
    best = attempts[0]
    for attempt in attempts:
        if attempt.fit.objective < best.fit.objective * (1.0 - _SAME_OPTIMUM):
            best = attempt
    return best


def _inside(params: Vector, problem: FitProblem) -> Vector:
    """A copy inside the bounds."""
    return np.minimum(np.maximum(params, problem.lower), problem.upper)


def _unrefined(problem: FitProblem, proposals: Sequence[Start]) -> _Attempt:
    start = proposals[0] if proposals else Start("fallback", surface_starts(problem)[0])
    params, arrays = _inside(start.params, problem), room_for(problem)
    objective = float(evaluate(params, problem, FINE, *arrays))
    memory = memory_for(params.size)
    return _Attempt(start.name, judged(problem, params, objective, 0, OUT_OF_ITERATIONS, memory, arrays))


def _refine(
    problem: FitProblem,
    start: Start,
    options: CalibrationOptions,
    work: _Work,
    begun: Fit | None = None,
) -> Steps[_Attempt]:
    """L-BFGS, where it is asked for, and in any case Levenberg-Marquardt: only that has all digits."""
    at: Vector | Fit = start.params
    done = 0
    if options.refine == "lbfgs":
        fit = yield from _descended(problem, at, "lbfgs", work)
        if work.ended:
            return _Attempt(start.name, fit)
        at, done = fit.params, fit.evaluations
    if begun is not None:
        at = begun
    fit = yield from _descended(problem, at, "lm", work)
    return _Attempt(start.name, fit._replace(evaluations=done + fit.evaluations))


def _descended(problem: FitProblem, at: Vector | Fit, method: Method, work: _Work) -> Steps[Fit]:
    """A descent from a start, or on from where one stands, to its end or to `_MAX_EVALUATIONS`."""
    fit = at if isinstance(at, Fit) else refined(problem, at, method)
    yield from work.step(fit.evaluations * problem.vol.size)
    while not work.ended and fit.outcome == OUT_OF_ITERATIONS and fit.evaluations < _MAX_EVALUATIONS:
        before = fit.evaluations
        fit = refined(problem, fit, method)
        yield from work.step((fit.evaluations - before) * problem.vol.size)
    if fit.outcome == OUT_OF_ITERATIONS:
        arrays = fit.model_vol, fit.residual, fit.jacobian
        fit = judged(problem, fit.params, fit.objective, fit.evaluations, fit.outcome, fit.memory, arrays)
    return fit


def _rescaled(
    problem: FitProblem, best: _Attempt, options: CalibrationOptions, work: _Work
) -> Steps[tuple[FitProblem, _Attempt]]:
    """Huber's loss with the scale of the fit's own residuals: the two are found in turns."""
    before = 0.0
    for _ in range(_RESCALINGS):
        if work.ended:
            break
        thresholds = residual_thresholds(best.fit, problem)
        problem = problem._replace(huber=thresholds)
        best = yield from _refine(problem, Start(best.start, best.fit.params), options, work)
        scale = float(thresholds[0])
        if abs(scale - before) <= _SAME_SCALE * before:
            break
        before = scale
    return problem, best


def _polished(fit: Fit, problem: FitProblem) -> Fit:
    """The fit with all its digits; where there are no more to be had, as it was."""
    params, arrays = fit.params.copy(), room_again(fit)
    objective, evaluations, outcome = polish(params, problem, *arrays)
    if outcome != CONVERGED and fit.outcome != SETTLED:
        outcome = fit.outcome
    return judged(problem, params, objective, fit.evaluations + evaluations, outcome, fit.memory, arrays)


def _doubtful(fit: Fit, options: CalibrationOptions) -> bool:
    """Whether an answer wants a second opinion. It uses nothing but the request and the fit."""
    return (
        not options.trusted
        or fit.outcome not in (CONVERGED, SETTLED)
        or fit.n_on_bound > 0
        or fit.n_unknown > 0
        or fit.quality.rmse > _TRUSTED_RMSE
    )


def _known(fit: Fit, problem: FitProblem, model: Model) -> Fit:
    """The fit with the accurate pricer's vols of those quotes that the fit kernel cannot price: it took a vol nearer to
    the market for them."""
    unknown = np.flatnonzero(~fit.jacobian.any(axis=0))
    k, t = problem.log_moneyness[unknown], problem.root_expiry[unknown] ** 2
    values = finish(value_steps(model, k, t, fit.params))
    vols = implied_volatility_from_time_value(values.time_value, k, t).volatility
    found = np.isfinite(vols) & (values.time_value > _SETTLED * values.error)
    model_vol = fit.model_vol.copy()
    model_vol[unknown[found]] = vols[found]
    residual = fit.residual.copy()
    residual[unknown] = problem.root_weight[unknown] * (model_vol - problem.vol)[unknown]
    objective = fit.objective + float(residual @ residual - fit.residual @ fit.residual)
    arrays = model_vol, residual, fit.jacobian
    return judged(problem, fit.params, objective, fit.evaluations, fit.outcome, fit.memory, arrays)


def _report(
    attempt: _Attempt,
    panel: OptionPanel,
    model: Model,
    options: CalibrationOptions,
    status: Status,
    n_starts: int,
    problem: FitProblem | None,
) -> Calibration:
    fit = attempt.fit
    if fit.n_unknown > 0 and problem is not None:
        fit = _known(fit, problem, model)
    errors, correlation = fit.standard_errors, fit.correlation
    if options.loss == "huber" and problem is not None:
        errors, correlation = sandwich_errors(fit, problem)
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
        message=message_of(fit, panel, model, at_bounds, status, options.fixed or {}, options.prior is not None),
        start=attempt.start,
        iterations=fit.evaluations,
        n_starts=n_starts,
        at_bounds=at_bounds,
        cautions=cautions_of(fit, panel, problem),
        noise_bp=None if problem is None or options.prior is None else 1e4 * math.sqrt(problem.noise_variance),
    )
