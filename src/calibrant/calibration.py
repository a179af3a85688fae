"""Calibration: a panel of implied vols and some starts in, parameters with their error bars out."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from .arrays import Matrix, Vector
from .attempts import (
    Attempt,
    Work,
    attempts_of,
    best_of,
    ended_well,
    in_doubt,
    polished,
    race_first,
    rescaled,
    unrefined,
)
from .black import implied_volatility_from_time_value
from .caution import Caution
from .errors import InvalidInput
from .factor_roles import in_order, unseen_factors
from .fit_problem import fit_problem, require_enough
from .fits import Fit, first_fits, judged
from .group import PanelGroup
from .models.model import Model
from .optimisers.objective import CONVERGED, SETTLED
from .optimisers.objective import Problem as FitProblem
from .options import CalibrationOptions, Effort, Start, StartName
from .panel import Exclusion, OptionPanel, identifiable
from .pricing.fourier import value_steps
from .remarks import cautions_of, message_of
from .robust import sandwich_errors, spread_thresholds
from .steps import Steps, finish

Status = Literal["converged", "network_only", "budget_exhausted", "not_converged"]

_SETTLED = 1e3
"""Times its own error that a price of the accurate pricer must be for its vol to be one."""


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


def calibrate(
    panel: OptionPanel,
    model: Model,
    starts: Sequence[Start],
    options: CalibrationOptions | None = None,
    begun: Fit | None = None,
    effort: Effort | None = None,
) -> Calibration:
    """Fit `model` to `panel` by least squares in implied vol.

    panel    the quotes; those whose vega is below the floor of `panel.identifiable` are left out and reported
    starts   proposals, the network's first. Without any, or where the answer of the best of them is in doubt (see
             `attempts.in_doubt`), starts read off the surface join in
    begun    what `begin` made of this panel, starts and options
    returns  the best fit found; a fit that fails is a `status` and a `message`, never an exception
    raises   InvalidInput if the quotes are fewer than the parameters to be found and there is no prior, or if an option
             contradicts the model's bounds
    """
    return finish(calibration_steps(panel, model, starts, options, begun, effort))


def calibration_steps(
    panel: OptionPanel,
    model: Model,
    starts: Sequence[Start],
    options: CalibrationOptions | None = None,
    begun: Fit | None = None,
    effort: Effort | None = None,
) -> Steps[Calibration]:
    """`calibrate`, a step at a time: told that it is enough, it ends with the best so far, `budget_exhausted`."""
    options, effort = options or CalibrationOptions(), effort or Effort()
    used = identifiable(panel)
    require_enough(used, model, options)
    doubted = begun is not None and effort.second_opinion and in_doubt(begun, starts, used.scales.offsets)
    if begun is not None and begun.outcome == CONVERGED and not doubted:
        return _report(Attempt(starts[0].name, begun), used, model, options, "converged", 1, None)
    problem = fit_problem(used, model, options)
    if options.refine == "none":
        return _report(unrefined(problem, starts), used, model, options, "network_only", 0, problem)
    work = Work(used.n_quotes, len(model.factors), effort.max_work)
    if options.loss == "huber" and used.weights_from == "spreads":
        problem = problem._replace(huber=spread_thresholds(used))
    attempts, n_starts = yield from attempts_of(problem, starts, options.refine, effort, begun, work)
    best = best_of(attempts)
    if options.loss == "huber" and used.weights_from != "spreads":
        problem, best = yield from rescaled(problem, best, options.refine, work)
    if not (work.ended or ended_well(best.fit)):
        best = best._replace(fit=polished(best.fit, problem))
    if work.ended:
        status: Status = "budget_exhausted"
    else:
        status = "converged" if best.fit.outcome in (CONVERGED, SETTLED) else "not_converged"
    return _report(best, used, model, options, status, n_starts, problem)


def begin(
    group: PanelGroup,
    model: Model,
    starts: Sequence[Vector | None],
    options: Sequence[CalibrationOptions],
    effort: Effort | None = None,
) -> list[Fit | None]:
    """What `calibrate` does first, for many panels in one compiled call: it leaves the interpreter to other threads.

    starts   of each panel the parameters of its only start; None for a panel with another number of them
    options  of each panel, as `calibrate` takes them
    returns  for each panel what `calibrate` goes on from, which changes nothing but where the time is spent; None where
             the panel or its options are out of the ordinary
    """
    effort = effort or Effort()
    whole: list[Vector | None] = [None] * len(group)
    trimmed: dict[int, tuple[OptionPanel, Vector]] = {}
    plain = CalibrationOptions()
    for i, (panel, start, o) in enumerate(zip(group.panels, starts, options, strict=True)):
        ordinary = (o.refine, o.loss) == (plain.refine, plain.loss) and o.bounds is None and o.prior is None
        if start is None or not ordinary or o.fixed or race_first(panel.n_quotes, model.n_params, effort):
            continue
        try:
            used = identifiable(panel)
        except InvalidInput:
            continue
        if used is panel:
            whole[i] = start
        elif not race_first(used.n_quotes, model.n_params, effort):
            trimmed[i] = used, start
    fits = first_fits(group, model, whole)
    if trimmed:
        panels, from_there = zip(*trimmed.values(), strict=True)
        for i, fit in zip(trimmed, first_fits(PanelGroup(panels), model, from_there), strict=True):
            fits[i] = fit
    return fits


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
    attempt: Attempt,
    panel: OptionPanel,
    model: Model,
    options: CalibrationOptions,
    status: Status,
    n_starts: int,
    problem: FitProblem | None,
) -> Calibration:
    fit = attempt.fit
    unseen: tuple[int, ...] = ()
    if problem is not None and len(model.factors) > 1:
        fit = in_order(fit, problem, model)
        unseen = unseen_factors(fit, problem, model)
    if fit.n_unknown > 0 and problem is not None:
        fit = _known(fit, problem, model)
    errors, correlation = fit.standard_errors, fit.correlation
    if options.loss == "huber" and problem is not None:
        errors, correlation = sandwich_errors(fit, problem)
    if unseen:
        # What nobody sees is not known, however sharp its column may look where it vanishes.
        known = np.ones(model.n_params, np.bool_)
        for place in unseen:
            known[model.slices[place]] = False
        errors = np.where(known, errors, np.nan)
        correlation = np.where(np.outer(known, known), correlation, np.nan)
    at_bounds: tuple[str, ...] = ()
    if fit.n_on_bound or unseen:
        absent = {name for place in unseen for name in model.sizes_of(place)}
        at_bounds = tuple(n for n, on in zip(model.parameters, fit.on_bound, strict=True) if on or n in absent)
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
        message=message_of(
            fit, panel, model, at_bounds, status, options.fixed or {}, options.prior is not None, unseen
        ),
        start=attempt.start,
        iterations=fit.evaluations,
        n_starts=n_starts,
        at_bounds=at_bounds,
        cautions=cautions_of(fit, panel, problem),
        noise_bp=None if problem is None or options.prior is None else 1e4 * math.sqrt(problem.noise_variance),
    )
