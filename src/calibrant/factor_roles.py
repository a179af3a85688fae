"""The factors of a fitted model: in their order, and those that add nothing."""

import numpy as np

from .fits import Fit, room_for
from .layout import VARIANCE
from .models.model import Model
from .optimisers.objective import ROUGH, Problem, evaluate

_UNSEEN_VOL = 1e-5
"""Largest change of a vol, 0.1 bp, by which a factor would be missed."""


def in_order(fit: Fit, problem: Problem, model: Model) -> Fit:
    """The fit with its variance factors from the fastest to the slowest, kappa1 > kappa2.

    Where bounds, held values or a prior tell the factors apart the request has given them their names: they stay.
    """
    which = [i for i, factor in enumerate(model.factors) if factor.kind == VARIANCE]
    speeds = [float(fit.params[model.slices[i].start]) for i in which]
    fastest_first = sorted(range(len(which)), key=lambda i: -speeds[i])
    if fastest_first == list(range(len(which))):
        return fit
    places = [np.arange(model.n_params)[own] for own in model.slices]
    asked = np.stack((problem.lower, problem.upper, problem.prior_mean, problem.prior_precision))
    if any(np.any(asked[:, places[i]] != asked[:, places[which[0]]]) for i in which):
        return fit
    order = list(range(len(model.factors)))
    for place, source in zip(which, fastest_first, strict=True):
        order[place] = which[source]
    index = np.concatenate([places[i] for i in order])
    return fit._replace(
        params=fit.params[index],
        jacobian=fit.jacobian[index],
        on_bound=fit.on_bound[index],
        standard_errors=fit.standard_errors[index],
        correlation=fit.correlation[np.ix_(index, index)],
    )


def unseen_factors(fit: Fit, problem: Problem, model: Model) -> tuple[int, ...]:
    """The factors, by their place, without which no vol of the panel would change."""
    unseen = []
    for i, (factor, own) in enumerate(zip(model.factors, model.slices, strict=True)):
        without = fit.params.copy()
        sizes = [own.start + factor.parameters.index(name) for name in factor.sizes]
        without[sizes] = 0.0
        if np.any(problem.lower[sizes] > 0.0):
            continue
        model_vol, residual, _ = room_for(problem)
        if np.isfinite(evaluate(without, problem, ROUGH, model_vol, residual, np.empty((0, residual.size)))):
            change = np.abs(model_vol - fit.model_vol).max()
            if change <= _UNSEEN_VOL:
                unseen.append(i)
    return tuple(unseen)
