"""What is said of a fit besides its numbers: the sentences of `message`, and what a desk should look at."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from .arrays import IntVector, Vector
from .caution import Caution
from .compiled import careful
from .fits import IDENTIFIED, Fit, refined
from .models.model import Model
from .optimisers.objective import Problem
from .panel import OptionPanel

_POOR = 0.05
"""Mean distance of the vols from the quotes, as a share of them, from which on a fit is called poor."""
_NOTHING = 5e-4
"""Largest residual, in vol, of a fit of which nothing is to be said."""
_NEIGHBOURS = 4
_STALE_DEVIATIONS = 8.0
"""Robust standard deviations by which a quote, less the fit, differs from its neighbours before it is suspected."""
_STALE_SHARE = 0.1
"""And at least this share of its vol: below that it is what smiles do."""
_MANY_QUOTES = 120
"""Among more than these a wrong one drags no fit along."""
_FEW = 0.25
"""Share of the quotes up to which the others can say what the surface is without them."""


def message_of(
    fit: Fit,
    panel: OptionPanel,
    model: Model,
    at_bounds: tuple[str, ...],
    status: Literal["converged", "network_only", "budget_exhausted", "not_converged"],
    fixed: Mapping[str, float],
    with_prior: bool,
    unseen: tuple[int, ...] = (),
) -> str | None:
    """What a user should know before trusting the numbers; None when there is nothing.

    unseen  the model's factors, by their place, without which no vol would change
    """
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
        verb = "has" if len(at_bounds) == 1 else "have"
        sentences.append(f"{', '.join(at_bounds)} ended on a bound and {verb} no standard error.")
    meaningless: set[str] = set()
    for place in unseen:
        factor, names = model.factors[place], model.names_of(place)
        others = [name for name in names if name not in at_bounds and name not in fixed]
        meaningless.update(names)
        sentences.append(
            f"Without the {factor.noun} ({', '.join(names)}) no vol would change by 0.1 bp: the quotes say nothing of "
            f"{', '.join(others)}."
        )
    free = [i for i, name in enumerate(model.parameters) if name not in fixed and name not in meaningless]
    inside = [i for i in free if model.parameters[i] not in at_bounds]
    if panel.n_quotes <= len(free) and not with_prior:
        advice = "; give a `prior`." if fixed else "; hold some parameters with `fixed`, or give a `prior`."
        sentences.append(
            f"{panel.n_quotes} quotes leave nothing to tell the error of {len(free)} parameters by: no standard errors"
            f"{advice}"
        )
    elif inside and all(math.isnan(error[i]) for i in inside):
        sentences.append("The Jacobian is singular: the quotes do not determine the parameters; no standard errors.")
    else:
        loose = [i for i in inside if not error[i] <= IDENTIFIED * abs(size[i])]
        if loose:
            relative = [100.0 * error[i] / abs(size[i]) if size[i] else math.inf for i in loose]
            named = [f"{model.parameters[i]} ({share:.0f} %)" for i, share in zip(loose, relative, strict=True)]
            sentences.append(f"The panel does not identify {', '.join(named)}: standard error in brackets.")
    if not several and not with_prior:
        for place, factor in enumerate(model.factors):
            merged = [model.names_of(place)[factor.parameters.index(name)] for name in factor.merged]
            if merged and set(merged).isdisjoint(fixed):
                sentences.append(f"One expiry does not tell {' and '.join(merged[:-1])} apart from {merged[-1]}.")
    return " ".join(sentences) or None


def cautions_of(fit: Fit, panel: OptionPanel, problem: Problem | None) -> tuple[Caution, ...]:
    """What a desk should look at in the fit, which is of `problem`; None for a fit that is beyond doubt."""
    if fit.quality.max_abs <= _NOTHING:
        return ()
    if fit.quality.mean_relative <= _POOR and fit.quality.max_abs <= 2.0 * _STALE_SHARE * panel.mid.min():
        return ()
    cautions = []
    stale = _suspected(fit, panel, problem)
    if stale.size:
        given = sorted(panel.index[stale].tolist())
        some = ", ".join(map(str, given[:10])) + (", ..." if len(given) > 10 else "")
        detail = (
            f"{len(given)} quotes ({some}) are far from what their neighbours say: stale or wrong? Leave them out with "
            "`exclude`, or ask for `loss`: `huber`."
        )
        cautions.append(Caution("stale_quotes_suspected", detail, tuple(given)))
    if fit.quality.mean_relative > _POOR:
        detail = (
            f"The model's vols are {100.0 * fit.quality.mean_relative:.1f} % away from the quotes on average: the "
            "smile is of another shape, or quotes are wrong."
        )
        cautions.append(Caution("poor_fit", detail))
    return tuple(cautions)


def _suspected(fit: Fit, panel: OptionPanel, problem: Problem | None) -> IntVector:
    """The quotes that are unlike their neighbours, seen from a fit without them.

    A wrong quote drags the fit along: seen from there its neighbours look odd as well, one time in ten.
    """
    found = stale_quotes(fit.model_vol, panel)
    if problem is None or panel.n_quotes > _MANY_QUOTES or not 0 < found.size <= _FEW * panel.n_quotes:
        return found
    root_weight = problem.root_weight.copy()
    root_weight[found] = 0.0
    without = refined(problem._replace(root_weight=root_weight), fit.params)
    return stale_quotes(without.model_vol, panel)


def stale_quotes(model_vol: Vector, panel: OptionPanel) -> IntVector:
    """The quotes, by their place in the panel, that are unlike their neighbours.

    A model that misses a smile misses neighbours alike: what is looked at is by how much the ratio of quote and model
    differs from the median of that of its neighbours, against what such differences are in the rest of the panel. A
    model that dips where the smile is round, or runs flat where it is steep, leaves it all the same: a quote is only
    suspected if it is out of line among the quotes as well.
    """
    if panel.n_quotes < 2 * _NEIGHBOURS:
        return np.empty(0, np.int64)
    away = _unlike_neighbours(np.log(panel.mid / model_vol), panel.log_moneyness, panel.expiries, panel.offsets)
    usual = 1.4826 * np.median(away)
    least = math.log1p(_STALE_SHARE)
    suspected = (away > _STALE_DEVIATIONS * usual) & (away > least)
    if not suspected.any():
        return np.empty(0, np.int64)
    return np.flatnonzero(suspected & (_out_of_line(np.log(panel.mid), panel.log_moneyness, panel.offsets) > least))


@careful
def _unlike_neighbours(ratio: Vector, log_moneyness: Vector, expiries: Vector, offsets: IntVector) -> Vector:
    """Difference from the median of the two next strikes on each side and of the nearest one, in standard deviations,
    of the expiry before and after."""
    away = np.zeros(ratio.size)
    around = np.empty(_NEIGHBOURS + 2)
    for e in range(expiries.size):
        first, last = offsets[e], offsets[e + 1]
        for q in range(first, last):
            n = 0
            for j in range(max(q - 2, first), min(q + 3, last)):
                if j != q:
                    around[n] = ratio[j]
                    n += 1
            for other in (e - 1, e + 1):
                if 0 <= other < expiries.size:
                    strikes = log_moneyness[offsets[other] : offsets[other + 1]]
                    place = log_moneyness[q] * math.sqrt(expiries[other] / expiries[e])
                    j = min(np.searchsorted(strikes, place), strikes.size - 1)
                    if j > 0 and place - strikes[j - 1] < strikes[j] - place:
                        j -= 1
                    around[n] = ratio[offsets[other] + j]
                    n += 1
            if n > 1:
                away[q] = abs(ratio[q] - _median(around[:n]))
    return away


@careful
def _median(values: Vector) -> float:
    """Of a few values, which it sorts: numpy's is ten times slower on so few."""
    n = values.size
    for i in range(1, n):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
    return float(0.5 * (values[(n - 1) // 2] + values[n // 2]))


@careful
def _out_of_line(log_vol: Vector, log_moneyness: Vector, offsets: IntVector) -> Vector:
    """Distance from the line through the next strikes on either side, at the end of a smile through the next two;
    infinite in an expiry of less than three quotes."""
    away = np.full(log_vol.size, np.inf)
    for e in range(offsets.size - 1):
        first, last = offsets[e], offsets[e + 1]
        if last - first < 3:
            continue
        for q in range(first, last):
            near = q - 1 if q > first else q + 1
            far = q + 1 if first < q < last - 1 else 2 * near - q
            width = log_moneyness[far] - log_moneyness[near]
            share = (log_moneyness[q] - log_moneyness[near]) / width if width != 0.0 else 0.5
            away[q] = abs(log_vol[q] - log_vol[near] - share * (log_vol[far] - log_vol[near]))
    return away
