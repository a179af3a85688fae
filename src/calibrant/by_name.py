"""What is said of a model by the names of its parameters, turned into the vectors that the library works with.

Requests over the wire and callers in Python say it in the same way, and are refused in the same words: `InvalidInput`
with every problem found, each under the name of its field or argument.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from .arrays import Matrix, Vector
from .errors import InvalidInput, Path, Problem, shown
from .models import MODELS
from .models.model import Model
from .options import Prior

_LEAST_DEVIATION = 1e-6
"""Of a parameter's admissible range: `fixed` says what a smaller deviation would, and its square is still a number."""
_LEAST_NOISE_BP, _MOST_NOISE_BP = 1e-6, 1e6
"""Between the rounding of a model vol and a hundred whole vols, so that the objective stays a number."""
_HALVES_OF_PRIOR = ("parameters", "standard_deviations")


def model_named(model: str | Model) -> Model:
    """The model of that name; a model is itself."""
    if isinstance(model, Model):
        return model
    if not isinstance(model, str) or model not in MODELS:
        needed = ", ".join(f"'{known}'" for known in MODELS)
        raise InvalidInput(Problem.at(("model",), f"must be one of {needed}, but is {shown(model)!r}."))
    return MODELS[model]


def parameters_of(model: Model, given: Mapping[str, float], path: Path) -> Vector:
    """All of the model's parameters, in its order, each inside the admissible bounds."""
    values, problems = _read(model, given, path)
    problems += [
        Problem.at((*path, name), "is required, but is absent.") for name in model.parameters if name not in given
    ]
    problems += _outside(model, values, path)
    if problems:
        raise InvalidInput(*problems)
    return np.array([values[name] for name in model.parameters])


def held_of(model: Model, given: Mapping[str, float], path: Path) -> dict[str, float]:
    """Some of the model's parameters, each inside the admissible bounds."""
    values, problems = _read(model, given, path)
    problems += _outside(model, values, path)
    if problems:
        raise InvalidInput(*problems)
    return values


def bounds_of(model: Model, given: Mapping[str, Sequence[float]], path: Path) -> Matrix:
    """Lower and upper bound of every parameter (n_params, 2): the pairs given, else the admissible ones."""
    problems = _unknown(model, _mapping(given, path, "pairs of numbers"), path)
    bounds = np.column_stack((model.lower, model.upper))
    for i, name in enumerate(model.parameters):
        if name not in given:
            continue
        least, most = bounds[i]
        pair = _pair(given[name])
        if pair is None:
            problems.append(Problem.at((*path, name), f"must be a pair of numbers, but is {shown(given[name])!r}."))
        elif not least <= pair[0] < pair[1] <= most:
            needed = f"must be a rising pair within [{least:g}, {most:g}], but is [{pair[0]:g}, {pair[1]:g}]."
            problems.append(Problem.at((*path, name), needed))
        else:
            bounds[i] = pair
    if problems:
        raise InvalidInput(*problems)
    return bounds


def prior_of(model: Model, given: Mapping[str, object], path: Path) -> Prior:
    """Means and standard deviations in the model's order; a parameter without one has an infinite deviation.

    given  `parameters` and `standard_deviations` by name, and `noise_bp`, which may be absent or None
    """
    given = _mapping(given, path, "`parameters` and `standard_deviations`")
    halves: list[dict[str, float]] = []
    problems = [
        Problem.at((*path, str(name)), "is not a field of a prior.")
        for name in given
        if name not in (*_HALVES_OF_PRIOR, "noise_bp")
    ]
    for half in _HALVES_OF_PRIOR:
        if half not in given:
            raise InvalidInput(*problems, Problem.at((*path, half), "is required, but is absent."))
        values, found = _read(model, given[half], (*path, half))
        problems += found
        halves.append(values)
    means, deviations = halves
    problems += _outside(model, means, (*path, "parameters"))
    for name in model.parameters:
        said = [isinstance(half, Mapping) and name in half for half in map(given.get, _HALVES_OF_PRIOR)]
        if said[0] != said[1]:
            problems.append(Problem.at((*path, _HALVES_OF_PRIOR[said[0]], name), "is required, but is absent."))
    for name, low, high in zip(model.parameters, model.lower, model.upper, strict=True):
        least = _LEAST_DEVIATION * (high - low)
        if name in deviations and deviations[name] < least:
            needed = f"must be at least {least:g}, a millionth of the admissible range, but is {deviations[name]:g}."
            problems.append(Problem.at((*path, "standard_deviations", name), needed))
    noise_bp = _number(given.get("noise_bp"))
    if given.get("noise_bp") is not None and (noise_bp is None or not _LEAST_NOISE_BP <= noise_bp <= _MOST_NOISE_BP):
        came = shown(given["noise_bp"]) if noise_bp is None else f"{noise_bp:g}"
        needed = f"must be within [{_LEAST_NOISE_BP:g}, {_MOST_NOISE_BP:g}], but is {came}."
        problems.append(Problem.at((*path, "noise_bp"), needed))
    if problems:
        raise InvalidInput(*problems)
    return Prior(
        parameters=np.array([means.get(name, 0.0) for name in model.parameters]),
        standard_deviations=np.array([deviations.get(name, math.inf) for name in model.parameters]),
        noise_bp=noise_bp,
    )


def _read(model: Model, given: object, path: Path) -> tuple[dict[str, float], list[Problem]]:
    """The finite numbers among what is given for parameters of the model, and what is wrong with the others."""
    values: dict[str, float] = {}
    mapping = _mapping(given, path, "numbers")
    problems = _unknown(model, mapping, path)
    for name in model.parameters:
        if name not in mapping:
            continue
        value = _number(mapping[name])
        if value is None:
            needed = f"must be a finite number, but is {shown(mapping[name])!r}."
            problems.append(Problem.at((*path, name), needed))
        else:
            values[name] = value
    return values, problems


def _mapping(given: object, path: Path, of: str) -> Mapping[str, object]:
    if not isinstance(given, Mapping):
        raise InvalidInput(Problem.at(path, f"must be a mapping to {of} by name, but is {shown(given)!r}."))
    return given


def _number(value: object) -> float | None:
    """As a float; None of what is no finite number. True is none: it is a slip for a value."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _pair(value: object) -> tuple[float, float] | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = _number(value[0]), _number(value[1])
    return None if low is None or high is None else (low, high)


def _unknown(model: Model, given: Mapping[str, object], path: Path) -> list[Problem]:
    names = ", ".join(model.parameters)
    return [
        Problem.at((*path, str(name)), f"is not a parameter of {model.name} ({names}).")
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
