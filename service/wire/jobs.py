"""The schema to the library's types, with every complaint pointing at its field."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibrant.arrays import Matrix, Vector, column_of
from calibrant.calibrate import CalibrationOptions, Prior
from calibrant.errors import InvalidInput, Path, Problem, shown
from calibrant.models import MODELS
from calibrant.models.model import Model
from calibrant.panel import OptionPanel

from ..engine import CalibrationJob, PriceJob
from ..errors import InvalidRequest
from . import schema
from .json import decode
from .validation import beneath

_COLUMNS = tuple(schema.Quotes.model_fields)
_LEAST_DEVIATION = 1e-6
"""Of a parameter's admissible range: `fixed` says what a smaller deviation would, and its square is still a number."""


def calibration_job(request: schema.CalibrateRequest, deadline: float | None) -> CalibrationJob:
    """What the engine is asked to do; `deadline` on the clock of `time.perf_counter`."""
    model = model_named(request.model)
    quotes: dict[str, Any] = {
        name: column_of(values) if isinstance(values, list) else values
        for name in _COLUMNS
        if (values := getattr(request.quotes, name)) is not None
    }
    panel = OptionPanel.from_quotes(**quotes, exclude=request.exclude)
    bounds = None if request.bounds is None else bounds_of(model, request.bounds)
    fixed = None if request.fixed is None else held_of(model, request.fixed, ("fixed",))
    prior = None if request.prior is None else prior_of(model, request.prior, ("prior",))
    options = CalibrationOptions(refine=request.refine, bounds=bounds, fixed=fixed, prior=prior, loss=request.loss)
    given = None if request.start is None else parameters_of(model, request.start, ("start",))
    return CalibrationJob(model=model, panel=panel, options=options, given=given, deadline=deadline)


def price_job(request: schema.PriceRequest) -> PriceJob:
    model = model_named(request.model)
    n = len(request.expiry)
    if len(request.log_moneyness) != n:
        needed = f"must have as many values as `expiry` ({n}), but has {len(request.log_moneyness)}."
        raise InvalidInput(Problem.at(("log_moneyness",), needed))
    return PriceJob(
        model=model,
        params=parameters_of(model, request.parameters, ("parameters",)),
        expiry=np.array(request.expiry, np.float64),
        log_moneyness=np.array(request.log_moneyness, np.float64),
        gradient=request.gradient,
    )


def model_named(name: str) -> Model:
    if name not in MODELS:
        needed = ", ".join(f"'{known}'" for known in MODELS)
        raise InvalidInput(Problem.at(("model",), f"must be one of {needed}, but is {shown(name)!r}."))
    return MODELS[name]


def parameters_of(model: Model, given: Mapping[str, float], path: Path) -> Vector:
    """All of the model's parameters, in its order, each inside the admissible bounds."""
    held = held_of(model, given, path, model.parameters)
    return np.array([held[name] for name in model.parameters])


def held_of(model: Model, given: Mapping[str, float], path: Path, needed: Sequence[str] = ()) -> dict[str, float]:
    """Some of the model's parameters, at least those needed, each inside the admissible bounds."""
    absent = [Problem.at((*path, name), "is required, but is absent.") for name in needed if name not in given]
    problems = [*_unknown(model, given, path), *absent, *_outside(model, given, path)]
    if problems:
        raise InvalidInput(*problems)
    return dict(given)


def bounds_of(model: Model, given: Mapping[str, tuple[float, float]]) -> Matrix:
    """Lower and upper bound of every parameter (n_params, 2): the pairs given, else the admissible ones."""
    problems = _unknown(model, given, ("bounds",))
    bounds = np.column_stack((model.lower, model.upper))
    for i, name in enumerate(model.parameters):
        if name not in given:
            continue
        low, high = given[name]
        least, most = bounds[i]
        if not least <= low < high <= most:
            needed = f"must be a rising pair within [{least:g}, {most:g}], but is [{low:g}, {high:g}]."
            problems.append(Problem.at(("bounds", name), needed))
        bounds[i] = low, high
    if problems:
        raise InvalidInput(*problems)
    return bounds


def prior_of(model: Model, given: schema.Prior, path: Path) -> Prior:
    """Means and standard deviations in the model's order; a parameter without one has an infinite deviation."""
    means, deviations = given.parameters, given.standard_deviations
    problems = _unknown(model, means, (*path, "parameters")) + _outside(model, means, (*path, "parameters"))
    problems += _unknown(model, deviations, (*path, "standard_deviations"))
    for name in sorted(means.keys() ^ deviations.keys()):
        half = "standard_deviations" if name in means else "parameters"
        problems.append(Problem.at((*path, half, name), "is required, but is absent."))
    for name, low, high in zip(model.parameters, model.lower, model.upper, strict=True):
        least = _LEAST_DEVIATION * (high - low)
        if name in deviations and deviations[name] < least:
            needed = f"must be at least {least:g}, a millionth of the admissible range, but is {deviations[name]:g}."
            problems.append(Problem.at((*path, "standard_deviations", name), needed))
    if problems:
        raise InvalidInput(*problems)
    return Prior(
        parameters=np.array([means.get(name, 0.0) for name in model.parameters]),
        standard_deviations=np.array([deviations.get(name, math.inf) for name in model.parameters]),
        noise_bp=given.noise_bp,
    )


def prior_in_text(model: Model, text: str, path: Path) -> Prior:
    """A `schema.Prior` as a string of JSON, for formats whose options are plain strings and numbers."""
    try:
        given = decode(text.encode(errors="replace"), schema.Prior)
    except InvalidRequest as error:
        raise beneath(path, error.problems) from None
    return prior_of(model, given, path)


def _unknown(model: Model, given: Mapping[str, object], path: Path) -> list[Problem]:
    names = ", ".join(model.parameters)
    return [
        Problem.at((*path, name), f"is not a parameter of {model.name} ({names}).")
        for name in given
        if name not in model.parameters
    ]


def _outside(model: Model, given: Mapping[str, float], path: Path) -> list[Problem]:
    limits = zip(model.parameters, model.lower, model.upper, strict=True)
    return [
        Problem.at((*path, name), f"must be within [{low:g}, {high:g}], but is {given[name]:g}.")
        for name, low, high in limits
        if name in given and not low <= given[name] <= high
    ]
