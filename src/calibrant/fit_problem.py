"""The problem that a panel, a model and the options of a request make, as the compiled optimisers want it."""

import math

import numpy as np

from .arrays import Vector
from .errors import InvalidInput, Problem
from .models.model import Model
from .optimisers.objective import Problem as FitProblem
from .options import CalibrationOptions, Prior
from .panel import OptionPanel
from .quote_cautions import tallied

_UNSPECIFIED_NOISE = 10e-4
"""Noise of quotes without spreads, against which a prior is weighed: 10 bp."""
_LEAST_DEVIATION = 1e-6
"""Of a prior, as a share of its parameter's range: below, it is a parameter held, for which there is `fixed`."""


def fit_problem(panel: OptionPanel, model: Model, options: CalibrationOptions) -> FitProblem:
    """The quotes, bounds and prior as the compiled optimisers want them.

    raises  InvalidInput if an option contradicts the model's bounds, or the model has no compiled factors
    """
    if model.layout.size == 0:
        needed = f"must be a model of compiled factors to be fitted: {model.name} can be priced only."
        raise InvalidInput(Problem.at(("model",), needed))
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


def require_enough(panel: OptionPanel, model: Model, options: CalibrationOptions) -> None:
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
